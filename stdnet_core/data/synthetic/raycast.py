"""Finds the surface that each pixel sees, and its depth, by testing tiles of pixels against overlapping primitives.

A *pair* is one primitive in one view. The oriented bounding box of each pair is projected, and every tile that it
touches gets an entry; the entries of a tile are reduced to the nearest hit. Without randomness or atomics, results are
exactly reproducible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .intersect import INTERSECT

TILE = 8
_NEAR_PLANE = 0.01
_CORNERS = tuple((x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1))
_EDGES = tuple((a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit)


@dataclass(frozen=True)
class Pairs:
    """Primitives as seen from views.

    Attributes:
        kind: (P,) int64 kind of the primitive (:mod:`.intersect`).
        view: (P,) int64 the view.
        camera_from_object: (P, 3, 4) rigid pose of the primitive in the camera, metres.
        half: (P, 3) half sizes in metres, by which the canonical primitive is scaled.
        direction: (P, 3, 3) camera ray -> ray in canonical coordinates.
        origin: (P, 3) camera centre in canonical coordinates.
    """

    kind: Tensor
    view: Tensor
    camera_from_object: Tensor
    half: Tensor
    direction: Tensor
    origin: Tensor

    @classmethod
    def build(cls, kind: Tensor, view: Tensor, camera_from_object: Tensor, half: Tensor) -> Pairs:
        """Pairs of float64 poses (P, 4, 4) and float64 half sizes (P, 3); canonical terms in float32."""
        rotation = camera_from_object[:, :3, :3].transpose(1, 2) / half[:, :, None]
        origin = -(rotation @ camera_from_object[:, :3, 3:])[..., 0]
        return cls(kind, view, camera_from_object[:, :3].float(), half.float(), rotation.float(), origin.float())


@dataclass(frozen=True)
class Rays:
    """Pinhole views of one size.

    Attributes:
        focal: (V, 2) focal lengths in pixels.
        centre: (V, 2) principal point in pixels, pixel centres at integers.
        height, width: size in pixels.
    """

    focal: Tensor
    centre: Tensor
    height: int
    width: int

    def normalised(self, view: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (x, y) of ``view`` -> ray directions (X/Z, Y/Z); shapes (N, ...)."""
        extra = (1,) * (x.dim() - 1)

        def of_view(table: Tensor) -> Tensor:
            return table.index_select(0, view).view(-1, *extra)

        u = (x - of_view(self.centre[:, 0])) / of_view(self.focal[:, 0])
        return u, (y - of_view(self.centre[:, 1])) / of_view(self.focal[:, 1])


def screen_bounds(pairs: Pairs, rays: Rays) -> Tensor:
    """Pixel bounds (P, 4) left, top, right, bottom of the pairs' bounding boxes; empty ones have right < left."""
    corners = torch.tensor(_CORNERS, dtype=torch.float32, device=pairs.half.device) * pairs.half[:, None]
    points = corners @ pairs.camera_from_object[:, :, :3].transpose(1, 2) + pairs.camera_from_object[:, None, :, 3]
    edges = torch.tensor(_EDGES, device=points.device)
    start, end = points[:, edges[:, 0]], points[:, edges[:, 1]]  # (P, 12, 3)
    rise = end[..., 2] - start[..., 2]
    rise = torch.where(rise.abs() < 1e-9, torch.full_like(rise, 1e-9), rise)
    cut = ((_NEAR_PLANE - start[..., 2]) / rise).clamp(0, 1)[..., None]
    crossing = start + cut * (end - start)
    both = torch.cat((start, end, crossing), 1)  # (P, 36, 3)
    visible = both[..., 2] >= 0.999 * _NEAR_PLANE
    depth = both[..., 2].clamp_min(0.5 * _NEAR_PLANE)
    pixel = both[..., :2] / depth[..., None] * rays.focal[pairs.view][:, None] + rays.centre[pairs.view][:, None]
    low = pixel.masked_fill(~visible[..., None], math.inf).amin(1)
    high = pixel.masked_fill(~visible[..., None], -math.inf).amax(1)
    return torch.cat((low, high), 1)


def cast(pairs: Pairs, rays: Rays, tile: int = TILE) -> tuple[Tensor, Tensor]:
    """Cast a ray through every pixel centre of every view.

    Returns:
        depth (V, H, W) float32 planar depth in metres, inf where nothing is hit, and pair (V, H, W) int64,
        the index of the pair that is seen, -1 where nothing is hit.
    """
    device = pairs.half.device
    views = len(rays.focal)
    rows, columns = -(-rays.height // tile), -(-rays.width // tile)
    bounds = screen_bounds(pairs, rays)
    limit = torch.tensor((columns, rows), device=device) - 1
    low = ((bounds[:, :2] - 1) / tile).floor().clamp(min=0).minimum(limit + 1).long()
    high = ((bounds[:, 2:] + 1) / tile).floor().clamp(min=-1).minimum(limit).long()
    extent = (high - low + 1).clamp_min(0)
    extent = torch.where((extent > 0).all(1, keepdim=True), extent, 0)

    count = extent.prod(1)
    entry_pair = torch.repeat_interleave(torch.arange(len(count), device=device), count)
    within = torch.arange(len(entry_pair), device=device) - (count.cumsum(0) - count)[entry_pair]
    across = extent[entry_pair, 0]
    entry_column = low[entry_pair, 0] + within % across
    entry_row = low[entry_pair, 1] + within // across
    entry_tile = (pairs.view[entry_pair] * rows + entry_row) * columns + entry_column

    # Entries by their rank within the tile, tiles by falling number of entries: each rank is then one slice
    # [start, start + n) of the entries that meets the first n tiles, and the reduction needs no scatter.
    tiles = views * rows * columns
    per_tile = torch.bincount(entry_tile, minlength=tiles)
    tile_order = torch.sort(per_tile, descending=True, stable=True)
    position = torch.empty_like(tile_order.indices)
    position[tile_order.indices] = torch.arange(tiles, device=device)
    entry_position = position[entry_tile]
    by_tile = torch.sort(entry_position, stable=True)
    first = tile_order.values.cumsum(0) - tile_order.values
    rank = torch.arange(len(entry_tile), device=device) - first[by_tile.values]
    order = by_tile.indices[torch.sort(rank, stable=True).indices]
    entry_pair, entry_column, entry_row = entry_pair[order], entry_column[order], entry_row[order]

    def blocks(values: Tensor) -> Tensor:
        return values[:, None, None]

    hits = torch.empty(len(entry_pair), tile, tile, device=device)
    offset = torch.arange(tile, device=device)
    kinds = pairs.kind[entry_pair]
    # Chunks keep the temporaries in a CPU's cache; a GPU takes everything at once.
    chunk = (65536 if device.type == "cpu" else 1 << 27) // tile**2
    for kind, intersect in INTERSECT.items():
        for members in (kinds == kind).nonzero()[:, 0].split(chunk):
            pair = entry_pair[members]
            x, y = rays.normalised(
                pairs.view[pair],
                (entry_column[members, None] * tile + offset)[:, None, :].float(),
                (entry_row[members, None] * tile + offset)[:, :, None].float(),
            )
            matrix, origin = pairs.direction[pair], pairs.origin[pair]
            directions = tuple(
                x * blocks(matrix[:, axis, 0]) + (y * blocks(matrix[:, axis, 1]) + blocks(matrix[:, axis, 2]))
                for axis in range(3)
            )
            hits[members] = intersect(tuple(blocks(origin[:, axis]) for axis in range(3)), directions)

    nearest = torch.full((tiles, tile, tile), math.inf, device=device)
    seen = torch.full((tiles, tile, tile), -1, dtype=torch.int64, device=device)
    begin = 0
    for number in torch.bincount(rank).tolist():
        depth, best = hits[begin : begin + number], nearest[:number]
        closer = depth < best
        seen[:number] = torch.where(closer, entry_pair[begin : begin + number, None, None], seen[:number])
        torch.minimum(best, depth, out=best)
        begin += number

    def picture(blocks: Tensor) -> Tensor:
        blocks = blocks[position].view(views, rows, columns, tile, tile).transpose(2, 3)
        return blocks.reshape(views, rows * tile, columns * tile)[:, : rays.height, : rays.width]

    return picture(nearest), picture(seen)


def cast_among(pairs: Pairs, rays: Rays, candidates: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cast rays through arbitrary image points against a few candidate pairs each.

    Args:
        candidates: (N, K) int64 pairs, those of a row all of one view; -1 for none.
        x, y: (N, S) image points in pixels.

    Returns:
        depth (N, S), inf for a miss, and pair (N, S), -1 for a miss.
    """
    number, samples = x.shape
    distinct = candidates.clone()
    for later in range(1, candidates.shape[1]):
        repeated = (candidates[:, :later] == candidates[:, later : later + 1]).any(1)
        distinct[:, later].masked_fill_(repeated, -1)
    row, column = (distinct >= 0).nonzero(as_tuple=True)
    entry_pair = distinct[row, column]
    kinds = pairs.kind.index_select(0, entry_pair)
    # One column a candidate: the nearest of a row's columns wins, the earlier one among equals.
    depth = torch.full((candidates.shape[1], number, samples), math.inf, device=x.device)
    for kind, intersect in INTERSECT.items():
        members = (kinds == kind).nonzero()[:, 0]
        pair, rows = entry_pair.index_select(0, members), row.index_select(0, members)
        points = x.index_select(0, rows), y.index_select(0, rows)
        u, v = rays.normalised(pairs.view.index_select(0, pair), *points)
        matrix, origin = pairs.direction.index_select(0, pair), pairs.origin.index_select(0, pair)
        directions = tuple(
            u * matrix[:, axis, 0:1] + (v * matrix[:, axis, 1:2] + matrix[:, axis, 2:3]) for axis in range(3)
        )
        hit = intersect(tuple(origin[:, axis : axis + 1] for axis in range(3)), directions)
        depth[column.index_select(0, members), rows] = hit
    nearest = depth[0]
    seen = distinct[:, :1].expand(number, samples)
    for later in range(1, candidates.shape[1]):
        closer = depth[later] < nearest
        seen = torch.where(closer, distinct[:, later : later + 1], seen)
        nearest = torch.minimum(nearest, depth[later])
    return nearest, torch.where(nearest < math.inf, seen, -1)
