"""A short animation for a README or a web page: colour, measured depth, interpolation and output, on one colour scale.

It is an animated WebP, which GitHub and browsers play in place. A GIF of the same dimensions takes several times the
bytes and has only 256 colours for all panels together."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stdnet_core.cli import require
from stdnet_core.errors import OutputError
from stdnet_core.report.panels import compose, depth_limits, frame_tiles
from stdnet_core.whole_files import replacing

MOST_BYTES = 1_000_000
"""Size limit, so that pages load quickly."""
MOST_FRAMES = 30
FPS = 10.0
_TILE_WIDTH = 440  # two side by side take about 900 px
_QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10)


class Animation:
    """Gets every frame and keeps pictures of at most 30, spread over the clip.

    Args:
        title: written above the panels, before the explanation of their colours.
        expected: number of frames.

    Attributes:
        step: every ``step``-th frame is shown.
        limits: depths in metres at the warm and the cold end of the colours, from the first frame's ground truth.
        pictures: (H, W, 3) uint8 RGB each.
    """

    def __init__(self, title: str, expected: int) -> None:
        self.step = max(1, math.ceil(expected / MOST_FRAMES))
        self.limits: tuple[float, float] | None = None
        self.pictures: list[np.ndarray] = []
        self._title = title
        self._taken = 0

    def add(self, rgb: np.ndarray, depth_lr: np.ndarray, outputs: Mapping[str, np.ndarray], truth: np.ndarray) -> None:
        """Add the next frame: (H, W, 3) uint8, (h, w), the panels' depths (H, W) by caption, and (H, W), all in metres,
        NaN invalid. The ground truth is not shown."""
        self._taken += 1
        if (self._taken - 1) % self.step:
            return
        if self.limits is None:
            self.limits = depth_limits(truth)
        low, high = self.limits
        tiles = frame_tiles(rgb, depth_lr, dict(outputs), None, limits=self.limits)
        title = f"{self._title}; red {low:.2g} m, blue {high:.2g} m, black: no depth"
        self.pictures.append(compose(tiles, columns=2, tile_width=_TILE_WIDTH, title=title))

    def write(self, path: Path) -> int:
        """Write the file, in the best quality within :data:`MOST_BYTES`, and return its size in bytes.

        Raises:
            OutputError: it cannot be written.
        """
        data = animated_webp(self.pictures, FPS, MOST_BYTES)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        return len(data)


def animated_webp(pictures: Sequence[np.ndarray], fps: float, most_bytes: int) -> bytes:
    """(H, W, 3) uint8 RGB pictures as an animated WebP that repeats endlessly.

    Args:
        pictures: at least one.
        fps: frames per second.
        most_bytes: size limit; the best quality within it is chosen.

    Raises:
        OutputError: the lowest quality exceeds the limit, too.
    """
    image_module = require("PIL.Image", extra="report")
    first, *others = [image_module.fromarray(picture) for picture in pictures]
    for quality in _QUALITIES:
        data = _encode(first, others, max(1, round(1000 / fps)), quality)
        if len(data) <= most_bytes:
            return data
    raise OutputError(
        f"{len(pictures)} frames of {first.width}x{first.height} take at least {len(data)} bytes, more than the "
        f"{most_bytes} that an animation may have; use fewer frames"
    )


def _encode(first: Any, others: Sequence[Any], milliseconds: int, quality: int) -> bytes:
    stream = io.BytesIO()
    settings = {"duration": milliseconds, "loop": 0, "quality": quality, "method": 4}
    first.save(stream, "WEBP", save_all=True, append_images=others, **settings)
    return stream.getvalue()
