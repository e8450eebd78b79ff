"""Registration of depth to colour: sums and shifts against loops and known shifts, and the network's use of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.augmentation import misregister
from stdnet_core.data.sensors import simulate
from stdnet_core.data.sensors.cell import Cell
from stdnet_core.data.synthetic import render_clip
from stdnet_core.inference import DepthUpsampler
from stdnet_core.model import RecurrentConfig, RecurrentNet
from stdnet_core.model.recurrent import network as network_module
from stdnet_core.model.recurrent.registration import SUMS, Registration, edge_products, register, shifted

SIZE = (192, 256)


@pytest.mark.parametrize(("ratio", "blur"), [(1, 1), (4, 1), (8, 3), (16, 3)])
def test_edges_are_compared_as_in_a_loop(ratio, blur):
    generator = torch.Generator().manual_seed(ratio)
    height, width = 19, 22  # so that a row and a column are left over
    log_depth = torch.rand(1, 1, height, width, generator=generator)
    colour = torch.rand(1, 3, height, width, generator=generator)
    share = (torch.rand(1, 1, height, width, generator=generator) > 0.1).float()
    sums = edge_products(log_depth, share, colour, float(ratio))[0].double()

    def at(image, y, x):
        return image[..., max(0, min(y, height - 1)), max(0, min(x, width - 1))].double()

    def blurred(y, x):
        reach = blur // 2
        around = [at(colour[0], y + r, x + c) for r in range(-reach, reach + 1) for c in range(-reach, reach + 1)]
        return sum(around) / blur**2

    depth_edges, colour_edges, known = {}, {}, {}
    rows, columns = (height - 2) // 2, (width - 2) // 2
    for j in range(rows):
        for i in range(columns):
            for axis, (r, c) in enumerate(((0, 1), (1, 0))):
                of_depth, of_colour, count = [], [], 0
                for y in (1 + 2 * j, 2 + 2 * j):
                    for x in (1 + 2 * i, 2 + 2 * i):
                        change = float((blurred(y + r, x + c) - blurred(y - r, x - c)).abs().mean())
                        of_colour.append(change / (change + 0.05))
                        change = float((at(log_depth[0, 0], y + r, x + c) - at(log_depth[0, 0], y - r, x - c)).abs())
                        both = at(share[0, 0], y + r, x + c) > 0 and at(share[0, 0], y - r, x - c) > 0
                        count += both
                        of_depth.append(both * change / (change + 0.1))
                place = axis, j, i
                depth_edges[place], colour_edges[place] = sum(of_depth) / 4, sum(of_colour) / 4
                known[place] = count / 4

    def around(values, place):
        axis, j, i = place
        near = [(axis, j + r, i + c) for r in range(-4, 5) for c in range(-4, 5)]
        inside = [values[other] for other in near if other in values]
        return sum(inside) / len(inside)

    of_depth = {p: edge - known[p] * around(depth_edges, p) / around(known, p) for p, edge in depth_edges.items()}
    of_colour = {p: edge - around(colour_edges, p) for p, edge in colour_edges.items()}
    wanted = [
        sum(edge * of_colour.get((axis, j + r, i + c), 0.0) for (axis, j, i), edge in of_depth.items())
        for r in range(-4, 5)
        for c in range(-4, 5)
    ]
    wanted.append(sum(edge**2 for edge in of_depth.values()))
    wanted.append(sum(edge**2 * known[place] for place, edge in of_colour.items()))
    torch.testing.assert_close(sums, torch.tensor(wanted, dtype=torch.float64), rtol=1e-3, atol=1e-4)


def boxes(ratio: int, down: int, right: int, place: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Two boxes in front of a wall, with a texture that says nothing about depth: colour, moved by some pixels, and
    logarithmic depth on the working grid. Depth is the mean of each cell, or that of a pixel of it."""
    generator = torch.Generator().manual_seed(0)
    rgb = 0.1 * torch.rand(1, 3, *SIZE, generator=generator)
    depth = torch.full((1, 1, *SIZE), 3.0)
    for rows, columns, colour, distance in (((60, 130), (60, 130), 0.5, 1.5), ((90, 150), (160, 210), 0.3, 2.0)):
        rgb[..., slice(*rows), slice(*columns)] += colour
        depth[..., slice(*rows), slice(*columns)] = distance
    low = F.avg_pool2d(depth, ratio, ceil_mode=True) if place is None else depth[..., place::ratio, place::ratio]
    on_grid = F.interpolate(low, (SIZE[0] // 4, SIZE[1] // 4), mode="bilinear").log()
    return torch.roll(rgb, (down, right), (-2, -1)), on_grid


@pytest.mark.parametrize("ratio", [6, 8, 16])
@pytest.mark.parametrize("moved", [(0, 0), (16, 0), (0, -23), (-17, 13), (24, 26)])
def test_a_shift_of_colour_is_found(ratio, moved):
    rgb, depth = boxes(ratio, *moved)
    colour = F.avg_pool2d(rgb, 4)
    shift, sampling, numbers = register(edge_products(depth, torch.ones_like(depth), colour, ratio), ratio)
    found = shift[0].tolist()
    assert all(abs(a - b) <= 3 for a, b in zip(found, moved, strict=True)), found
    if moved == (0, 0):
        assert found == [0, 0]
    assert not sampling.any()
    assert float(numbers[0, 4]) == max(map(abs, found)) / 32
    assert float(numbers[0, 0]) > 0.5  # with colour where depth is, edges coincide
    assert float(numbers[0, 2]) > 0.5


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_colour_of_fine_depth_is_not_shifted_but_the_network_told(ratio):
    told = []
    for moved in ((0, 0), (16, -24)):
        rgb, depth = boxes(ratio, *moved)
        edges = edge_products(depth, torch.ones_like(depth), F.avg_pool2d(rgb, 4), ratio)
        shift, _, numbers = register(edges, ratio)
        assert shift.tolist() == [[0, 0]]
        told.append(numbers[0].tolist())
    assert told[0][0] > 0.5
    assert told[0][1] > 0.1
    assert told[1][0] < told[0][0] - 0.3
    assert told[1][1] < -0.1
    assert told[0][4] == told[1][4] == 0


@pytest.mark.parametrize(("ratio", "moves"), [(16, True), (20, False), (30, False)])
def test_colour_of_very_coarse_depth_is_not_shifted(ratio, moves):
    rgb, depth = boxes(16, 24, 24)
    shift = register(edge_products(depth, torch.ones_like(depth), F.avg_pool2d(rgb, 4), ratio), ratio).shift
    assert bool(shift.any()) == moves


@pytest.mark.parametrize(("ratio", "moved"), [(8, (4, 4)), (16, (8, 8)), (16, (-8, 0)), (16, (0, 4))])
def test_half_a_depth_pixel_is_no_shift(ratio, moved):
    """A camera may measure anywhere in a cell."""
    rgb, depth = boxes(ratio, *moved)
    shift = register(edge_products(depth, torch.ones_like(depth), F.avg_pool2d(rgb, 4), ratio), ratio).shift
    assert shift.tolist() == [[0, 0]]


@pytest.mark.parametrize("ratio", [4, 8, 16])
def test_edges_that_have_nothing_in_common_move_nothing(ratio):
    generator = torch.Generator().manual_seed(0)
    for size in ((48, 64), (120, 160)):
        for _ in range(8):
            colour = torch.rand(1, 3, *size, generator=generator)
            depth = torch.rand(1, 1, *size, generator=generator)
            shift, _, numbers = register(edge_products(depth, torch.ones_like(depth), colour, ratio), ratio)
            assert shift.tolist() == [[0, 0]]
            assert abs(float(numbers[0, 0])) < 0.1
    shift, sampling, numbers = register(torch.zeros(2, SUMS), ratio)
    assert not shift.any()
    assert not sampling.any()
    assert numbers.isfinite().all()


def test_images_are_shifted_as_in_a_loop():
    image = torch.rand(2, 3, 6, 7)
    shift = torch.tensor([[2, -3], [-1, 0]])
    out = shifted(image, shift)
    for n, (rows, columns) in enumerate(shift.tolist()):
        for y in range(6):
            for x in range(7):
                wanted = image[n, :, max(0, min(y + rows, 5)), max(0, min(x + columns, 6))]
                assert torch.equal(out[n, :, y, x], wanted)


@pytest.mark.parametrize(("ratio", "place"), [(8, 0), (8, 4), (8, None), (16, 0), (16, 8), (16, 12), (16, None)])
def test_depth_of_every_kth_pixel_is_recognised_by_its_corner(ratio, place):
    rgb, depth = boxes(ratio, 0, 0, place)
    edges = edge_products(depth, torch.ones_like(depth), F.avg_pool2d(rgb, 4), ratio)
    shift, sampling, _ = register(edges, ratio)
    wanted = [-ratio // 2, -ratio // 2] if place == 0 else [0, 0]
    assert shift[0].tolist() == sampling[0].tolist() == wanted
    assert not register(edges, 6).sampling.any()  # too fine to tell
    assert not register(edges, 20).sampling.any()  # colour of so coarse depth is never shifted


def small_network() -> RecurrentNet:
    torch.manual_seed(0)
    model = RecurrentNet(RecurrentConfig(channels=8, channels_8=8, channels_16=8, blocks=1)).eval()
    for head in (model.coarse_head, model.fine_head, model.colour_head, model.range_head):
        torch.nn.init.normal_(head.weight, std=0.3)
    return model


@pytest.fixture
def small_run(monkeypatch):
    """A small network on a clip, with a given shift and sampling."""
    model = small_network()
    clip = render_clip(0, 3, 64, 96)
    flow = torch.randn(1, 3, 2, 16, 24, generator=torch.Generator().manual_seed(0))

    def run(ratio, shift, sampling=(0.0, 0.0), rgb=None, flow=flow):
        rgb = clip.rgb[None] if rgb is None else rgb
        numbers = torch.tensor([[0.5, 0.3, 0.4, 0.2, 0.25]])
        placed = Registration(torch.tensor([shift]), torch.tensor([sampling]), numbers)
        monkeypatch.setattr(network_module, "register", lambda *_: placed)
        depth = F.avg_pool2d(clip.depth, ratio)[None]
        with torch.no_grad():
            return model(rgb, depth, flow, (float(ratio),) * 2)

    return run, clip.rgb[None], flow


@pytest.mark.parametrize("ratio", [8, 16])
def test_the_network_sees_shifted_colour_as_if_it_had_come_so(ratio, small_run):
    """Colour, its flow and what is remembered of it are shifted, depth is not."""
    run, rgb, flow = small_run
    pixels, grid = torch.tensor([[5.0, -11.0]]), torch.tensor([[1.0, -3.0]])
    moved_rgb = torch.stack([shifted(one, pixels) for one in rgb.unbind(1)], 1)
    moved_flow = torch.stack([shifted(one, grid) for one in flow.unbind(1)], 1)
    there, here = run(ratio, (5.0, -11.0)), run(ratio, (0.0, 0.0), rgb=moved_rgb, flow=moved_flow)
    torch.testing.assert_close(there.depth, here.depth)
    torch.testing.assert_close(there.log_scale, here.log_scale)
    assert (run(ratio, (0.0, 0.0)).depth - here.depth).abs().max() > 0.01


def test_the_output_of_depth_sampled_at_corners_lies_where_colour_is(small_run):
    """It is moved back by as much as colour was shifted; what is remembered is not."""
    run, *_ = small_run
    as_measured, as_seen = run(16, (-8.0, -7.0)), run(16, (-8.0, -7.0), (-8.0, -7.0))
    for before, after in ((as_measured.depth, as_seen.depth), (as_measured.log_scale, as_seen.log_scale)):
        assert torch.equal(after[..., :-8, :-7], before[..., 8:, 7:])
        assert torch.equal(after[..., -8:, :], after[..., -9:-8, :].expand(-1, -1, -1, 8, -1))


def test_the_user_is_told_once_that_depth_is_not_registered():
    model = RecurrentNet(RecurrentConfig(channels=8, channels_8=8, channels_16=8, blocks=1)).eval()
    info = CheckpointInfo(model.config, (), None)

    def notices(down: int, right: int, frames: int) -> list[str]:
        rgb, _ = boxes(1, down, right)
        _, on_grid = boxes(8, 0, 0)
        depth = F.avg_pool2d(on_grid.exp(), 2)[0, 0].numpy()
        upsampler = DepthUpsampler.from_model(model, info, method="stdnet", device="cpu", backend="torch")
        for _ in range(frames):
            upsampler.step(rgb[0].permute(1, 2, 0).clamp(0, 1).contiguous().numpy(), depth)
        return upsampler.notices

    assert notices(0, 0, 20) == []
    assert notices(16, -24, 14) == []
    (notice,) = notices(16, -24, 20)
    assert "not seem to be registered" in notice
    assert "16 pixels lower and 24 pixels further left" in notice
    assert notices(-4, -4, 20) == []
    (notice,) = notices(0, 16, 20)
    assert "edges are 16 pixels further right." in notice


def unmoved(sums: torch.Tensor, ratio: float) -> Registration:
    still = torch.zeros(1, 2)
    return Registration(still, still, register(sums, ratio).numbers)


@pytest.mark.parametrize(
    ("camera", "down", "right"), [("area@8", 12, -20), ("median@16", 12, -20), ("nearest_corner@16", 0, 0)]
)
def test_depth_that_is_not_registered_is_better_for_it_with_the_shipped_weights(camera, down, right, monkeypatch):
    """On scenes of no training."""
    cell = Cell.parse(camera)
    model, info = checkpoints.load("live")
    errors: dict[bool, list[float]] = {True: [], False: []}
    for seed in (9_000_001, 9_000_002, 9_000_003):
        clip = misregister(render_clip(seed, 5, 240, 320), right=right, down=down, fattening=0)
        low = simulate(cell.sensor, clip.depth, clip.rgb, cell.ratio)
        for registering in (True, False):
            if not registering:
                monkeypatch.setattr(network_module, "register", unmoved)
            upsampler = DepthUpsampler.from_model(
                model, info, method="stdnet", device="cpu", precision="fp32", backend="torch"
            )
            for rgb, depth in zip(clip.rgb, low, strict=True):
                result = upsampler.step(rgb.permute(1, 2, 0).contiguous().numpy(), depth[0].numpy())
            assert result is not None
            errors[registering].append(float(np.abs(result.depth - clip.depth[-1, 0].numpy()).mean()))
            monkeypatch.undo()
    gains = np.log(errors[True]) - np.log(errors[False])
    assert np.exp(gains.mean()) < 0.9, gains
