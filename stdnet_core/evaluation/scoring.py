"""Figures of several methods on one video, frame by frame; keeps three frames in memory.

Offline and bag evaluation both score here, so that their figures mean the same: every method is compared on the same
valid pixels, and one that withholds depth is scored by the depth that it would have output there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stdnet_core.errors import InputError
from stdnet_core.evaluation import metric_functions as functions
from stdnet_core.evaluation.metric_functions import Pooled, WarpedPair
from stdnet_core.evaluation.splatting import forward_warp
from stdnet_core.inference.confidence import tolerance
from stdnet_core.short_repr import short_repr

FAULTLESS_CM = 0.01
"""If the best rival's error is smaller, a ratio to it is meaningless and is not reported."""
ROOT_MEAN = {
    "rmse_cm",
    "edge_rmse_cm",
    "longtail_spatial_rmse_cm",
    "motion_tail_rmse_cm",
    "measured_rmse_cm",
    "hole_rmse_cm",
}
"""Figures that are the root of their pooled mean."""
FIGURES = (
    "rmse_cm",
    "mae_cm",
    "tepe_cm",
    "delta1",
    "edge_rmse_cm",
    "longtail_spatial_rmse_cm",
    "motion_tail_rmse_cm",
    "flicker_cm",
    "jitter_cm",
    "coverage",
    "measured_rmse_cm",
    "measured_mae_cm",
    "hole_rmse_cm",
    "hole_mae_cm",
    "confidence_error",
)
"""``confidence_error`` is the expected calibration error: pixels are binned into ten classes of confidence. The error
of a class is the difference between its mean confidence and the share of its pixels whose error is within the tolerance
that confidence refers to; the figure is the mean over the pixels (Guo et al., On Calibration of Modern Neural Networks,
ICML 2017, eq. 3)."""
_CLASSES = 10


@dataclass(frozen=True)
class ScoredFrame:
    """One frame of a video with everything needed to score it.

    Attributes:
        rgb: (H, W, 3) uint8 or float 0..1.
        target: ground-truth depth (H, W) in metres, not positive or not finite where invalid.
        predictions: depth (H, W) in metres of each method, also where it would not show it; values that are not
            finite are scored as 0 m.
        supported: where each method would show its depth to a user, (H, W) bool; everywhere if absent.
        upsampled: the low-resolution depth, bilinearly interpolated (H, W), which determines the spatial long tail;
            without it that figure is NaN.
        flow: (2, H, W) px (x, y) from the previous frame to this one; without it figures along the flow are NaN.
        measured: (H, W) bool, the pixels that lie in a measured cell of the input; without it the figures of measured
            pixels and of holes are NaN.
        confidence: (H, W) 0..1 of each method that has one; without it that figure is NaN.
    """

    rgb: np.ndarray
    target: np.ndarray
    predictions: Mapping[str, np.ndarray]
    supported: Mapping[str, np.ndarray] | None = None
    upsampled: np.ndarray | None = None
    flow: np.ndarray | None = None
    measured: np.ndarray | None = None
    confidence: Mapping[str, np.ndarray] | None = None

    __repr__ = short_repr


@dataclass(frozen=True)
class _Frame:
    """Tensors of one frame: K methods as a batch of one-frame clips."""

    rgb: Tensor  # (1, 1, 3, H, W)
    target: Tensor  # (1, 1, 1, H, W)
    valid: Tensor
    pred: Tensor  # (K, 1, 1, H, W)


class VideoScore:
    """Collects the figures of one video.

    Args:
        methods: names of the methods; every frame must have a prediction of each.
        device: where to compute.
        by_frame: also keep the figures of each frame, in memory that grows with the video.
    """

    def __init__(self, methods: Sequence[str], device: torch.device | str = "cpu", *, by_frame: bool = False) -> None:
        self.methods = tuple(methods)
        self.frames = 0
        self._device = torch.device(device)
        self._recent: deque[_Frame] = deque(maxlen=3)
        nothing = torch.zeros(len(self.methods), dtype=torch.float64)
        self._nothing = Pooled(nothing, nothing)
        self._sums = dict.fromkeys(FIGURES, self._nothing)
        self._confidence = np.zeros((len(self.methods), 3, _CLASSES))  # pixels, sum of confidence, correct pixels
        self._by_frame: list[dict[str, Pooled]] | None = [] if by_frame else None

    def add(self, frame: ScoredFrame) -> None:
        """Score the next frame.

        Raises:
            InputError: the arrays differ in size.
        """
        height, width = frame.target.shape
        arrays = {"colour": frame.rgb[..., 0], "bilinear depth": frame.upsampled, **frame.predictions}
        if frame.flow is not None:
            arrays["flow"] = frame.flow[0]
        for name, array in arrays.items():
            if array is not None and array.shape != (height, width):
                raise InputError(f"{name} of shape {array.shape} cannot be compared with truth of {(height, width)}")
        current = self._tensors(frame)
        self._recent.append(current)
        self.frames += 1
        if self._by_frame is not None:
            self._by_frame.append({})
        self._add_pixels(current, frame)
        if len(self._recent) > 1:
            self._add_steps(self._recent[-2], current, frame)
        if len(self._recent) == 3:
            rgb = torch.cat([f.rgb for f in self._recent], 1)
            pred = torch.cat([f.pred for f in self._recent], 1)
            self._count("jitter_cm", functions.jitter(pred, rgb))

    def figures(self) -> dict[str, dict[str, float]]:
        """``figures()[method][name]``; NaN where nothing could be counted. Lengths are in cm."""
        table = self._table(self._sums)
        for method, (pixels, claimed, right) in zip(self.methods, self._confidence, strict=True):
            if pixels.any():
                table[method]["confidence_error"] = float(np.abs(claimed - right).sum() / pixels.sum())
        return table

    def figures_by_frame(self) -> list[dict[str, dict[str, float]]]:
        """The figures of each frame alone, if kept; figures of change refer to the change from the frame before."""
        return [self._table(dict.fromkeys(FIGURES, self._nothing) | sums) for sums in self._by_frame or ()]

    def _table(self, sums: Mapping[str, Pooled]) -> dict[str, dict[str, float]]:
        table: dict[str, dict[str, float]] = {method: {} for method in self.methods}
        for name, pooled in sums.items():
            values = pooled.root_mean() if name in ROOT_MEAN else pooled.mean()
            for method, value in zip(self.methods, values.tolist(), strict=True):
                table[method][name] = value
        return table

    def _tensors(self, frame: ScoredFrame) -> _Frame:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

        rgb = tensor(frame.rgb).float().permute(2, 0, 1)[None, None]
        target = tensor(frame.target).float()[None, None, None]
        pred = torch.stack([tensor(frame.predictions[name]).float() for name in self.methods])[:, None, None]
        valid = target.isfinite() & (target > 0)
        return _Frame(
            rgb / 255 if frame.rgb.dtype == np.uint8 else rgb,
            target.where(valid, target.new_zeros(())),
            valid,
            pred.where(pred.isfinite(), pred.new_zeros(())),
        )

    def _add_pixels(self, current: _Frame, frame: ScoredFrame) -> None:
        pred, target, valid = current.pred, current.target, current.valid
        self._count("rmse_cm", functions.squared_error(pred, target, valid))
        self._count("mae_cm", functions.absolute_error(pred, target, valid))
        self._count("delta1", functions.within_delta1(pred, target, valid))
        self._count("edge_rmse_cm", functions.edge_squared_error(pred, target, valid))
        if frame.upsampled is not None:
            upsampled = torch.from_numpy(np.ascontiguousarray(frame.upsampled)).to(target).reshape(target.shape)
            mask = functions.spatial_long_tail(target, torch.nan_to_num(upsampled), valid)
            self._count("longtail_spatial_rmse_cm", functions.squared_error(pred, target, mask))
        if frame.measured is not None:
            measured = torch.from_numpy(np.ascontiguousarray(frame.measured)).to(valid.device).reshape(valid.shape)
            for name, region in (("measured", valid & measured), ("hole", valid & ~measured)):
                self._count(f"{name}_rmse_cm", functions.squared_error(pred, target, region))
                self._count(f"{name}_mae_cm", functions.absolute_error(pred, target, region))
        if frame.confidence is not None:
            self._add_confidence(frame, frame.confidence, current.valid[0, 0, 0].cpu().numpy())
        shown = [
            np.isfinite(frame.predictions[name]) & (True if frame.supported is None else frame.supported[name])
            for name in self.methods
        ]
        supported = torch.from_numpy(np.stack(shown)).to(self._device).reshape(pred.shape)
        self._count("coverage", functions.pool(supported.float(), valid))

    def _add_confidence(self, frame: ScoredFrame, confidences: Mapping[str, np.ndarray], valid: np.ndarray) -> None:
        target = frame.target[valid]
        for sums, name in zip(self._confidence, self.methods, strict=True):
            if name not in confidences:
                continue
            depth, confidence = frame.predictions[name][valid], confidences[name][valid]
            depth = np.where(np.isfinite(depth), depth, np.float32(0))  # the tolerance of infinity allows any error
            right = np.abs(depth - target) <= tolerance(depth)
            classes = np.minimum((confidence * _CLASSES).astype(np.intp), _CLASSES - 1)
            for total, weights in zip(sums, (None, confidence, right), strict=True):
                total += np.bincount(classes, weights, _CLASSES)

    def _add_steps(self, previous: _Frame, current: _Frame, frame: ScoredFrame) -> None:
        pred = torch.cat((previous.pred, current.pred), 1)
        target = torch.cat((previous.target, current.target), 1)
        valid = torch.cat((previous.valid, current.valid), 1)
        self._count("flicker_cm", functions.flicker(pred, target, valid))
        if frame.flow is None:
            return
        flow = torch.from_numpy(np.ascontiguousarray(frame.flow)).to(self._device)[None]
        maps = torch.cat((previous.target, previous.pred))[:, 0, 0][None]
        moved, hit = forward_warp(maps, flow, previous.valid[:, 0])
        warped = WarpedPair(moved[0, 1:, None, None], moved[:, :1, None], hit[:, None])
        self._count("tepe_cm", functions.temporal_end_point_error(pred, target, valid, warped))
        mask = functions.motion_tail(target, valid, flow[None])
        self._count("motion_tail_rmse_cm", functions.squared_error(current.pred, current.target, mask))

    def _count(self, name: str, pooled: Pooled) -> None:
        pooled = replace(pooled, total=pooled.total.cpu(), count=pooled.count.cpu())
        self._sums[name] = self._sums[name] + pooled
        if self._by_frame is not None:
            self._by_frame[-1][name] = pooled


def mean_figures(sequences: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Figures averaged over sequences (``sequences[name][method][figure]``), each over the sequences that have it."""
    collected: dict[str, dict[str, list[float]]] = {}
    for methods in sequences.values():
        for method, figures in methods.items():
            for name, value in figures.items():
                values = collected.setdefault(method, {}).setdefault(name, [])
                if np.isfinite(value):
                    values.append(value)
    return {
        method: {name: float(np.mean(values)) if values else float("nan") for name, values in figures.items()}
        for method, figures in collected.items()
    }


def cell_score(ratios: Iterable[tuple[float, float]]) -> float:
    """One number that compares a method with its rivals over several cells; lower is better, below 1 is a gain.

    The square root of the geometric mean over the cells times the worst cell, so that many good cells cannot hide a bad
    one. The value of a cell is the geometric mean of its two ratios.

    Args:
        ratios: RMSE and MAE divided by those of the best rival, for each cell.
    """
    cells = [math.sqrt(max(rmse, 1e-12) * max(mae, 1e-12)) for rmse, mae in ratios]
    return math.sqrt(math.exp(sum(map(math.log, cells)) / len(cells)) * max(cells))
