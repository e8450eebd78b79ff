"""The methods that are compared, the model and the classical ones, run side by side over the frames of a sequence."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from stdnet_core.inference import DepthUpsampler, UpsampledDepth

CLASSICAL = ("nearest", "bilinear", "bicubic", "joint_bilateral", "guided_temporal")
FORGETFUL = "model_without_history"
"""The model, reset before every frame."""
METHODS = ("model", FORGETFUL, *CLASSICAL)

_Frame = TypeVar("_Frame")
_Result = TypeVar("_Result")


class Said(NamedTuple):
    """A method's output for a frame, (H, W) each: depth in metres, where it would show it, and its confidence, None if
    it has none."""

    depth: np.ndarray
    shown: np.ndarray
    confidence: np.ndarray | None


class Method(Protocol):
    """What :func:`run_together` runs; :class:`StreamRunner` documents each member."""

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


class Upsampler(Protocol):
    """What a :class:`StreamRunner` runs: this part of :class:`stdnet_core.DepthUpsampler`."""

    notices: list[str]

    def reset(self) -> None: ...

    def step(self, rgb: np.ndarray, depth: np.ndarray) -> UpsampledDepth | None: ...

    def flush(self) -> list[UpsampledDepth]: ...


class StreamRunner:
    """Runs one method on one stream; gives its depth everywhere, and where it would show it.

    Args:
        stream: the upsampler.
        forgetful: reset it before every frame, to measure what its history is worth.
    """

    def __init__(self, stream: Upsampler, *, forgetful: bool = False) -> None:
        self._stream = stream
        self.forgetful = forgetful
        self.seconds = 0.0
        self.frames = 0
        self._ready: deque[Said] = deque()

    def begin(self) -> None:
        """Start a new sequence, and its timing."""
        self._stream.reset()
        self._ready.clear()
        self.seconds, self.frames = 0.0, 0

    def step(self, rgb: np.ndarray, depth_lr: np.ndarray) -> None:
        """Process the next frame: colour (H, W, 3) and depth (h, w) in metres, 0 invalid."""
        self.frames += 1
        result = self._timed(lambda: self._stream.step(rgb, depth_lr))
        if result is not None:
            self._take(result)
        if self.forgetful:
            self.finish()

    def finish(self) -> None:
        """End the sequence: all pending frames become ready, and the next frame begins a new sequence."""
        for result in self._timed(self._stream.flush):
            self._take(result)

    @property
    def ready(self) -> int:
        """How many frames can be popped."""
        return len(self._ready)

    def pop(self) -> Said:
        """Remove the oldest ready frame and return it."""
        return self._ready.popleft()

    @property
    def ms_per_frame(self) -> float:
        """Mean time per frame since :meth:`begin`."""
        return 1e3 * self.seconds / max(self.frames, 1)

    @property
    def notices(self) -> list[str]:
        """The upsampler's notices to the user."""
        return list(self._stream.notices)

    def _take(self, result: UpsampledDepth) -> None:
        self._ready.append(Said(result.depth, result.shown, result.confidence))

    def _timed(self, call: Callable[[], _Result]) -> _Result:
        begin = time.perf_counter()
        result = call()
        self.seconds += time.perf_counter() - begin
        return result


class Runner(StreamRunner):
    """Runs a :class:`stdnet_core.DepthUpsampler`.

    Args:
        upsampler: with ``mask_unsupported=False``.
        forgetful: as for :class:`StreamRunner`.
    """

    def __init__(self, upsampler: DepthUpsampler, *, forgetful: bool = False) -> None:
        super().__init__(upsampler, forgetful=forgetful)
        self.upsampler = upsampler

    @classmethod
    def classical(cls, method: str, device: str = "auto") -> Runner:
        """A runner of one of :data:`CLASSICAL`."""
        return cls(DepthUpsampler(method=method, device=device, mask_unsupported=False))


def run_together(
    runners: Mapping[str, Method], frames: Iterable[_Frame], inputs: Callable[[_Frame], tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[_Frame, dict[str, Said]]]:
    """Run methods on a sequence from its beginning; they may differ in latency.

    Args:
        runners: by name.
        frames: of any type, in order.
        inputs: gets colour (H, W, 3) and depth (h, w) of a frame.

    Yields:
        Each frame with every method's output (:meth:`Runner.pop`), once all have it.
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
    """The notices of each method that has any."""
    return {name: notices for name, runner in runners.items() if (notices := runner.notices)}
