"""Misalignment of a depth camera and the colour camera: small calibration errors and a delay between the exposures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws
from stdnet_core.data.sensors.view import Memory
from stdnet_core.errors import ConfigError, InputError
from stdnet_core.optical_flow import estimate_flow

_SAME_SURFACE = 0.02  # relative depth difference up to which neighbours are interpolated


@dataclass(frozen=True)
class Alignment:
    """Alignment errors of depth relative to colour. Each is drawn once per clip, uniformly between plus and minus its
    limit.

    Attributes:
        shift_px: largest shift on each axis in colour pixels.
        scale: largest change of size, as a fraction.
        rotation_deg: largest rotation about the image's centre in degrees.
        delay: largest time in frames by which depth is older than colour (uniform from 0). Moving objects are displaced
            by that fraction of their motion, which is estimated from colour by optical flow.

    Raises:
        ConfigError: a value is out of range.
    """

    shift_px: float = 0.0
    scale: float = 0.0
    rotation_deg: float = 0.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift_px", "scale", "rotation_deg", "delay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"alignment {name} is {getattr(self, name)}; it must be 0 or more")
        if not self.scale < 0.5 or not self.rotation_deg < 45 or not self.delay <= 1:
            raise ConfigError(
                f"alignment scale {self.scale}, rotation_deg {self.rotation_deg} and delay {self.delay} must be below "
                "0.5, below 45 and at most 1"
            )

    def apply(self, depth: Tensor, rgb: Tensor | None, draws: Draws, memory: Memory) -> Tensor:
        """Misalign depth (T, H, W) relative to colour (T, 3, H, W).

        Raises:
            InputError: a delay without colour, from which motion is estimated.
        """
        if not any((self.shift_px, self.scale, self.rotation_deg, self.delay)):
            return depth
        right, down, scale, rotation, delay = draws.clip_uniform("alignment", 5).tolist()
        height, width = depth.shape[-2:]
        x = torch.arange(width, device=depth.device, dtype=torch.float64) - (width - 1) / 2
        y = (torch.arange(height, device=depth.device, dtype=torch.float64) - (height - 1) / 2)[:, None]
        angle = math.radians((2 * rotation - 1) * self.rotation_deg)
        factor = 1 + (2 * scale - 1) * self.scale
        cos, sin = factor * math.cos(angle), factor * math.sin(angle)
        column = cos * x - sin * y + (width - 1) / 2 + (2 * right - 1) * self.shift_px
        row = sin * x + cos * y + (height - 1) / 2 + (2 * down - 1) * self.shift_px
        if self.delay == 0:
            return sample_depth(depth, column.expand(depth.shape), row.expand(depth.shape))
        if rgb is None:
            raise InputError("a delay between depth and colour needs colour frames, to estimate motion")
        flow = delay * self.delay * self._backward_flow(rgb, memory)
        return sample_depth(depth, column - flow[:, 0], row - flow[:, 1])

    @staticmethod
    def _backward_flow(rgb: Tensor, memory: Memory) -> Tensor:
        """(T, 2, H, W): motion from each frame to the one before it; 0 for the first of a clip."""
        frames = [f.permute(1, 2, 0).mul(255).round().byte().cpu().numpy() for f in rgb]
        last = memory.get("alignment colour")
        before = [frames[0] if last is None else last.numpy(), *frames[:-1]]
        memory["alignment colour"] = torch.from_numpy(frames[-1])
        flows = [estimate_flow(now, earlier) for now, earlier in zip(frames, before, strict=True)]
        return torch.stack([torch.from_numpy(flow) for flow in flows]).to(rgb)


def sample_depth(depth: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample depth at other positions, including fractions of a pixel.

    It is interpolated within a surface. Across an edge or beside a hole, the nearest pixel is used, so that no depth
    between two surfaces appears.

    Args:
        depth: (T, H, W) metres, 0 invalid.
        x, y: (T, H', W') positions in pixels, centres at integers; the border is replicated.

    Returns:
        (T, H', W') metres, 0 invalid.
    """
    height, width = depth.shape[-2:]
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().clamp(max=max(width - 2, 0)), y.floor().clamp(max=max(height - 2, 0))
    right_share, lower_share = (x - left).to(depth), (y - top).to(depth)
    index = (top * width + left).long().flatten(1)
    beside, below = min(1, width - 1), width * min(1, height - 1)
    flat = depth.flatten(1)
    corners = torch.stack([flat.gather(1, index + step) for step in (0, beside, below, beside + below)])
    corners = corners.view(4, *x.shape)
    weights = torch.stack(
        [
            (1 - right_share) * (1 - lower_share),
            right_share * (1 - lower_share),
            (1 - right_share) * lower_share,
            right_share * lower_share,
        ]
    )
    nearest = corners.gather(0, weights.argmax(0, keepdim=True))[0]
    used = weights > 0
    low = torch.where(used, corners, torch.inf).amin(0)
    high = torch.where(used, corners, -torch.inf).amax(0)
    return torch.where((low > 0) & (high - low <= _SAME_SURFACE * low), (weights * corners).sum(0), nearest)
