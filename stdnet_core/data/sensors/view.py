"""The input of a simulated camera, and what all families of cameras share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws

DEFAULT_FOCAL = 0.8
"""Focal length in image widths for sources without intrinsics: a horizontal field of view of 64 degrees."""

Memory = dict[str, Tensor]
"""State that a measurement keeps from earlier frames; empty at the start of a clip."""


@dataclass(frozen=True)
class View:
    """Frames of a clip, as the depth camera sees them.

    Attributes:
        depth: (T, H, W) ground truth in metres, 0 where unknown.
        rgb: (T, 3, H, W), 0..1, or None: reflectance and texture are then uniform.
        focal_px: focal length in pixels of this grid.
        first: index in its clip of the first frame.
    """

    depth: Tensor
    rgb: Tensor | None
    focal_px: float
    first: int = 0

    def __len__(self) -> int:
        return len(self.depth)

    @cached_property
    def albedo(self) -> Tensor:
        """(T, H, W) mean of the colour channels, 0..1, used as reflectance; 0.5 without colour."""
        return torch.full_like(self.depth, 0.5) if self.rgb is None else self.rgb.mean(1)


class Measurement(Protocol):
    """How a family of cameras measures depth; each is a frozen dataclass with its configuration."""

    def measure(self, view: View, size: tuple[int, int], draws: Draws, memory: Memory) -> Tensor:
        """Measured depth (T, h, w) in metres, 0 invalid.

        Args:
            view: the frames.
            size: (h, w) of the delivered depth; its pixels divide the frame evenly.
            draws: source of random numbers.
            memory: state of the same camera; modified.
        """


def smooth_noise(white: Tensor, window: float) -> Tensor:
    """White noise (T, H, W) averaged over a square window of about ``window`` pixels, at unchanged standard deviation.

    The window's side is the nearest odd number of pixels; averages of n independent values are multiplied by
    sqrt(n)."""
    side = 2 * round((window - 1) / 2) + 1
    if side < 2:
        return white
    padded = F.pad(white.unsqueeze(1), (side // 2,) * 4, mode="circular")
    return F.avg_pool2d(padded, side, 1)[:, 0] * side


def follow(fresh: Tensor, correlation: float, name: str, memory: Memory) -> Tensor:
    """Noise (T, ...) with the standard deviation of ``fresh``, correlated from frame to frame."""
    if correlation == 0:
        return fresh
    share = (1 - correlation**2) ** 0.5
    frames = []
    last = memory.get(name)
    for frame in fresh:
        last = frame if last is None else correlation * last + share * frame
        frames.append(last)
    memory[name] = frames[-1]
    return torch.stack(frames)


def smooth_field(coarse: Tensor, size: Sequence[int]) -> Tensor:
    """Random values (..., a, b) interpolated to a smooth field (..., h, w)."""
    flat = coarse.reshape(-1, 1, *coarse.shape[-2:])
    field = F.interpolate(flat, size, mode="bicubic", align_corners=True)
    return field.reshape(*coarse.shape[:-2], *size)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur (T, C, H, W); nothing is done below 0.2 pixels."""
    if sigma < 0.2:
        return images
    radius = max(1, math.ceil(2.5 * sigma))
    tap = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = (-0.5 * (tap / sigma).square()).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    flat = F.pad(images.flatten(0, 1)[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(flat, kernel), kernel.transpose(-1, -2)).view(images.shape)
