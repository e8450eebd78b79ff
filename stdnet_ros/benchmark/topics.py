"""Names and quality of service shared by the benchmark's processes, and the messages of its camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from stdnet_ros.demo.topics import FRAME_ID, INPUTS, NODE_NAME, camera_info
from stdnet_ros.messages.conversions import array_to_image

NAMESPACE = "/benchmark"
DIAGNOSTICS = "/diagnostics"
DEPTH_OUT, INFO_OUT, POINTS_OUT = (f"{NODE_NAME}/{name}" for name in ("depth/image", "depth/camera_info", "points"))


def qos(depth: int = 10) -> QoSProfile:
    """Reliable, which is the default of camera drivers and viewers."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def message_type(topic: str) -> type:
    """Message type of one of the camera's topics."""
    return CameraInfo if topic.endswith("camera_info") else Image


@dataclass(frozen=True)
class Scene:
    """A textured wall, tilted away from the camera: ``width`` x ``height`` colour, depth ``scale`` times smaller."""

    width: int
    height: int
    scale: int

    def messages(self, seed: int = 0) -> dict[str, Image | CameraInfo]:
        """One message for each topic of the camera, in the order of sending, without stamps."""
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 255, (self.height // 8 + 1, self.width // 8 + 1, 3), np.uint8)
        color = coarse.repeat(8, 0).repeat(8, 1)[: self.height, : self.width]
        rows, columns = self.height // self.scale, self.width // self.scale
        depth = 1.0 / (np.linspace(0.2, 0.6, rows)[:, None] + np.linspace(0.0, 0.1, columns)[None])
        header = Header(frame_id=FRAME_ID)
        f = 0.9 * self.width
        info = {
            size: camera_info(
                (f * size[0] / self.width, f * size[0] / self.width, size[0] / 2, size[1] / 2), *size, header
            )
            for size in ((self.width, self.height), (columns, rows))
        }
        made = {
            "color/camera_info": info[self.width, self.height],
            "depth/camera_info": info[columns, rows],
            "color/image": array_to_image(np.ascontiguousarray(color), header, "rgb8"),
            "depth/image": array_to_image(depth.astype(np.float32), header, "32FC1"),
        }
        assert set(made) == set(INPUTS)
        return made
