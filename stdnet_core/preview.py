"""Shows the contents of a source: a contact sheet and statistics.

    python -m stdnet_core.preview folder:/data/office --output contact.png --json statistics.json

Each strip of the sheet is one frame: colour, depth, low-resolution depth (the source's own, or simulated), and the
valid mask. Depth is coloured from near (warm) to far (cold), with one range per sequence; invalid pixels are black."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from stdnet_core.cli import add_unit_arguments, positive_int, print_notes, require, run_cli
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors import Sensor, simulate
from stdnet_core.data.sensors.arguments import add_sensor_arguments, ratio_argument, sensor_from
from stdnet_core.data.sources import KINDS, open_source
from stdnet_core.errors import DataError
from stdnet_core.report.contact_sheet import contact_sheet, frame_strip, statistics, table

_STRIPS_IN_ONE_COLUMN = 6


def main() -> None:
    """Command line."""
    arguments = _parser().parse_args()
    tqdm = require("tqdm", extra="report").tqdm
    sequences = open_source(
        arguments.source,
        split=arguments.split,
        skip_bad=arguments.skip_bad,
        lr_scale=arguments.lr_scale,
        depth_unit=arguments.depth_unit,
        invalid_above=arguments.invalid_above,
    )
    print_notes(sequences.notes)
    sensor = sensor_from(arguments)
    strips, tables = [], []
    spread = _spread(len(sequences), arguments.max_sequences)
    for index in tqdm(spread, desc="reading", unit="sequence", disable=None):
        try:
            strips_of_one, figures = _look_at(sequences[index], arguments, sensor)
        except DataError as error:
            if not arguments.skip_bad:
                raise
            sequences.left_out.append(str(error))
            continue
        strips += strips_of_one
        tables.append(figures)
    if not strips:
        raise DataError(f"{arguments.source}: none of the sequences can be read; {sequences.left_out[-1]}")
    _write(arguments.output, contact_sheet(strips, 1 if len(strips) <= _STRIPS_IN_ONE_COLUMN else 2))
    result = {
        "source": arguments.source,
        "sequences": len(sequences),
        "frames": sum(len(sequence) for sequence in sequences),
        "shown": tables,
        "left_out": sequences.left_out,
        "notes": sequences.notes,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(table(tables))
    print(f"{result['sequences']} sequences, {result['frames']} frames; {len(tables)} shown in {arguments.output}")
    for problem in sequences.left_out:
        print(f"left out: {problem}")


def _look_at(
    sequence: RgbdSequence, arguments: argparse.Namespace, sensor: Sensor
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Strips of some frames of a sequence, and its statistics."""
    numbers = _spread(len(sequence), arguments.frames)
    clips = [sequence.clip(number, 1) for number in numbers]
    lows = [low_resolution(clip, arguments.scale, sensor) for clip in clips]
    limits = _depth_limits([clip.depth for clip in clips] + lows)
    strips = [
        frame_strip(clip, low, limits, f"{sequence.name}  frame {number}", arguments.width)
        for clip, low, number in zip(clips, lows, numbers, strict=True)
    ]
    return strips, statistics(sequence, clips)


def low_resolution(clip: RgbdClip, scale: float, sensor: Sensor) -> Tensor:
    """The clip's own low-resolution depth (T, 1, h, w) in metres, or a sensor's simulated measurement of its depth."""
    if clip.depth_lr is not None:
        return clip.depth_lr
    focal_px = None if clip.intrinsics is None else float(clip.intrinsics[0, 0])
    return simulate(sensor, clip.depth * clip.valid, clip.rgb, scale, focal_px=focal_px)


def _write(path: Path, picture: np.ndarray) -> None:
    try:
        written = path.parent.is_dir() and cv2.imwrite(str(path), picture[..., ::-1])
    except cv2.error:  # an unknown suffix
        written = False
    if not written:
        raise DataError(f"{path}: the picture cannot be written; give a name ending in .png in an existing folder")


def _depth_limits(depths: Sequence[Tensor]) -> tuple[float, float]:
    """Range that holds 98 % of all measured depths; 0 and 1 m if there are none."""
    readings = np.concatenate([depth[depth > 0].flatten().numpy() for depth in depths])
    low, high = np.percentile(readings, (1, 99)) if readings.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-3))


def _spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` indices, evenly spread over ``count``."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, wanted)).round())]


def _parser() -> argparse.ArgumentParser:
    kinds = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.preview",
        description="Draw a contact sheet of a source and print its statistics.",
    )
    parser.add_argument("source", help=f"KIND:PATH, or a path whose kind is detected. {kinds}".replace("%", "%%"))
    parser.add_argument("--output", type=Path, default=Path("contact.png"), help="picture (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the statistics to this file")
    parser.add_argument("--split", help="split of a published data set")
    parser.add_argument("--skip-bad", action="store_true", help="leave out damaged frames and sequences, and list them")
    parser.add_argument("--frames", type=positive_int, default=2, help="frames of each sequence (default: %(default)s)")
    parser.add_argument(
        "--max-sequences", type=positive_int, default=8, help="sequences to show (default: %(default)s)"
    )
    parser.add_argument("--width", type=positive_int, default=320, help="of a picture, pixels (default: %(default)s)")
    parser.add_argument("--scale", type=ratio_argument, default=8, help="of simulated LR depth (default: %(default)s)")
    add_sensor_arguments(parser)
    add_unit_arguments(parser)
    parser.add_argument("--lr-scale", type=int, help="require the source's own LR depth of this scale")
    return parser


if __name__ == "__main__":
    run_cli(main)
