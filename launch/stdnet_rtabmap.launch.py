"""Starts the node and RTAB-Map, which builds a map from the node's depth.

``ros2 launch stdnet_ros stdnet_rtabmap.launch.py`` accepts all arguments of stdnet.launch.py; see
docs/integrations.md."""

from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node

from stdnet_ros.integration_launch import beside_the_node, topics


def _rtabmap(arguments, _):
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
                    "approx_sync": False,  # depth has the stamp of its colour image
                    "topic_queue_size": 30,  # colour images wait here while the node computes their depth
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
    """The node's launch file and RTAB-Map's nodes."""
    arguments = [
        DeclareLaunchArgument(
            "frame_id", default_value="base_link", description="Frame of the robot; tf must connect it to the camera"
        ),
        DeclareLaunchArgument(
            "visual_odometry",
            default_value="true",
            description="true: compute odometry from colour and depth; false: the robot publishes odom",
            choices=["true", "false"],
        ),
    ]
    how = "on Debian and Ubuntu: apt install ros-$ROS_DISTRO-rtabmap-ros"
    return beside_the_node(_rtabmap, arguments, ["rtabmap_sync", "rtabmap_odom", "rtabmap_slam"], how)
