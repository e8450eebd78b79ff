"""Input of the figures: sequences as the methods see them, and the methods."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.cli import require
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.protocol import PROTOCOL_CLIPS, LowResolution, sensor_range
from stdnet_core.data.rgbd_sequence import RgbdSequence, unique_names
from stdnet_core.data.sensors.arguments import sensor_from
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.data.sources import open_source, parse_source
from stdnet_core.errors import ConfigError, DataError, InputError
from stdnet_core.evaluation.methods import Method, Runner, Said, run_together
from stdnet_core.evaluation.sequence import EvaluationFrame, read_frames
from stdnet_core.evaluation.stored_predictions import open_predictions
from stdnet_core.inference import DepthUpsampler
from stdnet_core.model import RecurrentNet, STDNet

Drawn = tuple[bytes, dict[str, Any]]
"""A picture as PNG, and the numbers behind it."""
_Step = TypeVar("_Step")


class Part:
    """A part of a sequence as a sequence of its own.

    Args:
        sequence: the whole sequence.
        first: its frame that becomes frame 0.
        length: number of frames; fewer if the sequence ends before.

    Raises:
        InputError: the sequence has no frame ``first``.
    """

    def __init__(self, sequence: RgbdSequence, first: int, length: int | None = None) -> None:
        if not 0 <= first < len(sequence):
            raise InputError(f"{sequence.name}: there is no frame {first} in a sequence of {len(sequence)} frames")
        self._sequence, self._first = sequence, first
        self._length = len(sequence) - first if length is None else min(length, len(sequence) - first)
        self.name, self.frame_size, self.intrinsics = sequence.name, sequence.frame_size, sequence.intrinsics

    def __len__(self) -> int:
        return self._length

    def clip(self, start: int, length: int, stride: int = 1) -> RgbdClip:
        """As :meth:`RgbdSequence.clip`."""
        return self._sequence.clip(self._first + start, length, stride)


@dataclass(frozen=True)
class Scene:
    """One sequence as the methods see it.

    Attributes:
        name: unique among the scenes of a figure.
        sequence: to read.
        kind: of the source, e.g. ``tartanair``.
        low: where low-resolution depth comes from; the range of a simulated dToF sensor is set.
        clip_truth: ground-truth depth is clipped to this, in metres; infinite: not clipped.
    """

    name: str
    sequence: RgbdSequence
    kind: str
    low: LowResolution
    clip_truth: float

    def frames(self, first: int = 0, count: int | None = None) -> Iterator[EvaluationFrame]:
        """Its frames from ``first`` on, at most ``count``."""
        return read_frames(Part(self.sequence, first, count), self.low, clip_truth=self.clip_truth)


def open_scenes(args: argparse.Namespace) -> list[Scene]:
    """The sequences that a command line selects, at least one; all if it names none.

    Raises:
        DataError: the source does not exist, or has no such sequence.
    """
    kind, _ = parse_source(args.data)
    simulated = args.lr == "simulated"
    found = open_source(args.data, split=args.split, lr_scale=None if simulated else args.scale)
    names = unique_names(s.name for s in found)
    chosen = list(zip(names, found, strict=True))
    if args.sequence is not None:
        chosen = [pair for number, pair in enumerate(chosen) if args.sequence in (pair[0], str(number))]
        if not chosen:
            raise DataError(f"{args.data} has no sequence {args.sequence!r}; it has {', '.join(names)}")
    if args.limit is not None and args.limit < len(chosen):
        chosen = [chosen[int(i)] for i in np.linspace(0, len(chosen) - 1, args.limit).round()]
    scenes = []
    for number, (name, sequence) in enumerate(chosen):
        camera = sensor_from(args)
        if isinstance(camera.measurement, Dtof) and camera.measurement.range_m is None:
            camera = camera.with_values({"dtof.range_m": sensor_range(sequence, kind)})
        low = LowResolution(args.scale, simulated, camera, args.seed + number)
        scenes.append(Scene(name, sequence, kind, low, PROTOCOL_CLIPS.get(kind, math.inf)))
    return scenes


@dataclass(frozen=True)
class Network:
    """A checkpoint with its name in the figure."""

    name: str
    model: STDNet | RecurrentNet
    info: CheckpointInfo

    @property
    def parameters(self) -> int:
        """Number of learned parameters."""
        return sum(p.numel() for p in self.model.parameters())


def open_networks(given: Sequence[str]) -> list[Network]:
    """Checkpoints, each ``[NAME=]FILE`` or the name of a shipped one.

    Raises:
        CheckpointError: one of them cannot be read.
        ConfigError: two have the same name.
    """
    networks = []
    for text in given:
        name, _, path = ("", "", text) if Path(text).is_file() else text.rpartition("=")
        model, info = checkpoints.load(path)
        networks.append(Network(name or info.name, model, info))
    names = [network.name for network in networks]
    if len(set(names)) < len(names):
        raise ConfigError(f"checkpoints {', '.join(names)} share a name; rename one with --checkpoint NAME=FILE")
    return networks


def scale_warnings(networks: Sequence[Network], scale: float) -> list[str]:
    """A warning for each network that was not trained for the scale."""
    return [
        f"{network.name} was not trained for x{scale:g}, but for {checkpoints.scales_text(network.info.scales)}"
        for network in networks
        if not network.info.recurrent and scale not in network.info.scales
    ]


def network_runner(network: Network, args: argparse.Namespace) -> Runner:
    """The network as a method, in float32, with the command line's latency."""
    latency = 0 if network.info.config.causal else args.latency
    settings = {"device": args.device, "precision": "fp32", "latency": latency}
    return Runner(
        DepthUpsampler.from_model(network.model, network.info, method="stdnet", mask_unsupported=False, **settings)
    )


def open_runners(networks: Sequence[Network], args: argparse.Namespace) -> dict[str, Runner]:
    """The networks, and the classical methods that the command line names."""
    runners = {network.name: network_runner(network, args) for network in networks}
    return runners | {name: Runner.classical(name, args.device) for name in args.methods}


def with_predictions(
    runners: Mapping[str, Runner], scene: Scene, args: argparse.Namespace, *, alone: bool
) -> dict[str, Method]:
    """The runners, and the stored predictions for the scene that the command line names.

    Args:
        alone: it is the only scene, so that the files may lie directly in the folder.

    Raises:
        DataError: there are no such files, or not one for each frame.
        ConfigError: predictions have the name of a method.
    """
    methods: dict[str, Method] = {**runners}
    length = len(scene.sequence)
    for name, folder in args.predictions:
        frames = min(length, args.frames or length)
        if name in methods:
            raise ConfigError(f"--predictions {name}: a method has that name already; choose another for predictions")
        methods[name] = open_predictions(folder, scene.name, length, frames, alone=alone)
    return methods


def results_of(
    scene: Scene, runners: Mapping[str, Method], first: int = 0, count: int | None = None
) -> Iterator[tuple[EvaluationFrame, dict[str, Said]]]:
    """Frames from ``first`` on, at most ``count``, with the output of the methods and of ``bicubic``."""
    everyone: dict[str, Method] = {**runners}
    if "bicubic" not in everyone:
        everyone["bicubic"] = Runner.classical("bicubic", "cpu")
    results = run_together(everyone, scene.frames(first, count), lambda frame: (frame.rgb, frame.depth_lr))
    total = len(scene.sequence) - first
    return iter(progress(results, scene.name, total if count is None else min(count, total)))


def progress(steps: Iterable[_Step], name: str, total: int) -> Iterable[_Step]:
    """The steps, with a progress bar that disappears at the end."""
    return require("tqdm", extra="report").tqdm(steps, total=total, unit="frame", desc=name, leave=False)


def mean_of(values: np.ndarray) -> float:
    """Mean of the finite values; NaN if there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if known.size else math.nan


def root_mean_of(values: np.ndarray) -> float:
    """Root mean square of the finite values; NaN if there are none."""
    return math.sqrt(mean_of(values.astype(np.float64) ** 2))
