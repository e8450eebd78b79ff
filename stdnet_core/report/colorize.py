"""Converts depth and error arrays to colours for pictures and videos; needs only OpenCV.

In depth pictures, near is warm, far is cold, and black is no depth. Errors go from black over purple to yellow; grey
means unknown. All results are RGB, uint8."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

NO_DEPTH, NO_ERROR = 0, 112
"""Grey levels of pixels without a value; those without an error are grey because black means an error of 0."""
_DEPTH_COLORS = (20, 238)
"""The part of the colour map used for depth; its dark ends would look like holes."""


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
    """Colours of ``values``: the map begins at ``at_0`` and ends at ``at_1``. ``nothing`` is the grey level of values
    that are not ``shown``; ``part`` is the first and the last index used of the map."""
    span = at_1 - at_0
    scaled = (np.where(shown, values, at_0).astype(np.float32) - at_0) / (span if span else 1.0)
    first, last = part
    indices = np.rint(first + np.clip(scaled, 0.0, 1.0) * (last - first)).astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(indices, colormap), cv2.COLOR_BGR2RGB)
    picture[~shown] = nothing
    return picture
