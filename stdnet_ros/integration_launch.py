"""Shared code of the launch files that start the node together with another package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stdnet_ros.cameras import CAMERAS


class Topics(NamedTuple):
    """Full names of the topics that another package subscribes to."""

    color: str
    color_info: str
    depth: str
    depth_info: str
    points: str


def topics(arguments: Mapping[str, str]) -> Topics:
    """Topics of the colour camera and of the node's outputs, from the arguments of stdnet.launch.py."""
    preset = CAMERAS[arguments["camera"]]
    namespace = arguments["namespace"].strip("/")
    prefix = f"/{namespace}" if namespace else ""

    def absolute(topic: str) -> str:
        return topic if topic.startswith("/") else f"{prefix}/{topic}"

    node = f"{prefix}/{arguments['name']}"
    return Topics(
        absolute(arguments["color_topic"] or preset.color),
        absolute(arguments["color_info_topic"] or preset.color_info),
        f"{node}/depth/image",
        f"{node}/depth/camera_info",
        f"{node}/points",
    )


def beside_the_node(
    start: Callable[[Mapping[str, str], Mapping[str, Path]], list[Any]],
    arguments: Sequence[Any],
    packages: Sequence[str],
    how: str,
) -> Any:
    """A LaunchDescription of the node (stdnet.launch.py) and of the actions that ``start`` returns.

    Args:
        start: creates its actions from the values of all launch arguments and the share folders of ``packages``.
        arguments: launch arguments to declare in addition to the node's.
        packages: ROS packages that are needed; if one is missing, the launch fails before anything starts.
        how: how to install them, for the error message.
    """
    from ament_index_python.packages import get_package_share_directory
    from launch import LaunchDescription
    from launch.actions import IncludeLaunchDescription, OpaqueFunction
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    shares: dict[str, Path] = {}

    def check(context: Any) -> None:
        shares.update({name: Path(require_package(name, how)) for name in packages})

    def begin(context: Any) -> list[Any]:
        return start(context.launch_configurations, shares)

    node = Path(get_package_share_directory("stdnet_ros")) / "launch" / "stdnet.launch.py"
    return LaunchDescription(
        [
            *arguments,
            OpaqueFunction(function=check),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(node))),
            OpaqueFunction(function=begin),
        ]
    )


def require_package(name: str, how: str) -> str:
    """The share folder of a ROS package; the error says with ``how`` how to install it.

    Raises:
        RuntimeError: the package is not installed.
    """
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return get_package_share_directory(name)
    except PackageNotFoundError:
        raise RuntimeError(f"the package {name} is not installed or its workspace is not sourced; {how}") from None


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` updated with ``changes``; nested mappings are merged, other values are replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
