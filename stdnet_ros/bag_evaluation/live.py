"""The live run: would it keep up on this machine, and is what comes out then the same?

A prepared bag (colour as recorded, depth as the node is to get it) is replayed over real topics with simulated time
into a node process, and what comes back is recorded. Then the deterministic run goes over the same frames and both
are compared by stamp."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message

from stdnet_core.cli import require
from stdnet_core.report import figures
from stdnet_core.report.analysis import Analysis, AnalysisFrame
from stdnet_core.report.writer import Picture, Section
from stdnet_ros.bag_evaluation.bag import Bag
from stdnet_ros.bag_evaluation.deterministic import OfflineNode, Upsampled
from stdnet_ros.bag_evaluation.evaluation import Result, Task, run_deterministic
from stdnet_ros.bag_evaluation.frames import FrameReader, header_stamp
from stdnet_ros.bag_evaluation.output_bag import RawBagWriter
from stdnet_ros.bag_evaluation.record import DEPTH_TOPIC
from stdnet_ros.conversions import depth_from_image
from stdnet_ros.demo.topics import NODE_NAME
from stdnet_ros.processes import Children, options, ros_environment
from stdnet_ros.resources import config_file

TOLERANCE_M = 1e-3
"""Largest difference between live and deterministic depth for the same input."""

_NAMESPACE = "/bag"
_NODE_NAME = ("--ros-args", "-r", f"__ns:={_NAMESPACE}", "-r", f"__node:={NODE_NAME}")


@dataclass
class Agreement:
    """How live depth compares with the deterministic run's, by stamp.

    Attributes:
        compared: frames that both have.
        equal_windows: of these, frames before which no frame was lost that they depend on.
        agreeing: of these, frames that agree to :data:`TOLERANCE_M` everywhere.
        largest_m: largest difference on frames of equal windows.
        largest_other_m: largest difference on the others.
    """

    compared: int = 0
    equal_windows: int = 0
    agreeing: int = 0
    largest_m: float = 0.0
    largest_other_m: float = 0.0

    def add(self, live: np.ndarray, offline: np.ndarray, equal_window: bool) -> None:
        """Take a frame: (H, W) metres, NaN invalid, both."""
        both = np.isfinite(live) & np.isfinite(offline)
        difference = float(np.abs(live - offline)[both].max()) if both.any() else 0.0
        if not np.array_equal(np.isfinite(live), np.isfinite(offline)):
            difference = max(difference, float("inf"))
        self.compared += 1
        if equal_window:
            self.equal_windows += 1
            self.agreeing += difference <= TOLERANCE_M
            self.largest_m = max(self.largest_m, difference)
        else:
            self.largest_other_m = max(self.largest_other_m, difference)


@dataclass
class LiveResult:
    """What the live run found.

    Attributes:
        result: of the deterministic run over the same frames.
        rate: speed of the replay.
        published: colour stamp -> when it was published, nanoseconds.
        arrivals: colour stamp -> when its depth arrived.
        diagnostics: the node's last ones.
        agreement: with the deterministic run.
        analysis: ``live`` and ``deterministic`` on the frames that made it.
        late_ms: the player's largest delay.
    """

    result: Result
    rate: float
    published: dict[int, int]
    arrivals: dict[int, int]
    diagnostics: dict[str, str]
    late_ms: float
    agreement: Agreement = field(default_factory=Agreement)
    analysis: Analysis = field(default_factory=lambda: Analysis(["live", "deterministic"], temporal=False))

    def latencies(self) -> list[tuple[float, float]]:
        """(seconds since the first publication, milliseconds from publication to arrival) of each frame received."""
        first = min(self.published.values(), default=0)
        return [
            ((self.published[stamp] - first) / 1e9, (arrival - self.published[stamp]) / 1e6)
            for stamp, arrival in sorted(self.arrivals.items())
            if stamp in self.published
        ]

    def drops(self) -> dict[str, int]:
        """Frames that did not come back, by cause."""
        prefix = "dropped "
        causes = {
            key.removeprefix(prefix): int(value) for key, value in self.diagnostics.items() if key.startswith(prefix)
        }
        waiting = int(self.diagnostics.get("window waiting", 0) or 0)
        if waiting:
            causes["waiting at the end"] = waiting
        unheard = len(self.published) - int(self.diagnostics.get("total color", 0) or 0)
        if unheard > 0:
            causes["not received by the node"] = unheard
        missing = len(self.published) - len(self.arrivals)
        explained = sum(count for cause, count in causes.items() if not cause.startswith("depth_"))
        if missing - explained > 0:
            causes["lost otherwise"] = missing - explained
        return causes

    def summary(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        milliseconds = [value for _, value in self.latencies()]
        names = ("p50", "p95", "p99")
        percentiles = np.percentile(milliseconds, (50, 95, 99)).tolist() if milliseconds else []
        times = sorted(self.arrivals.values())
        span = (times[-1] - times[0]) / 1e9 if len(times) > 1 else 0.0
        figures_of_both = self.analysis.figures() if len(self.analysis) else {}
        return {
            "replay_rate": self.rate,
            "published": len(self.published),
            "processed": len(self.arrivals),
            "dropped": self.drops(),
            "rate_hz": (len(times) - 1) / span if span > 0 else None,
            "latency_ms": dict(zip(names, percentiles, strict=False)),
            "age_ms": {name: self.diagnostics.get(f"latency stamp to publish {name} [ms]") for name in names},
            "player_late_ms_max": self.late_ms,
            "agreement": vars(self.agreement),
            "figures": figures_of_both,
            "diagnostics": self.diagnostics,
        }

    def section(self) -> Section:
        """For the report."""
        pictures = []
        if latencies := self.latencies():
            interval = np.diff(sorted(self.published.values()))
            budget = float(np.median(interval)) / 1e6 if interval.size else None
            timeline = figures.latency_timeline(latencies, "latency", budget)
            pictures.append(
                Picture("live_latency", "From the publication of a frame to the arrival of its depth.", timeline)
            )
        counts = {"processed": len(self.arrivals)} | self.drops()
        pictures.append(Picture("live_frames", "Frames of the live run by cause.", figures.drop_causes(counts)))
        return Section("Live run", "", self._rows(), pictures)

    def text(self) -> str:
        """For terminals."""
        return "\n".join(f"{key + ':':28}{value}" for key, value in self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        summary, agreement = self.summary(), self.agreement
        latency = ", ".join(f"{name} {value:.0f} ms" for name, value in summary["latency_ms"].items()) or "none arrived"
        age = ", ".join(f"{name} {value} ms" for name, value in summary["age_ms"].items() if value) or "unknown"
        drops = ", ".join(f"{count} {cause}" for cause, count in self.drops().items()) or "none"
        rows = [
            ("live replay at rate", f"{self.rate:g}"),
            ("frames published", str(summary["published"])),
            ("frames processed", f"{summary['processed']} ({summary['rate_hz'] or 0:.1f} Hz of the machine's time)"),
            ("frames dropped", drops),
            ("latency", latency),
            ("age (simulated time)", age),
            (
                "same as deterministic",
                f"{agreement.agreeing} of {agreement.equal_windows} frames with equal windows "
                f"to {1000 * TOLERANCE_M:g} mm (largest difference {1000 * agreement.largest_m:.3g} mm)",
            ),
        ]
        others = agreement.compared - agreement.equal_windows
        if others:
            rows.append(
                (
                    "other windows",
                    f"{others} frames followed lost ones; largest difference {agreement.largest_other_m:.3g} m",
                )
            )
        if summary["figures"]:
            live, offline = (summary["figures"][name] for name in ("live", "deterministic"))
            rows.append(
                (
                    "accuracy on these frames",
                    f"RMSE {live['rmse_cm']:.2f} cm, MAE {live['mae_cm']:.2f} cm live; "
                    f"{offline['rmse_cm']:.2f} and {offline['mae_cm']:.2f} cm deterministic",
                )
            )
        return rows


def run_live(task: Task, rate: float) -> LiveResult:
    """Replay the bag into a node process, then run deterministically and compare.

    Raises:
        StdnetError: a process failed, or the bag cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="stdnet_live_", dir=task.output) as work:
        folder = Path(work)
        _prepare(task, folder / "prepared.mcap")
        played, recorded = _replay(task, rate, folder)
        published = {stamp: sent for stamp, sent in played["published"]}
        arrivals: dict[int, int] = {}
        for stamp, arrival in recorded["arrivals"]:
            arrivals.setdefault(stamp, arrival)
        live = LiveResult(
            Result(Analysis(["none"])), rate, published, arrivals, recorded["diagnostics"], played["late_ms_max"]
        )
        with _Comparison(folder / "live.mcap", task, live) as comparison:
            live.result = run_deterministic(task, comparison.add)
        return live


def _color_topic(task: Task) -> str:
    return "color/image/compressed" if task.settings.color_transport == "compressed" else "color/image"


def _prepare(task: Task, path: Path) -> None:
    """Write what the node is to get: colour as recorded, depth of the protocol, both camera_infos."""
    tqdm = require("tqdm", extra="report").tqdm
    reader = FrameReader(task.bag, task.topics, task.protocol, task.settings)
    color, own = _color_topic(task), task.topics.reference is not None
    depth = "depth/image/compressedDepth" if task.settings.depth_transport == "compressedDepth" else "depth/image"
    kinds = {
        color: task.bag.topics[task.topics.color],
        depth: task.bag.topics[task.topics.depth] if own else "sensor_msgs/msg/Image",
        "color/camera_info": "sensor_msgs/msg/CameraInfo",
        "depth/camera_info": "sensor_msgs/msg/CameraInfo",
    }
    writer = RawBagWriter(path)
    try:
        for topic, kind in kinds.items():
            writer.add_topic(topic, kind)
        for frame in tqdm(reader, total=reader.expected, unit="frame", desc="preparing", dynamic_ncols=True):
            infos = (("color", frame.color_info, frame.raw_color), ("depth", frame.depth_info, frame.raw_depth))
            for name, info, raw in infos:
                if info is not None:
                    writer.write(f"{name}/camera_info", raw.logged, serialize_message(info))
            writer.write(color, frame.raw_color.logged, task.bag.cdr(frame.raw_color))
            data = task.bag.cdr(frame.raw_depth) if own else serialize_message(frame.pair.depth)
            writer.write(depth, frame.raw_depth.logged, data)
    finally:
        writer.close()


def _replay(task: Task, rate: float, folder: Path) -> tuple[dict, dict]:
    yaml = require("yaml", extra="ros")
    parameters = dict(task.parameters) | {"use_sim_time": True, "autostart": True}
    (folder / "params.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    environment = ros_environment(config_file("fastdds.xml"), folder / "ros_log")
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH")])
    )
    played, recorded, ready = folder / "played.json", folder / "recorded.json", folder / "ready"
    print(f"live: replaying at rate {rate:g} into a node process", flush=True)
    with Children(task.output, environment) as children:
        node = children.start(
            "node",
            "stdnet_ros.node",
            [*_NODE_NAME, "--params-file", str(folder / "params.yaml")],
        )
        recorder = children.start(
            "recorder",
            "stdnet_ros.bag_evaluation.record",
            options(bag=folder / "live.mcap", played=played, ready=ready, log=recorded, namespace=_NAMESPACE),
        )
        player = children.start(
            "player",
            "stdnet_ros.bag_evaluation.replay",
            options(
                bag=folder / "prepared.mcap",
                log=played,
                ready=ready,
                color_topic=_color_topic(task),
                namespace=_NAMESPACE,
                rate=rate,
            ),
        )
        player.wait(node, recorder, until=played)
        recorder.wait(node)
    return json.loads(played.read_text()), json.loads(recorded.read_text())


class _Comparison:
    """Reads the recorded depth in step with the deterministic run and compares."""

    def __init__(self, path: Path, task: Task, live: LiveResult) -> None:
        self._live, self._task = live, task
        self._bag = Bag(path) if live.arrivals else None
        self._outputs = self._read() if self._bag is not None else iter(())
        self._next = next(self._outputs, None)
        self._order = {stamp: number for number, stamp in enumerate(sorted(live.published))}
        # How many of the frames published up to each one did not come back.
        self._lost = np.cumsum([0, *(stamp not in live.arrivals for stamp in sorted(live.published))])

    def __enter__(self) -> _Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bag is not None:
            self._bag.close()

    def add(self, done: Upsampled, node: OfflineNode) -> None:
        """Take a frame of the deterministic run, in order."""
        depth = None
        while self._next is not None and self._next[0] <= done.frame.stamp:
            if self._next[0] == done.frame.stamp:
                depth = self._next[1]
            self._next = next(self._outputs, None)
        if depth is None:
            return
        self._live.agreement.add(depth, done.depth, self._equal_window(done, node))
        if done.frame.truth is not None:
            frame = done.frame
            self._live.analysis.add(
                AnalysisFrame(
                    frame.index,
                    frame.stamp / 1e9,
                    frame.rgb,
                    frame.depth_lr,
                    {"live": depth, "deterministic": done.depth},
                    frame.truth,
                )
            )

    def _equal_window(self, done: Upsampled, node: OfflineNode) -> bool:
        """Whether no frame was lost that this one's depth depends on: some before it, and those it waits for."""
        number = self._order[done.frame.stamp]
        first = max(0, number - node.memory)
        last = min(len(self._order), number + 1 + node.pipeline.upsampler.latency)
        return bool(self._lost[first] == self._lost[last])

    def _read(self) -> Iterator[tuple[int, np.ndarray]]:
        for raw in self._bag.messages([DEPTH_TOPIC]):
            yield header_stamp(self._bag, raw), depth_from_image(self._bag.decode(raw))
