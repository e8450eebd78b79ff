"""What a report says of a recording without truth, for :class:`stdnet_core.report.writer.ReportData`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stdnet_core.recording import AS_RECORDED, JudgedFrame, RecordingScore, recording_verdict
from stdnet_core.report.analysis import AnalysisFrame
from stdnet_core.report.writer import Column, Section, Table, Verdict

REFERENCE = "recorded"
"""What stands in the place of the truth."""
COLUMNS = (
    Column("hidden_rmse_cm", "hidden RMSE", 1, False, "RMSE in patches of measured depth that were hidden"),
    Column("hidden_mae_cm", "hidden MAE", 1, False, "mean absolute error there"),
    Column("hidden_filled", "hidden shown %", 100, True, "pixels of these patches for which depth is shown"),
    Column(
        "flicker_cm",
        "flicker",
        1,
        False,
        "mean change from frame to frame where the scene stands still and depth was measured",
    ),
    Column("hole_flicker_cm", "flicker in holes", 1, False, "the same where depth was hidden or not measured"),
    Column("edge_agreement", "edges on colour's %", 100, True, "depth edges that are within 2 px of an edge of colour"),
    Column("holes_filled", "holes filled %", 100, True, "pixels without a measurement for which depth is shown"),
    Column("changed_cm", "change", 1, False, "mean change of measured pixels"),
    Column(
        "changed_share",
        "changed %",
        100,
        False,
        "measured pixels that change by more than 3 deviations of the sensor's noise and 2 mm",
    ),
)


def analysis_frame(judged: JudgedFrame, stamp: float | None = None) -> AnalysisFrame:
    """The frame as :class:`stdnet_core.report.analysis.Analysis` takes it, compared in hidden patches alone.

    Args:
        judged: of a recording.
        stamp: seconds, None if unknown.
    """
    given = judged.given
    frame = judged.frame
    return AnalysisFrame(
        judged.index,
        stamp,
        frame.rgb,
        _nan_holes(given),
        frame.outputs,
        judged.recorded,
        shown=frame.shown,
        scored=judged.compared,
    )


def with_flicker(row: dict[str, float], flicker: Mapping[str, float]) -> None:
    """Put the flicker of standing parts into a row of an analysis, which has none worth telling: the change of output
    less that of noisy measurements."""
    for method, value in flicker.items():
        row[f"{method} flicker_cm"] = value


def recording_parts(score: RecordingScore, method: str) -> dict[str, Any]:
    """Verdict, table, facts, sections, warnings and protocol for a report on ``method``."""
    figures = score.figures()
    ours, recorded = figures[method], figures[AS_RECORDED]
    verdict = recording_verdict(score, method)
    warnings = []
    if score.frames > 1 and not score.stands:
        warnings.append(
            "The camera or the scene moves all the time: there is no flicker of standing parts to tell, and the "
            "sensor's noise is estimated from plain surfaces alone. A few seconds with the camera at rest would tell."
        )
    noise = [(distance, f"{deviation:.2f} cm") for distance, deviation in score.noise().items()]
    facts = [
        (f"MAE of {method} in hidden patches", _centimetres(ours["hidden_mae_cm"])),
        (f"flicker of {method}", _centimetres(ours["flicker_cm"])),
        ("flicker as recorded", _centimetres(recorded["flicker_cm"])),
        ("pixels without a measurement", _percent(score.unmeasured_share)),
        ("of them filled", _percent(ours["holes_filled"])),
        ("stands still", _percent(score.standing_share)),
    ]
    return {
        "verdicts": [Verdict(verdict.kind, verdict.text)],
        "table": Table(COLUMNS, figures),
        "facts": facts,
        "warnings": warnings,
        "protocol": (
            "There is no truth: the recording is the input as it is, at its own resolution, and is judged by itself. "
            "About a twelfth of its pixels, in patches of three sizes in fixed places, are hidden from all methods and "
            f"compared with what was measured there, where every method has a depth. The row {AS_RECORDED!r} is the "
            "depth that came in. What the sensor always gets wrong, such as a bias or fattened edges, cannot be seen "
            "so: to repeat it in a hidden patch counts as right."
        ),
        "sections": [
            Section(
                "Noise of the sensor",
                "One standard deviation, as estimated from the recording: the larger of what changes where nothing "
                "moves and of what is rough where a surface is plain.",
                noise,
            )
        ],
    }


def _nan_holes(depth: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(depth > 0, depth, np.float32(np.nan))


def _centimetres(value: float) -> str:
    return f"{value:.2f} cm" if math.isfinite(value) else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "-"
