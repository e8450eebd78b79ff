"""Patterns of missing readings in real depth sensors, which depend on the scene.

They add to independent dropout, which is easy for every network. The important holes for a robot are where depth is
needed most: at edges, in the occlusion shadow beside a foreground object and on dark surfaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from stdnet_core.data.sensors.draws import Draws
from stdnet_core.data.sensors.view import smooth_field
from stdnet_core.errors import ConfigError

_KNOT_FRAMES = 8
_EDGE_STEP = 0.05  # smallest relative step of inverse depth that is an edge


@dataclass(frozen=True)
class Holes:
    """The patterns of holes of a sensor.

    Attributes:
        edges: probability of losing a reading beside a depth edge.
        shadow: strength of the occlusion shadow beside near objects, in low-resolution pixels times metres (focal
            length in low-resolution pixels times the baseline): stereo and structured light cannot measure what one
            of their two views does not see. 0: none.
        dark: mean colour (0..1) below which a surface reflects too little light.
        blobs: share of the frame covered by smooth, slowly drifting holes (reflections, sunlight).
        row_step, column_step: only every n-th row and column measures (scan lines, projected dots).
        min_m, max_m: readings outside are lost.

    Raises:
        ConfigError: a value is out of range.
    """

    edges: float = 0.0
    shadow: float = 0.0
    dark: float = 0.0
    blobs: float = 0.0
    row_step: int = 1
    column_step: int = 1
    min_m: float = 0.0
    max_m: float = float("inf")

    def __post_init__(self) -> None:
        for name in ("edges", "dark", "blobs"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"holes.{name} is {getattr(self, name)}; it must be in 0 to 1")
        if self.shadow < 0:
            raise ConfigError(f"holes.shadow is {self.shadow}; it must be 0 or more")
        if self.row_step < 1 or self.column_step < 1:
            raise ConfigError("holes.row_step and holes.column_step must be 1 or more")
        if not 0 <= self.min_m < self.max_m:
            raise ConfigError(f"holes: min_m {self.min_m} must be 0 or more and below max_m {self.max_m}")

    @classmethod
    def preset(cls, name: str) -> Holes:
        """The holes of a kind of sensor: ``structured_light``, ``stereo``, ``dtof`` or ``lidar``.

        Raises:
            ConfigError: there is no such preset.
        """
        if name not in _PRESETS:
            raise ConfigError(f"holes {name!r} is unknown; use one of {', '.join(_PRESETS)}")
        return _PRESETS[name]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Holes:
        """Build from plain values.

        Raises:
            ConfigError: a name or value is unknown or out of range.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(
                f"holes has no option {', '.join(unknown)}; it has {', '.join(f.name for f in fields(cls))}"
            )
        return cls(**values)


_PRESETS = {
    "structured_light": Holes(edges=0.5, shadow=5.0, dark=0.04, blobs=0.03, min_m=0.4, max_m=8.0),
    "stereo": Holes(edges=0.3, shadow=3.0, blobs=0.08, min_m=0.3, max_m=15.0),
    "dtof": Holes(edges=0.05, dark=0.02, blobs=0.01),
    "lidar": Holes(edges=0.1, dark=0.01, row_step=4),
}


def punch_holes(
    depth: Tensor, true_depth: Tensor, albedo: Tensor | None, holes: Holes, draws: Draws, first: int = 0
) -> Tensor:
    """Remove readings from measured depth.

    Args:
        depth: (T, h, w) metres, 0 invalid.
        true_depth: (T, h, w) metres, 0 unknown; without measurement errors, used to find edges and shadows.
        albedo: (T, h, w) mean colour, 0..1, or None.
        holes: which patterns.
        draws: source of random numbers.
        first: number of the first frame in its clip.

    Returns:
        (T, h, w) metres, 0 invalid.
    """
    count, *size = depth.shape
    kept = (depth >= holes.min_m) & (depth <= holes.max_m)
    if holes.edges > 0:
        kept &= ~(beside_edge(true_depth) & (draws.uniform("holes edges", first, count, *size) < holes.edges))
    if holes.shadow > 0:
        kept &= ~in_shadow(true_depth, holes.shadow)
    if holes.dark > 0 and albedo is not None:
        kept &= albedo >= holes.dark
    if holes.blobs > 0:
        field = _drifting_field(first, count, (size[0], size[1]), draws)
        threshold = field.flatten(1).quantile(holes.blobs, dim=1)
        kept &= field >= threshold.view(-1, 1, 1)
    if holes.row_step > 1 or holes.column_step > 1:
        pattern = torch.zeros(depth.shape[-2:], dtype=torch.bool, device=depth.device)
        pattern[holes.row_step // 2 :: holes.row_step, holes.column_step // 2 :: holes.column_step] = True
        kept &= pattern
    return depth * kept


def beside_edge(depth: Tensor) -> Tensor:
    """Pixels with a step of depth (..., h, w) to a neighbour in the row or column; holes make no edge.

    A plane is not an edge, however steep: inverse depth is linear on it, so the second difference tells them apart."""
    inverse = torch.where(depth > 0, 1 / depth, depth.new_tensor(torch.nan))
    edge = torch.zeros_like(depth, dtype=torch.bool)
    for axis in (-2, -1):
        length = depth.shape[axis]
        if length < 3:
            continue
        middle = inverse.narrow(axis, 1, length - 2)
        bend = inverse.narrow(axis, 0, length - 2) + inverse.narrow(axis, 2, length - 2) - 2 * middle
        edge.narrow(axis, 1, length - 2).logical_or_(bend.abs() > _EDGE_STEP * middle)  # false for NaN
    return edge


def in_shadow(depth: Tensor, strength: float) -> Tensor:
    """Where a second view from the left of the sensor is blocked by a nearer surface.

    In that view, a point at column x and depth z appears at x + strength / z. It is hidden if a nearer point further
    left appears at the same position or beyond.

    Args:
        depth: (..., h, w) metres, 0 invalid.
        strength: focal length in pixels of this grid times baseline in metres.
    """
    columns = torch.arange(depth.shape[-1], device=depth.device, dtype=depth.dtype)
    place = columns + strength / depth
    place = place.where(depth > 0, place.new_tensor(-torch.inf))
    furthest = place.cummax(-1).values
    hidden = torch.zeros_like(depth, dtype=torch.bool)
    hidden[..., 1:] = place[..., 1:] <= furthest[..., :-1]
    return hidden & (depth > 0)


def _drifting_field(first: int, count: int, size: tuple[int, int], draws: Draws) -> Tensor:
    """Smooth random values (T, h, w) that change slowly over time: drawn every few frames and interpolated between."""
    knots = {
        number: draws.clip_normal(f"holes blobs {number}", 2 + size[0] // 8, 2 + size[1] // 8)
        for number in range(first // _KNOT_FRAMES, (first + count - 1) // _KNOT_FRAMES + 2)
    }
    frames = []
    for frame in range(first, first + count):
        number, share = frame // _KNOT_FRAMES, frame % _KNOT_FRAMES / _KNOT_FRAMES
        frames.append((1 - share) * knots[number] + share * knots[number + 1])
    return smooth_field(torch.stack(frames), size)
