"""The executable ``stdnet_node``: it can be stopped while it imports the node, which takes seconds; help comes without
ROS, and where ROS is missing a remedy."""

from __future__ import annotations

from stdnet_core.cli import require, run_cli
from stdnet_ros.node import stopping
from stdnet_ros.node.help import help_is_wanted, help_text


def main() -> None:
    """Entry point of the executable."""
    stopping.prepare()
    run_cli(_run)


def _run() -> None:
    if help_is_wanted(None):
        print(help_text(), end="")
        return
    require("rclpy", extra="ros")
    from stdnet_ros.node import node

    node.main()


if __name__ == "__main__":
    main()
