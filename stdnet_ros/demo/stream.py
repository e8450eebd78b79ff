"""The demo's RGB-D stream on disk: the frames that the publisher sends, and the ground truth for the receiver.

The arrays are ``.npy`` files that both processes map into memory, so memory use does not grow with the stream."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors import DepthCamera, Sensor
from stdnet_core.errors import DataError, InputError
from stdnet_core.short_repr import short_repr

_ARRAYS = ("rgb", "depth_lr", "truth")
_CHUNK = 8
_DEFAULT_FPS = 30.0


@dataclass(frozen=True)
class StreamInfo:
    """The properties of a stream.

    Attributes:
        name: name of the source.
        frames: number of frames.
        scale: colour height / depth height.
        simulated: whether the low-resolution depth was simulated from the ground truth.
        sensor: how the low-resolution depth was obtained, in words.
        intrinsics: fx, fy, cx, cy of the colour camera in pixels; assumed (60 degrees across) if the source has none.
        fps: frame rate of the source in Hz.
    """

    name: str
    frames: int
    scale: float
    simulated: bool
    sensor: str
    intrinsics: tuple[float, float, float, float]
    fps: float


@dataclass(frozen=True)
class Stream:
    """The frames of a stream, mapped from its folder.

    Attributes:
        info: its properties.
        rgb: (N, H, W, 3) uint8.
        depth_lr: (N, h, w) float32, metres, NaN invalid.
        truth: (N, H, W) float32, metres, NaN invalid.
    """

    info: StreamInfo
    rgb: np.ndarray
    depth_lr: np.ndarray
    truth: np.ndarray

    __repr__ = short_repr

    def __len__(self) -> int:
        return self.info.frames


def write_stream(
    sequence: RgbdSequence, folder: Path, *, scale: int, frames: int, sensor: Sensor, seed: int = 0
) -> StreamInfo:
    """Read the first ``frames`` frames of ``sequence``, simulate their low-resolution depth and store everything.

    Colour and ground truth are cropped at the right and at the bottom to multiples of ``scale``. If the sequence has
    its own low-resolution depth, that is used and nothing is cropped.

    Raises:
        InputError: ``scale`` or ``frames`` does not fit the sequence.
        DataError: the sequence has no depth to compare with.
    """
    count = min(frames, len(sequence))
    height, width = sequence.frame_size
    if count < 1:
        raise InputError(f"--frames is {frames}; at least 1 is needed")
    first = sequence.clip(0, 1)
    own = first.depth_lr is not None
    if not own and (scale < 1 or height < 2 * scale or width < 2 * scale):
        raise InputError(f"--scale {scale} does not fit frames of {width}x{height}; choose 4, 8 or 16")
    if not own:
        height, width = height // scale * scale, width // scale * scale
    low_size = tuple(first.depth_lr.shape[2:]) if own else (height // scale, width // scale)

    folder.mkdir(parents=True, exist_ok=True)
    shapes = {
        "rgb": ((count, height, width, 3), np.uint8),
        "depth_lr": ((count, *low_size), np.float32),
        "truth": ((count, height, width), np.float32),
    }
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
        for name, (shape, kind) in shapes.items()
    }
    camera = None if own else DepthCamera(sensor, (height, width), scale, focal_px=_focal(sequence), seed=seed)
    fps = _DEFAULT_FPS
    for start in range(0, count, _CHUNK):
        clip = sequence.clip(start, min(_CHUNK, count - start))
        if start == 0:
            fps = _frame_rate(clip)
        rgb, depth = clip.rgb[..., :height, :width], clip.depth[..., :height, :width]
        low = clip.depth_lr if camera is None else camera.measure(depth * clip.valid[..., :height, :width], rgb)
        part = slice(start, start + len(clip))
        arrays["rgb"][part] = (rgb.permute(0, 2, 3, 1) * 255.0).round().to(torch.uint8).numpy()
        arrays["depth_lr"][part] = _nan_where_zero(low[:, 0])
        arrays["truth"][part] = _nan_where_zero(depth[:, 0])
    if not np.isfinite(arrays["truth"]).any():
        raise DataError(f"{sequence.name} has no full-resolution depth to compare with; the demo needs one")
    for array in arrays.values():
        array.flush()
    info = StreamInfo(
        name=sequence.name,
        frames=count,
        scale=height / low_size[0],
        simulated=not own,
        sensor="the recording's own low-resolution depth" if own else sensor.describe(),
        intrinsics=_intrinsics(sequence, width, height),
        fps=fps,
    )
    (folder / "stream.json").write_text(json.dumps(asdict(info), indent=2))
    return info


def open_stream(folder: Path) -> Stream:
    """Map a stream that :func:`write_stream` stored."""
    content = json.loads((folder / "stream.json").read_text())
    content["intrinsics"] = tuple(content["intrinsics"])
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return Stream(info=StreamInfo(**content), **arrays)


def _nan_where_zero(depth: torch.Tensor) -> np.ndarray:
    array = depth.numpy().copy()
    array[~(array > 0)] = np.nan
    return array


def _intrinsics(sequence: RgbdSequence, width: int, height: int) -> tuple[float, float, float, float]:
    """The sequence's intrinsics, or if it has none, those of a camera with a horizontal field of view of 60 degrees."""
    if sequence.intrinsics is None:
        focal = width / 2 / np.tan(np.radians(30.0))
        return float(focal), float(focal), (width - 1) / 2, (height - 1) / 2
    k = sequence.intrinsics
    return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])


def _frame_rate(clip: RgbdClip) -> float:
    stamps = clip.stamps
    if stamps is None or len(stamps) < 2:
        return _DEFAULT_FPS
    step = float((stamps[-1] - stamps[0]) / (len(stamps) - 1))
    return 1.0 / step if step > 0 else _DEFAULT_FPS


def _focal(sequence: RgbdSequence) -> float | None:
    return None if sequence.intrinsics is None else float(sequence.intrinsics[0, 0])
