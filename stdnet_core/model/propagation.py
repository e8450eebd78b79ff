"""Passes over a clip (paper: "Temporal Difference Branch", eq. 5 and 8).

A pass reads its neighbours from the output of the previous pass, never from its own. Nothing is recurrent, so the
temporal difference module processes all frames and all neighbours of a pass as one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stdnet_core.model.config import Direction


def temporal_differences(features: Tensor, neighbors: int) -> tuple[Tensor, ...]:
    """Absolute differences between frames 1, 2, ... ``neighbors`` apart (eq. 5).

    Args:
        features: X (B, T, C, h, w).

    Returns:
        One (B, max(0, T - k), C, h, w) for each distance k: element t is |X_t - X_(t+k)|.
    """
    return tuple((features[:, :-k] - features[:, k:]).abs() for k in range(1, neighbors + 1))


def propagate(
    module: Callable[..., Tensor],
    features: Tensor,
    differences: tuple[Tensor, ...],
    rgb_features: Tensor,
    weight: Tensor,
    direction: Direction,
) -> Tensor:
    """One pass (eq. 8): refine every frame with each of its neighbours on one side, and sum the results.

    Args:
        module: the pass's temporal difference module.
        features: Y, the output of the previous pass, (B, T, C, h, w).
        differences: of the trunk's features, from :func:`temporal_differences`.
        rgb_features: F_r (B, T, C, h, w).
        weight: w (B, T, C, h, w).
        direction: "forward" reads earlier frames, "backward" later ones.

    Returns:
        Z (B, T, C, h, w). A frame without neighbours passes unchanged.
    """
    frames = features.shape[1]
    distances = [k for k in range(1, len(differences) + 1) if k < frames]
    if not distances:
        return features
    earlier = {k: slice(0, frames - k) for k in distances}
    later = {k: slice(k, frames) for k in distances}
    current, neighbor = (later, earlier) if direction == "forward" else (earlier, later)

    def batch(tensor: Tensor, index: dict[int, slice]) -> Tensor:
        return torch.cat([tensor[:, index[k]].flatten(0, 1) for k in distances])

    refined = module(
        batch(features, current),
        batch(features, neighbor),
        torch.cat([differences[k - 1].flatten(0, 1) for k in distances]),
        batch(rgb_features, neighbor),
        batch(weight, current),
    )
    batch_size = features.shape[0]
    parts = refined.split([batch_size * (frames - k) for k in distances])
    total = torch.zeros_like(features, dtype=refined.dtype)
    for k, part in zip(distances, parts, strict=True):
        total[:, current[k]] += part.view(batch_size, frames - k, *part.shape[1:])
    boundary = slice(0, 1) if direction == "forward" else slice(frames - 1, frames)
    total[:, boundary] = features[:, boundary].to(total.dtype)
    return total
