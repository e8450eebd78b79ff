"""Starts the node and nvblox, which builds a map from the node's depth.

``ros2 launch stdnet_ros stdnet_nvblox.launch.py`` accepts all arguments of stdnet.launch.py; see
docs/integrations.md."""

from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node

from stdnet_ros.integration_launch import beside_the_node, topics


def _nvblox(arguments, _):
    topic = topics(arguments)
    return [
        Node(
            package="nvblox_ros",
            executable="nvblox_node",
            name="nvblox_node",
            output="screen",
            parameters=[
                {
                    "global_frame": arguments["global_frame"],
                    "voxel_size": float(arguments["voxel_size"]),
                    "num_cameras": 1,
                    "use_color": True,
                    "use_lidar": False,
                    "input_qos": "SENSOR_DATA",
                    "use_sim_time": arguments["use_sim_time"] == "true",
                }
            ],
            remappings=[
                ("camera_0/depth/image", topic.depth),
                ("camera_0/depth/camera_info", topic.depth_info),
                ("camera_0/color/image", topic.color),
                ("camera_0/color/camera_info", topic.color_info),
            ],
        )
    ]


def generate_launch_description():
    """The node's launch file and nvblox."""
    arguments = [
        DeclareLaunchArgument(
            "global_frame", default_value="odom", description="Frame of the map; tf must connect it to the camera"
        ),
        DeclareLaunchArgument("voxel_size", default_value="0.05", description="Edge length of a voxel in metres"),
    ]
    how = "it is part of Isaac ROS: apt install ros-$ROS_DISTRO-isaac-ros-nvblox"
    return beside_the_node(_nvblox, arguments, ["nvblox_ros"], how)
