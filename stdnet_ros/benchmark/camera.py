"""The benchmark's camera: publishes the same frame at a fixed rate, stamped just before it is published."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import rclpy
from rclpy.node import Node

from stdnet_core.errors import StdnetError
from stdnet_core.memory import keep_freed_memory
from stdnet_ros.benchmark.topics import NAMESPACE, Scene, message_type, qos
from stdnet_ros.demo.topics import INPUTS, NODE_NAME, NodeWatch, spin_for
from stdnet_ros.processes import run_child


class Camera(Node):
    """Publishes one scene repeatedly.

    Args:
        scene: the frame to publish.
        awaited: topics of other processes that must have a subscriber first.
        watch_node: whether to wait until the node's diagnostics report that it is connected. The ROS graph shows only
            that both sides exist; messages that are sent before they have discovered each other are lost.
    """

    def __init__(self, scene: Scene, awaited: list[str], watch_node: bool) -> None:
        super().__init__("camera", namespace=NAMESPACE)
        self._messages = scene.messages()
        self._senders = {topic: self.create_publisher(message_type(topic), topic, qos()) for topic in INPUTS}
        self._awaited = [self.resolve_topic_name(topic) for topic in awaited]
        self._outputs = {topic.removeprefix(f"{NODE_NAME}/"): 1 for topic in awaited}
        self._watch = NodeWatch(self) if watch_node else None

    def wait_for_listeners(self, optional: tuple[str, ...], timeout: float) -> None:
        """Wait until all topics have subscribers, except the ``optional`` ones.

        Raises:
            StdnetError: a topic has no subscriber after ``timeout`` seconds.
        """
        ours = [self.resolve_topic_name(topic) for topic in INPUTS if topic not in optional]
        deadline = time.monotonic() + timeout
        while missing := self._unconnected(ours + self._awaited):
            if time.monotonic() > deadline:
                raise StdnetError(f"{', '.join(missing)} not connected after {timeout:.0f} s; see the logs")
            spin_for(self, 0.05)
        # The other side of each connection discovers it a moment later.
        spin_for(self, 1.5)
        # Order is not kept between topics, so the first image could overtake the first camera_info.
        for topic in INPUTS:
            if topic.endswith("camera_info"):
                self._senders[topic].publish(self._messages[topic])
        spin_for(self, 0.3)

    def _unconnected(self, topics: list[str]) -> list[str]:
        missing = [topic for topic in topics if self.count_subscribers(topic) < 1]
        return missing or ([] if self._watch is None else self._watch.unconnected(self._outputs))

    def send(self) -> int:
        """Publish one frame; returns its stamp in nanoseconds."""
        stamp = self.get_clock().now()
        message = stamp.to_msg()
        for topic, sent in self._messages.items():
            sent.header.stamp = message
            self._senders[topic].publish(sent)
        return stamp.nanoseconds


def run(camera: Camera, rate: float, seconds: float) -> dict:
    """Publish at ``rate`` Hz for ``seconds``; returns the stamps, and how late each frame was sent (in seconds)."""
    stamps, late = [], []
    start = time.monotonic()
    for index in range(max(1, round(rate * seconds))):
        due = start + index / rate
        time.sleep(max(0.0, due - time.monotonic()))
        late.append(time.monotonic() - due)
        stamps.append(camera.send())
    return {"stamps": stamps, "late": late, "rate": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, required=True, help="frames per second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--scale", type=int, default=1, help="colour height / depth height")
    parser.add_argument(
        "--await", dest="awaited", nargs="*", default=[], help="topics of others that must have a subscriber"
    )
    parser.add_argument("--optional", nargs="*", default=[], help="own topics that need no subscriber")
    parser.add_argument("--watch-node", type=int, default=0, help="1: wait until the node reports that it is connected")
    parser.add_argument("--timeout", type=float, default=90.0, help="seconds to wait for subscribers")
    parser.add_argument(
        "--log",
        type=Path,
        required=True,
        help="file for the stamps, written at the end; a file ending in .begun is created at the start",
    )
    args = parser.parse_args()
    keep_freed_memory()
    rclpy.init()
    camera = Camera(Scene(args.width, args.height, args.scale), args.awaited, bool(args.watch_node))
    try:
        camera.wait_for_listeners(tuple(args.optional), args.timeout)
        args.log.with_suffix(".begun").touch()
        log = run(camera, args.rate, args.seconds)
        temporary = args.log.with_suffix(".part")
        temporary.write_text(json.dumps(log))
        temporary.rename(args.log)
        # Messages that are still being delivered lie in this process's shared memory.
        spin_for(camera, 1.0)
    finally:
        camera.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    run_child(main)
