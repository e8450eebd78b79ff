"""What ``python -m stdnet_core.train`` is made of: configuration, data mixture, loop, state on disk."""
