"""The state of a run in a few megabytes, for machines that are available only for minutes and transfer small files.

Weights, their average and the optimiser's moments are stored in half precision: float16 for weights (higher precision),
bfloat16 for moments (wider range). Each file stays below a size limit. A run resumes from the exact state bit for bit;
from this one it resumes with weights rounded to 11 bits, which does not affect training noticeably."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from stdnet_core.errors import CheckpointError
from stdnet_core.training.state import FORMAT, RunState, read_tensors
from stdnet_core.whole_files import write_tensors, write_text

FILE_LIMIT = 14_000_000
"""Largest number of bytes of tensors in a file."""
INDEX = "index.json"
_TYPES = {"weights": torch.float16, "average": torch.float16, "exp_avg": torch.bfloat16, "exp_avg_sq": torch.bfloat16}
_LEAST_IMPORTANT = (("exp_avg",), ("exp_avg", "exp_avg_sq"), ("exp_avg", "exp_avg_sq", "average"))


def write(folder: str | Path, state: RunState, total_mb: float = 60.0) -> list[str]:
    """Write a compact state into ``folder``, replacing an earlier one.

    If the state is larger than ``total_mb``, parts are left out, the least important first: the first moment, then the
    second (Adam warms up again), then the average (it restarts at the weights).

    Returns:
        The parts left out.

    Raises:
        CheckpointError: the weights alone exceed the limit.
        OutputError: it cannot be written.
    """
    folder = Path(folder)
    tensors = {}
    for name, tensor in state.tensors().items():
        kind = _TYPES[name.partition("/")[0]]
        tensors[name] = _reduce(tensor, kind) if tensor.is_floating_point() else tensor
    dropped: tuple[str, ...] = ()
    for candidate in ((), *_LEAST_IMPORTANT):
        dropped = candidate
        kept = {k: v for k, v in tensors.items() if k.partition("/")[0] not in dropped}
        if _size(kept) <= total_mb * 1e6:
            break
    else:
        raise CheckpointError(
            f"the weights alone are {_size(kept) / 1e6:.0f} MB, more than the {total_mb:g} MB allowed"
        )
    files: list[dict[str, Tensor]] = [{}]
    for name in sorted(kept):
        for part, piece in _pieces(name, kept[name]):
            if files[-1] and _size(files[-1]) + piece.nbytes > FILE_LIMIT:
                files.append({})
            files[-1][part] = piece
    names = [f"part{number:02d}-step{state.step:07d}.safetensors" for number in range(len(files))]
    for name, content in zip(names, files, strict=True):
        write_tensors(folder / name, content, {"format": FORMAT})
    shapes = {name: list(tensor.shape) for name, tensor in kept.items()}
    index = {"files": names, "metadata": state.metadata(), "shapes": shapes, "left_out": list(dropped)}
    write_text(folder / INDEX, json.dumps(index))
    for old in folder.glob("part*-step*.safetensors"):
        if old.name not in names:
            old.unlink()
    return list(dropped)


def read(folder: str | Path) -> RunState:
    """Read a compact state.

    Raises:
        CheckpointError: files are missing or damaged.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        files, metadata, shapes = index["files"], index["metadata"], index["shapes"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no compact state: there is no {INDEX}") from error
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / INDEX} cannot be used ({error}); copy the folder again") from error
    pieces: dict[str, dict[int, Tensor]] = {}
    for name in files:
        for part, piece in read_tensors(folder / name)[0].items():
            whole, _, number = part.rpartition("#")
            pieces.setdefault(whole, {})[int(number)] = piece
    missing = sorted(set(shapes) - set(pieces))
    if missing:
        raise CheckpointError(f"the compact state in {folder} lacks {len(missing)} tensors (first: {missing[0]})")
    tensors = {}
    for name, shape in shapes.items():
        flat = torch.cat([piece for _, piece in sorted(pieces[name].items())])
        tensor = flat.reshape(shape)
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    state = RunState.from_tensors(tensors, metadata)
    if not state.average:
        prefix = "model."
        state.average = {k.removeprefix(prefix): v.clone() for k, v in state.weights.items() if k.startswith(prefix)}
    return state


def _reduce(tensor: Tensor, kind: torch.dtype) -> Tensor:
    if kind == torch.float16:
        limit = torch.finfo(torch.float16).max
        tensor = tensor.clamp(-limit, limit)
    return tensor.to(kind)


def _pieces(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """The flattened tensor in pieces that each fit a file, with names that give their order."""
    flat = tensor.reshape(-1)
    step = max(1, FILE_LIMIT // flat.element_size())
    return [(f"{name}#{n}", flat[i : i + step].clone()) for n, i in enumerate(range(0, max(1, flat.numel()), step))]


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
