"""The storage formats of recordings behind one interface: mcap and sqlite3 (ROS 2), and ROS 1 bags.

A file's format is detected by its first bytes. Messages are returned as bytes; :mod:`stdnet_core.data.bags.bag_file`
decodes them."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stdnet_core.cli import require
from stdnet_core.errors import DataError

STORAGE_SUFFIXES = (".mcap", ".db3", ".bag")
_MCAP_MAGIC = b"\x89MCAP0\r\n"
READABLE = ("cdr", "ros1")


@dataclass(frozen=True)
class Raw:
    """A message as recorded.

    Attributes:
        topic: its topic.
        kind: its type, such as ``sensor_msgs/msg/Image``.
        logged: time of recording in nanoseconds.
        data: the serialised message.
        ros1: whether it is in ROS 1's serialisation; CDR otherwise.
    """

    topic: str
    kind: str
    logged: int
    data: bytes
    ros1: bool = False


@dataclass(frozen=True)
class RecordedTopic:
    """A topic as listed in its file.

    Attributes:
        name, kind: name and type of the topic.
        encoding: serialisation: ``cdr``, ``ros1``, or one that cannot be read, such as ``json``.
        count: number of messages.
        definition: of the type, in ROS 2's message format; empty if the file has none in that format.
    """

    name: str
    kind: str
    encoding: str
    count: int
    definition: str = ""


class Storage(Protocol):
    """One file; ``span`` holds the recording times of its first and last message, None without messages."""

    topics: list[RecordedTopic]
    span: tuple[int, int] | None
    notes: list[str]

    def messages(self, topics: Sequence[str], start: int | None, stop: int | None) -> Iterator[Raw]: ...

    def close(self) -> None: ...


class _McapStorage:
    """An mcap file, of any profile; a truncated one is read from the start as far as possible."""

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
                self.notes.append(f"{path.name} is truncated; read as far as possible ('mcap recover' repairs it)")
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
        kinds = {t.name: t for t in self.topics if t.encoding in READABLE and t.name in topics}
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
        """List the contents of a file without an index, and where its messages are."""
        self._indexed = False
        self._places: list[tuple[int, int, int]] = []  # offset, times of the first and last message there
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
        """The record at an offset of the file, or the records inside it if it is a chunk; None after the last complete
        one."""
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
                raise DataError(f"{path}: this sqlite3 file has no messages and topics, so it is not a ROS bag")
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
        """Open the file with what a killed recorder left in its write-ahead log; without it on read-only media."""
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
        keys = [key for key, t in self._topics.items() if t.name in topics and t.encoding in READABLE]
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


STORAGES: dict[str, Callable[[Path], Storage]] = {".mcap": _McapStorage, ".db3": _SqliteStorage, ".bag": _Ros1Storage}
_FIRST_BYTES = {_MCAP_MAGIC: ".mcap", b"SQLite format 3\0": ".db3", b"#ROSBAG": ".bag"}


def kind_of(file: Path) -> str:
    """The format of a file, by its first bytes whatever its name; by its suffix if these are not known."""
    with file.open("rb") as opened:
        head = opened.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{file}: a Git LFS pointer, not the recording; fetch it with 'git lfs pull'")
    return next((kind for magic, kind in _FIRST_BYTES.items() if head.startswith(magic)), file.suffix)


def _type_name(name: str) -> str:
    """The type's name in ROS 2: ``sensor_msgs/Image`` (ROS 1, some converters) becomes ``sensor_msgs/msg/Image``."""
    return name.replace("/", "/msg/") if name.count("/") == 1 else name


def why_unreadable(error: Exception) -> str:
    text = str(error)
    if "magic" in text:
        return "no readable ROS bag: by its first bytes this is neither an mcap file (ROS 2) nor a .bag file (ROS 1)"
    if "malformed" in text or "not a database" in text:
        return f"the sqlite3 file is damaged ({text}); recover it with 'sqlite3 FILE .recover' and 'ros2 bag reindex'"
    if "index" in text or "unindexed" in text:
        return f"the ROS bag has no index ({text}); create one with 'rosbag reindex'"
    return f"no readable ROS bag ({type(error).__name__}: {text}); if truncated: 'rosbag reindex' or 'mcap recover'"
