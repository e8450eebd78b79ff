"""Patches of measured depth that are hidden from the methods and compared with their output there."""

from __future__ import annotations

from functools import cache

import numpy as np

_TILE = 10  # tiles across the width, each with at most one hidden square
_SIDES = (0, 8, 4, 2)  # tile side / square side, in turn; 0: no square
_TURN = 5  # shift of that order from one row of tiles to the next


@cache
def hidden_patches(depth_size: tuple[int, int]) -> np.ndarray:
    """Which depth pixels are hidden: squares of three sizes, a twentieth to an eightieth of the width, in fixed places.

    They do not move, like most holes of a real static camera, so that earlier frames do not reveal the hidden depth.

    Args:
        depth_size: (h, w).

    Returns:
        (h, w) bool, read-only; about a twelfth of the pixels.
    """
    height, width = depth_size
    tile = max(4, round(width / _TILE))
    hidden = np.zeros(depth_size, bool)
    random = np.random.default_rng(0)
    for i, top in enumerate(range(0, height, tile)):
        for j, left in enumerate(range(0, width, tile)):
            part = _SIDES[(_TURN * i + j) % len(_SIDES)]
            down, right = random.random(2)
            if part:
                side = max(1, round(tile / part))
                row, column = top + int(down * (tile - side)), left + int(right * (tile - side))
                hidden[row : row + side, column : column + side] = True
    hidden.setflags(write=False)
    return hidden
