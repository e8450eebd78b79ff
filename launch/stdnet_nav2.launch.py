"""Starts the node and Nav2, whose local costmap uses the node's cloud.

``ros2 launch stdnet_ros stdnet_nav2.launch.py`` accepts all arguments of stdnet.launch.py; see docs/integrations.md."""

import tempfile
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from stdnet_ros.integration_launch import beside_the_node, merged, topics


def _nav2(arguments, shares):
    bringup = shares["nav2_bringup"]
    base = yaml.safe_load(Path(arguments["nav2_params_file"] or bringup / "params" / "nav2_params.yaml").read_text())
    changes = yaml.safe_load(Path(arguments["costmap_file"]).read_text())
    layer = changes["local_costmap"]["local_costmap"]["ros__parameters"]["voxel_layer"]
    layer["stdnet"]["topic"] = topics(arguments).points
    with tempfile.NamedTemporaryFile("w", prefix="stdnet_nav2_", suffix=".yaml", delete=False) as file:
        yaml.safe_dump(merged(base, changes), file)
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(bringup / "launch" / "navigation_launch.py")),
            launch_arguments={
                "params_file": file.name,
                "namespace": "",
                "use_sim_time": arguments["use_sim_time"] or "false",
                "autostart": "true",
            }.items(),
        )
    ]


def generate_launch_description():
    """The node's launch file and Nav2's."""
    arguments = [
        DeclareLaunchArgument(
            "nav2_params_file", default_value="", description="Parameter file of Nav2. Empty: that of nav2_bringup"
        ),
        DeclareLaunchArgument(
            "costmap_file",
            default_value=str(Path(get_package_share_directory("stdnet_ros")) / "config" / "nav2_costmap.yaml"),
            description="Parameters to merge into those of Nav2; they add the cloud to the local costmap",
        ),
    ]
    how = "on Debian and Ubuntu: apt install ros-$ROS_DISTRO-nav2-bringup"
    return beside_the_node(_nav2, arguments, ["nav2_bringup"], how)
