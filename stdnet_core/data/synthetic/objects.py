"""Things in scenes, built from primitives: furniture, crockery, plants, people, vehicles.

Every function adds one thing standing at pose ``at`` (z up, origin on the ground) of a node and draws its proportions
from ``rng``. Sizes are metres."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from .paint import Paint
from .scene import Array, SceneBuilder, pose

Maker = Callable[[SceneBuilder, Paint, np.random.Generator, Array, int], None]


def _point(*xyz: float) -> Array:
    return np.array(xyz, float)


def _between(at: Array, start: Array, end: Array) -> tuple[Array, Array]:
    """Two points of ``at``'s frame in its parent's."""
    return at[:3, :3] @ start + at[:3, 3], at[:3, :3] @ end + at[:3, 3]


def _rods(
    b: SceneBuilder, at: Array, points: list[tuple[Array, Array]], radius: float, material: int, node: int
) -> None:
    for start, end in points:
        b.rod(*_between(at, start, end), radius, material, node)


def table(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A table with four legs or one, and things on it."""
    width, depth, height = rng.uniform(0.6, 2.0), rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.85)
    top, leg = b.paint(paint.wood() if rng.random() < 0.7 else paint.plain()), b.paint(paint.metal())
    thick = rng.uniform(0.015, 0.05)
    if rng.random() < 0.3:
        radius = depth / 2
        b.cylinder(at @ pose(z=height - thick / 2), radius, thick, top, node)
        b.cylinder(at @ pose(z=height / 2), rng.uniform(0.02, 0.06), height - thick, leg, node)
        b.cone(at @ pose(z=0.02), radius * 0.6, 0.04, leg, node)
        width = depth * 0.8
    else:
        b.box(at @ pose(z=height - thick / 2), (width, depth, thick), top, node)
        thin = rng.uniform(0.015, 0.07)
        for sx in (-1, 1):
            for sy in (-1, 1):
                where = at @ pose(sx * (width / 2 - thin), sy * (depth / 2 - thin), (height - thick) / 2)
                if rng.random() < 0.5:
                    b.box(where, (thin, thin, height - thick), leg, node)
                else:
                    b.cylinder(where, thin / 2, height - thick, leg, node)
    for _ in range(rng.integers(0, 5)):
        x, y = rng.uniform(-0.4, 0.4) * width, rng.uniform(-0.35, 0.35) * depth
        small_thing(b, paint, rng, at @ pose(x, y, height, rng.uniform(0, 6.28)), node)


def chair(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A chair with thin legs and a barred or solid back."""
    side, seat, height = rng.uniform(0.38, 0.5), rng.uniform(0.4, 0.5), rng.uniform(0.75, 1.05)
    frame = b.paint(paint.metal() if rng.random() < 0.4 else paint.wood())
    cushion = b.paint(paint.cloth()) if rng.random() < 0.5 else frame
    bar = rng.uniform(0.01, 0.022)
    b.box(at @ pose(z=seat), (side, side, rng.uniform(0.02, 0.08)), cushion, node)
    h = side / 2 - bar
    legs = [(_point(x * 1.1, y * 1.1, 0), _point(x, y, seat)) for x in (-h, h) for y in (-h, h)]
    legs += [(_point(x, -h, seat), _point(x, -h * 1.15, height)) for x in (-h, h)]
    if rng.random() < 0.5:
        legs += [(_point(-h, -h, z), _point(h, -h, z)) for z in np.linspace(seat + 0.1, height, rng.integers(2, 5))]
    else:
        b.box(at @ pose(y=-h * 1.1, z=(seat + height) / 2 + 0.06), (side, 0.02, (height - seat) * 0.6), cushion, node)
    _rods(b, at, legs, bar, frame, node)


def shelf(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """An open shelf with books and boxes."""
    width, depth, height = rng.uniform(0.6, 1.6), rng.uniform(0.25, 0.4), rng.uniform(0.8, 2.1)
    board = b.paint(paint.wood() if rng.random() < 0.7 else paint.plain())
    thick = rng.uniform(0.015, 0.03)
    for x in (-1, 1):
        b.box(at @ pose(x * width / 2, 0, height / 2), (thick, depth, height), board, node)
    if rng.random() < 0.6:
        b.box(at @ pose(0, -depth / 2, height / 2), (width, 0.01, height), board, node)
    levels = np.linspace(thick / 2, height, rng.integers(3, 7))
    for z in levels:
        b.box(at @ pose(z=z), (width, depth, thick), board, node)
    for low, high in pairwise(levels):
        left, room = -width / 2 + 0.02, high - low - thick
        while left < width / 2 - 0.1 and rng.random() < 0.85:
            wide = rng.uniform(0.03, 0.3)
            tall, deep = room * rng.uniform(0.4, 0.95), depth * rng.uniform(0.5, 0.95)
            if left + wide > width / 2:
                break
            where = at @ pose(left + wide / 2, rng.uniform(-0.1, 0.1) * depth, low + thick / 2 + tall / 2)
            b.box(where, (wide, deep, tall), b.paint(paint.picture() if wide > 0.1 else paint.any()), node)
            left += wide + (rng.uniform(0.02, 0.2) if rng.random() < 0.3 else 0.003)


def cabinet(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A closed cabinet with doors drawn on it, handles, sometimes a lamp or screen on top."""
    width, depth, height = rng.uniform(0.4, 1.8), rng.uniform(0.3, 0.6), rng.uniform(0.5, 2.0)
    body, metal = b.paint(paint.wood() if rng.random() < 0.5 else paint.plain()), b.paint(paint.metal())
    b.box(at @ pose(z=height / 2), (width, depth, height), body, node)
    doors = rng.integers(1, 4)
    for door in range(doors):
        x = (door + 0.5) / doors * width - width / 2
        b.box(at @ pose(x, depth / 2 + 0.008, height / 2), (width / doors - 0.02, 0.016, height - 0.06), body, node)
        b.rod(*_between(at, _point(x + 0.05, depth / 2 + 0.05, height * 0.45),
                        _point(x + 0.05, depth / 2 + 0.05, height * 0.6)), 0.008, metal, node)  # fmt: skip
    if height < 1.3:
        (screen if rng.random() < 0.5 else small_thing)(b, paint, rng, at @ pose(z=height), node)


def sofa(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A sofa or armchair with cushions."""
    width, depth, seat = rng.uniform(0.8, 2.2), rng.uniform(0.75, 0.95), rng.uniform(0.35, 0.45)
    cloth = b.paint(paint.cloth())
    b.box(at @ pose(z=seat / 2 + 0.03), (width, depth, seat - 0.06), cloth, node)
    b.box(at @ pose(y=-depth / 2 + 0.1, z=seat), (width, 0.2, seat * 2 * rng.uniform(0.8, 1)), cloth, node)
    for x in (-1, 1):
        b.box(at @ pose(x * (width / 2 - 0.08), 0, seat * 0.75), (0.16, depth, seat * 1.5), cloth, node)
    for _ in range(rng.integers(0, 4)):
        where = at @ pose(
            rng.uniform(-0.3, 0.3) * width, -0.1, seat + 0.16, rng.normal(0, 0.3), 0, rng.uniform(1.0, 1.4)
        )
        b.ellipsoid(where, (0.22, 0.18, 0.08), b.paint(paint.cloth()), node)


def bed(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A bed with pillow and headboard."""
    width, length, height = rng.uniform(0.9, 1.8), 2.0, rng.uniform(0.3, 0.55)
    wood, sheet = b.paint(paint.wood()), b.paint(paint.cloth())
    b.box(at @ pose(z=height / 2), (width, length, height * 0.5), wood, node)
    b.box(at @ pose(z=height), (width * 0.97, length * 0.97, 0.2), sheet, node)
    b.box(at @ pose(y=-length / 2, z=height), (width * 1.05, 0.05, height * 2), wood, node)
    b.ellipsoid(
        at @ pose(y=-length / 2 + 0.35, z=height + 0.14), (width * 0.3, 0.25, 0.1), b.paint(paint.plain()), node
    )


def floor_lamp(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A standing lamp: foot, thin pole, shade."""
    height, metal = rng.uniform(1.1, 1.9), b.paint(paint.metal())
    b.cylinder(at @ pose(z=0.015), 0.15, 0.03, metal, node)
    b.cylinder(at @ pose(z=height / 2), rng.uniform(0.006, 0.018), height, metal, node)
    shade = b.paint(paint.lamp() if rng.random() < 0.3 else paint.plain((0.5, 0.95)))
    if rng.random() < 0.6:
        b.cone(at @ pose(z=height), rng.uniform(0.15, 0.3), rng.uniform(0.2, 0.35), shade, node)
    else:
        b.ellipsoid(at @ pose(z=height), (0.16, 0.16, 0.16), shade, node)


def coat_rack(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """Thin rods at all angles: a coat rack, tripod or bare shrub."""
    height, material = rng.uniform(0.8, 2.0), b.paint(paint.metal() if rng.random() < 0.5 else paint.wood())
    rods = [(_point(0, 0, height * 0.4), _point(0, 0, height))]
    for angle in rng.uniform(0, 6.28, rng.integers(3, 9)):
        reach, z = rng.uniform(0.15, 0.4), rng.uniform(0.3, 1.0) * height
        tip = _point(np.cos(angle) * reach, np.sin(angle) * reach, z + rng.uniform(0, 0.25))
        rods.append((_point(0, 0, z), tip))
    for angle in rng.uniform(0, 6.28) + np.arange(3) * 2.09:
        rods.append((_point(0, 0, height * 0.4), _point(np.cos(angle) * 0.3, np.sin(angle) * 0.3, 0)))
    _rods(b, at, rods, rng.uniform(0.006, 0.02), material, node)


def plant(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A pot with leaves on stems."""
    height, pot = rng.uniform(0.2, 0.8), b.paint(paint.plain())
    radius = height * rng.uniform(0.25, 0.4)
    b.cone(at @ pose(z=radius * 0.9, roll=np.pi), radius * 1.3, radius * 1.8, pot, node)
    leaves = [b.paint(paint.leaf()) for _ in range(2)]
    for _ in range(rng.integers(8, 22)):
        angle, lift = rng.uniform(0, 6.28), rng.uniform(0.1, 1.2)
        tip = _point(np.cos(angle) * np.cos(lift), np.sin(angle) * np.cos(lift), np.sin(lift)) * height
        start = _point(0, 0, radius * 1.8)
        b.rod(*_between(at, start, start + 0.8 * tip), 0.004 + 0.004 * height, leaves[0], node)
        x, y, z = start + tip
        where = at @ pose(x, y, z, angle, -lift * rng.uniform(0, 1), rng.normal(0, 0.4))
        b.ellipsoid(where, (height * rng.uniform(0.15, 0.35), height * rng.uniform(0.05, 0.15), 0.008),
                    leaves[rng.integers(2)], node)  # fmt: skip


def screen(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A monitor on a foot."""
    width = rng.uniform(0.35, 0.8)
    height, black = width * 0.6, b.paint(paint.plain((0.01, 0.1)))
    b.box(at @ pose(z=0.01), (width * 0.4, 0.2, 0.02), black, node)
    b.rod(*_between(at, _point(0, 0, 0), _point(0, 0, 0.2)), 0.02, black, node)
    b.box(at @ pose(z=0.12 + height / 2), (width, 0.03, height), black, node)
    b.box(at @ pose(y=0.016, z=0.12 + height / 2), (width * 0.95, 0.002, height * 0.92), b.paint(paint.screen()), node)


def bottle(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A bottle with a label."""
    radius, height, glass = rng.uniform(0.03, 0.05), rng.uniform(0.12, 0.24), b.paint(paint.plain())
    b.cylinder(at @ pose(z=height / 2), radius, height, glass, node)
    b.cylinder(at @ pose(z=height / 2), radius * 1.02, height * 0.5, b.paint(paint.picture()), node)
    b.cone(at @ pose(z=height + radius), radius, radius * 2, glass, node)
    b.cylinder(at @ pose(z=height + radius * 2.5), radius * 0.3, radius * 1.4, glass, node)


def mug(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A mug, glass or tin."""
    radius = rng.uniform(0.03, 0.06)
    height, body = radius * rng.uniform(1.5, 3.5), b.paint(paint.picture() if rng.random() < 0.4 else paint.plain())
    b.cylinder(at @ pose(z=height / 2), radius, height, body, node)
    if rng.random() < 0.5:
        x, low, high = radius * 1.6, height * 0.3, height * 0.75
        corners = [_point(radius, 0, low), _point(x, 0, low), _point(x, 0, high), _point(radius, 0, high)]
        _rods(b, at, list(pairwise(corners)), radius * 0.14, body, node)


def books(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A pile of books or a parcel."""
    z = 0.0
    for _ in range(rng.integers(1, 5)):
        thick = rng.uniform(0.01, 0.05)
        size = (rng.uniform(0.12, 0.22), rng.uniform(0.16, 0.3), thick)
        b.box(at @ pose(z=z + thick / 2, yaw=rng.normal(0, 0.25)), size, b.paint(paint.picture()), node)
        z += thick


def bowl_of_fruit(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """Balls in a heap."""
    for _ in range(rng.integers(1, 6)):
        radius = rng.uniform(0.025, 0.06)
        x, y = rng.normal(0, 0.07, 2)
        where = at @ pose(x, y, radius * rng.uniform(0.9, 1.8), rng.uniform(0, 6))
        b.ellipsoid(where, (radius, radius * rng.uniform(0.8, 1), radius), b.paint(paint.plain()), node)


def desk_lamp(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """Two thin arms and a head."""
    metal = b.paint(paint.metal())
    elbow, head = _point(rng.uniform(-0.2, 0.2), -0.1, 0.3), _point(rng.uniform(-0.1, 0.3), 0.1, 0.45)
    b.cylinder(at @ pose(z=0.01), 0.08, 0.02, metal, node)
    _rods(b, at, [(_point(0, 0, 0), elbow), (elbow, head)], 0.007, metal, node)
    b.cone(at @ pose(*head), 0.07, 0.12, metal, node)


def cable(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A wire on the ground."""
    points = np.cumsum(rng.normal(0, 0.08, (rng.integers(4, 9), 3)) * (1, 1, 0.25), 0)
    points[:, 2] = np.abs(points[:, 2]) + 0.003
    material = b.paint(paint.plain((0.02, 0.5)))
    _rods(b, at, list(pairwise(points)), rng.uniform(0.002, 0.006), material, node)


def parcel(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A box of any proportions."""
    size = rng.uniform(0.04, 0.3, 3)
    material = paint.picture() if rng.random() < 0.5 else paint.any()
    b.box(at @ pose(z=size[2] / 2), tuple(size), b.paint(material), node)


def small_thing(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """Something that stands on tables."""
    makers = (bottle, mug, mug, books, bowl_of_fruit, desk_lamp, cable, parcel, parcel, screen)
    makers[rng.integers(len(makers))](b, paint, rng, at, node)


def crate(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A crate, or a pile of them on a pallet."""
    size, z = rng.uniform(0.4, 1.4, 3), 0.0
    material = b.paint(paint.wood() if rng.random() < 0.5 else paint.any())
    for _ in range(rng.integers(1, 4)):
        x, y = rng.normal(0, 0.04, 2)
        b.box(at @ pose(x, y, z + size[2] / 2, rng.normal(0, 0.06)), tuple(size), material, node)
        z += size[2]


def barrel(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A barrel or bin with rings."""
    radius, height, body = rng.uniform(0.25, 0.45), rng.uniform(0.6, 1.1), b.paint(paint.plain())
    b.cylinder(at @ pose(z=height / 2), radius, height, body, node)
    for z in (0.3, 0.65):
        b.cylinder(at @ pose(z=height * z), radius * 1.03, 0.04, body, node)


def rack(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A storage rack of posts and beams, with goods."""
    width, depth, height = rng.uniform(2, 5), rng.uniform(0.7, 1.2), rng.uniform(2.5, 6)
    steel, board = b.paint(paint.metal()), b.paint(paint.wood())
    for x in np.linspace(-width / 2, width / 2, rng.integers(2, 4)):
        for y in (-depth / 2, depth / 2):
            b.box(at @ pose(x, y, height / 2), (0.08, 0.08, height), steel, node)
    for z in np.arange(0.15, height, rng.uniform(1.1, 1.8)):
        b.box(at @ pose(z=z), (width, depth, 0.06), board, node)
        for x in np.arange(-width / 2 + 0.4, width / 2 - 0.4, 0.9):
            if rng.random() < 0.6:
                size = rng.uniform(0.4, 0.8, 3)
                b.box(at @ pose(x, 0, z + size[2] / 2 + 0.03), tuple(size), b.paint(paint.any()), node)


def railing(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A fence or banister of thin bars."""
    width, height, gap = rng.uniform(1.5, 5), rng.uniform(0.8, 1.6), rng.uniform(0.1, 0.35)
    material, radius = b.paint(paint.metal() if rng.random() < 0.6 else paint.wood()), rng.uniform(0.008, 0.03)
    bars = [(_point(x, 0, 0), _point(x, 0, height)) for x in np.arange(-width / 2, width / 2, gap)]
    bars += [(_point(-width / 2, 0, z), _point(width / 2, 0, z)) for z in (0.1 * height, height)]
    _rods(b, at, bars, radius, material, node)


def tree(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """Trunk, branches and a crown of clumps."""
    height, bark = rng.uniform(2.5, 8), b.paint(paint.wood())
    trunk, leaves = height * rng.uniform(0.35, 0.6), [b.paint(paint.leaf()) for _ in range(3)]
    b.cone(at @ pose(z=trunk / 2), height * rng.uniform(0.03, 0.06), trunk * 1.3, bark, node)
    clump = rng.uniform(0.6, 1.4)
    for _ in range(int(rng.integers(10, 26) / clump)):
        angle, lift, reach = rng.uniform(0, 6.28), rng.uniform(0, 1.5), rng.uniform(0.4, 1) * (height - trunk) * 0.7
        tip = _point(np.cos(angle) * np.cos(lift) * reach, np.sin(angle) * np.cos(lift) * reach, np.sin(lift) * reach)
        tip[2] += trunk
        if rng.random() < 0.5:
            b.rod(*_between(at, _point(0, 0, trunk * 0.8), tip), 0.012 * height * rng.uniform(0.3, 1), bark, node)
        radii = rng.uniform(0.05, 0.18, 3) * clump * height * (1, 1, 0.6)
        b.ellipsoid(at @ pose(*tip, *rng.uniform(0, 6.28, 3)), tuple(radii), leaves[rng.integers(3)], node)


def lamp_post(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A post with an arm, or a sign."""
    height, metal = rng.uniform(2.5, 6), b.paint(paint.metal())
    b.cylinder(at @ pose(z=height / 2), rng.uniform(0.03, 0.1), height, metal, node)
    if rng.random() < 0.5:
        b.rod(*_between(at, _point(0, 0, height), _point(1.0, 0, height + 0.2)), 0.03, metal, node)
        b.ellipsoid(at @ pose(1.0, 0, height + 0.15), (0.3, 0.12, 0.08), b.paint(paint.plain((0.5, 0.9))), node)
    else:
        b.box(
            at @ pose(z=height * 0.9),
            (rng.uniform(0.3, 1), 0.03, rng.uniform(0.3, 0.8)),
            b.paint(paint.picture()),
            node,
        )


def car(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A car or van, driving along x."""
    length, width, height = rng.uniform(3.5, 5), 1.8, rng.uniform(1.3, 2.2)
    body, glass, tyre = (b.paint(paint.plain(v)) for v in ((0.05, 0.9), (0.01, 0.1), (0.01, 0.04)))
    b.box(at @ pose(z=0.25 + height * 0.25), (length, width, height * 0.5), body, node)
    b.box(at @ pose(-0.1 * length, 0, height * 0.75), (length * 0.55, width * 0.9, height * 0.5), body, node)
    b.box(at @ pose(-0.1 * length, 0, height * 0.78), (length * 0.56, width * 0.91, height * 0.28), glass, node)
    for x in (-0.3, 0.3):
        for y in (-0.5, 0.5):
            b.cylinder(at @ pose(x * length, y * width, 0.32, roll=np.pi / 2), 0.32, 0.2, tyre, node)


def _joint(b: SceneBuilder, at: Array, node: int, pivot: Array, angles: Array) -> tuple[Array, int]:
    """Pose and node of a limb that swings about y at ``pivot``.

    ``angles`` (N,) radians; in the static world, the first one is used."""
    hinge = at @ pose(*pivot)
    if node == 0:
        return hinge @ pose(pitch=angles[0]), 0
    swing = np.stack([pose(pitch=angle) for angle in angles])
    return np.eye(4), b.node(b.nodes[node] @ hinge @ swing)


def _gait(b: SceneBuilder, rng: np.random.Generator, rate: float) -> Array:
    """Phases (N,) of a walk of about ``rate`` steps a second, from a random start."""
    return rng.uniform(0, 6.28) + 2 * np.pi * rate * rng.uniform(0.7, 1.3) * b.frame_time * np.arange(
        b.frames, dtype=float
    )


def person(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A person of ellipsoids and rods, facing x; on a moving node, arms and legs swing."""
    tall, phase, stride = rng.uniform(1.5, 1.9), _gait(b, rng, 0.9), rng.uniform(0.1, 0.55)
    coat, trousers, hair = b.paint(paint.cloth()), b.paint(paint.cloth()), b.paint(paint.plain((0.01, 0.3)))
    skin = b.paint(paint.mix((0.25, 0.13, 0.08), (0.6, 0.4, 0.3), ("cloud",), (0.2, 0.5)))
    b.ellipsoid(at @ pose(z=0.92 * tall), (0.09, 0.085, 0.12), skin, node)
    b.ellipsoid(at @ pose(x=-0.02, z=0.955 * tall), (0.1, 0.095, 0.1), hair, node)
    b.ellipsoid(at @ pose(z=0.68 * tall), (0.14, 0.22, 0.19 * tall), coat, node)
    b.ellipsoid(at @ pose(z=0.52 * tall), (0.14, 0.18, 0.1 * tall), trousers, node)
    for side in (-1, 1):
        swing = stride * np.sin(phase) * side
        where, limb = _joint(b, at, node, _point(0, side * 0.09, 0.5 * tall), swing)
        knee, foot = _point(0.04, 0, -0.24 * tall), _point(-0.02, 0, -0.5 * tall + 0.06)
        b.rod(*_between(where, _point(0, 0, 0), knee), 0.075, trousers, limb)
        b.rod(*_between(where, knee, foot), 0.055, trousers, limb)
        b.ellipsoid(where @ pose(0.04, 0, foot[2] - 0.01), (0.14, 0.05, 0.05), hair, limb)
        where, limb = _joint(b, at, node, _point(0, side * 0.21, 0.8 * tall), -0.8 * swing)
        elbow = _point(0, side * rng.uniform(0.02, 0.15), -0.17 * tall)
        hand = elbow + _point(rng.uniform(0, 0.2), 0, rng.uniform(-0.15, 0.05) * tall)
        b.rod(*_between(where, _point(0, 0, 0), elbow), 0.045, coat, limb)
        b.rod(*_between(where, elbow, hand), 0.037, coat, limb)
        b.ellipsoid(where @ pose(*hand), (0.05, 0.04, 0.06), skin, limb)


def animal(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A four-legged animal, facing x; on a moving node, its legs swing."""
    size, phase = rng.uniform(0.25, 0.9), _gait(b, rng, 1.5)
    dark, light = paint.colour((0.03, 0.6), (0, 0.6)), paint.colour((0.1, 0.8), (0, 0.5))
    coat = paint.mix(dark, light, ("noise", "cells"), (0.3, 1)) if rng.random() < 0.5 else paint.cloth()
    fur = b.paint(coat)
    b.ellipsoid(at @ pose(z=0.75 * size), (0.55 * size, 0.2 * size, 0.22 * size), fur, node)
    b.ellipsoid(at @ pose(0.65 * size, 0, 1.05 * size), (0.2 * size, 0.13 * size, 0.14 * size), fur, node)
    tail = _point(-0.85, 0, rng.uniform(0.6, 1.2))
    parts = [(_point(0.4, 0, 0.8), _point(0.62, 0, 1.0)), (_point(-0.5, 0, 0.8), tail)]
    parts += [(_point(0.6, y, 1.1), _point(0.58, y * 1.4, 1.27)) for y in (-0.08, 0.08)]
    _rods(b, at, [(start * size, end * size) for start, end in parts], 0.05 * size, fur, node)
    for x, y in ((-0.38, -0.12), (-0.38, 0.12), (0.38, -0.12), (0.38, 0.12)):
        swing = 0.4 * np.sin(phase + (np.pi if x * y > 0 else 0))
        where, limb = _joint(b, at, node, _point(x, y, 0.7) * size, swing)
        _rods(b, where, [(_point(0, 0, 0), _point(0, 0, -0.7 * size))], 0.05 * size, fur, limb)


def ball(b: SceneBuilder, paint: Paint, rng: np.random.Generator, at: Array, node: int = 0) -> None:
    """A ball, sometimes oval."""
    radius = rng.uniform(0.08, 0.35)
    b.ellipsoid(at @ pose(z=radius), (radius, radius * rng.choice((1, 1, 0.7)), radius), b.paint(paint.any()), node)


ALONG_WALLS: tuple[Maker, ...] = (shelf, shelf, cabinet, cabinet, sofa, bed, table, plant, floor_lamp)
FREE_STANDING: tuple[Maker, ...] = (
    table, chair, chair, chair, floor_lamp, coat_rack, plant, parcel, crate, ball, sofa, person,
)  # fmt: skip
IN_HALLS: tuple[Maker, ...] = (crate, crate, barrel, rack, railing, person, chair, table, coat_rack, cabinet)
OUTDOORS: tuple[Maker, ...] = (tree, tree, lamp_post, railing, car, person, barrel, crate, coat_rack, animal)
MOVING: tuple[Maker, ...] = (person, person, animal, ball, parcel, chair, crate)
