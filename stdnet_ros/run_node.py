"""The executable ``stdnet_node``: it can be stopped while it imports the node, which takes seconds."""

from __future__ import annotations

from stdnet_ros import stopping


def main() -> None:
    """Run the node."""
    stopping.prepare()
    from stdnet_ros.node import main as run

    run()
