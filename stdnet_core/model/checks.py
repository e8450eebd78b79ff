"""Checks that the networks' configurations share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stdnet_core.errors import ConfigError


def check_whole_numbers(config: Any, limits: Iterable[tuple[str, int, int]]) -> None:
    """Refuse fields that are no whole numbers within their limits (name, lowest, highest).

    Raises:
        ConfigError: naming the field.
    """
    for name, low, high in limits:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"model.{name} is {value!r:.60}; it must be a whole number from {low} to {high}")


def check_number(config: Any, name: str, high: float) -> None:
    """Refuse a field that is no number above 0 and up to ``high``.

    Raises:
        ConfigError: naming the field.
    """
    value = getattr(config, name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= high:
        raise ConfigError(f"model.{name} is {value!r:.60}; give a positive number up to {high:g}, or null")


def check_switches(config: Any, names: Iterable[str]) -> None:
    """Refuse fields that are neither true nor false.

    Raises:
        ConfigError: naming the field.
    """
    for name in names:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"model.{name} is {getattr(config, name)!r}; it must be true or false")


def check_names(values: Iterable[str], known: Iterable[str]) -> None:
    """Refuse settings that there are not.

    Raises:
        ConfigError: naming them and what is known.
    """
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"unknown model setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
