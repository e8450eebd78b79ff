"""Runs the recurrent network with OpenVINO instead of PyTorch, which is faster on a CPU (extra ``openvino``)."""

from __future__ import annotations

import copy
import functools
import logging
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stdnet_core.cli import require
from stdnet_core.errors import InputError, StdnetError
from stdnet_core.inference.devices import Placement
from stdnet_core.inference.engine import EngineOutput, RecurrentTorchEngine, recurrent_inputs
from stdnet_core.memory import give_back_holes
from stdnet_core.model import RecurrentNet
from stdnet_core.model.recurrent import padded_size
from stdnet_core.model.recurrent.flat_step import STATE, FlatStep, flat_state
from stdnet_core.model.recurrent.geometry import STRIDE
from stdnet_core.optical_flow import FlowEstimator

_log = logging.getLogger(__name__)
SETTLED = 60
"""Frames of the same sizes after which the network is compiled for them beside the stream."""
MOST_SIZES = 4
"""Different sizes for which it is compiled beside a stream: each stays in memory, and compiling leaks some 20 MB."""


_making_core = threading.Lock()


def _core() -> Any:
    """The one ``openvino.Core`` of this process, which is never destroyed.

    Its CPU plugin gives a thread other memory to handle signals on. Once two of them are destroyed in another order
    than the reverse one, the thread is left with memory that was returned: a signal then overwrites what lies there."""
    with _making_core:
        return _new_core()


@functools.cache
def _new_core() -> Any:
    return require("openvino", extra="openvino").Core()


@dataclass(frozen=True)
class Sizes:
    """What a compiled network is made for.

    Attributes:
        colour: (H, W), multiples of 16.
        depth: (h, w).
        ratio: pixels of a cell of depth on each axis (rows, columns).
    """

    colour: tuple[int, int]
    depth: tuple[int, int]
    ratio: tuple[float, float]

    @classmethod
    def of(cls, rgb: np.ndarray, depth: np.ndarray, ratio: tuple[float, float]) -> Sizes:
        """The sizes for a frame."""
        return cls(padded_size((rgb.shape[0], rgb.shape[1])), (depth.shape[0], depth.shape[1]), ratio)

    def __str__(self) -> str:
        (height, width), (rows, columns) = self.colour, self.depth
        return f"colour of {width}x{height} and depth of {columns}x{rows}"


class RecurrentOpenVinoEngine:
    """The recurrent network in OpenVINO, on the CPU and in float32; see
    :class:`stdnet_core.inference.engine.RecurrentEngine`.

    OpenVINO compiles the network for fixed sizes, which takes seconds. This happens with the first frame and whenever
    sizes have changed since the last frame.

    Args:
        model: copied.
        threads: CPU threads; None: as many as PyTorch uses.

    Attributes:
        sizes: those for which it is compiled.

    Raises:
        StdnetError: OpenVINO is not installed. From :meth:`step` and :meth:`compile`, InputError: OpenVINO cannot
            compile the network for these sizes; sides of less than 32 pixels are too small for it.
    """

    executes = "openvino"

    def __init__(self, model: RecurrentNet, threads: int | None = None) -> None:
        self._openvino = require("openvino", extra="openvino")
        self._core = _core()
        self._model = copy.deepcopy(model).float().cpu().eval()
        self._threads = threads or torch.get_num_threads()
        self._flow = FlowEstimator()
        self._request: Any = None
        self._state: list[np.ndarray] | None = None
        self.sizes: Sizes | None = None

    def step(self, rgb: np.ndarray, depth: np.ndarray, ratio: tuple[float, float]) -> EngineOutput:
        """See :class:`stdnet_core.inference.engine.RecurrentEngine`."""
        height, width = rgb.shape[:2]
        sizes = Sizes.of(rgb, depth, ratio)
        if sizes != self.sizes:
            self._request, self.sizes = self.compile(sizes), sizes
        if self._state is None:
            self._state = [tensor.numpy() for tensor in flat_state(self._model.start(torch.empty(1, 3, *sizes.colour)))]
        inputs = recurrent_inputs(rgb, depth, sizes.colour, self._flow)
        self._request.infer([*inputs.values(), *self._state], share_inputs=True)
        # copied, because the next frame overwrites the request's memory
        results = [np.array(tensor.data) for tensor in self._request.output_tensors]
        self._state = results[2:]
        metres, scale = (image[0, 0, :height, :width] for image in results[:2])
        return EngineOutput(metres, scale, registration=self._state[STATE.index("registration")][0])

    def reset(self) -> None:
        """See :class:`stdnet_core.inference.engine.RecurrentEngine`."""
        self._flow.reset()
        self._state = None

    def take_over(self, sizes: Sizes, request: Any, other: RecurrentTorchEngine) -> None:
        """Continue the stream of another engine with what :meth:`compile` returned for its sizes."""
        self._request, self.sizes = request, sizes
        self._flow, state = other.hand_over()
        tensors = () if state is None else flat_state(state)
        self._state = [np.ascontiguousarray(tensor.numpy()) for tensor in tensors] or None

    def compile(self, sizes: Sizes) -> Any:
        """A request for inference with the network, compiled for these sizes. Any thread may call it."""
        started = time.monotonic()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 would round depth itself
            "INFERENCE_NUM_THREADS": self._threads,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # other programs of the robot use the same cores
        }
        try:
            request = self._core.compile_model(self._graph(sizes), "CPU", options).create_infer_request()
        except StdnetError:
            raise
        except Exception as error:  # of PyTorch's tracing, OpenVINO's frontend or its compiler, of any type
            reason = (str(error).strip() or repr(error)).splitlines()[-1]
            raise InputError(
                f"OpenVINO cannot compile the network for {sizes} ({reason}); choose backend torch"
            ) from error
        _log.info("OpenVINO compiled the network for %s in %.1f s", sizes, time.monotonic() - started)
        return request

    def _graph(self, sizes: Sizes) -> Any:
        """The network as OpenVINO's model.

        Its frontend is called directly. ``openvino.convert_model`` does the same, but sends statistics of use."""
        decoders = require("openvino.frontend.pytorch.ts_decoder", extra="openvino")
        height, width = sizes.colour
        rgb = torch.rand(1, 3, height, width)
        flow = torch.zeros(1, 2, height // STRIDE, width // STRIDE)
        example = (rgb, 1 + torch.rand(1, 1, *sizes.depth), flow, *flat_state(self._model.start(rgb)))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: what it takes as constant are sizes, and those are fixed
            decoder = decoders.TorchScriptPythonDecoder(
                FlatStep(self._model, sizes.ratio).eval(), example_input=example, trace_kwargs={"check_trace": False}
            )
        frontend = self._openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        loaded = frontend.load(decoder)  # refers to the decoder without keeping it alive
        graph = frontend.convert(loaded)
        graph.reshape({number: list(tensor.shape) for number, tensor in enumerate(example)})
        return graph


class _Compilation(threading.Thread):
    """Compiles on a thread of its own, which ends with the process."""

    def __init__(self, engine: RecurrentOpenVinoEngine, sizes: Sizes) -> None:
        super().__init__(name="openvino", daemon=True)
        self.sizes = sizes
        self.request: Any = None
        self.error: StdnetError | None = None
        self._engine = engine

    def run(self) -> None:
        try:
            self.request = self._engine.compile(self.sizes)
        except StdnetError as error:
            self.error = error
        give_back_holes()  # compiling for 640x480 takes some 450 MB that are not used again


class CompilingEngine:
    """The recurrent network in PyTorch until OpenVINO is ready; see
    :class:`stdnet_core.inference.engine.RecurrentEngine`.

    Once :data:`SETTLED` frames had the same sizes, OpenVINO compiles the network for them on another thread. It then
    continues from PyTorch's state. What was compiled is kept, for :data:`MOST_SIZES` different sizes; all others stay
    with PyTorch. If OpenVINO cannot compile the network, PyTorch goes on, with a warning in the log.

    Args and Raises: as for :class:`RecurrentOpenVinoEngine`, but :meth:`step` raises nothing.
    """

    def __init__(self, model: RecurrentNet, threads: int | None = None) -> None:
        self._openvino = RecurrentOpenVinoEngine(model, threads)
        self._torch = RecurrentTorchEngine(model, Placement(torch.device("cpu"), torch.float32))
        self._compilation: _Compilation | None = None
        self._requests: dict[Sizes, Any] = {}  # None: it cannot be compiled
        self._last: Sizes | None = None
        self._frames = 0  # in a row with these sizes

    def step(self, rgb: np.ndarray, depth: np.ndarray, ratio: tuple[float, float]) -> EngineOutput:
        """See :class:`stdnet_core.inference.engine.RecurrentEngine`."""
        sizes = Sizes.of(rgb, depth, ratio)
        self._frames = self._frames + 1 if sizes == self._last else 1
        self._last = sizes
        if sizes != self._openvino.sizes:
            self._compile(sizes)
            if self._requests.get(sizes) is not None:
                self._openvino.take_over(sizes, self._requests[sizes], self._torch)
        return (self._openvino if sizes == self._openvino.sizes else self._torch).step(rgb, depth, ratio)

    def reset(self) -> None:
        """See :class:`stdnet_core.inference.engine.RecurrentEngine`."""
        self._openvino.reset()
        self._torch.reset()

    @property
    def executes(self) -> str:
        """What computed the last frame."""
        return "torch" if self._last is None or self._last != self._openvino.sizes else "openvino"

    def _compile(self, sizes: Sizes) -> None:
        """Begin to compile for these sizes if it is time, and keep what is compiled."""
        done = self._compilation
        if done is not None and not done.is_alive():
            self._compilation = None
            self._requests[done.sizes] = done.request
            if done.error is not None:
                _log.warning("%s", done.error)
        if self._compilation is not None or self._frames < SETTLED or sizes in self._requests:
            return
        if len(self._requests) < MOST_SIZES:
            self._compilation = _Compilation(self._openvino, sizes)
            self._compilation.start()
