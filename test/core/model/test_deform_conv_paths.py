"""All ways to compute the deformable convolution give the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stdnet_core.errors import ConfigError
from stdnet_core.model.deform_conv import (
    CHOICE_VARIABLE,
    DeformConv3x3,
    cuda_choice,
    deform_conv3x3,
    deform_conv3x3_bags,
    deformable_sample,
)


def case(maps: int, spread: float, channels: int = 3, height: int = 7, width: int = 9):
    torch.manual_seed(maps)
    x = torch.randn(2, maps * channels, height, width)
    offset = spread * torch.randn(2, 18, height, width)
    return x, offset, torch.rand(2, 9, height, width), torch.randn(channels, channels, 3, 3), torch.randn(channels)


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("spread", [0.0, 0.5, 5.0, 1e6])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bags_equal_grid_sample_inside_at_the_border_and_far_outside(maps, spread, layout):
    x, offset, mask, weight, bias = case(maps, spread)
    expected = deform_conv3x3(x, offset, mask, weight, bias)
    x, offset, mask = (t.contiguous(memory_format=layout) for t in (x, offset, mask))
    torch.testing.assert_close(
        deform_conv3x3_bags(x, offset, mask, weight, bias), expected, atol=2e-5 * max(1.0, spread**0.5), rtol=1e-4
    )


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_gradients_of_bags_equal_those_of_grid_sample(maps, spread):
    def gradients(function):
        inputs = [t.double().requires_grad_() for t in case(maps, spread)]
        out = function(*inputs)
        return torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), inputs)

    for bags, expected in zip(gradients(deform_conv3x3_bags), gradients(deform_conv3x3), strict=True):
        torch.testing.assert_close(bags, expected, atol=1e-9, rtol=1e-7)


def test_bags_take_half_precision():
    x, offset, mask, weight, bias = case(2, 2.0)
    expected = deform_conv3x3_bags(x, offset, mask, weight, bias)
    half = deform_conv3x3_bags(*(t.bfloat16() for t in (x, offset, mask, weight, bias)))
    assert half.dtype == torch.bfloat16
    assert (half - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_are_not_rounded_to_half_precision(dtype):
    """On a wide image a position in half precision would be off by up to half a pixel."""
    torch.manual_seed(0)
    x = torch.nn.functional.avg_pool2d(torch.randn(1, 4, 42, 402), 3, 1).to(dtype)
    offset, mask = torch.randn(1, 18, 40, 400).to(dtype), torch.rand(1, 9, 40, 400).to(dtype)
    expected = deformable_sample(x.double(), offset.double(), mask.double())
    got = deformable_sample(x, offset, mask)
    assert got.dtype == dtype
    assert (got - expected).square().mean() < (torch.finfo(dtype).eps) ** 2 * expected.square().mean()


def test_offsets_that_are_not_numbers_give_results_that_are_none():
    """A run that diverges must come to its diagnosis, in whichever way it computes."""
    x, offset, mask, weight, bias = case(1, 1.0)
    offset[0, :, 2, 3] = torch.nan
    offset[0, :, 4, 4] = torch.inf
    out = deform_conv3x3_bags(x, offset, mask, weight, bias)
    assert out[0, :, 2, 3].isnan().all()
    assert out[1].isfinite().all()


def test_half_precision_learns_with_the_gradients_of_float():
    """As under autocast: half features and offsets, float weights."""
    x, offset, mask, weight, _ = case(2, 2.0)
    layer = DeformConv3x3(3)
    layer.weight.data.copy_(weight)

    def gradients(dtype):
        inputs = [t.to(dtype).requires_grad_() for t in (x, offset, mask)]
        layer(*inputs).float().square().sum().backward()
        grads = [t.grad.float() for t in inputs] + [layer.weight.grad.clone()]
        layer.weight.grad = None
        return grads

    for half, expected in zip(gradients(torch.bfloat16), gradients(torch.float32), strict=True):
        assert (half - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_maps_side_by_side_share_offsets_and_weights():
    module = DeformConv3x3(3)
    x, offset, mask, *_ = case(2, 2.0)
    with torch.no_grad():
        both = module(x, offset, mask)
        each = torch.cat([module(part, offset, mask) for part in x.chunk(2, 1)], 1)
    torch.testing.assert_close(both, each, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module(x, offset, mask), both, atol=1e-5, rtol=1e-5)


def test_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv(CHOICE_VARIABLE, "magic")
    cuda_choice.cache_clear()
    with pytest.raises(ConfigError, match="choose one of torchvision, grid_sample, triton"):
        cuda_choice()
    monkeypatch.undo()
    cuda_choice.cache_clear()
    assert cuda_choice() == "torchvision"


def test_triton_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    program = (
        "import torch\n"
        "from stdnet_core.model.deform_conv import deform_conv3x3\n"
        "from stdnet_core.model.deform_conv_triton import deform_conv3x3_triton\n"
        "torch.manual_seed(0)\n"
        "for maps in (1, 2):\n"
        "    x, offset = torch.randn(2, 16 * maps, 7, 9), 4 * torch.randn(2, 18, 7, 9)\n"
        "    mask, weight, bias = torch.rand(2, 9, 7, 9), torch.randn(16, 16, 3, 3), torch.randn(16)\n"
        "    actual = deform_conv3x3_triton(x, offset, mask, weight, bias)\n"
        "    torch.testing.assert_close(actual, deform_conv3x3(x, offset, mask, weight, bias), atol=1e-4, rtol=1e-4)\n"
    )
    repository = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([repository, *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path},
        check=True,
        timeout=120,
    )
