"""The report's diagrams, as PNG bytes. One look for all: methods keep their colour, the one in question is boldest."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stdnet_core.cli import require
from stdnet_core.evaluation.metric_functions import LONG_TAIL
from stdnet_core.report.analysis import ERROR_EDGES_M, REGIONS, BinnedErrors, XtSlice
from stdnet_core.report.colorize import colorize_depth
from stdnet_core.report.panels import depth_limits

GOOD_ENDS = ("processed", "scored")
"""What became of frames that were not lost."""
_LEAST_ERRORS = 1e-4  # share of pixels from which on an error makes the axis longer
_LEAST_SHARE = 5e-3  # of all pixels in a bin of depth; the few next to edges are what matters there
_LEAST_PIXELS = 100
_WIDE = 8  # times as much from which on an axis is logarithmic
_LABEL = 150, 30  # pixels of a circle's name
_POINT = 0.72  # points to a pixel
_COLORS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed", "#0891b2", "#a16207", "#be185d")
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e7",
    "axes.edgecolor": "#a1a1aa",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def _figure(width: float, height: float, columns: int = 1, rows: int = 1, **arguments: Any) -> tuple[Any, Any]:
    """A figure that belongs to no window and no global state."""
    require("matplotlib", extra="report")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **arguments)
    return figure, axes


def _png(draw: Any) -> bytes:
    """Run ``draw`` with the report's style and render the figure that it returns."""
    matplotlib = require("matplotlib", extra="report")
    with matplotlib.rc_context(_STYLE):
        figure = draw()
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _lines(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {"color": _COLORS[i % len(_COLORS)], "lw": 1.8 if i == 0 else 1.1, "zorder": 10 - i, "label": name}
        for i, name in enumerate(methods)
    }


def frame_curves(rows: Sequence[Mapping[str, float]], methods: Sequence[str]) -> bytes:
    """RMSE, MAE and flicker of every frame over time."""

    def draw() -> Any:
        figure, axes = _figure(11, 6.5, rows=3, sharex=True)
        stamps = np.array([row["stamp_s"] for row in rows])
        timed = len(rows) > 0 and np.isfinite(stamps).all()
        x = stamps - stamps[0] if timed else np.array([row["index"] for row in rows])
        for axis, (key, label) in zip(
            axes[:, 0], (("rmse_cm", "RMSE, cm"), ("mae_cm", "MAE, cm"), ("flicker_cm", "flicker, cm")), strict=True
        ):
            for name, line in _lines(methods).items():
                axis.plot(x, [row[f"{name} {key}"] for row in rows], **line)
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        axes[0, 0].legend(ncols=len(methods), loc="lower right", bbox_to_anchor=(1, 1))
        axes[-1, 0].set_xlabel("time, s" if timed else "frame")
        return figure

    return _png(draw)


def error_histograms(histograms: Mapping[str, Mapping[str, np.ndarray]], methods: Sequence[str]) -> bytes:
    """Share of pixels by error, for all pixels and in both long tails (fig. 2 and 4b of the paper).

    The first bin takes all errors up to 1 mm.
    """

    def draw() -> Any:
        figure, axes = _figure(11, 3.6, columns=len(REGIONS), sharey=True)
        edges = 100 * ERROR_EDGES_M
        edges[0] = edges[1] ** 2 / edges[2]  # as wide as the next one on the logarithmic axis
        filled = np.add.reduce([histograms["all pixels"][name] for name in methods])
        seen = np.nonzero(filled > _LEAST_ERRORS * filled.sum())[0]
        last = edges[min(len(edges) - 1, int(seen.max(initial=10)) + 2)]
        for axis, region in zip(axes[0], REGIONS, strict=True):
            pixels = max((int(histograms[region][name].sum()) for name in methods), default=0)
            for name, line in _lines(methods).items():
                counts = histograms[region][name]
                axis.stairs(100 * counts / max(1, counts.sum()), edges, **line)
            axis.set_xscale("log")
            axis.set_xlim(edges[0], last)
            ticks = [value for value in (0.1, 1, 10, 100, 1000) if value <= last]
            axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
            axis.set_xlabel("|error|, cm")
            axis.set_title(f"{region}\n{pixels:,} pixels" if pixels else f"{region}\nnone", fontsize=10)
        axes[0, 0].set_ylabel("share of pixels, %")
        axes[0, -1].legend(loc="upper right", fontsize=8)
        return figure

    return _png(draw)


def binned_errors(by_depth: BinnedErrors, by_edge_distance: BinnedErrors, methods: Sequence[str]) -> bytes:
    """Mean error against depth and against the distance to the next depth edge, with the share of pixels below."""

    def draw() -> Any:
        figure, axes = _figure(11, 4.4, columns=2, rows=2, sharex="col", height_ratios=(3, 1))
        for column, (binned, label, unit) in enumerate(
            ((by_depth, "depth", "m"), (by_edge_distance, "distance to the next depth edge", "px"))
        ):
            # A bin of a few stray pixels says nothing and would set the scale.
            least = max(_LEAST_PIXELS, _LEAST_SHARE * binned.counts.sum()) if column == 0 else _LEAST_PIXELS
            used = np.nonzero(binned.counts >= min(least, binned.counts.max()))[0]
            x = np.arange(len(used))
            for name, line in _lines(methods).items():
                axes[0, column].plot(x, 100 * binned.mean(name)[used], marker="o", ms=4, **line)
            axes[1, column].bar(x, 100 * binned.counts[used] / max(1, binned.counts.sum()), color="#a1a1aa", width=0.8)
            axes[1, column].set_xticks(x, [_bin_name(binned.edges, i) for i in used], rotation=35, fontsize=8)
            axes[1, column].set_xlabel(f"{label}, {unit}")
            axes[0, column].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("mean |error|, cm")
        axes[1, 0].set_ylabel("pixels, %")
        axes[0, 0].legend()
        return figure

    return _png(draw)


def _bin_name(edges: np.ndarray, i: int) -> str:
    low, high = edges[i], edges[i + 1]
    return f"> {low:g}" if np.isinf(high) else f"{low:g}-{high:g}"


def xt_slices(piece: XtSlice, methods: Sequence[str], reference: str = "truth") -> bytes:
    """One image row over time, from top to bottom: colour, truth and every method (fig. 5b of the paper).

    Args:
        piece: the row.
        methods: to show.
        reference: what the truth is called.
    """

    def draw() -> Any:
        names = ["colour", "truth", *methods]
        figure, axes = _figure(max(8.0, 2.4 * len(names)), 3.8, columns=len(names), sharey=True)
        low, high = depth_limits(np.array(piece.depth["truth"]))
        for axis, name in zip(axes[0], names, strict=True):
            rows = piece.rgb if name == "colour" else piece.depth[name]
            picture = np.array(rows) if name == "colour" else colorize_depth(np.array(rows), low, high)
            axis.imshow(picture, aspect="auto", interpolation="nearest")
            axis.set_title(reference if name == "truth" else name, fontsize=10)
            axis.set_xlabel("column")
            axis.grid(False)
        axes[0, 0].set_ylabel(f"frame (row {piece.row} of the image)")
        return figure

    return _png(draw)


def latency_timeline(timeline: Sequence[tuple[float, float]], label: str, budget_ms: float | None) -> bytes:
    """Milliseconds over time, with their distribution beside it.

    Args:
        timeline: (seconds, milliseconds) of each frame.
        label: what was timed.
        budget_ms: time between two frames of the recording, drawn as a line.
    """

    def draw() -> Any:
        figure, axes = _figure(11, 3.0, columns=2, width_ratios=(4, 1), sharey=True)
        x, y = np.array(timeline, float).reshape(-1, 2).T
        axes[0, 0].plot(x - (x[0] if x.size else 0), y, ".", ms=3, color=_COLORS[1])
        top = 1.05 * max([*y, budget_ms or 0.0, 1e-3])
        axes[0, 1].hist(y, bins=40, range=(0, top), orientation="horizontal", color=_COLORS[1])
        axes[0, 1].xaxis.get_major_locator().set_params(integer=True)
        for axis in axes[0]:
            if budget_ms:
                axis.axhline(budget_ms, color=_COLORS[0], lw=1, ls="--")
        if budget_ms:
            axes[0, 0].annotate(
                f"time between frames, {budget_ms:.0f} ms", (0, budget_ms), color=_COLORS[0], va="bottom", fontsize=8
            )
        axes[0, 0].set_ylim(0, top)
        axes[0, 0].set_ylabel(f"{label}, ms")
        axes[0, 0].set_xlabel("time, s")
        axes[0, 1].set_xlabel("frames")
        return figure

    return _png(draw)


def drop_causes(counts: Mapping[str, int]) -> bytes:
    """Where the frames went: a bar for each cause."""

    def draw() -> Any:
        shown = {cause: count for cause, count in counts.items() if count}
        figure, axes = _figure(8, 0.7 + 0.34 * max(1, len(shown)))
        axis = axes[0, 0]
        colors = [_COLORS[2] if cause in GOOD_ENDS else _COLORS[0] for cause in shown]
        bars = axis.barh(list(shown), list(shown.values()), color=colors)
        axis.bar_label(bars, padding=3)
        axis.invert_yaxis()
        axis.set_xlabel("frames")
        axis.grid(visible=False, axis="y")
        return figure

    return _png(draw)


def encode_png(picture: np.ndarray) -> bytes:
    """An (H, W, 3) uint8 RGB picture as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape}")
    return data.tobytes()


def ratio_matrix(rows: Sequence[Any], methods: Sequence[str]) -> bytes:
    """Heat map of ratios to the best rival: a line for each cell of the judge, RMSE and MAE of each method beside it.

    Args:
        rows: of :func:`stdnet_core.evaluation.judge.rows_of`; those without a rival's error have no ratio and are left
            out.
        methods: names.
    """

    def draw() -> Any:
        shown = [row for row in rows if not row.faultless]
        columns = [(method, figure) for method in methods for figure in ("rmse_cm", "mae_cm")]
        values = np.array([[row.ratio(method, figure) for method, figure in columns] for row in shown])
        figure, axes = _figure(3.4 + 1.15 * len(columns), 1.3 + 0.22 * len(shown))
        axis = axes[0, 0]
        with np.errstate(invalid="ignore"):
            axis.imshow(np.log2(values), cmap="RdYlGn_r", vmin=-1, vmax=1, aspect="auto")
        axis.grid(False)
        axis.set_xticks(range(len(columns)), [f"{method}\n{name.split('_')[0].upper()}" for method, name in columns])
        axis.xaxis.tick_top()
        labels = [f"{r.cell} {r.group}{'' if r.region == 'all' else ' ' + r.region}" for r in shown]
        axis.set_yticks(range(len(shown)), labels, fontsize=7.5)
        for (line, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                axis.text(column, line, f"{value:.2f}", ha="center", va="center", fontsize=7)
        axis.set_xlabel("ratio to the best rival: green is better than all of them, red a loss")
        return figure

    return _png(draw)


def history_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """Gain from history by the number of frames seen; ``curves[name][figure]`` has a value for each frame."""

    def draw() -> Any:
        titles = {"rmse_cm": "RMSE", "mae_cm": "MAE", "flicker_cm": "flicker"}
        figure, axes = _figure(11, 3.6, columns=len(titles), sharey=True)
        for axis, (key, title) in zip(axes[0], titles.items(), strict=True):
            for name, line in _lines(list(curves)).items():
                axis.plot(np.arange(1, len(curves[name][key]) + 1), curves[name][key], marker=".", **line)
            axis.axhline(1, color="#52525b", lw=0.8)
            axis.set_title(title)
            axis.set_xlabel("frames seen")
        axes[0, 0].set_ylabel("with history / without")
        axes[0, 0].legend(fontsize=8)
        return figure

    return _png(draw)


@dataclass(frozen=True)
class Map:
    """One picture of :func:`map_grid`.

    Attributes:
        title: written above it.
        values: (H, W), shown in colours with a scale beside them, NaN grey; or (H, W, 3) uint8 RGB, shown as it is.
        unit: of the values, written at the scale.
        high: value of the strongest colour; None: the largest of all but the top hundredth.
        arrows: (2, h, w) x, y in pixels of the picture, drawn at every cell of a coarse grid over it; None: none.
    """

    title: str
    values: np.ndarray
    unit: str = ""
    high: float | None = None
    arrows: np.ndarray | None = None


def map_grid(rows: Sequence[Sequence[Map | None]]) -> bytes:
    """Pictures in a grid, all of one shape; None leaves a place empty."""

    def draw() -> Any:
        figure, axes = _grid_of_maps(rows, 0)
        for line, maps in zip(axes, rows, strict=True):
            _draw_maps(figure, line, maps)
        return figure

    return _png(draw)


def _grid_of_maps(rows: Sequence[Sequence[Map | None]], further: int) -> tuple[Any, Any]:
    """A figure for maps, with ``further`` rows of diagrams below."""
    shapes = [m.values.shape[:2] for line in rows for m in line if m is not None]
    columns = max(map(len, rows))
    height = 3.2 * shapes[0][0] / shapes[0][1] + 0.4
    return _figure(
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
    """Differences of one frame above, and how often each occurs in all frames below (fig. 2 of the paper).

    Args:
        rgb: (H, W, 3) uint8.
        truth: (H, W) metres, NaN invalid.
        maps: kind -> (H, W) metres, NaN invalid.
        bins: kind -> its pixels over :data:`stdnet_core.report.analysis.ERROR_EDGES_M`.
        kinds: those to show, with what is said above them.
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
            axis.stairs(shares[tail:], edges[tail:], fill=True, color=_COLORS[0])
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

    return _png(draw)


def _map_limit(maps: Mapping[str, np.ndarray], kinds: Mapping[str, str]) -> float:
    """Metres of the strongest colour, one for all maps: the tail must be seen, and what is beyond it told apart."""
    values = np.concatenate([maps[kind][np.isfinite(maps[kind])] for kind in kinds])
    return max(2 * LONG_TAIL, float(np.percentile(values, 95)) if values.size else 0.0)


def _share_of(sums: np.ndarray, first: int) -> float:
    return 100 * float(sums[first:].sum()) / (float(sums.sum()) or 1.0)


@dataclass(frozen=True)
class Bubble:
    """One method of :func:`bubbles`; ``rmse_cm`` is None where nothing was measured."""

    name: str
    parameters: int
    ms: float
    rmse_cm: float | None


def bubbles(points: Sequence[Bubble], size: str) -> bytes:
    """Parameters against RMSE; the area of a circle grows with the time for a frame (fig. 8 of the paper).

    Args:
        points: methods; those without an RMSE stand in a strip of their own below.
        size: of the frames and what was computed on, said at the axis.
    """

    def draw() -> Any:
        strips = [[p for p in points if p.rmse_cm is not None], [p for p in points if p.rmse_cm is None]]
        strips = [strip for strip in strips if strip]
        figure, axes = _figure(9, 6, rows=len(strips), sharex=True, height_ratios=(5, 1.3)[: len(strips)])
        longest, widest = max(p.ms for p in points), max(p.parameters for p in points) / 1e6
        number = 0
        for axis, strip in zip(axes[:, 0], strips, strict=True):
            known = strip[0].rmse_cm is not None
            for point in strip:
                color = _COLORS[number % len(_COLORS)]
                place = point.parameters / 1e6, point.rmse_cm if known else 0
                axis.scatter(*place, s=_area(point, longest), color=color, alpha=0.45, edgecolor=color, zorder=3)
                number += 1
            if known:
                values = [point.rmse_cm for point in strip]
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
        figure.draw_without_rendering()  # labels are placed by where points come to lie
        first = 0
        for axis, strip in zip(axes[:, 0], strips, strict=True):
            _label_bubbles(axis, strip, longest, first)
            first += len(strip)
        return figure

    return _png(draw)


def _area(point: Bubble, longest: float) -> float:
    return 60 + 2400 * point.ms / longest


def _label_bubbles(axis: Any, points: Sequence[Bubble], longest: float, first: int) -> None:
    """Names beside the circles in their colours, moved up where they would lie on another's."""
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
            color=_COLORS[(first + number) % len(_COLORS)],
        )


def _count(parameters: int) -> str:
    if not parameters:
        return "no parameters"
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e5 else f"{parameters:,}"


def ablation_points(panels: Mapping[str, Mapping[str, Sequence[float]]], reference: float | None, name: str) -> bytes:
    """RMSE of the variants of a network, a panel for each figure of the paper (9a, 10).

    Args:
        panels: title -> variant -> RMSE in cm of each of its runs, with their mean.
        reference: RMSE in cm of something without a network, drawn as a line; None: none.
        name: of the reference.
    """

    def draw() -> Any:
        figure, axes = _figure(4.2 * len(panels), 3.8, columns=len(panels), sharey=True)
        for axis, (title, variants) in zip(axes[0], panels.items(), strict=True):
            for place, (variant, values) in enumerate(variants.items()):
                mean = float(np.mean(values))
                color = _COLORS[0] if variant == "full" else "#52525b"
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

    return _png(draw)
