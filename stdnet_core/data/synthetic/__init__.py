"""Unlimited procedural RGB-D video with exact depth, validity, optical flow and intrinsics.

    clip = render_clip(seed=7, frames=7, height=128, width=128)

A scene consists of dozens to hundreds of boxes, ellipsoids, cylinders and cones (:mod:`.scene`, arranged by
:mod:`.layouts` and :mod:`.objects`). They are ray-cast analytically (:mod:`.intersect`, :mod:`.raycast`), shaded
(:mod:`.shading`) and seen by an imperfect camera (:mod:`.sensor`). It runs on the CPU or a GPU, many clips at once."""

from .config import SyntheticConfig
from .demo import demo_sequence
from .generator import SceneSequence, SyntheticSequence, render_clip, render_clips

__all__ = ["SceneSequence", "SyntheticConfig", "SyntheticSequence", "demo_sequence", "render_clip", "render_clips"]
