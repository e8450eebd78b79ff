"""Exports recurrent networks, for ``python -m stdnet_core.export`` (see there).

The file holds one step: colour, depth, optical flow and the state in; depth, the scale of its error and the next state
out. Flow is estimated outside (:mod:`stdnet_core.optical_flow`); sizes are fixed."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.sensors import delivered_size
from stdnet_core.errors import CheckpointError, ConfigError
from stdnet_core.export.onnx_file import OPSET, export_metadata, prepare_output, write_onnx
from stdnet_core.inference.devices import Placement
from stdnet_core.inference.engine import RecurrentTorchEngine
from stdnet_core.inference.frames import Geometry
from stdnet_core.inference.onnx_engine import NEXT_PREFIX, RECURRENT_FORMAT, STATE_PREFIX, RecurrentOnnxEngine
from stdnet_core.model import RecurrentNet
from stdnet_core.model.recurrent import padded_size
from stdnet_core.model.recurrent.flat_step import STATE, FlatStep, flat_state
from stdnet_core.model.recurrent.geometry import STRIDE
from stdnet_core.streaming.stream import model_fingerprint

TOLERANCES = {"depth": 1e-3, "error_scale": 1e-2}
"""Largest difference to PyTorch, as a share of the value, that an export may show."""


@dataclass(frozen=True)
class RecurrentExportSize:
    """Sizes that an export is made for.

    Attributes:
        height, width: of colour, any.
        scale: times that colour is larger than depth, from 1 on; the size of depth is that of
            :func:`stdnet_core.data.sensors.delivered_size`.
    """

    height: int
    width: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.scale < float("inf"):
            raise ConfigError(f"scale is {self.scale:g}; give a number from 1 on")
        if min(self.height, self.width) < 1:
            raise ConfigError(f"size is {self.width}x{self.height}; give at least one pixel")

    @property
    def geometry(self) -> Geometry:
        """The grid of cells, as :class:`stdnet_core.inference.DepthUpsampler` chooses it for these sizes."""
        size = self.height, self.width
        return Geometry.native(size, delivered_size(size, self.scale))

    @property
    def ratio(self) -> tuple[float, float]:
        """Pixels of a cell of depth (rows, columns)."""
        geometry = self.geometry
        (height, width), (rows, columns) = geometry.covered, geometry.grid
        return height / rows, width / columns

    @property
    def padded(self) -> tuple[int, int]:
        """(H, W) that the network sees, multiples of 16."""
        return padded_size(self.geometry.covered)

    @property
    def rgb(self) -> tuple[int, int, int, int]:
        """Shape of rgb."""
        return 1, 3, *self.padded

    @property
    def depth(self) -> tuple[int, int, int, int]:
        """Shape of depth_lr."""
        return 1, 1, *self.geometry.grid

    @property
    def flow(self) -> tuple[int, int, int, int]:
        """Shape of flow."""
        height, width = self.padded
        return 1, 2, height // STRIDE, width // STRIDE


def export_recurrent(model: RecurrentNet, info: CheckpointInfo, path: str | Path, size: RecurrentExportSize) -> Path:
    """Write the step of a recurrent network.

    Args:
        model: float32.
        info: goes into the file's metadata.
        path: where to write; must end in ``.onnx``.

    Raises:
        ConfigError: a wrong file name.
        StdnetError: a package for the export is missing.
    """
    path = prepare_output(path)
    model = copy.deepcopy(model).float().cpu().eval()
    geometry = size.geometry
    sizes = {"size": geometry.size, "covered": geometry.covered, "depth_size": geometry.grid, "ratio": size.ratio}
    metadata = export_metadata(model, info, RECURRENT_FORMAT)
    metadata |= {name: json.dumps(list(value)) for name, value in sizes.items()}
    rgb = torch.rand(size.rgb)
    state = model.start(rgb)
    write_onnx(
        path,
        FlatStep(model, size.ratio),
        (rgb, 1 + torch.rand(size.depth), torch.zeros(size.flow), *flat_state(state)),
        ["rgb", "depth_lr", "flow", *(STATE_PREFIX + name for name in STATE)],
        ["depth", "error_scale", *(NEXT_PREFIX + name for name in STATE)],
        metadata,
        grad=True,  # one piece instead of bands: half the operators
    )
    return path


def largest_relative_differences(
    model: RecurrentNet, path: str | Path, frames: Iterable[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """Run an exported file and PyTorch on the same clip, each with a state of its own.

    Args:
        frames: rgb (H, W, 3) uint8 and depth (h, w) float32 metres, 0 invalid.

    Returns:
        The largest difference of any depth and of any error scale, as a share of PyTorch's.
    """
    actual = RecurrentOnnxEngine(path, fingerprint=model_fingerprint(model), providers=["CPUExecutionProvider"])
    expected = RecurrentTorchEngine(model, Placement(torch.device("cpu"), torch.float32))
    largest: dict[str, list[float]] = {name: [] for name in TOLERANCES}
    for rgb, depth in frames:
        outputs = actual.step(rgb, depth), expected.step(rgb, depth, actual.ratio)
        for name, values in largest.items():
            a, e = (getattr(output, name) for output in outputs)
            values.append(np.max(np.abs(a - e) / np.abs(e)))
    return {name: float(np.max(values)) for name, values in largest.items()}  # a NaN stays one


def random_frames(size: RecurrentExportSize, count: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Hills of 1 to 5 m with noise of 1 % and holes, seen by a camera that moves two pixels a frame.

    No camera delivers depth that is noise alone. With it, the network compares depths so far apart that rounding errors
    grow to more than the tolerance."""
    random = np.random.default_rng(seed)
    height, width = size.geometry.size
    colour = random.integers(0, 256, (height, width + 2 * count, 3), np.uint8)
    colour = cv2.GaussianBlur(colour, (0, 0), 2)
    hills = cv2.resize(1 + 4 * random.random((4, 5), np.float32), size.depth[:1:-1], interpolation=cv2.INTER_LINEAR)
    for frame in range(count):
        depth = hills * (1 + 0.01 * random.standard_normal(hills.shape, np.float32))
        depth[random.random(depth.shape) < 0.2] = 0
        yield np.ascontiguousarray(colour[:, 2 * frame : 2 * frame + width]), depth


def source_frames(source: str, size: RecurrentExportSize, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of recorded data, resized to the exported size.

    Args:
        source: ``KIND:PATH`` as for ``stdnet_core.predict``.
    """
    from stdnet_core.data.prediction_input import from_sequence
    from stdnet_core.data.sources import open_source

    scale = size.scale if size.scale > 1 else None
    for frame in islice(from_sequence(open_source(source)[0], scale), count):
        rgb = cv2.resize(frame.rgb, (size.width, size.height), interpolation=cv2.INTER_AREA)
        depth = cv2.resize(frame.depth, size.depth[:1:-1], interpolation=cv2.INTER_NEAREST)
        yield rgb, np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def run(model: RecurrentNet, info: CheckpointInfo, args: argparse.Namespace) -> None:
    """What ``python -m stdnet_core.export`` does for a recurrent network.

    Raises:
        ConfigError: a size or another setting that it cannot have.
        CheckpointError: what was written differs from PyTorch.
    """
    if args.latency:
        raise ConfigError(f"latency is {args.latency}; a recurrent network waits for no frame: leave --latency out")
    size = RecurrentExportSize(args.size[1], args.size[0], args.scale or 1.0)
    path = export_recurrent(model, info, args.output, size)
    columns, rows = size.depth[:1:-1]
    print(
        f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, opset {OPSET}, colour {size.width}x{size.height}, "
        f"depth {columns}x{rows}, cells of {size.ratio[1]:g}x{size.ratio[0]:g} pixels)"
    )
    count = 1 + args.check_frames
    clips = {"random frames": random_frames(size, count)}
    if args.frames:
        clips[args.frames] = source_frames(args.frames, size, count)
    for name, frames in clips.items():
        differences = largest_relative_differences(model, path, frames)
        depth, error = differences["depth"], differences["error_scale"]
        print(f"largest difference to PyTorch on {name}: {depth:.2e} of the depth, {error:.2e} of its error scale")
        for what, difference in differences.items():
            if not difference <= TOLERANCES[what]:
                raise CheckpointError(
                    f"{what} of {path} differs from PyTorch by {difference:.2e} on {name}; do not use it"
                )
