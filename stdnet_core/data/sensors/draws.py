"""Random numbers of a simulated camera, each a pure function of the camera's seed, the frame's number and a purpose.

A frame is therefore the same whether its clip is simulated at once or a few frames at a time. Noise is drawn anew for
every frame; calibration errors and dead pixels are drawn once per clip."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

_CLIP = -1  # frame number under which a clip's constants are drawn
_MASK = (1 << 63) - 1


class Draws:
    """Source of all random numbers of one camera.

    Args:
        seed: of the camera.
        device: on which the numbers are drawn.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.device = torch.device(device)

    def normal(self, purpose: str, first: int, count: int, *shape: int) -> Tensor:
        """Standard normal numbers (count, *shape), drawn anew for each of the frames from ``first`` on."""
        return torch.stack([self._draw(torch.randn, purpose, first + i, shape) for i in range(count)])

    def uniform(self, purpose: str, first: int, count: int, *shape: int) -> Tensor:
        """Numbers in 0..1 (1 excluded), as :meth:`normal`."""
        return torch.stack([self._draw(torch.rand, purpose, first + i, shape) for i in range(count)])

    def clip_normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal numbers of this shape, the same for the whole clip."""
        return self._draw(torch.randn, purpose, _CLIP, shape)

    def clip_uniform(self, purpose: str, *shape: int) -> Tensor:
        """Numbers in 0..1 (1 excluded), the same for the whole clip."""
        return self._draw(torch.rand, purpose, _CLIP, shape)

    def _draw(self, kind: Callable[..., Tensor], purpose: str, frame: int, shape: tuple[int, ...]) -> Tensor:
        mixed = (self.seed * 0x9E3779B97F4A7C15 + frame * 0xBF58476D1CE4E5B9 + zlib.crc32(purpose.encode())) & _MASK
        generator = torch.Generator(self.device).manual_seed(mixed ^ (mixed >> 29))
        return kind(shape, generator=generator, device=self.device)
