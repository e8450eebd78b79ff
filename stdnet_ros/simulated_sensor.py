"""Which low-resolution sensor to simulate for a recording that has only full-resolution depth."""

from __future__ import annotations

import numpy as np

from stdnet_core.data.degradation import DegradationConfig

RANGES = (5.0, 10.0, 20.0, 40.0, 80.0)
"""Depth ranges of time-of-flight sensors in metres, of which the smallest that covers the scene is taken."""


def sensor_for(depth: np.ndarray) -> DegradationConfig:
    """A time-of-flight sensor whose range covers a frame's depth (any shape, metres, 0 or NaN invalid)."""
    known = depth[np.isfinite(depth) & (depth > 0)]
    far = float(np.quantile(known, 0.999)) if known.size else RANGES[2]
    return DegradationConfig(method="dtof", range_m=next((r for r in RANGES if r >= far), RANGES[-1]))
