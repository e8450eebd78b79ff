"""Cameras that measure the phase of modulated light: Kinect v2, Azure Kinect, Orbbec, PMD.

A pixel sums the light of everything it sees as complex numbers; if it sees two surfaces, the phase of the sum matches
neither (flying pixels). Noise grows as less light returns, and too little gives no reading. Multipath light makes
corners look farther away. Depth is from another camera than colour: registered to the colour image, it has pixels
without a measurement, and occlusion shadows beside near surfaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws
from stdnet_core.data.sensors.holes import in_shadow
from stdnet_core.data.sensors.reduction import reduce_image
from stdnet_core.data.sensors.view import Memory, View, gaussian_blur, smooth_field
from stdnet_core.errors import ConfigError

_DETOUR = 0.1  # share of the image's width within which surfaces illuminate each other
_COARSE = 8  # pixels of a cell of the grid on which surroundings are averaged
_ONE_SURFACE = 0.15  # of the depth, by which a corner may lie behind its surroundings
_RAGGED = 0.1  # standard deviation of the logarithm of the light that is compared with ``dark``
_WIGGLE_M = 0.6  # period of the error that oscillates with depth
_WIGGLE_KNOTS = 6


@dataclass(frozen=True)
class PhaseTof:
    """A continuous-wave time-of-flight camera.

    Attributes:
        ambiguity_m: depth at which the phase wraps around, after the camera's own unwrapping.
        pitch: colour pixels per depth pixel, on each axis, if depth is delivered registered to colour: only every
            pitch^2-th colour pixel then has a measurement. A delivered image of fewer pixels is the sensor's own.
        blur: standard deviation of the optics' blur in depth pixels.
        noise_m: standard deviation at 1 m from a white surface that faces the camera; it is proportional to the
            distance and to 1 / sqrt(reflectance).
        floor_m: standard deviation that remains in full light.
        dark: least light that gives a reading, relative to that from a white surface at 1 m.
        multipath_m: largest error in a corner.
        wiggle_m: largest error that is constant over the clip: as a function of the pixel and of depth.
        baseline_m: distance to the colour camera; negative: the depth camera is on its right. 0: no shadows.
        min_m, max_m: readings outside are lost.

    Raises:
        ConfigError: a value is out of range.
    """

    ambiguity_m: float = 10.0
    pitch: float = 1.0
    blur: float = 0.5
    noise_m: float = 0.001
    floor_m: float = 0.001
    dark: float = 0.0
    multipath_m: float = 0.0
    wiggle_m: float = 0.0
    baseline_m: float = 0.0
    min_m: float = 0.0
    max_m: float = math.inf

    def __post_init__(self) -> None:
        if not self.ambiguity_m > 0:
            raise ConfigError(f"phase_tof ambiguity_m is {self.ambiguity_m}; it must be positive")
        if not self.pitch >= 1:
            raise ConfigError(f"phase_tof pitch is {self.pitch}; it must be 1 or more")
        for name in ("blur", "noise_m", "floor_m", "dark", "multipath_m", "wiggle_m"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"phase_tof {name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.min_m < self.max_m:
            raise ConfigError(f"phase_tof min_m {self.min_m} must be 0 or more and below max_m {self.max_m}")

    def deviation_m(self, depth: float, albedo: float = 1.0) -> float:
        """Standard deviation in metres on a surface that faces the camera."""
        return math.hypot(self.floor_m, self.noise_m * depth / math.sqrt(albedo))

    def measure(self, view: View, size: tuple[int, int], draws: Draws, memory: Memory) -> Tensor:
        """See :class:`stdnet_core.data.sensors.view.Measurement`."""
        frame = view.depth.shape[-2:]
        registered = size == tuple(frame)
        rows, columns = (max(1, round(length / self.pitch)) for length in frame) if registered else size
        grid = rows, columns
        depth, light = self._mixed(view, grid)
        known = depth > 0
        lateral = view.focal_px * grid[1] / frame[1]
        light = light * _facing(depth, lateral)
        count = len(view)
        if self.multipath_m:
            depth = depth + self._detours(depth, known)
        if self.wiggle_m:
            pattern = smooth_field(draws.clip_uniform("tof pattern", _WIGGLE_KNOTS, _WIGGLE_KNOTS) * 2 - 1, grid)
            phase = 2 * math.pi * (depth / _WIGGLE_M + draws.clip_uniform("tof wiggle", 1))
            depth = depth + 0.5 * self.wiggle_m * (pattern.clamp(-1, 1) + phase.sin())
        deviation = (self.floor_m**2 + self.noise_m**2 / light.clamp_min(1e-6)).sqrt()
        depth = depth + deviation * draws.normal("tof noise", view.first, count, *grid)
        ragged = (_RAGGED * draws.normal("tof dropout", view.first, count, *grid)).exp()
        seen = known & (depth >= max(self.min_m, 1e-3)) & (depth <= self.max_m) & (light * ragged >= self.dark)
        if self.baseline_m:
            strength = lateral * abs(self.baseline_m)
            blocked = (
                in_shadow(depth, strength) if self.baseline_m > 0 else in_shadow(depth.flip(-1), strength).flip(-1)
            )
            seen &= ~blocked
        depth = depth * seen
        if not registered or grid == tuple(frame):
            return depth
        return _onto(depth, frame, draws.clip_uniform("tof grid", 2).tolist())

    def _mixed(self, view: View, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Depth of the summed light in each pixel of the grid (T, h, w), 0 without light, and the amount of light.

        Light decreases with the square of the distance."""
        depth = view.depth
        lit = (depth > 0) & (depth < self.ambiguity_m)
        light = torch.where(lit, view.albedo.clamp_min(0.02) / depth.clamp_min(0.05).square(), depth.new_zeros(()))
        phase = depth * (2 * math.pi / self.ambiguity_m)
        phasors = torch.stack((light * phase.cos(), light * phase.sin(), light), 1)
        ratio = depth.shape[-1] / grid[-1]
        phasors = gaussian_blur(phasors, self.blur * ratio)
        real, imaginary, total = (reduce_image(part, grid) for part in phasors.unbind(1))
        turned = torch.atan2(imaginary, real) / (2 * math.pi) % 1
        enough = total > 1e-9
        return torch.where(enough, turned * self.ambiguity_m, depth.new_zeros(())), total

    def _detours(self, depth: Tensor, known: Tensor) -> Tensor:
        """Error in corners: half of what the surroundings are nearer on average, up to the limit."""
        # On a coarse grid, because the surroundings are wide.
        rows, columns = (max(1, -(-length // _COARSE)) for length in depth.shape[-2:])
        radius = max(1, round(_DETOUR * columns))
        weight, total = (
            F.avg_pool2d(
                reduce_image(part, (rows, columns))[:, None], 2 * radius + 1, 1, radius, count_include_pad=False
            )
            for part in (known.to(depth), depth)
        )
        around = F.interpolate(total / weight.clamp_min(1e-6), depth.shape[-2:], mode="bilinear", align_corners=False)[
            :, 0
        ]
        farther = depth - around
        corner = known & (farther < _ONE_SURFACE * depth)  # otherwise, a nearer object in front of another surface
        return (0.5 * farther).clamp(0, self.multipath_m) * corner


def _facing(depth: Tensor, focal_px: float) -> Tensor:
    """Cosine of the angle between a surface's normal and the view (T, h, w); edges do not count as slopes."""
    total = torch.ones_like(depth)
    for axis in (-2, -1):
        if depth.shape[axis] < 2:
            continue
        step = depth.diff(dim=axis).abs()
        before = torch.cat((step.narrow(axis, 0, 1), step), axis)
        after = torch.cat((step, step.narrow(axis, step.shape[axis] - 1, 1)), axis)
        slope = torch.minimum(before, after) * focal_px / depth.clamp_min(0.05)
        total = total + slope.square()
    return total.rsqrt()


def _onto(depth: Tensor, size: Sequence[int], phase: list[float]) -> Tensor:
    """Put each measurement (T, h, w) on the one pixel of a larger image (T, H, W) that its centre falls on."""
    target = []
    for cells, length, shift in zip(depth.shape[-2:], size, phase, strict=True):
        centre = (torch.arange(cells, dtype=torch.float64) + shift) * (length / cells)
        target.append(centre.floor().long().clamp(0, length - 1).to(depth.device))
    image = depth.new_zeros(depth.shape[0], *size)
    image[:, target[0][:, None], target[1]] = depth
    return image
