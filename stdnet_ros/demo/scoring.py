"""Scores the output that the demo's receiver got, and writes metrics.json, pictures and a cloud.

Output and bilinear are compared with the ground truth on the same frames and the same pixels: those where the ground
truth and both of them are valid. The coverage of each is reported separately."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, PointCloud2

from stdnet_core.errors import StdnetError
from stdnet_core.inference.classical import bilinear
from stdnet_core.report.cloud import back_project, flatness, render_cloud, write_ply
from stdnet_core.report.panels import Tile, compose, depth_limits, error_limit, frame_tiles, scale_bars
from stdnet_core.report.versions import versions
from stdnet_core.report.video import Mp4Writer, write_gif
from stdnet_core.short_repr import short_repr
from stdnet_ros.demo.stream import Stream

_PICTURES = 5
_PREVIEW_FRAMES = 40
_GIF_WIDTH = 200
_ZOOM = 3


class ErrorSums:
    """Errors of one method, pooled over all frames."""

    def __init__(self) -> None:
        self._pixels = self._covered = self._truth = 0
        self._absolute = self._squared = 0.0

    def add(self, depth: np.ndarray, truth: np.ndarray, common: np.ndarray) -> float:
        """Add a frame: (H, W) metres, NaN invalid; errors are measured on ``common``. Returns its RMSE in metres."""
        error = (depth[common] - truth[common]).astype(np.float64)
        known = np.isfinite(truth)
        self._pixels += error.size
        self._truth += int(known.sum())
        self._covered += int((known & np.isfinite(depth)).sum())
        self._absolute += float(np.abs(error).sum())
        squared = float((error**2).sum())
        self._squared += squared
        return (squared / error.size) ** 0.5 if error.size else float("nan")

    def result(self) -> dict[str, float | None]:
        """RMSE and MAE in cm, and the coverage: the share of the ground truth's pixels that have a depth."""
        if self._pixels == 0:
            return {"rmse_cm": None, "mae_cm": None, "coverage": 0.0}
        return {
            "rmse_cm": 100 * (self._squared / self._pixels) ** 0.5,
            "mae_cm": 100 * self._absolute / self._pixels,
            "coverage": self._covered / self._truth,
        }


@dataclass
class Reception:
    """What the receiver got, in order of arrival.

    Attributes:
        depth: (N, H, W) metres, NaN invalid; the first ``len(stamps)`` are filled.
        stamps: of the frames, in nanoseconds.
        arrivals: arrival times, in seconds by a monotonic clock.
        latencies: from stamp to arrival, in seconds.
        infos: camera_info by stamp.
        clouds: number of clouds received.
        cloud: the last cloud.
        duplicates: number of depth images that repeat an earlier stamp.
        diagnostics: last key-value pairs of the node.
    """

    depth: np.ndarray
    stamps: list[int]
    arrivals: list[float]
    latencies: list[float]
    infos: dict[int, CameraInfo]
    clouds: int
    cloud: PointCloud2 | None
    duplicates: int
    diagnostics: dict[str, str]

    __repr__ = short_repr


def score(stream: Stream, got: Reception, log: dict, output: Path) -> dict:
    """Write metrics.json, pictures, preview and cloud to ``output``; returns the metrics.

    Raises:
        StdnetError: nothing was received, or a frame with a stamp that was never published.
    """
    index_of = {stamp: index for index, stamp in enumerate(log["stamps"])}
    foreign = [stamp for stamp in got.stamps if stamp not in index_of]
    if not got.stamps:
        raise StdnetError("no frame was received from the node; see node.log")
    if foreign:
        raise StdnetError(
            f"{len(foreign)} frames have stamps that were never published; the output must keep the input's stamp"
        )
    order = [index_of[stamp] for stamp in got.stamps]
    ours, theirs = ErrorSums(), ErrorSums()
    rmse_of_frame = []
    for row, index in enumerate(order):
        truth, depth, simple = stream.truth[index], got.depth[row], _bilinear(stream, index)
        common = np.isfinite(truth) & np.isfinite(depth) & np.isfinite(simple)
        rmse_of_frame.append(ours.add(depth, truth, common))
        theirs.add(simple, truth, common)
    span = got.arrivals[-1] - got.arrivals[0]
    latency = np.percentile(np.array(got.latencies) * 1000, (50, 95, 99))
    metrics = {
        "input": asdict(stream.info) | {"width": stream.rgb.shape[2], "height": stream.rgb.shape[1]},
        "method": got.diagnostics.get("method", ""),
        "model": got.diagnostics.get("model", ""),
        "output": ours.result(),
        "bilinear": theirs.result(),
        "frames": _count(got, log),
        "pacing": log["rate"],
        "rate_hz": (len(order) - 1) / span if span > 0 else None,
        "latency_ms": dict(zip(("p50", "p95", "p99"), latency.tolist(), strict=True)),
        "cloud": _inspect_cloud(stream, got, index_of, output),
        "node": got.diagnostics,
        "versions": versions(),
    }
    _draw(stream, got, order, output)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def _bilinear(stream: Stream, index: int) -> np.ndarray:
    low = torch.from_numpy(np.nan_to_num(stream.depth_lr[index], nan=0.0))
    depth = bilinear(low[None, None], stream.truth.shape[1:])[0, 0].numpy()
    return np.where(depth > 0, depth, np.nan)


def _count(got: Reception, log: dict) -> dict:
    published = len(log["stamps"])
    drops = {
        key.removeprefix("dropped "): int(value) for key, value in got.diagnostics.items() if key.startswith("dropped ")
    }
    waiting = int(got.diagnostics.get("window waiting", 0) or 0)
    if waiting:
        drops["waiting for following frames"] = waiting
    return {
        "published": published,
        "not_sent_in_time": log["unsent"],
        "received": len(got.stamps),
        "lost": published - len(got.stamps),
        "dropped_by_node": drops,
        "duplicates": got.duplicates,
        "camera_infos": len(set(got.infos) & set(got.stamps)),
        "clouds": got.clouds,
    }


def _draw(stream: Stream, got: Reception, order: list[int], output: Path) -> None:
    limits = depth_limits(stream.truth[:: max(1, len(stream) // 8), ::4, ::4])
    worst = max(error_limit(stream.truth[index]) for index in order[:: max(1, len(order) // 8)])
    step = max(1, -(-len(order) // _PREVIEW_FRAMES))
    chosen = {order[i] for i in np.linspace(0, len(order) - 1, min(_PICTURES, len(order))).astype(int)}
    gif = []
    with Mp4Writer(output / "preview.mp4", min(15.0, stream.info.fps)) as video:
        for row, index in enumerate(order):
            if row % step and index not in chosen:
                continue
            tiles = frame_tiles(
                stream.rgb[index],
                stream.depth_lr[index],
                {"bilinear": _bilinear(stream, index), "output": got.depth[row]},
                stream.truth[index],
                limits=limits,
                error_max=worst,
            )
            colour, low, simple, ours, truth, simple_error, our_error = tiles
            if index in chosen:
                picture = _with_zoom(tiles, _window(_bilinear(stream, index), stream.truth[index], worst))
                bars = scale_bars(picture.shape[1], limits, worst)
                _save(output / f"frame_{index:06d}.png", np.concatenate((picture, bars)))
            if row % step == 0:
                grid = [colour, low, truth, simple, ours, _side_by_side(simple_error, our_error)]
                video.add(compose(grid, columns=3, tile_width=384))
                gif.append(compose(grid, columns=3, tile_width=_GIF_WIDTH))
    write_gif(output / "preview.gif", gif, min(10.0, stream.info.fps))


def _window(simple: np.ndarray, truth: np.ndarray, most: float) -> tuple[slice, slice]:
    """Rows and columns of the window, a third of the picture high and wide, with the largest error of interpolation.

    Errors are clipped at ``most`` metres."""
    error = np.nan_to_num(np.minimum(np.abs(simple - truth), most)).astype(np.float32)
    height, width = (length // _ZOOM for length in truth.shape)
    mean = cv2.boxFilter(error, -1, (width, height), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    mean = mean[: error.shape[0] - height + 1, : error.shape[1] - width + 1]
    top, left = np.unravel_index(mean.argmax(), mean.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def _with_zoom(tiles: list[Tile], window: tuple[slice, slice]) -> np.ndarray:
    """Colour, input, bilinear, output and truth in a row, below each its part in the window; errors on the right."""
    colour, low, simple, ours, truth, simple_error, our_error = tiles
    framed = colour.image.copy()
    rows, columns = window
    thickness = max(1, framed.shape[1] // 200)
    cv2.rectangle(framed, (columns.start, rows.start), (columns.stop - 1, rows.stop - 1), (255, 255, 255), thickness)
    shown = [colour, low, simple, ours, truth]
    above = [Tile(colour.caption, framed), *shown[1:], simple_error]
    below = [Tile(f"{tile.caption.partition(',')[0]}, framed part", tile.image[window]) for tile in shown]
    return compose([*above, *below, our_error], columns=6, tile_width=320)


def _side_by_side(left: Tile, right: Tile) -> Tile:
    """A picture of the left half of ``left`` and the right half of ``right``."""
    middle = left.image.shape[1] // 2
    image = right.image.copy()
    image[:, :middle] = left.image[:, :middle]
    image[:, middle - 1 : middle + 1] = 255
    return Tile("error: bilinear | output", image)


def _inspect_cloud(stream: Stream, got: Reception, index_of: dict[int, int], output: Path) -> dict | None:
    """Check the last cloud against the depth image, camera_info and ground truth of its stamp, and draw it."""
    if got.cloud is None:
        return None
    from stdnet_ros.demo.topics import stamp_nanoseconds

    stamp = stamp_nanoseconds(got.cloud.header)
    if stamp not in got.stamps or stamp not in got.infos:
        raise StdnetError("the stamp of the last cloud is not that of a depth image and a camera_info")
    points, colors = cloud_arrays(got.cloud)
    depth = got.depth[got.stamps.index(stamp)]
    k = np.array(got.infos[stamp].k).reshape(3, 3)
    if points.shape[:2] != depth.shape:
        raise StdnetError(
            f"the cloud is {points.shape[1]}x{points.shape[0]}, but the depth is {depth.shape[1]}x{depth.shape[0]}"
        )
    seen = np.isfinite(points).all(axis=-1)
    rows, columns = np.nonzero(seen)
    x, y, z = points[seen].T.astype(np.float64)
    drift = np.hypot(k[0, 0] * x / z + k[0, 2] - columns, k[1, 1] * y / z + k[1, 2] - rows)
    flat = flatness(points, back_project(stream.truth[index_of[stamp]], k))
    write_ply(output / "cloud.ply", points, colors)
    picture = render_cloud(points, colors, size=(480, 640))
    caption = "the last cloud, from beside the camera; grey: hidden from the camera"
    _save(output / "cloud.png", compose([Tile(caption, picture)], tile_width=640))
    return {
        "points": int(seen.sum()),
        "reprojection_px_max": float(drift.max()) if drift.size else None,
        "depth_difference_m_max": float(np.abs(points[..., 2] - depth)[seen].max()) if drift.size else None,
        "colour_difference_max": int(np.abs(colors.astype(int) - stream.rgb[index_of[stamp]]).max()),
        "flat_patch": None if flat is None else asdict(flat),
    }


def cloud_arrays(cloud: PointCloud2) -> tuple[np.ndarray, np.ndarray]:
    """Points (H, W, 3) float32 in metres and colours (H, W, 3) uint8 of an organised XYZRGB cloud."""
    offsets = {field.name: field.offset for field in cloud.fields}
    layout = np.dtype(
        {
            "names": ["x", "y", "z", "rgb"],
            "formats": ["<f4", "<f4", "<f4", "<u4"],
            "offsets": [offsets[name] for name in ("x", "y", "z", "rgb")],
            "itemsize": cloud.point_step,
        }
    )
    table = np.frombuffer(cloud.data, layout).reshape(cloud.height, cloud.width)
    packed = table["rgb"]
    colors = np.stack([(packed >> shift) & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)
    return np.stack([table["x"], table["y"], table["z"]], axis=-1), colors


def _save(path: Path, picture: np.ndarray) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
