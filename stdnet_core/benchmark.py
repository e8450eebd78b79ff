"""Measures speed: ``python -m stdnet_core.benchmark --presets live,tiny_causal --baseline tiny_causal``.

Each line is one way to run one model at one size: all of a frame as a user has it ("frame": DepthUpsampler with optical
flow, masks and confidence; of the recurrent network this alone is measured), the stream at a latency, the network on a
whole clip ("offline"), the exported stream in ONNX Runtime, and the naive way, against which the ratios are: for every
new frame the plain float32 network on the whole window that the frame's result depends on (17 frames for the paper's
network), one frame and one neighbour at a time. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stdnet_core import __version__, checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.cli import positive_int, require, run_cli
from stdnet_core.errors import ConfigError
from stdnet_core.inference import DepthUpsampler
from stdnet_core.inference.devices import PRECISIONS, Placement, place
from stdnet_core.model import PRESETS, ModelConfig, RecurrentConfig, RecurrentNet, STDNet, build
from stdnet_core.model.low_resolution import LowResolutionDepth
from stdnet_core.model.stage import Stage, blend
from stdnet_core.streaming import Schedule, StreamingSTDNet, whole_clip_latency
from stdnet_core.streaming.fixed_step import FixedStep
from stdnet_core.streaming.fixed_stream import FixedStreamingSTDNet
from stdnet_core.streaming.schedule import MAX_LATENCY

MODES = ("frame", "naive", "offline", "latency8", "latency4", "latency0", "onnx")
_OFFLINE_FRAMES = 24
_FRAMES_KEPT = 8
_SCENE_M = 5.0  # metres to one of the scene's normalised depth
_PEAK_SIZES = {"cpu": 1536, "cuda": 8192}
_LONG_PRODUCT_MS = 100.0


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Attributes:
        model: preset or checkpoint.
        mode: one of MODES; "frame" is everything that DepthUpsampler does; a causal network's streams wait for nothing
            ("latency0").
        engine: "eager", "compiled", "cuda-graph", "compiled cuda-graph" or "onnxruntime".
        frames: frames measured.
        median_ms, p95_ms, p99_ms: time for a frame.
        frames_per_s: 1 / median.
        calls: calls of the temporal difference modules for a frame.
        gflop: multiplications and additions of convolutions and matrix products for a frame, /1e9; of a compiled stream
            or a graph: those of the eager stream at the same latency, where that was measured before.
        peak_share: gflop / median, as a share of the measured speed of a large matrix product of the same type.
        state_mb: memory of the stream's state.
        peak_mb: largest memory of the process (CPU) or allocated on the device (CUDA) while measuring.
        speedup: naive median / median; None where the naive way was not measured.
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
    """Frames that resemble a camera's: smooth depth with an edge, texture that moves a pixel a frame.

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


# --- the naive way ----------------------------------------------------------------------------------------------------


def naive_window(config: ModelConfig) -> tuple[int, int]:
    """Frames before and after a frame that its whole-clip result depends on."""
    reach = config.stages * config.neighbors
    return reach * config.passes.count("forward"), reach * config.passes.count("backward")


def naive_calls(config: ModelConfig) -> int:
    """Calls of the temporal difference modules that the whole window takes."""
    frames = sum(naive_window(config)) + 1
    in_a_pass = sum(max(0, frames - k) for k in range(1, config.neighbors + 1))
    return config.stages * len(config.passes) * in_a_pass


@torch.inference_mode()
def naive_depth(model: STDNet, rgb: Tensor, depth_lr: Tensor) -> Tensor:
    """The network on a window as a straightforward port runs it: passes frame by frame, neighbour by neighbour.

    Args:
        rgb: (T, 3, H, W), H and W multiples of the scale.
        depth_lr: (T, 1, h, w).

    Returns:
        (T, 1, H, W).
    """
    scale = rgb.shape[-1] // depth_lr.shape[-1]
    low_resolution = LowResolutionDepth(depth_lr, scale, rgb)
    guide, fused, predictions = rgb, None, []
    for stage in model.stages:
        rgb_features = stage.guide_encoder(guide)
        depth_features = stage.depth_encoder(low_resolution.features(stage.config.depth_features))
        spatial = stage.spatial(depth_features, rgb_features)
        trunk = stage.trunk(spatial.fused if fused is None else torch.cat((spatial.fused, fused), 1))
        levels = [trunk]
        for index in range(len(stage.config.passes)):
            levels.append(_naive_pass(stage, index, levels[-1], trunk, rgb_features, spatial.weight))
        fused = stage.reconstruction(torch.cat(levels, 1))
        predictions.append(stage.predict(fused, low_resolution))
        guide = torch.cat(predictions[-1][:2], 1)
    return blend(tuple(predictions))[0]


def _naive_pass(stage: Stage, index: int, source: Tensor, trunk: Tensor, rgb: Tensor, weight: Tensor) -> Tensor:
    step = -1 if stage.config.passes[index] == "forward" else 1
    outputs = []
    for t in range(len(source)):
        total = None
        for distance in range(1, stage.config.neighbors + 1):
            n = t + step * distance
            if 0 <= n < len(source):
                difference = (trunk[t : t + 1] - trunk[n : n + 1]).abs()
                refined = stage.temporal[index](
                    source[t : t + 1], source[n : n + 1], difference, rgb[n : n + 1], weight[t : t + 1]
                )
                total = refined if total is None else total + refined
        outputs.append(source[t : t + 1] if total is None else total)
    return torch.cat(outputs)


# --- measuring --------------------------------------------------------------------------------------------------------


class Clock:
    """Times single steps, waiting for the device, and the peak of memory meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def times(self, step: Callable[[int], Any], warm_up: int, frames: int) -> list[float]:
        """Milliseconds of each of ``frames`` steps after ``warm_up`` others."""
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
        """Peak since the measurement began."""
        if self._cuda:
            return torch.cuda.max_memory_allocated() / 1e6
        try:
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
        except (OSError, IndexError):
            return float("nan")


def matrix_product_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measured GFLOP/s of a large square matrix product; on CUDA in float32 with TF32 where convolutions take it."""
    best = 0.0
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        for size in (_PEAK_SIZES[device.type] // n for n in (8, 4, 2, 1)):
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            shortest = min(Clock(device).times(lambda _, a=a, b=b: torch.mm(a, b), 2, 5))
            best = max(best, 2 * size**3 / shortest / 1e6)
            if shortest > _LONG_PRODUCT_MS:  # a type that this CPU only emulates: larger ones would take minutes
                break
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return best


def _gflop(step: Callable[[int], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        step(0)
    return counter.get_total_flops() / 1e9


@dataclass(frozen=True)
class Case:
    """What is measured: a model at a size, on a device, in a precision."""

    name: str
    model: STDNet | RecurrentNet
    info: CheckpointInfo
    height: int
    width: int
    scale: int
    placement: Placement

    def placed(self, dtype: torch.dtype) -> STDNet:
        """A copy of the model where it runs, in channels_last."""
        return copy.deepcopy(self.model).to(self.placement.device, dtype, memory_format=torch.channels_last)

    @property
    def scene(self) -> MovingScene:
        """Its frames."""
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
        peak: GFLOP/s to relate the speed to.
        compiled, cuda_graph: run the stream so.
        threads: CPU threads for ONNX Runtime.
    """
    config = case.model.config
    runner: dict[str, Callable[[], tuple[Callable[[int], Any], int, int, float, Any]]] = {
        "naive": lambda: _naive(case),
        "offline": lambda: _offline(case),
        "frame": lambda: _frame(case),
        "onnx": lambda: _onnx(case, threads),
    }
    if mode in runner:
        step, warm_up, calls, per_step, stream = runner[mode]()
        engine = "onnxruntime" if mode == "onnx" else "eager"
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
        precision="fp32" if mode in ("naive", "onnx") else case.placement.precision,
        mode="causal" if config.causal and mode == "latency0" else mode,
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


def _frame(case: Case) -> tuple:
    placement = case.placement
    upsampler = DepthUpsampler.from_model(
        case.model, case.info, method="stdnet", device=str(placement.device), precision=placement.precision
    )
    scene = case.scene

    def arrays(t: int) -> tuple[np.ndarray, np.ndarray]:
        rgb, depth = scene[t]
        colour = (rgb[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        return colour, (_SCENE_M * depth[0, 0]).cpu().numpy()

    frames = [arrays(t) for t in range(_FRAMES_KEPT)]
    return lambda t: upsampler.step(*frames[t % _FRAMES_KEPT]), 5, 0, 1.0, None


def _stream(case: Case, latency: int, compiled: bool, cuda_graph: bool) -> tuple:
    model = case.placed(case.placement.dtype)
    if compiled or cuda_graph:
        stream: Any = FixedStreamingSTDNet(model, latency, compiled=compiled, cuda_graph=cuda_graph)
    else:
        stream = StreamingSTDNet(model, latency)
    scene = case.scene
    plan = Schedule.of(model.config, latency).steady
    warm_up = max(3, 1 - min(value.frame for value in plan.reads()))
    return lambda t: stream.step(*scene[t]), warm_up, plan.module_calls, 1.0, stream


def _naive(case: Case) -> tuple:
    before, after = naive_window(case.model.config)
    model = case.model.to(case.placement.device)
    scene = case.scene

    def step(t: int) -> None:
        window = [scene[t + i] for i in range(before + after + 1)]
        naive_depth(model, torch.cat([f[0] for f in window]), torch.cat([f[1] for f in window]))

    return step, 1, naive_calls(case.model.config), 1.0, None


def _offline(case: Case) -> tuple:
    model = case.placed(case.placement.dtype)
    stream = StreamingSTDNet(model, whole_clip_latency(model.config))
    scene = case.scene

    def step(_: int) -> None:
        for t in range(_OFFLINE_FRAMES):
            stream.step(*scene[t])
        stream.flush()

    calls = Schedule.of(model.config, stream.latency).steady.module_calls
    return step, 1, calls, float(_OFFLINE_FRAMES), None


def _onnx(case: Case, threads: int | None) -> tuple:
    import tempfile

    from stdnet_core.export.streaming import ExportSize, export_onnx
    from stdnet_core.inference.onnx_engine import OnnxEngine

    require("onnxruntime", extra="export")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(case.model, case.info, path, ExportSize(case.height, case.width, case.scale))
        engine = OnnxEngine(path, threads=threads)
    scene = case.scene

    def step(t: int) -> None:
        rgb, depth = scene[t]
        engine.step(rgb[0].permute(1, 2, 0).cpu().numpy(), depth[0, 0].cpu().numpy())

    return step, 3, Schedule.of(case.model.config, 0).steady.module_calls, 1.0, engine


def relative_error(case: Case, frames: int = 4) -> float:
    """RMS difference of the case's precision to float32, as a share of the RMS residual over bilinear interpolation."""
    outputs = []
    for dtype in (torch.float32, case.placement.dtype):
        stream = StreamingSTDNet(case.placed(dtype))
        outputs.append([stream.step(*case.scene[t]).depth for t in range(frames)][-1])
    low = LowResolutionDepth(case.scene[frames - 1][1], case.scale)
    residual = outputs[0] - low.bilinear_base()
    return float((outputs[1] - outputs[0]).square().mean().sqrt() / residual.square().mean().sqrt())


# --- command line -----------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
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


def table(rows: list[Measurement]) -> str:
    """The measurements as a Markdown table."""
    header = (
        "| model | size | device | precision | mode | ms: median | p95 | p99 | frames/s | calls | GFLOP | % of peak | "
        "state MB | peak MB | times naive |"
    )
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    for r in rows:
        mode = r.mode if r.engine in ("eager", "onnxruntime") else f"{r.mode} {r.engine}"
        cells = [
            r.model,
            f"{r.size} x{r.scale}",
            r.device,
            r.precision,
            mode,
            f"{r.median_ms:.1f}",
            f"{r.p95_ms:.1f}",
            f"{r.p99_ms:.1f}",
            f"{r.frames_per_s:.2f}",
            str(r.calls),
            "" if r.gflop is None else f"{r.gflop:.1f}",
            "" if r.peak_share is None else f"{100 * r.peak_share:.0f}",
            f"{r.state_mb:.1f}",
            f"{r.peak_mb:.0f}",
            "" if r.speedup is None else f"{r.speedup:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def state_table(args: argparse.Namespace) -> str:
    """Memory of a stream's state (MB) for each preset and size at latencies 0 to 8, in float32 and half precision."""
    lines = ["| model | size | precision | " + " | ".join(str(n) for n in range(MAX_LATENCY + 1)) + " |"]
    lines.append("|" + "---|" * (MAX_LATENCY + 4))
    for name in args.presets:
        config = ModelConfig.preset(name)
        if isinstance(config, RecurrentConfig):
            continue  # its state is one frame's
        with torch.device("meta"):
            model = STDNet(config)
        for width, height in args.sizes:
            shapes = (1, 3, height, width), (1, 1, height // args.scale, width // args.scale)
            for precision, dtype in (("fp32", torch.float32), ("half", torch.bfloat16)):
                latencies = range(1 if model.config.causal else MAX_LATENCY + 1)
                steps = [FixedStep(model.to(dtype), latency, *shapes) for latency in latencies]
                cells = [f"{sum(t.bytes for t in step.layout) / 1e6:.1f}" for step in steps]
                cells += [""] * (MAX_LATENCY + 1 - len(cells))
                lines.append(f"| {name} | {width}x{height} | {precision} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_operations(rows: list[Measurement], peaks: dict[tuple[str, str], float]) -> list[Measurement]:
    """Rows of compiled streams and graphs with the operations of the eager stream at the same latency.

    Args:
        peaks: GFLOP/s by device and precision.
    """

    def key(r: Measurement) -> tuple:
        return r.model, r.size, r.scale, r.device, r.precision, r.mode

    counted = {key(r): r.gflop for r in rows if r.engine == "eager"}
    result = []
    for r in rows:
        gflop = counted.get(key(r))
        if r.gflop is None and gflop is not None:
            r = dataclasses.replace(r, gflop=gflop, peak_share=gflop / r.median_ms * 1e3 / peaks[r.device, r.precision])
        result.append(r)
    return result


def with_speedups(rows: list[Measurement]) -> list[Measurement]:
    """Rows with their ratio to the naive way for the same model, size and device."""
    naive = {(r.model, r.size, r.scale, r.device): r.median_ms for r in rows if r.mode == "naive"}
    result = []
    for r in rows:
        reference = naive.get((r.model, r.size, r.scale, r.device))
        speedup = None if reference is None else reference / r.median_ms
        result.append(Measurement(**{**asdict(r), "speedup": speedup}))
    return result


def speed_ratios(rows: list[Measurement], baseline: str | None) -> list[str]:
    """How many times as fast as a model each other one is, at the same size and precision and in the same mode."""
    found = {(r.size, r.scale, r.device, r.mode, r.precision): r.median_ms for r in rows if r.model == baseline}
    lines = []
    for r in rows:
        reference = found.get((r.size, r.scale, r.device, r.mode, r.precision))
        if reference is not None and r.model != baseline:
            ratio = reference / r.median_ms
            lines.append(
                f"{r.model} {r.size} x{r.scale} {r.precision} {r.mode}: {ratio:.1f} times as fast as {baseline}"
            )
    return lines


def draw(rows: list[Measurement], path: Path, title: str) -> None:
    """Bars of milliseconds a frame on a logarithmic axis, with the 95th percentile as a mark."""
    require("matplotlib", extra="report")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.32 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = [f"{r.model} {r.size} {r.device} {r.precision} {r.mode} {r.engine}" for r in rows]
    axes.barh(range(len(rows)), [r.median_ms for r in rows], color="#4477aa")
    axes.plot([r.p95_ms for r in rows], range(len(rows)), "|", color="#222222", markersize=9, label="95th percentile")
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms per frame")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in .png nor in .svg nor in .pdf")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; ``arguments`` default to those of the process. The status: 1 if a line failed."""
    args = _parser().parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.state:
        print(state_table(args))
        return 0
    tqdm = require("tqdm", extra="report").tqdm
    jobs = list(_jobs(args))
    if not jobs:
        raise ConfigError(_nothing(args))
    rows: list[Measurement] = []
    errors: dict[str, float] = {}
    failed: dict[str, str] = {}
    peaks: dict[tuple[str, str], float] = {}
    about = machine()
    naive_done = set()
    with tqdm(jobs, unit="line", disable=args.quiet) as progress:
        for case, mode, options in progress:
            progress.set_description(f"{case.name} {case.width}x{case.height} {case.placement.precision} {mode}")
            key = (case.name, case.width, case.height, str(case.placement.device), mode)
            if mode in ("naive", "onnx"):
                if key in naive_done:
                    continue
                naive_done.add(key)
            precision = "fp32" if mode in ("naive", "onnx") else case.placement.precision
            kind = (str(case.placement.device), precision)
            name = f"{case.name} {case.placement.device} {case.placement.precision}"
            try:
                if kind not in peaks:
                    peaks[kind] = matrix_product_peak(case.placement.device, PRECISIONS[precision])
                rows.append(measure(case, mode, args.frames, peaks[kind], threads=args.threads, **options))
                if case.placement.dtype != torch.float32 and name not in errors and not case.info.recurrent:
                    errors[name] = relative_error(case)
            except Exception as error:
                if not args.keep_going:
                    raise
                line = " ".join([name, mode, *options])
                failed[line] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                tqdm.write(f"failed: {line}: {failed[line]}")
            rows = with_speedups(with_operations(rows, peaks))
            if args.json:
                _write(args.json, about, peaks, errors, failed, rows)
    print(f"{about['processor']}, {about['threads']} threads, GPU {about['gpu']}, torch {about['torch']}")
    for (device, precision), peak in peaks.items():
        print(f"matrix product on {device} in {precision}: {peak:.0f} GFLOP/s")
    print(table(rows))
    for line in speed_ratios(rows, args.baseline):
        print(line)
    for name, error in errors.items():
        print(f"{name}: differs from float32 by {error:.2e} of the residual over bilinear interpolation (RMS)")
    if args.plot:
        draw(rows, args.plot, f"{about['processor']}, {about['threads']} threads, GPU {about['gpu']}")
    return 1 if failed else 0


def _write(
    path: Path,
    about: dict[str, Any],
    peaks: dict[tuple[str, str], float],
    errors: dict[str, float],
    failed: dict[str, str],
    rows: list[Measurement],
) -> None:
    """All figures so far, as JSON."""
    content = {
        "machine": about,
        "peaks_gflops": {f"{device} {precision}": peak for (device, precision), peak in peaks.items()},
        "relative_errors": errors,
        "failed": failed,
        "measurements": [asdict(r) for r in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _nothing(args: argparse.Namespace) -> str:
    """Why there is nothing to measure."""
    if not args.presets and not args.checkpoints:
        return "no network to measure; give --presets or --checkpoints"
    return (
        f"nothing to measure: a causal network has no mode {', '.join(args.modes)}; its modes are frame, naive, "
        "latency0 and onnx"
    )


def _jobs(args: argparse.Namespace) -> Iterator[tuple[Case, str, dict[str, bool]]]:
    models: list[tuple[str, STDNet, CheckpointInfo]] = []
    for name in args.presets:
        torch.manual_seed(0)
        model = build(ModelConfig.preset(name)).eval()
        scales = () if isinstance(model, RecurrentNet) else (args.scale,)
        models.append((name, model, CheckpointInfo(model.config, scales, None, name=name)))
    for path in args.checkpoints:
        model, info = checkpoints.load(path)
        models.append((info.name, model, info))
    for device in args.devices:
        for name, model, info in models:
            for width, height in args.sizes:
                if width % args.scale or height % args.scale:
                    raise ConfigError(
                        f"size {width}x{height} is no multiple of the scale {args.scale}; give one that is"
                    )
                for precision in args.precisions:
                    placement = place(device, precision)
                    if placement.fallback:
                        raise ConfigError(f"{placement.reason}; benchmark a device and precision that are there")
                    case = Case(name, model, info, height, width, args.scale, placement)
                    if info.recurrent:
                        yield case, "frame", {}
                        continue
                    for mode in args.modes:
                        if mode.startswith("latency") and mode != "latency0" and model.config.causal:
                            continue
                        if mode == "offline" and model.config.causal:
                            continue
                        yield case, mode, {}
                        if mode.startswith("latency") and args.compile:
                            yield case, mode, {"compiled": True}
                        if mode.startswith("latency") and args.cuda_graphs and placement.device.type == "cuda":
                            yield case, mode, {"compiled": args.compile, "cuda_graph": True}


def _list(text: str) -> list[str]:
    return [item for item in text.split(",") if item]


def _choices(*known: str) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        unknown = [item for item in _list(text) if item not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not among {', '.join(known)}")
        return _list(text)

    return parse


def _sizes(text: str) -> list[tuple[int, int]]:
    try:
        return [(int(w), int(h)) for w, h in (item.lower().split("x") for item in _list(text))]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of WIDTHxHEIGHT") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.benchmark",
        description="Measure the time for a frame. Lists are separated by commas.",
    )
    parser.add_argument("--presets", type=_choices(*PRESETS), default=["live"], help=", ".join(PRESETS))
    parser.add_argument("--checkpoints", type=_list, default=[], help="files or names of shipped checkpoints")
    parser.add_argument("--sizes", type=_sizes, default=[(320, 240)], help="of colour (default: 320x240)")
    parser.add_argument("--scale", type=int, default=8, help="upsampling factor (default: 8)")
    parser.add_argument("--devices", type=_list, default=["auto"], help="auto, cpu, cuda, cuda:N (default: auto)")
    parser.add_argument("--precisions", type=_choices(*PRECISIONS), default=["fp32"], help=", ".join(PRECISIONS))
    parser.add_argument("--modes", type=_choices(*MODES), default=["frame"], help=", ".join(MODES))
    parser.add_argument("--baseline", help="also say how many times as fast as this model the others are")
    parser.add_argument("--frames", type=positive_int, default=40, help="frames to measure in each line (default: 40)")
    parser.add_argument("--threads", type=positive_int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--compile", action="store_true", help="also measure streams through torch.compile")
    parser.add_argument("--cuda-graphs", action="store_true", help="also measure streams as CUDA graphs")
    parser.add_argument("--state", action="store_true", help="only print the memory of the streams' states")
    parser.add_argument("--keep-going", action="store_true", help="note a line that fails and measure the next")
    parser.add_argument("--json", type=Path, help="write all figures here, after each line anew")
    parser.add_argument("--plot", type=_picture, help="write a picture here (.png, .svg, .pdf)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    run_cli(main)
