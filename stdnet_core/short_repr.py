"""Short reprs for prompts and logs: arrays by type and shape, networks by size and settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import nn

    class _Network(Protocol):
        @property
        def config(self) -> DataclassInstance: ...
        def parameters(self) -> Iterator[nn.Parameter]: ...


_SHOWN = 3
_LONGEST = 80


def short_repr(result: Any) -> str:
    """The repr of a dataclass without the contents of its arrays: ``Result(depth=float32(480, 640), stamp=0.1)``.

    Use it in a class as ``__repr__ = short_repr``."""
    values = ((field.name, getattr(result, field.name)) for field in dataclasses.fields(result) if field.repr)
    return f"{type(result).__name__}({', '.join(f'{name}={_short(value)}' for name, value in values)})"


def network_repr(network: _Network) -> str:
    """The repr of a network with a ``config``: its number of parameters and the settings that are not defaults.

    Use it in a class as ``__repr__ = network_repr``."""
    config = network.config
    default = type(config)()
    parts = [f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters"]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(default, field.name):
            parts.append(f"{field.name}={value!r}")
    return f"{type(network).__name__}({', '.join(parts)})"


def _short(value: Any) -> str:
    if hasattr(value, "dtype") and getattr(value, "shape", None):
        return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + _some(f"{key!r}: {_short(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + _some(map(_short, value)) + "]"
    if type(value) is tuple:
        return "(" + _some(map(_short, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _some(texts: Iterable[str]) -> str:
    texts = list(texts)
    more = [f"... {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return ", ".join(texts[:_SHOWN] + more)
