"""Depth that any method wrote to files, read in place of running one, so that it is scored beside others.

    FOLDER/<sequence>/000000.npy ...     metres, (H, W); not finite or not positive where it says nothing
    FOLDER/<sequence>/000000.png ...     or 16-bit PNG, millimetres, 0 where it says nothing

One file a frame, numbered in the order of the frames. A sequence's folder has its name in the table, with or without
``_`` for each ``/``; where there is one sequence, FOLDER itself serves. The files may lie in a sub-folder ``depth``,
as ``python -m stdnet_core.predict`` leaves them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from stdnet_core.data.frame_files import numbered_files
from stdnet_core.data.image_files import DEPTH_SUFFIXES, read_depth
from stdnet_core.errors import DataError
from stdnet_core.evaluation.methods import Said


class StoredPredictions:
    """A method of :func:`stdnet_core.evaluation.methods.run_together` that reads what it has to say.

    Args:
        files: of one sequence, one a frame, in order.

    Attributes:
        ms_per_frame: not a number; how long the method took is not in its files.
    """

    ms_per_frame = math.nan

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._ready: deque[Said] = deque()
        self.begin()

    def begin(self) -> None:
        """Start from the first frame."""
        self._next = self._silent = self._pixels = 0
        self._ready.clear()

    def step(self, rgb: np.ndarray, depth_lr: np.ndarray) -> None:
        """Read the prediction of the next frame, whose colour is (H, W, 3).

        Raises:
            DataError: the file is damaged or of another size.
        """
        path = self._files[self._next]
        self._next += 1
        depth = read_depth(path)
        if depth.shape != rgb.shape[:2]:
            height, width = rgb.shape[:2]
            raise DataError(
                f"{path}: a prediction of {depth.shape[1]}x{depth.shape[0]} pixels, expected {width}x{height} as the "
                "frame has"
            )
        shown = depth > 0
        self._silent += int(shown.size - shown.sum())
        self._pixels += shown.size
        self._ready.append(Said(np.where(shown, depth, np.float32(np.nan)), shown, None))

    def finish(self) -> None:
        """Nothing is held back."""

    @property
    def ready(self) -> int:
        """How many frames can be popped."""
        return len(self._ready)

    def pop(self) -> Said:
        """The oldest ready frame."""
        return self._ready.popleft()

    @property
    def notices(self) -> list[str]:
        """How many pixels it says nothing about, if any."""
        if not self._silent:
            return []
        share = 100 * self._silent / self._pixels
        return [f"{share:.2g} % of its pixels hold no depth; those with a truth count as 0 m"]


def open_predictions(folder: Path, sequence: str, length: int, frames: int, *, alone: bool) -> StoredPredictions:
    """Find a method's predictions of a sequence.

    Args:
        folder: of the method.
        sequence: name of the sequence in the table.
        length: of the sequence, in frames.
        frames: that are evaluated, the first of them; there must be predictions for so many or for all.
        alone: there is no other sequence, so that the files may lie in ``folder`` itself.

    Raises:
        DataError: there are none, or not one for each frame.
    """
    names = dict.fromkeys((sequence.replace(":", "_"), sequence.replace("/", "_").replace(":", "_")))
    places = [folder / name for name in names] + [folder] * alone
    for place in (inner for outer in places for inner in (outer, outer / "depth")):
        files = numbered_files(place, DEPTH_SUFFIXES)
        if files:
            return StoredPredictions(_checked(place, files, sequence, length, frames)[:frames])
    raise DataError(
        f"{folder}: no predictions of {sequence}; expected .npy or .png files, one for each of its {length} frames, in "
        f"{' or '.join(str(place) for place in places)}"
    )


def _checked(place: Path, files: dict[int, Path], sequence: str, length: int, frames: int) -> list[Path]:
    kinds = {path.suffix.lower() for path in files.values()}
    if len(kinds) > 1:
        raise DataError(f"{place}: predictions in {' and '.join(sorted(kinds))}; keep one kind")
    numbers = sorted(files)
    if len(numbers) not in (length, frames):
        gap = next((first for first, second in pairwise(numbers) if second - first > 1), None)
        hint = f"the last is {files[numbers[-1]]}" if gap is None else f"none follows {files[gap]} at once"
        raise DataError(
            f"{place}: {len(numbers)} predictions, expected {length}, one for each frame of {sequence}; {hint}"
        )
    return [files[number] for number in numbers]
