"""Finds the package's configuration files in a checkout, a pip installation and a colcon workspace."""

from __future__ import annotations

from pathlib import Path


def config_folder() -> Path | None:
    """The folder ``config`` that was installed with this code; None if there is none.

    It is searched next to the code, not in ``sys.prefix``. This works for a checkout, a venv, ``pip install --user``,
    ``--target`` and a colcon workspace, and never finds the files of another version."""
    package = Path(__file__).resolve().parent
    if (package.parent / "package.xml").is_file():
        return package.parent / "config"
    for folder in package.parents:
        config = folder / "share" / "stdnet_ros" / "config"
        if config.is_dir():
            return config
    return None
