"""The network of the paper, and nothing else."""

from stdnet_core.model.config import PRESETS, ModelConfig
from stdnet_core.model.stdnet import StageDifferences, STDNet, STDNetOutput

__all__ = ["PRESETS", "ModelConfig", "STDNet", "STDNetOutput", "StageDifferences"]
