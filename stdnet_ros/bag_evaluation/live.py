"""The live run: does the node keep up on this machine, and is its output then the same?

A prepared bag (colour as recorded, and the input depth) is replayed over real topics, with simulated time, to a node
process, and the node's output is recorded. The deterministic run then processes the same frames, and both outputs are
compared by stamp. Ctrl-C during the replay ends it; the output received until then is then scored without a
deterministic run."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message

from stdnet_core.cli import require
from stdnet_core.data.bags.ros_images import depth_of
from stdnet_core.report import figures
from stdnet_core.report.analysis import Analysis, AnalysisFrame
from stdnet_core.report.page import Picture, Section, Verdict
from stdnet_ros.bag_evaluation.bag import Bag
from stdnet_ros.bag_evaluation.deterministic import OfflineNode, Upsampled
from stdnet_ros.bag_evaluation.evaluation import Result, Task, readable, run_deterministic, score
from stdnet_ros.bag_evaluation.frames import BagFrame, FrameReader
from stdnet_ros.bag_evaluation.output_bag import RawBagWriter
from stdnet_ros.bag_evaluation.record import DEPTH_TOPIC
from stdnet_ros.demo.topics import NODE_NAME
from stdnet_ros.processes import Child, Children, options, ros_environment
from stdnet_ros.resources import config_file

TOLERANCE_M = 1e-3
"""Largest accepted difference, in metres, between live and deterministic depth for the same input."""

_KEPT_UP = 0.98
_NAMESPACE = "/bag"
_NODE_NAME = ("--ros-args", "-r", f"__ns:={_NAMESPACE}", "-r", f"__node:={NODE_NAME}")


@dataclass
class Agreement:
    """Compares live depth with the deterministic run, frame by frame (same stamp).

    Attributes:
        compared: number of frames in both runs.
        equal_windows: of these, frames for which no frame that they depend on was lost.
        agreeing: of ``equal_windows``, frames that agree to :data:`TOLERANCE_M` in every pixel.
        largest_m: largest difference, in metres, in frames of ``equal_windows``.
        largest_other_m: largest difference, in metres, in the other frames.
    """

    compared: int = 0
    equal_windows: int = 0
    agreeing: int = 0
    largest_m: float = 0.0
    largest_other_m: float = 0.0

    def add(self, live: np.ndarray, offline: np.ndarray, equal_window: bool) -> None:
        """Compare a frame; both depths are (H, W) metres, NaN invalid."""
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
    """The results of a live run.

    Attributes:
        result: of the deterministic run over the same frames.
        rate: speed of the replay, relative to the recording.
        published: colour stamp -> publication time, in nanoseconds.
        arrivals: colour stamp -> arrival time of its depth, in nanoseconds.
        diagnostics: the node's last diagnostics.
        late_ms: the player's largest delay, in milliseconds.
        interrupted: whether Ctrl-C ended the replay.
        agreement: with the deterministic run.
        analysis: of ``live`` and ``deterministic`` on the frames that the node published.
    """

    result: Result
    rate: float
    published: dict[int, int]
    arrivals: dict[int, int]
    diagnostics: dict[str, str]
    late_ms: float
    interrupted: bool = False
    agreement: Agreement = field(default_factory=Agreement)
    analysis: Analysis = field(default_factory=lambda: Analysis(["live", "deterministic"], temporal=False))

    def latencies(self) -> list[tuple[float, float]]:
        """For each received frame: (seconds since the first publication, milliseconds from publication to arrival)."""
        first = min(self.published.values(), default=0)
        return [
            ((self.published[stamp] - first) / 1e9, (arrival - self.published[stamp]) / 1e6)
            for stamp, arrival in sorted(self.arrivals.items())
            if stamp in self.published
        ]

    def drops(self) -> dict[str, int]:
        """Number of frames without output, by cause."""
        prefix = "dropped "
        causes = {
            key.removeprefix(prefix): int(value)
            for key, value in self.diagnostics.items()
            if key.startswith(prefix) and int(value)
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
            "interrupted": self.interrupted,
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
        """The section of the report."""
        pictures = []
        if latencies := self.latencies():
            interval = np.diff(sorted(self.published.values()))
            budget = float(np.median(interval)) / 1e6 if interval.size else None
            timeline = figures.latency_timeline(latencies, "latency", budget)
            pictures.append(
                Picture("live_latency", "Time from the publication of a frame to the arrival of its depth.", timeline)
            )
        counts = {"processed": len(self.arrivals)} | {readable(cause): n for cause, n in self.drops().items()}
        pictures.append(Picture("live_frames", "What happened to the published frames.", figures.drop_causes(counts)))
        text = "The recorded messages were replayed over ROS 2 topics to a node process on this machine."
        return Section("Live run", text, self._rows(), pictures)

    def verdict(self) -> Verdict | None:
        """Whether the node kept up; None if nothing was published."""
        if not self.published:
            return None
        share = len(self.arrivals) / len(self.published)
        speed = "the recorded speed" if self.rate == 1 else f"{self.rate:g} times the recorded speed"
        count = f"{len(self.arrivals)} of {len(self.published)} frames ({100 * share:.0f} %)"
        text = f"Live at {speed}, {count} were processed"
        if latencies := [value for _, value in self.latencies()]:
            text += f", half of them within {np.median(latencies):.0f} ms"
        if share >= _KEPT_UP:
            return Verdict("good", f"{text}: this machine keeps up.")
        return Verdict("mixed" if share >= 0.5 else "bad", f"{text}: this machine does not keep up.")

    def text(self) -> str:
        """The results as lines for the terminal."""
        return "\n".join(f"{key + ':':28}{value}" for key, value in self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        summary, agreement = self.summary(), self.agreement
        latency = ", ".join(f"{name} {value:.0f} ms" for name, value in summary["latency_ms"].items()) or "none arrived"
        ages = {name: value for name, value in summary["age_ms"].items() if value}
        age = ", ".join(f"{name} {float(value):.0f} ms" for name, value in ages.items()) or "unknown"
        drops = ", ".join(f"{count} {readable(cause)}" for cause, count in self.drops().items()) or "none"
        processed = str(summary["processed"])
        if summary["rate_hz"]:
            processed += f", {summary['rate_hz']:.1f} a second"
        rows = [
            ("speed of the replay", f"{self.rate:g} times the recording's"),
            ("frames published", str(summary["published"])),
            ("frames processed", processed),
            ("frames dropped", drops),
            ("latency, publication to arrival", latency),
            ("age, stamp to publication, in simulated time", age),
        ]
        if agreement.equal_windows:
            rows.append(
                (
                    "same as the deterministic run",
                    f"{agreement.agreeing} of the {agreement.equal_windows} frames whose window lost no frame, within "
                    f"{1000 * TOLERANCE_M:g} mm (largest difference {1000 * agreement.largest_m:.3g} mm)",
                )
            )
        others = agreement.compared - agreement.equal_windows
        if others:
            rows.append(
                (
                    "after lost frames",
                    f"{others} frames, which may differ from the deterministic run (largest difference "
                    f"{agreement.largest_other_m:.3g} m)",
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


class RecordedNode:
    """A source of frames after an interrupted live run: the depth that the node published, matched by stamp.

    Args:
        recording: the recorded depth.
        live: the results of the live run so far.
    """

    def __init__(self, recording: _Recording, live: LiveResult) -> None:
        self.drops: Counter = Counter(live.drops())
        self.resets: Counter = Counter()
        self.messages: dict[str, str] = {}
        self._recording, self._live = recording, live
        self._last = max(live.arrivals, default=-1)
        self.ended = False

    def process(self, frame: BagFrame) -> Iterator[Upsampled]:
        """The depth that the node published for this frame, if any."""
        depth = self._recording.depth_of(frame.stamp)
        if depth is not None:
            yield Upsampled(frame, depth, frame.color_info, float("nan"))
        self.ended = frame.stamp >= self._last

    def finish(self) -> Iterator[Upsampled]:
        """Nothing: no frame is waiting for following ones."""
        return iter(())

    def state(self) -> dict[str, Any]:
        """Method, device and other facts, from the node's diagnostics."""
        names = ("method", "device", "precision", "fallback")
        state = {name: self._live.diagnostics[name] for name in names if name in self._live.diagnostics}
        return {"method": "stdnet"} | state


def run_live(task: Task, rate: float) -> LiveResult:
    """Replay the bag to a node process, then run deterministically and compare.

    Ctrl-C during the replay ends it; the output received until then is scored without a deterministic run.

    Raises:
        StdnetError: a process failed, or the bag cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="stdnet_live_", dir=task.output) as work:
        folder = Path(work)
        _prepare(task, folder / "prepared.mcap")
        played, recorded, interrupted = _replay(task, rate, folder)
        published = {stamp: sent for stamp, sent in played["published"]}
        arrivals: dict[int, int] = {}
        for stamp, arrival in recorded["arrivals"]:
            arrivals.setdefault(stamp, arrival)
        live = LiveResult(
            Result(Analysis(["none"])),
            rate,
            published,
            arrivals,
            recorded["diagnostics"],
            played["late_ms_max"],
            interrupted,
        )
        with _Recording(folder / "live.mcap" if arrivals else None) as recording:
            if interrupted:
                live.result = _score_alone(task, live, recording)
            else:
                live.result = run_deterministic(task, _Comparison(recording, live).add)
        return live


def _score_alone(task: Task, live: LiveResult, recording: _Recording) -> Result:
    print("live: interrupted; scoring the frames received so far (Ctrl-C again ends the scoring)", flush=True)
    result = score(task, RecordedNode(recording, live))
    result.partial = True
    result.warnings.insert(
        0,
        f"Interrupted during the live replay after {len(live.published)} frames were published and "
        f"{len(live.arrivals)} were received back: this report covers only these, as the live node published them; "
        "there was no deterministic run to compare with.",
    )
    return result


def _color_topic(task: Task) -> str:
    return "color/image/compressed" if task.settings.color_transport == "compressed" else "color/image"


def _prepare(task: Task, path: Path) -> None:
    """Write the bag to replay: colour as recorded, the input depth of the protocol, and both camera_infos."""
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


def _replay(task: Task, rate: float, folder: Path) -> tuple[dict, dict, bool]:
    """Replay the prepared bag; returns the logs of the player and the recorder, and whether Ctrl-C ended it."""
    yaml = require("yaml", extra="ros")
    parameters = dict(task.parameters) | {"use_sim_time": True, "autostart": True}
    (folder / "params.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    environment = ros_environment(config_file("fastdds.xml"), folder / "ros_log")
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH")])
    )
    played, recorded, ready, stop = (folder / name for name in ("played.json", "recorded.json", "ready", "stop"))
    interrupted = False
    print(f"live: replaying at rate {rate:g} to a node process", flush=True)
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
                stop=stop,
                color_topic=_color_topic(task),
                namespace=_NAMESPACE,
                rate=rate,
            ),
        )
        try:
            _show_progress((player, node, recorder), ready, played, _seconds(folder / "prepared.mcap") / rate)
        except KeyboardInterrupt:
            interrupted = True
            print("live: interrupted; closing the recording", flush=True)
            stop.touch()
            player.wait(node, recorder, until=played)
        recorder.wait(node)
    return json.loads(played.read_text()), json.loads(recorded.read_text()), interrupted


def _seconds(path: Path) -> float:
    with Bag(path) as bag:
        return bag.duration


def _show_progress(children: tuple[Child, ...], ready: Path, played: Path, seconds: float) -> None:
    """Show a progress bar until the file ``played`` exists; the replay takes ``seconds`` once ``ready`` exists.

    Raises:
        StdnetError: one of the children ended.
    """
    tqdm = require("tqdm", extra="report").tqdm
    begin = None
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"
    with tqdm(total=seconds, desc="replaying", bar_format=form, dynamic_ncols=True) as bar:
        while not played.exists():
            for child in children:
                child.check_running()
            if begin is None and ready.exists():
                begin = time.monotonic()
                bar.reset()
            if begin is not None:
                bar.update(min(seconds, time.monotonic() - begin) - bar.n)
            time.sleep(0.1)
        bar.update(seconds - bar.n if begin is not None else 0)


class _Recording:
    """Reads the recorded depth in the order of its stamps; use it in a ``with`` statement.

    Args:
        path: the recorder's bag; None if nothing was received.
    """

    def __init__(self, path: Path | None) -> None:
        self._bag = Bag(path) if path is not None else None
        self._outputs = self._read() if self._bag is not None else iter(())
        self._next = next(self._outputs, None)

    def __enter__(self) -> _Recording:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bag is not None:
            self._bag.close()

    def depth_of(self, stamp: int) -> np.ndarray | None:
        """Depth (H, W) in metres for a stamp, NaN invalid, or None; call it with increasing stamps."""
        depth = None
        while self._next is not None and self._next[0] <= stamp:
            if self._next[0] == stamp:
                depth = self._next[1]
            self._next = next(self._outputs, None)
        return depth

    def _read(self) -> Iterator[tuple[int, np.ndarray]]:
        for raw in self._bag.messages([DEPTH_TOPIC]):
            yield self._bag.header_stamp(raw), depth_of(self._bag.decode(raw))


class _Comparison:
    """Compares the recorded depth with the deterministic run, frame by frame."""

    def __init__(self, recording: _Recording, live: LiveResult) -> None:
        self._live, self._recording = live, recording
        self._order = {stamp: number for number, stamp in enumerate(sorted(live.published))}
        # For each published frame, how many of the frames before it were not received back.
        self._lost = np.cumsum([0, *(stamp not in live.arrivals for stamp in sorted(live.published))])

    def add(self, done: Upsampled, node: OfflineNode) -> None:
        """Add the next frame of the deterministic run."""
        depth = self._recording.depth_of(done.frame.stamp)
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
        """Whether no frame was lost that this depth depends on: previous frames, and the frames that it waits for."""
        number = self._order[done.frame.stamp]
        first = max(0, number - node.memory)
        last = min(len(self._order), number + 1 + node.pipeline.upsampler.latency)
        return bool(self._lost[first] == self._lost[last])
