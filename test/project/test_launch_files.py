"""Launch files and configurations agree with the node.

The launch system comes with a ROS distribution alone; where it is installed the launch files are run through it."""

from __future__ import annotations

import ast
import json
import xml.etree.ElementTree as ElementTree

import pytest
import rclpy
import yaml
from ros_fixtures import ROOT, NearestUpsampler

from stdnet_ros.cameras import CAMERAS
from stdnet_ros.integration_launch import merged, require_package, topics
from stdnet_ros.node import parameters
from stdnet_ros.node.node import StdnetNode

SPECS = {spec.name: spec for spec in parameters.PARAMETERS}
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))


def test_parameter_file_is_accepted_and_has_no_unknown_names():
    path = ROOT / "config" / "stdnet.yaml"
    context = rclpy.Context()
    rclpy.init(context=context)
    node = StdnetNode(
        context=context,
        cli_args=["--ros-args", "--params-file", str(path)],
        upsampler_factory=lambda settings, **_: NearestUpsampler(),
    )
    try:
        assert node.start()
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    values = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    flat = {k: v for k, v in values.items() if not isinstance(v, dict)}
    for group, members in values.items():
        if isinstance(members, dict):
            flat.update({f"{group}.{k}": v for k, v in members.items()})
    assert parameters.unknown_names(list(flat)) == []
    assert flat.keys() >= {"method", "model", "latency_frames", "points.stride"}
    # The launch files load it: another value here would be the default of those alone.
    assert {name: SPECS[name].parse(value) for name, value in flat.items()} == {n: SPECS[n].default for n in flat}
    assert parameters.unknown_names(["modle", "use_sim_time", "qos_overrides./x.publisher.depth"]) == ["modle"]


def test_camera_presets_are_complete():
    for name, preset in CAMERAS.items():
        topics = [preset.color, preset.color_info, preset.depth, preset.depth_info]
        assert len(set(topics)) == 4
        assert all(topic.startswith("/") for topic in topics) is (name != "generic")
        for parameter, value in preset.parameters.items():
            assert SPECS[parameter].parse(value) == value
        assert preset.color in (ROOT / "docs" / "cameras.md").read_text()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_arguments_have_the_parameters_types(path):
    tree = ast.parse(path.read_text())
    tables = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_PARAMETERS"
    ]
    for table in tables:
        for key, kind in zip(table.keys, table.values, strict=True):
            default = False if key.value == "use_sim_time" else SPECS[key.value].default  # rclpy declares that one
            assert type(default).__name__ == kind.id.replace("_boolean", "bool"), key.value
    assert bool(tables) is (path.name == "stdnet.launch.py")


def test_fast_dds_profile_has_a_large_segment_and_the_loopback():
    space = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"
    root = ElementTree.parse(ROOT / "config" / "fastdds.xml").getroot()
    transports = {t.find(f"{space}type").text: t for t in root.iter(f"{space}transport_descriptor")}
    assert int(transports["SHM"].find(f"{space}segment_size").text) == 64 * 2**20
    assert int(transports["SHM"].find(f"{space}healthy_check_timeout_ms").text) == 4000
    assert transports["UDPv4"].find(f".//{space}address").text == "127.0.0.1"
    used = {t.text for t in root.iter(f"{space}userTransports") for t in t}
    assert used == {t.find(f"{space}transport_id").text for t in transports.values()}


def test_rviz_shows_the_nodes_topics():
    displays = yaml.safe_load((ROOT / "config" / "stdnet.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"]: display["Topic"]["Reliability Policy"] for display in displays}
    assert shown["/stdnet/points"] == shown["/stdnet/depth/image"] == "Reliable"
    # Camera drivers publish best effort; a reliable display would stay black.
    assert shown["/color/image"] == shown["/depth/image"] == "Best Effort"


def test_foxglove_layout_names_only_panels_that_it_has():
    layout = json.loads((ROOT / "config" / "foxglove_layout.json").read_text())

    def panels(part):
        return {part} if isinstance(part, str) else panels(part["first"]) | panels(part["second"])

    assert panels(layout["layout"]) == set(layout["configById"])
    assert "/stdnet/points" in json.dumps(layout["configById"])


@pytest.mark.parametrize("camera", list(CAMERAS))
def test_launch_file_gives_the_cameras_topics(camera, monkeypatch, tmp_path):
    """With the genuine launch system: every argument is described, and the node gets the preset's topics."""
    pytest.importorskip("launch_ros", reason="comes with a ROS distribution")
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "stdnet_ros").touch()
    share = tmp_path / "share" / "stdnet_ros"
    share.mkdir()
    (share / "config").symlink_to(ROOT / "config")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    description = get_launch_description_from_python_launch_file(str(ROOT / "launch" / "stdnet.launch.py"))
    context = LaunchContext()
    context.launch_configurations.update(camera=camera, model="8", latency_frames="2")
    nodes = []
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            assert len(entity.description) > 5, entity.name
            entity.execute(context)
        elif isinstance(entity, OpaqueFunction):
            nodes += entity.execute(context) or []
    (node,) = [entity for entity in nodes if type(entity).__name__ == "Node"]
    node._perform_substitutions(context)
    remappings = dict(node.expanded_remapping_rules or [])
    if camera == "generic":
        assert remappings == {}
    else:
        assert remappings["depth/camera_info"] == CAMERAS[camera].depth_info


def test_topics_for_other_packages_are_those_the_node_publishes():
    arguments = dict.fromkeys(("color_topic", "color_info_topic"), "") | {"namespace": "robot", "name": "stdnet"}
    topic = topics(arguments | {"camera": "generic"})
    assert (topic.color, topic.depth) == ("/robot/color/image", "/robot/stdnet/depth/image")
    assert topics(arguments | {"camera": "realsense"}).color == "/camera/camera/color/image_raw"
    assert topic.points == "/robot/stdnet/points"


def test_a_missing_package_is_named_with_its_installation(monkeypatch, tmp_path):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"nav2_bringup is not installed.*apt install x"):
        require_package("nav2_bringup", "apt install x")


@pytest.mark.parametrize(
    ("name", "packages", "started"),
    [
        ("nav2", ["nav2_bringup"], ["IncludeLaunchDescription"]),
        ("nvblox", ["nvblox_ros"], ["Node"]),
        ("rtabmap", ["rtabmap_sync", "rtabmap_odom", "rtabmap_slam"], ["Node", "Node", "Node"]),
    ],
)
def test_an_integration_starts_the_node_and_what_it_needs(name, packages, started, monkeypatch, tmp_path):
    """With the genuine launch system: missing packages come before the node, and the other package after it."""
    pytest.importorskip("launch_ros", reason="comes with a ROS distribution")
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    for package in ("stdnet_ros", *packages):
        (tmp_path / "share" / package).mkdir()
    for folder in ("config", "launch"):
        (tmp_path / "share" / "stdnet_ros" / folder).symlink_to(ROOT / folder)
    (index / "stdnet_ros").touch()
    nav2 = tmp_path / "share" / packages[0] / "params" / "nav2_params.yaml"
    nav2.parent.mkdir()
    nav2.write_text("controller_server: {}")
    descriptions = [
        get_launch_description_from_python_launch_file(str(ROOT / "launch" / f"{file}.launch.py"))
        for file in ("stdnet", f"stdnet_{name}")
    ]
    context = LaunchContext()
    for entity in (entity for description in descriptions for entity in description.entities):
        if isinstance(entity, DeclareLaunchArgument):
            assert len(entity.description) > 5, entity.name
            entity.execute(context)
    check, node, begin = descriptions[1].entities[-3:]
    with pytest.raises(RuntimeError, match=f"{packages[0]} is not installed.*ros-"):
        check.execute(context)
    for package in packages:
        (index / package).touch()
    assert check.execute(context) is None
    node.launch_description_source.get_launch_description(context)
    assert node.launch_description_source.location.endswith("launch/stdnet.launch.py")
    assert [type(action).__name__ for action in begin.execute(context)] == started


def test_the_costmap_keeps_what_it_had():
    base = yaml.safe_load(
        "local_costmap: {local_costmap: {ros__parameters: {voxel_layer: {z_voxels: 16, scan: {a: 1}}}}}"
    )
    changes = yaml.safe_load((ROOT / "config" / "nav2_costmap.yaml").read_text())
    layer = merged(base, changes)["local_costmap"]["local_costmap"]["ros__parameters"]["voxel_layer"]
    assert layer["z_voxels"] == 16
    assert layer["scan"] == {"a": 1}
    assert set(layer["observation_sources"].split()) == {"scan", "stdnet"} <= set(layer)
