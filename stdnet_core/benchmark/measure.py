"""Measures time, memory and operations of one mode of one network at one size."""

from __future__ import annotations

import contextlib
import copy
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stdnet_core import __version__
from stdnet_core.benchmark.naive import naive_calls, naive_depth, naive_window
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.cli import require
from stdnet_core.errors import ConfigError
from stdnet_core.inference import DepthUpsampler
from stdnet_core.inference.devices import Placement
from stdnet_core.model import ModelConfig, RecurrentConfig, RecurrentNet, STDNet
from stdnet_core.model.blocks import channels_last
from stdnet_core.model.low_resolution import LowResolutionDepth
from stdnet_core.streaming import Schedule, StreamingSTDNet, whole_clip_latency
from stdnet_core.streaming.fixed_stream import FixedStreamingSTDNet

FLOAT32_MODES = ("naive", "onnx", "openvino")
"""Modes that always compute in float32, whatever the precision of the others."""
_OFFLINE_FRAMES = 24
_FRAMES_KEPT = 8
_SCENE_M = 5.0  # metres that a normalised depth of 1 stands for in the scene
_PEAK_SIZES = {"cpu": 1536, "cuda": 8192}
_LONG_PRODUCT_MS = 100.0


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Attributes:
        model: preset or checkpoint.
        mode: one of MODES, but "causal" for "latency0" of a causal network, and "frame" for "openvino"; "frame" is all
            that DepthUpsampler does.
        engine: "eager", "compiled", "cuda-graph", "compiled cuda-graph", "onnxruntime" or "openvino".
        frames: number of frames measured.
        median_ms, p95_ms, p99_ms: time per frame.
        frames_per_s: 1 / median.
        calls: calls of the temporal difference modules per frame.
        gflop: multiplications and additions of convolutions and matrix products per frame, /1e9. For a compiled stream
            or a CUDA graph: that of the eager stream at the same latency, if that was measured.
        peak_share: gflop / median, as a share of the measured speed of a large matrix product of the same type.
        state_mb: memory of the stream's state.
        peak_mb: peak memory of the process (CPU) or allocated on the device (CUDA) during the measurement.
        speedup: naive median / median; None if the naive mode was not measured.
    """

    model: str
    size: str
    scale: int
    device: str
    precision: str
    mode: str
    engine: str
    frames: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    frames_per_s: float
    calls: int
    gflop: float | None
    peak_share: float | None
    state_mb: float
    peak_mb: float
    speedup: float | None = None


class MovingScene:
    """Frames that resemble a camera's: smooth depth with edges, and texture that moves by one pixel per frame.

    Args:
        height, width: of colour, multiples of the scale.
    """

    def __init__(self, height: int, width: int, scale: int, device: torch.device) -> None:
        rows = torch.arange(height, device=device).view(-1, 1)
        columns = torch.arange(width + 64, device=device)
        waves = [torch.sin(columns / (3.0 + c)) * torch.cos(rows / (4.0 + c)) for c in range(3)]
        self._rgb = (0.5 + 0.4 * torch.stack(waves))[None]
        depth = 0.3 + 0.2 * rows / height + 0.2 * ((columns // 40) % 2) + 0 * columns
        self._depth = depth.float()[None, None]
        self._size, self._scale = (height, width), scale

    def __getitem__(self, t: int) -> tuple[Tensor, Tensor]:
        """Frame t: rgb (1, 3, H, W) and normalised depth_lr (1, 1, h, w)."""
        shift = t % 64
        window = slice(shift, shift + self._size[1])
        middle = self._scale // 2
        return self._rgb[..., window].contiguous(), self._depth[..., window][
            ..., middle :: self._scale, middle :: self._scale
        ].contiguous()


class Clock:
    """Measures the time of single steps, with device synchronisation, and peak memory."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def times(self, step: Callable[[int], Any], warm_up: int, frames: int) -> list[float]:
        """Milliseconds of each of ``frames`` steps, after ``warm_up`` steps."""
        for t in range(warm_up):
            step(t)
        self._reset_peak()
        times = []
        for t in range(warm_up, warm_up + frames):
            self._wait()
            start = time.perf_counter()
            step(t)
            self._wait()
            times.append(1e3 * (time.perf_counter() - start))
        return times

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def _reset_peak(self) -> None:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is that of the whole process so far
            Path("/proc/self/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """Peak memory since the measurement began."""
        if self._cuda:
            return torch.cuda.max_memory_allocated() / 1e6
        try:
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
        except (OSError, IndexError):
            return float("nan")


def matrix_product_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measured GFLOP/s of a large square matrix product; in float32 on CUDA, with TF32 if convolutions use it."""
    best = 0.0
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        for size in (_PEAK_SIZES[device.type] // n for n in (8, 4, 2, 1)):
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

            def product(_: int, a: torch.Tensor = a, b: torch.Tensor = b) -> torch.Tensor:
                return torch.mm(a, b)

            shortest = min(Clock(device).times(product, 2, 5))
            best = max(best, 2 * size**3 / shortest / 1e6)
            if shortest > _LONG_PRODUCT_MS:  # a type that this CPU only emulates: larger products would take minutes
                break
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return best


def _gflop(step: Callable[[int], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        step(0)
    return counter.get_total_flops() / 1e9


Timed = tuple[Callable[[int], Any], int, int, float, Any]
"""What to measure: a step, the number of warm-up steps, module calls per frame, frames per step, and the stream that
holds the state, or None."""


@dataclass(frozen=True)
class Case:
    """A model at a size, on a device and in a precision."""

    name: str
    model: STDNet | RecurrentNet
    info: CheckpointInfo
    height: int
    width: int
    scale: int
    placement: Placement

    def placed(self, dtype: torch.dtype) -> STDNet:
        """A copy of the model on the device, in channels_last."""
        return channels_last(copy.deepcopy(self.paper_model).to(self.placement.device, dtype))

    @property
    def paper_model(self) -> STDNet:
        """The model, which must be an STDNet.

        Raises:
            ConfigError: it is a recurrent network.
        """
        if not isinstance(self.model, STDNet):
            raise ConfigError(f"{self.name} is a recurrent network, whose modes are frame and openvino")
        return self.model

    @property
    def scene(self) -> MovingScene:
        """The frames to run it on."""
        return MovingScene(self.height, self.width, self.scale, self.placement.device)


def measure(
    case: Case,
    mode: str,
    frames: int,
    peak: float,
    *,
    compiled: bool = False,
    cuda_graph: bool = False,
    threads: int | None = None,
) -> Measurement:
    """Time one mode of one case.

    Args:
        peak: GFLOP/s that ``peak_share`` refers to.
        compiled, cuda_graph: how to run the stream.
        threads: CPU threads for ONNX Runtime.
    """
    config = case.model.config
    runner: dict[str, Callable[[], Timed]] = {
        "naive": lambda: _naive(case),
        "offline": lambda: _offline(case),
        "frame": lambda: _frame(case, "torch"),
        "openvino": lambda: _frame(case, "openvino"),
        "onnx": lambda: _onnx(case, threads),
    }
    if mode in runner:
        step, warm_up, calls, per_step, stream = runner[mode]()
        engine = {"onnx": "onnxruntime", "openvino": "openvino"}.get(mode, "eager")
    else:
        latency = int(mode.removeprefix("latency"))
        step, warm_up, calls, per_step, stream = _stream(case, latency, compiled, cuda_graph)
        engine = " ".join(["compiled"] * compiled + ["cuda-graph"] * cuda_graph) or "eager"
    clock = Clock(case.placement.device)
    slow = mode in ("naive", "offline")
    times = clock.times(step, warm_up, max(2, frames // 8) if slow else frames)
    times = [t / per_step for t in times]
    peak_mb = clock.peak_mb()
    gflop = None
    if engine == "eager":
        gflop = _gflop(step) / per_step
    median = float(np.median(times))
    return Measurement(
        model=case.name,
        size=f"{case.width}x{case.height}",
        scale=case.scale,
        device=str(case.placement.device),
        precision="fp32" if mode in FLOAT32_MODES else case.placement.precision,
        mode=_names(config).get(mode, mode),
        engine=engine,
        frames=int(len(times) * per_step),
        median_ms=median,
        p95_ms=float(np.percentile(times, 95)),
        p99_ms=float(np.percentile(times, 99)),
        frames_per_s=1e3 / median,
        calls=calls,
        gflop=gflop,
        peak_share=None if gflop is None else gflop / median * 1e3 / peak,
        state_mb=0.0 if stream is None else stream.state_bytes() / 1e6,
        peak_mb=peak_mb,
    )


def _names(config: ModelConfig | RecurrentConfig) -> dict[str, str]:
    """Modes that the table calls something else."""
    return {"openvino": "frame", **({"latency0": "causal"} if config.causal else {})}


def _frame(case: Case, backend: str) -> Timed:
    placement = case.placement
    precision = placement.precision if backend == "torch" else "fp32"
    upsampler = DepthUpsampler.from_model(
        case.model, case.info, method="stdnet", device=str(placement.device), precision=precision, backend=backend
    )
    scene = case.scene

    def arrays(t: int) -> tuple[np.ndarray, np.ndarray]:
        rgb, depth = scene[t]
        colour = (rgb[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        return colour, (_SCENE_M * depth[0, 0]).cpu().numpy()

    frames = [arrays(t) for t in range(_FRAMES_KEPT)]
    return lambda t: upsampler.step(*frames[t % _FRAMES_KEPT]), 5, 0, 1.0, None


def _stream(case: Case, latency: int, compiled: bool, cuda_graph: bool) -> Timed:
    model = case.placed(case.placement.dtype)
    if compiled or cuda_graph:
        stream: Any = FixedStreamingSTDNet(model, latency, compiled=compiled, cuda_graph=cuda_graph)
    else:
        stream = StreamingSTDNet(model, latency)
    scene = case.scene
    plan = Schedule.of(model.config, latency).steady
    warm_up = max(3, 1 - min(value.frame for value in plan.reads()))
    return lambda t: stream.step(*scene[t]), warm_up, plan.module_calls, 1.0, stream


def _naive(case: Case) -> Timed:
    model = case.paper_model.to(case.placement.device)
    before, after = naive_window(model.config)
    scene = case.scene

    def step(t: int) -> None:
        window = [scene[t + i] for i in range(before + after + 1)]
        naive_depth(model, torch.cat([f[0] for f in window]), torch.cat([f[1] for f in window]))

    return step, 1, naive_calls(model.config), 1.0, None


def _offline(case: Case) -> Timed:
    model = case.placed(case.placement.dtype)
    stream = StreamingSTDNet(model, whole_clip_latency(model.config))
    scene = case.scene

    def step(_: int) -> None:
        for t in range(_OFFLINE_FRAMES):
            stream.step(*scene[t])
        stream.flush()

    calls = Schedule.of(model.config, stream.latency).steady.module_calls
    return step, 1, calls, float(_OFFLINE_FRAMES), None


def _onnx(case: Case, threads: int | None) -> Timed:
    import tempfile

    from stdnet_core.export.streaming import ExportSize, export_onnx
    from stdnet_core.inference.onnx_engine import OnnxEngine

    require("onnxruntime", extra="export")
    model = case.paper_model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, case.info, path, ExportSize(case.height, case.width, case.scale))
        engine = OnnxEngine(path, threads=threads)
    scene = case.scene

    def step(t: int) -> None:
        rgb, depth = scene[t]
        engine.step(rgb[0].permute(1, 2, 0).cpu().numpy(), depth[0, 0].cpu().numpy())

    return step, 3, Schedule.of(model.config, 0).steady.module_calls, 1.0, engine


def relative_error(case: Case, frames: int = 4) -> float:
    """RMS difference between the case's precision and float32, relative to the RMS residual over bilinear depth."""
    outputs = []
    for dtype in (torch.float32, case.placement.dtype):
        stream = StreamingSTDNet(case.placed(dtype))
        last = [stream.step(*case.scene[t]) for t in range(frames)][-1]
        assert last is not None
        outputs.append(last.depth)
    low = LowResolutionDepth(case.scene[frames - 1][1], case.scale)
    residual = outputs[0] - low.bilinear_base()
    return float((outputs[1] - outputs[0]).square().mean().sqrt() / residual.square().mean().sqrt())


def machine() -> dict[str, Any]:
    """The machine and the versions with which the numbers were measured."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "processor": processor,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "stdnet": __version__,
    }
