"""Shared by the demo's processes: topic names, the camera's ``frame_id``, and helpers for connections and spinning."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

NODE_NAME = "stdnet"
FRAME_ID = "camera_color_optical_frame"
INPUTS = ("color/image", "color/camera_info", "depth/image", "depth/camera_info")
OUTPUTS = {name: f"{NODE_NAME}/{name}" for name in ("depth/image", "depth/camera_info", "points")}


def stamp_nanoseconds(header: Header) -> int:
    """The header's stamp in nanoseconds."""
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def camera_info(intrinsics: Sequence[float], width: int, height: int, header: Header) -> CameraInfo:
    """CameraInfo of a rectified ``width`` x ``height`` image with fx, fy, cx, cy ``intrinsics`` in pixels."""
    fx, fy, cx, cy = intrinsics
    message = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def publishers_of(node: Node, subscription: Subscription) -> int:
    """Number of publishers that a subscription of ``node`` is connected to."""
    if hasattr(subscription, "get_publisher_count"):
        return subscription.get_publisher_count()
    return node.count_publishers(subscription.topic_name)  # Humble


class NodeWatch:
    """Subscribes to the node's diagnostics, for its counters and its connections.

    The two sides of a connection discover each other at different times, and messages sent in between are lost. So both
    sides are checked before anything is sent: the node with this class, other processes with :func:`publishers_of`.

    Attributes:
        values: key-value pairs of the last message; ``status`` is its summary.
    """

    def __init__(self, node: Node) -> None:
        self.values: dict[str, str] = {}
        self._name = f"{node.get_namespace().rstrip('/')}/{NODE_NAME}:"
        self._subscription = node.create_subscription(DiagnosticArray, "/diagnostics", self._take, 10)

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(self._name):
                self.values = {"status": status.message} | {item.key: item.value for item in status.values}

    def number(self, key: str) -> int:
        """The integer value of ``key``; 0 if it is missing."""
        return int(self.values.get(key, 0) or 0)

    def unconnected(self, listened_to: Mapping[str, int]) -> list[str]:
        """Topics of the node without a publisher, or with fewer subscribers than needed.

        Args:
            listened_to: least number of subscribers, by the end of the topic's name (``depth/image``).
        """
        if not self.values:
            return ["/diagnostics"]
        prefix = "publishers of "
        inputs = [key.removeprefix(prefix) for key in self.values if key.startswith(prefix)]
        missing = [topic for topic in inputs if self.number(prefix + topic) < 1]
        for end, least in listened_to.items():
            key = next(
                (k for k in self.values if k.startswith("subscribers of ") and k.endswith(f"{NODE_NAME}/{end}")), ""
            )
            if self.number(key) < least:
                missing.append(f"{NODE_NAME}/{end}")
        return missing if inputs else [*missing, "the node's inputs"]


def spin_for(node: Node, seconds: float) -> None:
    """Run the callbacks of ``node`` for that long.

    Raises:
        KeyboardInterrupt: a signal asked the process to stop.
    """
    deadline = time.monotonic() + seconds
    try:
        while True:
            rclpy.spin_once(node, timeout_sec=max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                return
    except ExternalShutdownException:
        raise KeyboardInterrupt from None
