"""The loss of recurrent networks against loops over pixels and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stdnet_core.errors import ConfigError, InputError
from stdnet_core.inference.confidence import within_tolerance
from stdnet_core.model.recurrent import RecurrentOutput
from stdnet_core.training.recurrent_loss import RecurrentLoss, RecurrentLossConfig

EVEN = {"first_weight": 1.0, "weight_step": 0.0, "last_weight": 1.0}  # all frames weigh the same


@pytest.mark.parametrize("fine", [True, False])
def test_loss_by_hand(fine: bool) -> None:
    rng = np.random.default_rng(0)
    shape = (2, 5, 1, 6, 8)
    truth, depth = (rng.uniform(0.5, 4, shape).astype(np.float32) for _ in range(2))
    log_scale = rng.normal(-2, 1, shape).astype(np.float32)
    valid, measured = rng.random(shape) < 0.8, rng.random(shape) < 0.6
    measured[1] = True  # a clip without holes
    truth[~valid] = np.nan
    config = RecurrentLossConfig(0.4, 0.7, hole_share=0.4, floor_m=0.002, flicker_weight=0.3)
    terms = RecurrentLoss(config)(
        RecurrentOutput(torch.from_numpy(depth), torch.from_numpy(log_scale)),
        torch.from_numpy(truth),
        torch.from_numpy(valid),
        torch.from_numpy(measured) if fine else None,
    )
    expected = dict.fromkeys(("mae", "rmse", "flicker", "confidence"), 0.0)
    for clip in range(2):
        regions = [(measured[clip], 0.6), (~measured[clip], 0.4)] if fine else [(np.ones(shape[1:], bool), 1.0)]
        for region, share in regions:
            total = absolute = square = 0.0
            for frame in range(5):
                weight = min(1.2, 0.6 + 0.2 * frame)
                for place in zip(*np.nonzero(valid[clip, frame] & region[frame]), strict=True):
                    error = float(depth[clip, frame][place]) - float(truth[clip, frame][place])
                    total, absolute = total + weight, absolute + weight * abs(error)
                    square += weight * error**2
            if total:
                expected["mae"] += share * math.log(absolute / total + 0.002) / 2
                expected["rmse"] += share * 0.5 * math.log(square / total + 0.002**2) / 2
        error = depth[clip] - truth[clip]
        steps = np.abs(np.diff(error, axis=0))[valid[clip, 1:] & valid[clip, :-1]]
        expected["flicker"] += math.log(steps.mean() + 0.002) / 2
        allowed = np.maximum(0.02, 0.02 * depth[clip])
        right = (np.abs(error) <= allowed)[valid[clip]]
        assert 0 < right.mean() < 1
        claimed = within_tolerance(depth[clip], np.exp(log_scale[clip]))[valid[clip]]
        expected["confidence"] -= np.log(np.where(right, claimed, 1 - claimed)).mean() / 2
    expected["total"] = 0.4 * expected["mae"] + 0.7 * expected["rmse"] + 0.3 * expected["flicker"]
    expected["total"] += 0.1 * expected["confidence"]
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_loss_of_nothing_and_of_one_frame_is_finite() -> None:
    depth = torch.ones(1, 1, 1, 8, 8, requires_grad=True)
    output = RecurrentOutput(depth, torch.zeros_like(depth, requires_grad=True))
    for valid in (torch.zeros(1, 1, 1, 8, 8, dtype=torch.bool), torch.ones(1, 1, 1, 8, 8, dtype=torch.bool)):
        total = RecurrentLoss(RecurrentLossConfig())(output, torch.ones_like(depth), valid, valid)["total"]
        (gradient,) = torch.autograd.grad(total, depth)
        assert torch.isfinite(total)
        assert torch.isfinite(gradient).all()


def of_error(error: float, log_scale: torch.Tensor, depth: float = 2.0) -> dict[str, torch.Tensor]:
    """The terms of a frame of one pixel, whose depth is wrong by ``error``."""
    output = RecurrentOutput(torch.full((1, 1, 1, 1, 1), depth), log_scale.reshape(1, 1, 1, 1, 1))
    truth = output.depth - error
    return RecurrentLoss(RecurrentLossConfig())(output, truth, torch.ones_like(truth, dtype=torch.bool))


@pytest.mark.parametrize("error", [0.5, -0.5])
@pytest.mark.parametrize("log_ratio", [-11.5, -4.0, 0.0, 2.0, 2.99, 3.01, 5.0, 20.0])
def test_too_sure_of_a_wrong_depth_costs_linearly(log_ratio: float, error: float) -> None:
    """-log(1 - claimed) is tolerance / scale; from e^3 on, its tangent in log(scale), so that no pixel rules a step."""
    log_scale = torch.tensor(math.log(0.04) - log_ratio, requires_grad=True)  # 2 % of 2 m
    loss = of_error(error, log_scale)["confidence"]
    steep = math.exp(min(log_ratio, 3.0))
    assert loss.item() == pytest.approx(steep + steep * max(log_ratio - 3.0, 0.0), rel=1e-4)
    (slope,) = torch.autograd.grad(loss, log_scale)
    assert slope.item() == pytest.approx(-steep, rel=1e-4)


@pytest.mark.parametrize("log_ratio", [-11.5, -4.0, 0.0, 2.0])
def test_doubt_of_a_right_depth_costs_its_log_likelihood(log_ratio: float) -> None:
    log_scale = torch.tensor(math.log(0.04) - log_ratio)
    expected = -math.log(-math.expm1(-math.exp(log_ratio)))
    assert float(of_error(0.03, log_scale)["confidence"]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("error", [0.0, 0.5])
@pytest.mark.parametrize("log_scale", [-60.0, 60.0])
def test_any_scale_has_a_finite_loss_and_gradient(log_scale: float, error: float) -> None:
    scale = torch.tensor(log_scale, requires_grad=True)
    loss = of_error(error, scale)["confidence"]
    (slope,) = torch.autograd.grad(loss, scale)
    assert torch.isfinite(loss)
    assert torch.isfinite(slope)


def test_confidence_teaches_nothing_about_depth() -> None:
    """Otherwise errors near the tolerance, or a larger tolerance farther away, would pull at depth."""
    shape = (1, 3, 1, 6, 8)
    depth = (1 + torch.rand(shape)).requires_grad_()
    log_scale = torch.full(shape, -4.0, requires_grad=True)
    truth = depth.detach() + 0.03 * torch.randn(shape)
    terms = RecurrentLoss(RecurrentLossConfig())(
        RecurrentOutput(depth, log_scale), truth, torch.ones(shape, dtype=torch.bool)
    )
    of_depth, of_scale = torch.autograd.grad(terms["confidence"], (depth, log_scale), allow_unused=True)
    assert of_depth is None
    assert of_scale.abs().sum() > 0


@pytest.mark.parametrize(
    ("pixels", "weight", "counts"), [(20, 1.0, False), (21, 1.0, True), (40, 0.5, False), (41, 0.5, True)]
)
def test_a_region_of_few_pixels_does_not_count(pixels: int, weight: float, counts: bool) -> None:
    """With 20 or fewer, weighted by frame, its mean is too uncertain."""
    config = RecurrentLossConfig(hole_share=0.35, first_weight=weight, weight_step=0, last_weight=weight)
    depth = torch.full((1, 1, 1, 8, 10), 2.0)
    measured = (torch.arange(80) < pixels).reshape(depth.shape)
    output = RecurrentOutput(depth + 0.1, torch.zeros_like(depth))
    terms = RecurrentLoss(config)(output, depth, measured, measured)
    expected = 0.65 * math.log(0.101) if counts else 0.0
    assert float(terms["mae"]) == pytest.approx(expected, rel=1e-4)
    assert float(terms["rmse"]) == pytest.approx(0.65 * math.log(math.hypot(0.1, 0.001)) if counts else 0.0, rel=1e-4)


def test_flicker_of_short_clips() -> None:
    """Of two frames, the one change; of one frame, or where no pixel is valid twice, nothing."""
    config = RecurrentLossConfig(floor_m=0.001)
    depth = torch.full((1, 2, 1, 6, 8), 2.0)
    output = RecurrentOutput(depth + torch.tensor([0.1, -0.2]).reshape(1, 2, 1, 1, 1), torch.zeros_like(depth))
    valid = torch.ones_like(depth, dtype=torch.bool)
    assert float(RecurrentLoss(config)(output, depth, valid)["flicker"]) == pytest.approx(math.log(0.301), rel=1e-4)
    first = RecurrentOutput(output.depth[:, :1], output.log_scale[:, :1])
    assert float(RecurrentLoss(config)(first, depth[:, :1], valid[:, :1])["flicker"]) == 0
    single = valid & (torch.arange(48).reshape(6, 8) == 13)
    assert float(RecurrentLoss(config)(output, depth, single)["flicker"]) == pytest.approx(math.log(0.301), rel=1e-4)
    valid[:, 0, ..., :4] = False
    valid[:, 1, ..., 4:] = False
    assert float(RecurrentLoss(config)(output, depth, valid)["flicker"]) == pytest.approx(math.log(0.001), rel=1e-4)


def test_frames_weigh_more_with_their_history() -> None:
    assert RecurrentLossConfig().frame_weights(6).tolist() == pytest.approx([0.6, 0.8, 1.0, 1.2, 1.2, 1.2])


@pytest.mark.parametrize("which", [0, 1])
def test_other_shapes_are_refused(which: int) -> None:
    depth = torch.ones(1, 2, 1, 6, 8)
    others = [depth, torch.ones_like(depth, dtype=torch.bool)]
    others[which] = others[which][..., :7]
    with pytest.raises(InputError, match=r"depth \(1, 2, 1, 6, 8\).*\(1, 2, 1, 6, 7\).* must have one shape"):
        RecurrentLoss(RecurrentLossConfig())(RecurrentOutput(depth, depth), *others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mae_weight": -0.1}, "loss.mae_weight is -0.1; it must be a finite number, not negative"),
        ({"rmse_weight": float("inf")}, "loss.rmse_weight is inf"),
        ({"flicker_weight": float("nan")}, "loss.flicker_weight is nan"),
        ({"confidence_weight": "0.1"}, "loss.confidence_weight is '0.1'"),
        ({"hole_share": 1.01}, "loss.hole_share is 1.01; it is a share, 0 to 1"),
        ({"floor_m": 0}, "must be positive"),
        ({"first_weight": 0}, "must be positive"),
        ({"last_weight": 0.0}, "must be positive"),
    ],
)
def test_wrong_weights_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RecurrentLossConfig(**changes)


def test_a_weight_of_nothing_turns_a_term_off() -> None:
    names = ("mae", "rmse", "flicker", "confidence")
    depth = torch.full((1, 2, 1, 6, 8), 2.0)
    output = RecurrentOutput(depth + torch.rand(depth.shape), torch.zeros_like(depth))
    for name in names:
        weights = {f"{other}_weight": 0.0 for other in names} | {f"{name}_weight": 2.0}
        config = RecurrentLossConfig(**weights, **EVEN, hole_share=1)
        terms = RecurrentLoss(config)(output, depth, torch.ones_like(depth, dtype=torch.bool))
        assert float(terms["total"]) == pytest.approx(2 * float(terms[name]))
        assert float(terms["total"]) != 0
