"""Depth and error arrays as colours, for pictures and videos. Needs OpenCV alone.

Near is warm and far is cold in depth pictures, black where there is no depth; errors go from black over purple to
yellow, grey where there is none to know. All results are RGB, uint8."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

NO_DEPTH, NO_ERROR = 0, 112
"""Grey level of pixels without a value: an error of 0 is black already."""
_DEPTH_COLORS = (20, 238)
"""The part of the map that depth takes: its dark ends would be taken for holes."""


def colorize_depth(depth: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Depth (H, W) as an RGB picture (H, W, 3): red at ``low``, blue at ``high``; NaN, inf and 0 black."""
    depth = np.asarray(depth)
    return _colorize(depth, high, low, cv2.COLORMAP_TURBO, np.isfinite(depth) & (depth > 0), part=_DEPTH_COLORS)


def colorize_error(error: NDArray[np.floating], high: float) -> NDArray[np.uint8]:
    """|Error| (H, W) as an RGB picture (H, W, 3): dark at 0, yellow at ``high`` and above; NaN grey."""
    error = np.abs(np.asarray(error))
    return _colorize(error, 0.0, high, cv2.COLORMAP_INFERNO, np.isfinite(error), NO_ERROR)


def colorize_confidence(confidence: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Confidence (H, W) in 0..1 as an RGB picture (H, W, 3): dark blue at 0, yellow at 1; NaN black."""
    confidence = np.asarray(confidence)
    return _colorize(confidence, 0.0, 1.0, cv2.COLORMAP_VIRIDIS, np.isfinite(confidence))


def _colorize(
    values: NDArray[np.floating],
    at_0: float,
    at_1: float,
    colormap: int,
    shown: NDArray[np.bool_],
    nothing: int = NO_DEPTH,
    part: tuple[int, int] = (0, 255),
) -> NDArray[np.uint8]:
    """Colours of ``values``, which are scaled so that the map begins at ``at_0`` and ends at ``at_1``; ``nothing`` is
    the grey level where they are not ``shown``; ``part``: first and last index of the map."""
    span = at_1 - at_0
    scaled = (np.where(shown, values, at_0).astype(np.float32) - at_0) / (span if span else 1.0)
    first, last = part
    indices = np.rint(first + np.clip(scaled, 0.0, 1.0) * (last - first)).astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(indices, colormap), cv2.COLOR_BGR2RGB)
    picture[~shown] = nothing
    return picture
