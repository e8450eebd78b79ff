"""The metrics of depth video as pure functions that need only torch (the stateful classes are in
:mod:`stdnet_core.evaluation.metrics`).

Depth is given in metres, and every figure is in centimetres. Each function returns sums and counts, one per clip
(:class:`Pooled`), so that the clips of a sequence can be pooled as if they were one: add them up, then take
:meth:`Pooled.mean` or :meth:`Pooled.root_mean`. Shapes are (..., T, 1, H, W) with any leading dimensions.

RMSE, MAE and the temporal end-point error (TEPE) are those of the paper's tables. The others show where the errors
are: at depth edges, where interpolation fails (the paper's spatial long tail, fig. 2 and 4), where depth changes along
the motion, and from frame to frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stdnet_core.evaluation.splatting import forward_warp

CENTIMETRES = 100.0
DELTA1_RATIO = 1.25
EDGE_STEP = 0.05
"""Smallest step of ground-truth depth between neighbouring pixels that is an edge, relative to the nearer one."""
EDGE_WIDTH = 2
"""Pixels (in rows and columns) around an edge that count as edge."""
LONG_TAIL = 0.1
"""A pixel belongs to a tail if its depth differs by at least this, in metres, from interpolation (spatial tail) or
from the frame before (motion tail)."""
STILL_COLOR = 8.5 / 255
"""A pixel counts as still if no colour channel changes by more over three frames: by 8 of 255 levels at most."""


@dataclass(frozen=True)
class Pooled:
    """A sum over pixels and their number; (...) one per clip, float64."""

    total: Tensor
    count: Tensor

    def __add__(self, other: Pooled) -> Pooled:
        return Pooled(self.total + other.total, self.count + other.count)

    def mean(self) -> Tensor:
        """Total / count; NaN where nothing was counted."""
        return self.total / self.count

    def root_mean(self) -> Tensor:
        """Square root of total / count; NaN where nothing was counted."""
        return self.mean().sqrt()

    @classmethod
    def zero(cls) -> Pooled:
        """Nothing counted yet."""
        return cls(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


def pool(values: Tensor, counted: Tensor) -> Pooled:
    """Sum and number of the values (..., T, 1, H, W) where ``counted``, per clip."""
    dims = (-4, -3, -2, -1)
    chosen = values.where(counted, values.new_zeros(()))
    return Pooled(chosen.double().sum(dims), counted.double().sum(dims))


def squared_error(pred: Tensor, target: Tensor, valid: Tensor) -> Pooled:
    """Squared error in cm^2 over valid pixels; its root mean is the RMSE in cm."""
    return pool(((pred - target) * CENTIMETRES).square(), valid)


def absolute_error(pred: Tensor, target: Tensor, valid: Tensor) -> Pooled:
    """Absolute error in cm over valid pixels; its mean is the MAE in cm."""
    return pool((pred - target).abs() * CENTIMETRES, valid)


def within_delta1(pred: Tensor, target: Tensor, valid: Tensor) -> Pooled:
    """Valid pixels with max(pred / target, target / pred) < 1.25; the mean is their share, 0..1."""
    right = (pred < DELTA1_RATIO * target) & (target < DELTA1_RATIO * pred)
    return pool(right.float(), valid)


def edge_mask(target: Tensor, valid: Tensor, step: float = EDGE_STEP, width: int = EDGE_WIDTH) -> Tensor:
    """Pixels near a depth edge, (..., T, 1, H, W) bool: at most ``width`` rows and columns from either of two valid
    neighbours whose depths differ by more than ``step`` times the nearer one."""
    edge = torch.zeros_like(valid)
    for dim in (-1, -2):
        length = target.shape[dim]
        if length < 2:
            continue
        first, second = target.narrow(dim, 0, length - 1), target.narrow(dim, 1, length - 1)
        both = valid.narrow(dim, 0, length - 1) & valid.narrow(dim, 1, length - 1)
        jump = both & ((second - first).abs() > step * torch.minimum(first, second))
        edge.narrow(dim, 0, length - 1).logical_or_(jump)
        edge.narrow(dim, 1, length - 1).logical_or_(jump)
    near = F.max_pool2d(edge.flatten(0, -4).float(), 2 * width + 1, stride=1, padding=width)
    return near.reshape(edge.shape) > 0


def edge_squared_error(pred: Tensor, target: Tensor, valid: Tensor) -> Pooled:
    """:func:`squared_error` over the valid pixels near depth edges of the ground truth."""
    return squared_error(pred, target, valid & edge_mask(target, valid))


def spatial_long_tail(target: Tensor, upsampled: Tensor, valid: Tensor) -> Tensor:
    """Valid pixels where the interpolated low-resolution depth is wrong by 0.1 m or more.

    Args:
        target: ground-truth depth.
        upsampled: the low-resolution depth, bilinearly interpolated to the size of ``target``.
        valid: where there is ground truth.
    """
    return valid & ((target - upsampled).abs() >= LONG_TAIL)


@dataclass(frozen=True)
class WarpedPair:
    """Each frame of a clip but the last, warped to the next frame; (..., T-1, 1, H, W)."""

    pred: Tensor
    target: Tensor
    hit: Tensor
    """bool; where a valid pixel of the previous frame arrived."""


def warp_previous(pred: Tensor, target: Tensor, valid: Tensor, flow: Tensor) -> WarpedPair:
    """Warp frames 0..T-2 of prediction and ground truth along the flow (..., T-1, 2, H, W) to frames 1..T-1."""
    previous = torch.cat((pred[..., :-1, :, :, :], target[..., :-1, :, :, :]), -3)
    frames = previous.shape[:-3]
    warped, hit = forward_warp(previous.flatten(0, -4), flow.flatten(0, -4), valid[..., :-1, :, :, :].flatten(0, -4))
    warped = warped.unflatten(0, frames)
    return WarpedPair(warped[..., :1, :, :], warped[..., 1:, :, :], hit.unflatten(0, frames))


def temporal_end_point_error(pred: Tensor, target: Tensor, valid: Tensor, warped: WarpedPair) -> Pooled:
    """TEPE in cm: difference between the changes of predicted and of ground-truth depth along the flow.

    The mean is over *all* pixels of the frames 1..T-1 (DVSR's definition): pixels that are invalid or that the flow
    does not reach count as correct.
    """
    true_change = target[..., 1:, :, :, :] - warped.target
    change = pred[..., 1:, :, :, :] - warped.pred
    seen = valid[..., 1:, :, :, :] & warped.hit
    summed = pool((true_change - change).abs() * CENTIMETRES, seen)
    return Pooled(summed.total, torch.full_like(summed.count, math.prod(true_change.shape[-4:])))


def motion_tail(target: Tensor, valid: Tensor, flow: Tensor) -> Tensor:
    """Pixels of frames 1..T-1 whose ground-truth depth changes by 0.1 m or more along the flow (..., T-1, 2, H, W).

    Unlike for TEPE, points are warped without the renderer's offset of half a pixel, so that static points stay in
    place. The paper's temporal long tail differs: pixels whose depth changes at a fixed position, whatever moves there.

    Returns:
        (..., T-1, 1, H, W) bool.
    """
    previous, seen = target[..., :-1, :, :, :], valid[..., :-1, :, :, :]
    moved, hit = forward_warp(previous.flatten(0, -4), flow.flatten(0, -4), seen.flatten(0, -4), centre=0.0)
    moved, hit = (x.unflatten(0, previous.shape[:-3]) for x in (moved, hit))
    change = (target[..., 1:, :, :, :] - moved).abs()
    return valid[..., 1:, :, :, :] & hit & (change >= LONG_TAIL)


def flicker(pred: Tensor, target: Tensor, valid: Tensor) -> Pooled:
    """Flicker in cm, without optical flow: |change of predicted depth - change of ground-truth depth| from each frame
    to the next at the same pixel, where both frames are valid. 0 for a constant error, however large."""
    error = pred - target
    change = error[..., 1:, :, :, :] - error[..., :-1, :, :, :]
    both = valid[..., 1:, :, :, :] & valid[..., :-1, :, :, :]
    return pool(change.abs() * CENTIMETRES, both)


def jitter(pred: Tensor, rgb: Tensor, valid: Tensor | None = None) -> Pooled:
    """Jitter in cm, without ground truth or flow: |depth - mean of its two neighbours in time| where colour stays.

    Steady motion counts as 0. Pixels in which any colour channel changes by more than 8/255 over the three frames
    are left out.

    Args:
        pred: depth in metres.
        rgb: (..., T, 3, H, W), 0..1.
        valid: which predictions count; by default all finite ones.
    """
    valid = pred.isfinite() if valid is None else valid
    three = torch.stack([rgb[..., i : i + rgb.shape[-4] - 2, :, :, :] for i in range(3)])
    still = (three.amax(0) - three.amin(0)).amax(-3, keepdim=True) <= STILL_COLOR
    before, now, after = (slice(None, -2), slice(1, -1), slice(2, None))

    def frames(x: Tensor, part: slice) -> Tensor:
        return x[..., part, :, :, :]

    counted = still & frames(valid, before) & frames(valid, now) & frames(valid, after)
    middle = (frames(pred, before) + frames(pred, after)) / 2
    return pool((frames(pred, now) - middle).abs() * CENTIMETRES, counted)
