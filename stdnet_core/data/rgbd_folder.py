"""Folders of RGB-D frames: this project's own layout, TUM RGB-D and ScanNet.

Own layout, one folder per sequence:

    color/000000.jpg ...      or .png; or rgb/; numbers, or stamps such as 1700000000123456789
    depth/000000.png ...      16-bit, millimetres along the optical axis, 0 invalid; or .pgm, .tiff, .npy, or .exr;
                              floating-point numbers are metres; other units have to be specified
    intrinsics.txt            "fx fy cx cy" or a 3x3 matrix; optional
    depth_lr/000000.png ...   low-resolution depth of a real sensor; optional, and depth/ may then be absent
    flow/000000.npy ...       (H, W, 2) float32, pixels (x, y) from this frame to the next; optional
    stamps.txt                seconds, one line per frame; optional
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.file_sequence import DEFAULT_RULES, DepthRules, add_sequence, intrinsic_matrix
from stdnet_core.data.frame_files import (
    Findings,
    FrameFiles,
    complete_runs,
    find_folders,
    numbered_files,
    run_names,
    sequence_name,
)
from stdnet_core.data.image_files import COLOR_SUFFIXES, DEPTH_SUFFIXES, what_is_wrong
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.stamp_matching import match_nearest
from stdnet_core.depth_units import DepthUnits
from stdnet_core.errors import DataError

_ASSOCIATIONS = ("associations.txt", "association.txt", "associate.txt")
_LAST_SECOND = 1e11
_TUM_UNIT = 1 / 5000  # metres
_TUM_MAX_DIFFERENCE_S = 0.02
_TUM_CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_TUM_DEFAULT_CAMERA = (525.0, 525.0, 319.5, 239.5)


def is_own_folder(names: set[str]) -> bool:
    """Whether these are the entries of a sequence in this project's own layout."""
    return bool(names & {"color", "rgb"}) and bool(names & {"depth", "depth_lr"}) and "intrinsic" not in names


def is_tum_folder(names: set[str]) -> bool:
    """Whether these are the entries of a TUM RGB-D sequence."""
    return {"rgb", "depth"} <= names


def told_as_tum(folder: Path) -> bool:
    """Whether a folder with rgb/ and depth/ has TUM's lists, or the name of one of TUM's cameras in its own; otherwise
    its depth may as well be in millimetres."""
    listed = any((folder / name).is_file() for name in ("rgb.txt", "depth.txt"))
    return listed or any(camera in folder.name for camera in _TUM_CAMERAS)


def is_scannet_folder(names: set[str]) -> bool:
    """Whether these are the entries of a ScanNet scene as its exporter writes it."""
    return {"color", "depth", "intrinsic"} <= names


def open_folders(root: Path, findings: Findings, rules: DepthRules = DEFAULT_RULES) -> list[RgbdSequence]:
    """All sequences in this project's own layout at or below ``root``."""
    sequences: list[RgbdSequence] = []
    for folder in find_folders(root, is_own_folder):
        color = "color" if (folder / "color").is_dir() else "rgb"
        if color == "rgb" and told_as_tum(folder) and rules.units.unit is None:
            findings.report(
                f"{folder}: by its lists or name this is TUM RGB-D, with depth in 1/5000 m; open it as tum:{folder}, "
                "or specify the unit (--depth-unit)"
            )
            continue
        try:
            colors = numbered_files(folder / color, COLOR_SUFFIXES)
            depths = numbered_files(folder / "depth", DEPTH_SUFFIXES)
            lows = numbered_files(folder / "depth_lr", DEPTH_SUFFIXES)
            flows = numbered_files(folder / "flow", (".npy",))
            intrinsics = read_intrinsics(folder / "intrinsics.txt")
            stamps = _read_stamps(folder / "stamps.txt", sorted(colors))
        except DataError as error:
            findings.report(str(error))
            continue
        empty = [name for name, found in ((color, colors), ("depth", depths or lows)) if not found]
        if empty:
            findings.report(f"{folder / empty[0]}: {_what_is_there(folder / empty[0])}")
            continue
        kinds = {"colour": colors}
        if depths or not lows:
            kinds["depth"] = depths
        if lows:
            kinds["low-resolution depth"] = lows
        if not set(colors) & set(depths or lows):
            findings.report(
                f"{folder}: no colour and depth images have the same name; if they are named by stamps, in rgb/ and "
                f"depth/, pair them by nearest stamp with tum:{folder} (--depth-unit 0.001 for millimetres)"
            )
            continue
        notes = []
        if rules.units.unit is None and any((folder / name).is_file() for name in _ASSOCIATIONS):
            notes.append(
                f"{folder}: read as millimetres; depth with a list of associations is often in TUM's unit, 1/5000 m "
                "(ICL-NUIM, ORB-SLAM): --depth-unit 0.0002"
            )
        runs = complete_runs(folder, kinds, findings, counted=False)
        for name, run in zip(run_names(sequence_name(folder, root), runs), runs, strict=True):
            frames = [FrameFiles(colors[n], depths.get(n), lows.get(n), flows.get(n), stamps.get(n)) for n in run]
            add_sequence(sequences, findings, name, frames, intrinsics=intrinsics, rules=rules, notes=notes)
    return sequences


def open_tum(root: Path, findings: Findings, rules: DepthRules = DEFAULT_RULES) -> list[RgbdSequence]:
    """All TUM RGB-D sequences at or below ``root``: colour and depth paired by nearest stamp within 20 ms."""
    sequences: list[RgbdSequence] = []
    for folder in find_folders(root, is_tum_folder):
        try:
            colors, depths = _tum_list(folder, "rgb"), _tum_list(folder, "depth")
        except DataError as error:
            findings.report(str(error))
            continue
        pairs = match_nearest([t for t, _ in colors], [t for t, _ in depths], _TUM_MAX_DIFFERENCE_S)
        frames = []
        for i, j in pairs:
            wrong = [f"{path} {what}" for path in (colors[i][1], depths[j][1]) if (what := what_is_wrong(path))]
            if wrong:
                findings.report(f"{folder}: {wrong[0]}")
            else:
                frames.append(FrameFiles(colors[i][1], depths[j][1], stamp=colors[i][0]))
        if not frames:
            findings.report(f"{folder}: no colour and depth frames within {1e3 * _TUM_MAX_DIFFERENCE_S:.0f} ms")
            continue
        camera = next((v for k, v in _TUM_CAMERAS.items() if k in folder.name), _TUM_DEFAULT_CAMERA)
        tum = replace(rules, units=DepthUnits(rules.units.unit or _TUM_UNIT, rules.units.invalid_above))
        add_sequence(
            sequences,
            findings,
            sequence_name(folder, root),
            frames,
            intrinsics=intrinsic_matrix(*camera),
            rules=tum,
        )
    return sequences


def open_scannet(root: Path, findings: Findings, rules: DepthRules = DEFAULT_RULES) -> list[RgbdSequence]:
    """All ScanNet scenes at or below ``root``; colour is resized to the size of depth."""
    sequences: list[RgbdSequence] = []
    for folder in find_folders(root, is_scannet_folder):
        try:
            colors = numbered_files(folder / "color", COLOR_SUFFIXES)
            depths = numbered_files(folder / "depth", DEPTH_SUFFIXES)
            intrinsics = read_intrinsics(folder / "intrinsic" / "intrinsic_depth.txt")
        except DataError as error:
            findings.report(str(error))
            continue
        runs = complete_runs(folder, {"colour": colors, "depth": depths}, findings, counted=False)
        for name, run in zip(run_names(sequence_name(folder, root), runs), runs, strict=True):
            frames = [FrameFiles(colors[n], depths[n]) for n in run]
            add_sequence(
                sequences, findings, name, frames, intrinsics=intrinsics, color_to_depth_size=True, rules=rules
            )
    return sequences


def read_intrinsics(path: Path) -> Tensor | None:
    """Camera matrix (3, 3) from "fx fy cx cy" or a 3x3 or 4x4 matrix in text; None if there is no such file.

    Numbers are separated by spaces or commas; comments start with "#".

    Raises:
        DataError: the file has other content.
    """
    if not path.exists():
        return None
    try:
        numbers = [line.partition("#")[0] for line in path.read_text("utf-8-sig").splitlines()]
        values = np.array(" ".join(numbers).replace(",", " ").split(), dtype=np.float64)
    except (ValueError, UnicodeDecodeError):
        values = np.empty(0)
    if values.size == 4:
        matrix = intrinsic_matrix(*values)
    elif values.size in (9, 16):
        side = 3 if values.size == 9 else 4
        matrix = torch.from_numpy(values.reshape(side, side)[:3, :3].astype(np.float32))
    else:
        raise DataError(f'{path}: expected "fx fy cx cy" or a 3x3 matrix')
    if not (torch.isfinite(matrix).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise DataError(f"{path}: the focal lengths must be positive numbers, found {matrix.tolist()}")
    return matrix


def write_folder(clip: RgbdClip, folder: Path, *, first: int = 0) -> None:
    """Write a clip in this project's own layout; a long video is written clip by clip with increasing ``first``.

    Depth is rounded to millimetres; depth beyond 65.535 m becomes invalid.

    Args:
        clip: what to write, on any device.
        folder: created if absent.
        first: number of the clip's first frame.
    """
    folder.mkdir(parents=True, exist_ok=True)
    has_depth = bool(clip.valid.any()) or clip.depth_lr is None
    images = {"color": (clip.rgb.clamp(0, 1) * 255).round().byte().flip(1).permute(0, 2, 3, 1).cpu().numpy()}
    if has_depth:
        images["depth"] = _millimetres(clip.depth)
    if clip.depth_lr is not None:
        images["depth_lr"] = _millimetres(clip.depth_lr)
    for kind, frames in images.items():
        (folder / kind).mkdir(exist_ok=True)
        for number, frame in enumerate(frames, first):
            path = folder / kind / f"{number:06d}.png"
            if not cv2.imwrite(str(path), frame):
                raise DataError(f"{path} cannot be written")
    if clip.flow is not None:
        (folder / "flow").mkdir(exist_ok=True)
        for number, flow in enumerate(clip.flow.permute(0, 2, 3, 1).cpu().numpy(), first):
            np.save(folder / "flow" / f"{number:06d}.npy", flow)
    if clip.intrinsics is not None:
        k = clip.intrinsics
        text = " ".join(f"{value:.9g}" for value in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
        (folder / "intrinsics.txt").write_text(text + "\n")
    if clip.stamps is not None:
        with (folder / "stamps.txt").open("a" if first else "w") as file:
            file.writelines(f"{stamp:.9f}\n" for stamp in clip.stamps.tolist())


def _millimetres(depth: Tensor) -> np.ndarray:
    millimetres = (depth[:, 0].double() * 1000).round().cpu().numpy()
    return np.where(millimetres <= 65535, millimetres, 0).astype(np.uint16)


def _what_is_there(folder: Path) -> str:
    """What a folder without usable images contains instead, for messages."""
    expected = ", ".join(DEPTH_SUFFIXES if folder.name.startswith("depth") else COLOR_SUFFIXES)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found = sorted({f"folder {path.name}" if path.is_dir() else path.suffix or path.name for path in entries})
    return f"no images of {expected}; it holds {', '.join(found[:5]) or 'nothing'}"


def _read_stamps(path: Path, numbers: list[int]) -> dict[int, float]:
    if not path.exists():
        return {}
    try:
        stamps = [_seconds(line.split()[0]) for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (ValueError, UnicodeDecodeError):
        raise DataError(f"{path}: expected one number of seconds per line") from None
    if len(stamps) != len(numbers):
        raise DataError(f"{path}: {len(stamps)} stamps for {len(numbers)} colour frames; expected one each")
    return dict(zip(numbers, stamps, strict=True))


def _seconds(text: str) -> float:
    """A stamp in seconds; numbers too large for a date in seconds are milliseconds, microseconds or nanoseconds."""
    stamp = float(text)
    while stamp > _LAST_SECOND:
        stamp /= 1000
    return stamp


def _tum_list(folder: Path, kind: str) -> list[tuple[float, Path]]:
    """(stamp, file) of each line of rgb.txt or depth.txt, or of each file named by its stamp."""
    listing = folder / f"{kind}.txt"
    try:
        if listing.exists():
            text = listing.read_text("utf-8-sig").replace(",", " ").replace("\\", "/")
            lines = [line.split() for line in text.splitlines()]
            rows = [(_seconds(f[0]), folder / f[1]) for f in lines if f and not f[0].startswith("#")]
        else:
            rows = [(_seconds(p.stem), p) for p in (folder / kind).iterdir() if p.suffix.lower() in COLOR_SUFFIXES]
    except (ValueError, IndexError, UnicodeDecodeError):
        raise DataError(f'{listing}: expected lines "stamp file" as in TUM RGB-D') from None
    if not rows:
        raise DataError(f"{folder}: no frames in {kind}.txt or {kind}/")
    return sorted(rows)
