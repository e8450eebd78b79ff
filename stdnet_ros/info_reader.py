"""camera_info as it comes over the wire, made into a message only when it has changed."""

from __future__ import annotations

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from stdnet_ros.camera_info import CameraInfoError


class CameraInfoReader:
    """The camera_info of one camera, from serialised messages.

    A camera sends the same one with each image and a new stamp. Making a message of it costs more than pairing the
    images, so it is done for changes alone; ``info`` is the same object until something besides the stamp changes."""

    _AFTER_STAMP = 12
    """CDR: 4 bytes of encapsulation, then header.stamp.sec and header.stamp.nanosec, 4 bytes each."""

    def __init__(self) -> None:
        self.info: CameraInfo | None = None
        self._content: bytes | None = None

    def take(self, serialized: bytes) -> None:
        """Update ``info``.

        Raises:
            CameraInfoError: the bytes are no CameraInfo; ``info`` stays.
        """
        content = serialized[self._AFTER_STAMP :]
        if content == self._content:
            return
        try:
            self.info = deserialize_message(serialized, CameraInfo)
        except (RuntimeError, ValueError) as error:
            raise CameraInfoError("the message cannot be deserialised") from error
        self._content = content
