"""Evaluation of depth on a recording without ground truth.

Patches of measured depth are hidden from the input, and a method's depth there is compared with the measurement.
Three further checks: where nothing moves, depth should not change; most depth edges should lie at colour edges; and
measured depth should not be changed by more than the sensor's noise. None of them reveals a sensor's bias; that takes
a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import DataError, InputError
from stdnet_core.evaluation.hidden_patches import hidden_patches
from stdnet_core.evaluation.methods import Runner, notices_of, run_together
from stdnet_core.evaluation.sensor_noise import FLOOR_M, SensorNoise
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.inference.frames import Geometry
from stdnet_core.optical_flow import estimate_flow
from stdnet_core.short_repr import short_repr

AS_RECORDED = "as recorded"
"""Name of the row for the recorded depth itself."""
FIGURES = (
    "hidden_rmse_cm",
    "hidden_mae_cm",
    "hidden_filled",
    "flicker_cm",
    "hole_flicker_cm",
    "edge_agreement",
    "holes_filled",
    "changed_cm",
    "changed_share",
)
BEYOND_NOISE = 3.0
"""A measured pixel counts as changed beyond this many standard deviations of the sensor's noise plus 2 mm."""

_CHUNK = 8  # frames read at once
_STILL_COLOUR = 4.0  # of 256 levels: largest mean difference over 5x5 pixels of a static scene,
_STILL_PX = 0.3  # and its largest optical flow
_EDGE_HIGH, _EDGE_LOW = 0.03, 0.02  # relative change of depth per pixel
_COLOUR_EDGE_HIGH, _COLOUR_EDGE_LOW = 100, 40
_EDGE_REACH = 2  # pixels between a depth edge and the colour edge that it belongs to
_EDGE_MARGIN = 3  # no edges are sought within so many pixels of missing depth
_LEAST_STANDING = 0.01  # share of pixels


@dataclass(frozen=True)
class RecordedFrame:
    """One frame of a recording with the methods' outputs.

    Attributes:
        rgb: (H, W, 3) uint8.
        recorded: (h, w) metres, 0 or NaN invalid.
        hidden: (h, w) bool, the pixels hidden from the methods.
        outputs: method -> (H, W) metres, NaN where it has no depth.
        shown: method -> (H, W) bool, where it would show its output to a user; if absent, wherever it has depth.
    """

    rgb: np.ndarray
    recorded: np.ndarray
    hidden: np.ndarray
    outputs: Mapping[str, np.ndarray]
    shown: Mapping[str, np.ndarray] | None = None

    __repr__ = short_repr


class Cells:
    """Maps the pixels of depth to those of colour.

    Args:
        size: (H, W) of colour.
        depth_size: (h, w) of depth.

    Raises:
        InputError: depth is larger than colour or has another aspect ratio.
    """

    def __init__(self, size: tuple[int, int], depth_size: tuple[int, int]) -> None:
        covered = Geometry.native(size, depth_size).covered
        self._of, self.centres = [], np.ones(size, bool)
        for axis, (pixels, cells, length) in enumerate(zip(size, depth_size, covered, strict=True)):
            self._of.append(np.minimum((np.arange(pixels) + 0.5) * cells / length, cells - 1).astype(np.intp))
            centre = np.zeros(pixels, bool)
            middle = ((np.arange(cells) + 0.5) * length / cells).astype(np.intp)
            centre[middle[middle < pixels]] = True
            self.centres &= centre[:, None] if axis == 0 else centre[None]

    def spread(self, image: np.ndarray) -> np.ndarray:
        """An image (h, w) at colour's size: each pixel (H, W) takes the value of the depth pixel that it lies in."""
        return image if image.shape == self.centres.shape else image[np.ix_(*self._of)]

    def spread_depth(self, depth: np.ndarray) -> np.ndarray:
        """The same for depth: metres with NaN where invalid."""
        return self.spread(nan_where_invalid(depth))


@dataclass(frozen=True)
class _Last:
    rgb: np.ndarray
    recorded: np.ndarray
    seen: np.ndarray
    outputs: dict[str, np.ndarray]


class RecordingScore:
    """Collects the figures of one recording; keeps two frames in memory.

    Args:
        methods: names; every frame has an output of each method.

    Attributes:
        frames: how many were scored.
    """

    def __init__(self, methods: Sequence[str]) -> None:
        self.methods = list(methods)
        self.frames = 0
        names = (AS_RECORDED, *self.methods)
        self._sums = {name: {figure: [0.0, 0] for figure in FIGURES} for name in names}
        self._pixels = self._unmeasured = self._standing = self._compared = 0
        self._noise = SensorNoise()
        self._cells: Cells | None = None
        self._last: _Last | None = None

    def cells(self, rgb: np.ndarray, depth: np.ndarray) -> Cells:
        """The mapping from depth to colour for frames of these sizes."""
        if self._cells is None:
            self._cells = Cells(rgb.shape[:2], depth.shape)
        return self._cells

    def add(self, frame: RecordedFrame) -> dict[str, float]:
        """Score the next frame; returns each method's flicker in cm from the frame before (NaN without any).

        Raises:
            InputError: the frame's size differs from that of the frame before, or an output's from that of colour.
        """
        size = frame.rgb.shape[:2]
        if self._last is not None and self._last.rgb.shape[:2] != size:
            raise InputError(f"colour of {size} follows one of {self._last.rgb.shape[:2]}; sizes must not change")
        for name in self.methods:
            if frame.outputs[name].shape != size:
                raise InputError(f"{name} has {frame.outputs[name].shape}, which is not colour's size {size}")
        cells = self.cells(frame.rgb, frame.recorded)
        recorded = cells.spread_depth(frame.recorded)
        measured = np.isfinite(recorded)
        hidden = cells.spread(frame.hidden)
        seen = measured & ~hidden
        self.frames += 1
        self._pixels += measured.size
        self._unmeasured += int((~measured).sum())
        outputs = {AS_RECORDED: recorded, **{name: frame.outputs[name] for name in self.methods}}
        self._noise.observe(frame.recorded)
        flickers = self._add_change(frame.rgb, recorded, seen, outputs)
        in_question = measured & hidden & cells.centres
        self._add_hidden(recorded, in_question, outputs)
        self._add_measured(recorded, seen & cells.centres, outputs)
        colour_edges = _colour_edges(frame.rgb)
        for name, depth in outputs.items():
            self._count(name, "edge_agreement", *_edge_agreement(depth, colour_edges))
            shown = np.isfinite(depth)
            if frame.shown is not None and name in frame.shown:
                shown &= frame.shown[name]
            self._count(name, "hidden_filled", int((shown & in_question).sum()), int(in_question.sum()))
            holes = ~measured & ~hidden
            self._count(name, "holes_filled", int((shown & holes).sum()), int(holes.sum()))
        self._last = _Last(frame.rgb, recorded, seen, outputs)
        return flickers

    def figures(self) -> dict[str, dict[str, float]]:
        """``figures()[method][name]``, see :data:`FIGURES`, with a row :data:`AS_RECORDED`; NaN where nothing was
        counted.

        ``hidden_*_cm``: error in hidden patches, where every method has depth; ``hidden_filled``: share of their
        pixels for which depth is shown. ``flicker_cm``: mean change from frame to frame where the scene is static and
        depth was measured in both frames; ``hole_flicker_cm``: the same where it was not. ``edge_agreement``: share of
        pixels at depth edges that are within 2 px of a colour edge. ``holes_filled``: share of pixels without a
        measurement for which depth is shown. ``changed_cm``: mean change of measured pixels; ``changed_share``: share
        of them that change by more than 3 standard deviations of the sensor's noise plus 2 mm.
        """
        table = {}
        for name, sums in self._sums.items():
            table[name] = {figure: total / count if count else math.nan for figure, (total, count) in sums.items()}
            table[name]["hidden_rmse_cm"] **= 0.5
        for figure in FIGURES:
            if figure not in ("flicker_cm", "edge_agreement", "holes_filled"):
                table[AS_RECORDED][figure] = math.nan  # of itself, or of nothing
        return table

    @property
    def unmeasured_share(self) -> float:
        """Share of pixels without a measurement in the recording."""
        return self._unmeasured / self._pixels if self._pixels else math.nan

    @property
    def standing_share(self) -> float:
        """Share of pixels in which the scene is static from one frame to the next; NaN with a single frame."""
        return self._standing / self._compared if self._compared else math.nan

    @property
    def stands(self) -> bool:
        """Whether enough of the scene is static to measure flicker."""
        return self.standing_share >= _LEAST_STANDING

    def noise(self) -> dict[str, float]:
        """The sensor's noise as estimated from the recording: range of distances -> standard deviation in cm."""
        return self._noise.table()

    def _add_change(
        self, rgb: np.ndarray, recorded: np.ndarray, seen: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        flickers = dict.fromkeys(self.methods, math.nan)
        last = self._last
        if last is None:
            return flickers
        standing = _standing(last.rgb, rgb)
        self._standing += int(standing.sum())
        self._compared += standing.size
        both_seen = standing & seen & last.seen
        self._noise.observe_change(last.recorded[both_seen], recorded[both_seen])
        known = standing.copy()
        for name in self.methods:
            known &= np.isfinite(outputs[name]) & np.isfinite(last.outputs[name])
        for name, depth in outputs.items():
            change = np.abs(depth - last.outputs[name])
            here = change[known & both_seen].astype(np.float64)
            self._count(name, "flicker_cm", 100 * float(here.sum()), here.size)
            if name != AS_RECORDED:
                flickers[name] = 100 * float(here.mean()) if here.size else math.nan
                there = change[known & ~both_seen].astype(np.float64)
                self._count(name, "hole_flicker_cm", 100 * float(there.sum()), there.size)
        return flickers

    def _add_hidden(self, recorded: np.ndarray, hidden: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
        for name in self.methods:
            hidden = hidden & np.isfinite(outputs[name])
        for name in self.methods:
            error = 100 * (outputs[name] - recorded)[hidden].astype(np.float64)
            self._count(name, "hidden_mae_cm", float(np.abs(error).sum()), error.size)
            self._count(name, "hidden_rmse_cm", float(np.square(error).sum()), error.size)

    def _add_measured(self, recorded: np.ndarray, seen: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
        depth = recorded[seen].astype(np.float64)
        allowed = BEYOND_NOISE * self._noise.deviation(depth) + FLOOR_M
        for name in self.methods:
            change = np.abs(outputs[name][seen] - depth)
            known = np.isfinite(change)
            self._count(name, "changed_cm", 100 * float(change[known].sum()), int(known.sum()))
            self._count(name, "changed_share", int((change > allowed)[known].sum()), int(known.sum()))

    def _count(self, method: str, figure: str, total: float, count: int) -> None:
        entry = self._sums[method][figure]
        entry[0] += total
        entry[1] += count


def _standing(rgb: np.ndarray, next_rgb: np.ndarray) -> np.ndarray:
    """Pixels (H, W) in which nothing moves between two uint8 frames: the colour stays and the flow is small."""
    change = cv2.blur(cv2.absdiff(rgb, next_rgb), (5, 5)).max(2)
    flow = estimate_flow(rgb, next_rgb)
    return (change <= _STILL_COLOUR) & (np.square(flow).sum(0) <= _STILL_PX**2)


def _colour_edges(rgb: np.ndarray) -> np.ndarray:
    """Pixels (H, W) within reach of an edge of colour."""
    grey = cv2.GaussianBlur(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), (5, 5), 1)
    edges = cv2.Canny(grey, _COLOUR_EDGE_LOW, _COLOUR_EDGE_HIGH, L2gradient=True)
    side = 2 * _EDGE_REACH + 1
    return cv2.dilate(edges, np.ones((side, side), np.uint8)) > 0


def _edge_agreement(depth: np.ndarray, colour_edges: np.ndarray) -> tuple[int, int]:
    """How many pixels at edges of depth (H, W) are near an edge of colour, and how many there are."""
    known = np.isfinite(depth)
    inside = cv2.erode(known.astype(np.uint8), np.ones((2 * _EDGE_MARGIN + 1,) * 2, np.uint8)) > 0
    logarithm = cv2.GaussianBlur(np.log(np.where(known, np.maximum(depth, 1e-3), 1)).astype(np.float32), (5, 5), 1)
    scale = 1000  # Canny takes integers
    steps = [np.clip(scale / 8 * cv2.Sobel(logarithm, cv2.CV_32F, *axis), -3e4, 3e4) for axis in ((1, 0), (0, 1))]
    across, down = (step.astype(np.int16) for step in steps)
    edges = (cv2.Canny(across, down, scale * _EDGE_LOW, scale * _EDGE_HIGH, L2gradient=True) > 0) & inside
    return int((edges & colour_edges).sum()), int(edges.sum())


@dataclass(frozen=True)
class JudgedFrame:
    """A scored frame of :func:`judge_recording`, e.g. to draw it.

    Attributes:
        index: its number.
        frame: what was scored.
        given: (h, w) metres, the methods' input: 0 where hidden or invalid.
        recorded: (H, W) metres, recorded depth at colour's size; NaN invalid.
        compared: (H, W) bool, the pixels in which outputs are compared with hidden measurements.
        flicker: of each method, in cm.
    """

    index: int
    frame: RecordedFrame
    given: np.ndarray
    recorded: np.ndarray
    compared: np.ndarray
    flicker: dict[str, float]

    __repr__ = short_repr


def judge_recording(
    sequence: RgbdSequence,
    runners: Mapping[str, Runner],
    score: RecordingScore,
    *,
    frames: int | None = None,
    on_frame: Callable[[JudgedFrame], None] | None = None,
) -> dict[str, list[str]]:
    """Run methods on a recording, with patches of its depth hidden, and score them.

    Args:
        sequence: its low-resolution depth is the input if it has some, else its depth.
        runners: a runner for each method's name.
        score: made for these methods; collects the figures, which remain valid if this is interrupted.
        frames: score at most this many, from the first.
        on_frame: called with each scored frame.

    Returns:
        The notices of each method that has any.

    Raises:
        DataError: the sequence cannot be read or has no depth.
    """
    measured = False
    for (rgb, recorded, given), results in run_together(
        runners, _recorded_frames(sequence, frames), lambda frame: (frame[0], frame[2])
    ):
        measured = measured or bool((recorded > 0).any())
        frame = RecordedFrame(
            rgb,
            recorded,
            hidden_patches(recorded.shape),
            {name: said.depth for name, said in results.items()},
            {name: said.shown for name, said in results.items()},
        )
        flicker = score.add(frame)
        if on_frame is not None:
            on_frame(judged(score.frames - 1, frame, given, score.cells(rgb, recorded), flicker))
    if not measured:
        raise DataError(f"{sequence.name}: no frame has any depth; evaluation needs some")
    return notices_of(runners)


def _recorded_frames(sequence: RgbdSequence, frames: int | None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields colour (H, W, 3) uint8, recorded depth (h, w) in metres, and the same with patches hidden; 0 invalid."""
    count = min(frames or len(sequence), len(sequence))
    for start in range(0, count, _CHUNK):
        clip = sequence.clip(start, min(_CHUNK, count - start))
        depth = clip.depth * clip.valid if clip.depth_lr is None else clip.depth_lr
        for i in range(len(clip)):
            rgb = (clip.rgb[i].permute(1, 2, 0).contiguous().numpy() * 255).round().astype(np.uint8)
            recorded = depth[i, 0].numpy()
            yield rgb, recorded, np.where(hidden_patches(recorded.shape), np.float32(0), recorded)


def judged(index: int, frame: RecordedFrame, given: np.ndarray, cells: Cells, flicker: dict[str, float]) -> JudgedFrame:
    """A scored frame with the images that are drawn of it."""
    compared = cells.spread(frame.hidden) & cells.centres
    return JudgedFrame(index, frame, given, cells.spread_depth(frame.recorded), compared, flicker)
