"""DyDToF (Sun et al., CVPR 2023), dynamic scenes for tests, in its published layouts.

    <scene>/<shot>/color/<shot>.0000.jpeg
                   depth/<shot>.0000.npy          float32 metres

or, with low-resolution depth beside it,

    DyDToF_HR_RGB/<scene>/<shot>/{color,depth}
    DyDToF_LR/X8/<scene>/<shot>/depth           see low_resolution.py
"""

from __future__ import annotations

import re
from pathlib import Path

from stdnet_core.data.file_sequence import FileSequence
from stdnet_core.data.frame_files import (
    Findings,
    FrameFiles,
    complete_runs,
    find_folders,
    folders_of_split,
    numbered_files,
    run_names,
)
from stdnet_core.data.image_files import COLOR_SUFFIXES, read_depth
from stdnet_core.data.low_resolution import LowResolutionTree, WithLowResolution
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import DataError

DEPTH_RANGE_M = 40.0
"""Normaliser of the paper's models for this set; depth is clipped to it."""

LOW_RESOLUTION_RANGE_M = 20.0
"""Range of the sensor in the release's low-resolution depth."""

SPLITS: dict[str, dict[str, int]] = {"test": {"school/school_shot2": 336, "school/school_shot8": 240}}
"""The paper's test split: shots and their numbers of frames."""

LOW_RESOLUTION = LowResolutionTree(
    "DyDToF_LR", lambda shot: Path(*shot.resolve().parts[-2:], "depth"), beside="DyDToF_HR_RGB"
)
_FRAME_NAME = re.compile(r"(?!\d+\.).+\.\d{4,}\.(jpeg|jpg|png)$")  # 1560244315.996871.png is a stamp


def is_dydtof_folder(folder: Path) -> bool:
    """Whether ``folder`` holds a shot of DyDToF, by the names of its colour frames."""
    color = folder / "color"
    if not color.is_dir() or not (folder / "depth").is_dir():
        return False
    return any(_FRAME_NAME.match(path.name) for path in color.iterdir())


def open_dydtof(
    root: Path,
    findings: Findings,
    split: str | None = None,
    lr_scale: float | None = None,
    lr_folder: Path | None = None,
) -> list[RgbdSequence]:
    """The shots at or below ``root``.

    Args:
        root: any folder of the tree; with ``lr_scale`` the one above DyDToF_HR_RGB and DyDToF_LR, or DyDToF_HR_RGB
            or a folder in it.
        findings: receives shots that are missing or incomplete.
        split: ``test`` of the paper; None: all shots.
        lr_scale: read low-resolution depth from ``DyDToF_LR/X<lr_scale>``.
        lr_folder: the folder that contains ``DyDToF_LR``; None: beside the data.

    Raises:
        DataError: the split or the low-resolution tree does not exist, or there is a problem and ``findings`` does
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
    lr_root = None if lr_scale is None else LOW_RESOLUTION.find(root, lr_scale, lr_folder)
    sequences: list[RgbdSequence] = []
    for folder in folders:
        scene, shot = folder.resolve().parts[-2:]
        colors = numbered_files(folder / "color", COLOR_SUFFIXES)
        depths = numbered_files(folder / "depth", (".npy",))
        kinds = {"colour": colors, "depth": depths}
        lows: dict[int, Path] = {}
        if lr_root is not None:
            lows = LOW_RESOLUTION.files(lr_root, folder)
            kinds[f"{lr_root.name} depth"] = lows
        runs = complete_runs(folder, kinds, findings)
        for name, run in zip(run_names(f"{scene}/{shot}", runs), runs, strict=True):
            frames = [FrameFiles(colors[n], depths[n]) for n in run]
            try:
                sequence = FileSequence(name, frames, depth_reader=read_depth)
                sequences.append(WithLowResolution(sequence, [lows[n] for n in run]) if lows else sequence)
            except DataError as error:
                findings.report(str(error))
    return sequences
