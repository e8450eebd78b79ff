"""DepthUpsampler: units, sizes, holes, normalisation, streaming, errors; the network itself is the reference."""

from __future__ import annotations

import copy
import itertools
import logging

import cv2
import numpy as np
import pytest
import torch

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import CheckpointError, ConfigError, InputError
from stdnet_core.inference import DepthUpsampler
from stdnet_core.inference.confidence import flying_pixels
from stdnet_core.inference.devices import place
from stdnet_core.inference.frames import DepthRange, Geometry, check_rgb, pad_colour, to_metres
from stdnet_core.model import ModelConfig, STDNet

NARROW = dict(
    channels=8,
    head_channels=8,
    trunk_blocks=1,
    reconstruction_blocks=1,
    fusion_blocks=1,
    output="guided_kernel",
    depth_features="local",
    max_offset=4.0,
)
SCALES = (4, 8)


def make_model(passes=("forward",), uncertainty=False, stages=1):
    torch.manual_seed(1)
    return STDNet(ModelConfig(**NARROW, passes=passes, uncertainty=uncertainty, stages=stages)).eval()


def network(model, depth_range=10.0, **settings):
    info = CheckpointInfo(model.config, SCALES, depth_range)
    return DepthUpsampler.from_model(model, info, device="cpu", **settings)


def make_clip(frames, height=32, width=48, scale=8, seed=0):
    """Random colour (T, H, W, 3) uint8 and depth (T, h, w) float32 metres in 1..4."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return rgb, rng.uniform(1, 4, (frames, -(-height // scale), -(-width // scale))).astype(np.float32)


def whole_clip(model, rgb, depth_lr, metres):
    """The network on the whole clip at once, (T, H, W) metres."""
    guide = torch.from_numpy(rgb).float().div(255).permute(0, 3, 1, 2)[None]
    with torch.inference_mode():
        out = model(rgb=guide, depth_lr=torch.from_numpy(depth_lr)[None, :, None] / metres)
    return out.depth[0, :, 0].numpy() * metres, out


def outputs_of(upsampler, rgb, depth):
    return list(upsampler.run(rgb, depth))


# --- the network ----------------------------------------------------------------------------------------------


def test_a_frame_that_fails_begins_a_new_stream():
    """Half of it is in the window: frames after it must not be computed with that half."""
    model = make_model(("forward", "forward"))
    rgb, depth = make_clip(6)
    upsampler = network(model)
    expected = [r.depth for r in outputs_of(network(model), rgb[3:], depth[3:])]

    calls = itertools.count()

    def fail(_module, _inputs):
        if next(calls) == 30:
            raise torch.OutOfMemoryError("as if memory had run out")

    for t in range(2):
        upsampler.step(rgb[t], depth[t])
    hook = torch.nn.modules.module.register_module_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        upsampler.step(rgb[2], depth[2])
    hook.remove()
    for t in range(3, 6):
        np.testing.assert_array_equal(upsampler.step(rgb[t], depth[t]).depth, expected[t - 3])


def test_what_is_printed_of_an_upsampler_and_its_result():
    upsampler = DepthUpsampler(method="bilinear", device="cpu")
    assert repr(upsampler) == "DepthUpsampler(bilinear, cpu in fp32)"
    result = upsampler.step(np.zeros((16, 24, 3), np.uint8), np.array([[1.0, 1.0, 0], [3, 3, 0]], np.float32), stamp=7)
    share = 100 * np.isfinite(result.depth).mean()
    assert repr(result) == f"UpsampledDepth(24x16, 1.00 to 3.00 m in {share:.0f} % of the pixels, stamp=7)"
    result.depth[:] = np.nan
    assert "no depth" in repr(result)


@pytest.mark.parametrize("size", [(32, 48), (31, 45)])
@pytest.mark.parametrize("depth_range", [10.0, None])
def test_a_causal_stream_gives_what_the_network_gives_for_the_clip(size, depth_range):
    model = make_model(("forward", "forward"))
    rgb, depth = make_clip(5, *size)
    expected, _ = whole_clip(model, rgb, depth, depth_range or 1.25 * float(depth[0].max()))
    results = outputs_of(network(model, depth_range), rgb, depth)
    assert [r.stamp for r in results] == list(range(5))
    np.testing.assert_allclose([r.depth for r in results], expected, atol=1e-4)


def test_a_late_stream_gives_what_the_network_gives_for_the_clip():
    model = make_model(("backward", "forward"))
    rgb, depth = make_clip(7)
    expected, _ = whole_clip(model, rgb, depth, 10.0)
    upsampler = network(model, latency=2)
    results = [upsampler.step(c, d, stamp) for c, d, stamp in zip(rgb, depth, "abcdefg", strict=True)]
    assert results[:2] == [None, None]
    assert [r.stamp for r in results[2:]] == list("abcde")
    rest = upsampler.flush()
    assert [r.stamp for r in rest] == list("fg")
    np.testing.assert_allclose([r.depth for r in results[2:] + rest], expected, atol=1e-4)
    assert upsampler.flush() == []
    again = outputs_of(upsampler, rgb, depth)
    np.testing.assert_array_equal(again[3].depth, results[5].depth)


def test_the_given_model_is_left_alone():
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    upsampler = network(model, precision="bf16")
    assert upsampler.placement.precision == "bf16"
    rgb, depth = make_clip(2)
    low = outputs_of(upsampler, rgb, depth)[1].depth
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, whole_clip(model, rgb, depth, 10.0)[0][1], atol=0.1)


@pytest.mark.parametrize("missing", [0.0, np.nan, np.inf, -1.0])
def test_holes_are_filled_for_the_network_and_masked_after_it(missing):
    model = make_model()
    rgb, depth = make_clip(2, 64, 96)
    holey, filled = depth.copy(), depth.copy()
    holey[:, :, :3] = missing
    filled[:, :, :3] = depth[:, :, 3:4]
    expected, _ = whole_clip(model, rgb, filled, 10.0)
    masked = outputs_of(network(model), rgb, holey)[1]
    whole = outputs_of(network(model, mask_unsupported=False), rgb, holey)[1]
    np.testing.assert_allclose(whole.depth, expected[1], atol=1e-4)
    supported = np.arange(96) > 2 * 8 + 3.5  # less than a cell from the centres of column 3, which lie at 27.5
    assert np.isnan(masked.depth[:, ~supported]).all()
    assert (masked.confidence[:, ~supported] == 0).all()
    np.testing.assert_array_equal(masked.depth[:, supported], whole.depth[:, supported])


def test_a_frame_without_depth_gives_no_depth_and_repeats_the_last_for_its_neighbours():
    model = make_model(("forward",))
    rgb, depth = make_clip(4)
    blind = depth.copy()
    blind[2] = np.nan
    repeated = depth.copy()
    repeated[2] = depth[1]
    results = outputs_of(network(model), rgb, blind)
    assert np.isnan(results[2].depth).all()
    assert (results[2].confidence == 0).all()
    np.testing.assert_allclose(results[3].depth, whole_clip(model, rgb, repeated, 10.0)[0][3], atol=1e-4)


def test_predicted_scale_becomes_the_probability_of_a_small_error():
    model = make_model(uncertainty=True)
    rgb, depth = make_clip(3)
    expected, out = whole_clip(model, rgb, depth, 10.0)
    scale = out.log_scale[0, :, 0].exp().numpy() * 10.0
    tolerance = np.maximum(0.02, 0.02 * expected)
    confidence = np.stack([r.confidence for r in outputs_of(network(model), rgb, depth)])
    np.testing.assert_allclose(confidence, 1 - np.exp(-tolerance / scale), atol=1e-3)


def test_confidence_falls_where_the_stages_disagree():
    model = make_model(stages=2)
    rgb, depth = make_clip(3)
    expected, out = whole_clip(model, rgb, depth, 10.0)
    first, second = (stage[0, :, 0].numpy() * 10.0 for stage in out.stage_depths)
    tolerance = np.maximum(0.02, 0.02 * expected)
    confidence = np.stack([r.confidence for r in outputs_of(network(model), rgb, depth)])
    scale = np.abs(first - second) + 0.15 * tolerance
    np.testing.assert_allclose(confidence, 1 - np.exp(-tolerance / scale), atol=1e-3)


def test_a_causal_network_does_not_wait():
    upsampler = network(make_model(("forward",)), latency=4)
    assert upsampler.latency == 0
    assert "causal" in upsampler.notices[0]


# --- the depth range ------------------------------------------------------------------------------------------


def test_the_window_starts_anew_when_depth_leaves_its_range_for_good():
    model = make_model(("backward", "forward"))
    rgb, depth = make_clip(16)
    depth[6:] *= 3
    restart = 6 + DepthRange.PATIENCE - 1
    upsampler = network(model, None, latency=2)
    results = outputs_of(upsampler, rgb, depth)
    assert [r.stamp for r in results] == list(range(16))
    assert sum("range" in notice for notice in upsampler.notices) == 1
    before, _ = whole_clip(model, rgb[:restart], depth[:restart], 1.25 * float(depth[0].max()))
    after, _ = whole_clip(model, rgb[restart:], depth[restart:], 1.25 * float(depth[restart].max()))
    np.testing.assert_allclose([r.depth for r in results], np.concatenate([before, after]), atol=1e-3)


def test_an_outlier_does_not_cost_the_window():
    depth_range = DepthRange(None)
    assert not depth_range.observe(4.0)
    assert depth_range.metres == 5.0
    for largest in [40.0] * (DepthRange.PATIENCE - 1) + [5.9] + [1.0] * (DepthRange.PATIENCE - 1) + [2.1, 0.0]:
        assert not depth_range.observe(largest)
    assert depth_range.metres == 5.0
    assert [depth_range.observe(1.9) for _ in range(DepthRange.PATIENCE)] == [False] * 4 + [True]
    assert depth_range.metres == pytest.approx(1.25 * 1.9)


def test_the_range_comes_from_the_first_frame_with_depth():
    model = make_model()
    rgb, depth = make_clip(4)
    depth[:2] = 0
    results = outputs_of(network(model, None), rgb, depth)
    assert np.isnan(results[0].depth).all()
    expected, _ = whole_clip(model, rgb[2:], depth[2:], 1.25 * float(depth[2].max()))
    np.testing.assert_allclose([r.depth for r in results[2:]], expected, atol=1e-4)


def test_depth_beyond_a_fixed_range_is_noted_once():
    upsampler = network(make_model(), 3.0)
    outputs_of(upsampler, *make_clip(3))
    assert sum("3 m" in notice for notice in upsampler.notices) == 1


# --- units, sizes and ratios ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["joint_bilateral", "bilinear", "nearest", "bicubic"])
def test_units_and_types_do_not_matter(method):
    rgb, _ = make_clip(1)
    millimetres = np.random.default_rng(0).integers(500, 4000, (4, 6)).astype(np.uint16)
    millimetres[1, 2] = 0
    metres = np.where(millimetres > 0, millimetres / 1000, np.nan)
    reference = DepthUpsampler(method=method).step(rgb[0], millimetres)
    for colour in (rgb[0], rgb[0] / 255, (rgb[0] / 255).astype(np.float32), np.flip(np.flip(rgb[0], 2).copy(), 2)):
        for depth in (metres, metres.astype(np.float32), np.nan_to_num(metres)):
            other = DepthUpsampler(method=method).step(colour, depth)
            np.testing.assert_allclose(other.depth, reference.depth, atol=1e-4)
            np.testing.assert_allclose(other.confidence, reference.confidence, atol=1e-4)
    assert reference.depth.dtype == reference.confidence.dtype == np.float32


def test_reversed_arrays_are_taken():
    rgb, depth = make_clip(2)
    reversed_rgb, reversed_depth = np.flip(np.flip(rgb, 3).copy(), 3), np.flip(np.flip(depth, 1).copy(), 1)
    assert min(reversed_rgb.strides) < 0
    for make in (lambda: network(make_model()), lambda: DepthUpsampler(method="joint_bilateral")):
        expected, results = outputs_of(make(), rgb, depth), outputs_of(make(), reversed_rgb, reversed_depth)
        np.testing.assert_allclose(results[1].depth, expected[1].depth, atol=1e-6)


def test_read_only_arrays_such_as_message_buffers_are_taken(recwarn):
    rgb, depth = make_clip(2)
    rgb.setflags(write=False)
    depth.setflags(write=False)
    for upsampler in (network(make_model()), DepthUpsampler(method="joint_bilateral")):
        assert len(outputs_of(upsampler, rgb, depth)) == 2
    assert not recwarn.list


SIZES = [
    ((479, 641), (60, 81), False),  # whole cells, the last ones cut
    ((479, 641), (59, 80), False),  # whole cells, the cut ones left out
    ((480, 640), (96, 128), False),  # x5
    ((480, 640), (64, 85), True),  # x7.5
    ((480, 640), (480, 640), False),  # registered depth
    ((480, 640), (240, 320), False),  # x2
    ((479, 641), (479, 641), False),
    ((64, 64), (2, 2), False),  # x32
]


def plane(rows, columns, size):
    """Depth of a slanted plane at cells that share the image's extent evenly."""
    y = (np.arange(rows) + 0.5) / rows * size[0]
    x = (np.arange(columns) + 0.5) / columns * size[1]
    return (2 + y[:, None] / size[0] + 0.5 * x / size[1]).astype(np.float32)


@pytest.mark.parametrize(("size", "depth_size", "resampled"), SIZES)
@pytest.mark.parametrize("method", ["joint_bilateral", "bilinear", "nearest", "bicubic", "stdnet"])
def test_any_size_and_ratio_keeps_a_plane_in_place(method, size, depth_size, resampled):
    if method == "stdnet":
        if size[0] * size[1] > 64 * 64:
            size, depth_size = tuple(s // 5 for s in size), tuple(max(1, s // 5) for s in depth_size)
        upsampler = network(make_model())
    else:
        upsampler = DepthUpsampler(method=method)
    rgb = np.full((*size, 3), 128, np.uint8)
    result = upsampler.step(rgb, plane(*depth_size, size))
    assert result.depth.shape == result.confidence.shape == size
    truth = plane(*size, size)
    if method == "stdnet":
        assert np.isfinite(result.depth).all()
        return
    if method == "joint_bilateral":
        assert bool(upsampler.notices) == resampled
    cell = 1.5 * max(2 / depth_size[0], 8 / size[0])
    assert np.abs(result.depth - truth).max() < (cell if method == "nearest" else 0.75 * cell)
    middle = (slice(size[0] // 4, 3 * size[0] // 4), slice(size[1] // 4, 3 * size[1] // 4))
    if method in ("bilinear", "bicubic") and depth_size[0] > 2:
        assert np.abs(result.depth - truth)[middle].max() < 0.02
    assert abs(np.mean((result.depth - truth)[middle])) < 0.01


def test_the_trained_scale_that_loses_nothing_is_used_and_said_once(caplog):
    model = make_model()
    # Never a grid that is coarser than depth, except where depth is finer than all that was trained for.
    for ratio, scale, said in [(4, 4, 0), (8, 8, 0), (5, 4, 1), (6, 4, 1), (16, 8, 1), (1, 4, 1), (2, 4, 1)]:
        upsampler = network(model, method="stdnet")
        with caplog.at_level(logging.WARNING, "stdnet_core.inference"):
            caplog.clear()
            for _ in range(2):
                outputs_of(upsampler, *make_clip(2, 48, 96, ratio))
        assert upsampler.geometry is None
        assert len(upsampler.notices) == said == len(caplog.records), ratio
        assert not said or f"upsampled x{scale} " in upsampler.notices[0]


def test_resampling_to_a_coarser_grid_takes_the_median_of_valid_depths():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 5, (32, 40)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.4] = 0
    depth[:4, :4] = 0
    geometry = Geometry.choose((32, 40), (32, 40), (4, 8))
    cells = geometry.to_grid(depth)
    for r in range(8):
        for c in range(10):
            block = depth[4 * r : 4 * r + 4, 4 * c : 4 * c + 4]
            valid = np.sort(block[block > 0])
            assert cells[r, c] == (valid[(len(valid) - 1) // 2] if len(valid) else 0)


def test_resampling_to_a_finer_grid_does_not_mix_surfaces():
    depth = np.full((64, 85), 1.0, np.float32)
    depth[:, 40:] = 3.0
    depth[20:30, 10:20] = 0
    cells = Geometry.choose((480, 640), (64, 85), (8,)).to_grid(depth)
    assert cells.shape == (60, 80)
    assert set(np.unique(cells.round(5))) == {0.0, 1.0, 3.0}


def test_padding_replicates_the_right_and_lower_border():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pad_colour(rgb, (8, 8)), np.pad(rgb, ((0, 3), (0, 1), (0, 0)), mode="edge"))
    assert pad_colour(rgb[:4, :4], (4, 4)).base is not None
    cells = Geometry.choose((33, 49), (4, 6), (8,)).to_grid(np.arange(1, 25, dtype=np.float32).reshape(4, 6))
    np.testing.assert_array_equal(cells[4], cells[3])
    np.testing.assert_array_equal(cells[:, 6], cells[:, 5])


# --- masking --------------------------------------------------------------------------------------------------


def test_measurements_beyond_max_depth_are_ignored():
    rgb, depth = make_clip(1)
    depth[0, 1:, 2:] = 9
    for value in (depth[0], (depth[0] * 1000).astype(np.uint16)):
        result = DepthUpsampler(method="nearest", max_depth=5).step(rgb[0], value)
        assert np.isnan(result.depth[8:, 16:]).all()
        assert np.nanmax(result.depth) < 5
        assert np.isfinite(result.depth[:8]).all()


def test_the_edge_filter_removes_pixels_between_surfaces_and_keeps_slanted_ones():
    rgb = np.zeros((32, 64, 3), np.uint8)
    step = np.where(np.arange(8) < 4, 1.0, 2.0)[None].repeat(4, 0).astype(np.float32)
    slanted = np.linspace(1, 2, 8, dtype=np.float32)[None].repeat(4, 0)
    blurred = DepthUpsampler(method="bilinear").step(rgb, step).depth
    clean = DepthUpsampler(method="bilinear", edge_filter=0.03).step(rgb, step)
    removed = np.isnan(clean.depth)
    between = (blurred > 1.15) & (blurred < 1.85)
    assert removed[between].all()
    assert not removed[(blurred == 1) | (blurred == 2)].any()
    assert (clean.confidence[removed] == 0).all()
    assert not np.isnan(DepthUpsampler(method="bilinear", edge_filter=0.05).step(rgb, slanted).depth).any()
    sharp = np.repeat(np.repeat(step, 8, 0), 8, 1)
    assert not flying_pixels(sharp, sharp > 0, 0.03).any()


def test_confidence_of_a_classical_method_is_low_at_edges_and_holes():
    rgb = np.zeros((64, 96, 3), np.uint8)
    depth = np.full((8, 12), 2.0, np.float32)
    depth[:, 8:] = 4
    depth[2:5, 1:4] = 0
    confidence = DepthUpsampler(method="joint_bilateral").step(rgb, depth).confidence
    assert confidence[60, 40] > 0.95
    assert confidence[60, 63] < 0.5
    assert confidence[28, 20] == 0
    assert confidence.min() >= 0
    assert confidence.max() <= 1


# --- videos ---------------------------------------------------------------------------------------------------


def test_a_video_is_read_no_further_ahead_than_the_latency():
    read = []

    def frames(array, log):
        for index, frame in enumerate(array):
            log.append(index)
            yield frame

    rgb, depth = make_clip(8)
    upsampler = network(make_model(("backward",)), latency=2)
    results = upsampler.run(frames(rgb, read), frames(depth, []), stamps=iter(range(100, 108)))
    assert next(results).stamp == 100
    assert read == [0, 1, 2]
    assert [r.stamp for r in results] == list(range(101, 108))


def test_videos_of_different_lengths_are_refused():
    rgb, depth = make_clip(3)
    with pytest.raises(InputError, match="depth video ends after 2"):
        outputs_of(DepthUpsampler(method="nearest"), rgb, depth[:2])
    with pytest.raises(InputError, match="colour video ends after 1"):
        outputs_of(DepthUpsampler(method="nearest"), rgb[:1], depth)
    with pytest.raises(InputError, match=r"frame 1: .*nan"):
        outputs_of(DepthUpsampler(method="nearest"), [rgb[0], np.full((32, 48, 3), np.nan)], depth[:2])


def test_too_few_stamps_are_refused_and_cut_nothing_off():
    rgb, depth = make_clip(3)
    results = DepthUpsampler(method="nearest").run(rgb, depth, stamps=["a", "b"])
    assert [next(results).stamp, next(results).stamp] == ["a", "b"]
    with pytest.raises(InputError, match="stamps end after 2 frames"):
        next(results)


# --- errors ---------------------------------------------------------------------------------------------------

GOOD_RGB, GOOD_DEPTH = np.zeros((32, 48, 3), np.uint8), np.ones((4, 6), np.float32)


@pytest.mark.parametrize(
    ("rgb", "depth", "message"),
    [
        (GOOD_RGB[..., 0], GOOD_DEPTH, r"\(H, W, 3\)"),
        (np.zeros((32, 48, 4), np.uint8), GOOD_DEPTH, r"\(H, W, 3\)"),
        (np.zeros((0, 48, 3), np.uint8), GOOD_DEPTH, r"\(H, W, 3\)"),
        (GOOD_RGB.tolist(), GOOD_DEPTH, "list"),
        (GOOD_RGB.astype(np.uint16), GOOD_DEPTH, "uint16"),
        (GOOD_RGB + 200.0, GOOD_DEPTH, "0..1"),
        (np.full(GOOD_RGB.shape, np.nan), GOOD_DEPTH, "0..1"),
        (GOOD_RGB, GOOD_DEPTH[..., None], r"\(h, w\)"),
        (GOOD_RGB, GOOD_DEPTH.astype(np.int32), "int32"),
        (GOOD_RGB, GOOD_DEPTH.astype(np.uint8), "uint8"),
        (GOOD_RGB, None, "NoneType"),
        (GOOD_RGB, np.ones((4, 9), np.float32), "call reset"),
        (GOOD_RGB, np.ones((8, 12), np.float32), "call reset"),
        (np.zeros((64, 96, 3), np.uint8), GOOD_DEPTH, "call reset"),
    ],
)
def test_a_bad_frame_is_refused_and_the_stream_goes_on(rgb, depth, message):
    model = make_model(("backward", "forward"))
    colours, depths = make_clip(4)
    expected = outputs_of(network(model, latency=1), colours, depths)
    upsampler = network(model, latency=1)
    results = []
    for colour, lr in zip(colours, depths, strict=True):
        results.append(upsampler.step(colour, lr))
        with pytest.raises(InputError, match=message):
            upsampler.step(rgb, depth)
    results = results[1:] + upsampler.flush()
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.depth, reference.depth)


@pytest.mark.parametrize("depth_size", [(48, 85), (64, 64), (40, 80)])
def test_another_aspect_is_refused_with_the_remedy(depth_size):
    with pytest.raises(InputError, match="depth_image_proc/register"):
        DepthUpsampler(method="bilinear").step(np.zeros((480, 640, 3), np.uint8), np.ones(depth_size, np.float32))


def test_depth_larger_than_colour_is_refused():
    with pytest.raises(InputError, match="larger than colour"):
        DepthUpsampler(method="bilinear").step(np.zeros((48, 64, 3), np.uint8), np.ones((96, 128), np.float32))


def test_sizes_may_change_after_a_reset():
    for upsampler in (network(make_model(("backward",)), latency=1), DepthUpsampler(method="bilinear")):
        outputs_of(upsampler, *make_clip(2))
        upsampler.step(*(x[0] for x in make_clip(1)))
        upsampler.reset()
        results = outputs_of(upsampler, *make_clip(2, 40, 64, 4))
        assert [r.depth.shape for r in results] == [(40, 64)] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(method="magic"), "joint_bilateral"),
        (dict(latency=9), "0 to 8"),
        (dict(latency=-1), "0 to 8"),
        (dict(latency=1.5), "0 to 8"),
        (dict(max_depth=0), "max_depth"),
        (dict(edge_filter=-0.1), "edge_filter"),
        (dict(backend="tpu"), "backend"),
        (dict(device="gpu"), "device"),
        (dict(device="cuda:x"), "device"),
        (dict(precision="int8"), "precision"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DepthUpsampler(**settings)


def test_checks_copy_only_what_has_to_be_copied():
    assert check_rgb(GOOD_RGB) is GOOD_RGB
    source = np.array([[1.0, np.nan]], np.float32)
    metres = to_metres(source)
    assert metres.tolist() == [[1.0, 0.0]]
    assert np.isnan(source[0, 1])


# --- checkpoints and devices ----------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped weights in place of the package's; returns a function that adds one."""
    monkeypatch.setattr(checkpoints.resources, "files", lambda _: tmp_path)
    (tmp_path / "weights").mkdir()

    def add(name, depth_range=10.0):
        model = make_model()
        path = tmp_path / "weights" / f"{name}.safetensors"
        checkpoints.save(path, model, CheckpointInfo(model.config, SCALES, depth_range))
        return path

    return add


def test_without_weights_the_default_is_joint_bilateral(shipped):
    assert DepthUpsampler().method == "joint_bilateral"
    assert DepthUpsampler("auto").method == "joint_bilateral"
    with pytest.raises(CheckpointError, match="none ships"):
        DepthUpsampler(method="stdnet")
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        DepthUpsampler.from_pretrained("tiny")


def test_shipped_weights_are_found_by_name(shipped):
    path = shipped("small", 11.0)
    assert DepthUpsampler("auto", device="cpu").info.name == "small"
    shipped("live", 12.0)
    assert DepthUpsampler("auto", device="cpu").info.name == "live"
    assert DepthUpsampler(method="stdnet", device="cpu").info.name == "live"
    assert DepthUpsampler.from_pretrained("small", device="cpu").info.depth_range == 11.0
    assert DepthUpsampler().method == "joint_bilateral"
    from_file = DepthUpsampler(path, device="cpu")
    rgb, depth = make_clip(2)
    expected, _ = whole_clip(make_model(), rgb, depth, 11.0)
    np.testing.assert_allclose([r.depth for r in outputs_of(from_file, rgb, depth)], expected, atol=1e-4)
    assert DepthUpsampler(path, method="bilinear").method == "bilinear"


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"foreign\.safetensors"):
        DepthUpsampler(foreign)


@pytest.mark.parametrize(("computes_bf16", "automatic"), [(False, "fp32"), (True, "bf16")])
def test_devices_and_precisions_on_the_cpu(computes_bf16, automatic, monkeypatch):
    monkeypatch.setattr("stdnet_core.inference.devices.cpu_computes_bf16", lambda: computes_bf16)
    assert place("cpu", "auto").precision == automatic
    assert place("cpu", "fp32").precision == "fp32"
    assert place("cpu", "bf16").dtype == torch.bfloat16
    slow = place("cpu", "fp16")
    assert (slow.precision, slow.fallback) == ("fp32", True)
    assert "fp16" in slow.reason
    assert place("cpu", "auto").reason is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_missing_gpu_is_said():
    automatic, demanded = place("auto"), place("cuda:1")
    assert (automatic.device.type, automatic.fallback) == ("cpu", False)
    assert (demanded.device.type, demanded.fallback) == ("cpu", True)
    for placement in (automatic, demanded):
        assert "CPU" in placement.reason
        assert "CUDA" in placement.reason
    assert DepthUpsampler(method="bilinear").notices == []
    assert "cuda" in DepthUpsampler(method="bilinear", device="cuda").notices[0]
    model = make_model()
    info = CheckpointInfo(model.config, SCALES, 10.0)
    assert "CPU" in DepthUpsampler.from_model(model, info).notices[0]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_what_the_cpu_gives():
    model = make_model(("backward", "forward"))
    info = CheckpointInfo(model.config, SCALES, 10.0)
    clip = make_clip(4)
    reference = np.stack([r.depth for r in outputs_of(DepthUpsampler.from_model(model, info, device="cpu"), *clip)])
    for precision, tolerance in (("fp32", 1e-2), ("auto", 0.1)):
        upsampler = DepthUpsampler.from_model(model, info, device="cuda", precision=precision)
        assert upsampler.placement.device.type == "cuda"
        results = np.stack([r.depth for r in outputs_of(upsampler, *clip)])
        assert np.abs(results - reference).max() < tolerance
    cpu = DepthUpsampler(method="joint_bilateral", device="cpu").step(clip[0][0], clip[1][0]).depth
    gpu = DepthUpsampler(method="joint_bilateral", device="cuda").step(clip[0][0], clip[1][0]).depth
    np.testing.assert_allclose(gpu, cpu, atol=1e-3)


def test_joint_bilateral_beats_bilinear_on_a_scene_with_colour_edges():
    rng = np.random.default_rng(0)
    height, width, scale = 120, 160, 8
    truth = np.full((height, width), 4.0, np.float32)
    rgb = np.full((height, width, 3), 90, np.uint8)
    for index in range(8):
        centre, radius = (int(rng.integers(width)), int(rng.integers(height))), int(rng.integers(15, 35))
        cv2.circle(truth, centre, radius, 3.6 - 0.35 * index, -1)
        cv2.circle(rgb, centre, radius, rng.integers(0, 256, 3).tolist(), -1)
    depth = truth[scale // 2 :: scale, scale // 2 :: scale].copy()
    rmse = {
        method: float(np.sqrt(np.square(DepthUpsampler(method=method).step(rgb, depth).depth - truth).mean()))
        for method in ("joint_bilateral", "bilinear", "nearest")
    }
    assert rmse["joint_bilateral"] < 0.75 * rmse["bilinear"]
    assert rmse["joint_bilateral"] < 0.75 * rmse["nearest"]
