"""Forward warping of depth by optical flow, with a z-buffer (used by the temporal metrics).

Every pixel of the earlier frame becomes a disc that moves along its flow; where discs overlap, the nearest depth
wins. This reproduces the renderer with which DVSR and the paper compute the temporal end-point error (TEPE): discs in
normalised device coordinates, in which the shorter side of an image spans 2. Its radius of 2/H is 1 pixel if the image
is at least as wide as high. In a portrait image, that renderer's disc would shrink to W/H pixels and leave gaps. Here
it is always 1 pixel, so that a video rotated by 90 degrees keeps its figures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stdnet_core.errors import InputError

SPLAT_RADIUS = 1.0
"""Pixels; a disc covers the pixel centres that are closer to its own centre than this, up to 2x2 pixels with 1."""

RENDERER_CENTRE = 0.5
"""That renderer assumes pixel centres at x.5 and points at integers, so that a point that has not moved covers the four
pixels around its corner."""


def forward_warp(
    depth: Tensor, flow: Tensor, valid: Tensor, radius: float = SPLAT_RADIUS, *, centre: float = RENDERER_CENTRE
) -> tuple[Tensor, Tensor]:
    """Move depth along the flow.

    Each of the K maps has its own z-buffer.

    Args:
        depth: (N, K, H, W), K depth maps of one scene that share flow and validity; any unit.
        flow: (N, 2, H, W), displacement (x, y) in pixels; pixels where it is not finite are ignored.
        valid: (N, 1, H, W) bool, which pixels are warped.
        radius: of the discs in pixels.
        centre: offset from a pixel's point to its centre, on each axis. 0: a point that has not moved covers only its
            own pixel.

    Returns:
        The warped depth (N, K, H, W), 0 where no disc arrived, and a mask (N, 1, H, W) bool of where one did.

    Raises:
        InputError: the shapes do not match.
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

    nowhere = height * width  # index of a bin that is discarded
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
