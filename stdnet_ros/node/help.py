"""The output of ``stdnet_node --help``: topics, parameters from the node's own table, and an example."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from stdnet_ros.node.parameters import PARAMETERS

_HEAD = """\
usage: stdnet_node [--ros-args [-r FROM:=TO ...] [-p NAME:=VALUE ...] [--params-file FILE]]

Upsamples the depth of a live camera to the resolution of its colour image, guided by the colour video.

subscribes to:
  color/image, color/camera_info    the colour camera
  depth/image, depth/camera_info    depth registered to colour, of any resolution
publishes, while an output has a subscriber:
  ~/depth/image                     32FC1, metres, NaN where depth is invalid
  ~/depth/camera_info, ~/points, ~/confidence
services: ~/enable, ~/reset; state on /diagnostics once a second

parameters (name:=default):
"""
_FOOT = """
example:
  stdnet_node --ros-args -r color/image:=/camera/color/image_raw -r color/camera_info:=/camera/color/camera_info \\
      -r depth/image:=/camera/aligned_depth/image_raw -p method:=auto
The node idles while no output has a subscriber. Start RViz, or run "ros2 topic hz /stdnet/depth/image" (needs a ROS
distribution).
"""


def help_text() -> str:
    """The complete help text."""
    rows = ((f"  {s.name}:={_shown(s.default)}", _first_sentence(s.description)) for s in PARAMETERS)
    lines = (textwrap.fill(f"{name:30} {text}", 110, subsequent_indent=" " * 31) for name, text in rows)
    return _HEAD + "\n".join(lines) + "\n" + _FOOT


def help_is_wanted(arguments: Sequence[str] | None) -> bool:
    """Whether ``--help`` or ``-h`` is among the arguments (None: those of the process)."""
    return not {"-h", "--help"}.isdisjoint(sys.argv[1:] if arguments is None else arguments)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return "[...]"
    return f"{default:g}" if isinstance(default, float) else str(default) or '""'


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].partition("; ")[0].removesuffix(".")
