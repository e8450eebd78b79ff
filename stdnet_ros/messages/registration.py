"""Reprojects depth from another camera into the colour camera's view.

The network needs depth that is registered to the colour image. If the driver does not register it, each depth pixel is
back-projected to a point, transformed by the extrinsics and projected onto a low-resolution grid of the colour camera.
If several points fall into one cell, the nearest one occludes the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stdnet_ros.messages.camera_info import Intrinsics


@dataclass(frozen=True)
class Extrinsics:
    """Pose of the depth camera in the colour camera's optical frame: p_color = rotation @ p_depth + translation."""

    rotation: np.ndarray
    translation: np.ndarray

    @staticmethod
    def from_quaternion(translation, quaternion) -> Extrinsics:
        """From x y z in metres and a quaternion x y z w (normalised here)."""
        x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        return Extrinsics(rotation, np.asarray(translation, np.float64))


def target_size(color: Intrinsics, depth: Intrinsics) -> tuple[int, int]:
    """(height, width) of a grid over the colour image whose cells are about the size of the depth camera's pixels."""
    scale = max(1, round(color.fx / depth.fx))
    return -(-color.height // scale), -(-color.width // scale)


def reproject(
    depth: np.ndarray,
    depth_camera: Intrinsics,
    color_camera: Intrinsics,
    extrinsics: Extrinsics,
    size: tuple[int, int],
) -> np.ndarray:
    """Reproject depth into the colour camera's view.

    Args:
        depth: (h, w) float32 metres of ``depth_camera``, NaN invalid.
        depth_camera, color_camera: pinhole cameras without distortion.
        extrinsics: pose of the depth camera in the colour camera's optical frame.
        size: (height, width) of the result, a grid over the whole colour image.

    Returns:
        array of shape ``size``, float32 metres along the colour camera's optical axis, NaN where no depth pixel falls.
    """
    rows, columns = np.nonzero(np.isfinite(depth))
    z = depth[rows, columns].astype(np.float64)
    camera = depth_camera.scaled(depth.shape[1], depth.shape[0])
    points = np.stack([(columns - camera.cx) / camera.fx * z, (rows - camera.cy) / camera.fy * z, z])
    x, y, z = extrinsics.rotation @ points + extrinsics.translation[:, None]

    height, width = size
    grid = color_camera.scaled(width, height)
    in_front = z > 0
    x, y, z = x[in_front], y[in_front], z[in_front]
    column = np.rint(grid.fx * x / z + grid.cx)
    row = np.rint(grid.fy * y / z + grid.cy)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    cell = (row[inside] * width + column[inside]).astype(np.int64)
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, cell, z[inside])
    nearest[np.isinf(nearest)] = np.nan
    return nearest.reshape(height, width).astype(np.float32)
