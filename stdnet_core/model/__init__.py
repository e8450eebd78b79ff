"""The networks: the paper's STDNet, and the recurrent network for any depth camera."""

from typing import overload

from stdnet_core.model.config import PRESETS, ModelConfig, network_config
from stdnet_core.model.recurrent import RecurrentConfig, RecurrentNet
from stdnet_core.model.stdnet import StageDifferences, STDNet, STDNetOutput

__all__ = [
    "PRESETS",
    "ModelConfig",
    "RecurrentConfig",
    "RecurrentNet",
    "STDNet",
    "STDNetOutput",
    "StageDifferences",
    "build",
    "network_config",
]


@overload
def build(config: ModelConfig) -> STDNet: ...
@overload
def build(config: RecurrentConfig) -> RecurrentNet: ...
def build(config: ModelConfig | RecurrentConfig) -> STDNet | RecurrentNet:
    """The network of a configuration."""
    return RecurrentNet(config) if isinstance(config, RecurrentConfig) else STDNet(config)
