"""Variations of the camera presets for training, so that a network does not overfit to one unit.

Errors of real stereo depth are correlated over wider areas than block matching explains. Differences between frames of
a static D435 have a correlation of 0.57 over 8 pixels and of 0.19 over 16. A matching window of 9 pixels gives 0.06 and
0.01; the rest comes from post-processing in the camera and the driver. Therefore noise is simulated over areas of up to
40 pixels, and some images are smoothed in addition. Real stereo outlines also waver, which no preset simulates."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from stdnet_core.data.sensors.camera import Sensor
from stdnet_core.data.sensors.cell import REDUCING, SPLIT_BELOW
from stdnet_core.data.sensors.phase_tof import PhaseTof
from stdnet_core.data.sensors.phone_lidar import PhoneLidar
from stdnet_core.data.sensors.stereo import Stereo

_UNIT_M = 0.001
_ROUNDED = 0.5  # share of faultless reductions that come in whole millimetres
_SMOOTH = 0.5  # share of stereo cameras whose noise is smoother than the matching window explains
_WAVERING = 0.5  # share of stereo cameras whose outlines waver
_JITTER_PX = 4.0  # largest amplitude of the wavering
_NEARER = 0.5  # share of stereo and phase time-of-flight cameras that also measure nearer than their data sheet says
_NOISY = 0.35  # share of reductions and direct time of flight with independent noise in every reading
_NOISE = (0.0005, 0.04)  # of the depth
_NOISY_COARSE = 0.15  # the same from SPLIT_BELOW on, where a reading is a mean over many pixels and has less noise
_NOISE_COARSE = (0.0005, 0.02)  # of the depth
_FAULTY = 0.15  # share of them with dropouts
_WRONG = 0.1  # share of them with outliers, readings of a random depth


def varied(sensor: Sensor, rng: np.random.Generator, ratio: float = 1.0) -> Sensor:
    """A camera like ``sensor`` with random parameters: noise between a seventh and one and a half of the preset's,
    another matching window, other steps. ``ratio`` is that of colour to its depth."""

    def factor(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    values: dict[str, Any] = {}
    preset = sensor.measurement
    noisy, of_depth = (_NOISY_COARSE, _NOISE_COARSE) if ratio >= SPLIT_BELOW else (_NOISY, _NOISE)
    if sensor.family in REDUCING:
        if rng.random() < _ROUNDED:
            values["faults.unit_m"] = _UNIT_M
        always = sensor.family == "reduction" and sensor.faults.noise_relative > 0
        if always or rng.random() < noisy:
            values["faults.noise_relative"] = factor(*of_depth)
        if rng.random() < _FAULTY:
            values["faults.dropout"] = float(rng.uniform(0, 0.1))
        if rng.random() < _WRONG:
            values["faults.outliers"] = factor(0.0005, 0.01)
    if isinstance(preset, Stereo):
        values["stereo.subpixel"] = preset.subpixel * factor(0.15, 1.3)
        values["stereo.step"] = preset.step * factor(0.5, 4.0)
        values["stereo.window"] = factor(5, 32)
        values["stereo.static"] = float(rng.uniform(0, 0.7))
        values["stereo.fattening"] = float(rng.uniform(0.3, 1.0))
        if rng.random() < _SMOOTH:
            values["stereo.noise_window"] = factor(10, 40)
            values["stereo.subpixel"] = preset.subpixel * factor(0.3, 3.0)
            values["stereo.correlation"] = float(rng.uniform(0, 0.8))
        if rng.random() < _WAVERING:
            values["stereo.edge_jitter"] = float(rng.uniform(0, _JITTER_PX))
        values["stereo.min_m"] = preset.min_m * _nearer(rng)
    elif isinstance(preset, PhaseTof):
        noise = factor(0.15, 1.5)
        values["phase_tof.noise_m"] = preset.noise_m * noise
        values["phase_tof.floor_m"] = preset.floor_m * noise
        values["phase_tof.multipath_m"] = preset.multipath_m * float(rng.uniform(0, 1.2))
        values["phase_tof.min_m"] = preset.min_m * _nearer(rng)
    elif isinstance(preset, PhoneLidar):
        values["phone_lidar.noise"] = preset.noise * factor(0.3, 1.5)
        values["phone_lidar.lag"] = float(rng.uniform(0.2, 0.7))
    return sensor.with_values(values)


def _nearer(rng: np.random.Generator) -> float:
    """Factor on the minimum distance. Scenes are scaled to a camera's range, so that many have large parts in front of
    it; with the same distance everywhere, a network takes most holes for these."""
    return float(rng.uniform(0, 1)) if rng.random() < _NEARER else 1.0


def smoothed(depth: Tensor, window: int) -> Tensor:
    """Depth after a median filter in the camera; holes and the pixels next to them stay unchanged.

    Args:
        depth: (T, 1, h, w) metres, 0 invalid.
        window: 3 or 5 pixels.
    """
    images = []
    for image in depth[:, 0].cpu().numpy():
        whole = cv2.erode((image > 0).astype(np.uint8), np.ones((window, window), np.uint8)) > 0
        images.append(np.where(whole, cv2.medianBlur(image, window), image))
    return torch.from_numpy(np.stack(images))[:, None].to(depth.device)
