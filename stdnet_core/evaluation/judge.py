"""Every method on every depth camera: the library of ``python -m stdnet_core.accuracy``.

A *cell* is a camera at a ratio (:mod:`stdnet_core.data.sensors.cell`). In each cell, this project's methods are
compared with the best rival, that is, the best that a user has without this project: the raw input with filled holes,
interpolation, joint bilateral upsampling, or librealsense's filters if they are installed. Methods with a memory
are also run without history, reset before every frame, to measure what history is worth."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from stdnet_core import checkpoints
from stdnet_core.data.augmentation import stand_still
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.protocol import LowResolution
from stdnet_core.data.rgbd_sequence import RgbdSequence, frame_indices
from stdnet_core.data.sensors.cell import REDUCING, SPLIT_BELOW, Cell, scene_gain
from stdnet_core.errors import ConfigError
from stdnet_core.evaluation import librealsense
from stdnet_core.evaluation.methods import CLASSICAL, Method, Runner, StreamRunner
from stdnet_core.evaluation.scoring import FAULTLESS_CM
from stdnet_core.evaluation.sequence import evaluate_sequence
from stdnet_core.inference import MAX_LATENCY, DepthUpsampler

RIVALS = ("nearest", "bilinear", "joint_bilateral", "librealsense")
"""What a user has without this project. At x1, ``nearest`` is the raw input with its holes filled."""
FILTER = "guided_temporal"
ALONE = " without history"
"""Suffix of the name of a method that is reset before every frame."""
_MAIN_FIGURES = ("rmse_cm", "mae_cm", "flicker_cm")
_Pair = tuple[Mapping[str, Any], Mapping[str, Any]]  # figures with and without history
FIGURES = (
    "rmse_cm",
    "mae_cm",
    "edge_rmse_cm",
    "flicker_cm",
    "tepe_cm",
    "measured_rmse_cm",
    "measured_mae_cm",
    "hole_rmse_cm",
    "hole_mae_cm",
    "confidence_error",
)

_STANDING_NOISE = 1.5 / 255  # standard deviation of colour's noise in simulated static video


@dataclass(frozen=True)
class Group:
    """Clips of one kind, in memory.

    Attributes:
        name: ``procedural``, ``rendered`` or ``real``.
        clips: all of one size.
    """

    name: str
    clips: Sequence[RgbdClip]


class ClipSequence:
    """A clip in memory as an :class:`RgbdSequence`."""

    def __init__(self, clip: RgbdClip) -> None:
        self._clip = clip

    @property
    def name(self) -> str:
        """Name of the clip."""
        return self._clip.name

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._clip.frame_size

    @property
    def intrinsics(self) -> torch.Tensor | None:
        """(3, 3) or None."""
        return self._clip.intrinsics

    def __len__(self) -> int:
        return len(self._clip)

    def clip(self, start: int, length: int, stride: int = 1) -> RgbdClip:
        """See :class:`stdnet_core.data.rgbd_sequence.RgbdSequence`."""
        indices = frame_indices(self, start, length, stride)
        if stride == 1:
            return self._clip.frames(start, start + length)
        frames = list(indices)
        return replace(
            self._clip,
            rgb=self._clip.rgb[frames],
            depth=self._clip.depth[frames],
            valid=self._clip.valid[frames],
            flow=None,
            depth_lr=None,
            stamps=None,
        )


def read_clip(sequence: RgbdSequence, frames: int, size: tuple[int, int]) -> RgbdClip:
    """The first frames of a sequence, centre-cropped to at most ``size`` (H, W)."""
    clip = replace(sequence.clip(0, min(frames, len(sequence))), depth_lr=None)
    height, width = (min(have, want) for have, want in zip(clip.frame_size, size, strict=True))
    top, left = (clip.frame_size[0] - height) // 2, (clip.frame_size[1] - width) // 2
    return clip.crop(top, left, height, width).contiguous()


def standing(clip: RgbdClip, frames: int) -> RgbdClip:
    """A static video: the clip's first frame repeated, with new noise on colour in each frame."""
    return stand_still(clip, frames, _STANDING_NOISE, torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Task:
    """One clip in one cell.

    Attributes:
        cell: camera and ratio.
        group: name of the group.
        clip: number in the group.
        standing: the video is static, and only methods with a memory are run.
    """

    cell: Cell
    group: str
    clip: int
    standing: bool = False

    @property
    def key(self) -> str:
        """Identifies the task in a file of results."""
        return f"{'standing ' if self.standing else ''}{self.cell} {self.group} {self.clip}"


class Judge:
    """Runs tasks. Create one per process, because it loads the networks.

    Args:
        groups: the clips.
        networks: files or names of checkpoints.
        device: on which networks and figures are computed.
    """

    def __init__(self, groups: Iterable[Group], networks: Sequence[str], device: str = "auto") -> None:
        logging.getLogger("stdnet_core.inference").setLevel(logging.ERROR)  # they would be repeated for every method
        self.groups = {group.name: group for group in groups}
        self._device = device
        self._networks: dict[str, Any] = {}
        for name in networks:
            model, info = checkpoints.load(name)
            if info.name in self._networks or info.name in (*CLASSICAL, *RIVALS):
                raise ConfigError(f"two methods are called {info.name!r}; rename {name}")
            self._networks[info.name] = model, info

    def run(self, task: Task) -> dict[str, Any]:
        """Figures of every method: ``figures[method][name]``, ``by_frame[method][name]`` (a list), and ``notices``."""
        clip = self.groups[task.group].clips[task.clip]
        if task.standing:
            clip = standing(clip, len(clip))
        if task.group != "real":
            gain = scene_gain(clip.depth, task.cell.sensor)
            clip = replace(clip, depth=clip.depth * gain)
        result = evaluate_sequence(
            ClipSequence(clip),
            self._runners(task),
            LowResolution(task.cell.ratio, sensor=task.cell.sensor, seed=task.clip),
            by_frame=True,
        )
        figures = {
            method: {name: values[name] for name in (*FIGURES, "ms_per_frame")}
            for method, values in result.figures.items()
        }
        by_frame = {
            method: {name: [frame[method][name] for frame in result.by_frame] for name in _MAIN_FIGURES}
            for method in figures
        }
        return {"sequence": clip.name, "figures": figures, "by_frame": by_frame, "notices": result.notices}

    def _runners(self, task: Task) -> dict[str, Method]:
        # float32 everywhere: figures that back a checkpoint must not depend on the machine
        settings: dict[str, Any] = {"device": self._device, "precision": "fp32", "mask_unsupported": False}
        runners: dict[str, Method] = {}
        for name, (model, info) in self._networks.items():
            latency = 0 if info.config.causal else MAX_LATENCY
            for forgetful in (False, True):
                upsampler = DepthUpsampler.from_model(model, info, method="stdnet", latency=latency, **settings)
                runners[name + ALONE * forgetful] = Runner(upsampler, forgetful=forgetful)
        for forgetful in (False, True):
            upsampler = DepthUpsampler(method=FILTER, **settings)
            runners[FILTER + ALONE * forgetful] = Runner(upsampler, forgetful=forgetful)
        if task.standing:
            return runners
        for name in RIVALS[:-1]:
            runners[name] = Runner.classical(name, self._device)
        if librealsense.suits(task.cell.ratio) and librealsense.installed():
            runners["librealsense"] = StreamRunner(librealsense.LibrealsenseFilters())
        return runners


def _suits(group: str, cell: Cell) -> bool:
    """Whether the camera is simulated on clips of the group. Recordings have errors of their own, so no other camera's
    errors are simulated on them, and depth is always reduced: at full resolution, denoising would count as an error."""
    return group != "real" or (cell.sensor.family in REDUCING and cell.ratio >= SPLIT_BELOW)


def tasks_of(clips: Mapping[str, int], cells: Iterable[Cell], standing_cells: Iterable[Cell]) -> list[Task]:
    """Tasks for every clip in every suitable cell; ``clips`` is the number of clips by group."""
    tasks = [
        Task(cell, group, number)
        for cell in cells
        for group, count in clips.items()
        if _suits(group, cell)
        for number in range(count)
    ]
    return tasks + [
        Task(cell, group, number, standing=True)
        for cell in standing_cells
        for group, count in clips.items()
        if group != "real"
        for number in range(count)
    ]


# --- from results to ratios ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Figures of one cell, group and region, means over its clips.

    Attributes:
        cell, group: of the row.
        region: ``all``, or ``measured`` or ``holes`` if these are judged separately.
        figures: method -> figure (``rmse_cm``, ``mae_cm``, ...) -> geometric mean over the clips, in cm.
        rival: figure -> name of the best rival.
    """

    cell: Cell
    group: str
    region: str
    figures: dict[str, dict[str, float]]
    rival: dict[str, str]

    @property
    def faultless(self) -> bool:
        """Whether the best rival's error is negligible."""
        return self.figures[self.rival["rmse_cm"]]["rmse_cm"] < FAULTLESS_CM

    def ratio(self, method: str, figure: str) -> float:
        """A method's figure divided by that of the best rival; NaN if the latter is 0 or unknown."""
        if figure not in self.rival:
            return math.nan
        best = self.figures[self.rival[figure]][figure]
        return self.figures[method][figure] / best if best > 0 else math.nan


def rows_of(results: Mapping[str, Mapping[str, Any]], tasks: Iterable[Task]) -> list[Row]:
    """All rows, from the results of the tasks by key; tasks without a result are left out."""
    collected: dict[tuple[Cell, str], list[Mapping[str, Any]]] = {}
    for task in tasks:
        if not task.standing and task.key in results:
            collected.setdefault((task.cell, task.group), []).append(results[task.key]["figures"])
    rows = []
    for (cell, group), clips in collected.items():
        regions = {"measured": "measured_", "holes": "hole_"} if cell.ratio < SPLIT_BELOW else {"all": ""}
        for region, prefix in regions.items():
            figures = {method: _means([clip[method] for clip in clips], prefix) for method in clips[0]}
            if all(math.isnan(values["rmse_cm"]) for values in figures.values()):
                continue  # a camera without holes
            names = [name for name in RIVALS if name in figures]
            compared = {name: value for name, value in figures[names[0]].items() if name != "confidence_error"}
            present = [name for name, value in compared.items() if math.isfinite(value)]
            rival = {figure: min(names, key=lambda name: figures[name][figure]) for figure in present}
            rows.append(Row(cell, group, region, figures, rival))
    return rows


def _means(clips: Sequence[Mapping[str, float]], prefix: str) -> dict[str, float]:
    """Geometric means over clips of a region's figures; figures of change and of edges are over all pixels."""
    names = {name: prefix + name for name in ("rmse_cm", "mae_cm")}
    names |= {name: name for name in ("edge_rmse_cm", "flicker_cm", "tepe_cm")}
    means = {name: _geometric_mean(clip[source] for clip in clips) for name, source in names.items()}
    return means | {"confidence_error": _mean(clip["confidence_error"] for clip in clips)}


def _geometric_mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return math.nan
    return math.exp(sum(math.log(max(value, 1e-9)) for value in known) / len(known))


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


_KINDS = {
    "stereo": "stereo",
    "phase_tof": "phase time of flight",
    "dtof": "direct time of flight",
    "phone_lidar": "phone lidar",
    "reduction": "reductions",
}


def by_kind(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows whose best rival has an error, grouped by kind of camera, fine or coarse depth and region; recordings
    separately."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        if not row.faultless:
            depth = f"under x{SPLIT_BELOW}, {row.region}" if row.cell.ratio < SPLIT_BELOW else f"from x{SPLIT_BELOW} on"
            recorded = ", of recordings" if row.group == "real" else ""
            kinds.setdefault(f"{_KINDS[row.cell.sensor.family]} {depth}{recorded}", []).append(row)
    return kinds


@dataclass(frozen=True)
class Summary:
    """A method compared with the best rivals over all rows.

    Attributes:
        mean: figure -> geometric mean over the rows of its ratio to the best rival.
        worst: figure -> the largest ratio, and its row.
        confidence: calibration error (:data:`stdnet_core.evaluation.scoring.FIGURES`), mean over the rows.
    """

    mean: dict[str, float]
    worst: dict[str, tuple[float, str]]
    confidence: float


def summarize(rows: Iterable[Row], method: str) -> Summary:
    """Worst row and geometric mean of a method's RMSE, MAE and flicker as ratios to the best rival.

    Rows in which the best rival has no error are left out; they are reported separately."""
    mean, worst = {}, {}
    judged = [row for row in rows if method in row.figures and not row.faultless]
    for figure in _MAIN_FIGURES:
        ratios = [(row.ratio(method, figure), f"{row.cell} {row.group} {row.region}") for row in judged]
        ratios = [(ratio, where) for ratio, where in ratios if math.isfinite(ratio)]
        mean[figure] = _geometric_mean(ratio for ratio, _ in ratios)
        worst[figure] = max(ratios, default=(math.nan, "nothing"))
    return Summary(mean, worst, _mean(row.figures[method]["confidence_error"] for row in judged))


def history_gain(results: Mapping[str, Mapping[str, Any]], tasks: Iterable[Task], method: str) -> dict[str, Any]:
    """What a method's history is worth: each figure with history divided by the same figure without; below 1 is a gain.

    Returns:
        ``cells``: cell -> figure -> ratio for whole clips (geometric mean over clips); ``last_frame``: the same for the
        last frame of each clip, which has the longest history; ``frames``: figure -> ratio for each frame of a clip,
        over all cells.
    """
    whole: dict[str, list[_Pair]] = {}
    frames: dict[str, list[list[_Pair]]] = {}
    for task in tasks:
        result = results.get(task.key)
        if result is None or method + ALONE not in result["figures"]:
            continue
        whole.setdefault(str(task.cell), []).append((result["figures"][method], result["figures"][method + ALONE]))
        with_, without = (_by_frame(result["by_frame"][name]) for name in (method, method + ALONE))
        frames.setdefault(str(task.cell), []).append(list(zip(with_, without, strict=True)))
    every = [clip for clips in frames.values() for clip in clips]
    curve = [_gains(clip[i] for clip in every if i < len(clip)) for i in range(max(map(len, every), default=0))]
    return {
        "cells": {cell: _gains(clips) for cell, clips in whole.items()},
        "last_frame": {cell: _gains(clip[-1] for clip in clips) for cell, clips in frames.items()},
        "frames": {name: [gains[name] for gains in curve] for name in _MAIN_FIGURES},
    }


def _by_frame(figures: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Figure -> its value in each frame, as the figures of each frame."""
    columns = (figures[name] for name in _MAIN_FIGURES)
    return [dict(zip(_MAIN_FIGURES, values, strict=True)) for values in zip(*columns, strict=True)]


def _gains(pairs: Iterable[_Pair]) -> dict[str, float]:
    of = list(pairs)
    return {name: _geometric_mean(_quotient(with_[name], alone[name]) for with_, alone in of) for name in _MAIN_FIGURES}


def _quotient(a: float | None, b: float | None) -> float:
    """a / b; NaN if one of them is unknown or b is negligible."""
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)) or b < FAULTLESS_CM:
        return math.nan
    return a / b
