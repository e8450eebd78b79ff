"""Summaries of measurements: speedups over the naive mode and a baseline, shares of the peak, a table and a picture."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import asdict
from pathlib import Path

import torch

from stdnet_core.benchmark.measure import Measurement
from stdnet_core.cli import require
from stdnet_core.model import ModelConfig, RecurrentConfig, STDNet
from stdnet_core.streaming.fixed_step import FixedStep
from stdnet_core.streaming.schedule import MAX_LATENCY


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
            continue  # its state does not depend on a latency
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
    """Add the operations of the eager stream at the same latency to rows of compiled streams and CUDA graphs.

    Args:
        peaks: GFLOP/s by device and precision.
    """

    def key(r: Measurement) -> tuple[object, ...]:
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
    """Add the speedup over the naive mode of the same model, size and device to the rows."""
    naive = {(r.model, r.size, r.scale, r.device): r.median_ms for r in rows if r.mode == "naive"}
    result = []
    for r in rows:
        reference = naive.get((r.model, r.size, r.scale, r.device))
        speedup = None if reference is None else reference / r.median_ms
        result.append(Measurement(**{**asdict(r), "speedup": speedup}))
    return result


def speed_ratios(rows: list[Measurement], baseline: str | None) -> list[str]:
    """Lines that compare each model's speed with the baseline's, and OpenVINO's with PyTorch's, at the same size,
    precision and mode."""

    def key(r: Measurement) -> tuple[object, ...]:
        return r.size, r.scale, r.device, r.mode, r.precision

    eager = {(r.model, *key(r)): r.median_ms for r in rows if r.engine == "eager"}
    lines = []
    for r in rows:
        name = f"{r.model} {r.size} x{r.scale} {r.precision} {r.mode}"
        compared = [(baseline, baseline)] if r.model != baseline else []
        if r.engine == "openvino":
            name += " with OpenVINO"
            compared.append((r.model, "with PyTorch"))
        for model, called in compared:
            reference = eager.get((model, *key(r)))
            if reference is not None:
                lines.append(f"{name}: {reference / r.median_ms:.1f} times as fast as {called}")
    return lines


def draw(rows: list[Measurement], path: Path, title: str) -> None:
    """Draw bars of milliseconds per frame on a logarithmic axis, with a mark at the 95th percentile."""
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
