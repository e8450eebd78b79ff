"""Recordings: ROS 2 bags (mcap, sqlite3, split, compressed) and ROS 1 bags, read without a running graph.

Messages come out as the ROS types that the node's own parts take, whatever wrote the bag."""

from __future__ import annotations

import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from stdnet_core.cli import require
from stdnet_core.errors import DataError

TYPES = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/CameraInfo": CameraInfo,
}
"""Message types that are understood; others are passed over."""

_STORAGE_SUFFIXES = (".mcap", ".db3")


@dataclass(frozen=True)
class Raw:
    """A message as recorded.

    Attributes:
        topic: its topic.
        kind: its type, ``sensor_msgs/msg/Image`` for instance.
        logged: the recorder's time, nanoseconds.
        data: its bytes: CDR, or ROS 1's serialisation.
    """

    topic: str
    kind: str
    logged: int
    data: bytes


class Bag:
    """An open recording; use it in a ``with`` statement.

    Args:
        path: folder of a ROS 2 bag, or a .mcap, .db3 or .bag file.

    Attributes:
        path: as given.
        notes: what had to be done to read it.
        topics: topic -> type, of all topics that hold messages.
        counts: topic -> number of messages.
        start: recorder's time of the first message, nanoseconds.
        duration: seconds.

    Raises:
        DataError: there is no readable bag; says what was found and what can be done.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        highlevel = require("rosbags.highlevel", extra="bags")
        typesys = require("rosbags.typesys", extra="bags")
        files = self._files()
        try:
            self._reader = highlevel.AnyReader(files, default_typestore=typesys.get_typestore(typesys.Stores.LATEST))
            self._reader.open()
        except Exception as error:
            raise DataError(f"{self.path}: {_why_unreadable(error)}") from error
        self.topics = {c.topic: c.msgtype for c in self._reader.connections if c.msgcount}
        self.counts: dict[str, int] = {}
        for connection in self._reader.connections:
            self.counts[connection.topic] = self.counts.get(connection.topic, 0) + connection.msgcount
        if not self.topics:
            self.close()
            raise DataError(f"{self.path}: the bag is readable and holds no messages")
        self.start = self._reader.start_time
        self.duration = self._reader.duration / 1e9

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    @property
    def is_ros1(self) -> bool:
        """Whether messages are in ROS 1's serialisation."""
        return not self._reader.is2

    @property
    def typestore(self) -> Any:
        """The rosbags type store that knows the bag's types."""
        return self._reader.typestore

    def connections(self) -> list[Any]:
        """The rosbags connections, to copy topics with their type definitions and QoS."""
        return list(self._reader.connections)

    def messages(self, topics: Sequence[str], start: int | None = None, stop: int | None = None) -> Iterator[Raw]:
        """Messages of the topics in recorded order.

        Args:
            topics: which.
            start, stop: recorder's time in nanoseconds, from and before.

        Raises:
            DataError: the bag is damaged.
        """
        connections = [c for c in self._reader.connections if c.topic in topics]
        if not connections:
            return
        try:
            for connection, logged, data in self._reader.messages(connections, start=start, stop=stop):
                yield Raw(connection.topic, connection.msgtype, logged, data)
        except Exception as error:
            raise DataError(f"{self.path}: damaged in the middle ({type(error).__name__}: {error})") from error

    def first(self, topic: str) -> Any:
        """The first message of a topic, decoded; None without one."""
        for raw in self.messages([topic]):
            return self.decode(raw)
        return None

    def decode(self, raw: Raw) -> Any:
        """The message as a ROS type.

        Raises:
            DataError: the type is not one of :data:`TYPES`, or the bytes are no such message.
        """
        kind = TYPES.get(raw.kind)
        if kind is None:
            raise DataError(f"{self.path}: {raw.topic} has type {raw.kind}; expected one of {', '.join(TYPES)}")
        try:
            if self.is_ros1:
                return _as_ros2(self._reader.deserialize(raw.data, raw.kind), kind)
            return deserialize_message(bytes(raw.data), kind)
        except Exception as error:
            raise DataError(f"{self.path}: damaged message on {raw.topic} ({error})") from error

    def cdr(self, raw: Raw) -> bytes:
        """The message as ROS 2 puts it on the wire."""
        return serialize_message(self.decode(raw)) if self.is_ros1 else bytes(raw.data)

    def _files(self) -> list[Path]:
        """What to open: the path itself, or the storage files of a folder that has lost its metadata.yaml."""
        if not self.path.exists():
            raise DataError(f"{self.path}: no such file or folder; expected a ROS bag")
        if self.path.is_file() or (self.path / "metadata.yaml").is_file():
            return [self.path]
        files = sorted(p for p in self.path.iterdir() if p.suffix in _STORAGE_SUFFIXES)
        if not files:
            raise DataError(f"{self.path}: no ROS bag in this folder; expected metadata.yaml with .mcap or .db3 files")
        self.notes.append(f"metadata.yaml is missing; read {len(files)} storage files directly")
        return files


def _why_unreadable(error: Exception) -> str:
    text = str(error)
    if "end magic" in text:
        return (
            "the mcap file ends too early (the recorder was killed or the disk was full); recover it with "
            "'mcap recover FILE -o FIXED' and evaluate that; nothing was read"
        )
    if "magic" in text:
        return "this is not an mcap file; expected a ROS 2 bag (mcap, sqlite3) or a ROS 1 .bag file"
    if "malformed" in text or "not a database" in text:
        return f"the sqlite3 file is damaged ({text}); recover it with 'sqlite3 FILE .recover' and 'ros2 bag reindex'"
    if "not indexed" in text or "unindexed" in text:
        return "the bag has no index; make one with 'rosbag reindex' (ROS 1) or 'mcap recover' (mcap)"
    return f"no readable ROS bag ({text})"


def _as_ros2(source: Any, kind: Any) -> Any:
    """A ROS 1 message as the ROS 2 type of the same fields (which ROS 1 may spell in capitals: K, D, R, P)."""
    message = kind()
    for name, field_type in kind.get_fields_and_field_types().items():
        value = getattr(source, name, None)
        if value is None:
            value = getattr(source, name.upper(), None)
        if value is None:
            continue
        if isinstance(value, np.ndarray):
            if field_type == "sequence<uint8>":
                data = array.array("B")
                data.frombytes(np.ascontiguousarray(value).view(np.uint8).tobytes())
                value = data
            else:
                value = value.tolist()
        elif hasattr(value, "__dataclass_fields__"):
            value = _as_ros2(value, type(getattr(message, name)))
        elif isinstance(getattr(message, name), bool):
            value = bool(value)
        setattr(message, name, value)
    return message
