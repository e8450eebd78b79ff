"""TartanAir (Wang et al., IROS 2020), the paper's training set, in its published layout.

    <scene>/<Easy|Hard>/<Pxxx>/image_left/000000_left.png
                               depth_left/000000_left_depth.npy       float32 metres
                               flow/000000_000001_flow.npy            (H, W, 2), from the first frame to the second

A tree without the level is taken for the Hard one, which the paper uses."""

from __future__ import annotations

from pathlib import Path

from stdnet_core.data.file_sequence import (
    FileSequence,
    Findings,
    FrameFiles,
    complete_runs,
    find_folders,
    folders_of_split,
    intrinsic_matrix,
    numbered_files,
    run_names,
)
from stdnet_core.data.image_files import read_depth
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

_LEVELS = ("Easy", "Hard")


def is_tartanair_folder(names: set[str]) -> bool:
    """Whether these are the entries of a TartanAir trajectory."""
    return "image_left" in names


def open_tartanair(root: Path, findings: Findings, split: str | None = None) -> list[RgbdSequence]:
    """The trajectories at or below ``root``.

    Args:
        root: any folder of the tree.
        findings: takes trajectories of the split that are missing and incomplete ones.
        split: ``train`` or ``test`` of the paper, in its order; None for all there are.

    Raises:
        DataError: the split is unknown, or something is wrong and ``findings`` does not skip.
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
    sequences: list[RgbdSequence] = []
    for folder in folders:
        colors = numbered_files(folder / "image_left", (".png", ".jpg"))
        depths = numbered_files(folder / "depth_left", (".npy",))
        flows = numbered_files(folder / "flow", (".npy",), number=r"^(\d+)_\d+_flow$")
        kinds = {"colour": colors, "depth": depths}
        runs = complete_runs(folder, kinds, findings)
        name = "/".join(part for part in _identity(folder) if part)
        for run_name, run in zip(run_names(name, runs), runs, strict=True):
            frames = [FrameFiles(colors[n], depths[n], flow=flows.get(n)) for n in run]
            try:
                camera = intrinsic_matrix(*CAMERA)
                sequences.append(FileSequence(run_name, frames, intrinsics=camera, depth_reader=read_depth))
            except DataError as error:
                findings.report(str(error))
    return sequences


def _identity(folder: Path) -> tuple[str, str, str]:
    """(scene, level or "", trajectory) of a trajectory's folder."""
    folder = folder.resolve()
    level = folder.parent.name if folder.parent.name in _LEVELS else ""
    scene = folder.parent.parent if level else folder.parent
    return scene.name, level, folder.name
