"""The paper's figures: maps of the network's internals, long tails, accuracy against cost, ablations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stdnet_core.evaluation.metric_functions import LONG_TAIL
from stdnet_core.report.analysis import ERROR_EDGES_M, BinnedErrors
from stdnet_core.report.colorize import colorize_depth
from stdnet_core.report.drawing import COLORS, as_png, new_figure
from stdnet_core.report.panels import depth_limits

_WIDE = 8  # ratio of largest to smallest value from which on an axis is logarithmic
_LABEL = 150, 30  # width and height of a circle's label in pixels
_POINT = 0.72  # points to a pixel


@dataclass(frozen=True)
class Map:
    """One picture of :func:`map_grid`.

    Attributes:
        title: written above it.
        values: (H, W), shown in colours with a colour bar, NaN grey; or (H, W, 3) uint8 RGB, shown as it is.
        unit: of the values, written at the colour bar.
        high: value of the brightest colour; None: the 99th percentile.
        arrows: (2, h, w) x, y in pixels of the picture, drawn on a coarse grid over it; None: none.
    """

    title: str
    values: np.ndarray
    unit: str = ""
    high: float | None = None
    arrows: np.ndarray | None = None


def map_grid(rows: Sequence[Sequence[Map | None]]) -> bytes:
    """Maps in a grid, all of one shape; None leaves a place empty."""

    def draw() -> Any:
        figure, axes = _grid_of_maps(rows, 0)
        for line, maps in zip(axes, rows, strict=True):
            _draw_maps(figure, line, maps)
        return figure

    return as_png(draw)


def _grid_of_maps(rows: Sequence[Sequence[Map | None]], further: int) -> tuple[Any, Any]:
    """A figure for maps, with ``further`` rows of diagrams below."""
    shapes = [m.values.shape[:2] for line in rows for m in line if m is not None]
    columns = max(map(len, rows))
    height = 3.2 * shapes[0][0] / shapes[0][1] + 0.4
    return new_figure(
        3.6 * columns,
        height * len(rows) + 2.6 * further,
        columns=columns,
        rows=len(rows) + further,
        height_ratios=[height] * len(rows) + [2.6] * further,
    )


def _draw_maps(figure: Any, axes: Any, maps: Sequence[Map | None]) -> None:
    for axis in axes:
        axis.grid(False)
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes[len(maps) :]:
        axis.set_visible(False)
    for axis, shown in zip(axes, maps, strict=False):
        if shown is None:
            axis.set_visible(False)
            continue
        axis.set_title(shown.title, fontsize=9)
        if shown.values.ndim == 3:
            axis.imshow(shown.values, interpolation="nearest")
        else:
            known = shown.values[np.isfinite(shown.values)]
            high = shown.high or (float(np.percentile(known, 99)) if known.size else 1.0) or 1e-6
            axis.set_facecolor("#707070")
            image = axis.imshow(shown.values, cmap="inferno", vmin=0, vmax=high, interpolation="nearest")
            bar = figure.colorbar(image, ax=axis, fraction=0.04, pad=0.02)
            bar.ax.tick_params(labelsize=7)
            bar.set_label(shown.unit, fontsize=8)
        if shown.arrows is not None:
            _draw_arrows(axis, shown.arrows, shown.values.shape[:2])


def _draw_arrows(axis: Any, arrows: np.ndarray, size: tuple[int, int]) -> None:
    height, width = arrows.shape[1:]
    step = max(1, math.ceil(max(height, width) / 24))
    rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
    x, y = arrows[:, rows][:, :, columns]
    places = (columns + 0.5) * size[1] / width - 0.5, (rows + 0.5) * size[0] / height - 0.5
    axis.quiver(*places, x, y, angles="xy", scale_units="xy", scale=1, color="#22d3ee", width=0.004)


def long_tail(
    rgb: np.ndarray,
    truth: np.ndarray,
    maps: Mapping[str, np.ndarray],
    bins: Mapping[str, BinnedErrors],
    kinds: Mapping[str, str],
) -> bytes:
    """Differences of one frame in the top row, and their distribution over all frames below (fig. 2 of the paper).

    Args:
        rgb: (H, W, 3) uint8.
        truth: (H, W) metres, NaN invalid.
        maps: kind -> (H, W) metres, NaN invalid.
        bins: kind -> its pixels over :data:`stdnet_core.report.analysis.ERROR_EDGES_M`.
        kinds: those to show, with their titles.
    """

    def draw() -> Any:
        low, high = depth_limits(truth)
        shown = [Map("colour", rgb)]
        shown += [Map(title, 100 * maps[kind], "cm", 100 * _map_limit(maps, kinds)) for kind, title in kinds.items()]
        figure, axes = _grid_of_maps([shown], 1)
        _draw_maps(figure, axes[0], shown)
        _draw_maps(figure, axes[1, :1], [Map(f"truth, {low:.2g} to {high:.2g} m", colorize_depth(truth, low, high))])
        edges = 100 * ERROR_EDGES_M
        edges[0] = edges[1] ** 2 / edges[2]  # as wide as the next one on the logarithmic axis
        for axis, kind in zip(axes[1, 1:], kinds, strict=True):
            counts = bins[kind].counts
            tail = int(np.searchsorted(ERROR_EDGES_M, LONG_TAIL))
            shares = 100 * counts / max(1, counts.sum())
            axis.stairs(shares, edges, fill=True, color="#a1a1aa")
            axis.stairs(shares[tail:], edges[tail:], fill=True, color=COLORS[0])
            axis.set_xscale("log")
            ticks = (0.1, 1, 10, 100, 1000)
            axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
            axis.set_xlabel("difference, cm")
            axis.set_title(
                f"{shares[tail:].sum():.1f} % from {100 * LONG_TAIL:g} cm on, with "
                f"{_share_of(bins[kind].absolute['difference'], tail):.0f} % of the sum",
                fontsize=8,
            )
        axes[1, 1].set_ylabel("pixels, %")
        return figure

    return as_png(draw)


def _map_limit(maps: Mapping[str, np.ndarray], kinds: Mapping[str, str]) -> float:
    """Metres of the brightest colour, the same for all maps, so that the tail is visible and has contrast."""
    values = np.concatenate([maps[kind][np.isfinite(maps[kind])] for kind in kinds])
    return max(2 * LONG_TAIL, float(np.percentile(values, 95)) if values.size else 0.0)


def _share_of(sums: np.ndarray, first: int) -> float:
    return 100 * float(sums[first:].sum()) / (float(sums.sum()) or 1.0)


@dataclass(frozen=True)
class Bubble:
    """One method of :func:`bubbles`; ``rmse_cm`` is None if it was not measured."""

    name: str
    parameters: int
    ms: float
    rmse_cm: float | None


def bubbles(points: Sequence[Bubble], size: str) -> bytes:
    """RMSE over the number of parameters; the area of a circle grows with the time per frame (fig. 8 of the paper).

    Args:
        points: methods; those without an RMSE are in a separate strip below.
        size: of the frames, and the device, for the label of the axis.
    """

    def draw() -> Any:
        strips = [[p for p in points if p.rmse_cm is not None], [p for p in points if p.rmse_cm is None]]
        strips = [strip for strip in strips if strip]
        figure, axes = new_figure(9, 6, rows=len(strips), sharex=True, height_ratios=(5, 1.3)[: len(strips)])
        longest, widest = max(p.ms for p in points), max(p.parameters for p in points) / 1e6
        number = 0
        for axis, strip in zip(axes[:, 0], strips, strict=True):
            known = strip[0].rmse_cm is not None
            for point in strip:
                color = COLORS[number % len(COLORS)]
                place = point.parameters / 1e6, point.rmse_cm if known else 0
                axis.scatter(*place, s=_area(point, longest), color=color, alpha=0.45, edgecolor=color, zorder=3)
                number += 1
            if known:
                values = [point.rmse_cm for point in strip if point.rmse_cm is not None]
                if max(values) > _WIDE * min(values) > 0:
                    axis.set_yscale("log")
                axis.margins(y=0.25)
                axis.set_ylabel("RMSE, cm")
            else:
                axis.set_ylim(-1, 1)
                axis.set_yticks([])
                axis.set_ylabel("no weights:\nno RMSE", fontsize=8)
        axes[-1, 0].set_xlim(-0.08 * widest - 1e-3, 1.35 * widest + 1e-3)
        axes[-1, 0].set_xlabel(f"parameters, million; area: time for a frame, {size}")
        figure.draw_without_rendering()  # fixes the positions of points, which labels need
        first = 0
        for axis, strip in zip(axes[:, 0], strips, strict=True):
            _label_bubbles(axis, strip, longest, first)
            first += len(strip)
        return figure

    return as_png(draw)


def _area(point: Bubble, longest: float) -> float:
    return 60 + 2400 * point.ms / longest


def _label_bubbles(axis: Any, points: Sequence[Bubble], longest: float, first: int) -> None:
    """Write names beside the circles in their colours, moved up where they would overlap another."""
    places = axis.transData.transform([(p.parameters / 1e6, p.rmse_cm or 0) for p in points])
    taken: list[tuple[float, float]] = []
    for number in np.argsort(places[:, 1]):
        point, (x, y) = points[number], places[number]
        left, top = x + math.sqrt(_area(point, longest)) / 2 / _POINT, y
        for other_left, other_top in sorted(taken, key=lambda entry: entry[1]):
            if abs(left - other_left) < _LABEL[0] and abs(top - other_top) < _LABEL[1]:
                top = other_top + _LABEL[1]
        taken.append((left, top))
        axis.annotate(
            f"{point.name}\n{_count(point.parameters)}, {point.ms:,.{0 if point.ms >= 10 else 1}f} ms",
            (point.parameters / 1e6, point.rmse_cm or 0),
            xytext=(4 + _POINT * (left - x), _POINT * (top - y)),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=COLORS[(first + number) % len(COLORS)],
        )


def _count(parameters: int) -> str:
    if not parameters:
        return "no parameters"
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters:,}"


def ablation_points(panels: Mapping[str, Mapping[str, Sequence[float]]], reference: float | None, name: str) -> bytes:
    """RMSE of the variants of a network, a panel for each figure of the paper (9a, 10).

    Args:
        panels: title -> variant -> RMSE in cm of each of its runs, with their mean.
        reference: RMSE in cm of a method without a network, drawn as a line; None: no line.
        name: of the reference.
    """

    def draw() -> Any:
        figure, axes = new_figure(4.2 * len(panels), 3.8, columns=len(panels), sharey=True)
        for axis, (title, variants) in zip(axes[0], panels.items(), strict=True):
            for place, (variant, values) in enumerate(variants.items()):
                mean = float(np.mean(values))
                color = COLORS[0] if variant == "full" else "#52525b"
                axis.plot([place - 0.25, place + 0.25], [mean, mean], color=color, lw=2.5, zorder=2)
                axis.plot([place] * len(values), values, "o", ms=5, color=color, zorder=3)
                top = place, max(values)
                axis.annotate(f"{mean:.2f}", top, xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
            axis.set_xlim(-0.6, len(variants) - 0.4)
            axis.set_xticks(range(len(variants)), list(variants), fontsize=8)
            axis.grid(False, axis="x")
            axis.set_title(title, fontsize=10)
            if reference is not None:
                axis.axhline(reference, color="#2563eb", lw=1, ls="--", label=name)
        axes[0, 0].margins(y=0.15)
        axes[0, 0].set_ylabel("RMSE, cm")
        if reference is not None:
            axes[0, -1].legend(fontsize=8)
        return figure

    return as_png(draw)
