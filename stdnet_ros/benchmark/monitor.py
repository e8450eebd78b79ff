"""The soak test's monitor: it subscribes and unsubscribes, changes parameters, calls services, and logs the results."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import SetBool, Trigger

from stdnet_ros.benchmark.faulty_camera import HOUR
from stdnet_ros.benchmark.topics import DEPTH_OUT, DIAGNOSTICS, NAMESPACE, POINTS_OUT, qos
from stdnet_ros.demo.topics import NODE_NAME, stamp_nanoseconds

CHANGES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("max_depth", (0.0, 4.0, 10)),
    ("edge_filter", (0.0, 0.03)),
    ("min_confidence", (0.0, 0.5)),
    ("sync_slop", (0.01, 0.02, 0.05)),
    ("max_gap", (0.5, 1.0, 2)),
    ("depth_encoding", ("32FC1", "16UC1")),
    ("points.stride", (1, 2, 5)),
    ("points.color", (True, False)),
)
REFUSED: tuple[tuple[str, Any], ...] = (
    ("max_depth", -1.0),
    ("max_gap", "long"),
    ("depth_encoding", "8UC1"),
    ("points.stride", 0),
    ("latency_frames", 3),
    ("sync_slop", float("nan")),
)
_ACTION_SECONDS = 1.0


class Monitor(Node):
    """Performs random actions on the node; call :meth:`act` often while spinning.

    Args:
        seed: for the choice and the time of the actions.
        namespace: namespace of the node.
        **arguments: passed to ``rclpy.node.Node``.

    Attributes:
        latencies: (monotonic time in seconds, latency in ms) of each depth image received.
        diagnostics: the node's newest status; ``reports`` is the number received.
        stamps: of the depth images received.
        counts: number of actions by name, of service ``calls`` and of ``answers``.
        surprises: valid changes that were refused, and invalid changes that were accepted.
    """

    def __init__(self, seed: int, namespace: str = NAMESPACE, **arguments: Any) -> None:
        super().__init__("monitor", namespace=namespace, **arguments)
        self.latencies: list[tuple[float, float]] = []
        self.stamps: set[int] = set()
        self.diagnostics: dict[str, str] = {}
        self.reports = 0
        self.counts: Counter = Counter()
        self.surprises: list[str] = []
        self._chance = random.Random(seed)
        self._due = 0.0
        self._back: dict[str, float] = {}
        self._kinds = {
            "depth": (Image, DEPTH_OUT, self._on_depth),
            "points": (PointCloud2, POINTS_OUT, self._on_points),
        }
        self._inlets: dict[str, Any] = {}
        self.listen("depth")
        self.create_subscription(DiagnosticArray, DIAGNOSTICS, self._on_diagnostics, qos())
        self._set = self.create_client(SetParameters, f"{NODE_NAME}/set_parameters")
        self._enable = self.create_client(SetBool, f"{NODE_NAME}/enable")
        self._reset = self.create_client(Trigger, f"{NODE_NAME}/reset")

    def ready(self) -> bool:
        """Whether all of the node's services have been found."""
        return all(client.service_is_ready() for client in (self._set, self._enable, self._reset))

    def listen(self, kind: str) -> None:
        """Subscribe to ``depth`` or ``points``, if not yet subscribed."""
        if kind not in self._inlets:
            message, topic, callback = self._kinds[kind]
            self._inlets[kind] = self.create_subscription(message, topic, callback, qos())

    def leave(self, kind: str) -> None:
        """Unsubscribe."""
        if kind in self._inlets:
            self.destroy_subscription(self._inlets.pop(kind))

    def act(self) -> None:
        """Perform the next action, if it is due."""
        now = time.monotonic()
        for kind in [kind for kind, due in self._back.items() if now > due]:
            del self._back[kind]
            if kind == "enabled":
                self._call(self._enable, SetBool.Request(data=True))
            elif kind == "depth":
                self.listen("depth")
            else:
                self.leave("points")
        if now < self._due:
            return
        self._due = now + _ACTION_SECONDS * self._chance.uniform(0.5, 1.5)
        actions = {"change": 8, "refused": 4, "depth": 1, "points": 1, "reset": 1, "disable": 1}
        (action,) = self._chance.choices(list(actions), list(actions.values()))
        self.counts[action] += 1
        if action == "change":
            name, values = self._chance.choice(CHANGES)
            self._change(name, self._chance.choice(values), expected=True)
        elif action == "refused":
            self._change(*self._chance.choice(REFUSED), expected=False)
        elif action == "depth":
            self.leave("depth")
            self._back["depth"] = now + self._chance.uniform(0.2, 2.0)
        elif action == "points":
            self.listen("points")
            self._back["points"] = now + self._chance.uniform(1.0, 8.0)
        elif action == "reset":
            self.reset()
        else:
            self._call(self._enable, SetBool.Request(data=False))
            self._back["enabled"] = now + self._chance.uniform(0.2, 1.0)

    def finish(self) -> None:
        """Undo all changes, so that a faultless stream must be processed."""
        self._back.clear()
        self.leave("points")
        self.listen("depth")
        for name, values in CHANGES:
            self._change(name, values[0], expected=True)
        self._call(self._enable, SetBool.Request(data=True))

    def reset(self) -> None:
        """Call the node's reset service, which drops all waiting messages."""
        self._call(self._reset, Trigger.Request())

    def _change(self, name: str, value: Any, expected: bool) -> None:
        future = self._call(
            self._set, SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        )

        def check(done) -> None:
            result = done.result().results[0]
            if result.successful is not expected:
                self.surprises.append(f"{name} = {value!r}: {result.reason or 'was accepted'}")

        future.add_done_callback(check)

    def _call(self, client, request):
        self.counts["calls"] += 1
        future = client.call_async(request)
        future.add_done_callback(lambda done: self.counts.update(answers=1))
        return future

    def _on_depth(self, message: Image) -> None:
        stamp = stamp_nanoseconds(message.header)
        late = (time.time_ns() - stamp + HOUR // 2) % HOUR - HOUR // 2
        self.latencies.append((time.monotonic(), late / 1e6))
        self.stamps.add(stamp)

    def _on_points(self, message: PointCloud2) -> None:
        self.counts["clouds"] += 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if NODE_NAME in status.name:
                self.diagnostics = {item.key: item.value for item in status.values}
                self.reports += 1
