"""TartanAir (Wang et al., IROS 2020), the paper's training set, in its published layout.

    <scene>/<Easy|Hard>/<Pxxx>/image_left/000000_left.png
                               depth_left/000000_left_depth.npy       float32 metres
                               flow/000000_000001_flow.npy            (H, W, 2), from the first frame to the second

A tree without the level is assumed to be the Hard one, which the paper uses. Low-resolution depth may lie beside it,
see low_resolution.py."""

from __future__ import annotations

import logging
from pathlib import Path

from stdnet_core.data.file_sequence import FileSequence, intrinsic_matrix
from stdnet_core.data.frame_files import (
    Findings,
    FrameFiles,
    complete_runs,
    find_folders,
    folders_of_split,
    numbered_files,
    run_names,
)
from stdnet_core.data.image_files import read_depth
from stdnet_core.data.low_resolution import LowResolutionTree, WithLowResolution
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import DataError

DEPTH_RANGE_M = 30.0
"""Normaliser of the paper's models for this set."""

CAMERA = (320.0, 320.0, 320.0, 240.0)
"""fx, fy, cx, cy of all its 640x480 frames."""

SPLITS: dict[str, dict[str, int]] = {
    "train": {
        "hospital/Hard/P039": 439,
        "hospital/Hard/P044": 576,
        "hospital/Hard/P048": 493,
        "office/Hard/P000": 767,
        "office/Hard/P004": 682,
        "office2/Hard/P000": 308,
        "office2/Hard/P002": 703,
        "office2/Hard/P006": 354,
        "office2/Hard/P010": 558,
        "carwelding/Hard/P000": 452,
        "carwelding/Hard/P001": 832,
    },
    "test": {"hospital/Hard/P047": 533, "office2/Hard/P001": 350, "office2/Hard/P004": 345},
}
"""The paper's splits: trajectories and their numbers of frames."""

LOW_RESOLUTION = LowResolutionTree(
    "TartanAir_LR", lambda trajectory: Path(*filter(None, _identity(trajectory)), "depth_left")
)

_LEVELS = ("Easy", "Hard")
_TOLD = 5  # names in a message


def is_tartanair_folder(names: set[str]) -> bool:
    """Whether these are the entries of a TartanAir trajectory."""
    return "image_left" in names


def open_tartanair(
    root: Path,
    findings: Findings,
    split: str | None = None,
    lr_scale: float | None = None,
    lr_folder: Path | None = None,
) -> list[RgbdSequence]:
    """The trajectories at or below ``root``.

    A bad trajectory that is in neither of the paper's splits is not an error; it is left out with a note.

    Args:
        root: any folder of the tree.
        findings: receives trajectories that are incomplete, or missing from the split.
        split: ``train`` or ``test`` of the paper, in its order; None: all trajectories.
        lr_scale: read low-resolution depth from ``TartanAir_LR/X<lr_scale>``.
        lr_folder: the folder that contains ``TartanAir_LR``; None: at or above ``root``.

    Raises:
        DataError: the split is unknown, the low-resolution tree does not exist, or there is a problem and ``findings``
            does not skip.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"TartanAir has no split {split!r}; it has {' and '.join(SPLITS)}, or none for everything")
    folders = list(find_folders(root, is_tartanair_folder))
    if split is not None:
        by_name = {"/".join(_identity(folder)): folder for folder in folders}
        folders = folders_of_split(
            root,
            split,
            SPLITS[split],
            lambda name: by_name.get(name) or by_name.get(name.replace("/Hard/", "//")),
            lambda folder: len(numbered_files(folder / "image_left", (".png", ".jpg"))),
            findings,
        )
        _tell_others(root, [name.replace("//", "/") for name, folder in by_name.items() if not _published(folder)])
    lr_root = None if lr_scale is None else LOW_RESOLUTION.find(root, lr_scale, lr_folder)
    sequences: list[RgbdSequence] = []
    others = Findings(skip_bad=True)
    for folder in folders:
        problems = findings if _published(folder) else others
        colors = numbered_files(folder / "image_left", (".png", ".jpg"))
        depths = numbered_files(folder / "depth_left", (".npy",))
        flows = numbered_files(folder / "flow", (".npy",), number=r"^(\d+)_\d+_flow$")
        kinds = {"colour": colors, "depth": depths}
        lows: dict[int, Path] = {}
        if lr_root is not None:
            lows = LOW_RESOLUTION.files(lr_root, folder)
            kinds[f"{lr_root.name} depth"] = lows
        runs = complete_runs(folder, kinds, problems)
        name = "/".join(part for part in _identity(folder) if part)
        for run_name, run in zip(run_names(name, runs), runs, strict=True):
            frames = [FrameFiles(colors[n], depths[n], flow=flows.get(n)) for n in run]
            try:
                camera = intrinsic_matrix(*CAMERA)
                sequence = FileSequence(run_name, frames, intrinsics=camera, depth_reader=read_depth)
                sequences.append(WithLowResolution(sequence, [lows[n] for n in run]) if lows else sequence)
            except DataError as error:
                problems.report(str(error))
    findings.left_out += others.left_out
    return sequences


def _published(folder: Path) -> bool:
    """Whether a trajectory is in one of the paper's splits."""
    scene, level, trajectory = _identity(folder)
    return any(f"{scene}/{level or 'Hard'}/{trajectory}" in split for split in SPLITS.values())


def _tell_others(root: Path, names: list[str]) -> None:
    """Warn of trajectories that are in neither of the paper's splits."""
    if names:
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        logging.getLogger(__name__).warning(
            "%s: left out, since they are in neither of the paper's splits: %s%s", root, ", ".join(names[:_TOLD]), more
        )


def _identity(folder: Path) -> tuple[str, str, str]:
    """(scene, level or "", trajectory) of a trajectory's folder."""
    folder = folder.resolve()
    level = folder.parent.name if folder.parent.name in _LEVELS else ""
    scene = folder.parent.parent if level else folder.parent
    return scene.name, level, folder.name
