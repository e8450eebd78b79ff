"""A stream that uses :class:`.fixed_step.FixedStep`, for torch.compile and CUDA graphs.

All work happens on the thread that calls ``step``. Create and use it on one thread, because CUDA graphs require it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stdnet_core.errors import ConfigError
from stdnet_core.model import STDNet
from stdnet_core.streaming.execution import StepResult
from stdnet_core.streaming.fixed_step import FixedStep, FixedTail
from stdnet_core.streaming.schedule import Schedule
from stdnet_core.streaming.stream import StreamOutput, check_frame

_WARM_UP_STEPS = 3


class FixedStreamingSTDNet:
    """Like :class:`.stream.StreamingSTDNet`, with one fixed graph of operations per step.

    The first step with a new size builds the graph (a compiler may take minutes). Colour must be an exact multiple of
    the size of depth.

    Args:
        model: as for the stream.
        latency: following frames to wait for.
        compiled: run the step through torch.compile.
        cuda_graph: record the step as a CUDA graph and replay it.

    Raises:
        ConfigError: latency out of range, or a CUDA graph of a model on the CPU.
    """

    def __init__(self, model: STDNet, latency: int = 0, *, compiled: bool = False, cuda_graph: bool = False) -> None:
        self.model = model.eval()
        self.latency = Schedule.of(model.config, latency).latency
        self._device = next(model.parameters()).device
        if cuda_graph and self._device.type != "cuda":
            raise ConfigError(f"a CUDA graph needs a model on a CUDA device, this one is on {self._device}")
        self._compiled, self._cuda_graph = compiled, cuda_graph
        self._built: tuple[torch.Size, torch.Size] | None = None
        self.reset()

    def reset(self) -> None:
        """Clear the state; the next frame may have another size."""
        self._frames = 0
        self._sizes: tuple[torch.Size, torch.Size] | None = None

    def state_bytes(self) -> int:
        """Bytes of memory of the state; 0 before the first frame."""
        return 0 if self._built is None else sum(t.numel() * t.element_size() for t in self._state)

    @torch.inference_mode()
    def step(self, rgb: Tensor, depth_lr: Tensor) -> StreamOutput | None:
        """See :meth:`.stream.StreamingSTDNet.step`."""
        check_frame(rgb, depth_lr, self._sizes)
        if self._built != (rgb.shape, depth_lr.shape):
            self._build(rgb, depth_lr)
        elif self._frames == 0:
            for tensor in self._state:
                tensor.zero_()
        self._number.fill_(self._frames)
        self._rgb.copy_(rgb, non_blocking=True)
        self._depth.copy_(depth_lr, non_blocking=True)
        result = self._run()
        self._sizes = (rgb.shape, depth_lr.shape)
        self._frames += 1
        return self._output(result, self._frames - 1 - self.latency)

    @torch.inference_mode()
    def flush(self) -> list[StreamOutput]:
        """See :meth:`.stream.StreamingSTDNet.flush`."""
        outputs = []
        if self._frames and self.latency:
            tail = FixedTail(self.model, self.latency, tuple(self._rgb.shape), tuple(self._depth.shape))
            self._number.fill_(self._frames - 1)
            first = self._frames - self.latency
            outputs = [self._output(r, first + i) for i, r in enumerate(tail(self._number, *self._state))]
        self.reset()
        return [output for output in outputs if output is not None]

    @staticmethod
    def _output(result: StepResult, frame: int) -> StreamOutput | None:
        if frame < 0:
            return None
        log_scale = None if result.log_scale is None else result.log_scale.clone()
        stages = tuple(depth.clone() for depth in result.stage_depths)
        return StreamOutput(result.depth.clone(), log_scale, frame, stages)

    def _build(self, rgb: Tensor, depth_lr: Tensor) -> None:
        step = FixedStep(self.model, self.latency, tuple(rgb.shape), tuple(depth_lr.shape))
        self._built = None
        self._number = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._rgb = torch.zeros(rgb.shape, device=self._device)
        self._depth = torch.zeros(depth_lr.shape, device=self._device)
        self._state = step.initial_state(self._device)
        call = self._compile(step) if self._compiled else step

        def advance() -> StepResult:
            result, state = call(self._number, self._rgb, self._depth, *self._state)
            for old, new in zip(self._state, state, strict=True):
                old.copy_(new)
            return result

        self._run: Callable[[], StepResult] = _captured(advance) if self._cuda_graph else advance
        for tensor in self._state:
            tensor.zero_()
        self._built = (rgb.shape, depth_lr.shape)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _compile(self, step: FixedStep) -> Callable[..., tuple[StepResult, tuple[Tensor, ...]]]:
        """The compiled step. It is exported first, so that the compiler gets operators instead of Python code."""
        examples = [torch.zeros_like(t) for t in (self._number, self._rgb, self._depth, *self._state)]
        program = torch.export.export(step, tuple(examples), strict=False)
        return torch.compile(program.module(), fullgraph=True, dynamic=False)


def _captured(function: Callable[[], StepResult]) -> Callable[[], StepResult]:
    """The function as a CUDA graph; each replay overwrites the memory of its result."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_STEPS):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()

    def replay() -> StepResult:
        graph.replay()
        return result

    return replay
