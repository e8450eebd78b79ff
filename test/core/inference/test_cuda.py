"""What must hold on a GPU in float32: golden cases, streams, and all ways to the deformable convolution.

``STDNET_TEST_DEVICE=cpu`` runs them on the CPU, as a rehearsal."""

from __future__ import annotations

import os

import pytest
import torch
from sensitive_model import sensitive_model
from test_deform_conv_paths import case as deformable_case
from test_model import CASES, GOLDEN
from test_recurrent import network as recurrent_network
from test_recurrent import scene
from test_streaming import clip, stream_clip

from stdnet_core.checkpoints import load_released
from stdnet_core.model.deform_conv import (
    DeformConv3x3,
    deform_conv3x3,
    deform_conv3x3_bags,
    torchvision_deform_conv2d,
    triton_deform_conv,
)
from stdnet_core.streaming import StreamingSTDNet
from stdnet_core.streaming.fixed_stream import FixedStreamingSTDNet

DEVICE = os.environ.get("STDNET_TEST_DEVICE", "cuda")
ON_CUDA = DEVICE.startswith("cuda")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def _float32_is_float32():
    """Convolutions would take TF32, with 11 bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def golden():
    model, _ = load_released(GOLDEN / "stdnet_c16.pt", scale=8, depth_range=40.0)
    return model.to(DEVICE), torch.load(GOLDEN / "stdnet_c16.pt", weights_only=True)["cases"]


@pytest.mark.parametrize("name", CASES)
def test_golden_output(golden, name):
    model, cases = golden
    case = cases[name]
    with torch.inference_mode():
        out = model(rgb=case["rgb"].to(DEVICE), depth_lr=case["depth_lr"].to(DEVICE))
    assert (out.depth.cpu() - case["depth_hr"]).abs().max() <= 1e-4


def streams():
    """Ways to stream that this device has."""
    yield "eager", lambda model, latency: StreamingSTDNet(model, latency)
    yield "fixed", lambda model, latency: FixedStreamingSTDNet(model, latency)
    if ON_CUDA:
        yield "graph", lambda model, latency: FixedStreamingSTDNet(model, latency, cuda_graph=True)


@pytest.mark.parametrize("latency", [0, 4, 8])
@pytest.mark.parametrize(("way", "make"), [pytest.param(*pair, id=pair[0]) for pair in streams()])
def test_stream_equals_whole_clip(latency, way, make):
    model = sensitive_model().to(DEVICE)
    rgb, depth_lr = (t.to(DEVICE) for t in clip(12))
    outputs = stream_clip(make(model, latency), rgb, depth_lr)
    assert [output.frame for output, _ in outputs] == list(range(12))
    with torch.inference_mode():
        for output, seen in outputs:
            whole = model(rgb=rgb[:, :seen], depth_lr=depth_lr[:, :seen]).depth[:, output.frame]
            torch.testing.assert_close(output.depth, whole, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("ratio", [1, 2.5, 8])
def test_recurrent_network_gives_what_the_cpu_gives(ratio):
    model = recurrent_network()
    rgb, depth, flow, cell = scene(4, ratio)
    with torch.inference_mode():
        expected = model(rgb, depth, flow, cell)
        actual = model.to(DEVICE)(*(t.to(DEVICE) for t in (rgb, depth, flow)), cell)
    torch.testing.assert_close(actual.depth.cpu(), expected.depth, atol=1e-3, rtol=1e-4)


def test_recurrent_network_gives_the_gradients_of_the_cpu():
    rgb, depth, flow, cell = scene(3, 4)

    def gradients(device):
        model = recurrent_network().to(device)
        out = model(*(t.to(device) for t in (rgb, depth, flow)), cell)
        out.depth.mean().backward()
        return {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}

    expected, actual = gradients("cpu"), gradients(DEVICE)
    assert expected.keys() == actual.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-3 * largest, rtol=1e-2, msg=lambda m, n=name: n + m)


# --- the deformable convolution ---------------------------------------------------------------------------------------


def by_torchvision(x, offset, mask, weight, bias):
    """As :class:`DeformConv3x3` calls it."""
    maps = x.shape[1] // weight.shape[1]
    repeated = weight.repeat(maps, 1, 1, 1), bias.repeat(maps)
    return torchvision_deform_conv2d()(x, offset, *repeated, padding=1, mask=mask)


def by_triton(*arguments):
    return triton_deform_conv().deform_conv3x3_triton(*arguments)


WAYS = {"grid_sample": deform_conv3x3, "torchvision": by_torchvision, "triton": by_triton}


def needed(way: str) -> None:
    if way == "torchvision" and torchvision_deform_conv2d() is None:
        pytest.skip("torchvision is not installed")
    if way == "triton" and not (ON_CUDA and triton_deform_conv()):
        pytest.skip("Triton needs a GPU")


def problem(maps: int, spread: float):
    inputs = deformable_case(maps, spread, channels=16, height=23, width=37)
    return [t.to(DEVICE) for t in inputs]


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("spread", [0.5, 5.0])
@pytest.mark.parametrize("way", WAYS)
def test_deformable_convolutions_agree_forward(way, maps, spread):
    needed(way)
    inputs = problem(maps, spread)
    expected = deform_conv3x3_bags(*(t.cpu().double() for t in inputs)).float()
    torch.testing.assert_close(WAYS[way](*inputs).cpu(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("way", ["grid_sample", "torchvision"])
def test_deformable_convolutions_agree_backward(way, maps):
    needed(way)

    def gradients(function, inputs):
        inputs = [t.detach().requires_grad_() for t in inputs]
        out = function(*inputs)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
        return torch.autograd.grad((out * weights).sum(), inputs)

    inputs = problem(maps, 2.0)
    expected = gradients(deform_conv3x3_bags, [t.cpu().double() for t in inputs])
    names, actual_gradients = ("x", "offset", "mask", "weight", "bias"), gradients(WAYS[way], inputs)
    for name, actual, wanted in zip(names, actual_gradients, expected, strict=True):
        scale = float(wanted.abs().max())
        torch.testing.assert_close(
            actual.cpu(), wanted.float(), atol=1e-4 * scale, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("choice", WAYS)
def test_a_network_learns_whichever_is_chosen(choice, monkeypatch):
    """The Triton kernel has no gradients: it must leave them to the others."""
    needed(choice)
    monkeypatch.setattr("stdnet_core.model.deform_conv.cuda_choice", lambda: choice)
    x, offset, mask, weight, bias = problem(2, 2.0)
    layer = DeformConv3x3(16).to(DEVICE)
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
    trained = layer(x, offset, mask)
    trained.square().sum().backward()
    assert layer.weight.grad.abs().max() > 0
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, offset, mask), trained.detach(), atol=1e-3, rtol=1e-3)
