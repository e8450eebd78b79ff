"""Reads and writes serialised camera_info messages; converts them only when something besides the stamp changes."""

from __future__ import annotations

import copy
import struct

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo

from stdnet_ros.messages.camera_info import CameraInfoError


class CameraInfoReader:
    """Reads the camera_info of one camera from serialised messages.

    A camera sends the same camera_info with each image, with a new stamp. Deserialising it costs more than pairing the
    images, so this is done only for changes: ``info`` is the same object until something besides the stamp changes."""

    _AFTER_STAMP = 12
    """CDR layout: 4 bytes of encapsulation, then header.stamp.sec and header.stamp.nanosec, 4 bytes each."""

    def __init__(self) -> None:
        self.info: CameraInfo | None = None
        self._content: bytes | None = None

    def take(self, serialized: bytes) -> None:
        """Update ``info``.

        Raises:
            CameraInfoError: the bytes are not a valid CameraInfo; ``info`` is unchanged.
        """
        content = serialized[self._AFTER_STAMP :]
        if content == self._content:
            return
        try:
            self.info = deserialize_message(serialized, CameraInfo)
        except (RuntimeError, ValueError) as error:
            raise CameraInfoError("the message cannot be deserialised") from error
        self._content = content


class CameraInfoWriter:
    """Serialises the camera_info of one camera; as long as only the stamp changes, it rewrites only the stamp."""

    _STAMP = struct.Struct("=iI")
    _AT = 4

    def __init__(self) -> None:
        self._info: CameraInfo | None = None
        self._bytes = bytearray()

    def serialized(self, info: CameraInfo) -> bytes:
        """The serialised message, for the middleware."""
        if self._info is None or not self._same_but_for_stamp(info, self._info):
            self._info, self._bytes = copy.copy(info), bytearray(serialize_message(info))
        else:
            self._STAMP.pack_into(self._bytes, self._AT, info.header.stamp.sec, info.header.stamp.nanosec)
        return bytes(self._bytes)

    @staticmethod
    def _same_but_for_stamp(info: CameraInfo, other: CameraInfo) -> bool:
        """Compares the arrays by identity, since shallow copies of one message share them."""
        arrays = all(getattr(info, name) is getattr(other, name) for name in ("d", "k", "r", "p", "roi"))
        return (
            arrays
            and all(
                getattr(info, name) == getattr(other, name)
                for name in ("height", "width", "distortion_model", "binning_x", "binning_y")
            )
            and info.header.frame_id == other.header.frame_id
        )
