"""Checkpoints: safetensors with metadata, and the authors' released files.

A checkpoint of this project is one ``.safetensors`` file whose metadata carry everything that is needed to run it: the
model's configuration, the scales and the depth range it was trained for, where it came from, and its measured
accuracy. It holds tensors only; opening one from a stranger runs no code."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stdnet_core.errors import CheckpointError, ConfigError
from stdnet_core.model import ModelConfig, RecurrentConfig, RecurrentNet, STDNet, build, network_config

FORMAT = "stdnet-1"


def scales_text(scales: Sequence[float]) -> str:
    """Factors that a network was trained for, as messages name them."""
    return f"x{', x'.join(map(str, scales))}" if scales else "any ratio"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself.

    Attributes:
        config: the model's configuration.
        scales: upsampling factors it was trained for, ascending; none for a recurrent network, which takes any ratio.
        depth_range: metres that depths are divided by; None: each clip by its own range
            (:func:`stdnet_core.normalization.clip_depth_range`), or a recurrent network, which takes metres.
        provenance: how it was trained (configuration, seed, steps, data), JSON values.
        metrics: measured accuracy, JSON values.
        name: file name without its ending.
    """

    config: ModelConfig | RecurrentConfig
    scales: tuple[int, ...]
    depth_range: float | None
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        scales = tuple(sorted(set(self.scales)))
        if self.recurrent:
            if scales or self.depth_range is not None:
                raise CheckpointError(
                    "a recurrent network takes any ratio and metres: give no scales and no depth_range"
                )
            object.__setattr__(self, "scales", scales)
            return
        if not scales or any(not isinstance(s, int) or s < 4 or s % 4 for s in scales):
            raise CheckpointError(f"scales are {self.scales!r}; give multiples of 4, at least one")
        object.__setattr__(self, "scales", scales)
        if self.depth_range is not None and not 0 < self.depth_range < math.inf:
            raise CheckpointError(f"depth_range is {self.depth_range!r}; give positive metres or None")

    @property
    def recurrent(self) -> bool:
        """Whether the network is a :class:`stdnet_core.model.RecurrentNet`."""
        return isinstance(self.config, RecurrentConfig)


def available() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    folder = resources.files("stdnet_core") / "weights"
    if not folder.is_dir():
        return []
    return sorted(f.name[: -len(".safetensors")] for f in folder.iterdir() if f.name.endswith(".safetensors"))


def resolve(path_or_name: str | Path) -> Path:
    """Path of a checkpoint file, given one or the name of a shipped checkpoint.

    Raises:
        CheckpointError: neither exists.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    if str(path_or_name) in available():
        return Path(str(resources.files("stdnet_core") / "weights" / f"{path_or_name}.safetensors"))
    names = ", ".join(available()) or "none"
    raise CheckpointError(
        f"there is no checkpoint file {str(path_or_name)!r}, nor a shipped one of that name (shipped: {names}); "
        "give the path of a .safetensors file made by stdnet_core.train"
    )


def save(
    path: str | Path, model: STDNet | RecurrentNet, info: CheckpointInfo, dtype: torch.dtype | None = None
) -> None:
    """Write a checkpoint; the file appears whole or not at all.

    Args:
        dtype: store the weights in this type (half precision halves the file); None keeps theirs.
    """
    path = Path(path)
    state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(info.config.to_dict()),
        "scales": json.dumps(list(info.scales)),
        "depth_range": json.dumps(info.depth_range),
        "provenance": json.dumps(info.provenance),
        "metrics": json.dumps(info.metrics),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    save_file(state, temporary, metadata=metadata)
    temporary.chmod(0o644)  # safetensors writes files that only their owner may read
    temporary.replace(path)


def load(path_or_name: str | Path) -> tuple[STDNet | RecurrentNet, CheckpointInfo]:
    """Read a checkpoint of this project.

    Args:
        path_or_name: a ``.safetensors`` file or the name of a shipped checkpoint (:func:`available`).

    Returns:
        The model on the CPU in float32 and evaluation mode, and what the file says about itself.

    Raises:
        CheckpointError: missing, damaged, of another format, or its tensors do not fit its own configuration.
    """
    path = resolve(path_or_name)
    if path.suffix in (".pth", ".pt"):
        raise CheckpointError(
            f"{path} is a PyTorch file; make a checkpoint of the authors' released weights with: python -m "
            f"stdnet_core.convert {path} --scale S --depth-range M {path.stem}.safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated: copy it again"
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file but no checkpoint of this project "
            f"(format {metadata.get('format')!r}, expected {FORMAT!r}); use one made by stdnet_core.train"
        )
    try:
        info = CheckpointInfo(
            config=network_config(json.loads(metadata["config"])),
            scales=tuple(json.loads(metadata["scales"])),
            depth_range=json.loads(metadata["depth_range"]),
            provenance=json.loads(metadata.get("provenance", "{}")),
            metrics=json.loads(metadata.get("metrics", "{}")),
            name=path.stem,
        )
    except (KeyError, ValueError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"the metadata of {path} cannot be used ({error}); it may come from a newer version of this package"
        ) from error
    return _build(info.config, state, path), info


def _build(config: ModelConfig | RecurrentConfig, state: dict[str, Tensor], path: Path) -> STDNet | RecurrentNet:
    model = build(config)  # not on the meta device, where initialisation costs seconds
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if expected != found:
        missing = sorted(set(expected) - set(found))
        unknown = sorted(set(found) - set(expected))
        differing = sorted(k for k in expected.keys() & found.keys() if expected[k] != found[k])
        example = (missing or unknown or differing)[0]
        raise CheckpointError(
            f"the tensors of {path} do not fit its configuration: {len(missing)} missing, {len(unknown)} unknown, "
            f"{len(differing)} of another shape (first: {example}); the file was made for another model"
        )
    model.load_state_dict(state)
    return model.eval()


# --- the authors' released files -------------------------------------------------------------------------------------

_RELEASED_PASSES = ("backward_1", "forward_1", "backward_2", "forward_2")

_RELEASED_NAMES: list[tuple[str, str]] = [
    (r"^conv_guide_init\.hg_(\d)\.", r"stages.\1.guide_encoder."),
    (r"^conv_dep_init\.hg_(\d)\.", r"stages.\1.depth_encoder."),
    (r"^feat_extract_f\.hg_(\d)\.", r"stages.\1.spatial."),
    (r"^feat_extract\.hg_(\d)\.", r"stages.\1.trunk."),
    (r"^reconstruction\.hg_(\d)\.", r"stages.\1.reconstruction."),
    (r"^deform_align\.hg_(\d)\.", r"stages.\1.temporal."),
    *((rf"\.temporal\.{name}\.", f".temporal.{i}.") for i, name in enumerate(_RELEASED_PASSES)),
    (r"^final_pred\.hg_(\d)\.0\.upsample_conv\.", r"stages.\1.prediction.0.0."),
    (r"^final_pred\.hg_(\d)\.2\.upsample_conv\.", r"stages.\1.prediction.1.0."),
    (r"^final_pred\.hg_(\d)\.4\.", r"stages.\1.prediction.2."),
    (r"^final_pred\.hg_(\d)\.6\.", r"stages.\1.prediction.4."),
    (r"\.spatial\.conv_diff\.", ".spatial.kernel_generator.encoder."),
    (r"\.spatial\.conv_du\.", ".spatial.weight_conv."),
    (r"\.spatial\.kg\.conv\.", ".spatial.kernel_generator.conv."),
    (r"\.spatial\.kg\.rg\.", ".spatial.kernel_generator.group."),
    (r"\.spatial\.rg\.", ".spatial.fusion_group."),
    (r"\.conv_re\.", ".fusion_conv."),
    (r"(\.temporal\.\d)\.w$", r"\1.deform_conv.weight"),
    (r"(\.temporal\.\d)\.b$", r"\1.deform_conv.bias"),
    (r"(\.temporal\.\d)\.conv_diff\.", r"\1.difference_conv."),
    (r"(\.temporal\.\d)\.conv_du\.", r"\1.difference_fusion."),
    (r"(\.temporal\.\d)\.conv_offset_mask\.", r"\1.offset_mask_conv."),
    (r"(\.temporal\.\d)\.conv_outDCN\.", r"\1.aligned_conv."),
    (r"(\.temporal\.\d)\.rg1\.", r"\1.fusion_group."),
    (r"\.body\.(\d)\.body\.0\.", r".blocks.\1.conv1."),
    (r"\.body\.(\d)\.body\.2\.", r".blocks.\1.conv2."),
    (r"\.body\.(\d)\.body\.3\.conv_du\.0\.", r".blocks.\1.attention.squeeze."),
    (r"\.body\.(\d)\.body\.3\.conv_du\.2\.", r".blocks.\1.attention.excite."),
    (r"\.body\.\d\.(weight|bias)$", r".conv.\1"),
    (r"\.main\.0\.", ".0."),
]


def _own_name(released: str) -> str:
    """This project's name of a released parameter; there, stages count from 1 and residual blocks have lists."""
    name = released
    for pattern, replacement in _RELEASED_NAMES:
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"^stages\.(\d)", lambda m: f"stages.{int(m[1]) - 1}", name)
    return re.sub(r"\.main\.2\.(\d+)\.", lambda m: f".{2 + int(m[1])}.", name)


def load_released(
    path: str | Path, *, scale: int, depth_range: float, fusion: str = "release"
) -> tuple[STDNet, CheckpointInfo]:
    """Read a checkpoint that the paper's authors released (``.pth``, or the same state dict saved otherwise).

    Such a file holds nothing but tensors: which scale and depth range it was trained for has to be said. The width is
    read from the tensors.

    Args:
        path: a file of the state dict, or one with an entry ``state_dict``.
        scale: the upsampling factor it was trained for.
        depth_range: metres that its depths are divided by (30 for TartanAir, 40 for DyDToF).

    Raises:
        CheckpointError: missing, damaged, or not such a file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the path of a released .pth")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, pickle.UnpicklingError):  # torch's text advises to let the file run code
            reason = "it is no PyTorch file, or holds more than tensors"
        else:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be opened as a file of plain tensors ({reason}); it is truncated or no checkpoint"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise CheckpointError(f"{path} holds no state dict of tensors; give a released STDNet checkpoint")
    state = {_own_name(k.removeprefix("module.")): v.float() for k, v in state.items()}
    width = state.get("stages.0.guide_encoder.0.weight")
    if width is None or width.ndim != 4:
        raise CheckpointError(
            f"{path} holds {len(state)} tensors, but not under the names of the released STDNet; for a "
            "checkpoint of this project use stdnet_core.checkpoints.load"
        )
    config = ModelConfig(channels=width.shape[0], spatial_fusion=fusion)
    info = CheckpointInfo(config, (scale,), float(depth_range), provenance={"released": path.name}, name=path.stem)
    return _build(config, state, path), info
