"""Stereo cameras, passive or with a projector: RealSense D4xx, OAK-D, ZED.

Depth is z = f B / d for a disparity d, so an error of d is multiplied by z^2 / (f B). The error is that of block
matching: correlated over a matching window, nearly constant from frame to frame while nothing moves, and in steps of a
fraction of a pixel. A window that contains the edge of a near surface matches that surface, which fattens the
foreground by half a window. Areas that one of the two views does not see, or sees without contrast, have no depth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws
from stdnet_core.data.sensors.holes import beside_edge, in_shadow
from stdnet_core.data.sensors.reduction import Reduction
from stdnet_core.data.sensors.view import Memory, View, follow, smooth_field, smooth_noise
from stdnet_core.errors import ConfigError

_EDGE_PX = 1.0  # step of disparity that a matching window does not bridge
_BIAS_KNOTS = 4  # knots, per axis, of the smooth error that is constant over a clip
_RAGGED = 0.3  # standard deviation of the logarithm of contrast; makes the borders of holes ragged and unsteady
_LOST_GLOSS = 0.7  # share of the saturated pixels that have no depth


@dataclass(frozen=True)
class Stereo:
    """A stereo camera whose depth is registered to colour.

    Attributes:
        focal_px: focal length of the depth image in its own pixels.
        baseline_m: distance between the two views.
        subpixel: standard deviation of the disparity on a well textured surface, in pixels of the depth image.
        step: disparities are multiples of it.
        window: side of the matching window in pixels of the depth image.
        noise_window: side of the area over which the error is correlated; 0: the matching window. Filters in camera
            and driver smooth surfaces but preserve edges.
        static: share of the error's variance that is constant over the clip in each pixel: the same texture is matched
            with the same error as long as nothing moves.
        correlation: of the rest from one frame to the next, 0 to below 1.
        bias: standard deviation of a smooth disparity error that is constant over the clip (calibration), in pixels of
            the depth image.
        fattening: share of half a window by which the foreground grows.
        edge_jitter: standard deviation of the position from which a disparity is read, in pixels of the depth image;
            outlines waver by about this much from frame to frame.
        shadow: side of near surfaces on which depth is missing: ``left`` if the left view is the reference, ``right``,
            or ``none``.
        texture: least contrast (standard deviation of grey in a window, 0..1) that can be matched; 0: no limit.
        projector: contrast that the camera's own light adds on a white surface at 1 m; it decreases with the square of
            the distance and with reflectance. 0: passive.
        gloss: grey value from which on a surface counts as a reflection, which mostly has no depth; 1: none.
        edge_loss: share of the pixels within half a window of a depth edge that the matcher's checks reject.
        min_m, max_m: readings outside are lost.
        field_of_view_deg: horizontal, of the depth image. There is no depth outside it or, on the side of the shadow,
            in a band as wide as the disparity. None: much larger than that of colour.
        reduction: how it is downsampled.

    Raises:
        ConfigError: a value is out of range.
    """

    focal_px: float = 425.0
    baseline_m: float = 0.05
    subpixel: float = 0.08
    step: float = 1 / 32
    window: float = 9.0
    noise_window: float = 0.0
    static: float = 0.0
    correlation: float = 0.0
    bias: float = 0.0
    fattening: float = 1.0
    edge_jitter: float = 0.0
    shadow: str = "left"
    texture: float = 0.0
    projector: float = 0.0
    gloss: float = 1.0
    edge_loss: float = 0.0
    min_m: float = 0.0
    max_m: float = math.inf
    field_of_view_deg: float | None = None
    reduction: Reduction = field(default_factory=lambda: Reduction("decimation"))

    def __post_init__(self) -> None:
        for name in ("focal_px", "baseline_m", "step", "window"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"stereo {name} is {getattr(self, name)}; it must be positive")
        for name in ("subpixel", "noise_window", "bias", "fattening", "edge_jitter", "texture", "projector"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"stereo {name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.correlation < 1:
            raise ConfigError(f"stereo correlation is {self.correlation}; it must be from 0 to below 1")
        for name in ("static", "gloss", "edge_loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"stereo {name} is {getattr(self, name)}; it must be from 0 to 1")
        if self.shadow not in ("left", "right", "none"):
            raise ConfigError(f"stereo shadow is {self.shadow!r}; choose left, right or none")
        if not 0 <= self.min_m < self.max_m:
            raise ConfigError(f"stereo min_m {self.min_m} must be 0 or more and below max_m {self.max_m}")
        if self.field_of_view_deg is not None and not 0 < self.field_of_view_deg < 180:
            raise ConfigError(f"stereo field_of_view_deg is {self.field_of_view_deg}; it must be between 0 and 180")

    def deviation_m(self, depth: float) -> float:
        """Standard deviation in metres at a depth, without the effect of ``step``: z^2 subpixel / (f B)."""
        return depth**2 * self.subpixel / (self.focal_px * self.baseline_m)

    def measure(self, view: View, size: tuple[int, int], draws: Draws, memory: Memory) -> Tensor:
        """See :class:`stdnet_core.data.sensors.view.Measurement`."""
        true = view.depth
        known = true > 0
        pixel = view.focal_px / self.focal_px  # pixels of this grid per pixel of the depth image
        window = self.window * pixel
        strength = self.focal_px * self.baseline_m
        true_disparity = torch.where(known, strength / true, true.new_zeros(()))
        disparity = self._fattened(true_disparity, window)

        if self.edge_jitter:
            disparity = self._wavering(disparity, self.edge_jitter * pixel, window, view.first, draws, memory)

        contrast = self._contrast(view, window)
        factor = 1 + (self.texture / contrast.clamp_min(1e-6)).clamp_max(1) if self.texture else 1.0
        count, shape = len(view), true.shape[-2:]
        white = draws.normal("stereo match", view.first, count, *shape)
        area = (self.noise_window or self.window) * pixel
        noise = follow(smooth_noise(white, area), self.correlation, "stereo match", memory)
        if self.static:
            fixed = smooth_noise(draws.clip_normal("stereo match", 1, *shape), area)
            noise = math.sqrt(1 - self.static) * noise + math.sqrt(self.static) * fixed
        disparity = disparity + self.subpixel * factor * noise
        if self.bias:
            knots = draws.clip_normal("stereo calibration", _BIAS_KNOTS, _BIAS_KNOTS)
            disparity = disparity + self.bias * smooth_field(knots, shape)
        disparity = (disparity / self.step).round() * self.step

        seen = known & (disparity > 0) & self._both_see(true, view.focal_px)
        if self.texture:
            ragged = smooth_noise(draws.normal("stereo holes", view.first, count, *shape), window)
            ragged = follow(ragged, self.correlation, "stereo holes", memory)
            seen &= contrast * (_RAGGED * ragged).exp() >= self.texture
        if self.gloss < 1 and view.rgb is not None:
            lost = draws.uniform("stereo gloss", view.first, count, *shape) < _LOST_GLOSS
            seen &= ~((view.rgb.amin(1) >= self.gloss) & lost)
        if self.edge_loss:
            side = 2 * round(window / 2) + 1
            near = F.max_pool2d(beside_edge(true)[:, None].float(), side, 1, side // 2)[:, 0] > 0
            field = smooth_noise(draws.normal("stereo edges", view.first, count, *shape), window / 2)
            seen &= ~(near & (field < _normal_quantile(self.edge_loss)))
        depth = strength / disparity.clamp_min(self.step)
        seen &= (depth >= self.min_m) & (depth <= self.max_m)
        return self.reduction.apply(depth * seen, size, draws)

    def _fattened(self, disparity: Tensor, window: float) -> Tensor:
        """Disparity with fattened foreground: the nearest surface within half a window wins if it is beyond an edge."""
        radius = round(self.fattening * (window - 1) / 2)
        if radius < 1:
            return disparity
        nearest = F.max_pool2d(disparity[:, None], 2 * radius + 1, 1, radius)[:, 0]
        step = _EDGE_PX + radius * self._slope(disparity)
        return torch.where((nearest - disparity > step) & (disparity > 0), nearest, disparity)

    def _wavering(
        self, disparity: Tensor, deviation: float, window: float, first: int, draws: Draws, memory: Memory
    ) -> Tensor:
        """Disparity (T, H, W) read at randomly displaced positions; ``deviation`` in pixels, constant over a window."""
        count, height, width = disparity.shape
        moves = []
        for name, length in (("stereo outlines x", width), ("stereo outlines y", height)):
            white = smooth_noise(draws.normal(name, first, count, height, width), window)
            moves.append(follow(white, self.correlation, name, memory) * deviation * (2 / length))
        identity = torch.eye(2, 3, device=disparity.device, dtype=disparity.dtype).expand(count, 2, 3)
        grid = F.affine_grid(identity, [count, 1, height, width], align_corners=False) + torch.stack(moves, -1)
        return F.grid_sample(disparity[:, None], grid, "nearest", "border", align_corners=False)[:, 0]

    @staticmethod
    def _slope(disparity: Tensor) -> Tensor:
        """Change of disparity per pixel within a surface: the smaller difference to either side, summed over axes."""
        total = torch.zeros_like(disparity)
        for axis in (-2, -1):
            step = disparity.diff(dim=axis).abs()
            if step.shape[axis] == 0:
                continue
            first, last = step.narrow(axis, 0, 1), step.narrow(axis, step.shape[axis] - 1, 1)
            total += torch.minimum(torch.cat((first, step), axis), torch.cat((step, last), axis))
        return total

    def _contrast(self, view: View, window: float) -> Tensor:
        """(T, H, W) standard deviation of grey in a window, including the projector's share; 1 if it is not used."""
        if not self.texture or view.rgb is None:
            return torch.ones_like(view.depth)
        side = max(3, 2 * round((window - 1) / 2) + 1)
        grey = view.albedo[:, None]

        def mean(x: Tensor) -> Tensor:
            return F.avg_pool2d(F.pad(x, (side // 2,) * 4, mode="replicate"), side, 1)[:, 0]

        average = mean(grey)
        variance = (mean(grey.square()) - average.square()).clamp_min(0)
        if self.projector:
            light = self.projector * average / view.depth.clamp_min(0.05).square()
            variance = variance + light.square()
        return variance.sqrt()

    def _both_see(self, true: Tensor, focal_px: float) -> Tensor:
        """Pixels that both views see: not occluded by a nearer surface, and inside the image."""
        seen = torch.ones_like(true, dtype=torch.bool)
        strength = focal_px * self.baseline_m
        mirrored = self.shadow == "left"
        if self.shadow != "none":
            hidden = in_shadow(true.flip(-1), strength).flip(-1) if mirrored else in_shadow(true, strength)
            seen &= ~hidden
        if self.field_of_view_deg is not None:
            width = true.shape[-1]
            half = focal_px * math.tan(math.radians(self.field_of_view_deg) / 2)
            place = torch.arange(width, device=true.device, dtype=true.dtype) - (width - 1) / 2 + half
            place = place.expand_as(true)
            seen &= (place >= 0) & (place <= 2 * half)
            if self.shadow != "none":
                inside = place if mirrored else 2 * half - place
                seen &= inside >= strength / true.clamp_min(1e-3)
        return seen


def _normal_quantile(share: float) -> float:
    return float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
