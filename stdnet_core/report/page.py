"""The parts of a report page: tables, pictures, sections, verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stdnet_core.report.analysis import Analysis


@dataclass(frozen=True)
class Column:
    """A column of the table of figures.

    Attributes:
        key: of the figure.
        label: its heading.
        factor: by which the figure is multiplied.
        more_is_better: whether higher is better.
        help: explanation.
    """

    key: str
    label: str
    factor: float
    more_is_better: bool
    help: str


ACCURACY = (
    Column("rmse_cm", "RMSE", 1, False, "root mean squared error"),
    Column("mae_cm", "MAE", 1, False, "mean absolute error"),
    Column("tepe_cm", "TEPE", 1, False, "temporal end-point error: change of the error along optical flow"),
    Column(
        "flicker_cm",
        "flicker",
        1,
        False,
        "mean |change of output - change of ground truth| at a pixel from frame to frame",
    ),
    Column("delta1", "delta1 %", 100, True, "pixels within a factor of 1.25"),
    Column("edge_rmse_cm", "edge RMSE", 1, False, "RMSE within 2 px of depth edges"),
    Column(
        "longtail_spatial_rmse_cm", "tail RMSE", 1, False, "RMSE where bilinear interpolation is wrong by 10 cm or more"
    ),
    Column(
        "motion_tail_rmse_cm",
        "motion tail RMSE",
        1,
        False,
        "RMSE where depth changes by 10 cm or more along the flow",
    ),
    Column("coverage", "coverage %", 100, True, "share of the ground truth's pixels for which a method has a depth"),
)
"""Columns of a report with ground truth."""


@dataclass(frozen=True)
class Table:
    """The main table of a report.

    Attributes:
        columns: those without a figure are left out.
        figures: method -> figure.
    """

    columns: Sequence[Column]
    figures: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Picture:
    """A picture of a section: file name without suffix, what it shows, PNG bytes."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """A part of the report: text, a table of keys and values, pictures."""

    title: str
    text: str = ""
    rows: Sequence[tuple[str, str]] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Verdict:
    """A sentence that sums up the result; ``kind`` is ``good``, ``bad`` or ``mixed``."""

    kind: str
    text: str


@dataclass
class ReportData:
    """The content of a report.

    Attributes:
        title, subtitle: its heading.
        lead: what the reader has to know first.
        analysis: of the frames; its first method is the subject of the report.
        protocol: one or two sentences on what was compared with what.
        facts: (label, value) of the most important numbers.
        verdicts: added after the one on accuracy, which is derived from the analysis if there is ground truth.
        table: replaces the table of accuracy if there is no ground truth.
        warnings: what makes the report incomplete or its figures doubtful.
        notes: what a reader should know.
        counts: number of frames by outcome; "processed" and "scored" are the good ones.
        latency: (seconds, milliseconds) of each frame; empty if not measured.
        latency_label: what was timed.
        frame_interval_ms: of the recording, None if unknown.
        video: an MP4 to show, or None.
        video_caption: what it shows.
        cloud: PNG of a point cloud, or None.
        sections: added after the latency.
        configuration: settings by name.
    """

    title: str
    analysis: Analysis
    subtitle: str = ""
    lead: str = ""
    protocol: str = ""
    facts: Sequence[tuple[str, str]] = ()
    verdicts: Sequence[Verdict] = ()
    table: Table | None = None
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    latency: Sequence[tuple[float, float]] = ()
    latency_label: str = "inference"
    frame_interval_ms: float | None = None
    video: Path | None = None
    video_caption: str = ""
    cloud: bytes | None = None
    sections: Sequence[Section] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Overview:
    """An index page with links to several reports.

    Attributes:
        title, subtitle: its heading.
        columns: of the table, after the first one.
        rows: (name, path of its report relative to the page or "", method, cells); one cell for each of ``columns``.
        notes: what a reader should know.
        warnings: what makes figures doubtful.
    """

    title: str
    subtitle: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, str, Sequence[str]]]
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


def accuracy_of(analysis: Analysis) -> Table:
    """The table of a report with ground truth."""
    return Table(ACCURACY, analysis.figures())


def cells_of(table: Table) -> dict[str, Any]:
    figures = table.figures
    columns = [c for c in table.columns if any(math.isfinite(row.get(c.key, math.nan)) for row in figures.values())]
    best = {}
    for column in columns:
        values = [row[column.key] for row in figures.values() if math.isfinite(row[column.key])]
        best[column.key] = max(values) if column.more_is_better else min(values)
    rows = []
    for name, row in figures.items():
        cells = [
            {"text": number_text(row[c.key] * c.factor), "best": len(figures) > 1 and row[c.key] == best[c.key]}
            for c in columns
        ]
        rows.append({"name": name, "cells": cells})
    return {"columns": [{"label": column.label, "help": column.help} for column in columns], "table": rows}


def table_text(table: Table) -> str:
    """The table as text, for terminals."""
    parts = cells_of(table)
    labels = [column["label"] for column in parts["columns"]]
    widths = [max(12, len(label) + 2) for label in labels]
    rows = [("", labels), *((row["name"], [cell["text"] for cell in row["cells"]]) for row in parts["table"])]
    first = max(16, *(len(name) + 2 for name, _ in rows))
    return "\n".join(
        f"{name:{first}}" + "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
        for name, texts in rows
    )


def number_text(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"
