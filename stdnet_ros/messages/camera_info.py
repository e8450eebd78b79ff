"""Adapts camera_info to the image that is actually published.

A driver's camera_info may describe the full sensor, while the image is a region of it, binned or rescaled. The network
returns an image of the colour image's size; K and P are converted here to that size. Pixel centres have integer
coordinates, so scaling by s maps a coordinate x to s*x + (s - 1)/2."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo

from stdnet_core.errors import InputError


class CameraInfoError(InputError):
    """A camera_info cannot be used with the image; the message says why."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal lengths and principal point in pixels of an image of the given size."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def scaled(self, width: int, height: int) -> Intrinsics:
        """The same camera with an image of another size."""
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            self.fx * sx,
            self.fy * sy,
            self.cx * sx + (sx - 1) / 2,
            self.cy * sy + (sy - 1) / 2,
            width,
            height,
        )


def fit_to_image(info: CameraInfo, width: int, height: int) -> CameraInfo:
    """A copy of ``info`` for an image of ``width`` x ``height``: K and P are converted, ROI and binning are applied.

    Args:
        info: the driver's camera_info; its ROI refers to its own width and height.
        width, height: size of the image that it will accompany.

    Raises:
        CameraInfoError: K is zero or not finite, P is not finite, the ROI lies outside the image, or its aspect ratio
            is not that of the image.
    """
    region_x, region_y = info.roi.x_offset, info.roi.y_offset
    full_w, full_h = info.width, info.height
    if not (full_w and full_h):  # no size given: it must describe this image
        region_x, region_y, full_w, full_h = 0, 0, width, height
    region_w, region_h = info.roi.width or full_w, info.roi.height or full_h
    if region_x + region_w > full_w or region_y + region_h > full_h:
        raise CameraInfoError("the region of interest in camera_info lies outside its image")
    k, p = np.array(info.k, np.float64), np.array(info.p, np.float64)
    if not np.isfinite(k).all() or k[0] <= 0 or k[4] <= 0:
        raise CameraInfoError("camera_info is uncalibrated (K is zero or not finite)")
    if not np.isfinite(p).all():
        raise CameraInfoError("P in camera_info is not finite")
    sx, sy = width / region_w, height / region_h
    # Binned and rescaled sizes are rounded to whole pixels, so a deviation of up to one pixel is accepted.
    if abs(width - sy * region_w) > max(1.0, sy) and abs(height - sx * region_h) > max(1.0, sx):
        raise CameraInfoError(
            f"camera_info is for {region_w}x{region_h}, an aspect ratio other than the image's {width}x{height}"
        )
    fitted = copy.copy(info)
    fitted.width, fitted.height = width, height
    fitted.k = _fit_matrix(k.reshape(3, 3), region_x, region_y, sx, sy)
    fitted.p = _fit_matrix(p.reshape(3, 4), region_x, region_y, sx, sy)
    fitted.binning_x = fitted.binning_y = 0
    fitted.roi = type(info.roi)()
    return fitted


def _fit_matrix(matrix: np.ndarray, x: int, y: int, sx: float, sy: float) -> np.ndarray:
    """S @ matrix, where S maps the pixel coordinates; an all-zero (uncalibrated) matrix stays zero."""
    if not matrix.any():
        return matrix.ravel()
    pixel_map = np.array([[sx, 0, (sx - 1) / 2 - sx * x], [0, sy, (sy - 1) / 2 - sy * y], [0, 0, 1]], np.float64)
    return (pixel_map @ matrix).ravel()


def pinhole(info: CameraInfo, rectified: bool) -> Intrinsics:
    """Intrinsics of the image that ``info`` accompanies: from P if the image is rectified and P is set, else from K.

    Raises:
        CameraInfoError: a focal length is not positive, or a value is not finite.
    """
    if rectified and info.p[0] > 0 and info.p[5] > 0:
        fx, cx, fy, cy = info.p[0], info.p[2], info.p[5], info.p[6]
    else:
        fx, cx, fy, cy = info.k[0], info.k[2], info.k[4], info.k[5]
    if not np.isfinite([fx, fy, cx, cy]).all() or fx <= 0 or fy <= 0:
        raise CameraInfoError("camera_info is uncalibrated (K is zero or not finite)")
    return Intrinsics(float(fx), float(fy), float(cx), float(cy), info.width, info.height)


def viewing_rays(info: CameraInfo, rectified: bool, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """x/z and y/z for every ``stride``-th row and column of the image that ``info`` accompanies.

    If the image is not rectified, its lens distortion (plumb_bob, rational_polynomial, equidistant) is removed from
    the rays. The result is cached for the next frames of the same camera.

    Returns:
        two read-only float32 arrays (ceil(H / stride), ceil(W / stride)).

    Raises:
        CameraInfoError: the camera is not calibrated, or its distortion model is unknown.
    """
    distortion = () if rectified else tuple(float(d) for d in info.d)
    return _rays(pinhole(info, rectified), distortion, info.distortion_model, stride)


@lru_cache(maxsize=4)
def _rays(camera: Intrinsics, distortion: tuple[float, ...], model: str, stride: int) -> tuple[np.ndarray, np.ndarray]:
    columns = np.arange(0, camera.width, stride, dtype=np.float64)
    rows = np.arange(0, camera.height, stride, dtype=np.float64)
    if any(distortion):
        x, y = _undistorted(camera, np.array(distortion), model, columns, rows)
    else:
        x, y = np.meshgrid((columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy)
    x, y = x.astype(np.float32), y.astype(np.float32)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def _undistorted(
    camera: Intrinsics, distortion: np.ndarray, model: str, columns: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not np.isfinite(distortion).all():
        raise CameraInfoError("the distortion coefficients in camera_info are not finite")
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    pixels = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 1, 2)
    if model in ("plumb_bob", "rational_polynomial") and distortion.size in (4, 5, 8, 12, 14):
        rays = cv2.undistortPoints(pixels, matrix, distortion)
    elif model == "equidistant" and distortion.size == 4:
        rays = cv2.fisheye.undistortPoints(pixels, matrix, distortion)
    else:
        raise CameraInfoError(
            f"the distortion model {model!r} with {distortion.size} coefficients is unknown; publish rectified "
            f"images (image_proc) and set color_rectified: true"
        )
    rays = rays.reshape(rows.size, columns.size, 2)
    return rays[..., 0], rays[..., 1]
