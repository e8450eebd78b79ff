"""The losses against formulas written out pixel by pixel in NumPy, and their behaviour at the edges."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stdnet_core.errors import ConfigError, InputError
from stdnet_core.model import ModelConfig, STDNet
from stdnet_core.model.stdnet import StageDifferences, STDNetOutput
from stdnet_core.training.losses import SCALE_FLOOR, LossConfig, STDNetLoss, laplace_nll

CHANNELS = 4
ONLY_RECONSTRUCTION = LossConfig(regularization_weight=0.0)


def make_output(frames, height=8, width=12, stages=2, neighbors=2, batch=2, seed=0, **fields):
    """An output with random contents, as the network would return it."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    grid = (CHANNELS, -(-height // 4), -(-width // 4))
    depth = uniform(batch, frames, 1, height, width).requires_grad_()
    differences = tuple(
        StageDifferences(
            uniform(batch, frames, *grid).requires_grad_(),
            tuple(uniform(batch, max(frames - k, 0), *grid).requires_grad_() for k in range(1, neighbors + 1)),
        )
        for _ in range(stages)
    )
    values = dict(
        depth=depth,
        stage_depths=tuple(uniform(*depth.shape) for _ in range(stages)),
        stage_logits=tuple(uniform(*depth.shape) for _ in range(stages)),
        stage_weights=torch.full((batch, frames, stages, height, width), 1 / stages),
        log_scale=None,
        differences=differences,
    )
    truth = uniform(*depth.shape)
    valid = uniform(*depth.shape) > 0.3
    return STDNetOutput(**{**values, **fields}), truth, valid


def mean_per_clip(values, valid):
    """Mean over each clip's valid pixels, then over clips, with loops."""
    means = []
    for clip_values, clip_valid in zip(np.asarray(values), np.asarray(valid), strict=True):
        chosen = [v for v, ok in zip(clip_values.ravel(), clip_valid.ravel(), strict=True) if ok]
        means.append(sum(chosen) / len(chosen) if chosen else 0.0)
    return sum(means) / len(means)


def head_by_hand(head, difference, height, width):
    """R_df from the two weights, with torch's own bicubic on the channel sum."""
    weights = head.reduce.weight.detach().reshape(-1)
    b, t, _, h, w = difference.shape
    summed = torch.einsum("btchw,c->bthw", difference.detach(), weights).reshape(b * t, 1, h, w)
    up = F.interpolate(summed, size=(4 * h, 4 * w), mode="bicubic", align_corners=False)
    up = up * float(head.scale.weight.detach())
    return up[..., :height, :width].reshape(b, t, 1, height, width).numpy()


def test_reconstruction_is_the_masked_charbonnier():
    output, truth, valid = make_output(3)
    terms = STDNetLoss(dataclasses.replace(ONLY_RECONSTRUCTION, eps=1e-3), CHANNELS)(output, truth, valid)
    error = np.sqrt((output.depth.detach() - truth).numpy() ** 2 + 1e-3)
    assert set(terms) == {"reconstruction", "total"}
    assert terms["total"].item() == pytest.approx(mean_per_clip(error, valid), rel=1e-5)


@pytest.mark.parametrize("form", ["detached", "release"])
def test_spatial_term_by_hand(form):
    output, truth, valid = make_output(3, height=7, width=10)
    loss = STDNetLoss(LossConfig(spatial_weight_form=form), CHANNELS)
    terms = loss(output, truth, valid)
    error = np.abs((output.depth.detach() - truth).numpy())
    expected, spread = 0.0, 0.0
    for stage in output.differences:
        raw = head_by_hand(loss.heads.spatial, stage.sigma, 7, 10)
        score = np.where(raw > 0, raw, np.expm1(raw))
        weight = np.empty_like(score)
        likelihood = np.empty_like(score)
        for b in range(score.shape[0]):
            for t in range(score.shape[1]):
                ok = valid[b, t, 0].numpy()
                weight[b, t, 0] = score[b, t, 0] - score[b, t, 0][ok].min() + 1
                mean = error[b, t, 0][ok].mean()
                likelihood[b, t, 0] = np.exp(-score[b, t, 0]) * error[b, t, 0] + mean * score[b, t, 0]
        expected += 0.2 * mean_per_clip(weight * error, valid)
        spread += 0.2 * mean_per_clip(likelihood, valid)
    assert terms["spatial"].item() == pytest.approx(expected, rel=1e-4)
    if form == "detached":
        assert terms["spatial_spread"].item() == pytest.approx(spread, rel=1e-4)
    else:
        assert "spatial_spread" not in terms


@pytest.mark.parametrize("neighbors", [1, 2, 3])
def test_temporal_term_by_hand(neighbors):
    output, truth, valid = make_output(5, neighbors=neighbors)
    loss = STDNetLoss(LossConfig(), CHANNELS, neighbors=neighbors)
    terms = loss(output, truth, valid)
    expected = 0.0
    for stage in output.differences:
        for k in range(1, neighbors + 1):
            predicted = head_by_hand(loss.heads.temporal[k - 1], stage.phi[k - 1], 8, 12)
            difference = np.abs(truth[:, k:].numpy() - truth[:, :-k].numpy())
            both = valid[:, k:].numpy() & valid[:, :-k].numpy()
            expected += mean_per_clip(np.abs(predicted - difference), both)
    assert float(terms["temporal"]) == pytest.approx(expected, rel=1e-4)


def test_total_is_the_weighted_sum():
    config = LossConfig(
        stage_weight=0.3,
        relative_weight=0.2,
        gradient_weight=0.7,
        consistency_weight=0.4,
        uncertainty_weight=0.1,
    )
    output, truth, valid = make_output(3, log_scale=torch.full((2, 3, 1, 8, 12), -1.5))
    terms = STDNetLoss(config, CHANNELS)(output, truth, valid)
    value = {name: float(term) for name, term in terms.items()}
    expected = (
        value["reconstruction"]
        + 0.01 * (0.5 * (value["spatial"] + value["spatial_spread"]) + 0.5 * value["temporal"])
        + 0.3 * value["stages"]
        + 0.2 * value["relative"]
        + 0.7 * value["gradient"]
        + 0.4 * value["consistency"]
        + 0.1 * value["uncertainty"]
    )
    assert value["total"] == pytest.approx(expected, rel=1e-5)


def test_optional_terms_by_hand():
    config = dataclasses.replace(
        ONLY_RECONSTRUCTION,
        stage_weight=1.0,
        relative_weight=1.0,
        gradient_weight=1.0,
        consistency_weight=1.0,
    )
    output, truth, valid = make_output(3)
    terms = STDNetLoss(config, CHANNELS)(output, truth, valid)
    residual = (output.depth.detach() - truth).numpy()
    ok = valid.numpy()
    stages = [mean_per_clip(np.abs((s - truth).numpy()), ok) for s in output.stage_depths]
    assert float(terms["stages"]) == pytest.approx(sum(stages) / 2, rel=1e-4)
    relative = np.abs(residual) / np.maximum(truth.numpy(), 0.01)
    assert float(terms["relative"]) == pytest.approx(mean_per_clip(relative, ok), rel=1e-4)
    across = mean_per_clip(np.abs(np.diff(residual, axis=4)), ok[..., 1:] & ok[..., :-1])
    down = mean_per_clip(np.abs(np.diff(residual, axis=3)), ok[..., 1:, :] & ok[..., :-1, :])
    assert float(terms["gradient"]) == pytest.approx(across + down, rel=1e-4)
    in_time = mean_per_clip(np.abs(np.diff(residual, axis=1)), ok[:, 1:] & ok[:, :-1])
    assert float(terms["consistency"]) == pytest.approx(in_time, rel=1e-4)


def test_uncertainty_is_least_at_the_mean_error_and_leaves_the_depth_alone():
    error = torch.rand(1000, dtype=torch.float64) * 0.1
    scales = torch.linspace(-6, 0, 601, dtype=torch.float64)
    values = torch.stack([laplace_nll(s, error).mean() for s in scales])
    assert float(scales[values.argmin()]) == pytest.approx(math.log(float(error.mean()) + 1e-4), abs=0.01)

    log_scale = torch.zeros(2, 3, 1, 8, 12, requires_grad=True)
    output, truth, valid = make_output(3, log_scale=log_scale)
    config = dataclasses.replace(ONLY_RECONSTRUCTION, uncertainty_weight=1.0)
    terms = STDNetLoss(config, CHANNELS)(output, truth, valid)
    depth_gradient, scale_gradient = torch.autograd.grad(
        terms["uncertainty"], (output.depth, log_scale), allow_unused=True
    )
    assert depth_gradient is None or not depth_gradient.any()
    assert scale_gradient.abs().sum() > 0


def test_detached_weight_does_not_reward_shrinking_sigma():
    """Release: the gradient of the spatial term reaches sigma through the weight. Detached: it does not."""
    for form, reached in (("release", True), ("detached", False)):
        output, truth, valid = make_output(2)
        terms = STDNetLoss(LossConfig(spatial_weight_form=form), CHANNELS)(output, truth, valid)
        (gradient,) = torch.autograd.grad(
            terms["spatial"], output.differences[0].sigma, allow_unused=True, retain_graph=True
        )
        assert (gradient is not None and bool(gradient.any())) == reached
    (spread,) = torch.autograd.grad(terms["spatial_spread"], output.differences[0].sigma)
    assert spread.any()  # the head and sigma still learn, from where errors are


def test_spread_head_learns_where_errors_are():
    """With sigma high where the error is, the fitted weight becomes high there."""
    torch.manual_seed(0)
    sigma = torch.zeros(1, 1, CHANNELS, 8, 8)
    sigma[..., 4:, :] = 1.0
    truth = torch.full((1, 1, 1, 32, 32), 0.5)
    depth = truth.clone()
    depth[..., :16, :] += 0.01
    depth[..., 16:, :] += 0.1
    output, _, _ = make_output(1, 32, 32, stages=1, batch=1, depth=depth)
    output = dataclasses.replace(output, differences=(StageDifferences(sigma, ()),))
    loss = STDNetLoss(LossConfig(temporal_weight=0.0), CHANNELS)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(output, truth, torch.ones_like(truth, dtype=torch.bool))["total"].backward()
        optimizer.step()
    score = loss.heads.spatial(sigma, 32, 32)
    # log(e / m) with e = 0.1 and m = 0.055
    assert float(score[..., 24:, :].mean().detach()) == pytest.approx(math.log(0.1 / 0.055), abs=0.1)


def test_minimum_is_each_frames_own():
    """Changing sigma in one frame must not change the loss of another."""
    output, truth, valid = make_output(3, batch=1)
    loss = STDNetLoss(LossConfig(temporal_weight=0.0), CHANNELS)
    only_second = torch.zeros_like(valid)
    only_second[:, 1] = valid[:, 1]
    before = float(loss(output, truth, only_second)["spatial"])
    with torch.no_grad():
        for stage in output.differences:
            stage.sigma[:, 0] -= 5
            stage.sigma[:, 2] += 5
    assert float(loss(output, truth, only_second)["spatial"]) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("form", ["detached", "release"])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_invalid_pixels_count_for_nothing(frames, form):
    config = LossConfig(
        spatial_weight_form=form,
        stage_weight=1.0,
        relative_weight=1.0,
        gradient_weight=1.0,
        consistency_weight=1.0,
        uncertainty_weight=1.0,
    )
    output, truth, valid = make_output(frames, log_scale=torch.zeros(2, frames, 1, 8, 12))
    loss = STDNetLoss(config, CHANNELS)
    reference = loss(output, truth.masked_fill(~valid, 0.0), valid)
    for filler in (float("nan"), float("inf"), -1e30):
        terms = loss(output, truth.masked_fill(~valid, filler), valid)
        assert {k: float(v) for k, v in terms.items()} == {k: float(v) for k, v in reference.items()}
    loss(output, truth.masked_fill(~valid, float("nan")), valid)["total"].backward()
    assert not output.depth.grad[~valid].any()
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("form", ["detached", "release"])
def test_all_invalid_clip_gives_zero_and_finite_gradients(form):
    output, truth, valid = make_output(3, log_scale=torch.zeros(2, 3, 1, 8, 12))
    config = LossConfig(spatial_weight_form=form, gradient_weight=1.0, relative_weight=1.0, uncertainty_weight=1.0)
    loss = STDNetLoss(config, CHANNELS)
    terms = loss(output, truth * 0, torch.zeros_like(valid))
    assert all(float(term) == 0 for term in terms.values())
    terms["total"].backward()
    gradients = [p.grad for p in loss.parameters()] + [output.depth.grad]
    assert all(g is not None and not g.any() for g in gradients)


def test_gradients_of_two_halves_average_to_those_of_the_joint_batch():
    """What data-parallel training relies on, with different numbers of valid pixels in the halves."""
    output, truth, valid = make_output(3, batch=2)
    valid[0, :, :, :4] = False
    loss = STDNetLoss(LossConfig(), CHANNELS)
    joint = torch.autograd.grad(loss(output, truth, valid)["total"], list(loss.parameters()))
    halves = []
    for clip in (slice(0, 1), slice(1, 2)):
        part = dataclasses.replace(
            output,
            depth=output.depth[clip],
            differences=tuple(
                StageDifferences(d.sigma[clip], tuple(phi[clip] for phi in d.phi)) for d in output.differences
            ),
        )
        halves.append(torch.autograd.grad(loss(part, truth[clip], valid[clip])["total"], list(loss.parameters())))
    for whole, first, second in zip(joint, *halves, strict=True):
        torch.testing.assert_close(whole, (first + second) / 2)


def test_heads_have_the_papers_size_and_follow_the_switches():
    def count(config, **kwargs):
        return sum(p.numel() for p in STDNetLoss(config, 64, **kwargs).parameters())

    assert count(LossConfig()) == 195
    assert count(LossConfig(), neighbors=1) == 130
    assert count(LossConfig(temporal_weight=0.0)) == 65
    assert count(LossConfig(spatial_weight=0.0)) == 130
    assert count(ONLY_RECONSTRUCTION) == 0


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("neighbors", [0, 1, 3])
def test_with_the_network(frames, neighbors):
    """Every parameter of network and heads gets a finite gradient, sizes that 4 does not divide included."""
    torch.manual_seed(0)
    config = ModelConfig(
        channels=4,
        head_channels=4,
        trunk_blocks=1,
        reconstruction_blocks=1,
        fusion_blocks=1,
        neighbors=neighbors,
        uncertainty=True,
    )
    model = STDNet(config)
    loss = STDNetLoss(LossConfig(uncertainty_weight=0.1), config.channels, neighbors=neighbors)
    output = model(
        rgb=torch.rand(1, frames, 3, 18, 22),
        depth_lr=torch.rand(1, frames, 1, 5, 6),
        return_differences=True,
    )
    truth = torch.rand(1, frames, 1, 18, 22)
    terms = loss(output, truth, truth > 0.2)
    terms["total"].backward()
    assert all(term.isfinite() and term.ndim == 0 for term in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_half_precision_outputs_give_float32_losses():
    output, truth, valid = make_output(3)
    loss = STDNetLoss(LossConfig(), CHANNELS)
    expected = loss(output, truth, valid)
    halved = dataclasses.replace(output, depth=output.depth.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(halved, truth, valid)
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert float(terms["temporal"]) == pytest.approx(float(expected["temporal"]), rel=1e-6)
    assert float(terms["total"]) == pytest.approx(float(expected["total"]), rel=1e-2)


def test_contradictions_are_refused():
    output, truth, valid = make_output(3)
    with pytest.raises(InputError, match="one shape"):
        STDNetLoss(LossConfig(), CHANNELS)(output, truth[..., 1:], valid[..., 1:])
    with pytest.raises(ConfigError, match="return_differences"):
        STDNetLoss(LossConfig(), CHANNELS)(dataclasses.replace(output, differences=None), truth, valid)
    with pytest.raises(ConfigError, match="neighbors"):
        STDNetLoss(LossConfig(), CHANNELS, neighbors=1)(output, truth, valid)
    with pytest.raises(ConfigError, match="uncertainty"):
        STDNetLoss(LossConfig(uncertainty_weight=1.0), CHANNELS)(output, truth, valid)
    with pytest.raises(ConfigError, match="detached, release"):
        LossConfig(spatial_weight_form="frozen")
    with pytest.raises(ConfigError, match="relative_weight"):
        LossConfig(relative_weight=float("nan"))
    with pytest.raises(ConfigError, match="eps"):
        LossConfig(eps=0.0)


def test_no_error_at_all_does_not_ask_for_a_scale_of_zero():
    """The scale with the least cost, by search, is the floor itself."""
    scales = torch.linspace(math.log(SCALE_FLOOR) - 3, math.log(SCALE_FLOOR) + 3, 601, dtype=torch.float64)
    cost = laplace_nll(scales, torch.zeros_like(scales))
    assert scales[cost.argmin()].exp() == pytest.approx(SCALE_FLOOR, rel=0.02)
