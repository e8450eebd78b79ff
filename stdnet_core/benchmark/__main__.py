"""Measures speed: ``python -m stdnet_core.benchmark --presets live,tiny_causal --baseline tiny_causal``.

Each line is one mode of one model at one size:

    frame      everything for a frame: DepthUpsampler with optical flow, masks and confidence
    openvino   the same, with OpenVINO in place of PyTorch; of the recurrent network, which has only these two modes
    latencyN   the stream at latency N
    offline    the network on a whole clip
    onnx       the exported stream in ONNX Runtime
    naive      the reference for the speedups: for every new frame, the plain float32 network on the whole window that
               the frame's result depends on (17 frames for the paper's network), one frame and one neighbour at a time

See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stdnet_core import checkpoints
from stdnet_core.benchmark.measure import (
    FLOAT32_MODES,
    Case,
    Measurement,
    machine,
    matrix_product_peak,
    measure,
    relative_error,
)
from stdnet_core.benchmark.tables import draw, speed_ratios, state_table, table, with_operations, with_speedups
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.cli import positive_int, require, run_cli
from stdnet_core.errors import ConfigError
from stdnet_core.inference.devices import PRECISIONS, place
from stdnet_core.model import PRESETS, ModelConfig, RecurrentNet, STDNet, build

MODES = ("frame", "openvino", "naive", "offline", "latency8", "latency4", "latency0", "onnx")
_RECURRENT_MODES = ("frame", "openvino")


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in .png nor in .svg nor in .pdf")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; ``arguments`` default to those of the process. Returns 1 if a line failed."""
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
    done_once = set()
    with tqdm(jobs, unit="line", disable=args.quiet) as progress:
        for case, mode, options in progress:
            progress.set_description(f"{case.name} {case.width}x{case.height} {case.placement.precision} {mode}")
            key = (case.name, case.width, case.height, str(case.placement.device), mode)
            if mode in FLOAT32_MODES:
                if key in done_once:
                    continue
                done_once.add(key)
            precision = "fp32" if mode in FLOAT32_MODES else case.placement.precision
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
    for name, share in errors.items():
        print(f"{name}: differs from float32 by {share:.2e} of the residual over bilinear interpolation (RMS)")
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
        f"nothing to measure: no network here has mode {', '.join(args.modes)}; all have frame, recurrent ones "
        "openvino, others naive, latency0 and onnx, and those that are not causal also offline and longer latencies"
    )


def _jobs(args: argparse.Namespace) -> Iterator[tuple[Case, str, dict[str, bool]]]:
    models: list[tuple[str, STDNet | RecurrentNet, CheckpointInfo]] = []
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
                        f"size {width}x{height} is not a multiple of the scale {args.scale}; give one that is"
                    )
                for precision in args.precisions:
                    placement = place(device, precision)
                    if placement.fallback:
                        raise ConfigError(f"{placement.reason}; choose an available device and precision")
                    case = Case(name, model, info, height, width, args.scale, placement)
                    if info.recurrent:
                        for mode in [m for m in args.modes if m in _RECURRENT_MODES] or ["frame"]:
                            yield case, mode, {}
                        continue
                    for mode in args.modes:
                        if mode == "openvino":
                            continue
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
        description="Measure the time per frame. Lists are separated by commas.",
    )
    parser.add_argument("--presets", type=_choices(*PRESETS), default=["live"], help=", ".join(PRESETS))
    parser.add_argument("--checkpoints", type=_list, default=[], help="files or names of shipped checkpoints")
    parser.add_argument("--sizes", type=_sizes, default=[(320, 240)], help="of colour (default: 320x240)")
    parser.add_argument("--scale", type=int, default=8, help="upsampling factor (default: 8)")
    parser.add_argument("--devices", type=_list, default=["auto"], help="auto, cpu, cuda, cuda:N (default: auto)")
    parser.add_argument("--precisions", type=_choices(*PRECISIONS), default=["fp32"], help=", ".join(PRECISIONS))
    parser.add_argument("--modes", type=_choices(*MODES), default=["frame"], help=", ".join(MODES))
    parser.add_argument("--baseline", help="model with which to compare the speed of the others")
    parser.add_argument("--frames", type=positive_int, default=40, help="frames to measure per line (default: 40)")
    parser.add_argument("--threads", type=positive_int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--compile", action="store_true", help="also measure streams with torch.compile")
    parser.add_argument("--cuda-graphs", action="store_true", help="also measure streams as CUDA graphs")
    parser.add_argument("--state", action="store_true", help="only print the memory of the streams' states")
    parser.add_argument("--keep-going", action="store_true", help="report a line that fails and continue with the next")
    parser.add_argument("--json", type=Path, help="write all figures to this file, updated after each line")
    parser.add_argument("--plot", type=_picture, help="write a picture to this file (.png, .svg, .pdf)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    run_cli(main)
