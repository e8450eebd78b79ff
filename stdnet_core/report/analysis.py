"""Collects the content of a report on a long video, in constant memory.

Besides the figures of :mod:`stdnet_core.evaluation.scoring`: error histograms in the long tails (fig. 2 and 4b of the
paper), error over depth and over the distance to the nearest depth edge, x-t slices (fig. 5b), and the best, median and
worst frame. All methods are compared on the same pixels: those where the ground truth and every method have a depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from stdnet_core.errors import InputError
from stdnet_core.evaluation import metric_functions as functions
from stdnet_core.evaluation.scoring import ScoredFrame, VideoScore
from stdnet_core.optical_flow import estimate_flow
from stdnet_core.short_repr import short_repr

ERROR_EDGES_M = np.concatenate(([0.0], np.geomspace(0.001, 10.0, 41)))
"""Edges of the error histograms in metres; the last bin also contains larger errors."""
DEPTH_EDGES_M = np.array(
    [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 64, np.inf]
)
EDGE_DISTANCE_PX = np.array([0.0, 1.5, 2.5, 4.5, 8.5, 16.5, 32.5, np.inf])
REGIONS = ("all pixels", "spatial long tail", "temporal long tail")
SLICE_FRAMES = 240
_CANDIDATES = 12


@dataclass(frozen=True)
class AnalysisFrame:
    """One frame with the output of every method.

    Attributes:
        index: number of the frame.
        stamp: seconds, or None.
        rgb: (H, W, 3) uint8.
        depth_lr: (h, w) metres, NaN invalid.
        outputs: method -> (H, W) metres, NaN invalid.
        truth: ground truth (H, W) in metres, NaN or 0 invalid.
        upsampled: interpolated ``depth_lr`` (H, W), which determines the spatial long tail.
        flow: (2, H, W) px from the previous frame to this one, or None to estimate it from colour.
        shown: method -> (H, W) bool, where it would show its output to a user; None: wherever it has depth.
        scored: (H, W) bool, the pixels that are scored; None: all with ground truth.
    """

    index: int
    stamp: float | None
    rgb: np.ndarray
    depth_lr: np.ndarray
    outputs: Mapping[str, np.ndarray]
    truth: np.ndarray
    upsampled: np.ndarray | None = None
    flow: np.ndarray | None = None
    shown: Mapping[str, np.ndarray] | None = None
    scored: np.ndarray | None = None

    __repr__ = short_repr


@dataclass
class BinnedErrors:
    """Sums of |error| in bins, by method.

    Attributes:
        edges: of the bins (n + 1).
        absolute: method -> (n,) sum of |error|, metres.
        squared: method -> (n,) sum of squared error.
        counts: (n,) pixels.
    """

    edges: np.ndarray
    absolute: dict[str, np.ndarray]
    squared: dict[str, np.ndarray]
    counts: np.ndarray

    __repr__ = short_repr

    @classmethod
    def empty(cls, edges: np.ndarray, methods: Sequence[str]) -> BinnedErrors:
        """Nothing counted yet."""
        bins = len(edges) - 1
        return cls(
            edges,
            {name: np.zeros(bins) for name in methods},
            {name: np.zeros(bins) for name in methods},
            np.zeros(bins, np.int64),
        )

    def add(self, values: np.ndarray, errors: Mapping[str, np.ndarray]) -> None:
        """Count pixels; ``values`` determine the bin, ``errors`` are absolute, in metres, one per pixel."""
        bins = len(self.counts)
        index = np.clip(np.searchsorted(self.edges, values, side="right") - 1, 0, bins - 1)
        self.counts += np.bincount(index, minlength=bins)
        for name, error in errors.items():
            self.absolute[name] += np.bincount(index, weights=error, minlength=bins)
            self.squared[name] += np.bincount(index, weights=error.astype(np.float64) ** 2, minlength=bins)

    def mean(self, method: str) -> np.ndarray:
        """Mean |error| of each bin in metres; NaN if the bin is empty."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.counts > 0, self.absolute[method] / self.counts, np.nan)


@dataclass
class XtSlice:
    """One image row over time (fig. 5b); a temporally stable method shows smooth lines.

    Attributes:
        row: its index.
        rgb: (T, W, 3) uint8, extended frame by frame.
        depth: method or ``truth`` -> (T, W) metres.
    """

    row: int
    rgb: list[np.ndarray] = field(default_factory=list)
    depth: dict[str, list[np.ndarray]] = field(default_factory=dict)

    __repr__ = short_repr


class Analysis:
    """Analyses the frames of one video in order.

    Args:
        methods: names; every frame has an output of each. The first one is the subject of the report.
        temporal: also compute figures along optical flow (slower).
        device: on which figures are computed.
        reference: name of the ground truth in pictures.
        row: image row of the x-t slice; None: the row with the most depth steps in the first frame.

    Attributes:
        rows: one dict per frame: index, stamp_s, pixels, and per method rmse_cm, mae_cm, flicker_cm, coverage.
        histograms: region -> method -> counts over :data:`ERROR_EDGES_M`.
        by_depth, by_edge_distance: errors over depth and over the distance to the nearest edge.
        slice: the x-t slice of the first :data:`SLICE_FRAMES` frames.
    """

    def __init__(
        self,
        methods: Sequence[str],
        *,
        temporal: bool = True,
        device: torch.device | str = "cpu",
        reference: str = "truth",
        row: int | None = None,
    ) -> None:
        if not methods:
            raise InputError("an analysis needs at least one method")
        self.methods = list(methods)
        self.temporal = temporal
        self.reference = reference
        self.rows: list[dict[str, float]] = []
        bins = len(ERROR_EDGES_M) - 1
        self.histograms = {region: {name: np.zeros(bins, np.int64) for name in methods} for region in REGIONS}
        self.by_depth = BinnedErrors.empty(DEPTH_EDGES_M, methods)
        self.by_edge_distance = BinnedErrors.empty(EDGE_DISTANCE_PX, methods)
        self.slice: XtSlice | None = None
        self._row_shown = row
        self._score = VideoScore(self.methods, device)
        self._shown = {name: 0 for name in methods}
        self._known = 0
        self._previous: AnalysisFrame | None = None
        self._previous_common: np.ndarray | None = None
        self._best: tuple[float, AnalysisFrame] | None = None
        self._worst: tuple[float, AnalysisFrame] | None = None
        self._candidates: list[tuple[float, AnalysisFrame]] = []
        self._random = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, frame: AnalysisFrame) -> dict[str, float]:
        """Score a frame; returns its row.

        Raises:
            InputError: the size differs from that of the frame before, a method is missing, or the image has no such
                row to slice.
        """
        if self._row_shown is not None and not 0 <= self._row_shown < len(frame.truth):
            raise InputError(f"there is no row {self._row_shown} in an image of {len(frame.truth)} rows")
        known = np.isfinite(frame.truth) & (frame.truth > 0)
        if frame.scored is not None:
            known &= frame.scored
        for name in self.methods:
            if name not in frame.outputs or frame.outputs[name].shape != frame.truth.shape:
                raise InputError(f"frame {frame.index}: no depth of {name} at the truth's size")
        if self._previous is not None and self._previous.truth.shape != frame.truth.shape:
            raise InputError(f"frame {frame.index}: its size differs from that of the frames before")
        common = known.copy()
        for name in self.methods:
            common &= np.isfinite(frame.outputs[name])
        self._known += int(known.sum())
        row = self._row(frame, known, common)
        self.rows.append(row)
        self._pool(frame, common)
        self._bins(frame, common)
        self._extend_slice(frame)
        self._remember(row, frame)
        self._previous, self._previous_common = frame, common
        return row

    def figures(self) -> dict[str, dict[str, float]]:
        """``figures()[method][name]`` of the whole video, see :data:`stdnet_core.evaluation.scoring.FIGURES`; in cm."""
        table = self._score.figures()
        for name in self.methods:
            # Jitter includes pixels without ground truth, which are not scored here.
            table[name].pop("jitter_cm", None)
            table[name]["coverage"] = self._shown[name] / self._known if self._known else math.nan
        return table

    def examples(self) -> dict[str, AnalysisFrame]:
        """The frames with the smallest, (nearly) the median and the largest RMSE of the first method."""
        if self._best is None or self._worst is None:
            return {}
        key = f"{self.methods[0]} rmse_cm"
        median = float(np.nanmedian([row[key] for row in self.rows]))
        middle = min(self._candidates, key=lambda entry: abs(entry[0] - median))
        chosen = {"best": self._best, "median": middle, "worst": self._worst}
        return {name: frame for name, (_, frame) in chosen.items()}

    def _row(self, frame: AnalysisFrame, known: np.ndarray, common: np.ndarray) -> dict[str, float]:
        row: dict[str, float] = {"index": frame.index, "stamp_s": math.nan if frame.stamp is None else frame.stamp}
        row["pixels"] = int(common.sum())
        total = max(1, int(known.sum()))
        previous = self._previous
        if previous is not None:
            steady = common & self._previous_common
            change = frame.truth - previous.truth
        for name in self.methods:
            output = frame.outputs[name]
            error = (output - frame.truth)[common].astype(np.float64)
            row[f"{name} rmse_cm"] = 100 * math.sqrt(np.mean(error**2)) if error.size else math.nan
            row[f"{name} mae_cm"] = 100 * float(np.abs(error).mean()) if error.size else math.nan
            row[f"{name} flicker_cm"] = math.nan
            if previous is not None and steady.any():
                other = output - previous.outputs[name] - change
                row[f"{name} flicker_cm"] = 100 * float(np.abs(other[steady]).mean())
            shown = known & np.isfinite(output)
            if frame.shown is not None:
                shown &= frame.shown[name]
            self._shown[name] += int(shown.sum())
            row[f"{name} coverage"] = int(shown.sum()) / total
        return row

    def _pool(self, frame: AnalysisFrame, common: np.ndarray) -> None:
        flow = frame.flow
        if flow is None and self.temporal and self._previous is not None:
            flow = estimate_flow(self._previous.rgb, frame.rgb)
        truth = np.where(common, frame.truth, np.float32(0))
        # Methods are scored only on common pixels, so pixels that they withhold elsewhere do not matter.
        outputs = {name: np.nan_to_num(frame.outputs[name], nan=0.0) for name in self.methods}
        upsampled = None if frame.upsampled is None else np.nan_to_num(frame.upsampled, nan=0.0)
        self._score.add(ScoredFrame(frame.rgb, truth, outputs, None, upsampled, flow))

    def _bins(self, frame: AnalysisFrame, common: np.ndarray) -> None:
        truth = frame.truth
        errors = {name: np.abs(frame.outputs[name] - truth)[common] for name in self.methods}
        self.by_depth.add(truth[common], errors)
        tensor = torch.from_numpy(np.where(common, truth, 0).astype(np.float32))[None, None]
        edges = functions.edge_mask(tensor, torch.from_numpy(common)[None, None], width=0)[0, 0].numpy()
        distance = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        self.by_edge_distance.add(distance[common], errors)
        inside = {"all pixels": np.ones(int(common.sum()), bool)}
        if frame.upsampled is not None:
            inside["spatial long tail"] = (np.abs(frame.upsampled - truth) >= functions.LONG_TAIL)[common]
        if self._previous is not None:
            moved = np.abs(truth - self._previous.truth) >= functions.LONG_TAIL
            inside["temporal long tail"] = (moved & self._previous_common)[common]
        for region, chosen in inside.items():
            for name, error in errors.items():
                self.histograms[region][name] += error_histogram(error[chosen])

    def _extend_slice(self, frame: AnalysisFrame) -> None:
        if self.slice is None:
            row = _busiest_row(frame.truth) if self._row_shown is None else self._row_shown
            self.slice = XtSlice(row)
            self.slice.depth = {name: [] for name in (*self.methods, "truth")}
        if len(self.slice.rgb) >= SLICE_FRAMES:
            return
        row = self.slice.row
        self.slice.rgb.append(frame.rgb[row].copy())
        self.slice.depth["truth"].append(frame.truth[row].copy())
        for name in self.methods:
            self.slice.depth[name].append(frame.outputs[name][row].copy())

    def _remember(self, row: dict[str, float], frame: AnalysisFrame) -> None:
        """Keep the best, the worst and a uniform random sample of frames."""
        rmse = row[f"{self.methods[0]} rmse_cm"]
        if not math.isfinite(rmse):
            return
        entry = rmse, frame
        if self._best is None or rmse < self._best[0]:
            self._best = entry
        if self._worst is None or rmse > self._worst[0]:
            self._worst = entry
        if len(self._candidates) < _CANDIDATES:
            self._candidates.append(entry)
        elif (place := int(self._random.integers(len(self.rows)))) < _CANDIDATES:
            self._candidates[place] = entry


def error_histogram(errors: np.ndarray) -> np.ndarray:
    """Counts of absolute errors in metres over :data:`ERROR_EDGES_M`."""
    bins = len(ERROR_EDGES_M) - 1
    index = np.searchsorted(ERROR_EDGES_M, errors, side="right") - 1
    return np.bincount(np.clip(index, 0, bins - 1), minlength=bins)


def _busiest_row(depth: np.ndarray) -> int:
    """The row in the middle half of the image with the most depth steps, where an x-t slice shows most."""
    height = depth.shape[0]
    known = np.nan_to_num(depth, nan=0.0)
    both = (known[:, 1:] > 0) & (known[:, :-1] > 0)
    steps = (np.abs(np.diff(known, axis=1)) > functions.EDGE_STEP * known[:, 1:]) & both
    counts = steps.sum(axis=1).astype(float)
    counts[: height // 4] = counts[height - height // 4 :] = -1
    return int(np.argmax(counts))
