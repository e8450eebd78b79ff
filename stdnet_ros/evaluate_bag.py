"""The executable ``ros2 run stdnet_ros evaluate_bag BAG``; also ``python -m stdnet_ros.evaluate_bag BAG``."""

from __future__ import annotations

from stdnet_core.cli import run_cli
from stdnet_ros.bag_evaluation import command


def main() -> None:
    """Entry point of the executable."""
    run_cli(command.main)


if __name__ == "__main__":
    main()
