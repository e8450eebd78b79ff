"""Configuration of a training run: a typed schema, YAML files, dotted overrides.

The schema's defaults describe the run that ``python -m stdnet_core.train`` starts without arguments: the tiny preset on
procedural scenes. A YAML file may name another one under ``base`` and override parts of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stdnet_core.cli import require
from stdnet_core.data.sensors.camera import check_value_name
from stdnet_core.data.sensors.cell import Cell
from stdnet_core.data.sensors.holes import Holes
from stdnet_core.data.sensors.presets import preset
from stdnet_core.errors import ConfigError
from stdnet_core.model import PRESETS, ModelConfig, RecurrentConfig
from stdnet_core.shipped import config_folder
from stdnet_core.training.recurrent_loss import RecurrentLossConfig

_MULTIPLE = 16
"""Crop sizes are multiples of the largest scale, so that one crop serves every scale."""


@dataclass
class SourceConfig:
    """One source of the data mixture."""

    source: str = "synthetic"
    """``synthetic``, or a source for :func:`stdnet_core.data.sources.open_source`, e.g. ``folder:PATH``."""
    weight: float = 1.0
    """Share of the samples, relative to the other sources' weights."""
    split: str | None = None
    """Split of a published data set, e.g. ``train``."""
    include: list[str] = field(default_factory=list)
    """Name patterns (``*`` and ``?``) of the sequences to use; empty: all."""
    exclude: list[str] = field(default_factory=list)
    """Name patterns of the sequences to leave out."""
    optional: bool = False
    """If the data set is not there or has none of these sequences, continue without them, with a warning."""
    max_depth: float | None = None
    """Metres; larger depths are set to this value (``far: clip``) or made invalid (``far: invalid``)."""
    far: str = "clip"
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of SyntheticConfig, for ``synthetic``."""


@dataclass
class SensorMixture:
    """Depth cameras that simulate low-resolution depth. One is drawn for every clip, with its own parameters.

    Parameters have the names of :meth:`stdnet_core.data.sensors.Sensor.with_values`, e.g. ``dtof.range_m`` or
    ``faults.dropout``; those that belong to another camera family than the drawn one are ignored."""

    presets: dict[str, float] = field(default_factory=lambda: {"dtof_paper": 0.7, "exact": 0.15, "area": 0.15})
    """Name of a camera (:data:`stdnet_core.data.sensors.PRESETS`) -> relative probability."""
    uniform: dict[str, list[float]] = field(default_factory=lambda: {"dtof.jitter_bins": [-1.5, 2.5]})
    """Values drawn below 0 become 0, so that a part of the sensors has, for example, no jitter at all."""
    log_uniform: dict[str, list[float]] = field(default_factory=lambda: {"dtof.range_m": [5.0, 40.0]})
    imperfect: float = 0.0
    """Share of the clips with sensor faults (``imperfections`` and ``holes``)."""
    imperfections: dict[str, list[float]] = field(default_factory=dict)
    holes: dict[str, float] = field(default_factory=dict)
    """Name of a preset of Holes, or ``none`` -> relative probability."""
    cover_clip: bool = True
    """Raise dtof.range_m to the clip's largest depth, so that no depth is beyond the sensor's range."""


@dataclass
class NormalizationConfig:
    """The range by which depths are divided before they enter the network."""

    mode: str = "clip"
    """``clip``: set by each clip's first low-resolution frame; ``fixed``: ``depth_range`` for all clips."""
    depth_range: float | None = None
    gain: list[float] = field(default_factory=lambda: [0.7, 1.5])
    """The range of each clip is multiplied by a log-uniform number between these bounds (only for ``clip``)."""


@dataclass
class RatioCrops:
    """Crops of batches with a ratio of ``from_ratio`` or more."""

    from_ratio: float = 1.0
    sides: list[int] = field(default_factory=lambda: [128, 160, 192])
    """Pixels, multiples of 16; height and width are drawn from them independently for each batch."""


def _video_crops() -> list[RatioCrops]:
    return [RatioCrops(), RatioCrops(7.5, [160, 192, 224]), RatioCrops(30.0, [240, 256])]


@dataclass
class VideoDataConfig:
    """Data for recurrent networks: video of depth cameras at their own ratios."""

    crops: list[RatioCrops] = field(default_factory=_video_crops)
    """Used instead of ``data.crops``: coarse depth needs large crops, because small ones hold few cells. The last entry
    whose ``from_ratio`` the ratio reaches is used."""
    standing: float = 0.25
    """Share of the clips with a static camera and scene: the first frame is repeated."""
    standing_noise: float = 1.5
    """Standard deviation of the colour noise in these clips, on a scale of 0..255."""
    gained: float = 0.5
    """Share of the clips whose depth is multiplied by a number from ``gain``, after the scene was scaled to the range
    of its camera."""
    gain: list[float] = field(default_factory=lambda: [0.5, 1.2])
    """Bounds of that number, log-uniform."""
    varied: float = 0.7
    """Share of the clips whose camera has random parameters (:func:`stdnet_core.data.sensors.variation.varied`)."""
    smoothed: float = 0.3
    """Share of the stereo clips whose depth is filtered by a median filter, as some cameras do."""
    hidden: float = 0.35
    """Share of the clips at ratios below 4 in which patches of depth are hidden for the whole clip
    (:func:`stdnet_core.training.recurrent_batches.hidden`): holes that no nearer surface explains."""
    recorded: float = 0.25
    """Share of the clips whose true depth has the noise and holes of a camera from ``recorded_by``, as in a recording.
    Only for the camera families ``reduction`` and ``dtof`` at ratios from 4 on."""
    recorded_by: dict[str, float] = field(
        default_factory=lambda: {"realsense_d435": 1.0, "kinect_v1": 1.0, "oakd": 1.0}
    )
    """Name of a camera -> relative probability."""


@dataclass
class DataConfig:
    root: str | None = "${oc.env:STDNET_DATA,null}"
    """For use in the sources, as ``folder:${data.root}/...``."""
    sources: list[SourceConfig] = field(default_factory=lambda: [SourceConfig()])
    scales: dict[int, float] = field(default_factory=lambda: {4: 1.0, 8: 2.0, 16: 1.0})
    """Scale of a batch -> relative probability (STDNet)."""
    cells: dict[str, float] = field(default_factory=dict)
    """Cameras and ratios for which a recurrent network is trained, ``CAMERA@RATIO`` -> relative probability. Used
    instead of ``scales``, ``sensors`` and ``normalization``. All clips of a batch have one ratio, each its own camera.
    """
    video: VideoDataConfig = field(default_factory=VideoDataConfig)
    """For recurrent networks."""
    crops: list[str] = field(default_factory=lambda: ["96", "128", "160"])
    """Sizes of HR crops in pixels, ``SIDE`` or ``HEIGHTxWIDTH``, multiples of 16; one is drawn for each batch."""
    lengths: list[int] = field(default_factory=lambda: [3, 4])
    """Numbers of frames per clip; one is drawn for each batch."""
    strides: dict[int, float] = field(default_factory=lambda: {1: 0.6, 2: 0.3, 3: 0.1})
    """Take every n-th frame -> relative probability (recorded sources)."""
    zoom_out: float = 0.0
    """Probability of halving the resolution (recorded sources whose frames are large enough)."""
    batch_size: int = 1
    """Clips per step, over all processes and accumulated batches."""
    pixel_budget: int = 0
    """If not 0, replaces ``batch_size``: as many clips as hold about this many pixels."""
    normalization: NormalizationConfig = field(default_factory=NormalizationConfig)
    sensors: SensorMixture = field(default_factory=SensorMixture)
    augmentation: dict[str, Any] = field(default_factory=dict)
    """Fields of AugmentationConfig."""
    cache_gb: float = 4.0
    """Size of the cache of decoded frames; 0: no cache."""
    workers: int = 0
    """Processes that prepare batches; 0: the training process prepares them."""
    skip_bad: bool = False
    """Leave damaged sequences out instead of stopping."""


@dataclass
class OptimConfig:
    name: str = "muon"
    """``muon`` (:mod:`stdnet_core.training.muon`), ``adam`` or ``adamw``."""
    lr: float = 3e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    weight_decay: float = 0.0
    """For ``adam`` and ``adamw``."""
    steps: int = 20000
    """Length of the run and of the schedule; a finished run continues if this is raised."""
    warmup_steps: int = 100
    schedule: str = "cosine"
    """``cosine``: to ``lr * final_lr``; ``constant``; ``milestones``: times ``milestone_factor`` at each milestone."""
    final_lr: float = 0.01
    milestones: list[float] = field(default_factory=list)
    """Fractions of ``steps``."""
    milestone_factor: float = 0.2
    horizon: str = "time"
    """``steps``: the schedule runs over ``steps`` alone; ``time``: it also ends with ``--max-minutes``."""
    clip_norm: float = 0.5
    ema: float = 0.998
    """Decay of the moving average of the weights, which is saved and validated; 0: no average."""
    accumulate: int = 1
    """Batches whose gradients are accumulated for a step."""
    zero_init_heads: bool = True
    """Start with interpolated depth as the output."""


@dataclass
class ValidationConfig:
    sources: list[SourceConfig] = field(default_factory=lambda: [SourceConfig("synthetic:900001,4,128x128,5")])
    """If all of them are optional and missing, the recorded sequences of ``data.sources`` are measured."""
    cells: list[str] = field(default_factory=list)
    """Cameras and ratios to measure, ``CAMERA@RATIO``. Empty: the cells of the accuracy matrix
    (:data:`stdnet_core.data.sensors.cell.JUDGED`) with a ratio from ``data.scales``, or all for a recurrent network."""
    every: int = 500
    """Steps between validations; 0: only at the end."""
    clips: int = 2
    """Largest number of clips of each source in a cell. The cells take turns through four times as many clips, spread
    over the source's sequences."""
    length: int = 5
    crop: str = "192"
    """Centre crop; smaller frames are used as a whole."""
    pictures: int = 3
    """Clips shown in the picture of each validation."""


@dataclass
class TrainerConfig:
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    """``32-true``, ``bf16-mixed`` or ``auto``: bf16 on a GPU and on CPUs that support it, else 32 bit."""
    compile: bool = False
    threads: int = 0
    """CPU threads of PyTorch; 0: PyTorch's default."""
    save_minutes: float = 5.0
    """Minutes between saved states."""
    log_every: int = 1
    """Steps between lines of log.jsonl."""


@dataclass
class TrainConfig:
    seed: int = 0
    base: str | None = None
    model: dict[str, Any] = field(default_factory=lambda: {"preset": "tiny"})
    """``preset`` and any field of ModelConfig, or of RecurrentConfig for the preset ``live``."""
    init: str | None = None
    """Checkpoint (file or shipped name) whose weights initialise a new run; its passes may differ."""
    loss: dict[str, Any] = field(
        default_factory=lambda: {
            "stage_weight": 0.1,
            "gradient_weight": 0.2,
            "consistency_weight": 0.1,
            "uncertainty_weight": 0.01,
        }
    )
    """Any field of LossConfig. The defaults add terms to the paper's: for the depth of each stage, sharp edges, steady
    depth and correct confidence. For a recurrent network, any field of RecurrentLossConfig, with its defaults."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    val: ValidationConfig = field(default_factory=ValidationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


def load_config(
    path: str | Path | None = None, overrides: list[str] | tuple[str, ...] = (), *, check_root: bool = True
) -> TrainConfig:
    """Merge the schema, the file with its bases, and ``key.sub=value`` overrides, in this order.

    Args:
        path: a file or the name of a shipped one; None: the defaults.
        overrides: take precedence over the file.
        check_root: refuse sources below ``data.root`` if that is not set.

    Raises:
        ConfigError: no such file, unknown keys, values of a wrong type or out of range.
    """
    omegaconf = require("omegaconf", extra="train")
    errors = require("omegaconf.errors", extra="train")
    yaml = require("yaml", extra="train")
    merged = omegaconf.OmegaConf.structured(TrainConfig)
    where = "the defaults"
    losses: set[str] = set()
    try:
        for file in _chain(path):
            where = str(file)
            layer = omegaconf.OmegaConf.load(file)
            if not isinstance(layer, omegaconf.DictConfig):
                raise ConfigError(f"{file} holds no keys; it must be a YAML mapping such as 'optim: {{lr: 1e-3}}'")
            _replace_whole(merged, layer)
            losses |= set(layer.get("loss") or {})
            merged.merge_with(layer)
        where = "the overrides"
        for override in overrides:
            key, separator, _ = override.partition("=")
            if not separator or not key:
                raise ConfigError(f"override {override!r} has no value; write it as key.sub=value")
            where = f"override {override!r}"
            layer = omegaconf.OmegaConf.from_dotlist([override])
            if "." in key and isinstance(layer, omegaconf.DictConfig):
                _replace_whole(merged, layer)
            losses |= set(layer.get("loss") or {})
            merged.merge_with(layer)
        merged.base = None
        if is_recurrent(merged):
            given = {name: merged.loss[name] for name in merged.loss if name in losses}
            merged.loss = {**dataclasses.asdict(RecurrentLossConfig()), **given}
        config = omegaconf.OmegaConf.to_object(merged)
        if check_root and _needs_root(omegaconf, merged):
            raw = omegaconf.OmegaConf.to_container(merged, resolve=False)["data"]["root"]
            variable = re.search(r"oc\.env:(\w+)", raw or "")
            advice = f" or set the environment variable {variable[1]}" if variable else ""
            raise ConfigError(f"the sources refer to data.root, which is not set; give data.root=FOLDER{advice}")
    except errors.OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    validate(config)
    return config


def _needs_root(omegaconf: Any, merged: Any) -> bool:
    """Whether a source refers to ``${data.root}`` although that is not set."""
    raw = omegaconf.OmegaConf.to_container(merged, resolve=False)
    sources = [s["source"] for s in (*raw["data"]["sources"], *raw["val"]["sources"])]
    return merged.data.root is None and any("${data.root}" in source for source in sources)


_WHOLE = (
    ("data", "scales"),
    ("data", "cells"),
    ("data", "strides"),
    ("data", "sensors", "presets"),
    ("data", "video", "recorded_by"),
)
"""Mappings of probabilities: a given one replaces the default instead of being merged into it."""


def _replace_whole(merged: Any, layer: Any) -> None:
    for path in _WHOLE:
        target, given = merged, layer
        for key in path[:-1]:
            target, given = target[key], given.get(key) if given is not None else None
        if given is not None and given.get(path[-1]) is not None:
            target[path[-1]] = {}


def _chain(path: str | Path | None) -> list[Path]:
    """The file and its bases, the deepest base first."""
    omegaconf = require("omegaconf", extra="train")
    chain: list[Path] = []
    while path is not None:
        file = find_config(path) if not chain else Path(path)
        if file in chain:
            raise ConfigError(f"{file} is its own base; remove one of the 'base' entries")
        if not file.is_file():
            raise ConfigError(f"there is no configuration file {file}, which {chain[-1]} names as its base")
        chain.append(file)
        loaded = omegaconf.OmegaConf.load(file)
        base = loaded.get("base") if isinstance(loaded, omegaconf.DictConfig) else None
        path = None if base is None else file.parent / base
    return chain[::-1]


def find_config(path: str | Path) -> Path:
    """A configuration file by path, or a shipped one by name (``paper_x8``).

    Raises:
        ConfigError: neither exists.
    """
    path = Path(path)
    if path.is_file():
        return path
    folder, name = config_folder(), path.name.removesuffix(".yaml")
    files = {file.stem: file for file in sorted(folder.glob("train/*.yaml"))} if folder else {}
    if name in files and path.parent in (Path("."), Path("config/train")):
        return files[name]
    shipped = f" (shipped: {', '.join(files)})" if files else ""
    raise ConfigError(f"there is no configuration file {str(path)!r}{shipped}")


def to_yaml(config: TrainConfig) -> str:
    """The configuration as YAML."""
    omegaconf = require("omegaconf", extra="train")
    return omegaconf.OmegaConf.to_yaml(omegaconf.OmegaConf.structured(config))


def to_plain(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain values, ready for JSON."""
    return dataclasses.asdict(config)


def public_configuration(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain values, without the folders of this machine."""
    plain = to_plain(config)
    root = plain["data"].pop("root")
    if plain["init"] is not None:
        plain["init"] = public_name(plain["init"])
    for source in [*plain["data"]["sources"], *plain["val"]["sources"]]:
        named = source["source"].replace(str(root), "${data.root}") if root else source["source"]
        source["source"] = named if "${" in named else public_name(named)
    return plain


def public_name(source: str) -> str:
    """A source or file without its parent folders, which do not belong in a published checkpoint."""
    kind, separator, path = source.rpartition(":")
    return f"{kind}{separator}{path.rstrip('/').rsplit('/', 1)[-1]}"


def validation_key(config: TrainConfig) -> str:
    """A key that is equal for configurations with comparable validation scores: the same clips, measured alike."""
    plain = public_configuration(config)
    scales = [scale for scale, weight in plain["data"]["scales"].items() if weight > 0]
    asked = {k: v for k, v in plain["val"].items() if k not in ("every", "pictures")}
    what: list[Any] = [
        asked,
        sorted(scales),
        plain["data"]["normalization"]["mode"],
        plain["data"]["normalization"]["depth_range"],
    ]
    if is_recurrent(config):  # accepts any ratio, in metres
        what = [asked, "recurrent"]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def is_recurrent(config: TrainConfig) -> bool:
    """Whether the network of a run is a :class:`stdnet_core.model.RecurrentNet`."""
    return isinstance(PRESETS.get(config.model.get("preset", "tiny")), RecurrentConfig)


def model_config(config: TrainConfig) -> ModelConfig | RecurrentConfig:
    """The network's configuration of a run.

    Raises:
        ConfigError: no such preset or field.
    """
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.model.items()}
    return ModelConfig.preset(values.pop("preset", "tiny"), **values)


def trained_cells(config: DataConfig) -> dict[Cell, float]:
    """Cells for which a recurrent network is trained, with their weights.

    Raises:
        ConfigError: no such camera or ratio.
    """
    cells: dict[Cell, float] = {}
    for text, weight in config.cells.items():
        if weight:
            cell = Cell.parse(text)
            cells[cell] = cells.get(cell, 0.0) + weight
    return cells


def parse_size(text: str) -> tuple[int, int]:
    """``"128"`` or ``"96x160"`` -> (height, width).

    Raises:
        ConfigError: neither.
    """
    parts = str(text).lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"size {text!r} is neither SIDE nor HEIGHTxWIDTH in pixels, e.g. 128 or 96x160")
    return int(parts[0]), int(parts[-1])


def validate(config: TrainConfig) -> None:
    """Raise ConfigError for values that have the right type but make no sense."""
    data, optim, val = config.data, config.optim, config.val
    _choice("data.normalization.mode", data.normalization.mode, ("clip", "fixed"))
    _choice("optim.name", optim.name, ("muon", "adam", "adamw"))
    _choice("optim.schedule", optim.schedule, ("cosine", "constant", "milestones"))
    _choice("optim.horizon", optim.horizon, ("steps", "time"))
    _choice("trainer.accelerator", config.trainer.accelerator, ("auto", "cpu", "gpu", "cuda"))
    _choice("trainer.precision", config.trainer.precision, ("auto", "32-true", "bf16-mixed"))
    if data.normalization.mode == "fixed":
        if data.normalization.depth_range is None or data.normalization.depth_range <= 0:
            raise ConfigError("data.normalization.mode is fixed, so depth_range must be a positive number of metres")
    elif data.normalization.depth_range is not None:
        raise ConfigError("data.normalization.depth_range is only for mode fixed; set mode to fixed or leave it null")
    _bounds("data.normalization.gain", data.normalization.gain, positive=True)
    for sources in (data.sources, val.sources):
        for source in sources:
            _choice(f"far of source {source.source!r}", source.far, ("clip", "invalid"))
            if not source.weight >= 0:
                raise ConfigError(f"weight of source {source.source!r} is {source.weight}; it must not be negative")
    if not val.sources:
        raise ConfigError("val.sources is empty; validation selects the best weights: give at least one source")
    for name in data.sensors.holes:
        if name != "none":
            Holes.preset(name)
    for name in data.sensors.presets:
        preset(name)
    if not sum(source.weight for source in data.sources) > 0:
        raise ConfigError("data.sources has no source with a positive weight; give at least one")
    for name, table in (
        ("data.scales", data.scales),
        ("data.strides", data.strides),
        ("data.sensors.presets", data.sensors.presets),
    ):
        if not table or any(weight < 0 for weight in table.values()) or not sum(table.values()) > 0:
            raise ConfigError(f"{name} is {dict(table)}; give non-negative weights, at least one of them positive")
    for scale in data.scales:
        if scale not in (4, 8, 16):
            raise ConfigError(f"scale {scale} is not one of 4, 8, 16")
    if any(stride < 1 for stride in data.strides):
        raise ConfigError(f"data.strides is {dict(data.strides)}; a stride is at least 1")
    for size in [*data.crops, val.crop]:
        if any(side % _MULTIPLE for side in parse_size(size)):
            raise ConfigError(f"crop {size!r} is not a multiple of {_MULTIPLE} pixels on both sides")
    if not data.crops or not data.lengths or min(data.lengths) < 1:
        raise ConfigError("data.crops and data.lengths need at least one entry, lengths of at least 1 frame")
    for table_name in ("uniform", "log_uniform", "imperfections"):
        for name, pair in getattr(data.sensors, table_name).items():
            check_value_name(name)
            _bounds(f"data.sensors.{table_name}.{name}", pair, positive=table_name == "log_uniform")
    _validate_cells(config)
    known = {scale for scale, weight in data.scales.items() if weight > 0}
    for cell in map(Cell.parse, val.cells):
        if cell.ratio not in known and not is_recurrent(config):
            raise ConfigError(f"val.cells has {cell}, but data.scales trains for {sorted(known)} only")
    for name, value, low, high in (
        ("data.zoom_out", data.zoom_out, 0, 1),
        ("data.sensors.imperfect", data.sensors.imperfect, 0, 1),
        ("data.video.standing", data.video.standing, 0, 1),
        ("data.video.standing_noise", data.video.standing_noise, 0, 255),
        ("data.video.gained", data.video.gained, 0, 1),
        ("data.video.hidden", data.video.hidden, 0, 1),
        ("data.video.recorded", data.video.recorded, 0, 1),
        ("data.batch_size", data.batch_size, 1, 1 << 16),
        ("data.pixel_budget", data.pixel_budget, 0, 1 << 40),
        ("data.workers", data.workers, 0, 64),
        ("data.cache_gb", data.cache_gb, 0, 1 << 20),
        ("optim.lr", optim.lr, 1e-12, 10),
        ("optim.final_lr", optim.final_lr, 0, 1),
        ("optim.steps", optim.steps, 1, 1 << 40),
        ("optim.warmup_steps", optim.warmup_steps, 0, 1 << 40),
        ("optim.ema", optim.ema, 0, 0.9999999),
        ("optim.clip_norm", optim.clip_norm, 0, float("inf")),
        ("optim.accumulate", optim.accumulate, 1, 1 << 16),
        ("val.every", val.every, 0, 1 << 40),
        ("val.clips", val.clips, 1, 1 << 20),
        ("val.length", val.length, 1, 1 << 20),
        ("val.pictures", val.pictures, 0, 64),
        ("trainer.devices", config.trainer.devices, 1, 1 << 16),
        ("trainer.threads", config.trainer.threads, 0, 1 << 16),
        ("trainer.save_minutes", config.trainer.save_minutes, 0, float("inf")),
        ("trainer.log_every", config.trainer.log_every, 1, 1 << 40),
    ):
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value}; it must be from {low:g} to {high:g}")
    if optim.name == "muon" and optim.weight_decay:
        raise ConfigError("optim.weight_decay is for adam and adamw; set it to 0, or optim.name to adamw")
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        raise ConfigError(f"optim.betas is {list(optim.betas)}; give two numbers from 0 to below 1")


def _validate_cells(config: TrainConfig) -> None:
    """Validate the settings that are only for recurrent networks."""
    cells, video = config.data.cells, config.data.video
    if is_recurrent(config) != bool(cells):
        raise ConfigError(
            "data.cells is empty, but a recurrent network is trained with the cameras named there; give e.g. "
            "data.cells={realsense_d435@1: 1, dtof_paper@8: 1}"
            if not cells
            else "data.cells is only for recurrent networks; set model.preset to live, or remove data.cells"
        )
    for text in cells:
        Cell.parse(text)
    for name in video.recorded_by:
        preset(name)
    for name, table in (("data.cells", cells), ("data.video.recorded_by", video.recorded_by)):
        if table and (any(not weight >= 0 for weight in table.values()) or not sum(table.values()) > 0):
            raise ConfigError(f"{name} is {dict(table)}; give non-negative weights, at least one of them positive")
    if video.recorded and not video.recorded_by:
        raise ConfigError("data.video.recorded_by is empty; name cameras, or set data.video.recorded to 0")
    _bounds("data.video.gain", video.gain, positive=True)
    starts = [crops.from_ratio for crops in video.crops]
    if not starts or starts != sorted(set(starts)) or starts[0] > 1:
        raise ConfigError(
            f"data.video.crops has entries from the ratios {starts}; they must rise, the first from 1 or less"
        )
    for crops in video.crops:
        if not crops.sides or any(side < _MULTIPLE or side % _MULTIPLE for side in crops.sides):
            raise ConfigError(
                f"data.video.crops has sides {list(crops.sides)}; give multiples of {_MULTIPLE} pixels, at least one"
            )


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(choices)}")


def _bounds(name: str, pair: Any, *, positive: bool) -> None:
    valid = isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] <= pair[1]
    if not valid or (positive and pair[0] <= 0):
        kind = "positive " if positive else ""
        raise ConfigError(f"{name} is {pair!r}; give two {kind}numbers [low, high]")
