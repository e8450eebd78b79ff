"""Whole scenes: table tops, furnished rooms, halls, outdoors, and floating primitives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stdnet_core.errors import InputError

from . import objects
from .config import LAYOUTS, SyntheticConfig
from .motion import handheld, rigid_path
from .paint import Paint
from .scene import Array, Light, Material, Scene, SceneBuilder, Sensor, on_ground, pose


@dataclass
class _Stage:
    """The common input of all layouts."""

    rng: np.random.Generator
    config: SyntheticConfig
    times: Array
    paint: Paint
    builder: SceneBuilder

    def camera_path(self, start: Array, target: Array, speed: float, turn: float = 0.15) -> Array:
        """Poses (N, 4, 4) of a hand-held camera; ``speed`` in metres per second."""
        rng, factor = self.rng, self.config.camera_speed
        if rng.random() < self.config.still_camera:
            factor = 0.0
        factor *= float(np.exp(rng.normal(0, 0.6)))
        return handheld(
            rng, self.times, np.asarray(start, float), np.asarray(target, float), speed * factor, turn * factor
        )

    def moving(self, start: Array, speed: float, spin: float, upright: bool = True) -> int:
        """A node that moves; ``speed`` in metres and ``spin`` in radians per second are typical sizes."""
        rng, factor = self.rng, self.config.object_speed
        axis = np.array((0, 0, rng.normal())) if upright else rng.normal(0, 1, 3)
        velocity = rng.normal(0, 1, 3) * (1, 1, 0.1 if upright else 1) * speed * factor
        return self.builder.node(rigid_path(rng, self.times, start, velocity, axis * spin * factor))


class _Floor:
    """Finds free places on the ground for objects that must not collide with the camera or one another."""

    def __init__(self, rng: np.random.Generator, camera: Array) -> None:
        self.rng = rng
        self.taken = [(*position[:2], 0.45) for position in camera[:: max(1, len(camera) // 4), :3, 3]]

    def claim(self, place: Iterable[float], radius: float) -> bool:
        """Occupy a disc around (x, y) if it is free; returns whether it was."""
        x, y = place
        if any(math.hypot(x - a, y - b) < radius + r for a, b, r in self.taken):
            return False
        self.taken.append((x, y, radius))
        return True

    def place(self, low: tuple[float, float], high: tuple[float, float], radius: float) -> tuple[float, float] | None:
        """A free place in a rectangle, or None after a few tries."""
        for _ in range(8):
            x, y = self.rng.uniform(low, high)
            if self.claim((x, y), radius):
                return float(x), float(y)
        return None


def shell(b: SceneBuilder, low: Array, high: Array, walls: list[Material], floor: Material, ceiling: Material) -> None:
    """The inside of a room as one box with six faces."""
    material = b.paint(*walls, floor, ceiling)
    size = high - low
    b.box(pose(*((low + high) / 2)), tuple(size), material, faces=True)


def put_on_walls(b: SceneBuilder, paint: Paint, rng: np.random.Generator, low: Array, high: Array, number: int) -> None:
    """Pictures, windows, switches, doors, pipes and skirting on the walls of a room."""
    trim = b.paint(paint.plain((0.4, 0.95)))
    tall = high[2] - low[2]
    for side in range(4):
        axis, end = side // 2, side % 2
        wall, inward = (high if end else low)[axis], -1 if end else 1
        along = 1 - axis

        def put(u: float, z: float, wide: float, high_: float, thick: float, material: int) -> None:
            centre, size = [0.0, 0.0, z], [0.0, 0.0, high_]
            centre[axis], centre[along] = wall + inward * thick / 2, u  # noqa: B023
            size[axis], size[along] = thick, wide  # noqa: B023
            b.box(pose(*centre), (size[0], size[1], size[2]), material)

        middle, length = (low[along] + high[along]) / 2, high[along] - low[along]
        if rng.random() < 0.5:
            put(middle, low[2] + 0.05, length, 0.1, 0.015, trim)
        for _ in range(rng.integers(0, number + 1)):
            u = rng.uniform(low[along] + 0.2, high[along] - 0.2)
            draw = rng.random()
            if draw < 0.5:  # a poster lies flat, a frame stands out by centimetres
                wide, high_ = rng.uniform(0.2, 1.1), rng.uniform(0.2, 0.8)
                z = low[2] + rng.uniform(0.4, 0.75) * tall
                if rng.random() < 0.6:
                    put(u, z, wide + 0.06, high_ + 0.06, rng.uniform(0.01, 0.05), trim)
                    put(u, z, wide, high_, 0.055, b.paint(paint.picture()))
                else:
                    put(u, z, wide, high_, 0.002, b.paint(paint.picture()))
            elif draw < 0.7:  # a window with bars
                wide, high_, z = rng.uniform(0.6, 1.6), rng.uniform(0.8, 1.4), low[2] + 0.55 * tall
                put(u, z, wide, high_, 0.004, b.paint(paint.screen()))
                for offset in np.linspace(-wide / 2, wide / 2, rng.integers(2, 5)):
                    put(u + offset, z, 0.05, high_ + 0.05, 0.04, trim)
                for offset in (-high_ / 2, high_ / 2):
                    put(u, z + offset, wide, 0.05, 0.05, trim)
            elif draw < 0.85:  # a door
                wide, high_ = rng.uniform(0.75, 1.0), min(2.05, 0.85 * tall)
                put(u, low[2] + high_ / 2, wide + 0.14, high_ + 0.07, 0.03, trim)
                put(u, low[2] + high_ / 2, wide, high_, 0.05, b.paint(paint.wood()))
            elif draw < 0.93:  # a pipe or a column in the wall
                centre = [0.0, 0.0, (low[2] + high[2]) / 2]
                centre[axis], centre[along] = wall + inward * 0.08, u
                b.cylinder(pose(*centre), rng.uniform(0.02, 0.08), tall, trim)
            else:  # a curtain: folds of one cloth
                cloth, fold = b.paint(paint.cloth()), rng.uniform(0.04, 0.07)
                for index in range(rng.integers(5, 14)):
                    centre = [0.0, 0.0, low[2] + tall * 0.5]
                    centre[axis], centre[along] = wall + inward * (0.1 + 0.03 * (index % 2)), u + index * fold * 1.5
                    b.cylinder(pose(*centre), fold, tall * 0.9, cloth)


def _lamp(stage: _Stage, position: Array, target: Iterable[float], reach: float, spread: float = 1.25) -> Light:
    rng = stage.rng
    warm = np.array((1.0, rng.uniform(0.8, 1.0), rng.uniform(0.6, 1.0)))
    ratio = rng.uniform(0.15, 0.6)
    strength = rng.uniform(1.0, 1.6)
    cool = np.array((rng.uniform(0.8, 1.0), rng.uniform(0.85, 1.0), 1.0))
    x, y, z = target
    return Light(
        tuple(position),
        (x, y, z),
        spread,
        reach,
        tuple(strength * (1 - ratio) * warm * 1.3),
        tuple(strength * ratio * cool),
    )


def _finish(
    stage: _Stage, seed: int, camera: Array, light: Light, height: int, width: int, interest: Array, far: float
) -> Scene:
    """Intrinsics, sensor and the finished scene. ``interest``: a world point that a crop may aim at."""
    rng, config = stage.rng, stage.config
    zoom = 1.0 if rng.random() < 0.35 else float(np.exp(rng.uniform(0, np.log(config.zoom))))
    full = np.array((width, height), float) * zoom
    focal = full[0] / 2 / math.tan(math.radians(rng.uniform(48, 88)) / 2)
    middle = camera[len(camera) // 2]
    local = middle[:3, :3].T @ (interest - middle[:3, 3])
    room = (full - (width, height)) / 2
    shift = rng.uniform(-room, room)
    if local[2] > 0.1 and rng.random() < 0.7:
        shift = np.clip(focal * local[:2] / local[2] + rng.normal(0, 0.2, 2) * (width, height), -room, room)
    centre = (np.array((width, height)) - 1) / 2 - shift
    frames = len(stage.times)
    bad = rng.random() < 0.3
    drift = np.exp(rng.choice((0.0, 0.1, 0.25)) * np.cumsum(rng.normal(0, 0.3, frames)) / math.sqrt(frames))
    sensor = Sensor(
        exposure=np.exp(rng.normal(0.1, 0.3)) * drift,
        tint=tuple(np.exp(rng.normal(0, 0.06, 3))),
        read_noise=rng.uniform(0, 0.025) if bad else rng.uniform(0, 0.008),
        shot_noise=rng.uniform(0, 0.03) if bad else rng.uniform(0, 0.01),
        blur=rng.uniform(0.3, 0.9) if rng.random() < 0.5 else 0.0,
        shutter=rng.uniform(0.2, 0.9) if rng.random() < 0.35 else 0.0,
        vignette=rng.uniform(0, 0.5) if rng.random() < 0.4 else 0.0,
        contrast=rng.uniform(-0.2, 0.6),
    )
    return stage.builder.build(
        seed=seed, camera=camera, light=light, sensor=sensor, focal=(focal, focal), centre=tuple(centre), far=far
    )


def _thing(stage: _Stage, maker: objects.Maker, at: Array, node: int = 0) -> None:
    """Add a thing; some take the colours of one single material, so that parts differ in depth and not in colour."""
    before = len(stage.builder.materials)
    maker(stage.builder, stage.paint, stage.rng, at, node)
    added = len(stage.builder.materials) - before
    if added > 1 and stage.rng.random() < 0.15:
        stage.builder.materials[before:] = [stage.builder.materials[before]] * added


def _camouflage(stage: _Stage, share: float, models: list[int]) -> None:
    """Give some primitives the material of a wall or floor: edges in depth without an edge in texture."""
    rng, materials = stage.rng, stage.builder.primitive_materials
    for index in range(1, len(materials)):
        if rng.random() < share and not stage.builder.faces[index]:
            materials[index] = int(rng.choice(models))


def _room(stage: _Stage, seed: int, height: int, width: int) -> Scene:
    rng, b, paint = stage.rng, stage.builder, stage.paint
    half = np.array((rng.uniform(1.5, 4.0), rng.uniform(1.5, 5.0)))
    tall = rng.uniform(2.3, 3.6)
    low, high = np.array((*-half, 0.0)), np.array((*half, tall))
    start = np.array((*rng.uniform(-0.6, 0.6, 2) * half, rng.uniform(0.8, 1.8)))
    start[1] = -half[1] + rng.uniform(0.5, 1.2)
    target = np.array((rng.uniform(-0.7, 0.7) * half[0], rng.uniform(0.3, 1.0) * half[1], rng.uniform(0.3, 1.4)))
    camera = stage.camera_path(start, target, 0.35)
    ground = _Floor(rng, camera)
    beyond = rng.uniform(1.5, 6.0) if rng.random() < 0.45 else 0.0
    wall = paint.wall()
    walls = [wall if rng.random() < 0.7 else paint.wall() for _ in range(4)]
    shell(b, low, high + np.array((0, beyond, 0)), walls, paint.floor(), paint.wall())
    if beyond:  # a partition with a doorway, and another room behind it
        wide, top, thick = rng.uniform(0.8, 2.0), rng.uniform(2.0, tall * 0.95), rng.uniform(0.08, 0.25)
        x = rng.uniform(-0.6, 0.6) * (half[0] - wide)
        partition, frame = b.paint(wall), b.paint(paint.wood())
        y = half[1] + thick / 2
        for edge, side in ((-half[0], x - wide / 2), (half[0], x + wide / 2)):
            b.box(pose((edge + side) / 2, y, tall / 2), (abs(side - edge), thick, tall), partition)
            b.box(pose(side, y, top / 2), (0.06, thick + 0.05, top), frame)
        b.box(pose(x, y, (tall + top) / 2), (wide, thick, tall - top), partition)
        b.box(pose(x, y, top), (wide + 0.06, thick + 0.05, 0.06), frame)
        for _ in range(rng.integers(1, 5)):
            u, v = rng.uniform(-half[0], half[0]), half[1] + rng.uniform(0.7, beyond)
            _thing(
                stage,
                objects.FREE_STANDING[rng.integers(len(objects.FREE_STANDING))],
                pose(u, v, 0, rng.uniform(0, 6.28)),
            )
    put_on_walls(b, paint, rng, low, high, 3)
    for _ in range(rng.integers(2, 7)):  # furniture with its back to a wall
        side = rng.integers(0, 4) if rng.random() < 0.4 else rng.integers(1, 4)
        axis = (1, 0, 1, 0)[side]
        sign, yaw = ((-1, 0.0), (-1, -np.pi / 2), (1, np.pi), (1, np.pi / 2))[side]
        where = rng.uniform(-1, 1, 2) * (half - 0.6)
        where[axis] = sign * (half[axis] - rng.uniform(0.25, 0.5))
        if ground.claim(where, 0.7):
            _thing(stage, objects.ALONG_WALLS[rng.integers(len(objects.ALONG_WALLS))], on_ground(where, yaw))
    interest = target
    for _ in range(rng.integers(2, 8)):
        place = ground.place(tuple(-half + 0.4), tuple(half - 0.4), 0.45)
        if place:
            maker = objects.FREE_STANDING[rng.integers(len(objects.FREE_STANDING))]
            _thing(stage, maker, on_ground(place, rng.uniform(0, 6.28)))
            interest = np.array((*place, 0.6))
    for _ in range(rng.integers(0, 4)):
        place = ground.place(tuple(-half + 0.5), tuple(half - 0.5), 0.35)
        if place:
            yaw = rng.uniform(0, 6.28)
            maker = objects.MOVING[rng.integers(len(objects.MOVING))]
            _thing(stage, maker, np.eye(4), stage.moving(on_ground(place, yaw), 0.5, 0.5))
            interest = np.array((*place, 0.8))
    lamp = np.array((*rng.uniform(-0.5, 0.5, 2) * half, tall - 0.25))
    if rng.random() < 0.6:
        b.cylinder(pose(*lamp) @ pose(z=0.2), 0.004, 0.4, b.paint(paint.metal()))
        b.cone(pose(*lamp) @ pose(z=0.02), 0.2, 0.04, b.paint(paint.lamp()))
    _camouflage(stage, rng.choice((0.0, 0.05, 0.3)), list(range(6)))
    aim = np.array((*lamp[:2] * 0.7 + 0.01, 0.0))
    return _finish(
        stage, seed, camera, _lamp(stage, lamp - (0, 0, 0.05), aim, tall * 1.5), height, width, interest, math.inf
    )


def _table(stage: _Stage, seed: int, height: int, width: int) -> Scene:
    rng, b, paint = stage.rng, stage.builder, stage.paint
    paint.scale = 0.4
    distance = rng.uniform(0.35, 1.3)
    target = np.array((0.0, 0.0, rng.uniform(0.0, 0.15)))
    lift = rng.uniform(0.15, 1.1)
    start = target + distance * np.array((0, -math.cos(lift), math.sin(lift)))
    camera = stage.camera_path(start, target, 0.15, 0.15)
    ground = _Floor(rng, camera)
    ground.taken = [(x, y, 0.12) for x, y, _ in ground.taken] if lift < 0.5 else []
    back = rng.uniform(0.4, 2.5)
    low = np.array((-rng.uniform(1, 2.5), -2.5, -0.75))
    high = np.array((rng.uniform(1, 2.5), back + rng.uniform(0.0, 1.5), 1.8))
    wall = paint.wall()
    shell(b, low, high, [wall, wall, wall, paint.wall()], paint.floor(), paint.wall())
    put_on_walls(b, paint, rng, low, high, 2)
    top = paint.wood() if rng.random() < 0.5 else paint.floor() if rng.random() < 0.5 else paint.plain()
    b.box(pose(0, back / 2 - 0.5, -0.02), (rng.uniform(0.8, 2.5), back + 1.0, 0.04), b.paint(top))
    span, interest = 0.25 + 0.45 * distance, target
    makers = (*(objects.bottle, objects.mug, objects.books, objects.parcel, objects.bowl_of_fruit, objects.cable) * 2,
              objects.desk_lamp, objects.screen, objects.plant)  # fmt: skip
    for _ in range(rng.integers(4, 16)):
        place = ground.place((-span, -0.5 * span), (span, min(back, 1.5 * span)), 0.06)
        if place:
            interest = np.array((*place, 0.08))
            _thing(stage, makers[rng.integers(len(makers))], on_ground(place, rng.uniform(0, 6.28)))
    for _ in range(rng.integers(0, 3)):
        place = ground.place((-span, -0.5 * span), (span, span), 0.06)
        if place:
            start_pose = pose(*place, rng.choice((0.0, 0.1)), rng.uniform(0, 6.28))
            node = stage.moving(start_pose, 0.2, 0.8, upright=rng.random() < 0.6)
            _thing(stage, makers[rng.integers(12)], np.eye(4), node)
            interest = np.array((*place, 0.1))
    _camouflage(stage, rng.choice((0.0, 0.05, 0.3)), [4, 0])
    lamp = np.array((rng.uniform(-0.8, 0.8), rng.uniform(-1.0, 0.3), rng.uniform(0.6, 1.6)))
    return _finish(stage, seed, camera, _lamp(stage, lamp, (0, 0.2, 0), 2.0, 1.0), height, width, interest, math.inf)


def _hall(stage: _Stage, seed: int, height: int, width: int) -> Scene:
    rng, b, paint = stage.rng, stage.builder, stage.paint
    paint.scale = 2.0
    half = np.array((rng.uniform(4, 16), rng.uniform(8, 22)))
    tall = rng.uniform(3.5, 10)
    low, high = np.array((*-half, 0.0)), np.array((*half, tall))
    start = np.array((rng.uniform(-0.6, 0.6) * half[0], -half[1] + rng.uniform(0.6, 4), rng.uniform(1.0, 2.5)))
    target = np.array((rng.uniform(-0.6, 0.6) * half[0], rng.uniform(-0.2, 1.0) * half[1], rng.uniform(0.5, 2.5)))
    camera = stage.camera_path(start, target, 0.9)
    ground = _Floor(rng, camera)
    wall = paint.stone() if rng.random() < 0.5 else paint.wall()
    shell(b, low, high, [wall] * 4, paint.floor(), paint.stone())
    put_on_walls(b, paint, rng, low, high, 3)
    steel = b.paint(paint.metal())
    if rng.random() < 0.7:  # columns
        pitch, square, radius = rng.uniform(3, 7), rng.random() < 0.5, rng.uniform(0.1, 0.5)
        stone = b.paint(paint.stone())
        for x in np.arange(-half[0] + 1.5, half[0] - 1, pitch):
            for y in np.arange(-half[1] + 3, half[1] - 1, pitch):
                if ground.claim((x, y), radius):
                    if square:
                        b.box(pose(x, y, tall / 2), (2 * radius, 2 * radius, tall), stone)
                    else:
                        b.cylinder(pose(x, y, tall / 2), radius, tall, stone)
    for _ in range(rng.integers(0, 7)):  # beams and pipes under the ceiling
        z, u = tall - rng.uniform(0.2, 0.8), rng.uniform(-0.9, 0.9)
        if rng.random() < 0.5:
            b.rod(
                np.array((-half[0], u * half[1], z)),
                np.array((half[0], u * half[1], z)),
                rng.uniform(0.03, 0.15),
                steel,
            )
        else:
            b.box(pose(u * half[0], 0, z), (rng.uniform(0.1, 0.3), 2 * half[1], rng.uniform(0.1, 0.4)), steel)
    interest = target
    ahead = (target - start)[:2] / np.linalg.norm((target - start)[:2])
    for _ in range(rng.integers(8, 24)):
        reach = (
            rng.uniform(1.2, 1.8)
            if rng.random() < 0.1
            else float(np.exp(rng.uniform(np.log(1.8), np.log(2 * half[1]))))
        )
        place = start[:2] + reach * (ahead + rng.normal(0, 0.4, 2))
        if (np.abs(place) < half - 0.8).all() and ground.claim(place, 0.8):
            maker = objects.IN_HALLS[rng.integers(len(objects.IN_HALLS))]
            _thing(stage, maker, on_ground(place, rng.choice((0.0, np.pi / 2, rng.uniform(0, 6)))))
            interest = np.array((*place, 0.8))
    for _ in range(rng.integers(0, 5)):
        place = start[:2] + rng.uniform(2, half[1]) * (ahead + rng.normal(0, 0.3, 2))
        if (np.abs(place) < half - 0.8).all() and ground.claim(place, 0.5):
            node = stage.moving(on_ground(place, rng.uniform(0, 6.28)), 1.0, 0.4)
            _thing(stage, objects.MOVING[rng.integers(len(objects.MOVING))], np.eye(4), node)
            interest = np.array((*place, 0.8))
    _camouflage(stage, rng.choice((0.0, 0.05, 0.2)), list(range(6)))
    lamp = np.array((*(start[:2] + ahead * rng.uniform(1, 6)), tall - 0.5))
    lamp[:2] = np.clip(lamp[:2], -half + 0.5, half - 0.5)
    aim = np.array((*(lamp[:2] + ahead * 2), 0.0))
    return _finish(stage, seed, camera, _lamp(stage, lamp, aim, 1.5 * half[1]), height, width, interest, math.inf)


def _outdoor(stage: _Stage, seed: int, height: int, width: int) -> Scene:
    rng, b, paint = stage.rng, stage.builder, stage.paint
    paint.scale = 2.5
    start = np.array((0.0, 0.0, rng.uniform(0.8, 2.5)))
    target = np.array((rng.normal(0, 2), 10.0, rng.uniform(0.5, 2.5)))
    camera = stage.camera_path(start, target, 1.0)
    ground = _Floor(rng, camera)
    distance = rng.uniform(40, 70)
    bright, deep = (
        paint.colour((0.8, 1.0), (0, 0.1)),
        (rng.uniform(0.3, 0.7), rng.uniform(0.5, 0.8), rng.uniform(0.8, 1.0)),
    )
    cloud = paint.texture("cloud")
    sky = Material(deep, bright, texture=cloud, period=2.2 * distance, shift=(rng.random(), rng.random()), glow=1.0)
    ground_material = paint.leaf() if rng.random() < 0.4 else paint.stone() if rng.random() < 0.5 else paint.floor()
    invalid_sky = rng.random() >= stage.config.sky_valid
    b.box(pose(z=distance / 2 - 2), (2 * distance, 2 * distance, distance), b.paint(sky))
    floor = b.paint(ground_material)
    b.box(pose(z=-0.5), (2.1 * distance, 2.1 * distance, 1.0), floor)
    if rng.random() < 0.5:  # a road and its kerb
        x, road = rng.uniform(-6, 6), b.paint(paint.stone())
        b.box(pose(x, 0, 0), (rng.uniform(3, 8), 2 * distance, 0.02), road)
        b.box(pose(x - 4, 0, 0.05), (0.2, 2 * distance, 0.14), road)
    for _ in range(rng.integers(0, 6)):  # hills, mounds, rocks
        where, size = rng.uniform(-1, 1, 2) * (20, 0) + (0, rng.uniform(4, 35)), rng.uniform(0.3, 5)
        if ground.claim(where, size * 1.5):
            rock = floor if rng.random() < 0.5 else b.paint(paint.stone())
            b.ellipsoid(on_ground(where, rng.uniform(0, 6)), (size * 1.5, size, size * rng.uniform(0.2, 0.8)), rock)
    for _ in range(rng.integers(0, 9)):  # houses
        sides = np.array((rng.uniform(4, 12), rng.uniform(4, 12), rng.uniform(3, 15)))
        where = np.array((rng.choice((-1, 1)) * rng.uniform(5, 22), rng.uniform(5, 38)))
        if not ground.claim(where, sides[:2].max() * 0.6):
            continue
        at = on_ground(where, rng.choice((0.0, rng.normal(0, 0.3))))
        b.box(at @ pose(z=sides[2] / 2), tuple(sides), b.paint(paint.wall() if rng.random() < 0.5 else paint.stone()))
        b.box(at @ pose(z=sides[2]), (sides[0] + 0.6, sides[1] + 0.6, 0.3), b.paint(paint.stone()))
        glass = b.paint(paint.plain((0.02, 0.15)))
        for z in np.arange(1.5, sides[2] - 1, 3):
            for x in np.arange(-sides[0] / 2 + 1.2, sides[0] / 2 - 1, 2.4):
                b.box(at @ pose(x, -sides[1] / 2, z), (1.1, 0.1, 1.4), glass)
    interest = target
    for _ in range(rng.integers(8, 22)):
        reach = float(np.exp(rng.uniform(np.log(2), np.log(35))))
        place = reach * np.array((rng.normal(0, 0.5), 1.0))
        if ground.claim(place, 0.8):
            maker = objects.OUTDOORS[rng.integers(len(objects.OUTDOORS))]
            _thing(stage, maker, on_ground(place, rng.uniform(0, 6.28)))
            interest = np.array((*place, 1.0))
    if rng.random() < 0.5:  # wires overhead
        wire = b.paint(paint.plain((0.01, 0.05)))
        for x in rng.uniform(-4, 4) + np.arange(rng.integers(1, 4)) * 0.5:
            z, y = rng.uniform(3.5, 6), rng.uniform(6, 20)
            b.rod(np.array((-30, y, z)), np.array((30, y + x, z + rng.normal())), rng.uniform(0.008, 0.025), wire)
    for _ in range(rng.integers(0, 5)):
        place = rng.uniform(3, 20) * np.array((rng.normal(0, 0.4), 1.0))
        if ground.claim(place, 1.0):
            maker = (objects.car, objects.person, objects.person, objects.animal, objects.ball)[rng.integers(5)]
            _thing(stage, maker, np.eye(4), stage.moving(on_ground(place, rng.uniform(0, 6.28)), 1.5, 0.3))
            interest = np.array((*place, 1.0))
    _camouflage(stage, rng.choice((0.0, 0.05)), [1])
    bearing, lift = rng.uniform(0, 6.28), rng.uniform(0.4, 1.3)
    sun = np.array((math.cos(bearing) * math.cos(lift), math.sin(bearing) * math.cos(lift), math.sin(lift))) * 38
    light = _lamp(stage, sun + np.array((0, 8, 0)), (0, 8, 0), math.inf, math.atan(16 / 38))
    return _finish(stage, seed, camera, light, height, width, interest, 0.55 * distance if invalid_sky else math.inf)


def _abstract(stage: _Stage, seed: int, height: int, width: int) -> Scene:
    rng, b, paint = stage.rng, stage.builder, stage.paint
    size = float(np.exp(rng.uniform(np.log(0.8), np.log(20))))
    paint.scale = size / 4
    turn = pose(0, 0, 0, *rng.uniform(-1, 1, 3) * rng.choice((0, 0.3)))
    faces = b.paint(*[paint.any() if rng.random() < 0.5 else paint.wall() for _ in range(6)])
    b.box(turn, tuple(size * rng.uniform(1.6, 3.0, 3)), faces, faces=True)
    start, target = np.array((0, -0.65 * size, 0)), np.array((*rng.normal(0, 0.1, 1) * size, 0.3 * size, 0.0))
    camera = stage.camera_path(start, target, 0.08 * size, 0.2)
    middle, interest = camera[len(camera) // 2], target
    single = b.paint(paint.any()) if rng.random() < 0.15 else None
    for _ in range(rng.integers(12, 40)):
        z = size / rng.uniform(1 / 1.4, 1 / 0.18)
        where = middle[:3, :3] @ (np.array((*rng.uniform(-0.75, 0.75, 2), 1.0)) * z) + middle[:3, 3]
        radius = z * np.exp(rng.uniform(np.log(0.04), np.log(0.3)))
        at = pose(*where, *rng.uniform(0, 6.28, 3))
        material = single if single is not None else b.paint(paint.any() if rng.random() < 0.6 else paint.picture())
        node = 0
        if rng.random() < 0.45:
            node, at = stage.moving(at, 0.15 * z, 0.6, upright=False), np.eye(4)
            interest = where
        kind = rng.integers(0, 6)
        if kind == 0:
            b.ellipsoid(at, tuple(radius * rng.uniform(0.4, 1, 3)), material, node)
        elif kind == 1:
            b.cylinder(at, radius * rng.uniform(0.3, 1), radius * rng.uniform(0.5, 3), material, node)
        elif kind == 2:
            b.cone(at, radius, radius * rng.uniform(1, 3), material, node)
        elif kind == 3:
            b.cylinder(at, radius * rng.uniform(0.02, 0.1), radius * 6, material, node)
        elif kind == 4:
            b.box(at, tuple(radius * rng.choice((0.03, 1, 1, 2), 3) * rng.uniform(0.5, 1.5, 3)), material, node)
        else:
            b.box(at, tuple(radius * rng.uniform(0.4, 2, 3)), material, node)
    _camouflage(stage, rng.choice((0.0, 0.2, 0.5)), list(range(6)))
    lamp = rng.uniform(-0.5, 0.5, 3) * size * (1, 1, 0) + (0, -0.3 * size, 0.5 * size)
    return _finish(
        stage, seed, camera, _lamp(stage, lamp, (0.0, 0.2 * size, 0.0), 2 * size), height, width, interest, math.inf
    )


_MAKERS = {"table": _table, "room": _room, "hall": _hall, "outdoor": _outdoor, "abstract": _abstract}


def random_scene(
    seed: int, frames: int, height: int, width: int, config: SyntheticConfig, groups: dict[str, tuple[int, ...]]
) -> Scene:
    """The scene of a seed.

    Args:
        frames: number of frames that the motion lasts.
        height, width: pixels that it will be rendered at.
        groups: textures of each kind in the bank (:attr:`.textures.TextureBank.groups`).

    Raises:
        InputError: a negative seed.
    """
    if seed < 0:
        raise InputError(f"a scene has no seed {seed}; give 0 or more")
    rng = np.random.default_rng(seed)
    weights = np.array(config.weights)
    layout = LAYOUTS[rng.choice(len(LAYOUTS), p=weights / weights.sum())]
    rate = rng.choice((30.0, 30.0, 15.0, 8.0))
    stage = _Stage(rng, config, np.arange(frames) / rate, Paint(rng, groups), SceneBuilder(frames, 1 / rate))
    return _MAKERS[layout](stage, seed, height, width)
