"""Loss of recurrent networks: the logarithms of the metrics by which they are evaluated.

With logarithms, a clip with small errors counts as much as one with large errors, and depth in metres needs no
normalisation. Errors are means over the valid pixels of each clip; terms are means over the clips of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stdnet_core.errors import ConfigError, InputError
from stdnet_core.inference.confidence import TOLERANCE_M, TOLERANCE_SHARE
from stdnet_core.model.recurrent import RecurrentOutput
from stdnet_core.training.losses import clip_mean

_SURE = 3.0  # log(tolerance / scale) beyond which the loss of an error outside the tolerance grows only linearly in it
_FEWEST = 20  # a region with fewer pixels (weighted by frame) does not count


@dataclass(frozen=True)
class RecurrentLossConfig:
    """Weights of the loss; 0 turns a term off."""

    mae_weight: float = 0.35
    """Logarithm of a clip's mean absolute error."""
    rmse_weight: float = 0.65
    """Logarithm of its root mean square error."""
    flicker_weight: float = 0.2
    """Logarithm of the mean change of the error from frame to frame."""
    confidence_weight: float = 0.1
    """Negative log-likelihood of whether the (detached) error is within the tolerance of the confidence
    (:mod:`stdnet_core.inference.confidence`). With the likelihood of the error itself, a few large errors determined
    the scale, and confidence was off by up to 0.2."""
    hole_share: float = 0.35
    """Share of the holes in ``mae`` and ``rmse`` for fine depth (ratios below 4), where measured pixels and holes are
    separate terms."""
    first_weight: float = 0.6
    """Weight of a clip's first frame in ``mae`` and ``rmse``; it is low because this frame has no history."""
    weight_step: float = 0.2
    """Increase of the weight with each frame."""
    last_weight: float = 1.2
    """Largest weight of a frame."""
    floor_m: float = 0.001
    """Added to errors before the logarithm, in metres."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ConfigError(f"loss.{name} is {value!r}; it must be a finite number, not negative")
        if not self.hole_share <= 1:
            raise ConfigError(f"loss.hole_share is {self.hole_share}; it is a share, 0 to 1")
        if not self.floor_m > 0 or not self.first_weight > 0 or not self.last_weight > 0:
            raise ConfigError("loss.floor_m, loss.first_weight and loss.last_weight must be positive")

    def frame_weights(self, frames: int) -> Tensor:
        """Weights of a clip's frames (T,)."""
        rising = self.first_weight + self.weight_step * torch.arange(frames, dtype=torch.float32)
        return rising.clamp(max=self.last_weight)


class RecurrentLoss(nn.Module):
    """The loss of a recurrent network; it has no parameters.

    Args:
        config: weights.
    """

    def __init__(self, config: RecurrentLossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, output: RecurrentOutput, depth: Tensor, valid: Tensor, measured: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of one batch.

        Args:
            output: of the network.
            depth: true depth (B, T, 1, H, W) in metres; any value where invalid.
            valid: (B, T, 1, H, W) bool, pixels that count.
            measured: (B, T, 1, H, W) bool, pixels whose own cell has a measurement; None: holes are not separate.

        Returns:
            The terms before weighting, and ``total``: float32 scalars.

        Raises:
            InputError: the shapes differ.
        """
        if not output.depth.shape == depth.shape == valid.shape:
            raise InputError(
                f"depth {tuple(output.depth.shape)}, truth {tuple(depth.shape)} and validity "
                f"{tuple(valid.shape)} must have one shape"
            )
        with torch.autocast(depth.device.type, enabled=False):
            truth = depth.float().where(valid, depth.new_ones(()).float())
            return self._terms(output.depth.float(), output.log_scale.float(), truth, valid, measured)

    def _terms(
        self, depth: Tensor, log_scale: Tensor, truth: Tensor, valid: Tensor, measured: Tensor | None
    ) -> dict[str, Tensor]:
        config = self.config
        residual = (depth - truth).where(valid, depth.new_zeros(()))
        weights = config.frame_weights(depth.shape[1]).to(depth.device).view(1, -1, 1, 1, 1)
        regions = [(valid, 1.0)]
        if measured is not None:
            regions = [(valid & measured, 1 - config.hole_share), (valid & ~measured, config.hole_share)]
        terms = {"mae": depth.new_zeros(()), "rmse": depth.new_zeros(())}
        for region, share in regions:
            weight = region * weights
            count = weight.flatten(1).sum(1)
            judged = (count > _FEWEST).float() * share
            count = count.clamp(min=1)
            mae = (residual.abs() * weight).flatten(1).sum(1) / count
            mse = (residual.square() * weight).flatten(1).sum(1) / count
            terms["mae"] = terms["mae"] + ((mae + config.floor_m).log() * judged).mean()
            terms["rmse"] = terms["rmse"] + (0.5 * (mse + config.floor_m**2).log() * judged).mean()
        terms["flicker"] = self._flicker(residual, valid)
        terms["confidence"] = clip_mean(self._confidence(depth.detach(), log_scale, residual.detach()), valid)
        terms["total"] = sum(getattr(config, f"{name}_weight") * value for name, value in terms.items())
        return terms

    @staticmethod
    def _confidence(depth: Tensor, log_scale: Tensor, residual: Tensor) -> Tensor:
        tolerance = (TOLERANCE_SHARE * depth).clamp(min=TOLERANCE_M)
        log_ratio = tolerance.log() - log_scale
        ratio = log_ratio.clamp(-12, _SURE).exp()
        right = -torch.log(-torch.expm1(-ratio))
        wrong = ratio + ratio.detach() * (log_ratio - _SURE).clamp(min=0)  # linear in log_ratio beyond _SURE
        return torch.where(residual.abs() <= tolerance, right, wrong)

    def _flicker(self, residual: Tensor, valid: Tensor) -> Tensor:
        """Logarithm of the mean change of the error between frames; 0 for clips of one frame."""
        if residual.shape[1] < 2:
            return residual.sum() * 0.0
        both = valid[:, 1:] & valid[:, :-1]
        change = (residual.diff(dim=1).abs() * both).flatten(1).sum(1) / both.flatten(1).sum(1).clamp(min=1)
        return (change + self.config.floor_m).log().mean()
