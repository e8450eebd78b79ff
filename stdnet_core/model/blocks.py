"""Residual building blocks shared by all parts of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, overload

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

M = TypeVar("M", bound=nn.Module)
LEAKY_SLOPE = 0.1
ATTENTION_REDUCTION = 16


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution with zero padding 1 and bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1)


def zero_bias(conv: nn.Conv2d) -> None:
    """Initialise the bias with zero."""
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def channels_last(module: M) -> M:
    """The module with its weights in the memory format channels_last, in which convolutions are fastest."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch


def leaky_relu() -> nn.LeakyReLU:
    """LeakyReLU 0.1."""
    return nn.LeakyReLU(LEAKY_SLOPE)


class ModuleListOf(nn.ModuleList, Generic[M]):
    """A module list that declares the type of its modules for type checkers."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[M]: ...
        @overload
        def __getitem__(self, index: slice) -> ModuleListOf[M]: ...
        @overload
        def __getitem__(self, index: int) -> M: ...
        def __getitem__(self, index: int | slice) -> M | ModuleListOf[M]: ...


class ResidualBlock(nn.Module):
    """x + conv3x3(ReLU(conv3x3(x))), initialised near the identity (Kaiming x 0.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)
            zero_bias(conv)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x)))


class ResidualBlocks(nn.Sequential):
    """RB(in, out, n): conv3x3, LeakyReLU 0.1, then n residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int) -> None:
        super().__init__(
            conv3x3(in_channels, out_channels),
            leaky_relu(),
            *(ResidualBlock(out_channels) for _ in range(blocks)),
        )


class ChannelAttention(nn.Module):
    """Scales each channel by a weight in 0..1 computed from all channels' global means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(1, channels // ATTENTION_REDUCTION)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))


class ChannelAttentionBlock(nn.Module):
    """RCAB: x + CA(conv3x3(LeakyReLU 0.2(conv3x3(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.conv2(nn.functional.leaky_relu(self.conv1(x), 0.2)))


class ResidualGroup(nn.Module):
    """RG(C, n): x + conv3x3(RCAB^n(x))."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ChannelAttentionBlock(channels) for _ in range(blocks)))
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.blocks(x))


class PixelShuffleUp(nn.Sequential):
    """conv3x3(in, 4 out), pixel shuffle 2, LeakyReLU 0.1: doubles height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        conv = conv3x3(in_channels, 4 * out_channels)
        nn.init.kaiming_normal_(conv.weight)
        zero_bias(conv)
        super().__init__(conv, nn.PixelShuffle(2), leaky_relu())
