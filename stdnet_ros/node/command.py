"""The executable ``stdnet_node``: it can be stopped while it imports the node, which takes seconds; help comes without
ROS, and where ROS is missing a remedy."""

from __future__ import annotations

from stdnet_ros.node import stopping


def main() -> None:
    """Entry point of the executable."""
    stopping.prepare()  # before the other imports
    from stdnet_core.cli import run_cli

    run_cli(_run)


def _run() -> None:
    from stdnet_core.cli import require
    from stdnet_ros.node.help import help_is_wanted, help_text

    if help_is_wanted(None):
        print(help_text(), end="")
        return
    require("rclpy", extra="ros")
    from stdnet_ros.node import node

    node.main()


if __name__ == "__main__":
    main()
