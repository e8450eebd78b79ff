"""Depth of phones with a lidar: a network turns a few hundred laser dots into a smooth 256x192 depth image.

It has no holes, soft edges and spatially smooth errors, and lags behind motion. Its confidence map is low at edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws
from stdnet_core.data.sensors.reduction import reduce_depth
from stdnet_core.data.sensors.view import Memory, View, gaussian_blur, smooth_field
from stdnet_core.errors import ConfigError

_UNSURE = 0.05  # of the depth; a larger difference within 3x3 cells means low confidence


@dataclass(frozen=True)
class PhoneLidar:
    """A phone's lidar with the processing of its operating system.

    Attributes:
        blur: standard deviation of the spatial smoothing in cells; it also crosses edges.
        lag: weight of the frame delivered before, 0 to below 1.
        noise: standard deviation of errors as a share of the depth.
        noise_cells: cells over which these errors are smooth.
        bias: standard deviation of the scale error that is constant over the clip.
        max_m: readings beyond this are lost.
        confident_only: drop readings with a low confidence, which are those at edges.

    Raises:
        ConfigError: a value is out of range.
    """

    blur: float = 0.7
    lag: float = 0.5
    noise: float = 0.005
    noise_cells: float = 8.0
    bias: float = 0.003
    max_m: float = math.inf
    confident_only: bool = False

    def __post_init__(self) -> None:
        for name in ("blur", "noise", "bias"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"phone_lidar {name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.lag < 1:
            raise ConfigError(f"phone_lidar lag is {self.lag}; it must be from 0 to below 1")
        if not self.noise_cells >= 1:
            raise ConfigError(f"phone_lidar noise_cells is {self.noise_cells}; it must be 1 or more")
        if not self.max_m > 0:
            raise ConfigError(f"phone_lidar max_m is {self.max_m}; it must be positive")

    def measure(self, view: View, size: tuple[int, int], draws: Draws, memory: Memory) -> Tensor:
        """See :class:`stdnet_core.data.sensors.view.Measurement`."""
        sharp = reduce_depth(view.depth, size, "area")
        known = (sharp > 0).to(sharp)
        both = gaussian_blur(torch.stack((sharp, known), 1), self.blur)
        depth = torch.where(known > 0, both[:, 0] / both[:, 1].clamp_min(1e-6), sharp.new_zeros(()))
        knots = [max(2, round(length / self.noise_cells)) for length in size]
        noise = smooth_field(draws.normal("lidar noise", view.first, len(view), *knots), size)
        scale = 1 + self.bias * float(draws.clip_normal("lidar bias", 1))
        depth = (depth * (scale + self.noise * noise)).clamp_min(0)
        if self.confident_only:
            farthest = F.max_pool2d(depth[:, None], 3, 1, 1)[:, 0]
            nearest = -F.max_pool2d(-depth[:, None], 3, 1, 1)[:, 0]
            unsure = farthest - nearest > _UNSURE * depth
        if self.lag:
            depth = self._lagging(depth, memory)
        if self.confident_only:
            depth = depth * ~unsure
        return depth * ((depth <= self.max_m) & (known > 0))

    def _lagging(self, depth: Tensor, memory: Memory) -> Tensor:
        """Each frame mixed with the one delivered before, where both have depth."""
        frames = []
        last = memory.get("lidar last")
        for frame in depth:
            if last is not None:
                mixed = (1 - self.lag) * frame + self.lag * last
                frame = torch.where((frame > 0) & (last > 0), mixed, frame)
            frames.append(frame)
            last = frame
        memory["lidar last"] = frames[-1]
        return torch.stack(frames)
