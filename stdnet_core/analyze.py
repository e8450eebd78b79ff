"""The paper's figures on any source and checkpoint: ``python -m stdnet_core.analyze FIGURE --data KIND:PATH``.

Each figure is one command, which writes a picture OUTPUT/FIGURE.png and its numbers OUTPUT/FIGURE.json. docs/paper.md
compares the results with the published ones."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stdnet_core.analyses import inside, methods
from stdnet_core.analyses.scenes import Drawn
from stdnet_core.cli import names_argument, plain_json, positive_int, require, run_cli
from stdnet_core.data.protocol import TEST_SOURCE
from stdnet_core.data.sensors.arguments import add_sensor_arguments, describe, ratio_argument
from stdnet_core.errors import ConfigError
from stdnet_core.evaluation.methods import CLASSICAL
from stdnet_core.inference import MAX_LATENCY
from stdnet_core.model import PRESETS
from stdnet_core.report.versions import versions

_METHODS = ("bicubic", "joint_bilateral")
_WINDOW = 7


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = _parser().parse_args(arguments)
    _check(args)
    for module in ("matplotlib", "PIL", "tqdm"):
        require(module, extra="report")
    logging.getLogger("stdnet_core.inference").setLevel(logging.ERROR)  # its notices are in the numbers
    figure = _FIGURES[args.figure]
    picture, numbers = figure.draw(args)
    about = {
        "figure": args.figure,
        "of_the_paper": figure.of_the_paper,
        "data": args.data,
        "split": args.split,
        "scale": args.scale,
        "low_resolution": {"source": "disk"} if args.lr == "disk" else {"source": "simulated", **describe(args)},
        "versions": versions(),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"{args.figure}.png"
    path.write_bytes(picture)
    path.with_suffix(".json").write_text(json.dumps(plain_json({**about, **numbers}), indent=1) + "\n")
    for warning in numbers.get("warnings", ()):
        print(f"WARNING: {warning}")
    print(f"{path} and {path.with_suffix('.json').name}")


@dataclass(frozen=True)
class Figure:
    """One command.

    Attributes:
        of_the_paper: the figures of the paper.
        about: description for the help.
        draw: returns the picture and the numbers.
        options: names of its option groups.
    """

    of_the_paper: str
    about: str
    draw: Callable[[argparse.Namespace], Drawn]
    options: tuple[str, ...]


_FIGURES = {
    "long-tail": Figure(
        "2", "differences in space and time, and how many are in the long tail", methods.long_tail, ("span", "frame")
    ),
    "tail-errors": Figure(
        "4b", "errors of methods in the long tails", methods.tail_errors, ("span", "methods", "stored")
    ),
    "slices": Figure("5b", "one row of the image over time", methods.slices, ("span", "methods", "stored", "row")),
    "frames": Figure(
        "6, 7",
        "consecutive frames, methods side by side",
        methods.frames,
        ("span", "methods", "stored", "frame", "count"),
    ),
    "complexity": Figure("8", "parameters, time and RMSE", methods.complexity, ("span", "methods", "presets")),
    "features": Figure(
        "9b",
        "principal components of features before and after SD and TD",
        inside.features,
        ("inside", "frame", "stage"),
    ),
    "offsets": Figure(
        "5a", "where neighbours are sampled: offsets and masks", inside.offsets, ("inside", "frame", "stage", "one")
    ),
    "differences": Figure("3", "sigma and phi maps", inside.differences, ("inside", "frame", "one")),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.analyze",
        description="Draw a figure of the paper from any source and checkpoint, and write its numbers.",
        epilog="FIGURE --help lists the options of a figure.",
    )
    commands = parser.add_subparsers(dest="figure", metavar="FIGURE", required=True)
    for name, figure in _FIGURES.items():
        about = f"fig. {figure.of_the_paper}: {figure.about}"
        command = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        _add_data(command)
        _add_options(command, figure.options)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default=TEST_SOURCE, metavar="KIND:PATH", help="source (default: %(default)s)")
    parser.add_argument("--split", help="a split of the paper's data sets, e.g. test, or a sub-folder of a folder")
    parser.add_argument("--sequence", metavar="NAME|N", help="by name or number (default: all, or the first)")
    parser.add_argument("--scale", type=ratio_argument, default=8, metavar="S", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("analysis"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    low = parser.add_argument_group("low-resolution depth")
    low.add_argument(
        "--lr", choices=("simulated", "disk"), default="simulated", help="from the true depth, or the source's own"
    )
    add_sensor_arguments(low)
    low.add_argument("--seed", type=int, default=0, help="of the random parts of the simulation")
    parser.set_defaults(limit=None, frames=None, start=0, frame=None, latency=MAX_LATENCY, predictions=[])


def _add_options(parser: argparse.ArgumentParser, groups: tuple[str, ...]) -> None:
    if "span" in groups:
        parser.add_argument("--start", type=int, default=0, metavar="N", help="first frame (default: 0)")
        parser.add_argument("--frames", type=positive_int, metavar="N", help="frames of each sequence (default: all)")
        if "count" not in groups and "row" not in groups:
            parser.add_argument("--limit", type=positive_int, metavar="N", help="N sequences, evenly spread over all")
    if "frame" in groups:
        parser.add_argument("--frame", type=int, metavar="N", help="frame to show (default: the middle one)")
    if "count" in groups:
        parser.add_argument("--count", type=positive_int, default=3, metavar="N", help="frames shown (default: 3)")
        parser.add_argument(
            "--crop", type=_crop, metavar="TOP,LEFT,HEIGHT,WIDTH", help="pixels to show, extended to whole depth cells"
        )
    if "row" in groups:
        parser.add_argument(
            "--row", type=int, metavar="N", help="row of the image (default: the one with the most depth edges)"
        )
    if "methods" in groups:
        _add_methods(parser)
    if "stored" in groups:
        parser.add_argument(
            "--predictions",
            action="append",
            default=[],
            type=_predictions,
            metavar="NAME=FOLDER",
            help="depth files of another method, one per frame as in docs/evaluation.md; may be repeated",
        )
    if "presets" in groups:
        parser.add_argument(
            "--presets",
            type=names_argument(PRESETS, or_none=True),
            default=["base"],
            metavar="P[,P...]",
            help=f"untrained networks, to measure their time: {', '.join(PRESETS)}, or none (default: base)",
        )
    if "inside" in groups:
        one = "" if "one" in groups else "; may be repeated, e.g. for networks with and without SD and TD"
        parser.add_argument(
            "--checkpoint",
            action="append",
            required=True,
            metavar="[NAME=]FILE",
            help=f"of the paper's network, not the recurrent one{one}",
        )
        parser.add_argument(
            "--window",
            type=positive_int,
            default=_WINDOW,
            metavar="N",
            help="frames in its window (default: %(default)s)",
        )
    if "stage" in groups:
        parser.add_argument("--stage", type=int, choices=(1, 2), help="of the network (default: the last)")


def _add_methods(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        action="append",
        metavar="[NAME=]FILE|NAME",
        help=f"safetensors file or name of a shipped checkpoint; may be repeated (default: {methods.SHIPPED})",
    )
    parser.add_argument(
        "--methods",
        type=names_argument(CLASSICAL, or_none=True),
        default=list(_METHODS),
        metavar="M[,M...]",
        help=f"to compare with, of {', '.join(CLASSICAL)}, or none (default: {','.join(_METHODS)})",
    )
    parser.add_argument(
        "--latency",
        type=int,
        default=MAX_LATENCY,
        metavar="FRAMES",
        help="following frames that a network uses (default: %(default)s, the whole-clip result)",
    )


def _predictions(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not separator or not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    if name in CLASSICAL:
        raise argparse.ArgumentTypeError(f"{name!r} is one of this command's own methods; use another name")
    return name, Path(folder)


def _crop(text: str) -> tuple[int, int, int, int]:
    try:
        top, left, height, width = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not TOP,LEFT,HEIGHT,WIDTH in pixels") from None
    if min(top, left) < 0 or min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a crop must begin inside the frame and hold at least one pixel")
    return top, left, height, width


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.latency <= MAX_LATENCY:
        raise ConfigError(f"--latency is {args.latency}; give 0 to {MAX_LATENCY} frames")
    names = [name for name, _ in args.predictions]
    if len(set(names)) < len(names):
        raise ConfigError("two --predictions have the same name; names must differ")
    if names and args.start:
        raise ConfigError("--predictions begin with the first frame; leave out --start")
    if "one" in _FIGURES[args.figure].options and len(args.checkpoint) > 1:
        raise ConfigError(f"{args.figure} shows one network; give one --checkpoint")


if __name__ == "__main__":
    run_cli(main)
