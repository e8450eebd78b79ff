"""Writes a report: one HTML file that contains everything, and its pictures, video and tables as separate files.

    write_report(ReportData(title=..., analysis=analysis), Path("report"))

This writes report/report.html, which opens offline, report/*.png and report/per_frame.csv."""

from __future__ import annotations

import base64
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stdnet_core.cli import require
from stdnet_core.report import figures
from stdnet_core.report.analysis import Analysis, AnalysisFrame
from stdnet_core.report.drawing import encode_png
from stdnet_core.report.page import (
    Overview,
    Picture,
    ReportData,
    Section,
    Verdict,
    accuracy_of,
    cells_of,
    number_text,
)
from stdnet_core.report.panels import compose, depth_limits, error_limit, frame_tiles, scale_bars
from stdnet_core.report.versions import versions

_VIDEO_LIMIT = 12 << 20
_CLEARLY = 0.01
_FLICKER = "Flicker is the mean |change of output - change of ground truth| from frame to frame at a pixel."
_FLICKER_WITHOUT_TRUTH = (
    "RMSE and MAE are those of hidden patches; flicker is the mean change of output from frame to frame where the "
    "scene is static and depth was measured."
)
_HIDDEN = "Errors are those in hidden patches, compared with what was recorded there."
_TAILS = (
    "The spatial long tail is where the interpolated input is wrong by 10 cm or more; the temporal long tail is where "
    "the reference depth changes by 10 cm or more from one frame to the next. The motion tail, where depth changes "
    "along the flow, is not the same."
)


def write_report(data: ReportData, output_dir: Path) -> Path:
    """Write report.html, its pictures as PNG files and per_frame.csv; returns the HTML file.

    Args:
        data: what to show.
        output_dir: created if absent.

    Raises:
        StdnetError: matplotlib or jinja2 is not installed.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    sections = [section for section in _sections(data) if section.pictures or section.rows]
    for section in sections:
        for picture in section.pictures:
            (output_dir / f"{picture.name}.png").write_bytes(picture.png)
    write_rows(data.analysis.rows, output_dir / "per_frame.csv")
    shown = [_for_template(section) for section in sections]
    if data.video is not None and data.video.is_file():
        shown.insert(0, _video_section(data.video, data.video_caption))
    html = _template("report.html").render(
        title=data.title,
        subtitle=data.subtitle,
        lead=data.lead,
        verdicts=[*(_accuracy_verdict(data.analysis) if data.table is None else ()), *data.verdicts],
        warnings=list(data.warnings),
        notes=list(data.notes),
        facts=list(data.facts),
        protocol=data.protocol,
        sections=shown,
        heading="Accuracy" if data.table is None else "Without ground truth",
        **cells_of(data.table or accuracy_of(data.analysis)),
    )
    path = output_dir / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def write_overview(page: Overview, path: Path) -> None:
    """Write a page with a table of all reports and links to them.

    Raises:
        StdnetError: jinja2 is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_template("overview.html").render(page=page), encoding="utf-8")


def _template(name: str) -> Any:
    jinja2 = require("jinja2", extra="report")
    folder = Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(folder)
    )
    return environment.get_template(name)


def _accuracy_verdict(analysis: Analysis) -> list[Verdict]:
    """How the subject of the report compares with bilinear interpolation, or else with the first other method."""
    main, *others = analysis.methods
    if not others or not len(analysis):
        return []
    other = "bilinear" if "bilinear" in others else others[0]
    figures_of = analysis.figures()
    changes, parts = [], []
    for key, label in (("rmse_cm", "RMSE"), ("mae_cm", "MAE"), ("flicker_cm", "flicker")):
        ours, theirs = figures_of[main][key], figures_of[other][key]
        if not (math.isfinite(ours) and math.isfinite(theirs) and theirs > 0):
            continue
        change = ours / theirs - 1
        if key != "flicker_cm":
            changes.append(change)
        more = "equal" if abs(change) < 5e-3 else f"{100 * abs(change):.0f} % {'larger' if change > 0 else 'smaller'}"
        parts.append(f"{label} {ours:.2f} against {theirs:.2f} cm ({more})")
    if not changes:
        return []
    if max(changes) < -_CLEARLY:
        kind, begin = "good", f"Here, {main} is more accurate than {other}"
    elif min(changes) > _CLEARLY:
        kind, begin = "bad", f"Here, {main} is less accurate than {other}"
    else:
        kind, begin = "mixed", f"Here, neither {main} nor {other} is clearly more accurate"
    return [Verdict(kind, f"{begin}: {', '.join(parts)}.")]


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write dicts as CSV with a column for every key that any of them has; NaN as an empty cell."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(column)) for column in columns])


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}" if abs(value) < 1e6 else repr(value)
    return "" if value is None else value


def _sections(data: ReportData) -> list[Section]:
    analysis, methods = data.analysis, data.analysis.methods
    depth = "ground-truth depth" if data.table is None else "recorded depth"
    sections = []
    piece = analysis.slice
    if piece is not None:
        sections = [
            Section("Frames", _examples_text(analysis), (), _examples(analysis)),
            Section(
                "Over time",
                _FLICKER if data.table is None else _FLICKER_WITHOUT_TRUTH,
                (),
                [
                    Picture(
                        "frame_curves",
                        "RMSE, MAE and flicker of every frame.",
                        figures.frame_curves(analysis.rows, methods),
                    ),
                    Picture(
                        "xt_slices",
                        f"Row {piece.row} of the image over time, from top to bottom, of the first "
                        f"{len(piece.rgb)} frames. Jagged lines are flicker, blurred ones are lost edges (as "
                        "in the paper's fig. 5b).",
                        figures.xt_slices(piece, methods, analysis.reference),
                    ),
                ],
            ),
            Section(
                "Where the errors are",
                _TAILS if data.table is None else f"{_HIDDEN} {_TAILS}",
                (),
                [
                    Picture(
                        "error_histograms",
                        "Share of pixels by size of the error (as in the paper's fig. 2 and 4b); the first bin "
                        "contains all errors up to 1 mm. Further to the left is better.",
                        figures.error_histograms(analysis.histograms, methods),
                    ),
                    Picture(
                        "error_by_place",
                        f"Mean error over {depth} (left) and over the distance to its nearest edge (right), with the "
                        "share of pixels below; depth bins with less than 0.5 % of the pixels are left out.",
                        figures.binned_errors(analysis.by_depth, analysis.by_edge_distance, methods),
                    ),
                ],
            ),
        ]
    if data.cloud is not None:
        sections.append(
            Section(
                "Point cloud",
                "",
                (),
                [
                    Picture(
                        "cloud",
                        "The cloud of a frame in the middle, seen from the left and above the camera. White: nothing "
                        "measured, or hidden from the camera.",
                        data.cloud,
                    )
                ],
            )
        )
    if data.latency:
        picture = figures.latency_timeline(data.latency, data.latency_label, data.frame_interval_ms)
        sections.append(
            Section("Time", "", (), [Picture("latency", f"{data.latency_label.capitalize()} of each frame.", picture)])
        )
    if any(count for cause, count in data.counts.items() if cause not in figures.GOOD_ENDS):
        picture = figures.drop_causes(data.counts)
        sections.append(Section("Lost frames", "", (), [Picture("frame_counts", "Frames by outcome.", picture)]))
    sections += data.sections
    sections.append(Section("Configuration", "", [(key, str(value)) for key, value in data.configuration.items()]))
    sections.append(Section("Versions", "", list(versions().items())))
    return sections


def _examples(analysis: Analysis) -> list[Picture]:
    main, others = analysis.methods[0], analysis.methods[1:]
    pictures = []
    for name, frame in analysis.examples().items():
        row = next(row for row in analysis.rows if row["index"] == frame.index)
        caption = (
            f"{name.capitalize()} frame by RMSE: number {frame.index}, "
            + ", ".join(f"{method} {number_text(row[f'{method} rmse_cm'])} cm" for method in analysis.methods)
            + "."
        )
        panel = _panel(frame, main, others, analysis.reference)
        pictures.append(Picture(f"frame_{name}", caption, encode_png(panel)))
    return pictures


def _panel(frame: AnalysisFrame, main: str, others: Sequence[str], reference: str) -> np.ndarray:
    """Two rows: colour, input, ground truth, main output; then its error and the others' errors."""
    limits, error_max = depth_limits(frame.truth), error_limit(frame.truth)
    outputs = dict(frame.outputs)
    colour, low, *rest = frame_tiles(
        frame.rgb, frame.depth_lr, outputs, frame.truth, limits=limits, error_max=error_max, reference=reference
    )
    by_name, truth = dict(zip(outputs, rest, strict=False)), rest[len(outputs)]
    errors = dict(zip(outputs, rest[len(outputs) + 1 :], strict=True))
    others = sorted(others, key=lambda name: name != "bilinear")
    top = [colour, low, truth, by_name[main]]
    bottom = [errors[main], *(tile for name in others[:1] for tile in (by_name[name], errors[name]))]
    bottom += [errors[name] for name in others[1:2]]
    picture = compose([*top, *bottom], columns=4, tile_width=380)
    return np.concatenate((picture, scale_bars(picture.shape[1], limits, error_max)))


def _examples_text(analysis: Analysis) -> str:
    return f"The frames with the smallest, the median and the largest RMSE of {analysis.methods[0]}."


def _for_template(section: Section) -> dict[str, Any]:
    pictures = [
        {"kind": "image", "caption": picture.caption, "source": _inline(picture.png, "image/png")}
        for picture in section.pictures
    ]
    return {"title": section.title, "text": section.text, "rows": list(section.rows), "pictures": pictures}


def _video_section(video: Path, caption: str) -> dict[str, Any]:
    """A short video is embedded; a long one remains a file beside the report."""
    small = video.stat().st_size <= _VIDEO_LIMIT
    source = _inline(video.read_bytes(), "video/mp4") if small else video.name
    caption = f"{caption} {video.name}{'' if small else ', a file beside this report'}".strip()
    return {
        "title": "Video",
        "text": "",
        "rows": [],
        "pictures": [{"kind": "video", "caption": caption, "source": source}],
    }


def _inline(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
