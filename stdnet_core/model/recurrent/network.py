"""The recurrent network: any depth camera, causal, one state carried from frame to frame.

It uses the spatial and temporal differences of the paper (eq. 1 and 5) in a compact form. Features are on the working
grid (H/4), at H/8 and at H/16. The previous state is aligned by optical flow; the temporal difference is taken between
its features and those of this frame. The output is a weighted mean of depths that were measured or known before. So it
can exceed the range of the depths around a pixel by at most a share of the local spread. See docs/live_network.md."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stdnet_core.errors import InputError
from stdnet_core.model.blocks import ModuleListOf, ResidualBlock, conv3x3, zero_bias
from stdnet_core.model.recurrent.config import RecurrentConfig
from stdnet_core.model.recurrent.geometry import (
    INVALID,
    STRIDE,
    CellGeometry,
    blocks,
    fill,
    guided_fill,
    masked_mean,
    neighbors,
    take,
)
from stdnet_core.model.recurrent.registration import NUMBERS, SUMS, edge_products, may_shift, register, shifted
from stdnet_core.short_repr import network_repr, short_repr

MULTIPLE = 16
"""The height and width of the network's input must be multiples of this."""
_CELL = 4.0  # ratio from which the candidates of the coarse estimate are the depth pixels themselves
_COARSE = 17  # candidates of the coarse estimate
_FINE = 17  # candidates of the fine estimate
_SEEN = 5  # further input channels of the fine estimate
_FINE_PRIORS = (0.3, -4.0, -4.0, -4.0, -4.0, 0.0, -1.0, 0.3)  # own, 4 beside, interpolated, previous, mean
_FILLED_PRIOR = 3.0  # logit of depth filled along colour, in holes
_AGING = 2  # the last candidates, whose weight grows with the evidence
_BESIDE = ((0, 0), (0, -1), (-1, 0), (1, 0), (0, 1))  # cells whose measurements are candidates of a pixel
_LEAST = 1e-3  # metres
_DISTANCES = 0.5, 2.0  # log of metres, the limits of what is told of distance: few scenes of training are beyond
_RESET = 0.1  # relative difference from the running mean from which a measurement replaces it
_CONTRADICTS = 0.05  # relative standard deviation of the previous depth from a pixel's own measurement
_KEPT = 3.0  # initial logit of the share of the evidence that is kept for the next frame
_MOST_EVIDENCE = 15.0  # limit, so that a new frame always counts a little
_ROUGH = 0.01  # second difference of inverse depth, in its own units, that counts as strong noise
_BAND = 19200  # pixels of the working grid refined at a time (all at 640x480); limits memory of larger images
_BLANK = 0.02  # contrast of colour up to which nothing is seen: darkness, a covered or overexposed camera
# Change of colour from which nothing of the past is used; at most 0.3 in a video, and at least 0.7 at a cut.
_CUT = 0.5
_NOISE_OF_COLOUR = 0.02  # deviation of colour that may be noise alone
_MOST_EXPOSURE = 2.0  # factor by which colour may become brighter or darker from frame to frame
_MOTION = 8.0  # so that a motion of an eighth of a pixel differs from none
_LEAST_LOGIT = -40.0  # below the highest; smaller weights would be denormal numbers, which are slow
_PRIOR_SIGMA = 0.6  # of the spatial part of joint bilateral upsampling, in cells
_COLOUR_STRENGTH = 50.0  # of its colour part: 1 / (2 * 0.1^2)
_REMEMBERED = 0.95  # share of the registration's sums that is kept for the next frame
_RANGE_STRENGTH = 8.0  # of the part that compares with the pixel's own measurement: 1 / (2 * 0.25^2)


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """``size`` (H, W), rounded up to multiples of :data:`MULTIPLE`."""
    height, width = (-(-length // MULTIPLE) * MULTIPLE for length in size)
    return height, width


@dataclass(frozen=True)
class RecurrentState:
    """What is remembered from one frame to the next.

    Attributes:
        depth: output (N, 1, H, W) in metres, where the camera measured it; 0 everywhere before the first frame.
        mean: running mean of the measurements of each pixel's cell (N, 1, H, W) in metres; 0 without measurements.
        rgb: mean colour on the working grid (N, 3, H/4, W/4), shifted like the frame's.
        evidence: number of frames whose measurements support the depth (N, 1, H/4, W/4), less what was forgotten.
        hidden: features (N, C, H/8, W/8).
        registration: how well edges of depth and colour match, in sums over past frames (N, 83), see
            :func:`stdnet_core.model.recurrent.registration.edge_products`.
    """

    depth: Tensor
    mean: Tensor
    rgb: Tensor
    evidence: Tensor
    hidden: Tensor
    registration: Tensor

    __repr__ = short_repr


@dataclass(frozen=True)
class RecurrentOutput:
    """Output for a frame, or for a clip with one more dimension, (N, T, ...).

    Attributes:
        depth: (N, 1, H, W) metres.
        log_scale: logarithm of the scale (metres) of the Laplace distribution of the error, (N, 1, H, W).
    """

    depth: Tensor
    log_scale: Tensor

    __repr__ = short_repr


def squash(ratio: Tensor) -> Tensor:
    """Compress relative differences of 0.1 % to 100 % to similar magnitudes; the sign is kept."""
    size = (200.0 * ratio).abs()
    return torch.sign(ratio) * (size + (size.square() + 1).sqrt()).log() * 0.33  # asinh, but faster


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


class RecurrentNet(nn.Module):
    """The network; :meth:`step` processes one frame."""

    __repr__ = network_repr

    def __init__(self, config: RecurrentConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RecurrentConfig()
        c4, c8, c16 = config.channels, config.channels_8, config.channels_16
        self.stem = nn.Conv2d(self.inputs, 2 * c4, 1)
        self.stem2 = conv3x3(2 * c4, c4)
        self.encode4 = ResidualBlock(c4)
        self.down8 = conv3x3(c4, c8, 2)
        self.merge8 = nn.Conv2d(4 * c8, c8, 1)
        self.encode8: ModuleListOf[ResidualBlock] = ModuleListOf(ResidualBlock(c8) for _ in range(config.blocks))
        self.down16 = conv3x3(c8, c16, 2)
        self.encode16: ModuleListOf[ResidualBlock] = ModuleListOf(ResidualBlock(c16) for _ in range(config.blocks))
        self.context = nn.Linear(c16, c16)
        self.up8 = nn.Conv2d(c16, c8, 1)
        self.decode8 = ResidualBlock(c8)
        self.gate = nn.Conv2d(2 * c8, c8, 1)
        self.up4 = nn.Conv2d(c8, c4, 1)
        self.decode4 = ResidualBlock(c4)
        # coarse: logits of the candidates, strength of colour, residual, two gains of the innovation, evidence kept
        self.coarse_head = conv3x3(c4, _COARSE + 5)
        # fine: logits of the candidates and the error's scale for each of 16 pixels, strength of colour and of range
        self.refine = conv3x3(c4 + _SEEN, 2 * c4)
        self.fine_head = nn.Conv2d(2 * c4, 16 * (_FINE + 1), 1)
        self.colour_head = nn.Conv2d(2 * c4, 1, 1)
        self.range_head = nn.Conv2d(2 * c4, 1, 1)
        for head in (self.coarse_head, self.fine_head, self.colour_head, self.range_head):
            nn.init.zeros_(head.weight)
            zero_bias(head)
        with torch.no_grad():
            _bias(self.fine_head)[16 * _FINE :] = -3.0

    inputs = 48 + 32 + 3 + 4 + 3 + 3 + 16 + 3 + 2 + 1 + 16 + 1 + 2 + NUMBERS + 2
    """Input channels: colour; measurements and their validity; differences of depth to coarser means; farthest and
    nearest depth; place in the cell and ratio; density and distance; the previous depth; how well it fits; noise;
    evidence; running mean; noise over the frame in another form; motion; registration; holes filled along colour."""

    def start(self, rgb: Tensor) -> RecurrentState:
        """The state before the first frame of (N, 3, H, W)."""
        n, _, height, width = rgb.shape
        c8 = self.config.channels_8
        return RecurrentState(
            rgb.new_zeros(n, 1, height, width),
            rgb.new_zeros(n, 1, height, width),
            rgb.new_zeros(n, 3, height // STRIDE, width // STRIDE),
            rgb.new_zeros(n, 1, height // STRIDE, width // STRIDE),
            rgb.new_zeros(n, c8, height // 8, width // 8),
            rgb.new_zeros(n, SUMS),
        )

    def forward(self, rgb: Tensor, depth: Tensor, flow: Tensor, ratio: tuple[float, float]) -> RecurrentOutput:
        """A clip from its beginning, frame by frame.

        Args:
            rgb: (N, T, 3, H, W) in 0..1; H and W multiples of 16.
            depth: (N, T, 1, h, w) metres, 0 invalid.
            flow: (N, T, 2, H/4, W/4), see :meth:`step`; the first frame's is not used.
            ratio: pixels of a cell of depth on each axis (rows, columns).

        Raises:
            InputError: shapes do not fit each other.
        """
        state, outputs = self.start(rgb[:, 0]), []
        for frame in range(rgb.shape[1]):
            output, state = self.step(rgb[:, frame], depth[:, frame], flow[:, frame], state, ratio)
            outputs.append(output)
        depths, scales = zip(*((o.depth, o.log_scale) for o in outputs), strict=True)
        return RecurrentOutput(torch.stack(depths, 1), torch.stack(scales, 1))

    def step(
        self, rgb: Tensor, depth: Tensor, flow: Tensor, state: RecurrentState, ratio: tuple[float, float]
    ) -> tuple[RecurrentOutput, RecurrentState]:
        """The next frame.

        Args:
            rgb: (N, 3, H, W) in 0..1; H and W multiples of 16.
            depth: (N, 1, h, w) metres, 0 invalid.
            flow: (N, 2, H/4, W/4) pixels (x, y) of the image: from each place of this frame to where it was before.
            state: of the frame before.
            ratio: pixels of a cell of depth on each axis (rows, columns).

        Raises:
            InputError: shapes do not fit each other.
        """
        _check(rgb, depth, flow, ratio)
        (height, width), (rows, columns) = rgb.shape[-2:], depth.shape[-2:]
        geometry = CellGeometry((height, width), (rows, columns), ratio, rgb.device)
        valid = (depth > 0).to(rgb.dtype)
        measured, *native = geometry.take_blocks(depth, _BESIDE)
        is_measured = (measured > 0).to(rgb.dtype)
        if geometry.whole_pixels:
            smooth, smooth_weight = measured, is_measured
        else:
            smooth, smooth_weight = map(blocks, geometry.bilinear(depth, valid))
        coarse_ratio = min(ratio)
        if coarse_ratio < _CELL:
            base, share = masked_mean(measured, is_measured)
        else:
            base, share = masked_mean(smooth, smooth_weight)
        base = fill(base, share).clamp(min=_LEAST)

        # Colour of depth that is not registered to it is shifted to where their edges coincide.
        own_rgb4 = F.avg_pool2d(rgb, STRIDE)
        edges = edge_products(base.log().detach(), share, own_rgb4, coarse_ratio)
        registration = _REMEMBERED * state.registration + edges
        placed = register(registration, coarse_ratio)
        if may_shift(coarse_ratio):
            rgb, flow = shifted(rgb, placed.shift), shifted(flow, (placed.shift / STRIDE).round())
        rgb_blocks = F.pixel_unshuffle(rgb, STRIDE)
        rgb4 = F.avg_pool2d(rgb, STRIDE) if may_shift(coarse_ratio) else own_rgb4
        if coarse_ratio < _CELL:
            grey = F.pixel_shuffle(rgb_blocks.unflatten(1, (3, 16)).mean(1), STRIDE)
            grey_of_cells = geometry.average_pixels(grey)
        else:
            grey_of_cells = geometry.average(rgb4.mean(1, keepdim=True))

        # Align the state with this frame. Where all of an image looks the same, its flow means nothing, and where
        # nothing looks as before, there is no past.
        aligned, inside = self._warp(torch.cat((state.rgb, state.evidence), 1), flow, 1)
        aligned, evidence = aligned.split((3, 1), 1)
        outside = _outside(rgb4, aligned * _exposure(rgb4, aligned, inside))
        contrast = own_rgb4.amax((-2, -1), keepdim=True) - own_rgb4.amin((-2, -1), keepdim=True)
        goes_on = (contrast.amax(1, keepdim=True) > _BLANK) & (_change(rgb4, outside, inside) < _CUT)
        goes_on = goes_on.to(rgb.dtype)
        full = torch.cat((state.depth, state.mean, (state.mean > 0).to(rgb.dtype)), 1)
        warped, known = self._warp(full, flow, STRIDE)
        warped_blocks, warped_mean, mean_known = map(blocks, warped.split(1, 1))
        known = goes_on * blocks(known)
        mean_known = known * mean_known
        known = (known * (warped_blocks > 0)).to(rgb.dtype)
        hidden, _ = self._warp(goes_on * state.hidden, F.avg_pool2d(flow, 2), 0.5)
        previous, previous_share = masked_mean(warped_blocks, known)
        previous = torch.where(previous_share > 0, previous, base)
        evidence = evidence * previous_share
        mean, kept = _running_mean(measured, is_measured, warped_mean, mean_known, 1 / (1 + evidence))
        has_mean = (mean > 0).to(rgb.dtype)
        # A frame without any measurement continues from the previous depth.
        base = torch.where(share.amax((-2, -1), keepdim=True) > 0, base, previous)
        both = known * is_measured
        log_base = base.log()
        log_measured = measured.clamp(min=_LEAST).log() - log_base
        log_previous = warped_blocks.clamp(min=_LEAST).log() - log_base
        innovation, innovation_share = masked_mean((log_measured - log_previous).clamp(-0.2, 0.2), both)
        around = _mean5(innovation * innovation_share) / _mean5(innovation_share).clamp(min=1e-6)
        photometric = outside * (previous_share > 0)

        far5, near5, far17, near17 = _extremes(base, (share > 0).to(rgb.dtype))
        in_hole = ((share <= 0) & (share.amax((-2, -1), keepdim=True) > 0)).expand(-1, 2, -1, -1)
        filled = torch.where(in_hole, guided_fill(base, share, rgb4), base)

        noise = self._noise(depth, valid, geometry)
        differences = [log_base - _upsample(F.avg_pool2d(log_base, k, ceil_mode=True), base) for k in (2, 4, 8)]
        others = torch.cat((far5, near5, far17, near17, filled), 1).clamp(min=_LEAST).log() - log_base
        squashed = squash(torch.cat((*differences, others), 1))
        inputs = torch.cat(
            (
                rgb_blocks - 0.5,
                squash(log_measured) * is_measured,
                is_measured,
                squashed[:, :7],
                *self._place(geometry, base, ratio),
                share,
                F.avg_pool2d(share, 9, 1, 4),
                log_base.clamp(*_DISTANCES) * 0.33,
                squash(log_previous) * known,
                previous_share,
                squash(innovation) * innovation_share,
                photometric * 4,
                *noise[:2],
                (1 + evidence).log() * 0.5,
                squash(mean.clamp(min=_LEAST).log() - log_base) * has_mean,
                noise[2],
                *_motion(flow, previous_share),
                placed.numbers[..., None, None].expand(-1, -1, *base.shape[-2:]),
                squashed[:, 7:],
            ),
            1,
        )
        features4, features8 = self._trunk(inputs, hidden)

        # The coarse estimate.
        head = self.coarse_head(features4).float()
        logits, strength, residual, gain, gain_around, keep = head.split((_COARSE, 1, 1, 1, 1, 1), 1)
        gain = (gain + 1 / (1 + evidence)).clamp(0, 1)  # of a running mean, plus a learned part
        correction = gain * innovation + gain_around.clamp(-1, 1) * (around - innovation)
        correction = correction.exp()
        cells, prior = self._cells(depth, valid, base, share, geometry, rgb4, strength)
        previous_fits = torch.where(previous_share > 0, 0.0, INVALID)
        candidates = torch.cat((cells, base, previous * correction, far5, near5, far17, near17, filled), 1)
        fixed = torch.full_like(base, -1.0), previous_fits - 2.0, *(torch.full_like(base, -6.0) for _ in range(4))
        extra = torch.cat((*fixed, torch.where(in_hole, _FILLED_PRIOR, INVALID)), 1)
        weights = torch.softmax(logits + torch.cat((prior, extra), 1), 1)
        coarse = (weights * candidates).sum(1, keepdim=True)
        spread = (far5 - near5).clamp(min=0) + 0.002 * base
        coarse = (coarse + 0.25 * torch.tanh(residual) * spread).clamp(min=_LEAST)

        fine, log_scale = self._fine(
            features4, coarse, measured, is_measured, smooth, smooth_weight, native,
            warped_blocks * correction, known, mean, has_mean, evidence, kept, rgb_blocks, rgb4,
            geometry.take_blocks(grey_of_cells, _BESIDE), coarse_ratio < _CELL,
        )  # fmt: skip
        fine, log_scale = F.pixel_shuffle(fine, STRIDE), F.pixel_shuffle(log_scale, STRIDE)
        output = RecurrentOutput(fine, log_scale)
        if may_shift(coarse_ratio):
            moved = shifted(torch.cat((fine, log_scale), 1), -placed.sampling)
            output = RecurrentOutput(*moved.split(1, 1))
        evidence = (torch.sigmoid(_KEPT + keep) * evidence + share).clamp(max=_MOST_EVIDENCE)
        mean = F.pixel_shuffle(mean, STRIDE)
        return output, RecurrentState(fine, mean, rgb4, evidence.to(rgb.dtype), features8, registration.to(rgb.dtype))

    def _trunk(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        act = F.leaky_relu
        matrix, bias = self.stem.weight.flatten(1), _bias(self.stem)[:, None]
        products = [torch.addmm(bias, matrix, one) for one in inputs.flatten(2)]
        # as fast as a convolution that reorders first
        first = torch.stack(products) if len(products) > 1 else products[0][None]
        x = act(self.stem2(act(first.unflatten(2, inputs.shape[-2:]), 0.1)), 0.1)
        x4 = _residual(self.encode4, x)
        x8 = act(self.down8(x4), 0.1)
        # Spatial and temporal differences (eq. 1 and 5).
        sigma = (x8 - _upsample(F.avg_pool2d(x8, 2, ceil_mode=True), x8)).abs()
        phi = (x8 - hidden).abs() if self.config.temporal_difference else torch.zeros_like(x8)
        x8 = act(self.merge8(torch.cat((x8, sigma, hidden, phi), 1)), 0.1)
        for block in self.encode8:
            x8 = _residual(block, x8)
        x16 = act(self.down16(_normalized(x8)), 0.1)
        for block in self.encode16:
            x16 = _residual(block, x16)
        x16 = _normalized(x16)
        x16 = x16 + self.context(x16.mean((-2, -1)))[..., None, None]
        x8 = _normalized(_residual(self.decode8, _normalized(x8) + _upsample(self.up8(x16), x8)))
        gate = torch.sigmoid(self.gate(torch.cat((x8, hidden), 1)))
        x8 = hidden + gate * (x8 - hidden)
        x4 = _residual(self.decode4, x4 + _upsample(self.up4(x8), x4))
        return x4, x8

    @staticmethod
    def _warp(image: Tensor, flow: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """``image`` aligned with this frame, and where its source was inside; ``factor``: its pixels per flow pixel."""
        height, width = image.shape[-2:]
        if factor == STRIDE:
            flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
        y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
        x = torch.arange(width, dtype=flow.dtype, device=flow.device)[None]
        unit = STRIDE / factor if factor != STRIDE else 1.0  # image pixels in one of ``image``
        at_x = (x + flow[:, 0] / unit + 0.5) * (2.0 / width) - 1.0
        at_y = (y + flow[:, 1] / unit + 0.5) * (2.0 / height) - 1.0
        grid = torch.stack((at_x, at_y), 1).permute(0, 2, 3, 1)  # along the last axis, OpenVINO is ten times slower
        inside = ((at_x.abs() < 1) & (at_y.abs() < 1)).unsqueeze(1)
        warped = F.grid_sample(image, grid.to(image.dtype), mode="bilinear", padding_mode="border", align_corners=False)
        return warped, inside.to(image.dtype)

    @staticmethod
    def _place(geometry: CellGeometry, like: Tensor, ratio: tuple[float, float]) -> list[Tensor]:
        row = geometry.working_place(0)[None, None, :, None].expand_as(like)
        column = geometry.working_place(1)[None, None, None, :].expand_as(like)
        size = torch.log2(torch.full_like(like, min(ratio))) * 0.33
        return [row, column, size]

    @staticmethod
    def _noise(depth: Tensor, valid: Tensor, geometry: CellGeometry) -> list[Tensor]:
        """How rough measured depth is, around each pixel and over the frame: logarithms of mean second differences of
        inverse depth, which are 0 on a plane, and over the frame the mean logarithm, which tells strong noise from
        edges; (N, 1, H/4, W/4) each."""
        inverse = valid / depth.clamp(min=_LEAST)
        rough, known = [], []
        for axis in (-1, -2):
            if depth.shape[axis] < 3:
                rough.append(torch.full_like(depth, 1.0))
                known.append(torch.zeros_like(depth))
                continue
            n = depth.shape[axis] - 2
            parts = [inverse.narrow(axis, i, n) for i in range(3)]
            ok = valid.narrow(axis, 0, n) * valid.narrow(axis, 1, n) * valid.narrow(axis, 2, n)
            second = (parts[0] - 2 * parts[1] + parts[2]).abs() / parts[1].clamp(min=1e-6)
            pad = (1, 1, 0, 0) if axis == -1 else (0, 0, 1, 1)
            rough.append(F.pad(torch.where(ok > 0, second.clamp(max=1.0), torch.ones_like(second)), pad, value=1.0))
            known.append(F.pad(ok, pad))
        least, some = torch.minimum(*rough), torch.maximum(*known)
        capped = least.clamp(max=_ROUGH) * some  # an edge counts no more than strong noise
        overall = capped.sum((-2, -1), keepdim=True) / some.sum((-2, -1), keepdim=True).clamp(min=1)
        if geometry.whole_pixels and geometry.size == geometry.cells:  # the same, but only at the pixels that are used
            means = [F.avg_pool2d(F.pad(image, (0, 1, 0, 1)), 5, STRIDE) for image in (capped, some)]
        else:
            means = [take(_mean5(image), geometry.working_index) for image in (capped, some)]
        around = means[0] / means[1].clamp(min=1e-3)
        levels = [(level + 1e-5).log() * 0.35 + 2.5 for level in (around, overall.expand_as(around))]
        rough_here, known_here = least[..., ::2, ::2], some[..., ::2, ::2]
        logs = ((rough_here + 1e-5).log() * known_here).sum((-2, -1), keepdim=True)
        mean_log = logs / known_here.sum((-2, -1), keepdim=True).clamp(min=1)
        return [*levels, (mean_log * 0.35 + 2.5).expand_as(around)]

    def _cells(
        self,
        depth: Tensor,
        valid: Tensor,
        base: Tensor,
        share: Tensor,
        geometry: CellGeometry,
        rgb4: Tensor,
        strength: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The 3x3 cells around each pixel of the working grid, and their logits in joint bilateral upsampling; (N, 9,
        H/4, W/4) each."""
        strength = _COLOUR_STRENGTH * torch.exp(strength.clamp(-6, 3))
        offsets = torch.arange(-1.0, 2.0, device=base.device)[:, None, None]
        if min(geometry.ratio) < _CELL:
            around = torch.stack(neighbors(torch.cat((base, share, rgb4), 1)), 2)
            rows = columns = offsets
        else:
            stacked = torch.cat((depth, valid, geometry.average(rgb4)), 1)
            index = geometry.working_index
            around = torch.stack([take(stacked, index, r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)], 2)
            rows = offsets - geometry.working_place(0)[:, None]
            columns = offsets - geometry.working_place(1)
        cells, usable, red, green, blue = around.unbind(1)  # (N, 9, H/4, W/4) each
        distances = (rows.square()[:, None] + columns.square()).flatten(0, 1) / (2 * _PRIOR_SIGMA**2)
        changes = [(own - other).square() for own, other in zip(rgb4.split(1, 1), (red, green, blue), strict=True)]
        logits = -distances - strength * sum(changes)
        return cells, torch.where(usable > 0, logits, INVALID)

    def _fine(
        self,
        features: Tensor,
        coarse: Tensor,
        measured: Tensor,
        is_measured: Tensor,
        smooth: Tensor,
        smooth_weight: Tensor,
        native: list[Tensor],
        previous: Tensor,
        known: Tensor,
        mean: Tensor,
        has_mean: Tensor,
        evidence: Tensor,
        kept: Tensor,
        rgb_blocks: Tensor,
        rgb4: Tensor,
        native_greys: list[Tensor],
        is_fine: bool,
    ) -> tuple[Tensor, Tensor]:
        """Depth and the scale of its error for the 16 pixels of each block, (N, 16, H/4, W/4) each."""
        log_coarse = coarse.log()
        now, share = masked_mean((measured.clamp(min=_LEAST).log() - log_coarse).clamp(-1, 1), is_measured)
        before, _ = masked_mean((previous.clamp(min=_LEAST).log() - log_coarse).clamp(-1, 1), known)
        jump = torch.stack(neighbors(log_coarse), 0)
        seen = torch.cat((squash(now) * share, squash(before), squash(jump.amax(0) - log_coarse),
                          squash(jump.amin(0) - log_coarse), (1 + evidence).log() * 0.5), 1)  # fmt: skip
        x = F.leaky_relu(self.refine(torch.cat((features, seen.to(features.dtype)), 1)), 0.1)
        strength = _COLOUR_STRENGTH * torch.exp(self.colour_head(x).float().clamp(-6, 3))
        # Fine depth: a candidate that differs from a pixel's own measurements is on another surface, or they are noise.
        # Where a measurement contradicts the history, the history gets no extra weight, and the depth before, which
        # flow takes from a wrong surface at times, ever less. A coarse measurement does not contradict it, because its
        # cell contains several surfaces.
        own: list[Tensor] = []
        aging = [evidence.clamp(min=1).log(), (1 + evidence).log() * kept]
        if is_fine:
            likeness = _RANGE_STRENGTH * torch.exp(self.range_head(x).float().clamp(-6, 6))
            own = [mean.clamp(min=_LEAST), likeness * has_mean]
            contradiction = (previous / measured.clamp(min=_LEAST) - 1) * (is_measured / _CONTRADICTS)
            aging[0] = torch.addcmul(aging[0] * kept, contradiction, contradiction, value=-0.5)
        images = _FineImages(
            x, strength, own, rgb_blocks, rgb4, neighbors(rgb4),
            [*neighbors(coarse), measured, *native, smooth, previous, mean],
            [measured, *native, smooth_weight, known, has_mean], native_greys,
            aging,
        )  # fmt: skip
        rows = x.shape[-2]
        step = rows if torch.is_grad_enabled() else max(1, _BAND // (len(x) * x.shape[-1]))
        bands = [self._weigh(images.rows(top, top + step) if step < rows else images) for top in range(0, rows, step)]
        fine, log_scale = (torch.cat(parts, -2) if len(parts) > 1 else parts[0] for parts in zip(*bands, strict=True))
        return fine, log_scale.clamp(-12, 3) + fine.detach().clamp(min=_LEAST).log()

    def _weigh(self, images: _FineImages) -> tuple[Tensor, Tensor]:
        """Weighted mean of the candidates, and the logarithm of the error's scale relative to depth."""
        # as a product of matrices: the result (candidate, pixel of 16, h, w) must be contiguous for each image
        x = images.features
        matrix, bias = self.fine_head.weight.flatten(1), _bias(self.fine_head)[:, None]
        products = [torch.addmm(bias, matrix, one) for one in x.flatten(2).contiguous()]
        head = torch.stack(products).float() if len(products) > 1 else products[0][None].float()
        logits = head.unflatten(2, x.shape[-2:]).unflatten(1, (_FINE + 1, 16)).unbind(1)
        centred = [p - q for p, q in zip(images.rgb_blocks.split(16, 1), images.rgb4.split(1, 1), strict=True)]
        own = sum(c.square() for c in centred)
        grey = sum(images.rgb_blocks.split(16, 1)) / 3
        distances = _block_distances(own) / (2 * _PRIOR_SIGMA**2)  # (9, 16, 1, 1)
        scores = []
        for number, colour in enumerate(images.colours):
            change = own
            if number != 4:
                other = (colour - images.rgb4).split(1, 1)
                change = own + sum(o.square() for o in other)
                for c, o in zip(centred, other, strict=True):
                    change = torch.addcmul(change, c, o, value=-2)
            scores.append(torch.addcmul(logits[number] - distances[number], images.strength, change, value=-1))
        for number, (usable, prior) in enumerate(zip(images.usable, _FINE_PRIORS, strict=True), start=9):
            score = logits[number] + prior
            if number >= _FINE - _AGING:
                score = score + images.evidence[number - _FINE]
            if number - 9 < len(images.native_greys):
                change = (images.native_greys[number - 9] - grey).square()
                score = torch.addcmul(score, images.strength, change, value=-3)
            scores.append(torch.where(usable > 0, score, INVALID))
        if images.own:
            reference, strength = images.own
            inverse, minus_one = 1 / reference, -torch.ones_like(reference)
            for number, value in enumerate(images.values):
                change = torch.addcmul(minus_one, value, inverse)
                scores[number] = torch.addcmul(scores[number], strength, change.square(), value=-1)
        highest = scores[0]
        for score in scores[1:]:
            highest = torch.maximum(highest, score)
        highest = highest.detach()
        total, fine = torch.zeros_like(highest), torch.zeros_like(highest)
        for score, value in zip(scores, images.values, strict=True):
            weight = torch.exp((score - highest).clamp(min=_LEAST_LOGIT))
            total = total + weight
            fine = torch.addcmul(fine, weight, value.expand_as(weight))
        return fine / total, logits[_FINE]


@dataclass(frozen=True)
class _FineImages:
    """Inputs of the fine estimate on the working grid, (N, C, h, w) each.

    Attributes:
        features: input of the head.
        strength: of the colour distance.
        own: the running mean of each pixel, and the strength of the distance to it; empty for coarse depth.
        rgb_blocks, rgb4: colour of the 16 pixels of each block, and its mean.
        colours: mean colours of the 3x3 blocks around.
        values: depths of the candidates.
        usable: for each candidate after the first nine: above 0 where it can be used.
        native_greys: mean brightness of the cells of the measurements, which are the first of these.
        evidence: logits added to the last two, the previous depth and the running mean.
    """

    features: Tensor
    strength: Tensor
    own: list[Tensor]
    rgb_blocks: Tensor
    rgb4: Tensor
    colours: list[Tensor]
    values: list[Tensor]
    usable: list[Tensor]
    native_greys: list[Tensor]
    evidence: list[Tensor]

    def rows(self, top: int, bottom: int) -> _FineImages:
        """Some rows of all images."""

        def cut(image: Tensor) -> Tensor:
            return image[..., top:bottom, :]

        all_lists = (self.colours, self.values, self.usable, self.native_greys, self.evidence)
        lists = ([cut(image) for image in images] for images in all_lists)
        own = [cut(image) for image in self.own]
        return _FineImages(cut(self.features), cut(self.strength), own, cut(self.rgb_blocks), cut(self.rgb4), *lists)


def _check(rgb: Tensor, depth: Tensor, flow: Tensor, ratio: tuple[float, float]) -> None:
    height, width = rgb.shape[-2:]
    if height % MULTIPLE or width % MULTIPLE:
        raise InputError(f"colour is {width}x{height}; pad it to multiples of {MULTIPLE} pixels")
    if depth.ndim != 4 or depth.shape[1] != 1 or len(depth) != len(rgb):
        raise InputError(f"depth has shape {tuple(depth.shape)}; expected ({len(rgb)}, 1, h, w)")
    wanted = (len(rgb), 2, height // STRIDE, width // STRIDE)
    if tuple(flow.shape) != wanted:
        raise InputError(f"flow has shape {tuple(flow.shape)}; expected {wanted}")
    if min(ratio) < 1:
        raise InputError(f"depth is finer than colour (ratio {ratio}); bring it to colour's size first")


def _block_distances(like: Tensor) -> Tensor:
    """(9, 16, 1, 1): squared distances of the 16 pixels of a block to the centres of 3x3 blocks, in blocks."""
    inside = (torch.arange(STRIDE, dtype=torch.float32, device=like.device) + 0.5) / STRIDE - 0.5
    offset = torch.arange(-1, 2, dtype=torch.float32, device=like.device)
    axis = (offset[:, None] - inside).square()  # (3, 4)
    return (axis[:, None, :, None] + axis[None, :, None, :]).reshape(9, 16, 1, 1)


def _extremes(depth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Farthest and nearest depth around each pixel, (far, near, far, near). The first two are of measured depth
    (``weight`` 1) within 2 pixels, or ``depth`` itself where nothing is measured. The last two are of these within
    about 8 pixels, so they include the depth with which holes were filled."""
    both = torch.cat((depth, 1 / depth), 1)
    close = F.max_pool2d(both * weight, 5, 1, 2)
    close = torch.where(close > 0, close, both)
    around = _upsample(F.max_pool2d(F.max_pool2d(close, 4, ceil_mode=True), 3, 1, 1), depth)
    (far5, near5), (far17, near17) = (image.split(1, 1) for image in (close, around))
    return far5, 1 / near5, far17, 1 / near17


def _outside(colour: Tensor, before: Tensor) -> Tensor:
    """How far colour (N, 3, h, w) is outside what the colours before were within half a pixel: the mean over the
    channels, (N, 1, h, w). The plain difference would take fine texture for a change of the scene, because the mean of
    a block depends on where the texture lies in it."""
    highest, lowest = F.max_pool2d(before, 3, 1, 1), -F.max_pool2d(-before, 3, 1, 1)
    high, low = (before + highest) / 2, (before + lowest) / 2
    return ((colour - high).clamp(min=0) + (low - colour).clamp(min=0)).mean(1, keepdim=True)


def _exposure(colour: Tensor, before: Tensor, inside: Tensor) -> Tensor:
    """Factor of each channel, (N, 3, 1, 1), from the aligned colours before to those of this frame: exposure and white
    balance of cameras change, and nothing would fit then. ``inside``: (N, 1, H/4, W/4), 1 where there is a before."""
    now, then = ((image * inside).mean((-2, -1), keepdim=True) + _LEAST for image in (colour, before))
    return (now / then).clamp(1 / _MOST_EXPOSURE, _MOST_EXPOSURE)


def _change(colour: Tensor, outside: Tensor, inside: Tensor) -> Tensor:
    """How much of an image looks otherwise than the aligned one before: the mean of :func:`_outside` to the mean
    deviation of its colours, (N, 1, 1, 1). A plain image may consist of noise."""
    deviation = (colour - colour.mean((-2, -1), keepdim=True)).abs().mean((-3, -2, -1), keepdim=True)
    changed = (outside * inside).sum((-2, -1), keepdim=True) / inside.sum((-2, -1), keepdim=True).clamp(min=1)
    return changed / (deviation + _NOISE_OF_COLOUR)


def _motion(flow: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """How far colour has moved since the previous frame, around each pixel and in the mean over the frame: logarithms,
    (N, 1, H/4, W/4) each; 0 where no previous depth is known. Where nothing moves, a change of depth is noise, however
    smooth it is; under motion it may be real."""
    is_known = (known > 0).to(flow.dtype)
    here = (1 + _MOTION * flow.norm(dim=1, keepdim=True)).log() * is_known
    overall = here.sum((-2, -1), keepdim=True) / is_known.sum((-2, -1), keepdim=True).clamp(min=1)
    return here * 0.3, (overall * 0.3).expand_as(here)


def _running_mean(
    measured: Tensor, is_measured: Tensor, before: Tensor, known: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor]:
    """Running mean of the measurements; 0 where nothing was ever measured.

    Args:
        measured, is_measured: measurements of this frame, and 1 where there is one.
        before: the aligned mean of the previous frame.
        known: 1 where everything that ``before`` was interpolated from is known.
        gain: weight of the new measurement.

    Returns:
        The mean, and 1 where previous frames count in it.
    """
    before = before * (known > 0.999)
    change = measured - before
    fits = is_measured * (before > 0) * (change.abs() < _RESET * before)
    replaced = torch.where(is_measured > 0, measured, before)
    return torch.where(fits > 0, before + gain * change, replaced), fits + (1 - is_measured) * (before > 0)


def _mean5(image: Tensor) -> Tensor:
    """Mean over 5x5 with zeros around the image, one axis after the other."""
    return F.avg_pool2d(F.avg_pool2d(image, (5, 1), 1, (2, 0)), (1, 5), 1, (0, 2))


def _normalized(features: Tensor) -> Tensor:
    """Features (N, C, h, w), scaled to a root mean square over the channels of 1 in each pixel."""
    return features * torch.rsqrt(features.square().mean(1, keepdim=True) + 1e-6)


def _residual(block: ResidualBlock, features: Tensor) -> Tensor:
    """A residual block on normalised features, so that they do not grow with the number of layers."""
    return features + block.conv2(torch.relu(block.conv1(_normalized(features))))


def _upsample(image: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(image, size=like.shape[-2:], mode="bilinear", align_corners=False)
