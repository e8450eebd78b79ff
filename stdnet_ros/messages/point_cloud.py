"""Organised point clouds: one point per pixel, NaN where there is no depth.

An organised cloud keeps the rows and columns of the image, so normals, edges and crops can be computed on arrays."""

from __future__ import annotations

import array

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField

from stdnet_ros.messages.camera_info import viewing_rays
from stdnet_ros.messages.conversions import give_data

_WITHOUT_ALPHA = np.frombuffer(b"\xff\xff\xff\x00", np.uint32)[0]


class CloudMemory:
    """Memory that is reused for successive clouds.

    Allocating five megabytes for each frame costs more than computing the cloud, and ``publish`` copies the message
    before it returns. A cloud in this memory is therefore valid until the next one is written."""

    def __init__(self) -> None:
        self._bytes = array.array("B")

    def take(self, height: int, width: int, channels: int) -> tuple[array.array, np.ndarray]:
        """The memory, as the bytes of a message and as a float32 array (height, width, channels)."""
        size = 4 * height * width * channels
        if len(self._bytes) != size:
            self._bytes = array.array("B", bytes(size))
        return self._bytes, np.frombuffer(self._bytes, np.float32).reshape(height, width, channels)


def organized_cloud(
    depth: np.ndarray,
    info: CameraInfo,
    header,
    *,
    color: np.ndarray | None = None,
    stride: int = 1,
    rectified: bool = True,
    memory: CloudMemory | None = None,
) -> PointCloud2:
    """Create the point cloud of a depth image.

    Args:
        depth: (H, W) float32 metres along the optical axis, NaN invalid.
        info: camera_info for that image, with its width and height.
        header: std_msgs Header, used without a copy.
        color: (H, W, 3) uint8 RGB for an XYZRGB cloud, None for XYZ.
        stride: use every stride-th row and column.
        rectified: whether the image is free of lens distortion; if not, the distortion is removed from the rays.
        memory: memory to write the cloud into; None allocates it.

    Returns:
        a cloud of ceil(H / stride) x ceil(W / stride) points with float32 fields x, y, z and, with colour,
        rgb (packed as RViz and PCL expect it).

    Raises:
        CameraInfoError: the camera is not calibrated, or its distortion model is unknown.
    """
    ray_x, ray_y = viewing_rays(info, rectified, stride)
    z = np.ascontiguousarray(depth[::stride, ::stride])
    planes = [ray_x * z, ray_y * z, z]
    names = ["x", "y", "z"]
    if color is not None:
        bgr0 = cv2.cvtColor(np.ascontiguousarray(color[::stride, ::stride]), cv2.COLOR_RGB2BGRA).view(np.uint32)
        bgr0 &= _WITHOUT_ALPHA
        planes.append(bgr0.view(np.float32)[..., 0])
        names.append("rgb")
    data, points = (memory or CloudMemory()).take(*z.shape, len(planes))
    cv2.merge(planes, points)

    cloud = PointCloud2()
    cloud.header = header
    cloud.height, cloud.width = z.shape
    cloud.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(names)
    ]
    cloud.is_bigendian = False
    cloud.point_step = 4 * len(names)
    cloud.row_step = cloud.point_step * cloud.width
    cloud.is_dense = False
    give_data(cloud, data)
    return cloud
