"""Checks that the configurations of both networks share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stdnet_core.errors import ConfigError


def check_whole_numbers(config: Any, limits: Iterable[tuple[str, int, int]]) -> None:
    """Check that fields are whole numbers within their limits (name, lowest, highest).

    Raises:
        ConfigError: a field is not; the message names it.
    """
    for name, low, high in limits:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"model.{name} is {value!r:.60}; it must be a whole number from {low} to {high}")


def check_number(config: Any, name: str, high: float) -> None:
    """Check that a field is a number above 0 and at most ``high``.

    Raises:
        ConfigError: it is not; the message names the field.
    """
    value = getattr(config, name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= high:
        raise ConfigError(f"model.{name} is {value!r:.60}; give a positive number up to {high:g}, or null")


def check_switches(config: Any, names: Iterable[str]) -> None:
    """Check that fields are true or false.

    Raises:
        ConfigError: a field is neither; the message names it.
    """
    for name in names:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"model.{name} is {getattr(config, name)!r}; it must be true or false")


def check_names(values: Iterable[str], known: Iterable[str]) -> None:
    """Check that settings exist.

    Raises:
        ConfigError: some are unknown; the message names them and the known ones.
    """
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"unknown model setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
