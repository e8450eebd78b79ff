"""The metrics against loops over pixels, slow z-buffers and scenes whose figures follow from geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from stdnet_core.errors import InputError
from stdnet_core.evaluation import metric_functions as functions
from stdnet_core.evaluation import metrics
from stdnet_core.evaluation.metric_functions import Pooled
from stdnet_core.evaluation.scoring import ScoredFrame, VideoScore
from stdnet_core.evaluation.splatting import forward_warp
from stdnet_core.report.colorize import colorize_depth, colorize_error


def random_clip(seed=0, batch=2, frames=3, height=9, width=11):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, frames, 1, height, width)
    target = 1 + 4 * torch.rand(shape, generator=generator)
    pred = target + 0.3 * torch.randn(shape, generator=generator)
    valid = torch.rand(shape, generator=generator) > 0.25
    flow = 2 * torch.randn((batch, frames - 1, 2, height, width), generator=generator)
    return pred, target, valid, flow


def slow_z_buffer(depth, flow, valid, radius):
    """Point by point, pixel by pixel: what the nearest point whose disc covers the pixel has for depth."""
    height, width = depth.shape
    warped, hit = np.zeros_like(depth), np.zeros(depth.shape, bool)
    for row in range(height):
        for column in range(width):
            nearest = math.inf
            for y in range(height):
                for x in range(width):
                    if not valid[y, x] or not np.isfinite(flow[:, y, x]).all():
                        continue
                    across = x + float(flow[0, y, x]) - (column + 0.5)
                    distance = math.hypot(across, y + float(flow[1, y, x]) - (row + 0.5))
                    if distance < radius:
                        nearest = min(nearest, depth[y, x])
            if nearest < math.inf:
                warped[row, column], hit[row, column] = nearest, True
    return warped, hit


def render_discs(depth, flow, valid, radius):
    """The renderer of the published TEPE, by loops: points with discs in normalised device coordinates.

    The shorter side of the image spans -1..1 and the longer one as much more as it is longer; x points to the left, y
    up. The point of a pixel lies at its whole number, and the pixel's centre half a pixel further. Each pixel shows the
    nearest point whose squared distance in these coordinates is below that of ``radius``. Returns depth and where there
    is any, as :func:`forward_warp` does.
    """
    height, width = depth.shape
    shorter = min(height, width)

    def normalised(x, y):  # of a place in the image, whose corner is (0, 0) and whose first pixel ends at (1, 1)
        return (width - 2 * x) / shorter, (height - 2 * y) / shorter

    points = [
        (*normalised(x + float(flow[0, y, x]), y + float(flow[1, y, x])), depth[y, x])
        for y in range(height)
        for x in range(width)
        if valid[y, x]
    ]
    warped, hit = np.zeros_like(depth), np.zeros(depth.shape, bool)
    for row in range(height):
        for column in range(width):
            x, y = normalised(column + 0.5, row + 0.5)
            near = [z for px, py, z in points if (px - x) ** 2 + (py - y) ** 2 < radius**2]
            if near:
                warped[row, column], hit[row, column] = min(near), True
    return warped, hit


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 12), (12, 7), (13, 10)])
def test_forward_warp_is_the_renderer_of_the_published_figures(height, width):
    """Discs of 2/H where that is a pixel; in images higher than wide, of one pixel, too, and not of W/H pixels."""
    generator = torch.Generator().manual_seed(2)
    depth = 1 + 4 * torch.rand(1, 1, height, width, generator=generator)
    flow = 2 * torch.randn(1, 2, height, width, generator=generator)
    valid = torch.rand(1, 1, height, width, generator=generator) > 0.5
    arguments = (depth[0, 0].numpy(), flow[0].numpy(), valid[0, 0].numpy())

    def check(expected, got):
        np.testing.assert_array_equal(got[1][0, 0].numpy(), expected[1])
        np.testing.assert_array_equal(got[0][0, 0].numpy(), expected[0])
        assert 0 < expected[1].sum() < expected[1].size

    check(render_discs(*arguments, 2 / min(height, width)), forward_warp(depth, flow, valid))
    if width < height:
        check(render_discs(*arguments, 2 / height), forward_warp(depth, flow, valid, radius=width / height))


@pytest.mark.parametrize(
    ("flow", "covered"),
    [
        ((0, 0), [(2, 4), (2, 5), (3, 4), (3, 5)]),
        ((2, -1), [(1, 6), (1, 7), (2, 6), (2, 7)]),
        ((0.5, 0.5), [(3, 5)]),  # its neighbours' centres are 1 px away, and so not covered
        ((0.75, 0.5), [(3, 5), (3, 6)]),
        ((-0.375, -0.25), [(2, 4), (2, 5), (3, 4)]),
        ((0, 5), [(7, 4), (7, 5)]),  # half of it has left the image
    ],
)
def test_pixels_that_a_moved_point_covers(flow, covered):
    """On a size whose normalised coordinates are exact in floating point, so that the boundary is, too."""
    depth, valid = torch.full((1, 1, 8, 16), 2.0), torch.zeros(1, 1, 8, 16, dtype=torch.bool)
    valid[0, 0, 3, 5] = True
    motion = torch.tensor(flow, dtype=torch.float32).reshape(1, 2, 1, 1).expand(1, 2, 8, 16)
    _, hit = forward_warp(depth, motion, valid)
    assert [tuple(place) for place in hit[0, 0].nonzero().tolist()] == covered
    _, expected = render_discs(depth[0, 0].numpy(), motion[0].numpy(), valid[0, 0].numpy(), 2 / 8)
    np.testing.assert_array_equal(hit[0, 0].numpy(), expected)


@pytest.mark.parametrize("radius", [1.0, 2.0, 2.5])
def test_forward_warp_is_the_slow_z_buffer(radius):
    generator = torch.Generator().manual_seed(1)
    depth = torch.rand(2, 2, 9, 12, generator=generator)
    flow = 3 * torch.randn(2, 2, 9, 12, generator=generator)
    flow[:, :, :4] = flow[:, :, :4].round()  # distances of exactly the radius are not covered
    flow[0, 0, 5, 5] = float("nan")
    flow[1, 1, 2, 3] = float("inf")
    valid = torch.rand(2, 1, 9, 12, generator=generator) > 0.8
    warped, hit = forward_warp(depth, flow, valid, radius)
    assert not hit.all()
    for n in range(2):
        for k in range(2):
            expected, expected_hit = slow_z_buffer(depth[n, k].numpy(), flow[n].numpy(), valid[n, 0].numpy(), radius)
            np.testing.assert_array_equal(hit[n, 0].numpy(), expected_hit)
            np.testing.assert_array_equal(warped[n, k].numpy(), expected)


def test_forward_warp_shows_the_nearer_of_two_surfaces():
    """A near square moves over a far wall by 4.5 pixels: the wall stays, the square arrives, higher by a pixel."""
    depth = torch.full((1, 1, 20, 30), 5.0)
    depth[..., 8:12, 4:9] = 1.0
    flow = torch.zeros(1, 2, 20, 30)
    flow[:, 0, 8:12, 4:9] = 4.5
    warped, hit = forward_warp(depth, flow, torch.ones(1, 1, 20, 30, dtype=torch.bool))
    near = warped[0, 0] == 1.0
    expected = torch.zeros_like(near)
    expected[7:12, 8:13] = True  # each point covers the pixel whose centre it has reached, and the one above
    assert torch.equal(near, expected)
    gap = torch.zeros_like(near)
    gap[8:11, 4:8] = True  # what the square leaves behind and does not cover again
    assert torch.equal(~hit[0, 0], gap)


def test_forward_warp_refuses_other_shapes():
    with pytest.raises(InputError, match="flow"):
        forward_warp(torch.ones(1, 1, 4, 4), torch.zeros(1, 2, 4, 5), torch.ones(1, 1, 4, 4, dtype=torch.bool))


def test_pixel_metrics_by_hand():
    pred, target, valid, _ = random_clip()
    squares, absolutes, right, count = 0.0, 0.0, 0, 0
    for p, g, ok in zip(pred.ravel().tolist(), target.ravel().tolist(), valid.ravel().tolist(), strict=True):
        if ok:
            squares += (100 * (p - g)) ** 2
            absolutes += 100 * abs(p - g)
            right += max(p / g, g / p) < 1.25
            count += 1

    def pooled(function):
        per_clip = function(pred, target, valid)
        assert per_clip.total.shape == (2,)
        return Pooled(per_clip.total.sum(), per_clip.count.sum())

    assert float(pooled(functions.squared_error).root_mean()) == pytest.approx(math.sqrt(squares / count))
    assert float(pooled(functions.absolute_error).mean()) == pytest.approx(absolutes / count)
    assert float(pooled(functions.within_delta1).mean()) == pytest.approx(right / count)


def test_delta1_of_impossible_depths_is_wrong():
    target = torch.full((1, 1, 1, 6), 2.0)
    pred = torch.tensor([2.4, 2.6, 0.0, -2.0, 1.61, 2.5]).reshape(1, 1, 1, 6)  # the last is exactly 1.25 times as far
    pooled = functions.within_delta1(pred, target, torch.ones_like(target, dtype=torch.bool))
    assert float(pooled.mean()) == pytest.approx(2 / 6)


def test_invalid_pixels_never_count():
    pred, target, valid, flow = random_clip()
    baseline = target + 0.2 * torch.randn(target.shape, generator=torch.Generator().manual_seed(3))
    collection = metrics.depth_metrics(flow=True, upsampled=True)
    arguments = dict(valid=valid, flow=flow, upsampled=baseline)
    collection.update(pred=pred, target=target, **arguments)
    expected = collection.compute()
    collection.reset()
    collection.update(pred=pred.masked_fill(~valid, 1e6), target=target.masked_fill(~valid, float("nan")), **arguments)
    got = collection.compute()
    assert set(got) == {
        "rmse_cm", "mae_cm", "delta1", "edge_rmse_cm", "flicker_cm", "tepe_cm",
        "longtail_spatial_rmse_cm", "motion_tail_rmse_cm",
    }  # fmt: skip
    for name, value in expected.items():
        assert math.isfinite(value)
        assert float(got[name]) == pytest.approx(float(value)), name


def test_edge_mask_by_hand():
    """Edges of an L-shaped step, steps just below and above the threshold, and a step into an invalid pixel."""
    target = torch.full((1, 1, 12, 16), 2.0)
    target[..., 4:8, :5] = 1.0
    target[..., :, 14:] = 2.08  # 4 %
    target[..., :2, :2] = 2.103  # a little above 5 % of the nearer depth, and below 5 % of the farther
    target[..., 11, 10] = 0.0
    valid = target > 0
    mask = functions.edge_mask(target, valid)[0, 0].numpy()
    depth = target[0, 0].numpy()
    edge = np.zeros_like(mask)
    for y in range(12):
        for x in range(16):
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                v, u = y + dy, x + dx
                if 0 <= v < 12 and 0 <= u < 16 and depth[y, x] > 0 and depth[v, u] > 0:
                    edge[y, x] |= abs(depth[y, x] - depth[v, u]) > 0.05 * min(depth[y, x], depth[v, u])
    expected = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(edge), strict=True):
        expected[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
    np.testing.assert_array_equal(mask, expected)
    assert 0 < expected.sum() < expected.size


@pytest.mark.parametrize(("height", "width"), [(9, 11), (11, 9)])
def test_tepe_by_hand(height, width):
    pred, target, valid, flow = random_clip(batch=1, frames=3, height=height, width=width)
    total, radius = 0.0, 2 / min(height, width)
    for t in (1, 2):
        previous = valid[0, t - 1, 0].numpy()
        moved_target, hit = render_discs(target[0, t - 1, 0].numpy(), flow[0, t - 1].numpy(), previous, radius)
        moved_pred, _ = render_discs(pred[0, t - 1, 0].numpy(), flow[0, t - 1].numpy(), previous, radius)
        delta = (target[0, t, 0].numpy() - moved_target) - (pred[0, t, 0].numpy() - moved_pred)
        total += 100 * np.abs(delta)[hit & valid[0, t, 0].numpy()].sum()
    metric = metrics.TEPE()
    metric.update(pred, target, valid, flow)
    assert float(metric.compute()) == pytest.approx(total / (2 * 9 * 11), rel=1e-5)


def test_tepe_ignores_a_constant_error_and_sees_a_changing_one():
    target = torch.full((3, 1, 8, 10), 3.0)
    valid = torch.ones_like(target, dtype=torch.bool)
    flow = torch.zeros(2, 2, 8, 10)
    metric = metrics.TEPE()
    metric.update(target + 0.5, target, valid, flow)
    assert float(metric.compute()) == pytest.approx(0, abs=1e-4)
    metric.reset()
    pulsing = target + torch.tensor([0.0, 0.1, 0.0]).reshape(3, 1, 1, 1)
    metric.update(pulsing, target, valid, flow)
    assert float(metric.compute()) == pytest.approx(10, rel=1e-5)
    metric.reset()
    metric.update(pulsing, target, valid, flow + 100)  # everything leaves the frame: nothing can be compared
    assert float(metric.compute()) == 0


def test_flicker_and_jitter():
    frames = torch.arange(5.0).reshape(5, 1, 1, 1)
    target = (2 + 0.3 * frames).expand(5, 1, 6, 7)
    valid = torch.ones(5, 1, 6, 7, dtype=torch.bool)
    rgb = torch.full((5, 3, 6, 7), 0.5)
    steady, shaking = target + 0.4, target + 0.01 * (-1) ** frames
    assert float(functions.flicker(steady, target, valid).mean()) == pytest.approx(0, abs=1e-4)
    assert float(functions.flicker(shaking, target, valid).mean()) == pytest.approx(2, rel=1e-4)
    assert float(functions.jitter(steady, rgb).mean()) == pytest.approx(0, abs=1e-4)
    assert float(functions.jitter(shaking, rgb).mean()) == pytest.approx(2, rel=1e-4)

    holes = shaking.clone()
    holes[2, :, 0] = float("nan")
    moving = rgb.clone()
    moving[4, 1, :, 3] = 0.9  # colour changes there in the last of three triples
    counted = functions.jitter(holes, moving)
    assert float(counted.mean()) == pytest.approx(2, rel=1e-4)
    assert float(counted.count) == 3 * 6 * 7 - 3 * 7 - (6 - 1)


@pytest.mark.parametrize(("levels", "still"), [(8, True), (9, False)])
def test_colour_that_changes_by_8_levels_stays_at_every_brightness(levels, still):
    """In float32, (a + 8) / 255 - a / 255 is above 8 / 255 for one a in ten."""
    dark = torch.arange(256.0 - levels)
    rgb = torch.stack((dark, dark + levels, dark)).reshape(3, 1, 1, -1).expand(3, 3, 1, -1) / 255
    counted = functions.jitter(torch.ones(3, 1, 1, rgb.shape[-1]), rgb)
    assert float(counted.count) == (len(dark) if still else 0)


def test_tails_by_hand():
    target = torch.full((2, 1, 6, 8), 2.0)
    target[1, :, :, :4] = 1.85  # comes nearer by 0.15 m
    upsampled = target.clone()
    upsampled[:, :, 0] += 0.1001
    upsampled[:, :, 1] -= 0.3
    upsampled[:, :, 2] += 0.09
    pred = target + 0.02
    pred[:, :, :2] = target[:, :, :2] - 0.05
    valid = torch.ones_like(target, dtype=torch.bool)
    spatial = metrics.SpatialLongTailRMSE()
    spatial.update(pred, target, valid, upsampled)
    assert float(spatial.compute()) == pytest.approx(5, rel=1e-4)
    assert float(spatial.count) == 2 * 2 * 8
    motion = metrics.MotionTailRMSE()
    motion.update(pred, target, valid, torch.zeros(1, 2, 6, 8))
    assert float(motion.count) == 6 * 4
    assert float(motion.compute()) == pytest.approx(math.sqrt((2 * 25 + 4 * 4) / 6), rel=1e-4)


def test_clips_pool_into_sequences_and_sequences_average():
    pred, target, valid, _ = random_clip(batch=3)
    valid[0, :, :, :5] = False
    metric = metrics.RMSE(sequences=3)
    metric.update(pred[:2], target[:2], valid[:2], sequence=torch.tensor([0, 2]))
    metric.update(pred[2], target[2], valid[2], sequence=2)  # a single clip, without a batch dimension
    error = ((pred - target) * 100).double().square()
    first = math.sqrt(error[0][valid[0]].mean())
    second = math.sqrt(torch.cat((error[1][valid[1]], error[2][valid[2]])).mean())
    assert metric.figures().tolist() == pytest.approx([first, float("nan"), second], nan_ok=True)
    assert float(metric.compute()) == pytest.approx((first + second) / 2)
    with pytest.raises(InputError, match="sequence 3"):
        metric.update(pred[2], target[2], valid[2], sequence=3)
    for outside in (-1, torch.tensor([0, 3])):
        with pytest.raises(InputError, match="is not one of the 3 of this metric"):
            metric.update(pred[:2], target[:2], valid[:2], sequence=outside)
    with pytest.raises(InputError, match="at least one sequence, got 0"):
        metrics.RMSE(sequences=0)
    empty = metrics.MAE()
    empty.update(pred, target, valid & False)
    assert math.isnan(empty.compute())


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips(frames):
    """Clips too short for a temporal figure add nothing to it."""
    pred, target, valid, _ = random_clip(frames=frames)
    warped = functions.warp_previous(pred, target, valid, torch.zeros(2, frames - 1, 2, 9, 11))
    tepe = functions.temporal_end_point_error(pred, target, valid, warped)
    assert tepe.count.tolist() == [(frames - 1) * 99] * 2
    assert functions.flicker(pred, target, valid).total.isfinite().all()
    assert not functions.jitter(pred, torch.zeros(2, frames, 3, 9, 11)).count.any()


def _rank(rank, address, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    pred, target, valid, flow = random_clip(batch=3)
    mine = slice(0, 1) if rank == 0 else slice(1, 3)
    sequence = torch.tensor([0, 1, 0])[mine]
    collection = metrics.depth_metrics(2, flow=True)
    collection.update(pred=pred[mine], target=target[mine], valid=valid[mine], flow=flow[mine], sequence=sequence)
    results[rank] = {name: float(value) for name, value in collection.compute().items()}
    torch.distributed.destroy_process_group()


def test_two_ranks_give_the_figures_of_one(tmp_path):
    """A sequence whose clips lie on two ranks is still one sequence."""
    pred, target, valid, flow = random_clip(batch=3)
    collection = metrics.depth_metrics(2, flow=True)
    collection.update(pred=pred, target=target, valid=valid, flow=flow, sequence=torch.tensor([0, 1, 0]))
    expected = {name: float(value) for name, value in collection.compute().items()}
    with multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_rank, args=(f"file://{tmp_path}/rendezvous", results), nprocs=2)
        for rank in (0, 1):
            assert dict(results[rank]) == pytest.approx(expected)


def test_pictures():
    depth = np.array([[1.0, 3.0, np.nan], [0.0, 9.0, np.inf]])
    picture = colorize_depth(depth, 1.0, 3.0)
    assert picture.shape == (2, 3, 3)
    assert picture.dtype == np.uint8
    near, far = picture[0, 0].astype(int), picture[0, 1].astype(int)
    assert near[0] > near[2]  # near is red
    assert far[2] > far[0]  # far is blue
    assert (picture[1, 1] == picture[0, 1]).all()  # beyond the scale: its last colour
    for y, x in ((0, 2), (1, 0), (1, 2)):
        assert not picture[y, x].any()
    error = colorize_error(np.array([[-0.1, 0.0, 0.1, np.nan]]), 0.1).astype(int)
    assert (error[0, 0] == error[0, 2]).all()
    assert error[0, 2].sum() > 300
    assert error[0, 1].sum() < 20
    assert error[0, 3].min() == error[0, 3].max() > 50  # unknown is grey, unlike no error


def test_measured_pixels_and_holes_have_figures_of_their_own():
    target = np.full((6, 8), 2.0, np.float32)
    target[0] = 0  # no truth
    measured = np.zeros((6, 8), bool)
    measured[:, :4] = True
    output = target.copy()
    output[:, :4] += 0.01
    output[:, 4:6] += 0.02
    output[:, 6:] += 0.04
    score = VideoScore(["ours"], by_frame=True)
    frame = ScoredFrame(np.zeros((6, 8, 3), np.uint8), target, {"ours": output}, measured=measured)
    score.add(frame)
    figures = score.figures()["ours"]
    assert figures["measured_mae_cm"] == pytest.approx(1, rel=1e-4)
    assert figures["measured_rmse_cm"] == pytest.approx(1, rel=1e-4)
    assert figures["hole_mae_cm"] == pytest.approx(3, rel=1e-4)
    assert figures["hole_rmse_cm"] == pytest.approx(math.sqrt((4 + 16) / 2), rel=1e-4)
    alone = score.figures_by_frame()[0]["ours"]
    assert {name: alone[name] for name in figures} == pytest.approx(figures, nan_ok=True)
    without = VideoScore(["ours"])
    without.add(ScoredFrame(frame.rgb, target, {"ours": output}))
    assert math.isnan(without.figures()["ours"]["hole_mae_cm"])
