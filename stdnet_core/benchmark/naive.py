"""The naive way to run the paper's network on a stream, as the reference for speedups.

For every new frame, it runs the plain float32 network on the whole window that the frame's result depends on (17 frames
for the paper's network), one frame and one neighbour at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from stdnet_core.model import ModelConfig, STDNet
from stdnet_core.model.low_resolution import LowResolutionDepth
from stdnet_core.model.stage import Stage, StagePrediction, blend


def naive_window(config: ModelConfig) -> tuple[int, int]:
    """Numbers of frames before and after a frame on which its whole-clip result depends."""
    reach = config.stages * config.neighbors
    return reach * config.passes.count("forward"), reach * config.passes.count("backward")


def naive_calls(config: ModelConfig) -> int:
    """Calls of the temporal difference modules for the whole window."""
    frames = sum(naive_window(config)) + 1
    in_a_pass = sum(max(0, frames - k) for k in range(1, config.neighbors + 1))
    return config.stages * len(config.passes) * in_a_pass


@torch.inference_mode()
def naive_depth(model: STDNet, rgb: Tensor, depth_lr: Tensor) -> Tensor:
    """Run the network on a window like a straightforward port: each pass frame by frame, neighbour by neighbour.

    Args:
        rgb: (T, 3, H, W), H and W multiples of the scale.
        depth_lr: (T, 1, h, w).

    Returns:
        (T, 1, H, W).
    """
    scale = rgb.shape[-1] // depth_lr.shape[-1]
    low_resolution = LowResolutionDepth(depth_lr, scale, rgb)
    guide, fused = rgb, None
    predictions: list[StagePrediction] = []
    for stage in model.stages:
        rgb_features = stage.guide_encoder(guide)
        depth_features = stage.depth_encoder(low_resolution.features(stage.config.depth_features))
        spatial = stage.spatial(depth_features, rgb_features)
        trunk = stage.trunk(spatial.fused if fused is None else torch.cat((spatial.fused, fused), 1))
        levels = [trunk]
        for index in range(len(stage.config.passes)):
            levels.append(_naive_pass(stage, index, levels[-1], trunk, rgb_features, spatial.weight))
        fused = stage.reconstruction(torch.cat(levels, 1))
        predictions.append(stage.predict(fused, low_resolution))
        guide = torch.cat(predictions[-1][:2], 1)
    return blend(tuple(predictions))[0]


def _naive_pass(stage: Stage, index: int, source: Tensor, trunk: Tensor, rgb: Tensor, weight: Tensor) -> Tensor:
    step = -1 if stage.config.passes[index] == "forward" else 1
    outputs = []
    for t in range(len(source)):
        total = None
        for distance in range(1, stage.config.neighbors + 1):
            n = t + step * distance
            if 0 <= n < len(source):
                difference = (trunk[t : t + 1] - trunk[n : n + 1]).abs()
                refined = stage.temporal[index](
                    source[t : t + 1], source[n : n + 1], difference, rgb[n : n + 1], weight[t : t + 1]
                )
                total = refined if total is None else total + refined
        outputs.append(source[t : t + 1] if total is None else total)
    return torch.cat(outputs)
