"""Isolation and small parts for tests with real rclpy. Import what is needed: ``from ros_fixtures import ros``.

Each graph has a free domain of its own, discovery stays on this machine, and logs go to a temporary folder."""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from stdnet_ros.processes import DOMAINS, free_domain

ROOT = Path(__file__).resolve().parents[1]


def free_domains() -> Iterator[int]:
    """Free domains, another one each time; workers of one test run begin in ranges of their own."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = DOMAINS // workers
    for number in itertools.count(os.getpid()):
        yield free_domain(1 + worker * share + number % share)


_DOMAINS = free_domains()

# Before the first import of rclpy: message classes read ROS_PYTHON_CHECK_FIELDS once.
os.environ.update(
    ROS_DOMAIN_ID=str(next(_DOMAINS)),
    ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
    ROS_PYTHON_CHECK_FIELDS="1",
    ROS_LOG_DIR=tempfile.mkdtemp(prefix="stdnet_test_log_"),
    FASTDDS_DEFAULT_PROFILES_FILE=str(ROOT / "config" / "fastdds.xml"),
    PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
)

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed; pip install '.[ros]'")

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


class NearestUpsampler:
    """A stand-in with the interface of DepthUpsampler that repeats each depth pixel; ``before`` runs in each step."""

    method = "nearest"
    info = None
    backend = "none"

    def __init__(self, before: Callable[[], None] = lambda: None, latency: int = 0, device: str = "cpu"):
        self.placement = SimpleNamespace(device=device, precision="fp32", fallback=False, reason=None)
        self.notices: list[str] = []
        self.edge_filter = 0.0
        self.steps = 0
        self.resets = 0
        self._before = before
        self._latency = latency
        self._held: list[Any] = []

    def step(self, rgb: np.ndarray, depth: np.ndarray, stamp: Any = None) -> Any:
        self._before()
        self.steps += 1
        depth = cv2.resize(depth, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_NEAREST)
        confidence = np.isfinite(depth).astype(np.float32)
        self._held.append(SimpleNamespace(depth=depth, confidence=confidence, stamp=stamp))
        return self._held.pop(0) if len(self._held) > self._latency else None

    def reset(self) -> None:
        self.resets += 1
        self._held.clear()


class Graph:
    """The node under test, a publisher and a subscriber, spun by one background thread, in a domain of their own."""

    def __init__(self, context, node, executor, domain):
        self.context, self.node, self.executor, self.domain = context, node, executor, domain
        self.partner = rclpy.create_node("partner", context=context)
        executor.add_node(self.partner)
        self.depths: list[Image] = []
        self.infos: list[CameraInfo] = []
        self.clouds: list[PointCloud2] = []
        self._publishers: dict[str, Any] = {}

    def publisher(self, topic: str, kind: type = Image, qos: QoSProfile = RELIABLE) -> Any:
        """A publisher, made once for each topic."""
        if topic not in self._publishers:
            self._publishers[topic] = self.partner.create_publisher(kind, topic, qos)
        return self._publishers[topic]

    def listen(self, cloud: bool = False) -> None:
        """Subscribe to the node's depth and camera_info (and cloud)."""
        self.partner.create_subscription(Image, "stdnet/depth/image", self.depths.append, RELIABLE)
        self.partner.create_subscription(CameraInfo, "stdnet/depth/camera_info", self.infos.append, RELIABLE)
        if cloud:
            self.partner.create_subscription(PointCloud2, "stdnet/points", self.clouds.append, RELIABLE)

    def connect(self, *, info: bool = True) -> None:
        """Create the input publishers and wait until both sides have found each other."""
        self.publisher("color/image")
        self.publisher("depth/image")
        if info:
            self.publisher("color/camera_info", CameraInfo)
        wanted = list(self._publishers.values())
        wait_for(lambda: all(publisher.get_subscription_count() for publisher in wanted))
        if self.partner_listens():
            wait_for(lambda: self.node.has_subscribers())
        if info:
            # Topics are not ordered among each other: the first image could overtake the first camera_info.
            self._publishers["color/camera_info"].publish(camera_info(32, 24, Header()))
            wait_for(lambda: self.node.infos[0] is not None)

    def partner_listens(self) -> bool:
        """Whether :meth:`listen` was called."""
        return any(s.topic_name.startswith("/stdnet/") for s in self.partner.subscriptions)

    def send(self, stamp: float, *, size=(32, 24), scale=4, metres: float = 2.0, frame="camera", depth_frame=None):
        """One colour image with camera_info and one depth image of constant depth; sizes are (width, height)."""
        width, height = size
        header = Header(stamp=stamp_message(stamp), frame_id=frame)
        if "color/camera_info" in self._publishers:
            self._publishers["color/camera_info"].publish(camera_info(width, height, header))
        color = np.full((height, width, 3), 128, np.uint8)
        depth = np.full((height // scale, width // scale), metres, np.float32)
        self._publishers["color/image"].publish(image(color, "rgb8", header))
        depth_header = Header(stamp=header.stamp, frame_id=frame if depth_frame is None else depth_frame)
        self._publishers["depth/image"].publish(image(depth, "32FC1", depth_header))

    def settle(self, **totals: int) -> dict:
        """Wait until the node's counters have reached the given totals and it has nothing left to do."""

        def reached() -> bool:
            counted = self.node.snapshot()["totals"]
            return all(counted[name] >= value for name, value in totals.items()) and self.node.idle

        wait_for(reached, what=lambda: f"{totals} of {self.node.snapshot()}")
        return self.node.snapshot()


def image(samples: np.ndarray, encoding: str, header: Header) -> Image:
    """An Image message, made without the package's own conversions."""
    samples = np.ascontiguousarray(samples)
    message = Image(header=header, height=samples.shape[0], width=samples.shape[1], encoding=encoding)
    message.step = samples.strides[0]
    message.data.frombytes(samples.tobytes())
    return message


def camera_info(width: int, height: int, header: Header, focal: float = 30.0) -> CameraInfo:
    """A camera without distortion whose axis meets the middle of the image."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return CameraInfo(
        header=header,
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def stamp_message(seconds: float) -> Any:
    """builtin_interfaces Time of float seconds, to the nanosecond."""
    from builtin_interfaces.msg import Time

    nanoseconds = round(seconds * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def wait_for(condition: Callable[[], bool], timeout: float = 30.0, what: Callable[[], str] = lambda: "it") -> None:
    """Poll until the condition holds; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout} s in vain for {what()}")
        time.sleep(0.005)


@contextmanager
def running_graph(*, factory: Callable | None = None, start: bool = True, name: str = "stdnet", **values: Any):
    """A :class:`Graph` whose node has the given parameters (dots as double underscores) and is active."""
    from stdnet_ros.node.node import StdnetNode

    # What a participant leaves behind in its domain may keep the services of the next one of the same name from being
    # found: they count as found once as many requests are listened to as answers are published.
    domain = next(_DOMAINS)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    overrides = [Parameter(key.replace("__", "."), value=value) for key, value in values.items()]
    arguments = {} if factory is None else {"upsampler_factory": factory}
    node = StdnetNode(name, context=context, parameter_overrides=overrides, **arguments)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    graph = Graph(context, node, executor, domain)
    if start:
        assert node.start(), node.failure
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield graph
    finally:
        executor.shutdown()
        thread.join(5.0)
        node.destroy_node()
        graph.partner.destroy_node()
        rclpy.shutdown(context=context)


@pytest.fixture
def ros() -> Iterator[Callable]:
    """``running_graph``, for tests that want it as a fixture."""
    return running_graph
