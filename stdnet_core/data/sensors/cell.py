"""The cells of the accuracy matrix: depth cameras at ratios.

The same cells are used by ``python -m stdnet_core.accuracy`` and by the validation of a training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stdnet_core.data.sensors.camera import Sensor
from stdnet_core.data.sensors.presets import preset
from stdnet_core.errors import ConfigError

SPLIT_BELOW = 4
"""Ratio below which depth is fine: measured pixels and holes are separate, in the figures and in the loss."""
REDUCING = ("reduction", "dtof")
"""Camera families that can be simulated on a recording, whose depth has its own errors."""
_COVERED = 0.95  # share of a scene's pixels that a camera's range is to cover


@dataclass(frozen=True, order=True)
class Cell:
    """A camera at a ratio.

    Attributes:
        camera: name of a preset.
        ratio: colour pixels in a depth pixel on each axis.
    """

    camera: str
    ratio: float

    def __post_init__(self) -> None:
        preset(self.camera)
        if not self.ratio >= 1:
            raise ConfigError(f"{self}: the ratio must be 1 or more")
        if self.ratio == int(self.ratio):
            object.__setattr__(self, "ratio", int(self.ratio))

    def __str__(self) -> str:
        return f"{self.camera}@{self.ratio:g}"

    @property
    def sensor(self) -> Sensor:
        """The camera."""
        return preset(self.camera).sensor

    @classmethod
    def parse(cls, text: str) -> Cell:
        """``NAME@RATIO``, or only a name for the camera's usual ratio.

        Raises:
            ConfigError: no such camera, or no such ratio.
        """
        name, separator, ratio = text.partition("@")
        try:
            return cls(name, float(ratio) if separator else preset(name).ratio)
        except ValueError:
            raise ConfigError(f"cell {text!r}: {ratio!r} is not a ratio; write e.g. {name}@8") from None


def _cells(*texts: str) -> tuple[Cell, ...]:
    return tuple(Cell.parse(text) for text in texts)


JUDGED = _cells(
    "exact@1",
    "noisy@1",
    "realsense_d435@1",
    "oakd@1",
    "kinect_azure@1",
    "realsense_d435@1.5",
    "realsense_d435@2",
    "nearest_corner@2",
    "realsense_d435@3",
    "dtof_paper@4",
    "nearest_corner@4",
    "area@4",
    "median@4",
    "bilinear@4",
    "bicubic@4",
    "realsense_d435@4",
    "kinect_azure@4",
    "iphone_lidar@7.5",
    "dtof_paper@8",
    "dtof_jitter@8",
    "nearest_any@8",
    "area@8",
    "median@8",
    "min@8",
    "bilinear@8",
    "bicubic@8",
    "misaligned@8",
    "dtof_paper@16",
    "nearest_corner@16",
    "area@16",
    "median@16",
    "bicubic@16",
    "vl53_8x8",
)
"""The cells that are measured by default."""

STANDING = _cells(
    "noisy@1", "realsense_d435@1", "kinect_azure@1", "realsense_d435@4", "kinect_azure@4", "dtof_jitter@8"
)
"""Cameras with new noise in every frame, used to measure what a static camera gains from history."""


def scene_gain(depth: Tensor, sensor: Sensor) -> float:
    """Factor that scales a scene into a camera's range: 95 % of the pixels are then within it. At most 1.

    A rendered or procedural scene has no fixed size. A recording has one, so it must not be scaled.

    Args:
        depth: of some frames of the scene, metres, 0 unknown.
    """
    known = depth[depth > 0]
    if not known.numel() or sensor.max_m == float("inf"):
        return 1.0
    far = float(torch.quantile(known[:: max(1, known.numel() // 100_000)], _COVERED))
    return min(1.0, sensor.max_m / far)
