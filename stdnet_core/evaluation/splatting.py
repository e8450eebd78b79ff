"""Forward warping of depth by optical flow, with a z-buffer (used by the temporal metrics).

Every pixel of the earlier frame becomes a disc that moves along its flow; where discs overlap, the nearest depth
is seen. This is the renderer that the temporal end-point error (TEPE) of DVSR and of the paper is taken with: points
with discs in normalised device coordinates, in which the shorter side of an image spans 2. Its radius of 2/H is
1 pixel of an image that is at least as wide as high. In one that is higher than wide that renderer's disc would shrink
to W/H pixels and leave gaps; here it is 1 pixel in both, so that a video turned by 90 degrees keeps its figures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stdnet_core.errors import InputError

SPLAT_RADIUS = 1.0
"""Pixels; a disc covers the pixel centres that are nearer to its own centre than this: at 1 up to 2x2 pixels."""

RENDERER_CENTRE = 0.5
"""Where that renderer sees the centre of a pixel, beside the whole number at which the pixel's point lies: a point that
has not moved covers the four pixels around its corner."""


def forward_warp(
    depth: Tensor, flow: Tensor, valid: Tensor, radius: float = SPLAT_RADIUS, *, centre: float = RENDERER_CENTRE
) -> tuple[Tensor, Tensor]:
    """Move depth along the flow.

    Each of the K maps has its own z-buffer.

    Args:
        depth: (N, K, H, W), K depth maps of one scene that share flow and validity; any unit.
        flow: (N, 2, H, W), displacement (x, y) in pixels; pixels where it is not finite do not move anywhere.
        valid: (N, 1, H, W) bool, which pixels take part.
        radius: of the discs in pixels.
        centre: how much further than its point, on each axis, the centre of a pixel is; 0: a point that has not moved
            covers its own pixel alone.

    Returns:
        The warped depth (N, K, H, W), 0 where nothing arrived, and where something did (N, 1, H, W) bool.

    Raises:
        InputError: shapes do not fit.
    """
    n, k, height, width = depth.shape
    if flow.shape != (n, 2, height, width) or valid.shape != (n, 1, height, width):
        raise InputError(
            f"depth {tuple(depth.shape)} needs flow {(n, 2, height, width)} and validity {(n, 1, height, width)}, "
            f"got {tuple(flow.shape)} and {tuple(valid.shape)}"
        )
    taking_part = valid[:, 0] & flow.isfinite().all(1)  # (N, H, W)
    flow = flow.double().where(taking_part[:, None], flow.new_zeros((), dtype=torch.double))
    target_x = torch.arange(width, device=depth.device) - centre + flow[:, 0].clamp(-1e6, 1e6)
    target_y = torch.arange(height, device=depth.device)[:, None] - centre + flow[:, 1].clamp(-1e6, 1e6)
    left, top = target_x.floor(), target_y.floor()

    nowhere = height * width  # index of a bin that is thrown away
    values = depth.flatten(2)
    buffer = values.new_full((n, k, nowhere + 1), float("inf"))
    reach = math.ceil(radius)
    for dy in range(1 - reach, reach + 1):
        for dx in range(1 - reach, reach + 1):
            x, y = left + dx, top + dy
            covered = taking_part & ((x - target_x).square() + (y - target_y).square() < radius**2)
            covered &= (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = (y * width + x).where(covered, x.new_tensor(nowhere)).long()
            index = index.flatten(1)[:, None].expand(-1, k, -1)
            buffer.scatter_reduce_(2, index, values, "amin")
    warped = buffer[..., :nowhere].unflatten(2, (height, width))
    hit = (warped < float("inf")).any(1, keepdim=True)
    return warped.where(hit, warped.new_zeros(())), hit
