"""Converts a file that the paper's authors released to a checkpoint:
``python -m stdnet_core.convert released.pth --scale 8 --depth-range 30 x8.safetensors``.

The released file holds only tensors. The checkpoint also stores the scale and the depth range of the training, so that
evaluate, predict, the node, the benchmark and the export accept it like any other. No code in the file is run."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdnet_core import checkpoints
from stdnet_core.cli import positive_int, run_cli
from stdnet_core.errors import ConfigError


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = _parser().parse_args(arguments)
    if args.output.suffix != ".safetensors":
        raise ConfigError(f"{args.output}: a checkpoint is a .safetensors file; give it that ending")
    model, info = checkpoints.load_released(args.released, scale=args.scale, depth_range=args.depth_range)
    checkpoints.save(args.output, model, info)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{args.output}: {parameters:,} parameters, {checkpoints.scales_text(info.scales)}, depth divided by "
        f"{info.depth_range:g} m"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.convert", description=__doc__.partition("\n\n")[2].strip()
    )
    parser.add_argument("released", type=Path, metavar="RELEASED.pth", help="file released by the paper's authors")
    parser.add_argument("output", type=Path, metavar="OUTPUT.safetensors", help="checkpoint; replaced if it exists")
    parser.add_argument("--scale", type=positive_int, required=True, metavar="S", help="scale of its training, e.g. 8")
    parser.add_argument(
        "--depth-range",
        type=float,
        required=True,
        metavar="M",
        help="metres by which it divides depth: in the paper 30 for TartanAir, 40 for DyDToF",
    )
    return parser


if __name__ == "__main__":
    run_cli(main)
