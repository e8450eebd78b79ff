"""Upsampling of one stream: :class:`DepthUpsampler` and its parts.

Frames are checked and resampled to a grid of depth cells (``frames``), and holes are filled (``fill``). An engine runs
the network (``engine`` with PyTorch, ``onnx_engine`` with ONNX Runtime), or a classical method replaces it
(``classical``). Each pixel gets a confidence (``confidence``)."""

from stdnet_core.inference.upsampler import BACKENDS, MAX_LATENCY, METHODS, DepthUpsampler, UpsampledDepth

__all__ = ["BACKENDS", "MAX_LATENCY", "METHODS", "DepthUpsampler", "UpsampledDepth"]
