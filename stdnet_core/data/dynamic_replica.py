"""DynamicReplica (Karaev et al., CVPR 2023), a test set of the paper, in its published layout.

    <split>/<sequence>/images/<sequence>-0000.png
                       depths/<sequence>_0000.geometric.png     16-bit PNG holding the bits of float16 metres
    <split>/frame_annotations_<split>.jgz                        gzipped JSON: cameras and times; optional

The paper's test split is one sequence, cropped to the central 640x480 pixels. Low-resolution depth may lie beside it,
see low_resolution.py; for the test split, it belongs to the cropped frames."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

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
from stdnet_core.data.image_files import read_half_depth
from stdnet_core.data.low_resolution import LowResolutionTree, WithLowResolution
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import DataError

SPLITS: dict[str, dict[str, int]] = {"test": {"029beb-3_obj_source_left": 500}}
"""The paper's test split: sequence and its number of frames."""

CENTER_CROP = (480, 640)
"""(H, W) of the part of each frame that the paper's test split uses."""

LOW_RESOLUTION = LowResolutionTree("DynamicReplica_LR", lambda sequence: Path(sequence.resolve().name, "depths"))

Annotations = dict[tuple[str, int], Mapping[str, Any]]
"""Frame annotations by the folder of the sequence and the number of the frame."""


def is_dynamic_replica_folder(names: set[str]) -> bool:
    """Whether these are the entries of a DynamicReplica sequence."""
    return {"images", "depths"} <= names


def open_dynamic_replica(
    root: Path,
    findings: Findings,
    split: str | None = None,
    lr_scale: float | None = None,
    lr_folder: Path | None = None,
) -> list[RgbdSequence]:
    """The sequences at or below ``root``.

    Args:
        root: any folder of the tree.
        findings: receives sequences that are missing or incomplete.
        split: ``test`` of the paper, centre-cropped; None: all sequences, uncropped.
        lr_scale: read low-resolution depth from ``DynamicReplica_LR/X<lr_scale>``.
        lr_folder: the folder that contains ``DynamicReplica_LR``; None: at or above ``root``.

    Raises:
        DataError: the split is unknown, the low-resolution tree does not exist, or there is a problem and ``findings``
            does not skip.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"DynamicReplica has no split {split!r} in the paper; it has test, or none for everything")
    folders = list(find_folders(root, is_dynamic_replica_folder))
    if split is not None:
        by_name = {folder.resolve().name: folder for folder in folders}
        folders = folders_of_split(
            root,
            split,
            SPLITS[split],
            by_name.get,
            lambda folder: len(numbered_files(folder / "images", (".png", ".jpg"))),
            findings,
        )
    lr_root = None if lr_scale is None else LOW_RESOLUTION.find(root, lr_scale, lr_folder)
    loaded: dict[Path, Annotations] = {}
    sequences: list[RgbdSequence] = []
    for folder in folders:
        try:
            annotations = _annotations_beside(folder, loaded)
        except DataError as error:
            findings.report(str(error))
            continue
        colors = numbered_files(folder / "images", (".png", ".jpg"))
        depths = {
            number: path
            for number, path in numbered_files(folder / "depths", (".png",)).items()
            if path.name.endswith(".geometric.png")
        }
        kinds = {"colour": colors, "depth": depths}
        lows: dict[int, Path] = {}
        if lr_root is not None:
            lows = LOW_RESOLUTION.files(lr_root, folder)
            kinds[f"{lr_root.name} depth"] = lows
        runs = complete_runs(folder, kinds, findings)
        for name, run in zip(run_names(folder.resolve().name, runs), runs, strict=True):
            notes = [annotations.get((folder.resolve().name, n), {}) for n in run]
            frames = [
                FrameFiles(colors[n], depths[n], stamp=note.get("frame_timestamp"))
                for n, note in zip(run, notes, strict=True)
            ]
            try:
                sequence = FileSequence(
                    name,
                    frames,
                    intrinsics=_intrinsics(notes[0]),
                    depth_reader=read_half_depth,
                    center_crop=CENTER_CROP if split is not None else None,
                )
                sequences.append(WithLowResolution(sequence, [lows[n] for n in run]) if lows else sequence)
            except DataError as error:
                findings.report(str(error))
    return sequences


def _annotations_beside(folder: Path, loaded: dict[Path, Annotations]) -> Annotations:
    """Annotations from one of the three folders above a sequence; empty if there are none."""
    for above in folder.resolve().parents[:3]:
        for path in sorted(above.glob("frame_annotations*.j*")):
            if path not in loaded:
                loaded[path] = _read_annotations(path)
            if any(name == folder.resolve().name for name, _ in loaded[path]):
                return loaded[path]
    return {}


def _read_annotations(path: Path) -> Annotations:
    """Read gzipped or plain JSON.

    Raises:
        DataError: it is damaged or has other fields.
    """
    try:
        data = path.read_bytes()
        entries = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        return {(Path(e["image"]["path"]).parent.parent.name, int(e["frame_number"])): e for e in entries}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no DynamicReplica frame annotations ({type(error).__name__}: {error})") from error


def _intrinsics(note: Mapping[str, Any]) -> Tensor | None:
    """Camera matrix in pixels from a frame's annotation; None without one.

    PyTorch3D's normalised coordinates point left and up from the image's centre, with pixel centres at x.5."""
    camera = note.get("viewpoint")
    if not camera:
        return None
    height, width = note["image"]["size"]
    half = (width / 2, height / 2)
    if str(camera.get("intrinsics_format", "")).lower() == "ndc_isotropic":
        unit = (min(half), min(half))
    else:
        unit = half
    focal, principal = camera["focal_length"], camera["principal_point"]
    return intrinsic_matrix(
        focal[0] * unit[0],
        focal[1] * unit[1],
        half[0] - principal[0] * unit[0] - 0.5,
        half[1] - principal[1] * unit[1] - 0.5,
    )
