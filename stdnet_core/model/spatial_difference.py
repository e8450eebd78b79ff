"""Spatial difference branch (paper: "Spatial Difference Branch", eq. 1-4, fig. 4a).

RGB features enter the depth features where the depth features differ from their blurred version."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stdnet_core.model.blocks import ResidualGroup, conv3x3, leaky_relu


class SpatialFeatures(NamedTuple):
    """Output of the spatial branch, each (N, C, h, w) on the working grid."""

    fused: Tensor
    weight: Tensor
    sigma: Tensor


def spatial_difference(features: Tensor) -> Tensor:
    """sigma = |F - up(down(F))| (eq. 1), bilinear, halved to floor(h/2) x floor(w/2) but at least 1."""
    size = features.shape[-2:]
    half = tuple(max(1, n // 2) for n in size)
    down = F.interpolate(features, size=half, mode="bilinear", align_corners=False)
    return (features - F.interpolate(down, size=size, mode="bilinear", align_corners=False)).abs()


def filter_3x3(features: Tensor, kernels: Tensor) -> Tensor:
    """Filter every pixel and channel with its own 3x3 kernel (cross-correlation, zero padding).

    Args:
        features: (N, C, h, w).
        kernels: (N, 9 C, h, w), taps row by row, with all channels of a tap together.
    """
    height, width = features.shape[-2:]
    padded = F.pad(features, (1, 1, 1, 1))
    first, *others = kernels.chunk(9, 1)
    out = first * padded[..., :height, :width]
    for tap, kernel in enumerate(others, 1):
        row, column = divmod(tap, 3)
        out = torch.addcmul(out, kernel, padded[..., row : row + height, column : column + width])
    return out


class KernelGenerator(nn.Module):
    """Spatially varying 3x3 kernels from the spatial difference (eq. 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = conv3x3(channels, channels)
        self.group = ResidualGroup(channels, 1)
        self.activation = leaky_relu()
        self.conv = nn.Conv2d(channels, 9 * channels, 1)

    def forward(self, sigma: Tensor) -> Tensor:
        """sigma (N, C, h, w) -> kernels (N, 9 C, h, w) for :func:`filter_3x3`."""
        encoded = self.activation(self.group(self.encoder(sigma)))
        # released parameters keep a channel's nine taps together; filtering is faster with a tap's channels together
        weight = self.conv.weight.unflatten(0, (-1, 9)).transpose(0, 1).flatten(0, 1)
        assert self.conv.bias is not None
        bias = self.conv.bias.unflatten(0, (-1, 9)).transpose(0, 1).flatten()
        return F.conv2d(encoded, weight, bias)


class SpatialDifference(nn.Module):
    """Calibrates depth features with RGB features, guided by the spatial difference (eq. 1-4).

    Args:
        channels: C.
        fusion: "release": [F_d, w F_r + beta F^_r]; "paper": [F_d, w F_r, F^_r].
    """

    def __init__(self, channels: int, fusion: str) -> None:
        super().__init__()
        self.kernel_generator = KernelGenerator(channels)
        self.weight_conv = conv3x3(2, channels)
        width = 2 * channels if fusion == "release" else 3 * channels
        self.fusion_group = ResidualGroup(width, 1)
        self.fusion_conv = nn.Conv2d(width, channels, 1)
        self.beta = nn.Parameter(torch.tensor([0.1])) if fusion == "release" else None

    def forward(self, depth_features: Tensor, rgb_features: Tensor) -> SpatialFeatures:
        """F_d, F_r (N, C, h, w) -> fused features, weight w (eq. 3) and sigma (eq. 1)."""
        sigma = spatial_difference(depth_features)
        filtered = filter_3x3(rgb_features, self.kernel_generator(sigma))
        pooled = torch.cat((sigma.mean(1, keepdim=True), sigma.amax(1, keepdim=True)), 1)
        weight = torch.sigmoid(self.weight_conv(pooled))
        weighted = weight * rgb_features
        if self.beta is not None:
            merged = torch.cat((depth_features, weighted + self.beta * filtered), 1)
        else:
            merged = torch.cat((depth_features, weighted, filtered), 1)
        return SpatialFeatures(self.fusion_conv(self.fusion_group(merged)), weight, sigma)


class SpatialConcatenation(nn.Module):
    """Ablation of :class:`SpatialDifference` (fig. 9): RGB and depth features are concatenated, w is 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fusion_group = ResidualGroup(2 * channels, 1)
        self.fusion_conv = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, depth_features: Tensor, rgb_features: Tensor) -> SpatialFeatures:
        """F_d, F_r (N, C, h, w) -> fused features, ones, and sigma of F_d (unused by the network)."""
        fused = self.fusion_conv(self.fusion_group(torch.cat((depth_features, rgb_features), 1)))
        return SpatialFeatures(fused, torch.ones_like(rgb_features), spatial_difference(depth_features))
