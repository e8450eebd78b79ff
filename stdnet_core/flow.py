"""Optical flow estimated from colour, where a source has none of its own."""

from __future__ import annotations

import cv2
import numpy as np

_LEAST = 16  # pixels of a side below which DIS's patches and pyramid do not fit


def estimate_flow(rgb: np.ndarray, next_rgb: np.ndarray) -> np.ndarray:
    """Optical flow (2, H, W) from one uint8 RGB frame (H, W, 3) to the next, by OpenCV's DIS.

    A stand-in where no true flow is known; it is wrong at occlusions and on plain surfaces. Frames smaller than 16
    pixels have none."""
    if min(rgb.shape[:2]) < _LEAST:
        return np.zeros((2, *rgb.shape[:2]), np.float32)
    grey = [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (rgb, next_rgb)]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey[0], grey[1], None)
    return flow.transpose(2, 0, 1)
