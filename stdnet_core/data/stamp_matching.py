"""Pairs two recorded streams by their stamps, all at once (the live node pairs messages as they arrive)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def match_nearest(first: Sequence[float], second: Sequence[float], max_difference: float) -> list[tuple[int, int]]:
    """Pairs of indices whose stamps are each other's nearest.

    Args:
        first, second: stamps in any order, in one unit.
        max_difference: largest difference between the stamps of a pair.

    Returns:
        (index in ``first``, index in ``second``), ordered by the stamp of ``first``; no index twice.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not a.size or not b.size:
        return []
    order_a, order_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    a, b = a[order_a], b[order_b]
    to_b, to_a = _nearest(a, b), _nearest(b, a)
    mutual = (to_a[to_b] == np.arange(a.size)) & (np.abs(a - b[to_b]) <= max_difference)
    return [(int(order_a[i]), int(order_b[to_b[i]])) for i in np.flatnonzero(mutual)]


def stamps_say_nothing(stamps: Sequence[int]) -> bool:
    """Whether the stamps of a stream are all the same, because its driver does not set them."""
    return len(stamps) > 1 and min(stamps) == max(stamps)


def _nearest(values: np.ndarray, sorted_others: np.ndarray) -> np.ndarray:
    """Index of the nearest of ``sorted_others`` for each value; of two equally near, the earlier."""
    right = np.searchsorted(sorted_others, values).clip(1, max(1, sorted_others.size - 1))
    left = right - 1
    right = right.clip(max=sorted_others.size - 1)
    nearer_right = np.abs(sorted_others[right] - values) < np.abs(values - sorted_others[left])
    return np.where(nearer_right, right, left)
