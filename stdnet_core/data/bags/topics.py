"""Chooses the topics of a recording that are colour, depth and their camera_infos; all tools use the same choice.

Colour and depth are chosen together, because they must be of one camera. The criteria, in this order: no name that
rules a topic out (infra, confidence); the same frame_id, since registered depth is in colour's frame; depth covers
colour at one scale; its values are plausible depths; names that suit (depth, aligned, rgb), without "depth" in the
colour topic, which may be a rendering of depth; names that begin alike; raw before compressed. If two cameras remain
equally likely, the user has to choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

import numpy as np

from stdnet_core.data.bags.bag_file import CAMERA_INFO_TYPE, IMAGE_TYPES, BagFile
from stdnet_core.data.bags.ros_images import (
    COLOR_ENCODINGS,
    FrameError,
    color_of,
    encoding_of,
    frames_agree,
    is_depth,
    printable,
    same_field_of_view,
    stored_depth,
)
from stdnet_core.depth_units import DepthUnits, look_at
from stdnet_core.errors import DataError

_VIDEO_PACKETS = ("/FFMPEGPacket", "/CompressedVideo", "theora_image_transport/msg/Packet")
_TRIED = 10
"""This many messages of a topic are tried until one can be read; the first ones may be damaged."""
_PREFERRED = {"color": ("color", "colour", "rgb"), "depth": ("aligned", "registered", "rect", "depth_to_")}
_AVOIDED = (
    *(
        "infra",
        "/ir/",
        "/ir_",
        "mono",
        "confidence",
        "thumbnail",
        "mask",
        "stdnet",
        "amplitude",
        "intensity",
        "thermal",
    ),
    *("disparity", "label", "segment", "noise", "normal", "uncertain", "variance", "weight", "raw_phase", "ambient"),
)


@dataclass(frozen=True)
class FirstImage:
    """The first message of an image topic that can be read.

    Attributes:
        topic: name of the topic.
        position: how many messages of the topic precede it.
        message: the decoded message.
        image: colour (h, w, 3) uint8, or depth (h, w) as stored.
        plausible: whether the values of a depth image are plausible depths.
    """

    topic: str
    position: int
    message: Any
    image: np.ndarray
    plausible: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.image.shape[:2]
        return height, width

    @property
    def frame(self) -> str:
        """The image's frame_id."""
        return self.message.header.frame_id


@dataclass(frozen=True)
class BagTopics:
    """The topics that are read; None for those that the bag does not have.

    Attributes:
        color, depth: image topics, raw or compressed.
        color_info, depth_info: their camera_infos.
        reference: depth at colour's size to compare with; None if ``depth`` itself is the ground truth.
        first: the first colour and depth images, kept so that they need not be decoded again.
    """

    color: str
    depth: str
    color_info: str | None = None
    depth_info: str | None = None
    reference: str | None = None
    first: tuple[FirstImage, FirstImage] = field(repr=False, compare=False, kw_only=True)

    def named(self) -> dict[str, str]:
        """The topics that are not None, by the names of the attributes."""
        names = [f.name for f in fields(self) if f.name != "first"]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def find_topics(bag: BagFile, wanted: Mapping[str, str | None], units: DepthUnits | None = None) -> BagTopics:
    """Choose the topics that are not given.

    Args:
        bag: open.
        wanted: given topics by the names of :class:`BagTopics`. Missing ones and None are chosen, except
            ``reference``: a second depth topic is not necessarily ground truth.
        units: how depth is stored.

    Raises:
        DataError: a given topic does not exist, there is no colour or no depth, or several cameras are equally likely;
            the error lists the bag's topics.
    """
    for role, topic in wanted.items():
        if topic is not None and topic not in bag.topics:
            raise DataError(f"{bag.path}: no messages on {topic}, given as {role} topic; {_contents(bag)}")
    seen, unread = _look(bag, wanted, units or DepthUnits())
    depths = [s for s in seen if is_depth(s.message) and s.topic != wanted.get("color")]
    colors = [s for s in seen if not is_depth(s.message) or s.topic == wanted.get("color")]
    colors = _given(bag, wanted, "color", colors, unread)
    if wanted.get("reference") is not None:
        _given(bag, wanted, "reference", depths, unread)
    depths = _given(bag, wanted, "depth", [s for s in depths if s.topic != wanted.get("reference")], unread)
    color, depth = _best(bag, colors, depths)
    infos = [topic for topic, kind in bag.topics.items() if kind == CAMERA_INFO_TYPE]
    return BagTopics(
        color.topic,
        depth.topic,
        wanted.get("color_info") or _sibling(color.topic, infos),
        wanted.get("depth_info") or _sibling(depth.topic, infos),
        wanted.get("reference"),
        first=(color, depth),
    )


def first_stored_depths(bag: BagFile, first: FirstImage, count: int) -> Iterator[np.ndarray]:
    """Readable depth images (h, w) of a topic, as stored: the first one, and those that follow it among the first
    ``count`` messages."""
    yield first.image
    for raw in islice(bag.messages([first.topic]), first.position + 1, count):
        try:
            yield stored_depth(bag.decode(raw), first.topic)
        except (DataError, FrameError):
            continue


def _first_readable(bag: BagFile, topic: str, read: Callable[[Any], tuple[np.ndarray, bool]]) -> FirstImage:
    """The first readable message of a topic, with the image and its plausibility as ``read`` returns them.

    Raises:
        DataError: none of the first messages can be read; the error is that of the very first.
    """
    wrong: Exception | None = None
    for position, raw in enumerate(islice(bag.messages([topic]), _TRIED)):
        try:
            message = bag.decode(raw)
            return FirstImage(topic, position, message, *read(message))
        except (DataError, FrameError) as error:
            wrong = wrong or error
    if wrong is None:
        raise DataError(f"{bag.path}: no messages on {topic}")
    text = str(wrong)
    raise DataError(text if text.startswith(str(bag.path)) else f"{bag.path}: {text}") from wrong


def _look(
    bag: BagFile, wanted: Mapping[str, str | None], units: DepthUnits
) -> tuple[list[FirstImage], dict[str, DataError]]:
    """The first images of the readable image topics, and the errors of the others."""
    seen: list[FirstImage] = []
    unread: dict[str, DataError] = {}
    for topic, kind in bag.topics.items():
        if kind not in IMAGE_TYPES:
            continue

        def read(message: Any, topic: str = topic) -> tuple[np.ndarray, bool]:
            unknown = getattr(message, "encoding", COLOR_ENCODINGS[0]) not in COLOR_ENCODINGS
            depth = is_depth(message) or (unknown and "depth" in topic.lower())
            if not depth or topic == wanted.get("color"):
                return color_of(message, topic), True
            stored = stored_depth(message, topic)
            impression = look_at(stored, units)
            return stored, impression is not None and (impression.given or impression.plausible)

        try:
            seen.append(_first_readable(bag, topic, read))
        except DataError as error:
            unread[topic] = error
    return seen, unread


def _given(
    bag: BagFile,
    wanted: Mapping[str, str | None],
    role: str,
    candidates: list[FirstImage],
    unread: Mapping[str, DataError],
) -> list[FirstImage]:
    """The candidates for a role: only the given topic, if there is one."""
    topic = wanted.get(role)
    kind = "colour" if role == "color" else "depth"
    if topic is not None:
        if topic in unread:
            raise unread[topic]
        candidates = [s for s in candidates if s.topic == topic]
        if not candidates:
            raise DataError(f"{bag.path}: {topic} ({bag.topics[topic]}) holds no {kind} images; {_contents(bag)}")
        return candidates
    if candidates:
        return candidates
    likely = [topic for topic in unread if ("depth" in topic.lower()) == (role != "color")]
    if likely:
        raise unread[likely[0]]
    kinds = "" if role == "color" else " of 16UC1, 32FC1 or compressedDepth"
    packets = [topic for topic, name in bag.topics.items() if name.endswith(_VIDEO_PACKETS)]
    remedy = ""
    if packets:
        remedy = f"; {packets[0]} is a video stream: decode it (ros2 run image_transport republish) and record that"
    raise DataError(
        f"{bag.path}: no topic with {kind} images, expected {' or '.join(IMAGE_TYPES)}{kinds}; {_contents(bag)}{remedy}"
    )


def _best(bag: BagFile, colors: list[FirstImage], depths: list[FirstImage]) -> tuple[FirstImage, FirstImage]:
    pairs = sorted(((_rank(c, d), c, d) for c in colors for d in depths), key=lambda p: (p[0], p[1].topic, p[2].topic))
    rank, color, depth = pairs[0]
    equal = [(c, d) for other, c, d in pairs[1:] if other == rank]
    for other_color, other_depth in equal:
        if _other_camera(color, other_color) and _other_camera(depth, other_depth):
            raise DataError(
                f"{bag.path}: several cameras are equally likely: colour {color.topic} with depth "
                f"{depth.topic}, or colour {other_color.topic} with depth {other_depth.topic}; choose one: "
                f"--color TOPIC --depth TOPIC, or as a source {bag.path}?color=TOPIC&depth=TOPIC"
            )
    return color, depth


def _rank(color: FirstImage, depth: FirstImage) -> tuple[Any, ...]:
    """Sort key of a pair: the lower, the more likely."""
    names = {"color": color.topic.lower(), "depth": depth.topic.lower()}
    avoided = sum(any(word in name for word in _AVOIDED) for name in names.values())
    same_frame = frames_agree(color.frame, depth.frame)
    picture = "depth" in "/".join(names["color"].split("/")[2:])  # the first part names the camera
    alike = _alike(color.topic, depth.topic)
    named = "depth" in names["depth"]
    preferred = sum(any(word in names[role] for word in words) for role, words in _PREFERRED.items())
    compressed = sum(
        "compressed" in name or not hasattr(s.message, "encoding")
        for name, s in zip(names.values(), (color, depth), strict=True)
    )
    return (
        avoided,
        not same_frame,
        not same_field_of_view(color.size, depth.size),
        not depth.plausible,
        not named,
        picture,
        -preferred,
        -alike,
        compressed,
    )


def _alike(first: str, second: str) -> int:
    """How many parts at the start of two topics' names are the same."""
    parts = [a == b for a, b in zip(first.split("/"), second.split("/"), strict=False)]
    return parts.index(False) if False in parts else len(parts)


def _other_camera(first: FirstImage, second: FirstImage) -> bool:
    """Whether two topics are of different cameras: their frame_ids differ, or their names do from the first part on."""
    return not frames_agree(first.frame, second.frame) or _alike(first.topic, second.topic) <= 1


def _sibling(topic: str, infos: list[str]) -> str | None:
    """The camera_info that belongs to an image topic: ``/cam/camera_info`` for ``/cam/image_raw/compressed``; as
    librealsense records, ``/device_0/sensor_1/Color_0/info/camera_info`` for ``/device_0/sensor_1/Color_0/image/data``.
    """
    parts = topic.split("/")
    for end in range(len(parts) - 1, 0, -1):
        for name in (["camera_info"], ["info", "camera_info"]):
            candidate = "/".join([*parts[:end], *name])
            if candidate in infos:
                return candidate
    return None


def _contents(bag: BagFile) -> str:
    return f"the bag holds {bag.contents()}"


def describe(bag: BagFile, topics: BagTopics) -> str:
    """The choice as a sentence."""
    parts = []
    for role, first in zip(("colour", "depth"), topics.first or (), strict=False):
        parts.append(f"{role} {first.topic} ({printable(encoding_of(first.message), 60)})")
    return f"{bag.path}: " + ", ".join(parts)
