"""Direct time of flight: each zone has a histogram of arrival times and reports its fullest bin.

Models the paper's data (section 4.1; DVSR eq. 1), SPAD arrays of phones and 8x8 zone sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws
from stdnet_core.data.sensors.reduction import cell_samples, samples_per_cell
from stdnet_core.data.sensors.view import Memory, View
from stdnet_core.errors import ConfigError

_GROUP = 32  # bins that are reduced together in the search for the fullest one
_HISTOGRAM_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}  # processed at a time; the CPU's value fits into its cache
_CROSSTALK_WIDTH = 3.0  # zones, on each axis, whose light leaks into one


@dataclass(frozen=True)
class Dtof:
    """A direct time-of-flight array.

    Attributes:
        range_m: depth of the last bin; None: the largest depth in the first frames that are measured together.
        bins: of the histogram; a reading is a multiple of ``range_m / (bins - 1)``.
        clip_beyond_range: light from beyond the range counts in the last bin (as in data whose depth is clipped)
            instead of being lost (as in a real sensor).
        jitter_bins: readings are shifted by an integer number of bins, uniform in +-``jitter_bins``.
        zone: width of a zone relative to the pitch; above 1, neighbouring zones overlap.
        crosstalk: share of the light of the surrounding 3x3 zones that leaks into each zone.
        photons: mean number per zone; with fewer, another peak wins more often. None: no shot noise.

    Raises:
        ConfigError: a value is out of range.
    """

    range_m: float | None = 20.0
    bins: int = 1024
    clip_beyond_range: bool = False
    jitter_bins: int = 0
    zone: float = 1.0
    crosstalk: float = 0.0
    photons: float | None = None

    def __post_init__(self) -> None:
        if self.range_m is not None and not self.range_m > 0:
            raise ConfigError(f"dtof range_m is {self.range_m}; it must be positive, or null for that of the clip")
        if self.bins < 2:
            raise ConfigError(f"dtof bins is {self.bins}; a histogram needs at least 2")
        if self.jitter_bins < 0 or self.jitter_bins != int(self.jitter_bins):
            raise ConfigError(f"dtof jitter_bins is {self.jitter_bins}; it must be a whole number, 0 or more")
        if not 0 < self.zone <= 3:
            raise ConfigError(f"dtof zone is {self.zone}; it must be above 0 and at most 3 pitches")
        if not 0 <= self.crosstalk <= 1:
            raise ConfigError(f"dtof crosstalk is {self.crosstalk}; it must be from 0 to 1")
        if self.photons is not None and not self.photons > 0:
            raise ConfigError(f"dtof photons is {self.photons}; it must be positive, or null for no shot noise")

    def measure(self, view: View, size: tuple[int, int], draws: Draws, memory: Memory) -> Tensor:
        """See :class:`stdnet_core.data.sensors.view.Measurement`."""
        range_m = self._range(view.depth, memory)
        depth, light = self._zones(view, size, self.zone)
        if self.crosstalk:
            leaked = self._zones(view, size, _CROSSTALK_WIDTH * self.zone)
            share = self.crosstalk * depth.shape[-1] / leaked[0].shape[-1]
            depth, light = torch.cat((depth, leaked[0]), -1), torch.cat((light, share * leaked[1]), -1)
        if self.photons is not None:
            samples = depth.shape[-1]
            noise = draws.normal("dtof photons", view.first, len(view), *depth.shape[1:])
            light = light * (1 + math.sqrt(samples / self.photons) * noise)
        bins = fullest_bins(depth / range_m, light, self.bins, self.clip_beyond_range)
        if self.jitter_bins:
            spread = 2 * int(self.jitter_bins) + 1
            offset = (draws.uniform("dtof jitter", view.first, len(view), *size) * spread).long() - int(
                self.jitter_bins
            )
            bins = torch.where(bins > 0, (bins + offset).clamp(1, self.bins - 1), bins)
        return bins * (range_m / (self.bins - 1))

    def _range(self, depth: Tensor, memory: Memory) -> float:
        if self.range_m is not None:
            return self.range_m
        if "dtof range" not in memory:
            largest = depth.amax()
            memory["dtof range"] = largest if largest > 0 else torch.ones_like(largest)
        return float(memory["dtof range"])

    @staticmethod
    def _zones(view: View, size: tuple[int, int], width: float) -> tuple[Tensor, Tensor]:
        """Depth and albedo of the pixels of each zone (T, h, w, samples)."""
        rows, columns = (
            cell_samples(length, cells, samples_per_cell(length, cells, width), width=width).to(view.depth.device)
            for length, cells in zip(view.depth.shape[-2:], size, strict=True)
        )
        window = (..., rows[:, None, :, None], columns[None, :, None, :])
        return view.depth[window].flatten(-2), view.albedo[window].flatten(-2)


def fullest_bins(depth: Tensor, albedo: Tensor, bins: int = 1024, clip_beyond_range: bool = False) -> Tensor:
    """Fullest histogram bin of each zone (DVSR eq. 1).

    A pixel of depth d (0..1 of the range) and albedo a adds a / (1e-3 + d^2) to bin round((bins - 1) d). Of equally
    full bins, the lowest wins; a zone that returns no light reports 0.

    Args:
        depth: (..., samples) as a fraction of the range, 0 invalid.
        albedo: (..., samples) in any unit.
        bins: number of bins.
        clip_beyond_range: count depth beyond the range in the last bin instead of not at all.

    Returns:
        (...) int64, 0 to bins - 1.
    """
    samples = depth.shape[-1]
    zones, lights = depth.reshape(-1, samples), albedo.reshape(-1, samples)
    # At least one slot more than bins, for depth beyond the range; whole groups, for the search for the maximum.
    slots = (bins // _GROUP + 1) * _GROUP
    budget = _HISTOGRAM_BYTES.get(depth.device.type, _HISTOGRAM_BYTES["cpu"])
    step = max(1, budget // (4 * slots))
    first_slot = torch.arange(min(step, len(zones)), device=depth.device).mul_(slots)[:, None]
    fullest = []
    for start in range(0, len(zones), step):
        part = zones[start : start + step]
        # Pixels without depth return no light.
        light = part.sign() * lights[start : start + step] / torch.addcmul(part.new_tensor(1e-3), part, part)
        slot = (part * (bins - 1)).round_().clamp_(max=bins - 1 if clip_beyond_range else bins).long()
        histogram = part.new_zeros(len(part) * slots)
        histogram.scatter_add_(0, (slot + first_slot[: len(part)]).view(-1), light.view(-1))
        fullest.append(_fullest(histogram.view(-1, slots), bins))
    return torch.cat(fullest).view(depth.shape[:-1])


def _fullest(histogram: Tensor, bins: int) -> Tensor:
    """Index of the first largest value in each row (N, slots); slots from ``bins`` on are ignored.

    Takes two steps, because the maximum of many values is much faster to find than its index."""
    histogram[:, bins:] = 0
    groups = histogram.view(histogram.shape[0], -1, _GROUP)
    group = groups.amax(2).argmax(1, keepdim=True)
    within = groups.gather(1, group.unsqueeze(2).expand(-1, 1, _GROUP)).squeeze(1).argmax(1)
    return group.squeeze(1) * _GROUP + within
