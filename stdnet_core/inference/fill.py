"""Filling of missing depth: every invalid pixel gets the value of the nearest valid one.

The paper's network has no validity mask: its depth input must be hole-free. The holes that sensors leave are filled
here before the network, and masked again after it where no measurement is near (:func:`measured_nearby`). There are
two implementations: OpenCV's distance transform for live streams (numpy arrays, approximate Euclidean distance), and an
exact, batched one in PyTorch for training on CPU or GPU."""

from __future__ import annotations

from typing import overload

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.errors import InputError

_CHECK_EVERY = 4  # columns searched between two checks for completion, because each check waits for the GPU


@overload
def valid_depth(depth: np.ndarray) -> np.ndarray: ...
@overload
def valid_depth(depth: Tensor) -> Tensor: ...
def valid_depth(depth: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """True where a depth is a measurement: finite and above zero. Any shape, numpy or torch."""
    if isinstance(depth, Tensor):
        return (depth > 0) & (depth < float("inf"))
    with np.errstate(invalid="ignore"):
        return (depth > 0) & (depth < np.inf)


def nan_where_invalid(depth: np.ndarray) -> np.ndarray:
    """Depth for pictures: float32 metres, NaN where there is no measurement."""
    return np.where(valid_depth(depth), depth, np.float32(np.nan)).astype(np.float32, copy=False)


@overload
def fill_invalid(depth: np.ndarray) -> np.ndarray: ...
@overload
def fill_invalid(depth: Tensor) -> Tensor: ...
def fill_invalid(depth: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Fill invalid pixels with the nearest valid value of the same image.

    Args:
        depth: (..., h, w), floating point; 0, negative, NaN and infinite are invalid. numpy or torch.

    Returns:
        Same shape and type. An image without any valid pixel becomes 0 throughout.
    """
    return nearest_valid(depth)[0]


@overload
def nearest_valid(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def nearest_valid(depth: Tensor) -> tuple[Tensor, Tensor]: ...
def nearest_valid(depth: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray] | tuple[Tensor, Tensor]:
    """Fill like :func:`fill_invalid`, and return the distance to the pixel that each value comes from.

    Args:
        depth: (..., h, w), floating point, numpy or torch.

    Returns:
        The filled depth, and the Euclidean distance in pixels (float32, same shape) to the pixel that the value
        comes from: 0 where the depth itself was valid, infinite in an image without any valid pixel.

    Raises:
        InputError: fewer than two dimensions or not floating point.
    """
    floating = depth.is_floating_point() if isinstance(depth, Tensor) else np.issubdtype(depth.dtype, np.floating)
    if depth.ndim < 2 or not floating:
        raise InputError(
            f"depth to fill has shape {tuple(depth.shape)} and type {depth.dtype}; "
            "it must be floating point with at least two dimensions (..., h, w)"
        )
    if isinstance(depth, Tensor):
        images = _nearest_valid_torch(depth.flatten(0, -3) if depth.ndim > 2 else depth[None])
        return images[0].reshape(depth.shape), images[1].reshape(depth.shape)
    filled, distance = np.empty_like(depth), np.empty(depth.shape, np.float32)
    for index in np.ndindex(depth.shape[:-2]):
        filled[index], distance[index] = _nearest_valid_image(depth[index])
    return filled, distance


def _nearest_valid_image(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    valid = valid_depth(depth)
    if valid.all():
        return depth, np.zeros(depth.shape, np.float32)
    if not valid.any():
        return np.zeros_like(depth), np.full(depth.shape, np.inf, np.float32)
    distance, label = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of_label = np.zeros(int(label.max()) + 1, depth.dtype)
    value_of_label[label[valid]] = depth[valid]
    return value_of_label[label], distance


def _nearest_valid_torch(depth: Tensor) -> tuple[Tensor, Tensor]:
    """Exact, (N, h, w). Find the nearest valid pixel in each column, then search the other columns outwards from each
    pixel's own, until no farther column can hold a nearer pixel anywhere."""
    width = depth.shape[-1]
    valid = valid_depth(depth)
    some = valid.flatten(1).any(1)[:, None, None]
    in_column, row_distance = _nearest_in_column(depth, valid)
    cost = row_distance.square()
    best, filled = cost.clone(), in_column
    padded_cost = F.pad(cost, (width - 1, width - 1), value=float("inf"))
    padded_value = F.pad(in_column, (width - 1, width - 1))
    for offset in range(1, width):
        for start in (width - 1 - offset, width - 1 + offset):
            candidate = padded_cost[..., start : start + width] + float(offset * offset)
            nearer = candidate < best
            best = torch.where(nearer, candidate, best)
            filled = torch.where(nearer, padded_value[..., start : start + width], filled)
        if offset % _CHECK_EVERY == 0 and not ((best > (offset + 1) ** 2) & some).any():
            break
    return torch.where(some, filled, torch.zeros_like(filled)), best.sqrt()


def _nearest_in_column(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Value of the nearest valid pixel in each pixel's column, and its distance in rows (infinite if none)."""
    height = depth.shape[-2]
    row = torch.arange(height, device=depth.device)[:, None].expand(depth.shape)
    above = torch.where(valid, row, -1).cummax(-2).values
    below = torch.where(valid, row, height).flip(-2).cummin(-2).values.flip(-2)
    infinite = torch.full(depth.shape, float("inf"), device=depth.device)
    to_above = torch.where(above >= 0, (row - above).float(), infinite)
    to_below = torch.where(below < height, (below - row).float(), infinite)
    source = torch.where(to_above <= to_below, above, below).clamp(0, height - 1)
    return depth.gather(-2, source), torch.minimum(to_above, to_below)


def measured_here(valid_lr: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels of the high-resolution image whose own cell is valid.

    Arguments and result as for :func:`measured_nearby`.
    """
    if valid_lr.shape == (height, width):
        return valid_lr
    return cv2.resize(valid_lr.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0


def measured_nearby(valid_lr: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels of the high-resolution image that a measurement supports.

    A pixel is supported if one of the four low-resolution cells whose centres surround it is valid. It is then
    within one cell of a measurement along both axes.

    Args:
        valid_lr: (h, w) bool, cells of equal size that cover the image.
        height, width: size of the high-resolution image.

    Returns:
        (height, width) bool.
    """
    if valid_lr.all():
        return np.ones((height, width), bool)
    weight = cv2.resize(valid_lr.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return weight > 1e-4


def measured_within(valid_lr: np.ndarray, size: tuple[int, int], pixels: float) -> np.ndarray:
    """Pixels of the high-resolution image that are near a measurement.

    Args:
        valid_lr: (h, w) bool, cells of equal size that cover the image.
        size: (H, W) of the image.
        pixels: largest distance from a measured cell, in pixels of the image.

    Returns:
        (H, W) bool.
    """
    cell = size[0] / valid_lr.shape[0]
    distance = cv2.distanceTransform((~valid_lr).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    # Without any measurement, the distance is the largest float32 already.
    return measured_here(distance <= np.float32(pixels / cell), *size)
