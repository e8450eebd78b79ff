"""All work for a GPU that is available only for minutes, in one command: ``bash scripts/gpu_session.sh`` (docs/gpu.md).

A session is a list of steps in three groups: checks (the tests that need a GPU), benchmark, and training slices in the
remaining time. Each step is a separate process with a time limit. If one fails, hangs or crashes, this is recorded, and
the next step runs. The output folder always holds the results so far: ``results.json``, ``log.txt`` with the output of
the steps, and after each slice ``training_*.zip``, in small files. ``--dry-run`` runs everything in tiny sizes on the
CPU. ``--take-over FOLDER`` adds the results of a session to the repository."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from stdnet_core.cli import run_cli
from stdnet_core.errors import ConfigError
from stdnet_core.gpu_session.results import tables, take_over
from stdnet_core.gpu_session.session import Session
from stdnet_core.gpu_session.steps import (
    DRY_RUN,
    GROUPS,
    REPOSITORY,
    SLICE_MARGIN_S,
    TRAINING,
    Sizes,
    dry_network,
    slice_step,
    steps,
)

FILE_MB = 14.9
"""Largest file of the output."""


def _train(session: Session, work: Path, options: argparse.Namespace) -> None:
    """Run training slices until the time is over: one, and another after each that ends early because it diverged."""
    from stdnet_core.training import shards

    start, output = options.start, work / TRAINING
    for number in range(1, session.sizes.slices + 1):
        seconds = min(session.left() - SLICE_MARGIN_S, session.sizes.longest_slice_s)
        if options.slice_minutes is not None:
            seconds = min(seconds, 60 * options.slice_minutes)
        if seconds < session.sizes.shortest_slice_s:
            break
        result = session.run(slice_step(session.sizes, number, seconds, start, output, options))
        if not output.is_dir():
            break
        written = shards.pack(output, session.output, FILE_MB, TRAINING)
        session.results["training_files"] = [path.name for path in written]
        session.write()
        start = output
        if result["outcome"] != "done":
            break


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_session.sh", description="Use a GPU that is available for minutes: check, measure, train."
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY.SUB=VALUE", help="change the training configuration")
    parser.add_argument("--output", type=Path, default=Path("gpu_session"), help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=9.0, help="total time (default: %(default)s)")
    parser.add_argument("--groups", default=",".join(GROUPS), help="groups of steps to run (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="run all steps on the CPU in tiny sizes")
    parser.add_argument("--config", default="live_wide", help="training configuration (default: %(default)s)")
    parser.add_argument("--from", dest="start", type=Path, help="state to resume from (default: runs/gpu)")
    parser.add_argument("--shards", type=Path, help="folder of packed clips (default: runs/shards, if it has any)")
    parser.add_argument("--slice-minutes", type=float, help="time limit of a slice (default: all remaining time)")
    parser.add_argument("--take-over", type=Path, metavar="FOLDER", help="take over a session's results, then exit")
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"), help="where they are put (default: %(default)s)")
    parser.add_argument(
        "--page", type=Path, default=REPOSITORY / "docs" / "gpu.md", help="page for the tables (default: docs/gpu.md)"
    )
    parser.add_argument("--setup-seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; ``arguments`` default to those of the process. Returns 1 if a step failed."""
    started = time.monotonic()
    options = _parser().parse_intermixed_args(arguments)
    if options.take_over is not None:
        print("\n".join(take_over(options.take_over, options.runs, options.page)))
        return 0
    wanted = options.groups.split(",")
    unknown = sorted(set(wanted) - set(GROUPS))
    if unknown:
        raise ConfigError(f"unknown groups of steps: {', '.join(unknown)}; choose from {', '.join(GROUPS)}")
    if not options.minutes > 0:
        raise ConfigError(f"--minutes is {options.minutes}; give a positive number")
    sizes = DRY_RUN if options.dry_run else Sizes()
    options.output = options.output.resolve()
    deadline = started - options.setup_seconds + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="stdnet_gpu_") as place:
        work = Path(place)
        if options.dry_run:
            sizes = dataclasses.replace(sizes, paper=dry_network(work))
        if options.start is None:  # a dry run must not resume a real run
            options.start = work / "nothing" if options.dry_run else Path("runs/gpu")
        options.start = options.start.resolve()
        options.shards = None if options.shards is None else options.shards.resolve()
        about = {"date": time.strftime("%Y-%m-%d"), "dry_run": options.dry_run, "minutes": options.minutes}
        about |= {"setup_seconds": options.setup_seconds, "groups": wanted}
        session = Session(options.output, deadline, sizes, about)
        for step in steps(sizes, work):
            if step.group in wanted:
                session.run(step)
        if "training" in wanted:
            _train(session, work, options)
    session.results["seconds"] = round(options.setup_seconds + time.monotonic() - started, 1)
    session.write()
    (options.output / "report.md").write_text(tables(session.results) + "\n", encoding="utf-8")
    print(f"{session.results['seconds']:.0f} s in total; results in {options.output}")
    return 1 if any(s["outcome"] in ("failed", "timed out") for s in session.results["steps"].values()) else 0


if __name__ == "__main__":
    run_cli(main)
