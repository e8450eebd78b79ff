"""A small recurrent network and moving frames, for the tests of the runtimes that are compared with PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from stdnet_core.data.sensors import delivered_size
from stdnet_core.model import RecurrentConfig, RecurrentNet


def network() -> RecurrentNet:
    """A small one whose heads say something at random."""
    torch.manual_seed(0)
    model = RecurrentNet(RecurrentConfig(channels=8, channels_8=8, channels_16=8, blocks=0)).eval()
    for head in (model.coarse_head, model.fine_head, model.colour_head, model.range_head):
        torch.nn.init.normal_(head.weight, std=0.3)
    return model


def moving_frames(size: tuple[int, int], scale: float, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A textured slope with a step and a hole that moves by 3 pixels a frame; the last frame has no depth."""
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    cells = delivered_size(size, scale)
    frames = []
    for t in range(count):
        grey = 128 + 100 * np.sin((columns + 3 * t) / 5) * np.cos(rows / 7)
        rgb = np.stack((grey, 255 - grey, 0.5 * grey), -1).astype(np.uint8)
        y, x = np.mgrid[: cells[0], : cells[1]].astype(np.float32)
        depth = 1 + y / cells[0] + (x * scale + 3 * t > width / 2)
        depth[: cells[0] // 3, : cells[1] // 3] = 0
        frames.append((rgb, np.zeros_like(depth) if t == count - 1 else depth.astype(np.float32)))
    return frames
