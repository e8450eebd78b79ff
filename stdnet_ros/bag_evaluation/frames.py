"""Reads a bag frame by frame: pairs as the node makes them, the input depth, and the ground truth.

There are three protocols:

- Without a reference topic, the bag's depth is the ground truth, and the input is simulated from it at a chosen scale.
- With a reference topic, the bag's depth is the input, unchanged, and the reference is the ground truth.
- If a recording is judged by itself, its depth is the input, except for patches that are hidden
  (:mod:`stdnet_core.evaluation.recording`)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sensor_msgs.msg import CameraInfo

from stdnet_core.data.bags.ros_images import color_of, depth_of, frames_agree, printable, same_field_of_view
from stdnet_core.data.bags.storage import Raw
from stdnet_core.data.bags.topics import BagTopics
from stdnet_core.data.sensors import DepthCamera, Sensor, sensor
from stdnet_core.errors import DataError, InputError
from stdnet_core.evaluation.hidden_patches import hidden_patches
from stdnet_ros.bag_evaluation.bag import Bag
from stdnet_ros.messages import conversions
from stdnet_ros.messages.camera_info import CameraInfoError, fit_to_image
from stdnet_ros.node.parameters import depth_units
from stdnet_ros.synchronization.synchronizer import COLOR, DEPTH, Pair, make_synchronizer

_WAITING = 64


@dataclass(frozen=True)
class Protocol:
    """How input and ground truth are obtained from a recording.

    Attributes:
        scale: of the simulated low-resolution depth; not used with a reference.
        sensor: the simulated sensor.
        camera: its name.
        seed: for the simulation.
        every: process every n-th pair.
        start: seconds after the start of the bag.
        duration: in seconds, None to the end.
        stamps: pair by ``header`` stamps, or by recording times (``record``).
        by_itself: there is no ground truth; the input is the recorded depth with patches hidden.
    """

    scale: float = 8
    sensor: Sensor = field(default_factory=lambda: sensor("dtof_paper"))
    camera: str = "dtof_paper"
    seed: int = 0
    every: int = 1
    start: float = 0.0
    duration: float | None = None
    stamps: str = "header"
    by_itself: bool = False


@dataclass(frozen=True)
class BagFrame:
    """A colour and depth pair with its ground truth.

    Attributes:
        index: number of the frame among those processed.
        stamp: of the colour image, in nanoseconds.
        pair: the messages for the node's pipeline; depth is the input depth.
        color_info, depth_info: camera_infos that the node would have at this time, None if it has none.
        rgb: (H, W, 3) uint8.
        depth_lr: (h, w) metres, NaN invalid; the input depth.
        truth: (H, W) metres, NaN invalid; None if the reference frame is missing or the recording is judged by itself.
        recorded: (h, w) metres, NaN invalid: depth before patches were hidden; None with a ground truth.
        raw_color, raw_depth: the messages as recorded.
    """

    index: int
    stamp: int
    pair: Pair
    color_info: CameraInfo | None
    depth_info: CameraInfo | None
    rgb: np.ndarray
    depth_lr: np.ndarray
    truth: np.ndarray | None
    raw_color: Raw
    raw_depth: Raw
    recorded: np.ndarray | None = None


class FrameReader:
    """Reads the frames of a bag in order, in constant memory.

    Args:
        bag: an open bag.
        topics: the topics to read.
        protocol: how to obtain input and ground truth.
        settings: settings of the node.

    Attributes:
        counts: messages read by topic role, pairs, and omitted messages by cause.
        skipped: by type of error, the first message about a frame that could not be used.
    """

    def __init__(self, bag: Bag, topics: BagTopics, protocol: Protocol, settings: SimpleNamespace) -> None:
        self._bag, self._topics, self._protocol, self._settings = bag, topics, protocol, settings
        self.counts: Counter = Counter()
        self.skipped: dict[str, str] = {}
        self._camera: DepthCamera | None = None
        self._roles = {topic: role for role, topic in topics.named().items()}
        self.stop = bag.start + round(((protocol.start + protocol.duration) if protocol.duration else 1e9) * 1e9)
        self.start = bag.start + round(protocol.start * 1e9)
        if protocol.start >= max(bag.duration, 1e-9):
            raise InputError(f"--start {protocol.start:g} is after the end of the bag at {bag.duration:.1f} s")

    @property
    def expected(self) -> int:
        """Approximate number of frames, for progress bars."""
        protocol, bag = self._protocol, self._bag
        length = max(bag.duration - protocol.start, 0.0)
        taken = min(length, protocol.duration) if protocol.duration else length
        images = min(bag.counts[self._topics.color], bag.counts[self._topics.depth])
        share = taken / bag.duration if bag.duration > 0 else 1.0
        return max(1, round(images * share / protocol.every))

    def __iter__(self) -> Iterator[BagFrame]:
        infos: dict[str, CameraInfo | None] = {
            role: self._bag.first(topic) if topic else None
            for role, topic in (("color_info", self._topics.color_info), ("depth_info", self._topics.depth_info))
        }
        pairing = make_synchronizer(
            self._settings.synchronizer, self._settings.sync_slop, self._settings.sync_queue_seconds
        )
        references: deque[tuple[int, Raw]] = deque(maxlen=_WAITING)
        waiting: deque[tuple[Pair, CameraInfo | None, CameraInfo | None]] = deque()
        for raw in self._bag.messages(list(self._roles), self.start, self.stop):
            role = self._roles[raw.topic]
            self.counts[role] += 1
            if role.endswith("_info"):
                infos[role] = self._bag.decode(raw)
                continue
            stamp = raw.logged if self._protocol.stamps == "record" else self._bag.header_stamp(raw)
            if role == "reference":
                references.append((stamp, raw))
            else:
                for pair in pairing.add(COLOR if role == "color" else DEPTH, stamp, raw, len(raw.data)):
                    waiting.append((pair, infos["color_info"], infos["depth_info"]))
            # A pair waits until the reference stream has passed it; then its nearest reference is known.
            while waiting and self._reference_is_certain(waiting[0][0], references):
                yield from self._frame(*waiting.popleft(), references)
        for entry in waiting:
            yield from self._frame(*entry, references)
        self.counts.update({cause: count for cause, count in pairing.drops.items()})
        for name, count in zip(("color_at_end", "depth_at_end"), pairing.waiting(), strict=True):
            self.counts[name] += count
        self.counts["clock_jumps"] = pairing.jumps
        if self.counts["pairs"] == 0:
            raise DataError(self._why_no_pairs(pairing.trouble()))

    def _reference_is_certain(self, pair: Pair, references: deque[tuple[int, Raw]]) -> bool:
        return self._topics.reference is None or bool(references and references[-1][0] >= pair.color_stamp)

    def _frame(
        self,
        pair: Pair,
        color_info: CameraInfo | None,
        depth_info: CameraInfo | None,
        references: deque[tuple[int, Raw]],
    ) -> Iterator[BagFrame]:
        number = self.counts["pairs"]
        self.counts["pairs"] += 1
        if number % self._protocol.every:
            return
        try:
            color_message, depth_message = self._bag.decode(pair.color), self._bag.decode(pair.depth)
            rgb = color_of(color_message, self._topics.color)
            measured = self._metres(depth_message, self._topics.depth)
            recorded = None
            if self._protocol.by_itself:
                self._check_registered(rgb, measured, color_message.header.frame_id, depth_message.header.frame_id)
                recorded, truth = measured, None
                low = np.where(hidden_patches(measured.shape), np.float32(np.nan), measured)
                depth_message = conversions.depth_to_image(low, depth_message.header)
            elif self._topics.reference is None:
                self._check_aligned(rgb, measured, self._topics.depth, "the truth")
                truth = measured
                low = self._reduce(rgb, measured, color_info)
                depth_message = conversions.depth_to_image(low, depth_message.header)
                depth_info = _fitted(depth_info, low.shape)
            else:
                low = measured
                truth = self._reference(pair.color_stamp, rgb, references)
        except (InputError, DataError) as error:
            self.counts["unusable"] += 1
            self.skipped.setdefault(type(error).__name__, str(error))
            return
        index = self.counts["frames"]
        self.counts["frames"] += 1
        messages = Pair(color_message, depth_message, pair.color_stamp, pair.depth_stamp)
        yield BagFrame(
            index, pair.color_stamp, messages, color_info, depth_info, rgb, low, truth, pair.color, pair.depth, recorded
        )

    def _metres(self, message: Any, topic: str) -> np.ndarray:
        depth = depth_of(message, depth_units(self._settings), topic)
        if self._settings.max_depth > 0:
            with np.errstate(invalid="ignore"):
                depth = np.where(depth <= self._settings.max_depth, depth, np.float32(np.nan))
        return depth

    def _reduce(self, rgb: np.ndarray, depth: np.ndarray, info: CameraInfo | None) -> np.ndarray:
        protocol = self._protocol
        if self._camera is None or self._camera.frame_size != depth.shape:
            focal_px = info.k[0] if info is not None and info.k[0] > 0 else None
            self._camera = DepthCamera(
                protocol.sensor, depth.shape, protocol.scale, focal_px=focal_px, seed=protocol.seed
            )
        pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255
        low = self._camera.measure(torch.from_numpy(np.nan_to_num(depth, nan=0.0))[None, None], pixels)[0, 0].numpy()
        return np.where(low > 0, low, np.float32(np.nan))

    def _reference(self, stamp: int, rgb: np.ndarray, references: deque[tuple[int, Raw]]) -> np.ndarray | None:
        near = min(references, key=lambda entry: abs(entry[0] - stamp), default=None)
        if near is None or abs(near[0] - stamp) > self._settings.sync_slop * 1e9:
            self.counts["no_reference"] += 1
            return None
        depth = self._metres(self._bag.decode(near[1]), self._topics.reference)
        self._check_aligned(rgb, depth, self._topics.reference, "the reference")
        return depth

    def _check_aligned(self, rgb: np.ndarray, depth: np.ndarray, topic: str, what: str) -> None:
        if depth.shape != rgb.shape[:2]:
            hint = (
                "give a low-resolution depth with --depth and this bag's registered depth with --reference"
                if same_field_of_view(rgb.shape[:2], depth.shape)
                else "register it to the colour camera first (depth_image_proc register_node)"
            )
            raise DataError(
                f"{topic}: {what} is {depth.shape[1]}x{depth.shape[0]} and colour {rgb.shape[1]}x{rgb.shape[0]}; "
                f"expected the same size, registered pixel by pixel; {hint}"
            )

    def _check_registered(self, rgb: np.ndarray, depth: np.ndarray, color_frame: str, depth_frame: str) -> None:
        """Raise unless depth is registered: output is compared with input, so both need the colour camera's view."""
        settings = self._settings
        moved = settings.registration == "reproject" or (
            settings.registration == "auto" and not frames_agree(depth_frame, color_frame)
        )
        if moved or not same_field_of_view(rgb.shape[:2], depth.shape):
            why = (
                f"its frame_id {printable(depth_frame)} is not colour's {printable(color_frame)}"
                if moved
                else f"its {depth.shape[1]}x{depth.shape[0]} does not cover colour of {rgb.shape[1]}x{rgb.shape[0]}: "
                "the aspect ratios differ"
            )
            raise DataError(
                f"{self._topics.depth} is not registered to colour ({why}), and a recording that is judged by itself "
                "must be; record the driver's registered depth (aligned_depth_to_color), or run depth_image_proc's "
                "register_node, or set registration: registered in --params-file if only the frame_id differs"
            )

    def _why_no_pairs(self, trouble: str) -> str:
        colour, depth = self.counts["color"], self.counts["depth"]
        return (
            f"{self._bag.path}: {colour} colour and {depth} depth images form no pair in the chosen part: {trouble} "
            f"(parameters are set in --params-file), or pair by recording times with --stamps record; nothing was "
            "evaluated"
        )


def _fitted(info: CameraInfo | None, shape: tuple[int, int]) -> CameraInfo | None:
    if info is None:
        return None
    try:
        return fit_to_image(info, shape[1], shape[0])
    except CameraInfoError:
        return info
