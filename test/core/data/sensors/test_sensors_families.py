"""Each family of depth cameras against closed forms and plain loops."""

from __future__ import annotations

import cmath
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stdnet_core.data.sensors import Sensor, delivered_size, sensor, simulate
from stdnet_core.data.sensors.dtof import Dtof, fullest_bins
from stdnet_core.data.sensors.phase_tof import PhaseTof
from stdnet_core.data.sensors.phone_lidar import PhoneLidar
from stdnet_core.data.sensors.reduction import METHODS, Reduction, reduce_depth
from stdnet_core.data.sensors.stereo import Stereo


def wall(depth: float, frames: int = 1, height: int = 120, width: int = 160) -> torch.Tensor:
    return torch.full((frames, 1, height, width), depth)


def texture(frames: int = 1, height: int = 120, width: int = 160) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, height, width, generator=generator).expand(frames, 3, height, width)


# --- reduction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1, 1.5, 2, 2.5, 3, 4, 7.5, 8, 10, 16])
@pytest.mark.parametrize("method", METHODS)
def test_flat_depth_stays_what_it_is(method: str, ratio: float) -> None:
    depth = wall(2.5, 2)
    depth[:, :, 30:70, 40:100] = 0  # larger than any cell
    low = simulate(Sensor(Reduction(method)), depth, None, ratio)
    known = low[low > 0]
    torch.testing.assert_close(known, torch.full_like(known, 2.5))
    assert 0.8 < known.numel() / low.numel() < 1
    assert low.shape[2:] == delivered_size((120, 160), ratio)


def random_depth(height: int, width: int, holes: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(1, height, width, generator=generator) * 4 + 1
    depth[torch.rand(depth.shape, generator=generator) < holes] = 0
    return depth


@pytest.mark.parametrize("ratio", [1.5, 2.5, 4, 7.5])
def test_area_is_the_exact_mean_of_the_box(ratio: float) -> None:
    depth = random_depth(30, 45, holes=0.3)
    rows, columns = delivered_size((30, 45), ratio)
    low = reduce_depth(depth, (rows, columns), "area")[0]
    image = depth[0].numpy().astype(float)
    for i, j in np.ndindex(rows, columns):
        total = weight = 0.0
        for y, x in np.ndindex(30, 45):
            high = min((i + 1) * 30 / rows, y + 1) - max(i * 30 / rows, y)
            wide = min((j + 1) * 45 / columns, x + 1) - max(j * 45 / columns, x)
            if high > 0 and wide > 0 and image[y, x] > 0:
                total, weight = total + high * wide * image[y, x], weight + high * wide
        assert low[i, j].item() == pytest.approx(total / weight if weight else 0, rel=1e-4)


@pytest.mark.parametrize("phase", [0, 0.25, 0.5, 0.9])
def test_nearest_takes_the_pixel_at_its_phase(phase: float) -> None:
    depth = torch.arange(1.0, 1 + 24 * 32).view(1, 24, 32)
    low = reduce_depth(depth, (3, 4), "nearest", phase)[0]
    step = int(phase * 8)
    assert torch.equal(low, depth[0, step::8, step::8])
    anywhere = Sensor(Reduction("nearest", None))
    seen = {
        tuple(int(v) for v in divmod(int(simulate(anywhere, depth[None], None, 8, seed=s)[0, 0, 0, 0]) - 1, 32))
        for s in range(30)
    }
    assert len({row for row, _ in seen}) > 4
    assert len({column for _, column in seen}) > 4


@pytest.mark.parametrize(("method", "choose"), [("median", lambda v: v[(len(v) - 1) // 2]), ("min", lambda v: v[0])])
def test_order_statistics_by_loops(method: str, choose) -> None:
    depth = random_depth(24, 40, holes=0.5)
    low = reduce_depth(depth, (6, 10), method)[0]
    for i, j in np.ndindex(6, 10):
        values = np.sort(depth[0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].numpy().ravel())
        values = values[values > 0]
        assert low[i, j].item() == (choose(values) if values.size else 0)


def test_decimation_is_librealsenses() -> None:
    depth = random_depth(24, 48, holes=0.2)
    for ratio, method in ((2, "median"), (3, "median"), (4, "area"), (8, "area")):
        size = (24 // ratio, 48 // ratio)
        assert torch.equal(reduce_depth(depth, size, "decimation"), reduce_depth(depth, size, method))


def test_resizes_are_those_of_other_libraries() -> None:
    depth = random_depth(48, 64)
    low = reduce_depth(depth, (12, 16), "bicubic")[0].numpy()
    pillow = Image.fromarray(depth[0].numpy()).resize((16, 12), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(low, np.asarray(pillow), rtol=1e-4)
    low = reduce_depth(depth, (12, 16), "bilinear")[0].numpy()
    opencv = cv2.resize(depth[0].numpy(), (16, 12), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(low, opencv, rtol=1e-4)
    step = torch.where(torch.arange(64) < 30, 1.0, 3.0).expand(1, 48, 64).clone()
    between = reduce_depth(step, (12, 16), "bilinear")
    assert ((between > 1.01) & (between < 2.99)).any(), "it invents depths between surfaces"


# --- stereo ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("step", [1 / 32, 1 / 16])
def test_stereo_noise_grows_with_the_square_of_depth(depth: float, step: float) -> None:
    camera = Stereo(subpixel=0.1, step=step, window=1)
    assert camera.deviation_m(depth) == pytest.approx(depth**2 * 0.1 / (425 * 0.05))
    low = simulate(Sensor(camera), wall(depth, 4), None, 1, focal_px=425)
    disparity = 425 * 0.05 / low.double()
    steps = disparity / step
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=2e-3)
    # Rounding adds the variance of a uniform distribution where noise is as large as a step or more.
    expected = math.hypot(0.1, step / math.sqrt(12))
    assert float((disparity - 425 * 0.05 / depth).std()) == pytest.approx(expected, rel=0.05)
    error = float((low.double() - depth).square().mean().sqrt())
    assert error == pytest.approx(depth**2 * expected / (425 * 0.05), rel=0.12)


def test_stereo_noise_is_alike_over_the_window_and_follows_the_frame_before() -> None:
    camera = Stereo(subpixel=0.3, step=1e-4, window=9, correlation=0.6)
    low = simulate(Sensor(camera), wall(2.0, 40), None, 1, focal_px=425)[:, 0].double()
    noise = 1 / low - 1 / low.mean()
    noise = noise / noise.std()
    for lag in (0, 3, 6, 9, 12):
        measured = float((noise[:, :, : 160 - lag] * noise[:, :, lag:]).mean())
        assert measured == pytest.approx(max(0, 1 - lag / 9), abs=0.07), "a triangle: two boxes that overlap"
    assert float((noise[1:] * noise[:-1]).mean()) == pytest.approx(0.6, abs=0.05)
    still = simulate(Sensor(Stereo(subpixel=0.3, step=1e-4, window=1, static=0.7)), wall(2.0, 30), None, 1)[:, 0]
    noise = 1 / still.double() - 1 / still.double().mean()
    assert float(noise.mean(0).var() / noise.var()) == pytest.approx(0.7 + 0.3 / 30, abs=0.05)


def test_stereo_calibration_is_the_clips() -> None:
    camera = Stereo(subpixel=0, step=1e-4, bias=0.2)
    first, second = (simulate(Sensor(camera), wall(2.0, 3), None, 1, seed=seed)[:, 0] for seed in (0, 1))
    assert torch.equal(first[0], first[2])
    assert not torch.allclose(first, second)
    errors = torch.stack(
        [425 * 0.05 / simulate(Sensor(camera), wall(2.0), None, 1, seed=s) - 10.625 for s in range(40)]
    )
    assert float(errors.std()) == pytest.approx(0.2, rel=0.35), "smooth: few independent values in an image"


def box(near: float = 1.0, far: float = 4.0) -> torch.Tensor:
    depth = wall(far)
    depth[..., 40:80, 60:100] = near
    return depth


@pytest.mark.parametrize(("side", "columns"), [("left", range(44, 60)), ("right", range(100, 116))])
def test_stereo_shadow_has_the_width_of_the_disparity_step(side: str, columns: range) -> None:
    camera = Stereo(subpixel=0, step=1e-4, fattening=0, shadow=side)
    low = simulate(Sensor(camera), box(), None, 1, focal_px=425)[0, 0]
    missing = (low[60] == 0).nonzero().flatten().tolist()
    width = 425 * 0.05 * (1 / 1.0 - 1 / 4.0)  # 15.9 px
    assert len(missing) in (math.floor(width), math.ceil(width))
    assert set(missing) <= set(columns)
    assert (low[10] > 0).all()


def test_stereo_foreground_grows_by_half_a_window_and_slopes_do_not() -> None:
    camera = Stereo(subpixel=0, step=1e-4, window=9, shadow="none")
    low = simulate(Sensor(camera), box(), None, 1, focal_px=425)[0, 0]
    near = low < 2
    grown = torch.zeros_like(near)
    grown[36:84, 56:104] = True  # four pixels on every side
    assert torch.equal(near, grown)
    x = torch.arange(160.0)
    slope = (1 / (0.2 + 0.003 * x)).expand(1, 1, 120, 160)  # 5 m down to 1.5 m
    torch.testing.assert_close(simulate(Sensor(camera), slope, None, 1, focal_px=425), slope, rtol=1e-4, atol=1e-4)


def test_stereo_noise_may_be_smoother_than_the_matching_window() -> None:
    wide = {"subpixel": 0.1, "step": 1e-4, "window": 3, "noise_window": 15}
    low = simulate(Sensor(Stereo(**wide, fattening=1, shadow="none")), wall(2.0, 12), None, 1, focal_px=425)[:, 0]
    errors = 425 * 0.05 / low - 425 * 0.05 / 2.0
    assert float(errors.std()) == pytest.approx(0.1, rel=0.1)
    together = (errors[..., :-5] * errors[..., 5:]).mean() / errors.square().mean()
    assert float(together) == pytest.approx(10 / 15, abs=0.1), "what two windows 5 pixels apart have in common"
    near = simulate(Sensor(Stereo(**(wide | {"subpixel": 0}), shadow="none")), box(), None, 1, focal_px=425)[0, 0] < 2
    assert int(near.sum()) == 42 * 42, "outlines stay those of the matching window"


def test_stereo_outlines_waver_by_the_given_deviation() -> None:
    camera = Stereo(subpixel=0, step=1e-4, fattening=0, shadow="none", window=5, edge_jitter=2.0)
    depth = wall(4.0, 30)
    depth[..., 80:] = 1.0
    low = simulate(Sensor(camera), depth, None, 1, focal_px=425)[:, 0]
    assert (
        torch.isclose(low, torch.tensor(1.0), rtol=1e-3)
        .logical_or(torch.isclose(low, torch.tensor(4.0), rtol=1e-3))
        .all()
    )
    border = (low > 2).sum(-1).float()  # pixels of the far surface in each row
    assert float(border.mean()) == pytest.approx(80, abs=0.3)
    assert float(border.std()) == pytest.approx(2.0, rel=0.15)
    assert float((border[1:] - border[:-1]).std()) == pytest.approx(2.0 * 2**0.5, rel=0.15), "anew in each frame"


def test_stereo_sees_nothing_beyond_its_borders_and_nearer_than_its_least_depth() -> None:
    camera = Stereo(subpixel=0, step=1e-4, field_of_view_deg=2 * math.degrees(math.atan(80 / 425)), min_m=0.5)
    low = simulate(Sensor(camera), wall(1.0), None, 1, focal_px=425)[0, 0]
    band = (low == 0).all(0).nonzero().flatten().tolist()  # its image is as wide as colour's
    assert band[0] == 0
    assert len(band) == pytest.approx(425 * 0.05 / 1.0, abs=1.5)
    assert (low[:, len(band) :] > 0).all()
    assert (simulate(Sensor(camera), wall(0.4), None, 1) == 0).all()


def test_stereo_needs_contrast() -> None:
    plain, rough = torch.full((1, 3, 120, 160), 0.5), texture()
    passive = Sensor(Stereo(texture=0.01))
    assert (simulate(passive, wall(2.0), plain, 1) == 0).all()
    assert (simulate(passive, wall(2.0), rough, 1) > 0).all()
    active = Sensor(Stereo(texture=0.01, projector=0.16))
    # On a surface of reflectance a it adds 0.16 a / z^2: enough below sqrt(0.16 a / 0.01) m, 2.8 m for a half.
    for depth, share in ((2.0, 1.0), (2.83, 0.5), (4.0, 0.0)):
        seen = (simulate(active, wall(depth), plain, 1, focal_px=425) > 0).float().mean()
        assert float(seen) == pytest.approx(share, abs=0.15), depth
    dark = simulate(active, wall(2.0), plain * 0.1, 1, focal_px=425)
    assert (dark > 0).float().mean() < 0.02
    shiny = rough.clone()
    shiny[..., :80] = 1.0
    low = simulate(Sensor(Stereo(gloss=0.97)), wall(2.0, 1), shiny, 1)
    assert float((low[..., :80] == 0).float().mean()) == pytest.approx(0.7, abs=0.03)
    assert (low[..., 80:] > 0).all()


def test_stereo_loses_a_share_of_what_lies_at_edges() -> None:
    low = simulate(Sensor(Stereo(subpixel=0, fattening=0, shadow="none", edge_loss=0.3)), box(), None, 1, focal_px=425)
    lost = (low[0, 0] == 0).numpy()
    near = np.zeros((120, 160), np.uint8)
    near[39:81, 59:101] = 1
    near[41:79, 61:99] = 0
    near = cv2.dilate(near, np.ones((11, 11))) > 0  # the widest that half a window can be
    assert not (lost & ~near).any()
    rim = np.zeros((120, 160), bool)
    rim[38:82, 58:102] = True
    rim[42:78, 62:98] = False
    assert lost[rim].mean() == pytest.approx(0.3, abs=0.12)


# --- phase time of flight --------------------------------------------------------------------------------------------


def test_flying_pixels_are_the_phase_of_the_mixed_light() -> None:
    """A delivered pixel that sees half of each of two surfaces, of other reflectance."""
    camera = PhaseTof(ambiguity_m=10, blur=0, noise_m=0, floor_m=0)
    depth, rgb = torch.full((1, 1, 32, 32), 1.5), torch.full((1, 3, 32, 32), 0.8)
    depth[..., 12:], rgb[..., 12:] = 3.0, 0.4  # the boundary is in the middle of the second column of cells
    low = simulate(Sensor(camera), depth, rgb, 8)[0, 0]
    light = [(0.8 / 1.5**2, 1.5), (0.4 / 3.0**2, 3.0)]
    mixed = sum(0.5 * a * cmath.exp(2j * math.pi * z / 10) for a, z in light)
    flying = cmath.phase(mixed) / (2 * math.pi) * 10
    assert low[1, 1].item() == pytest.approx(flying, rel=1e-4)
    assert 1.5 < flying < 3.0
    assert low[1, 0].item() == pytest.approx(1.5, rel=1e-5)
    assert low[1, 2].item() == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize(("depth", "albedo"), [(1.0, 1.0), (2.0, 0.5), (4.0, 0.2)])
def test_phase_noise_grows_as_light_falls(depth: float, albedo: float) -> None:
    camera = PhaseTof(noise_m=0.004, floor_m=0.002)
    low = simulate(Sensor(camera), wall(depth, 3), torch.full((3, 3, 120, 160), albedo), 1)
    assert camera.deviation_m(depth, albedo) == pytest.approx(math.hypot(0.002, 0.004 * depth / math.sqrt(albedo)))
    assert float((low - depth).std()) == pytest.approx(camera.deviation_m(depth, albedo), rel=0.05)


def test_phase_readings_end_where_too_little_light_returns() -> None:
    camera = Sensor(PhaseTof(dark=0.05))
    rgb = torch.full((1, 3, 120, 160), 0.45)  # 0.45 / z^2 = 0.05 at 3 m
    for depth, share in ((2.5, 1.0), (3.0, 0.5), (3.6, 0.0)):
        seen = float((simulate(camera, wall(depth), rgb, 1) > 0).float().mean())
        assert seen == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("pitch", [1.25, 2.0])
def test_registered_phase_depth_has_one_pixel_for_each_measurement(pitch: float) -> None:
    low = simulate(Sensor(PhaseTof(pitch=pitch, noise_m=0, floor_m=0)), wall(2.0), None, 1)
    assert float((low > 0).float().mean()) == pytest.approx(1 / pitch**2, abs=0.01)
    torch.testing.assert_close(low[low > 0], torch.full_like(low[low > 0], 2.0))


def test_corners_look_farther_and_planes_do_not() -> None:
    camera = Sensor(PhaseTof(noise_m=0, floor_m=0, blur=0, multipath_m=0.03))
    x = torch.arange(160.0)
    corner = (3 - 0.01 * (x - 80).abs()).expand(1, 1, 120, 160)
    error = (simulate(camera, corner, None, 1) - corner)[0, 0, 60]
    assert error[80] > 0.01
    assert error.max() <= 0.0301
    assert error[40].abs() < 1e-3
    assert (simulate(camera, wall(2.0), None, 1) - 2.0).abs().max() < 1e-4


def test_wiggling_stays_for_the_clip() -> None:
    camera = Sensor(PhaseTof(noise_m=0, floor_m=0, wiggle_m=0.01))
    low = simulate(camera, wall(2.0, 3), None, 1)
    assert torch.equal(low[0], low[2])
    assert 1e-4 < float((low - 2.0).abs().max()) <= 0.0101


# --- direct time of flight -------------------------------------------------------------------------------------------


def histogram_by_loops(depth: np.ndarray, rgb: np.ndarray, scale: int, range_m: float, bins: int) -> np.ndarray:
    """Definition of the simulation, one photon after the other (float32 depth fraction, as in the module)."""
    rows, columns = depth.shape[0] // scale, depth.shape[1] // scale
    out = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            histogram = [0.0] * bins
            for y in range(i * scale, i * scale + scale):
                for x in range(j * scale, j * scale + scale):
                    fraction = np.float32(depth[y, x]) / np.float32(range_m)
                    number = np.round(fraction * np.float32(bins - 1))
                    if fraction == 0 or number > bins - 1:
                        continue
                    histogram[int(number)] += float(rgb[:, y, x].mean()) / (1e-3 + float(fraction) ** 2)
            out[i, j] = int(np.argmax(histogram)) * range_m / (bins - 1)
    return out


def scene(frames: int, height: int, width: int, far: float = 25.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(frames, 1, height, width, generator=generator) * far
    depth[torch.rand(depth.shape, generator=generator) < 0.1] = 0
    return depth, torch.rand(frames, 3, height, width, generator=generator)


@pytest.mark.parametrize(("scale", "bins", "range_m"), [(4, 1024, 20.0), (8, 64, 20.0), (16, 1024, 7.5), (3, 31, 20.0)])
def test_histogram_equals_loops(scale: int, bins: int, range_m: float) -> None:
    depth, rgb = scene(2, 4 * scale, 6 * scale)
    low = simulate(Sensor(Dtof(range_m, bins)), depth, rgb, scale)
    assert low.shape == (2, 1, 4, 6)
    for t in range(2):
        expected = histogram_by_loops(depth[t, 0].numpy(), rgb[t].numpy(), scale, range_m, bins)
        np.testing.assert_allclose(low[t, 0].numpy(), expected, rtol=1e-6)


def test_histogram_is_the_same_however_it_is_cut_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    depth, rgb = scene(3, 64, 48)
    whole = simulate(Sensor(), depth, rgb, 8)
    monkeypatch.setattr("stdnet_core.data.sensors.dtof._HISTOGRAM_BYTES", {"cpu": 1})
    torch.testing.assert_close(simulate(Sensor(), depth, rgb, 8), whole, rtol=0, atol=0)


def test_histogram_prefers_bright_and_near_surfaces() -> None:
    depth = torch.full((1, 1, 4, 4), 8.0)
    depth[..., :1] = 2.0  # a quarter of the block, but 16 times the light
    assert abs(simulate(Sensor(), depth, None, 4).item() - 2.0) < 20 / 1023
    rgb = torch.ones(1, 3, 4, 4)
    rgb[..., :1] = 0.01
    assert abs(simulate(Sensor(), depth, rgb, 4).item() - 8.0) < 20 / 1023
    assert simulate(Sensor(), depth, torch.zeros(1, 3, 4, 4), 4).item() == 0, "black returns nothing"


def test_beyond_range_is_lost_or_clipped() -> None:
    depth = torch.full((1, 1, 8, 8), 30.0)
    depth[..., :4] = 5.0
    for camera, expected in ((Dtof(), 0.0), (Dtof(clip_beyond_range=True), 20.0), (Dtof(range_m=None), 30.0)):
        low = simulate(Sensor(camera), depth, None, 4)[0, 0, :, 1]
        torch.testing.assert_close(low, torch.full((2,), expected))


def test_jitter_is_uniform_over_whole_bins() -> None:
    low = simulate(Sensor(Dtof(jitter_bins=2)), wall(10.0, 40, 64, 64), None, 4)
    offset = low / (20 / 1023) - round(10 / 20 * 1023)
    torch.testing.assert_close(offset, offset.round(), rtol=0, atol=1e-3)
    share = torch.bincount((offset.round().long() + 2).flatten(), minlength=5) / offset.numel()
    torch.testing.assert_close(share, torch.full((5,), 0.2), rtol=0, atol=0.02)


def test_the_lowest_of_equally_full_bins_wins() -> None:
    depth = torch.tensor([0.5, 0.75, 0.5, 0.75])
    assert fullest_bins(depth, 1e-3 + depth.square(), bins=5).item() == 2  # equal light from both


def test_wide_zones_leaks_and_few_photons() -> None:
    rgb = torch.ones(20, 3, 24, 24)

    def zones(strip: int = 1, near: float = 1.0, **values: float) -> torch.Tensor:
        """Which zones see a strip just inside the middle one, ``strip`` pixels wide, ``near`` metres away."""
        depth = torch.full((20, 1, 24, 24), 4.0)
        depth[:, :, 8:16, 8 : 8 + strip] = near
        return simulate(Sensor(Dtof(10.0, **values)), depth, rgb, 8)[:, 0] < 2

    narrow = zones()
    assert narrow[:, 1, 1].all()
    assert not narrow[:, :, 0].any()
    assert zones(strip=2, zone=1.5)[:, 1, 0].all(), "a wide zone sees its neighbour's strip"
    # A middle zone full of 46 times the light (0.161 / 0.0035, with the 1e-3 of DVSR eq. 1): of the leak,
    # c / 9 * 64 * 46 against 64 + c / 9 * (576 - 64), so that it wins from c = 0.24 on.
    assert not zones(strip=8, near=0.5, crosstalk=0.2)[:, 1, 0].any()
    assert zones(strip=8, near=0.5, crosstalk=0.28)[:, 1, 0].all()
    faint = torch.full((60, 1, 8, 8), 4.0)
    faint[..., :3] = 2.4  # 24 pixels of 1 / 2.4^2 and 40 of 1 / 4^2: 4.2 against 2.5
    share = [
        float((simulate(Sensor(Dtof(10.0, photons=n)), faint, torch.ones(60, 3, 8, 8), 8) > 3).float().mean())
        for n in (3, 30, 5000)
    ]
    assert share[0] > share[1] > share[2] == 0


@settings(max_examples=20, deadline=None)
@given(st.floats(1, 12), st.integers(0, 5))
def test_zones_at_any_ratio_report_a_depth_that_is_there(ratio: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    depth = torch.randint(1, 5, (1, 1, 36, 48), generator=generator).float()
    low = simulate(Sensor(Dtof(10.0, 1001)), depth, None, ratio)
    assert (low.mul(100).round() % 100 == 0).all()


# --- phone lidar -----------------------------------------------------------------------------------------------------


def test_phone_lidar_blurs_edges_by_a_gaussian() -> None:
    depth = wall(4.0, 1, 120, 160)
    depth[..., :80] = 2.0
    low = simulate(Sensor(PhoneLidar(blur=1.0, lag=0, noise=0, bias=0)), depth, None, 5)[0, 0, 12]
    tap = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    tap /= tap.sum()
    step = np.where(np.arange(-6, 38) < 16, 2.0, 4.0)
    expected = np.convolve(step, tap, "same")[6:38]
    np.testing.assert_allclose(low.numpy(), expected, rtol=1e-4)


def test_phone_lidar_lags_by_a_geometric_series() -> None:
    depth = wall(2.0, 6, 40, 40)
    depth[1:] = 3.0
    low = simulate(Sensor(PhoneLidar(blur=0, lag=0.5, noise=0, bias=0)), depth, None, 5)[:, 0, 4, 4]
    np.testing.assert_allclose(low.numpy(), [2.0] + [3 - 0.5**t for t in range(1, 6)], rtol=1e-5)


def test_phone_lidar_errors_are_smooth_and_edges_unsure() -> None:
    camera = PhoneLidar(blur=0, lag=0, noise=0.02, noise_cells=8, bias=0)
    low = simulate(Sensor(camera), wall(2.0, 20, 240, 320), None, 5)[:, 0]
    error = low / 2 - 1
    assert float(error.std()) == pytest.approx(0.02, rel=0.3)
    assert float((error[:, :, 1:] - error[:, :, :-1]).std()) < 0.3 * float(error.std())
    unsure = PhoneLidar(lag=0, noise=0, bias=0, confident_only=True)
    depth = wall(2.0)
    depth[..., 80:] = 4.0
    kept = simulate(Sensor(unsure), depth, None, 5)[0, 0] > 0
    assert not kept[:, 15:17].any()
    assert kept[:, :10].all()
    biased = [simulate(Sensor(PhoneLidar(noise=0, bias=0.01)), wall(2.0), None, 5, seed=s) for s in range(40)]
    assert all(float(b.std()) < 1e-5 for b in biased)
    assert float(torch.stack([b.mean() for b in biased]).std() / 2) == pytest.approx(0.01, rel=0.35)


def test_presets_are_as_noisy_as_their_sources_say() -> None:
    rgb = texture(6)
    for name, at, low, high in (
        ("realsense_d435", 2.0, 0.010, 0.022),  # 0.08 px are 15 mm at 2 m
        ("oakd", 2.0, 0.012, 0.030),
        ("kinect_v1", 3.0, 0.008, 0.03),  # 13 mm and steps of 26 mm
        ("kinect_azure", 2.0, 0.001, 0.017),
        ("kinect_v2", 3.0, 0.002, 0.012),
        ("iphone_lidar", 1.5, 0.002, 0.02),
    ):
        depth = simulate(sensor(name), wall(at, 6), rgb, 1)
        error = float((depth[depth > 0] - at).std())
        assert low < error < high, (name, error)
