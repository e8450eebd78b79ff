"""A narrow network for tests of exactness: as deep as the real ones, and no frame that it may depend on goes unnoticed.

With ordinary random weights the farthest frames change an output by less than rounding does, so that a wrong
dependency would pass every comparison."""

from __future__ import annotations

import torch

from stdnet_core import ModelConfig, STDNet

SMALL = dict(channels=4, head_channels=4, trunk_blocks=1, reconstruction_blocks=1)


@torch.no_grad()
def sensitive_model(seed: int = 0, **changes) -> STDNet:
    """The "tiny" preset, narrower, with fields changed; neighbours are passed on at full strength from pass to pass."""
    torch.manual_seed(seed)
    model = STDNet(ModelConfig.preset("tiny", **{**SMALL, **changes})).eval()
    channels = model.config.channels
    identity = torch.eye(channels)
    for parameter in model.parameters():
        parameter.add_(0.03 * torch.randn_like(parameter))
    for stage in model.stages:
        for module in stage.temporal:
            module.fusion_conv.weight[:, channels : 2 * channels, 0, 0] += identity * (2 / model.config.neighbors)
            if model.config.temporal_difference:
                module.aligned_conv.weight[:, :, 1, 1] += identity
                module.deform_conv.weight[:, :, 1, 1] += 2 * identity
        stage.reconstruction[0].weight *= 2
        stage.trunk[0].weight *= 2
        stage.prediction[-1].weight *= 3
    return model
