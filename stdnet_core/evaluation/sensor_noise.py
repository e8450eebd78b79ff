"""Estimates the noise of a depth camera from its recording of a static scene."""

from __future__ import annotations

import math

import numpy as np

from stdnet_core.filtering.noise import DISTANCE_EDGES_M, NoiseCurve
from stdnet_core.inference.fill import valid_depth

FLOOR_M = 0.002
"""Error in metres that is always allowed for a reading."""
_QUANTILE, _QUANTILE_DEVIATIONS = 0.9, 1.645  # share of a normal distribution within so many standard deviations
_CHANGE_EDGES = np.geomspace(1e-6, 1.0, 121)  # of relative changes of inverse depth


class SensorNoise:
    """Standard deviation of recorded depth by distance: the larger of its change over time where nothing moves, and its
    roughness on plain surfaces (:class:`NoiseCurve`)."""

    def __init__(self) -> None:
        self._plain = NoiseCurve()
        bins = len(DISTANCE_EDGES_M) - 1
        self._changes = np.zeros((bins, len(_CHANGE_EDGES) + 1), np.int64)
        self._pixels = np.zeros(bins, np.int64)

    def observe(self, depth: np.ndarray) -> None:
        """Add a frame (h, w) in metres, 0 or NaN invalid."""
        known = valid_depth(depth)
        inverse = np.divide(1, depth, out=np.zeros(depth.shape, np.float32), where=known)
        self._plain.observe(inverse)
        self._pixels += np.histogram(depth[known], DISTANCE_EDGES_M)[0]

    def observe_change(self, before: np.ndarray, now: np.ndarray) -> None:
        """Add the depths (n,) in two frames of pixels in which nothing moves."""
        change = np.abs(before - now) / np.minimum(before, now)
        distance = np.clip(np.digitize(now, DISTANCE_EDGES_M) - 1, 0, len(self._changes) - 1)
        size = np.digitize(change, _CHANGE_EDGES)
        width = self._changes.shape[1]
        counts = np.bincount(distance * width + size, minlength=self._changes.size)
        self._changes += counts.reshape(self._changes.shape)

    def relative(self) -> np.ndarray:
        """Standard deviation as a share of depth, in each interval of :data:`DISTANCE_EDGES_M`."""
        upper = np.append(_CHANGE_EDGES, _CHANGE_EDGES[-1])
        total = self._changes.sum(1)
        place = (np.cumsum(self._changes, 1) >= _QUANTILE * total[:, None]).argmax(1)
        changes = np.where(place > 0, upper[place], 0.0) / (math.sqrt(2) * _QUANTILE_DEVIATIONS)
        return np.maximum(np.where(total > 0, changes, 0.0), self._plain.relative)

    def deviation(self, depth: np.ndarray) -> np.ndarray:
        """Standard deviation in metres at depths (n,) in metres."""
        place = np.clip(np.digitize(depth, DISTANCE_EDGES_M) - 1, 0, len(DISTANCE_EDGES_M) - 2)
        return self.relative()[place] * depth

    def table(self) -> dict[str, float]:
        """Range of distances -> standard deviation in cm at its middle, for ranges with at least 1 % of the pixels."""
        middle = np.sqrt(DISTANCE_EDGES_M[1:] * DISTANCE_EDGES_M[:-1])
        enough = self._pixels >= max(1, 0.01 * self._pixels.sum())
        return {
            f"{DISTANCE_EDGES_M[i]:.1f} to {DISTANCE_EDGES_M[i + 1]:.1f} m": 100 * float(share * middle[i])
            for i, share in enumerate(self.relative())
            if enough[i]
        }
