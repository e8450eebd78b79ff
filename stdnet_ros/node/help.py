"""What ``stdnet_node --help`` prints: topics, parameters and an example, from the tables that the node itself uses."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from stdnet_ros.node.parameters import PARAMETERS

_HEAD = """\
usage: stdnet_node [--ros-args [-r FROM:=TO ...] [-p NAME:=VALUE ...] [--params-file FILE]]

Dense depth at the colour image's resolution from the depth and the colour video of a camera, live.

subscribes to:
  color/image, color/camera_info    the colour camera
  depth/image, depth/camera_info    its depth, registered to colour, of any resolution
publishes, while somebody subscribes:
  ~/depth/image                     32FC1, metres, NaN where there is none
  ~/depth/camera_info, ~/points, ~/confidence
services: ~/enable, ~/reset; state once a second on /diagnostics

parameters (name:=default):
"""
_FOOT = """
example:
  stdnet_node --ros-args -r color/image:=/camera/color/image_raw -r color/camera_info:=/camera/color/camera_info \\
      -r depth/image:=/camera/aligned_depth/image_raw -p method:=auto
It works while somebody subscribes, and idles else: RViz, or "ros2 topic hz /stdnet/depth/image" of a ROS distribution.
"""


def help_text() -> str:
    """The whole help."""
    rows = ((f"  {s.name}:={_shown(s.default)}", _first_sentence(s.description)) for s in PARAMETERS)
    lines = (textwrap.fill(f"{name:30} {text}", 110, subsequent_indent=" " * 31) for name, text in rows)
    return _HEAD + "\n".join(lines) + "\n" + _FOOT


def help_is_wanted(arguments: Sequence[str] | None) -> bool:
    """Whether ``--help`` or ``-h`` is among the arguments; None: those of the process."""
    return not {"-h", "--help"}.isdisjoint(sys.argv[1:] if arguments is None else arguments)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return "[...]"
    return f"{default:g}" if isinstance(default, float) else str(default) or '""'


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].partition("; ")[0].removesuffix(".")
