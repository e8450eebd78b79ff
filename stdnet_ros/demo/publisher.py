"""The demo's camera: publishes colour, low-resolution depth and both camera_infos of a stored stream.

It starts when all topics have subscribers. Without ``--rate``, it sends the next frame when the node has processed the
last one (at most at the source's frame rate), so that no frame is lost on a slow machine. With a fixed rate, it sends
without waiting, as a camera does; the frames that the node cannot process are lost and counted."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from stdnet_core.errors import StdnetError
from stdnet_ros.demo.stream import Stream, open_stream
from stdnet_ros.demo.topics import (
    FRAME_ID,
    INPUTS,
    OUTPUTS,
    NodeWatch,
    camera_info,
    publishers_of,
    spin_for,
    stamp_nanoseconds,
)
from stdnet_ros.messages.camera_info import fit_to_image
from stdnet_ros.messages.conversions import array_to_image
from stdnet_ros.processes import run_child

_ANSWER_TIMEOUT = 40.0


class Camera(Node):
    """Publishes the frames of a stream and counts the node's answers."""

    def __init__(self, stream: Stream, namespace: str) -> None:
        super().__init__("camera", namespace=namespace)
        self._stream = stream
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._senders = {
            topic: self.create_publisher(Image if topic.endswith("image") else CameraInfo, topic, qos)
            for topic in INPUTS
        }
        self.answered: set[int] = set()
        self.node_watch = NodeWatch(self)
        self._inlet = self.create_subscription(CameraInfo, OUTPUTS["depth/camera_info"], self._on_answer, qos)

    def _on_answer(self, message: CameraInfo) -> None:
        self.answered.add(stamp_nanoseconds(message.header))

    @property
    def held(self) -> int:
        """Number of frames that the node holds until following ones come."""
        return self.node_watch.number("window waiting")

    def wait_until_taken(self, stamps: list[int], latency_frames: int) -> bool:
        """Wait until the node has processed the last frame sent; False if that takes too long.

        The node has processed it when the output of that frame arrives, or that of the frame ``latency_frames``
        before it, or when its diagnostics report that it holds as many frames as were sent.
        """
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        awaited = {stamps[-1], *stamps[-1 - latency_frames :][:1]} if len(stamps) > latency_frames else {stamps[-1]}
        while time.monotonic() < deadline:
            if awaited & self.answered or self.held >= len(stamps):
                return True
            spin_for(self, 0.005)
        return False

    def missing_connections(self) -> list[str]:
        """Topics that are not connected yet, as seen by this process and by the node."""
        ours = [sender.topic_name for sender in self._senders.values()]
        unheard = [topic for topic in ours if self.count_subscribers(topic) < 1]
        if publishers_of(self, self._inlet) < 1:
            unheard.append(self._inlet.topic_name)
        # The receiver subscribes to all three, this process to camera_info.
        return unheard + self.node_watch.unconnected({"depth/image": 1, "depth/camera_info": 2, "points": 1})

    def publish(self, index: int) -> int:
        """Publish frame ``index``, stamped with the current time; returns the stamp in nanoseconds."""
        stamp = self.get_clock().now()
        rgb, depth = self._stream.rgb[index], self._stream.depth_lr[index]
        header = Header(stamp=stamp.to_msg(), frame_id=FRAME_ID)
        info = camera_info(self._stream.info.intrinsics, rgb.shape[1], rgb.shape[0], header)
        messages = {
            "color/camera_info": info,
            "depth/camera_info": fit_to_image(info, depth.shape[1], depth.shape[0]),
            "color/image": array_to_image(rgb, header, "rgb8"),
            "depth/image": array_to_image(depth, header, "32FC1"),
        }
        for topic, message in messages.items():
            self._senders[topic].publish(message)
        return stamp.nanoseconds


def publish_stream(
    camera: Camera, stream: Stream, *, rate: float | None, latency_frames: int, log: Path, time_limit: float
) -> None:
    """Publish the frames and write ``log``: one JSON object with the stamps and the pacing of the frames.

    After ``time_limit`` seconds no further frame is sent, so that a slow machine finishes in time with fewer frames.
    """
    interval = 1.0 / (rate or stream.info.fps)
    stamps: list[int] = []
    unanswered = 0
    start = time.monotonic()
    for index in range(len(stream)):
        if time.monotonic() - start > time_limit:
            break
        due = time.monotonic() + interval
        stamps.append(camera.publish(index))
        if rate is None and not camera.wait_until_taken(stamps, latency_frames):
            unanswered += 1
            if not camera.answered and not camera.held:
                told = ", ".join(f"{key} {value}" for key, value in camera.node_watch.values.items())
                raise StdnetError(
                    f"the node did not answer within {_ANSWER_TIMEOUT:.0f} s; see node.log (its diagnostics: {told})"
                )
        if index == 0 and stamps[0] in camera.answered:
            latency_frames = 0  # the method does not wait for following frames
        spin_for(camera, max(0.0, due - time.monotonic()))
    content = {
        "stamps": stamps,
        "rate": rate or "auto",
        "unanswered": unanswered,
        "unsent": len(stream) - len(stamps),
        "seconds": time.monotonic() - start,
    }
    left = f", {content['unsent']} left out" if content["unsent"] else ""
    print(f"sent {len(stamps)} frames in {content['seconds']:.1f} s{left}, {unanswered} of them unanswered", flush=True)
    temporary = log.with_suffix(".part")
    temporary.write_text(json.dumps(content))
    temporary.rename(log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", type=Path, required=True, help="folder written by stdnet_ros.demo.stream")
    parser.add_argument("--log", type=Path, required=True, help="file for the stamps of the published frames")
    parser.add_argument("--ready", type=Path, required=True, help="file that the receiver creates when it is connected")
    parser.add_argument("--namespace", default="/demo")
    parser.add_argument("--rate", type=float, default=None, help="frames per second (default: as the node answers)")
    parser.add_argument("--latency-frames", type=int, default=0, help="the node's parameter of this name (default 0)")
    parser.add_argument("--time-limit", type=float, default=math.inf, help="seconds after which no frame is sent")
    parser.add_argument("--timeout", type=float, default=90.0, help="seconds to wait for subscribers")
    args = parser.parse_args()
    stream = open_stream(args.stream)
    rclpy.init()
    camera = Camera(stream, args.namespace)
    try:
        deadline = time.monotonic() + args.timeout
        while (missing := camera.missing_connections()) or not args.ready.exists():
            if time.monotonic() > deadline:
                places = ", ".join(missing or ["the receiver's topics"])
                raise StdnetError(f"no connection on {places} after {args.timeout:.0f} s; see node.log")
            spin_for(camera, 0.05)
        pace = "as the node answers" if args.rate is None else f"at {args.rate:g} Hz"
        print(f"all topics are connected; sending {len(stream)} frames {pace}", flush=True)
        publish_stream(
            camera,
            stream,
            rate=args.rate,
            latency_frames=args.latency_frames,
            log=args.log,
            time_limit=args.time_limit,
        )
    finally:
        camera.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    run_child(main)
