"""What goes wrong around a robot: damaged input, jumping clocks, dying publishers, full and failing devices, signals.

After each fault the node must live on and every message must be accounted for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_fixtures import (
    ROOT,
    NearestUpsampler,
    camera_info,
    image,
    running_graph,
    stamp_message,
    wait_for,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from stdnet_core.errors import CheckpointError
from stdnet_ros.node.node import main

RELIABLE_INPUT = {
    f"qos_overrides./{topic}.subscription.{policy}": value
    for topic in ("color/image", "depth/image")
    for policy, value in (("reliability", "reliable"), ("depth", 1000))
}


def nearest(settings, **changes):
    return NearestUpsampler()


def assert_balanced(snapshot, color, depth):
    """All messages are in a pair or dropped for one cause, all pairs published or dropped for one cause."""
    totals, drops = snapshot["totals"], snapshot["drops"]
    by_stream = {
        name: sum(n for cause, n in drops.items() if cause.startswith(f"{name}_")) for name in ("color", "depth")
    }
    waiting = snapshot["waiting"]
    assert totals["color"] == color == totals["pairs"] + by_stream["color"] + waiting["color"], snapshot
    assert totals["depth"] == depth == totals["pairs"] + by_stream["depth"] + waiting["depth"], snapshot
    of_pairs = sum(drops.values()) - sum(by_stream.values())
    assert totals["pairs"] == totals["published"] + of_pairs + waiting["window"], snapshot


def header(stamp, frame="camera"):
    return Header(stamp=stamp_message(stamp), frame_id=frame)


def good_color(stamp):
    return image(np.full((24, 32, 3), 99, np.uint8), "rgb8", header(stamp))


def good_depth(stamp):
    return image(np.full((6, 8), 2.0, np.float32), "32FC1", header(stamp))


def changed(message, **fields):
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("spoil_color", "spoil_depth", "cause"),
    [
        ({}, {"encoding": "yuv9"}, "bad_depth"),
        ({}, {"step": 3}, "bad_depth"),
        ({}, {"height": 600}, "bad_depth"),
        ({}, {"width": 0}, "bad_depth"),
        ({}, {"height": 3, "width": 16, "step": 64}, "not_registered"),
        ({"encoding": "32FC1"}, {}, "bad_color"),
        ({"height": 0}, {}, "bad_color"),
        ({"step": 5}, {}, "bad_color"),
    ],
)
def test_a_damaged_frame_is_counted_and_the_next_one_is_served(spoil_color, spoil_depth, cause):
    with running_graph(factory=nearest) as graph:
        graph.listen()
        graph.connect(info=False)
        graph.publisher("color/image").publish(changed(good_color(1.0), **spoil_color))
        graph.publisher("depth/image").publish(changed(good_depth(1.0), **spoil_depth))
        assert graph.settle(pairs=1)["drops"] == {cause: 1}
        graph.send(1.1)
        snapshot = graph.settle(published=1)
        assert_balanced(snapshot, 2, 2)


def test_uncalibrated_camera_info_costs_the_cloud_alone():
    with running_graph(factory=nearest) as graph:
        graph.listen(cloud=True)
        infos = graph.publisher("color/camera_info", CameraInfo)
        graph.connect()
        for values in ([0.0] * 9, [float("nan")] * 9):
            bad = changed(camera_info(32, 24, header(1.0)), k=values)
            infos.publish(bad)
            wait_for(lambda: graph.node.infos[0].k[0] != 30.0)
            before = len(graph.depths)
            stamp = 1.0 + before
            graph.publisher("color/image").publish(good_color(stamp))
            graph.publisher("depth/image").publish(good_depth(stamp))
            wait_for(lambda n=before: len(graph.depths) > n)
            infos.publish(camera_info(32, 24, header(1.0)))
            wait_for(lambda: graph.node.infos[0].k[0] == 30.0)
        assert graph.clouds == []
        assert graph.infos == []
        graph.send(5.0)
        wait_for(lambda: graph.clouds)


def test_ten_thousand_fuzzed_messages_are_all_counted():
    rng = np.random.default_rng(11)
    encodings = ["rgb8", "bgr8", "mono8", "32FC1", "16UC1", "", "yuyv", "x" * 300]
    with running_graph(factory=nearest, **RELIABLE_INPUT) as graph:
        graph.listen()
        graph.connect(info=False)
        infos = graph.publisher("color/camera_info", CameraInfo)
        color, depth = graph.publisher("color/image"), graph.publisher("depth/image")
        sent = {"color": 0, "depth": 0}
        messages = []
        for _ in range(250):
            message = Image(
                width=int(rng.choice([0, 1, 8, 32, 2**32 - 1])),
                height=int(rng.choice([0, 1, 6, 24, 2**31])),
                step=int(rng.choice([0, 8, 32, 96, 2**32 - 1])),
                encoding=str(rng.choice(encodings)),
                is_bigendian=int(rng.integers(0, 256)),
            )
            message.data.frombytes(rng.bytes(int(rng.choice([0, 1, 192, 2304]))))
            message.header.frame_id = str(rng.choice(["camera", "", "other"]))
            messages.append(message)
        good = [good_color(0.0), good_depth(0.0)]
        for index in range(5000):
            stamp = stamp_message(float(rng.choice([index / 30, index / 30, index / 30, -5.0, 2e9])))
            for name, publisher, fine in (("color", color, good[0]), ("depth", depth, good[1])):
                message = fine if rng.random() < 0.6 else messages[rng.integers(len(messages))]
                message.header.stamp = stamp
                publisher.publish(message)
                sent[name] += 1
            if index % 5 == 0:
                wait_for(lambda: graph.node.idle)
            if index % 50 == 0:
                info = camera_info(32, 24, Header())
                info.k = rng.choice([0.0, 30.0, np.nan, np.inf, -1.0], 9)
                infos.publish(info)
                wait_for(lambda: graph.node.snapshot()["totals"]["depth"] > sent["depth"] - 400)
        wait_for(lambda: graph.node.snapshot()["totals"]["depth"] == sent["depth"])
        snapshot = graph.settle(color=sent["color"])
        assert_balanced(snapshot, 5000, 5000)
        # The newest pair replaces one that waits, so how many get through depends on the machine.
        assert snapshot["totals"]["published"] > 50
        assert snapshot["drops"]["bad_color"] > 50
        graph.send(2.1e9)
        graph.settle(published=snapshot["totals"]["published"] + 1)


def test_a_bag_looped_three_times_gives_equal_laps():
    with running_graph(factory=nearest) as graph:
        graph.listen()
        graph.connect()
        laps = []
        for lap in range(3):
            for index in range(30):
                graph.send(100.0 + index / 30)
                graph.settle(published=30 * lap + index + 1)
            laps.append(graph.node.snapshot()["totals"]["pairs"] - sum(laps))
        assert laps == [30, 30, 30]
        snapshot = graph.node.snapshot()
        assert snapshot["resets"] == {"time_jump": 2}
        assert_balanced(snapshot, 90, 90)


def test_a_clock_that_jumps_an_hour_and_back():
    with running_graph(factory=nearest) as graph:
        graph.listen()
        graph.connect()
        for count, start in enumerate((100.0, 3700.0, 101.0)):
            for index in range(5):
                graph.send(start + index / 30)
                graph.settle(published=5 * count + index + 1)
        snapshot = graph.node.snapshot()
        assert snapshot["resets"] == {"gap": 1, "time_jump": 1}
        assert snapshot["drops"] == {}


def test_depth_ten_seconds_late_is_dropped_counted_and_said():
    with running_graph(factory=nearest) as graph:
        seen = []
        graph.partner.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
        graph.listen()
        graph.connect()
        for index in range(30):
            graph.publisher("color/image").publish(good_color(100.0 + index / 30))
            graph.publisher("depth/image").publish(good_depth(90.0 + index / 30))
            graph.settle(color=index + 1, depth=index + 1)
        assert_balanced(graph.node.snapshot(), 30, 30)
        assert graph.depths == []
        wait_for(lambda: seen and "10.0" in seen[-1].status[0].message)


def test_slow_color_with_fast_depth():
    with running_graph(factory=nearest) as graph:
        graph.listen()
        graph.connect()
        for index in range(90):
            if index % 30 == 0:
                graph.publisher("color/image").publish(good_color(10.0 + index / 30))
            graph.publisher("depth/image").publish(good_depth(10.0 + index / 30 + 0.004))
            graph.settle(color=index // 30 + 1, depth=index + 1)
        wait_for(lambda: len(graph.depths) >= 2)
        assert_balanced(graph.node.snapshot(), 3, 90)


@pytest.mark.parametrize("stream", ["color", "depth"])
def test_one_stream_alone_warns_in_diagnostics(stream):
    with running_graph(factory=nearest) as graph:
        seen = []
        graph.partner.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
        graph.listen()
        graph.connect(info=False)
        make = good_color if stream == "color" else good_depth
        deadline = time.monotonic() + 8.0
        stamp = 1.0
        missing = "/depth/image" if stream == "color" else "/color/image"
        while not (seen and missing in seen[-1].status[0].message and stream not in seen[-1].status[0].message):
            assert time.monotonic() < deadline
            graph.publisher(f"{stream}/image").publish(make(stamp))
            stamp += 0.05
            time.sleep(0.05)
        assert seen[-1].status[0].level == b"\x01"


def test_a_publisher_that_returns_with_other_sizes():
    with running_graph(factory=nearest) as graph:
        graph.listen()
        graph.connect()
        graph.send(1.0)
        graph.settle(published=1)
        graph.send(1.1, size=(64, 48))
        graph.settle(published=2)
        graph.send(1.2, size=(64, 48), scale=8)
        snapshot = graph.settle(published=3)
        assert snapshot["resets"] == {"color_size": 1, "depth_size": 1}
        wait_for(lambda: len(graph.depths) == 3)
        assert [message.width for message in graph.depths] == [32, 64, 64]


def test_an_inference_that_fails_is_counted_and_the_next_one_runs():
    failures = [ValueError("no such kernel"), None, None]

    def fail():
        if failures and (error := failures.pop()) is not None:
            raise error

    with running_graph(factory=lambda settings, **_: NearestUpsampler(before=fail)) as graph:
        graph.listen()
        graph.connect()
        for index in range(4):
            graph.send(1.0 + index / 30)
            graph.settle(pairs=index + 1)
        snapshot = graph.node.snapshot()
        assert snapshot["drops"] == {"inference_error": 1}
        assert_balanced(snapshot, 4, 4)


class Device:
    """Factories for upsamplers that run out of memory (or fail) on the first device for a while."""

    def __init__(self, errors, device="cuda", reload_error=None):
        self.errors, self.device, self.reload_error = errors, device, reload_error
        self.asked: list[dict] = []

    def __call__(self, settings, **changes):
        self.asked.append(changes)
        if changes and self.reload_error is not None and changes.get("method") != "joint_bilateral":
            raise self.reload_error

        def before():
            if not changes and upsampler.steps > 0 and self.errors:
                raise self.errors.pop()

        upsampler = NearestUpsampler(before, device="cpu" if changes.get("device") == "cpu" else self.device)
        upsampler.steps = 0
        return upsampler


def run_frames(graph, count):
    graph.listen()
    graph.connect()
    for index in range(count):
        graph.send(1.0 + index / 30)
        graph.settle(pairs=index + 1)
    return graph.node.snapshot()


def out_of_memory(count):
    return [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB") for _ in range(count)]


def test_out_of_memory_once_clears_the_window_and_loses_no_frame():
    device = Device(out_of_memory(1), device="cpu")
    with running_graph(factory=device) as graph:
        snapshot = run_frames(graph, 4)
        assert snapshot["totals"]["published"] == 4
        assert snapshot["resets"] == {"out_of_memory": 1}
        assert device.asked == [{}]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"device": "cpu", "precision": "auto"}),
        ({"out_of_memory": "joint_bilateral"}, {"method": "joint_bilateral"}),
        ({"out_of_memory": "fallback_model", "fallback_model": "live"}, {"model": "live"}),
    ],
)
def test_out_of_memory_again_falls_back_as_configured(values, expected):
    device = Device(out_of_memory(2), device="cpu")
    with running_graph(factory=device, **values) as graph:
        seen = []
        graph.partner.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
        snapshot = run_frames(graph, 4)
        assert snapshot["totals"]["published"] == 4
        assert device.asked == [{}, expected]
        wait_for(lambda: seen and "out of memory" in seen[-1].status[0].message)
        assert seen[-1].status[0].level == b"\x01"


def test_a_failing_device_moves_to_the_cpu():
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    device = Device([error], device="cuda")
    with running_graph(factory=device) as graph:
        graph.listen()
        graph.connect()
        for index in range(3):
            graph.send(1.0 + index / 30)
            graph.settle(pairs=index + 1)
        assert graph.node.snapshot()["totals"]["published"] == 3
        assert device.asked == [{}, {"device": "cpu", "precision": "auto"}]


def test_a_checkpoint_deleted_while_running_ends_in_joint_bilateral():
    device = Device(out_of_memory(2), device="cpu", reload_error=CheckpointError("model.safetensors is gone"))
    with running_graph(factory=device) as graph:
        snapshot = run_frames(graph, 3)
        assert snapshot["totals"]["published"] == 3
        assert device.asked[-1]["method"] == "joint_bilateral"
        assert "gone" in graph.node.health()[1]


def test_a_fallback_that_fails_as_well_ends_in_joint_bilateral():
    values = {"out_of_memory": "fallback_model", "fallback_model": "live"}
    device = Device(out_of_memory(2), device="cpu", reload_error=RuntimeError("DefaultCPUAllocator: not enough memory"))
    with running_graph(factory=device, **values) as graph:
        snapshot = run_frames(graph, 3)
        assert snapshot["totals"]["published"] == 3
        assert [asked.get("method") for asked in device.asked] == [None, None, "joint_bilateral"]
        assert "model live failed (DefaultCPUAllocator" in graph.node.health()[1]


def test_when_nothing_can_be_loaded_it_is_tried_again_with_each_frame():
    class Full(Device):
        left = 3

        def __call__(self, settings, **changes):
            if changes and self.left:
                self.left -= 1
                self.asked.append(changes)
                raise MemoryError("no memory left")
            return super().__call__(settings, **changes)

    device = Full(out_of_memory(2), device="cpu")
    with running_graph(factory=device) as graph:
        snapshot = run_frames(graph, 5)
        # the first frame is served, the second and third find no memory for any upsampler, then there is some
        assert snapshot["totals"]["published"] == 3
        assert snapshot["drops"] == {"inference_error": 2}
        assert_balanced(snapshot, 5, 5)
        assert "joint_bilateral" in graph.node.health()[1]


def test_a_defect_in_python_code_does_not_cost_the_gpu():
    device = Device([ValueError("a defect")], device="cuda")
    with running_graph(factory=device) as graph:
        assert run_frames(graph, 3)["drops"] == {"inference_error": 1}
        assert device.asked == [{}]


def test_frames_that_are_all_refused_are_a_warning():
    with running_graph(factory=nearest) as graph:
        graph.listen()
        graph.connect()
        for index in range(12):
            graph.send(1.0 + index / 30, depth_frame="elsewhere")
            graph.settle(pairs=index + 1)
        level, text = graph.node.health()
        assert level == 1
        assert "frames were refused" in text
        assert "elsewhere" in text
        graph.send(2.0)
        graph.settle(published=1)
        assert graph.node.health() == (0, "running")


def test_stamps_before_1970_are_damaged_messages():
    with running_graph(factory=nearest) as graph:
        graph.listen()
        graph.connect()
        graph.send(-1.0)
        wait_for(lambda: graph.node.snapshot()["drops"] == {"color_damaged": 1, "depth_damaged": 1})
        graph.send(1.0)
        graph.settle(published=1)


def test_a_missing_gpu_is_a_warning_not_a_failure():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with running_graph(method="nearest", device="cuda:3") as graph:
        graph.listen()
        graph.connect()
        graph.send(1.0)
        graph.settle(published=1)
        level, text = graph.node.health()
        assert level == 1
        assert "cuda:3" in text


def of_another_unit(graph):
    graph.connect()
    return lambda index: graph.send(1.0 + index / 20, metres=2000.0)


def refused(graph):
    graph.connect()
    return lambda index: graph.send(1.0 + index / 20, depth_frame="elsewhere")


def without_camera_info(graph):
    graph.connect(info=False)
    return lambda index: graph.send(1.0 + index / 20)


def of_other_qos(graph):
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    graph.partner.create_publisher(Image, "color/image", best_effort)
    return lambda index: None


@pytest.mark.parametrize(
    ("begin", "words", "arguments"),
    [
        (of_another_unit, "depth is stored as", {}),
        (refused, "elsewhere", {}),
        (without_camera_info, "camera_info", {}),
        (of_other_qos, "incompatible QoS", {"qos_overrides./color/image.subscription.reliability": "reliable"}),
    ],
)
def test_a_cause_is_said_in_one_line_of_the_log(begin, words, arguments, capfd):
    """It has a line of its own, and the diagnostics, which have it too, do not say it again beside that."""
    with running_graph(factory=nearest, **arguments) as graph:
        told = []

        def on_diagnostics(message):
            if message.status[0].level == b"\x01" and words in message.status[0].message:
                told.append(message)

        graph.partner.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
        graph.listen()
        send = begin(graph)
        began = time.monotonic()
        # Within the 5 s that a line is not said again: twice in the diagnostics.
        for index in range(90):
            if len(told) >= 2:
                break
            send(index)
            time.sleep(0.05)
        assert len(told) >= 2
        assert time.monotonic() - began < 5.0
    lines = [line for line in capfd.readouterr().err.splitlines() if "[WARN]" in line and "[stdnet]" in line]
    assert [words in line for line in lines] == [True], lines


def test_killed_started_again_and_interrupted_twice():
    """Those who knew the first node are served by the second, which then ends cleanly under two Ctrl-C."""
    with running_graph(factory=nearest, name="watcher", autostart=False, start=False) as graph:
        got = []
        graph.partner.create_subscription(Image, "stdnet/depth/image", got.append, 10)
        best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        color = graph.partner.create_publisher(Image, "color/image", best_effort)
        depth = graph.partner.create_publisher(Image, "depth/image", best_effort)
        command = [sys.executable, "-m", "stdnet_ros.node", "--ros-args", "-p", "method:=nearest"]
        environment = os.environ | {"ROS_DOMAIN_ID": str(graph.domain)}
        stamp = 1.0
        for signals, status in (([signal.SIGKILL], -signal.SIGKILL), ([signal.SIGINT, signal.SIGINT], 0)):
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
            try:
                seen = len(got)
                deadline = time.monotonic() + 60.0
                while len(got) < seen + 2:
                    assert time.monotonic() < deadline
                    assert process.poll() is None
                    color.publish(good_color(stamp))
                    depth.publish(good_depth(stamp))
                    stamp += 0.05
                    time.sleep(0.05)
                for number in signals:
                    process.send_signal(number)
                errors = process.communicate(timeout=20.0)[1]
                assert process.returncode == status, errors
                assert "Traceback" not in errors
            finally:
                process.kill()


INFERENCE_WITHOUT_END = """
from stdnet_ros.node import stopping
stopping.prepare()
import time
from pathlib import Path
from types import SimpleNamespace
from stdnet_ros.node.node import main

class Upsampler:
    method, info, backend, notices, edge_filter = "endless", None, "none", [], 0.0
    placement = SimpleNamespace(device="cpu", precision="fp32", fallback=False, reason=None)
    warm = False

    def step(self, rgb, depth, stamp=None):
        if self.warm:
            Path({path!r}).touch()
            time.sleep(60)
        self.warm = True

    def reset(self):
        pass

main(upsampler_factory=lambda settings, **changes: Upsampler())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc to find the moment")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["importing", "configuring", "inferring"])
def test_a_signal_ends_the_node_at_once_at_any_moment(moment, number, tmp_path):
    with running_graph(factory=nearest, name="watcher", autostart=False, start=False) as graph:
        graph.partner.create_subscription(Image, "stdnet/depth/image", lambda message: None, 10)
        color, depth = graph.publisher("color/image"), graph.publisher("depth/image")
        command = [sys.executable, "-m", "stdnet_ros.node", "--ros-args", "-p", "method:=stdnet"]
        if moment == "inferring":
            command[1:] = ["-c", INFERENCE_WITHOUT_END.format(path=str(tmp_path / "inferring"))]
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"ROS_DOMAIN_ID": str(graph.domain)},
        )
        stamp = 1.0

        def reached():
            nonlocal stamp
            assert process.poll() is None
            if moment == "inferring":
                color.publish(good_color(stamp))
                depth.publish(good_depth(stamp))
                stamp += 0.05
                time.sleep(0.05)
                return (tmp_path / "inferring").exists()
            library = {"importing": "_multiarray_umath", "configuring": "libtorch"}[moment]
            return library in open(f"/proc/{process.pid}/maps").read()

        try:
            wait_for(reached, timeout=60.0)
            began = time.monotonic()
            process.send_signal(number)
            errors = process.communicate(timeout=20.0)[1]
            assert time.monotonic() - began < 2.0  # 1 s where others do not use the processors
            assert process.returncode == 0, errors
            assert "Traceback" not in errors
            assert "[ERROR]" not in errors
            # In order: others hear of it at once, not after the middleware's lease of 20 s.
            wait_for(lambda: graph.partner.count_publishers("/stdnet/depth/image") == 0, timeout=5.0)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["-p", "points.stride:=0"], "points.stride"), (["-p", "max_gap:=often"], "max_gap"), (["-p", "x:"], "x:")],
)
def test_a_refused_parameter_at_start_is_one_line_and_exit_2(arguments, words, capsys):
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["stdnet_node", "--ros-args", *arguments])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ended.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
