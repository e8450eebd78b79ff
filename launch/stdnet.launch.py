"""Starts the depth upsampling node: ``ros2 launch stdnet_ros stdnet.launch.py camera:=realsense``.

``ros2 launch stdnet_ros stdnet.launch.py --show-args`` lists the arguments. If an argument is empty, the camera preset
or the parameter file gives the value."""

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


# Launch argument -> type of the node parameter with the same name. Without the type, launch would pass model:=8 as a
# number.
_PARAMETERS = {
    "method": str,
    "model": str,
    "device": str,
    "precision": str,
    "backend": str,
    "latency_frames": int,
    "color_transport": str,
    "depth_transport": str,
    "use_sim_time": _boolean,
    "autostart": _boolean,
}

_RESPAWN_DELAY = 2.0
"""Seconds; without a delay, a node that cannot start (a refused parameter) would use a processor up."""

_FROM_PRESET = "Empty: the topic of the camera preset"
_FROM_FILE = "Empty: the value in the parameter file"

_ARGUMENTS = {
    "camera": ("generic", f"Camera preset of topics and parameters: {', '.join(CAMERAS)}", list(CAMERAS)),
    "color_topic": ("", f"Topic of the colour images. {_FROM_PRESET}", None),
    "color_info_topic": ("", f"Topic of the colour camera's camera_info. {_FROM_PRESET}", None),
    "depth_topic": ("", f"Topic of the depth images, of any resolution, registered to colour. {_FROM_PRESET}", None),
    "depth_info_topic": ("", f"Topic of the depth camera's camera_info. {_FROM_PRESET}", None),
    "namespace": ("", "Namespace of the node", None),
    "name": ("stdnet", "Name of the node; its outputs are <namespace>/<name>/depth/image and so on", None),
    "params_file": (str(_SHARE / "config" / "stdnet.yaml"), "Parameter file of the node", None),
    "use_sim_time": (
        "",
        f"true: use the time on /clock, for example for recordings played with --clock. {_FROM_FILE}",
        ["", "true", "false"],
    ),
    "autostart": (
        "",
        f"true: configure and activate at start; false: a lifecycle manager does this. {_FROM_FILE}",
        ["", "true", "false"],
    ),
    "respawn": (
        "true",
        f"true: start the node again, after {_RESPAWN_DELAY:g} seconds, whenever it ends, for example by its watchdog",
        ["true", "false"],
    ),
    "log_level": ("info", "Log level of the node", ["debug", "info", "warn", "error", "fatal"]),
    "method": (
        "",
        f"How depth is upsampled, for example guided_temporal (see docs/parameters.md). {_FROM_FILE}",
        None,
    ),
    "model": ("", f"Name of a shipped checkpoint, or path of a .safetensors file. {_FROM_FILE}", None),
    "device": ("", f"auto, cpu, cuda or cuda:N. {_FROM_FILE}", None),
    "precision": ("", f"auto, fp32, fp16 or bf16. {_FROM_FILE}", None),
    "backend": ("", f"What runs the network: torch, or openvino, which is faster on a CPU. {_FROM_FILE}", None),
    "latency_frames": ("", f"How many following frames each frame waits for, 0 to 8. {_FROM_FILE}", None),
    "color_transport": ("", f"Transport of the colour images: raw or compressed. {_FROM_FILE}", None),
    "depth_transport": ("", f"Transport of the depth images: raw or compressedDepth. {_FROM_FILE}", None),
    "fastdds_profile": (
        str(_SHARE / "config" / "fastdds.xml"),
        "Fast DDS profile for large images; other machines cannot see the node's topics with it. Empty: no profile. "
        "Ignored if the environment already sets a profile",
        None,
    ),
}


def _middleware_environment(context):
    """Set the Fast DDS profile, since the default transport loses most large messages.

    Humble reads it from the older variable."""
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
            respawn=value("respawn") == "true",
            respawn_delay=_RESPAWN_DELAY,
            parameters=[value("params_file"), typed],
            remappings=[(name, topic) for name, topic in topics.items() if name != topic],
            arguments=["--ros-args", "--log-level", value("log_level")],
        )
    ]


def generate_launch_description():
    """The node and its launch arguments."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
        for name, (default, description, choices) in _ARGUMENTS.items()
    ]
    return LaunchDescription(
        [*declared, OpaqueFunction(function=_middleware_environment), OpaqueFunction(function=_node)]
    )
