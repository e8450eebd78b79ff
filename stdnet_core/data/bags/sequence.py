"""ROS bags (ROS 2 mcap and sqlite3, ROS 1) as sequences of frames, read without ROS.

Topics are chosen by :mod:`stdnet_core.data.bags.topics`, or given as in ``bag:/run?color=/cam/rgb&depth=/tof``. Frames
are paired by nearest header stamps, or by times of recording if the header stamps of a topic are all the same because
its driver did not set them. Opening reads the bag once, for its stamps; images are decoded when requested."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stdnet_core.data.bags.bag_file import BagFile
from stdnet_core.data.bags.ros_images import FrameError, color_of, depth_of, frames_agree, printable
from stdnet_core.data.bags.topics import describe, find_topics, first_stored_depths
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.file_sequence import intrinsic_matrix, is_smaller_version
from stdnet_core.data.rgbd_sequence import frame_indices
from stdnet_core.data.stamp_matching import match_nearest, stamps_say_nothing
from stdnet_core.depth_units import DepthUnits, check_units
from stdnet_core.errors import DataError

MAX_DIFFERENCE_S = 0.02
"""Largest difference between the stamps of a colour and a depth frame that form a pair."""
_LOOKED_AT = 5
_LEADING = 10
"""At most this many damaged frames at the start are left out."""


@dataclass(frozen=True)
class _Recorded:
    """Where a message is in the bag, and its header stamp.

    Attributes:
        logged: time of recording in nanoseconds, by which bags are indexed.
        repeat: how many earlier messages of the topic have the same ``logged``.
        stamp: of the header, in nanoseconds.
    """

    logged: int
    repeat: int
    stamp: int


class BagSequence:
    """The pairs of colour and depth frames of a bag.

    Depth that is smaller than colour, with the same aspect ratio, becomes ``depth_lr``; ``depth`` is then all invalid.

    Args:
        path: folder of a ROS 2 bag, or an .mcap, .db3 or (ROS 1) .bag file.
        color_topic, depth_topic: chosen automatically if not given.
        max_difference: largest difference between the stamps of a pair, in seconds.
        units: how stored depth becomes metres.
        registered: treat depth as registered to colour, whatever its frame_id.
        by_record: pair by times of recording instead of header stamps.

    Attributes:
        color_topic, depth_topic: the topics that are read.
        lr_scale: ratio of the sizes if depth has a lower resolution, else None.
        unpaired: numbers of (colour, depth) frames without a partner.
        notes: what the user should know, one sentence each.

    Raises:
        DataError: the bag is damaged, has no pairs of colour and depth or several cameras, or its depth is in another
            unit than assumed.
        StdnetError: the packages that read bags are not installed.
    """

    def __init__(
        self,
        path: Path,
        color_topic: str | None = None,
        depth_topic: str | None = None,
        max_difference: float = MAX_DIFFERENCE_S,
        *,
        units: DepthUnits | None = None,
        registered: bool = False,
        by_record: bool = False,
    ) -> None:
        self.path = path
        self.name = path.name.split(".")[0] if path.is_file() else path.resolve().name
        self._bag: BagFile | None = None
        self._process = 0
        self._units = units or DepthUnits()
        bag = self._open()
        topics = find_topics(bag, {"color": color_topic, "depth": depth_topic}, self._units)
        self.color_topic, self.depth_topic = topics.color, topics.depth
        self.notes = [*bag.notes, describe(bag, topics)]
        color, depth = topics.first
        self.frame_size = color.size
        self._depth_size = depth.size
        self.lr_scale = None if depth.size == color.size else color.size[0] / depth.size[0]
        self._check_registered(color.frame, depth.frame, registered)
        self.notes += check_units(first_stored_depths(bag, depth, _LOOKED_AT), self._units, f"{path}: {topics.depth}")
        self.intrinsics = self._camera(bag, topics.color_info)
        self._pairs = self._pair(bag, max_difference, by_record)
        self._leave_out_damaged_begin()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bag": None, "_process": 0}

    def clip(self, start: int, length: int, stride: int = 1) -> RgbdClip:
        """Read ``length`` frames from ``start``, every ``stride``-th one.

        See :class:`stdnet_core.data.rgbd_sequence.RgbdSequence`."""
        pairs = [self._pairs[index] for index in frame_indices(self, start, length, stride)]
        colors, depths = self._images(pairs)
        for topic, images, size in (
            (self.color_topic, colors, self.frame_size),
            (self.depth_topic, depths, self._depth_size),
        ):
            for image, (_, _, stamp) in zip(images, pairs, strict=True):
                if image.shape[:2] != size:
                    raise DataError(
                        f"{self.path}: {topic} changes from {size[1]}x{size[0]} to {image.shape[1]}x{image.shape[0]} "
                        f"pixels at {stamp / 1e9:.3f} s; cut the bag there"
                    )
        rgb = torch.from_numpy(np.stack(colors)).permute(0, 3, 1, 2).contiguous().float().div_(255)
        measured = torch.from_numpy(np.stack(depths)).unsqueeze(1)
        low = None if self.lr_scale is None else measured
        depth = rgb.new_zeros(length, 1, *self.frame_size) if low is not None else measured
        stamps = torch.tensor([stamp / 1e9 for _, _, stamp in pairs], dtype=torch.float64)
        return RgbdClip(rgb, depth, depth > 0, intrinsics=self.intrinsics, depth_lr=low, stamps=stamps, name=self.name)

    def _images(self, pairs: Sequence[tuple[_Recorded, _Recorded, int]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Colour and depth images of the pairs; their sizes are not checked."""

        def images(topic: str, recorded: list[_Recorded]) -> list[np.ndarray]:
            return [self._image(topic, message) for message in self._read(topic, recorded)]

        colors = images(self.color_topic, [color for color, _, _ in pairs])
        return colors, images(self.depth_topic, [depth for _, depth, _ in pairs])

    def _open(self) -> BagFile:
        """The bag, opened once per process (readers seek in an open file)."""
        if self._bag is None or self._process != os.getpid():
            self._bag, self._process = BagFile(self.path), os.getpid()
        return self._bag

    def _image(self, topic: str, message: Any) -> np.ndarray:
        """Colour (H, W, 3) uint8, or depth (H, W) float32 in metres, 0 invalid."""
        try:
            if topic == self.color_topic:
                return color_of(message, topic)
            return np.nan_to_num(depth_of(message, self._units, topic), copy=False)
        except FrameError as error:
            raise DataError(f"{self.path}: {error}") from error

    def _check_registered(self, color_frame: str, depth_frame: str, registered: bool) -> None:
        if not is_smaller_version(self._depth_size, self.frame_size):
            raise DataError(
                f"{self.path}: depth of {_size(self._depth_size)} pixels on {self.depth_topic} is not aligned with "
                f"colour of {_size(self.frame_size)} on {self.color_topic}; choose a registered depth topic with "
                f"{self.path}?depth=TOPIC (the bag holds {self._open().contents()})"
            )
        if not registered and not frames_agree(color_frame, depth_frame):
            raise DataError(
                f"{self.path}: depth on {self.depth_topic} is in frame {printable(depth_frame)}, colour on "
                f"{self.color_topic} in {printable(color_frame)}: not registered to each other; choose a registered "
                f"depth topic with {self.path}?depth=TOPIC (the bag holds {self._open().contents()}), or add "
                "registered=yes if only the names of the frames differ"
            )

    def _pair(self, bag: BagFile, max_difference: float, by_record: bool) -> list[tuple[_Recorded, _Recorded, int]]:
        """(colour, depth, stamp of colour in nanoseconds) of each pair."""
        colors, depths = self._index(bag, self.color_topic), self._index(bag, self.depth_topic)
        empty = [
            topic
            for topic, found in ((self.color_topic, colors), (self.depth_topic, depths))
            if stamps_say_nothing([f.stamp for f in found])
        ]
        if empty:
            self.notes.append(
                f"{self.path}: all header stamps of {' and '.join(empty)} are the same; paired by times of recording"
            )
        by_record = by_record or bool(empty)
        stamps = [[f.logged if by_record else f.stamp for f in found] for found in (colors, depths)]
        origin = min([*stamps[0], *stamps[1]])  # subtracted first: a float64 cannot hold today's time in nanoseconds
        color_seconds, depth_seconds = ([(s - origin) / 1e9 for s in part] for part in stamps)
        pairs = match_nearest(color_seconds, depth_seconds, max_difference)
        if not pairs:
            nearest = match_nearest(color_seconds, depth_seconds, float("inf"))
            apart = min((abs(stamps[0][i] - stamps[1][j]) for i, j in nearest), default=0) / 1e6
            remedy = "" if by_record else f"; if their clocks differ, pair by recording time: {self.path}?stamps=record"
            raise DataError(
                f"{self.path}: no frames of {self.color_topic} and {self.depth_topic} within "
                f"{1e3 * max_difference:g} ms; the nearest are {apart:.0f} ms apart{remedy}"
            )
        self.unpaired = len(colors) - len(pairs), len(depths) - len(pairs)
        if any(self.unpaired):
            self.notes.append(
                f"{self.path}: {self.unpaired[0]} of {len(colors)} colour and {self.unpaired[1]} of {len(depths)} "
                f"depth frames have no partner within {1e3 * max_difference:g} ms and are left out"
            )
        return [(colors[i], depths[j], stamps[0][i]) for i, j in pairs]

    def _leave_out_damaged_begin(self) -> None:
        """Leave out damaged first frames, which would make the whole bag unreadable; later ones raise when read."""
        for count in range(min(_LEADING, len(self) - 1)):
            try:
                self._images(self._pairs[:1])
            except DataError as error:
                self.notes.append(f"frame {count} is left out: {error}")
                del self._pairs[0]
            else:
                return

    def _index(self, bag: BagFile, topic: str) -> list[_Recorded]:
        found: list[_Recorded] = []
        for raw in bag.messages([topic]):
            repeat = found[-1].repeat + 1 if found and found[-1].logged == raw.logged else 0
            found.append(_Recorded(raw.logged, repeat, bag.header_stamp(raw)))
        return found

    def _read(self, topic: str, wanted: Sequence[_Recorded]) -> list[Any]:
        """The requested messages, in the order requested."""
        bag = self._open()
        missing = {(w.logged, w.repeat): None for w in wanted}
        start, stop = min(w.logged for w in wanted), max(w.logged for w in wanted) + 1
        last, repeat = None, 0
        for raw in bag.messages([topic], start, stop):
            repeat = repeat + 1 if raw.logged == last else 0
            last = raw.logged
            if (raw.logged, repeat) in missing:
                missing[raw.logged, repeat] = bag.decode(raw)
        messages = [missing[w.logged, w.repeat] for w in wanted]
        if any(message is None for message in messages):
            raise DataError(f"{self.path}: the bag has changed since it was opened; messages of {topic} are missing")
        return messages

    def _camera(self, bag: BagFile, topic: str | None) -> Tensor | None:
        """Camera matrix in pixels of the colour frames from colour's CameraInfo."""
        info = None if topic is None else bag.first(topic)
        if info is None:
            return None
        k = np.asarray(info.k if hasattr(info, "k") else info.K, dtype=np.float64).reshape(3, 3)
        if not (np.isfinite(k).all() and k[0, 0] > 0 and k[1, 1] > 0):
            return None
        width, height = info.width or self.frame_size[1], info.height or self.frame_size[0]
        x, y = self.frame_size[1] / width, self.frame_size[0] / height
        return intrinsic_matrix(k[0, 0] * x, k[1, 1] * y, (k[0, 2] + 0.5) * x - 0.5, (k[1, 2] + 0.5) * y - 0.5)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
