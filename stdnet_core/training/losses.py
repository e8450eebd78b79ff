"""Training losses (paper, section "Loss Function", equations 9 to 13) and the terms this package adds.

All terms use normalised depth. Every sum over pixels in the paper is here a mean over the *valid* pixels of each clip,
averaged over the clips of the batch. So a clip with few valid pixels weighs as much as any other, and processes with
equally many clips get the gradients that one process would get from the joint batch.

The spatial term (eq. 11) weights the error with the spatial difference. If gradients flow through this weight, as in
the released training code, the network learns to make differences small where errors are large. By default, the
weight is therefore detached from the graph, as in the uncertainty-driven loss that the paper cites. Its head then
learns separately, with the likelihood from that cited work, how the error is distributed over the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stdnet_core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from stdnet_core.model.stdnet import StageDifferences, STDNetOutput

SCALE_FLOOR = 1e-4
"""Smallest error (normalised depth) that the uncertainty must distinguish from 0; it bounds the likelihood."""
RELATIVE_FLOOR = 0.01
"""Lower bound of the normalised depth by which the relative term divides."""
SPATIAL_WEIGHT_FORMS = ("detached", "release")


@dataclass(frozen=True)
class LossConfig:
    """Weights and switches of the loss. The defaults are the paper's terms, with the spatial weight detached.

    A weight of 0 turns its term off: it is not computed, and its heads are not created."""

    eps: float = 1e-12
    """epsilon of the Charbonnier penalty, eq. 9."""
    spatial_weight: float = 0.5
    """alpha_1 of eq. 10."""
    temporal_weight: float = 0.5
    """alpha_2 of eq. 10."""
    regularization_weight: float = 0.01
    """beta of eq. 13."""
    spatial_weight_form: str = "detached"
    """``detached``: no gradient flows through the weight in eq. 11; ``release``: it is part of the graph."""
    spatial_weight_offset: float = 1.0
    """Added to s - min(s) in eq. 11; 0 is the paper's formula, 1 that of the released training code."""
    spatial_stage_share: float = 0.2
    """Factor on each stage's contribution to the spatial term."""
    stage_weight: float = 0.0
    """Charbonnier penalty on the depth of each stage, in addition to that on the final depth."""
    relative_weight: float = 0.0
    """|error| / depth: near objects count as much as far ones."""
    gradient_weight: float = 0.0
    """|error of horizontal and vertical depth gradients|: for sharp edges and flat walls."""
    consistency_weight: float = 0.0
    """|error of the change of depth from frame to frame|: against flicker and wrong motion."""
    uncertainty_weight: float = 0.0
    """Negative log-likelihood of the (detached) error under a Laplace distribution with the predicted scale."""

    def __post_init__(self) -> None:
        if self.spatial_weight_form not in SPATIAL_WEIGHT_FORMS:
            raise ConfigError(
                f"spatial_weight_form is {self.spatial_weight_form!r}; choose one of {', '.join(SPATIAL_WEIGHT_FORMS)}"
            )
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ConfigError(f"loss weight {name} is {value}; it must be finite and not negative")
        if self.eps == 0:
            raise ConfigError("eps of the Charbonnier penalty is 0; it must be positive, e.g. 1e-12")

    @property
    def uses_spatial(self) -> bool:
        return self.regularization_weight * self.spatial_weight > 0

    @property
    def uses_temporal(self) -> bool:
        return self.regularization_weight * self.temporal_weight > 0

    @property
    def uses_differences(self) -> bool:
        """Whether the network must return its differences (``return_differences=True``)."""
        return self.uses_spatial or self.uses_temporal


class DifferenceHead(nn.Module):
    """R_df of eq. 12: 1x1 convolution to one channel, bicubic x4, 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 1, 1, bias=False)
        self.scale = nn.Conv2d(1, 1, 1, bias=False)

    def forward(self, difference: Tensor, height: int, width: int) -> Tensor:
        """(B, T, C, h, w) with 4h >= height and 4w >= width -> (B, T, 1, height, width), float32."""
        b, t, _, h, w = difference.shape
        x = self.reduce(difference.float().flatten(0, 1))
        x = F.interpolate(x, size=(4 * h, 4 * w), mode="bicubic", align_corners=False)
        return self.scale(x[..., :height, :width]).unflatten(0, (b, t))


class DifferenceHeads(nn.Module):
    """The heads of the loss, shared by the stages: one for sigma, and one for each temporal distance.

    Args:
        channels: width of the network.
        neighbors: number of temporal distances that the network compares (phi, phi^, ...); 0: no temporal heads.
        spatial: whether there is a head for sigma.
    """

    def __init__(self, channels: int, neighbors: int = 2, *, spatial: bool = True) -> None:
        super().__init__()
        self.spatial = DifferenceHead(channels) if spatial else None
        self.temporal = nn.ModuleList(DifferenceHead(channels) for _ in range(neighbors))


class STDNetLoss(nn.Module):
    """The training loss with its difference heads, whose parameters the optimiser must train with the network.

    Args:
        config: weights and switches.
        channels: width of the network (``ModelConfig.channels``).
        neighbors: neighbour frames of the network (``ModelConfig.neighbors``).
    """

    def __init__(self, config: LossConfig, channels: int, neighbors: int = 2) -> None:
        super().__init__()
        self.config = config
        self.heads = DifferenceHeads(channels, neighbors if config.uses_temporal else 0, spatial=config.uses_spatial)

    def forward(self, output: STDNetOutput, depth: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Loss of one batch.

        Args:
            output: of the network; ``differences`` are needed unless the spatial and temporal terms are off.
            depth: true depth (B, T, 1, H, W), normalised like the network's; any value where invalid.
            valid: (B, T, 1, H, W) bool.

        Returns:
            The active terms before weighting, and ``total``: float32 scalars, all 0 without any valid pixel.

        Raises:
            InputError: the shapes differ.
            ConfigError: the network's output lacks what a term needs.
        """
        if not output.depth.shape == depth.shape == valid.shape:
            raise InputError(
                f"depth {tuple(output.depth.shape)}, truth {tuple(depth.shape)} and validity "
                f"{tuple(valid.shape)} must have one shape"
            )
        with torch.autocast(depth.device.type, enabled=False):
            return self._terms(output, depth.float().where(valid, depth.new_zeros(()).float()), valid)

    def _terms(self, output: STDNetOutput, depth: Tensor, valid: Tensor) -> dict[str, Tensor]:
        config = self.config
        zero = depth.new_zeros(())
        residual = (output.depth.float() - depth).where(valid, zero)
        error = residual.abs()
        terms = {"reconstruction": clip_mean(charbonnier(residual, config.eps), valid)}
        total = terms["reconstruction"]

        def add(name: str, value: Tensor, weight: float) -> None:
            nonlocal total
            terms[name] = value
            total = total + weight * value

        if config.uses_differences and output.differences is None:
            raise ConfigError("the spatial and temporal terms need the network's return_differences=True")
        differences = output.differences or ()
        if self.heads.spatial is not None:
            head = self.heads.spatial
            sigmas = [stage.sigma for stage in differences]
            weight = config.regularization_weight * config.spatial_weight
            scores = [F.elu(head(sigma, *depth.shape[-2:])) for sigma in sigmas]
            value = sum((self._weighted_error(score, error, valid) for score in scores), start=zero)
            add("spatial", value, weight)
            if config.spatial_weight_form == "detached":
                value = sum((spread_likelihood(score, error.detach(), valid) for score in scores), start=zero)
                add("spatial_spread", config.spatial_stage_share * value, weight)
        if config.uses_temporal:
            value = self._temporal(differences, depth, valid)
            add("temporal", value, config.regularization_weight * config.temporal_weight)
        if config.stage_weight:
            stages = [(stage.float() - depth).where(valid, zero) for stage in output.stage_depths]
            value = sum((clip_mean(charbonnier(stage, config.eps), valid) for stage in stages), start=zero)
            add("stages", value / len(stages), config.stage_weight)
        if config.relative_weight:
            value = clip_mean(error / depth.clamp(min=RELATIVE_FLOOR), valid)
            add("relative", value, config.relative_weight)
        if config.gradient_weight:
            steps = [step_mean(residual, valid, dim) for dim in (-1, -2)]
            add("gradient", sum(steps, start=zero), config.gradient_weight)
        if config.consistency_weight:
            add("consistency", step_mean(residual, valid, 1), config.consistency_weight)
        if config.uncertainty_weight:
            if output.log_scale is None:
                raise ConfigError("uncertainty_weight needs a model with uncertainty; set it to 0 for this one")
            value = clip_mean(laplace_nll(output.log_scale.float(), error.detach()), valid)
            add("uncertainty", value, config.uncertainty_weight)
        terms["total"] = total
        return terms

    def _weighted_error(self, score: Tensor, error: Tensor, valid: Tensor) -> Tensor:
        """Eq. 11 for one stage: (s - min s + offset) |D_GT - D_HR|, with the minimum over each frame."""
        lowest = score.masked_fill(~valid, float("inf")).amin((-2, -1), keepdim=True)
        weight = (score - lowest).where(valid, score.new_zeros(())) + self.config.spatial_weight_offset
        if self.config.spatial_weight_form == "detached":
            weight = weight.detach()
        return self.config.spatial_stage_share * clip_mean(weight * error, valid)

    def _temporal(self, differences: Sequence[StageDifferences], depth: Tensor, valid: Tensor) -> Tensor:
        """Eq. 12, summed over stages and temporal distances."""
        # Heads that a short clip does not use stay in the graph, because data-parallel training waits for all of them.
        value = sum((0.0 * p.sum() for p in self.heads.temporal.parameters()), start=depth.new_zeros(()))
        for stage in differences:
            if len(stage.phi) > len(self.heads.temporal):
                raise ConfigError(
                    f"the network compares {len(stage.phi)} temporal distances, but the loss was made for "
                    f"{len(self.heads.temporal)}; give both the same neighbors"
                )
            pairs = zip(self.heads.temporal, stage.phi, strict=False)
            for distance, (head, phi) in enumerate(pairs, start=1):
                if depth.shape[1] <= distance:
                    continue
                both = valid[:, distance:] & valid[:, :-distance]
                truth = (depth[:, distance:] - depth[:, :-distance]).abs()
                predicted = head(phi, *depth.shape[-2:])
                value = value + clip_mean((predicted - truth).abs(), both)
        return value


def charbonnier(residual: Tensor, eps: float) -> Tensor:
    """sqrt(residual^2 + eps), elementwise (eq. 9)."""
    return (residual.square() + eps).sqrt()


def clip_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid elements of each clip (B, ...), then over the clips; a clip without valid elements is 0."""
    values = values.where(valid, values.new_zeros(())).flatten(1).sum(1)
    return (values / valid.flatten(1).sum(1).clamp(min=1)).mean()


def step_mean(residual: Tensor, valid: Tensor, dim: int) -> Tensor:
    """Mean absolute difference of neighbouring residuals along ``dim`` where both are valid; 0 without a pair."""
    length = residual.shape[dim]
    if length < 2:
        return residual.sum() * 0.0
    both = valid.narrow(dim, 1, length - 1) & valid.narrow(dim, 0, length - 1)
    return clip_mean(residual.diff(dim=dim).abs(), both)


def spread_likelihood(score: Tensor, error: Tensor, valid: Tensor) -> Tensor:
    """Loss of the score s as a prediction of log(e / m), for the (detached) error e and the frame's mean error m.

    It is the negative Laplace log-likelihood exp(-s) e / m + s, times m, so that it vanishes with the error. Its
    minimum is at s = log(e / m).
    """
    pixels = valid.sum((-2, -1), keepdim=True).clamp(min=1)
    mean = error.sum((-2, -1), keepdim=True) / pixels
    return clip_mean((-score).exp() * error + mean * score, valid)


def laplace_nll(log_scale: Tensor, error: Tensor) -> Tensor:
    """-log of the Laplace density of an error >= 0 (plus :data:`SCALE_FLOOR`), without the constant log 2."""
    log_scale = log_scale.clamp(-20.0, 20.0)
    return (error + SCALE_FLOOR) * (-log_scale).exp() + log_scale
