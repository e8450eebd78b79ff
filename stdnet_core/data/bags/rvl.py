"""RVL: lossless compression of 16-bit depth, which the ``compressedDepth`` transport offers besides PNG.

Wilson, "Fast Lossless Depth Image Compression" (ISS 2017). The image is a sequence of runs in row-major order: the
number of zeros, the number of non-zeros, then each non-zero as its difference from the one before, with the sign in the
lowest bit. Numbers are written three bits at a time, lowest first, in nibbles whose top bit is set if more follow;
nibbles fill 32-bit words from the top."""

from __future__ import annotations

import numpy as np

_SHIFTS = np.arange(28, -4, -4, dtype=np.uint32)
_MOST_NIBBLES = 11
"""A 32-bit number has no more."""


def decode_rvl(data: np.ndarray, count: int) -> np.ndarray:
    """Decompress.

    Args:
        data: uint8, the compressed words.
        count: number of pixels.

    Returns:
        (count,) uint16.

    Raises:
        ValueError: the data are truncated or invalid.
    """
    words = data[: data.size // 4 * 4].view("<u4")
    nibbles = ((words[:, None] >> _SHIFTS) & np.uint32(15)).astype(np.uint8).ravel()
    ends = np.flatnonzero(nibbles < 8)
    if not ends.size:
        raise ValueError("the RVL data end before the image does")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_NIBBLES:
        raise ValueError("a number in the RVL data is too long")
    places = np.arange(ends[-1] + 1) - np.repeat(starts, lengths)
    parts = (nibbles[: ends[-1] + 1] & np.uint8(7)).astype(np.int64) << (3 * places)
    numbers = np.add.reduceat(parts, starts)
    runs, coded = _runs(numbers, count)
    pixels = np.zeros(count, np.uint16)
    differences = (coded >> 1) ^ -(coded & 1)
    pixels[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = np.cumsum(differences).astype(np.uint16)
    return pixels


def _runs(numbers: np.ndarray, count: int) -> tuple[list[int], np.ndarray]:
    """Lengths of the runs, zeros and non-zeros in turn, and the numbers between them: the coded differences."""
    runs: list[int] = []
    heads: list[int] = []
    position = at = 0
    size = numbers.size
    while position < count:
        if at + 2 > size:
            raise ValueError("the RVL data end before the image does")
        zeros, values = int(numbers[at]), int(numbers[at + 1])
        heads.append(at)
        at += 2 + values
        position += zeros + values
        if position > count or at > size or not zeros + values:
            raise ValueError("the RVL data do not fit the image")
        runs += (zeros, values)
    between = np.ones(at, bool)
    between[heads] = False
    between[np.array(heads, np.int64) + 1] = False
    return runs, numbers[:at][between]
