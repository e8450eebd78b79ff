"""Evaluates recordings without ground truth, each with a page of the report."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from stdnet_core.analyses.options import (
    computed_on,
    describe_model,
    in_question_first,
    make_runner,
    open_sequences,
    plain_name,
    score_device,
    settings_of,
    spread,
    write_json,
)
from stdnet_core.cli import require
from stdnet_core.data.rgbd_sequence import RgbdSequence, unique_names
from stdnet_core.errors import DataError, InputError
from stdnet_core.evaluation.methods import Runner
from stdnet_core.evaluation.recording import JudgedFrame, RecordingScore, judge_recording
from stdnet_core.report.evaluation_report import EvaluationReport
from stdnet_core.report.evaluation_text import recording_text
from stdnet_core.report.recording_report import recording_summary


def judge_recordings(methods: list[str], args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Run ``evaluate --self``."""
    tqdm = require("tqdm", extra="report").tqdm
    runners = {name: make_runner(name, args) for name in methods}
    report["device"], report["precision"] = computed_on(runners)
    if "model" in runners:
        report["model"] = describe_model(runners["model"])
    lr_scale = args.scale[0] if args.lr == "disk" else None
    sequences = open_sequences(args, lr_scale)
    report["skipped"] = list(sequences.left_out)
    chosen = spread(sequences, args.limit)
    order = in_question_first(runners, args)
    report["recordings"] = {}
    total = sum(min(len(s), args.max_frames or len(s)) for s in chosen)
    with tqdm(total=total, unit="frame", desc="itself", dynamic_ncols=True) as progress:
        for name, sequence in zip(unique_names(s.name for s in chosen), chosen, strict=True):
            score, page = RecordingScore(order), None
            if args.report:
                folder = args.report if len(chosen) == 1 else args.report / plain_name(name)
                length = min(len(sequence), args.max_frames or len(sequence))
                page = EvaluationReport(folder, order, length, score_device(runners), score)
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
            print(recording_text(name, score, report["recordings"][name]))
    if not report["recordings"]:
        raise DataError(f"{args.data}: no sequence could be judged; the first problem was: {report['skipped'][0]}")
    for text in report["skipped"]:
        print(f"left out: {text}")
    write_json(args, report)
    if args.report:
        for name in report["recordings"]:
            folder = args.report if len(chosen) == 1 else args.report / plain_name(name)
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
    """Judge a recording and write its page, even if interrupted; returns the notices of the methods."""

    def on_frame(judged: JudgedFrame) -> None:
        progress()
        if page is not None:
            page.add_judged(judged)

    def write(notices: dict[str, list[str]] | None) -> None:
        if page is not None and len(page):
            page.write_recording(name, settings_of(report), notices, runners[score.methods[0]].ms_per_frame)

    try:
        with page or nullcontext():
            notices = judge_recording(sequence, runners, score, frames=args.max_frames, on_frame=on_frame)
    except KeyboardInterrupt:
        write(None)
        raise
    write(notices)
    return notices
