"""Temporal difference module (paper: "Temporal Difference", eq. 7, fig. 5a): one current frame, one neighbour.

The difference of the two frames' features predicts where the neighbour's depth and RGB features are sampled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stdnet_core.model.blocks import ResidualGroup, conv3x3, leaky_relu, zero_bias
from stdnet_core.model.deform_conv import TAPS, DeformConv3x3


class TemporalDifference(nn.Module):
    """M(current, neighbour, difference, neighbour's RGB, weight) -> refined features of the current frame.

    Args:
        channels: C.
        blocks: channel-attention blocks of the final residual group.
        max_offset: bound of the offsets in pixels (by tanh); None: no bound.
    """

    def __init__(self, channels: int, blocks: int, max_offset: float | None) -> None:
        super().__init__()
        self.max_offset = max_offset
        self.difference_conv = conv3x3(channels, channels)
        self.difference_fusion = nn.Conv2d(2 * channels, channels, 1)
        self.offset_mask_conv = conv3x3(channels, 3 * TAPS)
        nn.init.zeros_(self.offset_mask_conv.weight)
        zero_bias(self.offset_mask_conv)
        self.deform_conv = DeformConv3x3(channels)
        self.activation = leaky_relu()
        self.aligned_conv = conv3x3(channels, channels)
        self.fusion_group = ResidualGroup(3 * channels, blocks)
        self.fusion_conv = nn.Conv2d(3 * channels, channels, 1)

    def forward(
        self, current: Tensor, neighbor: Tensor, difference: Tensor, neighbor_rgb: Tensor, weight: Tensor
    ) -> Tensor:
        """All arguments (N, C, h, w); ``weight`` is that of the current frame (eq. 3)."""
        encoded = self.difference_fusion(torch.cat((current, self.difference_conv(difference)), 1))
        offset, mask = self.offset_mask_conv(encoded).split((2 * TAPS, TAPS), 1)
        if self.max_offset is not None:
            offset = self.max_offset * torch.tanh(offset / self.max_offset)
        mask = torch.sigmoid(mask)
        both = self.deform_conv(torch.cat((neighbor, neighbor_rgb), 1), offset, mask)
        aligned, aligned_rgb = both.chunk(2, 1)
        aligned = self.aligned_conv(self.activation(aligned))
        return self.fusion_conv(self.fusion_group(torch.cat((current, aligned, weight * aligned_rgb), 1)))


class TemporalConcatenation(nn.Module):
    """Ablation of :class:`TemporalDifference` (fig. 9): current and neighbour are concatenated without alignment."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.fusion_group = ResidualGroup(3 * channels, blocks)
        self.fusion_conv = nn.Conv2d(3 * channels, channels, 1)

    def forward(
        self, current: Tensor, neighbor: Tensor, difference: Tensor, neighbor_rgb: Tensor, weight: Tensor
    ) -> Tensor:
        """See :meth:`TemporalDifference.forward`; ``difference`` is not used, ``weight`` scales the RGB features."""
        merged = torch.cat((current, neighbor, weight * neighbor_rgb), 1)
        return self.fusion_conv(self.fusion_group(merged))
