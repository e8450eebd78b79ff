"""Optical flow of colour from the frame before, on the working grid of the recurrent network (OpenCV's DIS)."""

from __future__ import annotations

import cv2
import numpy as np

REDUCTION = 2
"""Of colour, before its flow is estimated."""
_LEAST_SIDE = 16  # pixels that DIS's patches and pyramid need
_STILL = 0.15  # px of the image up to which a place has not moved


class FlowEstimator:
    """Follows one video.

    Args:
        stride: pixels of the image in a pixel of the flow, a multiple of :data:`REDUCTION`.
    """

    def __init__(self, stride: int = 4) -> None:
        self._stride = stride
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: np.ndarray | None = None

    def reset(self) -> None:
        """The next frame is the first of a video."""
        self._before = None

    def step(self, rgb: np.ndarray) -> np.ndarray:
        """Flow of the next frame.

        Args:
            rgb: (H, W, 3) uint8; H and W multiples of the stride.

        Returns:
            (2, H / stride, W / stride) float32 pixels of the image (x, y): from each place of this frame to where it
            was in the frame before; 0 for the first frame, and in images too small to tell.
        """
        height, width = rgb.shape[:2]
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, (width // REDUCTION, height // REDUCTION), interpolation=cv2.INTER_AREA)
        before, self._before = self._before, grey
        size = height // self._stride, width // self._stride
        if before is None or before.shape != grey.shape or min(grey.shape) < _LEAST_SIDE:
            return np.zeros((2, *size), np.float32)
        flow = self._dis.calc(grey, before, None)
        flow = cv2.resize(flow, size[::-1], interpolation=cv2.INTER_AREA) * np.float32(REDUCTION)
        flow[np.abs(flow).max(-1) < _STILL] = 0
        return np.ascontiguousarray(flow.transpose(2, 0, 1))
