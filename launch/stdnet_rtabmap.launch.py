"""The node and RTAB-Map, which maps the node's depth: ``ros2 launch stdnet_ros stdnet_rtabmap.launch.py``.

Takes all arguments of stdnet.launch.py; see docs/integrations.md."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from stdnet_ros.integration_launch import require_package, topics

_SHARE = Path(get_package_share_directory("stdnet_ros"))


def _check(context):
    for package in ("rtabmap_sync", "rtabmap_odom", "rtabmap_slam"):
        require_package(package, "on Debian and Ubuntu: apt install ros-$ROS_DISTRO-rtabmap-ros")


def _rtabmap(context):
    arguments = context.launch_configurations
    topic = topics(arguments)
    use_sim_time = arguments["use_sim_time"] == "true"
    mapping = {"frame_id": arguments["frame_id"], "subscribe_rgbd": True, "use_sim_time": use_sim_time}
    nodes = [
        Node(
            package="rtabmap_sync",
            executable="rgbd_sync",
            output="screen",
            parameters=[
                {
                    "approx_sync": False,  # depth carries colour's stamp
                    "topic_queue_size": 30,  # colour waits here while the node computes its depth
                    "sync_queue_size": 30,
                    "qos": 2,
                    "use_sim_time": use_sim_time,
                }
            ],
            remappings=[
                ("rgb/image", topic.color),
                ("rgb/camera_info", topic.color_info),
                ("depth/image", topic.depth),
            ],
        ),
        Node(package="rtabmap_slam", executable="rtabmap", output="screen", parameters=[mapping]),
    ]
    if arguments["visual_odometry"] == "true":
        nodes.append(Node(package="rtabmap_odom", executable="rgbd_odometry", output="screen", parameters=[mapping]))
    return nodes


def generate_launch_description():
    """The node's launch file, then RTAB-Map's nodes."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "frame_id", default_value="base_link", description="Frame of the robot; tf must lead to the camera"
            ),
            DeclareLaunchArgument(
                "visual_odometry",
                default_value="true",
                description="true: odometry from colour and depth; false: the robot publishes odom",
                choices=["true", "false"],
            ),
            OpaqueFunction(function=_check),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(_SHARE / "launch" / "stdnet.launch.py"))),
            OpaqueFunction(function=_rtabmap),
        ]
    )
