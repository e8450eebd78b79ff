"""Batches for recurrent networks: depth cameras at their own ratios, depth in metres, optical flow."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stdnet_core.data.augmentation import augment, stand_still
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.sensors import simulate
from stdnet_core.data.sensors.cell import REDUCING, SPLIT_BELOW, Cell, scene_gain
from stdnet_core.data.sensors.presets import sensor
from stdnet_core.data.sensors.variation import smoothed, varied
from stdnet_core.model.recurrent.geometry import CellGeometry, take
from stdnet_core.optical_flow import FlowEstimator
from stdnet_core.training.builder import ShareBuilder
from stdnet_core.training.config import TrainConfig, VideoDataConfig, trained_cells
from stdnet_core.training.draw import between, choose, plan_video_batch

SUPPORT = 6
"""Pixels count in the loss up to this many cells from a measurement; farther away, the network could only guess."""
SUPPORT_FINE = 20
"""The same at ratios below :data:`SPLIT_BELOW`, where holes are as large as objects."""


def clip_flow(rgb: Tensor) -> Tensor:
    """Optical flow of a clip.

    Args:
        rgb: (T, 3, H, W), 0..1; H and W multiples of 4.

    Returns:
        (T, 2, H/4, W/4), see :class:`stdnet_core.optical_flow.FlowEstimator`.
    """
    frames = (rgb * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    estimator = FlowEstimator()
    return torch.from_numpy(np.stack([estimator.step(frame) for frame in frames])).to(rgb.device)


def cell_size(size: tuple[int, int], cells: tuple[int, int], ratio: float) -> tuple[float, float]:
    """Size of a cell in pixels on each axis (rows, columns).

    At an integer ratio, cells are that many pixels in size, and the last one may be cut off by the border. Otherwise,
    the cells divide the image evenly.

    Args:
        size: (H, W) of colour.
        cells: (h, w) of depth, from :func:`stdnet_core.data.sensors.camera.delivered_size`.
    """
    if ratio == int(ratio):
        return float(ratio), float(ratio)
    return size[0] / cells[0], size[1] / cells[1]


def geometry_of(clip: RgbdClip, low: Tensor, ratio: float) -> CellGeometry:
    """Positions of a camera's cells (T, 1, h, w) in a clip's images."""
    rows, columns = low.shape[-2:]
    cells = rows, columns
    return CellGeometry(clip.frame_size, cells, cell_size(clip.frame_size, cells, ratio), low.device)


def measured_pixels(low: Tensor, geometry: CellGeometry) -> Tensor:
    """Pixels (T, 1, H, W) whose own cell of depth (T, 1, h, w) has a measurement."""
    return take(low, geometry.pixel_index) > 0


def supported_pixels(low: Tensor, geometry: CellGeometry) -> Tensor:
    """Pixels (T, 1, H, W) within :data:`SUPPORT` cells (:data:`SUPPORT_FINE` for fine depth) of a measurement in depth
    (T, 1, h, w)."""
    reach = SUPPORT_FINE if min(geometry.ratio) < SPLIT_BELOW else SUPPORT
    near = (low > 0).float()
    for kernel in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        near = F.max_pool2d(near, kernel, 1, tuple(k // 2 for k in kernel))
    return take(near, geometry.pixel_index) > 0


class VideoBatchBuilder(ShareBuilder):
    """Builds batch ``index`` of a run of a recurrent network, or one process's share of it.

    A batch holds: ``rgb`` (B, T, 3, H, W) 0..1; ``depth`` (B, T, 1, H, W) metres; ``valid`` (B, T, 1, H, W) bool:
    pixels that count in the loss; ``depth_lr`` (B, T, 1, h, w) metres, 0 invalid; ``flow`` (B, T, 2, H/4, W/4);
    ``ratio`` (rows, columns): size of a cell in pixels; ``measured`` (B, T, 1, H, W) bool, only below
    :data:`SPLIT_BELOW`: pixels whose own cell has a measurement; ``scale``: ratio of the cells; ``index`` of the batch;
    ``names`` of the clips.

    Args:
        config: of the run.
        device: on which scenes are rendered and depth is simulated.
        rank, processes: rank of this process, number of processes.
    """

    planner = staticmethod(plan_video_batch)

    def __init__(
        self, config: TrainConfig, device: torch.device | str = "cpu", rank: int = 0, processes: int = 1
    ) -> None:
        self.cells = trained_cells(config.data)
        super().__init__(config, device, rank, processes)

    def build(self, index: int) -> dict[str, Any]:
        """This process's share of batch ``index``."""
        plan, drawn = self.drawn(index)
        made = [self._measure(clip, rng, plan.scale) for clip, rng in drawn]
        clips, lows = zip(*made, strict=True)
        geometry = geometry_of(clips[0], lows[0], plan.scale)
        batch = {
            "rgb": torch.stack([clip.rgb for clip in clips]),
            "depth": torch.stack([clip.depth for clip in clips]),
            "valid": torch.stack([clip.valid for clip in clips]),
            "depth_lr": torch.stack(lows),
            "flow": torch.stack([clip_flow(clip.rgb) for clip in clips]),
            "ratio": geometry.ratio,
            "scale": plan.scale,
            "index": index,
            "names": [clip.name for clip in clips],
        }
        if plan.scale < SPLIT_BELOW:
            batch["measured"] = torch.stack([measured_pixels(low, geometry) for low in lows])
        return batch

    def _measure(self, clip: RgbdClip, rng: np.random.Generator, ratio: float) -> tuple[RgbdClip, Tensor]:
        """The augmented clip, and its depth (T, 1, h, w) in metres as a camera with this ratio measures it."""
        video = self.config.data.video
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        clip = augment(clip, self.augmentation, generator)
        if rng.random() < video.standing:
            clip = stand_still(clip, len(clip), video.standing_noise / 255, generator)
        cell = choose(rng, {cell: weight for cell, weight in self.cells.items() if cell.ratio == ratio})
        camera = varied(cell.sensor, rng, ratio) if rng.random() < video.varied else cell.sensor
        depth = clip.depth * clip.valid
        gain = scene_gain(depth, camera)
        if rng.random() < video.gained:
            gain *= between(rng, video.gain, log=True)
        depth = recorded(depth * gain, clip.rgb, cell, video, rng)
        low = simulate(camera, depth, clip.rgb, ratio, seed=int(rng.integers(2**62)))
        if camera.family == "stereo" and rng.random() < video.smoothed:
            low = smoothed(low, int(rng.choice([3, 5])))
        if ratio < SPLIT_BELOW and rng.random() < video.hidden:
            rows, columns = low.shape[-2:]
            low = low * ~hidden((rows, columns), rng).to(low.device)
        supported = supported_pixels(low, geometry_of(clip, low, ratio))
        return dataclasses.replace(clip, depth=depth, valid=(depth > 0) & supported), low


def hidden(size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Random patches (h, w) bool over 1 to 15 % of an image: ellipses and rectangles from 3 pixels to a fifth of the
    image's width. They imitate holes without an occluder, as on glossy and dark surfaces."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    wanted = rng.uniform(0.01, 0.15) * mask.size
    while mask.sum() < wanted:
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = tuple(round(between(rng, [1.5, max(2.0, width / 10)], log=True)) for _ in range(2))
        if rng.random() < 0.5:
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        else:
            first = tuple(c - a for c, a in zip(centre, axes, strict=True))
            cv2.rectangle(mask, first, tuple(c + a for c, a in zip(centre, axes, strict=True)), 1, -1)
    return torch.from_numpy(mask > 0)


def recorded(depth: Tensor, rgb: Tensor, cell: Cell, video: VideoDataConfig, rng: np.random.Generator) -> Tensor:
    """With probability ``video.recorded``, the true depth (T, 1, H, W) in metres as another camera would record it;
    only for cells whose camera can be simulated on recordings."""
    chance, seed = rng.random(), int(rng.integers(2**62))
    first = choose(rng, video.recorded_by) if video.recorded_by else ""
    if chance >= video.recorded or cell.ratio < SPLIT_BELOW or cell.sensor.family not in REDUCING:
        return depth
    camera = varied(sensor(first), rng)
    return simulate(camera, depth * scene_gain(depth, camera), rgb, 1, seed=seed)
