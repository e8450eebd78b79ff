"""Edge-aware smoothing of inverse depth, in units of its own uncertainty.

Pixels are averaged in pairs that lie opposite each other: the mean of a pair is the value of the plane through it, so
that slopes stay as they are, and it counts as much as it agrees with the pixel between. Lags grow from pass to pass (an
a trous filter), which makes the support wide at the cost of few taps."""

from __future__ import annotations

import numpy as np

LAGS = (1, 2, 4, 8)
"""Pixels to the ends of a pair in each pass."""

_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
_REACH = 3.5  # deviations at which the mean of a pair counts no more
_SHRINK = 0.8  # deviation after a pass, in that before


def smooth(inverse: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Smooth inverse depth.

    Args:
        inverse: (h, w) float32 1/m, 0 where invalid.
        deviation: (h, w) float32, of each value; where it is 0 nothing is changed.

    Returns:
        (h, w) float32, 0 where invalid.
    """
    values = inverse
    known = inverse > 0
    scale = np.float32(1 / _REACH) / np.maximum(deviation, np.float32(1e-9))
    for lag in LAGS:
        values = _pass(values, known, scale, lag)
        scale = scale * np.float32(1 / _SHRINK)
    return values


def _pass(values: np.ndarray, known: np.ndarray, scale: np.ndarray, lag: int) -> np.ndarray:
    height, width = values.shape
    total, weights = values.copy(), np.ones_like(values)
    for down, right in _DIRECTIONS:
        down, right = lag * down, lag * right
        side = abs(right)
        if height <= 2 * down or width <= 2 * side:
            continue
        middle = np.s_[down : height - down, side : width - side]
        first = values[: height - 2 * down, side - right : width - side - right]
        last = values[2 * down :, side + right : width - side + right]
        mean = first + last
        mean *= np.float32(0.5)
        weight = mean - values[middle]
        weight *= scale[middle]
        weight *= weight
        np.subtract(np.float32(1), weight, out=weight)
        np.maximum(weight, np.float32(0), out=weight)
        weight *= weight
        weight *= np.minimum(first, last) > 0
        weight *= np.float32(2)  # a pair is two measurements
        weights[middle] += weight
        weight *= mean
        total[middle] += weight
    total /= weights
    total *= known
    return total
