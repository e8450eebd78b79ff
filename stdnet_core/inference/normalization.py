"""The range by which the depth of a clip is divided before it enters the network.

The paper divides by a constant per data set (30 m, 40 m). A robot works in rooms and streets, so a checkpoint can
instead require that each clip is divided by its own range. This range depends on the first frame alone, so that a
stream and an offline clip are normalised alike."""

from __future__ import annotations

from torch import Tensor

FIRST_FRAME_HEADROOM = 1.25
"""Ratio of a clip's range to the largest depth of its first frame. It leaves room for larger depths in later frames."""


def clip_depth_range(depth_lr: Tensor) -> Tensor:
    """Range of each clip in metres.

    Args:
        depth_lr: low-resolution depth (B, T, 1, h, w) in metres, 0 where invalid.

    Returns:
        (B, 1, 1, 1, 1): 1.25 times the largest depth of the first frame that has valid depth; 1 m if none has.
    """
    per_frame = depth_lr.flatten(2).amax(2)  # (B, T)
    first = (per_frame > 0).int().argmax(1, keepdim=True)
    largest = per_frame.gather(1, first)
    largest = largest.where(largest > 0, largest.new_tensor(1.0 / FIRST_FRAME_HEADROOM))
    return (FIRST_FRAME_HEADROOM * largest)[..., None, None, None]
