"""Recordings of phones with a depth camera: Stray Scanner, Record3D's export and the iPhone part of ScanNet++.

Stray Scanner (https://github.com/strayrobots/scanner/blob/main/docs/format.md):

    rgb.mp4                       one frame for each depth image
    depth/000000.png              256x192, millimetres; or .npy
    confidence/000000.png         of that depth: 0, 1 or 2
    camera_matrix.csv             3x3, for the video's resolution
    odometry.csv                  one line per frame with its time stamp

Record3D, exported as "EXR + JPG sequence" (https://record3d.app; layout as nerfstudio reads it):

    rgb/0.jpg, depth/0.exr        depth in metres
    metadata.json                 K (3x3, column by column) for w x h pixels, frameTimestamps or fps

ScanNet++ (https://github.com/scannetpp/scannetpp; rgb/ and depth/ as its prepare_iphone_data writes them):

    iphone/rgb.mkv                or rgb/frame_000000.jpg
    iphone/depth/frame_000000.png 256x192, millimetres
    iphone/pose_intrinsic_imu.json"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stdnet_core.data.color_video import VIDEO_SUFFIXES, ColorVideo, VideoFrame
from stdnet_core.data.file_sequence import DEFAULT_RULES, DepthRules, add_sequence
from stdnet_core.data.frame_files import (
    Findings,
    FrameFiles,
    complete_runs,
    find_folders,
    numbered_files,
    run_names,
    sequence_name,
)
from stdnet_core.data.image_files import COLOR_SUFFIXES, CONFIDENCE_SUFFIXES, DEPTH_SUFFIXES
from stdnet_core.data.rgbd_folder import read_intrinsics
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import DataError

_VIDEOS = tuple(f"rgb{suffix}" for suffix in VIDEO_SUFFIXES)
_COLOR = {"rgb", *_VIDEOS}
_METADATA = "metadata.json"
_POSES = "pose_intrinsic_imu.json"
R3D_REMEDY = (
    "depth in a .r3d file is compressed by LZFSE; share it from Record3D as 'EXR + JPG sequence' and open that folder"
)


def is_stray_folder(names: set[str]) -> bool:
    """Whether these are the entries of a recording of Stray Scanner."""
    return bool(names & set(_VIDEOS)) and "depth" in names and bool(names & {"camera_matrix.csv", "odometry.csv"})


def is_record3d_folder(names: set[str]) -> bool:
    """Whether these may be the entries of a Record3D recording, exported or not."""
    return ({_METADATA, "depth"} <= names and bool(names & _COLOR)) or {"metadata", "rgbd"} <= names


def told_as_record3d(folder: Path) -> bool:
    """Whether the metadata in a folder are those of Record3D."""
    try:
        return (folder / "rgbd").is_dir() or "K" in _read_json(folder / _METADATA)
    except DataError:
        return False


def is_scannetpp_folder(names: set[str]) -> bool:
    """Whether these are the entries of the iPhone part of a scene of ScanNet++."""
    return _POSES in names and bool(names & {"depth", "depth.bin"})


def open_stray(root: Path, findings: Findings, rules: DepthRules = DEFAULT_RULES) -> list[RgbdSequence]:
    """All recordings of Stray Scanner at or below ``root``."""
    sequences: list[RgbdSequence] = []
    for folder in find_folders(root, is_stray_folder):
        try:
            intrinsics = read_intrinsics(folder / "camera_matrix.csv")
            stamps = _odometry_stamps(folder / "odometry.csv")
        except DataError as error:
            findings.report(str(error))
            continue
        name = sequence_name(folder, root)
        sequences += _recording(folder, name, findings, rules, intrinsics=intrinsics, stamps=stamps)
    return sequences


def open_record3d(root: Path, findings: Findings, rules: DepthRules = DEFAULT_RULES) -> list[RgbdSequence]:
    """All exported recordings of Record3D at or below ``root``."""
    sequences: list[RgbdSequence] = []
    for folder in find_folders(root, is_record3d_folder):
        if (folder / "rgbd").is_dir():
            findings.report(f"{folder}: {R3D_REMEDY}")
            continue
        path = folder / _METADATA
        try:
            metadata = _read_json(path)
            intrinsics, size = _record3d_camera(metadata, path)
            stamps = _record3d_stamps(metadata, path)
        except DataError as error:
            findings.report(str(error))
            continue
        name = sequence_name(folder, root)
        sequences += _recording(
            folder, name, findings, rules, intrinsics=intrinsics, intrinsics_size=size, stamps=stamps
        )
    return sequences


def open_scannetpp(root: Path, findings: Findings, rules: DepthRules = DEFAULT_RULES) -> list[RgbdSequence]:
    """The iPhone recordings of all scenes of ScanNet++ at or below ``root``."""
    sequences: list[RgbdSequence] = []
    for folder in find_folders(root, is_scannetpp_folder):
        if not (folder / "depth").is_dir():
            findings.report(
                f"{folder / 'depth'}: no such folder; write it from depth.bin with iphone/prepare_iphone_data.py of "
                "the ScanNet++ toolbox (extract_depth)"
            )
            continue
        try:
            intrinsics, stamps = _scannetpp_frames(folder / _POSES)
        except DataError as error:
            findings.report(str(error))
            continue
        name = sequence_name(folder, root).removesuffix("/iphone")
        if name == "iphone":
            name = folder.resolve().parent.name
        sequences += _recording(folder, name, findings, rules, intrinsics=intrinsics, stamps=stamps, color_of_some=True)
    return sequences


def _recording(
    folder: Path,
    name: str,
    findings: Findings,
    rules: DepthRules,
    *,
    intrinsics: Tensor | None,
    stamps: Mapping[int, float],
    intrinsics_size: tuple[int, int] | None = None,
    color_of_some: bool = False,
) -> list[RgbdSequence]:
    """The recording in a folder: colour in rgb/ or a video named rgb, depth/ and optionally confidence/.

    Args:
        folder: the folder.
        name: of the sequence.
        findings: receives what is missing or damaged.
        rules: how depth is interpreted.
        intrinsics, intrinsics_size: see :class:`stdnet_core.data.file_sequence.FileSequence`.
        stamps: seconds by frame number.
        color_of_some: colour images may have been extracted for only some of the frames.
    """
    depths = numbered_files(folder / "depth", DEPTH_SUFFIXES)
    confidences = numbered_files(folder / "confidence", CONFIDENCE_SUFFIXES)
    images = numbered_files(folder / "rgb", COLOR_SUFFIXES)
    notes = []
    if confidences and rules.min_confidence > 0:
        notes.append(rules.confidence_note())
    kinds = {"depth": depths}
    if confidences:
        kinds["confidence"] = confidences
    if images:
        kinds["colour"] = images
        if color_of_some:
            if len(depths) > len(images):
                notes.append(
                    f"{name}: {len(images)} of {len(depths)} frames have colour in rgb/; the others are left out"
                )
            kinds = {kind: {n: path for n, path in files.items() if n in images} for kind, files in kinds.items()}
    try:
        video = None if images else _video(folder)
    except DataError as error:
        findings.report(str(error))
        return []
    runs = complete_runs(folder, kinds, findings, counted=False)
    if video is not None and runs:
        runs = [_frames_in(video, numbers, findings) for numbers in runs]
        frames = sum(len(numbers) for numbers in runs)
        if video.length > frames:
            notes.append(f"{name}: {video.path.name} has {video.length} frames; only the {frames} with depth are used")
    sequences: list[RgbdSequence] = []
    for run_name, run in zip(run_names(name, runs), runs, strict=True):
        files = [
            FrameFiles(
                images[n] if video is None else VideoFrame(video, n),
                depths[n],
                stamp=stamps.get(n),
                confidence=confidences.get(n),
            )
            for n in run
        ]
        add_sequence(
            sequences,
            findings,
            run_name,
            files,
            intrinsics=intrinsics,
            intrinsics_size=intrinsics_size,
            rules=rules,
            notes=notes,
        )
    return sequences


def _video(folder: Path) -> ColorVideo:
    path = next((folder / name for name in _VIDEOS if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder}: no colour; expected images in rgb/ or a video such as {_VIDEOS[0]}")
    return ColorVideo(path)


def _frames_in(video: ColorVideo, numbers: Sequence[int], findings: Findings) -> list[int]:
    """The frame numbers that the video has; reports if some are missing."""
    found = video.count(numbers[-1] + 1)
    if found <= numbers[-1]:
        findings.report(
            f"{video.path}: it has {found} frames, but depth continues to frame {numbers[-1]}; copy the recording again"
        )
    return [number for number in numbers if number < found]


def _odometry_stamps(path: Path) -> dict[int, float]:
    """Stamps in seconds from odometry.csv; empty without the file, or if the app's version wrote no stamps."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        if not rows or "timestamp" not in rows[0]:
            return {}
        return {int(row.get("frame") or number): float(row["timestamp"]) for number, row in enumerate(rows)}
    except (ValueError, TypeError, csv.Error):
        raise DataError(
            f"{path}: expected a header and lines with timestamp and frame, as Stray Scanner writes them; if the "
            "file is removed, frames have no stamps"
        ) from None


def _record3d_camera(metadata: Mapping[str, Any], path: Path) -> tuple[Tensor, tuple[int, int]]:
    try:
        k = np.array(metadata["K"], dtype=np.float32).reshape(3, 3)
        size = int(metadata["h"]), int(metadata["w"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: expected K of 9 numbers, w and h, as Record3D exports them") from None
    if not k[:2, 2].any():  # column by column
        k = k.T.copy()
    if not (np.isfinite(k).all() and k[0, 0] > 0 and k[1, 1] > 0 and min(size) > 0):
        raise DataError(f"{path}: K, w and h must be positive numbers, found {metadata['K']}, {size[1]}, {size[0]}")
    return torch.from_numpy(k), size


def _record3d_stamps(metadata: Mapping[str, Any], path: Path) -> dict[int, float]:
    try:
        if metadata.get("frameTimestamps"):
            return {number: float(stamp) for number, stamp in enumerate(metadata["frameTimestamps"])}
        fps = float(metadata.get("fps") or 0)
        frames = len(metadata.get("poses") or ())
        return {number: number / fps for number in range(frames)} if fps > 0 else {}
    except (TypeError, ValueError):
        raise DataError(f"{path}: expected numbers in frameTimestamps and fps, as Record3D exports them") from None


def _scannetpp_frames(path: Path) -> tuple[Tensor, dict[int, float]]:
    """Camera matrix of the first frame, and stamps in seconds by frame number if there are any."""
    frames = _read_json(path)
    try:
        numbered = sorted((int(name.rpartition("_")[2]), values) for name, values in frames.items())
        matrix = torch.tensor(numbered[0][1]["intrinsic"], dtype=torch.float32).reshape(3, 3)
        stamps = {number: float(values["timestamp"]) for number, values in numbered if "timestamp" in values}
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError):
        raise DataError(f"{path}: expected frame_000000 and so on, each with intrinsic (3x3)") from None
    return matrix, stamps


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; export or download the recording again") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict):
        raise DataError(f"{path}: no JSON object; export or download the recording again")
    return values
