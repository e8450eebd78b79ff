"""Speed of the networks: ``python -m stdnet_core.benchmark``."""
