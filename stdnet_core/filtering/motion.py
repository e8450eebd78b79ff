"""Where the pixels of the frame before have gone, and how its inverse depth changes as the camera moves.

Optical flow of colour says where. The camera's own motion changes inverse depth w by a smooth function of place: moving
along its axis by d adds d w^2, turning adds w times a linear function of the pixel. These three numbers are fitted to
what is measured, robustly, so that a moving camera is followed at once and what moves by itself is left to the
filter."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stdnet_core.optical_flow import GreyFlow

_STILL = 0.5  # px along an axis up to which a pixel stays where it is
_FLOW_ERROR = 0.25  # px,
_FLOW_ERROR_SHARE = 0.1  # and so much of the motion
_GRID = 8  # every 8th pixel is fitted to
_LEAST_POINTS = 100
_ROUNDS = 4
_ROBUST = 2.0  # deviations from which a point counts less
_COLOUR_CHANGE = 12  # grey levels of 256, mean over 3x3, by which the same thing may change between frames


@dataclass(frozen=True)
class Moved:
    """Images of the frame before, as they lie now.

    Attributes:
        images: (h, w, C), 0 from beyond the border.
        same: (h, w) bool, where colour agrees with that of this frame.
        error: (h, w) float32 pixels, by which the place that a pixel came from may be wrong; 0 where it has not moved.
    """

    images: np.ndarray
    same: np.ndarray
    error: np.ndarray


class MotionEstimator:
    """Follows the motion of a grey video."""

    def __init__(self) -> None:
        self._flow = GreyFlow()
        self._grid: tuple[np.ndarray, np.ndarray] | None = None

    def bring(self, grey: np.ndarray, last_grey: np.ndarray, images: np.ndarray) -> Moved:
        """Bring images of the frame before to this one, each pixel as it is, without mixing any.

        Args:
            grey: (h, w) uint8, of this frame.
            last_grey: of the frame before.
            images: (h, w, C) float32, of the frame before.
        """
        flow = self._backward_flow(grey, last_grey)
        moved, moved_grey, error = images, last_grey, np.zeros(grey.shape, np.float32)
        if flow is not None and (moving := (np.abs(flow) > _STILL).any(-1)).any():
            error[moving] = _FLOW_ERROR + _FLOW_ERROR_SHARE * np.abs(flow[moving]).max(-1)
            x, y = self._places(grey.shape)
            x, y = x + flow[..., 0], y + flow[..., 1]
            moved = cv2.remap(images, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            moved_grey = cv2.remap(last_grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        change = cv2.blur(cv2.absdiff(moved_grey, grey), (3, 3))
        return Moved(moved, change <= _COLOUR_CHANGE, error)

    def _backward_flow(self, grey: np.ndarray, last_grey: np.ndarray) -> np.ndarray | None:
        now, before = self._flow.reduced(grey), self._flow.reduced(last_grey)
        return self._flow.between(now, before, grey.shape, cv2.INTER_LINEAR)

    def _places(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        if self._grid is None or self._grid[0].shape != size:
            y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
            self._grid = x, y
        return self._grid


def follow_camera(predicted: np.ndarray, measured: np.ndarray, deviation: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Change moved inverse depth by what the camera's own motion adds to it.

    Args:
        predicted: (h, w) inverse depth of the frame before, as it lies now; 0 where unknown.
        measured: (h, w) of this frame.
        deviation: (h, w) of a measurement.
        both: (h, w) bool, where the two can be compared.

    Returns:
        (h, w); ``predicted`` itself where there is too little to compare.
    """
    height, width = predicted.shape
    points = np.s_[_GRID // 2 :: _GRID, _GRID // 2 :: _GRID]
    chosen = both[points]
    w = predicted[points][chosen]
    if w.size < _LEAST_POINTS:
        return predicted
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    across, down = (np.broadcast_to(axis, predicted.shape)[points][chosen] for axis in (x, y))
    unit = 1 / np.maximum(deviation[points][chosen], np.float32(1e-6))
    terms = np.stack([w * w, w * across, w * down], 1) * unit[:, None]
    change = (measured[points][chosen] - w) * unit
    weight = np.ones_like(change)
    for _ in range(_ROUNDS):
        weighted = terms * weight[:, None]
        normal = weighted.T @ terms + 1e-9 * np.trace(weighted.T @ terms) * np.eye(3, dtype=np.float32)
        solution = np.linalg.solve(normal, weighted.T @ change)
        weight = 1 / (1 + ((change - terms @ solution) / _ROBUST) ** 2)
    along, turned_x, turned_y = solution.astype(np.float32)
    factor = predicted * along + (1 + turned_x * x + turned_y * y)
    return predicted * np.maximum(factor, np.float32(0.1))
