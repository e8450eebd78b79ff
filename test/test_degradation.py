"""Low-resolution depth against plain loops, closed forms and Pillow."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from stdnet_core.data.degradation import DegradationConfig, degrade, dtof_bins, shift_depth
from stdnet_core.data.degradation_benchmark import benchmark
from stdnet_core.data.sensor_holes import HoleConfig, beside_edge, in_shadow
from stdnet_core.errors import ConfigError, InputError


def histogram_by_loops(depth, rgb, scale, range_m, bins):
    """Definition of the simulation, one photon after the other (float32 depth fraction, as in the module)."""
    rows, columns = depth.shape[0] // scale, depth.shape[1] // scale
    out = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            histogram = [0.0] * bins
            for y in range(i * scale, i * scale + scale):
                for x in range(j * scale, j * scale + scale):
                    fraction = np.float32(depth[y, x]) / np.float32(range_m)
                    if fraction == 0 or np.round(fraction * np.float32(bins - 1)) > bins - 1:
                        continue
                    albedo = float(rgb[:, y, x].mean()) * 255
                    histogram[int(np.round(fraction * np.float32(bins - 1)))] += albedo / (1e-3 + float(fraction) ** 2)
            out[i, j] = int(np.argmax(histogram)) * range_m / (bins - 1)
    return out


def scene(*shape, seed=0, holes=0.1, far=25.0):
    """Random depth up to ``far`` with holes, and colour."""
    generator = torch.Generator().manual_seed(seed)
    lead, (height, width) = shape[:-2], shape[-2:]
    depth = torch.rand(*lead, 1, height, width, generator=generator) * far
    depth[torch.rand(depth.shape, generator=generator) < holes] = 0
    return depth, torch.rand(*lead, 3, height, width, generator=generator)


@pytest.mark.parametrize(("scale", "bins", "range_m"), [(4, 1024, 20.0), (8, 64, 20.0), (16, 1024, 7.5), (3, 31, 20.0)])
def test_histogram_equals_loops(scale, bins, range_m):
    depth, rgb = scene(2, 4 * scale, 6 * scale)
    low = degrade(depth, rgb, scale, DegradationConfig(bins=bins, range_m=range_m))
    assert low.shape == (2, 1, 4, 6)
    for t in range(2):
        expected = histogram_by_loops(depth[t, 0].numpy(), rgb[t].numpy(), scale, range_m, bins)
        np.testing.assert_allclose(low[t, 0].numpy(), expected, rtol=1e-6)


def test_histogram_is_the_same_however_it_is_cut_into_parts(monkeypatch):
    depth, rgb = scene(3, 5, 64, 48)
    whole = degrade(depth, rgb, 8)
    monkeypatch.setattr("stdnet_core.data.degradation._HISTOGRAM_BYTES", {"cpu": 1})
    torch.testing.assert_close(degrade(depth, rgb, 8), whole, rtol=0, atol=0)


def test_histogram_prefers_bright_and_near_surfaces():
    depth = torch.full((1, 4, 4), 8.0)
    depth[..., :1] = 2.0  # a quarter of the block, but 16 times the light
    low = degrade(depth, None, 4)
    assert abs(low.item() - 2.0) < 20 / 1023
    rgb = torch.ones(3, 4, 4)
    rgb[..., :1] = 0.01
    assert abs(degrade(depth, rgb, 4).item() - 8.0) < 20 / 1023


def test_beyond_range_is_lost_or_clipped():
    depth = torch.full((1, 8, 8), 30.0)
    depth[..., :4] = 5.0
    assert degrade(depth, None, 4)[0, :, 1].eq(0).all()
    clipped = degrade(depth, None, 4, DegradationConfig(clip_beyond_range=True))
    torch.testing.assert_close(clipped[0, :, 1], torch.full((2,), 20.0))
    whole = degrade(depth, None, 4, DegradationConfig(range_m=None))  # range of the clip: 30 m
    torch.testing.assert_close(whole[0, :, 1], torch.full((2,), 30.0))


def test_black_or_empty_blocks_and_bad_values_are_invalid():
    depth = torch.full((1, 4, 16), 3.0)
    depth[..., 4:8] = 0
    depth[..., 8:12] = float("nan")
    rgb = torch.ones(3, 4, 16)
    rgb[..., 12:] = 0
    for method in ("dtof", "nearest", "area", "bicubic"):
        low = degrade(depth, rgb, 4, DegradationConfig(method=method))[0, 0]
        assert low[0] == pytest.approx(3.0, abs=0.011)
        assert low[1] == 0
        assert low[2] == 0
    assert degrade(depth, rgb, 4)[0, 0, 3] == 0


def test_jitter_is_uniform_over_whole_bins():
    depth = torch.full((40, 1, 64, 64), 10.0)
    config = DegradationConfig(jitter_bins=2)
    low = degrade(depth, None, 4, config, torch.Generator().manual_seed(1))
    offset = low / (20 / 1023) - round(10 / 20 * 1023)
    torch.testing.assert_close(offset, offset.round(), rtol=0, atol=1e-3)
    share = torch.bincount((offset.round().long() + 2).flatten(), minlength=5) / offset.numel()
    torch.testing.assert_close(share, torch.full((5,), 0.2), rtol=0, atol=0.02)


def test_noise_outliers_dropout_have_their_strength():
    depth = torch.full((30, 1, 64, 64), 8.0)
    nearest = DegradationConfig(method="nearest")

    def low(**changes):
        return degrade(depth, None, 4, dataclasses.replace(nearest, **changes), torch.Generator().manual_seed(2))

    assert low(noise_m=0.3).std().item() == pytest.approx(0.3, rel=0.05)
    assert low(noise_relative=0.05).std().item() == pytest.approx(0.4, rel=0.05)
    assert low(dropout=0.2).eq(0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    wrong = low(outliers=0.1).ne(8.0)
    assert wrong.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert low(outliers=1.0).mean().item() == pytest.approx(10.0, rel=0.05)  # uniform up to 20 m


def test_dead_pixels_stay_over_a_clip_and_differ_between_clips():
    depth = torch.full((2, 6, 1, 64, 64), 8.0)
    low = degrade(depth, None, 4, DegradationConfig(dead_pixels=0.3), torch.Generator().manual_seed(3))
    dead = low == 0
    assert dead.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert (dead == dead[:, :1]).all()
    assert (dead[0] != dead[1]).any()
    dropped = degrade(depth, None, 4, DegradationConfig(dropout=0.3), torch.Generator().manual_seed(3)) == 0
    assert (dropped != dropped[:, :1]).any()


def test_shift_is_exact_on_a_plane_and_makes_no_new_depth_at_edges():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    plane = 5 + 0.01 * x + 0.02 * y
    for right, down in ((0.3, 0.0), (-1.6, 2.25), (0.0, -0.5)):
        expected = plane + 0.01 * right + 0.02 * down
        inner = slice(4, -4), slice(4, -4)
        torch.testing.assert_close(shift_depth(plane, right, down)[inner], expected[inner])
    step = torch.where(x < 15, 1.0, 4.0)
    step[3:6, 3:6] = 0
    assert set(shift_depth(step, 0.4, 0.7).unique().tolist()) == {0.0, 1.0, 4.0}


def test_misalignment_is_one_shift_per_clip_within_its_limit():
    x = torch.arange(64.0).expand(64, 64)
    depth = (5 + 0.01 * x).expand(8, 3, 1, 64, 64)
    config = DegradationConfig(method="nearest", misalignment_px=1.5)
    low = degrade(depth, None, 4, config, torch.Generator().manual_seed(4))
    shift = (low - degrade(depth, None, 4, DegradationConfig(method="nearest")))[..., 2:-2] / 0.01
    assert shift.abs().max() <= 1.5 + 1e-3
    torch.testing.assert_close(shift, shift[:, :1, :, :1, :1].expand_as(shift), rtol=0, atol=1e-3)
    assert shift[:, 0, 0, 0, 0].unique().numel() == 8
    assert shift.min() < -0.3
    assert shift.max() > 0.3


def test_nearest_takes_the_pixel_at_the_centre():
    depth = torch.arange(1.0, 65.0).view(1, 8, 8)
    low = degrade(depth, None, 4, DegradationConfig(method="nearest"))
    assert low.flatten().tolist() == [19.0, 23.0, 51.0, 55.0]


def test_area_is_the_mean_of_valid_pixels():
    depth, _ = scene(3, 16, 24, holes=0.5)
    depth[..., :4, :4] = 0
    low = degrade(depth, None, 4, DegradationConfig(method="area")).numpy()
    for t, i, j in np.ndindex(3, 4, 6):
        block = depth[t, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].numpy()
        expected = block[block > 0].mean() if (block > 0).any() else 0
        assert low[t, 0, i, j] == pytest.approx(expected, rel=1e-5)
    assert (low[:, 0, 0, 0] == 0).all()


def test_bicubic_equals_pillow():
    depth, _ = scene(1, 48, 64, holes=0.0)
    low = degrade(depth, None, 4, DegradationConfig(method="bicubic"))
    expected = Image.fromarray(depth[0, 0].numpy()).resize((16, 12), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(low[0, 0].numpy(), np.asarray(expected), rtol=1e-4)


def test_sizes_that_the_scale_does_not_divide_are_extended():
    depth, rgb = scene(2, 30, 45)
    low = degrade(depth, rgb, 8)
    assert low.shape == (2, 1, 4, 6)
    torch.testing.assert_close(low[..., :3, :5], degrade(depth[..., :24, :40], rgb[..., :24, :40], 8))
    full = torch.full((1, 26, 41), 7.0)  # the last blocks are mostly extension
    for method in ("area", "nearest", "bicubic"):
        torch.testing.assert_close(degrade(full, None, 8, DegradationConfig(method=method)), torch.full((1, 4, 6), 7.0))
    ramp = torch.arange(1.0, 6.0).expand(1, 4, 5)  # the last column, repeated three times more
    area = degrade(ramp, None, 4, DegradationConfig(method="area"))
    assert area.flatten().tolist() == [2.5, 5.0]


def test_same_generator_same_result_and_layouts_agree():
    depth, rgb = scene(2, 3, 32, 32)
    config = DegradationConfig(
        jitter_bins=2, noise_m=0.1, outliers=0.1, dropout=0.1, dead_pixels=0.1, misalignment_px=1, holes="stereo"
    )
    first = degrade(depth, rgb, 4, config, torch.Generator().manual_seed(5))
    again = degrade(depth, rgb, 4, config, torch.Generator().manual_seed(5))
    other = degrade(depth, rgb, 4, config, torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    one_clip = degrade(depth[0], rgb[0], 4, config, torch.Generator().manual_seed(5))
    assert one_clip.shape == (3, 1, 8, 8)
    assert degrade(depth[0, 0], rgb[0, 0], 4).shape == (1, 8, 8)
    torch.testing.assert_close(degrade(depth, rgb, 4)[1, 2], degrade(depth[1, 2], rgb[1, 2], 4))


def test_edge_holes_are_beside_steps_only():
    depth = torch.full((1, 2, 10, 12), 3.0)
    depth[..., 6:] = 5.0
    depth[..., 4, 2] = 0  # a hole is no edge
    edge = beside_edge(depth)
    assert edge[..., 5:7].all()
    assert not edge[..., :5].any()
    assert not edge[..., 7:].any()
    assert torch.equal(beside_edge(depth.transpose(-1, -2)), edge.transpose(-1, -2))
    low = degrade(depth[0][:, None], None, 1, DegradationConfig("nearest", holes=HoleConfig(edges=1.0)))
    assert ((low[:, 0] == 0) == (edge[0] | (depth[0] == 0))).all()


def test_steep_plane_is_no_edge_and_noise_makes_none():
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    floor = 1.5 / (0.03 + 0.04 * y + 0.002 * x)  # from 50 m down to 1 m, up to 40 % a row
    assert not beside_edge(floor).any()
    assert not beside_edge(floor[:2]).any()
    config = DegradationConfig("nearest", range_m=None, noise_relative=0.1, holes=HoleConfig(edges=1.0, max_m=60))
    assert (degrade(floor[None], None, 1, config, torch.Generator().manual_seed(0)) > 0).all()


def test_shadow_equals_a_search_over_all_pairs():
    depth = scene(1, 6, 40, far=4.0)[0][0].add(0.3)
    depth[..., 10:14] = 0
    hidden = in_shadow(depth, 3.0)[0]
    for row, column in np.ndindex(6, 40):
        z = depth[0, row, column]
        behind = z > 0 and any(
            depth[0, row, left] > 0 and left + 3.0 / depth[0, row, left] >= column + 3.0 / z for left in range(column)
        )
        assert bool(hidden[row, column]) == bool(behind)


def test_shadow_of_a_box_has_the_width_of_the_disparity_step():
    depth = torch.full((1, 1, 4, 60), 4.0)
    depth[..., 20:30] = 1.0
    hidden = in_shadow(depth, 8.0)[0, 0, 0]
    assert hidden.nonzero().flatten().tolist() == list(range(30, 30 + 8 - 2))  # 8 / 1 - 8 / 4 = 6 px


def test_dark_blob_pattern_and_range_holes():
    depth = torch.full((4, 1, 32, 32), 3.0)
    depth[..., 16:, :] = 9.0
    rgb = torch.full((4, 3, 32, 32), 0.5)
    rgb[..., :8] = 0.01

    def kept(**holes):
        config = DegradationConfig("nearest", holes=HoleConfig(**holes))
        return degrade(depth, rgb, 2, config, torch.Generator().manual_seed(7))[:, 0] > 0

    assert not kept(dark=0.1)[..., :4].any()
    assert kept(dark=0.1)[..., 4:].all()
    assert not kept(max_m=5.0)[:, 8:].any()
    assert not kept(min_m=5.0)[:, :8].any()
    rows = kept(row_step=4)
    assert rows.any(-1).sum(-1).tolist() == [4] * 4
    assert kept(row_step=2, column_step=4).float().mean() == 1 / 8
    blobs = kept(blobs=0.2)
    assert (~blobs).float().mean().item() == pytest.approx(0.2, abs=0.01)
    same = (blobs[..., 1:] == blobs[..., :-1]).float().mean()
    assert same > 0.85  # independent pixels would agree on 68 %


def test_settings_from_a_file():
    config = DegradationConfig.from_dict({"jitter_bins": 2, "holes": {"edges": 0.5}})
    assert config == DegradationConfig(jitter_bins=2, holes=HoleConfig(edges=0.5))
    assert DegradationConfig.from_dict({"holes": "lidar"}).holes.row_step == 4


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"method": "lanczos"}, "lanczos"),
        ({"range_m": 0}, "range_m"),
        ({"bins": 1}, "bins"),
        ({"jitter_bins": 0.5}, "jitter_bins"),
        ({"dropout": 1.5}, "dropout"),
        ({"noise_m": -1}, "noise_m"),
        ({"dropuot": 0.1}, "dropuot"),
        ({"holes": "radar"}, "radar"),
        ({"holes": {"egdes": 1}}, "egdes"),
        ({"holes": {"blobs": 2}}, "blobs"),
        ({"holes": {"row_step": 0}}, "row_step"),
        ({"holes": {"min_m": 3, "max_m": 2}}, "min_m"),
    ],
)
def test_wrong_settings_are_named(values, word):
    with pytest.raises(ConfigError, match=word):
        DegradationConfig.from_dict(values)


def test_wrong_shapes_are_refused():
    depth, rgb = scene(2, 16, 16)
    with pytest.raises(InputError, match="expected"):
        degrade(depth[:, 0], rgb, 4)
    with pytest.raises(InputError, match="does not fit"):
        degrade(depth, rgb[..., :8], 4)
    with pytest.raises(InputError, match="scale"):
        degrade(depth, rgb, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu():
    depth, rgb = scene(2, 5, 64, 96)
    for method in ("dtof", "nearest", "area", "bicubic"):
        config = DegradationConfig(method=method, jitter_bins=2, noise_m=0.1, dropout=0.1, misalignment_px=0.7)
        on_cpu = degrade(depth, rgb, 8, config, torch.Generator().manual_seed(8))
        on_gpu = degrade(depth.cuda(), rgb.cuda(), 8, config, torch.Generator().manual_seed(8))
        assert (on_cpu - on_gpu.cpu()).abs().gt(1e-4).float().mean() < 1e-3
    own = torch.Generator(device="cuda").manual_seed(1)
    assert degrade(depth.cuda(), rgb.cuda(), 8, DegradationConfig(dropout=0.5), own).device.type == "cuda"


def test_speed_up_over_the_loop():
    figures = benchmark(132, 240, 4, repeats=5)
    assert figures["differing_cells"] == 0
    assert figures["speedup"] > 5  # 190 at 528x960, x16; the small frame keeps the test short


def test_benchmark_command():
    command = [sys.executable, "-m", "stdnet_core.data.degradation_benchmark"]
    done = subprocess.run([*command, "--size", "32x48", "--scale", "8"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["scale"] == 8
    wrong = subprocess.run([*command, "--size", "32"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --size '32'")


def test_bins_of_the_lowest_of_equally_full():
    depth = torch.tensor([[[[0.5, 0.75]]]]).repeat(1, 1, 2, 1)
    albedo = 1e-3 + depth.square()  # equal light from both
    assert dtof_bins(depth, albedo, 2, bins=5).item() == 2
