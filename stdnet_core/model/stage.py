"""One of the network's two stages: guide and depth in, depth with a confidence logit out.

The parts are separate and process flat batches of frames: a clip runs all frames through each part at once
(:mod:`stdnet_core.model.stdnet`), while a stream computes only what a new frame changes
(:mod:`stdnet_core.streaming`)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stdnet_core.model.blocks import PixelShuffleUp, ResidualBlocks, conv3x3, leaky_relu, zero_bias
from stdnet_core.model.config import ModelConfig
from stdnet_core.model.low_resolution import LowResolutionDepth
from stdnet_core.model.spatial_difference import SpatialConcatenation, SpatialDifference
from stdnet_core.model.temporal_difference import TemporalConcatenation, TemporalDifference

_LOG_SCALE_START = -5.0
_LOG_SCALE_LIMITS = (-12.0, 1.0)
_GUIDANCE_START = 60.0  # a Gaussian with a sigma of 0.09 in colour
_GUIDANCE_LIMIT = 6.0


class StagePrediction(NamedTuple):
    """Output of a stage at image resolution, float32.

    depth (N, 1, H, W), normalised; logit (N, 1, H, W), the raw confidence; log_scale (N, 1, H, W) or None."""

    depth: Tensor
    logit: Tensor
    log_scale: Tensor | None


def _encoder(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(in_channels, channels),
        leaky_relu(),
        conv3x3(channels, channels, stride),
        leaky_relu(),
        ResidualBlocks(channels, channels, 1),
        conv3x3(channels, channels, stride),
        leaky_relu(),
        ResidualBlocks(channels, channels, 2),
    )


class Stage(nn.Module):
    """Encoders, spatial difference, trunk, temporal difference modules and reconstruction of one stage.

    Attributes:
        guide_encoder: (N, g, H, W) -> F_r (N, C, H/4, W/4).
        depth_encoder: (N, 1 or 5, H/4, W/4) -> F_d.
        spatial: F_d, F_r -> SpatialFeatures.
        trunk: fused features (stage 2: concatenated with stage 1's) -> X.
        temporal: one module per pass.
        reconstruction: X and the outputs of all passes, concatenated -> R.
    """

    def __init__(self, config: ModelConfig, guide_channels: int, previous_features: bool) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.guide_encoder = _encoder(guide_channels, c, stride=2)
        self.depth_encoder = _encoder(config.depth_feature_channels, c, stride=1)
        self.spatial: SpatialDifference | SpatialConcatenation
        if config.spatial_difference:
            self.spatial = SpatialDifference(c, config.spatial_fusion)
        else:
            self.spatial = SpatialConcatenation(c)
        self.trunk = ResidualBlocks(2 * c if previous_features else c, c, config.trunk_blocks)
        if config.temporal_difference:
            self.temporal = nn.ModuleList(
                TemporalDifference(c, config.fusion_blocks, config.max_offset) for _ in config.passes
            )
        else:
            self.temporal = nn.ModuleList(TemporalConcatenation(c, config.fusion_blocks) for _ in config.passes)
        self.reconstruction = ResidualBlocks((1 + len(config.passes)) * c, c, config.reconstruction_blocks)
        self.prediction = nn.Sequential(
            PixelShuffleUp(c, c),
            PixelShuffleUp(c, config.head_channels),
            conv3x3(config.head_channels, config.head_channels),
            leaky_relu(),
            conv3x3(config.head_channels, config.prediction_channels),
        )

        if config.output == "guided_kernel":
            self.log_guidance = nn.Parameter(torch.tensor(math.log(_GUIDANCE_START)))

    def predict(self, features: Tensor, low_resolution: LowResolutionDepth) -> StagePrediction:
        """R (N, C, H/4, W/4) -> depth with its base added, and confidence (eq. 6).

        The output "guided_kernel" needs ``low_resolution.rgb``.
        """
        raw = self.prediction(features).float()
        # Split instead of slices: the gradient of a slice is as large as the whole tensor, and mostly zeros.
        residual, logit, log_scale, strength, kernel = raw.split(self.config.prediction_parts, 1)
        if self.config.uncertainty:
            log_scale = (log_scale + _LOG_SCALE_START).clamp(*_LOG_SCALE_LIMITS)
        else:
            log_scale = None
        if self.config.output == "residual":
            depth = low_resolution.bilinear_base() + residual
        else:
            guidance = torch.exp(self.log_guidance + strength.clamp(-_GUIDANCE_LIMIT, _GUIDANCE_LIMIT))
            base = low_resolution.kernel_base(kernel, guidance)
            depth = base + residual * low_resolution.residual_unit()
        return StagePrediction(depth, logit, log_scale)

    def zero_init_head(self) -> None:
        """Initialise the stage so that it predicts its base."""
        head = self.prediction[-1]
        assert isinstance(head, nn.Conv2d)
        nn.init.zeros_(head.weight)
        zero_bias(head)


def blend(predictions: tuple[StagePrediction, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Per-pixel softmax blend of the stages.

    Returns:
        depth (N, 1, H, W), weights (N, stages, H, W), log_scale (N, 1, H, W) or None.
    """
    weights = torch.softmax(torch.cat([p.logit for p in predictions], 1), 1)

    def mix(values: list[Tensor]) -> Tensor:
        return (weights * torch.cat(values, 1)).sum(1, keepdim=True)

    depth = mix([p.depth for p in predictions])
    scales = [p.log_scale for p in predictions if p.log_scale is not None]
    return depth, weights, mix(scales) if scales else None
