"""Depth of half or a third of colour's size brought to it: a plane stays a plane, and edges follow colour."""

from __future__ import annotations

import cv2
import numpy as np

_ONE_SURFACE = 0.05  # of inverse depth, by which the cells around a pixel may differ and still be one surface
_COLOUR = 16.0  # deviation of colour differences, of 256 levels
_LEAST_WEIGHT = 1e-4


def upsample(inverse: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Bring inverse depth to the size of colour, at any ratio.

    Within a surface by bilinear interpolation; where the four cells around a pixel are of several surfaces, by their
    mean, weighted by how much their colour is the pixel's own.

    Args:
        inverse: (h, w) float32 1/m, 0 where invalid.
        rgb: (H, W, 3) uint8, of the same field of view.

    Returns:
        (H, W) float32 1/m, 0 where all four cells are invalid.
    """
    size = rgb.shape[:2]
    (top, bottom, down), (left, right, across) = (
        _neighbours(length, cells) for length, cells in zip(size, inverse.shape, strict=True)
    )
    shares = [
        ((1 - down)[:, None] * (1 - across), top, left),
        ((1 - down)[:, None] * across, top, right),
        (down[:, None] * (1 - across), bottom, left),
        (down[:, None] * across, bottom, right),
    ]
    corners = [inverse[np.ix_(rows, columns)] for _, rows, columns in shares]
    highest = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    lowest = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    result = sum(share * corner for (share, _, _), corner in zip(shares, corners, strict=True))
    edge = np.flatnonzero(highest - lowest > np.float32(_ONE_SURFACE) * highest)  # holes, too
    if not edge.size:
        return result
    row, column = np.divmod(edge, size[1])
    guide = cv2.resize(rgb, inverse.shape[::-1], interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    own = rgb.reshape(-1, 3)[edge].astype(np.float32)
    total = weights = np.float32(0)
    for (share, rows, columns), corner in zip(shares, corners, strict=True):
        difference = guide[rows[row] * inverse.shape[1] + columns[column]] - own
        distance = np.einsum("ij,ij->i", difference, difference)
        value = corner.reshape(-1)[edge]
        weight = np.exp(distance * np.float32(-0.5 / _COLOUR**2)) + np.float32(_LEAST_WEIGHT)
        weight *= (share.reshape(-1)[edge] + np.float32(_LEAST_WEIGHT)) * (value > 0)
        total = total + weight * value
        weights = weights + weight
    result.reshape(-1)[edge] = np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)
    return result


def _neighbours(length: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel of an axis the cells before and after it, and how far it is towards the second (0..1)."""
    at = np.clip((np.arange(length) + 0.5) * (cells / length) - 0.5, 0, cells - 1)
    first = np.floor(at).astype(np.intp)
    return first, np.minimum(first + 1, cells - 1), (at - first).astype(np.float32)
