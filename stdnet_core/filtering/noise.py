"""Estimates the noise of a depth camera from its frames alone.

Everything is in inverse depth, 1/z. On a plane it is linear in the image, so that its second difference is pure noise;
and the noise of a stereo camera has the same standard deviation at every distance. The lag of the difference is longer
than a matching window, within which the noise of stereo is the same.

In each block of pixels, the median of the second differences is used, which edges hardly affect; over the blocks at a
distance, a low quantile is used, because curved surfaces and clutter can only increase the value. In an image without
noise, some blocks have no second difference at all, so the estimate is 0."""

from __future__ import annotations

import numpy as np

LAG = 8
"""Pixels from the middle of a second difference to its ends."""
DISTANCE_EDGES_M = np.geomspace(0.2, 25.6, 15)
"""Edges of the distance ranges, each of which has one standard deviation."""

_BLOCK = 16  # pixels of a block's side
_STEP = 2  # every second pixel of a block is used, on each axis
_LEAST_SAMPLES = 16  # in a block
_LEAST_BLOCKS = 12  # in a distance range
_TO_DEVIATION = 1.4826 / np.sqrt(6)  # median |a - 2 b + c| of independent normal values to their standard deviation
_QUANTILES = (0.2, 0.4)
_LARGEST_SPREAD = 1.5  # largest ratio of the higher to the lower quantile where there is nothing but noise
_FAULTLESS = 1e-4  # relative deviation below which an image counts as noise-free
_FOLLOW = 0.2  # weight of a new estimate
_TABLE = 1024  # entries, over inverse depths from 0 to that of the nearest distance


class NoiseCurve:
    """Standard deviation of inverse depth as a function of distance, updated with every frame."""

    def __init__(self) -> None:
        self._curve: np.ndarray | None = None
        self._table = np.zeros(_TABLE, np.float32)

    @property
    def relative(self) -> np.ndarray:
        """Standard deviation of depth as a share of depth, at :attr:`distances`; 0 before the first frame."""
        return np.zeros(len(self.distances)) if self._curve is None else self._curve * self.distances

    @property
    def distances(self) -> np.ndarray:
        """Middle of each distance range, in metres."""
        return np.sqrt(DISTANCE_EDGES_M[1:] * DISTANCE_EDGES_M[:-1])

    def observe(self, inverse: np.ndarray) -> None:
        """Add a frame (h, w) of inverse depth in 1/m, 0 where invalid."""
        deviation, level = _blocks(inverse)
        if deviation.size < _LEAST_BLOCKS:
            return
        faultless = np.quantile(deviation / level, _QUANTILES[0]) < _FAULTLESS
        curve = np.zeros(len(DISTANCE_EDGES_M) - 1) if faultless else _by_distance(deviation, 1 / level)
        if curve is None:
            return
        self._curve = curve if self._curve is None else self._curve + _FOLLOW * (curve - self._curve)
        at = np.linspace(0, 1 / DISTANCE_EDGES_M[0], _TABLE)
        with np.errstate(divide="ignore"):
            self._table = np.interp(-np.log(at), np.log(self.distances), self._curve).astype(np.float32)

    def deviation(self, inverse: np.ndarray) -> np.ndarray:
        """Standard deviation at each inverse depth (h, w), in 1/m."""
        index = (inverse * np.float32((_TABLE - 1) * DISTANCE_EDGES_M[0])).astype(np.int32)
        return self._table.take(np.minimum(index, _TABLE - 1, out=index))


def _blocks(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation and median inverse depth of every block with enough samples."""
    height, width = inverse.shape
    rows, columns = (height - 2 * LAG) // _BLOCK, (width - 2 * LAG) // _BLOCK
    if rows < 1 or columns < 1:
        return np.zeros(0), np.zeros(0)

    def samples(down: int, right: int) -> np.ndarray:
        top, left = LAG + down, LAG + right
        part = inverse[top : top + rows * _BLOCK : _STEP, left : left + columns * _BLOCK : _STEP]
        side = _BLOCK // _STEP
        return part.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side * side)

    middle = samples(0, 0)
    found = []
    for down, right in ((0, LAG), (LAG, 0)):
        first, last = samples(-down, -right), samples(down, right)
        known = (first > 0) & (middle > 0) & (last > 0)
        bend = np.where(known, np.abs(first + last - 2 * middle), np.float32(np.inf))
        found.append(_median(bend, known.sum(1)))
    deviation = _TO_DEVIATION * np.minimum(*found)
    level = _median(np.where(middle > 0, middle, np.float32(np.inf)), (middle > 0).sum(1))
    kept = np.isfinite(deviation) & np.isfinite(level)
    return deviation[kept], level[kept]


def _median(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Lower median of the ``counts`` finite values in each row (the others are infinite); infinite if too few."""
    ordered = np.sort(values, 1)
    median = ordered[np.arange(len(values)), np.maximum(counts - 1, 0) // 2]
    return np.where(counts >= _LEAST_SAMPLES, median, np.inf)


def _by_distance(deviation: np.ndarray, distance: np.ndarray) -> np.ndarray | None:
    """The curve, interpolated between the distance ranges with enough blocks; None if there are none."""
    curve = np.full(len(DISTANCE_EDGES_M) - 1, np.nan)
    number = np.digitize(distance, DISTANCE_EDGES_M) - 1
    for i in range(len(curve)):
        inside = deviation[number == i]
        if len(inside) >= _LEAST_BLOCKS:
            low, high = np.quantile(inside, _QUANTILES)
            curve[i] = min(high, _LARGEST_SPREAD * low)
    known = np.isfinite(curve)
    if not known.any():
        return None
    return np.interp(np.arange(len(curve)), np.flatnonzero(known), curve[known])
