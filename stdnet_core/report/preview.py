"""The video of a report: colour, input, ground truth, output and its error side by side, of frames spread evenly."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

import numpy as np

from stdnet_core.report.panels import compose, depth_limits, error_limit, frame_tiles, scale_bars
from stdnet_core.report.video import Mp4Writer

PREVIEW_FPS = 15.0
_MOST_FRAMES = 300
_TILE_WIDTH = 240


class PreviewVideo:
    """Gets every frame and writes at most about 300 of them.

    Args:
        path: the MP4.
        method: whose output it shows.
        expected: approximate number of frames.
        reference: name of the ground truth in captions.

    Attributes:
        path: the MP4; it does not exist if there were no frames.
        step: every ``step``-th frame is shown.
    """

    def __init__(self, path: Path, method: str, expected: int, reference: str = "truth") -> None:
        self.path = path
        self.step = max(1, math.ceil(expected / _MOST_FRAMES))
        self._method, self._reference = method, reference
        self._writer = Mp4Writer(path, PREVIEW_FPS)
        self._taken = 0
        self._scales: tuple[tuple[float, float], float] | None = None

    def add(self, rgb: np.ndarray, depth_lr: np.ndarray, output: np.ndarray, truth: np.ndarray) -> None:
        """Add the next frame: (H, W, 3) uint8, (h, w), (H, W) and (H, W) metres, NaN invalid."""
        self._taken += 1
        if (self._taken - 1) % self.step:
            return
        if self._scales is None:
            self._scales = depth_limits(truth), error_limit(truth)
        limits, error_max = self._scales
        tiles = frame_tiles(
            rgb,
            depth_lr,
            {self._method: output},
            truth,
            limits=limits,
            error_max=error_max,
            reference=self._reference,
        )
        colour, low, ours, true, error = tiles
        picture = compose([colour, low, true, ours, error], tile_width=_TILE_WIDTH)
        self._writer.add(np.concatenate((picture, scale_bars(picture.shape[1], limits, error_max))))

    @property
    def caption(self) -> str:
        """A sentence on what the video shows."""
        which = "Every frame" if self.step == 1 else f"Every {self.step}th frame"
        return f"{which} of the run, shown at {PREVIEW_FPS:g} frames per second, not at the recording's rate."

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()

    def __enter__(self) -> PreviewVideo:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
