"""Recorder process of the live run: writes the node's depth to a bag, and arrival times and diagnostics to a log."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from stdnet_ros.bag_evaluation.output_bag import RawBagWriter
from stdnet_ros.demo.topics import OUTPUTS, NodeWatch, publishers_of, spin_for
from stdnet_ros.processes import run_child

DEPTH_TOPIC = "/depth"
_QUIET = 3.0
_QUIET_AT_MOST = 60.0


class Recorder(Node):
    """Writes each depth image to the bag as it arrives."""

    def __init__(self, namespace: str, writer: RawBagWriter) -> None:
        super().__init__("recorder", namespace=namespace)
        self._writer = writer
        self.arrivals: list[tuple[int, int]] = []
        self.last = time.monotonic()
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        self.node_watch = NodeWatch(self)
        self._inlet = self.create_subscription(Image, OUTPUTS["depth/image"], self._on_depth, qos, raw=True)

    @property
    def connected(self) -> bool:
        """Whether the node and this process have discovered each other, and the node the player."""
        return publishers_of(self, self._inlet) > 0 and not self.node_watch.unconnected({"depth/image": 1})

    def _on_depth(self, data: bytes) -> None:
        arrival = time.monotonic_ns()
        self.last = time.monotonic()
        seconds, nanoseconds = np.frombuffer(data, "<u4" if data[1] & 1 else ">u4", 2, 4)
        stamp = int(seconds) * 10**9 + int(nanoseconds)
        self.arrivals.append((stamp, arrival))
        self._writer.write(DEPTH_TOPIC, stamp, data)
        if len(self.arrivals) == 1:
            print("the first depth image was received", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, required=True, help="bag to write")
    parser.add_argument(
        "--played", type=Path, required=True, help="log of the player; it exists when the replay has ended"
    )
    parser.add_argument("--ready", type=Path, required=True, help="file to create when everything is connected")
    parser.add_argument("--log", type=Path, required=True, help="file for arrival times and diagnostics")
    parser.add_argument("--namespace", required=True)
    args = parser.parse_args()
    rclpy.init()
    writer = RawBagWriter(args.bag)
    writer.add_topic(DEPTH_TOPIC, "sensor_msgs/msg/Image")
    recorder = Recorder(args.namespace, writer)
    try:
        while not recorder.connected and not args.played.exists():
            spin_for(recorder, 0.05)
        args.ready.touch()
        while not args.played.exists():
            spin_for(recorder, 0.1)
        ended = recorder.last = time.monotonic()
        while time.monotonic() - recorder.last < _QUIET and time.monotonic() - ended < _QUIET_AT_MOST:
            spin_for(recorder, 0.1)
        # Wait for the node's next diagnostics, which include the last frame.
        spin_for(recorder, 1.3)
        log = {"arrivals": recorder.arrivals, "diagnostics": recorder.node_watch.values}
    finally:
        writer.close()
        recorder.destroy_node()
        rclpy.try_shutdown()
    args.log.write_text(json.dumps(log))


if __name__ == "__main__":
    run_child(main)
