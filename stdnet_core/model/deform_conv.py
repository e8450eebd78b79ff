"""Modulated deformable 3x3 convolution (Zhu et al. 2019, DCN v2), one offset group.

Three implementations compute the same result: torchvision's operator if it is installed (CUDA, in float32);
``grid_sample`` and a matrix product (compilers, export); and on the CPU an embedding bag, which fetches, weights and
adds the four corners of a sample in one pass over memory. On CUDA, the environment variable STDNET_DEFORM_CONV selects
``torchvision`` (the default), ``grid_sample``, or ``triton``, a Triton kernel for inference."""

from __future__ import annotations

import functools
import importlib
import math
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stdnet_core.errors import ConfigError

TAPS = 9
CHOICE_VARIABLE = "STDNET_DEFORM_CONV"
CHOICES = ("torchvision", "grid_sample", "triton")


@functools.cache
def torchvision_deform_conv2d() -> Callable[..., Tensor] | None:
    """torchvision's operator; None if torchvision is not installed or was built for another version of PyTorch."""
    try:
        from torchvision.ops import deform_conv2d

        deform_conv2d(torch.zeros(1, 1, 1, 1), torch.zeros(1, 18, 1, 1), torch.zeros(1, 1, 3, 3), padding=1)
    except (ImportError, RuntimeError, AttributeError):
        return None
    return deform_conv2d


@functools.cache
def cuda_choice() -> str:
    """The implementation on CUDA: the value of STDNET_DEFORM_CONV at its first use.

    Raises:
        ConfigError: not one of the three known values.
    """
    choice = os.environ.get(CHOICE_VARIABLE) or CHOICES[0]
    if choice not in CHOICES:
        raise ConfigError(f"{CHOICE_VARIABLE} is {choice!r}; choose one of {', '.join(CHOICES)}")
    return choice


@functools.cache
def triton_deform_conv() -> ModuleType | None:
    """The module with the Triton kernel; None if Triton is not installed."""
    try:
        return importlib.import_module("stdnet_core.model.deform_conv_triton")
    except ImportError:
        return None


def deformable_sample(x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """Bilinear samples of ``x`` at the nine displaced taps of every pixel, times the mask; zero outside the image.

    Args:
        x: (N, C, h, w).
        offset: (N, 18, h, w), pixels; y then x for each tap, taps row by row.
        mask: (N, 9, h, w).

    Returns:
        (N, C, 9, h, w).
    """
    n, channels, height, width = x.shape
    dtype = torch.float32 if offset.dtype in (torch.float16, torch.bfloat16) else offset.dtype
    offset = offset.to(dtype).view(n, TAPS, 2, height, width)
    taps = torch.arange(-1, 2, device=x.device, dtype=dtype)
    rows = torch.arange(height, device=x.device, dtype=dtype)
    columns = torch.arange(width, device=x.device, dtype=dtype)
    tap_y = taps.repeat_interleave(3).view(1, TAPS, 1, 1)
    tap_x = taps.repeat(3).view(1, TAPS, 1, 1)
    y = offset[:, :, 0] + tap_y + rows.view(1, 1, -1, 1)
    x_position = offset[:, :, 1] + tap_x + columns
    # align_corners=False: pixel i has its centre at (2 i + 1) / size - 1, which also holds for size 1
    grid = torch.stack(((2 * x_position + 1) / width - 1, (2 * y + 1) / height - 1), -1)
    # half precision would round positions to tenths of a pixel
    samples = F.grid_sample(
        x.to(dtype), grid.view(n, TAPS * height, width, 2), padding_mode="zeros", align_corners=False
    ).to(x.dtype)
    return samples.view(n, channels, TAPS, height, width) * mask.unsqueeze(1)


def corner_weights(offset: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and weights of the samples in an image padded by one zero pixel above and left and two below and right.

    Args:
        offset: (N, 18, h, w), as in :func:`deformable_sample`.
        mask: (N, 9, h, w).

    Returns:
        Rows (N h w 9, 4), int32, of the four corners in the padded images, flattened to a table of N (h+3) (w+3)
        pixels; and their weights, float32 or wider: bilinear times mask.
    """
    n, _, height, width = offset.shape
    device = offset.device
    taps = torch.arange(-1.0, 2.0, device=device)
    rows = torch.arange(height, device=device).view(-1, 1, 1) + taps.repeat_interleave(3)  # (h, 1, 9)
    columns = torch.arange(width, device=device).view(-1, 1) + taps.repeat(3)  # (w, 9)
    dtype = torch.promote_types(offset.dtype, torch.float32)
    offset = offset.to(dtype).permute(0, 2, 3, 1).contiguous().unflatten(-1, (TAPS, 2))  # (N, h, w, 9, 2)
    # samples outside are moved onto the zeros of the padding, where they contribute nothing
    y = (offset[..., 0] + rows).clamp_(-1, height).add_(1)
    x = (offset[..., 1] + columns).clamp_(-1, width).add_(1)
    top, left = y.floor(), x.floor()
    stride = width + 3
    first = (top * stride + left).to(torch.int32)
    first.clamp_(0, (height + 1) * stride + width + 1)  # a NaN has no valid position; its weight remains NaN
    first += (torch.arange(n, device=device, dtype=torch.int32) * ((height + 3) * stride)).view(-1, 1, 1, 1)
    corners = torch.tensor([0, 1, stride, stride + 1], device=device, dtype=torch.int32)
    mask = mask.to(dtype).permute(0, 2, 3, 1).contiguous()
    lower = (y - top) * mask
    upper = mask - lower
    right = x - left
    upper_right, lower_right = upper * right, lower * right
    weights = torch.stack((upper - upper_right, upper_right, lower - lower_right, lower_right), -1)
    return (first[..., None] + corners).reshape(-1, 4), weights.reshape(-1, 4)


class _TableGradient(torch.autograd.Function):
    """Adds the gradient of the table to samples that were fetched from a detached table.

    PyTorch's own gradient takes three times as long. Here, the bags are inverted: each row of the table collects the
    gradients of the samples that it contributed to."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(index, weights)
        ctx.rows = len(table)
        return samples.view_as(samples)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        index, weights = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return gradient, None, None, None
        row, order = index.flatten().sort()
        first = torch.searchsorted(row, torch.arange(ctx.rows, dtype=row.dtype))
        of_table = F.embedding_bag(
            order // index.shape[1], gradient, first, per_sample_weights=weights.flatten()[order], mode="sum"
        )
        return gradient, of_table, None, None


def deform_conv3x3_bags(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Like :func:`deform_conv3x3`, but fast on the CPU; gradients only in float32 or wider."""
    n, channels, height, width = x.shape
    out_channels, in_channels = weight.shape[:2]
    table = F.pad(x, (1, 2, 1, 2)).permute(0, 2, 3, 1).reshape(-1, channels)
    index, weights = corner_weights(offset, mask)
    weights = weights.to(x.dtype)
    samples = F.embedding_bag(index, table.detach(), per_sample_weights=weights, mode="sum")
    if torch.is_grad_enabled():
        samples = _TableGradient.apply(  # type: ignore[no-untyped-call]  # torch has no types for it
            samples, table, index, weights.detach()
        )
    kernel = weight.permute(2, 3, 1, 0).reshape(TAPS * in_channels, out_channels).to(x.dtype)
    groups = samples.view(n * height * width, TAPS, channels // in_channels, in_channels).unbind(2)
    out = torch.cat([torch.addmm(bias.to(x.dtype), group.flatten(1), kernel) for group in groups], 1)
    return out.view(n, height, width, -1).permute(0, 3, 1, 2)


def deform_conv3x3(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Deformable convolution by ``grid_sample``; arguments as for :class:`DeformConv3x3`, weight (Co, C, 3, 3)."""
    n, channels, height, width = x.shape
    out_channels, in_channels = weight.shape[:2]
    samples = deformable_sample(x, offset, mask).reshape(n, channels // in_channels, TAPS * in_channels, height * width)
    out = torch.matmul(weight.flatten(1).to(samples.dtype), samples)
    out = out + bias.to(samples.dtype).view(-1, 1)
    return out.reshape(n, channels // in_channels * out_channels, height, width)


class DeformConv3x3(nn.Module):
    """Modulated deformable 3x3 convolution with bias and as many output as input channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(TAPS * channels)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Convolve one or more feature maps, concatenated along the channels, with the same offsets, mask and weights.

        Args:
            x: (N, G C, h, w), G feature maps.
            offset: (N, 18, h, w), pixels; y then x for each tap, taps row by row.
            mask: (N, 9, h, w).

        Returns:
            (N, G C, h, w).
        """
        if torch.compiler.is_compiling():
            return deform_conv3x3(x, offset, mask, self.weight, self.bias)
        if x.device.type == "cpu":
            if torch.is_grad_enabled() and x.dtype not in (torch.float32, torch.float64):
                x = x.float()  # the bags have no gradients in half precision
            return deform_conv3x3_bags(x, offset, mask, self.weight, self.bias)
        if x.is_cuda and cuda_choice() == "triton" and not torch.is_grad_enabled():
            kernel = triton_deform_conv()
            if kernel is not None and kernel.supports(self.weight):
                return kernel.deform_conv3x3_triton(x, offset, mask, self.weight, self.bias)
        operator = torchvision_deform_conv2d() if x.is_cuda and cuda_choice() != "grid_sample" else None
        if operator is None:
            return deform_conv3x3(x, offset, mask, self.weight, self.bias)
        maps = x.shape[1] // self.weight.shape[1]
        weight, bias = self.weight.float().repeat(maps, 1, 1, 1), self.bias.float().repeat(maps)
        # The operator does not support bfloat16, and rounds positions in float16.
        return operator(x.float(), offset.float(), weight, bias, padding=1, mask=mask.float()).to(x.dtype)
