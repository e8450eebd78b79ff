"""Writes short videos: MP4 (H.264, plays in every browser) and GIF (opens everywhere, even in a README)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from stdnet_core.cli import require


class Mp4Writer:
    """Writes frames one by one, so that a video needs only the memory of one frame.

    Args:
        path: file to write.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = Path(path), fps
        self._module = require("imageio_ffmpeg", extra="report")
        self._writer: Any = None
        self._size = (0, 0)
        self.frames = 0

    def add(self, frame: np.ndarray) -> None:
        """Append an (H, W, 3) uint8 RGB frame; odd sizes lose the last row or column. Sizes must not change."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if self._writer is None:
            self._size = (width, height)
            self._writer = self._module.write_frames(
                str(self._path),
                self._size,
                fps=self._fps,
                codec="libx264",
                pix_fmt_in="rgb24",
                pix_fmt_out="yuv420p",
                macro_block_size=2,
                output_params=["-crf", "23", "-preset", "veryfast", "-threads", "2", "-movflags", "+faststart"],
                ffmpeg_log_level="error",
            )
            self._writer.send(None)
        if self._size != (width, height):
            raise ValueError(f"frame of {width}x{height} in a video of {self._size[0]}x{self._size[1]}")
        self._writer.send(np.ascontiguousarray(frame[:height, :width]))
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write (H, W, 3) uint8 RGB frames as an endlessly repeated GIF with one palette for all frames."""
    image_module = require("PIL.Image", extra="report")
    pictures = [image_module.fromarray(frame) for frame in frames]
    if not pictures:
        raise ValueError("a GIF needs at least one frame")
    sample = image_module.fromarray(np.concatenate([np.asarray(p) for p in pictures[:: max(1, len(pictures) // 4)]]))
    palette = sample.quantize(256, method=image_module.Quantize.MEDIANCUT)
    indexed = [p.quantize(palette=palette, dither=image_module.Dither.NONE) for p in pictures]
    indexed[0].save(
        path, save_all=True, append_images=indexed[1:], duration=max(20, round(1000 / fps)), loop=0, optimize=False
    )
