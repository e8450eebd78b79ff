"""Draws synthetic scenes or times the generator: ``python -m stdnet_core.data.synthetic --help``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from stdnet_core.cli import run_cli
from stdnet_core.data.clip import RgbdClip
from stdnet_core.errors import DataError, InputError

from .benchmark import FRAMES, PRIMITIVES, SIZE, Timing, benchmark
from .config import LAYOUTS, SyntheticConfig
from .demo import demo_sequence
from .generator import render_clip


def _tile(clip: RgbdClip, label: str) -> np.ndarray:
    """Colour over depth (2H, W, 3) uint8 BGR of a clip's first frame; invalid depth is black."""
    colour = (clip.rgb[0].permute(1, 2, 0).cpu().numpy()[..., ::-1] * 255).astype(np.uint8)
    depth, valid = clip.depth[0, 0].cpu().numpy(), clip.valid[0, 0].cpu().numpy()
    low, high = (depth[valid].min(), depth[valid].max()) if valid.any() else (1.0, 1.0)
    shade = 1 - np.log(np.maximum(depth, low) / low) / max(np.log(high / low), 1e-6)
    painted = cv2.applyColorMap((shade * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    painted[~valid] = 0
    cv2.putText(painted, f"{label}: {low:.2f}-{high:.2f} m", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255,) * 3)
    return np.concatenate((colour, painted))


def _sheet(seeds: range, height: int, width: int, columns: int, config: SyntheticConfig, device: str) -> np.ndarray:
    tiles = [_tile(render_clip(seed, 1, height, width, config, device), str(seed)) for seed in seeds]
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)])


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; give HEIGHTxWIDTH, such as 192x256")
    return int(height), int(width)


def main() -> None:
    """Parse the command line and draw or time."""
    parser = argparse.ArgumentParser(prog="python -m stdnet_core.data.synthetic", description=__doc__)
    parser.add_argument("--benchmark", action="store_true", help="time the generator against a straightforward one")
    parser.add_argument("--batch", type=int, default=1, help="clips rendered at once by the benchmark")
    parser.add_argument("--json", type=Path, help="also write the benchmark's figures to this file")
    parser.add_argument("--sheet", type=Path, help="draw a contact sheet of scenes to this PNG")
    parser.add_argument("--demo", type=Path, help="draw a frame of the demonstration room to this PNG")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the sheet, or frame of the demonstration")
    parser.add_argument("--count", type=int, default=16, help="scenes on the sheet")
    parser.add_argument("--columns", type=int, default=4, help="columns of the sheet")
    parser.add_argument("--size", type=_size, default=(192, 256), help="HEIGHTxWIDTH of each picture")
    parser.add_argument("--layout", choices=LAYOUTS, help="only this kind of scene")
    parser.add_argument("--device", default="cpu", help="torch device")
    arguments = parser.parse_args()
    if min(arguments.batch, arguments.count, arguments.columns) < 1:
        raise InputError("--batch, --count and --columns must be at least 1")
    if not (arguments.benchmark or arguments.sheet or arguments.demo):
        parser.error("nothing to do: give --benchmark, --sheet PNG or --demo PNG")
    if arguments.benchmark:
        _report(benchmark(arguments.device, batch=arguments.batch), arguments.json)
    if arguments.sheet:
        chosen: dict[str, Any] = {name: float(name == arguments.layout) for name in LAYOUTS} if arguments.layout else {}
        config = SyntheticConfig(zoom=1.0, **chosen)
        seeds = range(arguments.seed, arguments.seed + arguments.count)
        height, width = arguments.size
        _write(arguments.sheet, _sheet(seeds, height, width, arguments.columns, config, arguments.device))
    if arguments.demo:
        sequence = demo_sequence(max(90, arguments.seed + 1), device=arguments.device)
        _write(arguments.demo, _tile(sequence.clip(arguments.seed, 1), "demo"))


def _report(timings: dict[str, Timing], path: Path | None) -> None:
    labels = {
        "plain": f"{PRIMITIVES} primitives, colour + depth + flow",
        "straightforward": "the same, every primitive against every pixel",
        "full": "with antialiasing, shadows and sensor",
        "training": "random training scenes, with their generation (mean)",
    }
    print(f"{FRAMES} frames of {SIZE}x{SIZE}, {torch.get_num_threads()} threads        wall ms  processor ms")
    for name, label in labels.items():
        print(f"{label:54}{timings[name].wall:7.0f}{timings[name].processor:14.0f}")
    ratio = timings["straightforward"].processor / timings["plain"].processor
    print(f"straightforward / plain (processor): {ratio:.1f}")
    if path:
        figures = {name: asdict(timing) for name, timing in timings.items()}
        path.write_text(json.dumps(figures | {"ratio": ratio}, indent=1) + "\n")


def _write(path: Path, picture: np.ndarray) -> None:
    try:
        done = cv2.imwrite(str(path), picture)
    except cv2.error as error:
        raise DataError(f"cannot write {path} ({error.err}); give a name that ends in .png") from error
    if not done:
        raise DataError(f"cannot write {path}; does its folder exist?")
    print(path)


if __name__ == "__main__":
    run_cli(main)
