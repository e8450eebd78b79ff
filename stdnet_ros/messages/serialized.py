"""Reads serialised image messages in place, without copying their data.

To deserialise an image with rclpy copies its data and holds Python's global lock meanwhile. The node needs only the
header and the position of the data, which take microseconds to read from the bytes. The pixels are then converted on
the inference thread, and only for images that are paired.

The layout is that of CDR (OMG DDS-XTypes 1.3, 7.4.3): 4 bytes of encapsulation, then the fields in order. Numbers are
aligned to their size; strings and sequences follow their length."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from std_msgs.msg import Header

from stdnet_core.data.bags.ros_images import FrameError

_ENCAPSULATION = 4
_PLAIN = {0x0000: ">", 0x0001: "<", 0x0006: ">", 0x0007: "<"}
"""Byte order by encapsulation identifier, for plain CDR and plain CDR2 (which differs only in 8-byte numbers)."""


@dataclass(frozen=True)
class ImageView:
    """The fields of sensor_msgs/Image; ``data`` is a view of the serialised message."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class CompressedImageView:
    """The fields of sensor_msgs/CompressedImage; ``data`` is a view of the serialised message."""

    header: Header
    format: str
    data: memoryview


def read_image(serialized: bytes, cause: str, topic: str) -> ImageView:
    """Read a serialised sensor_msgs/Image.

    Args:
        serialized: the bytes that a ``raw`` subscription receives.
        cause: ``cause`` of the error, the name of a drop counter.
        topic: name of the topic in the error.

    Raises:
        FrameError: the bytes are not a valid message of that type.
    """
    reader = _Reader(serialized, cause, topic)
    header = reader.header()
    height, width = reader.uint32(), reader.uint32()
    encoding = reader.string()
    is_bigendian = reader.uint8()
    step = reader.uint32()
    return ImageView(header, height, width, encoding, is_bigendian, step, reader.data())


def read_compressed_image(serialized: bytes, cause: str, topic: str) -> CompressedImageView:
    """Read a serialised sensor_msgs/CompressedImage; arguments and errors are those of :func:`read_image`."""
    reader = _Reader(serialized, cause, topic)
    return CompressedImageView(reader.header(), reader.string(), reader.data())


class _Reader:
    """Reads one field after another."""

    def __init__(self, serialized: bytes, cause: str, topic: str) -> None:
        self._bytes, self._at = serialized, _ENCAPSULATION
        self._cause, self._topic = cause, topic
        if len(serialized) < _ENCAPSULATION:
            raise self._short()
        kind = int.from_bytes(serialized[:2], "big")
        if kind not in _PLAIN:
            raise FrameError(cause, f"{topic}: encapsulation 0x{kind:04x} is not supported, only plain CDR")
        order = _PLAIN[kind]
        self._int32, self._uint32 = struct.Struct(f"{order}i"), struct.Struct(f"{order}I")

    def header(self) -> Header:
        header = Header()
        header.stamp.sec = self._word(self._int32)
        nanosec = self.uint32()
        if nanosec >= 1_000_000_000:
            raise FrameError(self._cause, f"{self._topic}: invalid stamp: its nanoseconds are {nanosec}")
        header.stamp.nanosec = nanosec
        header.frame_id = self.string()
        return header

    def uint8(self) -> int:
        if self._at >= len(self._bytes):
            raise self._short()
        self._at += 1
        return self._bytes[self._at - 1]

    def uint32(self) -> int:
        return self._word(self._uint32)

    def string(self) -> str:
        text = bytes(self._take(self.uint32())).rstrip(b"\0")
        return text.decode("utf-8", "replace")

    def data(self) -> memoryview:
        return self._take(self.uint32())

    def _word(self, kind: struct.Struct) -> int:
        at = self._at + (_ENCAPSULATION - self._at) % 4
        self._at = at + 4
        if self._at > len(self._bytes):
            raise self._short()
        return kind.unpack_from(self._bytes, at)[0]

    def _take(self, length: int) -> memoryview:
        start, self._at = self._at, self._at + length
        if self._at > len(self._bytes):
            raise self._short()
        return memoryview(self._bytes)[start : self._at]

    def _short(self) -> FrameError:
        return FrameError(
            self._cause, f"{self._topic}: the message is truncated: it ends after {len(self._bytes)} bytes"
        )
