"""Opens any source of RGB-D video by one string: ``tartanair:/data/tartanair``, ``bag:/data/run.mcap``, ``/data/x``.

Options follow a question mark: ``/data/x?depth_unit=0.0002``, ``/data/x?distance=ray``,
``/data/run.mcap?color=/cam/rgb&depth=/tof``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from stdnet_core.data.arkitscenes import is_arkitscenes_folder, open_arkitscenes
from stdnet_core.data.bags.bag_file import is_bag_name, recordings
from stdnet_core.data.bags.sequence import BagSequence
from stdnet_core.data.bags.storage import STORAGE_SUFFIXES
from stdnet_core.data.dydtof import is_dydtof_folder, open_dydtof
from stdnet_core.data.dynamic_replica import is_dynamic_replica_folder, open_dynamic_replica
from stdnet_core.data.file_sequence import DepthRules
from stdnet_core.data.frame_files import Findings, find_folders
from stdnet_core.data.phones import (
    R3D_REMEDY,
    is_record3d_folder,
    is_scannetpp_folder,
    is_stray_folder,
    open_record3d,
    open_scannetpp,
    open_stray,
    told_as_record3d,
)
from stdnet_core.data.rgbd_folder import (
    is_own_folder,
    is_scannet_folder,
    is_tum_folder,
    open_folders,
    open_scannet,
    open_tum,
    told_as_tum,
)
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.seven_scenes import is_seven_scenes_folder, open_seven_scenes
from stdnet_core.data.tartanair import is_tartanair_folder, open_tartanair
from stdnet_core.depth_units import DepthUnits
from stdnet_core.errors import DataError, MissingDataError

KINDS = {
    "tartanair": "<scene>/<Hard>/<Pxxx>/{image_left,depth_left}",
    "dydtof": "<scene>/<shot>/{color,depth} with <shot>.0000.jpeg and .npy files",
    "dynamic_replica": "<sequence>/{images,depths} with *.geometric.png files",
    "folder": "{color or rgb,depth}/000000.png, depth in millimetres; ?distance=ray (in other folders too) if it is "
    "distance along rays",
    "tum": "{rgb,depth}/ with rgb.txt and depth.txt",
    "scannet": "{color,depth,intrinsic}/",
    "stray": "Stray Scanner: rgb.mp4, {depth,confidence}/000000.png, camera_matrix.csv, odometry.csv; "
    "?min_confidence=0 or 2 (of other phones too) instead of 1",
    "record3d": "Record3D's 'EXR + JPG sequence': rgb/0.jpg, depth/0.exr, metadata.json",
    "scannetpp": "<scene>/iphone/ with rgb.mkv or rgb/, depth/frame_000000.png and pose_intrinsic_imu.json",
    "arkitscenes": "<video>/ with lowres_depth/, colour in wide/, color/, vga_wide/ or lowres_wide/, and optionally "
    "confidence/, highres_depth/ (ground truth) and *_intrinsics/; ?color=FOLDER to choose colour",
    "7scenes": "seq-01/frame-000000.color.png and .depth.png",
    "bag": "a ROS bag: a folder with metadata.yaml, or an .mcap, .db3 or .bag file; ?color=TOPIC&depth=TOPIC to choose "
    "topics, &registered=yes if depth is registered to colour whatever its frame_id, &stamps=record to pair by "
    "recording time",
    "synthetic": "seed[,count[,HxW[,frames]]]",
}
"""Kinds of sources, and the layout that each expects at its path."""

_UNIT_OPTIONS = ("depth_unit", "invalid_above")
_FOLDER_OPTIONS = (*_UNIT_OPTIONS, "distance")
_PHONE_OPTIONS = (*_FOLDER_OPTIONS, "min_confidence")
_OPTIONS = {
    "folder": _FOLDER_OPTIONS,
    "tum": _FOLDER_OPTIONS,
    "scannet": _FOLDER_OPTIONS,
    "stray": _PHONE_OPTIONS,
    "record3d": _PHONE_OPTIONS,
    "scannetpp": _FOLDER_OPTIONS,
    "arkitscenes": (*_PHONE_OPTIONS, "color"),
    "7scenes": _FOLDER_OPTIONS,
    "bag": ("color", "depth", "registered", "stamps", *_UNIT_OPTIONS),
}
"""Options after the question mark, by kind."""
_OPENERS = {
    "tum": open_tum,
    "scannet": open_scannet,
    "stray": open_stray,
    "record3d": open_record3d,
    "scannetpp": open_scannetpp,
    "7scenes": open_seven_scenes,
}
_SYNTHETIC_DEFAULTS = (1, (240, 320), 16)  # sequences, (H, W), frames


class Sequences(list[RgbdSequence]):
    """The sequences of a source.

    Attributes:
        left_out: what ``skip_bad`` left out, one sentence each.
        notes: what the user should know, one sentence each, as found when the sequences were opened.
    """

    def __init__(self, sequences: Iterable[RgbdSequence] = (), left_out: Iterable[str] = ()) -> None:
        super().__init__(sequences)
        self.left_out = list(left_out)
        self.notes = list(dict.fromkeys(note for sequence in self for note in getattr(sequence, "notes", ())))


def open_source(
    source: str | Path,
    *,
    split: str | None = None,
    skip_bad: bool = False,
    lr_scale: float | None = None,
    lr_folder: Path | None = None,
    depth_unit: float | None = None,
    invalid_above: float | None = None,
) -> Sequences:
    """Open every sequence of a source; frames are read later, clip by clip.

    Args:
        source: ``KIND:PATH`` with a kind of :data:`KINDS`, or a path whose kind is detected, with optional options. A
            folder may hold any number of sequences, nested.
        split: a split of the paper (TartanAir, DyDToF, DynamicReplica) or, for folders, a sub-folder of that name.
        skip_bad: leave damaged and incomplete frames and sequences out instead of raising; each is logged and listed
            in ``left_out``.
        lr_scale: require that the source itself has low-resolution depth for this scale.
        lr_folder: where that of a published data set is, if not next to it (:mod:`stdnet_core.data.low_resolution`).
        depth_unit, invalid_above: see :class:`DepthUnits`; for folders of images and bags.

    Raises:
        DataError: the path does not exist, has no sequence, or has a bad one and ``skip_bad`` is off; the split or the
            requested low-resolution depth does not exist; or depth is in another unit than assumed.
    """
    text, options = split_options(str(source))
    for name, value in (("depth_unit", depth_unit), ("invalid_above", invalid_above)):
        if value is not None:
            options[name] = str(value)
    kind, place = parse_source(text)
    refused = sorted(set(options) - set(_OPTIONS.get(kind, ())))
    if refused:
        known = ", ".join(_OPTIONS.get(kind, ())) or "none"
        raise DataError(f"{source}: sources of kind {kind!r} have no option {', '.join(refused)}; options: {known}")
    findings = Findings(skip_bad)
    if kind == "synthetic":
        _no_split(kind, split)
        sequences = _open_synthetic(place)
    else:
        sequences = _open_path(kind, place, split, findings, lr_scale, lr_folder, options)
    for problem in findings.left_out:
        logging.getLogger(__name__).warning("left out: %s", problem)
    if not sequences:
        wrong = f"; left out: {findings.left_out[0]}" if findings.left_out else ""
        raise DataError(f"{place}: no sequence of kind {kind!r}; expected {KINDS[kind]}{wrong}")
    if lr_scale is not None:
        for sequence in sequences:
            own = getattr(sequence, "lr_scale", None)
            if own is None or abs(own - lr_scale) > 0.05 * lr_scale:
                found = "none" if own is None else f"x{own:g}"
                raise DataError(f"{sequence.name}: expected low-resolution depth for x{lr_scale}, found {found}")
    return Sequences(sequences, findings.left_out)


def split_options(source: str) -> tuple[str, dict[str, str]]:
    """Split ``PATH?NAME=VALUE&NAME=VALUE`` into the path and the options; an existing path is not split.

    Raises:
        DataError: an option is unknown or has no value.
    """
    if "?" not in source or Path(source).exists():
        return source, {}
    path, _, query = source.partition("?")
    known = sorted({name for names in _OPTIONS.values() for name in names})
    options: dict[str, str] = {}
    for option in filter(None, query.split("&")):
        name, _, value = option.partition("=")
        if name not in known or not value:
            raise DataError(f"{source!r}: unknown option {option!r}; use one of {', '.join(known)}, as NAME=VALUE")
        options[name] = value
    return path, options


def parse_source(source: str) -> tuple[str, str]:
    """Split a source into its kind, detected if not given, and its path without options.

    Raises:
        DataError: the kind is unknown or cannot be detected.
    """
    source, _ = split_options(source)
    kind, colon, place = source.partition(":")
    if colon and kind in KINDS:
        return kind, place
    if colon and not Path(source).exists():
        raise DataError(f"{source!r}: unknown kind of source {kind!r}; use one of {', '.join(KINDS)}, or a path")
    return detect_kind(Path(source)), source


def detect_kind(path: Path) -> str:
    """Detect the kind of a source from the files at its path.

    Raises:
        DataError: the path does not exist, or nothing there is known.
    """
    if not path.exists():
        raise MissingDataError(f"{path}: no such file or folder; expected a source such as {_examples()}")
    if path.is_file():
        if is_bag_name(path):
            return "bag"
        remedy = "; finish it with 'rosbag reindex'" if path.name.endswith(".bag.active") else ""
        remedy = f"; {R3D_REMEDY}" if path.suffix.lower() == ".r3d" else remedy
        raise DataError(f"{path}: not a ROS bag ({', '.join(STORAGE_SUFFIXES)}); other sources are folders{remedy}")
    if _is_bag_folder(path):
        return "bag"
    known = {
        "stray": is_stray_folder,
        "record3d": is_record3d_folder,
        "scannetpp": is_scannetpp_folder,
        "arkitscenes": is_arkitscenes_folder,
        "7scenes": is_seven_scenes_folder,
        "tartanair": is_tartanair_folder,
        "dynamic_replica": is_dynamic_replica_folder,
        "scannet": is_scannet_folder,
        "tum": is_tum_folder,
        "folder": is_own_folder,
    }
    for folder in find_folders(path, lambda names: any(fits(names) for fits in known.values())):
        if is_dydtof_folder(folder):
            return "dydtof"
        names = {entry.name for entry in folder.iterdir()}
        told = {"tum": told_as_tum, "record3d": told_as_record3d}
        kinds = (kind for kind, fits in known.items() if fits(names) and (kind not in told or told[kind](folder)))
        kind = next(kinds, None)
        if kind is not None:
            return kind
    if next(_bags(path), None) is not None:
        return "bag"
    raise DataError(f"{path}: no known RGB-D data; expected a source such as {_examples()}")


def _open_path(
    kind: str,
    place: str,
    split: str | None,
    findings: Findings,
    lr_scale: float | None,
    lr_folder: Path | None,
    options: dict[str, str],
) -> list[RgbdSequence]:
    path = Path(place)
    rules = _rules(options)
    if not path.exists():
        raise MissingDataError(f"{path}: no such file or folder; expected {KINDS[kind]}")
    if kind == "bag":
        _no_split(kind, split)
        return _open_bags(path, options, rules.units, findings)
    if not path.is_dir():
        raise DataError(f"{path}: not a folder; expected {KINDS[kind]}")
    if kind == "tartanair":
        return open_tartanair(path, findings, split, lr_scale, lr_folder)
    if kind == "dydtof":
        return open_dydtof(path, findings, split, lr_scale, lr_folder)
    if kind == "dynamic_replica":
        return open_dynamic_replica(path, findings, split, lr_scale, lr_folder)
    if kind == "folder":
        if split is not None and not (path / split).is_dir():
            raise DataError(f"{path / split}: no such folder; the split {split!r} of a folder is its sub-folder")
        return open_folders(path if split is None else path / split, findings, rules)
    _no_split(kind, split)
    if kind == "arkitscenes":
        return open_arkitscenes(path, findings, rules, options.get("color"))
    return _OPENERS[kind](path, findings, rules)


def _rules(options: dict[str, str]) -> DepthRules:
    try:
        values = {name: float(options[name]) for name in _UNIT_OPTIONS if name in options}
    except ValueError:
        raise DataError(f"depth_unit and invalid_above must be numbers; found {options}") from None
    units = DepthUnits(values.get("depth_unit"), values.get("invalid_above"))
    ray = _choice(options, "distance", ("z", "ray")) == "ray"
    least = int(_choice(options, "min_confidence", ("1", "0", "2")))
    return DepthRules(units, ray, least)


def _choice(options: dict[str, str], name: str, values: tuple[str, ...]) -> str:
    """The value of an option; the first of ``values`` by default."""
    value = options.get(name, values[0])
    if value not in values:
        raise DataError(f"{name} is {value!r}; give {' or '.join(values)}")
    return value


def _open_bags(path: Path, options: dict[str, str], units: DepthUnits, findings: Findings) -> list[RgbdSequence]:
    sequences: list[RgbdSequence] = []
    told = {
        "registered": _choice(options, "registered", ("no", "yes")) == "yes",
        "by_record": _choice(options, "stamps", ("header", "record")) == "record",
    }
    for bag in [path] if path.is_file() or _is_bag_folder(path) else _bags(path):
        try:
            sequence = BagSequence(bag, options.get("color"), options.get("depth"), units=units, **told)
            sequences.append(sequence)
        except DataError as error:
            findings.report(str(error))
    return sequences


def _is_bag_folder(path: Path) -> bool:
    return (path / "metadata.yaml").is_file()


def _bags(root: Path) -> Iterator[Path]:
    for folder in [root, *sorted(p for p in root.rglob("*") if p.is_dir())]:
        if _is_bag_folder(folder):
            yield folder
        else:
            found = recordings(folder)
            if len(found) == 1 and len(found[0]) > 1:
                yield folder
            else:
                yield from sorted(path for files in found for path in files)


def _open_synthetic(text: str) -> list[RgbdSequence]:
    from stdnet_core.data.synthetic import SyntheticSequence

    count, size, frames = _SYNTHETIC_DEFAULTS
    parts = text.split(",")
    try:
        seed = int(parts[0])
        if len(parts) > 1:
            count = int(parts[1])
        if len(parts) > 2:
            height, width = parts[2].split("x")
            size = int(height), int(width)
        if len(parts) > 3:
            frames = int(parts[3])
        if len(parts) > 4 or min(count, frames, *size) < 1:
            raise ValueError
    except ValueError:
        raise DataError(f"synthetic:{text}: expected synthetic:{KINDS['synthetic']}, such as synthetic:0,4") from None
    return [SyntheticSequence(seed + i, frames, size) for i in range(count)]


def _no_split(kind: str, split: str | None) -> None:
    if split is not None:
        raise DataError(f"sources of kind {kind!r} have no split {split!r}; leave it out")


def _examples() -> str:
    return "; ".join(f"{kind}: {what}" for kind, what in KINDS.items() if kind != "synthetic")
