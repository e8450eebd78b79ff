"""Whether depth is registered to colour, and by how many pixels colour has to be shifted if not.

An edge of colour says where depth changes only if both are seen from the same place. Over a whole image and many frames
their edges tell: those of registered depth coincide best with those of colour where they are. If they coincide clearly
better with colour shifted by more than half a depth pixel, the network is given colour so shifted. Depth stays where
it was measured. But if they coincide with colour shifted from the middle of a depth pixel to its first corner, depth
was reduced by taking every k-th pixel: then the output is moved to where colour is. See docs/live_network.md."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stdnet_core.model.recurrent.geometry import STRIDE

_PITCH = 2  # pixels of the working grid between the shifts that are compared
_REACH = 4  # shifts on each side of the present place, on each axis
_SIDE = 2 * _REACH + 1
SUMS = _SIDE**2 + 2
"""Numbers that are remembered."""
NUMBERS = 5
"""Numbers that :func:`register` returns for the network."""
_DEPTH_EDGE, _COLOUR_EDGE = 0.1, 0.05  # change of log depth, and of colour, that counts as half an edge
_CERTAIN = 5.0  # strength of edges below which a correlation counts less
_CLEARLY = 0.02  # by how much a correlation must exceed those of the places where depth may have been measured
_ALIKE = 0.15  # correlation that a shift must reach; edges that have nothing in common stay below
_COARSE = 6.0  # ratio from which colour is shifted; in finer depth, parallax that remains does more harm
_COARSEST = 16.0  # ratio up to which it is; in coarser depth, edges tell too little
_BEYOND = 5.0  # pixels by which a shift must exceed half a depth pixel
_CORNER = 0.22  # depth pixels, on each axis, from the first corner to a shift that still means it
_CORNER_FROM = 8.0  # ratio from which the corner is told from the middle
_CLEARLY_CORNER = 0.07  # at twice that ratio: by how much the correlation with such a shift exceeds the one without


class Registration(NamedTuple):
    """How colour and depth lie to each other.

    Attributes:
        shift: whole pixels of colour (rows, columns), (N, 2): place y, x is to get the colour of y + rows, x + columns.
        sampling: the same if depth was sampled there, that is, at the first corner of its cells; otherwise 0, (N, 2).
        numbers: what the network is told, (N, 5): the correlation of the edges with colour so shifted, how much it
            exceeds the highest and the mean of the other shifts (the latter in standard deviations), how much there was
            to compare, and how far colour is shifted.
    """

    shift: Tensor
    sampling: Tensor
    numbers: Tensor


def edge_products(log_depth: Tensor, share: Tensor, colour: Tensor, ratio: float) -> Tensor:
    """How edges of depth coincide with those of colour, as both are and with colour shifted by up to 32 pixels, in
    steps of eight, on each axis.

    Args:
        log_depth: (N, 1, h, w) on the working grid.
        share: (N, 1, h, w), 0 where nothing was measured.
        colour: (N, 3, h, w).
        ratio: of the size of colour to that of depth.

    Returns:
        (N, 83): sums of the products at 9x9 shifts, row by row, and of the squares of both.
    """
    if ratio >= _COARSE:  # as blurred as depth is
        colour = F.avg_pool2d(F.pad(colour, (1,) * 4, mode="replicate"), 3, 1)
    if min(log_depth.shape[-2:]) < 2 + _PITCH:
        return log_depth.new_zeros(len(log_depth), SUMS)
    middle = slice(1, -1)

    def pairs(image: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(image[..., middle, 2:], image[..., middle, :-2]), (image[..., 2:, middle], image[..., :-2, middle])]

    def changes(image: Tensor, half: float) -> Tensor:
        change = torch.cat([(a - b).abs().mean(1, keepdim=True) for a, b in pairs(image)], 1)
        return change / (change + half)

    known = torch.cat([a * b for a, b in pairs((share > 0).to(log_depth.dtype))], 1)
    of_depth = F.avg_pool2d(changes(log_depth, _DEPTH_EDGE) * known, _PITCH)
    of_colour = F.avg_pool2d(changes(colour, _COLOUR_EDGE), _PITCH)
    known = F.avg_pool2d(known, _PITCH)
    # Only what exceeds the surroundings counts, otherwise edges lie anywhere in places that are rich in them.
    of_depth = of_depth - known * _around(of_depth) / _around(known).clamp(min=0.1)
    of_colour = of_colour - _around(of_colour)
    height, width = of_depth.shape[-2:]
    padded = F.pad(of_colour, (_REACH,) * 4)
    beside = torch.stack([padded[..., x : x + width] for x in range(_SIDE)], 1)
    rows = [(of_depth[:, None] * beside[..., y : y + height, :]).sum((2, 3, 4)) for y in range(_SIDE)]
    return torch.cat((*rows, _total(of_depth.square()), _total(of_colour.square() * known)), 1)


def may_shift(ratio: float) -> bool:
    """Whether colour is ever shifted, at this ratio of its size to that of depth."""
    return _COARSE <= ratio <= _COARSEST


def register(sums: Tensor, ratio: float) -> Registration:
    """How colour and depth lie to each other, from the sums of :func:`edge_products`.

    Where in its cell a depth pixel was measured is unknown (an average, or one of the pixels), so shifts of up to half
    a depth pixel mean nothing, except the one to the first corner, which comes from taking every k-th pixel."""
    products, of_depth, of_colour = sums.split((_SIDE**2, 1, 1), 1)
    correlations = products / ((of_depth * of_colour).clamp(min=0).sqrt() + _CERTAIN)
    highest, place = correlations.max(1, keepdim=True)
    step = STRIDE * _PITCH
    peak = step * torch.cat([_peak(correlations, place, stride) for stride in (_SIDE, 1)], 1)
    within = max(STRIDE, ratio / 2)  # pixels: half a depth pixel, at least one of the working grid
    near = min(_REACH, int(within / step))
    square = correlations.unflatten(1, (_SIDE, _SIDE))
    inner = slice(_REACH - near, _REACH + near + 1)
    unmoved = square[:, inner, inner].amax((1, 2))[:, None]
    clearly = _CLEARLY if may_shift(ratio) else math.inf
    far = peak.round().abs().amax(1, keepdim=True) > within + _BEYOND
    moved = far & (highest > _ALIKE) & (highest - unmoved > clearly)
    corner = math.floor(0.5 - ratio / 2)  # from the middle of a cell to its first pixel
    at_corner = (peak - corner).abs().amax(1, keepdim=True) < _CORNER * ratio
    clearly_corner = _CLEARLY_CORNER * (ratio / _CORNER_FROM - 1) if _CORNER_FROM <= ratio <= _COARSEST else math.inf
    at_corner = at_corner & (highest > _ALIKE) & (highest - square[:, _REACH, _REACH, None] >= clearly_corner)
    sampling = torch.where(at_corner, torch.full_like(peak, corner), torch.zeros_like(peak))
    shift = torch.where(moved, peak.round(), sampling)
    chosen = torch.where(moved | at_corner, place, torch.full_like(place, _SIDE**2 // 2))
    here = correlations.gather(1, chosen)
    is_chosen = torch.arange(_SIDE**2, device=sums.device)[None] == chosen
    count = _SIDE**2 - 1
    mean = (correlations.sum(1, keepdim=True) - here) / count
    others = torch.where(is_chosen, mean, correlations)  # the chosen one adds nothing to the deviation
    deviation = ((others - mean).square().sum(1, keepdim=True) / count).sqrt()
    excess = ((here - mean) / (deviation + 1e-3)).clamp(-4, 4)
    second = torch.where(is_chosen, torch.full_like(correlations, -1.0), correlations).amax(1, keepdim=True)
    distance = shift.abs().amax(1, keepdim=True) / (step * _REACH)
    numbers = (here, 3 * (here - second), 0.3 * excess, 0.1 * (1 + of_depth).log(), distance)
    return Registration(shift, sampling, torch.cat(numbers, 1))


def shifted(image: Tensor, shift: Tensor) -> Tensor:
    """``image`` (N, C, h, w) with at each place what was ``shift`` (N, 2) whole pixels (rows, columns) away; its border
    is repeated."""
    shift = shift.long()
    height, width = image.shape[-2:]
    rows = (torch.arange(height, device=image.device) + shift[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=image.device) + shift[:, 1:]).clamp(0, width - 1)
    moved = [
        one.index_select(1, row).index_select(2, column)
        for one, row, column in zip(image.unbind(), rows.unbind(), columns.unbind(), strict=True)
    ]
    return torch.stack(moved)


def _peak(correlations: Tensor, place: Tensor, stride: int) -> Tensor:
    """Place of the maximum on the axis of this stride, in steps from the middle: of the parabola through it and its two
    neighbours."""
    before, here, after = (
        correlations.gather(1, (place + offset).clamp(0, _SIDE**2 - 1)) for offset in (-stride, 0, stride)
    )
    curve = before - 2 * here + after
    step = place // stride % _SIDE
    inside = (step > 0) & (step < _SIDE - 1) & (curve < -1e-9)
    offset = torch.where(inside, 0.5 * (before - after) / curve.clamp(max=-1e-9), torch.zeros_like(here))
    return step - _REACH + offset


def _around(image: Tensor) -> Tensor:
    """Mean of the 9x9 places around each."""
    return F.avg_pool2d(image, 9, 1, 4, count_include_pad=False)


def _total(image: Tensor) -> Tensor:
    """Sum over channels and pixels, (N, 1)."""
    return image.sum((1, 2, 3))[:, None]
