"""The recurrent network and its engine: geometry and weights against loops, and what it promises for any camera."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.sensors import delivered_size
from stdnet_core.data.synthetic import render_clip
from stdnet_core.errors import CheckpointError, ConfigError, InputError
from stdnet_core.inference import DepthUpsampler, classical
from stdnet_core.model import ModelConfig, RecurrentConfig, RecurrentNet, network_config
from stdnet_core.model.recurrent.geometry import CellGeometry, fill, guided_fill, masked_mean, take
from stdnet_core.model.recurrent.network import _extremes, _running_mean
from stdnet_core.optical_flow import FlowEstimator

SMALL = RecurrentConfig(channels=8, channels_8=8, channels_16=8, blocks=1)
CPU = torch.device("cpu")


def network(seed: int = 0) -> RecurrentNet:
    """A small one whose heads say something at random."""
    torch.manual_seed(seed)
    model = RecurrentNet(SMALL).eval()
    for head in (model.coarse_head, model.fine_head, model.colour_head, model.range_head):
        torch.nn.init.normal_(head.weight, std=0.3)
    return model


def scene(frames: int, ratio: float, size: tuple[int, int] = (48, 64), seed: int = 0):
    """Colour, depth with holes, flow and the ratio of a camera that sees two surfaces."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = delivered_size(size, ratio)
    rgb = torch.rand(1, frames, 3, *size, generator=generator)
    depth = 1 + torch.rand(1, frames, 1, rows, columns, generator=generator)
    depth[..., columns // 2 :] += 3
    depth[..., : max(1, rows // 4), : max(1, columns // 4)] = 0
    flow = 3 * torch.randn(1, frames, 2, size[0] // 4, size[1] // 4, generator=generator)
    cell = (float(ratio),) * 2 if ratio == int(ratio) else (size[0] / rows, size[1] / columns)
    return rgb, depth, flow, cell


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1, 1.5, 2, 2.5, 3, 7.5, 8, 16, 30])
def test_cells_lie_where_a_loop_says(ratio):
    size = (48, 64)
    cells = delivered_size(size, ratio)
    steps = (float(ratio),) * 2 if ratio == int(ratio) else (size[0] / cells[0], size[1] / cells[1])
    geometry = CellGeometry(size, cells, steps, CPU)
    for axis in (0, 1):
        pixels = [min(int((p + 0.5) / steps[axis]), cells[axis] - 1) for p in range(size[axis])]
        assert geometry.pixel_index[axis].tolist() == pixels
        working = [min(int((4 * p + 2) / steps[axis]), cells[axis] - 1) for p in range(size[axis] // 4)]
        assert geometry.working_index[axis].tolist() == working
        places = [(4 * p + 2) / steps[axis] - (c + 0.5) for p, c in enumerate(working)]
        assert geometry.working_place(axis).tolist() == pytest.approx(places, abs=1e-5)


@pytest.mark.parametrize("ratio", [1, 2, 2.5, 8])
@pytest.mark.parametrize("move", [(0, 0), (0, -1), (-1, 0), (1, 0), (0, 1)])
def test_cells_of_the_pixels_of_a_block_are_those_of_a_loop(ratio, move):
    cells = int(40 / ratio), int(60 / ratio)  # the image goes on by 8 rows and 4 columns beyond them
    depth = torch.rand(1, 1, *cells)
    (found,) = CellGeometry((48, 64), cells, (float(ratio), float(ratio)), CPU).take_blocks(depth, (move,))
    assert found.shape == (1, 16, 12, 16)
    for row in range(40):
        for column in range(60):
            r = min(max(min(int((row + 0.5) / ratio), cells[0] - 1) + move[0], 0), cells[0] - 1)
            c = min(max(min(int((column + 0.5) / ratio), cells[1] - 1) + move[1], 0), cells[1] - 1)
            assert found[0, 4 * (row % 4) + column % 4, row // 4, column // 4] == depth[0, 0, r, c], (row, column)


@pytest.mark.parametrize("ratio", [2, 2.5, 8])
def test_interpolation_over_what_is_valid_is_that_of_the_classical_method(ratio):
    size = (40, 60)
    cells = delivered_size(size, ratio)
    depth = 1 + torch.rand(1, 1, *cells)
    depth[..., 1:3, 2:4] = 0
    geometry = CellGeometry(size, cells, (size[0] / cells[0], size[1] / cells[1]), CPU)
    found, weight = geometry.bilinear(depth, (depth > 0).float())
    known = weight > 0.01
    torch.testing.assert_close(found[known], classical.bilinear(depth, size)[known], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ratio", [4, 6, 10, 16])
def test_colour_of_a_cell_is_the_mean_over_its_area(ratio):
    image = torch.rand(1, 1, 60, 120)
    fine = image.repeat_interleave(4, -1).repeat_interleave(4, -2)
    geometry = CellGeometry((240, 480), (240 // ratio, 480 // ratio), (ratio, ratio), CPU)
    expected = F.avg_pool2d(fine, ratio)
    torch.testing.assert_close(geometry.average(image)[..., : expected.shape[-2], : expected.shape[-1]], expected)


@pytest.mark.parametrize("ratio", [1, 1.5, 2, 3])
def test_pixels_are_averaged_over_fine_cells(ratio):
    size, cells = (48, 96), (round(48 / ratio), round(96 / ratio))
    image = torch.rand(1, 1, *size)
    found = CellGeometry(size, cells, (float(ratio), float(ratio)), CPU).average_pixels(image)
    many = image.repeat_interleave(6, -1).repeat_interleave(6, -2)  # every cell is a whole number of these
    torch.testing.assert_close(found, F.avg_pool2d(many, round(6 * ratio)))


def test_holes_take_the_value_of_what_is_around_and_measurements_stay():
    depth = torch.full((1, 1, 30, 50), 2.0)
    depth[..., 25:] = 6.0
    share = torch.ones_like(depth)
    share[..., 10:20, 5:12] = 0
    share[..., 10:20, 40:47] = 0
    filled = fill(depth * share, share)
    assert torch.equal(filled[share > 0], depth[share > 0])
    assert filled[0, 0, 15, 8] == pytest.approx(2.0, abs=1e-4)
    assert filled[0, 0, 15, 43] == pytest.approx(6.0, abs=1e-4)
    one = torch.zeros_like(depth)
    one[..., 3, 7] = 1
    assert fill(depth * one, one) == pytest.approx(2.0, abs=1e-4)
    assert not fill(torch.zeros_like(depth), torch.zeros_like(depth)).any()


def filled_by_loops(filled, share, colour, *, farther):
    """Guided filling (h, w), with loops over pixels, from its description."""

    def similarity(change):
        return math.exp(-0.5 * float(np.square(change).sum()) * 24**2) + 1e-4

    def mean(triples):  # (inverse depth, difference of colour, further weight)
        weights = [similarity(change) * weight / (value**2 if farther else 1) for value, change, weight in triples]
        return np.average([value for value, *_ in triples], weights=weights)

    def beside(row, column):
        return [(row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)]

    def at(image, row, column):
        return image[min(max(row, 0), image.shape[0] - 1), min(max(column, 0), image.shape[1] - 1)]

    def pool(image, size):
        rows, columns = (length // size for length in image.shape[:2])
        return image.reshape(rows, size, columns, size, -1).mean((1, 3)).squeeze(-1 if image.ndim == 2 else ())

    def reduce(size):  # inverse depth and colour of what is known in each coarser pixel, or of all if nothing is
        some, inverse, mixed = pool(known.astype(float), size) > 0, pool(1 / filled, size), pool(colour, size)
        for row, column in zip(*np.nonzero(some), strict=True):
            cell = np.s_[size * row : size * (row + 1), size * column : size * (column + 1)]
            inverse[row, column] = (1 / filled)[cell][known[cell]].mean()
            mixed[row, column] = colour[cell][known[cell]].mean(0)
        return inverse, some, mixed

    known = share > 0
    coarse, some, source = reduce(4)
    above, reached = pool(colour, 4), np.where(some, 1, 1e-6)
    for _ in range(10):
        last, before = coarse.copy(), reached.copy()
        for row, column in zip(*np.nonzero(~some), strict=True):
            here = above[row, column]
            places = beside(row, column)
            coarse[row, column] = mean([(at(last, *p), at(source, *p) - here, at(before, *p)) for p in places])
            reached[row, column] = max(at(before, *p) * similarity(at(source, *p) - here) for p in places)
    for inverse, measured, own, rounds in ((*reduce(2), 3), (1 / filled, known, colour, 1)):
        guess = inverse.copy()
        for row, column in zip(*np.nonzero(~measured), strict=True):
            near = [(row + i) // 2 for i in (-1, 1)], [(column + j) // 2 for j in (-1, 1)]
            if row == 0 or row == len(inverse) - 1:
                near[0][0 if row == 0 else 1] = row // 2
            places = [(r, c) for r in near[0] for c in near[1]]
            guess[row, column] = mean([(at(coarse, *p), at(above, *p) - own[row, column], 1) for p in places])
        for _ in range(rounds):
            last = guess.copy()
            for row, column in zip(*np.nonzero(~measured), strict=True):
                places = beside(row, column)
                guess[row, column] = mean([(at(last, *p), at(own, *p) - own[row, column], 1) for p in places])
        coarse, above = guess, own
    return np.where(known, filled, 1 / coarse)


@pytest.mark.parametrize("size", [(24, 32), (32, 20)])
def test_guided_filling_is_that_of_a_loop(size):
    generator = torch.Generator().manual_seed(4)
    depth = 1 + 4 * torch.rand(2, 1, *size, generator=generator)
    share = (torch.rand(2, 1, *size, generator=generator) > 0.6).float()
    share[:, :, 2:13, 3:13] = 0
    colour = 0.3 + 0.15 * torch.rand(2, 3, *size, generator=generator)
    found = guided_fill(depth, share, colour)
    assert found.shape == (2, 2, *size)
    for n in range(2):
        arrays = depth[n, 0].double().numpy(), share[n, 0].numpy(), colour[n].double().permute(1, 2, 0).numpy()
        for farther in (False, True):
            expected = filled_by_loops(*arrays, farther=farther)
            np.testing.assert_allclose(found[n, int(farther)], expected, rtol=1e-3)


def test_guided_filling_follows_colour_and_takes_shadows_from_what_is_behind():
    depth, colour = torch.full((1, 1, 40, 40), 4.0), torch.full((1, 3, 40, 40), 0.2)
    depth[..., 20:], colour[..., 20:] = 1.0, 0.8
    share = torch.ones_like(depth)
    share[..., 8:32, 14:26] = 0  # over the edge
    plain = fill(depth * share, share)
    for guided in guided_fill(plain, share, colour)[0]:
        assert (guided[8:32, :20] > 2.7).all()
        assert (guided[8:32, 20:] < 1.6).all()
    assert plain[0, 0, 20, 18] - plain[0, 0, 20, 21] < 0.7  # it knows nothing of the edge
    shadow = torch.ones_like(depth)
    shadow[..., 8:32, 17:20] = 0  # beside the edge, all of one colour: it is the background's
    neutral, farther = guided_fill(fill(depth * shadow, shadow), shadow, torch.full_like(colour, 0.5))[0]
    assert (farther[10:30, 17:20] > 2.9).all()
    assert neutral[20, 19] < 2 < 3.7 < farther[20, 17]


def test_a_large_hole_takes_the_depth_of_the_little_around_it_that_has_its_colour():
    """A wall too near to be measured but for a strip of it, in front of a room."""
    depth, colour = torch.full((1, 1, 64, 96), 4.0), torch.full((1, 3, 64, 96), 0.7)
    depth[..., :42], colour[..., :42] = 0.5, 0.3
    share = torch.ones_like(depth)
    share[..., :40] = 0
    share[..., 42:44] = 0
    for guided in guided_fill(fill(depth * share, share), share, colour)[0]:
        assert (guided[:, :42] < 0.6).all()
        assert (guided[:, 42:] > 3.9).all()


def test_masked_mean_is_that_of_a_loop():
    values, valid = torch.rand(1, 16, 3, 5), (torch.rand(1, 16, 3, 5) > 0.6).float()
    mean, share = masked_mean(values, valid)
    for row in range(3):
        for column in range(5):
            chosen = [values[0, k, row, column].item() for k in range(16) if valid[0, k, row, column]]
            assert share[0, 0, row, column] == pytest.approx(len(chosen) / 16)
            assert mean[0, 0, row, column] == pytest.approx(np.mean(chosen) if chosen else 0.0, abs=1e-6)


def test_flow_says_where_things_were():
    rng = np.random.default_rng(0)
    wide = rng.random((20, 28)).repeat(6, 0).repeat(6, 1)
    first = np.repeat((255 * wide[:96, 10:138])[..., None], 3, 2).astype(np.uint8)
    second = np.repeat((255 * wide[:96, 6:134])[..., None], 3, 2).astype(np.uint8)  # everything moved right by 4
    estimator = FlowEstimator()
    assert not estimator.step(first).any()
    flow = estimator.step(second)
    assert flow.shape == (2, 24, 32)
    assert np.median(flow[0, 4:-4, 4:-4]) == pytest.approx(-4, abs=0.3)
    assert np.median(np.abs(flow[1, 4:-4, 4:-4])) < 0.3
    assert not estimator.step(second).any()
    estimator.reset()
    assert not estimator.step(first).any()


@pytest.mark.parametrize("width", [160, 176, 320])
def test_flow_does_not_depend_on_the_pairs_before(width):
    """OpenCV's own object remembers them at some widths."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 255, (160, width + 40), dtype=np.uint8), (0, 0), 6)
    wide = np.repeat(cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)[..., None], 3, 2)
    frames = [np.ascontiguousarray(wide[4 * i : 128 + 4 * i, 6 * i : width + 6 * i]) for i in range(4)]
    stream = FlowEstimator()
    streamed = [stream.step(frame) for frame in frames]
    for before, now, flow in zip(frames, frames[1:], streamed[1:], strict=False):
        alone = FlowEstimator()
        alone.step(before)
        assert np.array_equal(alone.step(now), flow)


_LOW_IMAGES = """
import numpy as np
from stdnet_core.optical_flow import FlowEstimator
rng = np.random.default_rng(0)
for height in range(32, 68, 4):
    for width in (160, 176, 320, 640):
        wide = rng.random((height // 6 + 1, width // 6 + 4)).repeat(6, 0).repeat(6, 1)
        first, second = (np.repeat((255 * wide[:height, x : x + width, None]), 3, 2).astype(np.uint8) for x in (10, 6))
        estimator = FlowEstimator()
        estimator.step(first)
        print(height, width, np.median(estimator.step(second)[0]))
"""


def test_flow_of_low_images():
    """OpenCV's DIS writes beyond its memory where an image is low and wide, in a process of its own here."""
    found = subprocess.run([sys.executable, "-c", _LOW_IMAGES], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    shifts = {line.rsplit(maxsplit=1)[0]: float(line.split()[-1]) for line in found.stdout.splitlines()}
    assert len(shifts) == 36
    assert {size: shift for size, shift in shifts.items() if abs(shift + 4) > 1} == {}


@pytest.mark.parametrize("gain", [0.6, 1.6])
def test_flow_is_not_of_exposure(gain):
    """A shaded surface that moves while exposure changes: brightness alone does not tell where it was."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.random((140, 200)).astype(np.float32), (0, 0), 5)
    wide = cv2.normalize(wide, None, 40, 150, cv2.NORM_MINMAX)
    first, second = (np.repeat(wide[:128, x : x + 160, None], 3, 2) for x in (10, 6))
    errors = []
    for factor in (1.0, gain):
        estimator = FlowEstimator()
        estimator.step(first.astype(np.uint8))
        flow = estimator.step((factor * second).clip(0, 255).astype(np.uint8))[:, 4:-4, 4:-4]
        errors.append(float(np.abs(flow - np.array([-4, 0])[:, None, None]).mean()))
    assert errors[0] < 0.3
    assert errors[1] < 1.5 * errors[0] + 0.05


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1, 2.5, 8])
def test_fine_depth_is_the_weighted_mean_of_a_loop(ratio):
    """Each pixel's softmax by hand, from the images that the network weighs."""
    model = network()
    kept = []
    weigh = model._weigh
    model._weigh = lambda images: kept.append((images, weigh(images))) or kept[-1][1]
    rgb, depth, flow, cell = scene(2, ratio, (32, 48))
    with torch.no_grad():
        model(rgb, depth, flow, cell)
    images, (fine, _) = kept[-1]
    head = model.fine_head(images.features)[0].detach().unflatten(0, (18, 16))
    priors = (0.3, -4.0, -4.0, -4.0, -4.0, 0.0, -1.0, 0.3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        pixel, row, column = rng.integers(16), rng.integers(8), rng.integers(12)
        own = [float(images.rgb_blocks[0, 16 * c + pixel, row, column]) for c in range(3)]
        y, x = (pixel // 4 + 0.5) / 4 - 0.5, (pixel % 4 + 0.5) / 4 - 0.5
        scores, values = [], []
        for k in range(9):
            other = [float(images.colours[k][0, c, row, column]) for c in range(3)]
            change = sum((a - b) ** 2 for a, b in zip(own, other, strict=True))
            distance = ((k // 3 - 1 - y) ** 2 + (k % 3 - 1 - x) ** 2) / (2 * 0.6**2)
            strength = float(images.strength[0, 0, row, column])
            scores.append(float(head[k, pixel, row, column]) - strength * change - distance)
            values.append(float(images.values[k][0, 0, row, column]))
        for k in range(9, 17):
            if images.usable[k - 9][0, pixel, row, column] > 0:
                score = float(head[k, pixel, row, column]) + priors[k - 9]
                if k >= 15:  # the previous depth and the mean of measurements
                    evidence = images.evidence[k - 15].expand_as(images.usable[0])
                    score += float(evidence[0, pixel, row, column])
                if k < 14:  # measurements: their cells have a brightness
                    other = float(images.native_greys[k - 9][0, pixel, row, column])
                    score -= 3 * float(images.strength[0, 0, row, column]) * (other - sum(own) / 3) ** 2
                scores.append(score)
                values.append(float(images.values[k][0, pixel, row, column]))
        assert bool(images.own) == (ratio < 4)
        if images.own:  # likeness to the pixel's own measurements
            reference, strength = (float(image[0, pixel, row, column]) for image in images.own)
            scores = [s - strength * (v / reference - 1) ** 2 for s, v in zip(scores, values, strict=True)]
        weights = np.exp(np.array(scores) - max(scores))
        expected = (weights * values).sum() / weights.sum()
        assert float(fine[0, pixel, row, column]) == pytest.approx(expected, rel=1e-4)


def test_what_stands_still_is_averaged():
    """In a network that has learned nothing: measurements as a running mean, the previous depth moved by 1 / (n + 1)
    of what is new, where n frames are the evidence for it."""
    model = RecurrentNet(SMALL).eval()
    kept = []
    weigh = model._weigh
    model._weigh = lambda images: kept.append(images) or weigh(images)
    rgb, flow = torch.full((1, 3, 48, 64), 0.5), torch.zeros(1, 2, 12, 16)
    rgb[..., 60:] = 0.7  # an image of one colour would have no past; the rest of it is looked at
    state = model.start(rgb)
    evidence, mean = 0.0, 0.0
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for frame in range(24):
            level = 2.0 + 0.1 * float(torch.rand(1, generator=generator))
            depth = torch.full((1, 1, 48, 64), level)
            before = state.depth
            _, state = model.step(rgb, depth, flow, state, (1.0, 1.0))
            images = kept[-1]
            if frame:
                corrected = torch.exp(before.log() + (math.log(level) - before.log()) / (1 + evidence))
                found = F.pixel_shuffle(images.values[15], 4)
                torch.testing.assert_close(found[..., :32], corrected[..., :32], rtol=1e-5, atol=1e-5)
                contradiction = ((found[..., :32] / level - 1) / 0.05).square() / 2
                logit = F.pixel_shuffle(images.evidence[0], 4)[..., :32]
                torch.testing.assert_close(logit, math.log(max(evidence, 1)) - contradiction, rtol=1e-4, atol=1e-4)
                assert float(images.evidence[1].mean()) == pytest.approx(math.log(1 + evidence), abs=1e-5)
            mean += (level - mean) / (1 + evidence)
            torch.testing.assert_close(state.mean, torch.full((1, 1, 48, 64), mean), rtol=1e-5, atol=1e-5)
            evidence = min(evidence / (1 + math.exp(-3)) + 1, 15)
            torch.testing.assert_close(state.evidence, torch.full((1, 1, 12, 16), evidence))
        _, state = model.step(rgb, torch.zeros(1, 1, 48, 64), flow, state, (1.0, 1.0))
    torch.testing.assert_close(state.evidence, torch.full((1, 1, 12, 16), evidence / (1 + math.exp(-3))))
    torch.testing.assert_close(state.mean, torch.full((1, 1, 48, 64), mean), rtol=1e-5, atol=1e-5)


def test_a_measurement_that_does_not_fit_replaces_the_mean():
    before = torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0, 0.0]).expand(1, 16, 1, 6)
    measured = torch.tensor([2.1, 2.3, 1.7, 0.0, 3.0, 0.0]).expand(1, 16, 1, 6)
    known = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0]).expand(1, 16, 1, 6)
    gain = torch.full((1, 1, 1, 6), 0.25)
    found, kept = _running_mean(measured, (measured > 0).float(), before, known, gain)
    assert found[0, 5, 0].tolist() == pytest.approx([2.025, 2.3, 1.7, 2.0, 3.0, 0.0])
    assert kept[0, 5, 0].tolist() == [1, 0, 0, 1, 0, 0]
    beside_a_hole, kept = _running_mean(measured, (measured > 0).float(), before, 0.9 * known, gain)
    assert beside_a_hole[0, 5, 0].tolist() == pytest.approx([2.1, 2.3, 1.7, 0.0, 3.0, 0.0])
    assert not kept.any()


def test_farthest_and_nearest_of_measurements_and_of_what_holes_were_filled_with():
    generator = torch.Generator().manual_seed(0)
    depth = 2 + torch.rand(1, 1, 32, 88, generator=generator)
    depth[..., 60:] += 5
    weight = (torch.rand(1, 1, 32, 88, generator=generator) > 0.3).float()
    weight[..., 20:70] = 0  # wider than any window
    filled = torch.where(weight > 0, depth, torch.full_like(depth, 50.0))
    far5, near5, far17, near17 = (image[0, 0] for image in _extremes(filled, weight))
    for row in range(32):
        for column in range(88):
            rows, columns = slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3)
            around = depth[0, 0, rows, columns][weight[0, 0, rows, columns] > 0]
            far, near = (float(around.max()), float(around.min())) if len(around) else (50.0, 50.0)
            assert float(far5[row, column]) == pytest.approx(far, rel=1e-6)
            assert float(near5[row, column]) == pytest.approx(near, rel=1e-6)
    # Blocks of 4 and their neighbours, then from their centres by bilinear interpolation.
    for row in range(2, 30, 9):
        for column in range(2, 86, 7):
            for image, close in ((far17, far5), (1 / near17, 1 / near5)):
                corners, shares = [], []
                y, x = (row + 0.5) / 4 - 0.5, (column + 0.5) / 4 - 0.5
                for j in (int(np.floor(y)), int(np.floor(y)) + 1):
                    for i in (int(np.floor(x)), int(np.floor(x)) + 1):
                        block_rows = slice(max(4 * j - 4, 0), 4 * j + 8)
                        block_columns = slice(max(4 * i - 4, 0), 4 * i + 8)
                        corners.append(float(close[block_rows, block_columns].max()))
                        shares.append((1 - abs(y - j)) * (1 - abs(x - i)))
                assert float(image[row, column]) == pytest.approx(np.dot(corners, shares), rel=1e-5)
    for image in _extremes(filled, torch.zeros_like(weight)):
        assert float(image.max()) <= 50.001
        assert float(image.min()) >= 1.999


def test_the_comparison_adds_up_over_frames_and_starts_with_nothing():
    model = network()
    rgb, depth, flow, ratio = scene(3, 2)
    state = model.start(rgb[:, 0])
    assert not state.registration.any()
    sums = []
    with torch.no_grad():
        for frame in range(3):
            alone = model.step(rgb[:, frame], depth[:, frame], flow[:, frame], model.start(rgb[:, 0]), ratio)[1]
            sums.append(alone.registration)
            _, state = model.step(rgb[:, frame], depth[:, frame], flow[:, frame], state, ratio)
    torch.testing.assert_close(state.registration, 0.95**2 * sums[0] + 0.95 * sums[1] + sums[2])
    black = torch.zeros(1, 3, 48, 64)
    empty = torch.zeros_like(depth[:, 0])
    with torch.no_grad():
        output, state = model.step(black, empty, flow[:, 0], model.start(black), ratio)
    assert not state.registration.any()
    assert output.depth.isfinite().all()


def test_what_a_measurement_contradicts_has_no_weight_of_frames_before():
    """A thing is gone: where it was, fine measurements contradict the depth before and its mean, and the output follows
    them at once, whatever the evidence."""
    model = network()
    with torch.no_grad():
        for head in (model.fine_head, model.coarse_head, model.colour_head, model.range_head):
            head.weight.zero_()
    rgb, flow = torch.full((1, 1, 3, 32, 32), 0.5), torch.zeros(1, 1, 2, 8, 8)
    near, far = torch.full((1, 1, 1, 32, 32), 1.0), torch.full((1, 1, 1, 32, 32), 4.0)

    def after(frames: int) -> float:
        state = model.start(rgb[:, 0])
        with torch.no_grad():
            for _ in range(frames):
                _, state = model.step(rgb[:, 0], near[:, 0], flow[:, 0], state, (1.0, 1.0))
            output, _ = model.step(rgb[:, 0], far[:, 0], flow[:, 0], state, (1.0, 1.0))
        return float(output.depth[0, 0, 16, 16])

    assert after(12) == pytest.approx(after(1), abs=0.02)


@pytest.mark.parametrize(("level", "expected"), [(4.0, 4.0), (1.02, 1.0)])
def test_the_depth_before_is_no_candidate_where_a_measurement_contradicts_it(level, expected):
    """Flow takes depth from wrong surfaces. A network that would like nothing better cannot have it then."""
    model = network()
    with torch.no_grad():
        for head in (model.fine_head, model.coarse_head, model.colour_head, model.range_head):
            head.weight.zero_()
        model.fine_head.bias.view(-1, 16)[15] = 50.0  # the previous depth
        rgb, flow = torch.rand(1, 3, 32, 32), torch.zeros(1, 2, 8, 8)
        state, ratio = model.start(rgb), (1.0, 1.0)
        for _ in range(12):
            _, state = model.step(rgb, torch.full((1, 1, 32, 32), 1.0), flow, state, ratio)
        output, _ = model.step(rgb, torch.full((1, 1, 32, 32), level), flow, state, ratio)
    torch.testing.assert_close(output.depth, torch.full_like(output.depth, expected), rtol=0.03, atol=0)


@pytest.mark.parametrize("ratio", [1.0, 8.0])
def test_exposure_and_white_balance_may_change(ratio):
    """The colours before are those of this frame in another light, so the frame is seen as if nothing had changed."""
    model = network()
    rgb, depth, flow, cell = scene(1, ratio, (32, 48))
    light = torch.tensor([0.7, 1.0, 1.3])[None, :, None, None]
    with torch.no_grad():
        _, state = model.step(rgb[:, 0], depth[:, 0], flow[:, 0], model.start(rgb[:, 0]), cell)
        expected, _ = model.step(rgb[:, 0], depth[:, 0], flow[:, 0], state, cell)
        lit = replace(state, rgb=state.rgb * light)
        actual, _ = model.step(rgb[:, 0], depth[:, 0], flow[:, 0], lit, cell)
        other, _ = model.step(rgb[:, 0], depth[:, 0], flow[:, 0], replace(state, rgb=state.rgb.flip(-1)), cell)
    torch.testing.assert_close(actual.depth, expected.depth, rtol=0, atol=2e-5)
    torch.testing.assert_close(actual.log_scale, expected.log_scale, rtol=0, atol=2e-4)
    assert (other.depth - expected.depth).abs().max() > 1e-4
    assert (other.log_scale - expected.log_scale).abs().max() > 1e-3


@pytest.mark.parametrize("ratio", [1, 3, 8])
def test_depth_stays_near_what_was_measured(ratio):
    rgb, depth, flow, cell = scene(3, ratio)
    with torch.no_grad():
        out = network(1)(rgb, depth, flow, cell).depth
    least, most = depth[depth > 0].min(), depth.max()
    slack = 0.25 * (most - least) + 0.01
    # a frame's estimate may leave the range by a quarter of the spread, and the next ones start from it
    assert out.min() > least - 3 * slack
    assert out.max() < most + 3 * slack
    assert out[:, 0].min() > least - slack
    assert out[:, 0].max() < most + slack


@pytest.mark.parametrize("ratio", [1, 2.5, 8])
def test_depth_scales_with_the_scene_where_the_network_does_not_look_at_distance(ratio):
    """The unit of length enters through one input alone."""
    model = network()
    rgb, depth, flow, cell = scene(2, ratio)
    column = model.inputs - 2 - 1 - 16 - 1 - 2 - 3 - 16 - 1
    with torch.no_grad():
        model.stem.weight[:, column] = 0
        once, twice = model(rgb, depth, flow, cell).depth, model(rgb, 2 * depth, flow, cell).depth
    torch.testing.assert_close(twice, 2 * once, rtol=2e-3, atol=2e-3)


def test_rows_are_made_finer_in_bands_as_all_at_once(monkeypatch):
    model = network()
    rgb, depth, flow, cell = scene(2, 2)
    with torch.no_grad():
        whole = model(rgb, depth, flow, cell)
        monkeypatch.setattr("stdnet_core.model.recurrent.network._BAND", 40)
        bands = model(rgb, depth, flow, cell)
    torch.testing.assert_close(whole.depth, bands.depth)
    torch.testing.assert_close(whole.log_scale, bands.log_scale)


def test_a_frame_without_any_measurement_goes_on_from_what_was_known():
    model = network()
    rgb, depth, flow, cell = scene(2, 1)
    depth[:, 1] = 0
    with torch.no_grad():
        out = model(rgb, depth, torch.zeros_like(flow), cell).depth
    assert out.isfinite().all()
    assert out[:, 1].min() > 0.5
    assert out[:, 1].max() < 8


def test_every_weight_gets_a_gradient():
    model = network()
    rgb, depth, flow, cell = scene(2, 2)
    out = model(rgb, depth, flow, cell)
    (out.depth.sum() + out.log_scale.sum()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, d, f: (r[..., :-8], d, f, (2.0, 2.0)), "multiples of 16"),
        (lambda r, d, f: (r, d[:, :, 0], f, (2.0, 2.0)), "depth has shape"),
        (lambda r, d, f: (r, d, f[..., :-1], (2.0, 2.0)), "flow has shape"),
        (lambda r, d, f: (r, d, f, (0.5, 0.5)), "finer than colour"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    rgb, depth, flow, _ = scene(1, 2)
    with pytest.raises(InputError, match=message):
        network()(*change(rgb, depth, flow))


def test_configurations():
    assert ModelConfig.preset("live") == RecurrentConfig()
    assert network_config(SMALL.to_dict()) == SMALL
    assert ModelConfig.preset("live", channels=8).channels == 8
    with pytest.raises(ConfigError, match="unknown model setting width"):
        network_config({"architecture": "recurrent", "width": 3})
    with pytest.raises(ConfigError, match="channels_8"):
        RecurrentConfig(channels_8=1)


def test_checkpoints_carry_the_network(tmp_path):
    model = network()
    checkpoints.save(tmp_path / "own.safetensors", model, CheckpointInfo(SMALL, (), None))
    loaded, info = checkpoints.load(tmp_path / "own.safetensors")
    assert info.recurrent
    assert info.config == SMALL
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    with pytest.raises(CheckpointError, match="any ratio"):
        CheckpointInfo(SMALL, (4,), None)


# --- in DepthUpsampler -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1, 2.5, 8])
def test_a_stream_is_the_clip_frame_by_frame(ratio):
    model = network()
    rgb, depth, _, cell = scene(4, ratio)
    frames = [(255 * f).round().byte().permute(1, 2, 0).numpy() for f in rgb[0]]
    estimator = FlowEstimator()
    flow = torch.from_numpy(np.stack([estimator.step(f) for f in frames]))[None]
    with torch.no_grad():
        exact = torch.stack([torch.from_numpy(f).permute(2, 0, 1) for f in frames])[None] / 255
        whole = model(exact, depth, flow, cell)
    info = CheckpointInfo(SMALL, (), None)
    upsampler = DepthUpsampler.from_model(
        model, info, method="stdnet", device="cpu", precision="fp32", mask_unsupported=False
    )
    results = list(upsampler.run(frames, list(depth[0, :, 0].numpy())))
    for number, result in enumerate(results):
        np.testing.assert_allclose(result.depth, whole.depth[0, number, 0].numpy(), rtol=1e-5, atol=1e-5)
        assert ((result.confidence >= 0) & (result.confidence <= 1)).all()
    again = list(upsampler.run(frames, list(depth[0, :, 0].numpy())))
    assert all(np.array_equal(a.depth, b.depth) for a, b in zip(results, again, strict=True))


@pytest.mark.parametrize(("size", "ratio"), [((50, 75), 1), ((50, 75), 8), ((45, 70), 2.5), ((33, 47), 3)])
def test_sizes_of_any_kind(size, ratio):
    info = CheckpointInfo(SMALL, (), None)
    upsampler = DepthUpsampler.from_model(network(), info, method="stdnet", device="cpu", precision="fp32")
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (*size, 3), np.uint8)
    for _ in range(2):
        result = upsampler.step(rgb, np.full(delivered_size(size, ratio), 2.0, np.float32))
    assert result.depth.shape == size
    assert result.depth == pytest.approx(2.0, abs=0.02)


def test_fine_depth_is_shown_up_to_32_pixels_from_a_measurement_and_coarse_depth_within_a_cell():
    info = CheckpointInfo(SMALL, (), None)
    rgb = np.zeros((96, 128, 3), np.uint8)
    fine = np.zeros((96, 128), np.float32)
    fine[:, :40] = 2
    shown = DepthUpsampler.from_model(network(), info, method="stdnet", device="cpu").step(rgb, fine)
    assert np.isfinite(shown.depth[:, :71]).all()
    assert np.isnan(shown.depth[:, 73:]).all()
    coarse = DepthUpsampler.from_model(network(), info, device="cpu").step(rgb, fine[::8, ::8].copy())
    assert np.isfinite(coarse.depth[:, :40]).all()
    assert np.isnan(coarse.depth[:, 49:]).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_faultless_depth_comes_back_with_the_shipped_weights(seed):
    clip = render_clip(seed, 3, 96, 128)
    upsampler = DepthUpsampler("live", method="stdnet", device="cpu", precision="fp32")
    frames = [(255 * f).round().byte().permute(1, 2, 0).numpy() for f in clip.rgb]
    depth = (clip.depth * clip.valid)[:, 0].numpy()
    for result, truth in zip(upsampler.run(frames, list(depth)), depth, strict=True):
        error = (result.depth - truth)[truth > 0]
        assert math.sqrt(np.square(error).mean()) < 0.005


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_without_anything_to_see_nothing_of_the_past_counts(level):
    """A dark, covered or overexposed camera may move, and nothing tells."""
    model = network()
    clip = render_clip(1, 3, 64, 96)
    depth, flow = clip.depth[:, None], torch.zeros(1, 2, 16, 24)
    state = model.start(clip.rgb[:1])
    for frame in (0, 1):
        _, state = model.step(clip.rgb[frame][None], depth[frame], flow, state, (1.0, 1.0))
    fresh = replace(model.start(clip.rgb[:1]), registration=state.registration)
    blank = torch.full_like(clip.rgb[:1], level)
    with_past, _ = model.step(blank, depth[2], flow, state, (1.0, 1.0))
    without, _ = model.step(blank, depth[2], flow, fresh, (1.0, 1.0))
    torch.testing.assert_close(with_past.depth, without.depth)
    torch.testing.assert_close(with_past.log_scale, without.log_scale)
    seen, _ = model.step(clip.rgb[2][None], depth[2], flow, state, (1.0, 1.0))
    alone, _ = model.step(clip.rgb[2][None], depth[2], flow, fresh, (1.0, 1.0))
    assert (seen.depth - alone.depth).abs().max() > 1e-3


def test_a_cut_begins_a_new_video():
    """A stream that is switched to another camera, or goes on elsewhere after a gap."""
    model = network()
    clip, other = render_clip(1, 3, 64, 96), render_clip(2, 1, 64, 96)
    flow = torch.zeros(1, 2, 16, 24)
    state = model.start(clip.rgb[:1])
    for frame in (0, 1):
        _, state = model.step(clip.rgb[frame][None], clip.depth[frame][None], flow, state, (1.0, 1.0))
    fresh = replace(model.start(clip.rgb[:1]), registration=state.registration)
    after, _ = model.step(other.rgb[:1], other.depth[:1], flow, state, (1.0, 1.0))
    alone, _ = model.step(other.rgb[:1], other.depth[:1], flow, fresh, (1.0, 1.0))
    torch.testing.assert_close(after.depth, alone.depth)
    torch.testing.assert_close(after.log_scale, alone.log_scale)
    # but not a darker frame, or one with noise
    for change in (lambda rgb: 0.6 * rgb, lambda rgb: rgb + 0.1 * torch.randn(rgb.shape)):
        frame = change(clip.rgb[2:]).clamp(0, 1)
        after, _ = model.step(frame, clip.depth[2:], flow, state, (1.0, 1.0))
        alone, _ = model.step(frame, clip.depth[2:], flow, fresh, (1.0, 1.0))
        assert (after.depth - alone.depth).abs().max() > 1e-3


def test_distance_says_nothing_in_scenes_that_are_near_or_far():
    """With the shipped weights: the same scenes, measured faultlessly except for holes, at other distances."""
    errors: dict[float, list[float]] = {0.45: [], 2.0: [], 15.0: [], 30.0: []}
    for seed in (9_000_001, 9_000_002, 9_000_003):
        clip = render_clip(seed, 2, 240, 320)
        shape = clip.depth / clip.depth.median()
        hole = torch.zeros_like(shape, dtype=torch.bool)
        for y, x in ((20, 30), (90, 200), (150, 90), (60, 120)):
            hole[..., y : y + 50, x : x + 50] = True
        for distance in errors:
            depth = distance * shape
            upsampler = DepthUpsampler.from_pretrained("live", device="cpu", precision="fp32", backend="torch")
            for rgb, measured in zip(clip.rgb, depth.masked_fill(hole, 0), strict=True):
                result = upsampler.step(rgb.permute(1, 2, 0).contiguous().numpy(), measured[0].numpy())
            error = np.abs(result.depth - depth[-1, 0].numpy())[hole[-1, 0].numpy()]
            errors[distance].append(float(error.mean()) / distance)
    near, middle, far, farther = (np.log(one).mean() for one in errors.values())
    assert near - middle < math.log(1.25)
    assert abs(farther - far) < 0.05  # beyond the limit, distance says nothing


@pytest.mark.parametrize(("moves", "gain"), [(False, 0.85), (True, 0.98)])
def test_history_pays_with_the_shipped_weights(moves, gain):
    """Independent noise of 1 % on flat walls: less of it after eight frames than after one."""
    generator = np.random.default_rng(0)
    wall = generator.random((40, 60)).repeat(4, 0).repeat(4, 1)
    upsampler, alone = (DepthUpsampler("live", method="stdnet", device="cpu", precision="fp32") for _ in range(2))
    for frame in range(8):
        shift = 2 * frame if moves else 0
        rgb = np.repeat((255 * wall[:96, shift : shift + 128])[..., None], 3, 2).astype(np.uint8)
        depth = (2.0 * (1 + 0.01 * generator.standard_normal((96, 128)))).astype(np.float32)
        with_history = upsampler.step(rgb, depth)
        alone.reset()
        without = alone.step(rgb, depth)
    error, error_alone = (np.sqrt(np.mean((r.depth - 2.0) ** 2)) for r in (with_history, without))
    assert error < gain * error_alone
    assert error_alone < 0.02


def test_measurements_are_taken_where_they_lie():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    index = (torch.tensor([0, 2]), torch.tensor([1, 3]))
    assert take(image, index).flatten().tolist() == [1, 3, 9, 11]
    assert take(image, index, 1, 1).flatten().tolist() == [6, 7, 10, 11]
