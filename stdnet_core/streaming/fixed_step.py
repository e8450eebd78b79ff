"""A step of the stream as a pure function of tensors, for torch.compile, CUDA graphs, ONNX and other runtimes.

Sizes, latency and operations are fixed; the state is an input and an output. The first frames of a clip run through the
same operations as all others; contributions of frames before the clip are masked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stdnet_core.errors import InputError
from stdnet_core.model import STDNet
from stdnet_core.model.low_resolution import infer_scale
from stdnet_core.streaming.execution import StepResult, Values, run_plan
from stdnet_core.streaming.schedule import Schedule, Slot, StepPlan, Value
from stdnet_core.streaming.stream import slot_shape


@dataclass(frozen=True)
class StateTensor:
    """One tensor of the state: the newest values of a slot, oldest first.

    Attributes:
        oldest, newest: range of frames that it holds, relative to the newest input frame.
        shape: (frames * B, channels, rows, columns).
    """

    slot: Slot
    oldest: int
    newest: int
    shape: tuple[int, int, int, int]
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """Name in the inputs and outputs of a graph."""
        parts = [self.slot.name, f"s{self.slot.stage}"]
        if self.slot.name in ("pass", "call"):
            parts.append(f"p{self.slot.pass_index}")
        if self.slot.name == "call":
            parts.append(f"k{self.slot.distance}")
        return "_".join(parts)

    @property
    def bytes(self) -> int:
        """Bytes of memory of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


class FixedShape(nn.Module):
    """Common part of the step and the tail: the model, the sizes and the layout of the state.

    Args:
        rgb_shape: (B, 3, H, W); H and W multiples of the scale.
        depth_shape: (B, 1, h, w).

    Raises:
        InputError: colour is not exactly ``scale`` times the size of depth.
        ConfigError: latency out of range.
    """

    def __init__(self, model: STDNet, latency: int, rgb_shape: tuple[int, ...], depth_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.scale = infer_scale(*rgb_shape[-2:], *depth_shape[-2:])
        if tuple(self.scale * n for n in depth_shape[-2:]) != tuple(rgb_shape[-2:]):
            height, width = (self.scale * n for n in depth_shape[-2:])
            raise InputError(
                f"a step of fixed size needs colour of exactly {self.scale} times the size of depth: pad "
                f"{rgb_shape[-1]}x{rgb_shape[-2]} to {width}x{height}"
            )
        self.model = model.eval()
        self.schedule = Schedule.of(model.config, latency)
        self.rgb_shape, self.depth_shape = tuple(rgb_shape), tuple(depth_shape)
        feature_type = next(model.parameters()).dtype
        self.layout = tuple(
            StateTensor(
                slot,
                oldest,
                newest,
                self._stacked(slot_shape(model.config, slot, torch.Size(rgb_shape), self.scale), newest - oldest + 1),
                torch.float32 if slot.name in ("rgb", "depth", "prediction") else feature_type,
            )
            for slot, (oldest, newest) in self.schedule.kept.items()
        )

    @staticmethod
    def _stacked(shape: tuple[int, int, int, int], frames: int) -> tuple[int, int, int, int]:
        return frames * shape[0], *shape[1:]

    def initial_state(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """The state before the first frame."""
        return tuple(torch.zeros(t.shape, dtype=t.dtype, device=device) for t in self.layout)

    def _values(self, state: tuple[Tensor, ...], age: int) -> tuple[Values, dict[Slot, list[Tensor]]]:
        """The values of a state that is ``age`` frames old, and the state split into frames by slot."""
        frames = {
            t.slot: list(tensor.chunk(t.newest - t.oldest + 1)) for t, tensor in zip(self.layout, state, strict=True)
        }
        oldest = {t.slot: t.oldest for t in self.layout}
        return Values(lambda value: frames[value.slot][value.frame + age - oldest[value.slot]]), frames

    def _run(self, plan: StepPlan, values: Values, frame: Tensor) -> StepResult:
        result = run_plan(self.model, plan, values, self.scale, first=-frame)
        assert result is not None, "the steady plan and those of the tail output a frame"
        return result


class FixedStep(FixedShape):
    """``step(frame, rgb, depth_lr, *state) -> (result, new state)``; see :class:`FixedShape` for the arguments."""

    def forward(
        self, frame: Tensor, rgb: Tensor, depth_lr: Tensor, *state: Tensor
    ) -> tuple[StepResult, tuple[Tensor, ...]]:
        """Process a frame.

        Args:
            frame: its number in the clip, from 0, int64 (1,).
            rgb: (B, 3, H, W) float32, 0..1.
            depth_lr: (B, 1, h, w) float32, normalised, without holes.
            state: the state that the previous step returned, in the order of ``layout``.

        Returns:
            The result for the frame ``latency`` frames before (meaningless during the first ``latency`` steps), and the
            new state.
        """
        values, old = self._values(state, age=1)
        values.fresh[Value(Slot("rgb"), 0)] = rgb
        values.fresh[Value(Slot("depth"), 0)] = depth_lr
        result = self._run(self.schedule.steady, values, frame)
        return result, tuple(self._advanced(t, old[t.slot], values) for t in self.layout)

    @staticmethod
    def _advanced(tensor: StateTensor, old: list[Tensor], values: Values) -> Tensor:
        frames = []
        for offset in range(tensor.oldest, tensor.newest + 1):
            fresh = values.fresh.get(Value(tensor.slot, offset))
            if fresh is None:  # last step's value, or not computed yet
                position = offset + 1 - tensor.oldest
                fresh = old[position] if position < len(old) else torch.zeros_like(old[-1])
            frames.append(fresh)
        return torch.cat(frames)


class FixedTail(FixedShape):
    """``tail(frame, *state) -> results`` for the last ``latency`` frames of a clip, oldest first."""

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[StepResult, ...]:
        """``frame``: number of the newest input frame. Results for frames before 0 are meaningless."""
        values, _ = self._values(state, age=0)
        plans: tuple[StepPlan, ...] = self.schedule.tail
        return tuple(self._run(plan, values, frame) for plan in plans)
