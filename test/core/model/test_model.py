"""The network against golden data, brute-force versions of its parts, and its own claims."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from stdnet_core import ModelConfig, STDNet
from stdnet_core.checkpoints import load_released
from stdnet_core.errors import ConfigError, InputError
from stdnet_core.model import PRESETS
from stdnet_core.model.deform_conv import deform_conv3x3, torchvision_deform_conv2d
from stdnet_core.model.low_resolution import LowResolutionDepth, infer_scale
from stdnet_core.model.propagation import propagate, temporal_differences
from stdnet_core.model.spatial_difference import filter_3x3, spatial_difference

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = ("x8_t6", "x4_t3", "x16_t5", "x8_t9", "x8_t2", "x4_odd")
TINY = dict(channels=4, head_channels=4, trunk_blocks=1, reconstruction_blocks=1, fusion_blocks=1)


@pytest.fixture(scope="module")
def golden():
    model, _ = load_released(GOLDEN / "stdnet_c16.pt", scale=8, depth_range=40.0)
    return model, torch.load(GOLDEN / "stdnet_c16.pt", weights_only=True)["cases"]


@pytest.mark.parametrize("name", CASES)
def test_golden_output(golden, name):
    model, cases = golden
    case = cases[name]
    with torch.inference_mode():
        out = model(rgb=case["rgb"], depth_lr=case["depth_lr"])
    assert out.depth.shape == case["depth_hr"].shape
    assert (out.depth - case["depth_hr"]).abs().max() <= 1e-4


def test_golden_intermediates(golden):
    model, cases = golden
    case = cases["x8_t6"]
    with torch.inference_mode():
        out = model(rgb=case["rgb"], depth_lr=case["depth_lr"], return_differences=True)
    pairs = [
        (out.stage_depths[0], case["stage1_depth"]),
        (out.stage_depths[1], case["stage2_depth"]),
        (out.stage_weights[:, :, :1], case["stage1_weight"]),
        (out.stage_weights[:, :, 1:], case["stage2_weight"]),
        (out.differences[0].sigma, case["spatial_diff_stage1"]),
        (out.differences[1].sigma, case["spatial_diff_stage2"]),
        (out.differences[0].phi[0], case["temporal_diff_adjacent_stage1"]),
        (out.differences[0].phi[1], case["temporal_diff_cross_stage1"]),
    ]
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_base_preset_has_the_released_parameters():
    from stdnet_core.checkpoints import _own_name

    released = json.loads((GOLDEN / "released_state_dict_c64.json").read_text())
    released = released.get("tensors", released)
    with torch.device("meta"):
        model = STDNet(ModelConfig.preset("base"))
    own = {k: list(v.shape) for k, v in model.state_dict().items()}
    assert {_own_name(k): list(shape) for k, shape in released.items()} == own
    assert sum(p.numel() for p in model.parameters()) == 19_916_790


def _brute_force_deform(x, offset, mask, weight, bias):
    n, c, h, w = x.shape
    out = torch.zeros(n, weight.shape[0], h, w, dtype=x.dtype)

    def pixel(b, yy, xx):
        return x[b, :, yy, xx] if 0 <= yy < h and 0 <= xx < w else torch.zeros(c, dtype=x.dtype)

    for b in range(n):
        for i in range(h):
            for j in range(w):
                total = bias.clone()
                for tap in range(9):
                    py = i + tap // 3 - 1 + float(offset[b, 2 * tap, i, j])
                    px = j + tap % 3 - 1 + float(offset[b, 2 * tap + 1, i, j])
                    y0, x0 = int(torch.tensor(py).floor()), int(torch.tensor(px).floor())
                    fy, fx = py - y0, px - x0
                    value = (
                        (1 - fy) * (1 - fx) * pixel(b, y0, x0)
                        + (1 - fy) * fx * pixel(b, y0, x0 + 1)
                        + fy * (1 - fx) * pixel(b, y0 + 1, x0)
                        + fy * fx * pixel(b, y0 + 1, x0 + 1)
                    )
                    total = total + weight[:, :, tap // 3, tap % 3] @ (value * mask[b, tap, i, j])
                out[b, :, i, j] = total
    return out


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (6, 1)])
def test_deformable_convolution_equals_brute_force(size):
    h, w = size
    x = torch.randn(2, 3, h, w, dtype=torch.float64)
    offset = 3 * torch.randn(2, 18, h, w, dtype=torch.float64)
    mask = torch.rand(2, 9, h, w, dtype=torch.float64)
    weight, bias = torch.randn(3, 3, 3, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    expected = _brute_force_deform(x, offset, mask, weight, bias)
    torch.testing.assert_close(deform_conv3x3(x, offset, mask, weight, bias), expected, atol=1e-9, rtol=1e-9)
    operator = torchvision_deform_conv2d()
    if operator is not None:
        torch.testing.assert_close(operator(x, offset, weight, bias, padding=1, mask=mask), expected)


def test_deformable_convolution_without_offsets_is_a_convolution():
    x = torch.randn(2, 3, 8, 9)
    weight, bias = torch.randn(3, 3, 3, 3), torch.randn(3)
    actual = deform_conv3x3(x, torch.zeros(2, 18, 8, 9), torch.ones(2, 9, 8, 9), weight, bias)
    torch.testing.assert_close(actual, F.conv2d(x, weight, bias, padding=1), atol=1e-5, rtol=1e-5)


def test_per_pixel_filter_equals_unfold():
    features, kernels = torch.randn(2, 3, 5, 6), torch.randn(2, 27, 5, 6)
    patches = F.unfold(features, 3, padding=1).view(2, 3, 9, 5, 6)
    by_channel = kernels.view(2, 9, 3, 5, 6).transpose(1, 2)
    torch.testing.assert_close(filter_3x3(features, kernels), (patches * by_channel).sum(2))


def test_spatial_difference_vanishes_only_where_smooth():
    flat = torch.full((1, 1, 8, 8), 3.0)
    assert spatial_difference(flat).max() < 1e-6
    step = torch.zeros(1, 1, 8, 8)
    step[..., 3:] = 1
    sigma = spatial_difference(step)[0, 0, 4]
    assert sigma[2:4].min() > 0.1
    assert sigma[6:].max() < 1e-6
    assert spatial_difference(torch.randn(1, 2, 1, 1)).shape == (1, 2, 1, 1)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("neighbors", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_batched_pass_equals_the_sum_over_frames(direction, neighbors, frames):
    def module(current, neighbor, difference, neighbor_rgb, weight):
        return 2 * current + 3 * neighbor.tanh() + 5 * difference * weight + 7 * neighbor_rgb.sin()

    shape = (2, frames, 3, 4, 4)
    y, x, rgb, w = (torch.randn(shape) for _ in range(4))
    actual = propagate(module, y, temporal_differences(x, neighbors), rgb, w, direction)
    sign = -1 if direction == "forward" else 1
    for t in range(frames):
        others = [t + sign * k for k in range(1, neighbors + 1) if 0 <= t + sign * k < frames]
        expected = sum(
            (module(y[:, t], y[:, o], (x[:, t] - x[:, o]).abs(), rgb[:, o], w[:, t]) for o in others),
            start=torch.zeros(2, 3, 4, 4),
        )
        torch.testing.assert_close(actual[:, t], expected if others else y[:, t])


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "live"])
@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips(preset, frames):
    narrow = dict(TINY, channels=4)
    model = STDNet(ModelConfig.preset(preset, **narrow)).eval()
    out = model(rgb=torch.rand(1, frames, 3, 16, 24), depth_lr=torch.rand(1, frames, 1, 2, 3))
    assert out.depth.shape == (1, frames, 1, 16, 24)
    assert out.depth.isfinite().all()


@pytest.mark.parametrize(("height", "width", "scale"), [(30, 41, 8), (17, 19, 4), (33, 50, 16)])
def test_sizes_that_the_scale_does_not_divide_are_padded_by_replication(height, width, scale):
    model = STDNet(ModelConfig(**TINY)).eval()
    low = (-(-height // scale), -(-width // scale))
    rgb, depth = torch.rand(1, 2, 3, height, width), torch.rand(1, 2, 1, *low)
    padded = F.pad(rgb.flatten(0, 1), (0, low[1] * scale - width, 0, low[0] * scale - height), mode="replicate")
    with torch.inference_mode():
        actual = model(rgb=rgb, depth_lr=depth).depth
        expected = model(rgb=padded.unflatten(0, (1, 2)), depth_lr=depth).depth
    assert actual.shape[-2:] == (height, width)
    torch.testing.assert_close(actual, expected[..., :height, :width])


def test_scale_comes_from_the_sizes():
    assert infer_scale(480, 640, 60, 80) == 8
    assert infer_scale(481, 640, 61, 80) == 8
    assert infer_scale(528, 960, 33, 60) == 16
    with pytest.raises(InputError, match="640x480.*100x80"):
        infer_scale(480, 640, 80, 100)


def test_frames_of_a_batch_do_not_mix():
    model = STDNet(ModelConfig.preset("tiny", **TINY)).eval()
    rgb, depth = torch.rand(2, 4, 3, 16, 16), torch.rand(2, 4, 1, 2, 2)
    with torch.inference_mode():
        both = model(rgb=rgb, depth_lr=depth).depth
        alone = model(rgb=rgb[1:], depth_lr=depth[1:]).depth
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)


def test_receptive_field_in_time():
    """+-4 frames a stage, +-8 in all: 17 frames decide the middle one, 15 do not (paper's passes)."""
    model = STDNet(ModelConfig(**TINY)).eval()
    for parameter in model.parameters():  # so that far frames matter measurably
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    rgb, depth = torch.rand(1, 21, 3, 8, 8), torch.rand(1, 21, 1, 2, 2)

    def middle(radius):
        window = slice(10 - radius, 11 + radius)
        with torch.inference_mode():
            return model(rgb=rgb[:, window], depth_lr=depth[:, window]).depth[:, radius]

    whole = middle(10)
    scale = whole.abs().max()
    assert (middle(8) - whole).abs().max() <= 1e-5 * scale
    assert (middle(7) - whole).abs().max() > (middle(8) - whole).abs().max() * 2


def test_causal_preset_never_looks_ahead():
    config = ModelConfig.preset("tiny_causal", **TINY)
    assert config.causal
    assert not ModelConfig.preset("tiny").causal
    model = STDNet(config).eval()
    rgb, depth = torch.rand(1, 5, 3, 16, 16), torch.rand(1, 5, 1, 2, 2)
    with torch.inference_mode():
        long = model(rgb=rgb, depth_lr=depth).depth
        short = model(rgb=rgb[:, :3], depth_lr=depth[:, :3]).depth
    torch.testing.assert_close(long[:, :3], short, atol=1e-5, rtol=1e-5)


def test_without_neighbours_every_frame_is_a_clip_of_its_own():
    config = ModelConfig(**TINY, neighbors=0)
    assert config.passes == ()
    assert config.causal
    assert ModelConfig.from_dict(config.to_dict()) == config
    model = STDNet(config).eval()
    assert not [name for name in model.state_dict() if ".temporal." in name]
    rgb, depth = torch.rand(1, 4, 3, 16, 16), torch.rand(1, 4, 1, 2, 2)
    with torch.inference_mode():
        clip = model(rgb=rgb, depth_lr=depth).depth
        frames = [model(rgb=rgb[:, t : t + 1], depth_lr=depth[:, t : t + 1]).depth for t in range(4)]
        other = model(rgb=rgb, depth_lr=torch.cat((depth[:, :2], torch.rand(1, 2, 1, 2, 2)), 1)).depth
    torch.testing.assert_close(clip, torch.cat(frames, 1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(clip[:, :2], other[:, :2], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(clip[:, 2:], other[:, 2:], atol=1e-4)


def test_local_output_shifts_and_scales_with_the_depth():
    """Kernel weights apply to depths as they are: gain passes through exactly, an offset all but the 2 % floor."""
    depth, rgb = torch.rand(1, 1, 3, 4) + 1, torch.rand(1, 3, 24, 32)
    logits, guidance = torch.randn(1, 9, 24, 32), 20 * torch.rand(1, 1, 24, 32)
    base = LowResolutionDepth(depth, 8, rgb).kernel_base(logits, guidance)
    moved = LowResolutionDepth(3 * depth + 2, 8, rgb).kernel_base(logits, guidance)
    torch.testing.assert_close(moved, 3 * base + 2)
    unit = LowResolutionDepth(depth, 8).residual_unit()
    torch.testing.assert_close(LowResolutionDepth(3 * depth, 8).residual_unit(), 3 * unit)


def test_guided_kernel_equals_a_joint_bilateral_filter_written_as_loops():
    s, rows, columns = 4, 3, 4
    depth, rgb = torch.rand(1, 1, rows, columns), torch.rand(1, 3, s * rows, s * columns)
    logits, guidance = torch.randn(1, 9, s * rows, s * columns), 20 * torch.rand(1, 1, s * rows, s * columns)
    actual = LowResolutionDepth(depth, s, rgb).kernel_base(logits, guidance)[0, 0]
    for y in range(s * rows):
        for x in range(s * columns):
            total = weights = 0.0
            for tap in range(9):
                r = min(max(y // s + tap // 3 - 1, 0), rows - 1)
                c = min(max(x // s + tap % 3 - 1, 0), columns - 1)
                cell = rgb[0, :, r * s : (r + 1) * s, c * s : (c + 1) * s].mean((1, 2))
                tent = 1.0
                for pixel, step in ((y, tap // 3 - 1), (x, tap % 3 - 1)):
                    tent *= max(0.0, 1 - abs((pixel % s + 0.5) / s - 0.5 - step))
                color = float((rgb[0, :, y, x] - cell).square().sum())
                exponent = float(logits[0, tap, y, x]) - float(guidance[0, 0, y, x]) * color
                weight = (tent + 0.03) * math.exp(exponent)
                total, weights = total + weight * float(depth[0, 0, r, c]), weights + weight
            assert float(actual[y, x]) == pytest.approx(total / weights, abs=1e-5)


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_untrained_heads_return_interpolated_depth(scale):
    model = STDNet(ModelConfig.preset("tiny", **TINY)).eval()
    model.zero_init_heads()
    ramp = torch.linspace(0.2, 0.8, 8).view(1, 1, 1, 1, 8).expand(1, 1, 1, 6, 8).contiguous()
    with torch.inference_mode():
        out = model(rgb=torch.full((1, 1, 3, 6 * scale, 8 * scale), 0.5), depth_lr=ramp).depth[0, 0]
    expected = F.interpolate(ramp[0], scale_factor=scale, mode="bilinear", align_corners=False)[0]
    inner = slice(scale, -scale)
    assert (out[0, inner, inner] - expected[0, inner, inner]).abs().max() < 0.1 * (0.6 / 7)


@pytest.mark.parametrize(
    "options",
    [
        dict(spatial_fusion="paper"),
        dict(spatial_difference=False),
        dict(temporal_difference=False),
        dict(neighbors=0),
        dict(neighbors=1),
        dict(neighbors=3),
        dict(stages=1),
        dict(passes=("forward",)),
        dict(max_offset=4.0),
        dict(output="guided_kernel", depth_features="local", uncertainty=True),
    ],
    ids=lambda o: next(iter(o.items())).__str__(),
)
def test_every_option_builds_runs_and_trains_all_parameters(options):
    model = STDNet(ModelConfig(**{**TINY, **options}))
    for parameter in model.parameters():  # zero offsets would leave their inputs without a gradient
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    out = model(rgb=torch.rand(1, 4, 3, 16, 16), depth_lr=torch.rand(1, 4, 1, 2, 2))
    loss = out.depth.square().mean() + sum(d.square().mean() for d in out.stage_depths)
    if out.log_scale is not None:
        loss = loss + out.log_scale.mean()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(channels=0), "channels"),
        (dict(neighbors=4), "neighbors"),
        (dict(passes=()), "passes"),
        (dict(passes=("sideways",)), "sideways"),
        (dict(output="magic"), "residual, guided_kernel"),
        (dict(max_offset=-1.0), "max_offset"),
    ],
)
def test_configuration_errors_name_the_field(values, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**values)
    with pytest.raises(ConfigError, match="widht"):
        ModelConfig.from_dict({"widht": 3})


def test_shape_errors():
    model = STDNet(ModelConfig(**TINY))
    with pytest.raises(InputError, match="expected rgb"):
        model(rgb=torch.rand(3, 16, 16), depth_lr=torch.rand(1, 2, 2))
    with pytest.raises(InputError, match="same batch"):
        model(rgb=torch.rand(1, 2, 3, 16, 16), depth_lr=torch.rand(1, 3, 1, 2, 2))
