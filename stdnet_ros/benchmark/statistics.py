"""Computes figures from the logs of camera, node and listener: nanoseconds in, milliseconds out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

PERCENTILES = (50, 95, 99)


def summary(milliseconds: Sequence[float]) -> dict[str, float] | None:
    """``p50``, ``p95``, ``p99``, ``max`` and ``count``; None without values."""
    if not len(milliseconds):
        return None
    values = np.asarray(milliseconds, np.float64)
    result = {
        f"p{percent}": float(value)
        for percent, value in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)
    }
    return result | {"max": float(values.max()), "count": int(values.size)}


def latencies(arrivals: Sequence[tuple[int, int]], begin: int) -> np.ndarray:
    """(N, 2): seconds after ``begin`` and latency in ms, for the arrivals whose stamp is not before ``begin``."""
    pairs = np.asarray([pair for pair in arrivals if pair[0] >= begin], np.int64).reshape(-1, 2)
    return np.stack([(pairs[:, 0] - begin) / 1e9, (pairs[:, 1] - pairs[:, 0]) / 1e6], -1)


def counters(diagnostics: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """``totals`` and ``drops`` of one diagnostic status."""
    found: dict[str, dict[str, int]] = {"totals": {}, "drops": {}}
    for key, value in diagnostics.items():
        for prefix, group in (("total ", "totals"), ("dropped ", "drops")):
            if key.startswith(prefix):
                found[group][key.removeprefix(prefix)] = int(value)
    return found


def durations(diagnostics: Mapping[str, str], kind: str) -> dict[str, float] | None:
    """Percentiles in ms of ``latency <kind>`` in one diagnostic status; None if there are none."""
    found = {}
    for percent in PERCENTILES:
        value = diagnostics.get(f"latency {kind} p{percent} [ms]")
        if value is not None:
            found[f"p{percent}"] = float(value)
    return found or None


def growth(seconds: np.ndarray, values: np.ndarray) -> float:
    """Median of ``values`` in the last fifth of the time minus that in the first fifth."""
    if len(seconds) < 2:
        return 0.0
    begin, end = seconds[0], seconds[-1]
    fifth = (end - begin) / 5
    return float(np.median(values[seconds >= end - fifth]) - np.median(values[seconds <= begin + fifth]))


def slope(seconds: np.ndarray, values: np.ndarray, points: int = 400) -> float:
    """Change per second: the median slope between all pairs of samples (Theil-Sen estimator), robust to outliers.

    Uses at most ``points`` samples, spread evenly.
    """
    if len(seconds) < 2:
        return 0.0
    pick = np.unique(np.linspace(0, len(seconds) - 1, points).round().astype(int))
    t, v = np.asarray(seconds)[pick], np.asarray(values)[pick]
    i, j = np.triu_indices(len(t), 1)
    apart = t[j] > t[i]
    return float(np.median((v[j] - v[i])[apart] / (t[j] - t[i])[apart])) if apart.any() else 0.0


def unbalanced(totals: Mapping[str, int], drops: Mapping[str, int]) -> list[str]:
    """Which of the node's counters do not add up when no message is waiting any more; empty if all do.

    Every message of an input ends up in a pair or in a drop of that input, every pair in a published frame or in
    another drop.
    """
    problems = []
    for name in ("color", "depth"):
        dropped = sum(count for cause, count in drops.items() if is_input_drop(cause, name))
        if totals[name] != totals["pairs"] + dropped:
            problems.append(f"{totals[name]} {name} messages, but {totals['pairs']} pairs and {dropped} drops")
    dropped = sum(n for cause, n in drops.items() if not any(is_input_drop(cause, name) for name in ("color", "depth")))
    if totals["pairs"] != totals["published"] + dropped:
        problems.append(f"{totals['pairs']} pairs, but {totals['published']} published and {dropped} drops")
    return problems


def is_input_drop(cause: str, stream: str) -> bool:
    """Whether ``cause`` counts single messages of ``stream`` rather than pairs."""
    return cause.startswith(f"{stream}_")
