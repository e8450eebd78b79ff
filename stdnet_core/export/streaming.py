"""Exports the paper's network as a stream.

The file holds one step of the stream. Its inputs are frame number, colour, depth and state; its outputs are depth and
the next state. It consists of standard operators (opset 18; the deformable convolution is GridSample and MatMul) with
fixed sizes. With a latency, a second file, ``model.tail.onnx``, computes the last frames when a stream ends. For
recurrent networks, see :mod:`stdnet_core.export.recurrent`."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import CheckpointError, ConfigError
from stdnet_core.export.onnx_file import OPSET, export_metadata, prepare_output, write_onnx
from stdnet_core.inference.fill import fill_invalid
from stdnet_core.inference.normalization import FIRST_FRAME_HEADROOM
from stdnet_core.inference.onnx_engine import FORMAT, NEXT_PREFIX, STATE_PREFIX, OnnxEngine, tail_path
from stdnet_core.model import STDNet
from stdnet_core.model.low_resolution import WORKING_STRIDE
from stdnet_core.streaming import StreamingSTDNet
from stdnet_core.streaming.execution import StepResult
from stdnet_core.streaming.fixed_step import FixedStep, FixedTail
from stdnet_core.streaming.stream import model_fingerprint

TOLERANCE = 1e-3
"""Largest allowed difference between an export and PyTorch, in units of the depth range."""


@dataclass(frozen=True)
class ExportSize:
    """Sizes of an export: height and width of colour, which are multiples of the scale."""

    height: int
    width: int
    scale: int

    def __post_init__(self) -> None:
        if self.scale < WORKING_STRIDE or self.scale % WORKING_STRIDE:
            raise ConfigError(f"scale is {self.scale}; give a multiple of {WORKING_STRIDE}")
        padded = [max(self.scale, -(-n // self.scale) * self.scale) for n in (self.height, self.width)]
        if padded != [self.height, self.width]:
            raise ConfigError(
                f"size is {self.width}x{self.height}, which x{self.scale} does not divide; export for "
                f"{padded[1]}x{padded[0]} and pad the frames (DepthUpsampler does)"
            )

    @property
    def rgb(self) -> tuple[int, int, int, int]:
        """Shape of rgb."""
        return 1, 3, self.height, self.width

    @property
    def depth(self) -> tuple[int, int, int, int]:
        """Shape of depth_lr."""
        return 1, 1, self.height // self.scale, self.width // self.scale


def _outputs(result: StepResult) -> dict[str, Tensor]:
    outputs = {"depth": result.depth}
    if result.log_scale is not None:
        outputs["log_scale"] = result.log_scale
    elif len(result.stage_depths) == 2:
        outputs["disagreement"] = (result.stage_depths[1] - result.stage_depths[0]).abs()
    return outputs


class _StepGraph(nn.Module):
    """The step with its outputs as a flat tuple."""

    def __init__(self, step: FixedStep) -> None:
        super().__init__()
        self.step = step

    def forward(self, frame: Tensor, rgb: Tensor, depth_lr: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
        result, advanced = self.step(frame, rgb, depth_lr, *state)
        return *_outputs(result).values(), *advanced


class _TailGraph(nn.Module):
    """The tail with its outputs as a flat tuple."""

    def __init__(self, tail: FixedTail) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, frame: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(x for result in self.tail(frame, *state) for x in _outputs(result).values())


def export_onnx(model: STDNet, info: CheckpointInfo, path: str | Path, size: ExportSize, latency: int = 0) -> Path:
    """Write the streaming step and, with a latency, the tail next to it.

    Args:
        model: of the checkpoint; a copy is exported in float32.
        info: written to the file's metadata.
        path: of the file; must end in ``.onnx``.

    Raises:
        ConfigError: latency out of range or a wrong file name.
        StdnetError: a package for the export is missing.
    """
    path = prepare_output(path)
    model = copy.deepcopy(model).float().cpu().eval()
    step = FixedStep(model, latency, size.rgb, size.depth)
    state = list(step.initial_state())
    frame = torch.zeros(1, dtype=torch.int64)
    result_names = ["depth"]
    if model.config.uncertainty:
        result_names.append("log_scale")
    elif model.config.stages == 2:
        result_names.append("disagreement")
    state_names = [STATE_PREFIX + t.name for t in step.layout]
    metadata = export_metadata(model, info, FORMAT, latency)
    write_onnx(
        path,
        _StepGraph(step),
        (frame, torch.rand(size.rgb), torch.rand(size.depth), state),
        ["frame", "rgb", "depth_lr", *state_names],
        [*result_names, *(NEXT_PREFIX + t.name for t in step.layout)],
        metadata,
    )
    if latency:
        tail = FixedTail(model, latency, size.rgb, size.depth)
        names = [f"{name}_{i}" for i in range(latency) for name in result_names]
        write_onnx(tail_path(path), _TailGraph(tail), (frame, state), ["frame", *state_names], names, metadata)
    return path


def largest_difference(
    model: STDNet, path: str | Path, frames: Iterable[tuple[np.ndarray, np.ndarray]], latency: int
) -> float:
    """Compare an exported file with the PyTorch stream on a whole clip.

    Args:
        frames: rgb (H, W, 3) float32 in 0..1 and normalised depth_lr (h, w) float32.

    Returns:
        The largest absolute difference of any depth, in units of the depth range.

    Raises:
        CheckpointError: the two return different numbers of frames.
    """
    engine = OnnxEngine(path, fingerprint=model_fingerprint(model), providers=["CPUExecutionProvider"])
    stream = StreamingSTDNet(model, latency)
    expected, actual = [], []
    for rgb, depth_lr in frames:
        colour = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]
        expected.append(stream.step(colour, torch.from_numpy(depth_lr)[None, None]))
        actual.append(engine.step(rgb, depth_lr))
    expected += stream.flush()
    actual += engine.flush()
    if [x is None for x in expected] != [x is None for x in actual]:
        raise CheckpointError(f"{path} returns another number of frames than the network it was exported from")
    pairs = zip((x for x in expected if x is not None), (x for x in actual if x is not None), strict=True)
    return float(np.max([np.abs(e.depth[0, 0].numpy() - a.depth).max() for e, a in pairs]))  # NaN stays NaN


def random_frames(size: ExportSize, count: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random noise in the range of real input."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield random.random((*size.rgb[2:], 3), np.float32), random.random(size.depth[2:], np.float32)


def source_frames(
    source: str, size: ExportSize, count: int, depth_range: float | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of recorded data, resized to the exported size and normalised.

    Args:
        source: ``KIND:PATH`` as for ``stdnet_core.predict``.
        depth_range: metres, or None for 1.25 times the largest depth of the first frame.
    """
    from stdnet_core.data.prediction_input import from_sequence
    from stdnet_core.data.sources import open_source

    metres = depth_range
    for frame in islice(from_sequence(open_source(source)[0], size.scale), count):
        rgb = cv2.resize(frame.rgb, (size.width, size.height), interpolation=cv2.INTER_AREA)
        low = cv2.resize(frame.depth, (size.depth[3], size.depth[2]), interpolation=cv2.INTER_NEAREST)
        filled = fill_invalid(low.astype(np.float32))
        if metres is None:
            metres = FIRST_FRAME_HEADROOM * float(filled.max())
        yield rgb.astype(np.float32) / 255, filled / np.float32(metres)


def run(model: STDNet, info: CheckpointInfo, args: argparse.Namespace) -> None:
    """Export and check the paper's network, for ``python -m stdnet_core.export``.

    Raises:
        ConfigError: a size or another setting that does not fit the network.
        CheckpointError: the output of the written file differs from PyTorch's.
    """
    if args.scale is not None and args.scale != int(args.scale):
        raise ConfigError(f"scale is {args.scale:g}; STDNet needs multiples of {WORKING_STRIDE}")
    size = ExportSize(args.size[1], args.size[0], int(args.scale or info.scales[-1]))
    if size.scale not in info.scales:
        raise ConfigError(
            f"{args.checkpoint} was trained for {checkpoints.scales_text(info.scales)}, not for x{size.scale}; "
            "give one of these as --scale"
        )
    path = export_onnx(model, info, args.output, size, args.latency)
    count = args.latency + args.check_frames
    clips = {"random frames": random_frames(size, count)}
    if args.frames:
        clips[args.frames] = source_frames(args.frames, size, count, info.depth_range)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, opset {OPSET}, latency {args.latency})")
    for name, frames in clips.items():
        difference = largest_difference(model, path, frames, args.latency)
        print(f"largest difference to PyTorch on {name}: {difference:.2e} of the depth range")
        if not difference <= TOLERANCE:
            raise CheckpointError(f"{path} differs from PyTorch by {difference:.2e} on {name}; do not use it")
