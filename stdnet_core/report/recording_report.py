"""What a report says of a recording without truth, for :class:`stdnet_core.report.page.ReportData`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stdnet_core.evaluation.recording import AS_RECORDED, JudgedFrame, RecordingScore
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.report.analysis import AnalysisFrame
from stdnet_core.report.page import Column, Section, Table, Verdict

REFERENCE = "recorded"
"""What stands in the place of the truth."""
_ALIKE = 0.05  # relative difference between figures that are as good
_CHANGED = 0.05  # share of measured pixels changed beyond noise

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
        nan_where_invalid(given),
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


def recording_verdict(score: RecordingScore, method: str) -> Verdict:
    """Whether a method does good on a recording.

    Three things are compared: RMSE and MAE where depth was hidden, with the best of the other methods, and flicker of
    what stands still, with that of the recording. ``good`` if none of them is worse by more than 5 %; ``bad`` if one is
    and none is better by more than 5 %, or if more than 5 % of the measured pixels change beyond noise; else
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
        parts.append(f"what stands still flickers by {ours['flicker_cm']:.2f} cm a frame (as recorded: {recorded:.2f})")
        ratios.append(_ratio(ours["flicker_cm"], recorded))
    if math.isfinite(ours["holes_filled"]):
        parts.append(f"{_percent(ours['holes_filled'])} of the pixels without a measurement get a depth")
    if math.isfinite(ours["changed_share"]):
        parts.append(f"{_percent(ours['changed_share'])} of the measured ones change by more than the sensor's noise")
    if not parts:
        return Verdict("mixed", f"{method}: this recording tells nothing.")
    worse, better = (any(sign * (ratio - 1) > _ALIKE for ratio in ratios) for sign in (1, -1))
    harm = ours["changed_share"] > _CHANGED or (worse and not better)
    return Verdict("bad" if harm else "mixed" if worse else "good", f"{method}: {'; '.join(parts)}.")


def _ratio(ours: float, other: float) -> float:
    return ours / other if other > 0 else math.inf if ours > 0 else 1.0


def recording_summary(score: RecordingScore, method: str) -> dict[str, Any]:
    """Verdict on a method, and what was found out about the recording, for a JSON file."""
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
        "verdicts": [recording_verdict(score, method)],
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


def _centimetres(value: float) -> str:
    return f"{value:.2f} cm" if math.isfinite(value) else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if math.isfinite(share) else "-"
