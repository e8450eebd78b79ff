"""A bank of tileable grey textures with mipmaps, from which the materials of synthetic surfaces are mixed.

A material samples two textures of the bank at its own scales, rotation and offsets and maps them to its own colours
(:mod:`.shading`). A few dozen textures thus give an unlimited variety of surfaces for eight reads per pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

SIZE = 256
LEVELS = 7
GROUPS = (
    ("noise", 4), ("cloud", 3), ("wood", 3), ("rectangles", 4), ("tiles", 2), ("brick", 2), ("checker", 2),
    ("stripes", 3), ("cells", 2), ("marble", 2), ("dots", 2), ("text", 2), ("weave", 2), ("speckle", 2),
)  # fmt: skip


@dataclass(frozen=True)
class TextureBank:
    """Mipmapped textures.

    Attributes:
        texels: (N,) float32 0..1, all levels of all textures one after another.
        level_offset: (LEVELS,) int64, where a level's block of (count, size, size) starts in ``texels``.
        groups: name of a kind of texture -> indices of its textures.
    """

    texels: Tensor
    level_offset: Tensor
    groups: dict[str, tuple[int, ...]]

    def sample(self, index: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
        """Sample textures, bilinearly on the nearest mipmap level.

        Args:
            index: (N,) int64 number of the texture.
            u, v: (N,) coordinates; the texture repeats with period 1.
            footprint: (N,) width of a pixel in the same unit, which determines the level.

        Returns:
            (N,) values 0..1.
        """
        # Rounded log2 of the footprint in texels, from the exponent of the float: ten times as fast as log2.
        exponent = (footprint.clamp_min(1e-9) * (SIZE * math.sqrt(2))).view(torch.int32) >> 23
        level = (exponent - 127).clamp_(0, LEVELS - 1).long()
        size = SIZE >> level
        scale = size.to(u.dtype)
        u = (u - u.floor()).mul_(scale).sub_(0.5)
        v = (v - v.floor()).mul_(scale).sub_(0.5)
        column, row = u.floor(), v.floor()
        fu, fv = u.sub_(column), v.sub_(row)
        mask = size - 1
        column, row = column.long(), row.long()
        left, right = column & mask, (column + 1) & mask
        base = self.level_offset.index_select(0, level) + index * size * size
        top, bottom = base + (row & mask) * size, base + ((row + 1) & mask) * size

        def read(position: Tensor) -> Tensor:
            return self.texels.index_select(0, position)

        upper = torch.lerp(read(top + left), read(top + right), fu)
        lower = torch.lerp(read(bottom + left), read(bottom + right), fu)
        return torch.lerp(upper, lower, fv)


def _spectral(generator: torch.Generator, slope: float, stretch: float = 1.0, lowest: float = 1.0) -> Tensor:
    """Periodic noise with a power-law spectrum, standardised, stretched along x by ``stretch``."""
    fy = torch.fft.fftfreq(SIZE)[:, None] * SIZE
    fx = torch.fft.rfftfreq(SIZE)[None] * SIZE * stretch
    radius = torch.hypot(fx, fy)
    amplitude = torch.where(radius >= lowest, radius.clamp_min(1.0) ** -slope, torch.zeros(()))
    spectrum = torch.fft.rfft2(torch.randn(SIZE, SIZE, generator=generator)) * amplitude
    noise = torch.fft.irfft2(spectrum, s=(SIZE, SIZE))
    return (noise - noise.mean()) / noise.std()


def _grid() -> tuple[Tensor, Tensor]:
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _noise(g: torch.Generator) -> Tensor:
    return 0.5 + 0.22 * _spectral(g, _uniform(g, 0.8, 1.5), lowest=3.0)


def _cloud(g: torch.Generator) -> Tensor:
    return 0.5 + 0.25 * _spectral(g, _uniform(g, 1.6, 2.2))


def _wood(g: torch.Generator) -> Tensor:
    _, y = _grid()
    planks = _integer(g, 1, 5)
    warp = 0.03 * _spectral(g, 2.2, stretch=6.0)
    grain = torch.sin(2 * math.pi * _integer(g, 6, 14) * (y + warp))
    fibre = _spectral(g, 0.9, stretch=14.0)
    plank = (y * planks).floor().long()
    tone = torch.rand(planks, generator=g)[plank % planks]
    joint = ((y * planks) % 1 < 0.04 * (planks > 1)).float()
    return 0.45 + 0.12 * grain + 0.1 * fibre + 0.25 * (tone - 0.5) - 0.4 * joint


def _rectangles(g: torch.Generator) -> Tensor:
    """Overlapping rectangles of random greys: posters, book spines, facades, packages."""
    canvas = 0.6 + 0.1 * _spectral(g, 1.8)
    tall = _uniform(g, 0.3, 3.0)
    for _ in range(_integer(g, 15, 70)):
        width = int(SIZE * _uniform(g, 0.03, 0.3))
        height = int(min(max(width * tall * _uniform(g, 0.5, 2), 4), SIZE))
        left, top = _integer(g, 0, SIZE - 1), _integer(g, 0, SIZE - 1)
        rows = torch.arange(top, top + height) % SIZE
        columns = torch.arange(left, left + width) % SIZE
        canvas[rows[:, None], columns[None]] = _uniform(g, 0, 1) + 0.05 * torch.randn(height, 1, generator=g)
    return canvas


def _tiles(g: torch.Generator, shift: float = 0.0) -> Tensor:
    x, y = _grid()
    rows, columns = 2 * _integer(g, 1, 4), _integer(g, 2, 5)
    joint = _uniform(g, 0.02, 0.06)
    row = (y * rows).floor().long()
    offset = x * columns + shift * (row % 2)
    column = offset.floor().long() % columns
    tone = torch.rand(rows, columns, generator=g)[row, column]
    gap = (((y * rows) % 1) < joint) | ((offset % 1) < joint)
    return torch.where(gap, torch.tensor(0.1), 0.55 + 0.35 * (tone - 0.5)) + 0.06 * _spectral(g, 1.0)


def _brick(g: torch.Generator) -> Tensor:
    return _tiles(g, shift=0.5)


def _checker(g: torch.Generator) -> Tensor:
    x, y = _grid()
    count = 2 * _integer(g, 1, 4)
    return 0.15 + 0.7 * (((x * count).floor() + (y * count).floor()) % 2) + 0.05 * _spectral(g, 1.2)


def _stripes(g: torch.Generator) -> Tensor:
    x, _ = _grid()
    edges = torch.rand(_integer(g, 3, 18), generator=g).sort().values
    tones = torch.rand(len(edges) + 1, generator=g)
    tones[-1] = tones[0]
    return tones[torch.bucketize(x.contiguous(), edges)] + 0.04 * _spectral(g, 1.0)


def _cells(g: torch.Generator) -> Tensor:
    x, y = _grid()
    sites = torch.rand(_integer(g, 20, 90), 2, generator=g)
    gap = (torch.stack((x, y), -1)[:, :, None] - sites).abs()
    distance = torch.minimum(gap, 1 - gap).norm(dim=-1)
    nearest = distance.topk(2, largest=False)
    tone = torch.rand(len(sites), generator=g)[nearest.indices[..., 0]]
    rim = (nearest.values[..., 1] - nearest.values[..., 0]) < 0.012
    return torch.where(rim, torch.tensor(0.1), 0.3 + 0.6 * tone) + 0.05 * _spectral(g, 1.0)


def _marble(g: torch.Generator) -> Tensor:
    x, y = _grid()
    phase = _integer(g, 1, 3) * x + _integer(g, 0, 2) * y + 0.18 * _spectral(g, 1.7)
    return 0.15 + 0.8 * torch.sin(2 * math.pi * phase).abs().sqrt()


def _dots(g: torch.Generator) -> Tensor:
    x, y = _grid()
    count, radius = _integer(g, 4, 12), _uniform(g, 0.15, 0.42)
    inside = torch.hypot((x * count) % 1 - 0.5, (y * count) % 1 - 0.5) < radius
    return 0.2 + 0.6 * inside.float() + 0.05 * _spectral(g, 1.0)


def _text(g: torch.Generator) -> Tensor:
    """Lines of dark blocks on a light ground: print, keyboards, window rows."""
    rows, columns = _integer(g, 8, 16), SIZE // 4
    glyphs = (torch.rand(rows * 4, columns, generator=g) < 0.6).float()
    words = (torch.rand(rows, columns // 4, generator=g) < 0.8).float().repeat_interleave(4, 1)
    line = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(rows)[:, None]
    ink = glyphs * words.repeat_interleave(4, 0) * line
    return 0.9 - 0.8 * torch.nn.functional.interpolate(ink[None, None], size=(SIZE, SIZE))[0, 0]


def _weave(g: torch.Generator) -> Tensor:
    x, y = _grid()
    count = _integer(g, 8, 24)
    ribs = torch.sin(2 * math.pi * count * x) * torch.sin(2 * math.pi * count * y)
    bands = torch.sin(2 * math.pi * _integer(g, 1, 3) * x) + torch.sin(2 * math.pi * _integer(g, 1, 3) * y)
    return 0.5 + 0.15 * ribs + 0.12 * bands.sign() + 0.06 * _spectral(g, 0.6)


def _speckle(g: torch.Generator) -> Tensor:
    return 0.5 + 0.4 * torch.tanh(3 * (_spectral(g, 0.7, lowest=8.0) - _uniform(g, 0.0, 1.2)))


_MAKERS: dict[str, Callable[[torch.Generator], Tensor]] = {
    "noise": _noise, "cloud": _cloud, "wood": _wood, "rectangles": _rectangles, "tiles": _tiles, "brick": _brick,
    "checker": _checker, "stripes": _stripes, "cells": _cells, "marble": _marble, "dots": _dots, "text": _text,
    "weave": _weave, "speckle": _speckle,
}  # fmt: skip


def group_indices(count: int) -> dict[str, tuple[int, ...]]:
    """The indices of each group's textures among ``count``: groups take turns according to their share."""
    turn = [name for name, _ in GROUPS] + [name for name, share in GROUPS for _ in range(share - 1)]
    groups: dict[str, list[int]] = {name: [] for name, _ in GROUPS}
    for index in range(count):
        groups[turn[index % len(turn)]].append(index)
    return {name: tuple(indices) for name, indices in groups.items()}


@lru_cache(maxsize=4)
def texture_bank(seed: int, count: int, device: torch.device) -> TextureBank:
    """The bank of ``count`` textures for a seed; generated on the CPU, so that it is the same on every device."""
    groups = group_indices(count)
    owner = {index: name for name, indices in groups.items() for index in indices}
    generator = torch.Generator().manual_seed(seed)
    level = torch.stack([_MAKERS[owner[index]](generator).clamp(0, 1) for index in range(count)])
    blocks = []
    for _ in range(LEVELS):
        blocks.append(level.flatten())
        level = torch.nn.functional.avg_pool2d(level[:, None], 2)[:, 0]
    offsets = torch.tensor([0, *[len(block) for block in blocks[:-1]]]).cumsum(0)
    return TextureBank(torch.cat(blocks).to(device), offsets.to(device), groups)
