"""STDNet: SpatioTemporal Difference Network for video depth super-resolution (fig. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stdnet_core.errors import InputError
from stdnet_core.model.blocks import ModuleListOf
from stdnet_core.model.config import ModelConfig
from stdnet_core.model.low_resolution import LowResolutionDepth, infer_scale
from stdnet_core.model.propagation import propagate, temporal_differences
from stdnet_core.model.stage import Stage, StagePrediction, blend
from stdnet_core.short_repr import network_repr, short_repr


@dataclass(frozen=True)
class StageDifferences:
    """Difference representations of a stage, on the working grid.

    Attributes:
        sigma: spatial difference (B, T, C, h, w) (eq. 1).
        phi: temporal differences (eq. 5): phi[0] adjacent (B, T-1, C, h, w), phi[1] cross (B, T-2, C, h, w), ...
    """

    sigma: Tensor
    phi: tuple[Tensor, ...]

    __repr__ = short_repr


@dataclass(frozen=True)
class STDNetOutput:
    """Output of the network; depths are normalised (metres / depth_range).

    Attributes:
        depth: (B, T, 1, H, W).
        stage_depths: each stage's own depth, (B, T, 1, H, W).
        stage_logits: each stage's raw confidence, (B, T, 1, H, W).
        stage_weights: softmax of the logits, (B, T, stages, H, W).
        log_scale: logarithm of the scale of the error's Laplace distribution (B, T, 1, H, W), normalised like the
            depth; None without ``uncertainty`` in the configuration.
        differences: one per stage, with ``return_differences``.
    """

    depth: Tensor
    stage_depths: tuple[Tensor, ...]
    stage_logits: tuple[Tensor, ...]
    stage_weights: Tensor
    log_scale: Tensor | None = None
    differences: tuple[StageDifferences, ...] | None = None

    __repr__ = short_repr


def pad_to_scale(rgb: Tensor, depth_lr: Tensor) -> tuple[Tensor, Tensor, int]:
    """Replicate the right and bottom borders until colour is exactly ``scale`` times as large as depth.

    Args:
        rgb: (N, 3, H, W).
        depth_lr: (N, 1, h, w).

    Returns:
        Padded rgb, padded depth_lr and the scale, which follows from the sizes.

    Raises:
        InputError: the sizes are not related by a factor that is a multiple of 4.
    """
    height, width = rgb.shape[-2:]
    low_height, low_width = depth_lr.shape[-2:]
    scale = infer_scale(height, width, low_height, low_width)
    rows, columns = -(-height // scale), -(-width // scale)
    if (rows, columns) != (low_height, low_width):
        depth_lr = F.pad(depth_lr, (0, columns - low_width, 0, rows - low_height), mode="replicate")
    if (rows * scale, columns * scale) != (height, width):
        rgb = F.pad(rgb, (0, columns * scale - width, 0, rows * scale - height), mode="replicate")
    return rgb, depth_lr, scale


class STDNet(nn.Module):
    """The paper's network. Stage 1 is guided by RGB, stage 2 by the depth and confidence of stage 1.

    Examples:
        >>> model = STDNet(ModelConfig(channels=16))
        >>> out = model(rgb=torch.rand(1, 2, 3, 32, 32), depth_lr=torch.rand(1, 2, 1, 4, 4))
        >>> tuple(out.depth.shape)
        (1, 2, 1, 32, 32)
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config or ModelConfig()
        stages = [Stage(self.config, guide_channels=3, previous_features=False)]
        if self.config.stages == 2:
            stages.append(Stage(self.config, guide_channels=2, previous_features=True))
        self.stages: ModuleListOf[Stage] = ModuleListOf(stages)

    __repr__ = network_repr

    def zero_init_heads(self) -> None:
        """Initialise the network so that it returns its base (interpolated depth), a better start than noise."""
        for stage in self.stages:
            stage.zero_init_head()

    def forward(self, rgb: Tensor, depth_lr: Tensor, return_differences: bool = False) -> STDNetOutput:
        """Upsample a clip.

        Args:
            rgb: (B, T, 3, H, W), 0..1.
            depth_lr: (B, T, 1, h, w), metres / depth_range, without holes. H/h = W/w = s, a multiple of 4; sizes that s
                does not divide are padded internally, and the output is cropped.
            return_differences: also return sigma and phi (needed by the losses).

        Raises:
            InputError: shapes do not fit each other.
        """
        if rgb.ndim != 5 or depth_lr.ndim != 5 or rgb.shape[2] != 3 or depth_lr.shape[2] != 1:
            raise InputError(
                "expected rgb (B, T, 3, H, W) and depth_lr (B, T, 1, h, w), "
                f"got {tuple(rgb.shape)} and {tuple(depth_lr.shape)}"
            )
        if rgb.shape[:2] != depth_lr.shape[:2] or rgb.shape[1] == 0:
            raise InputError(
                "rgb and depth_lr need the same batch and at least one common frame, "
                f"got (B, T) = {tuple(rgb.shape[:2])} and {tuple(depth_lr.shape[:2])}"
            )
        batch, frames = rgb.shape[:2]
        height, width = rgb.shape[-2:]
        flat_rgb, flat_depth, scale = pad_to_scale(rgb.flatten(0, 1), depth_lr.flatten(0, 1))
        low_resolution = LowResolutionDepth(flat_depth, scale, flat_rgb)

        guide, previous = flat_rgb, None
        predictions: list[StagePrediction] = []
        differences: list[StageDifferences] = []
        for stage in self.stages:
            previous, difference = _fuse_clip(stage, guide, low_resolution, previous, (batch, frames))
            predictions.append(stage.predict(previous, low_resolution))
            differences.append(difference)
            guide = torch.cat(predictions[-1][:2], 1)

        depth, weights, log_scale = blend(tuple(predictions))

        def finish(x: Tensor) -> Tensor:
            return x[..., :height, :width].unflatten(0, (batch, frames))

        return STDNetOutput(
            depth=finish(depth),
            stage_depths=tuple(finish(p.depth) for p in predictions),
            stage_logits=tuple(finish(p.logit) for p in predictions),
            stage_weights=finish(weights),
            log_scale=None if log_scale is None else finish(log_scale),
            differences=tuple(differences) if return_differences else None,
        )


def _fuse_clip(
    stage: Stage,
    guide: Tensor,
    low_resolution: LowResolutionDepth,
    previous: Tensor | None,
    clip_shape: tuple[int, int],
) -> tuple[Tensor, StageDifferences]:
    """Run a stage up to the fused features R (B*T, C, h, w); return these and its differences."""
    config = stage.config
    rgb_features = stage.guide_encoder(guide)
    depth_features = stage.depth_encoder(low_resolution.features(config.depth_features))
    spatial = stage.spatial(depth_features, rgb_features)
    trunk_input = spatial.fused if previous is None else torch.cat((spatial.fused, previous), 1)

    def clip(x: Tensor) -> Tensor:
        return x.unflatten(0, clip_shape)

    trunk = clip(stage.trunk(trunk_input))
    phi = temporal_differences(trunk, config.neighbors)
    outputs = [trunk]
    for module, direction in zip(stage.temporal, config.passes, strict=True):
        outputs.append(propagate(module, outputs[-1], phi, clip(rgb_features), clip(spatial.weight), direction))
    fused = stage.reconstruction(torch.cat(outputs, 2).flatten(0, 1))
    return fused, StageDifferences(clip(spatial.sigma), phi)
