"""Warps the frame before to the current one, and corrects its inverse depth for the camera's motion.

Pixels are warped by the optical flow of colour. The camera's own motion changes inverse depth w smoothly over the
image: moving along the optical axis by d adds d w^2, turning adds w times a linear function of the pixel's position.
These three parameters are fitted robustly to the measurements, so that a moving camera is followed at once; moving
objects are left to the filter."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stdnet_core.optical_flow import grey_flow, reduced_grey

_STILL = 0.5  # px along an axis up to which a pixel is not moved
_FLOW_ERROR = 0.25  # px,
_FLOW_ERROR_SHARE = 0.1  # plus this share of the motion
_GRID = 8  # the fit uses every 8th pixel
_LEAST_POINTS = 100
_ROUNDS = 4
_ROBUST = 2.0  # standard deviations at which a point's weight is halved
_COLOUR_CHANGE = 12  # grey levels of 256, mean over 3x3, by which the same surface may change between frames


@dataclass(frozen=True)
class Moved:
    """Images of the frame before, warped to this frame.

    Attributes:
        images: (h, w, C), 0 where they come from beyond the border.
        same: (h, w) bool, where warped colour agrees with that of this frame.
        error: (h, w) float32, possible error of a pixel's source position in pixels; 0 where it has not moved.
    """

    images: np.ndarray
    same: np.ndarray
    error: np.ndarray


class MotionEstimator:
    """Follows the motion of a grey video."""

    def __init__(self) -> None:
        self._grid: tuple[np.ndarray, np.ndarray] | None = None

    def bring(self, grey: np.ndarray, last_grey: np.ndarray, images: np.ndarray) -> Moved:
        """Warp images of the frame before to this one, without interpolation between pixels.

        Args:
            grey: (h, w) uint8, of this frame.
            last_grey: of the frame before.
            images: (h, w, C) float32, of the frame before.
        """
        flow = grey_flow(reduced_grey(grey), reduced_grey(last_grey), grey.shape, cv2.INTER_LINEAR)
        moved, moved_grey, error = images, last_grey, np.zeros(grey.shape, np.float32)
        if flow is not None and (moving := (np.abs(flow) > _STILL).any(-1)).any():
            error[moving] = _FLOW_ERROR + _FLOW_ERROR_SHARE * np.abs(flow[moving]).max(-1)
            x, y = self._places(grey.shape)
            x, y = x + flow[..., 0], y + flow[..., 1]
            moved = cv2.remap(images, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            moved_grey = cv2.remap(last_grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        change = cv2.blur(cv2.absdiff(moved_grey, grey), (3, 3))
        return Moved(moved, change <= _COLOUR_CHANGE, error)

    def _places(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        if self._grid is None or self._grid[0].shape != size:
            y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
            self._grid = x, y
        return self._grid


def follow_camera(predicted: np.ndarray, measured: np.ndarray, deviation: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Correct warped inverse depth for the camera's own motion.

    Args:
        predicted: (h, w) inverse depth of the frame before, warped to this frame; 0 where unknown.
        measured: (h, w) inverse depth of this frame.
        deviation: (h, w) standard deviation of a measurement.
        both: (h, w) bool, where the two can be compared.

    Returns:
        (h, w); ``predicted`` itself if too few pixels can be compared.
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
