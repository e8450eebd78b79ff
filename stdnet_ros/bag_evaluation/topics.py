"""Which topics of a bag are colour, depth, their camera_infos and a reference.

Names are a hint only: what a topic holds is judged by its type and its first message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from stdnet_core.errors import DataError
from stdnet_core.ros_images import is_depth
from stdnet_ros.bag_evaluation.bag import Bag

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_INFO = "sensor_msgs/msg/CameraInfo"
_PREFERRED = {"color": ("color", "colour", "rgb"), "depth": ("aligned", "registered", "rect")}
_AVOIDED = ("infra", "/ir/", "mono", "confidence", "thumbnail", "mask", "stdnet")


@dataclass(frozen=True)
class BagTopics:
    """The topics an evaluation reads; None for what the bag does not have.

    Attributes:
        color, depth: images of both kinds, raw or compressed.
        color_info, depth_info: their camera_infos.
        reference: depth at the colour image's size to compare with; None when ``depth`` itself is the truth.
    """

    color: str
    depth: str
    color_info: str | None = None
    depth_info: str | None = None
    reference: str | None = None

    def named(self) -> dict[str, str]:
        """Those that are there, by what they are."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


def find_topics(bag: Bag, wanted: Mapping[str, str | None]) -> BagTopics:
    """Find the topics, keeping those that are given.

    Args:
        bag: open.
        wanted: topics by the names of :class:`BagTopics`; None or missing ones are looked for, except
            ``reference``: a second depth topic need not be truth.

    Raises:
        DataError: one that was given is not there, or there is no colour or no depth; says what the bag holds.
    """
    for role, topic in wanted.items():
        if topic is not None and topic not in bag.topics:
            raise DataError(f"{bag.path}: no messages on {topic}, given as {role} topic; {_contents(bag)}")
    first = {topic: bag.first(topic) for topic, kind in bag.topics.items() if kind in _IMAGES}
    depths = [topic for topic, message in first.items() if message is not None and is_depth(message)]
    colors = [topic for topic, message in first.items() if message is not None and topic not in depths]
    color = _given(bag, wanted, "color", colors) or _best(bag, "color", colors)
    reference = _given(bag, wanted, "reference", depths)
    candidates = [topic for topic in depths if topic != reference]
    depth = _given(bag, wanted, "depth", candidates) or _best(bag, "depth", _of_colour_if_any(candidates, first))
    infos = [topic for topic, kind in bag.topics.items() if kind == _INFO]
    return BagTopics(
        color,
        depth,
        wanted.get("color_info") or _sibling(color, infos),
        wanted.get("depth_info") or _sibling(depth, infos),
        reference,
    )


def _given(bag: Bag, wanted: Mapping[str, str | None], role: str, candidates: list[str]) -> str | None:
    topic = wanted.get(role)
    if topic is not None and topic not in candidates:
        kind = "colour" if role == "color" else "depth"
        raise DataError(f"{bag.path}: {topic} ({bag.topics[topic]}) holds no {kind} images; {_contents(bag)}")
    return topic


def _best(bag: Bag, role: str, candidates: list[str]) -> str:
    if not candidates:
        kind, kinds = ("colour", "") if role == "color" else ("depth", " of 16UC1, 32FC1 or compressedDepth")
        raise DataError(
            f"{bag.path}: no topic with {kind} images, expected {' or '.join(_IMAGES)}{kinds}; {_contents(bag)}; "
            "nothing was evaluated"
        )

    def rank(topic: str) -> tuple[bool, bool, bool, str]:
        lower = topic.lower()
        avoided = any(word in lower for word in _AVOIDED)
        return avoided, not any(word in lower for word in _PREFERRED[role]), "compressed" in lower, topic

    return min(candidates, key=rank)


def _of_colour_if_any(candidates: list[str], first: Mapping[str, Any]) -> list[str]:
    """Depth in the frame of a colour image, if there is any: what a driver has registered."""
    frames = {
        message.header.frame_id for topic, message in first.items() if message is not None and topic not in candidates
    }
    same = [topic for topic in candidates if first[topic].header.frame_id in frames]
    return same or candidates


def _sibling(topic: str, infos: list[str]) -> str | None:
    """The camera_info beside an image topic; that of ``/cam/image_raw/compressed`` is ``/cam/camera_info``."""
    parts = topic.split("/")
    for end in range(len(parts) - 1, 0, -1):
        candidate = "/".join([*parts[:end], "camera_info"])
        if candidate in infos:
            return candidate
    return None


def _contents(bag: Bag) -> str:
    topics = ", ".join(f"{topic} ({kind}, {bag.counts[topic]})" for topic, kind in sorted(bag.topics.items()))
    return f"the bag holds {topics}"
