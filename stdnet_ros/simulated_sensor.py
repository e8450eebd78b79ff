"""Chooses the low-resolution sensor to simulate for a recording that has only full-resolution depth."""

from __future__ import annotations

import numpy as np

from stdnet_core.data.sensors import Sensor, sensor

RANGES = (5.0, 10.0, 20.0, 40.0, 80.0)
"""Depth ranges of time-of-flight sensors, in metres; the smallest one that covers the scene is chosen."""


def range_for(depth: np.ndarray) -> float:
    """Smallest range in metres that covers the depth of a frame (any shape, metres, 0 or NaN invalid)."""
    known = depth[np.isfinite(depth) & (depth > 0)]
    far = float(np.quantile(known, 0.999)) if known.size else RANGES[2]
    return next((r for r in RANGES if r >= far), RANGES[-1])


def sensor_for(depth: np.ndarray) -> Sensor:
    """A time-of-flight sensor whose range covers the depth of a frame."""
    return sensor("dtof_paper").with_values({"dtof.range_m": range_for(depth), "dtof.clip_beyond_range": False})
