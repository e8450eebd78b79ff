"""The demo's receiver: receives the node's output, scores it against the ground truth and draws the pictures.

It stores every depth image on disk, with its stamp and arrival time. The ground truth of each stamp is looked up after
the last frame, when the publisher's log exists."""

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

from stdnet_core.data.bags.ros_images import depth_of
from stdnet_core.errors import StdnetError
from stdnet_ros.demo.scoring import Reception, score
from stdnet_ros.demo.stream import open_stream
from stdnet_ros.demo.topics import OUTPUTS, NodeWatch, publishers_of, spin_for, stamp_nanoseconds
from stdnet_ros.processes import run_child

_QUIET = 4.0
"""Once the publisher has ended, the receiver stops after this many seconds without a message."""


class Receiver(Node):
    """Stores the node's depth images in ``depth`` (mapped from a file), and keeps the newest cloud and diagnostics."""

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
        """Whether every topic has a publisher."""
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
            raise StdnetError("the node published more frames than it received")
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
    """Receive until the output of every published frame has arrived, or no message has come for some seconds.

    Creates the file ``ready`` when everything is connected; returns the publisher's log from the file ``published``."""
    deadline = time.monotonic() + timeout
    while not receiver.connected:
        spin_for(receiver, 0.05)
    ready.touch()
    print("all topics of the node are connected", flush=True)
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
    # Wait for the node's next diagnostics, which include the last frame.
    spin_for(receiver, 1.3)
    receiver.got.diagnostics = receiver.node_watch.values
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", type=Path, required=True, help="folder written by stdnet_ros.demo.stream")
    parser.add_argument("--published", type=Path, required=True, help="log of the publisher, written at its end")
    parser.add_argument("--output", type=Path, required=True, help="folder for pictures and metrics.json")
    parser.add_argument("--ready", type=Path, required=True, help="file to create when everything is connected")
    parser.add_argument("--received", type=Path, required=True, help="file to create when everything was received")
    parser.add_argument("--namespace", default="/demo")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the publisher to end")
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
    run_child(main)
