"""The node's benchmark and soak: their arithmetic against known answers, their parts and one short run of each."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from ros_fixtures import ROOT, Header, SingleThreadedExecutor, running_graph, stamp_message, wait_for

from stdnet_core.data.bags.ros_images import color_from_image, depth_of
from stdnet_ros import soak
from stdnet_ros.benchmark import __main__ as benchmark
from stdnet_ros.benchmark.bare_node import PassThrough
from stdnet_ros.benchmark.faulty_camera import HOUR, MESSAGE_FAULTS, FaultyCamera
from stdnet_ros.benchmark.monitor import Monitor
from stdnet_ros.benchmark.session import Case, evaluate, run
from stdnet_ros.benchmark.statistics import counters, growth, latencies, slope, summary, unbalanced
from stdnet_ros.benchmark.topics import Scene

pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install '.[report]'")

SECOND = 10**9


def test_the_slope_is_that_of_a_line_whatever_a_few_outliers_do():
    seconds = np.arange(2000.0)
    values = 150.0 + 0.003 * seconds
    values[::40] += 500.0
    assert slope(seconds, values) == pytest.approx(0.003, rel=1e-3)
    assert slope(seconds[:1], values[:1]) == 0.0


def test_growth_compares_the_ends():
    seconds = np.linspace(0, 100, 101)
    assert growth(seconds, 7 + seconds) == pytest.approx(80.0)  # medians at 10 s and 90 s
    assert growth(seconds, np.full(101, 3.0)) == 0.0


def test_the_summary_has_the_quantiles_of_a_known_distribution():
    values = summary(np.arange(1001) / 10)
    assert values == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0, "count": 1001}
    assert summary([]) is None


def test_latencies_leave_the_warm_up_out():
    arrivals = [(SECOND, SECOND + 5_000_000), (3 * SECOND, 3 * SECOND + 2_500_000)]
    np.testing.assert_allclose(latencies(arrivals, 2 * SECOND), [[1.0, 2.5]])
    assert latencies([], 0).shape == (0, 2)


def test_counters_that_do_not_add_up_are_named():
    totals = {"color": 10, "depth": 9, "pairs": 8, "published": 5}
    drops = {"color_no_partner": 2, "depth_duplicate": 1, "busy": 2, "bad_color": 1}
    assert unbalanced(totals, drops) == []
    assert len(unbalanced({**totals, "published": 6}, drops)) == 1
    assert len(unbalanced(totals, {**drops, "depth_duplicate": 0, "busy": 1})) == 2


def test_messages_that_went_missing_are_counted_by_hop():
    case = Case("node", "module", rate=10, seconds=1, warm_up=0.0)
    stamps = [SECOND * i for i in range(10)]
    received = {
        "arrivals": {
            "depth": [(stamp, stamp + 2_000_000) for stamp in stamps[:6]],
            "camera_info": [(stamp, stamp + 3_000_000) for stamp in stamps[:7]],
            "points": [],
        },
        "diagnostics": [
            {
                "total color": "10",
                "total depth": "9",
                "total pairs": "9",
                "total published": "7",
                "dropped busy": "2",
                "latency inference p50 [ms]": "0.25",
            }
        ],
    }
    result = evaluate(case, {"stamps": stamps, "late": [0.0] * 10}, received, 0.5)
    assert result["lost"] == {"color in": 0, "depth in": 1, "depth out": 1, "camera_info out": 0}
    assert result["latency_ms"]["depth"]["p50"] == pytest.approx(2.0)
    assert result["inference_ms"] == {"p50": 0.25}
    assert result["cpu_ms_per_frame"] == pytest.approx(50.0)
    assert counters(received["diagnostics"][0])["drops"] == {"busy": 2}


def test_the_scene_is_what_it_says():
    messages = Scene(64, 48, 8).messages()
    assert color_from_image(messages["color/image"]).shape == (48, 64, 3)
    depth = depth_of(messages["depth/image"])
    assert depth.shape == (6, 8)
    assert np.isfinite(depth).all()
    assert (messages["depth/camera_info"].width, messages["depth/camera_info"].height) == (8, 6)


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        ("bad encoding", ("bad_color", "bad_depth")),
        ("truncated", ("bad_color", "bad_depth")),
        ("wrong step", ("bad_color", "bad_depth")),
        ("wrong size", ("bad_color", "bad_depth", "not_registered")),
        ("depth of another frame", ("not_registered",)),
    ],
)
def test_the_faults_are_faults(fault, counter):
    """What the soak sends is refused by the node for the cause that it is meant to have."""
    with running_graph(factory=lambda settings, **changes: PassThrough()) as graph:
        graph.listen()
        graph.connect()
        chance = random.Random(3)
        sent = 4
        for index in range(sent):
            messages = {topic: copy.copy(message) for topic, message in Scene(32, 24, 1).messages().items()}
            header = Header(stamp=stamp_message(10.0 + index / 30), frame_id="camera")
            for message in messages.values():
                message.header = header
            MESSAGE_FAULTS[fault](messages, chance)
            for topic in ("color/image", "depth/image"):
                graph.publisher(topic).publish(messages[topic])
            graph.settle(pairs=index + 1)
        drops = graph.node.snapshot()["drops"]
        assert sum(drops.get(name, 0) for name in counter) == sent, drops


def test_every_fault_can_be_told_from_a_good_frame():
    for fault, apply in MESSAGE_FAULTS.items():
        good = Scene(32, 24, 4).messages()
        messages = {topic: copy.copy(message) for topic, message in good.items()}
        apply(messages, random.Random(0))
        assert messages != good, fault


def test_stream_faults_keep_their_promises():
    camera = FaultyCamera.__new__(FaultyCamera)
    camera._chance, camera._offset, camera._last_stamp = random.Random(1), 0, 77
    jumps = {camera._stream_fault("clock jump", 5) - 5 for _ in range(30)}
    assert jumps <= {-2 * HOUR, -HOUR, HOUR, 2 * HOUR}
    assert camera._offset in (-HOUR, 0, HOUR)
    assert camera._stream_fault("same stamp again", 99) == 77
    assert camera._stream_fault("stamp of the past", 10 * SECOND) < 10 * SECOND


def test_the_monitor_hears_acts_and_is_never_surprised():
    with running_graph(factory=lambda settings, **changes: PassThrough()) as graph:
        monitor = Monitor(seed=5, namespace="", context=graph.node.context)
        executor = SingleThreadedExecutor(context=graph.node.context)
        executor.add_node(monitor)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
        wait_for(lambda: monitor.reports > 0 and monitor.ready())

        def answered() -> bool:
            # A service holds ten requests; more at once would push out the oldest, which then never get an answer.
            return monitor.counts["answers"] >= monitor.counts["calls"]

        for _ in range(40):
            monitor._due = 0.0
            monitor.act()
            wait_for(answered, what=lambda: f"answers: {monitor.counts}")
        monitor.finish()
        wait_for(answered, what=lambda: f"answers: {monitor.counts}")
        assert monitor.surprises == []
        assert monitor.counts["change"] > 5
        assert monitor.counts["refused"] > 2
        executor.shutdown()
        thread.join(5)
        monitor.destroy_node()


def test_a_short_benchmark_of_real_processes(tmp_path):
    case = Case("node", "stdnet_ros.benchmark.bare_node", rate=20, seconds=1.0, size=(160, 120), warm_up=0.0)
    result = run(case, tmp_path)
    assert result["sent"] == 20
    assert result["received"]["depth"] >= 15
    assert result["node"]["totals"]["published"] >= result["received"]["depth"]
    assert 0 < result["latency_ms"]["depth"]["p50"] < 1000
    # The upsampler does nothing: what there is of latency is the node's and the transport's.
    assert result["inference_ms"]["p50"] < result["latency_ms"]["depth"]["p50"]
    assert benchmark._line(result)


def test_a_short_soak(tmp_path):
    command = [sys.executable, "-m", "stdnet_ros.soak", "--minutes", "0.04", "--width", "160", "--height", "120"]
    command += ["--growth-limit", "1e9", "--share", "0.3", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    report = json.loads((tmp_path / "soak.json").read_text()) if done.returncode in (0, 1) else {}
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["failures"] == []
    assert report["faults"]
    assert report["node"]["totals"]["published"] > 0
    assert (tmp_path / "soak.png").stat().st_size > 5000


def test_the_soak_fails_for_what_it_looks_for(tmp_path):
    args = soak.parser().parse_args(["--minutes", "1", "--warm-up", "10", "--output", str(tmp_path)])
    log = tmp_path / "faults.jsonl"
    log.write_text('{"time": 1, "fault": "pause"}\n{"time": 2, "fau')  # the camera was killed while it wrote

    def report(rate: float, through: float, wrong: list[str]) -> list[str]:
        memory = [(t, 100 + rate * t / 1800 + (500 if t < 10 else 0), 300.0) for t in range(60)]
        diagnostics = {f"total {name}": "5" for name in ("color", "depth", "pairs", "published")}
        monitor = SimpleNamespace(latencies=[], diagnostics=diagnostics, counts={}, surprises=[])
        run = SimpleNamespace(memory=memory, faults_log=log, start=time.monotonic(), monitor=monitor, kills=[])
        return soak.evaluate(args, run, through, wrong)["failures"]

    assert report(4.9, 1.0, []) == []
    assert len(report(5.1, 1.0, [])) == 1
    assert len(report(0.0, 0.2, [])) == 1
    assert report(0.0, 1.0, ["3 pairs, but 2 published and 0 drops"]) == ["3 pairs, but 2 published and 0 drops"]


@pytest.mark.parametrize(
    ("main", "arguments"),
    [(benchmark.main, ["--rate", "0"]), (soak.main, ["--minutes", "-1"]), (soak.main, ["--share", "2"])],
)
def test_nonsense_is_refused(main, arguments, monkeypatch):
    from stdnet_core.errors import ConfigError

    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(ConfigError, match="positive"):
        main()
