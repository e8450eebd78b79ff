"""Low-resolution depth by the paper's protocol: its source, the range of its sensor and the clipping of ground truth.
Evaluation, export and ``make_lr`` share it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stdnet_core.data import dydtof, tartanair
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors import DepthCamera, Sensor, sensor
from stdnet_core.data.sensors.dtof import Dtof

_RANGE_PROBES = 16  # frames whose largest depth becomes the range of the simulated sensor
PROTOCOL_RANGES = {"tartanair": tartanair.DEPTH_RANGE_M, "dydtof": dydtof.DEPTH_RANGE_M}
"""Depth ranges of the paper in metres, by kind of source."""
PROTOCOL_CLIPS = {"dydtof": dydtof.DEPTH_RANGE_M}
"""Metres to which the paper clips ground-truth depth, by kind of source; that of other kinds is not clipped."""
TEST_SOURCE = "synthetic:2000001,4,240x320,24"
"""Default of ``--data``: rendered scenes with seeds that no training or validation of this project uses."""


@dataclass(frozen=True)
class LowResolution:
    """Where low-resolution depth comes from.

    Attributes:
        scale: of the upsampling.
        simulated: simulate it from the ground truth; otherwise it is the source's own.
        sensor: the simulated sensor; a direct time-of-flight one without a range gets the data set's
            (:func:`sensor_range`).
        seed: of the simulation's random numbers.
    """

    scale: float
    simulated: bool = True
    sensor: Sensor = field(default_factory=lambda: sensor("dtof_paper"))
    seed: int = 0


def sensor_range(sequence: RgbdSequence, kind: str = "", frames: int | None = None) -> float:
    """Depth range in metres of the sensor that is simulated for a sequence.

    For the paper's data sets, it is the paper's normaliser; otherwise, the largest depth in 16 frames spread over the
    first ``frames`` (default: all).

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
    """The simulated camera, ready for the sequence's first frame.

    Args:
        range_m: for a direct time-of-flight sensor without a range.
    """
    chosen = low_resolution.sensor
    if isinstance(chosen.measurement, Dtof) and chosen.measurement.range_m is None:
        chosen = chosen.with_values({"dtof.range_m": range_m})
    focal_px = None if sequence.intrinsics is None else float(sequence.intrinsics[0, 0])
    return DepthCamera(chosen, sequence.frame_size, low_resolution.scale, focal_px=focal_px, seed=low_resolution.seed)
