"""Finds the files of a sequence's frames below a folder: by suffix and number, in runs without gaps, by split."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stdnet_core.data.color_video import VideoFrame
from stdnet_core.data.image_files import what_is_wrong
from stdnet_core.errors import DataError

_STAMP = re.compile(r"(\d+)\.(\d{1,9})")  # seconds and their decimals
_STAMP_PARTS = re.compile(r"(?<!\d)(\d{10})[._-](\d{9})(?!\d)")  # seconds and nanoseconds
_NUMBER_LIMIT = 10**20
"""Numbers in names are smaller: those of 64 bits have at most 20 digits."""
FIRST_STAMP = 10**8
"""From this value on, a file's number is a time in seconds, milliseconds, microseconds or nanoseconds."""


class Findings:
    """Problems found when opening a source: raised at once, or collected if the user wants to skip them.

    Args:
        skip_bad: collect problems in :attr:`left_out` instead of raising them.
    """

    def __init__(self, skip_bad: bool = False) -> None:
        self.skip_bad = skip_bad
        self.left_out: list[str] = []

    def report(self, problem: str) -> None:
        """Report something that has to be left out.

        Raises:
            DataError: unless ``skip_bad``.
        """
        if not self.skip_bad:
            raise DataError(f"{problem} (complete it, or leave it out: --skip-bad, in training data.skip_bad=true)")
        self.left_out.append(problem)


@dataclass(frozen=True)
class FrameFiles:
    """The files of one frame.

    Attributes:
        color: colour image, or the frame of a video.
        depth: high-resolution depth, or None.
        depth_lr: low-resolution depth, or None.
        flow: optical flow to the next frame, or None.
        stamp: seconds, or None.
        confidence: of the low-resolution depth, or of the depth if that is absent; or None.
    """

    color: Path | VideoFrame
    depth: Path | None = None
    depth_lr: Path | None = None
    flow: Path | None = None
    stamp: float | None = None
    confidence: Path | None = None


def find_folders(root: Path, is_sequence: Callable[[set[str]], bool], max_depth: int = 6) -> Iterator[Path]:
    """Folders at or below ``root`` whose entries' names satisfy ``is_sequence``, in sorted order."""
    with os.scandir(root) as entries:
        names = {entry.name: entry.is_dir() for entry in entries}
    if is_sequence(set(names)):
        yield root
    elif max_depth > 0:
        for name in sorted(name for name, is_folder in names.items() if is_folder and not name.startswith(".")):
            yield from find_folders(root / name, is_sequence, max_depth - 1)


def numbered_files(folder: Path, suffixes: Sequence[str], number: str | None = None) -> dict[int, Path]:
    """Files of a folder by their number.

    Args:
        folder: may be absent; it then has no files.
        suffixes: lower-case file suffixes to consider.
        number: pattern searched in the name without its last suffix; its group is the number. By default, the number
            that differs between the files' names, wherever it stands; several are combined, as in a date. Names like
            1560244315.996871, 0.033000 and 1560244315_996871000 are stamps, whose number is in nanoseconds.

    Raises:
        DataError: two files have the same number.
    """
    if not folder.is_dir():
        return {}
    paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    stems = [path.stem for path in paths]
    numbers = _telling_numbers(stems) if number is None else [_searched(number, stem) for stem in stems]
    found: dict[int, Path] = {}
    for value, path in zip(numbers, paths, strict=True):
        if value in found:
            raise DataError(f"{folder}: {found[value].name} and {path.name} are of the same frame; keep one of them")
        if value is not None:
            found[value] = path
    return found


def _searched(pattern: str, stem: str) -> int | None:
    match = re.search(pattern, stem)
    return int(match.group(1)) if match else None


def _telling_numbers(stems: Sequence[str]) -> list[int | None]:
    """The frame number in each name, None without one."""
    numbers = [re.findall(r"\d+", stem) for stem in stems]
    columns = list(zip(*numbers, strict=True)) if len({len(found) for found in numbers}) == 1 else []
    differing = [k for k, column in enumerate(columns) if len(set(column)) > 1]
    told: list[int | None] = []
    for stem, found in zip(stems, numbers, strict=True):
        stamp = _STAMP.fullmatch(stem) or _STAMP_PARTS.search(stem)
        if stamp:
            told.append(int(stamp[1] + stamp[2].ljust(9, "0")))
        elif found:
            value = 0
            for text in [found[k] for k in differing] or found[-1:]:
                value = value * _NUMBER_LIMIT + int(text)
            told.append(value)
        else:
            told.append(None)
    return told


def complete_runs(
    place: Path, kinds: Mapping[str, Mapping[int, Path]], findings: Findings, *, counted: bool = True
) -> list[list[int]]:
    """Numbers of the frames that have every kind of file, in runs without a gap.

    Args:
        place: the sequence's folder, for messages.
        kinds: files by number for each kind of file that a frame needs, such as colour and depth.
        findings: receives what is missing, truncated or inconsistent.
        counted: numbers count frames, so that a missing number is a missing frame. Otherwise numbers give only the
            order, as stamps always do.

    Returns:
        One run for an intact sequence. If bad frames were left out and frames are counted, several runs, each of at
        least two frames.

    Raises:
        DataError: there is a problem and ``findings`` does not skip.
    """
    for kind, files in kinds.items():
        if not files:
            findings.report(f"{place}: no {kind} files")
            return []
    numbers = sorted(set().union(*kinds.values()))
    counted = counted and numbers[0] < FIRST_STAMP
    expected = range(numbers[0], numbers[-1] + 1) if counted else numbers
    bad: dict[int, str] = {}
    for number in sorted(set(expected) | set(numbers)):
        for kind, files in kinds.items():
            wrong = what_is_wrong(files[number]) if number in files else "is missing"
            if wrong:
                what = str(files[number]) if number in files else f"{kind} of frame {number}"
                bad.setdefault(number, f"{what} {wrong}")
    if bad:
        counts = ", ".join(f"{len(files)} {kind}" for kind, files in kinds.items())
        first = next(iter(bad.values()))
        more = f", and {len(bad) - 1} more frames are incomplete" if len(bad) > 1 else ""
        findings.report(
            f"{place}: expected {len(expected)} complete frames ({numbers[0]} to {numbers[-1]}), found {counts} "
            f"files; {first}{more}"
        )
    runs: list[list[int]] = []
    for number in numbers:
        if number in bad:
            continue
        if runs and (not counted or number - runs[-1][-1] == 1):
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs if not bad else [run for run in runs if len(run) > 1]


def folders_of_split(
    root: Path,
    split: str,
    wanted: Mapping[str, int],
    place_of: Callable[[str], Path | None],
    count_frames: Callable[[Path], int],
    findings: Findings,
) -> list[Path]:
    """Folders of a published split, in its order.

    Args:
        root: for messages.
        split: its name, for messages.
        wanted: number of frames of each sequence by its name.
        place_of: returns the folder of a sequence, None if it is missing.
        count_frames: returns the number of frames in a folder; a difference from ``wanted`` is logged.
        findings: receives missing sequences.
    """
    chosen = []
    for name, frames in wanted.items():
        folder = place_of(name)
        if folder is None:
            findings.report(f"{root}: no {name} ({frames} frames) of the {split} split")
            continue
        found = count_frames(folder)
        if found != frames:
            logging.getLogger(__name__).warning("%s has %d frames; the paper's has %d", folder, found, frames)
        chosen.append(folder)
    return chosen


def sequence_name(folder: Path, root: Path) -> str:
    """The name of the sequence in a folder at or below ``root``: its path relative to ``root``."""
    return folder.resolve().name if folder == root else folder.relative_to(root).as_posix()


def run_names(name: str, runs: Sequence[Sequence[int]]) -> list[str]:
    """A name for each run: the sequence's own if there is only one run, otherwise with the frame numbers added."""
    if len(runs) == 1:
        return [name]
    return [f"{name}[{run[0]}-{run[-1]}]" for run in runs]
