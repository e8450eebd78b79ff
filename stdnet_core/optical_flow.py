"""Optical flow of colour (OpenCV's DIS): of a video as it comes, or of two frames of a source without its own flow."""

from __future__ import annotations

import cv2
import numpy as np

REDUCTION = 2
"""Of colour, before its flow is estimated."""
_LEAST_SIDE = 16  # pixels that DIS's patches and pyramid need
_STILL = 0.15  # px of the image up to which a place has not moved


class GreyFlow:
    """Optical flow between two grey images, estimated at a part of their size."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    @staticmethod
    def reduced(grey: np.ndarray) -> np.ndarray:
        """A grey image (H, W) uint8 as :meth:`between` takes it."""
        height, width = (max(1, length // REDUCTION) for length in grey.shape)
        return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)

    def between(
        self, now: np.ndarray, before: np.ndarray, size: tuple[int, int], interpolation: int
    ) -> np.ndarray | None:
        """Flow (h, w, 2) float32 in pixels of the whole image, from each place of ``now`` to where it was ``before``.

        Args:
            now, before: reduced images of one size.
            size: (h, w) that the flow is brought to.
            interpolation: of OpenCV, for that.

        Returns:
            None for images too small to tell.
        """
        if min(now.shape) < _LEAST_SIDE:
            return None
        flow: np.ndarray = cv2.resize(_calculated(self._dis, now, before), size[::-1], interpolation=interpolation)
        flow *= np.float32(REDUCTION)
        return flow


def _calculated(dis: cv2.DISOpticalFlow, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    # None: there is no flow to begin with
    return dis.calc(now, before, None)  # type: ignore[call-overload]  # OpenCV demands a flow


class FlowEstimator:
    """Follows one video, on the working grid of the recurrent network.

    Args:
        stride: pixels of the image in a pixel of the flow, a multiple of :data:`REDUCTION`.
    """

    def __init__(self, stride: int = 4) -> None:
        self._stride = stride
        self._flow = GreyFlow()
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
        grey = self._flow.reduced(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        before, self._before = self._before, grey
        size = height // self._stride, width // self._stride
        flow = None
        if before is not None and before.shape == grey.shape:
            flow = self._flow.between(grey, before, size, cv2.INTER_AREA)
        if flow is None:
            return np.zeros((2, *size), np.float32)
        flow[np.abs(flow).max(-1) < _STILL] = 0
        return np.ascontiguousarray(flow.transpose(2, 0, 1))


def estimate_flow(rgb: np.ndarray, next_rgb: np.ndarray) -> np.ndarray:
    """Optical flow (2, H, W) from one uint8 RGB frame (H, W, 3) to the next, by OpenCV's DIS.

    A stand-in where no true flow is known; it is wrong at occlusions and on plain surfaces. Frames smaller than 16
    pixels have none."""
    if min(rgb.shape[:2]) < _LEAST_SIDE:
        return np.zeros((2, *rgb.shape[:2]), np.float32)
    grey = [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (rgb, next_rgb)]
    flow = _calculated(cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM), grey[0], grey[1])
    return flow.transpose(2, 0, 1)
