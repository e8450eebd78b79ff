"""Faults that any sensor may have: noise, wrong and lost readings, dead pixels, coarse depth steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws
from stdnet_core.errors import ConfigError


@dataclass(frozen=True)
class Faults:
    """Faults of single readings.

    Attributes:
        noise_m: standard deviation of additive Gaussian noise in metres.
        noise_relative: standard deviation of Gaussian noise as a fraction of the depth.
        outliers: probability that a reading is replaced by a random depth up to the largest in its frame.
        dropout: probability that a reading is lost, drawn for each frame.
        dead_pixels: probability that a pixel is dead for the whole clip.
        unit_m: readings are rounded to multiples of this, such as 0.001 or 1/256; 0: not rounded.

    Raises:
        ConfigError: a value is out of range.
    """

    noise_m: float = 0.0
    noise_relative: float = 0.0
    outliers: float = 0.0
    dropout: float = 0.0
    dead_pixels: float = 0.0
    unit_m: float = 0.0

    def __post_init__(self) -> None:
        for name in ("outliers", "dropout", "dead_pixels"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"faults {name} is {getattr(self, name)}; it is a probability, 0 to 1")
        for name in ("noise_m", "noise_relative", "unit_m"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"faults {name} is {getattr(self, name)}; it must be 0 or more")

    def apply(self, depth: Tensor, draws: Draws, first: int) -> Tensor:
        """Add the faults to readings (T, h, w) in metres, 0 invalid; ``first`` is the number of the first frame."""
        count, *size = depth.shape
        if self.noise_m > 0 or self.noise_relative > 0:
            deviation = (self.noise_m**2 + (self.noise_relative * depth).square()).sqrt()
            noisy = (depth + deviation * draws.normal("noise", first, count, *size)).clamp_min(1e-3)
            depth = torch.where(depth > 0, noisy, depth)
        if self.outliers > 0:
            wrong = draws.uniform("outliers", first, count, *size) < self.outliers
            any_depth = draws.uniform("outlier depths", first, count, *size).clamp_min(1e-3)
            any_depth = any_depth * depth.amax((1, 2), keepdim=True)
            depth = torch.where(wrong & (depth > 0), any_depth, depth)
        if self.dropout > 0:
            depth = depth * (draws.uniform("dropout", first, count, *size) >= self.dropout)
        if self.dead_pixels > 0:
            depth = depth * (draws.clip_uniform("dead pixels", *size) >= self.dead_pixels)
        return (depth / self.unit_m).round() * self.unit_m if self.unit_m > 0 else depth
