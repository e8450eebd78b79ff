"""Upsampling without a network, against loops over pixels, closed forms and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from stdnet_core.errors import InputError
from stdnet_core.inference.classical import bicubic, bilinear, cell_size, joint_bilateral, nearest


def joint_bilateral_of_pixel(rgb, depth, scale, y, x, radius, sigma_spatial, sigma_range):
    """Kopf et al. 2007, literally, for one pixel of rgb (H, W, 3) and depth (h, w); cells at the border see a
    replicated image."""
    rows, columns = depth.shape
    below, right = rows * scale - rgb.shape[0], columns * scale - rgb.shape[1]
    rgb = np.pad(rgb, ((0, below), (0, right), (0, 0)), mode="edge").astype(np.float64)
    total = weights = 0.0
    for r in range(y // scale - radius, y // scale + radius + 1):
        for c in range(x // scale - radius, x // scale + radius + 1):
            if not (0 <= r < rows and 0 <= c < columns and 0 < depth[r, c] < np.inf):
                continue
            colour = rgb[r * scale : (r + 1) * scale, c * scale : (c + 1) * scale].mean((0, 1))
            dy, dx = (y + 0.5) / scale - (r + 0.5), (x + 0.5) / scale - (c + 0.5)
            weight = np.exp(-(dy**2 + dx**2) / (2 * sigma_spatial**2))
            weight *= np.exp(-((rgb[y, x] - colour) ** 2).sum() / (2 * sigma_range**2))
            total += weight * depth[r, c]
            weights += weight
    return total / weights if weights else 0.0


def random_frame(height, width, scale, holes=0.0, seed=0):
    rng = np.random.default_rng(seed)
    rgb = cv2.GaussianBlur(rng.random((height, width, 3), dtype=np.float32), (0, 0), 2)
    depth = rng.uniform(1, 5, (-(-height // scale), -(-width // scale))).astype(np.float32)
    depth[rng.random(depth.shape) < holes] = np.nan
    return rgb, depth


def run(method, rgb, depth, **settings):
    guide = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    return method(guide, torch.from_numpy(depth)[None, None], **settings)[0, 0].numpy()


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(24, 32, 8), (29, 41, 8), (30, 21, 5), (12, 10, 1), (40, 33, 16)]
)
@pytest.mark.parametrize("holes", [0.0, 0.4])
def test_joint_bilateral_equals_loops(height, width, scale, holes):
    rgb, depth = random_frame(height, width, scale, holes)
    settings = dict(radius=2, sigma_spatial=0.7, sigma_range=0.12)
    upsampled = run(joint_bilateral, rgb, depth, scale=scale, **settings)
    assert upsampled.shape == (height, width)
    for y in range(0, height, 3):
        for x in range(1, width, 3):
            expected = joint_bilateral_of_pixel(rgb, depth, scale, y, x, *settings.values())
            assert upsampled[y, x] == pytest.approx(expected, abs=1e-4), (y, x)


def test_joint_bilateral_of_a_full_frame_equals_loops_at_samples():
    rgb, depth = random_frame(480, 640, 8, holes=0.1)
    upsampled = run(joint_bilateral, rgb, depth, radius=1, sigma_spatial=1.0, sigma_range=0.05)
    rng = np.random.default_rng(1)
    for y, x in zip(rng.integers(0, 480, 200), rng.integers(0, 640, 200), strict=True):
        assert upsampled[y, x] == pytest.approx(joint_bilateral_of_pixel(rgb, depth, 8, y, x, 1, 1.0, 0.05), abs=1e-4)


def test_joint_bilateral_follows_the_edge_in_colour_where_bilinear_blurs_it():
    rows, columns = np.mgrid[:64, :96]
    near = (rows - 30) ** 2 + (columns - 50) ** 2 < 21**2
    truth = np.where(near, 1.0, 3.0).astype(np.float32)
    rgb = np.where(near[..., None], [0.8, 0.3, 0.2], [0.2, 0.3, 0.6]).astype(np.float32)
    depth = truth.reshape(8, 8, 12, 8).transpose(0, 2, 1, 3).reshape(8, 12, 64)
    depth = np.median(depth, -1).astype(np.float32)
    guided = np.sqrt(np.square(run(joint_bilateral, rgb, depth) - truth).mean())
    blurred = np.sqrt(np.square(run(lambda g, d: bilinear(d, (64, 96)), rgb, depth) - truth).mean())
    assert guided < 0.3 * blurred


def test_joint_bilateral_takes_leading_dimensions_and_any_colour():
    rgb, depth = random_frame(16, 24, 4)
    guide, lr = torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(depth)[None]
    batch = joint_bilateral(torch.stack([guide, 1 - guide]).expand(3, 2, 3, 16, 24), lr.expand(3, 2, 1, 4, 6))
    assert batch.shape == (3, 2, 1, 16, 24)
    torch.testing.assert_close(batch[2, 0], joint_bilateral(guide, lr), atol=1e-5, rtol=0)
    far_colours = joint_bilateral((guide > 0.5).float() * 1.0, lr, sigma_range=0.005)
    assert bool(torch.isfinite(far_colours).all())
    assert float(far_colours.min()) >= depth.min() - 1e-4
    assert float(far_colours.max()) <= depth.max() + 1e-4


@pytest.mark.parametrize("size", [(40, 56), (37, 61), (5, 7), (75, 53)])
def test_interpolation_without_holes_equals_opencv(size):
    depth = np.random.default_rng(0).uniform(1, 5, (5, 7)).astype(np.float32)
    lr = torch.from_numpy(depth)[None, None]
    expected = {
        bilinear: cv2.resize(depth, size[::-1], interpolation=cv2.INTER_LINEAR),
        bicubic: cv2.resize(depth, size[::-1], interpolation=cv2.INTER_CUBIC),
        nearest: depth[
            np.ix_(
                ((np.arange(size[0]) + 0.5) * 5 / size[0]).astype(int),
                ((np.arange(size[1]) + 0.5) * 7 / size[1]).astype(int),
            )
        ],
    }
    for method, reference in expected.items():
        np.testing.assert_allclose(method(lr, size)[0, 0].numpy(), reference, atol=2e-3, err_msg=method.__name__)


@pytest.mark.parametrize("missing", [0.0, np.nan, np.inf, -1.0])
def test_holes_do_not_bleed_into_interpolated_depth(missing):
    rows, columns = np.mgrid[:6, :8].astype(np.float32)
    depth = 2 + 0.1 * columns + 0.05 * rows
    depth[2:4, 3:5] = missing
    lr = torch.from_numpy(depth)[None, None]
    lowest, highest = np.where(depth > 0, depth, np.inf).min(), np.where(np.isfinite(depth), depth, 0).max()
    for method in (nearest, bilinear, bicubic):
        upsampled = method(lr, (48, 64))[0, 0].numpy()
        valid = upsampled > 0
        assert not np.isnan(upsampled).any()
        assert not valid[3 * 8 - 4 : 3 * 8 + 4, 4 * 8 - 4 : 4 * 8 + 4].any()  # the middle of the hole
        assert valid[:8].all()
        assert (upsampled[valid] >= lowest - 0.05).all()
        assert (upsampled[valid] <= highest + 0.05).all()


def test_bilinear_normalises_over_the_valid_cells_of_each_pixel():
    depth = np.array([[1.0, np.nan], [3.0, 5.0]], np.float32)
    upsampled = bilinear(torch.from_numpy(depth)[None, None], (8, 8))[0, 0].numpy()
    u = v = (3 + 0.5) / 4 - 0.5  # pixel (3, 3) in cells
    weights = np.outer([1 - u, u], [1 - v, v]) * ~np.isnan(depth)
    assert upsampled[3, 3] == pytest.approx((weights * np.nan_to_num(depth)).sum() / weights.sum(), abs=1e-5)


@pytest.mark.parametrize(
    ("size", "size_lr", "scale"),
    [((480, 640), (60, 80), 8), ((479, 641), (60, 81), 8), ((15, 9), (4, 3), 4), ((7, 9), (7, 9), 1)],
)
def test_cell_size(size, size_lr, scale):
    assert cell_size(size, size_lr) == scale


@pytest.mark.parametrize("size_lr", [(60, 70), (100, 80), (59, 80)])
def test_sizes_of_no_whole_scale_are_refused(size_lr):
    with pytest.raises(InputError, match="whole scale"):
        cell_size((480, 640), size_lr)
    with pytest.raises(InputError, match="whole scale"):
        joint_bilateral(torch.rand(1, 3, 480, 640), torch.ones(1, 1, *size_lr))
    with pytest.raises(InputError, match="at x4"):
        joint_bilateral(torch.rand(1, 3, 480, 640), torch.ones(1, 1, 60, 80), scale=4)
