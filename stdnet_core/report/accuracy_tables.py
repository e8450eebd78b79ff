"""Tables of every method on every depth camera, as printed and written by ``python -m stdnet_core.accuracy``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stdnet_core.evaluation import judge
from stdnet_core.evaluation.judge import ALONE, Row, Task

_FIGURES = {"RMSE": "rmse_cm", "MAE": "mae_cm", "edge RMSE": "edge_rmse_cm", "flicker": "flicker_cm", "TEPE": "tepe_cm"}
_MAIN_FIGURES = {title: _FIGURES[title] for title in ("RMSE", "MAE", "flicker")}


def accuracy_report(results: Mapping[str, Any], tasks: Sequence[Task], methods: Sequence[str]) -> dict[str, Any]:
    rows = judge.rows_of(results, tasks)
    moving = [task for task in tasks if not task.standing]
    still = [task for task in tasks if task.standing]
    summaries = {method: judge.summarize(rows, method) for method in methods}
    history = {method: judge.history_gain(results, moving, method) for method in methods}
    history |= {f"{method}, standing": judge.history_gain(results, still, method) for method in methods if still}
    history = {name: gain for name, gain in history.items() if gain["cells"]}
    kinds = {
        kind: {method: judge.summarize(chosen, method) for method in methods}
        for kind, chosen in judge.by_kind(rows).items()
    }
    parts = [_matrix(rows, methods), _kind_lines(kinds), _summary_lines(rows, summaries), _history_lines(history)]
    text = "\n\n".join(part for part in parts if part)
    summary = {
        "methods": {
            method: {"mean": s.mean, "worst": {f: {"ratio": r, "where": w} for f, (r, w) in s.worst.items()}}
            for method, s in summaries.items()
        },
        "history": history,
    }
    markdown = _markdown(rows, methods, kinds, summaries, history)
    return {"rows": rows, "text": text, "summary": summary, "history": history, "markdown": markdown}


def _matrix(rows: Sequence[Row], methods: Sequence[str]) -> str:
    """One line per row: the best rivals, and each method's figures as ratios to theirs."""
    first = max((len(_name(row)) for row in rows), default=4)
    heads = [f"{method + ':':>12} " + " ".join(f"{title:>9}" for title in _FIGURES) for method in methods]
    lines = [
        "RMSE and MAE of the best rival in cm; then the methods' figures in ratios to the best rival's (over 1: worse)",
        f"{'':{first}}  {'best rival':>27}  " + "  ".join(heads),
    ]
    for row in rows:
        rival = row.rival["rmse_cm"]
        best = f"{rival} {row.figures[rival]['rmse_cm']:.2f} / {row.figures[row.rival['mae_cm']]['mae_cm']:.2f}"
        cells = []
        for method in methods:
            if row.faultless:
                off = row.figures[method]
                cells.append(f"{'':12} RMSE {10 * off['rmse_cm']:.2f} mm, MAE {10 * off['mae_cm']:.2f} mm".ljust(62))
            else:
                ratios = (row.ratio(method, figure) for figure in _FIGURES.values())
                cells.append(f"{'':12} " + " ".join(_number(ratio, 9, 3) for ratio in ratios))
        lines.append(f"{_name(row):{first}}  {best:>27}  " + "  ".join(cells))
    return "\n".join(lines)


def _name(row: Row) -> str:
    region = "" if row.region == "all" else f", {row.region}"
    return f"{row.cell} {row.group}{region}"


def _number(value: float, width: int, digits: int) -> str:
    return f"{value:{width}.{digits}f}" if math.isfinite(value) else f"{'-':>{width}}"


def _kind_lines(kinds: Mapping[str, Mapping[str, judge.Summary]]) -> str:
    first = max(map(len, kinds), default=0)
    lines = ["By kind of camera: geometric mean (worst) of the ratios to the best rival"] if kinds else []
    for kind, summaries in kinds.items():
        for method, summary in summaries.items():
            values = ", ".join(
                f"{title} {_number(mean, 0, 2)} ({_number(worst, 0, 2)})"
                for title, mean, worst in _means_and_worst(summary)
            )
            off = _number(summary.confidence, 0, 2)
            lines.append(f"  {kind:{first}}  {method}: {values}, confidence off by {off}")
    return "\n".join(lines)


def _means_and_worst(summary: judge.Summary) -> Iterator[tuple[str, float, float]]:
    for title, figure in _MAIN_FIGURES.items():
        yield title, summary.mean[figure], summary.worst[figure][0]


def _summary_lines(rows: Sequence[Row], summaries: Mapping[str, judge.Summary]) -> str:
    lines = []
    for method, summary in summaries.items():
        worst = "; ".join(
            f"{title} {summary.worst[figure][0]:.2f} ({summary.worst[figure][1]})"
            for title, figure in (("RMSE", "rmse_cm"), ("MAE", "mae_cm"))
        )
        mean = f"RMSE {summary.mean['rmse_cm']:.3f}, MAE {summary.mean['mae_cm']:.3f}"
        lines.append(f"{method}: geometric mean of the ratio to the best rival {mean}; worst cell {worst}")
    faultless = [row for row in rows if row.faultless]
    for method in summaries:
        if faultless:
            off = max(10 * row.figures[method]["rmse_cm"] for row in faultless)
            lines.append(f"{method}: faultless input comes out with an RMSE of up to {off:.2f} mm")
    return "\n".join(lines)


def _history_lines(history: Mapping[str, Any]) -> str:
    lines = ["History gain: figures with the history of the stream, divided by those without (under 1: a gain)"]
    for name, gain in history.items():
        for cell, figures in gain["cells"].items():
            last = gain["last_frame"][cell]
            values = ", ".join(
                f"{title} {_number(figures[figure], 0, 3)} (last frame {_number(last[figure], 0, 3)})"
                for title, figure in _MAIN_FIGURES.items()
            )
            lines.append(f"  {name}, {cell}: {values}")
        for title, figure in _MAIN_FIGURES.items():
            curve = " ".join(_number(value, 0, 3) for value in gain["frames"][figure])
            lines.append(f"  {name}, all cells, {title} by frames seen: {curve}")
    return "\n".join(lines)


def _markdown(
    rows: Sequence[Row],
    methods: Sequence[str],
    kinds: Mapping[str, Mapping[str, judge.Summary]],
    summaries: Mapping[str, judge.Summary],
    history: Mapping[str, Any],
) -> str:
    """The same as Markdown tables, with every method's own figures."""
    lines = ["## Summary", "", "```", _summary_lines(rows, summaries), "```", "", "## By kind of camera", ""]
    lines += [
        "Geometric means of the ratios to the best rival, and the worst; expected calibration error of confidence.",
        "",
    ]
    lines += ["| | method | RMSE | worst | MAE | worst | flicker | worst | confidence |", "|" + "---|" * 9]
    for kind, of_methods in kinds.items():
        for method, summary in of_methods.items():
            pairs = _means_and_worst(summary)
            cells = " | ".join(f"{_number(mean, 0, 2)} | {_number(worst, 0, 2)}" for _, mean, worst in pairs)
            lines.append(f"| {kind} | {method} | {cells} | {_number(summary.confidence, 0, 2)} |")
    lines += ["", "## Matrix", ""]
    lines += ["| | method | " + " | ".join(_FIGURES) + " | RMSE, MAE / best rival |"]
    lines += ["|" + "---|" * (len(_FIGURES) + 3)]
    for row in rows:
        name = _name(row)
        for method, figures in row.figures.items():
            if method.endswith(ALONE):
                continue
            cells = " | ".join(_number(figures[figure], 0, 2) for figure in _FIGURES.values())
            ratios = ", ".join(
                _number(math.nan if row.faultless else row.ratio(method, figure), 0, 3)
                for figure in ("rmse_cm", "mae_cm")
            )
            shown = f"**{method}**" if method in methods else method
            lines.append(f"| {name} | {shown} | {cells} | {ratios} |")
            name = ""
    titles = [*_MAIN_FIGURES, *(f"{title}, last frame" for title in _MAIN_FIGURES)]
    lines += ["", "## History gain", "", "| | camera | " + " | ".join(titles) + " |", "|" + "---|" * (len(titles) + 2)]
    for name, gain in history.items():
        for cell, figures in gain["cells"].items():
            both = (figures, gain["last_frame"][cell])
            values = " | ".join(_number(of[figure], 0, 3) for of in both for figure in _MAIN_FIGURES.values())
            lines.append(f"| {name} | {cell} | {values} |")
    return "\n".join(lines) + "\n"
