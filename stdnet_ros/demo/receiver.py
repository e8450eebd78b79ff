"""The demo's judge: receives what the node publishes, scores it against the truth and draws the pictures.

Every depth image goes to disk with its stamp and the time of its arrival; the truth belonging to a stamp is looked up
after the last frame, when the publisher's log is there."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from stdnet_core.cli import run_cli
from stdnet_core.data.bags.ros_images import depth_of
from stdnet_core.errors import StdnetError
from stdnet_ros.demo.scoring import Reception, score
from stdnet_ros.demo.stream import open_stream
from stdnet_ros.demo.topics import OUTPUTS, NodeWatch, publishers_of, spin_for, stamp_nanoseconds

_QUIET = 4.0
"""Seconds without a message after which nothing more is expected."""


class Receiver(Node):
    """Keeps the depth images of the node in ``depth`` (a file), the newest cloud and diagnostics in memory."""

    def __init__(self, namespace: str, depth: np.ndarray) -> None:
        super().__init__("receiver", namespace=namespace)
        self.got = Reception(depth, [], [], [], {}, 0, None, 0, {})
        self.last_message = time.monotonic()
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self.node_watch = NodeWatch(self)
        self._inlets = [
            self.create_subscription(Image, OUTPUTS["depth/image"], self._on_depth, qos),
            self.create_subscription(CameraInfo, OUTPUTS["depth/camera_info"], self._on_info, qos),
            self.create_subscription(PointCloud2, OUTPUTS["points"], self._on_cloud, qos),
        ]

    @property
    def connected(self) -> bool:
        """Whether every topic has its publisher."""
        return all(publishers_of(self, inlet) for inlet in self._inlets)

    def _on_depth(self, message: Image) -> None:
        self.last_message = time.monotonic()
        got, stamp = self.got, stamp_nanoseconds(message.header)
        if stamp in got.stamps:
            got.duplicates += 1
            return
        depth = depth_of(message)
        index = len(got.stamps)
        if index >= len(got.depth):
            raise StdnetError("the node published more frames than it was given")
        if depth.shape != got.depth.shape[1:]:
            raise StdnetError(
                f"the node published {depth.shape[1]}x{depth.shape[0]}, expected the colour size "
                f"{got.depth.shape[2]}x{got.depth.shape[1]}"
            )
        got.latencies.append((self.get_clock().now().nanoseconds - stamp) / 1e9)
        got.depth[index] = depth
        got.stamps.append(stamp)
        got.arrivals.append(self.last_message)

    def _on_info(self, message: CameraInfo) -> None:
        self.got.infos[stamp_nanoseconds(message.header)] = message

    def _on_cloud(self, message: PointCloud2) -> None:
        self.last_message = time.monotonic()
        self.got.clouds += 1
        self.got.cloud = message


def receive(receiver: Receiver, ready: Path, published: Path, timeout: float) -> dict:
    """Say when everything is connected, then take messages until all that was published has arrived or nothing more
    comes; returns the publisher's log."""
    deadline = time.monotonic() + timeout
    while not receiver.connected:
        spin_for(receiver, 0.05)
    ready.touch()
    print("all topics of the node are there", flush=True)
    log: dict | None = None
    while True:
        spin_for(receiver, 0.1)
        if log is None and published.exists():
            log = json.loads(published.read_text())
            receiver.last_message = time.monotonic()
        quiet = time.monotonic() - receiver.last_message
        if log is not None:
            complete = set(log["stamps"]) <= set(receiver.got.stamps) and receiver.got.clouds >= len(log["stamps"])
            if complete or quiet > _QUIET:
                break
        elif time.monotonic() > deadline:
            raise StdnetError(f"the publisher did not finish within {timeout:.0f} s")
    # The node's next diagnostics count the last frame as well.
    spin_for(receiver, 1.3)
    receiver.got.diagnostics = receiver.node_watch.values
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", type=Path, required=True, help="folder written by stdnet_ros.demo.stream")
    parser.add_argument("--published", type=Path, required=True, help="the publisher's log; it appears at the end")
    parser.add_argument("--output", type=Path, required=True, help="folder for pictures and metrics.json")
    parser.add_argument("--ready", type=Path, required=True, help="file that appears when it listens")
    parser.add_argument("--received", type=Path, required=True, help="file that appears when all has been received")
    parser.add_argument("--namespace", default="/demo")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the publisher's end")
    args = parser.parse_args()
    stream = open_stream(args.stream)
    depth = np.lib.format.open_memmap(args.stream / "output.npy", mode="w+", dtype=np.float32, shape=stream.truth.shape)
    rclpy.init()
    receiver = Receiver(args.namespace, depth)
    try:
        log = receive(receiver, args.ready, args.published, args.timeout)
    finally:
        receiver.destroy_node()
        rclpy.try_shutdown()
    got = receiver.got
    print(f"received {len(got.stamps)} depth images, {len(got.infos)} camera_infos and {got.clouds} clouds", flush=True)
    args.received.touch()
    score(stream, receiver.got, log, args.output)


if __name__ == "__main__":
    run_cli(main)
