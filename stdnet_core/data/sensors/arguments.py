"""Command-line arguments that choose the depth camera to simulate."""

from __future__ import annotations

import argparse
from typing import Any

from stdnet_core.data.sensors.camera import Sensor, check_value_name
from stdnet_core.data.sensors.presets import PRESETS, preset
from stdnet_core.errors import ConfigError


def add_sensor_arguments(parser: Any, default: str | None = "dtof_paper", told: str = "%(default)s") -> None:
    """Add ``--sensor`` and ``--sensor-value`` to a parser or an argument group; ``told`` is the default in the help."""
    parser.add_argument(
        "--sensor",
        choices=PRESETS,
        default=default,
        metavar="NAME",
        help=f"depth camera to simulate: {', '.join(PRESETS)} (default: {told})",
    )
    parser.add_argument(
        "--sensor-value",
        action="append",
        default=[],
        type=_value,
        metavar="PART.FIELD=VALUE",
        help="change one of its parameters, e.g. dtof.range_m=10, faults.dropout=0.1, alignment.shift_px=2 or "
        "holes=stereo; may be repeated",
    )


def sensor_from(arguments: argparse.Namespace) -> Sensor:
    """The sensor chosen by the arguments of :func:`add_sensor_arguments`.

    Raises:
        ConfigError: a value is not valid for its parameter.
    """
    try:
        return preset(arguments.sensor).sensor.with_values(dict(arguments.sensor_value))
    except TypeError as error:
        raise ConfigError(f"--sensor-value: {error}") from error


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments as settings in a report."""
    return {"sensor": arguments.sensor} | {f"sensor {name}": value for name, value in arguments.sensor_value}


def simulation_sentences(camera: str, ratio: float) -> str:
    """The lead of a report with simulated input: which camera was simulated, and that there are others."""
    others = ", ".join(name for name in PRESETS if name != camera)
    return (
        f"The input is simulated: a {camera} at x{ratio:g} ({preset(camera).about}) that measures the ground truth. "
        f"Other cameras give other figures; --sensor offers {others}."
    )


def _value(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form PART.FIELD=VALUE")
    try:
        if name != "holes":
            check_value_name(name)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if value in ("true", "false", "null"):
        return name, {"true": True, "false": False, "null": None}[value]
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def ratio_argument(text: str) -> float:
    """Colour pixels per depth pixel on each axis, 1 to 256; returned as int if it is an integer."""
    try:
        ratio = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 8 or 7.5") from None
    if not 1 <= ratio <= 256:
        raise argparse.ArgumentTypeError(f"{text}: a scale is from 1 to 256")
    return int(ratio) if ratio == int(ratio) else ratio


def scales_argument(text: str) -> list[float]:
    """Different ratios, separated by commas."""
    scales = [ratio_argument(part) for part in text.split(",")]
    if len(set(scales)) < len(scales):
        raise argparse.ArgumentTypeError(f"{text!r}: scales must differ")
    return scales
