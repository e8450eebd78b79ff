"""ARKitScenes: colour and LiDAR depth of iPads, with depth of a laser scanner for some frames.

Layout (https://github.com/apple/ARKitScenes: DATA.md, raw/README.md, depth_upsampling/README.md); files are named
VIDEO_TIMESTAMP.png, in seconds:

    <video>/wide/                  1920x1440, the frames that have highres_depth; color/ in the upsampling set
    <video>/vga_wide/              640x480, 30 per second
    <video>/lowres_wide/           256x192, 60 per second
    <video>/<colour>_intrinsics/   VIDEO_TIMESTAMP.pincam: width height fx fy cx cy
    <video>/lowres_depth/          256x192, millimetres, 60 per second
    <video>/confidence/            of lowres_depth: 0, 1 or 2
    <video>/highres_depth/         1920x1440, millimetres, from the laser scanner

Streams are paired by nearest time stamps; not every stream has every stamp."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from stdnet_core.data.file_sequence import DEFAULT_RULES, DepthRules, add_sequence, intrinsic_matrix
from stdnet_core.data.frame_files import Findings, FrameFiles, find_folders, sequence_name
from stdnet_core.data.image_files import what_is_wrong
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.stamp_matching import match_nearest
from stdnet_core.errors import DataError

COLORS = ("wide", "color", "vga_wide", "lowres_wide")
"""Folders of colour, all of one camera; the first two have the size of the ground truth."""
_SIZE_OF_TRUTH = ("wide", "color")
_STAMP = re.compile(r"(?:^|_)(\d+\.\d+)$")
_MAX_DIFFERENCE_S = 1 / 60
_SAME_S = 0.002
_VIDEO_GAP_S = 0.5


def is_arkitscenes_folder(names: set[str]) -> bool:
    """Whether these are the entries of a video of ARKitScenes."""
    return "lowres_depth" in names and bool(names & set(COLORS))


def open_arkitscenes(
    root: Path, findings: Findings, rules: DepthRules = DEFAULT_RULES, color: str | None = None
) -> list[RgbdSequence]:
    """All videos of ARKitScenes at or below ``root``.

    Args:
        root: a video's folder or one above.
        findings: receives what is missing or damaged.
        rules: how depth is interpreted.
        color: folder of colour to use; by default the one with ground truth if there is one, else vga_wide, wide,
            color or lowres_wide.

    Raises:
        DataError: there is a problem and ``findings`` does not skip, or there is no such colour folder.
    """
    if color is not None and color not in COLORS:
        raise DataError(f"color is {color!r}; ARKitScenes has {', '.join(COLORS)}")
    sequences: list[RgbdSequence] = []
    for folder in find_folders(root, is_arkitscenes_folder):
        name = sequence_name(folder, root)
        chosen = _color_folder(folder) if color is None else color
        colors, lows, truths = (_stamped(folder / kind) for kind in (chosen, "lowres_depth", "highres_depth"))
        confidences = _stamped(folder / "confidence")
        if confidences:  # depth images without confidence are not used
            lows = [lows[i] for i, _ in match_nearest(_stamps(lows), _stamps(confidences), _SAME_S)]
        pairs = match_nearest(_stamps(colors), _stamps(lows), _MAX_DIFFERENCE_S)
        if not pairs:
            findings.report(
                f"{folder}: no frames of {chosen}/ within {1e3 * _MAX_DIFFERENCE_S:.0f} ms of lowres_depth/"
            )
            continue
        truth_of = {}
        if chosen in _SIZE_OF_TRUTH:
            truth_of = {i: truths[j][1] for i, j in match_nearest(_stamps(colors), _stamps(truths), _SAME_S)}
        confidence_of = {i: confidences[j][1] for i, j in match_nearest(_stamps(lows), _stamps(confidences), _SAME_S)}
        frames = []
        for i, j in pairs:
            (stamp, image), (_, low) = colors[i], lows[j]
            truth, confidence = truth_of.get(i), confidence_of.get(j)
            files = [path for path in (image, low, truth, confidence) if path is not None]
            wrong = next((f"{path} {what}" for path in files if (what := what_is_wrong(path))), None)
            if wrong:
                findings.report(wrong)
            elif truth_of:
                frames.append(FrameFiles(image, truth, low, stamp=stamp, confidence=confidence))
            else:
                frames.append(FrameFiles(image, low, stamp=stamp, confidence=confidence))
        try:
            camera, size = _camera(folder, chosen, colors[pairs[0][0]][0])
        except DataError as error:
            findings.report(str(error))
            continue
        notes = _notes(name, chosen, len(colors), frames, bool(confidences), rules)
        add_sequence(
            sequences, findings, name, frames, intrinsics=camera, intrinsics_size=size, rules=rules, notes=notes
        )
    return sequences


def _color_folder(folder: Path) -> str:
    there = [kind for kind in ("vga_wide", "wide", "color", "lowres_wide") if (folder / kind).is_dir()]
    with_truth = [kind for kind in there if kind in _SIZE_OF_TRUTH and (folder / "highres_depth").is_dir()]
    return (with_truth or there)[0]


def _notes(
    name: str, color: str, count: int, frames: Sequence[FrameFiles], confident: bool, rules: DepthRules
) -> list[str]:
    notes = []
    if confident and rules.min_confidence > 0:
        notes.append(rules.confidence_note())
    if count > len(frames):
        notes.append(f"{name}: {len(frames)} of {count} frames of {color}/ have depth; the others are left out")
    if any(files.depth_lr for files in frames):
        truths = sum(files.depth is not None for files in frames)
        notes.append(f"{name}: {truths} of {len(frames)} frames of {color}/ have ground truth in highres_depth/")
    gap = float(np.median(np.diff([files.stamp for files in frames]))) if len(frames) > 1 else 0.0
    if gap > _VIDEO_GAP_S:
        notes.append(
            f"{name}: frames of {color}/ are {gap:.1f} s apart, too far for a video; ?color=vga_wide is one, but "
            "without ground truth"
        )
    return notes


def _stamped(folder: Path, suffix: str = ".png") -> list[tuple[float, Path]]:
    """(seconds, file) of each file in a folder in order of time; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    found = ((_STAMP.search(path.stem), path) for path in folder.iterdir() if path.suffix == suffix)
    return sorted((float(match[1]), path) for match, path in found if match)


def _stamps(files: Sequence[tuple[float, Path]]) -> list[float]:
    return [stamp for stamp, _ in files]


def _camera(folder: Path, color: str, stamp: float) -> tuple[Tensor | None, tuple[int, int] | None]:
    """Camera matrix nearest in time, and the (H, W) it belongs to: of the chosen colour folder, else of another one."""
    names = dict.fromkeys(["wide" if color == "color" else color, "wide", "vga_wide", "lowres_wide"])
    for name in names:
        files = _stamped(folder / f"{name}_intrinsics", ".pincam")
        if files:
            _, path = min(files, key=lambda file: abs(file[0] - stamp))
            try:
                width, height, *values = (float(word) for word in path.read_text("utf-8").split())
                if len(values) != 4 or min(width, height, *values) <= 0:
                    raise ValueError
            except (ValueError, UnicodeDecodeError):
                raise DataError(f"{path}: expected width, height, fx, fy, cx, cy in pixels") from None
            return intrinsic_matrix(*values), (int(height), int(width))
    return None, None
