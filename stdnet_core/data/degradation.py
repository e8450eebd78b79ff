"""Low-resolution depth made from high-resolution depth, as cheap depth sensors would measure it.

The default is the direct time-of-flight simulation that the paper's data uses (section 4.1; DVSR eq. 1): each
low-resolution cell collects the photons of its block of pixels in a histogram over depth and reports the
fullest bin. Plain nearest, area and bicubic downsampling stand beside it. On top come the faults of real
sensors: noise, wrong and missing readings, dead pixels, a colour camera that is not quite aligned, and holes
at edges, in shadows and on dark surfaces.
(:mod:`.sensor_holes`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.sensor_holes import HoleConfig, punch_holes
from stdnet_core.errors import ConfigError, InputError

METHODS = ("dtof", "nearest", "area", "bicubic")
_GROUP = 32  # bins reduced at a time when the fullest one is looked for
_HISTOGRAM_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}  # at a time: what fits into the CPU's cache
_SAME_SURFACE = 0.02  # relative depth difference up to which neighbours are interpolated by a misalignment


@dataclass(frozen=True)
class DegradationConfig:
    """How low-resolution depth is made.

    Attributes:
        method: ``dtof`` (histogram of the block, reflectance from colour), ``nearest`` (the pixel at the
            block's centre), ``area`` (mean of the block's valid pixels) or ``bicubic`` (antialiased).
        range_m: depth of the last histogram bin in metres; None takes the largest depth of each clip.
        bins: bins of the histogram; a reading is a multiple of ``range_m / (bins - 1)``.
        clip_beyond_range: readings beyond ``range_m`` become ``range_m`` (as in data that is clipped to its
            depth range) instead of being lost (as in a real sensor). Histogram only.
        jitter_bins: dtof readings move by a whole number of bins, uniform in +-``jitter_bins``.
        noise_m: standard deviation of additive Gaussian noise in metres.
        noise_relative: standard deviation of Gaussian noise as a fraction of the depth.
        outliers: probability of a reading being replaced by any depth up to the range.
        dropout: probability of a reading being lost, drawn per frame.
        dead_pixels: probability of a low-resolution pixel being dead for the whole clip.
        misalignment_px: the depth is seen shifted against the colour by a fraction of a pixel or more,
            uniform in +-``misalignment_px`` high-resolution pixels on each axis, constant over a clip.
        holes: patterns of missing readings that depend on the scene; a :class:`HoleConfig`, or the name of
            one of its presets, or None.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    method: str = "dtof"
    range_m: float | None = 20.0
    bins: int = 1024
    clip_beyond_range: bool = False
    jitter_bins: int = 0
    noise_m: float = 0.0
    noise_relative: float = 0.0
    outliers: float = 0.0
    dropout: float = 0.0
    dead_pixels: float = 0.0
    misalignment_px: float = 0.0
    holes: HoleConfig | str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"degradation method {self.method!r} is unknown; use one of {', '.join(METHODS)}")
        if self.range_m is not None and not self.range_m > 0:
            raise ConfigError(f"degradation range_m is {self.range_m}; it must be positive, or null for per clip")
        if self.bins < 2:
            raise ConfigError(f"degradation bins is {self.bins}; a histogram needs at least 2")
        if self.jitter_bins < 0 or self.jitter_bins != int(self.jitter_bins):
            raise ConfigError(f"degradation jitter_bins is {self.jitter_bins}; it must be a whole number, 0 or more")
        for name in ("outliers", "dropout", "dead_pixels"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"degradation {name} is {getattr(self, name)}; it is a probability, 0 to 1")
        for name in ("noise_m", "noise_relative", "misalignment_px"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"degradation {name} is {getattr(self, name)}; it must be 0 or more")
        if isinstance(self.holes, str):
            object.__setattr__(self, "holes", HoleConfig.preset(self.holes))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DegradationConfig:
        """Build from plain values, as a YAML file gives them; ``holes`` may be a mapping or a preset's name.

        Raises:
            ConfigError: a name or value is unknown or out of range.
        """
        values = dict(values)
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(
                f"degradation has no option {', '.join(unknown)}; it has {', '.join(f.name for f in fields(cls))}"
            )
        if isinstance(values.get("holes"), Mapping):
            values["holes"] = HoleConfig.from_dict(values["holes"])
        return cls(**values)


def degrade(
    depth: Tensor,
    rgb: Tensor | None,
    scale: int,
    config: DegradationConfig | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Make low-resolution depth.

    What is constant over a clip (misalignment, dead pixels) is drawn once per leading index before the
    frame's: (B, T, 1, H, W) is B clips of T frames, (T, 1, H, W) one clip. Frames whose size ``scale`` does
    not divide are extended on the right and below by replication.

    Args:
        depth: (..., 1, H, W) in metres, 0 invalid.
        rgb: (..., 3, H, W), 0..1, the reflectance of the dToF simulation; None for equal reflectance.
        scale: high-resolution pixels per low-resolution pixel on each axis.
        config: defaults to the plain dToF simulation.
        generator: source of all random numbers, on the CPU or on depth's device.

    Returns:
        (..., 1, ceil(H / scale), ceil(W / scale)) in metres, 0 invalid, on depth's device.

    Raises:
        InputError: a shape does not fit or the scale is below 1.
    """
    config = config or DegradationConfig()
    if scale < 1 or scale != int(scale):
        raise InputError(f"the scale of a degradation is {scale}; it must be a whole number, 1 or more")
    if depth.ndim < 3 or depth.shape[-3] != 1:
        raise InputError(f"depth to degrade has shape {tuple(depth.shape)}, expected (..., 1, H, W)")
    if rgb is not None and rgb.shape != (*depth.shape[:-3], 3, *depth.shape[-2:]):
        raise InputError(f"rgb of shape {tuple(rgb.shape)} does not fit depth of shape {tuple(depth.shape)}")

    clips = _as_clips(torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0))
    clips = _pad_to_multiple(clips, scale)
    albedo = None
    if rgb is not None:
        albedo = (rgb[..., 0, :, :] + rgb[..., 1, :, :]).add_(rgb[..., 2, :, :]).mul_(255.0 / 3.0)
        albedo = _pad_to_multiple(_as_clips(albedo.float().unsqueeze(-3)), scale)
    draw = _Draw(generator, depth.device)

    if config.misalignment_px > 0:
        shifts = (2 * draw.uniform(clips.shape[0], 2) - 1) * config.misalignment_px
        clips = torch.stack([shift_depth(clip, *shift) for clip, shift in zip(clips, shifts.tolist(), strict=True)])
    range_m = _ranges(clips, config.range_m)
    low = _downsample(clips, albedo, scale, range_m, config, draw)
    if config.holes is not None:
        low_albedo = None if albedo is None else F.avg_pool2d(albedo, scale)
        low = punch_holes(low, _at_centres(clips, scale), low_albedo, config.holes, draw)
    low = _disturb(low, range_m, config, draw)
    return low.reshape(*depth.shape[:-2], *low.shape[-2:])


def _as_clips(frames: Tensor) -> Tensor:
    """(..., 1, H, W) as (clips, T, H, W)."""
    height, width = frames.shape[-2:]
    count = frames.shape[-4] if frames.ndim > 3 else 1
    return frames.reshape(-1, count, height, width)


def _pad_to_multiple(frames: Tensor, scale: int) -> Tensor:
    """Extend (N, T, H, W) on the right and below by replication until ``scale`` divides it."""
    below, right = -frames.shape[-2] % scale, -frames.shape[-1] % scale
    return F.pad(frames, (0, right, 0, below), mode="replicate") if below or right else frames


def _ranges(clips: Tensor, range_m: float | None) -> Tensor:
    """Depth of the last bin for each clip (N, 1, 1, 1)."""
    if range_m is not None:
        return clips.new_full((clips.shape[0], 1, 1, 1), range_m)
    largest = clips.amax((1, 2, 3), keepdim=True)
    return largest.where(largest > 0, torch.ones_like(largest))


class _Draw:
    """Random numbers from one generator, whichever device it lives on, on the device of the data."""

    def __init__(self, generator: torch.Generator | None, device: torch.device) -> None:
        self.generator, self.device = generator, device
        self.source = device if generator is None else generator.device

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in 0..1 (1 excluded)."""
        return torch.rand(shape, generator=self.generator, device=self.source).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.generator, device=self.source).to(self.device)


def _downsample(
    clips: Tensor,
    albedo: Tensor | None,
    scale: int,
    range_m: Tensor,
    config: DegradationConfig,
    draw: _Draw,
) -> Tensor:
    """(N, T, H, W) metres to (N, T, h, w) metres by the configured method."""
    if config.method == "dtof":
        bins = dtof_bins(clips / range_m, albedo, scale, config.bins, config.clip_beyond_range)
        if config.jitter_bins > 0:
            spread = 2 * int(config.jitter_bins) + 1
            offset = (draw.uniform(*bins.shape) * spread).long() - int(config.jitter_bins)
            bins = (bins + offset).clamp_(1, config.bins - 1).where(bins > 0, bins)
        return bins * (range_m / (config.bins - 1))
    if config.method == "nearest":
        return _at_centres(clips, scale).contiguous()
    if config.method == "area":
        share = F.avg_pool2d((clips > 0).float(), scale)
        return torch.nan_to_num(F.avg_pool2d(clips, scale) / share, nan=0.0)
    size = clips.shape[-2] // scale, clips.shape[-1] // scale
    share = F.interpolate((clips > 0).float(), size, mode="bicubic", align_corners=False, antialias=True)
    mean = F.interpolate(clips, size, mode="bicubic", align_corners=False, antialias=True) / share
    return mean.clamp_min(0).where(share > 0.5, mean.new_zeros(()))


def _at_centres(frames: Tensor, scale: int) -> Tensor:
    """The pixel at the centre of each block."""
    return frames[..., scale // 2 :: scale, scale // 2 :: scale]


def dtof_bins(
    depth: Tensor, albedo: Tensor | None, scale: int, bins: int = 1024, clip_beyond_range: bool = False
) -> Tensor:
    """Fullest histogram bin of each block: what a direct time-of-flight pixel reports (DVSR eq. 1).

    A pixel of depth d (0..1 of the range) and albedo a adds a / (1e-3 + d^2) to bin round((bins - 1) d). The
    lowest of equally full bins wins; a block that returns no light reports 0.

    Args:
        depth: (N, T, H, W) as a fraction of the range, 0 invalid; H and W multiples of ``scale``.
        albedo: (N, T, H, W) of any unit, or None for 1.
        scale: pixels per block on each axis.
        bins: number of bins.
        clip_beyond_range: count depth beyond the last bin there instead of not at all.

    Returns:
        (N, T, H / scale, W / scale) int64, 0 to bins - 1.
    """
    count, frames, height, width = depth.shape
    rows, columns = height // scale, width // scale
    strips = depth.reshape(-1, scale, width)  # one row of blocks each
    lights = None if albedo is None else albedo.reshape(-1, scale, width)
    # One slot more than bins takes what lies beyond; then whole groups, for the search of the maximum.
    slots = (bins // _GROUP + 1) * _GROUP
    budget = _HISTOGRAM_BYTES.get(depth.device.type, _HISTOGRAM_BYTES["cpu"])
    step = max(1, budget // (4 * slots * columns))
    first_slot = torch.arange(min(step, strips.shape[0]) * columns, device=depth.device).mul_(slots)
    first_slot = first_slot.view(-1, 1, columns, 1)

    fullest = []
    for start in range(0, strips.shape[0], step):
        part = strips[start : start + step]
        light = part.sign()  # 0 where there is no depth
        if lights is not None:
            light = light.mul_(lights[start : start + step])
        light = light.div_(torch.addcmul(part.new_tensor(1e-3), part, part))
        slot = (part * (bins - 1)).round_().clamp_(max=bins - 1 if clip_beyond_range else bins).long()
        slot = slot.view(-1, scale, columns, scale) + first_slot[: part.shape[0]]
        histogram = part.new_zeros(part.shape[0] * columns * slots)
        histogram.scatter_add_(0, slot.view(-1), light.view(-1))
        fullest.append(_fullest_bin(histogram.view(-1, slots), bins))
    return torch.cat(fullest).view(count, frames, rows, columns)


def _fullest_bin(histogram: Tensor, bins: int) -> Tensor:
    """Index of the first largest value in each row (N, slots), slots from ``bins`` on ignored.

    In two steps, since a maximum over many values is much faster than its index."""
    histogram[:, bins:] = 0
    groups = histogram.view(histogram.shape[0], -1, _GROUP)
    group = groups.amax(2).argmax(1, keepdim=True)
    within = groups.gather(1, group.unsqueeze(2).expand(-1, 1, _GROUP)).squeeze(1).argmax(1)
    return group.squeeze(1) * _GROUP + within


def shift_depth(depth: Tensor, right: float, down: float) -> Tensor:
    """Depth read ``right`` and ``down`` pixels further on, fractions included.

    Interpolates within a surface; across an edge or beside a hole the nearest pixel is taken, so that no
    depth appears that nothing has.

    Args:
        depth: (..., H, W) metres, 0 invalid.
        right, down: the shift in pixels; the frame's border is replicated.
    """
    height, width = depth.shape[-2:]
    whole_x, whole_y = math.floor(right), math.floor(down)
    x, y = right - whole_x, down - whole_y
    columns = torch.arange(width + 1, device=depth.device).add_(whole_x).clamp_(0, width - 1)
    rows = torch.arange(height + 1, device=depth.device).add_(whole_y).clamp_(0, height - 1)
    moved = depth.index_select(-2, rows).index_select(-1, columns)
    top, bottom = moved[..., :-1, :], moved[..., 1:, :]
    corners = torch.stack([top[..., :-1], top[..., 1:], bottom[..., :-1], bottom[..., 1:]])
    weights = corners.new_tensor([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y])
    nearest = corners[int(weights.argmax())]
    mean = torch.einsum("k,k...->...", weights, corners)
    low, high = corners.amin(0), corners.amax(0)
    return torch.where((low > 0) & (high - low <= _SAME_SURFACE * low), mean, nearest)


def _disturb(low: Tensor, range_m: Tensor, config: DegradationConfig, draw: _Draw) -> Tensor:
    """Noise, outliers, lost readings and dead pixels on (N, T, h, w) metres."""
    if config.noise_m > 0 or config.noise_relative > 0:
        deviation = (config.noise_m**2 + (config.noise_relative * low).square()).sqrt()
        noisy = (low + deviation * draw.normal(*low.shape)).clamp_min(1e-3)
        low = torch.where(low > 0, noisy, low)
    if config.outliers > 0:
        wrong = draw.uniform(*low.shape) < config.outliers
        low = torch.where(wrong & (low > 0), draw.uniform(*low.shape).clamp_min(1e-3) * range_m, low)
    if config.dropout > 0:
        low = low * (draw.uniform(*low.shape) >= config.dropout)
    if config.dead_pixels > 0:
        low = low * (draw.uniform(low.shape[0], 1, *low.shape[2:]) >= config.dead_pixels)
    return low
