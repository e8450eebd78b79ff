"""Low-resolution depth as the paper makes it: where it comes from, what range its sensor has, and which true depth is
clipped. Evaluation, export and ``make_lr`` share it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stdnet_core.data import dydtof, tartanair
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors import DepthCamera, Sensor, sensor
from stdnet_core.data.sensors.dtof import Dtof

_RANGE_PROBES = 16  # frames whose largest depth decides the range of the simulated sensor
PROTOCOL_RANGES = {"tartanair": tartanair.DEPTH_RANGE_M, "dydtof": dydtof.DEPTH_RANGE_M}
"""Depth ranges of the paper in metres, by kind of source."""
PROTOCOL_CLIPS = {"dydtof": dydtof.DEPTH_RANGE_M}
"""Metres that the paper clips true depth to, by kind of source; it leaves that of others as it is."""
TEST_SOURCE = "synthetic:2000001,4,240x320,24"
"""Evaluated without ``--data``: rendered scenes whose seeds no training or validation of this project uses."""


@dataclass(frozen=True)
class LowResolution:
    """Where low-resolution depth comes from.

    Attributes:
        scale: of the upsampling.
        simulated: simulate it from the true depth; otherwise it is the source's own.
        sensor: that is simulated; a direct time-of-flight one without a range takes the data set's
            (:func:`sensor_range`).
        seed: of what is random in the simulation.
    """

    scale: float
    simulated: bool = True
    sensor: Sensor = field(default_factory=lambda: sensor("dtof_paper"))
    seed: int = 0


def sensor_range(sequence: RgbdSequence, kind: str = "", frames: int | None = None) -> float:
    """Depth range in metres of the sensor that is simulated for a sequence.

    The normaliser of the paper for its data sets; otherwise the largest depth of 16 frames spread over the first
    ``frames`` (default: all).

    Args:
        kind: of the source, e.g. ``tartanair``.
    """
    if kind in PROTOCOL_RANGES:
        return PROTOCOL_RANGES[kind]
    count = min(frames or len(sequence), len(sequence))
    probes = np.unique(np.linspace(0, count - 1, min(_RANGE_PROBES, count)).round().astype(int))
    clips = (sequence.clip(int(i), 1) for i in probes)
    largest = max(float((clip.depth * clip.valid).max()) for clip in clips)
    return largest or 1.0


def simulated_camera(sequence: RgbdSequence, low_resolution: LowResolution, range_m: float) -> DepthCamera:
    """The camera that is simulated, at the sequence's first frame.

    Args:
        range_m: of a direct time-of-flight sensor that has none of its own.
    """
    chosen = low_resolution.sensor
    if isinstance(chosen.measurement, Dtof) and chosen.measurement.range_m is None:
        chosen = chosen.with_values({"dtof.range_m": range_m})
    focal_px = None if sequence.intrinsics is None else float(sequence.intrinsics[0, 0])
    return DepthCamera(chosen, sequence.frame_size, low_resolution.scale, focal_px=focal_px, seed=low_resolution.seed)
