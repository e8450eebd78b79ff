"""Confidence and flying pixels against loops over pixels and drawn errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stdnet_core.filtering import Filtered
from stdnet_core.inference import confidence as module
from stdnet_core.inference.frames import Geometry


def allowed(depth: float) -> float:
    """The tolerance as the documentation puts it: 2 cm or 2 % of the depth, whichever is larger."""
    return max(0.02, 0.02 * depth)


def neighbours(depth: np.ndarray, row: int, column: int) -> list[float]:
    """The valid depths in the 3x3 around a pixel."""
    around = depth[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    return [float(value) for value in around.ravel() if value > 0]


def scene(holes: bool, shape: tuple[int, int] = (9, 12)) -> np.ndarray:
    """Depth with steps and noise; with holes, one of them wider than a 3x3 window."""
    rng = np.random.default_rng(4)
    depth = rng.uniform(0.4, 0.5, shape).astype(np.float32)
    depth[:, 6:] += 2.5
    depth[4:] *= 1.02
    if holes:
        depth[rng.random(shape) < 0.1] = 0
        depth[5:9, 1:5] = 0
    return depth


@pytest.mark.parametrize(("depth", "scale"), [(0.4, 0.01), (1.0, 0.02), (3.0, 0.02), (3.0, 0.3)])
def test_share_of_laplace_errors_within_the_tolerance(depth: float, scale: float) -> None:
    errors = np.random.default_rng(0).laplace(0, scale, 200_000)
    claimed = module.within_tolerance(np.float32([depth]), np.float32([scale]))[0]
    assert claimed == pytest.approx(np.mean(np.abs(errors) < allowed(depth)), abs=0.004)


def test_an_error_without_spread_is_within_the_tolerance() -> None:
    depth = np.float32([0.0, 1.0, 50.0])
    np.testing.assert_array_equal(module.within_tolerance(depth, np.zeros(3, np.float32)), 1)


def test_confidence_of_disagreeing_stages_by_hand() -> None:
    """A network without confidence: its stages' disagreement and 0.15 of the tolerance are the error's scale."""
    got = module.stage_confidence(np.float32([0.5, 4.0, 4.0]), np.float32([0.0, 0.0, 0.1]))
    scales = [0.15 * 0.02, 0.15 * 0.08, 0.1 + 0.15 * 0.08]
    expected = [1 - math.exp(-right / scale) for right, scale in zip([0.02, 0.08, 0.08], scales, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("holes", [True, False])
def test_confidence_of_cells_by_hand(holes: bool) -> None:
    cells = scene(holes)
    geometry = Geometry(size=(26, 34), depth_size=cells.shape, scale=3, resampled=False)
    expected = np.zeros(cells.shape, np.float32)
    for row, column in zip(*np.nonzero(cells), strict=True):
        near = neighbours(cells, row, column)
        scale = 0.1 * (max(near) - min(near)) + 0.15 * allowed(max(near))
        expected[row, column] = 1 - math.exp(-allowed(max(near)) / scale)
    got = module.cell_confidence(cells, geometry)
    assert got.dtype == np.float32
    assert (expected[cells > 0] > 0.05).all()
    assert expected.max() > 0.95
    fine = F.interpolate(torch.from_numpy(expected)[None, None], (27, 36), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(got, fine[0, 0, :26, :34], atol=1e-5)


@pytest.mark.parametrize("holes", [True, False])
def test_confidence_of_the_filter_by_hand(holes: bool) -> None:
    depth = scene(holes)
    rng = np.random.default_rng(5)
    deviation = rng.uniform(0, 0.05, depth.shape).astype(np.float32)
    origin = rng.choice([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 200], depth.shape).astype(np.uint8)
    by_distance = [0, 0.85, 1.15, 1.55, 2.5, 3.2, 6.4, 100]  # in tolerances
    expected = np.zeros(depth.shape)
    for row, column in zip(*np.nonzero(depth), strict=True):
        near, right = neighbours(depth, row, column), allowed(float(depth[row, column]))
        scale = 0.1 * right + 0.35 * deviation[row, column] + 0.1 * (max(near) - min(near))
        scale += by_distance[min(origin[row, column], 7)] * right
        expected[row, column] = 1 - math.exp(-right / scale)
    geometry = Geometry(size=depth.shape, depth_size=depth.shape, scale=1, resampled=False)
    got = module.filter_confidence(Filtered(depth, deviation, origin), geometry)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("holes", [True, False])
@pytest.mark.parametrize("threshold", [0.03, 0.3])
def test_flying_pixels_by_hand(holes: bool, threshold: float) -> None:
    rng = np.random.default_rng(6)
    depth = np.where(rng.random((24, 30)) < 0.7, 1.0, 2.0) + rng.choice([0, 0.02, 0.15, 0.25, 0.4], (24, 30))
    depth[10:14, 10:14] = 1.5
    depth[16:22] = 1 + rng.choice([0, 0.01, 0.02], (6, 30))  # no jump, at any distance
    depth = (4 * depth).astype(np.float32)
    if holes:
        depth[rng.random(depth.shape) < 0.3] = 0
        depth[:4, :4] = 0
        depth[1, 1] = 4.8  # alone
    expected = np.zeros(depth.shape, bool)
    for row, column in zip(*np.nonzero(depth), strict=True):
        near, own = neighbours(depth, row, column), float(depth[row, column])
        jump = max(near) - min(near)
        expected[row, column] = jump > threshold * own and min(max(near) - own, own - min(near)) > 0.2 * jump
    if holes:
        depth[depth == 0] = np.nan
    np.testing.assert_array_equal(module.flying_pixels(depth, depth > 0, threshold), expected)
    assert 0.1 < expected.mean() < 0.9
