"""The figures that back a checkpoint: ``python -m stdnet_core.accuracy --checkpoint tiny_causal`` (``make accuracy``).

Evaluates networks and classical methods side by side on three kinds of data that no shipped network was trained on:
procedural scenes of other seeds, rendered clips of other levels and rooms (the list in
``config/train/heldout_clips.txt``), and recordings of real sensors, whose own depth is the truth. Procedural scenes
need nothing; rendered and real clips are folders of RGB-D sequences, given with ``--rendered`` and ``--real``."""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stdnet_core import checkpoints
from stdnet_core.cli import positive_int, require, run_cli
from stdnet_core.data.degradation import DegradationConfig
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sources import open_source
from stdnet_core.errors import ConfigError, DataError
from stdnet_core.evaluate import TEST_SOURCE, plain_json, scales_argument
from stdnet_core.evaluation import CLASSICAL, LowResolution, Runner, evaluate_sequence, unique_names
from stdnet_core.inference import MAX_LATENCY, DepthUpsampler
from stdnet_core.scoring import mean_figures

_COLUMNS = {
    "RMSE": "rmse_cm",
    "MAE": "mae_cm",
    "TEPE": "tepe_cm",
    "flicker": "flicker_cm",
    "edge RMSE": "edge_rmse_cm",
    "tail RMSE": "longtail_spatial_rmse_cm",
    "motion tail RMSE": "motion_tail_rmse_cm",
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = _parser().parse_args(arguments)
    logging.getLogger("stdnet_core.inference").setLevel(logging.ERROR)  # it would say the same for every method
    names = args.checkpoint or checkpoints.available()
    groups = {"procedural": open_source(args.procedural)}
    if args.rendered:
        groups["rendered"] = held_out(args.rendered, args.heldout)
    if args.real:
        groups["real"] = [s for folder in args.real for s in open_source(folder)]
    report: dict[str, Any] = {"checkpoints": names, "jitter_bins": args.jitter_bins, "scales": args.scale, "groups": {}}
    for group, sequences in groups.items():
        report["groups"][group] = {"sequences": unique_names(s.name for s in sequences), "scales": {}}
        for scale in args.scale:
            figures = _evaluate(group, sequences, scale, names, args)
            report["groups"][group]["scales"][str(scale)] = figures
            print(_table(group, scale, figures["mean"]), flush=True)
            if args.json:
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps(plain_json(report), indent=1) + "\n")


def held_out(folders: Iterable[Path], listing: Path) -> list[RgbdSequence]:
    """Sequences of the folders that the listing names.

    Raises:
        DataError: no listing, or none of its sequences is there.
    """
    if not listing.is_file():
        raise DataError(f"there is no list of held-out clips {listing}; give one with --heldout")
    lines = (line.strip() for line in listing.read_text().splitlines())
    wanted = [line for line in lines if line and not line.startswith("#")]
    chosen = [
        sequence
        for folder in folders
        for sequence in open_source(str(folder))
        if any(fnmatch.fnmatch(sequence.name.rpartition("/")[2], pattern) for pattern in wanted)
    ]
    if not chosen:
        raise DataError(f"none of the {len(wanted)} clips of {listing} is in {', '.join(map(str, folders))}")
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.accuracy", description=__doc__.partition("\n\n")[2].strip()
    )
    parser.add_argument(
        "--checkpoint", action="append", metavar="FILE|NAME", help="may be repeated (default: all that ship)"
    )
    parser.add_argument("--scale", type=scales_argument, default=[4, 8, 16], metavar="S[,S...]", help="default: 4,8,16")
    parser.add_argument("--procedural", default=TEST_SOURCE, metavar="SOURCE", help="default: %(default)s")
    parser.add_argument(
        "--rendered", action="append", type=Path, metavar="DIR", help="folder of clips; may be repeated"
    )
    parser.add_argument("--real", action="append", metavar="DIR", help="folder of recordings; may be repeated")
    parser.add_argument(
        "--heldout",
        type=Path,
        default=Path("config/train/heldout_clips.txt"),
        metavar="FILE",
        help="names of the rendered clips to evaluate (default: %(default)s)",
    )
    parser.add_argument(
        "--max-frames", type=positive_int, default=16, metavar="N", help="of each sequence (default: 16)"
    )
    parser.add_argument("--jitter-bins", type=int, default=0, metavar="N", help="readings jump by up to N bins")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    return parser


def _runners(names: list[str], args: argparse.Namespace) -> dict[str, Runner]:
    runners = {}
    for name in names:
        model, info = checkpoints.load(name)
        if info.name in runners or info.name in CLASSICAL:
            raise ConfigError(f"two methods are called {info.name!r}; rename {name}")
        latency = 0 if info.config.causal else MAX_LATENCY
        # float32 everywhere: figures that back a checkpoint must not depend on the machine
        settings = {"device": args.device, "precision": "fp32", "latency": latency}
        upsampler = DepthUpsampler.from_model(model, info, mask_unsupported=False, **settings)
        runners[info.name] = Runner(upsampler)
    return runners | {method: Runner.classical(method, args.device) for method in CLASSICAL}


def _evaluate(
    group: str, sequences: list[RgbdSequence], scale: int, names: list[str], args: argparse.Namespace
) -> dict[str, Any]:
    tqdm = require("tqdm", extra="report").tqdm
    degradation = DegradationConfig(range_m=None, jitter_bins=args.jitter_bins)
    runners = _runners(names, args)
    figures = {}
    total = sum(min(len(s), args.max_frames) for s in sequences)
    with tqdm(total=total, unit="frame", desc=f"{group} x{scale}", dynamic_ncols=True) as progress:
        for number, (name, sequence) in enumerate(zip(unique_names(s.name for s in sequences), sequences, strict=True)):
            figures[name] = evaluate_sequence(
                sequence,
                runners,
                LowResolution(scale, degradation=degradation, seed=number),
                frames=args.max_frames,
                on_frame=lambda *_: progress.update(),
            ).figures
    return {"mean": mean_figures(figures), "sequences": figures}


def _table(group: str, scale: int, mean: dict[str, dict[str, float]]) -> str:
    width = max(map(len, mean))
    columns = {title: max(13, len(title) + 2) for title in _COLUMNS}
    header = "".join(f"{title:>{n}}" for title, n in columns.items()) + f"{'RMSE, MAE of bilinear':>25}"
    lines = [f"{group}, x{scale} (cm; mean over sequences)", f"{'':{width}}{header}"]
    for method, figures in mean.items():
        cells = "".join(f"{figures[_COLUMNS[title]]:{n}.2f}" for title, n in columns.items())
        ratios = [figures[key] / mean["bilinear"][key] for key in ("rmse_cm", "mae_cm")]
        lines.append(f"{method:{width}}{cells}{ratios[0]:>16.3f} {ratios[1]:8.3f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_cli(main)
