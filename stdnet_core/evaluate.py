"""Measures accuracy: ``python -m stdnet_core.evaluate --data dydtof:PATH --scale 8 --checkpoint FILE --json OUT``.

Prints a table like tables 1 to 3 of the paper (RMSE, MAE, TEPE in cm for each sequence and their mean), which compares
the model with interpolation and joint bilateral upsampling. --json writes all figures. --report DIR writes a report for
each sequence: one HTML file with pictures, curves and a video, and the same as separate files. --predictions
NAME=FOLDER also scores depth that another method wrote to files.

--self evaluates recordings without true depth, at the resolution of their depth: patches of measured depth are hidden
and compared with the output there. It also reports flicker of static parts, the alignment of depth edges with colour
edges, filled holes, and the change of measured pixels (stdnet_core.evaluation.recording)."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import Any

from stdnet_core.analyses.options import (
    computed_on,
    describe_low_resolution,
    describe_model,
    is_released,
    make_runner,
    write_json,
)
from stdnet_core.analyses.recordings import judge_recordings
from stdnet_core.analyses.sequences import evaluate_scale, index_page
from stdnet_core.cli import add_unit_arguments, names_argument, positive_int, require, run_cli
from stdnet_core.data.protocol import TEST_SOURCE
from stdnet_core.data.sensors.arguments import add_sensor_arguments, scales_argument, sensor_from
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.errors import ConfigError
from stdnet_core.evaluation.methods import CLASSICAL, FORGETFUL, METHODS
from stdnet_core.inference import MAX_LATENCY
from stdnet_core.report.animation import MOST_BYTES, MOST_FRAMES
from stdnet_core.report.evaluation_report import check_installed
from stdnet_core.report.evaluation_text import scale_text

_DEFAULT_SENSOR = "dtof_paper"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = _parser().parse_args(arguments)
    _check(args)
    logging.getLogger("stdnet_core.inference").setLevel(logging.ERROR)  # its notices are printed below the table
    if args.report:
        check_installed()
    if args.pictures or args.animation:
        require("PIL", extra="report")
    methods = args.methods or (["model"] if args.checkpoint else []) + list(CLASSICAL)
    report: dict[str, Any] = {"data": args.data, "split": args.split, "checkpoint": args.checkpoint}
    if args.by_itself:
        judge_recordings(methods, args, report)
        return
    if args.predictions:
        report["predictions"] = {name: str(folder) for name, folder in args.predictions}
    report |= {"low_resolution": describe_low_resolution(args), "scales": {}}
    for scale in args.scale:
        runners = {name: make_runner(name, args) for name in methods}
        report["device"], report["precision"] = computed_on(runners)
        if "model" in runners:
            report["model"] = describe_model(runners["model"])
        result = evaluate_scale(scale, runners, args, report)
        report["scales"][str(scale)] = result
        print(scale_text(scale, result, report))
    if len(args.scale) == 1:
        report |= {"scale": args.scale[0], **report["scales"][str(args.scale[0])]}
    write_json(args, report)
    if args.report:
        print(f"Open {index_page(args, report).resolve()} in a browser")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.evaluate", description=__doc__.partition("\n\n")[2].strip()
    )
    parser.add_argument(
        "--data", default=TEST_SOURCE, metavar="KIND:PATH", help="source of sequences (default: %(default)s)"
    )
    parser.add_argument("--split", help="a split of the paper's data sets, e.g. test, or a sub-folder of a folder")
    parser.add_argument(
        "--self",
        dest="by_itself",
        action="store_true",
        help="evaluate recordings without true depth; the input is their depth, unchanged",
    )
    parser.add_argument("--scale", type=scales_argument, metavar="S[,S...]", help="e.g. 8 or 4,8,16 (default: 8)")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE|NAME",
        help="safetensors file, name of a shipped checkpoint, or a .pth released by the paper's authors (see below)",
    )
    parser.add_argument(
        "--methods",
        type=names_argument(METHODS, kind="method"),
        metavar="M[,M...]",
        help=f"of {', '.join(METHODS)} (default: all but {FORGETFUL}, which resets the state before every frame)",
    )
    parser.add_argument(
        "--predictions",
        action="append",
        default=[],
        type=_predictions,
        metavar="NAME=FOLDER",
        help="also score depth that another method wrote to files: .npy in metres or 16-bit PNG in millimetres, "
        "numbered in the order of the frames, in a sub-folder for each sequence (or in FOLDER for a single sequence); "
        "may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write report.html, per_frame.csv, pictures and a video; for several sequences or scales, in a folder for "
        "each, with an index.html",
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write a picture of each sequence's middle frame")
    parser.add_argument(
        "--animation",
        type=Path,
        metavar="DIR",
        help=f"write an animated WebP of each sequence, for a web page: colour, input, bilinear and the model (or "
        f"the first of --methods), of at most {MOST_FRAMES} frames and {MOST_BYTES / 1e6:g} MB",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate N sequences, evenly spread over all")
    parser.add_argument("--max-frames", type=int, metavar="N", help="evaluate the first N frames of each sequence")
    parser.add_argument("--skip-bad", action="store_true", help="leave out damaged data, and list them")
    add_unit_arguments(parser)
    parser.add_argument(
        "--latency",
        type=int,
        default=MAX_LATENCY,
        metavar="FRAMES",
        help="following frames that the model uses; 8: the paper's whole-clip result, 0: no delay, as on a robot"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--clip-truth",
        type=_metres_or_none,
        metavar="M|none",
        help="clip true depth to M metres, also for the simulated sensor (default: as in the paper, 40 for DyDToF, "
        "else none)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument(
        "--precision",
        default="fp32",
        help="of the network: fp32, bf16, fp16, or auto for the device's fast one (default: %(default)s, so that "
        "figures do not depend on the machine)",
    )
    low = parser.add_argument_group("low-resolution depth")
    low.add_argument(
        "--lr",
        choices=("simulated", "disk"),
        default="simulated",
        help="simulated: from the true depth; disk: the recording's own, or the files next to a data set of the paper, "
        "published or written by python -m stdnet_core.make_lr",
    )
    low.add_argument(
        "--lr-folder", type=Path, metavar="DIR", help="folder that make_lr wrote to (--output), if not next to the data"
    )
    add_sensor_arguments(low, _DEFAULT_SENSOR)
    low.add_argument(
        "--range-m",
        type=float,
        metavar="M",
        help="range of a simulated dToF sensor (default: 30 TartanAir, 40 DyDToF, else the sequence's largest depth)",
    )
    low.add_argument("--seed", type=int, default=0, help="of the random parts of the simulation")
    released = parser.add_argument_group("a released .pth, which does not store what it was trained for")
    released.add_argument("--trained-scale", type=positive_int, metavar="S", help="its scale, e.g. 8; required")
    released.add_argument(
        "--depth-range",
        type=float,
        metavar="M",
        help="metres by which it divides depth (default: as in the paper, 40 for DyDToF, else 30)",
    )
    return parser


def _predictions(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    if name in METHODS:
        raise argparse.ArgumentTypeError(f"{name!r} is one of evaluate's own methods; use another name")
    return name, Path(folder)


def _metres_or_none(text: str) -> float:
    try:
        metres = math.inf if text == "none" else float(text)
    except ValueError:
        metres = math.nan
    if not metres > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of metres above 0 nor none")
    return metres


def _check(args: argparse.Namespace) -> None:
    if args.by_itself:
        drawn = args.pictures or args.animation
        if args.sensor_value or args.sensor != _DEFAULT_SENSOR or args.range_m is not None or drawn:
            raise ConfigError("--self simulates no sensor, and only --report draws pictures; drop the other options")
        if args.lr == "simulated" and args.scale is not None:
            raise ConfigError("--self uses depth unchanged; drop --scale, or add --lr disk if it selects a folder")
        if args.scale is not None and len(args.scale) > 1:
            raise ConfigError("--self accepts one --scale at a time")
        if args.predictions:
            raise ConfigError("--predictions are compared with true depth, and --self has none; drop one of them")
    args.scale = args.scale or [8]
    if args.predictions and len(args.scale) > 1:
        raise ConfigError("--predictions are of one scale; give one --scale at a time")
    names = [name for name, _ in args.predictions]
    if len(set(names)) < len(names):
        raise ConfigError(f"--predictions {max(names, key=names.count)} is given twice; names must differ")
    if args.methods and "model" in args.methods and not args.checkpoint:
        raise ConfigError("method model needs --checkpoint FILE or the name of a shipped one")
    if args.methods and FORGETFUL in args.methods and "model" not in args.methods:
        raise ConfigError(f"method {FORGETFUL} is only for comparison with model; add model")
    if args.methods and "model" not in args.methods and args.checkpoint:
        raise ConfigError("--checkpoint is given, but --methods does not include model; add it or drop the checkpoint")
    if is_released(args.checkpoint):
        if args.trained_scale is None:
            raise ConfigError(
                f"{args.checkpoint} does not store which scale it was trained for; give it, e.g. --trained-scale 8"
            )
    elif args.trained_scale is not None or args.depth_range is not None:
        raise ConfigError("--trained-scale and --depth-range are for a released .pth; other checkpoints store theirs")
    if args.lr_folder is not None and args.lr != "disk":
        raise ConfigError("--lr-folder is only for low-resolution depth on disk; add --lr disk")
    if args.range_m is not None and (args.lr == "disk" or not isinstance(sensor_from(args).measurement, Dtof)):
        raise ConfigError("--range-m is only for a simulated dToF sensor, and none is simulated; drop it")
    if not 0 <= args.latency <= MAX_LATENCY:
        raise ConfigError(f"--latency is {args.latency}; give 0 to {MAX_LATENCY} frames")
    for name in ("limit", "max_frames"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; give at least 1")


if __name__ == "__main__":
    run_cli(main)
