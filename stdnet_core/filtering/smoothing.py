"""Edge-aware smoothing of inverse depth, relative to its uncertainty.

A pixel is averaged with pairs of pixels on opposite sides of it. The mean of a pair is the value of the plane through
both, so slopes are preserved; its weight is how well it agrees with the pixel between. Lags grow from pass to pass (an
à trous filter), which gives wide support with few taps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LAGS = (1, 2, 4, 8)
"""Pixels to the ends of a pair in each pass."""

_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
_REACH = 3.5  # standard deviations at which the weight of a pair becomes 0
_SHRINK = 0.8  # standard deviation after a pass, relative to that before


def smooth(inverse: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Smooth inverse depth.

    Args:
        inverse: (h, w) float32 1/m, 0 where invalid.
        deviation: (h, w) float32, standard deviation of each value; where it is 0, nothing is changed.

    Returns:
        (h, w) float32, 0 where invalid.
    """
    # PyTorch runs this on several threads; numpy would use one.
    with torch.inference_mode():
        values = torch.from_numpy(np.ascontiguousarray(inverse))
        known = values > 0
        scale = (1 / _REACH) / torch.from_numpy(np.ascontiguousarray(deviation)).clamp_min(1e-9)
        for lag in LAGS:
            values = _pass(values, known, scale, lag)
            scale = scale * (1 / _SHRINK)
        return values.numpy()


def _pass(values: Tensor, known: Tensor, scale: Tensor, lag: int) -> Tensor:
    height, width = values.shape
    total, weights = values.clone(), torch.ones_like(values)
    for down, right in _DIRECTIONS:
        down, right = lag * down, lag * right
        side = abs(right)
        if height <= 2 * down or width <= 2 * side:
            continue
        middle = np.s_[down : height - down, side : width - side]
        first = values[: height - 2 * down, side - right : width - side - right]
        last = values[2 * down :, side + right : width - side + right]
        mean = (first + last).mul_(0.5)
        agreement = (mean - values[middle]).mul_(scale[middle]).square_().neg_().add_(1).clamp_min_(0)
        both = torch.minimum(first, last).sign_()  # 0 where one of them is invalid
        weight = agreement.square_().mul_(both).mul_(2)  # a pair is two measurements
        weights[middle] += weight
        total[middle] += weight.mul_(mean)
    return total.div_(weights).mul_(known)
