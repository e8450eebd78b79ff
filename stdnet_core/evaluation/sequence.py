"""Runs several upsampling methods side by side over RGB-D sequences and scores them; the library of
``python -m stdnet_core.evaluate``.

Every method gets the same low-resolution depth and runs frame by frame in the same ``DepthUpsampler`` as live, so
memory does not grow with the length of a sequence. All methods are scored on the same pixels
(:mod:`stdnet_core.evaluation.scoring`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.protocol import PROTOCOL_CLIPS, LowResolution, sensor_range, simulated_camera
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.errors import DataError
from stdnet_core.evaluation.methods import Method, Runner, notices_of, run_together
from stdnet_core.evaluation.scoring import ScoredFrame, VideoScore
from stdnet_core.inference.engine import as_bytes
from stdnet_core.inference.fill import measured_here
from stdnet_core.inference.frames import Geometry
from stdnet_core.optical_flow import estimate_flow
from stdnet_core.short_repr import short_repr

_CHUNK = 8  # frames read at once


@dataclass(frozen=True)
class EvaluationFrame:
    """One frame: input of the methods and the scores.

    Attributes:
        rgb: (H, W, 3) float32, 0..1.
        target: (H, W) metres, 0 invalid.
        depth_lr: (h, w) metres, 0 invalid.
        flow: (2, H, W) px from the previous frame to this one; None for the first frame.
        true_flow: whether the flow comes with the data instead of being estimated.
    """

    rgb: np.ndarray
    target: np.ndarray
    depth_lr: np.ndarray
    flow: np.ndarray | None
    true_flow: bool

    __repr__ = short_repr


@dataclass(frozen=True)
class SequenceResult:
    """The result of one sequence.

    Attributes:
        figures: ``figures[method][name]``, see :data:`stdnet_core.evaluation.scoring.FIGURES`, and ``ms_per_frame``.
        by_frame: the figures of each frame, if requested.
        frames: how many were scored.
        flow: ``true``, ``estimated``, ``mixed`` or ``none`` (a single frame).
        range_m: depth range of the simulated dToF sensor in metres, None without one.
        clip_truth_m: metres that ground-truth depth was clipped to, None if it was not.
        notices: the notices of each method that has any.
    """

    figures: dict[str, dict[str, float]]
    by_frame: list[dict[str, dict[str, float]]]
    frames: int
    flow: str
    range_m: float | None
    clip_truth_m: float | None
    notices: dict[str, list[str]]

    __repr__ = short_repr


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
        frames: at most this many, from the first.
        range_m: of the simulated sensor; larger readings are clipped to it.
        clip_truth: ground-truth depth is clipped to this, in metres, before the sensor is simulated.

    Raises:
        DataError: a frame cannot be read, or the source has no low-resolution depth of its own but should.
    """
    count = min(frames or len(sequence), len(sequence))
    camera = simulated_camera(sequence, low_resolution, range_m) if low_resolution.simulated else None
    last_rgb: np.ndarray | None = None
    for start in range(0, count, _CHUNK):
        first = max(start - 1, 0)  # from the frame before, for the flow from it
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
                    flow = estimate_flow(as_bytes(last_rgb), as_bytes(rgb))
            yield EvaluationFrame(rgb, depth[i, 0].numpy(), low[i - new, 0].numpy(), flow, clip.flow is not None)
            last_rgb = rgb


def _own_depth(clip: RgbdClip) -> torch.Tensor:
    if clip.depth_lr is None:
        raise DataError(f"{clip.name}: it comes without low-resolution depth; simulate it with --lr simulated")
    return clip.depth_lr


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
        low_resolution: where their input depth comes from.
        kind: of the source, for the conventions of the paper's data sets.
        frames: at most this many, from the first.
        clip_truth: ground-truth depth is clipped to this, in metres (infinite: not clipped); None: as in the paper for
            this kind of source, see :data:`PROTOCOL_CLIPS`.
        device: on which scores are computed.
        by_frame: also keep the figures of each frame.
        on_frame: called with the frame's number, the frame and what was scored (with each method's depth), e.g. to
            draw it.

    Raises:
        DataError: the sequence cannot be read, or has no ground-truth depth.
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
            {name: confidence for name in runners if (confidence := results[name].confidence) is not None},
        )
        score.add(scored)
        if on_frame is not None:
            on_frame(score.frames - 1, frame, scored)
    if not measured:
        raise DataError(f"{sequence.name}: it has no ground-truth depth to compare with")

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
    """Pixels (H, W) that lie in a measured cell of the input."""
    height, width = frame.target.shape
    covered = Geometry.native((height, width), frame.depth_lr.shape).covered
    return measured_here(frame.depth_lr > 0, *covered)[:height, :width]
