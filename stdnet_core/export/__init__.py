"""Networks as ONNX files: ``python -m stdnet_core.export``."""
