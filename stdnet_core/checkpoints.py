"""Checkpoints: safetensors with metadata, and the authors' released files.

A checkpoint of this project is one ``.safetensors`` file. Its metadata hold everything that is needed to run it: the
model's configuration, the scales and the depth range of its training, its provenance, and its measured accuracy. The
file holds only tensors, so opening one from an untrusted source runs no code. Contents that no training produces are
refused, implausible sizes before memory is allocated for them."""

from __future__ import annotations

import json
import math
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stdnet_core.errors import CheckpointError, ConfigError
from stdnet_core.model import ModelConfig, RecurrentConfig, RecurrentNet, STDNet, build, network_config
from stdnet_core.short_repr import short_repr
from stdnet_core.whole_files import write_tensors

_Network = TypeVar("_Network", bound=nn.Module)

FORMAT = "stdnet-1"
LARGEST_SCALE = 64
DEPTH_RANGES = (0.01, 1000.0)
"""Smallest and largest depth range of a checkpoint, in metres."""
LARGEST_NETWORK = 250_000_000
"""Largest number of values of a network that is loaded; the paper's has 20 million."""
LARGEST_WEIGHT = 1e6
_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
"""Types of weights, by their names in safetensors."""


def scales_text(scales: Sequence[float]) -> str:
    """The factors for which a network was trained, as text for messages."""
    return f"x{', x'.join(map(str, scales))}" if scales else "any ratio"


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint's description of its network.

    Attributes:
        config: the model's configuration.
        scales: upsampling factors of the training, ascending; none for a recurrent network, which accepts any ratio.
        depth_range: metres by which depths are divided; None: each clip by its own range
            (:func:`stdnet_core.inference.normalization.clip_depth_range`), or a recurrent network, which uses metres.
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

    __repr__ = short_repr

    def __post_init__(self) -> None:
        scales = tuple(sorted(set(self.scales)))
        if self.recurrent:
            if scales or self.depth_range is not None:
                raise CheckpointError(
                    "a recurrent network accepts any ratio, in metres: give no scales and no depth_range"
                )
            object.__setattr__(self, "scales", scales)
            return
        if not scales or any(not isinstance(s, int) or not 4 <= s <= LARGEST_SCALE or s % 4 for s in scales):
            raise CheckpointError(
                f"scales are {self.scales!r:.60}; give multiples of 4 up to {LARGEST_SCALE}, at least one"
            )
        object.__setattr__(self, "scales", scales)
        low, high = DEPTH_RANGES
        if self.depth_range is not None and not (_is_number(self.depth_range) and low <= self.depth_range <= high):
            raise CheckpointError(
                f"depth_range is {self.depth_range!r:.60}; give metres from {low:g} to {high:g}, or None"
            )

    @property
    def recurrent(self) -> bool:
        """Whether the network is a :class:`stdnet_core.model.RecurrentNet`."""
        return isinstance(self.config, RecurrentConfig)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def available() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    folder = resources.files("stdnet_core") / "weights"
    if not folder.is_dir():
        return []
    return sorted(f.name[: -len(".safetensors")] for f in folder.iterdir() if f.name.endswith(".safetensors"))


def resolve(path_or_name: str | Path) -> Path:
    """Path of a checkpoint file, for a path or the name of a shipped checkpoint.

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
        f"there is no checkpoint file {str(path_or_name)!r}, nor a shipped one with that name (shipped: {names}); "
        "give the path of a .safetensors file made by stdnet_core.train"
    )


def save(
    path: str | Path, model: STDNet | RecurrentNet, info: CheckpointInfo, dtype: torch.dtype | None = None
) -> None:
    """Write a checkpoint; the file is either complete or does not exist.

    Args:
        dtype: type in which to store the weights (half precision halves the file); None: unchanged.

    Raises:
        OutputError: it cannot be written.
    """
    state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(info.config.to_dict()),
        "scales": json.dumps(list(info.scales)),
        "depth_range": json.dumps(info.depth_range),
        "provenance": json.dumps(_plain(info.provenance), allow_nan=False),
        "metrics": json.dumps(_plain(info.metrics), allow_nan=False),
    }
    write_tensors(Path(path), state, metadata)


def _plain(values: Any) -> Any:
    """JSON values, with null for NaN and infinity: figures that could not be measured."""
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def load(path_or_name: str | Path) -> tuple[STDNet | RecurrentNet, CheckpointInfo]:
    """Read a checkpoint of this project.

    Args:
        path_or_name: a ``.safetensors`` file or the name of a shipped checkpoint (:func:`available`).

    Returns:
        The model on the CPU in float32 and evaluation mode, and the file's description.

    Raises:
        CheckpointError: missing, damaged or of another format; its tensors do not fit its own configuration; or it
            holds values that no training produces (NaN, infinity, integers as weights, implausible sizes).
    """
    path = resolve(path_or_name)
    if path.suffix in (".pth", ".pt"):
        raise CheckpointError(
            f"{path} is a PyTorch file; convert the authors' released weights to a checkpoint with: python -m "
            f"stdnet_core.convert {path} --scale S --depth-range M {path.stem}.safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            info = _info(file.metadata() or {}, path)
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            kinds = {key: _FLOATS.get(part.get_dtype()) for key, part in parts.items()}
            model = _empty_network(info.config, {k: tuple(p.get_shape()) for k, p in parts.items()}, kinds, path)
            return _filled(model, {key: file.get_tensor(key) for key in parts}, path), info
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated: copy it again"
        ) from error


def _info(metadata: dict[str, str], path: Path) -> CheckpointInfo:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file but not a checkpoint of this project "
            f"(format {metadata.get('format')!r}, expected {FORMAT!r}); use one made by stdnet_core.train"
        )
    try:
        return info_from_metadata({"provenance": "{}", "metrics": "{}"} | metadata, path.stem)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(
            f"the metadata of {path} cannot be used: {error}; use a file made by stdnet_core.train, or a newer version "
            "of this package"
        ) from error


def info_from_metadata(metadata: Mapping[str, str], name: str) -> CheckpointInfo:
    """Read a file's metadata: ``config``, ``scales``, ``depth_range``, ``provenance`` and ``metrics`` as JSON.

    Raises:
        CheckpointError, ConfigError: a value is missing, not JSON, or implausible.
    """
    kinds = {"config": dict, "scales": list, "depth_range": object, "provenance": dict, "metrics": dict}
    values = {key: _parsed(metadata, key) for key in kinds}
    for key, kind in kinds.items():
        if not isinstance(values[key], kind):
            raise CheckpointError(f"{key} is {values[key]!r:.60}, which is not a JSON {kind.__name__}")
    try:
        values["config"] = network_config(values["config"])
        return CheckpointInfo(**{**values, "scales": tuple(values["scales"])}, name=name)
    except (TypeError, ValueError) as error:
        raise CheckpointError(str(error)) from error


def _parsed(metadata: Mapping[str, str], key: str) -> Any:
    """Parse one JSON value of the metadata; NaN and infinity, which JSON does not have, are refused."""

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"{text:.20} is not a finite number")
        return number

    try:
        return json.loads(metadata[key], parse_float=finite, parse_constant=finite)
    except KeyError as error:
        raise CheckpointError(f"{key} is missing") from error
    except RecursionError as error:
        raise CheckpointError(f"{key} is nested too deeply") from error
    except ValueError as error:
        raise CheckpointError(f"{key} is not JSON ({error})") from error


class _TooLarge(Exception):
    pass


class _WithoutValues(TorchFunctionMode):
    """Builds networks without initialising them, which takes seconds on the meta device, and stops above a size."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        result = func(*args, **(kwargs or {}))
        if func is torch.empty:
            self.left -= result.numel()
            if self.left < 0:
                raise _TooLarge
        return result


@overload
def _empty_network(
    config: ModelConfig, shapes: dict[str, tuple[int, ...]], kinds: dict[str, torch.dtype | None], path: Path
) -> STDNet: ...
@overload
def _empty_network(
    config: RecurrentConfig, shapes: dict[str, tuple[int, ...]], kinds: dict[str, torch.dtype | None], path: Path
) -> RecurrentNet: ...
def _empty_network(
    config: ModelConfig | RecurrentConfig,
    shapes: dict[str, tuple[int, ...]],
    kinds: dict[str, torch.dtype | None],
    path: Path,
) -> STDNet | RecurrentNet:
    """The network of a configuration on the meta device, after checking that a file's tensors fit it."""
    held = sum(math.prod(shape) for shape in shapes.values())
    if held > LARGEST_NETWORK:
        raise CheckpointError(
            f"{path} holds {held:,} values; the largest network that is loaded has {LARGEST_NETWORK:,}"
        )
    try:
        with torch.device("meta"), _WithoutValues(2 * held):  # enough to list the missing tensors of a similar network
            model = build(config)
    except _TooLarge:
        raise CheckpointError(
            f"the tensors of {path} do not fit its configuration, whose network has far more values than the {held:,} "
            "of the file; the file was made for another model"
        ) from None
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    if expected != shapes:
        missing = sorted(set(expected) - set(shapes))
        unknown = sorted(set(shapes) - set(expected))
        differing = sorted(k for k in expected.keys() & shapes.keys() if expected[k] != shapes[k])
        example = (missing or unknown or differing)[0]
        raise CheckpointError(
            f"the tensors of {path} do not fit its configuration: {len(missing)} missing, {len(unknown)} unknown, "
            f"{len(differing)} of another shape (first: {example}); the file was made for another model"
        )
    odd = sorted(k for k, kind in kinds.items() if kind not in _FLOATS.values())
    if odd:
        raise CheckpointError(
            f"{path} holds {len(odd)} tensors that are not floating-point numbers (first: {odd[0]}), so they are not "
            "weights; use a file made by stdnet_core.train"
        )
    return model


def _filled(model: _Network, state: dict[str, Tensor], path: Path) -> _Network:
    """The network with the weights as float32 copies, ready to run."""
    state = {  # copies, which do not depend on the memory-mapped file
        key: value.to(torch.float32, copy=True, memory_format=torch.contiguous_format) for key, value in state.items()
    }
    odd = sorted(k for k, v in state.items() if v.numel() and not v.abs().amax() <= LARGEST_WEIGHT)
    if odd:
        raise CheckpointError(
            f"{path} holds NaN, infinity or numbers beyond {LARGEST_WEIGHT:g} in {len(odd)} tensors (first: "
            f"{odd[0]}), which no training produces; use another file"
        )
    model.load_state_dict(state, assign=True)
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
    """This project's name for a released parameter. The release counts stages from 1 and nests residual blocks."""
    name = released
    for pattern, replacement in _RELEASED_NAMES:
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"^stages\.(\d)", lambda m: f"stages.{int(m[1]) - 1}", name)
    return re.sub(r"\.main\.2\.(\d+)\.", lambda m: f".{2 + int(m[1])}.", name)


def load_released(
    path: str | Path, *, scale: int, depth_range: float, fusion: Literal["release", "paper"] = "release"
) -> tuple[STDNet, CheckpointInfo]:
    """Read a checkpoint that the paper's authors released (``.pth``, or the same state dict in another container).

    Such a file holds only tensors, so the scale and the depth range of its training must be given. The width is read
    from the tensors.

    Args:
        path: a file with the state dict, or with an entry ``state_dict``.
        scale: the upsampling factor of its training.
        depth_range: metres by which its depths are divided (30 for TartanAir, 40 for DyDToF).
        fusion: ``spatial_fusion`` of the model's configuration.

    Raises:
        CheckpointError: missing, damaged, or not such a file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the path of a released .pth")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of files that are not checkpoints
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for other files, torch may raise any exception
        if isinstance(error, pickle.UnpicklingError):  # torch's message advises to let the file run code
            reason = "it is not a PyTorch file, or holds more than tensors"
        else:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be opened as a file of plain tensors ({reason}); it is truncated or not a checkpoint"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(k, str) and _is_plain(v) for k, v in state.items()):
        raise CheckpointError(f"{path} holds no state dict of tensors; give a released STDNet checkpoint")
    state = {_own_name(k.removeprefix("module.")): v for k, v in state.items()}
    width = state.get("stages.0.guide_encoder.0.weight")
    if width is None or width.ndim != 4:
        raise CheckpointError(
            f"{path} holds {len(state)} tensors, but not with the names of the released STDNet; for a "
            "checkpoint of this project use stdnet_core.checkpoints.load"
        )
    config = ModelConfig(channels=width.shape[0], spatial_fusion=fusion)
    info = CheckpointInfo(config, (scale,), float(depth_range), provenance={"released": path.name}, name=path.stem)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    model = _empty_network(config, shapes, {key: value.dtype for key, value in state.items()}, path)
    return _filled(model, state, path), info


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
