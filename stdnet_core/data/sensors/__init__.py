"""Simulated depth cameras: true depth and colour in, what a camera would have measured out.

>>> import torch
>>> depth, rgb = torch.full((2, 1, 48, 64), 2.0), torch.rand(2, 3, 48, 64)
>>> simulate(sensor("realsense_d435"), depth, rgb, ratio=2).shape
torch.Size([2, 1, 24, 32])

One module a family (:mod:`.stereo`, :mod:`.phase_tof`, :mod:`.dtof`, :mod:`.phone_lidar`, :mod:`.reduction`), one for
what lies between depth and colour (:mod:`.alignment`), two for faults of any sensor (:mod:`.holes`, :mod:`.faults`),
and the cameras by name (:mod:`.presets`). Noise is new in every frame, errors of calibration stay for the clip."""

from stdnet_core.data.sensors.camera import DepthCamera, Sensor, delivered_size, simulate
from stdnet_core.data.sensors.presets import PRESETS, Preset, preset, sensor

__all__ = ["PRESETS", "DepthCamera", "Preset", "Sensor", "delivered_size", "preset", "sensor", "simulate"]
