"""Upsampling of coarse depth to colour's size: planes stay planes, and edges follow colour."""

from __future__ import annotations

import cv2
import numpy as np

_ONE_SURFACE = 0.05  # relative inverse depth by which the cells around a pixel may differ and still be one surface
_COLOUR = 14.0  # standard deviation of colour differences, of 256 levels
_NEAR = 0.6  # standard deviation of distances in cells
_FARTHER = 1.25
"""Power of depth in a cell's weight. 1 averages depth instead of its inverse, which has the least squared error if
colour does not help; the value is a little higher because most sensors enlarge near surfaces."""
_LEAST_WEIGHT = 1e-6


def upsample(inverse: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Upsample inverse depth to the size of colour, at any ratio.

    Within a surface, this is bilinear interpolation. Where the four cells around a pixel are not of one surface, it is
    the mean of the 3x3 cells around it, weighted by distance and similarity of colour.

    Args:
        inverse: (h, w) float32 1/m, 0 where invalid.
        rgb: (H, W, 3) uint8, of the same field of view.

    Returns:
        (H, W) float32 1/m, 0 where all cells around are invalid.
    """
    size = rgb.shape[:2]
    (top, bottom, down), (left, right, across) = (
        _neighbours(length, cells) for length, cells in zip(size, inverse.shape, strict=True)
    )
    rows, columns = (top, bottom), (left, right)
    corners = [inverse[np.ix_(row, column)] for row in rows for column in columns]
    highest = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    lowest = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    down = down[:, None]
    result = (1 - down) * ((1 - across) * corners[0] + across * corners[1])
    result += down * ((1 - across) * corners[2] + across * corners[3])
    edge = np.flatnonzero(highest - lowest > np.float32(_ONE_SURFACE) * highest)  # holes, too
    if edge.size:
        result.reshape(-1)[edge] = _by_colour(inverse, rgb, edge)
    return result


def _neighbours(length: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel of an axis, the cells before and after it, and its position between them (0..1)."""
    at = np.clip((np.arange(length) + 0.5) * (cells / length) - 0.5, 0, cells - 1)
    first = np.floor(at).astype(np.intp)
    return first, np.minimum(first + 1, cells - 1), (at - first).astype(np.float32)


def _by_colour(inverse: np.ndarray, rgb: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Mean of the valid cells in the 3x3 around each given pixel (flat indices); 0 if none is valid."""
    (height, width), (rows, columns) = rgb.shape[:2], inverse.shape
    row, column = np.divmod(pixels, width)
    guide = cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    own = rgb.reshape(-1, 3)[pixels].astype(np.float32)
    y, x = (row + 0.5) * (rows / height), (column + 0.5) * (columns / width)
    total, weights = np.zeros(len(pixels), np.float32), np.zeros(len(pixels), np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            cell_row, cell_column = y.astype(np.intp) + down, x.astype(np.intp) + right
            inside = (cell_row >= 0) & (cell_row < rows) & (cell_column >= 0) & (cell_column < columns)
            cell = np.where(inside, cell_row * columns + cell_column, 0)
            value = inverse.reshape(-1)[cell]
            difference = guide[cell] - own
            exponent = np.einsum("ij,ij->i", difference, difference) * np.float32(-0.5 / _COLOUR**2)
            away = np.square(cell_row + 0.5 - y) + np.square(cell_column + 0.5 - x)
            weight = np.exp(exponent - (away * (0.5 / _NEAR**2)).astype(np.float32)) + np.float32(_LEAST_WEIGHT)
            known = inside & (value > 0)
            weight = np.divide(weight, value**_FARTHER, out=np.zeros_like(weight), where=known)
            total += weight * value
            weights += weight
    return np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)
