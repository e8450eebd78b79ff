"""Augmentation keeps the geometry true: checked by following moving points through every variation."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from stdnet_core.data.augmentation import (
    AugmentationConfig,
    augment,
    flip_horizontal,
    flip_vertical,
    misregister,
    other_viewpoint,
    reverse,
    scale_depth,
    stand_still,
    transpose,
    vary_color,
    wobble,
)
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.sensors.view import gaussian_blur
from stdnet_core.errors import ConfigError

MOTION = (3, -2)  # pixels a frame, (x, y)


def moving_clip(frames=4, height=24, width=32):
    """A random picture on a torus that moves by MOTION each frame, with depth, camera and everything else."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(4, height, width, generator=generator)
    images = torch.stack([picture.roll((MOTION[1] * t, MOTION[0] * t), (1, 2)) for t in range(frames)])
    depth = images[:, 3:] + 0.5
    depth[:, :, 2, 3] = 0
    return RgbdClip(
        rgb=images[:, :3].contiguous(),
        depth=depth,
        valid=depth > 0,
        intrinsics=torch.tensor([[40.0, 0, 13.25], [0, 50.0, 9.5], [0, 0, 1]]),
        flow=torch.tensor(MOTION, dtype=torch.float32).view(1, 2, 1, 1).expand(frames - 1, 2, height, width).clone(),
        depth_lr=depth[..., 2::4, 2::4].contiguous(),
        stamps=torch.tensor([0.0, 0.1, 0.3, 0.4], dtype=torch.float64)[:frames],
        name="moving",
    )


def check_flow(clip):
    """Every pixel of frame t reappears in frame t+1 where the flow says (on the torus)."""
    height, width = clip.frame_size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for t in range(len(clip) - 1):
        flow = clip.flow[t].round().long()
        to_x, to_y = (x + flow[0]) % width, (y + flow[1]) % height
        assert torch.equal(clip.rgb[t + 1][:, to_y, to_x], clip.rgb[t])


def points(clip):
    """Camera coordinates (T, 3, H, W) of every pixel."""
    height, width = clip.frame_size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    k = clip.intrinsics
    ray = torch.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], torch.ones(height, width)])
    return ray * clip.depth


def test_the_test_clip_is_consistent():
    check_flow(moving_clip())


def test_horizontal_flip():
    clip = moving_clip()
    flipped = flip_horizontal(clip)
    check_flow(flipped)
    mirror = torch.tensor([-1.0, 1, 1]).view(3, 1, 1)
    torch.testing.assert_close(points(flipped), points(clip).flip(-1) * mirror)
    assert torch.equal(flipped.valid, flipped.depth > 0)
    assert torch.equal(flipped.depth_lr, clip.depth_lr.flip(-1))


def test_vertical_flip():
    clip = moving_clip()
    flipped = flip_vertical(clip)
    check_flow(flipped)
    mirror = torch.tensor([1.0, -1, 1]).view(3, 1, 1)
    torch.testing.assert_close(points(flipped), points(clip).flip(-2) * mirror)
    assert torch.equal(flipped.depth_lr, clip.depth_lr.flip(-2))


def test_transposition():
    clip = moving_clip()
    turned = transpose(clip)
    assert turned.frame_size == (32, 24)
    check_flow(turned)
    torch.testing.assert_close(points(turned), points(clip).transpose(-1, -2)[:, [1, 0, 2]])


def test_reversal_drops_flow_and_keeps_intervals():
    clip = moving_clip()
    turned = reverse(clip)
    assert turned.flow is None
    assert torch.equal(turned.depth[0], clip.depth[-1])
    torch.testing.assert_close(turned.stamps.diff(), torch.tensor([0.1, 0.2, 0.1], dtype=torch.float64))


def test_depth_gain_scales_every_depth_and_point():
    clip = moving_clip()
    grown = scale_depth(clip, 1.7)
    torch.testing.assert_close(points(grown), 1.7 * points(clip))
    torch.testing.assert_close(grown.depth_lr, 1.7 * clip.depth_lr)
    assert torch.equal(grown.intrinsics, clip.intrinsics)


def test_color_in_its_order():
    rgb = torch.tensor([0.25, 0.5, 1.0]).view(1, 3, 1, 1)
    varied = vary_color(rgb, gamma=2.0, exposure=0.5, contrast=1.5, balance=(1.0, 1.0, 0.8))
    plain = torch.tensor([0.25**2 * 0.5, 0.5**2 * 0.5, 1.0 * 0.5 * 0.8])
    expected = plain.mean() + 1.5 * (plain - plain.mean())
    torch.testing.assert_close(varied.flatten(), expected.clamp(0, 1))
    same = vary_color(rgb, gamma=1.0, exposure=1.0, contrast=1.0, balance=(1.0, 1.0, 1.0))
    torch.testing.assert_close(same, rgb)


def test_nothing_changes_without_variations():
    clip = moving_clip()
    same = augment(clip, AugmentationConfig.none(), torch.Generator().manual_seed(0))
    for name in ("rgb", "depth", "valid", "flow", "intrinsics", "depth_lr", "stamps"):
        assert torch.equal(getattr(same, name), getattr(clip, name))


def test_every_variation_occurs_as_often_as_it_should():
    clip = moving_clip(height=24, width=24)
    only = AugmentationConfig.none()
    for name, change in (
        ("flip_horizontal", flip_horizontal),
        ("flip_vertical", flip_vertical),
        ("transpose", transpose),
        ("reverse", reverse),
    ):
        config = replace(only, **{name: 0.3})
        generator = torch.Generator().manual_seed(1)
        changed = sum(torch.equal(augment(clip, config, generator).depth, change(clip).depth) for _ in range(400))
        assert 85 <= changed <= 155, name  # 120 expected, standard deviation 9


def test_all_together_keep_flow_and_points_true():
    clip = moving_clip(height=24, width=24)
    config = replace(AugmentationConfig(), reverse=0.0, gamma=(1, 1), exposure=(1, 1), contrast=(1, 1), balance=(1, 1))
    for seed in range(20):
        varied = augment(clip, config, torch.Generator().manual_seed(seed))
        check_flow(varied)
        ratio = points(varied).norm(dim=1).sort(-1).values.sum() / points(clip).norm(dim=1).sum()
        assert 0.8 <= ratio <= 1.25


def test_factors_stay_within_limits_and_vary():
    clip = replace(moving_clip(), rgb=torch.full((4, 3, 24, 32), 0.4))
    config = replace(AugmentationConfig.none(), exposure=(0.5, 2.0), depth_gain=(0.5, 2.0))
    generator = torch.Generator().manual_seed(2)
    exposures, gains = [], []
    for _ in range(200):
        varied = augment(clip, config, generator)
        exposures.append(float(varied.rgb.mean() / 0.4))
        gains.append(float(varied.depth.sum() / clip.depth.sum()))
    for values in (exposures, gains):
        assert 0.499 <= min(values) < 0.6
        assert 1.8 < max(values) <= 2.001
        assert 0.4 < sum(value < 1 for value in values) / 200 < 0.6


def test_gray_has_equal_channels_and_keeps_luma():
    clip = moving_clip()
    gray = augment(clip, replace(AugmentationConfig.none(), gray=1.0), torch.Generator().manual_seed(0)).rgb
    expected = 0.299 * clip.rgb[:, 0] + 0.587 * clip.rgb[:, 1] + 0.114 * clip.rgb[:, 2]
    for channel in range(3):
        torch.testing.assert_close(gray[:, channel], expected)


def test_same_seed_same_clip_and_input_unchanged():
    clip = moving_clip()
    before = clip.rgb.clone()
    first = augment(clip, AugmentationConfig(), torch.Generator().manual_seed(3))
    again = augment(clip, AugmentationConfig(), torch.Generator().manual_seed(3))
    assert torch.equal(first.rgb, again.rgb)
    assert torch.equal(first.depth, again.depth)
    assert torch.equal(clip.rgb, before)
    assert first.rgb.is_contiguous()


def test_crop_of_own_low_resolution_depth_stays_aligned():
    clip = moving_clip()
    for top, left in ((0, 0), (4, 8), (8, 16)):
        crop = clip.crop(top, left, 16, 16)
        assert torch.equal(crop.depth, clip.depth[..., top : top + 16, left : left + 16])
        assert torch.equal(crop.depth_lr, crop.depth[..., 2::4, 2::4])
        assert crop.intrinsics[0, 2] == clip.intrinsics[0, 2] - left
        assert crop.intrinsics[1, 2] == clip.intrinsics[1, 2] - top


@pytest.mark.parametrize(
    "values",
    [
        {"transpose": 2},
        {"gamma": [0, 1]},
        {"exposure": [2, 1]},
        {"contrast": 1.0},
        {"flip": 0.5},
        {"wobble": -0.1},
        {"zoom": 0.9},
        {"parallax_px": -1},
    ],
)
def test_wrong_settings_are_named(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        AugmentationConfig.from_dict(values)


def test_misregistration_moves_colour_and_lets_the_foreground_grow():
    rgb = torch.rand(2, 3, 12, 16)
    depth = torch.full((2, 1, 12, 16), 5.0)
    depth[..., 5:7, 8:10] = 2.0
    depth[..., 0, 0] = 0.0
    clip = RgbdClip(rgb=rgb, depth=depth, valid=depth > 0, name="square")
    moved = misregister(clip, right=3, down=-2, fattening=1)
    assert torch.equal(moved.rgb[:, :, :-2, 3:], rgb[:, :, 2:, :-3])
    assert torch.equal(moved.valid, clip.valid)
    assert moved.depth[0, 0, 0, 0] == 0
    assert torch.equal(
        (moved.depth == 2.0).nonzero()[:, 2:].unique(dim=0),
        torch.cartesian_prod(torch.arange(4, 8), torch.arange(7, 11)),
    )
    assert (moved.depth[moved.valid] > 0).all()


def test_another_viewpoint_is_a_pinhole_camera_beside_the_first():
    """Against projection of each point, of two walls and a near square, with one loop a pixel."""
    height, width, focal = 24, 40, 30.0
    depth = torch.full((1, 1, height, width), 3.0)
    depth[..., :, 25:] = 4.0
    depth[..., 8:15, 10:18] = 1.5
    depth[..., 3, 3] = 0.0
    clip = RgbdClip(rgb=torch.rand(1, 3, height, width), depth=depth, valid=depth > 0, name="square")
    baseline, zoom = 0.4, 1.05  # metres to the left: everything moves right
    moved = other_viewpoint(clip, right=zoom * focal * baseline / 3.0, down=0.0, zoom=zoom)
    assert torch.equal(moved.rgb, clip.rgb)
    assert moved.flow is None
    expected = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            z = float(depth[0, 0, row, column])
            if z == 0:
                continue
            x, y = (column - (width - 1) / 2) * z / focal + baseline, (row - (height - 1) / 2) * z / focal
            u, v = zoom * focal * x / z + (width - 1) / 2, zoom * focal * y / z + (height - 1) / 2
            for v_ in (math.floor(v), math.floor(v) + 1):
                for u_ in (math.floor(u), math.floor(u) + 1):
                    if 0 <= v_ < height and 0 <= u_ < width and (expected[v_, u_] == 0 or z < expected[v_, u_]):
                        expected[v_, u_] = z
    assert torch.equal(moved.depth[0, 0], expected)
    assert torch.equal(moved.valid, moved.depth > 0)
    assert not moved.valid[..., :2].any(), "the left border is not seen"
    empty = replace(clip, valid=torch.zeros_like(clip.valid))
    assert other_viewpoint(empty, right=3.0, down=0.0, zoom=1.0) is empty


def test_blur_is_that_of_another_library():
    rgb = torch.rand(2, 3, 30, 40)
    found = gaussian_blur(rgb, 1.5)
    for frame, expected in zip(rgb, found, strict=True):
        image = cv2.GaussianBlur(frame.permute(1, 2, 0).numpy(), (9, 9), 1.5, borderType=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(expected.permute(1, 2, 0), image, atol=1e-5)
    assert gaussian_blur(rgb, 0.05) is rgb


def test_noise_of_colour_is_new_in_each_frame_and_leaves_depth_alone():
    clip = stand_still(moving_clip(), 3, 0.0, torch.Generator())
    clip = replace(clip, rgb=torch.full_like(clip.rgb, 0.5))
    noisy = augment(clip, replace(AugmentationConfig.none(), noise=0.05), torch.Generator().manual_seed(3))
    change = noisy.rgb - clip.rgb
    assert 0 < float(change.std()) < 0.05
    assert abs(float(torch.corrcoef(change.flatten(1)[:2])[0, 1])) < 0.1
    assert torch.equal(noisy.depth, clip.depth)


def test_wobble_is_smooth_relative_and_new_in_each_frame():
    depth = torch.full((3, 1, 60, 80), 2.0)
    depth[..., 40:] = 4.0
    depth[..., 0, 0] = 0.0
    clip = RgbdClip(rgb=torch.rand(3, 3, 60, 80), depth=depth, valid=depth > 0, name="wall")
    shaken = wobble(clip, 0.01, torch.Generator().manual_seed(3))
    error = (shaken.depth - depth)[:, :, 1:]
    relative = error / depth[:, :, 1:]
    assert 0.008 < float(relative.std()) < 0.012
    assert float(error[..., 40:].std() / error[..., :40].std()) == pytest.approx(2, rel=0.2)
    assert float(relative[..., 1:39].diff(dim=-1).std()) < float(relative.std())  # independent errors: 1.4 times
    assert abs(float(torch.corrcoef(relative.flatten(1)[:2])[0, 1])) < 0.3
    assert (shaken.depth[..., 0, 0] == 0).all()


def test_wobble_comes_with_misregistration_alone():
    clip = moving_clip()
    still = replace_limits(AugmentationConfig(misregister=1.0, shift_px=0, fattening_px=0))
    shaken = replace(still, wobble=0.02)

    def depth(config):
        return augment(clip, config, torch.Generator().manual_seed(5)).depth

    assert not torch.equal(depth(still), depth(shaken))
    assert torch.equal(depth(replace(shaken, misregister=0.0)), depth(replace(still, misregister=0.0)))


def replace_limits(config):
    """No variation but what the configuration's other switches say."""
    return replace(
        AugmentationConfig.none(), **{n: getattr(config, n) for n in ("misregister", "shift_px", "fattening_px")}
    )
