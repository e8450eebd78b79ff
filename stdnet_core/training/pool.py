"""The sources of a training run: recorded sequences, with a cache of decoded frames, and procedural scenes."""

from __future__ import annotations

import dataclasses
import fnmatch
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import ConfigError, DataError, MissingDataError
from stdnet_core.training.config import DataConfig, SourceConfig, public_name
from stdnet_core.training.draw import BatchPlan, choose

if TYPE_CHECKING:
    from stdnet_core.data.synthetic import SyntheticConfig

MIN_VALID = 0.3
"""A crop with a smaller share of valid depth is drawn again, at most :data:`TRIES` times."""
TRIES = 4
READING_TRIES = 20
_MILLIMETRE = 1e-3


_LOG = logging.getLogger(__name__)


class _Unreadable(DataError):
    """A frame's file is damaged or missing."""


class FrameCache:
    """Cache of decoded frames in memory, up to a number of bytes.

    Colour is stored as uint8; depth as integer millimetres where that is lossless, else as float32. Once full, the
    cache does not replace frames: they are read at random, so a newer frame is not worth more.

    Args:
        limit: bytes; 0: no cache.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._frames: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Another process gets an empty cache: there, sequences have other identities."""
        return vars(self) | {"used": 0, "_frames": {}}

    def frame(self, sequence: RgbdSequence, number: int) -> tuple[Tensor, Tensor]:
        """Colour (3, H, W) uint8 and depth (1, H, W), uint16 millimetres or float32 metres, 0 invalid."""
        key = (id(sequence), number)
        if key not in self._frames:
            clip = sequence.clip(number, 1)
            color = (clip.rgb[0] * 255).round_().to(torch.uint8)
            depth = _pack(clip.depth[0] * clip.valid[0])
            size = color.nbytes + depth.nbytes
            if self.used + size > self.limit:
                return color, depth
            self.used += size
            self._frames[key] = color, depth
        return self._frames[key]


def _pack(depth: Tensor) -> Tensor:
    millimetres = (depth / _MILLIMETRE).round()
    exact = ((millimetres * _MILLIMETRE - depth).abs() <= 1e-6 * depth).all() and millimetres.max() < 65536
    return millimetres.to(torch.uint16) if exact else depth.contiguous()


def _unpack(depth: Tensor) -> Tensor:
    if depth.dtype != torch.uint16:
        return depth
    return torch.from_numpy(depth.numpy().astype(np.float32)).mul_(_MILLIMETRE)


@dataclass
class Source:
    """One part of the mixture, opened.

    Attributes:
        config: its configuration.
        sequences: None for procedural scenes, which are rendered at the requested size.
    """

    config: SourceConfig
    sequences: list[RgbdSequence] | None
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Probability of each sequence, proportional to the possible first frames."""

    @property
    def procedural(self) -> bool:
        return self.sequences is None


def open_sequences(config: SourceConfig, *, skip_bad: bool = False) -> list[RgbdSequence]:
    """Sequences of a source, filtered by its name patterns, in a fixed order. An optional source may have none.

    Raises:
        DataError: there are no sequences, or none is left after filtering.
    """
    from stdnet_core.data.sources import open_source

    try:
        found = open_source(config.source, split=config.split, skip_bad=skip_bad)
    except MissingDataError as error:
        if not config.optional:
            raise
        _LOG.warning("left out: %s", error)
        return []
    for note in found.notes:
        _LOG.warning("%s", note)
    kept = [s for s in found if selected(s.name, config)]
    if not kept:
        problem = (
            f"source {config.source!r} has {len(found)} sequences, but include {list(config.include)} and exclude "
            f"{list(config.exclude)} leave none of them; names are like {found[0].name!r}"
            if found
            else f"source {config.source!r} has no sequences"
        )
        if not config.optional:
            raise DataError(problem)
        _LOG.warning("left out: %s", problem)
        return []
    if not any(s.clip(len(s) // 2, 1).valid.any() for s in kept):
        raise DataError(
            f"source {config.source!r} has no full-resolution depth; there is nothing to learn from or to compare with"
        )
    return sorted(kept, key=lambda s: s.name)


def selected(name: str, config: SourceConfig) -> bool:
    """Whether the patterns of a source select the sequence ``name``; they match the name or its last part."""

    def matches(patterns: list[str]) -> bool:
        parts = (name, name.rsplit("/", 1)[-1])
        return any(fnmatch.fnmatchcase(part, pattern) for pattern in patterns for part in parts)

    return (not config.include or matches(config.include)) and not matches(config.exclude)


class Pool:
    """All sources of a run; draws clips from them for a batch plan.

    Args:
        config: the data section; sources of weight 0 are not opened.

    Raises:
        DataError, ConfigError: a source that cannot be used with the crops and lengths of the configuration.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.cache = FrameCache(int(config.cache_gb * 2**30 / max(1, config.workers)))
        self.unreadable: set[str] = set()
        """Problems of the frames that were left out (``skip_bad``)."""
        opened = [self._open(source) for source in config.sources if source.weight > 0]
        self.sources = [source for source in opened if source.procedural or source.sequences]
        if not self.sources:
            raise DataError("no source of data.sources has a sequence; give one that has, or complete the data")
        self._weights = {i: source.config.weight for i, source in enumerate(self.sources)}

    def _open(self, config: SourceConfig) -> Source:
        if config.source == "synthetic":
            if config.include or config.exclude or config.split:
                raise ConfigError("source 'synthetic' has no names to include, exclude or split by; remove those keys")
            _synthetic_config(config)
            return Source(config, None)
        if config.options:
            raise ConfigError(f"source {config.source!r} accepts no options; only 'synthetic' does")
        sequences = open_sequences(config, skip_bad=self.config.skip_bad)
        if not sequences:
            return Source(config, [])
        longest = max(self.config.lengths)
        long_enough = [s for s in sequences if len(s) >= longest]
        if not long_enough:
            raise ConfigError(
                f"source {config.source!r} has no sequence of {longest} frames (longest: "
                f"{max(len(s) for s in sequences)}); lower data.lengths"
            )
        starts = np.array([len(s) - longest + 1 for s in long_enough], dtype=np.float64)
        return Source(config, long_enough, starts / starts.sum())

    @property
    def names(self) -> list[dict[str, object]]:
        """The training data, for the provenance of the run's checkpoints."""
        return [
            {
                "source": public_name(source.config.source),
                "weight": source.config.weight,
                "sequences": None if source.sequences is None else [s.name for s in source.sequences],
            }
            for source in self.sources
        ]

    def samples(self, plan: BatchPlan, rngs: Sequence[np.random.Generator], device: torch.device) -> list[RgbdClip]:
        """One clip with the plan's length and size for each generator; procedural scenes are rendered on ``device``."""
        clips: list[RgbdClip | None] = []
        scenes: dict[int, dict[int, int]] = {}
        for number, rng in enumerate(rngs):
            index = choose(rng, self._weights)
            source = self.sources[index]
            if source.procedural:
                scenes.setdefault(index, {})[number] = int(rng.integers(2**62))
                clips.append(None)
                continue
            for _ in range(TRIES):
                clip = self._crop(source, plan, rng)
                if clip.valid.float().mean() >= MIN_VALID:
                    break
            clips.append(limit_depth(clip, source.config).to(device))
        for index, seeds in scenes.items():
            config = self.sources[index].config
            for number, clip in zip(seeds, self._render(config, list(seeds.values()), plan, device), strict=True):
                clips[number] = limit_depth(clip, config)
        return [clip for clip in clips if clip is not None]

    @staticmethod
    def _render(source: SourceConfig, seeds: list[int], plan: BatchPlan, device: torch.device) -> list[RgbdClip]:
        from stdnet_core.data.synthetic import render_clips

        options = _synthetic_config(source)
        return render_clips(seeds, plan.length, plan.height, plan.width, options, device)

    def _crop(self, source: Source, plan: BatchPlan, rng: np.random.Generator) -> RgbdClip:
        for _ in range(READING_TRIES):
            try:
                return self._draw(source, plan, rng)
            except _Unreadable as error:
                if not self.config.skip_bad:
                    raise DataError(f"{error} (repair it, or set data.skip_bad=true to continue without it)") from error
                if str(error) not in self.unreadable:
                    self.unreadable.add(str(error))
                    _LOG.warning("left out: %s", error)
        raise DataError(f"source {source.config.source!r}: {READING_TRIES} clips in a row cannot be read")

    def _draw(self, source: Source, plan: BatchPlan, rng: np.random.Generator) -> RgbdClip:
        assert source.sequences is not None
        sequence = source.sequences[int(rng.choice(len(source.starts), p=source.starts))]
        stride = choose(rng, self.config.strides)
        stride = min(stride, (len(sequence) - 1) // max(1, plan.length - 1)) or 1
        start = int(rng.integers(len(sequence) - (plan.length - 1) * stride))
        numbers = [start + stride * i for i in range(plan.length)]
        height, width = sequence.frame_size
        zoomed = rng.random() < self.config.zoom_out
        zoom = 2 if zoomed and height >= 2 * plan.height and width >= 2 * plan.width else 1
        rows, columns = plan.height * zoom, plan.width * zoom
        if height < rows or width < columns:
            raise DataError(
                f"{sequence.name}: frames are {height}x{width} pixels, smaller than a crop of {rows}x{columns}; "
                "remove the large sizes from data.crops"
            )
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        window = (..., slice(top, top + rows), slice(left, left + columns))
        try:
            frames = [self.cache.frame(sequence, number) for number in numbers]
        except DataError as error:
            raise _Unreadable(str(error)) from error
        rgb = torch.stack([color[window] for color, _ in frames]).float().div_(255)
        depth = torch.stack([_unpack(depth[window]) for _, depth in frames])
        if zoom == 2:
            rgb, depth = halve(rgb, depth)
        return RgbdClip(rgb=rgb, depth=depth, valid=depth > 0, name=sequence.name)


def halve(rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Halve the resolution by taking every second pixel; colour is smoothed first, depth is not.

    Args:
        rgb: (T, 3, H, W); depth: (T, 1, H, W).
    """
    taps = rgb.new_tensor([0.25, 0.5, 0.25])
    kernel = (taps[:, None] * taps).expand(3, 1, 3, 3)
    smooth = F.conv2d(F.pad(rgb, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=3)
    return smooth, depth[..., ::2, ::2].contiguous()


def limit_depth(clip: RgbdClip, config: SourceConfig) -> RgbdClip:
    """Clip depths beyond the source's ``max_depth``, or make them invalid."""
    if config.max_depth is None:
        return clip
    if config.far == "clip":
        return dataclasses.replace(clip, depth=clip.depth.clamp(max=config.max_depth))
    near = clip.depth <= config.max_depth
    return dataclasses.replace(clip, depth=clip.depth * near, valid=clip.valid & near)


def _synthetic_config(config: SourceConfig) -> SyntheticConfig:
    from stdnet_core.data.synthetic import SyntheticConfig

    try:
        return SyntheticConfig(**config.options)
    except TypeError as error:
        raise ConfigError(f"options of source 'synthetic': {error}") from error
