"""Finds the package's configuration files in a checkout, a pip installation and a colcon workspace."""

from __future__ import annotations

from pathlib import Path


def config_folder() -> Path | None:
    """The folder ``config`` that belongs to this code; None if it was installed without it.

    It is searched for beside the code, not in ``sys.prefix``. This works in a checkout, a venv, a colcon workspace and
    with ``pip install --user`` or ``--target``, and never finds the files of another version."""
    package = Path(__file__).resolve().parent
    if (package.parent / "package.xml").is_file():
        return package.parent / "config"
    for folder in package.parents:
        config = folder / "share" / "stdnet_ros" / "config"
        if config.is_dir():
            return config
    return None
