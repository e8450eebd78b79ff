"""DyDToF (Sun et al., CVPR 2023), dynamic scenes for tests, in its published layouts.

    <scene>/<shot>/color/<shot>.0000.jpeg
                   depth/<shot>.0000.npy          float32 metres

or, with low-resolution depth beside it,

    DyDToF_HR_RGB/<scene>/<shot>/{color,depth}
    DyDToF_LR/X8/<scene>/<shot>/depth
"""

from __future__ import annotations

import re
from pathlib import Path

from stdnet_core.data.file_sequence import (
    FileSequence,
    Findings,
    FrameFiles,
    complete_runs,
    find_folders,
    folders_of_split,
    numbered_files,
    run_names,
)
from stdnet_core.data.image_files import COLOR_SUFFIXES, DEPTH_SUFFIXES, read_depth
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import DataError

DEPTH_RANGE_M = 40.0
"""Normaliser of the paper's models for this set; depth is clipped to it."""

SPLITS: dict[str, dict[str, int]] = {"test": {"school/school_shot2": 336, "school/school_shot8": 240}}
"""The paper's test split: shots and their numbers of frames."""

_HR_FOLDER, _LR_FOLDER = "DyDToF_HR_RGB", "DyDToF_LR"
_FRAME_NAME = re.compile(r"(?!\d+\.).+\.\d{4,}\.(jpeg|jpg|png)$")  # 1560244315.996871.png is a stamp


def is_dydtof_folder(folder: Path) -> bool:
    """Whether ``folder`` holds a shot of DyDToF, told by how its colour frames are named."""
    color = folder / "color"
    if not color.is_dir() or not (folder / "depth").is_dir():
        return False
    return any(_FRAME_NAME.match(path.name) for path in color.iterdir())


def open_dydtof(
    root: Path, findings: Findings, split: str | None = None, lr_scale: int | None = None
) -> list[RgbdSequence]:
    """The shots at or below ``root``.

    Args:
        root: any folder of the tree; with ``lr_scale`` the one above DyDToF_HR_RGB and DyDToF_LR, or DyDToF_HR_RGB
            or a folder in it.
        findings: takes shots that are missing or incomplete.
        split: ``test`` of the paper; None for all there are.
        lr_scale: take low-resolution depth from ``DyDToF_LR/X<lr_scale>``.

    Raises:
        DataError: the split or the low-resolution tree does not exist, or something is wrong and ``findings`` does
            not skip.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"DyDToF has no split {split!r} in the paper; it has test, or none for everything")
    folders = list(find_folders(root, lambda names: {"color", "depth"} <= names))
    if split is not None:
        by_name = {"/".join(folder.resolve().parts[-2:]): folder for folder in folders}
        folders = folders_of_split(
            root,
            split,
            SPLITS[split],
            by_name.get,
            lambda folder: len(numbered_files(folder / "color", COLOR_SUFFIXES)),
            findings,
        )
    lr_root = None if lr_scale is None else _lr_root(root, lr_scale)
    sequences: list[RgbdSequence] = []
    for folder in folders:
        scene, shot = folder.resolve().parts[-2:]
        colors = numbered_files(folder / "color", COLOR_SUFFIXES)
        depths = numbered_files(folder / "depth", (".npy",))
        kinds = {"colour": colors, "depth": depths}
        lows: dict[int, Path] = {}
        if lr_root is not None:
            lows = numbered_files(lr_root / scene / shot / "depth", DEPTH_SUFFIXES)
            kinds[f"{lr_root.name} depth"] = lows
        runs = complete_runs(folder, kinds, findings)
        for name, run in zip(run_names(f"{scene}/{shot}", runs), runs, strict=True):
            frames = [FrameFiles(colors[n], depths[n], lows.get(n)) for n in run]
            try:
                sequences.append(FileSequence(name, frames, depth_reader=read_depth))
            except DataError as error:
                findings.report(str(error))
    return sequences


def _lr_root(root: Path, lr_scale: int) -> Path:
    """The folder ``DyDToF_LR/X<lr_scale>`` that belongs to ``root``."""
    above = [root, *root.resolve().parents]
    place = next((folder.parent for folder in above if folder.name == _HR_FOLDER), root)
    lr_root = place / _LR_FOLDER / f"X{lr_scale}"
    if not lr_root.is_dir():
        there = sorted(path.name for path in lr_root.parent.glob("X*"))
        raise DataError(
            f"{lr_root}: no such folder; expected low-resolution depth for x{lr_scale} there"
            + (f" (there is {', '.join(there)})" if there else "")
        )
    return lr_root
