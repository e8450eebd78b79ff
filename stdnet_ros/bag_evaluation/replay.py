"""Player process of the live run: replays a prepared bag over real topics, with simulated time on /clock.

Messages are published as the recorded bytes, at the recorded times. The log has the publication time of each colour
stamp by the machine's monotonic clock, so that latency does not depend on simulated time."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from stdnet_core.data.bags.storage import Raw
from stdnet_core.errors import StdnetError
from stdnet_ros.bag_evaluation.bag import TYPES, Bag
from stdnet_ros.demo.topics import spin_for
from stdnet_ros.processes import run_child

_CLOCK_PERIOD = 0.01


class Player(Node):
    """Publishes serialised messages and the clock."""

    def __init__(self, bag: Bag, namespace: str) -> None:
        super().__init__("player", namespace=namespace)
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._senders = {topic: self.create_publisher(TYPES[kind], topic, qos) for topic, kind in bag.topics.items()}
        self._clock_sender = self.create_publisher(Clock, "/clock", QoSProfile(depth=1))
        self._now = 0

    def unheard(self) -> list[str]:
        """Topics without a subscriber."""
        return [sender.topic_name for sender in self._senders.values() if self.count_subscribers(sender.topic_name) < 1]

    def set_clock(self, now: int) -> None:
        """Publish the simulated time, which never goes back within a replay."""
        self._now = max(self._now, now)
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(self._now, 10**9)
        self._clock_sender.publish(message)

    def publish(self, raw: Raw) -> None:
        """Publish the recorded bytes."""
        self._senders[raw.topic].publish(bytes(raw.data))


def play(player: Player, bag: Bag, rate: float, color_topic: str, stop: Path) -> dict:
    """Publish all messages when they are due, until the end or until the file ``stop`` exists; returns the log."""
    published: dict[int, int] = {}
    late = []
    begin = time.monotonic()
    for raw in bag.messages(list(bag.topics)):
        due = begin + (raw.logged - bag.start) / 1e9 / rate
        while (left := due - time.monotonic()) > 0 and not stop.exists():
            player.set_clock(raw.logged - round(left * rate * 1e9))
            spin_for(player, min(left, _CLOCK_PERIOD))
        if stop.exists():
            break
        player.set_clock(raw.logged)
        late.append(time.monotonic() - due)
        player.publish(raw)
        if raw.topic == color_topic:
            published[bag.header_stamp(raw)] = time.monotonic_ns()
    return {
        "published": [[stamp, sent] for stamp, sent in published.items()],
        "seconds": time.monotonic() - begin,
        "late_ms_max": 1e3 * max(late, default=0.0),
        "end": bag.start + round(bag.duration * 1e9),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="log, written at the end of the replay")
    parser.add_argument("--ready", type=Path, required=True, help="file that the recorder creates when it is connected")
    parser.add_argument("--stop", type=Path, required=True, help="file that ends the replay early if it exists")
    parser.add_argument("--color-topic", required=True, help="topic whose stamps are logged")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for subscribers")
    args = parser.parse_args()
    rclpy.init()
    with Bag(args.bag) as bag:
        player = Player(bag, args.namespace)
        try:
            deadline = time.monotonic() + args.timeout
            while (player.unheard() or not args.ready.exists()) and not args.stop.exists():
                if time.monotonic() > deadline:
                    missing = ", ".join(player.unheard()) or "the recorder's topics"
                    raise StdnetError(f"no subscriber on {missing} after {args.timeout:.0f} s; see node.log")
                player.set_clock(bag.start)
                spin_for(player, 0.05)
            log = play(player, bag, args.rate, args.color_topic, args.stop)
            temporary = args.log.with_suffix(".part")
            temporary.write_text(json.dumps(log))
            temporary.rename(args.log)
            # Simulated time continues, so that the node can finish the frames that it has.
            while True:
                log["end"] += round(_CLOCK_PERIOD * args.rate * 1e9)
                player.set_clock(log["end"])
                spin_for(player, _CLOCK_PERIOD)
        finally:
            player.destroy_node()
            rclpy.try_shutdown()


if __name__ == "__main__":
    run_child(main)
