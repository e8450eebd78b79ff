"""Input frames of ``predict``: from any source of RGB-D data, or from a colour video and a folder of depth images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np

from stdnet_core.data.color_video import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from stdnet_core.data.color_video import open_video
from stdnet_core.data.frame_files import FIRST_STAMP, numbered_files
from stdnet_core.data.image_files import BY_TYPE, DEPTH_SUFFIXES, read_depth, read_stored_depth
from stdnet_core.data.protocol import sensor_range
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors import DepthCamera, sensor
from stdnet_core.depth_units import DepthUnits, check_units
from stdnet_core.errors import DataError
from stdnet_core.short_repr import short_repr

_CHUNK = 8  # frames read at once
_LOOKED_AT = 5


@dataclass(frozen=True)
class InputFrame:
    """One frame.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: the depth to upsample, (h, w) metres, 0 invalid.
        truth: ground truth (H, W) in metres, 0 invalid; None unless ``depth`` was simulated from it.
        stamp: seconds, or None.
    """

    rgb: np.ndarray
    depth: np.ndarray
    truth: np.ndarray | None = None
    stamp: float | None = None

    __repr__ = short_repr


@dataclass(frozen=True)
class InputVideo:
    """A video that is read during iteration.

    Attributes:
        name: for folders and messages.
        length: how many frames there are.
        fps: frames per second; None when unknown.
        intrinsics: fx, fy, cx, cy in pixels of the colour frame, or None.
        notes: what the user should know, one sentence each.
    """

    name: str
    length: int
    fps: float | None
    intrinsics: tuple[float, float, float, float] | None
    _frames: Iterator[InputFrame]
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[InputFrame]:
        return self._frames

    def limited(self, length: int | None) -> InputVideo:
        """The first ``length`` frames of the video; None: all."""
        return self if length is None else replace(self, length=min(length, self.length))


def from_sequence(sequence: RgbdSequence, scale: float | None = None, seed: int = 0) -> InputVideo:
    """A sequence of any source as input.

    If it has low-resolution depth, that is upsampled. Otherwise its depth has the size of colour, like a camera's
    registered depth: it is the input itself, or, with ``scale``, the ground truth for simulated low-resolution depth.
    """
    intrinsics = sequence.intrinsics
    camera = None
    if intrinsics is not None:
        fx, fy, cx, cy = (float(intrinsics[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
        camera = fx, fy, cx, cy
    stamps = sequence.clip(0, min(2, len(sequence))).stamps
    fps = None
    if stamps is not None and len(stamps) == 2 and stamps[1] > stamps[0]:
        fps = float(1 / (stamps[1] - stamps[0]))
    return InputVideo(sequence.name, len(sequence), fps, camera, _sequence_frames(sequence, scale, seed))


def _sequence_frames(sequence: RgbdSequence, scale: float | None, seed: int) -> Iterator[InputFrame]:
    camera: DepthCamera | None = None
    for start in range(0, len(sequence), _CHUNK):
        clip = sequence.clip(start, min(_CHUNK, len(sequence) - start))
        depth = clip.depth * clip.valid
        low, truth = clip.depth_lr, None
        if scale is not None:
            if not clip.valid.any() and clip.depth_lr is not None:
                raise DataError(f"{sequence.name}: it has low-resolution depth already; leave out --scale")
            if camera is None:
                paper = sensor("dtof_paper").with_values({"dtof.range_m": sensor_range(sequence)})
                camera = DepthCamera(paper, sequence.frame_size, scale, seed=seed)
            low, truth = camera.measure(depth, clip.rgb), depth
        elif low is None:
            low = depth
        for i in range(len(clip)):
            yield InputFrame(
                (clip.rgb[i] * 255).round().byte().permute(1, 2, 0).contiguous().numpy(),
                low[i, 0].contiguous().numpy(),
                None if truth is None else truth[i, 0].contiguous().numpy(),
                None if clip.stamps is None else float(clip.stamps[i]),
            )


def from_video(video: Path, depth: Path, units: DepthUnits = BY_TYPE) -> InputVideo:
    """A colour video with one depth image for each of its frames.

    Args:
        video: a file that OpenCV can read; its frames are not rotated, even if a rotation tag says so.
        depth: folder of depth images, named in the order of the frames.
        units: how stored depth becomes metres; by default integers are millimetres, floating-point numbers metres.

    Raises:
        DataError: one of them is missing or unreadable, they differ in length, or depth is in another unit than
            assumed.
    """
    capture = open_video(video)
    fps, frame_count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    if not depth.is_dir():
        raise DataError(f"{depth}: no such folder of depth images (16-bit PNG, PGM or TIFF, .npy, or .exr)")
    numbered = numbered_files(depth, DEPTH_SUFFIXES)
    numbers = sorted(numbered)
    files = [numbered[number] for number in numbers]
    steps = [second - first for first, second in pairwise(numbers)]
    gap = next((k for k, step in enumerate(steps) if step >= 2 * min(steps)), None)
    if gap is not None and numbers[-1] < FIRST_STAMP and frame_count > len(files):
        raise DataError(
            f"{depth}: between {files[gap].name} and {files[gap + 1].name} depth images are missing, and video "
            "frames are matched by position: all later depth would get the colour of another frame; complete the "
            "depth, or provide colour as images with the same names"
        )
    if not files:
        raise DataError(f"{depth}: no depth images (16-bit PNG, PGM or TIFF, .npy, or .exr)")
    notes = check_units((read_stored_depth(file) for file in islice(files, _LOOKED_AT)), units, str(depth))
    frames = _video_frames(video, files, units)
    return InputVideo(video.stem, len(files), fps if 0 < fps < 1000 else None, None, frames, notes)


def _video_frames(video: Path, files: list[Path], units: DepthUnits) -> Iterator[InputFrame]:
    capture = open_video(video)
    try:
        for number, file in enumerate(files):
            readable, image = capture.read()
            if not readable:
                raise DataError(f"{video}: it ends after {number} frames, and there are {len(files)} depth images")
            yield InputFrame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), read_depth(file, units))
        if capture.grab():
            logging.getLogger(__name__).warning(
                "%s has more frames than there are depth images (%d); the rest is ignored, and its first frame is "
                "paired with %s",
                video,
                len(files),
                files[0].name,
            )
    finally:
        capture.release()
