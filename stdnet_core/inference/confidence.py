"""How far a pixel of upsampled depth can be trusted: its confidence, and whether it floats between two surfaces."""

from __future__ import annotations

import cv2
import numpy as np

from stdnet_core.filtering import Filtered
from stdnet_core.inference.frames import Geometry

TOLERANCE_M = 0.02
TOLERANCE_SHARE = 0.02
"""Confidence is the probability of an error below TOLERANCE_M metres or TOLERANCE_SHARE of the depth, whichever is
larger."""

# The Laplace scale of the error is estimated from the spread of the depth. The factors are chosen so that joint
# bilateral upsampling of rendered clips with dToF-like depth at x4, x8 and x16 is within the tolerance as often as its
# confidence says (0.19, 0.25, 0.38, 0.76, 0.98 of the pixels with a confidence of 0.19, 0.30, 0.51, 0.71, 0.93).
_ERROR_FLOOR = 0.15  # smallest scale, in tolerances
_SPREAD_TO_SCALE = 0.1  # scale as a share of the range of depths in 3x3 cells
# The same for the guided temporal filter, at x1 on rendered clips with stereo and phase time-of-flight depth.
_FILTER_FLOOR = 0.1
_DEVIATION_TO_SCALE = 0.35  # scale as a share of the filter's deviation
_FILL_ERROR = np.array([0.0, 0.85, 1.15, 1.55, 2.5, 3.2, 6.4, 100.0], np.float32)
"""Scale of a filled pixel in tolerances, by its distance from a measurement: 1, below 2, 4, 8, ... pixels."""
_NEITHER_END = 0.2  # a flying pixel is at least this share of the jump away from both of its ends


def tolerance(depth: np.ndarray) -> np.ndarray:
    """Error in metres up to which a depth counts as correct."""
    return np.maximum(np.float32(TOLERANCE_M), np.float32(TOLERANCE_SHARE) * depth)


def within_tolerance(depth: np.ndarray, laplace_scale: np.ndarray) -> np.ndarray:
    """Probability that an error is below the tolerance, if errors follow a Laplace distribution of this scale (m)."""
    ratio = tolerance(depth) / np.maximum(laplace_scale, np.float32(1e-6))
    return np.float32(1) - np.exp(-ratio)  # expm1 is ten times slower


def stage_confidence(depth: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
    """Confidence for a network that predicts none: the disagreement of its two stages (m) is the error estimate."""
    return within_tolerance(depth, disagreement + _ERROR_FLOOR * tolerance(depth))


def cell_confidence(cells: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Confidence without a network: low where depth varies within 3x3 cells, and next to invalid cells.

    Args:
        cells: depth on ``geometry.grid``, float32 metres, 0 where invalid.

    Returns:
        (H, W) float32.
    """
    farthest, closest = _extremes(cells, cells > 0)
    scale = _SPREAD_TO_SCALE * (farthest - closest) + _ERROR_FLOOR * tolerance(farthest)
    of_cells = np.where(cells > 0, within_tolerance(farthest, scale), np.float32(0)).astype(np.float32)
    return _on_colour(of_cells, geometry)


def filter_confidence(filtered: Filtered, geometry: Geometry) -> np.ndarray:
    """Confidence of the guided temporal filter, from the remaining noise, the spread in 3x3 pixels, and the distance of
    a filled pixel from a measurement.

    Returns:
        (H, W) float32; 0 where there is no depth.
    """
    depth = filtered.depth
    farthest, closest = _extremes(depth, depth > 0)
    right = tolerance(depth)
    scale = _FILTER_FLOOR * right + _DEVIATION_TO_SCALE * filtered.deviation + _SPREAD_TO_SCALE * (farthest - closest)
    scale += _FILL_ERROR[np.minimum(filtered.origin, len(_FILL_ERROR) - 1)] * right
    confidence = np.where(depth > 0, within_tolerance(depth, scale), np.float32(0)).astype(np.float32)
    return _on_colour(confidence, geometry)


def _on_colour(of_cells: np.ndarray, geometry: Geometry) -> np.ndarray:
    height, width = geometry.size
    if of_cells.shape == geometry.covered:
        return of_cells[:height, :width]
    return cv2.resize(of_cells, geometry.covered[::-1], interpolation=cv2.INTER_LINEAR)[:height, :width]


def flying_pixels(depth: np.ndarray, valid: np.ndarray, threshold: float) -> np.ndarray:
    """Flying pixels: depth jumps within the 3x3 around them, and their own depth is at neither end of the jump.

    Args:
        depth: (H, W) float32 metres.
        valid: (H, W) bool, the pixels to consider.
        threshold: smallest jump, as a share of the pixel's depth.

    Returns:
        (H, W) bool.
    """
    farthest, closest = _extremes(depth, valid)
    with np.errstate(invalid="ignore", over="ignore"):
        jump = farthest - closest
        inside = np.minimum(farthest - depth, depth - closest)
        return valid & (jump > threshold * depth) & (inside > _NEITHER_END * jump)


def _extremes(depth: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest (0 if there is none) and smallest valid depth in the 3x3 around each pixel."""
    window = np.ones((3, 3), np.uint8)
    if valid.all():
        return cv2.dilate(depth, window), cv2.erode(depth, window)
    most = np.float32(np.finfo(np.float32).max)
    return cv2.dilate(np.where(valid, depth, np.float32(0)), window), cv2.erode(np.where(valid, depth, most), window)
