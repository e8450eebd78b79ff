"""The state of a run on disk: weights, their average, optimiser moments, step.

Everything else (learning rate, data order) is a function of the step. The state is one safetensors file, which is
replaced atomically: a run killed at any moment leaves the previous or the new state, never a partial one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from stdnet_core.errors import CheckpointError
from stdnet_core.whole_files import write_tensors

FORMAT = "stdnet-training-1"
FILE_NAME = "state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class RunState:
    """What a run needs to resume.

    Attributes:
        step: finished steps.
        seconds: time spent on training so far.
        weights: parameters and buffers of the network and of the loss's heads.
        average: moving average of the network's parameters, by their names in the network's ``state_dict``.
        moments: by parameter name: Adam's ``exp_avg`` and ``exp_avg_sq``; for parameters of Muon, ``exp_avg`` alone.
        updates: number of optimiser steps of each parameter.
        about: JSON values: model, best score so far, seed, validation key.
    """

    step: int
    seconds: float
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    updates: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, flat, named ``part/parameter``."""
        flat = {f"weights/{name}": tensor for name, tensor in self.weights.items()}
        flat |= {f"average/{name}": tensor for name, tensor in self.average.items()}
        for moment, values in self.moments.items():
            flat |= {f"{moment}/{name}": tensor for name, tensor in values.items()}
        return flat

    def metadata(self) -> dict[str, str]:
        """All but the tensors, as metadata for safetensors."""
        header = {"step": self.step, "seconds": self.seconds, "updates": self.updates, "about": self.about}
        return {"format": FORMAT, "state": json.dumps(header)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], metadata: dict[str, str]) -> RunState:
        """The inverse of :meth:`tensors` and :meth:`metadata`."""
        header = json.loads(metadata["state"])
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, parameter = name.partition("/")
            parts.setdefault(part, {})[parameter] = tensor
        return cls(
            step=int(header["step"]),
            seconds=float(header["seconds"]),
            weights=parts.get("weights", {}),
            average=parts.get("average", {}),
            moments={moment: parts[moment] for moment in MOMENTS if moment in parts},
            updates=header["updates"],
            about=header["about"],
        )


def capture(
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    *,
    step: int,
    seconds: float,
    about: dict[str, Any],
) -> RunState:
    """The state of a run, on the CPU (tensors there are not copied)."""
    moments: dict[str, dict[str, Tensor]] = {moment: {} for moment in MOMENTS}
    updates = {}
    for name, parameter in network.named_parameters():
        values = optimizer.state.get(parameter) if optimizer is not None else None
        if values:
            updates[name] = float(values["step"])
            for moment in MOMENTS:
                if moment in values:
                    moments[moment][name] = values[moment].detach().cpu()
    return RunState(
        step=step,
        seconds=seconds,
        weights={k: v.detach().cpu() for k, v in network.state_dict().items()},
        average={k: v.detach().cpu() for k, v in average.state_dict().items()},
        moments=moments,
        updates=updates,
        about=about,
    )


def restore_weights(state: RunState, network: nn.Module, average: nn.Module, where: str) -> None:
    """Load a state's weights and average into modules.

    Raises:
        CheckpointError: they belong to another network or loss.
    """
    for module, values, what in ((network, state.weights, "weights"), (average, state.average, "average")):
        expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
        found = {k: tuple(v.shape) for k, v in values.items()}
        if expected != found:
            odd = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise CheckpointError(
                f"the {what} in {where} belong to another network or loss ({len(odd)} tensors differ, first: "
                f"{odd[0]}); train into another folder, or with the model and loss settings of the run there"
            )
        module.load_state_dict(values)


def restore_optimizer(state: RunState, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load a state's moments into an optimiser of the network's parameters; missing ones start from zero."""
    by_muon = {id(p) for group in optimizer.param_groups if group.get("orthogonal") for p in group["params"]}
    for name, parameter in network.named_parameters():
        needed = MOMENTS[:1] if id(parameter) in by_muon else MOMENTS
        if name in state.updates and all(name in state.moments.get(moment, {}) for moment in needed):
            optimizer.state[parameter] = {
                "step": torch.tensor(state.updates[name], dtype=torch.float32),
                **{moment: torch.empty_like(parameter).copy_(state.moments[moment][name]) for moment in needed},
            }


def write(path: str | Path, state: RunState) -> None:
    """Write the exact state; the file at ``path`` is always complete.

    Raises:
        OutputError: it cannot be written.
    """
    write_tensors(Path(path), {k: v.contiguous() for k, v in state.tensors().items()}, state.metadata())


def read(path: str | Path) -> RunState:
    """Read an exact state.

    Raises:
        CheckpointError: missing, damaged or not the state of a run.
    """
    tensors, metadata = read_tensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a training state of this version; remove it to start a new run")
    return RunState.from_tensors(tensors, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); it may be truncated: copy it again") from error
