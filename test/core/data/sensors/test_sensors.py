"""Simulated depth cameras as a whole: what is random, what stays, sizes, presets, and refusals."""

from __future__ import annotations

import argparse
import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stdnet_core.data import sensors
from stdnet_core.data.sensors import PRESETS, DepthCamera, Sensor, delivered_size, sensor, simulate
from stdnet_core.data.sensors.__main__ import markdown
from stdnet_core.data.sensors.alignment import Alignment, sample_depth
from stdnet_core.data.sensors.arguments import add_sensor_arguments, ratio_argument, sensor_from
from stdnet_core.data.sensors.camera import check_value_name
from stdnet_core.data.sensors.cell import JUDGED, STANDING, Cell, scene_gain
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.data.sensors.faults import Faults
from stdnet_core.data.sensors.holes import Holes, beside_edge, in_shadow
from stdnet_core.data.sensors.phase_tof import PhaseTof
from stdnet_core.data.sensors.phone_lidar import PhoneLidar
from stdnet_core.data.sensors.reduction import Reduction
from stdnet_core.data.sensors.stereo import Stereo
from stdnet_core.errors import ConfigError, InputError

NOISY = [name for name, preset in PRESETS.items() if preset.sensor.family in ("stereo", "phase_tof", "phone_lidar")]
NOISY += ["noisy", "dtof_jitter", "vl53_8x8"]


def room(frames: int = 5, height: int = 60, width: int = 80, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A textured wall at 2 to 3 m with a box at 1 m that moves by 2 px a frame: depth (T, 1, H, W), rgb (T, 3, H,
    W)."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.rand(3, height, width, generator=generator) * 0.6 + 0.2
    depth = torch.linspace(2, 3, width).expand(frames, 1, height, width).clone()
    rgb = texture.expand(frames, 3, height, width).clone()
    for t in range(frames):
        depth[t, :, 20:40, 20 + 2 * t : 40 + 2 * t] = 1.0
        rgb[t, :, 20:40, 20 + 2 * t : 40 + 2 * t] = torch.rand(3, 20, 20, generator=generator.manual_seed(9))
    return depth, rgb


@pytest.mark.parametrize("name", PRESETS)
def test_a_clip_comes_out_the_same_at_once_and_frame_by_frame(name: str) -> None:
    depth, rgb = room()
    ratio = PRESETS[name].ratio
    whole = simulate(sensor(name), depth, rgb, ratio, seed=3)
    for step in (1, 2):
        camera = DepthCamera(sensor(name), (60, 80), ratio, seed=3)
        parts = [camera.measure(depth[i : i + step], rgb[i : i + step]) for i in range(0, 5, step)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
    assert whole.shape == (5, 1, *delivered_size((60, 80), ratio))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("ratio", [1, 1.5, 4, 7.5])
def test_every_camera_at_every_ratio_gives_depth_that_can_be(name: str, ratio: float) -> None:
    depth, rgb = room(2)
    low = simulate(sensor(name), depth, rgb, ratio)
    assert low.shape[2:] == ((60, 80) if ratio == 1 else delivered_size((60, 80), ratio))
    assert low.isfinite().all()
    assert (low >= 0).all()
    assert (low <= sensor(name).max_m).all()
    assert (low > 0).float().mean() > 0.2


@pytest.mark.parametrize("name", NOISY)
def test_noise_is_new_in_every_frame_and_another_with_another_seed(name: str) -> None:
    depth, rgb = room(1)
    depth, rgb = depth.repeat(3, 1, 1, 1), rgb.repeat(3, 1, 1, 1)  # nothing moves
    low = simulate(sensor(name), depth, rgb, 4, seed=1)
    assert not torch.equal(low[0], low[1])
    assert not torch.equal(low[1], low[2])
    assert torch.equal(low, simulate(sensor(name), depth, rgb, 4, seed=1))
    assert not torch.equal(low, simulate(sensor(name), depth, rgb, 4, seed=2))


@pytest.mark.parametrize("name", ["exact", "nearest_any", "area", "median", "bicubic", "dtof_paper"])
def test_cameras_without_noise_repeat_themselves(name: str) -> None:
    depth, rgb = room(1)
    low = simulate(sensor(name), depth.repeat(2, 1, 1, 1), rgb.repeat(2, 1, 1, 1), 4)
    assert torch.equal(low[0], low[1])


def test_sizes_that_are_delivered() -> None:
    assert delivered_size((480, 640), 8) == (60, 80)
    assert delivered_size((479, 641), 8) == (60, 81), "the last cells are cut off"
    assert delivered_size((1440, 1920), 7.5) == (192, 256)
    assert delivered_size((720, 1280), 1.5) == (480, 853)
    full = torch.full((1, 1, 26, 41), 7.0)  # the last cells are mostly extension
    for name in ("area", "exact", "bicubic", "median"):
        torch.testing.assert_close(simulate(sensor(name), full, None, 8), torch.full((1, 1, 4, 6), 7.0))
    ramp = torch.arange(1.0, 6.0).expand(1, 1, 4, 5)  # the last column, repeated three times more
    assert simulate(sensor("area"), ramp, None, 4).flatten().tolist() == [2.5, 5.0]


def test_nothing_is_measured_where_nothing_is_known() -> None:
    depth = torch.full((1, 1, 40, 64), 3.0)
    depth[..., 16:32] = 0
    depth[..., 32:48] = float("nan")
    for name in ("dtof_paper", "exact", "area", "bicubic", "median", "min", "realsense_d435", "iphone_lidar"):
        low = simulate(sensor(name), depth, torch.rand(1, 3, 40, 64), 8)[0, 0]
        assert (low[:, 2:6] == 0).all(), name
        assert (low[:, 0] > 0).any(), name


# --- between the cameras ---------------------------------------------------------------------------------------------


def test_sampling_is_exact_on_a_plane_and_makes_no_new_depth_at_edges() -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    plane = (5 + 0.01 * x + 0.02 * y)[None]
    inner = (slice(None), slice(4, -4), slice(4, -4))
    for right, down in ((0.3, 0.0), (-1.6, 2.25), (0.0, -0.5)):
        moved = sample_depth(plane, (x + right)[None], (y + down)[None])
        torch.testing.assert_close(moved[inner], (plane + 0.01 * right + 0.02 * down)[inner])
    step = torch.where(x < 15, 1.0, 4.0)[None].clone()
    step[:, 3:6, 3:6] = 0
    assert set(sample_depth(step, (x + 0.4)[None], (y + 0.7)[None]).unique().tolist()) == {0.0, 1.0, 4.0}


def test_misalignment_is_one_affine_map_of_a_clip_within_its_limits() -> None:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    across, down = (5 + 0.01 * x).expand(2, 1, 60, 80), (5 + 0.01 * y).expand(2, 1, 60, 80)
    moved = Sensor(Reduction(), Alignment(shift_px=3, scale=0.02, rotation_deg=1.0))
    seen = set()
    for seed in range(6):
        column, row = ((simulate(moved, plane, None, 1, seed=seed)[:, 0] - 5) / 0.01 for plane in (across, down))
        assert torch.equal(column[0], column[1]), "constant over the clip"
        inner = np.s_[10:50, 10:70]
        design = torch.stack([torch.ones(40 * 60), (x - 39.5)[inner].flatten(), (y - 29.5)[inner].flatten()], 1)
        right = torch.linalg.lstsq(design, column[0][inner].reshape(-1, 1)).solution.flatten()
        below = torch.linalg.lstsq(design, row[0][inner].reshape(-1, 1)).solution.flatten()
        assert (design @ right - column[0][inner].flatten()).abs().max() < 0.02, "affine"
        assert abs(right[0] - 39.5) <= 3.01
        assert abs(below[0] - 29.5) <= 3.01
        factor = float((right[1] ** 2 + right[2] ** 2).sqrt())
        assert abs(factor - 1) <= 0.0201
        assert abs(float(torch.atan2(-right[2], right[1]).rad2deg())) <= 1.01
        assert abs(float(right[1] - below[2])) < 2e-3, "rotation and scale, nothing else"
        seen.add(round(float(right[0]), 3))
    assert len(seen) == 6


def test_what_moves_is_displaced_by_a_delay_and_what_stands_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.rand(3, 100, 140, generator=generator), 5, 1, 2)
    patch = torch.nn.functional.avg_pool2d(torch.rand(3, 40, 40, generator=generator), 5, 1, 2) * 0.5 + 0.5
    depth, rgb = torch.full((3, 1, 100, 140), 3.0), smooth.expand(3, 3, 100, 140).clone()
    for t in range(3):
        depth[t, :, 30:70, 30 + 8 * t : 70 + 8 * t] = 1.0
        rgb[t, :, 30:70, 30 + 8 * t : 70 + 8 * t] = patch
    late = Sensor(Reduction(), Alignment(delay=1.0))
    delays = []
    for seed in range(5):
        low = simulate(late, depth, rgb, 1, seed=seed)[:, 0]
        assert torch.equal(low[0], depth[0, 0]), "nothing is known to have moved in the first frame"
        near = low[2, 50] == 1.0
        delays.append((30 + 16 - int(near.nonzero()[0])) / 8)
        torch.testing.assert_close(low[2, :20], depth[2, 0, :20])
    assert all(0 <= delay <= 1.01 for delay in delays)
    assert max(delays) - min(delays) > 0.3
    with pytest.raises(InputError, match="colour"):
        simulate(late, depth, None, 1)


# --- holes and faults ------------------------------------------------------------------------------------------------


def test_noise_outliers_and_dropout_have_their_strength() -> None:
    depth = torch.full((30, 1, 64, 64), 8.0)

    def low(**changes: float) -> torch.Tensor:
        return simulate(Sensor(Reduction(), faults=Faults(**changes)), depth, None, 4, seed=2)

    assert low(noise_m=0.3).std().item() == pytest.approx(0.3, rel=0.05)
    assert low(noise_relative=0.05).std().item() == pytest.approx(0.4, rel=0.05)
    assert low(dropout=0.2).eq(0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert low(outliers=0.1).ne(8.0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert low(outliers=1.0).mean().item() == pytest.approx(4.0, rel=0.05), "uniform up to the largest depth"
    steps = low(noise_m=0.3, unit_m=1 / 256) * 256
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)


def test_dead_pixels_stay_over_a_clip_and_differ_between_clips() -> None:
    depth = torch.full((6, 1, 64, 64), 8.0)
    broken = Sensor(Reduction(), faults=Faults(dead_pixels=0.3))
    first, second = (simulate(broken, depth, None, 4, seed=seed) == 0 for seed in (1, 2))
    assert first.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert (first == first[:1]).all()
    assert (first != second).any()
    dropped = simulate(Sensor(Reduction(), faults=Faults(dropout=0.3)), depth, None, 4) == 0
    assert (dropped != dropped[:1]).any()


def test_edge_holes_are_beside_steps_only() -> None:
    depth = torch.full((2, 10, 12), 3.0)
    depth[..., 6:] = 5.0
    depth[..., 4, 2] = 0  # a hole is no edge
    edge = beside_edge(depth)
    assert edge[..., 5:7].all()
    assert not edge[..., :5].any()
    assert not edge[..., 7:].any()
    assert torch.equal(beside_edge(depth.transpose(-1, -2)), edge.transpose(-1, -2))
    low = simulate(Sensor(Reduction(), holes=Holes(edges=1.0)), depth[:, None], None, 1)
    assert ((low[:, 0] == 0) == (edge | (depth == 0))).all()


def test_steep_plane_is_no_edge() -> None:
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    floor = 1.5 / (0.03 + 0.04 * y + 0.002 * x)  # from 50 m down to 1 m, up to 40 % a row
    assert not beside_edge(floor).any()
    assert not beside_edge(floor[:2]).any()


def test_shadow_equals_a_search_over_all_pairs() -> None:
    depth = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)) * 4 + 0.3
    depth[:, 10:14] = 0
    hidden = in_shadow(depth, 3.0)
    for row, column in np.ndindex(6, 40):
        z = depth[row, column]
        behind = z > 0 and any(
            depth[row, left] > 0 and left + 3.0 / depth[row, left] >= column + 3.0 / z for left in range(column)
        )
        assert bool(hidden[row, column]) == bool(behind)


def test_dark_blob_pattern_and_range_holes() -> None:
    depth = torch.full((12, 1, 32, 32), 3.0)
    depth[..., 16:, :] = 9.0
    rgb = torch.full((12, 3, 32, 32), 0.5)
    rgb[..., :8] = 0.01

    def kept(**holes: float) -> torch.Tensor:
        return simulate(Sensor(Reduction(), holes=Holes(**holes)), depth, rgb, 2, seed=7)[:, 0] > 0

    assert not kept(dark=0.1)[..., :4].any()
    assert kept(dark=0.1)[..., 4:].all()
    assert not kept(max_m=5.0)[:, 8:].any()
    assert not kept(min_m=5.0)[:, :8].any()
    assert kept(row_step=4).any(-1).sum(-1).tolist() == [4] * 12
    assert kept(row_step=2, column_step=4).float().mean() == 1 / 8
    blobs = kept(blobs=0.2)
    assert (~blobs).flatten(1).float().mean(1).sub(0.2).abs().max() < 0.02
    assert (blobs[..., 1:] == blobs[..., :-1]).float().mean() > 0.85, "independent pixels would agree on 68 %"
    assert (blobs[1:] == blobs[:-1]).float().mean() > 0.9, "they drift slowly"
    assert (blobs[0] != blobs[-1]).float().mean() > 0.1


# --- names, values, cells --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Reduction("lanczos"), "lanczos"),
        (lambda: Reduction(phase=1.0), "phase"),
        (lambda: Dtof(range_m=0), "range_m"),
        (lambda: Dtof(bins=1), "bins"),
        (lambda: Dtof(jitter_bins=0.5), "jitter_bins"),
        (lambda: Dtof(zone=0), "zone"),
        (lambda: Dtof(crosstalk=2), "crosstalk"),
        (lambda: Dtof(photons=0), "photons"),
        (lambda: Stereo(baseline_m=0), "baseline_m"),
        (lambda: Stereo(subpixel=-1), "subpixel"),
        (lambda: Stereo(correlation=1), "correlation"),
        (lambda: Stereo(static=2), "static"),
        (lambda: Stereo(shadow="above"), "shadow"),
        (lambda: Stereo(min_m=3, max_m=2), "min_m"),
        (lambda: Stereo(field_of_view_deg=180), "field_of_view_deg"),
        (lambda: PhaseTof(ambiguity_m=0), "ambiguity_m"),
        (lambda: PhaseTof(pitch=0.5), "pitch"),
        (lambda: PhaseTof(noise_m=-1), "noise_m"),
        (lambda: PhoneLidar(lag=1), "lag"),
        (lambda: PhoneLidar(noise_cells=0), "noise_cells"),
        (lambda: Alignment(shift_px=-1), "shift_px"),
        (lambda: Alignment(delay=2), "delay"),
        (lambda: Faults(dropout=1.5), "dropout"),
        (lambda: Faults(noise_m=-1), "noise_m"),
        (lambda: Holes.preset("radar"), "radar"),
        (lambda: Holes(blobs=2), "blobs"),
        (lambda: Holes(row_step=0), "row_step"),
        (lambda: Holes(min_m=3, max_m=2), "min_m"),
        (lambda: sensor("sonar"), "sonar"),
        (lambda: Sensor().with_values({"dtof.colour": 1}), "colour"),
        (lambda: Sensor().with_values({"radar.range_m": 1}), "radar"),
        (lambda: Sensor().with_values({"dtof.bins": 1}), "bins"),
        (lambda: check_value_name("bins"), "bins"),
        (lambda: Cell.parse("sonar@8"), "sonar"),
        (lambda: Cell.parse("area@wide"), "wide"),
        (lambda: Cell.parse("area@0.5"), "1 or more"),
    ],
)
def test_wrong_values_are_named(make, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make()


def test_wrong_shapes_are_refused() -> None:
    depth, rgb = room(2)
    with pytest.raises(InputError, match="expected"):
        simulate(Sensor(), depth[:, 0], rgb, 4)
    with pytest.raises(InputError, match="does not fit"):
        simulate(Sensor(), depth, rgb[..., :8], 4)
    with pytest.raises(InputError, match="ratio"):
        simulate(Sensor(), depth, rgb, 0.5)


def test_values_change_the_part_that_they_name() -> None:
    changed = sensor("realsense_d435").with_values(
        {"stereo.subpixel": 0.2, "dtof.bins": 64, "faults.dropout": 0.1, "alignment.shift_px": 2, "holes": "lidar"}
    )
    assert changed.measurement.subpixel == 0.2
    assert changed.measurement.baseline_m == 0.05
    assert (changed.faults.dropout, changed.faults.unit_m) == (0.1, 0.001)
    assert changed.alignment.shift_px == 2
    assert changed.holes.row_step == 4
    assert "subpixel 0.2" in changed.describe()
    assert sensor("dtof_paper").max_m == float("inf")
    assert sensor("kinect_azure").max_m == 5.5


def test_cells_and_scenes() -> None:
    assert Cell.parse("area@8") == Cell("area", 8)
    assert Cell.parse("iphone_lidar") == Cell("iphone_lidar", 7.5)
    assert str(Cell("area", 4.0)) == "area@4"
    assert {cell.ratio for cell in JUDGED} >= {1, 1.5, 2, 3, 4, 7.5, 8, 16}
    assert {cell.sensor.family for cell in JUDGED} == {"reduction", "dtof", "stereo", "phase_tof", "phone_lidar"}
    assert all(cell.camera in NOISY for cell in STANDING)
    depth = torch.linspace(1, 20, 1000)
    assert scene_gain(depth, sensor("dtof_paper")) == 1
    assert scene_gain(depth / 10, sensor("kinect_azure")) == 1
    assert scene_gain(depth, sensor("kinect_azure")) == pytest.approx(5.5 / (1 + 0.95 * 19), rel=0.01)


def test_the_command_line_names_a_sensor(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_sensor_arguments(parser)
    values = ["dtof.range_m=null", "dtof.jitter_bins=2", "faults.dropout=0.1", "holes=stereo"]
    args = parser.parse_args(["--sensor", "dtof_jitter", *(part for v in values for part in ("--sensor-value", v))])
    chosen = sensor_from(args)
    assert (chosen.measurement.range_m, chosen.measurement.jitter_bins, chosen.faults.dropout) == (None, 2, 0.1)
    assert chosen.holes.shadow == 3.0
    for wrong in ("dtof.colour=1", "dtof.bins"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--sensor-value", wrong])
        assert wrong.partition("=")[0].split(".")[-1] in capsys.readouterr().err
    with pytest.raises(ConfigError):
        sensor_from(parser.parse_args(["--sensor-value", "dtof.bins=many"]))
    assert (ratio_argument("8"), ratio_argument("7.5")) == (8, 7.5)
    for wrong in ("0.5", "wide", "1000"):
        with pytest.raises(argparse.ArgumentTypeError):
            ratio_argument(wrong)


def test_the_page_has_the_table_of_the_presets() -> None:
    page = (Path(__file__).parents[4] / "docs" / "sensors.md").read_text()
    assert markdown() in page, "write it anew with: python -m stdnet_core.data.sensors"
    assert all(preset.source and preset.about for preset in PRESETS.values())


def test_the_example_of_the_package_runs() -> None:
    assert doctest.testmod(sensors).failed == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu() -> None:
    depth, rgb = room()
    for name in ("dtof_paper", "area", "median", "bicubic"):
        on_cpu, on_gpu = simulate(sensor(name), depth, rgb, 4), simulate(sensor(name), depth.cuda(), rgb.cuda(), 4)
        assert (on_cpu - on_gpu.cpu()).abs().gt(1e-4).float().mean() < 1e-3


def test_the_benchmark_of_the_histogram() -> None:
    command = [sys.executable, "-m", "stdnet_core.data.sensors.dtof_benchmark"]
    done = subprocess.run([*command, "--size", "64x96", "--scale", "8"], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["differing_cells"] == 0
    assert figures["speedup"] > 3  # 240 at 528x960, x16
    wrong = subprocess.run([*command, "--size", "32"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --size '32'")
