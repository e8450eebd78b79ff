"""Reads recordings without ROS: ROS 2 bags (mcap, sqlite3, split, compressed) and ROS 1 bags.

Only what is requested is parsed. Topics are listed from the file's index, and only requested images and camera_infos
are decoded, by ROS's own definitions of their types. A bag may therefore hold anything else: types without a
definition, JSON, protobuf, service events. ``mcap`` files are read by the package of that name, sqlite3 by Python,
ROS 1 bags and all messages by ``rosbags``."""

from __future__ import annotations

import heapq
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stdnet_core.cli import require
from stdnet_core.data.bags.storage import READABLE, STORAGE_SUFFIXES, STORAGES, Raw, Storage, kind_of, why_unreadable
from stdnet_core.errors import DataError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_COMPRESSED_SUFFIX = ".zstd"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of a compressed message; CDR starts with 0, and ROS 1's images start with a small number."""
_PART = re.compile(r"(.*?)_?(\d+)")  # the parts of a split recording: run_0.mcap, run_1.mcap


def is_bag_name(path: Path) -> bool:
    """Whether a file has the name of a recording that can be read."""
    return path.name.removesuffix(_COMPRESSED_SUFFIX).endswith(STORAGE_SUFFIXES)


def recordings(folder: Path) -> list[list[Path]]:
    """The recordings in a folder, each as a list of its files: the parts of a split recording in order."""
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_bag_name(path):
            stem, dot, kind = path.name.removesuffix(_COMPRESSED_SUFFIX).rpartition(".")
            part = _PART.fullmatch(stem)
            name, number = (part[1], int(part[2])) if part else (stem, 0)
            found.setdefault((name, dot + kind), []).append((number, path))
    return [[path for _, path in sorted(parts)] for parts in found.values()]


class BagFile:
    """An open recording; use it in a ``with`` statement, or close it.

    Args:
        path: folder of a ROS 2 bag, folder with the parts of one recording, or an .mcap, .db3 or .bag file (also
            compressed: .mcap.zstd, .db3.zstd).

    Attributes:
        path: as given.
        notes: what had to be done to read it.
        topics: topic -> type, of all topics with messages that can be read.
        counts: topic -> number of messages.
        definitions: topic -> definition of its type, if the file has one.
        start: time of recording of the first message, in nanoseconds.
        duration: seconds from the first to the last message.

    Raises:
        DataError: there is no readable bag; the error says what was found and what can be done.
        StdnetError: the packages that read bags are not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self._stack = ExitStack()
        self._typestores: dict[bool, Any] = {}
        try:
            self._storages = [self._open(file) for file in self._with_content(self._files())]
        except BaseException:
            self.close()
            raise
        recorded = [topic for storage in self._storages for topic in storage.topics]
        self.topics = {t.name: t.kind for t in recorded if t.count and t.encoding in READABLE}
        self.counts: dict[str, int] = {}
        for topic in recorded:
            self.counts[topic.name] = self.counts.get(topic.name, 0) + topic.count
        self.definitions = {t.name: t.definition for t in recorded if t.definition}
        if not self.topics:
            self.close()
            others = ", ".join(f"{t.name} ({t.encoding} {t.kind})" for t in recorded if t.count)
            only = f" of ROS, only {others}" if others else ""
            raise DataError(
                "; ".join([f"{self.path}: the ROS bag is readable and holds no messages{only}", *self.notes])
            )
        spans = [storage.span for storage in self._storages if storage.span is not None]
        self.start = min(first for first, _ in spans)
        self.duration = (max(last for _, last in spans) - self.start) / 1e9

    def __enter__(self) -> BagFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def is_ros1(self) -> bool:
        """Whether messages are in ROS 1's serialisation."""
        return any(t.encoding == "ros1" for storage in self._storages for t in storage.topics)

    def contents(self) -> str:
        """The topics as text: topic (type, number of messages)."""
        return ", ".join(f"{t} ({kind}, {self.counts[t]})" for t, kind in sorted(self.topics.items())) or "nothing"

    def messages(self, topics: Sequence[str], start: int | None = None, stop: int | None = None) -> Iterator[Raw]:
        """Messages of the topics in recorded order.

        Args:
            topics: which topics; those that are not in the bag are ignored.
            start, stop: times of recording in nanoseconds, inclusive and exclusive.

        Raises:
            DataError: the bag is damaged.
        """
        wanted = [topic for topic in topics if topic in self.topics]
        if not wanted:
            return
        zstandard = None
        try:
            for raw in heapq.merge(
                *(storage.messages(wanted, start, stop) for storage in self._storages), key=lambda raw: raw.logged
            ):
                if raw.data[:4] == _ZSTD_MAGIC:
                    zstandard = zstandard or require("zstandard", extra="bags")
                    data = zstandard.ZstdDecompressor().decompressobj().decompress(raw.data)
                    raw = Raw(raw.topic, raw.kind, raw.logged, data, raw.ros1)
                yield raw
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.path}: damaged ROS bag ({type(error).__name__}: {error}); save what can be saved with 'mcap "
                "recover' (mcap), 'sqlite3 FILE .recover' (sqlite3) or 'rosbag reindex' (ROS 1)"
            ) from error

    def first(self, topic: str) -> Any:
        """The first message of a topic, decoded; None if there is none."""
        for raw in self.messages([topic]):
            return self.decode(raw)
        return None

    def decode(self, raw: Raw) -> Any:
        """An image or camera_info as an object with the fields of its type (of ROS 1 with its spelling: K, D).

        Raises:
            DataError: the message is of another type or damaged.
        """
        if raw.kind not in (*IMAGE_TYPES, CAMERA_INFO_TYPE):
            expected = ", ".join((*IMAGE_TYPES, CAMERA_INFO_TYPE))
            raise DataError(f"{self.path}: {raw.topic} has type {raw.kind}; expected one of {expected}")
        try:
            store = self.typestore(raw.ros1)
            return (store.deserialize_ros1 if raw.ros1 else store.deserialize_cdr)(raw.data, raw.kind)
        except Exception as error:
            raise DataError(f"{self.path}: damaged message on {raw.topic} ({error})") from error

    def typestore(self, ros1: bool) -> Any:
        """The rosbags type store with ROS's own types."""
        if ros1 not in self._typestores:
            typesys = require("rosbags.typesys", extra="bags")
            stores = typesys.Stores
            self._typestores[ros1] = typesys.get_typestore(stores.ROS1_NOETIC if ros1 else stores.LATEST)
        return self._typestores[ros1]

    def header_stamp(self, raw: Raw) -> int:
        """Header stamp of an image in nanoseconds, without decoding the image.

        Raises:
            DataError: the message is too short to have a header.
        """
        try:
            if raw.ros1:  # seq, secs, nsecs
                seconds, nanoseconds = struct.unpack_from("<II", raw.data, 4)
            else:  # encapsulation header, sec, nanosec
                seconds, nanoseconds = struct.unpack_from("<iI" if raw.data[1] & 1 else ">iI", raw.data, 4)
        except (struct.error, IndexError) as error:
            raise DataError(f"{self.path}: damaged message on {raw.topic} ({len(raw.data)} bytes)") from error
        return seconds * 10**9 + nanoseconds

    def _files(self) -> list[Path]:
        """The storage files: those that metadata.yaml lists if it is readable and they exist, else the folder's."""
        path = self.path
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; expected a ROS bag")
        if path.is_file():
            if is_bag_name(path):
                return [path]
            remedy = "; finish it with 'rosbag reindex'" if path.name.endswith(".bag.active") else ""
            raise DataError(f"{path}: not named as a ROS bag is, expected {', '.join(STORAGE_SUFFIXES)}{remedy}")
        metadata = path / "metadata.yaml"
        reason = "missing"
        if metadata.is_file():
            listed = _listed_files(metadata)
            if listed and all(file.is_file() for file in listed):
                return listed
            reason = "empty or damaged"
            if listed:
                reason = f"of another folder: there is no {next(f.name for f in listed if not f.is_file())}"
        found = recordings(path)
        if not found:
            active = next(path.glob("*.bag.active"), None)
            hint = f"; {active.name} was not finished: 'rosbag reindex'" if active else ""
            inner = [f.name for f in sorted(path.iterdir()) if f.is_dir() and recordings(f)]
            hint += f"; give the path of one inside: {', '.join(inner[:5])}" if inner else ""
            raise DataError(
                f"{path}: no ROS bag in this folder; expected metadata.yaml with .mcap or .db3 files, or .bag "
                f"files{hint}"
            )
        if len(found) > 1:
            names = ", ".join(files[0].name for files in found[:5])
            raise DataError(f"{path}: {len(found)} recordings are in this folder ({names} ...); give the path of one")
        if found[0][0].suffix != ".bag":
            self.notes.append(
                f"metadata.yaml is {reason}; read {len(found[0])} storage file{'s' * (len(found[0]) > 1)} directly "
                "('ros2 bag reindex' recreates it)"
            )
        return found[0]

    def _with_content(self, files: list[Path]) -> list[Path]:
        """The files that are not empty; a killed recorder leaves an empty last part."""
        full = [file for file in files if file.stat().st_size]
        if not full:
            raise DataError(f"{self.path}: {files[0].name} is empty; the ROS bag has no messages")
        self.notes += [f"{file.name} is empty and ignored" for file in files if file not in full]
        return full

    def _open(self, file: Path) -> Storage:
        try:
            if file.suffix == _COMPRESSED_SUFFIX:
                file = self._decompressed(file)
            storage = STORAGES[kind_of(file)](file)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.path}: {why_unreadable(error)}") from error
        self._stack.callback(storage.close)
        self.notes.extend(storage.notes)
        return storage

    def _decompressed(self, file: Path) -> Path:
        zstandard = require("zstandard", extra="bags")
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bag_")))
        plain = folder / file.stem
        with (
            file.open("rb") as packed,
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as source,
            plain.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
        return plain


def _listed_files(metadata: Path) -> list[Path]:
    """The storage files that a metadata.yaml names, in its folder; none if it cannot be read."""
    yaml = require("yaml", extra="bags")
    try:
        content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        names = content["rosbag2_bagfile_information"]["relative_file_paths"]
        return [metadata.parent / Path(name).name for name in names]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, yaml.YAMLError):
        return []
