"""Stored depth to metres, one value at a time; what is plausible."""

import math

import numpy as np
import pytest

from stdnet_core.depth_units import DepthUnits, check_units, look_at
from stdnet_core.errors import ConfigError, DataError

VALUES = [0, 1, 250, 1000, 5000, 40000, 65534, 65535]


def by_hand(value, unit, limit):
    if value <= 0 or not math.isfinite(value) or (limit is not None and value > limit):
        return 0.0
    return value * unit


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("unit", [None, 0.001, 0.0002, 1 / 256, 1.0])
@pytest.mark.parametrize("limit", [None, 30000])
def test_every_type_unit_and_limit(kind, unit, limit):
    integers = np.issubdtype(kind, np.integer)
    stored = np.array([VALUES], kind)
    taken = unit or (0.001 if integers else 1.0)
    expected = [0.0 if integers and v == 65535 else by_hand(v, taken, limit) for v in VALUES]
    units = DepthUnits(unit, limit)
    np.testing.assert_allclose(units.metres(stored)[0], expected, rtol=1e-6)
    as_nan = units.metres(stored, invalid=np.nan)[0]
    np.testing.assert_array_equal(np.isnan(as_nan), np.array(expected) == 0)


def test_what_is_no_number_is_no_measurement():
    stored = np.array([[-1.0, np.nan, np.inf, -np.inf, 2.5]], np.float32)
    np.testing.assert_array_equal(DepthUnits().metres(stored), [[0, 0, 0, 0, 2.5]])
    np.testing.assert_array_equal(DepthUnits().metres(np.array([[-1, 1500]], np.int16)), np.float32([[0, 1.5]]))
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError):
            DepthUnits(wrong)


@pytest.mark.parametrize(
    ("kind", "nowhere"),
    [
        (np.float32, 1e10),
        (np.float32, np.finfo(np.float32).max),
        (np.float64, np.finfo(np.float64).max),
        (np.uint32, 2**32 - 1),
        (np.int32, 2**31 - 1),
    ],
)
def test_numbers_for_nowhere_are_no_measurement(kind, nowhere):
    near = 1.5 if np.issubdtype(kind, np.floating) else 1500
    stored = np.array([[near, near, near, nowhere]], kind)
    np.testing.assert_array_equal(DepthUnits().metres(stored), np.float32([[1.5, 1.5, 1.5, 0]]))
    (note,) = check_units([stored], DepthUnits(), "x")
    assert note.startswith("x: 25 % of depth is beyond 1000 km")


@pytest.mark.parametrize(
    ("stored", "plausible"),
    [
        (np.full((4, 4), 2000, np.uint16), True),
        (np.full((4, 4), 2.0, np.float32), True),
        (np.full((4, 4), 2000.0, np.float32), False),
        (np.full((4, 4), 2.0e-3, np.float64), False),
        (np.full((4, 4), 3, np.uint16), False),
        (np.full((4, 4), 200.0, np.float32), True),
    ],
)
def test_what_no_camera_measures_is_refused_unless_the_unit_was_given(stored, plausible):
    assert look_at(stored, DepthUnits()).plausible == plausible
    if plausible:
        assert check_units([stored], DepthUnits(), "x") == []
    else:
        with pytest.raises(DataError, match="--depth-unit"):
            check_units([stored], DepthUnits(), "x")
        given = DepthUnits(1.0 if stored.dtype.kind == "f" else 0.001)
        assert "interpreted as" in check_units([stored], given, "x")[0]


def test_the_first_image_that_tells_something_is_looked_at():
    empty, full = np.zeros((10, 20), np.uint16), np.full((10, 20), 1500, np.uint16)
    almost = empty.copy()
    almost[0, 0] = 65000  # one pixel tells nothing
    assert look_at(empty, DepthUnits()) is None
    assert look_at(almost, DepthUnits()) is None
    full[:5] = 65535
    assert check_units([empty, almost], DepthUnits(), "x") == []
    assert check_units([empty, almost, full], DepthUnits(), "x") == [
        "x: 50 % of depth is 65535, which counts as invalid"
    ]


def test_half_precision_is_looked_at_without_a_warning(recwarn):
    assert look_at(np.full((4, 4), 1.5, np.float16), DepthUnits()).plausible
    assert not recwarn
