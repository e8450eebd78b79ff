"""The camera of the soak test: a steady stream with random faults, each logged with its time as a line of JSON."""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node

from stdnet_ros.benchmark.topics import NAMESPACE, Scene, message_type, qos
from stdnet_ros.demo.topics import INPUTS, spin_for
from stdnet_ros.processes import run_child

HOUR = 3_600_000_000_000
"""Clock jumps are whole hours, so that a latency can still be measured: as the remainder."""

Messages = dict[str, Any]


def _bad_encoding(messages: Messages, chance: random.Random) -> None:
    topic = chance.choice(["color/image", "depth/image"])
    messages[topic].encoding = chance.choice(["", "bgr10", "32FC3", "jpeg", "64FC1"])


def _truncated(messages: Messages, chance: random.Random) -> None:
    topic = chance.choice(["color/image", "depth/image"])
    data = messages[topic].data
    messages[topic].data = data[: chance.randrange(len(data))]


def _wrong_step(messages: Messages, chance: random.Random) -> None:
    messages[chance.choice(["color/image", "depth/image"])].step = chance.choice([0, 1, 7, 2**31])


def _wrong_size(messages: Messages, chance: random.Random) -> None:
    topic = chance.choice(["color/image", "depth/image"])
    messages[topic].height = chance.choice([0, 1, 2**30])


def _bad_intrinsics(messages: Messages, chance: random.Random) -> None:
    messages["color/camera_info"].k = [chance.choice([0.0, float("nan"), float("inf")])] * 9


def _no_depth(messages: Messages, chance: random.Random) -> None:
    del messages["depth/image"]


def _no_color(messages: Messages, chance: random.Random) -> None:
    del messages["color/image"]


def _other_frame(messages: Messages, chance: random.Random) -> None:
    message = messages["depth/image"]
    message.header = copy.deepcopy(message.header)
    message.header.frame_id = "elsewhere"


MESSAGE_FAULTS: dict[str, Callable[[Messages, random.Random], None]] = {
    "bad encoding": _bad_encoding,
    "truncated": _truncated,
    "wrong step": _wrong_step,
    "wrong size": _wrong_size,
    "bad intrinsics": _bad_intrinsics,
    "colour without depth": _no_depth,
    "depth without colour": _no_color,
    "depth of another frame": _other_frame,
}
STREAM_FAULTS = ("clock jump", "same stamp again", "stamp of the past", "other size", "pause", "publisher restart")
STREAM_SHARE = 0.15
"""Share of the faults that affect the stream rather than one message; most of them interrupt it for a while."""


class FaultyCamera(Node):
    """Publishes frames with random faults; one of the faults switches between two scenes of different sizes."""

    def __init__(self, scenes: list[Scene], share: float, seed: int) -> None:
        super().__init__("camera", namespace=NAMESPACE)
        self._scenes = [scene.messages() for scene in scenes]
        self._share = share
        self._chance = random.Random(seed)
        self._offset = 0
        self._last_stamp = 0
        self._senders: dict[str, Any] = {}
        self._start_publishers()

    def _start_publishers(self) -> None:
        for sender in self._senders.values():
            self.destroy_publisher(sender)
        self._senders = {topic: self.create_publisher(message_type(topic), topic, qos()) for topic in INPUTS}

    def frame(self) -> str | None:
        """Publish the next frame; returns the name of its fault, None without a fault."""
        messages = {topic: copy.copy(message) for topic, message in self._scenes[0].items()}
        fault = None
        stamp = time.time_ns() + self._offset
        if self._chance.random() < self._share:
            if self._chance.random() < STREAM_SHARE:
                fault = self._chance.choice(STREAM_FAULTS)
                stamp = self._stream_fault(fault, stamp)
            else:
                fault = self._chance.choice(list(MESSAGE_FAULTS))
                MESSAGE_FAULTS[fault](messages, self._chance)
        self._last_stamp = stamp
        for topic, message in messages.items():
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            self._senders[topic].publish(message)
        return fault

    def _stream_fault(self, fault: str, stamp: int) -> int:
        """Apply a fault to the stream; returns the stamp of the current frame."""
        if fault == "clock jump":
            offset = self._chance.choice([o for o in (-HOUR, 0, HOUR) if o != self._offset])
            stamp += offset - self._offset
            self._offset = offset
        elif fault == "same stamp again":
            stamp = self._last_stamp or stamp
        elif fault == "stamp of the past":
            stamp -= 150_000_000
        elif fault == "other size":
            self._scenes.reverse()
        elif fault == "pause":
            time.sleep(1.5)
            stamp += 1_500_000_000
        elif fault == "publisher restart":
            self._start_publishers()
        return stamp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=30.0, help="frames per second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--scale", type=int, default=8, help="colour height / depth height")
    parser.add_argument("--share", type=float, default=0.1, help="share of frames with a fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True, help="file for the faults, one JSON line each")
    args = parser.parse_args()
    rclpy.init()
    scenes = [Scene(args.width, args.height, args.scale), Scene(args.width // 2, args.height // 2, args.scale)]
    camera = FaultyCamera(scenes, args.share, args.seed)
    try:
        end = time.monotonic() + args.seconds
        due = time.monotonic()
        with args.log.open("a", buffering=1) as log:
            while time.monotonic() < end:
                fault = camera.frame()
                if fault:
                    log.write(json.dumps({"time": time.time(), "fault": fault}) + "\n")
                due = max(due + 1 / args.rate, time.monotonic() - 0.2)
                time.sleep(max(0.0, due - time.monotonic()))
        spin_for(camera, 0.5)
    finally:
        camera.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    run_child(main)
