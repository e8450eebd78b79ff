"""The network's uses of low-resolution depth: on the working grid, as features, and as the base of the output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from stdnet_core.errors import InputError

WORKING_STRIDE = 4
"""Image pixels per pixel of the working grid, which all features have."""

PAPER_SCALES = (4, 8, 16)
"""The paper's factors, preferred if the sizes of small images allow several."""

_PRIOR_FLOOR = 0.03
_SPREAD_FLOOR = 0.002


def infer_scale(height: int, width: int, low_height: int, low_width: int) -> int:
    """Upsampling factor between two sizes, which need not be multiples of it.

    Raises:
        InputError: no multiple of 4 relates the two sizes.
    """

    def fits(size: int, low: int, scale: int) -> bool:
        return low in (size // scale, -(-size // scale))

    ratio = max(height / max(low_height, 1), width / max(low_width, 1))
    candidates = range(WORKING_STRIDE, WORKING_STRIDE * (int(ratio) // WORKING_STRIDE + 2), WORKING_STRIDE)
    fitting = [s for s in candidates if fits(height, low_height, s) and fits(width, low_width, s)]
    if not fitting:
        raise InputError(
            f"colour of {width}x{height} and depth of {low_width}x{low_height} are not related by a factor that is a "
            "multiple of 4; resample the depth first (DepthUpsampler does)"
        )
    return min(fitting, key=lambda s: (s not in PAPER_SCALES, abs(s - ratio)))


@dataclass(frozen=True)
class LowResolutionDepth:
    """Normalised low-resolution depth of N frames, and the values derived from it.

    Attributes:
        depth: (N, 1, h, w), depth / depth_range, without holes.
        scale: s, a multiple of 4.
        rgb: (N, 3, s h, s w), 0..1; only :meth:`color_distance` needs it.
    """

    depth: Tensor
    scale: int
    rgb: Tensor | None = None

    @property
    def _replication(self) -> int:
        return self.scale // WORKING_STRIDE

    def _to_working_grid(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self._replication, -2).repeat_interleave(self._replication, -1)

    @cached_property
    def working(self) -> Tensor:
        """D (N, 1, H/4, W/4): nearest replication to the working grid."""
        return self._to_working_grid(self.depth)

    @cached_property
    def neighborhood(self) -> Tensor:
        """(N, 9, h, w): the 3x3 depths around each low-resolution pixel, row by row, replicated at the border."""
        return _neighborhood(self.depth).flatten(1, 2)

    def _to_columns(self, x: Tensor) -> Tensor:
        """(..., h, w) -> (..., h, 1, s w): replicate along the columns, to broadcast with images reshaped to
        (..., h, s, s w). Operations on whole rows are several times as fast as on cells of s pixels."""
        return x.repeat_interleave(self.scale, -1).unsqueeze(-2)

    @cached_property
    def color_distance(self) -> Tensor:
        """(N, 9, h, s, s w): squared distance of each pixel's colour to the mean colours of the 3x3 cells around it."""
        assert self.rgb is not None
        cells = self._to_columns(_neighborhood(F.avg_pool2d(self.rgb, self.scale))).unbind(2)
        pixels = self.rgb.unflatten(-2, (-1, self.scale)).unsqueeze(2).unbind(1)
        distance = sum(c.square() for c in cells) + sum(p.square() for p in pixels)
        for cell, pixel in zip(cells, pixels, strict=True):
            distance = torch.addcmul(distance, cell, pixel, value=-2)
        return distance

    @cached_property
    def spread(self) -> Tensor:
        """(N, 1, h, w): difference between the largest and the smallest of the 3x3 depths."""
        return self.neighborhood.amax(1, keepdim=True) - self.neighborhood.amin(1, keepdim=True)

    def features(self, kind: str) -> Tensor:
        """Input of the depth encoder on the working grid: (N, 1, ...) for "depth", (N, 5, ...) for "local"."""
        if kind == "depth":
            return self.working
        contrast = (self.depth - self.neighborhood.mean(1, keepdim=True)) / (self.spread + 0.005 * self.depth + 1e-4)
        relative_spread = self.spread / (self.depth + 1e-3)
        local = self._to_working_grid(torch.cat((self.depth, contrast, relative_spread.clamp(max=4.0)), 1))
        n, _, height, width = local.shape
        phase = (torch.arange(self._replication, device=local.device, dtype=local.dtype) + 0.5) / (
            self._replication
        ) - 0.5
        rows = phase.repeat(height // self._replication).view(1, 1, -1, 1).expand(n, 1, height, width)
        columns = phase.repeat(width // self._replication).view(1, 1, 1, -1).expand(n, 1, height, width)
        return torch.cat((local, rows, columns), 1)

    def bilinear_base(self) -> Tensor:
        """(N, 1, H, W): bilinear x4 of D (the paper's base)."""
        size = tuple(WORKING_STRIDE * n for n in self.working.shape[-2:])
        return F.interpolate(self.working, size=size, mode="bilinear", align_corners=False)

    def kernel_base(self, logits: Tensor, guidance: Tensor) -> Tensor:
        """Weighted mean of the 3x3 low-resolution depths around each pixel.

        The initial weights are those of a joint bilateral filter (Kopf et al. 2007): bilinear weights plus a constant,
        so that all nine contribute, times a Gaussian of the colour distance.

        Args:
            logits: (N, 9, H, W), added to the logarithm of the filter's weights.
            guidance: (N, 1, H, W) >= 0, strength of the colour term: 1 / (2 sigma^2) of its Gaussian.

        Returns:
            (N, 1, H, W).
        """
        s = self.scale
        n, _, height, width = logits.shape
        position = (torch.arange(s, device=logits.device, dtype=logits.dtype) + 0.5) / s - 0.5
        axis = torch.stack(((-position).clamp(min=0), 1 - position.abs(), position.clamp(min=0)))  # (3, s)
        prior = torch.log((axis[:, None, :, None] * axis[None, :, None, :]).view(9, 1, s, s) + _PRIOR_FLOOR)
        cells = logits.reshape(n, 9, height // s, s, width) + prior.repeat(1, 1, 1, width // s)
        strength = guidance.reshape(n, 1, height // s, s, width)
        weights = torch.softmax(torch.addcmul(cells, strength, self.color_distance, value=-1), 1)
        base = (weights * self._to_columns(self.neighborhood)).sum(1, keepdim=True)
        return base.view(n, 1, height, width)

    def residual_unit(self) -> Tensor:
        """(N, 1, H, W): depth that a residual of 1 stands for: the local spread plus a small share of the depth. A
        residual that is not quite 0 is therefore not visible where depth is flat."""
        unit = self.spread + _SPREAD_FLOOR * self.depth
        return unit.repeat_interleave(self.scale, -2).repeat_interleave(self.scale, -1)


def _neighborhood(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, 9, C, h, w): the 3x3 values around each pixel, row by row, replicated at the border."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return torch.stack([padded[..., r : r + height, c : c + width] for r in range(3) for c in range(3)], 1)
