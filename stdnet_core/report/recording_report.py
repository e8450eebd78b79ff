"""Content of the report on a recording without ground truth, for :class:`stdnet_core.report.page.ReportData`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stdnet_core.evaluation.recording import AS_RECORDED, JudgedFrame, RecordingScore
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.report.analysis import AnalysisFrame
from stdnet_core.report.page import Column, Section, Table, Verdict

REFERENCE = "recorded"
"""Caption of what replaces the ground truth."""
_ALIKE = 0.05  # relative difference up to which figures are equally good
_CHANGED = 0.05  # largest share of measured pixels that a good method changes beyond noise

COLUMNS = (
    Column("hidden_rmse_cm", "hidden RMSE", 1, False, "RMSE in patches of measured depth that were hidden"),
    Column("hidden_mae_cm", "hidden MAE", 1, False, "mean absolute error there"),
    Column("hidden_filled", "hidden shown %", 100, True, "pixels of these patches for which depth is shown"),
    Column(
        "flicker_cm",
        "flicker",
        1,
        False,
        "mean change from frame to frame where the scene is static and depth was measured",
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
        "measured pixels that change by more than 3 standard deviations of the sensor's noise plus 2 mm",
    ),
)


def analysis_frame(judged: JudgedFrame, stamp: float | None = None) -> AnalysisFrame:
    """The frame for :class:`stdnet_core.report.analysis.Analysis`, compared only in hidden patches.

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
        nan_where_invalid(given),
        frame.outputs,
        judged.recorded,
        shown=frame.shown,
        scored=judged.compared,
    )


def with_flicker(row: dict[str, float], flicker: Mapping[str, float]) -> None:
    """Replace the flicker in a row of an analysis by that of static pixels; the analysis would subtract the change of
    noisy measurements."""
    for method, value in flicker.items():
        row[f"{method} flicker_cm"] = value


def recording_verdict(score: RecordingScore, method: str) -> Verdict:
    """Whether a method improves a recording.

    Three figures are compared: RMSE and MAE in hidden patches with those of the best other method, and flicker of
    static pixels with that of the recording. The verdict is ``good`` if none is worse by more than 5 %; ``bad`` if one
    is and none is better by more than 5 %, or if more than 5 % of the measured pixels change beyond noise; else
    ``mixed``."""
    table = score.figures()
    ours, recorded = table[method], table[AS_RECORDED]["flicker_cm"]
    ratios, hidden, parts = [], [], []
    for figure, label in (("hidden_rmse_cm", "RMSE"), ("hidden_mae_cm", "MAE")):
        others = {
            name: row[figure]
            for name, row in table.items()
            if name not in (method, AS_RECORDED) and math.isfinite(row[figure])
        }
        text = f"{label} {ours[figure]:.2f} cm"
        if others:
            best = min(others, key=others.__getitem__)
            text += f" ({best}: {others[best]:.2f})"
            ratios.append(_ratio(ours[figure], others[best]))
        hidden.append(text)
    if math.isfinite(ours["hidden_mae_cm"]):
        parts.append(f"where measured depth was hidden, its errors are {' and '.join(hidden)}")
    if score.stands and math.isfinite(ours["flicker_cm"]):
        parts.append(f"static pixels flicker by {ours['flicker_cm']:.2f} cm per frame (as recorded: {recorded:.2f})")
        ratios.append(_ratio(ours["flicker_cm"], recorded))
    if math.isfinite(ours["holes_filled"]):
        parts.append(f"{_percent(ours['holes_filled'])} of the pixels without a measurement get a depth")
    if math.isfinite(ours["changed_share"]):
        parts.append(f"{_percent(ours['changed_share'])} of the measured ones change by more than the sensor's noise")
    if not parts:
        return Verdict("mixed", f"{method}: nothing could be measured on this recording.")
    worse, better = (any(sign * (ratio - 1) > _ALIKE for ratio in ratios) for sign in (1, -1))
    harm = ours["changed_share"] > _CHANGED or (worse and not better)
    return Verdict("bad" if harm else "mixed" if worse else "good", f"{method}: {'; '.join(parts)}.")


def _ratio(ours: float, other: float) -> float:
    return ours / other if other > 0 else math.inf if ours > 0 else 1.0


def recording_summary(score: RecordingScore, method: str) -> dict[str, Any]:
    """Verdict on a method, and properties of the recording, for a JSON file."""
    return {
        "verdict": recording_verdict(score, method).text,
        "standing_share": score.standing_share,
        "unmeasured_share": score.unmeasured_share,
        "noise_cm": score.noise(),
    }


def recording_parts(score: RecordingScore, method: str) -> dict[str, Any]:
    """Verdict, table, facts, sections, warnings and protocol for a report on ``method``."""
    figures = score.figures()
    ours, recorded = figures[method], figures[AS_RECORDED]
    warnings = []
    if score.frames > 1 and not score.stands:
        warnings.append(
            "The camera or the scene moves all the time. Flicker of static pixels cannot be measured, and the "
            "sensor's noise is estimated from plain surfaces alone. Record a few seconds with the camera at rest."
        )
    noise = [(distance, f"{deviation:.2f} cm") for distance, deviation in score.noise().items()]
    facts = [
        (f"MAE of {method} in hidden patches", _centimetres(ours["hidden_mae_cm"])),
        (f"flicker of {method}", _centimetres(ours["flicker_cm"])),
        ("flicker as recorded", _centimetres(recorded["flicker_cm"])),
        ("pixels without a measurement", _percent(score.unmeasured_share)),
        ("filled ones among them", _percent(ours["holes_filled"])),
        ("static pixels", _percent(score.standing_share)),
    ]
    return {
        "verdicts": [recording_verdict(score, method)],
        "table": Table(COLUMNS, figures),
        "facts": facts,
        "warnings": warnings,
        "protocol": (
            "There is no ground truth: the recording itself is the input, at its own resolution, and the reference. "
            "About a twelfth of its pixels, in patches of three sizes in fixed places, are hidden from all methods; "
            f"there, their output is compared with the measurements where all have a depth. The row {AS_RECORDED!r} is "
            "the recorded depth. Systematic errors of the sensor, such as a bias or fattened edges, cannot be found "
            "this way: a method that repeats them in a hidden patch counts as correct."
        ),
        "sections": [
            Section(
                "Noise of the sensor",
                "One standard deviation, as estimated from the recording: the larger of the change over time where "
                "nothing moves and the roughness of plain surfaces.",
                noise,
            )
        ],
    }


def _centimetres(value: float) -> str:
    return f"{value:.2f} cm" if math.isfinite(value) else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "-"
