"""Filling of holes, against brute force over all pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stdnet_core.errors import InputError
from stdnet_core.inference.fill import (
    fill_invalid,
    measured_here,
    measured_nearby,
    measured_within,
    nearest_valid,
    valid_depth,
)


def holey(shape, share, seed=0):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 9, shape).astype(np.float32)
    depth[rng.random(shape) < share] = 0
    return depth


def brute_force_distances(depth):
    """Distance of each pixel to every valid one: (h, w, valid), and the values of these."""
    at = np.argwhere(depth > 0)
    grid = np.stack(np.meshgrid(*map(np.arange, depth.shape), indexing="ij"), -1)
    return np.linalg.norm(grid[:, :, None] - at, axis=-1), depth[depth > 0]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97, 0.995])
@pytest.mark.parametrize("shape", [(23, 31), (1, 17), (40, 1)])
def test_torch_fill_takes_a_nearest_valid_pixel(shape, share):
    depth = holey(shape, share)
    depth[0, 0] = 3
    distances, values = brute_force_distances(depth)
    filled, distance = nearest_valid(torch.from_numpy(depth))
    np.testing.assert_allclose(distance.numpy(), distances.min(-1), rtol=1e-6)
    came_from = (values == filled.numpy()[..., None]) & (distances <= distances.min(-1, keepdims=True) + 1e-6)
    assert came_from.any(-1).all()


def test_numpy_fill_takes_a_pixel_about_as_near():
    depth = holey((60, 80), 0.9)
    distances, values = brute_force_distances(depth)
    filled, distance = nearest_valid(depth)
    source = np.where(values == filled[..., None], distances, np.inf).min(-1)
    assert (source <= 1.05 * distances.min(-1) + 0.1).all()
    np.testing.assert_allclose(distance, distances.min(-1), rtol=0.05, atol=0.1)
    assert (filled[depth > 0] == depth[depth > 0]).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_every_kind_of_invalid_pixel_is_filled_in_every_image_of_a_batch(kind):
    depth = np.full((2, 3, 1, 5, 7), 2.0, np.float32)
    depth[1] = 4
    depth[..., 0, 1:5] = [0, np.nan, np.inf, -1]
    depth[1, 2] = np.nan
    original = depth.copy()
    filled = np.asarray(fill_invalid(torch.from_numpy(depth) if kind == "torch" else depth))
    assert filled.shape == depth.shape
    assert (filled[0] == 2).all()
    assert (filled[1, :2] == 4).all()
    assert (filled[1, 2] == 0).all()
    np.testing.assert_array_equal(depth, original)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_an_image_without_measurement_is_infinitely_far_from_one(convert):
    filled, distance = nearest_valid(convert(np.zeros((4, 6), np.float32)))
    assert float(filled.max()) == 0
    assert float(distance.min()) == np.inf


def test_far_sources_are_found_across_a_wide_hole():
    depth = torch.zeros(1, 1, 9, 200)
    depth[..., 4, 0] = 1
    depth[..., 4, 199] = 2
    filled, distance = nearest_valid(depth)
    assert (filled[..., :100] == 1).all()
    assert (filled[..., 100:] == 2).all()
    assert distance[0, 0, 4, 99] == 99


def test_numpy_and_torch_agree_where_no_two_sources_are_equally_near():
    depth = holey((48, 64), 0.6, seed=3)
    distances, _ = brute_force_distances(depth)
    nearest_two = np.sort(distances, -1)[..., :2]
    clear = nearest_two[..., 1] - nearest_two[..., 0] > 0.3
    np.testing.assert_array_equal(fill_invalid(depth)[clear], fill_invalid(torch.from_numpy(depth)).numpy()[clear])


def test_what_is_no_depth_image_is_refused():
    with pytest.raises(InputError, match="uint16"):
        fill_invalid(np.zeros((4, 4), np.uint16))
    with pytest.raises(InputError, match="dimensions"):
        fill_invalid(torch.zeros(4))


def test_valid_depth_is_finite_and_positive():
    values = np.array([0, -1, np.nan, np.inf, -np.inf, 1e-3, 65.0], np.float32)
    expected = [False, False, False, False, False, True, True]
    assert valid_depth(values).tolist() == expected
    assert valid_depth(torch.from_numpy(values)).tolist() == expected


@pytest.mark.parametrize("scale", [4, 5])
def test_support_reaches_one_cell_from_a_measurement(scale):
    valid = np.random.default_rng(0).random((7, 9)) < 0.15
    height, width = 7 * scale, 9 * scale
    expected = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            u = min(max((y + 0.5) / scale - 0.5, 0), 6)
            v = min(max((x + 0.5) / scale - 0.5, 0), 8)
            expected[y, x] = any(abs(u - r) < 1 and abs(v - c) < 1 for r, c in np.argwhere(valid))
    np.testing.assert_array_equal(measured_nearby(valid, height, width), expected)


@pytest.mark.parametrize("measurements", [0, 1, 6])
def test_pixels_within_a_distance_of_a_measurement_are_those_of_a_loop(measurements):
    rng = np.random.default_rng(measurements)
    valid = np.zeros((24, 32), bool)
    valid[rng.integers(24, size=measurements), rng.integers(32, size=measurements)] = True
    rows, columns = np.mgrid[:24, :32]
    distance = np.full(valid.shape, np.inf)
    for row, column in np.argwhere(valid):
        distance = np.minimum(distance, np.hypot(rows - row, columns - column))
    with np.errstate(all="raise"):
        within = measured_within(valid, (48, 64), 10.0)
    assert within.shape == (48, 64)
    # OpenCV's distances are exact to a few per cent
    assert within[::2, ::2][distance < 4.7].all()
    assert not within[::2, ::2][distance > 5.3].any()


@pytest.mark.parametrize("size", [(12, 16), (24, 32), (20, 27), (22, 29)])
def test_measured_here_is_the_cell_that_a_pixel_lies_in(size):
    valid = np.random.default_rng(0).random((12, 16)) > 0.4
    here = measured_here(valid, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            row, column = (y + 0.5) * 12 / size[0], (x + 0.5) * 16 / size[1]
            if row % 1 and column % 1:  # else its centre lies on a border
                assert here[y, x] == valid[int(row), int(column)], (y, x)
