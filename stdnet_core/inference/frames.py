"""Single RGB-D frames from a camera or a file: checks, units, the grid of depth cells, and the depth range.

All arrays are numpy. Depth is float32 metres, 0 where invalid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from stdnet_core.depth_units import DepthUnits
from stdnet_core.errors import InputError
from stdnet_core.inference.fill import valid_depth
from stdnet_core.inference.normalization import FIRST_FRAME_HEADROOM

EDGE_CONTRAST = 0.05
"""Neighbouring cells whose depths differ by more than this share belong to different surfaces and are not mixed."""

_MILLIMETRES = DepthUnits()
_MAX_SAMPLES = 8  # samples along each axis of a cell, over which the median is taken on a coarser grid


def check_rgb(rgb: np.ndarray) -> np.ndarray:
    """A colour image as uint8 or float32 (H, W, 3); it is not copied if it has this form already.

    Raises:
        InputError: not (H, W, 3), empty, another type, or float values outside 0..1.
    """
    if not isinstance(rgb, np.ndarray) or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise InputError(f"colour is {_describe(rgb)}; give an array of shape (H, W, 3) in the order R, G, B")
    if rgb.dtype == np.uint8:
        return rgb
    if not np.issubdtype(rgb.dtype, np.floating):
        raise InputError(f"colour has type {rgb.dtype}; give uint8 in 0..255 or float in 0..1")
    low, high = float(rgb.min()), float(rgb.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise InputError(f"float colour has values from {low:g} to {high:g}; divide it so that they lie in 0..1")
    return rgb.astype(np.float32, copy=False)


def to_metres(depth: np.ndarray, max_depth: float | None = None) -> np.ndarray:
    """A depth image as float32 metres with 0 where invalid.

    Args:
        depth: (h, w), float metres (0, negative, NaN and infinite are invalid) or uint16 millimetres (0 and 65535 are
            invalid).
        max_depth: metres; larger depths are invalid.

    Returns:
        (h, w) float32, always a new array.

    Raises:
        InputError: not two-dimensional, empty, or of another type.
    """
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or 0 in depth.shape:
        raise InputError(f"depth is {_describe(depth)}; give an array of shape (h, w)")
    if depth.dtype == np.uint16:
        metres = _MILLIMETRES.metres(depth)
        return metres if max_depth is None else np.where(metres <= max_depth, metres, np.float32(0))
    if not np.issubdtype(depth.dtype, np.floating):
        raise InputError(f"depth has type {depth.dtype}; give float metres or uint16 millimetres")
    metres = depth.astype(np.float32)
    valid = valid_depth(metres)
    if max_depth is not None:
        valid &= metres <= max_depth
    metres[~valid] = 0
    return metres


def _describe(value: object) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


@dataclass(frozen=True)
class Geometry:
    """Sizes of a stream, and the grid of depth cells that is upsampled.

    Attributes:
        size: (H, W) of colour and of the result.
        depth_size: (h, w) of the input depth.
        scale: colour pixels along the side of a grid cell; None: the cells are those of the input depth, which divide
            the colour image evenly at a ratio that is not an integer.
        resampled: whether the input depth has other cells than the grid.
    """

    size: tuple[int, int]
    depth_size: tuple[int, int]
    scale: int | None
    resampled: bool

    @property
    def ratio(self) -> float:
        """How many times larger colour is than depth, along an axis."""
        return math.sqrt(math.prod(self.size) / math.prod(self.depth_size))

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of depth cells: ceil(H / scale), ceil(W / scale)."""
        if self.scale is None:
            return self.depth_size
        return -(-self.size[0] // self.scale), -(-self.size[1] // self.scale)

    @property
    def covered(self) -> tuple[int, int]:
        """(height, width) in colour pixels that the grid covers: at least (H, W), from the top left."""
        if self.scale is None:
            return self.size
        return self.grid[0] * self.scale, self.grid[1] * self.scale

    @classmethod
    def choose(cls, size: tuple[int, int], depth_size: tuple[int, int], scales: Sequence[int]) -> Geometry:
        """The geometry at one of the given scales: the one whose cells depth has. If there is none, the next finer
        scale, so that a coarser grid does not lose measurements; or the finest, if depth is finer than all of them.

        Args:
            size: (H, W) of colour.
            depth_size: (h, w) of depth.
            scales: the scales to choose from.

        Raises:
            InputError: depth is larger than colour or has another aspect ratio.
        """
        _check_view(size, depth_size)
        ratio = math.sqrt(math.prod(size) / math.prod(depth_size))
        fitting = [s for s in scales if cells_fit(size, depth_size, s)]
        if fitting:
            return cls(size, depth_size, min(fitting, key=lambda s: abs(s - ratio)), False)
        finer = [s for s in scales if s <= ratio]
        return cls(size, depth_size, max(finer) if finer else min(scales), True)

    @classmethod
    def native(cls, size: tuple[int, int], depth_size: tuple[int, int]) -> Geometry:
        """The geometry whose cells are those of depth, at any ratio; arguments and errors as for :meth:`choose`."""
        _check_view(size, depth_size)
        nearest = max(1, round(math.sqrt(math.prod(size) / math.prod(depth_size))))
        return cls(size, depth_size, nearest if cells_fit(size, depth_size, nearest) else None, False)

    def to_grid(self, depth: np.ndarray) -> np.ndarray:
        """Resample a depth image of ``depth_size`` to the grid of cells.

        Where the scale does not divide the size, cells missing at the right and at the bottom are replicated. Depth
        with other cells is resampled without mixing surfaces. For a finer or similar grid, this is bilinear
        interpolation over the valid neighbours, or at an edge the nearest of them; for a coarser grid, the median of
        the valid samples.

        Args:
            depth: (h, w) float32 metres, 0 where invalid.

        Returns:
            (rows, columns) float32 metres, 0 where invalid.
        """
        rows, columns = self.grid
        if not self.resampled:
            below, right = rows - depth.shape[0], columns - depth.shape[1]
            return np.pad(depth, ((0, below), (0, right)), mode="edge") if below or right else depth
        steps = [self.scale * lr / hr for hr, lr in zip(self.size, depth.shape, strict=True)]
        if max(steps) >= 1.5:
            return _median_cells(depth, (rows, columns), steps)
        return _interpolated_cells(depth, (rows, columns), steps)


def _check_view(size: tuple[int, int], depth_size: tuple[int, int]) -> None:
    (height, width), (rows, columns) = size, depth_size
    if rows > height or columns > width:
        raise InputError(
            f"depth of {columns}x{rows} is larger than colour of {width}x{height}; "
            "upsampling needs colour of at least the size of depth"
        )
    if abs(width * rows - height * columns) > max(width, height):  # more than one depth pixel off
        raise InputError(
            f"depth of {columns}x{rows} has another aspect than colour of {width}x{height}, so their pixels cannot "
            "correspond; register depth to the colour camera first, e.g. with depth_image_proc/register"
        )


def cells_fit(size: tuple[int, int], depth_size: tuple[int, int], scale: int) -> bool:
    """Whether depth is a grid of cells of ``scale`` x ``scale`` pixels from the top left; the last cell of an axis may
    be cut off or missing."""
    return all(lr in (hr // scale, -(-hr // scale)) for hr, lr in zip(size, depth_size, strict=True))


def _median_cells(depth: np.ndarray, grid: tuple[int, int], steps: list[float]) -> np.ndarray:
    """Lower median of the valid samples in each cell; the samples are evenly spaced."""
    samples = min(_MAX_SAMPLES, math.ceil(max(steps)))
    at = (np.arange(samples) + 0.5) / samples
    index = [
        np.minimum((np.arange(cells)[:, None] + at) * step, lr - 1).astype(np.intp).ravel()
        for cells, step, lr in zip(grid, steps, depth.shape, strict=True)
    ]
    values = depth[np.ix_(*index)].reshape(grid[0], samples, grid[1], samples).transpose(0, 2, 1, 3)
    ordered = np.where(values > 0, values, np.inf).reshape(*grid, samples * samples)
    ordered.sort(-1)
    count = np.isfinite(ordered).sum(-1, keepdims=True)
    median = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, -1)
    return np.where(count > 0, median, 0)[..., 0].astype(np.float32)


def _interpolated_cells(depth: np.ndarray, grid: tuple[int, int], steps: list[float]) -> np.ndarray:
    lower, upper, fraction = [], [], []
    for cells, step, lr in zip(grid, steps, depth.shape, strict=True):
        at = np.clip((np.arange(cells, dtype=np.float32) + 0.5) * step - 0.5, 0, lr - 1)
        lower.append(np.floor(at).astype(np.intp))
        upper.append(np.minimum(lower[-1] + 1, lr - 1))
        fraction.append((at - lower[-1]).astype(np.float32))
    (top, left), (bottom, right), (fy, fx) = lower, upper, fraction
    corners = np.stack([depth[np.ix_(y, x)] for y in (top, bottom) for x in (left, right)])
    weights = np.stack([np.outer(wy, wx) for wy in (1 - fy, fy) for wx in (1 - fx, fx)]) * (corners > 0)
    total = weights.sum(0)
    mixed = (weights * corners).sum(0) / np.maximum(total, 1e-6)
    used = weights > 0
    largest = np.where(used, corners, 0).max(0)
    smallest = np.where(used, corners, np.inf).min(0, initial=np.inf)
    closest = np.take_along_axis(corners, weights.argmax(0)[None], 0)[0]
    cells = np.where(largest - smallest > EDGE_CONTRAST * largest, closest, mixed)
    return np.where(total > 1e-6, cells, 0).astype(np.float32)


def pad_colour(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pad (H, W, 3) to a size (H', W') that is at least as large, by replicating the right and bottom border."""
    below, right = size[0] - rgb.shape[0], size[1] - rgb.shape[1]
    if not below and not right:
        return rgb
    return cv2.copyMakeBorder(rgb, 0, below, 0, right, cv2.BORDER_REPLICATE)


class DepthRange:
    """The range in metres by which depths are divided: fixed, or set by the window's first frame with valid depth.

    If depth leaves the range of the first frame, the window must restart. This takes several frames in a row outside
    the range, so that a single outlier does not clear the window.

    Args:
        fixed: metres, or None: 1.25 times the largest depth of the window's first frame, as
            :func:`stdnet_core.inference.normalization.clip_depth_range` defines it for a whole clip.
    """

    LOWEST, HIGHEST = 0.5, 1.5  # limits of a frame's largest depth, relative to that of the first frame
    PATIENCE = 5  # frames in a row

    def __init__(self, fixed: float | None) -> None:
        self.fixed = fixed
        self.reset()

    def reset(self) -> None:
        """Begin a new window."""
        self._first: float | None = None
        self._used_without_depth = False
        self._outside = 0

    @property
    def metres(self) -> float:
        """The range in use; 1 m before the first valid depth."""
        if self.fixed is not None:
            return self.fixed
        return 1.0 if self._first is None else FIRST_FRAME_HEADROOM * self._first

    def observe(self, largest: float) -> bool:
        """Update with a frame's largest depth (0: no valid depth). Return whether the window must restart."""
        if self.fixed is not None:
            return False
        if largest == 0:
            self._used_without_depth = self._used_without_depth or self._first is None
            return False
        if self._first is None:
            self._first = largest
            return self._used_without_depth
        left = not self.LOWEST <= largest / self._first <= self.HIGHEST
        self._outside = self._outside + 1 if left else 0
        if self._outside < self.PATIENCE:
            return False
        self._first, self._outside = largest, 0
        return True
