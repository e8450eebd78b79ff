"""Differences of depth in space and time, and the share of their long tail (fig. 2 of the paper)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stdnet_core.errors import InputError
from stdnet_core.evaluation.metric_functions import LONG_TAIL
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.report.analysis import ERROR_EDGES_M, BinnedErrors

DISTANCES = {"consecutive": 1, "cross": 2}
"""Distance in frames between the two that are compared."""


def differences(interpolated: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Difference maps of the newest of a few frames.

    Args:
        interpolated: low-resolution depth at the ground truth's size, oldest frame first, (H, W) metres, NaN invalid.
        truth: ground truth of the same frames, in the same form.

    Returns:
        (H, W) metres each, NaN where one of the two is invalid: ``spatial`` |truth - interpolated| (fig. 2b),
        ``consecutive`` |interpolated_t - interpolated_(t-1)| (2c), ``cross`` the same for t and t-2 (2d), and both for
        the ground truth, ``true consecutive`` and ``true cross``. Maps that need missing frames are left out.
    """
    maps = {"spatial": np.abs(truth[-1] - interpolated[-1])}
    for prefix, video in (("", interpolated), ("true ", truth)):
        for name, distance in DISTANCES.items():
            if len(video) > distance:
                maps[prefix + name] = np.abs(video[-1] - video[-1 - distance])
    return maps


@dataclass(frozen=True)
class TailFigures:
    """One kind of difference over a whole video.

    Attributes:
        pixels: number of compared pixels.
        mean_cm: mean difference.
        tail_share: share of the pixels that differ by 0.1 m or more.
        tail_difference: their share of the sum of all differences.
        tail_square: their share of the sum of all squared differences.
    """

    pixels: int
    mean_cm: float
    tail_share: float
    tail_difference: float
    tail_square: float


class LongTail:
    """Collects the differences of one or more videos, frame by frame in order.

    Attributes:
        bins: kind of difference (as :func:`differences` names them) -> its pixels over
            :data:`stdnet_core.report.analysis.ERROR_EDGES_M`.
    """

    def __init__(self) -> None:
        self.bins: dict[str, BinnedErrors] = {}
        self._interpolated: deque[np.ndarray] = deque(maxlen=1 + max(DISTANCES.values()))
        self._truth: deque[np.ndarray] = deque(maxlen=1 + max(DISTANCES.values()))

    def begin(self) -> None:
        """Start another video, whose first frame has no predecessor."""
        self._interpolated.clear()
        self._truth.clear()

    def add(self, interpolated: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
        """Add a frame, (H, W) metres each, 0 or NaN invalid; returns its maps (:func:`differences`).

        Raises:
            InputError: the sizes differ.
        """
        if interpolated.shape != truth.shape or (self._truth and self._truth[-1].shape != truth.shape):
            raise InputError(f"depth of {interpolated.shape} and truth of {truth.shape} differ in size, or from before")
        self._interpolated.append(nan_where_invalid(interpolated))
        self._truth.append(nan_where_invalid(truth))
        maps = differences(list(self._interpolated), list(self._truth))
        for name, values in maps.items():
            known = values[np.isfinite(values)].astype(np.float64)
            self.bins.setdefault(name, BinnedErrors.empty(ERROR_EDGES_M, ["difference"])).add(
                known, {"difference": known}
            )
        return maps

    def figures(self) -> dict[str, TailFigures]:
        """Figures by kind of difference; kinds without a pixel are left out."""
        return {name: _figures(binned) for name, binned in self.bins.items() if binned.counts.sum()}

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """The long tail by kind: for each edge in metres, the ``share`` of the pixels that differ by at least as much,
        and ``difference_share``, their share of the sum of all differences."""
        return {
            name: {
                "edge_m": list(map(float, ERROR_EDGES_M[:-1])),
                "share": _shares(binned.counts),
                "difference_share": _shares(binned.absolute["difference"]),
            }
            for name, binned in self.bins.items()
            if binned.counts.sum()
        }


def _shares(of_bins: np.ndarray) -> list[float]:
    """Share of the sum in each bin and all bins above it; all 0 if the sum is 0."""
    above = np.cumsum(of_bins[::-1].astype(np.float64))[::-1]
    return list(map(float, above / above[0] if above[0] else above))


def _figures(binned: BinnedErrors) -> TailFigures:
    tail = int(np.searchsorted(ERROR_EDGES_M, LONG_TAIL))
    absolute, squared = binned.absolute["difference"], binned.squared["difference"]
    pixels = int(binned.counts.sum())
    return TailFigures(
        pixels,
        100 * float(absolute.sum()) / pixels,
        _shares(binned.counts)[tail],
        _shares(absolute)[tail],
        _shares(squared)[tail],
    )


def tail_counts(histogram: np.ndarray) -> dict[str, Any]:
    """Pixels of an error histogram over :data:`ERROR_EDGES_M`, and how many are off by 0.1 m or more (fig. 4b)."""
    tail = int(np.searchsorted(ERROR_EDGES_M, LONG_TAIL))
    pixels, inside = int(histogram.sum()), int(histogram[tail:].sum())
    return {"pixels": pixels, "tail_pixels": inside, "tail_share": inside / pixels if pixels else float("nan")}


def tail_table(histograms: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, dict[str, Any]]]:
    """:func:`tail_counts` with the counts themselves, by region and method."""
    return {
        region: {name: {**tail_counts(counts), "counts": counts.tolist()} for name, counts in of.items()}
        for region, of in histograms.items()
    }
