"""A simulated depth camera: how it measures, how its depth is aligned with colour, and its faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.sensors.alignment import Alignment
from stdnet_core.data.sensors.draws import Draws
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.data.sensors.faults import Faults
from stdnet_core.data.sensors.holes import Holes, punch_holes
from stdnet_core.data.sensors.phase_tof import PhaseTof
from stdnet_core.data.sensors.phone_lidar import PhoneLidar
from stdnet_core.data.sensors.reduction import Reduction, reduce_depth, reduce_image
from stdnet_core.data.sensors.stereo import Stereo
from stdnet_core.data.sensors.view import DEFAULT_FOCAL, Measurement, Memory, View
from stdnet_core.errors import ConfigError, InputError

FAMILIES: dict[str, type] = {
    "reduction": Reduction,
    "dtof": Dtof,
    "stereo": Stereo,
    "phase_tof": PhaseTof,
    "phone_lidar": PhoneLidar,
}
"""Measurement principles by their names in configurations."""


@dataclass(frozen=True)
class Sensor:
    """A depth camera.

    Attributes:
        measurement: one of :data:`FAMILIES`.
        alignment: of its depth with colour.
        holes: patterns of missing readings in addition to those of the measurement itself.
        faults: of single readings.
    """

    measurement: Measurement = field(default_factory=Dtof)
    alignment: Alignment = field(default_factory=Alignment)
    holes: Holes | None = None
    faults: Faults = field(default_factory=Faults)

    @property
    def family(self) -> str:
        """Name of its measurement principle."""
        return next(name for name, kind in FAMILIES.items() if type(self.measurement) is kind)

    @property
    def max_m(self) -> float:
        """Depth in metres beyond which it measures nothing; infinite without a limit."""
        limits = [getattr(self.measurement, name, None) for name in ("max_m", "range_m", "ambiguity_m")]
        if isinstance(self.measurement, Dtof) and self.measurement.clip_beyond_range:
            limits = []
        return min((limit for limit in limits if limit is not None), default=float("inf"))

    def describe(self) -> str:
        """Its measurement principle, and every parameter that differs from the default."""
        parts: dict[str, Any] = {self.family: self.measurement, "alignment": self.alignment, "faults": self.faults}
        if self.holes is not None:
            parts["holes"] = self.holes
        words = []
        for name, part in parts.items():
            values = ((f.name, getattr(part, f.name), f.default) for f in fields(part))
            changed = [
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value, usual in values
                if value != usual and not dataclasses.is_dataclass(value)
            ]
            if changed:
                words.append(f"{name}: {', '.join(changed)}")
            elif part is self.measurement:
                words.append(name)
        return "; ".join(words)

    def with_values(self, values: Mapping[str, Any]) -> Sensor:
        """The sensor with some values changed. Their names are ``part.field``, where the part is a family (ignored if
        the sensor is of another), ``alignment`` or ``faults``; ``holes`` takes the name of a preset of :class:`Holes`.

        Raises:
            ConfigError: a name or value is unknown or out of range.
        """
        changes: dict[str, dict[str, Any]] = {}
        holes = self.holes
        for name, value in values.items():
            if name == "holes":
                holes = Holes.preset(value) if isinstance(value, str) else value
                continue
            check_value_name(name)
            part, _, attribute = name.partition(".")
            changes.setdefault(part, {})[attribute] = value
        parts: dict[str, Any] = {"holes": holes}
        for attribute, part in (("measurement", self.family), ("alignment", "alignment"), ("faults", "faults")):
            if part in changes:
                parts[attribute] = dataclasses.replace(getattr(self, attribute), **changes[part])
        return dataclasses.replace(self, **parts)


def check_value_name(name: str) -> None:
    """Check a name for :meth:`Sensor.with_values`.

    Raises:
        ConfigError: there is no such part, or it has no such field.
    """
    parts = {**FAMILIES, "alignment": Alignment, "faults": Faults}
    part, _, attribute = name.partition(".")
    if part not in parts:
        raise ConfigError(f"sensor value {name!r}: there is no part {part!r}; parts are {', '.join(parts)}")
    known = [f.name for f in fields(parts[part])]
    if attribute not in known:
        raise ConfigError(f"sensor value {name!r}: {part} has no {attribute!r}; it has {', '.join(known)}")


def delivered_size(frame_size: tuple[int, int], ratio: float) -> tuple[int, int]:
    """(h, w) of the depth of a camera whose pixels are ``ratio`` colour pixels wide.

    It is rounded up for integer ratios, so the last cell of an axis may be partial; else to the nearest integer."""
    if ratio == int(ratio):
        rows, columns = (-(-length // int(ratio)) for length in frame_size)
    else:
        rows, columns = (max(1, round(length / ratio)) for length in frame_size)
    return rows, columns


class DepthCamera:
    """Measures a clip, frame by frame or several frames at a time, with the same result.

    Args:
        sensor: the simulated sensor.
        frame_size: (H, W) of colour.
        ratio: colour pixels per delivered depth pixel on each axis; 1 or more, integer or not.
        focal_px: focal length of colour in pixels; None: 0.8 times its width.
        seed: of all random numbers.
        device: of the frames.

    Attributes:
        size: (h, w) of the delivered depth, see :func:`delivered_size`.

    Raises:
        InputError: a ratio below 1.
    """

    def __init__(
        self,
        sensor: Sensor,
        frame_size: tuple[int, int],
        ratio: float,
        *,
        focal_px: float | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not ratio >= 1:
            raise InputError(f"the ratio of a depth camera is {ratio}; it must be 1 or more")
        self.sensor = sensor
        self.frame_size = frame_size
        self.size = delivered_size(frame_size, ratio)
        whole = int(ratio) if ratio == int(ratio) else 0
        self._padding = tuple(h * whole - H if whole else 0 for h, H in zip(self.size, frame_size, strict=True))
        self._focal_px = focal_px or DEFAULT_FOCAL * frame_size[1]
        self._draws = Draws(seed, device)
        self._memory: Memory = {}
        self._frames = 0

    def measure(self, depth: Tensor, rgb: Tensor | None = None) -> Tensor:
        """Measure the next frames of the clip.

        Args:
            depth: (T, 1, H, W) ground truth in metres; 0, NaN and infinite are unknown and give no measurement.
            rgb: (T, 3, H, W), 0..1; None: texture and reflectance have no effect.

        Returns:
            (T, 1, h, w) metres, 0 invalid.

        Raises:
            InputError: the shapes do not match.
        """
        if depth.ndim != 4 or depth.shape[1:] != (1, *self.frame_size):
            raise InputError(f"depth to measure has shape {tuple(depth.shape)}, expected (T, 1, *{self.frame_size})")
        if rgb is not None and rgb.shape != (len(depth), 3, *self.frame_size):
            raise InputError(f"rgb of shape {tuple(rgb.shape)} does not fit depth of shape {tuple(depth.shape)}")
        true = torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)[:, 0]
        true = self.sensor.alignment.apply(true, rgb, self._draws, self._memory)
        view = View(self._padded(true), None if rgb is None else self._padded(rgb), self._focal_px, self._frames)
        low = self.sensor.measurement.measure(view, self.size, self._draws, self._memory)
        if self.sensor.holes is not None:
            seen = reduce_depth(view.depth, self.size, "nearest")
            albedo = None if rgb is None else reduce_image(view.albedo, self.size)
            low = punch_holes(low, seen, albedo, self.sensor.holes, self._draws, self._frames)
        low = self.sensor.faults.apply(low, self._draws, self._frames)
        self._frames += len(depth)
        return low[:, None]

    def _padded(self, image: Tensor) -> Tensor:
        """The image, extended on the right and below by replication if the last cells are partial."""
        below, right = self._padding
        if not below and not right:
            return image
        if image.ndim == 4:
            return F.pad(image, (0, right, 0, below), mode="replicate")
        return F.pad(image[:, None], (0, right, 0, below), mode="replicate")[:, 0]


def simulate(
    sensor: Sensor,
    depth: Tensor,
    rgb: Tensor | None,
    ratio: float,
    *,
    focal_px: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Measure one clip at once; see :class:`DepthCamera`.

    Args:
        depth: (T, 1, H, W) metres, 0 unknown.
        rgb: (T, 3, H, W), 0..1, or None.

    Returns:
        (T, 1, h, w) metres, 0 invalid.
    """
    if depth.ndim != 4:
        raise InputError(f"depth to measure has shape {tuple(depth.shape)}, expected (T, 1, H, W)")
    height, width = depth.shape[-2:]
    camera = DepthCamera(sensor, (height, width), ratio, focal_px=focal_px, seed=seed, device=depth.device)
    return camera.measure(depth, rgb)
