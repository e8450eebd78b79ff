"""Colour of the surface points that rays hit: textures, lamp or sun with shadow, highlights, ambient light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .intersect import BOX, CONE, CONE_RADIUS, CONE_TAPER, CYLINDER, Vector
from .raycast import Pairs, Rays
from .textures import TextureBank

_SHADOW_BIAS = 0.02


@dataclass(frozen=True)
class ShadowMaps:
    """Shadow maps: depth as seen from the lights.

    Attributes:
        depth: (L, S, S) planar depth from a light to the nearest surface, inf for none.
        rays: of the light of each of V camera views.
        still: (V,) int64 index of the map of static objects for each camera view.
        moving: (V,) int64 index of the map of moving objects.
    """

    depth: Tensor
    rays: Rays
    still: Tensor
    moving: Tensor

    def lit(self, view: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Share of the light (N,), 0..1, that reaches points (N,) given in light coordinates."""
        size = self.rays.height
        inverse = 1 / z.clamp_min(1e-3)
        light = self.still.index_select(0, view)
        focal = self.rays.focal[:, 0].index_select(0, view)
        u = x * inverse * focal + (size - 1) / 2
        v = y * inverse * focal + (size - 1) / 2
        outside = (z <= 0) | (u < 0) | (v < 0) | (u > size - 1) | (v > size - 1)
        column, row = u.floor().clamp_(0, size - 2), v.floor().clamp_(0, size - 2)
        fu, fv = (u - column).clamp_(0, 1), (v - row).clamp_(0, 1)
        corner = row.long() * size + column.long()
        reach = z * (1 - _SHADOW_BIAS)
        share = torch.ones_like(z)
        flat = self.depth.flatten()
        for layer in (light, self.moving.index_select(0, view)):
            base = layer * size**2 + corner
            a, b, c, d = ((flat.index_select(0, base + step) > reach).float() for step in (0, 1, size, size + 1))
            share = torch.minimum(share, torch.lerp(torch.lerp(a, b, fu), torch.lerp(c, d, fu), fv))
        return torch.where(outside, 1.0, share)


@dataclass(frozen=True)
class ShadingTables:
    """Numbers that shading needs, one column per pair, material or view.

    Attributes:
        geometry: (18, P) rows: canonical direction matrix 9, origin 3, half sizes 3, kind, first material, faces.
        lighting: (18, P) rows: light position 3 and world up 3 in object coordinates, light-from-object pose 12.
        materials: (MATERIAL_COLUMNS, M).
        lamps: (7, V) rows: light colour 3, ambient 3, 1 / reach.
    """

    geometry: Tensor
    lighting: Tensor
    materials: Tensor
    lamps: Tensor

    @staticmethod
    def geometry_of(pairs: Pairs, material: Tensor, faces: Tensor) -> Tensor:
        """Rows of :attr:`geometry` from the pairs and each pair's first material and faces."""
        numbers = torch.stack((pairs.kind.float(), material.float(), faces.float()), 1)
        return torch.cat((pairs.direction.flatten(1), pairs.origin, pairs.half, numbers), 1).t().contiguous()


def _dot(a: Vector, b: Vector) -> Tensor:
    return (a[0] * b[0]).add_(a[1] * b[1]).add_(a[2] * b[2])


def _largest(vector: Vector) -> Tensor:
    """The axis (N,) of a vector's largest component; many times as fast as argmax over a stack."""
    x, y, z = (component.abs() for component in vector)
    return torch.where((z > x) & (z > y), 2, (y > x).long())


def _along(vector: Vector, axis: Tensor) -> Tensor:
    """The component (N,) of a vector along ``axis``."""
    return torch.where(axis == 0, vector[0], torch.where(axis == 1, vector[1], vector[2]))


def shade(
    tables: ShadingTables, pairs: Pairs, rays: Rays, bank: TextureBank, shadows: ShadowMaps | None,
    pair: Tensor, x: Tensor, y: Tensor, depth: Tensor,
) -> Tensor:  # fmt: skip
    """Colour in linear light (3, N) of pair (N,) at image points x, y (N,) and depth (N,) in metres."""
    view = pairs.view.index_select(0, pair)
    u, v = rays.normalised(view, x, y)
    geometry = tables.geometry.index_select(1, pair)
    direction = [geometry[3 * i] * u + geometry[3 * i + 1] * v + geometry[3 * i + 2] for i in range(3)]
    canonical = [geometry[9 + i] + depth * direction[i] for i in range(3)]
    half = [geometry[12 + i] for i in range(3)]
    point = [canonical[i] * half[i] for i in range(3)]
    ray = [direction[i] * half[i] for i in range(3)]

    # Gradient of the canonical surface, then the metric normal, turned towards the camera.
    kind = geometry[15]
    face = _largest(canonical)
    is_box = kind == BOX
    round_cap = (
        torch.where(kind == CONE, CONE_RADIUS + CONE_TAPER * canonical[2], torch.ones_like(depth)).square_()
        * canonical[2].square()
    )
    capped = (kind >= CYLINDER) & (round_cap > canonical[0] * canonical[0] + canonical[1] * canonical[1])
    side_z = torch.where(kind == CONE, -CONE_TAPER * (CONE_RADIUS + CONE_TAPER * canonical[2]), canonical[2])
    side_z = side_z.masked_fill_(kind == CYLINDER, 0.0)
    flat = is_box | capped
    flat_axis = face.masked_fill(capped, 2)
    normal = [
        torch.where(flat, (flat_axis == i) * canonical[i], canonical[i] if i < 2 else side_z) / half[i]
        for i in range(3)
    ]
    length = _dot(normal, normal).sqrt_().clamp_min_(1e-12)
    ray_length = _dot(ray, ray).sqrt_()
    facing = _dot(normal, ray) / (length * ray_length)
    flip = torch.where(facing > 0, -1.0, 1.0) / length
    normal = [component * flip for component in normal]
    facing = facing.abs_().clamp_min_(0.02)

    # Texture coordinates in metres on the plane most parallel to the surface.
    axis = _largest(normal)
    first = torch.where(axis == 0, point[1], point[0])
    second = torch.where(axis == 2, point[1], point[2])
    material = geometry[16].long() + geometry[17].long() * (2 * face + (_along(canonical, face) > 0))
    paint = tables.materials.index_select(1, material)
    turned = first * paint[13] + second * paint[14]
    second = second * paint[13] - first * paint[14]
    first = turned
    shift_u, shift_v = paint[15] + 0.37 * axis, paint[16] + 0.71 * axis
    footprint = depth / (rays.focal[:, 0].index_select(0, view) * facing.sqrt())
    period, detail_period = paint[11], paint[12]
    base = bank.sample(paint[9].long(), first * period + shift_u, second * period + shift_v, footprint * period)
    detail = bank.sample(
        paint[10].long(), first * detail_period - shift_v, second * detail_period + shift_u, footprint * detail_period
    )
    detail = detail - 0.5
    albedo = [(paint[i] + base * paint[3 + i] + detail * paint[6 + i]).clamp_(0.01, 1.0) for i in range(3)]

    lighting = tables.lighting.index_select(1, pair)
    lamp = tables.lamps.index_select(1, view)
    to_light = [lighting[i] - point[i] for i in range(3)]
    distance = _dot(to_light, to_light).sqrt_().clamp_min_(1e-6)
    cosine = _dot(normal, to_light) / distance
    arriving = (distance * lamp[6]).square_().add_(1).reciprocal_()
    if shadows is not None:
        in_light = [
            lighting[6 + 4 * i] * point[0] + lighting[7 + 4 * i] * point[1] + lighting[8 + 4 * i] * point[2]
            + lighting[9 + 4 * i] for i in range(3)
        ]  # fmt: skip
        arriving = arriving * shadows.lit(view, *in_light)
    halfway = [to_light[i] / distance - ray[i] / ray_length for i in range(3)]
    shine = _dot(normal, halfway).clamp_min_(0) / _dot(halfway, halfway).sqrt_().clamp_min_(1e-6)
    for _ in range(5):
        shine = shine * shine
    highlight = paint[17] * shine * arriving * (cosine > 0)
    diffuse = cosine.clamp_min(0) * arriving
    upward = _dot(normal, (lighting[3], lighting[4], lighting[5]))
    surround = 0.68 + 0.17 * upward + 0.15 * facing
    glow = paint[18] > 0
    return torch.stack(
        [
            torch.where(glow, albedo[i], albedo[i] * (lamp[3 + i] * surround + lamp[i] * diffuse) + lamp[i] * highlight)
            for i in range(3)
        ]
    )
