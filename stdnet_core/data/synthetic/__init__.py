"""Unlimited procedural RGB-D video with exact depth, validity, optical flow and intrinsics.

    clip = render_clip(seed=7, frames=7, height=128, width=128)

A scene is dozens to hundreds of boxes, ellipsoids, cylinders and cones (:mod:`.scene`, arranged by :mod:`.layouts` and
:mod:`.objects`), cast analytically (:mod:`.intersect`, :mod:`.raycast`), shaded (:mod:`.shading`) and seen through
an imperfect camera (:mod:`.sensor`). Runs on the CPU and on a GPU, many clips at once."""

from .config import SyntheticConfig
from .demo import demo_sequence
from .generator import SceneSequence, SyntheticSequence, render_clip, render_clips

__all__ = ["SceneSequence", "SyntheticConfig", "SyntheticSequence", "demo_sequence", "render_clip", "render_clips"]
