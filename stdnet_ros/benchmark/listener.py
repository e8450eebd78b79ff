"""The benchmark's listener: logs the arrival time of each message of the node, and the node's diagnostics."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from stdnet_core.errors import StdnetError
from stdnet_core.memory import keep_freed_memory
from stdnet_ros.benchmark.topics import DEPTH_OUT, DIAGNOSTICS, INFO_OUT, NAMESPACE, POINTS_OUT, qos
from stdnet_ros.demo.topics import NODE_NAME, spin_for, stamp_nanoseconds
from stdnet_ros.processes import run_child

_QUIET = 1.5
"""Once the camera has ended, the listener stops after this many seconds without a message."""


class Listener(Node):
    """Keeps (stamp, arrival time) in nanoseconds for each output, and every diagnostic status of the node."""

    def __init__(self, points: bool) -> None:
        super().__init__("listener", namespace=NAMESPACE)
        self.arrivals: dict[str, list[tuple[int, int]]] = {"depth": [], "camera_info": [], "points": []}
        self.diagnostics: list[dict[str, str]] = []
        self.last_message = time.monotonic()
        self._inlets = [
            self.create_subscription(Image, DEPTH_OUT, lambda message: self._note("depth", message), qos()),
            self.create_subscription(CameraInfo, INFO_OUT, lambda message: self._note("camera_info", message), qos()),
            self.create_subscription(DiagnosticArray, DIAGNOSTICS, self._on_diagnostics, qos()),
        ]
        if points:
            self._inlets.append(
                self.create_subscription(PointCloud2, POINTS_OUT, lambda message: self._note("points", message), qos())
            )

    def _note(self, kind: str, message) -> None:
        self.arrivals[kind].append((stamp_nanoseconds(message.header), self.get_clock().now().nanoseconds))
        self.last_message = time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if NODE_NAME in status.name:
                values = {item.key: item.value for item in status.values}
                self.diagnostics.append({"summary": status.message, **values})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=0, help="1: subscribe to the cloud as well")
    parser.add_argument(
        "--until", type=Path, required=True, help="log of the camera; it exists when the camera has ended"
    )
    parser.add_argument("--timeout", type=float, required=True, help="seconds to wait for the camera to end")
    parser.add_argument("--log", type=Path, required=True, help="file for arrival times and diagnostics")
    args = parser.parse_args()
    keep_freed_memory()
    rclpy.init()
    listener = Listener(bool(args.points))
    deadline = time.monotonic() + args.timeout
    try:
        while not args.until.exists():
            if time.monotonic() > deadline:
                raise StdnetError(f"the camera did not finish within {args.timeout:.0f} s")
            spin_for(listener, 0.5)
        ended = time.monotonic()
        while time.monotonic() - max(ended, listener.last_message) < _QUIET:
            spin_for(listener, 0.2)
        # Wait for the node's next diagnostics, which include the last frame.
        spin_for(listener, 1.3)
        args.log.write_text(json.dumps({"arrivals": listener.arrivals, "diagnostics": listener.diagnostics}))
    finally:
        listener.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    run_child(main)
