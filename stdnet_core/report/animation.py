"""A short animation for a README or a web page: colour, measured depth, interpolation and output, in the same colours.

Animated WebP, which GitHub and browsers play in place; a GIF of the same size on the page takes several times the bytes
and has 256 colours for all panels together."""

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
"""What a page can be asked to load."""
MOST_FRAMES = 30
FPS = 10.0
_TILE_WIDTH = 440  # two side by side take about 900 px
_QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10)


class Animation:
    """Takes every frame, keeps pictures of at most 30, spread over the clip.

    Args:
        title: written above the panels, before what their colours mean.
        expected: how many frames will come.

    Attributes:
        step: every how manieth frame is shown.
        limits: depths in metres at the warm and the cold end of the colours, those of the first frame's truth.
        pictures: (H, W, 3) uint8 RGB each.
    """

    def __init__(self, title: str, expected: int) -> None:
        self.step = max(1, math.ceil(expected / MOST_FRAMES))
        self.limits: tuple[float, float] | None = None
        self.pictures: list[np.ndarray] = []
        self._title = title
        self._taken = 0

    def add(self, rgb: np.ndarray, depth_lr: np.ndarray, outputs: Mapping[str, np.ndarray], truth: np.ndarray) -> None:
        """Take the next frame: (H, W, 3) uint8, (h, w), the panels' depths (H, W) by caption, and (H, W) metres, NaN
        invalid. The truth is not shown."""
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
        """Write the file and return its size in bytes: of the best quality that stays below :data:`MOST_BYTES`.

        Raises:
            OutputError: it cannot be written.
        """
        data = animated_webp(self.pictures, FPS, MOST_BYTES)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        return len(data)


def animated_webp(pictures: Sequence[np.ndarray], fps: float, most_bytes: int) -> bytes:
    """(H, W, 3) uint8 RGB pictures as an animated WebP that begins anew at its end.

    Args:
        pictures: at least one.
        fps: frames per second.
        most_bytes: of the steps of quality the best one is taken with which the file is no larger.

    Raises:
        OutputError: with the least quality it is larger, too.
    """
    image_module = require("PIL.Image", extra="report")
    first, *others = [image_module.fromarray(picture) for picture in pictures]
    for quality in _QUALITIES:
        data = _encode(first, others, max(1, round(1000 / fps)), quality)
        if len(data) <= most_bytes:
            return data
    raise OutputError(
        f"{len(pictures)} frames of {first.width}x{first.height} take {len(data)} bytes at least, more than the "
        f"{most_bytes} that an animation may have; give fewer frames"
    )


def _encode(first: Any, others: Sequence[Any], milliseconds: int, quality: int) -> bytes:
    stream = io.BytesIO()
    settings = {"duration": milliseconds, "loop": 0, "quality": quality, "method": 4}
    first.save(stream, "WEBP", save_all=True, append_images=others, **settings)
    return stream.getvalue()
