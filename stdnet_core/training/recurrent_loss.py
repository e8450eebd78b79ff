"""What a recurrent network learns by: the logarithms of the figures that it is judged by.

In logarithms a clip that is almost right asks for as much as one that is far off, and depth in metres needs no range
to be divided by. Errors are means over the valid pixels of each clip, and the terms over the clips of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stdnet_core.errors import ConfigError, InputError
from stdnet_core.inference.confidence import TOLERANCE_M, TOLERANCE_SHARE
from stdnet_core.model.recurrent import RecurrentOutput
from stdnet_core.training.losses import clip_mean

_SURE = 3.0  # logarithm of tolerances in a scale, beyond which an error outside counts no more than linearly in it
_FEWEST = 20  # pixels (times the weights of their frames) of a region, below which it is not judged


@dataclass(frozen=True)
class RecurrentLossConfig:
    """Weights of the loss; one of 0 switches its term off."""

    mae_weight: float = 0.5
    """Logarithm of a clip's mean error."""
    rmse_weight: float = 0.5
    """Logarithm of its root mean square error."""
    flicker_weight: float = 0.2
    """Logarithm of the mean change of the error from frame to frame."""
    confidence_weight: float = 0.1
    """Negative log-likelihood of whether the (constant) error is within the tolerance that confidence stands for
    (:mod:`stdnet_core.inference.confidence`). The likelihood of the error itself gives a scale that a few large errors
    decide: confidence was off by up to 0.2 with it."""
    hole_share: float = 0.35
    """Where fine depth has holes (ratios under 4), mean and root mean square errors are those of measured pixels and of
    holes apart: the share of the holes."""
    first_weight: float = 0.6
    """Of a clip's first frame in its mean and root mean square errors: without history it can do the least."""
    weight_step: float = 0.2
    """By which the weight rises with each frame."""
    last_weight: float = 1.2
    """To which it rises."""
    floor_m: float = 0.001
    """Error in metres that is as good as none."""

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
            depth: true depth (B, T, 1, H, W) in metres; anything where invalid.
            valid: (B, T, 1, H, W) bool, where to learn.
            measured: (B, T, 1, H, W) bool, pixels whose own cell has a measurement; None: holes are not judged apart.

        Returns:
            The terms before weighting, and ``total``: float32 scalars.

        Raises:
            InputError: shapes that differ.
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
        wrong = ratio + ratio.detach() * (log_ratio - _SURE).clamp(min=0)  # goes on as a logarithm
        return torch.where(residual.abs() <= tolerance, right, wrong)

    def _flicker(self, residual: Tensor, valid: Tensor) -> Tensor:
        """0 for clips of one frame."""
        if residual.shape[1] < 2:
            return residual.sum() * 0.0
        both = valid[:, 1:] & valid[:, :-1]
        change = (residual.diff(dim=1).abs() * both).flatten(1).sum(1) / both.flatten(1).sum(1).clamp(min=1)
        return (change + self.config.floor_m).log().mean()
