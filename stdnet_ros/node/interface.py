"""The node's topics and services: the tables of docs/topics.md (see :mod:`.reference`).

A test compares them with a running node. The tables need no ROS."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """A topic or a service.

    Attributes:
        name: as the node creates it: relative, or private with ``~``.
        kind: type of its messages, without ``/msg/`` or ``/srv/``.
        description: what it holds or does, in Markdown.
    """

    name: str
    kind: str
    description: str


INPUTS = (
    Endpoint(
        "color/image",
        "sensor_msgs/Image",
        "rgb8, bgr8, rgba8, bgra8, mono8, rgb16, bgr16, mono16, YUV 4:2:2 (uyvy, yuyv), nv12, nv21, or 8- or 16-bit "
        "Bayer",
    ),
    Endpoint(
        "color/camera_info",
        "sensor_msgs/CameraInfo",
        "of the colour image; needed to publish camera_info and clouds, not for depth",
    ),
    Endpoint(
        "depth/image",
        "sensor_msgs/Image",
        "32FC1 metres, or 16UC1 (mono16) millimetres, or either in units of `depth_unit`; 0, 65535, NaN, negative and "
        "infinite are invalid ([inputs.md](inputs.md))",
    ),
    Endpoint("depth/camera_info", "sensor_msgs/CameraInfo", "needed only to reproject depth from another camera"),
    Endpoint(
        "color/image/compressed",
        "sensor_msgs/CompressedImage",
        "instead of `color/image` with `color_transport: compressed`: JPEG or PNG",
    ),
    Endpoint(
        "depth/image/compressedDepth",
        "sensor_msgs/CompressedImage",
        "instead of `depth/image` with `depth_transport: compressedDepth`: 16UC1 or 32FC1, as PNG or RVL",
    ),
)
OUTPUTS = (
    Endpoint(
        "~/depth/image",
        "sensor_msgs/Image",
        "depth at the size of the colour image: 32FC1 metres along the optical axis, NaN invalid, or 16UC1 "
        "millimetres, 0 invalid, saturating at 65.535 m (`depth_encoding`)",
    ),
    Endpoint(
        "~/depth/camera_info",
        "sensor_msgs/CameraInfo",
        "K and P recomputed for that size; region of interest and binning are already applied",
    ),
    Endpoint(
        "~/points",
        "sensor_msgs/PointCloud2",
        "organised: one point per pixel (or per `points.stride`-th row and column), NaN where there is no depth; x, y, "
        "z and rgb",
    ),
    Endpoint(
        "~/confidence",
        "sensor_msgs/Image",
        "32FC1, 0 to 1: probability that the depth is off by less than 2 cm or 2 %",
    ),
    Endpoint("/diagnostics", "diagnostic_msgs/DiagnosticArray", "once a second, in every state"),
    Endpoint("~/transition_event", "lifecycle_msgs/TransitionEvent", "each change of the lifecycle's state"),
)
SERVICES = (
    Endpoint("~/enable", "std_srvs/SetBool", "pause and resume processing; the model stays loaded"),
    Endpoint("~/reset", "std_srvs/Trigger", "clear the temporal window and discard the queued messages"),
    Endpoint("~/change_state", "lifecycle_msgs/ChangeState", "a transition of the lifecycle; see below"),
    Endpoint("~/get_state", "lifecycle_msgs/GetState", "the state of the lifecycle"),
    Endpoint("~/get_available_states", "lifecycle_msgs/GetAvailableStates", "all its states"),
    Endpoint(
        "~/get_available_transitions", "lifecycle_msgs/GetAvailableTransitions", "the transitions from this state"
    ),
    Endpoint("~/get_transition_graph", "lifecycle_msgs/GetAvailableTransitions", "all its transitions"),
)
"""ROS adds those that every node has, for its parameters and types."""
