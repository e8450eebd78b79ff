"""What the command-line tools share: errors without tracebacks, and optional dependencies with a remedy."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from stdnet_core.errors import StdnetError


def run_cli(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with its status.

    2 with one line for a :class:`StdnetError` or a file that cannot be read or written, 130 for Ctrl-C."""
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


def print_notes(notes: Iterable[str]) -> None:
    """Say on standard error what a tool found and took."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def add_unit_arguments(parser: argparse.ArgumentParser) -> None:
    """The options ``--depth-unit`` and ``--invalid-above`` (see :mod:`stdnet_core.depth_units`)."""
    parser.add_argument(
        "--depth-unit",
        type=float,
        metavar="M",
        help="metres per stored unit of depth: 0.001, 0.0002 (TUM), 0.00390625 (1/256); by default integers are "
        "millimetres and floating-point numbers metres",
    )
    parser.add_argument(
        "--invalid-above",
        type=float,
        metavar="VALUE",
        help="stored depth above this value is no measurement (65535 never is one)",
    )


def names_argument(known: Iterable[str], *, kind: str = "", or_none: bool = False) -> Callable[[str], list[str]]:
    """An argparse type: names out of ``known``, separated by commas, each once.

    Args:
        known: what there is.
        kind: what an unknown name is called in the error, such as ``method``.
        or_none: ``none`` gives no names.
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
    """An argparse type: a whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return number


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: dotted name of the module to import.
        extra: the extra of this package that installs it.

    Raises:
        StdnetError: the module is not installed; says which command installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StdnetError(
            f"this needs the Python package {module.split('.')[0]!r} ({error}); "
            f"install it with: {install_command(extra)}"
        ) from error


def install_command(extra: str) -> str:
    """The command that installs an extra of this package, which is on no index: from the checkout that this runs
    from, else from the folder that the user has it in."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "setup.py").is_file():
        return f"pip install '.[{extra}]' (in a clone of this project)"
    return f"pip install -e '{checkout}[{extra}]'"


def plain_json(value: Any) -> Any:
    """JSON has no NaN: null stands for "nothing to measure"."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
