"""Data augmentation: random variations of training clips.

Each variation is the same for all frames of a clip and keeps its geometry consistent: flow, camera matrix and a
source's own low-resolution depth are flipped with the images, and flow is dropped if it would be unknown. All random
numbers come from one CPU generator, so a clip can be reproduced from its seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.sensors.view import gaussian_blur
from stdnet_core.errors import ConfigError

_PROBABILITIES = ("flip_horizontal", "flip_vertical", "transpose", "reverse", "gray", "misregister")
_FACTORS = ("gamma", "exposure", "contrast", "balance", "depth_gain")
_LIMITS = {"parallax_px": (0, 100), "zoom": (1, 1.5), "blur_px": (0, 5), "noise": (0, 0.5)}
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class AugmentationConfig:
    """Which variations :func:`augment` applies.

    Attributes:
        flip_horizontal, flip_vertical: probability of a mirror image.
        transpose: probability of exchanging rows and columns; only for square clips, whose size does not change.
        reverse: probability of time running backwards.
        gray: probability of grey images.
        misregister: probability of depth, including the ground truth, that is badly registered to colour, as in
            recordings of real sensors. Teaches the network to follow colour only where depth agrees with it.
        shift_px: in misregistered clips, largest shift of colour on each axis.
        parallax_px: in misregistered clips, largest shift of depth on each axis at the clip's median distance. It is
            inversely proportional to depth, as if the depth camera were beside the colour camera.
        zoom: in misregistered clips, largest ratio of the focal lengths of the two cameras.
        fattening_px: in misregistered clips, largest growth of the foreground over the background (stereo matching).
        wobble: in misregistered clips, largest standard deviation, as a fraction of depth, of depth errors that are
            smooth in the image and different in each frame; also applied to the ground truth.
        gamma: limits of the exponent on colour.
        exposure: limits of the factor on colour.
        contrast: limits of the factor on the difference from the clip's mean colour.
        balance: limits of an additional factor on each colour channel separately.
        blur_px: largest standard deviation in pixels of a blur of colour.
        noise: largest standard deviation of noise in colour (0..1), which is different in each frame.
        depth_gain: limits of the factor on all depths; the camera matrix stays the same, so the scene is scaled.

    Factors are drawn log-uniformly, so that (0.5, 2) halves as often as it doubles.

    Raises:
        ConfigError: a value is out of range.
    """

    flip_horizontal: float = 0.5
    flip_vertical: float = 0.5
    transpose: float = 0.5
    reverse: float = 0.5
    gray: float = 0.0
    misregister: float = 0.0
    shift_px: int = 6
    parallax_px: float = 0.0
    zoom: float = 1.0
    fattening_px: int = 4
    wobble: float = 0.0
    gamma: tuple[float, float] = (0.8, 1.25)
    exposure: tuple[float, float] = (0.7, 1.4)
    contrast: tuple[float, float] = (0.8, 1.25)
    balance: tuple[float, float] = (0.95, 1.05)
    blur_px: float = 0.0
    noise: float = 0.0
    depth_gain: tuple[float, float] = (0.8, 1.25)

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigError(f"augmentation {name} is {value!r}; it is a probability, 0 to 1")
        for name in _FACTORS:
            limits = getattr(self, name)
            if not isinstance(limits, Sequence) or len(limits) != 2 or not 0 < limits[0] <= limits[1]:
                raise ConfigError(f"augmentation {name} is {limits!r}; expected two factors, 0 < low <= high")
            object.__setattr__(self, name, (float(limits[0]), float(limits[1])))

        for name in ("shift_px", "fattening_px"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ConfigError(f"augmentation {name} is {value!r}; it is a whole number of pixels, 0 or more")
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise ConfigError(f"augmentation {name} is {value!r}; it is a number from {least} to {most}")
        if not isinstance(self.wobble, int | float) or not 0 <= self.wobble < 0.3:
            raise ConfigError(f"augmentation wobble is {self.wobble!r}; it is a fraction of the depth, 0 to 0.3")

    @classmethod
    def none(cls) -> AugmentationConfig:
        """No variation at all."""
        values: dict[str, Any] = {name: 0.0 for name in _PROBABILITIES} | {name: (1.0, 1.0) for name in _FACTORS}
        return cls(**values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AugmentationConfig:
        """Build from plain values, as read from a YAML file.

        Raises:
            ConfigError: a name or value is unknown or out of range.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"augmentation has no option {', '.join(unknown)}; it has {', '.join(known)}")
        return cls(**values)


def augment(clip: RgbdClip, config: AugmentationConfig, generator: torch.Generator) -> RgbdClip:
    """Vary a clip at random.

    The same random numbers are drawn for every clip and configuration, so that changing one variation does not affect
    the others.

    Args:
        clip: on any device; it is not changed.
        config: which variations.
        generator: on the CPU.

    Returns:
        A clip of the same size and length.
    """
    chance = dict(zip(_PROBABILITIES, torch.rand(len(_PROBABILITIES), generator=generator).tolist(), strict=True))
    if chance["flip_horizontal"] < config.flip_horizontal:
        clip = flip_horizontal(clip)
    if chance["flip_vertical"] < config.flip_vertical:
        clip = flip_vertical(clip)
    if chance["transpose"] < config.transpose and clip.frame_size[0] == clip.frame_size[1]:
        clip = transpose(clip)
    if chance["reverse"] < config.reverse:
        clip = reverse(clip)
    factor = {name: _factors(getattr(config, name), 3, generator) for name in _FACTORS}
    rgb = clip.rgb
    if chance["gray"] < config.gray:
        rgb = (rgb * rgb.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True).expand_as(rgb)
    rgb = vary_color(
        rgb,
        gamma=factor["gamma"][0],
        exposure=factor["exposure"][0],
        contrast=factor["contrast"][0],
        balance=factor["balance"],
    )
    clip = scale_depth(replace(clip, rgb=rgb), factor["depth_gain"][0])
    span = 2 * config.shift_px + 1
    right, down, fattening, amplitude, seed = torch.randint(1 << 30, (5,), generator=generator).tolist()
    beside, below, zoom = (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1).tolist()
    if chance["misregister"] < config.misregister:
        if config.parallax_px or config.zoom > 1:
            clip = other_viewpoint(
                clip, right=beside * config.parallax_px, down=below * config.parallax_px, zoom=config.zoom**zoom
            )
        clip = misregister(
            clip,
            right=right % span - config.shift_px,
            down=down % span - config.shift_px,
            fattening=fattening % (config.fattening_px + 1),
        )
        if config.wobble:
            noise = torch.Generator().manual_seed(seed)
            clip = wobble(clip, config.wobble * amplitude / (1 << 30), noise)
    blur, grain = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    seed = int(torch.randint(1 << 30, (1,), generator=generator))
    rgb = gaussian_blur(clip.rgb, config.blur_px * blur)
    if config.noise:
        rgb = with_noise(rgb, config.noise * grain, torch.Generator().manual_seed(seed))
    return replace(clip, rgb=rgb).contiguous()


def misregister(clip: RgbdClip, *, right: int, down: int, fattening: int) -> RgbdClip:
    """Shift colour relative to depth and let the foreground grow over the background.

    Args:
        right, down: shift of colour in pixels; the border is replicated.
        fattening: pixels by which near surfaces grow on every side.

    Returns:
        The clip without flow, which would no longer match the depth.
    """
    height, width = clip.frame_size
    rows = (torch.arange(height, device=clip.rgb.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=clip.rgb.device) - right).clamp(0, width - 1)
    rgb = clip.rgb[:, :, rows][..., columns]
    depth = clip.depth
    if fattening:
        size = 2 * fattening + 1
        nearness = torch.where(clip.valid, -depth, torch.full_like(depth, -math.inf))
        nearest = -torch.nn.functional.max_pool2d(nearness, size, stride=1, padding=fattening)
        depth = torch.where(clip.valid, nearest, torch.zeros_like(depth))
    return replace(clip, rgb=rgb, depth=depth, flow=None)


def other_viewpoint(clip: RgbdClip, *, right: float, down: float, zoom: float) -> RgbdClip:
    """Depth as a camera beside the colour camera sees it, which is not registered to colour.

    Args:
        right, down: shift of depth in pixels at the clip's median distance; it is inversely proportional to depth.
        zoom: the depth camera's focal length, divided by the colour camera's; the centre of the image stays in place.

    Returns:
        The clip without flow, which would no longer match the depth, and without a source's own low-resolution depth.
        Where several surfaces meet, the nearest counts; what the colour camera does not see is invalid.
    """
    frames = len(clip.depth)
    height, width = clip.frame_size
    if not clip.valid.any():
        return clip
    median = clip.depth[clip.valid].median()
    nearness = (median / clip.depth.clamp_min(1e-6)).clamp(max=4)
    rows, columns = (torch.arange(n, device=clip.depth.device, dtype=torch.float32) for n in (height, width))
    row = (rows[:, None] - (height - 1) / 2) * zoom + (height - 1) / 2 + down * nearness
    column = (columns - (width - 1) / 2) * zoom + (width - 1) / 2 + right * nearness
    frame = torch.arange(frames, device=clip.depth.device).view(-1, 1, 1, 1)
    nearest = clip.depth.new_full((frames * height * width,), math.inf)
    for below in (0, 1):  # all four pixels around the new place, so that surfaces have no cracks
        for beside in (0, 1):
            y, x = row.floor().long() + below, column.floor().long() + beside
            inside = clip.valid & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            place = ((frame * height + y) * width + x)[inside]
            nearest.scatter_reduce_(0, place, clip.depth[inside], "amin")
    nearest = nearest.view_as(clip.depth)
    valid = nearest.isfinite()
    return replace(clip, depth=nearest.where(valid, nearest.new_zeros(())), valid=valid, flow=None, depth_lr=None)


def wobble(clip: RgbdClip, amplitude: float, generator: torch.Generator) -> RgbdClip:
    """Add errors to depth that are smooth over some pixels and different in each frame, like those of stereo matching.

    Args:
        amplitude: standard deviation as a fraction of the depth.
        generator: on the CPU; also draws how many pixels (2 to 12) the errors are smooth over.
    """
    height, width = clip.frame_size
    span = 2 + _index(11, generator)
    size = (len(clip.depth), 1, height // span + 2, width // span + 2)
    noise = torch.nn.functional.interpolate(
        torch.randn(size, generator=generator).to(clip.depth), size=(height, width), mode="bicubic"
    )
    factor = 1 + amplitude * (noise / noise.std().clamp_min(1e-6)).clamp(-3, 3)
    return replace(clip, depth=clip.depth * factor)


def vary_color(rgb: Tensor, *, gamma: float, exposure: float, contrast: float, balance: Sequence[float]) -> Tensor:
    """Change the colours of a clip as another camera or lighting would.

    Args:
        rgb: (T, 3, H, W), 0..1.
        gamma: exponent, applied first.
        exposure: factor on all channels.
        contrast: factor on the difference from the mean colour of the clip.
        balance: factor on each of the three channels.

    Returns:
        (T, 3, H, W), 0..1.
    """
    if gamma != 1:
        rgb = rgb.pow(gamma)
    rgb = rgb * (exposure * rgb.new_tensor(list(balance))).view(3, 1, 1)
    if contrast != 1:
        mean = rgb.mean()
        rgb = mean + contrast * (rgb - mean)
    return rgb.clamp(0, 1)


def with_noise(rgb: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Colour (T, 3, H, W) in 0..1 with noise of standard deviation ``sigma``, new in each frame.

    The generator is on the CPU."""
    return (rgb + sigma * torch.randn(rgb.shape, generator=generator).to(rgb)).clamp(0, 1)


def scale_depth(clip: RgbdClip, gain: float) -> RgbdClip:
    """The same clip for a scene that is ``gain`` times as large and as far away."""
    low = None if clip.depth_lr is None else clip.depth_lr * gain
    return replace(clip, depth=clip.depth * gain, depth_lr=low)


def stand_still(clip: RgbdClip, frames: int, noise: float, generator: torch.Generator) -> RgbdClip:
    """A static video: the clip's first frame repeated, with new noise on colour in each frame.

    Args:
        noise: standard deviation, for colour in 0..1.
        generator: on the CPU.
    """
    return replace(
        clip,
        rgb=with_noise(clip.rgb[:1].expand(frames, -1, -1, -1), noise, generator),
        depth=clip.depth[:1].repeat(frames, 1, 1, 1),
        valid=clip.valid[:1].repeat(frames, 1, 1, 1),
        flow=clip.depth.new_zeros(frames - 1, 2, *clip.frame_size),
        depth_lr=None,
        stamps=None,
    )


def flip_horizontal(clip: RgbdClip) -> RgbdClip:
    """Mirror image with left and right exchanged."""
    return _flip(clip, -1)


def flip_vertical(clip: RgbdClip) -> RgbdClip:
    """Mirror image with top and bottom exchanged."""
    return _flip(clip, -2)


def transpose(clip: RgbdClip) -> RgbdClip:
    """Rows and columns exchanged (mirrored at the diagonal); H and W are swapped."""
    matrix = clip.intrinsics
    if matrix is not None:
        order = [1, 0, 2]
        matrix = matrix[order][:, order]
    return _map_images(
        clip,
        lambda image: image.transpose(-1, -2),
        flow=None if clip.flow is None else clip.flow.flip(1).transpose(-1, -2),
        intrinsics=matrix,
    )


def reverse(clip: RgbdClip) -> RgbdClip:
    """Reversed in time; flow is dropped because it becomes unknown, and stamps still increase."""
    stamps = clip.stamps
    if stamps is not None:
        stamps = stamps[0] + stamps[-1] - stamps.flip(0)
    return replace(_map_images(clip, lambda image: image.flip(0), flow=None, intrinsics=clip.intrinsics), stamps=stamps)


def _flip(clip: RgbdClip, axis: int) -> RgbdClip:
    component = -1 - axis  # of flow and principal point: x for the last axis, y for the one before
    flow, matrix = clip.flow, clip.intrinsics
    if flow is not None:
        sign = flow.new_ones(2, 1, 1)
        sign[component] = -1
        flow = flow.flip(axis) * sign
    if matrix is not None:
        matrix = matrix.clone()
        matrix[component, 2] = clip.rgb.shape[axis] - 1 - matrix[component, 2]
    return _map_images(clip, lambda image: image.flip(axis), flow=flow, intrinsics=matrix)


def _map_images(
    clip: RgbdClip, change: Callable[[Tensor], Tensor], *, flow: Tensor | None, intrinsics: Tensor | None
) -> RgbdClip:
    return replace(
        clip,
        rgb=change(clip.rgb),
        depth=change(clip.depth),
        valid=change(clip.valid),
        depth_lr=None if clip.depth_lr is None else change(clip.depth_lr),
        flow=flow,
        intrinsics=intrinsics,
    )


def _index(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _factors(limits: tuple[float, float], count: int, generator: torch.Generator) -> list[float]:
    low, high = math.log(limits[0]), math.log(limits[1])
    return (low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)).exp().tolist()
