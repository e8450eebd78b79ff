"""Executes the plan of a step: all calls of a pass are one batch, and so are all frames of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stdnet_core.model.low_resolution import LowResolutionDepth
from stdnet_core.model.stage import Stage, StagePrediction, blend
from stdnet_core.model.stdnet import STDNet
from stdnet_core.streaming.schedule import PassPlan, Slot, StepPlan, Value, pass_input

Read = Callable[[Value], Tensor]


class StepResult(NamedTuple):
    """Output of a step, float32, padded: blended depth (B, 1, H, W), log scale or None, each stage's depth."""

    depth: Tensor
    log_scale: Tensor | None
    stage_depths: tuple[Tensor, ...]


class Values:
    """Values by slot and frame: those computed in this step, else those stored by earlier steps.

    Args:
        kept: returns a stored value (B, ...) of an earlier step.
    """

    def __init__(self, kept: Read) -> None:
        self._kept = kept
        self.fresh: dict[Value, Tensor] = {}

    def __getitem__(self, value: Value) -> Tensor:
        found = self.fresh.get(value)
        return self._kept(value) if found is None else found

    def gather(self, slots: Sequence[tuple[Slot, int]]) -> Tensor:
        """The given values (slot, frame), concatenated along the batch dimension."""
        parts = [self[Value(slot, frame)] for slot, frame in slots]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def frames(self, slot: Slot, frames: Sequence[int]) -> Tensor:
        """Values of one slot, concatenated along the batch dimension."""
        return self.gather([(slot, frame) for frame in frames])

    def put(self, slot: Slot, frames: Sequence[int], batch: Tensor) -> None:
        """Split a batch into frames and store them."""
        for frame, part in zip(frames, batch.chunk(len(frames)), strict=True):
            self.fresh[Value(slot, frame)] = part


def run_plan(
    model: STDNet, plan: StepPlan, values: Values, scale: int, first: Tensor | None = None
) -> StepResult | None:
    """Compute everything in the plan.

    Args:
        values: holds the inputs of the step's frame ("rgb" (B, 3, H, W) and "depth" (B, 1, h, w), padded to the scale)
            and the stored values of earlier steps; computed values are added to it.
        first: number of the first existing frame, if the plan is not clipped to it (for a fixed graph of operations):
            contributions of frames before it are computed and masked.

    Returns:
        The plan's output frame, or None if it has none.
    """
    low_resolutions: dict[tuple[int, ...], LowResolutionDepth] = {}
    for index, (stage, work) in enumerate(zip(model.stages, plan.stages, strict=True)):
        if work.encode:
            _encode(stage, index, work.encode, values, scale)
        for p, pass_plan in enumerate(work.passes):
            _run_pass(stage, index, p, pass_plan, values, first)
        if work.reconstruct:
            levels = [pass_input(index, p) for p in range(len(work.passes) + 1)]
            outputs = torch.cat([values.frames(level, work.reconstruct) for level in levels], 1)
            values.put(Slot("fused", index), work.reconstruct, stage.reconstruction(outputs))
        if work.predict:
            if work.predict not in low_resolutions:  # stages with the same frames share it
                low_resolutions[work.predict] = LowResolutionDepth(
                    values.frames(Slot("depth"), work.predict), scale, values.frames(Slot("rgb"), work.predict)
                )
            low_resolution = low_resolutions[work.predict]
            prediction = stage.predict(values.frames(Slot("fused", index), work.predict), low_resolution)
            values.put(Slot("prediction", index), work.predict, _pack(prediction))
    if plan.output is None:
        return None
    predictions = tuple(_unpack(values[Value(Slot("prediction", s), plan.output)]) for s in range(len(plan.stages)))
    depth, _, log_scale = blend(predictions)
    return StepResult(depth, log_scale, tuple(p.depth for p in predictions))


def _pack(prediction: StagePrediction) -> Tensor:
    return torch.cat([part for part in prediction if part is not None], 1)


def _unpack(packed: Tensor) -> StagePrediction:
    depth, logit, *log_scale = packed.split(1, 1)
    return StagePrediction(depth, logit, log_scale[0] if log_scale else None)


def _encode(stage: Stage, index: int, frames: tuple[int, ...], values: Values, scale: int) -> None:
    dtype = next(stage.parameters()).dtype
    low_resolution = LowResolutionDepth(values.frames(Slot("depth"), frames), scale)
    if index == 0:
        guide = values.frames(Slot("rgb"), frames)
    else:
        guide = values.frames(Slot("prediction", index - 1), frames)[:, :2]
    rgb_features = stage.guide_encoder(guide.to(dtype))
    depth_features = stage.depth_encoder(low_resolution.features(stage.config.depth_features).to(dtype))
    spatial = stage.spatial(depth_features, rgb_features)
    trunk_input = spatial.fused
    if index > 0:
        trunk_input = torch.cat((spatial.fused, values.frames(Slot("fused", index - 1), frames)), 1)
    values.put(Slot("rgb_features", index), frames, rgb_features)
    values.put(Slot("weight", index), frames, spatial.weight)
    values.put(Slot("trunk", index), frames, stage.trunk(trunk_input))


def _run_pass(stage: Stage, index: int, pass_index: int, plan: PassPlan, values: Values, first: Tensor | None) -> None:
    source = pass_input(index, pass_index)
    if plan.calls:
        current = [t for t, _ in plan.calls]
        neighbor = [t + plan.step * k for t, k in plan.calls]
        trunk = Slot("trunk", index)
        refined = stage.temporal[pass_index](
            values.frames(source, current),
            values.frames(source, neighbor),
            (values.frames(trunk, current) - values.frames(trunk, neighbor)).abs(),
            values.frames(Slot("rgb_features", index), neighbor),
            values.frames(Slot("weight", index), current),
        )
        for (frame, distance), part in zip(plan.calls, refined.chunk(len(plan.calls)), strict=True):
            values.fresh[Value(Slot("call", index, pass_index, distance), frame)] = part
    for frame, distances in plan.sums:
        parts = {k: values[Value(Slot("call", index, pass_index, k), frame)] for k in distances}
        if not parts:
            total = values[Value(source, frame)]
        elif first is not None and plan.step < 0:
            total = _masked_sum(values[Value(source, frame)], parts, frame, first)
        else:
            total = sum(list(parts.values())[1:], parts[distances[0]])
        values.fresh[Value(Slot("pass", index, pass_index), frame)] = total


def _masked_sum(unchanged: Tensor, parts: dict[int, Tensor], frame: int, first: Tensor) -> Tensor:
    """Sum of the parts whose neighbour exists; the unchanged frame if none does."""
    total = parts[1]
    for k in range(2, len(parts) + 1):
        total = total + torch.where(first <= frame - k, parts[k], torch.zeros_like(parts[k]))
    return torch.where(first <= frame - 1, total, unchanged)
