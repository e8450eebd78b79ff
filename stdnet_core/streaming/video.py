"""Whole videos in constant memory, by streaming them instead of processing all frames at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from stdnet_core.model import STDNet
from stdnet_core.streaming.schedule import whole_clip_latency
from stdnet_core.streaming.stream import StreamingSTDNet, StreamOutput


def upsample_video(
    model: STDNet, frames: Iterable[tuple[Tensor, Tensor]], latency: int | None = None
) -> Iterator[StreamOutput]:
    """Outputs for all frames of a video of any length, in order.

    Memory does not grow with the length. At the default latency, every value is computed once, as for a whole clip.

    Args:
        frames: (rgb (B, 3, H, W), depth_lr (B, 1, h, w)) of each frame, as for :meth:`StreamingSTDNet.step`; read one
            at a time.
        latency: as for :class:`StreamingSTDNet`; None for the whole-clip result (8 frames for the paper's network).

    Raises:
        InputError: as for :meth:`StreamingSTDNet.step`.
    """
    stream = StreamingSTDNet(model, whole_clip_latency(model.config) if latency is None else latency)
    for rgb, depth_lr in frames:
        output = stream.step(rgb, depth_lr)
        if output is not None:
            yield output
    yield from stream.flush()
