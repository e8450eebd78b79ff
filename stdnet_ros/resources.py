"""Finds the package's configuration files in a checkout, a pip installation and a colcon workspace."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stdnet_core.errors import StdnetError

_PACKAGE = "stdnet_ros"


def config_file(name: str) -> Path:
    """The file ``config/name`` of this package.

    Raises:
        StdnetError: it is in none of the places.
    """
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    shares = [prefix / "share" / _PACKAGE for prefix in [*prefixes, Path(sys.prefix)]]
    candidates = [folder / "config" / name for folder in [Path(__file__).resolve().parents[1], *shares]]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise StdnetError(f"config/{name} of {_PACKAGE} was not found in {', '.join(str(c.parent) for c in candidates)}")
