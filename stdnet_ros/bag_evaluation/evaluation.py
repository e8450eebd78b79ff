"""Evaluates a bag and writes report.html, metrics.json and per_frame.csv."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from typing import Protocol as Interface

import numpy as np

from stdnet_core.cli import require
from stdnet_core.data.bags.ros_images import same_field_of_view
from stdnet_core.data.bags.topics import BagTopics
from stdnet_core.data.sensors.arguments import simulation_sentences
from stdnet_core.errors import DataError, InputError
from stdnet_core.evaluation.hidden_patches import hidden_patches
from stdnet_core.evaluation.recording import RecordedFrame, RecordingScore, judged
from stdnet_core.inference import DepthUpsampler, UpsampledDepth
from stdnet_core.inference.fill import valid_depth
from stdnet_core.report.analysis import Analysis, AnalysisFrame
from stdnet_core.report.cloud import back_project, render_cloud, without_margins
from stdnet_core.report.drawing import encode_png
from stdnet_core.report.page import ReportData, Section, Table, Verdict, accuracy_of
from stdnet_core.report.preview import PreviewVideo
from stdnet_core.report.recording_report import (
    COLUMNS,
    REFERENCE,
    analysis_frame,
    recording_parts,
    recording_summary,
    with_flicker,
)
from stdnet_core.report.versions import versions
from stdnet_core.report.writer import write_report
from stdnet_ros.bag_evaluation.bag import Bag
from stdnet_ros.bag_evaluation.deterministic import OfflineNode, Upsampled
from stdnet_ros.bag_evaluation.frames import BagFrame, FrameReader, Protocol
from stdnet_ros.bag_evaluation.output_bag import OutputBag

_CAUSES = {
    "busy": "node was busy",
    "color_no_partner": "colour without depth",
    "depth_no_partner": "depth without colour",
    "color_at_end": "colour without depth at the end",
    "depth_at_end": "depth without colour at the end",
}


@dataclass(frozen=True)
class Task:
    """What to evaluate, and where to write the results.

    Attributes:
        bag: an open bag.
        topics: its topics to read.
        protocol: how to obtain input and ground truth from the bag.
        settings: settings of the node.
        parameters: parameters that were set, for the report.
        baselines: classical methods to compare with.
        temporal: whether to compute figures that need optical flow.
        output: folder for the results.
        write_bag: bag to write the upsampled depth to, None for none.
    """

    bag: Bag
    topics: BagTopics
    protocol: Protocol
    settings: SimpleNamespace
    parameters: Mapping[str, Any]
    baselines: Sequence[str]
    temporal: bool
    output: Path
    write_bag: Path | None = None


@dataclass
class Result:
    """The results of an evaluation, for its report.

    Attributes:
        analysis: of the scored frames.
        counts: frames by what happened to them.
        timeline: (seconds since the first frame, milliseconds of inference) per frame.
        warnings, notes: sentences for the reader.
        state: method, checkpoint, device and precision in use.
        partial: whether the evaluation was interrupted.
        cloud: picture of a cloud as PNG, None if there is none.
        video_caption: caption of the video.
        recording: scores of a recording that is judged by itself, otherwise None.
    """

    analysis: Analysis
    counts: Counter = field(default_factory=Counter)
    timeline: list[tuple[float, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    partial: bool = False
    cloud: bytes | None = None
    video_caption: str = ""
    recording: RecordingScore | None = None

    @property
    def table(self) -> Table:
        """The main table of the report."""
        if self.recording is not None:
            return Table(COLUMNS, self.recording.figures())
        return accuracy_of(self.analysis)


class Baselines:
    """Classical methods, run on the same input as the node's pipeline.

    Args:
        names: the methods.
        withhold: whether to mask depth that no measurement supports, as the node does.
    """

    def __init__(self, names: Sequence[str], *, withhold: bool = True) -> None:
        self._upsamplers = {
            name: DepthUpsampler(method=name, device="cpu", mask_unsupported=withhold) for name in names
        }
        self._sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def names(self) -> list[str]:
        """The methods."""
        return list(self._upsamplers)

    def run(self, rgb: np.ndarray, depth_lr: np.ndarray) -> dict[str, UpsampledDepth]:
        """The output of every method for the next frame: (H, W, 3) uint8 and (h, w) metres."""
        sizes = rgb.shape, depth_lr.shape
        if sizes != self._sizes:
            for upsampler in self._upsamplers.values():
                upsampler.reset()
            self._sizes = sizes
        return {name: upsampler.step(rgb, depth_lr) for name, upsampler in self._upsamplers.items()}


class Scorer:
    """Scores upsampled frames, and keeps what the report shows of them.

    Args:
        task: the evaluation.
        main: name of the evaluated method.
        expected: approximate number of frames.
        video: video file to write.
    """

    def __init__(self, task: Task, main: str, expected: int, video: Path) -> None:
        by_itself = task.protocol.by_itself
        self._baselines = Baselines(list(dict.fromkeys(["bilinear", *task.baselines])), withhold=not by_itself)
        shown = [name for name in task.baselines if name != main]
        reference = REFERENCE if by_itself else "truth"
        self.analysis = Analysis([main, *shown], temporal=task.temporal and not by_itself, reference=reference)
        self.recording = RecordingScore([main, *shown]) if by_itself else None
        self.cloud: bytes | None = None
        self.unscored = 0
        self.measured = False
        self._main, self._expected = main, expected
        self.video = PreviewVideo(video, main, expected, reference)

    def add(self, done: Upsampled) -> dict[str, float] | None:
        """Score a frame; returns its row of the per-frame table, None if it has no ground truth."""
        frame = done.frame
        if frame.truth is None and self.recording is None:
            self.unscored += 1
            return None
        others = self._classical(frame.rgb, frame.depth_lr)
        outputs = {name: others[name].depth for name in self.analysis.methods[1:]}
        outputs[self._main] = done.depth
        if self.recording is not None:
            shown = {name: others[name].shown for name in self.analysis.methods[1:]}
            shown[self._main] = np.isfinite(done.depth)
            row, truth = self._judge(frame, outputs, shown)
        else:
            row, truth = self._compare(frame, outputs, others["bilinear"].depth), frame.truth
        self.measured = self.measured or bool(valid_depth(truth).any())
        number = len(self.analysis) - 1
        self.video.add(frame.rgb, frame.depth_lr, done.depth, truth)
        if done.info is not None and (self.cloud is None or number == self._expected // 2):
            points = back_project(done.depth, np.array(done.info.k).reshape(3, 3))
            self.cloud = encode_png(without_margins(render_cloud(points, frame.rgb, size=(600, 800))))
        return row

    def _compare(self, frame: BagFrame, outputs: Mapping[str, np.ndarray], upsampled: np.ndarray) -> dict[str, float]:
        """Compare with the ground truth; returns the row of the frame."""
        size = outputs[self._main].shape
        if size != frame.truth.shape:
            raise DataError(f"output of size {size} cannot be compared with ground truth of size {frame.truth.shape}")
        return self.analysis.add(
            AnalysisFrame(
                frame.index,
                frame.stamp / 1e9,
                frame.rgb,
                frame.depth_lr,
                outputs,
                frame.truth,
                upsampled=upsampled,
            )
        )

    def _judge(
        self, frame: BagFrame, outputs: Mapping[str, np.ndarray], shown: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, float], np.ndarray]:
        """Judge a recording by itself; returns the row of the frame, and the recorded depth at the size of colour."""
        hidden = hidden_patches(frame.recorded.shape)
        scored = RecordedFrame(frame.rgb, frame.recorded, hidden, outputs, shown)
        flicker = self.recording.add(scored)
        cells = self.recording.cells(frame.rgb, frame.recorded)
        judged_frame = judged(frame.index, scored, frame.depth_lr, cells, flicker)
        row = self.analysis.add(analysis_frame(judged_frame, frame.stamp / 1e9))
        with_flicker(row, flicker)
        return row, judged_frame.recorded

    def _classical(self, rgb: np.ndarray, depth_lr: np.ndarray) -> dict[str, UpsampledDepth]:
        if not same_field_of_view(rgb.shape[:2], depth_lr.shape):
            raise InputError(
                f"depth of {depth_lr.shape[1]}x{depth_lr.shape[0]} does not cover colour of "
                f"{rgb.shape[1]}x{rgb.shape[0]}: their aspect ratios differ, so the baselines cannot run; "
                f"register depth first (depth_image_proc register_node)"
            )
        return self._baselines.run(rgb, depth_lr)


class Source(Interface):
    """Source of the upsampled frames: :class:`OfflineNode`, or the recording of a live node."""

    drops: Counter
    resets: Counter
    messages: dict[str, str]

    def process(self, frame: BagFrame) -> Iterable[Upsampled]:
        """Process the next frame; returns the frames that this finishes."""

    def finish(self) -> Iterable[Upsampled]:
        """At the end of the bag: the frames that are still waiting for following ones."""

    def state(self) -> dict[str, Any]:
        """Method, device and other facts, by name."""

    @property
    def ended(self) -> bool:
        """Whether no more frames will come, even if the bag continues."""


def run_deterministic(task: Task, on_frame: Callable[[Upsampled, OfflineNode], None] | None = None) -> Result:
    """Process every frame of the bag and drop none; after Ctrl-C, the result covers the frames done so far.

    Args:
        task: the evaluation.
        on_frame: called with each finished frame.

    Raises:
        StdnetError: the bag, its topics or the settings cannot be used.
    """
    return score(task, OfflineNode(task.settings), on_frame)


def score(task: Task, node: Source, on_frame: Callable[[Upsampled, Any], None] | None = None) -> Result:
    """Score the output of ``node`` for the frames of the bag; otherwise as :func:`run_deterministic`."""
    tqdm = require("tqdm", extra="report").tqdm
    reader = FrameReader(task.bag, task.topics, task.protocol, task.settings)

    def begin() -> tuple[Scorer, Result]:
        state = node.state()
        scorer = Scorer(task, state["method"], reader.expected, task.output / "video.mp4")
        return scorer, Result(scorer.analysis, state=state, recording=scorer.recording)

    scorer, result = begin()
    written = _open_output_bag(task, reader) if task.write_bag is not None else None
    first: int | None = None
    doing = "itself" if task.protocol.by_itself else f"x{task.protocol.scale:g}"
    bar = tqdm(total=reader.expected, unit="frame", desc=doing, dynamic_ncols=True)

    def take(done: Upsampled) -> None:
        nonlocal first, scorer, result
        if first is None:
            first = done.frame.stamp
            scorer, result = begin()  # again, since auto chooses the method at the first frame
        row = scorer.add(done)
        if row is not None:
            row["inference_ms"] = 1e3 * done.seconds
        if math.isfinite(done.seconds):
            result.timeline.append(((done.frame.stamp - first) / 1e9, 1e3 * done.seconds))
        if written is not None:
            written.add(done)
        if on_frame is not None:
            on_frame(done, node)
        result.counts["processed"] += 1

    try:
        for frame in reader:
            for done in node.process(frame):
                take(done)
            bar.update()
            if node.ended:
                break
        for done in node.finish():
            take(done)
    except KeyboardInterrupt:
        result.partial = True
        result.warnings.append(f"Interrupted: this report covers the first {len(result.analysis)} frames.")
    finally:
        bar.close()
        scorer.video.close()
        if written is not None:
            written.close(complete=not (result.partial or node.ended))
    _account(result, task, reader, node, scorer, written)
    return result


def _open_output_bag(task: Task, reader: FrameReader) -> OutputBag:
    return OutputBag(
        task.write_bag, task.bag, task.settings, reader.start, reader.stop, with_input=task.topics.reference is None
    )


def _account(
    result: Result, task: Task, reader: FrameReader, node: Source, scorer: Scorer, written: OutputBag | None
) -> None:
    causes = {
        name: count
        for name, count in reader.counts.items()
        if name.startswith(("color_", "depth_")) and not name.endswith("_info")
    }
    result.counts.update(causes)
    result.counts["unusable"] += reader.counts["unusable"]
    result.counts["without reference"] += scorer.unscored
    result.counts.update(node.drops)
    result.cloud = scorer.cloud
    result.video_caption = scorer.video.caption
    result.notes += task.bag.notes
    result.notes += [f"Frames were left out: {text}" for text in reader.skipped.values()]
    result.notes += list(node.messages.values())
    result.notes += [f"The temporal window was cleared {count} times: {cause}." for cause, count in node.resets.items()]
    if reader.counts["clock_jumps"]:
        result.notes.append(f"The stamps jumped back {reader.counts['clock_jumps']} times.")
    if task.topics.color_info is None:
        result.notes.append(
            "No camera_info was found for the colour topic, so the output has no camera_info and no cloud; expected "
            "one next to that topic, or one named with --color-info."
        )
    if written is not None:
        result.notes += written.notes
        patches = " Its input had the patches hidden." if task.protocol.by_itself else ""
        result.notes.append(f"The upsampled depth was written to {task.write_bag}.{patches}")
    if len(result.analysis) == 0 and not result.partial and not node.ended:
        reasons = [*reader.skipped.values(), *node.messages.values()] or ["no frame has a ground truth"]
        raise DataError(f"{task.bag.path}: no frame could be scored: {reasons[0]}")
    if len(result.analysis) and result.recording is not None and not scorer.measured and not result.partial:
        raise DataError(f"{task.bag.path}: nothing could be judged: {_why_nothing(task, result, scorer)}")
    if len(result.analysis) and result.recording is None and not result.partial:
        figures = result.analysis.figures()
        if not any(math.isfinite(figures[method]["rmse_cm"]) for method in result.analysis.methods):
            raise DataError(f"{task.bag.path}: nothing could be compared: {_why_nothing(task, result, scorer)}")


def _why_nothing(task: Task, result: Result, scorer: Scorer) -> str:
    topic, frames = task.topics.reference or task.topics.depth, len(result.analysis)
    if scorer.measured:
        return (
            f"in {frames} frames no pixel has a depth in {topic} and from every method; is the depth in metres (32FC1) "
            "or in units of depth_unit (16UC1), and within max_depth and the simulated camera's range?"
        )
    return (
        f"{topic} is 0 or not finite in every pixel of {frames} frames; if depth is on another topic, name that topic "
        "with --depth or --reference"
    )


def write_results(
    task: Task, result: Result, sections: Sequence[Section] = (), live: Any = None, verdict: Verdict | None = None
) -> Path:
    """Write report.html with its files, and metrics.json with all numbers; returns the HTML file.

    Args:
        task: the evaluation.
        result: of the run that the report describes.
        sections: further sections of the report.
        live: numbers of a live run, for metrics.json.
        verdict: on the speed of a live run; None for a verdict from the inference times.
    """
    analysis, recording = result.analysis, result.recording
    figures = result.table.figures if len(analysis) else {}
    milliseconds = [value for _, value in result.timeline]
    percentiles = _percentiles(milliseconds)
    interval = _frame_interval(analysis)
    content = {
        "bag": str(task.bag.path),
        "duration_s": task.bag.duration,
        "partial": result.partial,
        "topics": task.topics.named(),
        "protocol": _plain(asdict(task.protocol)) | {"reference": task.topics.reference},
        "method": analysis.methods[0],
        "figures": figures,
        "frames": {"scored": len(analysis)} | {name: count for name, count in result.counts.items() if count},
        "inference_ms": percentiles,
        "run": result.state,
        "parameters": dict(task.parameters),
        "notes": result.warnings + result.notes,
        "versions": versions(),
    }
    if recording is not None:
        content["recording"] = recording_summary(recording, analysis.methods[0])
    if live is not None:
        content["live"] = live
    task.output.mkdir(parents=True, exist_ok=True)
    (task.output / "metrics.json").write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")
    main = analysis.methods[0]
    facts = [("frames scored", str(len(analysis)))]
    parts: dict[str, Any] = {"protocol": _protocol_text(task), "verdicts": [], "warnings": [], "sections": []}
    if recording is not None:
        parts = recording_parts(recording, main)
        facts += parts.pop("facts")
    elif figures:
        facts += [
            (f"RMSE of {main}", f"{figures[main]['rmse_cm']:.2f} cm"),
            (f"MAE of {main}", f"{figures[main]['mae_cm']:.2f} cm"),
            (f"flicker of {main}", f"{figures[main]['flicker_cm']:.2f} cm" if len(analysis) > 1 else "-"),
            ("coverage", f"{100 * figures[main]['coverage']:.1f} %"),
        ]
    if percentiles:
        facts.append(("inference, median", f"{percentiles['p50']:.0f} ms"))
    if verdict is None and percentiles and interval:
        verdict = _speed_verdict(percentiles, interval)
    checkpoint = result.state.get("checkpoint")
    ran = f"{main} ({checkpoint})" if checkpoint else main
    simulated = task.topics.reference is None and recording is None
    scale = f" x{task.protocol.scale:g}" if simulated else ""
    title = f"Depth upsampling{scale} of {task.bag.path.name}"
    if recording is not None:
        title = f"Depth of {task.bag.path.name}, judged by itself"
    parts["warnings"] = [*result.warnings, *parts["warnings"]]
    parts["verdicts"] = [*parts["verdicts"], *([verdict] if verdict is not None else [])]
    parts["sections"] = [*sections, *parts["sections"]]
    data = ReportData(
        title=title,
        subtitle=f"{task.bag.path}, {task.bag.duration:.1f} s; {ran} on {result.state.get('device', '?')}",
        lead=simulation_sentences(task.protocol.camera, task.protocol.scale) if simulated else "",
        analysis=analysis,
        facts=facts,
        notes=result.notes,
        counts={readable(cause): count for cause, count in result.counts.items()},
        latency=result.timeline,
        latency_label="inference",
        frame_interval_ms=interval,
        video=task.output / "video.mp4",
        video_caption=result.video_caption,
        cloud=result.cloud,
        configuration=_configuration(task, result),
        **parts,
    )
    return write_report(data, task.output)


def readable(cause: str) -> str:
    """The cause of a drop, in words."""
    return _CAUSES.get(cause, cause.replace("_", " "))


def _configuration(task: Task, result: Result) -> dict[str, Any]:
    """Topics, protocol, method and device, and the parameters that were set, by readable names."""
    protocol = task.protocol
    rows: dict[str, Any] = {f"{role.replace('_', ' ')} topic": topic for role, topic in task.topics.named().items()}
    if protocol.by_itself:
        rows["input"] = "depth as recorded, with patches hidden"
    elif task.topics.reference is None:
        rows["scale"] = protocol.scale
        rows["simulated sensor"] = f"{protocol.camera}: {protocol.sensor.describe()}; seed {protocol.seed}"
    until = "the end" if protocol.duration is None else f"{protocol.start + protocol.duration:g} s"
    every = "every pair" if protocol.every == 1 else f"one pair in {protocol.every}"
    rows["part of the bag"] = f"from {protocol.start:g} s to {until}, {every}"
    rows["paired by"] = f"{protocol.stamps} stamps"
    rows |= result.state
    return rows | {f"parameter {name}": value for name, value in task.parameters.items()}


def _speed_verdict(inference_ms: Mapping[str, float], interval_ms: float) -> Verdict:
    """Whether inference alone would keep up with the rate of the processed frames."""
    kind = "good" if inference_ms["p95"] < interval_ms else "mixed" if inference_ms["p50"] < interval_ms else "bad"
    ends = {"good": "fast enough", "mixed": "fast enough for most frames", "bad": "too slow to process every frame"}
    return Verdict(
        kind,
        f"Inference takes {inference_ms['p50']:.0f} ms on this machine (95 % of frames at most "
        f"{inference_ms['p95']:.0f} ms), and a frame arrives every {interval_ms:.0f} ms: {ends[kind]}. A run with "
        "--live measures how many frames are processed.",
    )


def _protocol_text(task: Task) -> str:
    same = "All methods are compared on the same pixels: those where the truth and every method have a depth."
    if task.topics.reference is not None:
        return f"Input is {task.topics.depth}, truth is {task.topics.reference}. {same}"
    return f"The truth is the bag's depth. {same}"


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return dict(zip(("p50", "p95", "p99"), np.percentile(values, (50, 95, 99)).tolist(), strict=True))


def _frame_interval(analysis: Analysis) -> float | None:
    stamps = np.array([row["stamp_s"] for row in analysis.rows])
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    return 1e3 * float(np.median(steps)) if steps.size else None


def _plain(value: Any) -> Any:
    """Convert for JSON: NaN and infinity to null, paths to text, counters to dicts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value if isinstance(value, str | int | bool | None) else str(value)
