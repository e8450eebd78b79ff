"""Figures of an evaluation as text, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stdnet_core import checkpoints
from stdnet_core.evaluation.recording import RecordingScore
from stdnet_core.report.page import Table, table_text
from stdnet_core.report.recording_report import COLUMNS

FIGURE_COLUMNS = {
    "RMSE": ("rmse_cm", 1),
    "MAE": ("mae_cm", 1),
    "TEPE": ("tepe_cm", 1),
    "delta1 %": ("delta1", 100),
    "edge RMSE": ("edge_rmse_cm", 1),
    "tail RMSE": ("longtail_spatial_rmse_cm", 1),
    "flicker": ("flicker_cm", 1),
    "shown %": ("coverage", 100),
    "ms": ("ms_per_frame", 1),
}


def recording_text(name: str, score: RecordingScore, result: Mapping[str, Any]) -> str:
    lines = [
        f"{name}: {score.frames} frames, {100 * score.unmeasured_share:.1f} % of the pixels without a measurement, "
        f"{100 * score.standing_share:.1f} % are static; lengths in cm",
        table_text(Table(COLUMNS, result["figures"])),
        result["verdict"],
    ]
    lines += [f"note: {method}: {text}" for method, texts in result["notices"].items() for text in texts]
    return "\n".join(lines) + "\n"


def scale_text(scale: float, result: dict[str, Any], report: dict[str, Any]) -> str:
    """The figures of one scale as text."""
    rows = [(name, methods) for name, methods in result["sequences"].items()]
    if len(rows) > 1:
        rows.append(("mean", result["mean"]))
    first = max(len(name) for name, _ in rows)
    second = max(len(method) for method in result["mean"])
    frames = sum(result["frames"].values())
    low = report["low_resolution"]
    ranges = [metres for metres in result["range_m"].values() if metres is not None]
    within = f", range {_span(ranges)} m" if ranges else ""
    sensor = f" (a {low['sensor']}{within})" if "sensor" in low else ""
    lines = [
        f"x{scale}, {report['data']}: {len(result['sequences'])} sequences, {frames} frames; "
        f"low-resolution depth {low['source']}{sensor}; lengths in cm"
    ]
    lines.append(f"{'sequence':{first}}  {'method':{second}}" + "".join(f"{title:>11}" for title in FIGURE_COLUMNS))
    for name, methods in rows:
        lines.append("-" * len(lines[1]))
        for method, figures in methods.items():
            cells = (_cell(figures[key] * factor) for key, factor in FIGURE_COLUMNS.values())
            lines.append(f"{name:{first}}  {method:{second}}" + "".join(cells))
            name = ""
    flows = set(result["tepe_flow"].values())
    if "true" in flows and len(flows) == 1:
        lines.append("TEPE: along the data's own optical flow")
    elif flows - {"none"}:
        lines.append(
            "TEPE: along optical flow ESTIMATED from colour (OpenCV DIS); not comparable with published values"
        )
    clips = [metres for metres in result["clip_truth_m"].values() if metres is not None]
    if clips:
        lines.append(f"ground truth is clipped to {_span(clips)} m")
    other = "" if report["precision"] == "fp32" else ", other methods in fp32"
    lines.append(f"computed on {report['device']} in {report['precision']}{other}")
    model = report.get("model")
    if model:
        lines.append(
            f"model: {model['name']}, trained for {checkpoints.scales_text(model['trained_scales'])}, uses "
            f"{model['latency']} later frames"
        )
    lines += [f"WARNING: {text}" for text in result["warnings"]]
    lines += [f"note: {text}" for text in result["notices"]]
    lines += [f"left out: {text}" for text in result["skipped"]]
    return "\n".join(lines) + "\n"


def _span(values: list[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _cell(value: float) -> str:
    return f"{'-':>11}" if math.isnan(value) else f"{value:11.2f}"
