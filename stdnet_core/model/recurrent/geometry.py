"""Positions of depth pixels (cells) relative to colour pixels, for any ratio of their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

STRIDE = 4
"""Colour pixels per pixel of the working grid, on each axis."""
INVALID = -1e4
"""Logit of a candidate that must have no weight."""
_SIMILAR = 1 / 24  # standard deviation of colours on one surface, in guided filling
_LEAST_SIMILARITY = 1e-4
_ROUNDS_AT_16, _ROUNDS_AT_8, _ROUNDS_AT_4 = 10, 3, 1  # of averaging; at H/4 it takes longest
_UNREACHED = 1e-6  # weight of pixels to which no measured depth has spread yet, to that of those which have one


@dataclass(frozen=True)
class CellGeometry:
    """Cells of equal size that cover an image.

    Attributes:
        size: (H, W) of the image, multiples of :data:`STRIDE`. Beyond the cells, the last ones are replicated.
        cells: (h, w).
        ratio: size of a cell in pixels on each axis (rows, columns), at least 1, integer or not.
        device: of the indices.
    """

    size: tuple[int, int]
    cells: tuple[int, int]
    ratio: tuple[float, float]
    device: torch.device

    def _index(self, axis: int, step: int) -> Tensor:
        """Index of the cell that contains the centre of each block of ``step`` pixels, along an axis."""
        places = torch.arange(self.size[axis] // step, dtype=torch.float32, device=self.device)
        at = (places + 0.5) * (step / self.ratio[axis])
        return at.floor().long().clamp(0, self.cells[axis] - 1)

    @cached_property
    def pixel_index(self) -> tuple[Tensor, Tensor]:
        """Row and column of the cell that contains each pixel's centre."""
        return self._index(0, 1), self._index(1, 1)

    def take_blocks(self, depth: Tensor, moves: tuple[tuple[int, int], ...]) -> list[Tensor]:
        """Depth (N, 1, h, w) of the cell of each pixel, or of the cell that is some (rows, columns) away from it.

        For each of ``moves``: (N, 16, H/4, W/4), in the order of :func:`blocks`, maybe as an expanded view.

        Rows and columns are gathered in the order of the blocks, which is faster than reordering the image."""
        if self.whole_pixels:
            own = blocks(self._padded(depth))
            return [_moved(_moved(own, 0, row), 1, column) for row, column in moves]
        if all(ratio % STRIDE == 0 for ratio in self.ratio):  # one cell for all pixels of a block
            return [take(depth, self.working_index, *move).expand(-1, STRIDE * STRIDE, -1, -1) for move in moves]
        rows, columns = (index.unflatten(0, (-1, STRIDE)).T.flatten() for index in self.pixel_index)
        taken, gathered = [], {}
        for row, column in moves:
            if row not in gathered:
                gathered[row] = depth.index_select(-2, (rows + row).clamp(0, self.cells[0] - 1))
            image = gathered[row].index_select(-1, (columns + column).clamp(0, self.cells[1] - 1))
            image = image.unflatten(-1, (STRIDE, -1)).unflatten(-3, (STRIDE, -1))  # (N, 1, 4, H/4, 4, W/4)
            taken.append(image.transpose(-2, -3).flatten(1, 3))
        return taken

    @cached_property
    def working_index(self) -> tuple[Tensor, Tensor]:
        """Row and column of the cell that contains the centre of each pixel of the working grid."""
        return self._index(0, STRIDE), self._index(1, STRIDE)

    def working_place(self, axis: int) -> Tensor:
        """Offset of the centre of each pixel of the working grid from the centre of its cell, in cells."""
        places = torch.arange(self.size[axis] // STRIDE, dtype=torch.float32, device=self.device)
        at = (places + 0.5) * (STRIDE / self.ratio[axis])
        return (at - (self.working_index[axis] + 0.5)).clamp(-1, 1)

    def averaging(self, axis: int, step: int = STRIDE) -> Tensor:
        """(cells, pixels): weights that average blocks of ``step`` pixels over each cell, along an axis."""
        count = self.size[axis] // step
        width = self.ratio[axis] / step
        first = torch.arange(self.cells[axis], dtype=torch.float32, device=self.device)[:, None] * width
        pixel = torch.arange(count, dtype=torch.float32, device=self.device)[None]
        overlap = (torch.minimum(first + width, pixel + 1) - torch.maximum(first, pixel)).clamp(min=0)
        return overlap / overlap.sum(1, keepdim=True).clamp(min=1e-6)

    def average(self, image: Tensor, step: int = STRIDE) -> Tensor:
        """(N, C, H/step, W/step) averaged over the cells: (N, C, h, w)."""
        return torch.matmul(torch.matmul(self.averaging(0, step), image), self.averaging(1, step).T)

    @property
    def whole_pixels(self) -> bool:
        """Whether each colour pixel has its own cell (ratio 1)."""
        return self.ratio == (1.0, 1.0)

    def _padded(self, image: Tensor) -> Tensor:
        """(N, C, h, w) padded to the image's size by replication."""
        bottom, right = (length - cells for length, cells in zip(self.size, self.cells, strict=True))
        return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image

    def average_pixels(self, image: Tensor) -> Tensor:
        """(N, C, H, W) averaged over the cells: (N, C, h, w)."""
        if self.whole_pixels:
            return image[..., : self.cells[0], : self.cells[1]]
        return self.average(image, 1)

    def bilinear(self, depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (N, 1, h, w), bilinearly interpolated at the pixels from the valid ones of the four nearest cells.

        Returns:
            Depth, and the total weight of the valid cells, 0 to 1; (N, 1, H, W) each.
        """
        stacked = torch.cat((depth * valid, valid), 1)
        for axis in (0, 1):
            places = torch.arange(self.size[axis], dtype=torch.float32, device=self.device)
            at = ((places + 0.5) / self.ratio[axis] - 0.5).clamp(0, self.cells[axis] - 1)
            low = at.floor().long()
            high = (low + 1).clamp(max=self.cells[axis] - 1)
            fraction = at - low
            if axis == 0:
                fraction = fraction[:, None]
            first, second = stacked.index_select(2 + axis, low), stacked.index_select(2 + axis, high)
            stacked = first + (second - first) * fraction
        weighted, weight = stacked.chunk(2, 1)
        return weighted / weight.clamp(min=1e-6), weight


def take(image: Tensor, index: tuple[Tensor, Tensor], rows: int = 0, columns: int = 0) -> Tensor:
    """``image`` (N, C, h, w) at the cells of an index, shifted by whole cells; the border is replicated."""
    row = (index[0] + rows).clamp(0, image.shape[-2] - 1)
    column = (index[1] + columns).clamp(0, image.shape[-1] - 1)
    return image.index_select(-2, row).index_select(-1, column)


def neighbors(image: Tensor) -> list[Tensor]:
    """The 3x3 values around each pixel of (N, C, h, w), row by row, replicated at the border (views of one tensor)."""
    return _around(image, tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)))


def blocks(image: Tensor) -> Tensor:
    """The 16 pixels of each block as channels: (N, 1, H, W) -> (N, 16, H/4, W/4)."""
    return F.pixel_unshuffle(image, STRIDE)


def _moved(image: Tensor, axis: int, step: int) -> Tensor:
    """Shift an image in the layout of :func:`blocks` by -1, 0 or 1 pixel along an axis: each pixel takes the value of
    the one ``step`` farther on; the border is replicated."""
    if step == 0:
        return image
    pixels = image.unflatten(1, (STRIDE, STRIDE))
    inside, along = 1 + axis, 3 + axis
    count = pixels.shape[along]
    last = STRIDE - 1
    if step > 0:
        beyond = pixels.narrow(inside, 0, 1).narrow(along, 1, count - 1)
        edge = pixels.narrow(inside, last, 1).narrow(along, count - 1, 1)
        parts = [pixels.narrow(inside, 1, last), torch.cat((beyond, edge), along)]
    else:
        beyond = pixels.narrow(inside, last, 1).narrow(along, 0, count - 1)
        edge = pixels.narrow(inside, 0, 1).narrow(along, 0, 1)
        parts = [torch.cat((edge, beyond), along), pixels.narrow(inside, 0, last)]
    return torch.cat(parts, inside).flatten(1, 2)


def masked_mean(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the valid values over dimension 1, and the share of valid values."""
    share = valid.mean(1, keepdim=True)
    return (values * valid).mean(1, keepdim=True) / share.clamp(min=1e-6), share


def fill(depth: Tensor, share: Tensor, levels: int = 7) -> Tensor:
    """Fill holes of (N, 1, h, w) from a pyramid of means of the surroundings; ``share`` is 0 in holes.

    Each level has pixels twice as large. A hole takes the interpolated value of the finest level that has one."""
    means, shares = [depth], [share]
    while min(means[-1].shape[-2:]) > 1 and len(means) < levels:
        height, width = means[-1].shape[-2:]
        pad = (0, width % 2, 0, height % 2)
        weighted = F.avg_pool2d(F.pad(means[-1] * shares[-1], pad), 2)
        weight = F.avg_pool2d(F.pad(shares[-1], pad), 2)
        means.append(weighted / weight.clamp(min=1e-8))
        shares.append(weight)
    last = (means[-1] * shares[-1]).mean((-2, -1), keepdim=True)
    last = last / shares[-1].mean((-2, -1), keepdim=True).clamp(min=1e-8)
    filled = torch.where(shares[-1] > 1e-7, means[-1], last)
    for mean, weight in zip(means[-2::-1], shares[-2::-1], strict=True):
        coarse = F.interpolate(filled, scale_factor=2.0, mode="bilinear", align_corners=False)
        coarse = coarse[..., : mean.shape[-2], : mean.shape[-1]]
        filled = torch.where(weight > 1e-7, mean, coarse)
    return filled


def guided_fill(filled: Tensor, share: Tensor, colour: Tensor) -> Tensor:
    """Fill holes again, guided by colour, from H/16 to H/4, in inverse depth (which is linear in the image on planes).

    At H/16, measured depth spreads into holes pixel by pixel, on the way on which colours are most similar. On each
    finer level, a hole takes the mean of the four coarser pixels around it and then, a few times, that of the four
    pixels beside it, weighted by the similarity of colours. So a hole gets the depth of what borders on it and looks
    like it.

    Args:
        filled: (N, 1, h, w), what :func:`fill` returned; h and w are multiples of 4.
        share: (N, 1, h, w), 0 in holes.
        colour: (N, 3, h, w) in 0..1.

    Returns:
        (N, 2, h, w): depth; in the second, farther depth has more weight, because most holes are places that one of two
        views does not see behind a nearer surface. Outside holes, depth is unchanged.
    """
    inverse4, known4 = 1 / filled, (share > 0).to(filled.dtype)
    counts = known4 + 1e-4  # a coarser pixel without a measurement takes the mean of what lies in it
    inverse8, colour8 = (_weighted_pool(image, counts, 2) for image in (inverse4, colour))
    inverse16, colour16 = (_weighted_pool(image, counts, 4) for image in (inverse4, colour))
    own = F.avg_pool2d(colour, 4)
    # where there is a measurement, the colour of what was measured counts, not that of the rest
    coarse = _spread(inverse16.expand(-1, 2, -1, -1), F.max_pool2d(known4, 4), _similarity(_beside(colour16), own))
    for inverse, known, finer, rounds in (
        (inverse8, F.max_pool2d(known4, 2), colour8, _ROUNDS_AT_8),
        (inverse4, known4, colour, _ROUNDS_AT_4),
    ):
        # diagonally beside a pixel, with coarse pixels twice as large: the one it lies in and three on its side
        similarity = _similarity(_corners(_twice(own)), finer)
        coarse = torch.where(known > 0, inverse, _mean(_corners(_twice(_terms(coarse))), similarity))
        similarity = _similarity(_beside(finer), finer)
        for _ in range(rounds):
            coarse = torch.where(known > 0, inverse, _mean(_beside(_terms(coarse)), similarity))
        own = finer
    return torch.where(share > 0, filled, 1 / coarse)


def _weighted_pool(image: Tensor, weight: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(image * weight, size) / F.avg_pool2d(weight, size)


def _spread(inverse: Tensor, known: Tensor, similarity: Tensor) -> Tensor:
    """Let known inverse depth (N, 2, h, w) spread into holes, pixel by pixel. A pixel is reached, and then counts, as
    much as the similarity (N, 4, 1, h, w) along the best way there."""
    reached = known + (1 - known) * _UNREACHED
    for _ in range(_ROUNDS_AT_16):
        terms, around = _beside(torch.cat((_terms(inverse), reached), 1)).split((4, 1), 2)
        weights = similarity * around
        inverse = torch.where(known > 0, inverse, _mean(terms, weights))
        reached = torch.where(known > 0, known, weights.amax(1))
    return inverse


def _terms(inverse: Tensor) -> Tensor:
    """What two means of inverse depth (N, 2, h, w) sum up, (N, 4, h, w): values and weights of the first, in which all
    weights are 1, and of the second, in which they are the squared depth."""
    first, second = inverse.split(1, 1)
    depth = 1 / second.clamp(min=1e-4)
    return torch.cat((first, depth, torch.ones_like(first), depth.square()), 1)


def _mean(terms: Tensor, weights: Tensor) -> Tensor:
    """The two means, (N, 2, h, w), of :func:`_terms` (N, K, 4, h, w) with more weights, (N, K, 1, h, w)."""
    values, totals = (terms * weights).sum(1).split(2, 1)
    return values / totals


def _twice(image: Tensor) -> Tensor:
    """Each pixel as 2x2 pixels."""
    return F.interpolate(image, scale_factor=2.0, mode="nearest")


def _around(image: Tensor, places: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """Values some (rows, columns) of -1 to 1 away from each pixel of (N, C, h, w), replicated at the border (views of
    one tensor)."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return [padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width] for row, column in places]


def _corners(image: Tensor) -> Tensor:
    """The four values diagonally beside each pixel of (N, C, h, w): (N, 4, C, h, w)."""
    return torch.stack(_around(image, ((-1, -1), (-1, 1), (1, -1), (1, 1))), 1)


def _beside(image: Tensor) -> Tensor:
    """The four values beside each pixel of (N, C, h, w): (N, 4, C, h, w)."""
    return torch.stack(_around(image, ((-1, 0), (0, -1), (0, 1), (1, 0))), 1)


def _similarity(colours: Tensor, own: Tensor) -> Tensor:
    """Of several colours (N, K, 3, h, w) to one (N, 3, h, w): (N, K, 1, h, w), almost 0 to 1."""
    red, green, blue = (colours - own.unsqueeze(1)).square().split(1, 2)
    exponent = (red + green + blue) * (-0.5 / _SIMILAR**2)  # faster than a sum over channels
    return torch.exp(exponent.clamp(min=-20)) + _LEAST_SIMILARITY  # without denormal numbers, which are slow
