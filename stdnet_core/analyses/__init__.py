"""The paper's figures: what ``python -m stdnet_core.analyze`` draws and counts."""
