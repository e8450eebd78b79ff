"""Finds the configuration files of the node and its tools."""

from __future__ import annotations

from pathlib import Path

from stdnet_core.errors import StdnetError
from stdnet_core.shipped import config_folder


def config_file(name: str) -> Path:
    """The file ``config/name`` of this package.

    Raises:
        StdnetError: this installation has no such file.
    """
    folder = config_folder()
    if folder is None or not (folder / name).is_file():
        where = folder or f"no folder share/stdnet_ros/config above {Path(__file__).parent}"
        raise StdnetError(f"config/{name} of stdnet_ros was not found ({where}); install the package again")
    return folder / name
