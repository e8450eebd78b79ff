"""Recordings whose messages are decoded to ROS 2 types, as the node's code needs them, even from ROS 1 bags."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from stdnet_core.data.bags.bag_file import BagFile
from stdnet_core.data.bags.storage import Raw
from stdnet_core.errors import DataError

TYPES = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/CameraInfo": CameraInfo,
}
"""Supported message types; others are ignored."""


class Bag(BagFile):
    """An open recording whose images and camera_infos are ROS messages; see :class:`BagFile`."""

    def decode(self, raw: Raw) -> Any:
        """The message as a ROS type.

        Raises:
            DataError: the type is not one of :data:`TYPES`, or the bytes are not a valid message of that type.
        """
        kind = TYPES.get(raw.kind)
        if kind is None or raw.ros1:
            message = super().decode(raw)
            return _as_ros2(message, kind)
        try:
            return deserialize_message(bytes(raw.data), kind)
        except Exception as error:
            raise DataError(f"{self.path}: damaged message on {raw.topic} ({error})") from error

    def cdr(self, raw: Raw) -> bytes:
        """The message in ROS 2's serialised format (CDR)."""
        return serialize_message(self.decode(raw)) if raw.ros1 else bytes(raw.data)


def _as_ros2(source: Any, kind: Any) -> Any:
    """Convert a ROS 1 message to the ROS 2 type with the same fields (in ROS 1 some are capitals: K, D, R, P)."""
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
