"""Recorded ROS bags (ROS 2 mcap and sqlite3, ROS 1) as sequences, read without ROS by the ``rosbags`` package.

The colour and depth topics are found by type, content and name, or given as in ``bag:/run?color=/cam/rgb&depth=/tof``.
Frames are paired by nearest header stamp. Opening reads the bag once, for its stamps; images are decoded when asked
for."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stdnet_core.cli import require
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.file_sequence import intrinsic_matrix, is_smaller_version
from stdnet_core.data.rgbd_sequence import frame_indices
from stdnet_core.data.stamp_matching import match_nearest
from stdnet_core.errors import DataError, StdnetError
from stdnet_core.ros_images import FrameError, color_of, depth_of, is_depth

MAX_DIFFERENCE_S = 0.02
"""Largest difference between the stamps of a colour and a depth frame that belong together."""

_IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_GOOD_NAMES = {"color": ("color", "colour", "rgb"), "depth": ("aligned", "registered", "rect")}
_BAD_NAMES = ("infra", "/ir/", "mono", "confidence", "thumbnail", "mask", "stdnet")


@dataclass(frozen=True)
class _Recorded:
    """Where a message is in the bag, and its own stamp.

    Attributes:
        logged: the recorder's time in nanoseconds, by which bags are indexed.
        repeat: how many messages of the topic before it have the same ``logged``.
        stamp: header stamp in seconds.
    """

    logged: int
    repeat: int
    stamp: float


class BagSequence:
    """The colour and depth frames of a bag that belong together.

    Depth smaller than colour but of its proportions becomes ``depth_lr``, and ``depth`` is then all invalid.

    Args:
        path: folder of a ROS 2 bag, or an .mcap, .db3 or (ROS 1) .bag file.
        color_topic, depth_topic: found by type, content and name when not given.
        max_difference: of the stamps of a pair, in seconds.

    Attributes:
        color_topic, depth_topic: what is read.
        lr_scale: ratio of the sizes if depth is of lower resolution, else None.
        unpaired: numbers of (colour, depth) frames without a partner.

    Raises:
        DataError: the bag is damaged, or has no colour and depth that belong together.
        StdnetError: the ``rosbags`` package is not installed.
    """

    def __init__(
        self,
        path: Path,
        color_topic: str | None = None,
        depth_topic: str | None = None,
        max_difference: float = MAX_DIFFERENCE_S,
    ) -> None:
        self.path = path
        self.name = path.stem if path.is_file() else path.resolve().name
        self._reader: Any = None
        self._process = 0
        reader = self._open()
        connections = [c for c in reader.connections if c.msgtype in _IMAGE_TYPES]
        first = {c.topic: message for c in connections if (message := self._first(c)) is not None}
        depth_topics = [topic for topic, message in first.items() if is_depth(message)]
        color_topics = [topic for topic in first if topic not in depth_topics]
        self.color_topic = self._choose("color", color_topic, color_topics)
        self.depth_topic = self._choose("depth", depth_topic, depth_topics)
        color = self._image(self.color_topic, first[self.color_topic])
        depth = self._image(self.depth_topic, first[self.depth_topic])
        self.frame_size = color.shape[0], color.shape[1]
        self.lr_scale = None if depth.shape == self.frame_size else self.frame_size[0] / depth.shape[0]
        self._depth_size = depth.shape
        if not is_smaller_version(depth.shape, self.frame_size):
            raise DataError(
                f"{path}: depth of {depth.shape[1]}x{depth.shape[0]} pixels on {self.depth_topic} is not aligned with "
                f"colour of {color.shape[1]}x{color.shape[0]} on {self.color_topic}; choose a registered depth topic "
                f"with bag:{path}?depth=TOPIC (depth topics: {', '.join(depth_topics)})"
            )
        self.intrinsics = self._camera(reader)
        colors, depths = self._index(reader, self.color_topic), self._index(reader, self.depth_topic)
        pairs = match_nearest([c.stamp for c in colors], [d.stamp for d in depths], max_difference)
        if not pairs:
            raise DataError(
                f"{path}: no frames of {self.color_topic} and {self.depth_topic} within {1e3 * max_difference:g} ms"
            )
        self._pairs = [(colors[i], depths[j]) for i, j in pairs]
        self.unpaired = len(colors) - len(pairs), len(depths) - len(pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_process": 0}

    def clip(self, start: int, length: int, stride: int = 1) -> RgbdClip:
        """Read ``length`` frames from ``start``, every ``stride``-th one; see :class:`RgbdSequence`."""
        pairs = [self._pairs[index] for index in frame_indices(self, start, length, stride)]
        color_messages = self._read(self.color_topic, [color for color, _ in pairs])
        depth_messages = self._read(self.depth_topic, [depth for _, depth in pairs])
        colors = [self._image(self.color_topic, message) for message in color_messages]
        depths = [self._image(self.depth_topic, message) for message in depth_messages]
        for topic, images, size in (
            (self.color_topic, colors, self.frame_size),
            (self.depth_topic, depths, self._depth_size),
        ):
            for image, (pair, _) in zip(images, pairs, strict=True):
                if image.shape[:2] != size:
                    raise DataError(
                        f"{self.path}: {topic} changes from {size[1]}x{size[0]} to {image.shape[1]}x{image.shape[0]} "
                        f"pixels at {pair.stamp:.3f} s; cut the bag there"
                    )
        rgb = torch.from_numpy(np.stack(colors)).permute(0, 3, 1, 2).contiguous().float().div_(255)
        measured = torch.from_numpy(np.stack(depths)).unsqueeze(1)
        low = None if self.lr_scale is None else measured
        depth = rgb.new_zeros(length, 1, *self.frame_size) if low is not None else measured
        stamps = torch.tensor([color.stamp for color, _ in pairs], dtype=torch.float64)
        return RgbdClip(rgb, depth, depth > 0, intrinsics=self.intrinsics, depth_lr=low, stamps=stamps, name=self.name)

    def _open(self) -> Any:
        """The bag's reader, one for each process (readers seek in an open file)."""
        if self._reader is None or self._process != os.getpid():
            anyreader = require("rosbags.highlevel.anyreader", extra="bags")
            typesys = require("rosbags.typesys", extra="bags")
            default = typesys.get_typestore(typesys.Stores.LATEST)
            try:
                reader = anyreader.AnyReader([self.path], default_typestore=default)
                reader.open()
            except Exception as error:
                raise DataError(
                    f"{self.path}: no readable ROS bag ({error}); if it was cut off, repair it (mcap recover, "
                    "ros2 bag reindex, rosbag reindex)"
                ) from error
            self._reader, self._process = reader, os.getpid()
        return self._reader

    def _messages(self, connections: Sequence[Any], start: int | None = None, stop: int | None = None) -> Iterator[Any]:
        reader = self._open()
        try:
            yield from reader.messages(connections, start=start, stop=stop)
        except StdnetError:
            raise
        except Exception as error:
            raise DataError(f"{self.path}: damaged ROS bag ({type(error).__name__}: {error})") from error

    def _decoded(self, connection: Any, raw: bytes) -> Any:
        try:
            return self._open().deserialize(raw, connection.msgtype)
        except Exception as error:
            raise DataError(f"{self.path}: damaged message on {connection.topic} ({error})") from error

    def _image(self, topic: str, message: Any) -> np.ndarray:
        """Colour (H, W, 3) uint8, or depth (H, W) float32 in metres, 0 invalid."""
        try:
            if topic == self.color_topic:
                return color_of(message, topic)
            return np.nan_to_num(depth_of(message, topic=topic), copy=False)
        except FrameError as error:
            raise DataError(f"{self.path}: {error}") from error

    def _first(self, connection: Any) -> Any:
        for _, _, raw in self._messages([connection]):
            return self._decoded(connection, raw)
        return None

    def _choose(self, kind: str, wanted: str | None, topics: list[str]) -> str:
        there = ", ".join(f"{c.topic} ({c.msgtype})" for c in self._open().connections) or "nothing"
        if wanted is not None:
            if wanted not in topics:
                raise DataError(f"{self.path}: no {kind} images on {wanted}; the bag holds {there}")
            return wanted
        if not topics:
            raise DataError(f"{self.path}: no topic with {kind} images; the bag holds {there}")

        def rank(topic: str) -> tuple[int, int, int, str]:
            lower = topic.lower()
            bad = any(word in lower for word in _BAD_NAMES)
            good = any(word in lower for word in _GOOD_NAMES[kind])
            return bad, not good, "compressed" in lower, topic

        return min(topics, key=rank)

    def _index(self, reader: Any, topic: str) -> list[_Recorded]:
        connections = [c for c in reader.connections if c.topic == topic and c.msgtype in _IMAGE_TYPES]
        found: list[_Recorded] = []
        for _, logged, raw in self._messages(connections):
            repeat = found[-1].repeat + 1 if found and found[-1].logged == logged else 0
            found.append(_Recorded(logged, repeat, _header_stamp(raw, reader.is2, self.path, topic)))
        return found

    def _read(self, topic: str, wanted: list[_Recorded]) -> list[Any]:
        """The messages asked for, in their order."""
        connections = [c for c in self._open().connections if c.topic == topic and c.msgtype in _IMAGE_TYPES]
        missing = {(w.logged, w.repeat): None for w in wanted}
        start, stop = min(w.logged for w in wanted), max(w.logged for w in wanted) + 1
        last, repeat = None, 0
        for connection, logged, raw in self._messages(connections, start, stop):
            repeat = repeat + 1 if logged == last else 0
            last = logged
            if (logged, repeat) in missing:
                missing[logged, repeat] = self._decoded(connection, raw)
        messages = [missing[w.logged, w.repeat] for w in wanted]
        if any(message is None for message in messages):
            raise DataError(f"{self.path}: the bag has changed since it was opened; messages of {topic} are gone")
        return messages

    def _camera(self, reader: Any) -> Tensor | None:
        """Camera matrix in pixels of the colour frames from the CameraInfo nearest to the colour topic's name."""
        infos = [c for c in reader.connections if c.msgtype == _CAMERA_INFO]
        place = self.color_topic.split("/")

        def common(topic: str) -> int:
            same = [a == b for a, b in zip(topic.split("/"), place, strict=False)]
            return same.index(False) if False in same else len(same)

        infos = [c for c in infos if common(c.topic) >= max(1, len(c.topic.split("/")) - 1)]
        if not infos:
            return None
        connection = max(infos, key=lambda c: common(c.topic))
        info = self._first(connection)
        if info is None:
            return None
        k = np.asarray(info.k if hasattr(info, "k") else info.K, dtype=np.float64).reshape(3, 3)
        if not (np.isfinite(k).all() and k[0, 0] > 0 and k[1, 1] > 0 and info.width and info.height):
            return None
        x, y = self.frame_size[1] / info.width, self.frame_size[0] / info.height
        return intrinsic_matrix(k[0, 0] * x, k[1, 1] * y, (k[0, 2] + 0.5) * x - 0.5, (k[1, 2] + 0.5) * y - 0.5)


def split_topics(source: str) -> tuple[str, dict[str, str]]:
    """Split ``PATH?color=TOPIC&depth=TOPIC`` into the path and the topics.

    Raises:
        DataError: an option is unknown or has no value.
    """
    path, _, query = source.partition("?")
    topics: dict[str, str] = {}
    for option in filter(None, query.split("&")):
        name, _, topic = option.partition("=")
        if name not in ("color", "depth") or not topic:
            raise DataError(f"{source!r}: {option!r} is no option of a bag; use color=TOPIC and depth=TOPIC")
        topics[name] = topic
    return path, topics


def _header_stamp(raw: bytes, is_ros2: bool, path: Path, topic: str) -> float:
    """Seconds of the std_msgs/Header that a message starts with, without decoding the message."""
    try:
        if is_ros2:  # encapsulation header, then sec, nanosec
            order = "<" if raw[1] & 1 else ">"
            seconds, nanoseconds = struct.unpack_from(order + "iI", raw, 4)
        else:  # seq, then secs, nsecs
            seconds, nanoseconds = struct.unpack_from("<II", raw, 4)
    except (struct.error, IndexError) as error:
        raise DataError(f"{path}: damaged message on {topic} ({error})") from error
    return seconds + 1e-9 * nanoseconds
