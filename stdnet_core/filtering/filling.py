"""Filling of holes from coarse to fine, guided by colour.

Depth and colour are averaged into a pyramid, over measured pixels only. From coarse to fine, a pixel without a
measurement first takes the mean of the coarse pixels around it and then, repeatedly, the mean of its neighbours, which
carries depth from the border of a hole into it. Neighbours are weighted by the similarity of their colour. Most holes
are occlusions, hidden from one of two views by a nearer surface, or lie at its edge; so within about 16 pixels of a
measurement, farther depth has more weight.

Everything is in inverse depth, 1/z, which is linear in the image on planes."""

from __future__ import annotations

import cv2
import numpy as np

_COLOUR = 16.0  # standard deviation of colour differences, of 256 levels
_SPREAD = 0.05  # relative inverse depth by which a pixel is nearer than its cell's farthest and has half the weight
_FARTHER = 2  # power of depth in a neighbour's weight, where a hole is no wider than an occlusion:
_FARTHER_LEVELS = 4  # on this many of the finest levels
_TOP = 4  # pixels of the shorter side at which the pyramid ends
_ROUNDS = 12  # of averaging on each level,
_ROUNDS_AT_FULL_SIZE = 2  # fewer, because this level takes most of the time
_LEAST_WEIGHT = 1e-4


def fill_holes(inverse: np.ndarray, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill holes of inverse depth.

    Args:
        inverse: (h, w) float32 1/m, 0 where invalid.
        rgb: (h, w, 3) uint8.

    Returns:
        The filled inverse depth, and the distance of each pixel to a measurement (uint8; 0: measured, n: within
        2^n pixels). Both are all zero if nothing is measured.
    """
    if not inverse.any():
        return inverse, np.zeros(inverse.shape, np.uint8)
    levels = [(inverse, rgb)]
    while min(levels[-1][0].shape) > _TOP and not levels[-1][0].all():
        levels.append(_coarser(*levels[-1]))
    filled = _nearest(levels[-1][0])
    for number in range(len(levels) - 2, -1, -1):
        rounds = _ROUNDS if number else _ROUNDS_AT_FULL_SIZE
        farther = _FARTHER if number < _FARTHER_LEVELS else 0
        filled = _finer(*levels[number], filled, levels[number + 1][1], rounds, farther)
    return filled, _distance_level(inverse)


def _distance_level(inverse: np.ndarray) -> np.ndarray:
    """The smallest n with 2^n above the distance in pixels to the nearest measurement; 0 where there is one."""
    distance = cv2.distanceTransform((inverse == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.frexp(distance)[1].clip(0).astype(np.uint8) * (distance > 0)


def _coarser(inverse: np.ndarray, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half the resolution: mean of the measured pixels that are not much nearer than the farthest one in their cell.

    Colour is averaged over the same pixels, and over all pixels of a cell without a measurement."""
    inverse, colour = _even(inverse), _even(colour)
    corners = [np.s_[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    depths = [np.ascontiguousarray(inverse[corner]) for corner in corners]
    known = [depth > 0 for depth in depths]
    # The farthest measured depth of each cell; 0 where there is none.
    farthest = np.zeros_like(depths[0])
    for depth, is_known in zip(depths, known, strict=True):
        farthest = np.where(is_known & ((depth < farthest) | (farthest == 0)), depth, farthest)
    unit = np.float32(1 / _SPREAD) / np.maximum(farthest, np.float32(1e-6))
    none = farthest == 0
    total, mean = np.zeros_like(farthest), np.zeros_like(farthest)
    colours = np.zeros((*farthest.shape, colour.shape[2]), np.float32)
    for depth, is_known, corner in zip(depths, known, corners, strict=True):
        nearer = (depth - farthest) * unit
        weight = is_known / (1 + nearer * nearer) + none
        total += weight
        mean += weight * depth
        colours += weight[..., None] * colour[corner]
    return mean / total, colours / total[..., None]


def _even(image: np.ndarray) -> np.ndarray:
    below, right = image.shape[0] % 2, image.shape[1] % 2
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE) if below or right else image


def _nearest(inverse: np.ndarray) -> np.ndarray:
    """Give every pixel without a value that of the nearest pixel with one."""
    missing = inverse == 0
    if not missing.any():
        return inverse
    _, label = cv2.distanceTransformWithLabels(
        missing.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    value = np.zeros(int(label.max()) + 1, inverse.dtype)
    value[label[~missing]] = inverse[~missing]
    return value[label]


def _finer(
    inverse: np.ndarray,
    colour: np.ndarray,
    coarse: np.ndarray,
    coarse_colour: np.ndarray,
    rounds: int,
    farther: int,
) -> np.ndarray:
    """Fill the holes of a level from the next coarser one, and average them with their neighbours repeatedly."""
    height, width = inverse.shape
    holes = np.flatnonzero(inverse == 0)
    row, column = np.divmod(holes, width)
    if not holes.size:
        return inverse
    own = colour.reshape(-1, 3)[holes].astype(np.float32)
    rows, columns = coarse.shape

    # The coarse pixel that a hole lies in, and the three beside it on the hole's side.
    towards_row, towards_column = 2 * (row % 2) - 1, 2 * (column % 2) - 1
    near_rows = row // 2, np.clip(row // 2 + towards_row, 0, rows - 1)
    near_columns = column // 2, np.clip(column // 2 + towards_column, 0, columns - 1)
    around = [near_row * columns + near_column for near_row in near_rows for near_column in near_columns]
    likeness = [_likeness(coarse_colour.reshape(-1, 3)[place], own) for place in around]
    filled = inverse.flatten()
    filled[holes] = _mean(coarse.reshape(-1), around, likeness, farther)

    beside = [
        np.where(row > 0, holes - width, holes),
        np.where(row < height - 1, holes + width, holes),
        np.where(column > 0, holes - 1, holes),
        np.where(column < width - 1, holes + 1, holes),
    ]
    likeness = [_likeness(colour.reshape(-1, 3)[place], own) for place in beside]
    for _ in range(rounds):
        filled[holes] = _mean(filled, beside, likeness, farther)
    return filled.reshape(height, width)


def _likeness(colour: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Similarity of colours (N, 3), from almost 0 to 1."""
    difference = colour - own
    distance = np.einsum("ij,ij->i", difference, difference)
    return np.exp(distance * np.float32(-0.5 / _COLOUR**2)) + np.float32(_LEAST_WEIGHT)


def _mean(values: np.ndarray, places: list[np.ndarray], likeness: list[np.ndarray], farther: int) -> np.ndarray:
    """Mean of the values at several places for each pixel, weighted by likeness and a power of depth."""
    total = weights = np.zeros((), np.float32)
    for place, alike in zip(places, likeness, strict=True):
        value = values[place]
        weight = alike / value**farther if farther else alike
        total = total + weight * value
        weights = weights + weight
    return total / weights
