"""Starts the node and RViz: ``ros2 launch stdnet_ros stdnet_rviz.launch.py camera:=realsense``.

Accepts all arguments of stdnet.launch.py. RViz shows colour, input depth, output depth and the cloud."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from stdnet_ros.cameras import CAMERAS

_SHARE = Path(get_package_share_directory("stdnet_ros"))


def _rviz(context):
    def value(name):
        return LaunchConfiguration(name).perform(context)

    preset = CAMERAS[value("camera")]
    namespace = value("namespace").strip("/")
    prefix = f"/{namespace}" if namespace else ""

    def absolute(topic):
        return topic if topic.startswith("/") else f"{prefix}/{topic}"

    outputs = f"{prefix}/{value('name')}"
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            name="stdnet_rviz",
            output="screen",
            arguments=["-d", value("rviz_config"), "-f", value("fixed_frame")],
            parameters=[{"use_sim_time": value("use_sim_time") == "true"}],
            remappings=[
                ("/stdnet/points", f"{outputs}/points"),
                ("/stdnet/depth/image", f"{outputs}/depth/image"),
                ("/color/image", absolute(value("color_topic") or preset.color)),
                ("/depth/image", absolute(value("depth_topic") or preset.depth)),
            ],
        )
    ]


def generate_launch_description():
    """The node's launch file and RViz."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "rviz_config",
                default_value=str(_SHARE / "config" / "stdnet.rviz"),
                description="RViz configuration file",
            ),
            DeclareLaunchArgument(
                "fixed_frame",
                default_value="camera_color_optical_frame",
                description="Fixed frame of RViz; the colour camera's optical frame needs no tf",
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(_SHARE / "launch" / "stdnet.launch.py"))),
            OpaqueFunction(function=_rviz),
        ]
    )
