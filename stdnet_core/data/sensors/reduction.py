"""Downsampling of depth: by one sample of each cell, its mean, median or minimum, or by an image resize.

Drivers, filters and recordings do all of these to depth images. At any ratio, integer or not, the cells divide the
image evenly. Only measured pixels count; a cell without any is invalid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws
from stdnet_core.data.sensors.view import Memory, View
from stdnet_core.errors import ConfigError

METHODS = ("nearest", "area", "median", "min", "bilinear", "bicubic", "decimation")
_DECIMATED_BY_MEAN = 3.5  # ratio from which on librealsense's decimation filter computes the mean
_HALF = 0.5  # share of valid weight from which an interpolated cell is valid


@dataclass(frozen=True)
class Reduction:
    """Downsampled ground truth; also applied to the measurements of other cameras.

    Attributes:
        method: ``nearest`` (one pixel of each cell), ``area`` (mean), ``median`` (the lower one), ``min``, ``bilinear``
            (an image resize without low-pass filter, which creates depths between two surfaces), ``bicubic`` (with
            low-pass filter), or ``decimation`` (librealsense's: the median below x4, otherwise the mean).
        phase: position in the cell of the pixel that ``nearest`` uses, on both axes: 0 the corner (every k-th pixel),
            0.5 the centre. None: drawn for each clip and axis.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    method: str = "nearest"
    phase: float | None = 0.5

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"reduction method {self.method!r} is unknown; use one of {', '.join(METHODS)}")
        if self.phase is not None and not 0 <= self.phase < 1:
            raise ConfigError(f"reduction phase is {self.phase}; it must be from 0 to below 1, or null to draw it")

    def measure(self, view: View, size: tuple[int, int], draws: Draws, memory: Memory) -> Tensor:
        """See :class:`stdnet_core.data.sensors.view.Measurement`."""
        return self.apply(view.depth, size, draws)

    def apply(self, depth: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
        """Reduce measured depth (T, H, W), 0 invalid, to (T, h, w)."""
        if self.phase is not None:
            return reduce_depth(depth, size, self.method, self.phase)
        if self.method != "nearest":
            return reduce_depth(depth, size, self.method)
        down, right = draws.clip_uniform("reduction phase", 2).tolist()
        return reduce_depth(depth, size, self.method, (down, right))


def reduce_depth(depth: Tensor, size: tuple[int, int], method: str, phase: float | tuple[float, float] = 0.5) -> Tensor:
    """Reduce depth by one of :data:`METHODS`.

    Args:
        depth: (T, H, W) metres, 0 invalid.
        size: (h, w), at most (H, W).
        method: see :class:`Reduction`.
        phase: for ``nearest``; a pair is for rows and columns.

    Returns:
        (T, h, w) metres, 0 invalid; ``depth`` itself if the size is the same.
    """
    if depth.shape[-2:] == torch.Size(size):
        return depth
    if method == "nearest":
        phases = phase if isinstance(phase, tuple) else (phase, phase)
        rows, columns = (
            cell_samples(length, cells, 1, at).flatten().to(depth.device)
            for length, cells, at in zip(depth.shape[-2:], size, phases, strict=True)
        )
        return depth[..., rows[:, None], columns]
    if method == "decimation":
        method = "median" if depth.shape[-1] < _DECIMATED_BY_MEAN * size[1] else "area"
    if method in ("median", "min"):
        return _order_statistic(depth, size, method)
    valid = (depth > 0).to(depth.dtype)
    if method == "area":
        share = _resample(valid, size, _overlaps)
        return torch.where(share > 0, _resample(depth, size, _overlaps) / share.clamp_min(1e-9), share.new_zeros(()))
    if method == "bilinear":
        share, total = _resample(valid, size, _linear_weights), _resample(depth, size, _linear_weights)
    else:
        both = torch.stack((valid, depth), 1)
        both = F.interpolate(both, size, mode="bicubic", align_corners=False, antialias=True)
        share, total = both.unbind(1)
    return torch.where(share > _HALF, (total / share.clamp_min(_HALF)).clamp_min(0), share.new_zeros(()))


def cell_samples(length: int, cells: int, samples: int, phase: float = 0.5, width: float = 1.0) -> Tensor:
    """The pixels of an axis on which the samples of each cell fall.

    Args:
        length: number of pixels.
        cells: number of cells, which divide the axis evenly.
        samples: per cell, evenly spread over it.
        phase: position of a sample in its share of the cell, 0 to below 1.
        width: of a cell's window in cells; above 1, windows overlap.

    Returns:
        (cells, samples) int64.
    """
    within = (torch.arange(samples, dtype=torch.float64) + phase) / samples
    at = torch.arange(cells, dtype=torch.float64)[:, None] + 0.5 + (within - 0.5) * width
    return (at * (length / cells) + 1e-9).floor().long().clamp(0, length - 1)


def samples_per_cell(length: int, cells: int, width: float = 1.0) -> int:
    """Number of samples that cover every pixel of a cell's window once, or nearly so if pixels do not divide evenly."""
    return max(1, math.ceil(length / cells * width - 1e-6))


def _order_statistic(depth: Tensor, size: tuple[int, int], method: str) -> Tensor:
    rows, columns = (
        cell_samples(length, cells, samples_per_cell(length, cells)).to(depth.device)
        for length, cells in zip(depth.shape[-2:], size, strict=True)
    )
    values = depth[..., rows[:, None, :, None], columns[None, :, None, :]].flatten(-2)  # (T, h, w, samples)
    values = values.where(values > 0, values.new_tensor(torch.inf))
    if method == "min":
        found = values.amin(-1)
    else:
        count = values.isfinite().sum(-1, keepdim=True)
        found = values.sort(-1).values.gather(-1, (count - 1).clamp_min(0) // 2).squeeze(-1)
    return found.where(found.isfinite(), found.new_zeros(()))


def reduce_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean of each cell of images (T, H, W) without holes, (T, h, w)."""
    return image if image.shape[-2:] == torch.Size(size) else _resample(image, size, _overlaps)


def _resample(image: Tensor, size: tuple[int, int], weights: Callable[[int, int], Tensor]) -> Tensor:
    """Resample (T, H, W) to (T, h, w) with one matrix per axis."""
    rows, columns = (weights(length, cells).to(image) for length, cells in zip(image.shape[-2:], size, strict=True))
    return rows @ image @ columns.T


def _overlaps(length: int, cells: int) -> Tensor:
    """(cells, length): the share of each cell that each pixel covers."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * (length / cells)
    pixels = torch.arange(length, dtype=torch.float64)
    last = torch.minimum(edges[1:, None], pixels + 1)
    first = torch.maximum(edges[:-1, None], pixels)
    return (last - first).clamp_min(0) * (cells / length)


def _linear_weights(length: int, cells: int) -> Tensor:
    """(cells, length): bilinear weights at the centres of the cells."""
    at = ((torch.arange(cells, dtype=torch.float64) + 0.5) * (length / cells) - 0.5).clamp(0, length - 1)
    return (1 - (at[:, None] - torch.arange(length, dtype=torch.float64)).abs()).clamp_min(0)
