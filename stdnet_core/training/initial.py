"""Weights to start a run from: those of a checkpoint, of the same network or of one with fewer passes or channels."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from stdnet_core import checkpoints
from stdnet_core.errors import ConfigError
from stdnet_core.model import ModelConfig, RecurrentConfig, RecurrentNet, STDNet

_PASS = re.compile(r"^(stages\.\d+\.temporal\.)(\d+)\.")
_MERGE = re.compile(r"^stages\.\d+\.reconstruction\.0\.weight$")
_WIDTHS = ("channels", "channels_8", "channels_16")  # of a recurrent network


def initialize(model: STDNet | RecurrentNet, checkpoint: str) -> None:
    """Copy a checkpoint's weights into a network.

    The networks may differ in their passes, so that a causal network can be the start of a bidirectional one: pass i
    takes the weights of the checkpoint's pass i, or of its last one. Passes that the checkpoint did not have start with
    weight 0 in the merging convolution. A recurrent network may be wider than the checkpoint's: it starts with the same
    output, and the additional channels are then trained. Everything else must be equal in both networks.

    Args:
        model: changed in place.
        checkpoint: a file, or the name of a shipped one.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: its network differs in anything else.
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
    if info.recurrent:
        differing = [name for name in differing if name not in _WIDTHS or ours[name] < theirs[name]]
    if differing:
        there = ", ".join(f"{name}: {theirs[name]}" for name in differing)
        here = ", ".join(f"{name}: {ours[name]}" for name in differing)
        raise ConfigError(
            f"init: the network of {checkpoint} is another one ({there}; the run's has {here}); set these under "
            "'model' as in the checkpoint, or choose a checkpoint of the same preset"
        )
    state = source.state_dict()
    if isinstance(model, RecurrentNet) and isinstance(info.config, RecurrentConfig):
        state = _widened(state, info.config, model)
    elif isinstance(model, STDNet) and isinstance(info.config, ModelConfig):
        state = _adapt(state, info.config, model)
    model.load_state_dict(state)


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


@dataclass(frozen=True)
class _Layer:
    """How a layer of a recurrent network is widened.

    The streams (the features at H/4, H/8 and H/16) get channels that are 0 at first, and the layers after them have
    random weights for these channels. Inside a block or a head, where a ReLU has no gradient at 0, it is the other way
    round: the new channels have values at first, and the layers after them have weights of 0 for them.

    Attributes:
        input: number of groups of channels that come in, and their stream, before channels that never grow; None: no
            such group. The streams are called ``4``, ``8`` and ``16``, channels inside a block ``inner 4`` and so on.
        output: the same for the output.
        weight, bias: factors, as powers of the growth of the streams at H/4, H/8 and H/16. They are needed because the
            normalisation makes the other channels larger, by the root of the growth, if some are 0.
    """

    input: tuple[int, str] | None
    output: tuple[int, str] | None
    weight: tuple[float, float, float] = (0, 0, 0)
    bias: tuple[float, float, float] = (0, 0, 0)


def _blocks(stream: str, divided: tuple[float, float, float]) -> tuple[_Layer, _Layer]:
    return (
        _Layer((1, stream), (1, f"inner {stream}"), divided),
        _Layer((1, f"inner {stream}"), (1, stream)),
    )


_BLOCK4, _BLOCK8, _BLOCK16 = _blocks("4", (-1, 0, 0)), _blocks("8", (0, -1, 0)), _blocks("16", (0, 0, -1))
_GROWING = {
    r"stem": _Layer(None, (2, "inner 4")),
    r"stem2": _Layer((2, "inner 4"), (1, "4")),
    r"(en|de)code4\.conv1": _BLOCK4[0],
    r"(en|de)code4\.conv2": _BLOCK4[1],
    r"down8": _Layer((1, "4"), (1, "8"), (0, 1, 0), (0, 1, 0)),  # compared with the state, which is normalised
    r"merge8": _Layer((4, "8"), (1, "8"), (0, -1, 0)),
    r"encode8\.\d+\.conv1": _BLOCK8[0],
    r"encode8\.\d+\.conv2": _BLOCK8[1],
    r"down16": _Layer((1, "8"), (1, "16"), (0, -1, 0)),
    r"encode16\.\d+\.conv1": _BLOCK16[0],
    r"encode16\.\d+\.conv2": _BLOCK16[1],
    r"context": _Layer((1, "16"), (1, "16"), bias=(0, 0, 1)),
    r"up8": _Layer((1, "16"), (1, "8"), (0, 1, -1), (0, 1, 0)),
    r"decode8\.conv1": _BLOCK8[0],
    r"decode8\.conv2": dataclasses.replace(_BLOCK8[1], weight=(0, 1, 0), bias=(0, 1, 0)),
    r"gate": _Layer((2, "8"), (1, "8"), (0, -1, 0)),
    r"up4": _Layer((1, "8"), (1, "4"), (0, -1, 0)),
    r"coarse_head": _Layer((1, "4"), None),
    r"refine": _Layer((1, "4"), (2, "inner 4")),
    r"(fine|colour|range)_head": _Layer((2, "inner 4"), None),
}


def _widened(state: dict[str, Tensor], config: RecurrentConfig, model: RecurrentNet) -> dict[str, Tensor]:
    old, new = ({"4": c.channels, "8": c.channels_8, "16": c.channels_16} for c in (config, model.config))
    growth = [math.sqrt(new[stream] / old[stream]) for stream in new]

    def places(group: tuple[int, str] | None) -> tuple[Tensor, bool]:
        """Where the checkpoint's channels of some groups lie in the network's, and whether these are a stream."""
        if group is None:
            return torch.arange(0), False
        stream = group[1].removeprefix("inner ")
        first = torch.arange(group[0]) * new[stream]
        return (first[:, None] + torch.arange(old[stream])).flatten(), stream == group[1]

    widened = {}
    for name, own in model.state_dict().items():
        layer_name, kind = name.rsplit(".", 1)
        layer = next(layer for pattern, layer in _GROWING.items() if re.fullmatch(pattern, layer_name))
        given, grown = state[name], own.clone()
        rows, is_stream = places(layer.output) if layer.output else (torch.arange(len(given)), False)
        if is_stream:
            grown[_others(rows, len(own))] = 0
        factor = math.prod(one**power for one, power in zip(growth, getattr(layer, kind), strict=True))
        if kind == "bias":
            grown[rows] = given * factor
        else:
            columns, is_stream = places(layer.input)
            fixed = given.shape[1] - len(columns)
            columns = torch.cat((columns, torch.arange(own.shape[1] - fixed, own.shape[1])))
            if not is_stream:
                grown[:, _others(columns, own.shape[1])] = 0
            grown[rows[:, None], columns] = given * factor
        widened[name] = grown
    return widened


def _others(places: Tensor, count: int) -> Tensor:
    """(count,) bool: all but some places."""
    others = torch.ones(count, dtype=torch.bool)
    others[places] = False
    return others
