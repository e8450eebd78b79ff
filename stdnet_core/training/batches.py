"""Builds batches for STDNet: from a batch plan to the tensors for the network and the loss."""

from __future__ import annotations

import dataclasses
import queue
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from stdnet_core.cli import require
from stdnet_core.data.augmentation import augment
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.sensors import Sensor, sensor, simulate
from stdnet_core.inference.fill import fill_invalid
from stdnet_core.inference.normalization import clip_depth_range
from stdnet_core.training.builder import ShareBuilder
from stdnet_core.training.config import NormalizationConfig, SensorMixture, TrainConfig, is_recurrent
from stdnet_core.training.draw import between, choose
from stdnet_core.training.recurrent_batches import VideoBatchBuilder

Batch = dict[str, Any]
"""``rgb`` (B, T, 3, H, W) 0..1; ``depth`` (B, T, 1, H, W) normalised; ``valid`` (B, T, 1, H, W) bool: pixels that count
in the loss; ``depth_lr`` (B, T, 1, h, w) normalised, hole-free; ``depth_range`` (B, 1, 1, 1, 1) metres; ``scale`` int;
``index`` of the batch; ``names`` of the clips. For recurrent networks, see :class:`VideoBatchBuilder`."""

_WHOLE_NUMBERS = {"dtof.jitter_bins", "dtof.bins"}

MIN_MEASURED = 0.1
"""If a sensor measures less than this share of a frame, its holes are turned off."""
SUPPORT = 2
"""Pixels count in the loss up to this many low-resolution pixels from a measurement; farther away, the network could
only guess."""


LARGEST = 2.0
"""Largest normalised depth of a training clip. Without this limit, a clip that begins in front of a wall could reach
hundreds of times its range; a stream would restart its window instead."""


def supported(depth_lr: Tensor, scale: int) -> Tensor:
    """High-resolution pixels (T, 1, H, W) within :data:`SUPPORT` low-resolution pixels of a measurement.

    Args:
        depth_lr: (T, 1, h, w) metres, 0 invalid.
    """
    near = F.max_pool2d((depth_lr > 0).float(), 2 * SUPPORT + 1, 1, SUPPORT) > 0
    return near.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def draw_sensor(mixture: SensorMixture, rng: np.random.Generator, largest: float) -> Sensor:
    """The camera of one clip; ``largest`` is the clip's largest depth in metres."""
    camera = sensor(choose(rng, mixture.presets))
    values: dict[str, Any] = {name: max(0.0, between(rng, pair)) for name, pair in mixture.uniform.items()}
    values |= {name: between(rng, pair, log=True) for name, pair in mixture.log_uniform.items()}
    faults = {name: between(rng, pair) for name, pair in mixture.imperfections.items()}
    holes = choose(rng, mixture.holes) if mixture.holes else "none"
    if rng.random() < mixture.imperfect:
        values |= faults
        values["holes"] = None if holes == "none" else holes
    if mixture.cover_clip and values.get("dtof.range_m"):
        values["dtof.range_m"] = max(values["dtof.range_m"], largest * 1.001)
    return camera.with_values({name: round(v) if name in _WHOLE_NUMBERS else v for name, v in values.items()})


def network_input(depth_lr: Tensor, config: NormalizationConfig, gain: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Fill and normalise low-resolution depth.

    Args:
        depth_lr: (B, T, 1, h, w) metres, 0 invalid.
        gain: factor on each clip's own range.

    Returns:
        Normalised depth without holes, and the range (B, 1, 1, 1, 1) in metres. A clip's own range is at least its
        largest depth divided by :data:`LARGEST`.
    """
    if config.mode == "fixed":
        assert config.depth_range is not None
        depth_range = depth_lr.new_full((depth_lr.shape[0], 1, 1, 1, 1), config.depth_range)
    else:
        depth_range = clip_depth_range(depth_lr) * gain
        depth_range = depth_range.maximum(depth_lr.flatten(1).amax(1).view(-1, 1, 1, 1, 1) / LARGEST)
    return fill_invalid(depth_lr) / depth_range, depth_range


class BatchBuilder(ShareBuilder):
    """Builds batch ``index`` of a run of STDNet, or one process's share of it.

    Args:
        config: of the run.
        device: on which scenes are rendered and depth is simulated.
        rank, processes: rank of this process, number of processes.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device | str = "cpu", rank: int = 0, processes: int = 1
    ) -> None:
        for largest in (1.0, 100.0):
            draw_sensor(config.data.sensors, np.random.default_rng(0), largest)
        super().__init__(config, device, rank, processes)

    def build(self, index: int) -> Batch:
        """This process's share of batch ``index``."""
        plan, drawn = self.drawn(index)
        made = [self._measure(clip, rng, int(plan.scale)) for clip, rng in drawn]
        clips, lows, gains = zip(*made, strict=True)
        low, depth_range = network_input(
            torch.stack(lows), self.config.data.normalization, torch.stack(gains).view(-1, 1, 1, 1, 1)
        )
        return {
            "rgb": torch.stack([clip.rgb for clip in clips]),
            "depth": torch.stack([clip.depth for clip in clips]) / depth_range,
            "valid": torch.stack([clip.valid for clip in clips]),
            "depth_lr": low,
            "depth_range": depth_range,
            "scale": plan.scale,
            "index": index,
            "names": [clip.name for clip in clips],
        }

    def _measure(self, clip: RgbdClip, rng: np.random.Generator, scale: int) -> tuple[RgbdClip, Tensor, Tensor]:
        """The clip augmented, its low-resolution depth in metres, and the gain on its range."""
        data = self.config.data
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        clip = augment(clip, self.augmentation, generator)
        camera = draw_sensor(data.sensors, rng, float(clip.depth.max()))
        seed = int(rng.integers(2**62))
        low = simulate(camera, clip.depth, clip.rgb, scale, seed=seed)
        if camera.holes is not None and (low > 0).flatten(1).float().mean(1).min() < MIN_MEASURED:
            low = simulate(dataclasses.replace(camera, holes=None), clip.depth, clip.rgb, scale, seed=seed)
        clip = dataclasses.replace(clip, valid=clip.valid & supported(low, scale))
        gain = between(rng, data.normalization.gain, log=True)
        return clip, low, torch.tensor(gain, dtype=torch.float32, device=self.device)


class BatchStream(IterableDataset[Batch]):
    """Endless batches from ``start`` on. Loader workers take turns, so the order does not depend on their number."""

    def __init__(self, config: TrainConfig, device: str, rank: int, processes: int, start: int) -> None:
        builder = VideoBatchBuilder if is_recurrent(config) else BatchBuilder
        self.builder: BatchBuilder | VideoBatchBuilder = builder(config, device, rank, processes)
        self.start = start

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the run stops its workers
            torch.set_num_threads(1)
            cv2 = require("cv2", extra="train")
            cv2.setNumThreads(1)
        index = self.start + first
        while True:
            yield self.builder.build(index)
            index += step


class ThreadedBatches:
    """Prepares batches in a thread while earlier ones are trained on, for data generated on the GPU.

    Thread and training both use the device's default stream, so a batch is complete before training reads it.

    Args:
        batches: source of the batches; iterated in the thread.
        ahead: number of batches to keep ready.
    """

    def __init__(self, batches: Iterable[Batch], ahead: int = 2) -> None:
        self.batches, self.ahead = batches, ahead

    def __iter__(self) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException] = queue.Queue(self.ahead)
        stop = threading.Event()

        def hand_over(item: Batch | BaseException) -> None:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return
                except queue.Full:
                    continue

        def work() -> None:
            try:
                for batch in self.batches:
                    hand_over(batch)
                    if stop.is_set():
                        return
            except BaseException as error:
                hand_over(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()


def make_loader(stream: BatchStream, workers: int) -> DataLoader[Batch] | ThreadedBatches:
    """Loader of complete batches, prepared by worker processes, a thread (data generated on a GPU), or neither."""
    if workers == 0 and stream.builder.device.type == "cuda":
        return ThreadedBatches(stream)
    if workers == 0:
        return DataLoader(stream, batch_size=None)
    # spawn: a forked worker hangs in its first parallel region once the parent has used OpenMP
    return DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=3, multiprocessing_context="spawn")
