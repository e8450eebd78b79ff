"""What the launch files share that start the node together with another package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stdnet_ros.cameras import CAMERAS


class Topics(NamedTuple):
    """Full names of the topics that another package reads."""

    color: str
    color_info: str
    depth: str
    depth_info: str
    points: str


def topics(arguments: Mapping[str, str]) -> Topics:
    """Topics of colour and of the node's outputs, from the arguments of stdnet.launch.py."""
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


def require_package(name: str, how: str) -> str:
    """The share folder of a ROS package.

    Raises:
        RuntimeError: it is not installed; the message says how to install it.
    """
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return get_package_share_directory(name)
    except PackageNotFoundError:
        raise RuntimeError(f"the package {name} is not installed or its workspace is not sourced; {how}") from None


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` in it; mappings are merged, all else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
