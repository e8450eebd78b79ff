"""The node's parameters for an offline run, with the file format, checks and defaults of the live node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stdnet_core.cli import require
from stdnet_core.errors import ConfigError
from stdnet_ros.node import parameters

_NODE_KEYS = ("/**", "**", "/**/stdnet", "stdnet", "/stdnet")


def read_params_file(path: Path) -> dict[str, Any]:
    """Read a ROS parameter file as a node named ``stdnet`` would; nested names are joined with dots.

    Raises:
        ConfigError: the file does not exist, is not YAML, or has no ``ros__parameters`` for the node.
    """
    yaml = require("yaml", extra="ros")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({str(error).splitlines()[0]})") from error
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{path}: expected node names with ros__parameters below them, found {type(content).__name__}"
        )
    sections = [content[key]["ros__parameters"] for key in _NODE_KEYS if _has_parameters(content.get(key))]
    if not sections:
        raise ConfigError(
            f"{path}: no ros__parameters for the node; expected a section {_NODE_KEYS[0]!r} or 'stdnet', "
            f"found {', '.join(map(str, content)) or 'nothing'}"
        )
    values: dict[str, Any] = {}
    for section in sections:
        values.update(_flat(section))
    return values


def make_settings(params_file: Path | None, changes: Mapping[str, Any]) -> tuple[SimpleNamespace, dict[str, Any]]:
    """The checked settings for the node's code, and the values that were given explicitly.

    Args:
        params_file: ROS parameter file, or None.
        changes: parameters that override the file; None values are ignored.

    Raises:
        ConfigError: a parameter is unknown or refused.
    """
    values = read_params_file(params_file) if params_file is not None else {}
    values.update({name: value for name, value in changes.items() if value is not None})
    unknown = parameters.unknown_names(list(values))
    if unknown:
        raise ConfigError(f"the node has no parameter {', '.join(unknown)}; 'stdnet_node --help' lists them")
    known = {spec.name for spec in parameters.PARAMETERS}
    values = {name: value for name, value in values.items() if name in known}
    return parameters.settings_from(values), values


def _has_parameters(section: Any) -> bool:
    return isinstance(section, Mapping) and isinstance(section.get("ros__parameters"), Mapping)


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            values.update(_flat(value, f"{prefix}{name}."))
        else:
            values[f"{prefix}{name}"] = value
    return values
