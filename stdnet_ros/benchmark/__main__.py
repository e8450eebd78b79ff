"""Measures the node over real ROS 2 transport: its own overhead, and the age of its output under overload.

Overhead: the node with an upsampler that does nothing, at 640x480 and 30 Hz, without and with a coloured cloud. The
baseline is a minimal rclpy relay with the same traffic. Overload: the real method with twice as many frames as it can
process; the age of the output must stay low. Writes benchmark.json and PNG plots; see docs/node_benchmarks.md."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

import numpy as np

from stdnet_core import __version__
from stdnet_core.cli import require, run_cli
from stdnet_core.errors import ConfigError, StdnetError
from stdnet_ros.benchmark import plots
from stdnet_ros.benchmark.session import Case, machine, run
from stdnet_ros.benchmark.statistics import growth, unbalanced

CASES = ("overhead", "overload")
TARGETS_MS = {"overhead p50": 3.0, "overhead p99": 10.0, "overhead with points p50": 8.0}
_CALIBRATION_HZ = 30.0
_CALIBRATION_SECONDS = 10.0
_COMPILING_SECONDS = 30.0
"""Added to the calibration, and not counted at the start, if a backend compiles the network beside the stream."""
_GROWTH = 0.25
"""Most that the age may grow from the first to the last fifth of the run, as a share of an inference time."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    cli = argparse.ArgumentParser(prog="python -m stdnet_ros.benchmark", description=__doc__)
    cli.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="what to measure (default both)")
    cli.add_argument("--output", type=Path, default=Path("benchmark_output"), help="folder for the results")
    cli.add_argument("--seconds", type=float, default=60.0, help="overhead: length of each measurement (default 60)")
    cli.add_argument("--minutes", type=float, default=5.0, help="overload: length of the measurement (default 5)")
    cli.add_argument("--rate", type=float, default=30.0, help="overhead: frames per second (default 30)")
    cli.add_argument("--width", type=int, default=640, help="width of the colour image (default 640)")
    cli.add_argument("--height", type=int, default=480, help="height of the colour image (default 480)")
    cli.add_argument("--scale", type=int, default=8, help="overload: colour height / depth height (default 8)")
    cli.add_argument("--method", default="auto", help="overload: the node's parameter method (default auto)")
    cli.add_argument("--model", default="auto", help="overload: the node's parameter model (default auto)")
    cli.add_argument("--backend", default="auto", help="overload: the node's parameter backend (default auto)")
    return cli


def overhead(args: argparse.Namespace, logs: Path) -> dict:
    """Measure the baseline, the node with an upsampler that does nothing, and the same node with a cloud."""
    common = {"rate": args.rate, "seconds": args.seconds, "size": (args.width, args.height)}
    common["warm_up"] = min(2.0, args.seconds / 4)
    bare = "stdnet_ros.benchmark.bare_node"
    results = []
    for case in (
        Case("relay", "stdnet_ros.benchmark.relay", **common),
        Case("node", bare, **common),
        Case("node with points", bare, points=True, **common),
    ):
        results.append(run(case, logs))
        print(_line(results[-1]), flush=True)
    relay, node, points = results
    for result in (node, points):
        result["ratio_to_relay"] = {
            p: result["latency_ms"]["depth"][p] / relay["latency_ms"]["depth"][p] for p in ("p50", "p99")
        }
        ratio = result["ratio_to_relay"]
        print(
            f"{result['name']:17} stamp to receive, relative to the relay: p50 {ratio['p50']:.2f}  "
            f"p99 {ratio['p99']:.2f}"
        )
    return {"relay": relay, "node": node, "points": points, "targets": _overhead_targets(node, points)}


def _overhead_targets(node: dict, points: dict) -> dict[str, dict]:
    """Targets for the time in the node, including the upsampler that does nothing (see docs/node_benchmarks.md)."""
    for result in (node, points):
        if not result["in_node_ms"]:
            raise StdnetError(f"the {result['name']} published nothing; see its log")
    measured = {
        "overhead p50": node["in_node_ms"]["p50"],
        "overhead p99": node["in_node_ms"]["p99"],
        "overhead with points p50": points["in_node_ms"]["p50"],
    }
    targets = {name: {"measured": measured[name], "below": TARGETS_MS[name]} for name in TARGETS_MS}
    lost = sum(sum(result["lost"].values()) for result in (node, points))
    return targets | {"messages lost by the transport": {"measured": lost, "below": 1}}


def overload(args: argparse.Namespace, logs: Path) -> dict:
    """Measure how long inference takes under load, then send frames at twice the rate that it can process."""
    common = {"size": (args.width, args.height), "scale": args.scale, "module": "stdnet_ros.node"}
    common["parameters"] = {"method": args.method, "model": args.model, "backend": args.backend}
    compiling = 0.0 if args.backend == "torch" else _COMPILING_SECONDS
    calibration = Case("calibration", rate=_CALIBRATION_HZ, seconds=_CALIBRATION_SECONDS + compiling, **common)
    before = run(calibration, logs)
    print(_line(before), flush=True)
    if not before["inference_ms"]:
        raise StdnetError(f"the node published nothing at {_CALIBRATION_HZ:g} Hz; see {logs}/calibration_node.log")
    rate = 2000.0 / before["inference_ms"]["p50"]
    seconds = 60.0 * args.minutes
    warm_up = min(max(2.0, compiling), seconds / 4)
    result = run(Case("overload", rate=rate, seconds=seconds, warm_up=warm_up, **common), logs)
    print(_line(result), flush=True)
    series = result["series"]
    if not len(series):
        raise StdnetError(f"nothing was received under overload; see {logs}/overload_node.log")
    inference = result["inference_ms"]["p50"]
    result["growth_ms"] = growth(series[:, 0], series[:, 1])
    result["input_to_output"] = rate / (len(series) / (series[-1, 0] - series[0, 0])) if len(series) > 1 else None
    age = result["latency_ms"]["depth"]
    targets = {
        "age p50 / inference p50": {"measured": age["p50"] / inference, "below": 2.0},
        "age p99 / inference p99": {"measured": age["p99"] / result["inference_ms"]["p99"], "below": 2.0},
        "growth of age / inference": {"measured": result["growth_ms"] / inference, "below": _GROWTH},
        "counters that do not add up": {
            "measured": len(unbalanced(result["node"]["totals"], result["node"]["drops"])),
            "below": 1,
        },
    }
    return {"calibration": before, "overload": result, "targets": targets}


def _line(result: dict) -> str:
    cells = [f"{result['name']:17}", f"{result['rate_hz']:7.2f} Hz"]
    for kind in ("depth", "points"):
        values = result["latency_ms"][kind]
        if values:
            cells.append(f"{kind} p50 {values['p50']:7.2f}  p95 {values['p95']:7.2f}  p99 {values['p99']:7.2f} ms")
    inference = result.get("inference_ms")
    if inference:
        cells.append(f"inference p50 {inference['p50']:.2f} ms")
    inside = result.get("in_node_ms")
    if inside:
        cells.append(f"in the node p50 {inside['p50']:.2f} p99 {inside['p99']:.2f} ms")
    if result["cpu_ms_per_frame"] > 0:
        cells.append(f"CPU {result['cpu_ms_per_frame']:.1f} ms a frame")
    cells.append("lost " + ", ".join(f"{name} {count}" for name, count in result["lost"].items()))
    return "  ".join(cells)


def _verdicts(targets: dict[str, dict]) -> list[str]:
    return [
        f"{'met   ' if target['measured'] < target['below'] else 'MISSED'} {name}: {target['measured']:.2f} "
        f"(target < {target['below']:g})"
        for name, target in targets.items()
    ]


def main() -> int:
    args = parser().parse_args()
    if min(args.seconds, args.minutes, args.rate, args.width, args.height, args.scale) <= 0:
        raise ConfigError("lengths, rates, sizes and the scale must be positive")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    require("rclpy", extra="ros")
    require("matplotlib", extra="report")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StdnetError(f"cannot write to {args.output} ({error}); choose another folder with --output") from error
    report: dict = {"version": __version__, "machine": machine()}
    print("{processor}, {cores} cores, load {load_before}".format(**report["machine"]), flush=True)
    targets: dict[str, dict] = {}
    if "overhead" in args.cases:
        report["overhead"] = overhead(args, args.output)
        plots.overhead(report["overhead"], args.output / "overhead.png")
        targets |= report["overhead"]["targets"]
    if "overload" in args.cases:
        report["overload"] = overload(args, args.output)
        plots.overload(report["overload"], args.output / "overload.png")
        targets |= report["overload"]["targets"]
    (args.output / "benchmark.json").write_text(json.dumps(report, indent=1, default=_plain) + "\n")
    print("\n".join(_verdicts(targets)))
    print(f"written to {args.output}: benchmark.json, *.png, *.log")
    return 0


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return np.round(value, 3).tolist()
    raise TypeError(f"{type(value).__name__} cannot be written to a report")


if __name__ == "__main__":
    run_cli(main)
