"""Extrinsics from tf, if tf2_ros is installed (no pip package provides it for ROS 2)."""

from __future__ import annotations

from collections.abc import Callable

from stdnet_ros.messages.registration import Extrinsics

Lookup = Callable[[str, str, int], Extrinsics | None]


def make_transform_lookup(node) -> Lookup:
    """A function (source frame, target frame, stamp in ns) -> pose of source in target, None if it is unknown.

    The node subscribes to /tf at the first lookup, so a node without lookups has no overhead from it.
    """
    try:
        import tf2_ros
        from rclpy.time import Time
    except ImportError:
        return lambda source, target, stamp: None

    listening: list = []

    def lookup(source: str, target: str, stamp: int) -> Extrinsics | None:
        if not listening:
            buffer = tf2_ros.Buffer()
            listening.extend((buffer, tf2_ros.TransformListener(buffer, node)))
        buffer = listening[0]
        for time in (Time(nanoseconds=stamp), Time()):
            try:
                transform = buffer.lookup_transform(target, source, time).transform
            except tf2_ros.TransformException:
                continue
            move, turn = transform.translation, transform.rotation
            return Extrinsics.from_quaternion((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))
        return None

    return lookup
