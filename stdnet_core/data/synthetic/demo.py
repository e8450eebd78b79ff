"""The demonstration scene: a furnished room, 1 to 6 m away, in which a person walks."""

from __future__ import annotations

import math

import numpy as np
import torch

from . import objects
from .config import SyntheticConfig
from .generator import SceneSequence, bank_for
from .layouts import put_on_walls, shell
from .motion import look_at, smooth_noise
from .paint import Colour, Paint
from .renderer import RenderOptions
from .scene import Array, Light, Material, Scene, SceneBuilder, Sensor, pose

_SEED = 11
_RATE = 30.0


def _walk(times: Array, points: Array, seconds: float) -> Array:
    """Poses (N, 4, 4) of a person who walks round a closed path through ``points`` (K, 2) in ``seconds``."""
    waves = np.fft.rfft(points, axis=0) / len(points)
    turns = 2 * np.pi * times / seconds

    def at(angle: Array) -> Array:
        place = np.repeat(waves[0].real[None], len(angle), 0)
        for order in range(1, len(waves)):
            factor = 1 if 2 * order == len(points) else 2
            place = place + factor * (np.exp(1j * order * angle)[:, None] * waves[order]).real
        return place

    place, ahead = at(turns), at(turns + 1e-3)
    heading = np.arctan2(*(ahead - place).T[::-1])
    bob = 0.015 * np.sin(2 * np.pi * 1.8 * times)
    return np.stack([pose(x, y, z, yaw) for (x, y), z, yaw in zip(place, bob, heading, strict=True)])


def _build(frames: int, height: int, width: int, groups: dict[str, tuple[int, ...]]) -> Scene:
    rng = np.random.default_rng(_SEED)
    paint, b, times = Paint(rng, groups), SceneBuilder(frames, 1 / _RATE), np.arange(frames) / _RATE
    low, high = np.array((-2.6, -1.2, 0.0)), np.array((2.6, 4.6, 2.7))

    def material(
        low_: Colour,
        high_: Colour,
        texture: str,
        period: float,
        *,
        accent: Colour = (0.06, 0.06, 0.06),
        gloss: float = 0.0,
        angle: float = 0.0,
    ) -> Material:
        return Material(
            low_,
            high_,
            accent,
            texture=groups[texture][0],
            detail=groups["noise"][0],
            period=period,
            detail_period=0.4,
            angle=angle,
            gloss=gloss,
        )

    plaster = material((0.62, 0.56, 0.45), (0.7, 0.64, 0.53), "cloud", 3.0)
    paper = material((0.25, 0.38, 0.42), (0.45, 0.58, 0.6), "weave", 0.7)
    boards = material((0.16, 0.08, 0.04), (0.5, 0.29, 0.15), "wood", 1.3, gloss=0.15, angle=math.pi / 2)
    white = material((0.8, 0.8, 0.78), (0.85, 0.85, 0.83), "cloud", 2.0)
    shell(b, low, high, [plaster, plaster, plaster, paper], boards, white)
    put_on_walls(b, paint, rng, low, np.array((2.6, 4.6, 2.7)), 1)
    poster = b.paint(material((0.75, 0.2, 0.1), (0.95, 0.85, 0.6), "rectangles", 0.9, accent=(0.3, 0.4, 0.5)))
    frame = b.paint(material((0.1, 0.06, 0.03), (0.2, 0.1, 0.06), "wood", 0.5))
    b.box(pose(0.35, 4.585, 1.6), (1.3, 0.03, 0.9), frame)
    b.box(pose(0.35, 4.58, 1.6), (1.2, 0.03, 0.8), poster)
    rug = b.paint(material((0.3, 0.04, 0.04), (0.55, 0.4, 0.25), "weave", 1.1))
    b.box(pose(0.1, 2.1, 0.006), (2.6, 1.8, 0.012), rug)

    objects.shelf(b, paint, rng, pose(-2.35, 2.6, 0, -math.pi / 2))
    objects.sofa(b, paint, rng, pose(1.75, 4.0, 0, math.pi))
    objects.floor_lamp(b, paint, rng, pose(-1.3, 4.2))
    objects.cabinet(b, paint, rng, pose(-0.55, 4.3, 0, math.pi))
    objects.table(b, paint, rng, pose(0.5, 2.1, 0, 0.2))
    objects.chair(b, paint, rng, pose(-0.35, 1.35, 0, 0.9))
    objects.chair(b, paint, rng, pose(1.35, 1.5, 0, -0.5))
    objects.plant(b, paint, rng, pose(2.1, 2.6))
    objects.coat_rack(b, paint, rng, pose(-2.0, 4.1))
    for place in ((0.25, 2.0), (0.7, 2.25), (0.55, 1.95)):
        objects.mug(b, paint, rng, pose(*place, 0.75))
    walker = b.node(_walk(times, np.array(((-1.3, 2.0), (-1.0, 3.2), (1.2, 3.3), (0.4, 3.1), (-0.4, 3.35))), 9.0))
    objects.person(b, paint, rng, np.eye(4), walker)
    along = 0.5 + 0.42 * np.sin(2 * np.pi * times / 3.2)
    roll = np.stack([pose(x, 1.62, 0.14, 0, x / 0.13) for x in along])
    stripes = b.paint(material((0.8, 0.1, 0.1), (0.9, 0.85, 0.8), "stripes", 0.25, accent=(0, 0, 0)))
    b.ellipsoid(np.eye(4), (0.13, 0.13, 0.13), stripes, b.node(roll))
    flex, shade = b.paint(paint.metal()), b.paint(Material((0.95, 0.9, 0.75), (0.95, 0.9, 0.75), glow=1.0))
    b.cylinder(pose(0.4, 2.2, 2.5), 0.006, 0.4, flex)
    b.cone(pose(0.4, 2.2, 2.25), 0.24, 0.2, shade)

    sway = smooth_noise(rng, times, 3, 0.3)
    angle = 0.35 * np.sin(2 * np.pi * times / 8)
    position = np.stack((1.1 * np.sin(angle) - 0.2, -0.75 + 0.15 * np.sin(2 * np.pi * times / 5), 1.45 + 0 * times), 1)
    position += 0.02 * sway
    target = np.stack((0.3 * np.sin(angle) + 0.05, 3.2 + 0 * times, 0.95 + 0 * times), 1) + 0.03 * sway[:, ::-1]
    focal = 0.85 * width
    return b.build(
        seed=_SEED,
        camera=look_at(position, target, 0.01 * sway[:, 0]),
        light=Light((0.4, 2.2, 2.1), (0.4, 2.21, 0.0), 1.25, 4.5, (1.0, 0.92, 0.78), (0.34, 0.36, 0.4)),
        sensor=Sensor(exposure=np.full(frames, 1.05), read_noise=0.004, shot_noise=0.008, vignette=0.15, contrast=0.25),
        focal=(focal, focal),
        centre=((width - 1) / 2, (height - 1) / 2),
    )


def demo_sequence(
    frames: int = 90, height: int = 480, width: int = 640, device: torch.device | str = "cpu"
) -> SceneSequence:
    """The demonstration room as a lazily rendered sequence, the same on every call.

    It shows a papered wall with a picture, furniture, thin legs and rods, a walking person and a rolling ball, 1 to 6 m
    away, seen by a swaying camera at 30 frames per second.

    Args:
        frames: length; the motion continues for any number of frames.
        height, width: pixels.
        device: where to render.
    """
    bank = bank_for(SyntheticConfig(), device)
    scene = _build(frames, height, width, bank.groups)
    return SceneSequence(scene, (height, width), bank, RenderOptions(shadow_size=512), "demo")
