"""Evaluates sequences with ground truth, one after the other at one scale, each with a page of the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stdnet_core import checkpoints
from stdnet_core.analyses.options import (
    chosen_sensor,
    file_name,
    in_question_first,
    open_sequences,
    score_device,
    settings_of,
    spread,
)
from stdnet_core.cli import require
from stdnet_core.data.protocol import LowResolution
from stdnet_core.data.rgbd_sequence import RgbdSequence, unique_names
from stdnet_core.data.sensors.arguments import ratio_argument
from stdnet_core.data.sources import parse_source
from stdnet_core.errors import DataError, InputError
from stdnet_core.evaluation.methods import FORGETFUL, Method, Runner
from stdnet_core.evaluation.scoring import ScoredFrame, mean_figures
from stdnet_core.evaluation.sequence import EvaluationFrame, SequenceResult, evaluate_sequence
from stdnet_core.evaluation.stored_predictions import StoredPredictions, open_predictions
from stdnet_core.inference.engine import as_bytes
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.report.animation import Animation
from stdnet_core.report.evaluation_report import EvaluationReport, write_index
from stdnet_core.report.evaluation_text import FIGURE_COLUMNS
from stdnet_core.report.panels import Tile, compose, frame_tiles


def _trained_on(provenance: Any, folder: str) -> Iterator[str]:
    """Sequences of the source in ``folder`` that a checkpoint was trained on; it records only the folder's name."""
    if isinstance(provenance, dict):
        source = str(provenance.get("source", ""))
        if source.rpartition(":")[2] == folder:
            yield from provenance.get("sequences") or ()
        provenance = list(provenance.values())
    if isinstance(provenance, list):
        for value in provenance:
            yield from _trained_on(value, folder)


def evaluate_scale(
    scale: float, runners: dict[str, Runner], args: argparse.Namespace, report: dict[str, Any]
) -> dict[str, Any]:
    tqdm = require("tqdm", extra="report").tqdm
    simulated = args.lr == "simulated"
    info = runners["model"].upsampler.info if "model" in runners else None
    warnings = [] if info is None or info.recurrent or scale in info.scales else [_scale_warning(scale, info.scales)]
    for text in warnings:
        print(f"WARNING: {text}", file=sys.stderr)  # also now, because the figures take minutes
    sequences = open_sequences(args, None if simulated else scale)
    skipped = list(sequences.left_out)
    chosen = spread(sequences, args.limit)
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
            low = LowResolution(scale, simulated, chosen_sensor(args), args.seed + number)
            doubts = [*warnings, _trained_on_warning([name])] if name in known else warnings
            page = None
            if args.report:
                folder = args.report if alone else args.report / file_name(name, scale)
                length = min(len(sequence), args.max_frames or len(sequence))
                page = EvaluationReport(folder, in_question_first(methods, args), length, score_device(methods))
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
                    page.write(name, scale, settings_of(report), None, doubts)
                raise
            if page is not None:
                page.write(name, scale, settings_of(report, results[name]), results[name], doubts)
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
    """The predictions for each sequence by method, looked up before anything is computed.

    With ``--skip-bad``, sequences that lack some are left out, and ``skipped`` gets the reason."""
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
    """All methods in the order of the table: the model, stored predictions, classical methods."""
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
    length = min(len(sequence), args.max_frames or len(sequence))
    middle = (length - 1) // 2
    animation = Animation(_input_of(args, low), length) if args.animation else None
    shown = in_question_first(methods, args)[0]

    def on_frame(index: int, frame: EvaluationFrame, scored: ScoredFrame) -> None:
        progress()
        if args.pictures and index == middle:
            _draw(args.pictures / f"{file_name(name, low.scale)}.png", frame, scored.predictions)
        if animation is not None:
            assert scored.upsampled is not None  # always set by evaluate_sequence
            panels = {"bilinear": scored.upsampled, _caption(shown, methods[shown]): scored.predictions[shown]}
            animation.add(as_bytes(frame.rgb), nan_where_invalid(frame.depth_lr), panels, frame.target)
        if page is not None:
            page.add(index, frame, scored)

    result = evaluate_sequence(
        sequence,
        methods,
        low,
        kind=kind,
        frames=args.max_frames,
        clip_truth=args.clip_truth,
        device=str(score_device(methods)),
        on_frame=on_frame,
    )
    if animation is not None:
        animation.write(args.animation / f"{file_name(name, low.scale)}.webp")
    return result


def _input_of(args: argparse.Namespace, low: LowResolution) -> str:
    """The origin of the input depth, for a title."""
    return f"{args.sensor if low.simulated else 'depth of the source'} at x{low.scale:g}"


def _caption(name: str, method: Method) -> str:
    """A method's name in a picture, for readers who have not seen the command: the network gets its own name."""
    if name == "model" and isinstance(method, Runner) and method.upsampler.info is not None:
        return f"the network, {method.upsampler.info.name}"
    return name.replace("_", " ")


def index_page(args: argparse.Namespace, report: dict[str, Any]) -> Path:
    """The page to open: the only report, or an index of all reports."""
    scales = {ratio_argument(scale): result for scale, result in report["scales"].items()}
    names = {(name, scale) for scale, result in scales.items() for name in result["sequences"]}
    if (args.report / "report.html").is_file() and len(names) == 1:
        return args.report / "report.html"
    folders = {(name, scale): file_name(name, scale) for name, scale in names}
    return write_index(args.report, args.data, FIGURE_COLUMNS, scales, folders)


def _draw(path: Path, frame: EvaluationFrame, depths: Mapping[str, np.ndarray]) -> None:
    rgb = as_bytes(frame.rgb)
    tiles = frame_tiles(rgb, nan_where_invalid(frame.depth_lr), dict(depths), nan_where_invalid(frame.target))
    columns = 2 + len(depths)
    tiles.insert(columns + 1, Tile("", np.full_like(rgb, 255)))  # errors stand below their depths
    picture = compose(tiles, columns=columns, tile_width=max(rgb.shape[1], 240))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise InputError(f"{path} cannot be written")
