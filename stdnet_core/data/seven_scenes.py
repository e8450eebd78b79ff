"""7-Scenes: recordings of a Kinect whose depth was not registered to colour.

Layout (https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/), all in one folder:

    seq-01/frame-000000.color.png   640x480
    seq-01/frame-000000.depth.png   640x480, millimetres, 65535: no reading

The cameras were not calibrated; only a focal length of 585 pixels and the principal point (320, 240) are published.
Data sets with the same file names, such as 3DMatch and 12-Scenes, add camera-intrinsics.txt or have larger colour
images, also as JPEG."""

from __future__ import annotations

from pathlib import Path

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
from stdnet_core.data.image_files import COLOR_SUFFIXES, DEPTH_SUFFIXES
from stdnet_core.data.rgbd_folder import read_intrinsics
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.errors import DataError

_PUBLISHED_CAMERA = (585.0, 585.0, 320.0, 240.0)
_PUBLISHED_SIZE = (480, 640)
_COLOR_ENDS = tuple(f".color{suffix}" for suffix in COLOR_SUFFIXES)
_NOTE = (
    "depth of 7-Scenes is not registered to colour: their edges are some pixels apart, so it is not exact ground truth"
)


def is_seven_scenes_folder(names: set[str]) -> bool:
    """Whether these are the entries of a sequence of 7-Scenes."""
    return any(name.startswith("frame-") and name.lower().endswith(_COLOR_ENDS) for name in names)


def open_seven_scenes(root: Path, findings: Findings, rules: DepthRules = DEFAULT_RULES) -> list[RgbdSequence]:
    """All sequences of 7-Scenes at or below ``root``."""
    sequences: list[RgbdSequence] = []
    for folder in find_folders(root, is_seven_scenes_folder):
        given = (place / "camera-intrinsics.txt" for place in (folder, folder.resolve().parent))
        try:
            colors = numbered_files(folder, COLOR_SUFFIXES, r"^frame-(\d+)\.color$")
            depths = numbered_files(folder, DEPTH_SUFFIXES, r"^frame-(\d+)\.depth$")
            camera = next((read_intrinsics(path) for path in given if path.exists()), None)
        except DataError as error:
            findings.report(str(error))
            continue
        size = _PUBLISHED_SIZE if camera is None else None
        camera = intrinsic_matrix(*_PUBLISHED_CAMERA) if camera is None else camera
        runs = complete_runs(folder, {"colour": colors, "depth": depths}, findings, counted=False)
        for name, run in zip(run_names(sequence_name(folder, root), runs), runs, strict=True):
            frames = [FrameFiles(colors[n], depths[n]) for n in run]
            options = {"intrinsics": camera, "intrinsics_size": size, "rules": rules, "notes": [_NOTE]}
            add_sequence(sequences, findings, name, frames, **options)
    return sequences
