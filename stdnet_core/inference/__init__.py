"""Upsampling of one stream: :class:`DepthUpsampler` and what it is made of.

Frames are checked and put on a grid of depth cells (``frames``), holes are filled (``fill``), an engine runs the
network (``engine`` with PyTorch, ``onnx_engine`` with ONNX Runtime) or a classical method stands in (``classical``),
and each pixel gets a confidence (``confidence``)."""

from stdnet_core.inference.upsampler import BACKENDS, MAX_LATENCY, METHODS, DepthUpsampler, UpsampledDepth

__all__ = ["BACKENDS", "MAX_LATENCY", "METHODS", "DepthUpsampler", "UpsampledDepth"]
