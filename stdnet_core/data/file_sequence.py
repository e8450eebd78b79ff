"""A sequence whose frames are files, and what all layouts of such files share.

The module of a layout finds its folders and assigns files to frames. This module does the rest: it checks that the
files fit together and reads clips lazily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.color_video import VideoFrame
from stdnet_core.data.frame_files import Findings, FrameFiles
from stdnet_core.data.image_files import BY_TYPE, read_color, read_confidence, read_depth, read_flow, read_stored_depth
from stdnet_core.data.rgbd_sequence import RgbdSequence, frame_indices
from stdnet_core.depth_units import DepthUnits, along_axis, check_units
from stdnet_core.errors import DataError

_ASPECT_TOLERANCE = 0.02
_ALIKE = 3.0
"""The median depths of two images of one scene differ by less than this factor."""
_FRAMES_LOOKED_AT = 5


@dataclass(frozen=True)
class DepthRules:
    """How the depth files of a folder are interpreted; set by the user.

    Attributes:
        units: how stored values become metres.
        ray: values are distances from the camera along each pixel's ray instead of depth along the optical axis.
        min_confidence: pixels with a lower confidence (0, 1 or 2, if a phone stores it) are invalid.
    """

    units: DepthUnits = BY_TYPE
    ray: bool = False
    min_confidence: int = 1

    def confidence_note(self) -> str:
        """How confidences are used, as a note for the user."""
        return (
            f"depth with a confidence below {self.min_confidence} counts as invalid; ?min_confidence=0 keeps all depth"
        )


DEFAULT_RULES = DepthRules()


class FileSequence:
    """Frames in files, read on request.

    Args:
        name: for tables and messages.
        frames: the files, in order and consecutive in time.
        intrinsics: (3, 3) in pixels of the frames before ``center_crop``, or None.
        intrinsics_size: (H, W) of the image that ``intrinsics`` refer to, if not that of the frames.
        depth_reader: reads a depth file as (H, W) float32 metres, 0 invalid; for data in a known format. Without it,
            files are read by ``rules``, and the first ones are checked for plausible units.
        rules: how depth files are interpreted.
        color_to_depth_size: resize colour to the size of depth (for data whose colour camera has more pixels).
        center_crop: (H, W) of the central part to use, or None for all.
        notes: what the user should know about these frames, one sentence each.

    Depth files that are smaller than colour, with the same aspect ratio, are the low-resolution depth of a sensor: they
    become ``depth_lr``, and the clip's ``depth`` is all invalid.

    Attributes:
        lr_scale: ratio of the sizes, None without low-resolution depth.
        notes: what the user should know, one sentence each.

    Raises:
        DataError: there is no frame, the first one cannot be read or its files do not fit together, its depth is in
            another unit than assumed, or depth is distances along rays but there are no intrinsics.
    """

    def __init__(
        self,
        name: str,
        frames: Sequence[FrameFiles],
        *,
        intrinsics: Tensor | None = None,
        intrinsics_size: tuple[int, int] | None = None,
        depth_reader: Callable[[Path], np.ndarray] | None = None,
        rules: DepthRules = DEFAULT_RULES,
        color_to_depth_size: bool = False,
        center_crop: tuple[int, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        if not frames:
            raise DataError(f"{name}: no frames")
        if rules.ray and intrinsics is None:
            raise DataError(
                f"{name}: distances along rays are converted to depth with intrinsics, and it has none; add them (in a "
                'folder: intrinsics.txt with "fx fy cx cy"), or leave out distance=ray'
            )
        self.name = name
        self.files = tuple(frames)
        self._depth_reader = depth_reader
        self._rules = rules
        self.notes = list(notes)
        if depth_reader is None:
            files = [f.depth or f.depth_lr for f in self.files[:_FRAMES_LOOKED_AT]]
            stored = (read_stored_depth(path) for path in files if path is not None)
            self.notes += check_units(stored, rules.units, name)
        self._color_to_depth_size = color_to_depth_size
        self._crop = center_crop
        self._intrinsics = intrinsics
        self._intrinsics_size = intrinsics_size
        first = self._read([0])
        self.frame_size = first.frame_size
        self.intrinsics = first.intrinsics
        self.lr_scale = first.lr_scale
        self._check_centre()
        self._compare_depths(first)

    def __len__(self) -> int:
        return len(self.files)

    def clip(self, start: int, length: int, stride: int = 1) -> RgbdClip:
        """Read ``length`` frames from ``start``, every ``stride``-th one; see :class:`RgbdSequence`.

        Flow is returned only if it is on disk and ``stride`` is 1.
        """
        clip = self._read(frame_indices(self, start, length, stride))
        if clip.frame_size != self.frame_size:
            raise DataError(
                f"{self.files[start].color}: {_size(clip.frame_size)} pixels, expected {_size(self.frame_size)} "
                f"as in the rest of {self.name}"
            )
        return clip

    def _read(self, indices: Sequence[int]) -> RgbdClip:
        colors: list[np.ndarray] = []
        depths: list[np.ndarray] = []
        lows: list[np.ndarray | None] = []
        flows: list[np.ndarray] = []
        stamps: list[float | None] = []
        for index in indices:
            files = self.files[index]
            color = files.color.read() if isinstance(files.color, VideoFrame) else read_color(files.color)
            depth = None if files.depth is None else self._read_depth(files.depth)
            if depth is not None and self._color_to_depth_size and depth.shape != color.shape[:2]:
                color = cv2.resize(color, depth.shape[::-1], interpolation=cv2.INTER_AREA)
            low = None if files.depth_lr is None else self._read_depth(files.depth_lr)
            if depth is not None and depth.shape != color.shape[:2]:
                if low is not None or not is_smaller_version(depth.shape, color.shape[:2]):
                    raise DataError(
                        f"{files.depth}: depth of {_size(depth.shape)} pixels does not fit the colour image of "
                        f"{_size(color.shape)}"
                    )
                depth, low = None, depth
            if low is not None and not is_smaller_version(low.shape, color.shape[:2]):
                raise DataError(
                    f"{files.depth_lr or files.depth}: low-resolution depth of {_size(low.shape)} pixels does not "
                    f"have the proportions of the colour image of {_size(color.shape)}"
                )
            camera = self._camera(color.shape[:2])
            if self._rules.ray:
                assert camera is not None
                depth, low = (d if d is None else along_axis(d, _at_size(camera, color, d)) for d in (depth, low))
            measured = depth if low is None else low
            if files.confidence is not None and measured is not None:
                _mask(measured, files.confidence, self._rules.min_confidence)
            if colors and color.shape != colors[0].shape:
                raise DataError(
                    f"{files.color}: {_size(color.shape)} pixels, expected {_size(colors[0].shape)} as in the rest "
                    f"of {self.name}"
                )
            if lows and _shape(low) != _shape(lows[0]):
                raise DataError(f"{files.color}: the low-resolution depth changes its size within {self.name}")
            colors.append(color)
            depths.append(np.zeros(color.shape[:2], np.float32) if depth is None else depth)
            lows.append(low)
            stamps.append(files.stamp)
        consecutive = all(b - a == 1 for a, b in pairwise(indices))
        paths = [path for index in indices[:-1] if (path := self.files[index].flow) is not None]
        if consecutive and len(paths) == len(indices) - 1:
            for path in paths:
                flow = read_flow(path)
                if flow.shape[1:] != colors[0].shape[:2]:
                    raise DataError(
                        f"{path}: flow of {_size(flow.shape[1:])} pixels, expected {_size(colors[0].shape)}"
                    )
                flows.append(flow)
        rgb = torch.from_numpy(np.stack(colors)).permute(0, 3, 1, 2).contiguous().float().div_(255)
        true = torch.from_numpy(np.stack(depths)).unsqueeze(1)
        delivered = [low for low in lows if low is not None]
        clip = RgbdClip(
            rgb=rgb,
            depth=true,
            valid=true > 0,
            intrinsics=camera,
            flow=torch.from_numpy(np.stack(flows)) if flows else None,
            depth_lr=torch.from_numpy(np.stack(delivered)).unsqueeze(1) if delivered else None,
            stamps=None if None in stamps else torch.tensor(stamps, dtype=torch.float64),
            name=self.name,
        )
        return clip if self._crop is None else self._center(clip, self._crop)

    def _read_depth(self, path: Path) -> np.ndarray:
        return read_depth(path, self._rules.units) if self._depth_reader is None else self._depth_reader(path)

    def _camera(self, size: tuple[int, int]) -> Tensor | None:
        """The camera matrix in pixels of frames of ``size`` (H, W)."""
        if self._intrinsics is None or self._intrinsics_size is None:
            return self._intrinsics
        across = [length / other for length, other in zip(size, self._intrinsics_size, strict=True)]
        if abs(across[0] / across[1] - 1) > _ASPECT_TOLERANCE:
            raise DataError(
                f"{self.name}: its intrinsics are for {_size(self._intrinsics_size)} pixels, another aspect ratio than "
                f"the frames' {_size(size)}; the images were rotated or cropped"
            )
        return resized_camera(self._intrinsics, self._intrinsics_size, size)

    def _check_centre(self) -> None:
        """Note, or refuse, intrinsics whose principal point is outside the image; they belong to another image size."""
        if self.intrinsics is None:
            return
        cx, cy = float(self.intrinsics[0, 2]), float(self.intrinsics[1, 2])
        if 0 <= cx < self.frame_size[1] and 0 <= cy < self.frame_size[0]:
            return
        text = (
            f"{self.name}: its intrinsics have the principal point ({cx:g}, {cy:g}), outside the frames of "
            f"{_size(self.frame_size)} pixels; they belong to images of another size"
        )
        if self._rules.ray:
            raise DataError(f"{text}, so distances along rays cannot be converted to depth")
        self.notes.append(text)

    def _compare_depths(self, first: RgbdClip) -> None:
        """Note if the medians of both resolutions of depth differ, although they show the same scene."""
        if first.depth_lr is None or not (first.valid.any() and (first.depth_lr > 0).any()):
            return
        low, high = (float(depth[depth > 0].median()) for depth in (first.depth_lr, first.depth))
        if not 1 / _ALIKE < low / high < _ALIKE:
            self.notes.append(
                f"{self.name}: low-resolution depth has a median of {low:.4g} m and depth one of {high:.4g} m: one of "
                "them is likely stored in another unit"
            )

    def _center(self, clip: RgbdClip, crop: tuple[int, int]) -> RgbdClip:
        height, width = clip.frame_size
        top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
        if min(top, left) < 0:
            raise DataError(
                f"{self.files[0].color}: {_size(clip.frame_size)} pixels are too few for the centre crop of "
                f"{_size(crop)} that this split uses"
            )
        return clip.crop(top, left, *crop)


def _at_size(camera: Tensor, color: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return resized_camera(camera, color.shape[:2], depth.shape).numpy()


def _mask(depth: np.ndarray, path: Path, least: int) -> None:
    """Invalidate measurements with less than the ``least`` confidence."""
    confidence = read_confidence(path)
    if confidence.shape != depth.shape:
        raise DataError(
            f"{path}: confidence of {_size(confidence.shape)} pixels does not fit depth of {_size(depth.shape)}"
        )
    depth[confidence < least] = 0


def _shape(image: np.ndarray | None) -> tuple[int, ...] | None:
    return None if image is None else image.shape


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def is_smaller_version(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether ``small`` (H, W) is not larger than ``large`` and has the same aspect ratio."""
    ratios = large[0] / small[0], large[1] / small[1]
    return min(ratios) >= 1 and abs(ratios[0] / ratios[1] - 1) <= _ASPECT_TOLERANCE + 0.5 / min(small)


def add_sequence(
    sequences: list[RgbdSequence], findings: Findings, name: str, frames: list[FrameFiles], **options: Any
) -> None:
    """Append a :class:`FileSequence` to ``sequences``, or report to ``findings`` what is wrong with it."""
    try:
        sequences.append(FileSequence(name, frames, **options))
    except DataError as error:
        findings.report(str(error))


def resized_camera(camera: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """A camera matrix (3, 3) for images of ``size`` (H, W), converted to the same images at ``new_size``."""
    y, x = (new / old for new, old in zip(new_size, size, strict=True))
    fx, fy, cx, cy = (float(camera[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return intrinsic_matrix(fx * x, fy * y, (cx + 0.5) * x - 0.5, (cy + 0.5) * y - 0.5)


def intrinsic_matrix(fx: float, fy: float, cx: float, cy: float) -> Tensor:
    """(3, 3) float32 camera matrix in pixels."""
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
