"""Optical flow of colour (OpenCV's DIS), for a live video or for two frames of a source without flow."""

from __future__ import annotations

import cv2
import numpy as np

REDUCTION = 2
"""Factor by which colour is downsampled before its flow is estimated."""
_LEAST_SIDE = 16  # pixels; flow of smaller images is 0
_DIS_SIDE = 32  # pixels that DIS's pyramid needs; with less, it may write beyond its memory (opencv_contrib issue 1355)
_STILL = 0.15  # px of the image; smaller flow is set to 0


def reduced_grey(grey: np.ndarray) -> np.ndarray:
    """A grey image (H, W) uint8, reduced for :func:`grey_flow`."""
    height, width = (max(1, length // REDUCTION) for length in grey.shape)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)


def grey_flow(now: np.ndarray, before: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray | None:
    """Backward flow (h, w, 2) float32 in pixels of the full image, from each position in ``now`` to ``before``.

    Args:
        now, before: images of :func:`reduced_grey`, of one size.
        size: (h, w) to which the flow is resized.
        interpolation: OpenCV's method of resizing.

    Returns:
        The flow, or None if the images are too small.
    """
    if min(now.shape) < _LEAST_SIDE:
        return None
    small = _calculated(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST, *_equally_bright(now, before))
    flow: np.ndarray = cv2.resize(small, size[::-1], interpolation=interpolation)
    flow *= np.float32(REDUCTION)
    return flow


def _equally_bright(now: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both grey images, the brighter one darkened to the mean of the other. Exposure changes from frame to frame, and
    DIS would take that for motion."""
    levels = cv2.mean(now)[0], cv2.mean(before)[0]
    if levels[0] > levels[1]:
        return cv2.convertScaleAbs(now, alpha=levels[1] / levels[0]), before
    if levels[0] < levels[1]:
        return now, cv2.convertScaleAbs(before, alpha=levels[0] / levels[1])
    return now, before


def _calculated(preset: int, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    height, width = now.shape
    lacking = max(0, _DIS_SIDE - height), max(0, _DIS_SIDE - width)
    if any(lacking):
        now, before = (cv2.copyMakeBorder(x, 0, lacking[0], 0, lacking[1], cv2.BORDER_REPLICATE) for x in (now, before))
    # A new one for every pair: at some widths (80 and 88), its result otherwise depends on the pairs before.
    dis = cv2.DISOpticalFlow.create(preset)
    flow: np.ndarray = dis.calc(now, before, None)  # type: ignore[call-overload]  # None: no initial flow
    return flow[:height, :width]


class FlowEstimator:
    """Estimates the flow of one video, on the working grid of the recurrent network.

    Args:
        stride: pixels of the image per pixel of the flow, a multiple of :data:`REDUCTION`.
    """

    def __init__(self, stride: int = 4) -> None:
        self._stride = stride
        self._before: np.ndarray | None = None

    def reset(self) -> None:
        """Start a new video with the next frame."""
        self._before = None

    def step(self, rgb: np.ndarray) -> np.ndarray:
        """Flow of the next frame.

        Args:
            rgb: (H, W, 3) uint8; H and W multiples of the stride.

        Returns:
            (2, H / stride, W / stride) float32 pixels of the image (x, y): from each position in this frame to the
            frame before; 0 for the first frame, and for images that are too small.
        """
        height, width = rgb.shape[:2]
        grey = reduced_grey(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        before, self._before = self._before, grey
        size = height // self._stride, width // self._stride
        flow = None
        if before is not None and before.shape == grey.shape:
            flow = grey_flow(grey, before, size, cv2.INTER_AREA)
        if flow is None:
            return np.zeros((2, *size), np.float32)
        flow[np.abs(flow).max(-1) < _STILL] = 0
        return np.ascontiguousarray(flow.transpose(2, 0, 1))


def estimate_flow(rgb: np.ndarray, next_rgb: np.ndarray) -> np.ndarray:
    """Optical flow (2, H, W) from one uint8 RGB frame (H, W, 3) to the next, by OpenCV's DIS.

    Replaces unknown true flow; it is wrong at occlusions and on plain surfaces. For frames smaller than 16 pixels, it
    is 0."""
    if min(rgb.shape[:2]) < _LEAST_SIDE:
        return np.zeros((2, *rgb.shape[:2]), np.float32)
    grey = [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (rgb, next_rgb)]
    flow = _calculated(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, grey[0], grey[1])
    return flow.transpose(2, 0, 1)
