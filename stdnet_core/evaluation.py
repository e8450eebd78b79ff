"""Runs several upsampling methods side by side over RGB-D sequences and scores them; the library of
``python -m stdnet_core.evaluate``.

Every method sees the same low-resolution depth through the same :class:`DepthUpsampler` that runs live, frame by
frame, so the memory does not grow with the length of a sequence, and is scored on the same pixels
(:mod:`stdnet_core.scoring`)."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from stdnet_core.data import dydtof, tartanair
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors import DepthCamera, Sensor, sensor
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.errors import DataError
from stdnet_core.fill import measured_here
from stdnet_core.flow import estimate_flow
from stdnet_core.frames import Geometry
from stdnet_core.inference import DepthUpsampler, UpsampledDepth
from stdnet_core.scoring import ScoredFrame, VideoScore
from stdnet_core.short_repr import short_repr

CLASSICAL = ("nearest", "bilinear", "bicubic", "joint_bilateral", "guided_temporal")
FORGETFUL = "model_without_history"
"""The model, beginning anew with every frame."""
METHODS = ("model", FORGETFUL, *CLASSICAL)

_Frame = TypeVar("_Frame")
_CHUNK = 8  # frames read at once
_RANGE_PROBES = 16  # frames whose largest depth decides the range of the simulated sensor
PROTOCOL_RANGES = {"tartanair": tartanair.DEPTH_RANGE_M, "dydtof": dydtof.DEPTH_RANGE_M}
"""Depth ranges of the paper in metres, by kind of source."""
PROTOCOL_CLIPS = {"dydtof": dydtof.DEPTH_RANGE_M}
"""Metres that the paper clips true depth to, by kind of source; it leaves that of others as it is."""


@dataclass(frozen=True)
class LowResolution:
    """Where low-resolution depth comes from.

    Attributes:
        scale: of the upsampling.
        simulated: simulate it from the true depth; otherwise it is the source's own.
        sensor: that is simulated; a direct time-of-flight one without a range takes the data set's
            (:func:`sensor_range`).
        seed: of what is random in the simulation.
    """

    scale: float
    simulated: bool = True
    sensor: Sensor = field(default_factory=lambda: sensor("dtof_paper"))
    seed: int = 0


@dataclass(frozen=True)
class EvaluationFrame:
    """One frame as the methods and the scores take it.

    Attributes:
        rgb: (H, W, 3) float32, 0..1.
        target: (H, W) metres, 0 invalid.
        depth_lr: (h, w) metres, 0 invalid.
        flow: (2, H, W) px from the previous frame to this one; None for the first frame.
        true_flow: whether the flow is the data's own, not an estimate.
    """

    rgb: np.ndarray
    target: np.ndarray
    depth_lr: np.ndarray
    flow: np.ndarray | None
    true_flow: bool

    __repr__ = short_repr


@dataclass(frozen=True)
class SequenceResult:
    """What came out of one sequence.

    Attributes:
        figures: ``figures[method][name]``, see :data:`stdnet_core.scoring.FIGURES`, and ``ms_per_frame``.
        by_frame: those of each frame, if they were asked for.
        frames: how many were scored.
        flow: ``true``, ``estimated``, ``mixed`` or ``none`` (a single frame).
        range_m: depth range of the simulated dToF sensor in metres, None without one.
        clip_truth_m: metres that true depth was clipped to, None where it was not.
        notices: what the methods had to say, by method.
    """

    figures: dict[str, dict[str, float]]
    by_frame: list[dict[str, dict[str, float]]]
    frames: int
    flow: str
    range_m: float | None
    clip_truth_m: float | None
    notices: dict[str, list[str]]

    __repr__ = short_repr


def sensor_range(sequence: RgbdSequence, kind: str = "", frames: int | None = None) -> float:
    """Depth range in metres of the sensor that is simulated for a sequence.

    The normaliser of the paper for its data sets; otherwise the largest depth of 16 frames spread over the first
    ``frames`` (default: all).

    Args:
        kind: of the source, e.g. ``tartanair``.
    """
    if kind in PROTOCOL_RANGES:
        return PROTOCOL_RANGES[kind]
    count = min(frames or len(sequence), len(sequence))
    probes = np.unique(np.linspace(0, count - 1, min(_RANGE_PROBES, count)).round().astype(int))
    clips = (sequence.clip(int(i), 1) for i in probes)
    largest = max(float((clip.depth * clip.valid).max()) for clip in clips)
    return largest or 1.0


def read_frames(
    sequence: RgbdSequence,
    low_resolution: LowResolution,
    *,
    frames: int | None = None,
    range_m: float = 20.0,
    clip_truth: float = math.inf,
) -> Iterator[EvaluationFrame]:
    """Frames of a sequence with low-resolution depth and flow, read a few at a time.

    Args:
        frames: at most so many, from the first.
        range_m: of the simulated sensor; readings beyond it become it.
        clip_truth: true depth beyond so many metres becomes that, for the simulated sensor, too.

    Raises:
        DataError: a frame cannot be read, or low-resolution depth is asked from a source without it.
    """
    count = min(frames or len(sequence), len(sequence))
    camera = simulated_camera(sequence, low_resolution, range_m) if low_resolution.simulated else None
    last_rgb: np.ndarray | None = None
    for start in range(0, count, _CHUNK):
        first = max(start - 1, 0)  # with the frame before, for the flow that leads here
        clip = sequence.clip(first, min(start + _CHUNK, count) - first)
        new = start - first
        depth = (clip.depth * clip.valid).clamp(max=clip_truth)
        low = _own_depth(clip)[new:] if camera is None else camera.measure(depth[new:], clip.rgb[new:])
        for i in range(new, len(clip)):
            rgb = clip.rgb[i].permute(1, 2, 0).contiguous().numpy()
            flow = None
            if last_rgb is not None:
                if clip.flow is not None:
                    flow = clip.flow[i - 1].numpy()
                else:
                    flow = estimate_flow(_bytes(last_rgb), _bytes(rgb))
            yield EvaluationFrame(rgb, depth[i, 0].numpy(), low[i - new, 0].numpy(), flow, clip.flow is not None)
            last_rgb = rgb


def simulated_camera(sequence: RgbdSequence, low_resolution: LowResolution, range_m: float) -> DepthCamera:
    """The camera that is simulated, at the sequence's first frame.

    Args:
        range_m: of a direct time-of-flight sensor that has none of its own.
    """
    chosen = low_resolution.sensor
    if isinstance(chosen.measurement, Dtof) and chosen.measurement.range_m is None:
        chosen = chosen.with_values({"dtof.range_m": range_m})
    focal_px = None if sequence.intrinsics is None else float(sequence.intrinsics[0, 0])
    return DepthCamera(chosen, sequence.frame_size, low_resolution.scale, focal_px=focal_px, seed=low_resolution.seed)


def _own_depth(clip: RgbdClip) -> torch.Tensor:
    if clip.depth_lr is None:
        raise DataError(f"{clip.name}: it has no low-resolution depth of its own; simulate it with --lr simulated")
    return clip.depth_lr


def _bytes(rgb: np.ndarray) -> np.ndarray:
    return (rgb * 255).round().astype(np.uint8)


class Said(NamedTuple):
    """What a method made of a frame, (H, W) each: depth in metres, where it would show it, and its confidence, None if
    it has none."""

    depth: np.ndarray
    shown: np.ndarray
    confidence: np.ndarray | None


class Method(Protocol):
    """What :func:`run_together` runs; see :class:`Runner`, which says what each part is."""

    def begin(self) -> None: ...

    def step(self, rgb: np.ndarray, depth_lr: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    @property
    def ready(self) -> int: ...

    def pop(self) -> Said: ...

    @property
    def ms_per_frame(self) -> float: ...

    @property
    def notices(self) -> list[str]: ...


class Runner:
    """One method on one stream: what it says everywhere, and where it would show it.

    Args:
        upsampler: with ``mask_unsupported=False``.
        forgetful: it begins anew with every frame, to see what its history is worth.
    """

    def __init__(self, upsampler: DepthUpsampler, *, forgetful: bool = False) -> None:
        self.upsampler = upsampler
        self.forgetful = forgetful
        self.seconds = 0.0
        self.frames = 0
        self._ready: deque[Said] = deque()

    @classmethod
    def classical(cls, method: str, device: str = "auto") -> Runner:
        """A runner of one of :data:`CLASSICAL`."""
        return cls(DepthUpsampler(method=method, device=device, mask_unsupported=False))

    def begin(self) -> None:
        """Start a new sequence; time is counted from here."""
        self.upsampler.reset()
        self._ready.clear()
        self.seconds, self.frames = 0.0, 0

    def step(self, rgb: np.ndarray, depth_lr: np.ndarray) -> None:
        """Give the next frame, (H, W, 3) and (h, w) metres with 0 where invalid."""
        self.frames += 1
        result = self._timed(lambda: self.upsampler.step(rgb, depth_lr))
        if result is not None:
            self._take(result)
        if self.forgetful:
            self.finish()

    def finish(self) -> None:
        """End the sequence: all frames held back become ready, and the next frame begins a new one."""
        for result in self._timed(self.upsampler.flush):
            self._take(result)

    @property
    def ready(self) -> int:
        """How many frames can be popped."""
        return len(self._ready)

    def pop(self) -> Said:
        """The oldest ready frame."""
        return self._ready.popleft()

    @property
    def ms_per_frame(self) -> float:
        """Mean time of a frame since :meth:`begin`."""
        return 1e3 * self.seconds / max(self.frames, 1)

    @property
    def notices(self) -> list[str]:
        """What it has to say to the user."""
        return list(self.upsampler.notices)

    def _take(self, result: UpsampledDepth) -> None:
        self._ready.append(Said(result.depth, result.shown, result.confidence))

    def _timed(self, call: Callable):
        begin = time.perf_counter()
        result = call()
        self.seconds += time.perf_counter() - begin
        return result


def run_together(
    runners: Mapping[str, Method], frames: Iterable[_Frame], inputs: Callable[[_Frame], tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[_Frame, dict[str, Said]]]:
    """Run methods on a sequence from its beginning, each as late as it is.

    Args:
        runners: by name.
        frames: anything, one after the other.
        inputs: colour (H, W, 3) and depth (h, w) of one of them.

    Yields:
        Each frame with what every method made of it (:meth:`Runner.pop`), once all of them have.
    """
    waiting: deque[_Frame] = deque()
    for runner in runners.values():
        runner.begin()

    def finished() -> Iterator[tuple[_Frame, dict[str, Said]]]:
        while waiting and all(runner.ready for runner in runners.values()):
            yield waiting.popleft(), {name: runner.pop() for name, runner in runners.items()}

    for frame in frames:
        waiting.append(frame)
        for runner in runners.values():
            runner.step(*inputs(frame))
        yield from finished()
    for runner in runners.values():
        runner.finish()
    yield from finished()


def notices_of(runners: Mapping[str, Method]) -> dict[str, list[str]]:
    """What the methods had to say, by method."""
    return {name: notices for name, runner in runners.items() if (notices := runner.notices)}


def evaluate_sequence(
    sequence: RgbdSequence,
    runners: Mapping[str, Method],
    low_resolution: LowResolution,
    *,
    kind: str = "",
    frames: int | None = None,
    clip_truth: float | None = None,
    device: str = "cpu",
    by_frame: bool = False,
    on_frame: Callable[[int, EvaluationFrame, ScoredFrame], None] | None = None,
) -> SequenceResult:
    """Score methods on one sequence.

    Args:
        sequence: to read.
        runners: a runner for each method's name.
        low_resolution: what they get.
        kind: of the source, for the conventions of the paper's data sets.
        frames: at most so many, from the first.
        clip_truth: true depth beyond so many metres becomes that (infinite: none does); None: as the paper has it for
            this kind of source, see :data:`PROTOCOL_CLIPS`.
        device: that scores are computed on.
        by_frame: also keep the figures of each frame.
        on_frame: called with the number, the frame and what was scored (each method's depth among it), e.g. to draw it.

    Raises:
        DataError: the sequence cannot be read, or has no true depth.
    """
    given = getattr(low_resolution.sensor.measurement, "range_m", None)
    range_m = given if given is not None else sensor_range(sequence, kind, frames)
    clip_truth = PROTOCOL_CLIPS.get(kind, math.inf) if clip_truth is None else clip_truth
    baseline = runners["bilinear"] if "bilinear" in runners else Runner.classical("bilinear", device)
    everyone = {**runners, "bilinear": baseline}
    score = VideoScore(list(runners), device, by_frame=by_frame)
    kinds_of_flow: set[bool] = set()
    measured = False
    source = read_frames(sequence, low_resolution, frames=frames, range_m=range_m, clip_truth=clip_truth)
    for frame, results in run_together(everyone, source, lambda frame: (frame.rgb, frame.depth_lr)):
        measured = measured or bool((frame.target > 0).any())
        if frame.flow is not None:
            kinds_of_flow.add(frame.true_flow)
        scored = ScoredFrame(
            frame.rgb,
            frame.target,
            {name: results[name].depth for name in runners},
            {name: results[name].shown for name in runners},
            results["bilinear"].depth,
            frame.flow,
            _measured(frame),
            {name: results[name].confidence for name in runners if results[name].confidence is not None},
        )
        score.add(scored)
        if on_frame is not None:
            on_frame(score.frames - 1, frame, scored)
    if not measured:
        raise DataError(f"{sequence.name}: it has no true depth to compare with; evaluation needs some")

    figures = score.figures()
    for name, runner in runners.items():
        figures[name]["ms_per_frame"] = runner.ms_per_frame
    flow = {(): "none", (True,): "true", (False,): "estimated"}.get(tuple(kinds_of_flow), "mixed")
    return SequenceResult(
        figures,
        score.figures_by_frame(),
        score.frames,
        flow,
        range_m if low_resolution.simulated and isinstance(low_resolution.sensor.measurement, Dtof) else None,
        clip_truth if math.isfinite(clip_truth) else None,
        notices_of(runners),
    )


def _measured(frame: EvaluationFrame) -> np.ndarray:
    """Pixels (H, W) whose own cell of the input has a measurement."""
    height, width = frame.target.shape
    covered = Geometry.native((height, width), frame.depth_lr.shape).covered
    return measured_here(frame.depth_lr > 0, *covered)[:height, :width]


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, with a number where one occurs again."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique
