"""Weights to start a run from: those of a checkpoint, of the same network or of one with other passes."""

from __future__ import annotations

import dataclasses
import re

import torch
from torch import Tensor

from stdnet_core import checkpoints
from stdnet_core.errors import ConfigError
from stdnet_core.model import ModelConfig, RecurrentConfig, RecurrentNet, STDNet

_PASS = re.compile(r"^(stages\.\d+\.temporal\.)(\d+)\.")
_MERGE = re.compile(r"^stages\.\d+\.reconstruction\.0\.weight$")


def initialize(model: STDNet | RecurrentNet, checkpoint: str) -> None:
    """Copy a checkpoint's weights into a network.

    The networks may differ in their passes, so that a causal network can be the start of a bidirectional one: pass i
    takes the weights of the checkpoint's pass i, or of its last one, and the merging convolution does not yet look at
    passes that the checkpoint did not have. All else about the two networks must be equal; recurrent networks have no
    passes.

    Args:
        model: changed in place.
        checkpoint: a file, or the name of a shipped one.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: its network differs in more than its passes.
    """
    source, info = checkpoints.load(checkpoint)
    if info.recurrent != isinstance(model.config, RecurrentConfig):
        there, here = ("recurrent", "STDNet") if info.recurrent else ("STDNet", "recurrent")
        raise ConfigError(
            f"init: the network of {checkpoint} is another one ({there}; the run's is {here}); choose a checkpoint of "
            "the same preset"
        )
    theirs, ours = dataclasses.asdict(info.config), dataclasses.asdict(model.config)
    differing = [name for name in ours if name != "passes" and ours[name] != theirs[name]]
    if differing:
        there = ", ".join(f"{name}: {theirs[name]}" for name in differing)
        here = ", ".join(f"{name}: {ours[name]}" for name in differing)
        raise ConfigError(
            f"init: the network of {checkpoint} is another one ({there}; the run's has {here}); set these under "
            "'model' as in the checkpoint, or choose a checkpoint of the same preset"
        )
    state = source.state_dict()
    model.load_state_dict(state if info.recurrent else _adapt(state, info.config, model))


def _adapt(state: dict[str, Tensor], config: ModelConfig, model: STDNet) -> dict[str, Tensor]:
    last = len(config.passes) - 1
    adapted = {}
    for name, own in model.state_dict().items():
        match = _PASS.match(name)
        if match:
            own = state[f"{match[1]}{min(int(match[2]), last)}.{name[match.end() :]}"]
        elif _MERGE.match(name):
            inputs = min(own.shape[1], state[name].shape[1])
            own = torch.zeros_like(own)
            own[:, :inputs] = state[name][:, :inputs]
        else:
            own = state[name]
        adapted[name] = own
    return adapted
