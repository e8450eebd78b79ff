"""The meaning of stored depth values: one rule for files, recordings and live messages.

Integers are millimetres, floating-point numbers metres (REP-118), unless a unit is given. Values that are 0, negative
or not finite (REP-117) are invalid. So is 65535: the largest 16-bit number is written for "no reading" (RealSense,
7-Scenes) or means "as far or farther". So are depths beyond 1000 km: renderers write such numbers for the sky (1e10,
the largest float), other tools the largest 32-bit number. ``invalid_above`` invalidates more.

The values do not tell whether the rule fits, but :func:`look_at` checks their plausibility. If no camera measures such
a median, the tools refuse the depth and the node warns, unless the unit was given."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stdnet_core.errors import ConfigError, DataError

NO_READING = 65535
_NOWHERE_M = 1e6
"""No camera measures depth so far away. Millimetres that are mistaken for metres stay below it."""
_MILLIMETRE = 0.001
_PLAUSIBLE_MEDIAN_M = (0.01, 250.0)
_ENOUGH = 0.01
"""Smallest share of measured pixels in an image whose plausibility is checked."""


@dataclass(frozen=True)
class DepthUnits:
    """How stored depth becomes metres.

    Attributes:
        unit: metres per stored unit, such as 0.001, 0.0002 (TUM) or 1/256; None: millimetres for integers, metres for
            floating-point numbers.
        invalid_above: stored values (not metres) above this limit are invalid; None: no limit.

    Raises:
        ConfigError: a number is not positive and finite.
    """

    unit: float | None = None
    invalid_above: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("depth unit", self.unit), ("invalid above", self.invalid_above)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} is {value}; give a positive number")

    def unit_of(self, stored: np.ndarray) -> float:
        """Metres per unit of an array."""
        if self.unit is not None:
            return self.unit
        return 1.0 if stored.dtype.kind == "f" else _MILLIMETRE

    def metres(self, stored: np.ndarray, invalid: float = 0.0) -> np.ndarray:
        """Depth in metres.

        Args:
            stored: (H, W), integers or floating-point numbers.
            invalid: value of pixels without a measurement: 0 or NaN.

        Returns:
            (H, W) float32, a new array.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            depth = stored.astype(np.float32)
            measured = (depth > 0) & (depth < _NOWHERE_M / self.unit_of(stored))
            if self.invalid_above is not None:
                measured &= depth <= self.invalid_above
        if stored.dtype.kind in "ui" and stored.dtype.itemsize >= 2:
            measured &= stored != NO_READING
        unit = self.unit_of(stored)
        if unit != 1.0:
            depth /= np.float32(1.0 / unit)  # exact for millimetres
        depth[~measured] = invalid
        return depth


def along_axis(distance: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Depth along the optical axis from distances along each pixel's ray: z = r / sqrt(1 + x^2 + y^2).

    Here (x, y) is the pixel's position in the plane at depth 1.

    Args:
        distance: (H, W) floating-point numbers; 0 (no measurement) stays 0.
        camera: (3, 3) camera matrix in pixels of ``distance``, centres at integers; (x, y) is a pixel's position in
            the plane at depth 1.

    Returns:
        (H, W) float32.
    """
    height, width = distance.shape
    x = (np.arange(width) - camera[0, 2]) / camera[0, 0]
    y = (np.arange(height) - camera[1, 2]) / camera[1, 1]
    return (distance / np.sqrt(1 + x**2 + y[:, None] ** 2)).astype(np.float32)


@dataclass(frozen=True)
class Impression:
    """Statistics of the stored values of a depth image, from which their unit is judged.

    Attributes:
        stored: their type, for messages.
        unit: assumed metres per unit.
        given: whether that unit was given.
        median, least, largest: of the measured pixels, metres.
        median_stored: median of the measured pixels, as stored.
        no_reading: share of pixels that are 65535.
        nowhere: share of pixels with a finite value of 1000 km or more.
    """

    stored: str
    unit: float
    given: bool
    median: float
    least: float
    largest: float
    median_stored: float
    no_reading: float
    nowhere: float = 0.0

    @property
    def plausible(self) -> bool:
        """Whether a camera may have measured this depth."""
        return _PLAUSIBLE_MEDIAN_M[0] <= self.median <= _PLAUSIBLE_MEDIAN_M[1]

    def taken(self) -> str:
        """Sentence on the stored values and their assumed unit."""
        return (
            f"depth is stored as {self.stored} with a median of {self.median_stored:g}, interpreted as "
            f"{_unit_name(self.unit)}: {self.least:.4g} to {self.largest:.4g} m, median {self.median:.4g} m"
        )

    def doubt(self, option: str = "--depth-unit") -> str:
        """Sentence on why the unit is implausible, and how to specify it."""
        return (
            f"{self.taken()}, which no depth camera measures; specify the stored unit with {option} (0.001 for "
            f"millimetres, 0.0002 for TUM, 1 for metres)"
        )


def look_at(stored: np.ndarray, units: DepthUnits) -> Impression | None:
    """Statistics of an image (H, W) of stored depth; None if it has too few measurements."""
    metres = units.metres(stored)
    measured = metres > 0
    if measured.mean() < _ENOUGH:
        return None
    values = metres[measured]
    integers = stored.dtype.kind in "ui"
    bits = 8 * stored.dtype.itemsize
    return Impression(
        stored=f"{bits}-bit integers" if integers else f"{bits}-bit floating-point numbers",
        unit=units.unit_of(stored),
        given=units.unit is not None,
        median=float(np.median(values)),
        least=float(values.min()),
        largest=float(values.max()),
        median_stored=float(np.median(stored[measured])),
        no_reading=float((stored == NO_READING).mean()) if integers else 0.0,
        nowhere=float((np.isfinite(stored) & (stored >= np.float64(_NOWHERE_M / units.unit_of(stored)))).mean()),
    )


def check_units(images: Iterable[np.ndarray], units: DepthUnits, where: str) -> list[str]:
    """Check the plausibility of the first image with enough measurements.

    Args:
        images: stored depth (H, W), read one by one until one has enough measurements.
        units: how they are interpreted.
        where: the source, for messages.

    Returns:
        Notes for the user, one sentence each.

    Raises:
        DataError: the depth is not plausible and no unit was given.
    """
    seen = next((impression for image in images if (impression := look_at(image, units)) is not None), None)
    if seen is None:
        return []
    if not seen.plausible and not seen.given:
        raise DataError(f"{where}: {seen.doubt()}")
    notes = []
    if not seen.plausible:
        notes.append(f"{where}: {seen.taken()}")
    if seen.no_reading:
        notes.append(f"{where}: {100 * seen.no_reading:.2g} % of depth is 65535, which counts as invalid")
    if seen.nowhere:
        notes.append(f"{where}: {100 * seen.nowhere:.2g} % of depth is beyond 1000 km, which counts as invalid")
    return notes


def _unit_name(unit: float) -> str:
    names = {1.0: "metres", 0.001: "millimetres", 0.0001: "tenths of a millimetre", 0.01: "centimetres"}
    if unit in names:
        return names[unit]
    inverse = 1 / unit
    return f"1/{inverse:g} m" if abs(inverse - round(inverse)) < 1e-6 else f"units of {unit:g} m"
