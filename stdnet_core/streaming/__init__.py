"""Runs the network frame by frame, with the same results as on a whole clip; values are only recomputed if needed.

:mod:`.schedule` determines what a new frame changes, :mod:`.execution` computes it, :mod:`.stream` holds the ring
buffers. :mod:`.fixed_step` is the same step as a pure function of tensors, for compilers, CUDA graphs and export.
:mod:`.video` runs whole videos in constant memory."""

from stdnet_core.streaming.schedule import Schedule, whole_clip_latency
from stdnet_core.streaming.stream import StreamingSTDNet, StreamOutput, StreamState
from stdnet_core.streaming.video import upsample_video

__all__ = ["Schedule", "StreamOutput", "StreamState", "StreamingSTDNet", "upsample_video", "whole_clip_latency"]
