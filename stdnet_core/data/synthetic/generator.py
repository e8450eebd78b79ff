"""Renders clips from seeds, for training, and whole sequences lazily as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_sequence import frame_indices
from stdnet_core.errors import InputError

from .config import SyntheticConfig
from .layouts import random_scene
from .renderer import RenderOptions, render
from .scene import Scene
from .textures import TextureBank, texture_bank

_FRAME_TIME = 1 / 30


def bank_for(config: SyntheticConfig, device: torch.device | str = "cpu") -> TextureBank:
    """The textures that a configuration's scenes use (made once per process and device)."""
    return texture_bank(config.texture_seed, config.textures, torch.device(device))


def render_clips(
    seeds: Sequence[int],
    frames: int,
    height: int,
    width: int,
    config: SyntheticConfig | None = None,
    device: torch.device | str = "cpu",
) -> list[RgbdClip]:
    """Render one clip per seed, all at once.

    Args:
        seeds: one scene each; the same seed gives the same clip on the same device, in a batch or alone.
        frames, height, width: size of each clip.
        config: options of the scenes.
        device: on which the clips are rendered and returned.

    Returns:
        Clips with rgb, exact depth at pixel centres, valid, flow and intrinsics.
    """
    if frames < 1:
        raise InputError(f"cannot render a clip of {frames} frames; give at least 1")
    config = config or SyntheticConfig()
    bank = bank_for(config, device)
    scenes = [random_scene(seed, frames, height, width, config, bank.groups) for seed in seeds]
    options = RenderOptions(config.antialias, config.shadows, config.sensor)
    return render(scenes, range(frames), height, width, bank, options, [f"synthetic:{seed}" for seed in seeds])


def render_clip(
    seed: int,
    frames: int,
    height: int,
    width: int,
    config: SyntheticConfig | None = None,
    device: torch.device | str = "cpu",
) -> RgbdClip:
    """Render the clip of a seed; see :func:`render_clips`."""
    return render_clips([seed], frames, height, width, config, device)[0]


class SceneSequence:
    """A scene as a video whose frames are rendered when they are read (an ``RgbdSequence``)."""

    def __init__(
        self, scene: Scene, size: tuple[int, int], bank: TextureBank, options: RenderOptions, name: str
    ) -> None:
        self._scene, self._size, self._bank, self._options, self._name = scene, size, bank, options, name

    @property
    def name(self) -> str:
        """Identifies the sequence."""
        return self._name

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self._size

    @property
    def intrinsics(self) -> Tensor:
        """(3, 3) float32 in pixels."""
        (fx, fy), (cx, cy) = self._scene.focal, self._scene.centre
        return torch.tensor(((fx, 0, cx), (0, fy, cy), (0, 0, 1)), dtype=torch.float32)

    def __len__(self) -> int:
        return len(self._scene.camera)

    def clip(self, start: int, length: int, stride: int = 1) -> RgbdClip:
        """Render ``length`` frames from ``start``, every ``stride``-th one."""
        frames = frame_indices(self, start, length, stride)
        clip = render([self._scene], frames, *self._size, self._bank, self._options, [self._name])[0]
        return replace(clip, stamps=torch.tensor(list(frames), dtype=torch.float64) * _FRAME_TIME)


class SyntheticSequence(SceneSequence):
    """The random scene of a seed as a sequence.

    Args:
        seed: the scene; differs from :func:`render_clip`'s of the same seed unless ``frames`` is the same.
        frames: length of the sequence.
        size: (H, W) in pixels.
        config: options of the scenes.
        device: where to render.
    """

    def __init__(
        self, seed: int, frames: int = 30, size: tuple[int, int] = (256, 320), config: SyntheticConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if frames < 1 or min(size) < 1:
            raise InputError(f"cannot make a synthetic sequence of {frames} frames of {size}; give positive numbers")
        config = config or SyntheticConfig()
        bank = bank_for(config, device)
        scene = random_scene(seed, frames, *size, config, bank.groups)
        options = RenderOptions(config.antialias, config.shadows, config.sensor)
        super().__init__(scene, size, bank, options, f"synthetic:{seed}")
