"""Starts the depth upsampling node: ``ros2 launch stdnet_ros stdnet.launch.py camera:=realsense``.

``ros2 launch stdnet_ros stdnet.launch.py --show-args`` lists the arguments. An argument that is left empty leaves the
value to the camera preset or to the parameter file."""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from stdnet_ros.cameras import CAMERAS

_SHARE = Path(get_package_share_directory("stdnet_ros"))


def _boolean(text):
    return text == "true"


# Launch argument -> type of the node parameter of the same name. Without the type, launch would read model:=8 as a
# number and sync_slop:=1 as an integer.
_PARAMETERS = {
    "method": str,
    "model": str,
    "device": str,
    "precision": str,
    "latency_frames": int,
    "color_transport": str,
    "depth_transport": str,
    "use_sim_time": _boolean,
    "autostart": _boolean,
}

_ARGUMENTS = {
    "camera": ("generic", f"Topics and parameters of a camera: {', '.join(CAMERAS)}", list(CAMERAS)),
    "color_topic": ("", "Colour image (sensor_msgs/Image). Empty: the camera's", None),
    "color_info_topic": ("", "camera_info of the colour image. Empty: the camera's", None),
    "depth_topic": ("", "Depth image of any resolution, registered to colour. Empty: the camera's", None),
    "depth_info_topic": ("", "camera_info of the depth image. Empty: the camera's", None),
    "namespace": ("", "Namespace of the node", None),
    "name": ("stdnet", "Name of the node; its outputs are <namespace>/<name>/depth/image and so on", None),
    "params_file": (str(_SHARE / "config" / "stdnet.yaml"), "Parameter file of the node", None),
    "use_sim_time": (
        "",
        "true: use /clock, e.g. for recordings played with --clock. Empty: the parameter file's",
        ["", "true", "false"],
    ),
    "autostart": (
        "",
        "Configure and activate at start; false for a lifecycle manager. Empty: the parameter file's",
        ["", "true", "false"],
    ),
    "log_level": ("info", "Log level of the node", ["debug", "info", "warn", "error", "fatal"]),
    "method": (
        "",
        "The node's parameter of this name, e.g. guided_temporal. Empty: the parameter file's",
        None,
    ),
    "model": ("", "Name of a shipped checkpoint or path of a .safetensors file. Empty: the parameter file's", None),
    "device": ("", "auto, cpu, cuda or cuda:N. Empty: the parameter file's", None),
    "precision": ("", "auto, fp32, fp16 or bf16. Empty: the parameter file's", None),
    "latency_frames": ("", "Following frames to wait for, 0 to 8. Empty: the parameter file's", None),
    "color_transport": ("", "raw or compressed. Empty: the parameter file's", None),
    "depth_transport": ("", "raw or compressedDepth. Empty: the parameter file's", None),
    "fastdds_profile": (
        str(_SHARE / "config" / "fastdds.xml"),
        "Fast DDS profile for large images on one machine; it keeps the node's topics on this machine. Empty: none. "
        "Not used where the environment names one",
        None,
    ),
}


def _middleware_environment(context):
    """Fast DDS's default transport loses most large messages; Humble reads the older variable."""
    profile = LaunchConfiguration("fastdds_profile").perform(context)
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    if not profile or any(os.environ.get(name) for name in names):
        return []
    return [SetEnvironmentVariable(names[os.environ.get("ROS_DISTRO") == "humble"], profile)]


def _node(context):
    def value(name):
        return LaunchConfiguration(name).perform(context)

    preset = CAMERAS[value("camera")]
    overrides = dict(preset.parameters)
    for name, kind in _PARAMETERS.items():
        if value(name):
            overrides[name] = kind(value(name))
    typed = {name: ParameterValue(item, value_type=type(item)) for name, item in overrides.items()}
    topics = {
        "color/image": value("color_topic") or preset.color,
        "color/camera_info": value("color_info_topic") or preset.color_info,
        "depth/image": value("depth_topic") or preset.depth,
        "depth/camera_info": value("depth_info_topic") or preset.depth_info,
    }
    return [
        Node(
            package="stdnet_ros",
            executable="stdnet_node",
            name=value("name"),
            namespace=value("namespace"),
            output="screen",
            emulate_tty=True,
            parameters=[value("params_file"), typed],
            remappings=[(name, topic) for name, topic in topics.items() if name != topic],
            arguments=["--ros-args", "--log-level", value("log_level")],
        )
    ]


def generate_launch_description():
    """The node with its arguments."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
        for name, (default, description, choices) in _ARGUMENTS.items()
    ]
    return LaunchDescription(
        [*declared, OpaqueFunction(function=_middleware_environment), OpaqueFunction(function=_node)]
    )
