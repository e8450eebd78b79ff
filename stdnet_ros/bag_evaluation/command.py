"""The command line of the bag evaluation."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from stdnet_core.cli import add_unit_arguments, require
from stdnet_core.data.bags.topics import BagTopics, find_topics, first_stored_depths
from stdnet_core.data.sensors.arguments import add_sensor_arguments, ratio_argument, sensor_from
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.data.stamp_matching import stamps_say_nothing
from stdnet_core.depth_units import DepthUnits, check_units
from stdnet_core.errors import ConfigError
from stdnet_core.report.page import table_text
from stdnet_core.report.recording_report import recording_verdict
from stdnet_ros.bag_evaluation.bag import Bag
from stdnet_ros.bag_evaluation.evaluation import Task, run_deterministic, write_results
from stdnet_ros.bag_evaluation.frames import Protocol
from stdnet_ros.bag_evaluation.settings import make_settings
from stdnet_ros.node.parameters import depth_units
from stdnet_ros.simulated_sensor import range_for

_SENSOR = "dtof_paper"
_LOOKED_AT = 20
"""How many images of a recording are checked, for their stamps and the unit of depth, before it is processed."""
BASELINES = ("nearest", "bilinear", "bicubic", "joint_bilateral", "guided_temporal")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    cli = argparse.ArgumentParser(
        prog="evaluate_bag",
        description="Evaluates depth upsampling on a recording: accuracy, temporal stability and speed. Reads a ROS 2 "
        "(mcap, sqlite3) or ROS 1 bag and writes report.html, metrics.json, per_frame.csv, pictures and a video.",
    )
    cli.add_argument("bag", type=Path, help="folder of a ROS 2 bag, or a .mcap, .db3 or .bag file")
    cli.add_argument(
        "--output", type=Path, default=Path("bag_report"), help="folder for the results (default bag_report)"
    )
    task = cli.add_argument_group("what is compared with what")
    task.add_argument("--scale", type=ratio_argument, help="scale of the simulated input depth (default 8)")
    task.add_argument(
        "--self",
        dest="by_itself",
        action="store_true",
        help="judge the recording by itself, without ground truth: the input is the recorded depth at its own "
        "resolution, with some patches hidden",
    )
    task.add_argument("--reference", metavar="TOPIC", help="ground truth; the input is then the bag's depth, unchanged")
    add_sensor_arguments(task, _SENSOR)
    task.add_argument(
        "--baselines",
        default="bilinear,joint_bilateral",
        help=f"methods to compare with, separated by commas: {', '.join(BASELINES)}; '' for none",
    )
    task.add_argument(
        "--no-flow", action="store_true", help="omit the figures that need optical flow (TEPE, motion tail)"
    )
    topics = cli.add_argument_group("topics (by default found by type, content and name)")
    for role in ("color", "depth", "color-info", "depth-info"):
        topics.add_argument(f"--{role}", metavar="TOPIC")
    part = cli.add_argument_group("which part of the bag")
    part.add_argument("--start", type=float, default=0.0, metavar="S", help="start after S seconds")
    part.add_argument("--duration", type=float, metavar="S", help="length in seconds (default: to the end)")
    part.add_argument("--every", type=int, default=1, metavar="N", help="process every N-th pair")
    part.add_argument(
        "--stamps",
        choices=("header", "record"),
        default="header",
        help="pair by header stamps or by recording times (default header; record if all header stamps are the same)",
    )
    node = cli.add_argument_group("the node's parameters")
    node.add_argument("--params-file", type=Path, metavar="FILE", help="ROS parameter file, as for the node")
    node.add_argument("--method", help="how depth is upsampled; overrides the file")
    node.add_argument("--model", help="name or path of a checkpoint; overrides the file")
    node.add_argument("--device", help="auto, cpu, cuda or cuda:N; overrides the file")
    node.add_argument(
        "--latency-frames", type=int, help="how many following frames each frame waits for; overrides the file"
    )
    add_unit_arguments(node)
    out = cli.add_argument_group("more results")
    out.add_argument(
        "--write-bag",
        type=Path,
        metavar="OUT",
        help="write a bag with the original topics and the upsampled depth, its camera_info and the cloud",
    )
    out.add_argument("--live", action="store_true", help="also replay the bag over real topics to a node process")
    out.add_argument("--rate", type=float, default=1.0, help="speed of the live replay (default 1.0)")
    return cli


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; ``arguments`` default to those of the process. Returns 130 after Ctrl-C, otherwise 0."""
    args = parser().parse_args(arguments)
    _check(args)
    for module in ("matplotlib", "jinja2", "PIL", "imageio_ffmpeg"):
        require(module, extra="report")
    with Bag(args.bag) as bag:
        topics = _topics(bag, args)
        task = _task(bag, topics, args)
        args.output.mkdir(parents=True, exist_ok=True)
        print(
            f"{args.bag}: {bag.duration:.1f} s; "
            + ", ".join(f"{role} {topic}" for role, topic in topics.named().items())
        )
        for note in bag.notes:
            print(f"note: {note}")
        if args.live:
            from stdnet_ros.bag_evaluation.live import run_live

            live = run_live(task, args.rate)
            result = live.result
            report = write_results(task, result, [live.section()], live.summary(), live.verdict())
            print("\n" + live.text())
        else:
            result = run_deterministic(task)
            report = write_results(task, result)
    if len(result.analysis):
        print("\n" + table_text(result.table))
    if result.recording is not None:
        print(recording_verdict(result.recording, result.analysis.methods[0]).text)
    shown = {name: count for name, count in result.counts.items() if count}
    print("frames: " + ", ".join(f"{count} {name}" for name, count in shown.items()))
    for note in result.warnings + result.notes:
        print(f"note: {note}")
    print(f"\nOpen {report.resolve()} in a browser; the numbers are in metrics.json and per_frame.csv next to it")
    return 130 if result.partial else 0


def _check(args: argparse.Namespace) -> None:
    if args.by_itself and (args.scale is not None or args.reference or args.sensor_value or args.sensor != _SENSOR):
        raise ConfigError(
            "--self uses the recorded depth as input and as reference; remove --scale, --reference, --sensor and "
            "--sensor-value"
        )
    if args.every < 1:
        raise ConfigError(f"--every is {args.every}; it must be 1 or more")
    for name, value in (("--rate", args.rate), ("--duration", args.duration)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value:g}; it must be positive")
    if args.start < 0:
        raise ConfigError(f"--start is {args.start:g}; it must be 0 or more")
    unknown = sorted(set(_baselines(args)) - set(BASELINES))
    if unknown:
        raise ConfigError(f"--baselines has {', '.join(unknown)}; choose from {', '.join(BASELINES)}")


def _baselines(args: argparse.Namespace) -> list[str]:
    return [name.strip() for name in args.baselines.split(",") if name.strip()]


def _topics(bag: Bag, args: argparse.Namespace) -> BagTopics:
    wanted = {
        "color": args.color,
        "depth": args.depth,
        "color_info": args.color_info,
        "depth_info": args.depth_info,
        "reference": args.reference,
    }
    return find_topics(bag, wanted, DepthUnits(args.depth_unit, args.invalid_above))


def _task(bag: Bag, topics: BagTopics, args: argparse.Namespace) -> Task:
    compressed_color = bag.topics[topics.color].endswith("CompressedImage")
    compressed_depth = topics.reference is not None and bag.topics[topics.depth].endswith("CompressedImage")
    changes = {
        "method": args.method,
        "model": args.model,
        "device": args.device,
        "latency_frames": args.latency_frames,
        "depth_unit": args.depth_unit,
        "invalid_above": args.invalid_above,
        "color_transport": "compressed" if compressed_color else "raw",
        # Depth that is simulated from the bag's depth is always raw.
        "depth_transport": "compressedDepth" if compressed_depth else "raw",
    }
    settings, values = make_settings(args.params_file, changes)
    units = depth_units(settings)
    _, depth = topics.first
    bag.notes += check_units(first_stored_depths(bag, depth, _LOOKED_AT), units, f"{bag.path}: {topics.depth}")
    sensor = sensor_from(args)
    if not args.by_itself and isinstance(sensor.measurement, Dtof) and sensor.measurement.range_m is None:
        covering = range_for(units.metres(depth.image, invalid=np.nan))
        sensor = sensor.with_values({"dtof.range_m": covering, "dtof.clip_beyond_range": False})
    protocol = Protocol(
        scale=args.scale or 8,
        sensor=sensor,
        camera=args.sensor,
        every=args.every,
        start=args.start,
        duration=args.duration,
        stamps=_stamps(bag, topics, args, settings),
        by_itself=args.by_itself,
    )
    return Task(
        bag=bag,
        topics=topics,
        protocol=protocol,
        settings=settings,
        parameters=values,
        baselines=_baselines(args),
        temporal=not args.no_flow,
        output=args.output,
        write_bag=args.write_bag,
    )


def _stamps(bag: Bag, topics: BagTopics, args: argparse.Namespace, settings: SimpleNamespace) -> str:
    """``record`` if asked for or if all header stamps of a topic are the same, otherwise ``header``."""
    if args.stamps == "record" or settings.use_arrival_time:
        return "record"
    for topic in (topics.color, topics.depth):
        stamps = [bag.header_stamp(raw) for raw in islice(bag.messages([topic]), _LOOKED_AT)]
        if stamps_say_nothing(stamps):
            bag.notes.append(
                f"all header stamps on {topic} are {stamps[0] / 1e9:.3f} s; frames are paired by recording times "
                "(for a live node, set use_arrival_time)"
            )
            return "record"
    return "header"
