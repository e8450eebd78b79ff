"""Reads depth that another method wrote to files, so that it is scored beside the methods that are run.

    FOLDER/<sequence>/000000.npy ...     metres, (H, W); not finite or not positive where there is no depth
    FOLDER/<sequence>/000000.png ...     or 16-bit PNG, millimetres; 0 where there is no depth

There is one file per frame, numbered in the order of the frames. The folder of a sequence is named as in the table, or
with ``_`` for each ``/``; the files of a single sequence may lie directly in FOLDER. They may also lie in a sub-folder
``depth``, as ``python -m stdnet_core.predict`` writes them."""

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
    """A method of :func:`stdnet_core.evaluation.methods.run_together` that reads its output from files.

    Args:
        files: of one sequence, one per frame, in order.

    Attributes:
        ms_per_frame: NaN, because the files do not tell how long the method took.
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
                f"{path}: the prediction has {depth.shape[1]}x{depth.shape[0]} pixels, expected {width}x{height} like "
                "the frame"
            )
        shown = depth > 0
        self._silent += int(shown.size - shown.sum())
        self._pixels += shown.size
        self._ready.append(Said(np.where(shown, depth, np.float32(np.nan)), shown, None))

    def finish(self) -> None:
        """Does nothing: no frame is pending."""

    @property
    def ready(self) -> int:
        """How many frames can be popped."""
        return len(self._ready)

    def pop(self) -> Said:
        """Remove the oldest ready frame and return it."""
        return self._ready.popleft()

    @property
    def notices(self) -> list[str]:
        """States how many pixels have no depth, if any."""
        if not self._silent:
            return []
        share = 100 * self._silent / self._pixels
        return [f"{share:.2g} % of its pixels have no depth; those with ground truth count as 0 m"]


def open_predictions(folder: Path, sequence: str, length: int, frames: int, *, alone: bool) -> StoredPredictions:
    """Find a method's predictions for a sequence.

    Args:
        folder: of the method.
        sequence: name of the sequence in the table.
        length: of the sequence, in frames.
        frames: how many are evaluated, from the first; there must be predictions for these or for all frames.
        alone: there is no other sequence, so the files may lie directly in ``folder``.

    Raises:
        DataError: there are no predictions, or not one for each frame.
    """
    names = dict.fromkeys((sequence.replace(":", "_"), sequence.replace("/", "_").replace(":", "_")))
    places = [folder / name for name in names] + [folder] * alone
    for place in (inner for outer in places for inner in (outer, outer / "depth")):
        files = numbered_files(place, DEPTH_SUFFIXES)
        if files:
            return StoredPredictions(_checked(place, files, sequence, length, frames)[:frames])
    raise DataError(
        f"{folder}: no predictions for {sequence}; expected .npy or .png files, one for each of its {length} frames, "
        f"in {' or '.join(str(place) for place in places)}"
    )


def _checked(place: Path, files: dict[int, Path], sequence: str, length: int, frames: int) -> list[Path]:
    kinds = {path.suffix.lower() for path in files.values()}
    if len(kinds) > 1:
        raise DataError(f"{place}: the predictions are {' and '.join(sorted(kinds))} files; keep only one kind")
    numbers = sorted(files)
    if len(numbers) not in (length, frames):
        gap = next((first for first, second in pairwise(numbers) if second - first > 1), None)
        hint = f"the last is {files[numbers[-1]]}" if gap is None else f"the number after {files[gap]} is missing"
        raise DataError(
            f"{place}: {len(numbers)} predictions, expected {length}, one for each frame of {sequence}; {hint}"
        )
    return [files[number] for number in numbers]
