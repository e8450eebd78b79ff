"""Runs a camera, the node and a receiver as processes over ROS 2 topics, and writes pictures and figures."""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path

import torch

from stdnet_core.cli import require, run_cli
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import DataError, StdnetError
from stdnet_ros.demo.stream import StreamInfo, write_stream
from stdnet_ros.demo.topics import NODE_NAME
from stdnet_ros.processes import Children, options, ros_environment
from stdnet_ros.resources import config_file
from stdnet_ros.simulated_sensor import sensor_for

_NAMESPACE = "/demo"
_DEFAULT_FRAMES = 48
_START_TIMEOUT = 120.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    cli = argparse.ArgumentParser(prog="python -m stdnet_ros.demo", description=__doc__)
    cli.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the results")
    cli.add_argument(
        "--input", default="", help="RGB-D folder (own layout or TUM's) or ROS 2 bag (default: a synthetic scene)"
    )
    cli.add_argument("--scale", type=int, default=8, help="colour height / depth height (default 8)")
    cli.add_argument(
        "--frames", type=int, default=_DEFAULT_FRAMES, help=f"most frames to send (default {_DEFAULT_FRAMES})"
    )
    cli.add_argument(
        "--rate", type=_rate, default=None, help="frames per second, or auto (default): as fast as the node answers"
    )
    cli.add_argument("--checkpoint", default="", help="the node's parameter model: name or file of a checkpoint")
    cli.add_argument("--method", default="auto", help="the node's parameter method (default: %(default)s)")
    cli.add_argument("--latency", type=int, default=0, help="the node's parameter latency_frames (default 0)")
    cli.add_argument(
        "--time-limit",
        type=float,
        default=75.0,
        help="stop sending frames after this many seconds (default 75)",
    )
    return cli


def _rate(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a positive number of frames per second")
    return rate


def main() -> None:
    """Entry point of the executable."""
    run_cli(run_demo)


def run_demo(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = parser().parse_args(arguments)
    # SIGTERM cleans up as Ctrl-C does. SIGINT is set too, since a background job of a shell inherits it as ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    for module in ("PIL", "imageio_ffmpeg"):
        require(module, extra="report")
    require("rclpy", extra="ros")
    # Rendering is short, and spinning threads would make a busy machine many times slower.
    torch.set_num_threads(1)
    started = time.monotonic()
    output = args.output.resolve()
    _prepare_output(output)
    with tempfile.TemporaryDirectory(prefix="stdnet_demo_") as work:
        folder = Path(work)
        sequence = _sequence(args.input, args.frames)
        print(f"input:  {sequence.name}, making low-resolution depth at x{args.scale}", flush=True)
        info = write_stream(
            sequence,
            folder,
            scale=args.scale,
            frames=args.frames,
            sensor=sensor_for(sequence.clip(0, 1).depth.numpy()),
        )
        _run(args, info, folder, output)
    metrics = json.loads((output / "metrics.json").read_text())
    print(summary(metrics))
    print(f"\nLook at {output}: frame_*.png, preview.mp4 (or .gif), cloud.png, cloud.ply, metrics.json")
    print("In the pictures, black is no depth; coverage is the share of the ground truth's pixels that have a depth.")
    print(f"done in {time.monotonic() - started:.0f} s")


def _prepare_output(output: Path) -> None:
    """Create the folder, and remove the results of an earlier demo from it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        for pattern in ("frame_*.png", "preview.*", "cloud.*", "metrics.json", "*.log"):
            for path in output.glob(pattern):
                path.unlink()
    except OSError as error:
        raise StdnetError(f"cannot write to {output} ({error}); choose another folder with --output") from error


def _sequence(source: str, frames: int) -> RgbdSequence:
    if not source:
        from stdnet_core.data.synthetic import demo_sequence

        return demo_sequence(frames=frames)
    from stdnet_core.data.sources import open_source

    sequences = open_source(source)
    if not sequences:
        raise DataError(f"{source} holds no RGB-D sequence")
    if len(sequences) > 1:
        print(f"{source} holds {len(sequences)} sequences; taking the first one, {sequences[0].name}")
    return sequences[0]


def _run(args: argparse.Namespace, info: StreamInfo, folder: Path, output: Path) -> None:
    published, received, ready = folder / "published.json", folder / "received", folder / "ready"
    environment = ros_environment(config_file("fastdds.xml"), folder / "ros_log")
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[2]), environment.get("PYTHONPATH")])
    )
    with Children(output, environment) as children:
        node = children.start("node", "stdnet_ros.node", _node_arguments(args))
        receiver = children.start(
            "receiver",
            "stdnet_ros.demo.receiver",
            options(
                stream=folder, published=published, received=received, ready=ready, output=output, namespace=_NAMESPACE
            ),
        )
        camera = children.start(
            "publisher",
            "stdnet_ros.demo.publisher",
            options(
                stream=folder,
                log=published,
                ready=ready,
                namespace=_NAMESPACE,
                rate=args.rate,
                latency_frames=args.latency,
                time_limit=args.time_limit,
                timeout=_START_TIMEOUT,
            ),
        )
        pace = "as the node answers" if args.rate is None else f"at {args.rate:g} Hz"
        print(f"live:   {info.frames} frames of {info.name} over ROS 2 topics, {pace}", flush=True)
        camera.wait(node, receiver)
        receiver.wait(node, until=received)
        node.stop()
        print("scoring and drawing", flush=True)
        receiver.wait()


def _node_arguments(args: argparse.Namespace) -> list[str]:
    parameters = {
        "method": args.method,
        "model": args.checkpoint,
        "latency_frames": args.latency,
        "autostart": True,
        # On a slow machine, frames can be seconds apart, although they are consecutive in the scene.
        "max_gap": 60.0,
        "max_age": 0.0,
    }
    assignments = [f"{name}:={_yaml(value)}" for name, value in parameters.items()]
    pairs = [word for assignment in assignments for word in ("-p", assignment)]
    return ["--ros-args", "-r", f"__ns:={_NAMESPACE}", "-r", f"__node:={NODE_NAME}", *pairs]


def _yaml(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else str(value).lower()


def summary(metrics: dict) -> str:
    """The table that the demo prints."""
    lines = ["", f"{'':12}{'RMSE cm':>9}{'MAE cm':>9}{'coverage':>10}"]
    for name, label in (("output", metrics["method"] or "output"), ("bilinear", "bilinear")):
        row = metrics[name]
        if row["rmse_cm"] is None:
            lines.append(f"{label:16}no pixel to compare")
        else:
            lines.append(f"{label:16}{row['rmse_cm']:9.2f}{row['mae_cm']:9.2f}{100 * row['coverage']:9.1f}%")
    lines[1] = f"{'':16}{'RMSE cm':>9}{'MAE cm':>9}{'coverage':>10}"
    frames, latency = metrics["frames"], metrics["latency_ms"]
    drops = ", ".join(f"{count} {cause}" for cause, count in frames["dropped_by_node"].items()) or "none"
    lines += [
        f"frames: {frames['published']} in, {frames['received']} out, {frames['lost']} lost (dropped: {drops})",
        f"rate:   {metrics['rate_hz'] or 0:.1f} Hz, latency p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms, "
        f"p99 {latency['p99']:.0f} ms",
    ]
    if frames["not_sent_in_time"]:
        lines.append(
            f"        {frames['not_sent_in_time']} more frames were not sent within the time limit (--time-limit)"
        )
    flat = (metrics["cloud"] or {}).get("flat_patch")
    if flat:
        lines.append(
            f"wall:   in the cloud, a flat patch of the ground truth is flat to {1000 * flat['cloud_rms']:.0f} mm, "
            f"and off by {1000 * abs(flat['offset']):.0f} mm and {flat['angle']:.1f} degrees"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
