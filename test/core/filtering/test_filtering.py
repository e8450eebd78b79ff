"""The guided temporal filter: each part against closed forms and loops, and what it promises as a whole."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.filtering import GuidedTemporalFilter
from stdnet_core.filtering.filling import fill_holes
from stdnet_core.filtering.motion import MotionEstimator, follow_camera
from stdnet_core.filtering.noise import NoiseCurve
from stdnet_core.filtering.smoothing import smooth
from stdnet_core.filtering.upsampling import upsample
from stdnet_core.inference import DepthUpsampler
from stdnet_core.model import ModelConfig, STDNet

H, W = 160, 224


def plane(height=H, width=W, near=2.0, far=3.0) -> np.ndarray:
    """Inverse depth of a slanted wall: linear in the image."""
    return np.linspace(1 / near, 1 / far, width, dtype=np.float32)[None].repeat(height, 0)


def texture(height=H, width=W, seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def invert(image: np.ndarray) -> np.ndarray:
    return np.divide(1, image, out=np.zeros_like(image), where=image > 0)


# --- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.002, 0.01])
def test_noise_on_a_wall_is_found(deviation):
    rng = np.random.default_rng(0)
    curve = NoiseCurve()
    for _ in range(5):
        curve.observe(plane() + (deviation * rng.standard_normal((H, W))).astype(np.float32))
    at_half = curve.deviation(np.full((1, 1), 0.4, np.float32))[0, 0]
    assert at_half == pytest.approx(deviation, rel=0.2)


def test_faultless_depth_has_no_noise_and_clutter_is_not_taken_for_it():
    curve = NoiseCurve()
    boxes = plane()
    boxes[40:80, 60:120] = 0.9
    boxes[100:130, 20:50] = 0.7
    curve.observe(boxes)
    assert (curve.relative == 0).all()
    noisy = NoiseCurve()
    rng = np.random.default_rng(0)
    noisy.observe(boxes + (0.005 * rng.standard_normal((H, W))).astype(np.float32))
    assert noisy.deviation(np.full((1, 1), 0.4, np.float32))[0, 0] == pytest.approx(0.005, rel=0.3)


def test_an_image_too_small_to_tell_has_no_noise():
    curve = NoiseCurve()
    curve.observe(np.random.default_rng(0).uniform(0.3, 0.6, (20, 20)).astype(np.float32))
    assert (curve.relative == 0).all()


# --- smoothing -------------------------------------------------------------------------------------------------------


def test_smoothing_leaves_a_slope_and_lessens_its_noise():
    sigma = np.full((H, W), 0.005, np.float32)
    assert smooth(plane(), sigma) == pytest.approx(plane(), abs=1e-6)
    noise = (0.005 * np.random.default_rng(0).standard_normal((H, W))).astype(np.float32)
    error = smooth(plane() + noise, sigma) - plane()
    assert error[16:-16, 16:-16].std() < 0.4 * 0.005
    unsure_of_nothing = np.zeros((H, W), np.float32)
    assert smooth(plane() + noise, unsure_of_nothing) == pytest.approx(plane() + noise, abs=1e-7)


def test_smoothing_keeps_steps_and_holes():
    step = np.full((H, W), 0.3, np.float32)
    step[:, W // 2 :] = 0.5
    step[10:20, 10:20] = 0
    sigma = np.full((H, W), 0.01, np.float32)
    noise = (0.01 * np.random.default_rng(1).standard_normal((H, W))).astype(np.float32)
    smoothed = smooth(np.where(step > 0, step + noise, 0).astype(np.float32), sigma)
    assert (smoothed[10:20, 10:20] == 0).all()
    beside = np.s_[:, W // 2 - 2 : W // 2 + 2]
    assert np.abs(smoothed - step)[beside].max() < 0.05  # a quarter of the step; 4 deviations of the noise are 0.04


# --- holes -----------------------------------------------------------------------------------------------------------


def test_a_hole_in_a_wall_becomes_the_wall():
    holed = plane()
    holed[50:90, 80:130] = 0
    filled, distance = fill_holes(holed, np.full((H, W, 3), 90, np.uint8))
    assert np.abs(filled - plane()).max() < 0.02  # of 0.37 to 0.41 in the hole
    assert (distance[holed > 0] == 0).all()
    assert [distance[50 + i, 105] for i in range(9)] == [1, 2, 2, 3, 3, 3, 3, 4, 4]  # 1 to 9 px from a measurement


def test_a_hole_between_two_surfaces_is_filled_by_colour():
    depth = np.full((H, W), 0.25, np.float32)
    rgb = np.full((H, W, 3), 40, np.uint8)
    depth[:, :100], rgb[:, :100] = 1.0, 220
    truth = depth.copy()
    depth[:, 90:112] = 0  # the hole reaches over the edge
    filled, _ = fill_holes(depth, rgb)
    wrong = np.abs(filled - truth)[:, 90:112] > 0.3
    assert wrong.mean() < 0.12


def test_a_shadow_without_colour_to_go_by_is_filled_from_behind():
    depth = np.full((H, W), 0.25, np.float32)
    depth[:, :100] = 1.0
    depth[:, 100:108] = 0
    filled, _ = fill_holes(depth, np.full((H, W, 3), 90, np.uint8))
    assert np.median(filled[:, 100:108]) < 0.5  # nearer to 0.25 than to 1


def test_the_middle_of_a_large_hole_is_not_taken_for_a_shadow():
    """A near wall without measurements in most of it, as time of flight has that is too close."""
    depth = np.full((240, 320), 0.2, np.float32)
    rgb = np.full((240, 320, 3), (120, 105, 115), np.uint8)
    depth[:, :150], rgb[:, :150] = 2.0, (90, 95, 95)
    depth[:, :110] = 0
    filled, _ = fill_holes(depth, rgb)
    assert np.median(filled[:, 40:110]) > 1.0


def test_nothing_measured_stays_nothing():
    filled, distance = fill_holes(np.zeros((30, 41), np.float32), texture(30, 41))
    assert not filled.any()
    assert not distance.any()
    one = np.zeros((30, 41), np.float32)
    one[3, 5] = 0.5
    assert fill_holes(one, texture(30, 41))[0] == pytest.approx(0.5)


# --- motion ----------------------------------------------------------------------------------------------------------


def test_what_moved_is_brought_along():
    rgb = texture(H, W + 20, seed=3)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    last, now = np.ascontiguousarray(grey[:, 6 : 6 + W]), np.ascontiguousarray(grey[:, :W])  # content moves by 6 px
    images = np.dstack([np.arange(H * W, dtype=np.float32).reshape(H, W)] * 2)
    moved = MotionEstimator().bring(now, last, images)
    inside = np.s_[20:-20, 30:-30]
    np.roll(images[..., 0], 6, 1)[inside]
    came_from = moved.images[..., 0][inside] % W
    assert np.mean(np.abs(came_from - np.roll(images[..., 0], 6, 1)[inside] % W) <= 1) > 0.95
    assert moved.same[inside].mean() > 0.95
    assert (moved.error[inside] > 0).all()


def test_what_stands_still_is_not_moved():
    grey = cv2.cvtColor(texture(), cv2.COLOR_RGB2GRAY)
    images = np.random.default_rng(0).random((H, W, 2), np.float32)
    noisy = np.clip(grey + np.random.default_rng(1).normal(0, 1.5, grey.shape), 0, 255).astype(np.uint8)
    moved = MotionEstimator().bring(noisy, grey, images)
    assert np.array_equal(moved.images, images)
    assert moved.same.all()
    assert (moved.error == 0).all()


def test_the_camera_s_own_motion_is_followed_and_an_object_s_is_not():
    """Moving ahead by d turns depth z into z - d: inverse depth w becomes w / (1 - d w), about w + d w^2."""
    before = plane()
    ahead = (before / (1 - 0.02 * before)).astype(np.float32)
    measured = ahead.copy()
    measured[40:80, 40:80] *= 1.2
    deviation = np.full((H, W), 0.002, np.float32)
    followed = follow_camera(before, measured, deviation, np.ones((H, W), bool))
    assert followed == pytest.approx(ahead, abs=1e-3)
    assert np.array_equal(follow_camera(before, measured, deviation, np.zeros((H, W), bool)), before)


# --- to colour's size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1.5, 2, 3])
def test_a_wall_stays_a_wall_at_colour_s_size(ratio):
    small = plane(60, 80)
    size = round(60 * ratio), round(80 * ratio)
    at = np.clip((np.arange(size[1]) + 0.5) / ratio - 0.5, 0, 79)
    expected = np.interp(at, np.arange(80), small[0])
    assert upsample(small, texture(*size)) == pytest.approx(np.tile(expected, (size[0], 1)), abs=1e-5)


def test_an_edge_goes_where_colour_has_it():
    rgb = np.full((80, 120, 3), 30, np.uint8)
    rgb[:, 62:] = 200
    cells = np.where(np.arange(60) * 2 + 1 < 62, 0.2, 1.0).astype(np.float32)[None].repeat(40, 0)
    result = upsample(cells, rgb)
    assert result[:, :61] == pytest.approx(0.2, abs=0.02)
    assert result[:, 63:] == pytest.approx(1.0, abs=0.02)


def test_pixels_at_an_edge_equal_loops():
    rng = np.random.default_rng(5)
    rgb = texture(24, 32, seed=6)
    cells = np.where(rng.random((12, 16)) < 0.3, 0, rng.uniform(0.2, 1.0, (12, 16))).astype(np.float32)
    result = upsample(cells, rgb)
    guide = cv2.resize(rgb, (16, 12), interpolation=cv2.INTER_AREA).astype(np.float64)
    for row in range(0, 24, 5):
        for column in range(0, 32, 3):
            y, x = (row + 0.5) / 2, (column + 0.5) / 2
            corners = [
                cells[min(max(math.floor(y - 0.5) + i, 0), 11), min(max(math.floor(x - 0.5) + j, 0), 15)]
                for i in (0, 1)
                for j in (0, 1)
            ]
            if max(corners) - min(corners) <= 0.06 * max(corners):
                continue
            total = weights = 0.0
            for r in range(int(y) - 1, int(y) + 2):
                for c in range(int(x) - 1, int(x) + 2):
                    if 0 <= r < 12 and 0 <= c < 16 and cells[r, c] > 0:
                        weight = math.exp(
                            -((guide[r, c] - rgb[row, column]) ** 2).sum() / (2 * 14.0**2)
                            - ((r + 0.5 - y) ** 2 + (c + 0.5 - x) ** 2) / (2 * 0.6**2)
                        )
                        weight = (weight + 1e-6) / cells[r, c] ** 1.25
                        total, weights = total + weight * cells[r, c], weights + weight
            assert result[row, column] == pytest.approx(total / weights if weights else 0, rel=1e-3)


# --- as a whole ------------------------------------------------------------------------------------------------------


def test_faultless_depth_comes_back_within_2_mm():
    depth = invert(plane())
    depth[40:90, 60:120] = 1.0
    rgb = texture()
    rgb[40:90, 60:120] //= 3
    stream = GuidedTemporalFilter()
    for shift in range(4):  # the camera pans
        moved = np.roll(depth, 3 * shift, 1)
        filtered = stream.step(np.roll(rgb, 3 * shift, 1), moved)
        assert np.abs(filtered.depth - moved).max() < 2e-3


def still_scene(frames: int, deviation: float = 0.004, seed: int = 0):
    rng = np.random.default_rng(seed)
    rgb = texture()
    for _ in range(frames):
        inverse = plane() + (deviation * rng.standard_normal((H, W))).astype(np.float32)
        yield rgb, invert(inverse)


def test_measured_pixels_stay_within_the_noise_and_noise_goes_with_time():
    stream = GuidedTemporalFilter()
    truth = invert(plane())
    errors, outputs = [], []
    for rgb, depth in still_scene(12):
        filtered = stream.step(rgb, depth)
        change = np.abs(invert(filtered.depth) - invert(depth))
        assert change.max() < 3.01 * stream.noise.deviation(invert(depth)).max()
        errors.append(np.abs(filtered.depth - truth).mean())
        outputs.append(filtered.depth)
    raw = np.mean([np.abs(depth - truth).mean() for _, depth in still_scene(12)])
    assert errors[0] < 0.5 * raw
    assert errors[-1] < 0.8 * errors[0]
    flicker = np.abs(outputs[-1] - outputs[-2]).mean()
    (_, first), (_, second) = still_scene(2)
    assert flicker < 0.2 * np.abs(first - second).mean()


def test_what_moves_starts_anew():
    stream = GuidedTemporalFilter()
    for rgb, depth in still_scene(6):
        stream.step(rgb, depth)
    rgb, depth = next(iter(still_scene(1, seed=9)))
    depth[60:100, 80:140] = 1.2
    rgb = rgb.copy()
    rgb[60:100, 80:140] = 250
    filtered = stream.step(rgb, depth)
    assert np.median(np.abs(filtered.depth - depth)[60:100, 80:140]) < 0.02
    # Depth alone may tell, too: the same colour, and a surface that is somewhere else.
    last = filtered.depth
    depth = depth.copy()
    depth[60:100, 80:140] = 1.0
    filtered = stream.step(rgb, depth)
    assert np.median(np.abs(filtered.depth - depth)[60:100, 80:140]) < 0.02
    assert np.median(np.abs(filtered.depth - last)[60:100, 80:140]) > 0.15


def test_a_reading_that_is_lost_is_remembered():
    stream = GuidedTemporalFilter()
    frames = list(still_scene(5))
    for rgb, depth in frames[:-1]:
        depth[50:90, 80:130] = np.where(depth[50:90, 80:130] > 0, 1.5, 0)
        stream.step(rgb, depth)
    rgb, depth = frames[-1]
    depth[50:90, 80:130] = 0
    filtered = stream.step(rgb, depth)
    assert np.median(filtered.depth[60:80, 90:120]) == pytest.approx(1.5, abs=0.05)
    alone = GuidedTemporalFilter().step(rgb, depth)
    assert np.median(alone.depth[60:80, 90:120]) > 2  # from around


def test_frames_without_anything_and_changes_of_size():
    stream = GuidedTemporalFilter()
    rgb = texture()
    assert not stream.step(rgb, np.zeros((H, W), np.float32)).depth.any()
    for _, depth in still_scene(2):
        stream.step(rgb, depth)
    remembered = stream.step(rgb, np.zeros((H, W), np.float32))
    assert np.abs(remembered.depth - invert(plane())).max() < 0.15  # 5 deviations of noise at 3 m
    small = stream.step(rgb[:80, :100], invert(plane(80, 100)))
    assert small.depth.shape == (80, 100)


# --- in DepthUpsampler -----------------------------------------------------------------------------------------------


def network_of_scales():
    """An untrained STDNet, which interpolates, made for x4, x8 and x16."""
    config = ModelConfig.preset("tiny_causal", channels=4, head_channels=4)
    model = STDNet(config)
    model.zero_init_heads()
    return model, CheckpointInfo(config, (4, 8, 16), None)


@pytest.mark.parametrize(
    ("colour", "depth", "method"),
    [
        ((120, 160), (120, 160), "guided_temporal"),
        ((120, 160), (80, 107), "guided_temporal"),
        ((120, 160), (60, 80), "guided_temporal"),
        ((120, 160), (40, 53), "guided_temporal"),
        ((120, 160), (30, 40), "stdnet"),
        ((121, 161), (31, 41), "stdnet"),
        ((120, 160), (16, 21), "stdnet"),
    ],
)
def test_auto_does_not_take_fine_depth_to_a_coarser_grid(colour, depth, method):
    upsampler = DepthUpsampler(network_of_scales(), device="cpu")
    result = upsampler.step(texture(*colour), np.full(depth, 2.0, np.float32))
    assert upsampler.method == method
    assert result.depth.shape == colour
    assert result.depth == pytest.approx(2.0, abs=0.05 if method == "stdnet" else 1e-4)
    said = [text for text in upsampler.notices if "guided_temporal" in text]
    assert len(said) == (method == "guided_temporal")
    upsampler.step(texture(*colour), np.full(depth, 2.0, np.float32))
    assert [text for text in upsampler.notices if "guided_temporal" in text] == said  # once


def test_the_network_itself_can_still_be_asked_for():
    upsampler = DepthUpsampler(network_of_scales(), method="stdnet", device="cpu")
    upsampler.step(texture(64, 96), np.full((64, 96), 2.0, np.float32))
    assert upsampler.method == "stdnet"
    assert any("resampled to 24x16" in text for text in upsampler.notices)


def test_a_ratio_of_7_5_goes_to_the_next_finer_grid():
    upsampler = DepthUpsampler(network_of_scales(), device="cpu")
    upsampler.step(texture(240, 360), np.full((32, 48), 2.0, np.float32))
    assert any("resampled to 90x60 and upsampled x4" in text for text in upsampler.notices)


@pytest.mark.parametrize("depth", [(120, 160), (80, 107), (30, 40), (16, 21), (4, 5)])
def test_the_recurrent_network_takes_every_ratio_as_it_is(depth):
    automatic = DepthUpsampler("auto", device="cpu")
    automatic.step(texture(120, 160), np.full(depth, 2.0, np.float32))
    assert automatic.method == "stdnet"
    upsampler = DepthUpsampler("auto", method="stdnet", device="cpu")
    result = upsampler.step(texture(120, 160), np.full(depth, 2.0, np.float32))
    assert not upsampler.geometry.resampled
    assert not upsampler.notices
    assert result.depth == pytest.approx(2.0, abs=1e-3)


def test_far_from_any_measurement_nothing_is_shown():
    depth = invert(plane(240, 320))
    depth[:, :160] = 0
    shown = DepthUpsampler(method="guided_temporal", device="cpu").step(texture(240, 320), depth)
    everything = DepthUpsampler(method="guided_temporal", device="cpu", mask_unsupported=False)
    result = everything.step(texture(240, 320), depth)
    assert np.isnan(shown.depth[:, :127]).all()
    assert np.isfinite(shown.depth[:, 130:]).all()
    assert np.isfinite(result.depth).all()
    assert not result.supported[:, :127].any()
    assert (shown.confidence[:, :127] == 0).all()
    assert shown.confidence[:, 200:].mean() > shown.confidence[:, 135:155].mean()
