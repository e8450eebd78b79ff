"""Exports a network: ``python -m stdnet_core.export CHECKPOINT --size 320x240 --output model.onnx``.

The command runs the written file with ONNX Runtime and compares the output with PyTorch's. See docs/export.md."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from stdnet_core import checkpoints
from stdnet_core.cli import positive_int, run_cli
from stdnet_core.export import recurrent, streaming
from stdnet_core.model import RecurrentNet


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = _parser().parse_args(arguments)
    model, info = checkpoints.load(args.checkpoint)
    if isinstance(model, RecurrentNet):
        recurrent.run(model, info, args)
    else:
        streaming.run(model, info, args)


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(n) for n in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT") from None
    return width, height


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 1 <= scale < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return scale


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.export", description="Export the streaming network as an ONNX file and check it."
    )
    parser.add_argument("checkpoint", help="a .safetensors file or the name of a shipped checkpoint")
    parser.add_argument("--format", choices=["onnx"], default="onnx", help="file format (default: %(default)s)")
    parser.add_argument("--size", type=_size, default=(320, 240), help="of colour, WIDTHxHEIGHT (default: 320x240)")
    parser.add_argument(
        "--scale",
        type=_scale,
        help="upsampling factor, at least 1; recurrent networks accept any (default: the checkpoint's largest, or 1)",
    )
    parser.add_argument(
        "--latency", type=int, default=0, help="following frames to wait for, 0 to 8 (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="file to write, ending in .onnx")
    parser.add_argument("--frames", help="also check on recorded frames: KIND:PATH as for stdnet_core.predict")
    parser.add_argument(
        "--check-frames", type=positive_int, default=6, help="frames to compare with PyTorch (default: 6)"
    )
    return parser


if __name__ == "__main__":
    run_cli(main)
