"""Point clouds without a viewer: a rendered picture, a PLY file, and a measure of flatness."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

_FEWEST = 10
_FINER = 2  # factor by which the picture is drawn larger and then reduced, for smooth edges
_SAME_SURFACE = 0.04  # relative difference up to which neighbouring depths are of one surface
_HIDDEN = (174, 174, 174)


def back_project(depth: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Points (H, W, 3) float64 in metres of a depth image (H, W), NaN where that is; ``k``: (3, 3), in its pixels."""
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
    yaw: float = 14.0,
    pitch: float = 8.0,
) -> np.ndarray:
    """Picture (h, w, 3) uint8 of a cloud, seen from beside and above the camera that recorded it.

    Neighbouring points of one surface are joined, so that surfaces have no gaps from any side; areas behind a depth
    edge, which were hidden from the camera, are grey.

    Args:
        points: (H, W, 3) metres in the optical frame (x right, y down, z ahead), NaN invalid.
        colors: (H, W, 3) uint8.
        size: (h, w) of the picture.
        yaw, pitch: rotation of the view around the middle of the cloud, in degrees.
    """
    canvas = np.full((_FINER * size[0], _FINER * size[1], 3), 255, np.uint8)
    known = np.isfinite(points).all(axis=-1)
    if known.sum() >= _FEWEST:
        known &= points[..., 2] < 1.5 * np.percentile(points[known][:, 2], 97)
        centre = np.median(points[known], axis=0)
        turned = (points - centre) @ _rotation(yaw, pitch).T
        turned[..., 2] += 1.2 * centre[2]
        known &= turned[..., 2] > 0.05 * centre[2]
        plane = turned[..., :2] / turned[..., 2:]
        low, high = np.percentile(plane[known], (1, 99), axis=0)
        middle = np.array(canvas.shape[1::-1])
        zoom = 0.92 * np.min(middle / np.maximum(high - low, 1e-6))
        screen = (plane - (low + high) / 2) * zoom + middle / 2
        _draw_surfaces(canvas, screen, points[..., 2], turned[..., 2], known, colors)
    return cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)


def _draw_surfaces(
    canvas: np.ndarray,
    screen: np.ndarray,
    depth: np.ndarray,
    distance: np.ndarray,
    known: np.ndarray,
    colors: np.ndarray,
) -> None:
    """Draw the squares between neighbouring points, far ones first.

    Args:
        screen: (H, W, 2) px, positions of the points in the picture.
        depth: (H, W) m from the recording camera, which determines where a surface ends.
        distance: (H, W) m from the viewer.
    """
    whole = np.min(_corners(known), axis=-1)
    depths = _corners(depth)[whole]
    joined = depths.max(axis=-1) < (1 + _SAME_SURFACE) * depths.min(axis=-1)
    # Around the square: upper left, upper right, lower right, lower left. Points far outside are drawn at the margin.
    margin = max(canvas.shape)
    around = np.clip(np.nan_to_num(screen), -margin, 2 * margin)
    quads = np.stack((around[:-1, :-1], around[:-1, 1:], around[1:, 1:], around[1:, :-1]), axis=-2)[whole]
    quads = np.rint(quads).astype(np.int32)
    for quad in quads[~joined]:
        cv2.fillConvexPoly(canvas, quad, _HIDDEN)
    order = np.argsort(-_corners(distance)[whole][joined].mean(axis=-1), kind="stable")
    means = np.rint(_corners(colors).mean(axis=-1)[whole][joined][order]).astype(int).tolist()
    for quad, color in zip(quads[joined][order], means, strict=True):
        cv2.fillConvexPoly(canvas, quad, color)


def _corners(image: np.ndarray) -> np.ndarray:
    """The four corners (H - 1, W - 1, ..., 4) of each square between pixels of (H, W, ...)."""
    return np.stack((image[:-1, :-1], image[:-1, 1:], image[1:, :-1], image[1:, 1:]), axis=-1)


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
    """How flat a cloud is where the ground truth is flat.

    Attributes:
        rows, columns: the patch, as (first, last + 1) pixels.
        truth_rms: RMS distance of the ground truth's points from their plane, in metres.
        cloud_rms: RMS distance of the cloud's points from their own plane, in metres.
        offset: distance of the cloud's centre from the ground truth's plane, in metres.
        angle: between both planes, in degrees.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    truth_rms: float
    cloud_rms: float
    offset: float
    angle: float


def flatness(points: np.ndarray, truth: np.ndarray) -> Flatness | None:
    """Compare a cloud (H, W, 3) with the ground truth (H, W, 3) on the latter's largest flat patch.

    Patches with sides from a third of the image's height down are tried. A patch is flat if the RMS distance of its
    points from a plane is below 0.2 % of their depth, or below 2 mm. None if no such patch has valid points in both.
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
    """Least-squares plane of (N, 3) points: their centre, its unit normal, and the RMS distance from it."""
    centre = points.mean(axis=0)
    centred = points - centre
    values, vectors = np.linalg.eigh(centred.T @ centred / len(points))
    return centre, vectors[:, 0], float(np.sqrt(max(values[0], 0.0)))
