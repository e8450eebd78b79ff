"""Writes a bag with the original topics and the upsampled depth, to be viewed in RViz or Foxglove."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rclpy.serialization import serialize_message

from stdnet_core.cli import require
from stdnet_core.data.bags.storage import Raw
from stdnet_core.errors import DataError
from stdnet_ros.bag_evaluation.bag import TYPES, Bag
from stdnet_ros.bag_evaluation.deterministic import Upsampled
from stdnet_ros.messages import conversions
from stdnet_ros.messages.camera_info import CameraInfoError
from stdnet_ros.messages.point_cloud import organized_cloud

OUTPUTS = {
    "/stdnet/depth/image": "sensor_msgs/msg/Image",
    "/stdnet/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    "/stdnet/points": "sensor_msgs/msg/PointCloud2",
    "/stdnet/input/depth/image": "sensor_msgs/msg/Image",
}


class RawBagWriter:
    """Writes serialised messages to a new mcap bag.

    Args:
        path: a folder, or a file whose name ends in .mcap.

    Raises:
        DataError: it already exists, or cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise DataError(f"{self.path} exists already; remove it or choose another name")
        rosbag2 = require("rosbags.rosbag2", extra="bags")
        typesys = require("rosbags.typesys", extra="bags")
        self._single = self.path.suffix == ".mcap"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._work = Path(tempfile.mkdtemp(prefix=".writing_", dir=self.path.parent))
        except OSError as error:
            raise DataError(f"cannot write {self.path} ({error})") from error
        self._folder = self._work / self.path.stem
        self._store = typesys.get_typestore(typesys.Stores.LATEST)
        self._writer = rosbag2.Writer(self._folder, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Any] = {}
        self.messages = 0

    def add_topic(self, topic: str, kind: str, definition: str = "") -> None:
        """Add a topic of type ``kind``; ``definition`` is used if the type is not one of ROS's own."""
        if topic in self._connections:
            return
        if kind in self._store.fielddefs:
            connection = self._writer.add_connection(topic, kind, typestore=self._store)
        else:
            connection = self._writer.add_connection(topic, kind, msgdef=definition, rihs01="")
        self._connections[topic] = connection

    def write(self, topic: str, logged: int, data: bytes) -> None:
        """Append a serialised message; ``logged`` is its recording time in nanoseconds."""
        self._writer.write(self._connections[topic], logged, data)
        self.messages += 1

    def close(self) -> None:
        """Finish the file and move it to ``path``."""
        self._writer.close()
        if self._single:
            shutil.move(str(next(self._folder.glob("*.mcap"))), self.path)
        else:
            shutil.move(str(self._folder), self.path)
        shutil.rmtree(self._work, ignore_errors=True)


class OutputBag:
    """Writes the messages of the original bag up to each frame, then the depth, camera_info and cloud of that frame.

    Args:
        path: as :class:`RawBagWriter`.
        bag: the original bag; it is read a second time, in step with the frames.
        settings: settings of the node.
        start, stop: messages with recording times from ``start`` to before ``stop`` (nanoseconds) are copied.
        with_input: also write the low-resolution input depth (for simulated input).

    Attributes:
        notes: sentences on topics that could not be copied and clouds that could not be written.
    """

    def __init__(
        self, path: Path, bag: Bag, settings: SimpleNamespace, start: int, stop: int, *, with_input: bool
    ) -> None:
        self._bag, self._settings, self._with_input = bag, settings, with_input
        self._writer = RawBagWriter(path)
        self.notes: list[str] = []
        copied = []
        for topic, kind in bag.topics.items():
            if topic in OUTPUTS or (bag.is_ros1 and kind not in TYPES):
                self.notes.append(f"{topic} ({kind}) was not copied to {path}")
                continue
            try:
                self._writer.add_topic(topic, kind, bag.definitions.get(topic, ""))
                copied.append(topic)
            except Exception as error:
                self.notes.append(f"{topic} ({kind}) was not copied to {path}: {error}")
        for topic, kind in OUTPUTS.items():
            if with_input or "input" not in topic:
                self._writer.add_topic(topic, kind)
        self._originals = bag.messages(copied, start, stop)
        self._next: Raw | None = next(self._originals, None)

    def add(self, done: Upsampled) -> None:
        """Copy the messages recorded up to this frame, then write its output."""
        frame = done.frame
        logged = frame.raw_color.logged
        self._copy_until(logged)
        header = frame.pair.color.header
        self._write("/stdnet/depth/image", logged, conversions.depth_to_image(done.depth, header))
        if self._with_input:
            low = conversions.depth_to_image(frame.depth_lr, frame.pair.depth.header)
            self._write("/stdnet/input/depth/image", logged, low)
        if done.info is None:
            return
        self._write("/stdnet/depth/camera_info", logged, done.info)
        color = frame.rgb if self._settings.points_color else None
        try:
            cloud = organized_cloud(
                done.depth,
                done.info,
                header,
                color=color,
                stride=self._settings.points_stride,
                rectified=self._settings.color_rectified,
            )
        except CameraInfoError as error:
            if not any("clouds" in note for note in self.notes):
                self.notes.append(f"no clouds were written: {error}")
            return
        self._write("/stdnet/points", logged, cloud)

    def close(self, *, complete: bool) -> None:
        """Copy the remaining messages (if the run was complete) and finish the file."""
        if complete:
            self._copy_until(None)
        self._writer.close()

    def _write(self, topic: str, logged: int, message: Any) -> None:
        self._writer.write(topic, logged, serialize_message(message))

    def _copy_until(self, logged: int | None) -> None:
        while self._next is not None and (logged is None or self._next.logged <= logged):
            self._writer.write(self._next.topic, self._next.logged, self._bag.cdr(self._next))
            self._next = next(self._originals, None)
