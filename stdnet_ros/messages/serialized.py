"""Image messages as they come over the wire, read in place.

Making an rclpy message of a serialised image copies its data and holds Python's lock meanwhile. What the node needs of
it, its header and where the data are, can be read from the bytes in microseconds; the pixels are then converted on the
inference thread, and those of images that are never paired not at all.

The layout is that of CDR (OMG DDS-XTypes 1.3, 7.4.3): 4 bytes of encapsulation, then the fields in order, numbers
aligned to their size, strings and sequences behind their length."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from std_msgs.msg import Header

from stdnet_core.data.bags.ros_images import FrameError

_ENCAPSULATION = 4
_PLAIN = {0x0000: ">", 0x0001: "<", 0x0006: ">", 0x0007: "<"}
"""Encapsulations without further structure (CDR, and CDR2, which differs in 8-byte numbers alone) -> byte order."""


@dataclass(frozen=True)
class ImageView:
    """The fields of sensor_msgs/Image; ``data`` lies in the serialised message."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class CompressedImageView:
    """The fields of sensor_msgs/CompressedImage; ``data`` lies in the serialised message."""

    header: Header
    format: str
    data: memoryview


def read_image(serialized: bytes, cause: str, topic: str) -> ImageView:
    """A serialised sensor_msgs/Image.

    Args:
        serialized: as a ``raw`` subscription gives it.
        cause: drop counter of the error.
        topic: name used in the error.

    Raises:
        FrameError: the bytes are no such message.
    """
    reader = _Reader(serialized, cause, topic)
    header = reader.header()
    height, width = reader.uint32(), reader.uint32()
    encoding = reader.string()
    is_bigendian = reader.uint8()
    step = reader.uint32()
    return ImageView(header, height, width, encoding, is_bigendian, step, reader.data())


def read_compressed_image(serialized: bytes, cause: str, topic: str) -> CompressedImageView:
    """A serialised sensor_msgs/CompressedImage; arguments and errors as :func:`read_image`."""
    reader = _Reader(serialized, cause, topic)
    return CompressedImageView(reader.header(), reader.string(), reader.data())


class _Reader:
    """Reads one field after the other."""

    def __init__(self, serialized: bytes, cause: str, topic: str) -> None:
        self._bytes, self._at = serialized, _ENCAPSULATION
        self._cause, self._topic = cause, topic
        if len(serialized) < _ENCAPSULATION:
            raise self._short()
        kind = int.from_bytes(serialized[:2], "big")
        if kind not in _PLAIN:
            raise FrameError(cause, f"{topic}: messages of encapsulation 0x{kind:04x} cannot be read, only plain CDR")
        order = _PLAIN[kind]
        self._int32, self._uint32 = struct.Struct(f"{order}i"), struct.Struct(f"{order}I")

    def header(self) -> Header:
        header = Header()
        header.stamp.sec = self._word(self._int32)
        nanosec = self.uint32()
        if nanosec >= 1_000_000_000:
            raise FrameError(self._cause, f"{self._topic}: a stamp with {nanosec} nanoseconds in its second")
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
            self._cause, f"{self._topic}: the message ends after {len(self._bytes)} bytes, before its fields do"
        )
