"""A scene: rigid nodes that move, primitives fixed to nodes, materials, one light, and a camera path.

World coordinates have z up; cameras look along +z with x right and y down. Poses are 4x4 float64 matrices that take
local coordinates to the parent's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .intersect import BOX, CONE, CYLINDER, ELLIPSOID

Array = NDArray[np.float64]


def pose(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0, pitch: float = 0, roll: float = 0) -> Array:
    """Pose from a position and rotations (radians) about z, then y, then x."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    return np.array(
        (
            (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr, x),
            (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr, y),
            (-sp, cp * sr, cp * cr, z),
            (0, 0, 0, 1),
        )
    )


def on_ground(place: Iterable[float], yaw: float = 0) -> Array:
    """Pose of an upright object at (x, y)."""
    x, y = place
    return pose(x, y, 0, yaw)


def pointing(start: Array, end: Array) -> tuple[Array, float]:
    """Pose whose z axis runs from ``start`` to ``end``, centred between them, and half their distance."""
    axis = np.asarray(end, float) - start
    length = float(np.linalg.norm(axis))
    z = axis / length
    helper = np.eye(3)[int(np.abs(z).argmin())]
    x = np.cross(helper, z)
    x /= np.linalg.norm(x)
    result = np.eye(4)
    result[:3, :3] = np.stack((x, np.cross(z, x), z), 1)
    result[:3, 3] = (np.asarray(start, float) + end) / 2
    return result, length / 2


@dataclass(frozen=True)
class Material:
    """Surface colours, in linear light, and the two textures that mix them.

    Attributes:
        low, high: RGB where the first texture is 0 and 1.
        accent: RGB change per unit of the second texture about its mean.
        texture, detail: numbers in the bank.
        period, detail_period: length of one repetition of each in metres.
        angle: rotation of the textures in radians.
        shift: offset of the textures in repetitions.
        gloss: strength of the highlight.
        glow: emitted light, 0 or 1; 1 shows the colours without shading (sky, lamps, screens).
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    accent: tuple[float, float, float] = (0.0, 0.0, 0.0)
    texture: int = 0
    detail: int = 0
    period: float = 1.0
    detail_period: float = 1.0
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    gloss: float = 0.0
    glow: float = 0.0

    def row(self) -> tuple[float, ...]:
        """The numbers in the order of :data:`MATERIAL_COLUMNS`."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return (
            *self.low, *(h - low for h, low in zip(self.high, self.low, strict=True)), *self.accent, self.texture,
            self.detail, 1 / self.period, 1 / self.detail_period, cos, sin, *self.shift, self.gloss, self.glow,
        )  # fmt: skip


MATERIAL_COLUMNS = 19


@dataclass(frozen=True)
class Light:
    """A lamp or the sun.

    Attributes:
        position: metres, world.
        target: point at which its shadow map looks, world.
        spread: half angle of the shadow map in radians.
        reach: distance in metres at which it has half of its strength; inf for the sun.
        colour: RGB.
        ambient: RGB of the ambient light.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    spread: float
    reach: float
    colour: tuple[float, float, float]
    ambient: tuple[float, float, float]


@dataclass(frozen=True)
class Sensor:
    """The camera's imperfections; arrays have one entry per frame.

    Attributes:
        exposure: (N,) factor on linear light.
        tint: RGB factors of the white balance.
        read_noise, shot_noise: standard deviations in 0..1, of the constant part and at full brightness.
        blur: standard deviation of the optics' blur in pixels.
        shutter: share of the frame time during which the shutter is open; 0 for no motion blur.
        vignette: loss of light in the corners, 0..1.
        contrast: strength of the tone curve, 0 for plain gamma.
    """

    exposure: Array
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    read_noise: float = 0.0
    shot_noise: float = 0.0
    blur: float = 0.0
    shutter: float = 0.0
    vignette: float = 0.0
    contrast: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Everything that a clip shows.

    Attributes:
        seed: for the sensor's noise.
        kind, node, material: (P,) of each primitive; material counts from the first of its faces.
        faces: (P,) bool, a box with six materials, for -x, +x, -y, +y, -z, +z.
        half: (P, 3) half sizes in metres.
        local: (P, 4, 4) pose of the primitive in its node.
        nodes: (K, N, 4, 4) pose of each node in the world in each of N frames; node 0 is the static world.
        materials: (M, MATERIAL_COLUMNS).
        camera: (N, 4, 4) pose of the camera in the world.
        focal, centre: pixels, for the size that the scene was built for.
        far: depths beyond this many metres are invalid.
    """

    seed: int
    kind: NDArray[np.int64]
    node: NDArray[np.int64]
    material: NDArray[np.int64]
    faces: NDArray[np.bool_]
    half: Array
    local: Array
    nodes: Array
    materials: Array
    camera: Array
    light: Light
    sensor: Sensor
    focal: tuple[float, float]
    centre: tuple[float, float]
    far: float = math.inf


@dataclass
class SceneBuilder:
    """Collects primitives, nodes and materials; node 0 is the static world.

    ``frames`` is the length of all motion, ``frame_time`` the seconds from one to the next."""

    frames: int
    frame_time: float = 1 / 30
    kinds: list[int] = field(default_factory=list)
    primitive_nodes: list[int] = field(default_factory=list)
    primitive_materials: list[int] = field(default_factory=list)
    faces: list[bool] = field(default_factory=list)
    halves: list[tuple[float, float, float]] = field(default_factory=list)
    locals: list[Array] = field(default_factory=list)
    nodes: list[Array] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node(np.broadcast_to(np.eye(4), (self.frames, 4, 4)))

    def node(self, poses: Array) -> int:
        """Add a rigid node with its pose (N, 4, 4) in each frame; returns its number."""
        self.nodes.append(poses)
        return len(self.nodes) - 1

    def paint(self, *materials: Material) -> int:
        """Add materials, six for a box with faces of its own; returns the number of the first."""
        self.materials.extend(materials)
        return len(self.materials) - len(materials)

    def _add(self, kind: int, half: tuple[float, float, float], where: Array, material: int, node: int) -> None:
        self.kinds.append(kind)
        self.halves.append(half)
        self.locals.append(where)
        self.primitive_materials.append(material)
        self.primitive_nodes.append(node)
        self.faces.append(False)

    def box(
        self, where: Array, size: tuple[float, float, float], material: int, node: int = 0, faces: bool = False
    ) -> None:
        """Add a box of ``size`` metres centred on ``where``."""
        self._add(BOX, (size[0] / 2, size[1] / 2, size[2] / 2), where, material, node)
        self.faces[-1] = faces

    def ellipsoid(self, where: Array, radii: tuple[float, float, float], material: int, node: int = 0) -> None:
        """Add an ellipsoid centred on ``where``."""
        self._add(ELLIPSOID, radii, where, material, node)

    def cylinder(self, where: Array, radius: float, height: float, material: int, node: int = 0) -> None:
        """Add an upright cylinder centred on ``where``."""
        self._add(CYLINDER, (radius, radius, height / 2), where, material, node)

    def cone(self, where: Array, radius: float, height: float, material: int, node: int = 0) -> None:
        """Add a truncated cone, wide end down, centred on ``where``."""
        self._add(CONE, (radius, radius, height / 2), where, material, node)

    def rod(self, start: Array, end: Array, radius: float, material: int, node: int = 0) -> None:
        """Add a cylinder between two points of the node."""
        where, half = pointing(start, end)
        self._add(CYLINDER, (radius, radius, half), where, material, node)

    def build(
        self, *, seed: int, camera: Array, light: Light, sensor: Sensor, focal: tuple[float, float],
        centre: tuple[float, float], far: float = math.inf,
    ) -> Scene:  # fmt: skip
        """The finished scene."""
        return Scene(
            seed=seed,
            kind=np.array(self.kinds, np.int64),
            node=np.array(self.primitive_nodes, np.int64),
            material=np.array(self.primitive_materials, np.int64),
            faces=np.array(self.faces, bool),
            half=np.array(self.halves, np.float64),
            local=np.stack(self.locals),
            nodes=np.stack(self.nodes),
            materials=np.array([material.row() for material in self.materials], np.float64),
            camera=np.asarray(camera, np.float64),
            light=light,
            sensor=sensor,
            focal=focal,
            centre=centre,
            far=far,
        )
