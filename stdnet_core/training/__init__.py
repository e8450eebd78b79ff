"""The parts of ``python -m stdnet_core.train``: configuration, data mixture, training loop, state on disk."""
