"""Every random choice of a run as a pure function of (seed, batch, sample).

No generator is carried from step to step. A resumed run therefore needs only the step number to continue the data
order, and the order does not depend on the number of processes or loader workers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from stdnet_core.training.config import DataConfig, parse_size, trained_cells

_BATCH = 0
_SAMPLE = 1

Key = TypeVar("Key")


@dataclass(frozen=True)
class BatchPlan:
    """What all clips of a batch have in common.

    Attributes:
        index: number of the batch in the run, from 0.
        scale: upsampling factor, an integer for STDNet; for a recurrent network, the ratio of the depth cameras.
        height, width: of the HR crops in pixels.
        length: frames per clip.
        clips: number of clips, over all processes.
    """

    index: int
    scale: float
    height: int
    width: int
    length: int
    clips: int


def plan_batch(config: DataConfig, seed: int, index: int, *, processes: int = 1, accumulate: int = 1) -> BatchPlan:
    """The plan of batch ``index``; its number of clips is a multiple of ``processes``.

    If gradients are accumulated over several batches, each batch holds its share of the step's clips.
    """
    rng = np.random.default_rng([seed, index, _BATCH])
    scale = choose(rng, config.scales)
    height, width = parse_size(config.crops[rng.integers(len(config.crops))])
    length = int(config.lengths[rng.integers(len(config.lengths))])
    clips = _clips(config, height * width * length, processes, accumulate)
    return BatchPlan(index, int(scale), height, width, length, clips)


def plan_video_batch(
    config: DataConfig, seed: int, index: int, *, processes: int = 1, accumulate: int = 1
) -> BatchPlan:
    """The plan of batch ``index`` for a recurrent network; see :func:`plan_batch`."""
    rng = np.random.default_rng([seed, index, _BATCH])
    ratios: dict[float, float] = {}
    for cell, weight in trained_cells(config).items():
        ratios[cell.ratio] = ratios.get(cell.ratio, 0.0) + weight
    ratio = choose(rng, ratios)
    sides = [crops.sides for crops in config.video.crops if crops.from_ratio <= ratio][-1]
    height, width = (int(sides[rng.integers(len(sides))]) for _ in range(2))
    length = int(config.lengths[rng.integers(len(config.lengths))])
    clips = _clips(config, height * width * length, processes, accumulate)
    return BatchPlan(index, ratio, height, width, length, clips)


def _clips(config: DataConfig, pixels: int, processes: int, accumulate: int) -> int:
    """Number of clips in a batch, over all processes, for clips of ``pixels`` pixels."""
    clips = config.batch_size
    if config.pixel_budget:
        clips = max(1, round(config.pixel_budget / pixels))
    return math.ceil(max(1, clips // accumulate) / processes) * processes


def sample_rng(seed: int, index: int, sample: int) -> np.random.Generator:
    """Generator of clip ``sample`` of batch ``index``."""
    return np.random.default_rng([seed, index, _SAMPLE, sample])


def choose(rng: np.random.Generator, weights: dict[Key, float]) -> Key:
    """A key drawn with probability proportional to its weight."""
    values = np.array(list(weights.values()), dtype=np.float64)
    return list(weights)[int(rng.choice(len(values), p=values / values.sum()))]


def between(rng: np.random.Generator, pair: list[float], *, log: bool = False) -> float:
    """Uniform, or log-uniform, between the two numbers."""
    low, high = pair
    if log:
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    return float(rng.uniform(low, high))
