"""Simulated depth cameras: what a depth camera would measure, given ground-truth depth and colour.

Examples:
    >>> import torch
    >>> depth, rgb = torch.full((2, 1, 48, 64), 2.0), torch.rand(2, 3, 48, 64)
    >>> simulate(sensor("realsense_d435"), depth, rgb, ratio=2).shape
    torch.Size([2, 1, 24, 32])

There is one module for each family (:mod:`.stereo`, :mod:`.phase_tof`, :mod:`.dtof`, :mod:`.phone_lidar`,
:mod:`.reduction`), one for the alignment of depth and colour (:mod:`.alignment`), two for faults of any sensor
(:mod:`.holes`, :mod:`.faults`), and one with cameras by name (:mod:`.presets`). Noise is drawn anew for every frame,
calibration errors once per clip."""

from stdnet_core.data.sensors.camera import DepthCamera, Sensor, delivered_size, simulate
from stdnet_core.data.sensors.presets import PRESETS, Preset, preset, sensor

__all__ = ["PRESETS", "DepthCamera", "Preset", "Sensor", "delivered_size", "preset", "sensor", "simulate"]
