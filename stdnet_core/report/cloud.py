"""Looking at a point cloud without a viewer: a picture from beside the camera, a PLY file, and is the wall flat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


def back_project(depth: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Points (H, W, 3) float64 in metres of a depth image (H, W), NaN where it is; ``k`` is (3, 3) in its pixels."""
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]]
    z = depth.astype(np.float64)
    return np.stack(((columns - k[0, 2]) / k[0, 0] * z, (rows - k[1, 2]) / k[1, 1] * z, z), axis=-1)


def write_ply(path: Path, points: np.ndarray, colors: np.ndarray) -> int:
    """Write the finite points (H, W, 3) with their colours (H, W, 3) uint8 as binary PLY; returns how many."""
    keep = np.isfinite(points).all(axis=-1)
    layout = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("r", "u1"), ("g", "u1"), ("b", "u1")])
    table = np.empty(int(keep.sum()), layout)
    for axis, name in enumerate("xyz"):
        table[name] = points[..., axis][keep]
    for channel, name in enumerate("rgb"):
        table[name] = colors[..., channel][keep]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {table.size}"]
    header += [f"property float {name}" for name in "xyz"]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    path.write_bytes(("\n".join([*header, "end_header"]) + "\n").encode() + table.tobytes())
    return table.size


def render_cloud(
    points: np.ndarray,
    colors: np.ndarray,
    *,
    size: tuple[int, int] = (480, 640),
    yaw: float = 25.0,
    pitch: float = 12.0,
) -> np.ndarray:
    """Picture (h, w, 3) uint8 of a cloud, seen from beside and above the camera that took it.

    Args:
        points: (H, W, 3) metres in the optical frame (x right, y down, z ahead), NaN invalid.
        colors: (H, W, 3) uint8.
        size: (h, w) of the picture.
        yaw, pitch: how far the view turns around the middle of the cloud, degrees.
    """
    height, width = size
    picture = np.full((height, width, 3), 255, np.uint8)
    keep = np.isfinite(points).all(axis=-1)
    xyz, rgb = points[keep].astype(np.float64), colors[keep]
    if xyz.shape[0] < 10:
        return picture
    far = np.percentile(xyz[:, 2], 97)
    inside = xyz[:, 2] < 1.5 * far
    xyz, rgb = xyz[inside], rgb[inside]
    centre = np.median(xyz, axis=0)
    turned = (xyz - centre) @ _rotation(yaw, pitch).T
    turned[:, 2] += 1.2 * centre[2]
    ahead = turned[:, 2] > 0.05 * centre[2]
    turned, rgb = turned[ahead], rgb[ahead]
    plane = turned[:, :2] / turned[:, 2:]
    low, high = np.percentile(plane, (1, 99), axis=0)
    zoom = 0.92 * np.min(np.array([width, height]) / np.maximum(high - low, 1e-6))
    pixels = np.round((plane - (low + high) / 2) * zoom + np.array([width, height]) / 2).astype(int)
    far_to_near = np.argsort(-turned[:, 2], kind="stable")
    pixels, rgb = pixels[far_to_near], rgb[far_to_near]
    # Points are drawn as squares that about touch their neighbours.
    side = int(np.clip(np.ceil(1.2 * np.sqrt(width * height / len(pixels))), 2, 12))
    for down in range(side):
        for right in range(side):
            x, y = pixels[:, 0] + right, pixels[:, 1] + down
            seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            picture[y[seen], x[seen]] = rgb[seen]
    return cv2.medianBlur(picture, 3)


def without_margins(picture: np.ndarray, margin: int = 12) -> np.ndarray:
    """The part of a picture (H, W, 3) that is not white, with ``margin`` px around it."""
    rows, columns = (np.nonzero((picture != 255).any(axis=(2, axis)))[0] for axis in (1, 0))
    if rows.size == 0:
        return picture
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return np.ascontiguousarray(picture[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin])


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    a, b = np.radians(yaw), np.radians(pitch)
    around_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return around_x @ around_y


@dataclass(frozen=True)
class Flatness:
    """How flat a cloud is where the truth is flat.

    Attributes:
        rows, columns: the patch, as (first, last + 1) pixels.
        truth_rms: distance of the truth's points from their plane, metres, root mean square.
        cloud_rms: distance of the cloud's points from their own plane, metres, root mean square.
        offset: distance of the cloud's middle from the truth's plane, metres.
        angle: between both planes, degrees.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    truth_rms: float
    cloud_rms: float
    offset: float
    angle: float


def flatness(points: np.ndarray, truth: np.ndarray) -> Flatness | None:
    """Compare a cloud (H, W, 3) with the true points (H, W, 3) on the largest flat patch of the truth.

    Patches from a third of the image's height down are tried; a patch is flat when its points lie within 0.2 % of their
    distance (at least 2 mm) of a plane. None when there is no such patch with valid points in both.
    """
    height, width = truth.shape[:2]
    for share in (3, 4, 6, 8, 12):
        side = height // share
        if side < 8:
            break
        best = None
        for top in range(0, height - side + 1, max(1, side // 2)):
            for left in range(0, width - side + 1, max(1, side // 2)):
                patch = truth[top : top + side, left : left + side].reshape(-1, 3)
                measured = points[top : top + side, left : left + side].reshape(-1, 3)
                good = np.isfinite(patch).all(axis=1) & np.isfinite(measured).all(axis=1)
                if good.mean() < 0.95:
                    continue
                centre, normal, rms = fit_plane(patch[good])
                if rms < max(2e-3, 2e-3 * abs(centre[2])) and (best is None or rms < best[0]):
                    best = rms, top, left, centre, normal, measured[good]
        if best is not None:
            rms, top, left, centre, normal, measured = best
            own_centre, own_normal, own_rms = fit_plane(measured)
            cosine = min(1.0, abs(float(own_normal @ normal)))
            return Flatness(
                rows=(top, top + side),
                columns=(left, left + side),
                truth_rms=rms,
                cloud_rms=own_rms,
                offset=float((own_centre - centre) @ normal),
                angle=float(np.degrees(np.arccos(cosine))),
            )
    return None


def fit_plane(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Least-squares plane of (N, 3) points: its middle, its unit normal, and the RMS distance from it."""
    centre = points.mean(axis=0)
    centred = points - centre
    values, vectors = np.linalg.eigh(centred.T @ centred / len(points))
    return centre, vectors[:, 0], float(np.sqrt(max(values[0], 0.0)))
