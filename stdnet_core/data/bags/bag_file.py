"""Recordings of ROS as files: ROS 2 bags (mcap, sqlite3, split, compressed) and ROS 1 bags, read without ROS.

Only what is asked for is parsed. Which topics there are is told from the file's index; a message is decoded when it is
an image or a camera_info that somebody wants, by ROS's own definition of those types. So a bag may hold whatever else:
types that nobody has a definition of, JSON, protobuf, service events. ``mcap`` files are read by the package of that
name, sqlite3 by Python, ROS 1 bags and messages by ``rosbags``."""

from __future__ import annotations

import heapq
import re
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stdnet_core.cli import require
from stdnet_core.errors import DataError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"

STORAGE_SUFFIXES = (".mcap", ".db3", ".bag")
_COMPRESSED_SUFFIX = ".zstd"
_MCAP_MAGIC = b"\x89MCAP0\r\n"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""What a compressed message starts with; CDR starts with 0, and ROS 1's images with a small number."""
_READABLE = ("cdr", "ros1")
_PART = re.compile(r"(.*?)_?(\d+)")  # the parts of a split recording: run_0.mcap, run_1.mcap


@dataclass(frozen=True)
class Raw:
    """A message as recorded.

    Attributes:
        topic: its topic.
        kind: its type, ``sensor_msgs/msg/Image`` for instance.
        logged: the recorder's time, nanoseconds.
        data: its bytes.
        ros1: whether they are in ROS 1's serialisation; CDR otherwise.
    """

    topic: str
    kind: str
    logged: int
    data: bytes
    ros1: bool = False


@dataclass(frozen=True)
class RecordedTopic:
    """A topic as its file lists it.

    Attributes:
        name, kind: of the topic and its type.
        encoding: serialisation: ``cdr``, ``ros1``, or one that is not read, such as ``json``.
        count: messages.
        definition: of the type, in ROS 2's message format; empty where the file has none of that form.
    """

    name: str
    kind: str
    encoding: str
    count: int
    definition: str = ""


def is_bag_name(path: Path) -> bool:
    """Whether a file's name is that of a recording that can be read."""
    return path.name.removesuffix(_COMPRESSED_SUFFIX).endswith(STORAGE_SUFFIXES)


def recordings(folder: Path) -> list[list[Path]]:
    """The recordings whose files lie in a folder, the parts of a split one together and in order."""
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
        topics: topic -> type, of all topics that hold messages and can be read.
        counts: topic -> number of messages.
        definitions: topic -> its type's definition, where the file has one.
        start: recorder's time of the first message, nanoseconds.
        duration: seconds from there to the last message.

    Raises:
        DataError: there is no readable bag; says what was found and what can be done.
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
        self.topics = {t.name: t.kind for t in recorded if t.count and t.encoding in _READABLE}
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
        """What is in it, for messages: topic (type, number of messages)."""
        return ", ".join(f"{t} ({kind}, {self.counts[t]})" for t, kind in sorted(self.topics.items())) or "nothing"

    def messages(self, topics: Sequence[str], start: int | None = None, stop: int | None = None) -> Iterator[Raw]:
        """Messages of the topics in recorded order.

        Args:
            topics: which.
            start, stop: recorder's time in nanoseconds, from and before.

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
                f"{self.path}: damaged ROS bag ({type(error).__name__}: {error}); what can be saved, 'mcap recover' "
                "(mcap), 'sqlite3 FILE .recover' (sqlite3) or 'rosbag reindex' (ROS 1) save"
            ) from error

    def first(self, topic: str) -> Any:
        """The first message of a topic, decoded; None without one."""
        for raw in self.messages([topic]):
            return self.decode(raw)
        return None

    def decode(self, raw: Raw) -> Any:
        """An image or camera_info as an object with the fields of its type (those of ROS 1 in its spelling: K, D).

        Raises:
            DataError: it is of another type, or the bytes are no such message.
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
        """Nanoseconds of the header that an image starts with, without decoding the image.

        Raises:
            DataError: the message is too short to have one.
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
        """The storage files: those that metadata.yaml lists if it can be read and they are there, else the folder's."""
        path = self.path
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; expected a ROS bag")
        if path.is_file():
            if is_bag_name(path):
                return [path]
            remedy = "; finish it with 'rosbag reindex'" if path.name.endswith(".bag.active") else ""
            raise DataError(f"{path}: no ROS bag by its name, expected {', '.join(STORAGE_SUFFIXES)}{remedy}")
        metadata = path / "metadata.yaml"
        reason = "missing"
        if metadata.is_file():
            listed = _listed_files(metadata)
            if listed and all(file.is_file() for file in listed):
                return listed
            reason = "empty or damaged"
            if listed:
                reason = f"not this folder's: there is no {next(f.name for f in listed if not f.is_file())}"
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
                "('ros2 bag reindex' writes it anew)"
            )
        return found[0]

    def _with_content(self, files: list[Path]) -> list[Path]:
        """Without the empty last part that a killed recorder leaves."""
        full = [file for file in files if file.stat().st_size]
        if not full:
            raise DataError(f"{self.path}: {files[0].name} is empty; the ROS bag holds nothing")
        self.notes += [f"{file.name} is empty and left out" for file in files if file not in full]
        return full

    def _open(self, file: Path) -> _Storage:
        try:
            if file.suffix == _COMPRESSED_SUFFIX:
                file = self._decompressed(file)
            storage = _STORAGES[_kind(file)](file)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.path}: {_why_unreadable(error)}") from error
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


class _Storage(Protocol):
    """One file; ``span`` is the recorder's time of its first and last message, None without any."""

    topics: list[RecordedTopic]
    span: tuple[int, int] | None
    notes: list[str]

    def messages(self, topics: Sequence[str], start: int | None, stop: int | None) -> Iterator[Raw]: ...

    def close(self) -> None: ...


class _McapStorage:
    """An mcap file, of any profile; one that was cut off is read from its begin as far as it goes."""

    def __init__(self, path: Path) -> None:
        reader = require("mcap.reader", extra="bags")
        self._errors = require("mcap.exceptions", extra="bags")
        self._stream = require("mcap.stream_reader", extra="bags")
        self._types = require("mcap.records", extra="bags")
        self.notes: list[str] = []
        self._file = path.open("rb")
        self._indexed = True
        try:
            self._reader = reader.make_reader(self._file)
            try:
                summary = self._reader.get_summary()
            except (self._errors.McapError, OSError, struct.error):
                summary = None
                self.notes.append(f"{path.name} was cut off; read as far as it goes ('mcap recover' mends the file)")
            if summary is None or summary.statistics is None or not summary.channels:
                self._scan()
            else:
                counts = summary.statistics.channel_message_counts
                self._list(summary.schemas, summary.channels, counts)
                times = summary.statistics.message_start_time, summary.statistics.message_end_time
                self.span = times if summary.statistics.message_count else None
        except BaseException:
            self._file.close()
            raise

    def messages(self, topics: Sequence[str], start: int | None, stop: int | None) -> Iterator[Raw]:
        kinds = {t.name: t for t in self.topics if t.encoding in _READABLE and t.name in topics}
        if not kinds:
            return
        if self._indexed:
            found: Iterable[tuple[str, int, bytes]] = (
                (channel.topic, message.log_time, message.data)
                for _, channel, message in self._reader.iter_messages(
                    list(kinds), starting_at=start, ending_before=stop
                )
            )
        else:
            names = {i: channel.topic for i, channel in self._channels.items()}
            places = [
                at
                for at, first, last in self._places
                if (start is None or last >= start) and (stop is None or first < stop)
            ]
            message_type = self._types.Message
            messages = (r for at in places for r in self._records_at(at) or () if isinstance(r, message_type))
            found = ((names[message.channel_id], message.log_time, message.data) for message in messages)
        for name, logged, data in found:
            inside = (start is None or logged >= start) and (stop is None or logged < stop)
            if name in kinds and inside:
                yield Raw(name, kinds[name].kind, logged, data, kinds[name].encoding == "ros1")

    def close(self) -> None:
        self._file.close()

    def _scan(self) -> None:
        """List what is in a file without an index, and where its messages are."""
        self._indexed = False
        self._places: list[tuple[int, int, int]] = []  # offset, time of the first and last message there
        schemas: dict[int, Any] = {}
        channels: dict[int, Any] = {}
        counts: dict[int, int] = {}
        at = self._file.seek(len(_MCAP_MAGIC))
        while (records := self._records_at(at)) is not None:
            times = []
            for record in records:
                if isinstance(record, self._types.Message):
                    counts[record.channel_id] = counts.get(record.channel_id, 0) + 1
                    times.append(record.log_time)
                elif isinstance(record, self._types.Channel):
                    channels[record.id] = record
                elif isinstance(record, self._types.Schema):
                    schemas[record.id] = record
            if times:
                self._places.append((at, min(times), max(times)))
            at = self._file.tell()
        self._list(schemas, channels, counts)
        firsts, lasts = [first for _, first, _ in self._places], [last for _, _, last in self._places]
        self.span = (min(firsts), max(lasts)) if firsts else None

    def _records_at(self, at: int) -> list[Any] | None:
        """The record at an offset of the file, those inside it if it is a chunk; None behind the last whole one."""
        self._file.seek(at)
        try:
            record = next(self._stream.StreamReader(self._file, skip_magic=True, emit_chunks=True).records)
        except (self._errors.EndOfFile, self._errors.RecordLengthLimitExceeded, self._errors.InvalidMagic):
            return None
        if isinstance(record, self._types.Footer):
            return None
        return self._stream.breakup_chunk(record) if isinstance(record, self._types.Chunk) else [record]

    def _list(self, schemas: dict[int, Any], channels: dict[int, Any], counts: dict[int, int]) -> None:
        self._channels = channels
        self.topics = []
        for key, channel in channels.items():
            schema = schemas.get(channel.schema_id)
            text = schema.data.decode("utf-8", "replace") if schema and schema.encoding == "ros2msg" else ""
            kind = _type_name(schema.name) if schema else "unknown"
            topic = RecordedTopic(channel.topic, kind, channel.message_encoding, counts.get(key, 0), text)
            self.topics.append(topic)


class _SqliteStorage:
    """A .db3 file."""

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._base = self._connect(path)
        try:
            tables = {name for (name,) in self._base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"messages", "topics"} <= tables:
                raise DataError(f"{path}: a sqlite3 file without messages and topics is no ROS bag")
            counts = dict(self._base.execute("SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id"))
            definitions = {}
            if "message_definitions" in tables:
                query = (
                    "SELECT topic_type, encoded_message_definition FROM message_definitions WHERE encoding = 'ros2msg'"
                )
                definitions = dict(self._base.execute(query))
            rows = list(self._base.execute("SELECT id, name, type, serialization_format FROM topics"))
            first, last = self._base.execute("SELECT MIN(timestamp), MAX(timestamp) FROM messages").fetchone()
        except BaseException:
            self._base.close()
            raise
        self._topics = {
            key: RecordedTopic(name, _type_name(kind), form, counts.get(key, 0), definitions.get(kind, ""))
            for key, name, kind, form in rows
        }
        self.topics = list(self._topics.values())
        self.span = None if first is None else (first, last)

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        """As it is, with what a killed recorder left in its log; where that cannot be (read-only media), without."""
        for option in ("mode=ro", "immutable=1"):
            base = sqlite3.connect(f"{path.resolve().as_uri()}?{option}", uri=True, check_same_thread=False)
            try:
                base.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
                return base
            except sqlite3.OperationalError:
                base.close()
                if option == "immutable=1":
                    raise
        raise AssertionError("not reached")

    def messages(self, topics: Sequence[str], start: int | None, stop: int | None) -> Iterator[Raw]:
        keys = [key for key, t in self._topics.items() if t.name in topics and t.encoding in _READABLE]
        query = (
            f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({','.join('?' * len(keys))}) "
            "AND timestamp >= ? AND timestamp < ? ORDER BY timestamp, id"
        )
        limits = (-(2**63) if start is None else start, 2**63 - 1 if stop is None else stop)
        for key, logged, data in self._base.execute(query, (*keys, *limits)):
            topic = self._topics[key]
            yield Raw(topic.name, topic.kind, logged, data, topic.encoding == "ros1")

    def close(self) -> None:
        self._base.close()


class _Ros1Storage:
    """A .bag file of ROS 1."""

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._reader = require("rosbags.rosbag1", extra="bags").Reader(path)
        self._reader.open()
        self.topics = [
            RecordedTopic(name, info.msgtype or "several types", "ros1", info.msgcount)
            for name, info in self._reader.topics.items()
        ]
        times = self._reader.start_time, self._reader.end_time - 1
        self.span = times if self._reader.message_count else None

    def messages(self, topics: Sequence[str], start: int | None, stop: int | None) -> Iterator[Raw]:
        connections = [c for c in self._reader.connections if c.topic in topics]
        if connections:
            for connection, logged, data in self._reader.messages(connections, start, stop):
                yield Raw(connection.topic, connection.msgtype, logged, data, True)

    def close(self) -> None:
        self._reader.close()


_STORAGES = {".mcap": _McapStorage, ".db3": _SqliteStorage, ".bag": _Ros1Storage}
_FIRST_BYTES = {_MCAP_MAGIC: ".mcap", b"SQLite format 3\0": ".db3", b"#ROSBAG": ".bag"}


def _kind(file: Path) -> str:
    """What a file is by its first bytes, whatever it is called; by its name where they say nothing."""
    with file.open("rb") as opened:
        head = opened.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{file}: not the recording but a pointer to it; 'git lfs pull' fetches it")
    return next((kind for magic, kind in _FIRST_BYTES.items() if head.startswith(magic)), file.suffix)


def _type_name(name: str) -> str:
    """``sensor_msgs/Image``, as ROS 1 and some converters write it, is ``sensor_msgs/msg/Image``."""
    return name.replace("/", "/msg/") if name.count("/") == 1 else name


def _listed_files(metadata: Path) -> list[Path]:
    """The storage files that a metadata.yaml names, in its folder; none where it cannot be read."""
    yaml = require("yaml", extra="bags")
    try:
        content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        names = content["rosbag2_bagfile_information"]["relative_file_paths"]
        return [metadata.parent / Path(name).name for name in names]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, yaml.YAMLError):
        return []


def _why_unreadable(error: Exception) -> str:
    text = str(error)
    if "magic" in text:
        return "no readable ROS bag: by its first bytes this is no mcap file (ROS 2) and no .bag file (ROS 1)"
    if "malformed" in text or "not a database" in text:
        return f"the sqlite3 file is damaged ({text}); recover it with 'sqlite3 FILE .recover' and 'ros2 bag reindex'"
    if "index" in text or "unindexed" in text:
        return f"the ROS bag has no index ({text}); make one with 'rosbag reindex'"
    return f"no readable ROS bag ({type(error).__name__}: {text}); if it was cut off: 'rosbag reindex', 'mcap recover'"
