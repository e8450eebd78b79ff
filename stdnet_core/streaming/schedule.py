"""Determines what must be computed when a frame arrives.

The output for frame f at latency L is defined as the output of the whole-clip network on all frames up to f + L. By
this definition, a new frame changes values near the end of the clip (backward passes reach further) and leaves the
others as they were. This module determines which values change, once per configuration, by running the network's
recurrences (paper fig. 3, eq. 5, 7, 8) on version numbers instead of tensors. A value gets a new version if one of its
inputs has one, and is visited only if the requested output needs it.

After enough frames, the work of a step depends only on the distance to the newest frame, not on the frame's number.
This steady plan also serves the first frames: it is clipped to the frames that exist, because missing frames only
remove dependencies."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from stdnet_core.errors import ConfigError
from stdnet_core.model.config import ModelConfig

MAX_LATENCY = 8
"""Largest latency in frames; with it, the paper's network gives its whole-clip result."""


def whole_clip_latency(config: ModelConfig) -> int:
    """The smallest latency at which the stream gives the whole-clip result: the reach of the backward passes."""
    return config.stages * config.neighbors * config.passes.count("backward")


class Slot(NamedTuple):
    """A kind of value that exists once per frame.

    name: "rgb" and "depth" (the padded inputs); for each stage: "rgb_features", "weight", "trunk", "pass" (output of a
    pass), "call" (one neighbour's contribution to a pass), "fused" (output of the reconstruction), "prediction".
    """

    name: str
    stage: int = 0
    pass_index: int = 0
    distance: int = 0


class Value(NamedTuple):
    """The value of a slot at a frame."""

    slot: Slot
    frame: int


@dataclass(frozen=True)
class PassPlan:
    """Work of one pass.

    Attributes:
        step: -1 if the neighbours are earlier frames (forward pass), +1 if later.
        calls: (frame, distance) of each call of the temporal difference module.
        sums: (frame, distances) of each output to sum up; no distances: the frame passes unchanged.
    """

    step: int
    calls: tuple[tuple[int, int], ...]
    sums: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True)
class StagePlan:
    """Work of one stage: frames to encode (up to the trunk), passes, frames to reconstruct and frames to predict."""

    encode: tuple[int, ...]
    passes: tuple[PassPlan, ...]
    reconstruct: tuple[int, ...]
    predict: tuple[int, ...]


@dataclass(frozen=True)
class StepPlan:
    """Work of a step, and its output frame (None: none yet)."""

    stages: tuple[StagePlan, ...]
    output: int | None

    def at(self, newest: int, first: int = 0) -> StepPlan:
        """Convert a plan relative to the newest frame (0) to absolute frames, without those before ``first``."""

        def shift(frames: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(f + newest for f in frames if f + newest >= first)

        def exists(frame: int, step: int, distance: int) -> bool:
            return frame + newest >= first and frame + newest + step * distance >= first

        stages = tuple(
            StagePlan(
                encode=shift(stage.encode),
                passes=tuple(
                    PassPlan(
                        step=p.step,
                        calls=tuple((f + newest, k) for f, k in p.calls if exists(f, p.step, k)),
                        sums=tuple(
                            (f + newest, tuple(k for k in distances if exists(f, p.step, k)))
                            for f, distances in p.sums
                            if f + newest >= first
                        ),
                    )
                    for p in stage.passes
                ),
                reconstruct=shift(stage.reconstruct),
                predict=shift(stage.predict),
            )
            for stage in self.stages
        )
        output = None if self.output is None or self.output + newest < first else self.output + newest
        return StepPlan(stages, output)

    def writes(self) -> Iterator[Value]:
        """Values that the step computes."""
        for s, stage in enumerate(self.stages):
            for name in ("rgb_features", "weight", "trunk"):
                yield from (Value(Slot(name, s), t) for t in stage.encode)
            for p, plan in enumerate(stage.passes):
                yield from (Value(Slot("call", s, p, k), t) for t, k in plan.calls)
                yield from (Value(Slot("pass", s, p), t) for t, _ in plan.sums)
            yield from (Value(Slot("fused", s), t) for t in stage.reconstruct)
            yield from (Value(Slot("prediction", s), t) for t in stage.predict)

    def reads(self) -> Iterator[Value]:
        """Values that the step uses, whether it computes them or earlier steps did."""
        for s, stage in enumerate(self.stages):
            for t in stage.encode:
                yield Value(Slot("depth"), t)
                yield Value(Slot("rgb"), t) if s == 0 else Value(Slot("prediction", s - 1), t)
                if s > 0:
                    yield Value(Slot("fused", s - 1), t)
            for p, plan in enumerate(stage.passes):
                for t, k in plan.calls:
                    neighbor = t + plan.step * k
                    for name, frames in (("trunk", (t, neighbor)), ("rgb_features", (neighbor,)), ("weight", (t,))):
                        yield from (Value(Slot(name, s), f) for f in frames)
                    yield from (Value(pass_input(s, p), f) for f in (t, neighbor))
                for t, distances in plan.sums:
                    yield from (Value(Slot("call", s, p, k), t) for k in distances)
                    if not distances:
                        yield Value(pass_input(s, p), t)
            for t in stage.reconstruct:
                yield from (Value(pass_input(s, p), t) for p in range(len(stage.passes) + 1))
            for t in stage.predict:
                yield Value(Slot("fused", s), t)
                yield Value(Slot("depth"), t)
                yield Value(Slot("rgb"), t)  # the base of the output may be guided by colour
        if self.output is not None:
            yield from (Value(Slot("prediction", s), self.output) for s in range(len(self.stages)))

    @property
    def module_calls(self) -> int:
        """Calls of the temporal difference modules: one current frame with one neighbour each."""
        return sum(len(p.calls) for stage in self.stages for p in stage.passes)


def pass_input(stage: int, pass_index: int) -> Slot:
    """The input of a pass: the trunk's features or the output of the previous pass."""
    return Slot("trunk", stage) if pass_index == 0 else Slot("pass", stage, pass_index - 1)


class _Tracker:
    """Runs the recurrences on version numbers and records what must be recomputed."""

    def __init__(self, passes: tuple[str, ...], neighbors: int, stages: int) -> None:
        self.passes, self.neighbors, self.stages = passes, neighbors, stages
        self.known: dict[Value, tuple[Any, int]] = {}
        self.version = 0

    def copy(self) -> _Tracker:
        other = _Tracker(self.passes, self.neighbors, self.stages)
        other.known, other.version = dict(self.known), self.version
        return other

    def step(self, newest: int, output: int) -> StepPlan:
        """The plan for all values that the output needs and that are not up to date, in the clip 0 .. newest."""
        self.newest = newest
        self.seen: dict[Value, int] = {}
        self.new: set[Value] = set()
        for stage in range(self.stages):
            self._prediction(stage, output)
        return self._plan(output)

    def _resolve(self, value: Value, inputs: Any) -> int:
        if value not in self.known or self.known[value][0] != inputs:
            self.version += 1
            self.known[value] = (inputs, self.version)
            self.new.add(value)
        self.seen[value] = self.known[value][1]
        return self.seen[value]

    def _trunk(self, stage: int, frame: int) -> int:
        value = Value(Slot("trunk", stage), frame)
        if value in self.seen:
            return self.seen[value]
        inputs = frame if stage == 0 else (self._fused(stage - 1, frame), self._prediction(stage - 1, frame))
        return self._resolve(value, inputs)

    def _pass(self, stage: int, index: int, frame: int) -> int:
        if index < 0:
            return self._trunk(stage, frame)
        value = Value(Slot("pass", stage, index), frame)
        if value in self.seen:
            return self.seen[value]
        own = self._pass(stage, index - 1, frame)
        parts = []
        for distance in range(1, self.neighbors + 1):
            other = frame + _STEP[self.passes[index]] * distance
            if 0 <= other <= self.newest:
                inputs = (
                    own,
                    self._pass(stage, index - 1, other),
                    self._trunk(stage, frame),
                    self._trunk(stage, other),
                )
                parts.append((distance, self._resolve(Value(Slot("call", stage, index, distance), frame), inputs)))
        return self._resolve(value, tuple(parts) or own)

    def _fused(self, stage: int, frame: int) -> int:
        value = Value(Slot("fused", stage), frame)
        if value in self.seen:
            return self.seen[value]
        inputs = tuple(self._pass(stage, index, frame) for index in range(-1, len(self.passes)))
        return self._resolve(value, inputs)

    def _prediction(self, stage: int, frame: int) -> int:
        value = Value(Slot("prediction", stage), frame)
        return self.seen[value] if value in self.seen else self._resolve(value, self._fused(stage, frame))

    def _plan(self, output: int) -> StepPlan:
        def new(slot: Slot) -> tuple[int, ...]:
            return tuple(sorted(v.frame for v in self.new if v.slot == slot))

        stages = []
        for s in range(self.stages):
            passes = []
            for p, direction in enumerate(self.passes):
                calls = [(t, k) for k in range(1, self.neighbors + 1) for t in new(Slot("call", s, p, k))]
                sums = []
                for t in new(Slot("pass", s, p)):
                    parts = self.known[Value(Slot("pass", s, p), t)][0]
                    sums.append((t, tuple(k for k, _ in parts) if isinstance(parts, tuple) else ()))
                passes.append(PassPlan(_STEP[direction], tuple(calls), tuple(sums)))
            stages.append(
                StagePlan(new(Slot("trunk", s)), tuple(passes), new(Slot("fused", s)), new(Slot("prediction", s)))
            )
        return StepPlan(tuple(stages), output)


_STEP = {"forward": -1, "backward": 1}


@dataclass(frozen=True)
class Schedule:
    """The work of every step of a stream.

    Attributes:
        latency: L; step n outputs frame n - L.
        steady: the plan of a step, with frames relative to the newest (0, -1, ...).
        tail: plans that output the last L frames at the end of a clip, in order; relative to the newest frame.
        kept: for each slot that later steps read, the oldest and the newest frame to store after a step, relative to
            the newest frame.
    """

    latency: int
    steady: StepPlan
    tail: tuple[StepPlan, ...]
    kept: dict[Slot, tuple[int, int]]

    @classmethod
    def of(cls, config: ModelConfig, latency: int) -> Schedule:
        """The schedule of a configuration.

        Raises:
            ConfigError: the latency is not an integer from 0 to 8 (or to :func:`whole_clip_latency`, if larger).
        """
        limit = max(MAX_LATENCY, whole_clip_latency(config))
        if not isinstance(latency, int) or isinstance(latency, bool) or not 0 <= latency <= limit:
            raise ConfigError(f"latency is {latency!r}; it must be a whole number of frames from 0 to {limit}")
        return _build(config.passes, config.neighbors, config.stages, latency)


@functools.lru_cache(maxsize=64)
def _build(passes: tuple[str, ...], neighbors: int, stages: int, latency: int) -> Schedule:
    reach = stages * len(passes) * neighbors
    newest = 2 * (reach + latency) + 2
    tracker = _Tracker(passes, neighbors, stages)
    for frame in range(newest - reach - latency - 1, newest + 1):
        steady = tracker.step(frame, frame - latency)
    steady = _relative(steady, newest)
    ending = tracker.copy()
    tail = tuple(_relative(ending.step(newest, f), newest) for f in range(newest - latency + 1, newest + 1))
    return Schedule(latency, steady, tail, _kept(steady, tail))


def _relative(plan: StepPlan, newest: int) -> StepPlan:
    far = -(10**6)
    return plan.at(-newest, first=far)


def _kept(steady: StepPlan, tail: tuple[StepPlan, ...]) -> dict[Slot, tuple[int, int]]:
    """Frame offsets by slot to store after a step: a later step or the tail reads their values before they change."""
    inputs = {Value(Slot("rgb"), 0), Value(Slot("depth"), 0)}
    written = set(steady.writes()) | inputs
    next_reads = set(steady.reads()) - written
    tail_reads: set[Value] = set()
    tail_written: set[Value] = set()
    for plan in tail:
        tail_written |= set(plan.writes())
        tail_reads |= set(plan.reads()) - tail_written
    needed = {Value(v.slot, v.frame + 1) for v in next_reads} | tail_reads
    kept: dict[Slot, tuple[int, int]] = {}
    for slot in sorted({v.slot for v in needed}):
        first = min(v.frame for v in needed if v.slot == slot)
        live = {first}
        for frame in range(first + 1, 1):
            carried = frame - 1 in live and Value(slot, frame - 1) not in written
            if Value(slot, frame) in needed or carried:
                live.add(frame)
        kept[slot] = (min(live), max(live))
    return kept
