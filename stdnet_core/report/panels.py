"""Pictures of frames: captioned tiles, side by side or in a grid, and their colour scales.

They are drawn with NumPy and Pillow in milliseconds per tile, fast enough for whole videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from stdnet_core.cli import require
from stdnet_core.report.colorize import colorize_depth, colorize_error
from stdnet_core.short_repr import short_repr

_CAPTION = 24
_INK, _PAPER = (24, 24, 27), (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """One captioned picture.

    Attributes:
        caption: written above it.
        image: (H, W, 3) uint8 RGB.
    """

    caption: str
    image: np.ndarray

    __repr__ = short_repr


def depth_limits(depth: np.ndarray) -> tuple[float, float]:
    """Depth range in metres that shows nearly all of ``depth`` (any shape, NaN or 0 invalid)."""
    known = depth[np.isfinite(depth) & (depth > 0)]
    if known.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(known, (1.0, 99.0))
    return float(low), float(max(high, low + 1e-3))


def error_limit(truth: np.ndarray) -> float:
    """Error in metres that error pictures show in the brightest colour: 5 % of the far end of the depth range."""
    return max(0.01, 0.05 * depth_limits(truth)[1])


def frame_tiles(
    rgb: np.ndarray,
    depth_lr: np.ndarray,
    outputs: dict[str, np.ndarray],
    truth: np.ndarray | None,
    *,
    limits: tuple[float, float] | None = None,
    error_max: float | None = None,
    errors_of: Sequence[str] | None = None,
    reference: str = "truth",
) -> list[Tile]:
    """Colour, input depth, every output, truth and error pictures of one frame.

    Args:
        rgb: (H, W, 3) uint8.
        depth_lr: (h, w) metres, NaN invalid; shown with its cells.
        outputs: name -> (H, W) metres, NaN invalid.
        truth: (H, W) metres, NaN invalid, or None (then without truth and errors).
        limits: depth range of the colours in metres; from the ground truth by default.
        error_max: error of the brightest colour in metres; from the ground truth by default.
        errors_of: the outputs whose error is shown; all by default.
        reference: name of the ground truth in captions.
    """
    low, high = limits or depth_limits(depth_lr if truth is None else truth)
    size = rgb.shape[1], rgb.shape[0]
    cells = cv2.resize(colorize_depth(depth_lr, low, high), size, interpolation=cv2.INTER_NEAREST)
    tiles = [
        Tile("colour", rgb),
        Tile(f"input depth {depth_lr.shape[1]}x{depth_lr.shape[0]}", cells),
    ]
    tiles += [Tile(name, colorize_depth(depth, low, high)) for name, depth in outputs.items()]
    if truth is not None:
        top = error_max or error_limit(truth)
        tiles.append(Tile(f"{reference}, {low:.2g} to {high:.2g} m", colorize_depth(truth, low, high)))
        for name in errors_of if errors_of is not None else outputs:
            error = np.abs(outputs[name] - truth)
            kind = "error of" if reference == "truth" else f"{reference} against"
            tiles.append(Tile(f"{kind} {name}, 0 to {100 * top:.0f} cm", colorize_error(error, top)))
    return tiles


def compose(tiles: Sequence[Tile], *, columns: int | None = None, tile_width: int = 320, title: str = "") -> np.ndarray:
    """Tiles in a grid (one row by default) as one (H, W, 3) uint8 picture with even sides.

    All tiles are scaled to ``tile_width`` and the aspect ratio of the first one.
    """
    if not tiles:
        raise ValueError("compose needs at least one tile")
    columns = columns or len(tiles)
    rows = -(-len(tiles) // columns)
    ratio = tiles[0].image.shape[0] / tiles[0].image.shape[1]
    width, height = tile_width, round(tile_width * ratio)
    gap, head = 6, _CAPTION if title else 0
    canvas_width = columns * width + (columns + 1) * gap
    canvas_height = head + rows * (height + _CAPTION) + (rows + 1) * gap
    canvas = np.full((canvas_height + canvas_height % 2, canvas_width + canvas_width % 2, 3), _PAPER, np.uint8)
    captions = [(gap, 2, title)] if title else []
    for i, tile in enumerate(tiles):
        top = head + gap + (i // columns) * (height + _CAPTION + gap)
        left = gap + (i % columns) * (width + gap)
        shrink = tile.image.shape[1] > width
        method = cv2.INTER_AREA if shrink else cv2.INTER_NEAREST
        image = cv2.resize(tile.image, (width, height), interpolation=method)
        canvas[top + _CAPTION : top + _CAPTION + height, left : left + width] = image
        captions.append((left, top + 2, tile.caption))
    return _write(canvas, captions)


def scale_bars(width: int, limits: tuple[float, float], error_max: float) -> np.ndarray:
    """A strip (h, ``width``, 3) uint8 RGB with the colour scales of the tiles, to put below :func:`compose`.

    Args:
        width: px.
        limits: depth range of the colours in metres.
        error_max: error of the brightest colour in metres.
    """
    gap, bar = 6, min(220, width // 6)
    canvas = np.full((2 * gap + 18, width, 3), _PAPER, np.uint8)
    ramp = np.linspace(0, 1, bar, dtype=np.float32)[None].repeat(14, 0)
    low, high = limits
    parts = (
        (f"depth {low:.2f} m", colorize_depth(low + ramp * (high - low), low, high), f"{high:.2f} m, black: none"),
        ("error 0 cm", colorize_error(ramp, 1.0), f"{100 * error_max:.0f} cm or more, grey: unknown"),
    )
    captions = []
    for number, (before, colors, after) in enumerate(parts):
        left = gap + number * (width // 2)
        captions.append((left, gap - 2, before))
        left += 100
        canvas[gap : gap + 14, left : left + bar] = colors
        captions.append((left + bar + gap, gap - 2, after))
    return _write(canvas, captions)


def _write(canvas: np.ndarray, captions: list[tuple[int, int, str]]) -> np.ndarray:
    image_module = require("PIL.Image", extra="report")
    draw_module = require("PIL.ImageDraw", extra="report")
    font = require("PIL.ImageFont", extra="report").load_default(15)
    picture = image_module.fromarray(canvas)
    draw = draw_module.Draw(picture)
    for x, y, text in captions:
        draw.text((x, y), text, fill=_INK, font=font)
    return np.array(picture)
