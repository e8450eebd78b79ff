"""Common parts of the command-line tools: errors without tracebacks, exit, and errors for packages that are not
installed."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from stdnet_core.errors import StdnetError


def run_cli(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with its status.

    The status is 2, with one line of error, for a :class:`StdnetError` or a file that cannot be read or written, and
    130 for Ctrl-C."""
    try:
        status = main() or 0
    except StdnetError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def exit_at_once(status: int) -> NoReturn:
    """End the process without the interpreter's shutdown and the C library's exit handlers; print what is printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def print_notes(notes: Iterable[str]) -> None:
    """Print notes about the input to standard error."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def add_unit_arguments(parser: argparse.ArgumentParser) -> None:
    """The options ``--depth-unit`` and ``--invalid-above`` (see :mod:`stdnet_core.depth_units`)."""
    parser.add_argument(
        "--depth-unit",
        type=float,
        metavar="M",
        help="metres per stored unit of depth, for example 0.001, 0.0002 (TUM) or 0.00390625 (1/256) (default: "
        "integers are millimetres, floating-point numbers are metres)",
    )
    parser.add_argument(
        "--invalid-above",
        type=float,
        metavar="VALUE",
        help="stored depth values above this limit are invalid (the integer 65535 always is)",
    )


def names_argument(known: Iterable[str], *, kind: str = "", or_none: bool = False) -> Callable[[str], list[str]]:
    """An argparse type: names from ``known``, separated by commas; duplicates are dropped.

    Args:
        known: valid names.
        kind: word for a name in the error, such as ``method``.
        or_none: whether ``none`` stands for an empty list.
    """
    known = tuple(known)

    def parse(text: str) -> list[str]:
        names = [] if or_none and text == "none" else list(dict.fromkeys(text.split(",")))
        unknown = [name for name in names if name not in known]
        if unknown:
            what = " ".join(filter(None, ("unknown", kind, ", ".join(unknown))))
            raise argparse.ArgumentTypeError(f"{what}; choose of {', '.join(known)}" + ", or none" * or_none)
        return names

    return parse


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: dotted name of the module to import.
        extra: the extra of this package that installs it.

    Raises:
        StdnetError: the module is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StdnetError(
            f"this needs the Python package {module.split('.')[0]!r} ({error}); "
            f"install it with: {install_command(extra)}"
        ) from error


def install_command(extra: str) -> str:
    """The command that installs an extra of this package, which is not on a package index: from the checkout of this
    code, or otherwise from the user's clone."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "setup.py").is_file():
        return f"pip install '.[{extra}]' (in a clone of this project)"
    return f"pip install -e '{checkout}[{extra}]'"


def plain_json(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by null: "nothing to measure"."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
