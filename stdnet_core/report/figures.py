"""Diagrams of a report: curves over the frames, errors by depth and edge, x-t slices, latency, accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stdnet_core.report.analysis import ERROR_EDGES_M, REGIONS, BinnedErrors, XtSlice
from stdnet_core.report.colorize import colorize_depth
from stdnet_core.report.drawing import COLORS, as_png, line_styles, new_figure
from stdnet_core.report.panels import depth_limits

GOOD_ENDS = ("processed", "scored")
"""Outcomes of frames that were not lost."""
_LEAST_ERRORS = 1e-4  # share of pixels from which on the axis is extended to include a bin of errors
_LEAST_SHARE = 5e-3  # of all pixels, in a bin of depth; not for bins of edge distance, whose few near pixels matter
_LEAST_PIXELS = 100


def frame_curves(rows: Sequence[Mapping[str, float]], methods: Sequence[str]) -> bytes:
    """RMSE, MAE and flicker of every frame over time."""

    def draw() -> Any:
        figure, axes = new_figure(11, 6.5, rows=3, sharex=True)
        stamps = np.array([row["stamp_s"] for row in rows])
        timed = len(rows) > 0 and np.isfinite(stamps).all()
        x = stamps - stamps[0] if timed else np.array([row["index"] for row in rows])
        for axis, (key, label) in zip(
            axes[:, 0], (("rmse_cm", "RMSE, cm"), ("mae_cm", "MAE, cm"), ("flicker_cm", "flicker, cm")), strict=True
        ):
            for name, line in line_styles(methods).items():
                axis.plot(x, [row[f"{name} {key}"] for row in rows], **line)
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        axes[0, 0].legend(ncols=len(methods), loc="lower right", bbox_to_anchor=(1, 1))
        axes[-1, 0].set_xlabel("time, s" if timed else "frame")
        return figure

    return as_png(draw)


def error_histograms(histograms: Mapping[str, Mapping[str, np.ndarray]], methods: Sequence[str]) -> bytes:
    """Share of pixels by error, for all pixels and in both long tails (fig. 2 and 4b of the paper).

    The first bin contains all errors up to 1 mm.
    """

    def draw() -> Any:
        figure, axes = new_figure(11, 3.6, columns=len(REGIONS), sharey=True)
        edges = 100 * ERROR_EDGES_M
        edges[0] = edges[1] ** 2 / edges[2]  # as wide as the next one on the logarithmic axis
        filled = np.add.reduce([histograms["all pixels"][name] for name in methods])
        seen = np.nonzero(filled > _LEAST_ERRORS * filled.sum())[0]
        last = edges[min(len(edges) - 1, int(seen.max(initial=10)) + 2)]
        for axis, region in zip(axes[0], REGIONS, strict=True):
            pixels = max((int(histograms[region][name].sum()) for name in methods), default=0)
            for name, line in line_styles(methods).items():
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

    return as_png(draw)


def binned_errors(by_depth: BinnedErrors, by_edge_distance: BinnedErrors, methods: Sequence[str]) -> bytes:
    """Mean error against depth and against the distance to the next depth edge, with the share of pixels below."""

    def draw() -> Any:
        figure, axes = new_figure(11, 4.4, columns=2, rows=2, sharex="col", height_ratios=(3, 1))
        for column, (binned, label, unit) in enumerate(
            ((by_depth, "depth", "m"), (by_edge_distance, "distance to the next depth edge", "px"))
        ):
            # A bin of a few stray pixels is meaningless and would determine the scale.
            least = max(_LEAST_PIXELS, _LEAST_SHARE * binned.counts.sum()) if column == 0 else _LEAST_PIXELS
            used = np.nonzero(binned.counts >= min(least, binned.counts.max()))[0]
            x = np.arange(len(used))
            for name, line in line_styles(methods).items():
                axes[0, column].plot(x, 100 * binned.mean(name)[used], marker="o", ms=4, **line)
            axes[1, column].bar(x, 100 * binned.counts[used] / max(1, binned.counts.sum()), color="#a1a1aa", width=0.8)
            axes[1, column].set_xticks(x, [_bin_name(binned.edges, int(i)) for i in used], rotation=35, fontsize=8)
            axes[1, column].set_xlabel(f"{label}, {unit}")
            axes[0, column].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("mean |error|, cm")
        axes[1, 0].set_ylabel("pixels, %")
        axes[0, 0].legend()
        return figure

    return as_png(draw)


def _bin_name(edges: np.ndarray, i: int) -> str:
    low, high = edges[i], edges[i + 1]
    return f"> {low:g}" if np.isinf(high) else f"{low:g}-{high:g}"


def xt_slices(piece: XtSlice, methods: Sequence[str], reference: str = "truth") -> bytes:
    """One image row over time, from top to bottom: colour, ground truth and every method (fig. 5b of the paper).

    Args:
        piece: the row.
        methods: to show.
        reference: title of the ground truth.
    """

    def draw() -> Any:
        names = ["colour", "truth", *methods]
        figure, axes = new_figure(max(8.0, 2.4 * len(names)), 3.8, columns=len(names), sharey=True)
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

    return as_png(draw)


def latency_timeline(timeline: Sequence[tuple[float, float]], label: str, budget_ms: float | None) -> bytes:
    """Latency over time, with its distribution beside it.

    Args:
        timeline: (seconds, milliseconds) of each frame.
        label: what was timed.
        budget_ms: time between two frames of the recording, drawn as a line.
    """

    def draw() -> Any:
        figure, axes = new_figure(11, 3.0, columns=2, width_ratios=(4, 1), sharey=True)
        x, y = np.array(timeline, float).reshape(-1, 2).T
        axes[0, 0].plot(x - (x[0] if x.size else 0), y, ".", ms=3, color=COLORS[1])
        top = 1.05 * max([*y, budget_ms or 0.0, 1e-3])
        axes[0, 1].hist(y, bins=40, range=(0, top), orientation="horizontal", color=COLORS[1])
        axes[0, 1].xaxis.get_major_locator().set_params(integer=True)
        for axis in axes[0]:
            if budget_ms:
                axis.axhline(budget_ms, color=COLORS[0], lw=1, ls="--")
        if budget_ms:
            axes[0, 0].annotate(
                f"time between frames, {budget_ms:.0f} ms", (0, budget_ms), color=COLORS[0], va="bottom", fontsize=8
            )
        axes[0, 0].set_ylim(0, top)
        axes[0, 0].set_ylabel(f"{label}, ms")
        axes[0, 0].set_xlabel("time, s")
        axes[0, 1].set_xlabel("frames")
        return figure

    return as_png(draw)


def drop_causes(counts: Mapping[str, int]) -> bytes:
    """Number of frames by outcome or cause of loss, as bars."""

    def draw() -> Any:
        shown = {cause: count for cause, count in counts.items() if count}
        figure, axes = new_figure(8, 0.7 + 0.34 * max(1, len(shown)))
        axis = axes[0, 0]
        colors = [COLORS[2] if cause in GOOD_ENDS else COLORS[0] for cause in shown]
        bars = axis.barh(list(shown), list(shown.values()), color=colors)
        axis.bar_label(bars, padding=3)
        axis.invert_yaxis()
        axis.set_xlabel("frames")
        axis.grid(visible=False, axis="y")
        return figure

    return as_png(draw)


def ratio_matrix(rows: Sequence[Any], methods: Sequence[str]) -> bytes:
    """Heat map of ratios to the best rival: a line for each row of the judge, with RMSE and MAE of each method.

    Args:
        rows: of :func:`stdnet_core.evaluation.judge.rows_of`; those whose best rival has no error are left out.
        methods: names.
    """

    def draw() -> Any:
        shown = [row for row in rows if not row.faultless]
        columns = [(method, figure) for method in methods for figure in ("rmse_cm", "mae_cm")]
        values = np.array([[row.ratio(method, figure) for method, figure in columns] for row in shown])
        figure, axes = new_figure(3.4 + 1.15 * len(columns), 1.3 + 0.22 * len(shown))
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

    return as_png(draw)


def history_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """Gain from history over the number of frames seen; ``curves[name][figure]`` has one value per frame."""

    def draw() -> Any:
        titles = {"rmse_cm": "RMSE", "mae_cm": "MAE", "flicker_cm": "flicker"}
        figure, axes = new_figure(11, 3.6, columns=len(titles), sharey=True)
        for axis, (key, title) in zip(axes[0], titles.items(), strict=True):
            for name, line in line_styles(list(curves)).items():
                axis.plot(np.arange(1, len(curves[name][key]) + 1), curves[name][key], marker=".", **line)
            axis.axhline(1, color="#52525b", lw=0.8)
            axis.set_title(title)
            axis.set_xlabel("frames seen")
        axes[0, 0].set_ylabel("with history / without")
        axes[0, 0].legend(fontsize=8)
        return figure

    return as_png(draw)
