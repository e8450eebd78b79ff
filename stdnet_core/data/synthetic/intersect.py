"""Analytic intersection of rays with canonical primitives.

Every primitive is canonical in its own scaled coordinates: the cube [-1, 1]^3, the unit sphere, the cylinder and the
cone about z between z = -1 and 1. Rays are o + t d with d scaled such that t is the planar depth in the camera. All
tensors broadcast; the result is the smallest t > 0, inf for a miss. From inside a primitive, the ray hits its far side,
so a room is a cube seen from inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Vector = Sequence[Tensor]
"""x, y and z."""
BOX, ELLIPSOID, CYLINDER, CONE = range(4)
NEAREST = 1e-4
"""Hits nearer than this many metres are ignored."""
_HUGE = 1e12
CONE_RADIUS, CONE_TAPER = 0.625, -0.375
"""Radius of the canonical cone at z: CONE_RADIUS + CONE_TAPER z, so 1 at the bottom and 0.25 at the top."""


def _first_positive(near: Tensor, far: Tensor, hit: Tensor) -> Tensor:
    depth = torch.where(near > NEAREST, near, far)
    return depth.masked_fill_(~(hit & (depth > NEAREST)), math.inf)


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = d.reciprocal().clamp_(-_HUGE, _HUGE)
    middle = inverse * (-o)
    half = inverse.abs_()
    return middle - half, half.add_(middle)


def box(o: Vector, d: Vector) -> Tensor:
    """Cube [-1, 1]^3."""
    near, far = _slab(o[0], d[0])
    for axis in (1, 2):
        axis_near, axis_far = _slab(o[axis], d[axis])
        near, far = torch.maximum(near, axis_near), torch.minimum(far, axis_far)
    return _first_positive(near, far, near <= far)


def ellipsoid(o: Vector, d: Vector) -> Tensor:
    """Unit sphere. Uses the point of the ray nearest to the centre, which keeps small distant spheres exact."""
    inverse = (d[0] * d[0] + d[1] * d[1]).add_(d[2] * d[2]).reciprocal_()
    middle = (d[0] * o[0]).add_(d[1] * o[1]).add_(d[2] * o[2]).mul_(inverse).neg_()
    outside = torch.ones((), device=inverse.device)
    for axis in range(3):
        closest = middle * d[axis] + o[axis]
        outside = outside - closest * closest
    half = (outside * inverse).clamp_min(0).sqrt_()
    return _first_positive(middle - half, middle + half, outside > 0)


def cylinder(o: Vector, d: Vector) -> Tensor:
    """Cylinder x^2 + y^2 <= 1, |z| <= 1, with caps."""
    inverse = (d[0] * d[0] + d[1] * d[1]).reciprocal_().clamp_(max=_HUGE)
    middle = (d[0] * o[0]).add_(d[1] * o[1]).mul_(inverse).neg_()
    x, y = middle * d[0] + o[0], middle * d[1] + o[1]
    outside = 1 - x * x - y * y
    half = (outside * inverse).clamp_min(0).sqrt_()
    cap_near, cap_far = _slab(o[2], d[2])
    near, far = torch.maximum(middle - half, cap_near), torch.minimum(middle + half, cap_far)
    return _first_positive(near, far, (near <= far) & (outside > 0))


def cone(o: Vector, d: Vector) -> Tensor:
    """Truncated cone x^2 + y^2 <= (CONE_RADIUS + CONE_TAPER z)^2, |z| <= 1, with caps."""
    radius_o, radius_d = CONE_RADIUS + CONE_TAPER * o[2], CONE_TAPER * d[2]
    a = d[0] * d[0] + d[1] * d[1] - radius_d * radius_d
    b = d[0] * o[0] + d[1] * o[1] - radius_d * radius_o
    c = o[0] * o[0] + o[1] * o[1] - radius_o * radius_o
    inverse = a.reciprocal().clamp_(-_HUGE, _HUGE)
    root = (b * b - a * c).sqrt()  # nan where the mantle is missed: all comparisons below are then false
    depth = torch.full_like(root, math.inf)
    for sign in (-1.0, 1.0):
        t = (sign * root - b) * inverse
        side = (t > NEAREST) & ((o[2] + t * d[2]).abs() <= 1)
        depth = torch.where(side & (t < depth), t, depth)
    inverse = d[2].reciprocal().clamp_(-_HUGE, _HUGE)
    for cap in (-1.0, 1.0):
        t = (cap - o[2]) * inverse
        x, y = o[0] + t * d[0], o[1] + t * d[1]
        inside = (t > NEAREST) & (x * x + y * y <= (CONE_RADIUS + cap * CONE_TAPER) ** 2)
        depth = torch.where(inside & (t < depth), t, depth)
    return depth


INTERSECT: dict[int, Callable[[Vector, Vector], Tensor]] = {
    BOX: box,
    ELLIPSOID: ellipsoid,
    CYLINDER: cylinder,
    CONE: cone,
}
