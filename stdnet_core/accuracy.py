"""The accuracy of a checkpoint: ``python -m stdnet_core.accuracy --checkpoint live`` (``make accuracy``).

Runs the methods of this project on every simulated depth camera, at every ratio that occurs, and compares them with the
methods that need no network. The data are of three kinds that no shipped network was trained on: procedural scenes with
other seeds, rendered clips of other levels and rooms (listed in ``config/train/heldout_clips.txt``), and recordings,
whose own depth serves as the true depth. Procedural scenes need no files; rendered and real clips are folders of RGB-D
sequences, given with ``--rendered`` and ``--real``.

Prints the matrix, the worst cell and the geometric mean of each method as ratios to the best rival, and the history
gain: the figures with the history of the stream, divided by those without. It can be interrupted; with ``--json``, the
next call resumes."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stdnet_core import checkpoints
from stdnet_core.cli import plain_json, positive_int, print_notes, require, run_cli
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors.cell import JUDGED, STANDING, Cell
from stdnet_core.data.sources import open_source
from stdnet_core.errors import ConfigError, DataError
from stdnet_core.evaluation import judge, librealsense
from stdnet_core.evaluation.judge import FILTER, Group, Judge, Task
from stdnet_core.inference import DepthUpsampler
from stdnet_core.report.accuracy_tables import accuracy_report
from stdnet_core.report.versions import versions

PROCEDURAL = "synthetic:2000001,3,240x320,8"
"""Scenes whose seeds no training or validation of this project uses."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; ``arguments`` default to those of the process. Returns 130 after Ctrl-C, else 0."""
    args = _parser().parse_args(arguments)
    require("tqdm", extra="report")
    if args.picture:
        require("matplotlib", extra="report")
    networks = args.checkpoint or [_network_of_auto()]
    names = [checkpoints.load(name)[1].name for name in networks]
    clips = {name: [s.name for s in sequences] for name, sequences in _sequences(args).items()}
    counts = {name: len(found) for name, found in clips.items()}
    tasks = judge.tasks_of(counts, args.cell or JUDGED, () if args.no_standing else _standing(args.cell))
    if not tasks:
        raise ConfigError("no cell fits the data: on recordings, only reductions and dToF can be simulated")
    filters = librealsense.installed()
    if not filters and any(librealsense.suits(task.cell.ratio) for task in tasks):
        print_notes(
            ["librealsense's filters are not among the rivals; they need pip install '.[realsense]' and libusb 1.0"]
        )
    settings = {
        "checkpoints": names,
        "librealsense": filters,
        "frames": args.frames,
        "size": list(args.size),
        "clips": clips,
    }
    results = _stored(args.json, settings)
    complete = True
    try:
        for task, result in _run([t for t in tasks if t.key not in results], networks, args):
            results[task.key] = result
            _store(args.json, settings, results)
    except KeyboardInterrupt:
        complete = False
    report = accuracy_report(results, tasks, [*names, FILTER])
    print(report["text"])
    if not complete:
        print("interrupted: this covers what was done so far")
    _store(args.json, settings, results, report["summary"])
    if args.markdown:
        _write(args.markdown, report["markdown"])
    if args.picture:
        from stdnet_core.report.figures import history_curves, ratio_matrix

        args.picture.parent.mkdir(parents=True, exist_ok=True)
        args.picture.write_bytes(ratio_matrix(report["rows"], [*names, FILTER]))
        curves = {name: history["frames"] for name, history in report["history"].items()}
        args.picture.with_name(f"{args.picture.stem}_history.png").write_bytes(history_curves(curves))
    return 0 if complete else 130


def held_out(folders: Iterable[Path], listing: Path) -> list[RgbdSequence]:
    """The sequences in the folders whose names are in the listing.

    Raises:
        DataError: there is no listing, or none of its sequences was found.
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
        "--checkpoint", action="append", metavar="FILE|NAME", help="may be repeated (default: that of method auto)"
    )
    parser.add_argument(
        "--cell",
        action="extend",
        type=lambda text: [Cell.parse(part) for part in text.split(",")],
        metavar="CAMERA@RATIO[,...]",
        help="cells to measure, e.g. area@8; may be repeated (default: all)",
    )
    parser.add_argument("--procedural", default=PROCEDURAL, metavar="SOURCE", help="default: %(default)s; or none")
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
        "--clips", type=positive_int, default=6, metavar="N", help="of each kind of data, evenly spread (default: 6)"
    )
    parser.add_argument("--frames", type=positive_int, default=8, metavar="N", help="of each clip (default: 8)")
    parser.add_argument(
        "--size", type=_size, default=(240, 320), metavar="HxW", help="centre crop of the clips (default: 240x320)"
    )
    parser.add_argument("--no-standing", action="store_true", help="leave out the static camera")
    parser.add_argument(
        "--workers", type=positive_int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures; existing ones are not run again")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables for a document")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="write the matrix as a heat map, and FILE_history.png"
    )
    return parser


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.partition("x")
    if not separator or not height.isdigit() or not width.isdigit() or min(int(height), int(width)) < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not HxW in pixels, at least 32 each, such as 240x320")
    return int(height), int(width)


def _network_of_auto() -> str:
    info = DepthUpsampler("auto", device="cpu").info
    if info is None:
        raise ConfigError("no checkpoint ships with this installation; give one with --checkpoint")
    return info.name


def _standing(cells: Sequence[Cell] | None) -> list[Cell]:
    return [cell for cell in STANDING if cells is None or cell in cells]


def _sequences(args: argparse.Namespace) -> dict[str, list[RgbdSequence]]:
    groups: dict[str, list[RgbdSequence]] = {}
    if args.procedural != "none":
        groups["procedural"] = list(open_source(args.procedural))
    if args.rendered:
        groups["rendered"] = held_out(args.rendered, args.heldout)
    if args.real:
        recordings = [open_source(folder) for folder in args.real]
        print_notes(note for found in recordings for note in found.notes)
        groups["real"] = [sequence for found in recordings for sequence in found]
    return {
        name: [found[int(i)] for i in np.linspace(0, len(found) - 1, min(args.clips, len(found))).round()]
        for name, found in groups.items()
    }


_judge: Judge | None = None
"""The judge of a worker process."""


def _start_worker(args: argparse.Namespace, networks: Sequence[str]) -> None:
    global _judge
    if args.workers > 1:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops its workers
        import cv2
        import torch

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    groups = [
        Group(name, [judge.read_clip(sequence, args.frames, args.size) for sequence in sequences])
        for name, sequences in _sequences(args).items()
    ]
    _judge = Judge(groups, networks, args.device)


def _work(task: Task) -> tuple[Task, dict[str, Any]]:
    assert _judge is not None
    return task, _judge.run(task)


def _run(
    tasks: Sequence[Task], networks: Sequence[str], args: argparse.Namespace
) -> Iterator[tuple[Task, dict[str, Any]]]:
    if not tasks:
        return
    tqdm = require("tqdm", extra="report").tqdm
    with tqdm(total=len(tasks), unit="clip", desc="accuracy", dynamic_ncols=True) as progress:
        if args.workers == 1:
            _start_worker(args, networks)
            for task in tasks:
                yield _work(task)
                progress.update()
            return
        # spawn: a forked worker hangs in its first parallel region once the parent has used OpenMP
        context = multiprocessing.get_context("spawn")
        with context.Pool(min(args.workers, len(tasks)), _start_worker, (args, networks)) as pool:
            for done in pool.imap_unordered(_work, tasks):
                yield done
                progress.update()


def _stored(path: Path | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Results of an earlier call with the same settings."""
    if path is None or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = content["settings"] == settings
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a file of this command ({error}); remove it or give another") from error
    if not same:
        raise ConfigError(f"{path} holds results for other settings or data; remove it or give another")
    return _with_nan(content["results"])


def _with_nan(value: Any) -> Any:
    """Convert JSON's null, which stands for "nothing to measure", back to NaN."""
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value


def _store(path: Path | None, settings: Mapping[str, Any], results: Mapping[str, Any], summary: Any = None) -> None:
    if path is None:
        return
    content = {"settings": settings, "versions": versions(), "summary": summary, "results": results}
    _write(path, json.dumps(plain_json(content), indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    run_cli(main)
