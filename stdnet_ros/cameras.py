"""Topics of common cameras: the presets of the launch file (see docs/cameras.md)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CameraPreset:
    """Topics of a driver that publishes depth registered to colour, and the node parameters that it requires."""

    color: str
    color_info: str
    depth: str
    depth_info: str
    parameters: dict[str, bool | float | str] = field(default_factory=dict)


CAMERAS = {
    "generic": CameraPreset("color/image", "color/camera_info", "depth/image", "depth/camera_info"),
    "realsense": CameraPreset(
        "/camera/camera/color/image_raw",
        "/camera/camera/color/camera_info",
        "/camera/camera/aligned_depth_to_color/image_raw",
        "/camera/camera/aligned_depth_to_color/camera_info",
    ),
    "azure_kinect": CameraPreset(
        "/rgb/image_raw",
        "/rgb/camera_info",
        "/depth_to_rgb/image_raw",
        "/depth_to_rgb/camera_info",
        # Its colour image is not rectified, and depth_to_rgb is warped onto the distorted image.
        {"color_rectified": False},
    ),
    "oakd": CameraPreset(
        "/oak/rgb/image_raw", "/oak/rgb/camera_info", "/oak/stereo/image_raw", "/oak/stereo/camera_info"
    ),
}
