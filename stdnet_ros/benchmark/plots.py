"""Plots of the benchmark and of the soak test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stdnet_core.cli import require


def _figure(rows: int, columns: int, width: float, height: float):
    matplotlib = require("matplotlib", extra="report")
    matplotlib.use("Agg")
    pyplot = require("matplotlib.pyplot", extra="report")
    return pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)


def overhead(results: dict, path: Path) -> None:
    """Distribution of the latency from stamp to reception, for the baseline and the node."""
    figure, axes = _figure(1, 1, 7, 4)
    axis = axes[0, 0]
    for name, label in (("relay", "bare rclpy relay"), ("node", "node"), ("points", "node, cloud subscribed too")):
        values = np.sort(results[name]["series"][:, 1])
        axis.plot(values, np.arange(1, len(values) + 1) / max(1, len(values)), label=label)
    axis.set(xlabel="depth image, stamp to receive (ms)", ylabel="share of frames", xscale="log", ylim=(0, 1.01))
    axis.grid(alpha=0.3, which="both")
    axis.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def overload(results: dict, path: Path) -> None:
    """Age of the output over time, with the limit of two inference times."""
    result = results["overload"]
    figure, axes = _figure(1, 1, 8, 4)
    axis = axes[0, 0]
    axis.plot(*result["series"].T, ".", markersize=2, label="age when received")
    inference = result["inference_ms"]["p50"]
    axis.axhline(inference, color="grey", linestyle=":", label="inference (p50)")
    axis.axhline(2 * inference, color="tab:red", linestyle="--", label="limit: two inferences")
    axis.set(xlabel="seconds", ylabel="ms", ylim=(0, None))
    axis.set_title(f"{result['rate_hz']:.1f} Hz in, twice the rate of inference", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def soak(
    memory: Sequence[tuple[float, float, float]],
    latency: Sequence[tuple[float, float]],
    kills: Sequence[float],
    warm_up: float,
    path: Path,
) -> None:
    """Memory (seconds, own MB, MB with shared memory) and latency (seconds, ms) over time; lines mark camera kills."""
    figure, axes = _figure(2, 1, 9, 6)
    seconds, own, resident = np.array(memory, float).reshape(-1, 3).T
    axes[0, 0].plot(seconds / 60, resident, label="resident")
    axes[0, 0].plot(seconds / 60, own, label="resident without shared memory")
    axes[0, 0].axvspan(0, warm_up / 60, color="grey", alpha=0.15, label="warm-up")
    axes[0, 0].set(ylabel="MB", title="the node's memory")
    times, values = np.array(latency, float).reshape(-1, 2).T
    axes[1, 0].plot(times / 60, values, ".", markersize=2)
    axes[1, 0].set(xlabel="minutes", ylabel="ms", yscale="log", title="depth image, stamp to receive")
    for when in kills:
        axes[1, 0].axvline(when / 60, color="tab:red", alpha=0.2, linewidth=0.8)
    axes[0, 0].legend(loc="lower right")
    for axis in axes[:, 0]:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
