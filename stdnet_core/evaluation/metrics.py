"""Metrics that pool over clips, sequences and ranks, as torchmetrics classes (extra ``train``).

Every figure is pooled over the pixels of a sequence, however they are split into clips and ranks, and then averaged
over the sequences, as in the paper's tables. :mod:`stdnet_core.evaluation.metric_functions` defines what is summed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stdnet_core.cli import require
from stdnet_core.errors import InputError
from stdnet_core.evaluation import metric_functions as functions
from stdnet_core.evaluation.metric_functions import Pooled

if TYPE_CHECKING:
    import torchmetrics as _torchmetrics
else:
    _torchmetrics = require("torchmetrics", extra="train")


class PooledMetric(_torchmetrics.Metric):
    """Sums and counts of each sequence; the figure is the mean over the sequences with counted pixels.

    Args:
        sequences: how many sequences there are; ``update`` is passed the one that its clips belong to.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, sequences: int = 1) -> None:
        super().__init__()
        if sequences < 1:
            raise InputError(f"a metric needs at least one sequence, got {sequences}")
        for name in ("total", "count"):
            self.add_state(name, torch.zeros(sequences, dtype=torch.float64), dist_reduce_fx="sum")

    def _pool(self, pooled: Pooled, sequence: int | Iterable[int] | Tensor) -> None:
        """Add one clip, or a batch of clips (B,), to one sequence, or each clip to its own."""
        total, count = pooled.total.reshape(-1), pooled.count.reshape(-1)
        index = torch.as_tensor(sequence, device=self.total.device).long().expand(total.shape)
        if bool(((index < 0) | (index >= len(self.total))).any()):
            raise InputError(f"sequence {sequence} is not one of the {len(self.total)} of this metric")
        self.total.index_add_(0, index, total.to(self.total.device))
        self.count.index_add_(0, index, count.to(self.count.device))

    def figures(self) -> Tensor:
        """The figure of each sequence (sequences,) on this rank alone; NaN where nothing was counted."""
        return Pooled(self.total, self.count).mean()

    def compute(self) -> Tensor:
        """Mean over the sequences with counted pixels; NaN if there are none."""
        return self.figures().nanmean()


class MAE(PooledMetric):
    """Mean absolute error in cm."""

    def update(self, pred: Tensor, target: Tensor, valid: Tensor, sequence: int | Tensor = 0) -> None:
        """Add depths in metres and validity, (T, 1, H, W) or (B, T, 1, H, W); sequence: index, or one per clip."""
        self._pool(functions.absolute_error(pred, target, valid), sequence)


class _RootMetric(PooledMetric):
    """The square root of the pooled mean."""

    def figures(self) -> Tensor:
        return super().figures().sqrt()


class RMSE(_RootMetric):
    """Root mean squared error in cm."""

    def update(self, pred: Tensor, target: Tensor, valid: Tensor, sequence: int | Tensor = 0) -> None:
        """As :meth:`MAE.update`."""
        self._pool(functions.squared_error(pred, target, valid), sequence)


class EdgeRMSE(RMSE):
    """RMSE in cm near depth edges of the ground truth."""

    def update(self, pred: Tensor, target: Tensor, valid: Tensor, sequence: int | Tensor = 0) -> None:
        """As :meth:`MAE.update`."""
        self._pool(functions.edge_squared_error(pred, target, valid), sequence)


class Delta1(PooledMetric):
    """Share of pixels with max(pred / target, target / pred) < 1.25."""

    higher_is_better = True

    def update(self, pred: Tensor, target: Tensor, valid: Tensor, sequence: int | Tensor = 0) -> None:
        """As :meth:`MAE.update`."""
        self._pool(functions.within_delta1(pred, target, valid), sequence)


class Flicker(PooledMetric):
    """Mean |change of predicted - change of true depth| from frame to frame at a pixel, in cm."""

    def update(self, pred: Tensor, target: Tensor, valid: Tensor, sequence: int | Tensor = 0) -> None:
        """As :meth:`MAE.update`."""
        self._pool(functions.flicker(pred, target, valid), sequence)


class SpatialLongTailRMSE(_RootMetric):
    """RMSE in cm where the interpolated low-resolution depth is wrong by 0.1 m or more."""

    def update(
        self, pred: Tensor, target: Tensor, valid: Tensor, upsampled: Tensor, sequence: int | Tensor = 0
    ) -> None:
        """As :meth:`MAE.update`; upsampled: bilinearly interpolated low-resolution depth, shaped like pred."""
        mask = functions.spatial_long_tail(target, upsampled, valid)
        self._pool(functions.squared_error(pred, target, mask), sequence)


class TEPE(PooledMetric):
    """Temporal end-point error in cm, over all pixels."""

    def update(self, pred: Tensor, target: Tensor, valid: Tensor, flow: Tensor, sequence: int | Tensor = 0) -> None:
        """As :meth:`MAE.update`; flow (..., T-1, 2, H, W), px (x, y) from each frame to the next."""
        warped = functions.warp_previous(pred, target, valid, flow)
        self._pool(functions.temporal_end_point_error(pred, target, valid, warped), sequence)


class MotionTailRMSE(_RootMetric):
    """RMSE in cm where ground-truth depth changes by 0.1 m or more along the flow."""

    def update(self, pred: Tensor, target: Tensor, valid: Tensor, flow: Tensor, sequence: int | Tensor = 0) -> None:
        """As :meth:`TEPE.update`."""
        mask = functions.motion_tail(target, valid, flow)
        self._pool(functions.squared_error(pred[..., 1:, :, :, :], target[..., 1:, :, :, :], mask), sequence)


def depth_metrics(sequences: int = 1, *, flow: bool = False, upsampled: bool = False) -> _torchmetrics.MetricCollection:
    """The usual metrics, named as in the evaluation's JSON. One call updates all: ``update(pred=..., target=...,
    valid=..., sequence=...)``, with all arguments by name.

    Args:
        sequences: how many sequences there are.
        flow: include the metrics that need ``flow=``.
        upsampled: include the metric that needs ``upsampled=``.
    """
    kinds: dict[str, type[PooledMetric]] = {
        "rmse_cm": RMSE,
        "mae_cm": MAE,
        "delta1": Delta1,
        "edge_rmse_cm": EdgeRMSE,
        "flicker_cm": Flicker,
    }
    if upsampled:
        kinds["longtail_spatial_rmse_cm"] = SpatialLongTailRMSE
    if flow:
        kinds |= {"tepe_cm": TEPE, "motion_tail_rmse_cm": MotionTailRMSE}
    # Compute groups merge metrics whose states happen to be equal at first, e.g. both zero on an empty clip.
    return _torchmetrics.MetricCollection({name: kind(sequences) for name, kind in kinds.items()}, compute_groups=False)
