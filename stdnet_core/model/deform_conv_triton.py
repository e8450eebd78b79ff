"""Modulated deformable 3x3 convolution as one Triton kernel, for inference on CUDA.

Each program computes one block of pixels. Tap by tap, it samples the features at the displaced positions and multiplies
the samples by that tap's weights, so that the nine samples of a pixel never leave the chip. The environment variable
STDNET_DEFORM_CONV=triton selects it. It is tested in Triton's interpreter and has not been timed on a GPU yet."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 64
_SUPPORTED_CHANNELS = (16, 32, 64, 128)


@triton.jit
def _kernel(
    x_ptr,  # (N, h, w, G C)
    offset_ptr,  # (N, h, w, 18)
    mask_ptr,  # (N, h, w, 9)
    weight_ptr,  # (9, C, Co)
    bias_ptr,  # (Co,)
    out_ptr,  # (N, h, w, G Co)
    height,
    width,
    pixels,  # N h w
    groups: tl.constexpr,
    channels: tl.constexpr,
    out_channels: tl.constexpr,
    block: tl.constexpr,
):
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    group = tl.program_id(1)
    inside = pixel < pixels
    column = pixel % width
    row = (pixel // width) % height
    image = (pixel // (width * height)).to(tl.int64) * height * width
    channel = tl.arange(0, channels)
    out_channel = tl.arange(0, out_channels)
    total = tl.zeros((block, out_channels), dtype=tl.float32)
    for tap in range(9):
        y = tl.load(offset_ptr + pixel.to(tl.int64) * 18 + 2 * tap, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(offset_ptr + pixel.to(tl.int64) * 18 + 2 * tap + 1, mask=inside, other=0.0).to(tl.float32)
        modulation = tl.load(mask_ptr + pixel.to(tl.int64) * 9 + tap, mask=inside, other=0.0).to(tl.float32)
        # more than one pixel outside, all samples are zero; clamping keeps the conversion to integers defined
        y = tl.minimum(tl.maximum(y + row + (tap // 3 - 1), -1.0), height * 1.0)
        x = tl.minimum(tl.maximum(x + column + (tap % 3 - 1), -1.0), width * 1.0)
        top = tl.floor(y)
        left = tl.floor(x)
        down = y - top
        right = x - left
        first_row = top.to(tl.int32)
        first_column = left.to(tl.int32)
        sample = tl.zeros((block, channels), dtype=tl.float32)
        for corner in range(4):
            corner_row = first_row + corner // 2
            corner_column = first_column + corner % 2
            share_y = tl.where(corner // 2 == 1, down, 1.0 - down)
            share_x = tl.where(corner % 2 == 1, right, 1.0 - right)
            valid = (corner_row >= 0) & (corner_row < height) & (corner_column >= 0) & (corner_column < width) & inside
            position = (image + corner_row * width + corner_column) * (groups * channels) + group * channels
            values = tl.load(x_ptr + position[:, None] + channel[None, :], mask=valid[:, None], other=0.0)
            sample += values.to(tl.float32) * (share_y * share_x * modulation)[:, None]
        weight = tl.load(weight_ptr + (tap * channels + channel[:, None]) * out_channels + out_channel[None, :])
        total = tl.dot(sample.to(weight.dtype), weight, total, input_precision="ieee")
    total += tl.load(bias_ptr + out_channel).to(tl.float32)[None, :]
    position = pixel.to(tl.int64) * (groups * out_channels) + group * out_channels
    tl.store(
        out_ptr + position[:, None] + out_channel[None, :],
        total.to(out_ptr.dtype.element_ty),
        mask=inside[:, None],
    )


def supports(weight: Tensor) -> bool:
    """Whether the kernel supports these channels (powers of two from 16 to 128)."""
    return weight.shape[1] in _SUPPORTED_CHANNELS and weight.shape[0] in _SUPPORTED_CHANNELS


def deform_conv3x3_triton(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Like :func:`stdnet_core.model.deform_conv.deform_conv3x3`, without gradients; returns channels_last."""
    n, channels, height, width = x.shape
    out_channels, in_channels = weight.shape[:2]
    groups = channels // in_channels

    def pixels_first(t: Tensor) -> Tensor:
        return t.permute(0, 2, 3, 1).contiguous()

    out = torch.empty((n, height, width, groups * out_channels), dtype=x.dtype, device=x.device)
    kernel = weight.permute(2, 3, 1, 0).to(x.dtype).contiguous()
    pixels = n * height * width
    _kernel[(triton.cdiv(pixels, _BLOCK), groups)](
        pixels_first(x),
        pixels_first(offset),
        pixels_first(mask),
        kernel,
        bias.to(x.dtype),
        out,
        height,
        width,
        pixels,
        groups=groups,
        channels=in_channels,
        out_channels=out_channels,
        block=_BLOCK,
    )
    return out.permute(0, 3, 1, 2)
