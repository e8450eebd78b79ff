"""Writes low-resolution depth next to the paper's data: ``python -m stdnet_core.make_lr dydtof:PATH --scale 4,8,16``.

For each full-resolution depth image of TartanAir, DyDToF or DynamicReplica, it writes a .npy file (float32 metres, 0
invalid) in the layout of the release, such as DyDToF_LR/X8/<scene>/<shot>/depth. ``evaluate --lr disk`` reads the
files, and other methods can run on them. By default, DyDToF is simulated as in the release (20 m range, errors of up to
2 bins), and the other data sets with the paper's time-of-flight sensor. After an interruption, the same command
resumes."""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stdnet_core.cli import require, run_cli
from stdnet_core.data import dydtof, dynamic_replica, tartanair
from stdnet_core.data.file_sequence import FileSequence
from stdnet_core.data.image_files import DEPTH_SUFFIXES
from stdnet_core.data.low_resolution import LowResolutionTree
from stdnet_core.data.protocol import PROTOCOL_CLIPS, PROTOCOL_RANGES, LowResolution, sensor_range, simulated_camera
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors import delivered_size
from stdnet_core.data.sensors.arguments import add_sensor_arguments, describe, scales_argument, sensor_from
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.data.sources import open_source, parse_source
from stdnet_core.errors import ConfigError, DataError, InputError

TREES: dict[str, LowResolutionTree] = {
    "tartanair": tartanair.LOW_RESOLUTION,
    "dydtof": dydtof.LOW_RESOLUTION,
    "dynamic_replica": dynamic_replica.LOW_RESOLUTION,
}
"""Kinds of sources for which low-resolution depth can be written."""
SETTINGS_FILE = "make_lr.json"
"""File next to a sequence's folder of low-resolution depth, with the settings of the simulation."""

_SENSORS = {"dydtof": "dtof_jitter"}
_SENSOR = "dtof_paper"
_RANGES = {**PROTOCOL_RANGES, "dydtof": dydtof.LOW_RESOLUTION_RANGE_M}
_CHUNK = 8  # frames read at once


@dataclass(frozen=True)
class _Job:
    """Low-resolution depth of one sequence for one scale.

    Attributes:
        files: one per frame.
        settings: with which the files must have been written.
    """

    sequence: FileSequence
    files: Sequence[Path]
    low_resolution: LowResolution
    settings: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.files[0].parent


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = _parser().parse_args(arguments)
    kind, place = parse_source(args.source)
    if kind not in TREES:
        raise ConfigError(f"{args.source} is of kind {kind}; low-resolution depth is written for {', '.join(TREES)}")
    _complete(args, kind)
    tqdm = require("tqdm", extra="report").tqdm
    sequences = open_source(args.source, split=args.split, skip_bad=args.skip_bad)
    left_out = list(sequences.left_out)
    output = args.output or TREES[kind].place(Path(place))
    jobs = [_job(sequence, scale, output, kind, args) for scale in args.scale for sequence in sequences]
    if not args.overwrite:
        for job in jobs:
            _refuse_others(job)
    written = dict.fromkeys(args.scale, 0)
    with tqdm(total=sum(len(job.sequence) for job in jobs), unit="frame", dynamic_ncols=True) as progress:
        for job in jobs:
            progress.set_description(f"x{job.low_resolution.scale:g} {job.sequence.name}")
            try:
                written[job.low_resolution.scale] += _write(job, kind, progress.update)
            except (DataError, InputError) as error:
                if not args.skip_bad:
                    raise
                left_out.append(str(error))
    for text in dict.fromkeys(left_out):
        print(f"left out: {text}")
    for scale, count in written.items():
        there = sum(file.is_file() for job in jobs if job.low_resolution.scale == scale for file in job.files)
        print(f"{output / TREES[kind].name / f'X{scale}'}: {there} files, {count} of them written now")
    if not any(file.is_file() for job in jobs for file in job.files):
        raise DataError(f"{args.source}: no low-resolution depth could be made; the first problem was: {left_out[0]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.make_lr", description=__doc__.partition("\n\n")[2].strip()
    )
    parser.add_argument("source", metavar="[KIND:]PATH", help=f"data of kind {', '.join(TREES)}")
    parser.add_argument("--scale", type=scales_argument, required=True, metavar="S[,S...]", help="e.g. 8 or 4,8,16")
    parser.add_argument("--split", help="a split of the paper, e.g. test; that of DynamicReplica has cropped frames")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder in which to create the tree of low-resolution depth (default: next to the data, where evaluate "
        "--lr disk finds it; for other folders, give evaluate --lr-folder)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace low-resolution depth that was written with other settings"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out damaged data, and list them")
    add_sensor_arguments(parser, None, f"{_SENSOR}, for DyDToF {_SENSORS['dydtof']} as in the release")
    parser.add_argument(
        "--range-m",
        type=float,
        metavar="M",
        help="range of a dToF sensor (default: 30 TartanAir, 20 DyDToF as in the release, else the sequence's largest "
        "depth)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random parts of the simulation")
    return parser


def _complete(args: argparse.Namespace, kind: str) -> None:
    """Choose the data set's sensor and range where none are given."""
    args.sensor = args.sensor or _SENSORS.get(kind, _SENSOR)
    measurement = sensor_from(args).measurement
    if not isinstance(measurement, Dtof):
        if args.range_m is not None:
            raise ConfigError(f"--range-m is only for dToF sensors, and {args.sensor} is not one; drop it")
        return
    given = args.range_m if args.range_m is not None else measurement.range_m
    args.range_m = _RANGES.get(kind) if given is None else given
    if args.range_m is not None:
        args.sensor_value.append(("dtof.range_m", args.range_m))
        sensor_from(args)  # raises an error for an invalid range


def _job(sequence: RgbdSequence, scale: float, output: Path, kind: str, args: argparse.Namespace) -> _Job:
    assert isinstance(sequence, FileSequence), "the kinds of TREES are files"
    tree = TREES[kind]
    height, width = delivered_size(sequence.frame_size, scale)
    clip = PROTOCOL_CLIPS.get(kind)
    depths = [files.depth for files in sequence.files if files.depth is not None]  # every frame of these kinds has it
    return _Job(
        sequence,
        [output / tree.name / f"X{scale}" / tree.file_of(depth) for depth in depths],
        LowResolution(scale, sensor=sensor_from(args), seed=args.seed + zlib.crc32(sequence.name.encode())),
        {"scale": scale, "size": [width, height], **describe(args), "clip_truth_m": clip, "seed": args.seed},
    )


def _there(job: _Job) -> list[Path]:
    """The files of low-resolution depth on disk."""
    if not job.folder.is_dir():
        return []
    return [path for path in job.folder.iterdir() if path.suffix in DEPTH_SUFFIXES]


def _made_with(job: _Job) -> dict[str, Any] | None:
    """The settings with which the files on disk were written; None if unknown."""
    try:
        return json.loads((job.folder.parent / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        return None


def _refuse_others(job: _Job) -> None:
    made = _made_with(job)
    if made == job.settings or not _there(job):
        return
    if made is None:
        what = "that this command did not write"
    else:
        names = [name for name in {**made, **job.settings} if made.get(name) != job.settings.get(name)]
        what = f"with other settings ({', '.join(f'{name} {made.get(name)}' for name in names)})"
    raise ConfigError(
        f"{job.folder} holds low-resolution depth {what}; give another --output, or --overwrite to replace it"
    )


def _write(job: _Job, kind: str, on_frames: Callable[[int], Any]) -> int:
    """Simulate a sequence's low-resolution depth and write the missing files; return their number."""
    sequence = job.sequence
    if _made_with(job) != job.settings:
        for path in _there(job):
            path.unlink()
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder.parent / SETTINGS_FILE).write_text(json.dumps(job.settings, indent=1) + "\n")
    if all(file.is_file() for file in job.files):
        on_frames(len(sequence))
        return 0
    job.folder.mkdir(parents=True, exist_ok=True)
    camera = simulated_camera(sequence, job.low_resolution, sensor_range(sequence, kind))
    clip_truth = PROTOCOL_CLIPS.get(kind, math.inf)
    written = 0
    for start in range(0, len(sequence), _CHUNK):  # from the first frame on: readings may depend on earlier ones
        clip = sequence.clip(start, min(_CHUNK, len(sequence) - start))
        low = camera.measure((clip.depth * clip.valid).clamp(max=clip_truth), clip.rgb)[:, 0].numpy()
        for file, depth in zip(job.files[start:], low, strict=False):
            if not file.is_file():
                _save(file, depth)
                written += 1
        on_frames(len(clip))
    return written


def _save(path: Path, depth: np.ndarray) -> None:
    """Write an array; the file is either complete or does not exist."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, depth.astype(np.float32))
    partial.replace(path)


if __name__ == "__main__":
    run_cli(main)
