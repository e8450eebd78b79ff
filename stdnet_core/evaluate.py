"""Measures accuracy: ``python -m stdnet_core.evaluate --data dydtof:PATH --scale 8 --checkpoint FILE --json OUT``.

Prints a table in the form of the paper's (RMSE, MAE, TEPE in cm for each sequence and their mean; tables 1 to 3) with
interpolation and joint bilateral upsampling beside the model, and writes all figures to a JSON file. With --report DIR
each sequence gets a report: one HTML file with pictures, curves and a video, and the same as files beside it. With
--predictions NAME=FOLDER depth that any other method wrote to files is scored beside them.

With --self it judges recordings without truth by themselves, at the resolution they have: patches of measured depth are
hidden and compared with what comes out there; flicker of standing parts, depth edges against colour's, holes filled and
the change of measured pixels are told (stdnet_core.evaluation.recording)."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stdnet_core import checkpoints
from stdnet_core.cli import add_unit_arguments, names_argument, positive_int, print_notes, require, run_cli
from stdnet_core.data.protocol import PROTOCOL_RANGES, LowResolution
from stdnet_core.data.rgbd_sequence import RgbdSequence, unique_names
from stdnet_core.data.sensors import Sensor
from stdnet_core.data.sensors.arguments import (
    add_sensor_arguments,
    describe,
    ratio_argument,
    scales_argument,
    sensor_from,
)
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.data.sources import Sequences, open_source, parse_source
from stdnet_core.errors import ConfigError, DataError, InputError
from stdnet_core.evaluation.methods import CLASSICAL, FORGETFUL, METHODS, Method, Runner
from stdnet_core.evaluation.recording import JudgedFrame, RecordingScore, judge_recording
from stdnet_core.evaluation.scoring import ScoredFrame, mean_figures
from stdnet_core.evaluation.sequence import EvaluationFrame, SequenceResult, evaluate_sequence
from stdnet_core.evaluation.stored_predictions import StoredPredictions, open_predictions
from stdnet_core.inference import MAX_LATENCY, DepthUpsampler
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.report.evaluation_report import EvaluationReport, check_installed, write_index
from stdnet_core.report.panels import Tile, compose, frame_tiles
from stdnet_core.report.recording_report import COLUMNS, recording_summary
from stdnet_core.report.writer import Table, table_text

TEST_SOURCE = "synthetic:2000001,4,240x320,24"
"""Evaluated without ``--data``: rendered scenes whose seeds no training or validation of this project uses."""

_COLUMNS = {
    "RMSE": ("rmse_cm", 1),
    "MAE": ("mae_cm", 1),
    "TEPE": ("tepe_cm", 1),
    "delta1 %": ("delta1", 100),
    "edge RMSE": ("edge_rmse_cm", 1),
    "tail RMSE": ("longtail_spatial_rmse_cm", 1),
    "flicker": ("flicker_cm", 1),
    "shown %": ("coverage", 100),
    "ms": ("ms_per_frame", 1),
}
_RELEASED_SUFFIXES = (".pth", ".pt")
_RELEASED_RANGE = 30.0
_DEFAULT_SENSOR = "dtof_paper"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = _parser().parse_args(arguments)
    _check(args)
    logging.getLogger("stdnet_core.inference").setLevel(logging.ERROR)  # its notices are printed below the table
    if args.report:
        check_installed()
    methods = args.methods or (["model"] if args.checkpoint else []) + list(CLASSICAL)
    report: dict[str, Any] = {"data": args.data, "split": args.split, "checkpoint": args.checkpoint}
    if args.by_itself:
        _judge_recordings(methods, args, report)
        return
    if args.predictions:
        report["predictions"] = {name: str(folder) for name, folder in args.predictions}
    report |= {"low_resolution": _describe_low_resolution(args), "scales": {}}
    for scale in args.scale:
        runners = {name: _runner(name, args) for name in methods}
        report["device"], report["precision"] = _computed_on(runners)
        if "model" in runners:
            report["model"] = _describe_model(runners["model"])
        result = _evaluate_scale(scale, runners, args, report)
        report["scales"][str(scale)] = result
        print(_text(scale, result, report))
    if len(args.scale) == 1:
        report |= {"scale": args.scale[0], **report["scales"][str(args.scale[0])]}
    _write_json(args, report)
    if args.report:
        print(f"Open {_index(args, report).resolve()} in a browser")


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
        help="judge recordings without truth by themselves; input is their depth as it is",
    )
    parser.add_argument("--scale", type=scales_argument, metavar="S[,S...]", help="e.g. 8 or 4,8,16 (default: 8)")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE|NAME",
        help="safetensors file, name of a shipped one, or a .pth that the paper's authors released (see below)",
    )
    parser.add_argument(
        "--methods",
        type=names_argument(METHODS, kind="method"),
        metavar="M[,M...]",
        help=f"of {', '.join(METHODS)} (default: all but {FORGETFUL}, which begins anew with every frame)",
    )
    parser.add_argument(
        "--predictions",
        action="append",
        default=[],
        type=_predictions,
        metavar="NAME=FOLDER",
        help="score depth that another method wrote to files, too: .npy in metres or 16-bit PNG in millimetres, "
        "numbered in the order of the frames, in a sub-folder for each sequence, or in FOLDER if there is one; may be "
        "repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write report.html, per_frame.csv, pictures and a video; in a folder for each sequence and scale, with an "
        "index.html, if there are several",
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw the middle frame of each sequence here")
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate N sequences, spread over all there are")
    parser.add_argument("--max-frames", type=int, metavar="N", help="evaluate the first N frames of each sequence")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what is damaged, and list it")
    add_unit_arguments(parser)
    parser.add_argument(
        "--latency",
        type=int,
        default=MAX_LATENCY,
        metavar="FRAMES",
        help="later frames that the model may see; 8 is the whole-clip result of the paper, 0 what a robot gets at once"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--clip-truth",
        type=_metres_or_none,
        metavar="M|none",
        help="true depth beyond M metres becomes M, also for the simulated sensor (default: as in the paper, 40 for "
        "DyDToF, else none)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument(
        "--precision",
        default="fp32",
        help="of the network: fp32, bf16, fp16, or auto for the fast one of the device; %(default)s by default, since "
        "figures must not depend on the machine",
    )
    low = parser.add_argument_group("low-resolution depth")
    low.add_argument(
        "--lr",
        choices=("simulated", "disk"),
        default="simulated",
        help="made from the truth, or the source's own: a recording's, or what lies beside a data set of the paper, "
        "published or written by python -m stdnet_core.make_lr",
    )
    low.add_argument(
        "--lr-folder", type=Path, metavar="DIR", help="where make_lr wrote it, if not beside the data (--output)"
    )
    add_sensor_arguments(low, _DEFAULT_SENSOR)
    low.add_argument(
        "--range-m",
        type=float,
        metavar="M",
        help="range of a simulated dToF sensor (default: 30 TartanAir, 40 DyDToF, else the sequence's largest depth)",
    )
    low.add_argument("--seed", type=int, default=0, help="of what is random in the simulation")
    released = parser.add_argument_group("a released .pth, which does not say what it was trained for")
    released.add_argument("--trained-scale", type=positive_int, metavar="S", help="its scale; needed, e.g. 8")
    released.add_argument(
        "--depth-range",
        type=float,
        metavar="M",
        help="metres that it divides depth by (default: as in the paper, 40 for DyDToF, else 30)",
    )
    return parser


def _predictions(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=FOLDER")
    if name in METHODS:
        raise argparse.ArgumentTypeError(f"{name!r} is a method of evaluate's own; call the predictions otherwise")
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
        if args.sensor_value or args.sensor != _DEFAULT_SENSOR or args.range_m is not None or args.pictures:
            raise ConfigError("--self simulates no sensor and has --report for pictures; drop the other options")
        if args.lr == "simulated" and args.scale is not None:
            raise ConfigError("--self takes depth as it is; drop --scale, or add --lr disk where it names a folder")
        if args.scale is not None and len(args.scale) > 1:
            raise ConfigError("--self takes one --scale at a time")
        if args.predictions:
            raise ConfigError("--predictions are compared with the truth, and --self has none; drop one of them")
    args.scale = args.scale or [8]
    if args.predictions and len(args.scale) > 1:
        raise ConfigError("--predictions are of one scale; give one --scale at a time")
    names = [name for name, _ in args.predictions]
    if len(set(names)) < len(names):
        raise ConfigError(f"--predictions {max(names, key=names.count)} is given twice; names must differ")
    if args.methods and "model" in args.methods and not args.checkpoint:
        raise ConfigError("method model needs --checkpoint FILE or the name of a shipped one")
    if args.methods and FORGETFUL in args.methods and "model" not in args.methods:
        raise ConfigError(f"method {FORGETFUL} is there to be compared with model; add model")
    if args.methods and "model" not in args.methods and args.checkpoint:
        raise ConfigError("--checkpoint is given, but --methods leaves out model; add it or drop the checkpoint")
    if _is_released(args.checkpoint):
        if args.trained_scale is None:
            raise ConfigError(
                f"{args.checkpoint} does not say which scale it was trained for; give it, e.g. --trained-scale 8"
            )
    elif args.trained_scale is not None or args.depth_range is not None:
        raise ConfigError("--trained-scale and --depth-range are for a released .pth; other checkpoints carry theirs")
    if args.lr_folder is not None and args.lr != "disk":
        raise ConfigError("--lr-folder is where low-resolution depth lies on disk; add --lr disk")
    if args.range_m is not None and (args.lr == "disk" or not isinstance(sensor_from(args).measurement, Dtof)):
        raise ConfigError("--range-m is of a simulated dToF sensor, and none is simulated; drop it")
    if not 0 <= args.latency <= MAX_LATENCY:
        raise ConfigError(f"--latency is {args.latency}; give 0 to {MAX_LATENCY} frames")
    for name in ("limit", "max_frames"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; give at least 1")


def _is_released(checkpoint: str | None) -> bool:
    return checkpoint is not None and Path(checkpoint).suffix in _RELEASED_SUFFIXES


def _sensor(args: argparse.Namespace) -> Sensor:
    chosen = sensor_from(args)
    return chosen if args.range_m is None else chosen.with_values({"dtof.range_m": args.range_m})


def _describe_low_resolution(args: argparse.Namespace) -> dict[str, Any]:
    if args.lr == "disk":
        return {"source": "disk"}
    return {"source": "simulated", **describe(args), "seed": args.seed}


def _runner(name: str, args: argparse.Namespace) -> Runner:
    if name not in ("model", FORGETFUL):
        return Runner.classical(name, args.device)
    if _is_released(args.checkpoint):
        depth_range = args.depth_range
        if depth_range is None:
            depth_range = PROTOCOL_RANGES.get(parse_source(args.data)[0], _RELEASED_RANGE)
        model, info = checkpoints.load_released(args.checkpoint, scale=args.trained_scale, depth_range=depth_range)
    else:
        model, info = checkpoints.load(args.checkpoint)
    latency = 0 if info.config.causal else args.latency
    settings = {"device": args.device, "precision": args.precision, "latency": latency}
    upsampler = DepthUpsampler.from_model(model, info, method="stdnet", mask_unsupported=False, **settings)
    return Runner(upsampler, forgetful=name == FORGETFUL)


def _describe_model(runner: Runner) -> dict[str, Any]:
    upsampler = runner.upsampler
    info = upsampler.info
    return {
        "name": info.name,
        "trained_scales": list(info.scales),
        "depth_range": info.depth_range,
        "config": info.config.to_dict(),
        "latency": upsampler.latency,
    }


def _computed_on(runners: dict[str, Runner]) -> tuple[str, str]:
    """The device and the network's precision; all other methods compute in float32."""
    placement = runners.get("model", next(iter(runners.values()))).upsampler.placement
    return str(placement.device), placement.precision if "model" in runners else "fp32"


def _trained_on(provenance: Any, folder: str) -> Iterator[str]:
    """Sequences of the source in ``folder`` that a checkpoint was trained on; it knows the name of the folder only."""
    if isinstance(provenance, dict):
        source = str(provenance.get("source", ""))
        if source.rpartition(":")[2] == folder:
            yield from provenance.get("sequences") or ()
        provenance = list(provenance.values())
    if isinstance(provenance, list):
        for value in provenance:
            yield from _trained_on(value, folder)


def _open(args: argparse.Namespace, lr_scale: float | None) -> Sequences:
    sequences = open_source(
        args.data,
        split=args.split,
        skip_bad=args.skip_bad,
        lr_scale=lr_scale,
        lr_folder=args.lr_folder,
        depth_unit=args.depth_unit,
        invalid_above=args.invalid_above,
    )
    print_notes(sequences.notes)
    return sequences


def _evaluate_scale(
    scale: float, runners: dict[str, Runner], args: argparse.Namespace, report: dict[str, Any]
) -> dict[str, Any]:
    tqdm = require("tqdm", extra="report").tqdm
    simulated = args.lr == "simulated"
    info = runners["model"].upsampler.info if "model" in runners else None
    warnings = [] if info is None or info.recurrent or scale in info.scales else [_scale_warning(scale, info.scales)]
    for text in warnings:
        print(f"WARNING: {text}", file=sys.stderr)  # now, too: figures come minutes later
    sequences = _open(args, None if simulated else scale)
    skipped = list(sequences.left_out)
    chosen = _spread(sequences, args.limit)
    kind, place = parse_source(args.data)
    total = sum(min(len(s), args.max_frames or len(s)) for s in chosen)
    results: dict[str, SequenceResult] = {}
    alone = len(chosen) == len(args.scale) == 1
    known = set() if info is None else set(_trained_on(info.provenance, place.rstrip("/").rpartition("/")[2]))
    named = dict(zip(unique_names(s.name for s in chosen), chosen, strict=True))
    stored = _stored(named, args, skipped)
    with tqdm(total=total, unit="frame", desc=f"x{scale:g}", dynamic_ncols=True) as progress:
        for number, (name, sequence) in enumerate(named.items()):
            if name not in stored:
                continue
            methods = _in_order(runners, stored[name])
            low = LowResolution(scale, simulated, _sensor(args), args.seed + number)
            doubts = [*warnings, _trained_on_warning([name])] if name in known else warnings
            page = None
            if args.report:
                folder = args.report if alone else args.report / _file_name(name, scale)
                length = min(len(sequence), args.max_frames or len(sequence))
                page = EvaluationReport(folder, _in_question_first(methods, args), length, _score_device(methods))
            try:
                with page or nullcontext():
                    results[name] = _evaluate_one(name, sequence, low, methods, kind, args, page, progress.update)
            except (DataError, InputError) as error:
                if not args.skip_bad:
                    raise
                skipped.append(str(error))
                continue
            except KeyboardInterrupt:
                if page is not None and len(page):
                    page.write(name, scale, _settings_of(report), None, doubts)
                raise
            if page is not None:
                page.write(name, scale, _settings_of(report, results[name]), results[name], doubts)
    if not results:
        raise DataError(f"{args.data}: no sequence could be evaluated; the first problem was: {skipped[0]}")
    trained_on = sorted(known.intersection(results))
    if trained_on:
        warnings.append(_trained_on_warning(trained_on))
    figures = {name: result.figures for name, result in results.items()}
    notices = sorted({f"{m}: {text}" for r in results.values() for m, texts in r.notices.items() for text in texts})
    return {
        "mean": mean_figures(figures),
        "sequences": figures,
        "frames": {name: result.frames for name, result in results.items()},
        "tepe_flow": {name: result.flow for name, result in results.items()},
        "range_m": {name: result.range_m for name, result in results.items()},
        "clip_truth_m": {name: result.clip_truth_m for name, result in results.items()},
        "trained_on": trained_on,
        "warnings": warnings,
        "skipped": skipped,
        "notices": notices,
    }


def _stored(
    sequences: Mapping[str, RgbdSequence], args: argparse.Namespace, skipped: list[str]
) -> dict[str, dict[str, StoredPredictions]]:
    """The predictions of each sequence by method, found before anything is computed.

    With ``--skip-bad``, sequences without all of them are absent, and ``skipped`` says why."""
    stored: dict[str, dict[str, StoredPredictions]] = {}
    for name, sequence in sequences.items():
        size = len(sequence), min(len(sequence), args.max_frames or len(sequence))
        try:
            stored[name] = {
                method: open_predictions(folder, name, *size, alone=len(sequences) == 1)
                for method, folder in args.predictions
            }
        except DataError as error:
            if not args.skip_bad:
                raise
            skipped.append(str(error))
    return stored


def _in_order(runners: Mapping[str, Runner], stored: Mapping[str, StoredPredictions]) -> dict[str, Method]:
    """All methods as the table has them: the model, stored predictions, classical methods."""
    if not stored:
        return dict(runners)
    own = {name: runner for name, runner in runners.items() if name in ("model", FORGETFUL)}
    return {**own, **stored, **runners}


def _scale_warning(scale: float, trained: tuple[int, ...]) -> str:
    return f"the model was not trained for x{scale}, but for {checkpoints.scales_text(trained)}"


def _trained_on_warning(sequences: list[str]) -> str:
    return f"the model was trained on {', '.join(sequences)}"


def _evaluate_one(
    name: str,
    sequence: RgbdSequence,
    low: LowResolution,
    methods: dict[str, Method],
    kind: str,
    args: argparse.Namespace,
    page: EvaluationReport | None,
    progress: Callable[[], Any],
) -> SequenceResult:
    middle = (min(len(sequence), args.max_frames or len(sequence)) - 1) // 2

    def on_frame(index: int, frame: EvaluationFrame, scored: ScoredFrame) -> None:
        progress()
        if args.pictures and index == middle:
            _draw(args.pictures / f"{_file_name(name, low.scale)}.png", frame, scored.predictions)
        if page is not None:
            page.add(index, frame, scored)

    return evaluate_sequence(
        sequence,
        methods,
        low,
        kind=kind,
        frames=args.max_frames,
        clip_truth=args.clip_truth,
        device=str(_score_device(methods)),
        on_frame=on_frame,
    )


def _in_question_first(methods: Mapping[str, Method], args: argparse.Namespace) -> list[str]:
    """The methods, first the one that a report is about: the model, else the first given, else the most elaborate."""
    given = "model" in methods or args.methods or args.predictions
    return list(methods) if given else list(reversed(methods))


def _file_name(sequence: str, scale: float) -> str:
    return f"{_plain_name(sequence)}_x{scale}"


def _write_json(args: argparse.Namespace, report: dict[str, Any]) -> None:
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(plain_json(report), indent=1) + "\n")


def _judge_recordings(methods: list[str], args: argparse.Namespace, report: dict[str, Any]) -> None:
    """The command with ``--self``."""
    tqdm = require("tqdm", extra="report").tqdm
    runners = {name: _runner(name, args) for name in methods}
    report["device"], report["precision"] = _computed_on(runners)
    if "model" in runners:
        report["model"] = _describe_model(runners["model"])
    lr_scale = args.scale[0] if args.lr == "disk" else None
    sequences = _open(args, lr_scale)
    report["skipped"] = list(sequences.left_out)
    chosen = _spread(sequences, args.limit)
    order = _in_question_first(runners, args)
    report["recordings"] = {}
    total = sum(min(len(s), args.max_frames or len(s)) for s in chosen)
    with tqdm(total=total, unit="frame", desc="itself", dynamic_ncols=True) as progress:
        for name, sequence in zip(unique_names(s.name for s in chosen), chosen, strict=True):
            score, page = RecordingScore(order), None
            if args.report:
                folder = args.report if len(chosen) == 1 else args.report / _plain_name(name)
                length = min(len(sequence), args.max_frames or len(sequence))
                page = EvaluationReport(folder, order, length, _score_device(runners), score)
            try:
                notices = _judge_one(name, sequence, runners, score, args, page, report, progress.update)
            except (DataError, InputError) as error:
                if not args.skip_bad:
                    raise
                report["skipped"].append(str(error))
                continue
            report["recordings"][name] = {
                "figures": score.figures(),
                "frames": score.frames,
                **recording_summary(score, order[0]),
                "notices": notices,
            }
            print(_recording_text(name, score, report["recordings"][name]))
    if not report["recordings"]:
        raise DataError(f"{args.data}: no sequence could be judged; the first problem was: {report['skipped'][0]}")
    for text in report["skipped"]:
        print(f"left out: {text}")
    _write_json(args, report)
    if args.report:
        for name in report["recordings"]:
            folder = args.report if len(chosen) == 1 else args.report / _plain_name(name)
            print(f"Open {(folder / 'report.html').resolve()} in a browser")


def _judge_one(
    name: str,
    sequence: RgbdSequence,
    runners: dict[str, Runner],
    score: RecordingScore,
    args: argparse.Namespace,
    page: EvaluationReport | None,
    report: dict[str, Any],
    progress: Callable[[], Any],
) -> dict[str, list[str]]:
    """Judge a recording and write its page, also when it is interrupted; returns what the methods had to say."""

    def on_frame(judged: JudgedFrame) -> None:
        progress()
        if page is not None:
            page.add_judged(judged)

    def write(notices: dict[str, list[str]] | None) -> None:
        if page is not None and len(page):
            page.write_recording(name, _settings_of(report), notices, runners[score.methods[0]].ms_per_frame)

    try:
        with page or nullcontext():
            notices = judge_recording(sequence, runners, score, frames=args.max_frames, on_frame=on_frame)
    except KeyboardInterrupt:
        write(None)
        raise
    write(notices)
    return notices


def _recording_text(name: str, score: RecordingScore, result: Mapping[str, Any]) -> str:
    lines = [
        f"{name}: {score.frames} frames, {100 * score.unmeasured_share:.1f} % of the pixels without a measurement, "
        f"{100 * score.standing_share:.1f} % stand still; lengths in cm",
        table_text(Table(COLUMNS, result["figures"])),
        result["verdict"],
    ]
    lines += [f"note: {method}: {text}" for method, texts in result["notices"].items() for text in texts]
    return "\n".join(lines) + "\n"


def _plain_name(sequence: str) -> str:
    return sequence.replace("/", "_").replace(":", "_")


def _settings_of(report: dict[str, Any], result: SequenceResult | None = None) -> dict[str, Any]:
    """What a page shows as its configuration; ``result`` adds what was chosen for the sequence."""
    settings = {name: report[name] for name in ("data", "split", "checkpoint") if report[name] is not None}
    settings |= {f"predictions: {name}": folder for name, folder in report.get("predictions", {}).items()}
    settings |= {f"low-resolution depth: {key}": value for key, value in report.get("low_resolution", {}).items()}
    if result is not None and result.range_m is not None:
        settings["low-resolution depth: range_m"] = round(result.range_m, 3)
    if result is not None and result.clip_truth_m is not None:
        settings["true depth: clip_truth_m"] = result.clip_truth_m
    settings |= {name: report[name] for name in ("device", "precision")}
    shown = ("name", "trained_scales", "depth_range", "latency")
    return settings | {f"model: {key}": report["model"][key] for key in shown if "model" in report}


def _index(args: argparse.Namespace, report: dict[str, Any]) -> Path:
    """The page to open: that of the only report, or one that leads to all."""
    scales = {ratio_argument(scale): result for scale, result in report["scales"].items()}
    names = {(name, scale) for scale, result in scales.items() for name in result["sequences"]}
    if (args.report / "report.html").is_file() and len(names) == 1:
        return args.report / "report.html"
    folders = {(name, scale): _file_name(name, scale) for name, scale in names}
    return write_index(args.report, args.data, _COLUMNS, scales, folders)


def _spread(sequences: Sequences, limit: int | None) -> list[RgbdSequence]:
    if limit is None or limit >= len(sequences):
        return list(sequences)
    return [sequences[int(i)] for i in np.linspace(0, len(sequences) - 1, limit).round()]


def _score_device(methods: Mapping[str, Method]):
    return next(m for m in methods.values() if isinstance(m, Runner)).upsampler.placement.device


def _draw(path: Path, frame: EvaluationFrame, depths: Mapping[str, np.ndarray]) -> None:
    rgb = (frame.rgb * 255).round().astype(np.uint8)
    tiles = frame_tiles(rgb, nan_where_invalid(frame.depth_lr), dict(depths), nan_where_invalid(frame.target))
    columns = 2 + len(depths)
    tiles.insert(columns + 1, Tile("", np.full_like(rgb, 255)))  # errors stand below their depths
    picture = compose(tiles, columns=columns, tile_width=max(rgb.shape[1], 240))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise InputError(f"{path} cannot be written")


def _text(scale: float, result: dict[str, Any], report: dict[str, Any]) -> str:
    """The figures of one scale as text."""
    rows = [(name, methods) for name, methods in result["sequences"].items()]
    if len(rows) > 1:
        rows.append(("mean", result["mean"]))
    first = max(len(name) for name, _ in rows)
    second = max(len(method) for method in result["mean"])
    frames = sum(result["frames"].values())
    low = report["low_resolution"]
    ranges = [metres for metres in result["range_m"].values() if metres is not None]
    within = f", range {_span(ranges)} m" if ranges else ""
    sensor = f" (a {low['sensor']}{within})" if "sensor" in low else ""
    lines = [
        f"x{scale}, {report['data']}: {len(result['sequences'])} sequences, {frames} frames; "
        f"low-resolution depth {low['source']}{sensor}; lengths in cm"
    ]
    lines.append(f"{'sequence':{first}}  {'method':{second}}" + "".join(f"{title:>11}" for title in _COLUMNS))
    for name, methods in rows:
        lines.append("-" * len(lines[1]))
        for method, figures in methods.items():
            cells = (_cell(figures[key] * factor) for key, factor in _COLUMNS.values())
            lines.append(f"{name:{first}}  {method:{second}}" + "".join(cells))
            name = ""
    flows = set(result["tepe_flow"].values())
    if "true" in flows and len(flows) == 1:
        lines.append("TEPE: along the data's own optical flow")
    elif flows - {"none"}:
        lines.append(
            "TEPE: along optical flow ESTIMATED from colour (OpenCV DIS); not comparable with published values"
        )
    clips = [metres for metres in result["clip_truth_m"].values() if metres is not None]
    if clips:
        lines.append(f"true depth is clipped to {_span(clips)} m")
    other = "" if report["precision"] == "fp32" else ", other methods in fp32"
    lines.append(f"computed on {report['device']} in {report['precision']}{other}")
    model = report.get("model")
    if model:
        lines.append(
            f"model: {model['name']}, trained for {checkpoints.scales_text(model['trained_scales'])}, sees "
            f"{model['latency']} later frames"
        )
    lines += [f"WARNING: {text}" for text in result["warnings"]]
    lines += [f"note: {text}" for text in result["notices"]]
    lines += [f"left out: {text}" for text in result["skipped"]]
    return "\n".join(lines) + "\n"


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _cell(value: float) -> str:
    return f"{'-':>11}" if math.isnan(value) else f"{value:11.2f}"


def plain_json(value: Any) -> Any:
    """JSON has no NaN: null stands for "nothing to measure"."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    run_cli(main)
