"""Converts light to a camera's picture: motion blur, optics, exposure, tone curve, noise, 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .scene import Scene

_BLUR_TAPS = 5


def motion_blur(light: Tensor, flow: Tensor, shutter: Tensor) -> Tensor:
    """Average pictures along their motion while the shutter is open.

    Args:
        light: (N, 3, H, W).
        flow: (N, 2, H, W) pixels per frame.
        shutter: (N,) share of the frame time during which the shutter is open.
    """
    height, width = light.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=light.device), torch.arange(width, device=light.device), indexing="ij"
    )
    still = torch.stack((x, y), -1).float()
    move = flow.permute(0, 2, 3, 1).clamp(-0.2 * width, 0.2 * width) * shutter[:, None, None, None]
    scale = torch.tensor((2 / width, 2 / height), device=light.device)
    total = torch.zeros_like(light)
    for tap in torch.linspace(-0.5, 0.5, _BLUR_TAPS).tolist():
        grid = (still + tap * move + 0.5) * scale - 1
        total += F.grid_sample(light, grid, align_corners=False, padding_mode="border")
    return total / _BLUR_TAPS


def gaussian_blur(picture: Tensor, sigma: Tensor) -> Tensor:
    """Blur (N, 3, H, W) with a 5x5 Gaussian of standard deviation ``sigma`` (N,) pixels, below 1.5."""
    number, channels, height, width = picture.shape
    tap = torch.arange(-2, 3, device=picture.device)
    kernel = torch.exp(-0.5 * (tap / sigma[:, None].clamp_min(0.05)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(picture.reshape(1, number * channels, height, width), (2, 2, 2, 2), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=number * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=number * channels)
    return flat.view(picture.shape)


def _per_frame(scenes: Sequence[Scene], frames: Sequence[int], name: str, like: Tensor) -> Tensor:
    """A parameter of each scene's sensor, repeated for each of its frames, (B * T,)."""
    values = [np.repeat(getattr(scene.sensor, name), len(frames)) for scene in scenes]
    return torch.as_tensor(np.concatenate(values), dtype=torch.float32, device=like.device)


def expose(light: Tensor, flow: Tensor, scenes: Sequence[Scene], frames: Sequence[int], sensor: bool) -> Tensor:
    """The pictures that the scenes' cameras take.

    Args:
        light: (B, T, 3, H, W) linear light.
        flow: (B, T, 2, H, W) pixels per frame, for motion blur.
        frames: the T frame numbers.
        sensor: False applies only exposure and tone curve.

    Returns:
        (B, T, 3, H, W) float32 0..1.
    """
    batch, length = light.shape[:2]
    picture, flow = light.flatten(0, 1), flow.flatten(0, 1)
    height, width = picture.shape[-2:]
    device = picture.device

    def column(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    if sensor:
        picture = picture.clamp(max=4.0)
        shutter = _per_frame(scenes, frames, "shutter", picture)
        moving = shutter > 0
        if moving.any():
            picture[moving] = motion_blur(picture[moving], flow[moving], shutter[moving])
        blur = _per_frame(scenes, frames, "blur", picture)
        soft = blur > 0
        if soft.any():
            picture[soft] = gaussian_blur(picture[soft], blur[soft])
        y = torch.linspace(-1, 1, height, device=device)[:, None]
        x = torch.linspace(-1, 1, width, device=device)
        picture = picture * (1 - column(_per_frame(scenes, frames, "vignette", picture)) * 0.5 * (x * x + y * y))
    exposure = np.concatenate([scene.sensor.exposure[list(frames)] for scene in scenes])
    tint = np.repeat(np.array([scene.sensor.tint for scene in scenes]), length, 0)
    gain = torch.as_tensor(exposure[:, None] * tint, dtype=torch.float32, device=device)
    picture = (picture * gain[:, :, None, None]).clamp_(0, 1).sqrt_()
    contrast = column(_per_frame(scenes, frames, "contrast", picture))
    picture = picture + contrast * (picture * picture * (3 - 2 * picture) - picture)
    if sensor:
        noise = torch.empty_like(picture)
        for index, (scene, frame) in enumerate((scene, frame) for scene in scenes for frame in frames):
            generator = torch.Generator(device).manual_seed((scene.seed * 1_000_003 + frame) % (1 << 63))
            noise[index].normal_(generator=generator)
        read = column(_per_frame(scenes, frames, "read_noise", picture))
        shot = column(_per_frame(scenes, frames, "shot_noise", picture))
        picture = picture + noise * (read + shot * picture.clamp_min(0).sqrt())
        picture = (picture.clamp(0, 1) * 255).round_().div_(255)
    return picture.clamp(0, 1).view(batch, length, 3, height, width)
