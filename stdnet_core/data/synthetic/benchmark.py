"""Benchmark of the generator against a straightforward renderer, in the same run.

The straightforward renderer intersects every primitive with every pixel, one primitive after another, keeps the nearest
and shades it with the same functions: the same picture, without tiles. Both render the standard scene, 7 frames of
128x128 with 20 primitives in a room; the generator also renders random training scenes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .config import SyntheticConfig
from .generator import bank_for, render_clips
from .intersect import INTERSECT
from .motion import handheld, rigid_path
from .paint import Paint
from .raycast import Pairs, Rays, cast
from .renderer import RenderOptions, render
from .scene import Light, Scene, SceneBuilder, Sensor, pose

FRAMES, SIZE, PRIMITIVES = 7, 128, 20


def standard_scene(groups: dict[str, tuple[int, ...]]) -> Scene:
    """A room with 19 boxes, ellipsoids and cylinders in it, four of which move."""
    rng = np.random.default_rng(0)
    times = np.arange(FRAMES) / 10
    paint, b = Paint(rng, groups), SceneBuilder(FRAMES, 0.1)
    b.box(pose(0, 2, 1.4), (6, 8, 2.8), b.paint(*[paint.wall() for _ in range(6)]), faces=True)
    for index in range(PRIMITIVES - 1):
        at, size = pose(*rng.uniform((-2, 1, 0.2), (2, 5, 2)), *rng.uniform(0, 6, 3)), rng.uniform(0.05, 0.5, 3)
        node = 0
        if index < 4:
            node, at = b.node(rigid_path(rng, times, at, rng.normal(0, 0.4, 3), rng.normal(0, 0.5, 3))), np.eye(4)
        if index % 3 == 0:
            b.ellipsoid(at, tuple(size), b.paint(paint.any()), node)
        elif index % 3 == 1:
            b.cylinder(at, size[0] / 2, 2 * size[1], b.paint(paint.any()), node)
        else:
            b.box(at, tuple(2 * size), b.paint(paint.any()), node)
    return b.build(
        seed=0,
        camera=handheld(rng, times, np.array((0, -1.5, 1.4)), np.array((0, 3, 1.2)), 0.3, 0.1),
        light=Light((0, 1, 2.6), (0, 1.5, 0), 1.25, 4.0, (0.8, 0.8, 0.8), (0.4, 0.4, 0.4)),
        sensor=Sensor(exposure=np.ones(FRAMES), read_noise=0.01),
        focal=(110, 110),
        centre=(63.5, 63.5),
    )


def cast_straightforwardly(pairs: Pairs, rays: Rays) -> tuple[Tensor, Tensor]:
    """The result of :func:`.raycast.cast`, by intersecting every primitive with every pixel of its view."""
    device = pairs.half.device
    shape = (len(rays.focal), rays.height, rays.width)
    depth, seen = torch.full(shape, math.inf, device=device), torch.full(shape, -1, dtype=torch.int64, device=device)
    y, x = torch.meshgrid(torch.arange(rays.height), torch.arange(rays.width), indexing="ij")
    for index, (kind, view) in enumerate(zip(pairs.kind.tolist(), pairs.view.tolist(), strict=True)):
        u = (x.to(device) - rays.centre[view, 0]) / rays.focal[view, 0]
        v = (y.to(device) - rays.centre[view, 1]) / rays.focal[view, 1]
        rows = pairs.direction[index]
        direction = tuple(row[0] * u + row[1] * v + row[2] for row in rows)
        hit = INTERSECT[kind](tuple(pairs.origin[index]), direction)
        closer = hit < depth[view]
        depth[view] = torch.where(closer, hit, depth[view])
        seen[view] = torch.where(closer, index, seen[view])
    return depth, seen


@dataclass(frozen=True)
class Timing:
    """Milliseconds of wall-clock time and of processor time over all threads (less disturbed by other programs)."""

    wall: float
    processor: float


def _time(work: Callable[[], object], device: torch.device, repeats: int) -> list[Timing]:
    """Times of ``work`` after a warm-up."""
    timings = []
    for _ in range(repeats + 1):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        timings.append(Timing(1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - processor)))
    return timings[1:]


def _best(timings: list[Timing]) -> Timing:
    return Timing(min(t.wall for t in timings), min(t.processor for t in timings))


def benchmark(device: torch.device | str = "cpu", repeats: int = 9, batch: int = 1) -> dict[str, Timing]:
    """Time per clip of 7 frames of 128x128.

    Args:
        batch: random scenes rendered at once.

    Returns:
        ``plain``: the standard scene, colour, depth and flow, best of ``repeats``; ``straightforward``: the same
        without tiles; ``full``: the standard scene with antialiasing, shadows and sensor; ``training``: the mean over
        random training scenes, including their generation.
    """
    device, config = torch.device(device), SyntheticConfig()
    bank = bank_for(config, device)
    scene = standard_scene(bank.groups)

    def standard(options: RenderOptions, caster: Callable[[Pairs, Rays], tuple[Tensor, Tensor]], times: int) -> Timing:
        def work() -> None:
            render([scene], range(FRAMES), SIZE, SIZE, bank, options, ["benchmark"], caster)

        return _best(_time(work, device, times))

    seeds = iter(range(0, 10**9, batch))

    def random_clips() -> None:
        first = next(seeds)
        render_clips(range(first, first + batch), FRAMES, SIZE, SIZE, config, device)

    plain = RenderOptions(antialias=False, shadows=False, sensor=False)
    result = {
        "plain": standard(plain, cast, repeats),
        "straightforward": standard(plain, cast_straightforwardly, max(1, repeats // 3)),
        "full": standard(RenderOptions(), cast, repeats),
    }
    training = _time(random_clips, device, 2 * repeats)
    result["training"] = Timing(
        statistics.mean(t.wall for t in training) / batch, statistics.mean(t.processor for t in training) / batch
    )
    return result
