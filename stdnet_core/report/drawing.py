"""Style of this project's diagrams (sizes, colours and lines), and rendering to PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from stdnet_core.cli import require

COLORS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed", "#0891b2", "#a16207", "#be185d")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e7",
    "axes.edgecolor": "#a1a1aa",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **arguments: Any) -> tuple[Any, Any]:
    """A figure without a window or global state, and its axes."""
    require("matplotlib", extra="report")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **arguments)
    return figure, axes


def as_png(draw: Any) -> bytes:
    """Run ``draw`` with the report's style and render the figure that it returns."""
    matplotlib = require("matplotlib", extra="report")
    with matplotlib.rc_context(STYLE):
        figure = draw()
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def line_styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {"color": COLORS[i % len(COLORS)], "lw": 1.8 if i == 0 else 1.1, "zorder": 10 - i, "label": name}
        for i, name in enumerate(methods)
    }


def encode_png(picture: np.ndarray) -> bytes:
    """An (H, W, 3) uint8 RGB picture as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape}")
    return data.tobytes()
