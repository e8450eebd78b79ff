"""The executable ``stdnet_node``.

It reacts to Ctrl-C even while it imports the node, which takes seconds. ``--help`` works without ROS. Starting the node
without ROS is an error that says how to install it."""

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
