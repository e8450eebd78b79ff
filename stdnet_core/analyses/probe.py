"""Observes STDNet while it runs: features before and after both branches, and where neighbours are sampled.

Hooks on the network's own modules record an ordinary forward pass; nothing is computed twice, and the output is the
same as without hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stdnet_core.errors import ConfigError, InputError
from stdnet_core.model import RecurrentNet, STDNet, STDNetOutput
from stdnet_core.model.config import Direction
from stdnet_core.model.deform_conv import TAPS
from stdnet_core.model.low_resolution import WORKING_STRIDE
from stdnet_core.model.temporal_difference import TemporalDifference


@dataclass(frozen=True)
class Sampling:
    """Where one pass over a clip of T frames sampled its neighbours (eq. 7).

    Attributes:
        direction: of the pass.
        frames: T.
        offset: (N, 18, h, w) pixels of the working grid, y then x for each tap; the N calls are all frames with a
            neighbour one frame away, then two, ...
        mask: (N, 9, h, w), 0..1.
    """

    direction: Direction
    frames: int
    offset: Tensor
    mask: Tensor

    def call(self, frame: int, distance: int) -> tuple[Tensor, Tensor]:
        """Offset (18, h, w) and mask (9, h, w) with which ``frame`` sampled its neighbour ``distance`` frames away.

        Raises:
            InputError: the frame has no such neighbour in this pass.
        """
        calls = 0
        for nearer in range(1, distance):
            calls += self.frames - nearer
        place = frame - distance if self.direction == "forward" else frame
        if not 0 <= place < self.frames - distance or calls + place >= len(self.offset):
            side = "before" if self.direction == "forward" else "after"
            raise InputError(f"frame {frame} has no neighbour {distance} frames {side} it in a clip of {self.frames}")
        return self.offset[calls + place], self.mask[calls + place]


@dataclass(frozen=True)
class StageFeatures:
    """The features of a stage for a clip, each (T, C, h, w) on the working grid.

    Attributes:
        depth: F_d, encoded depth, before the spatial difference.
        spatial: F_sd, after it (eq. 4).
        weight: w (eq. 3).
        trunk: X, from which the passes start.
        passes: output of each pass (eq. 8).
        fused: F_td, all of them merged, from which depth is reconstructed (eq. 6).
        sampling: one per pass; empty without the temporal difference or without neighbours.
    """

    depth: Tensor
    spatial: Tensor
    weight: Tensor
    trunk: Tensor
    passes: tuple[Tensor, ...]
    fused: Tensor
    sampling: tuple[Sampling, ...]


@torch.inference_mode()
def observe(model: STDNet | RecurrentNet, rgb: Tensor, depth_lr: Tensor) -> tuple[STDNetOutput, list[StageFeatures]]:
    """Run the network on one clip and record its features.

    Args:
        model: the paper's network, in evaluation mode.
        rgb: (1, T, 3, H, W), 0..1.
        depth_lr: (1, T, 1, h, w), metres / depth_range, without holes.

    Returns:
        Its output with ``differences``, and the features of each stage.

    Raises:
        ConfigError: the network is recurrent and has no such parts.
        InputError: more than one clip, or shapes that do not match.
    """
    if not isinstance(model, STDNet):
        raise ConfigError("only the paper's network has these parts; give a checkpoint that is not recurrent")
    if rgb.ndim == 5 and len(rgb) != 1:
        raise InputError(f"expected one clip (1, T, 3, H, W), got {tuple(rgb.shape)}")
    seen: dict[str, Tensor] = {}
    with _watched(model, seen):
        output = model(rgb=rgb, depth_lr=depth_lr, return_differences=True)
    return output, [_features(model, number, seen, rgb.shape[1]) for number in range(len(model.stages))]


def _features(model: STDNet, number: int, seen: dict[str, Tensor], frames: int) -> StageFeatures:
    config, name = model.config, f"stage{number}"
    levels = seen[f"{name} levels"].chunk(1 + len(config.passes), 1)
    sampling = [
        Sampling(direction, frames, seen[f"{name} offset{index}"], seen[f"{name} mask{index}"])
        for index, direction in enumerate(config.passes)
        if f"{name} offset{index}" in seen
    ]
    return StageFeatures(
        depth=seen[f"{name} depth"],
        spatial=seen[f"{name} spatial"],
        weight=seen[f"{name} weight"],
        trunk=levels[0],
        passes=levels[1:],
        fused=seen[f"{name} fused"],
        sampling=tuple(sampling),
    )


@contextmanager
def _watched(model: STDNet, seen: dict[str, Tensor]) -> Iterator[None]:
    """Register hooks that write into ``seen``, and always remove them at the end."""

    def output_as(*names: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            values = (output,) if isinstance(output, Tensor) else output
            seen.update({name: value.detach() for name, value in zip(names, values, strict=False)})

        return hook

    def inputs_as(*names: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.update({name: value.detach() for name, value in zip(names, inputs, strict=True)})

        return hook

    handles = []
    try:
        for number, stage in enumerate(model.stages):
            name = f"stage{number}"
            handles.append(stage.depth_encoder.register_forward_hook(output_as(f"{name} depth")))
            handles.append(stage.spatial.register_forward_hook(output_as(f"{name} spatial", f"{name} weight")))
            handles.append(stage.reconstruction.register_forward_pre_hook(inputs_as(f"{name} levels")))
            handles.append(stage.reconstruction.register_forward_hook(output_as(f"{name} fused")))
            for index, module in enumerate(stage.temporal):
                if isinstance(module, TemporalDifference):
                    names = (f"{name} sampled{index}", f"{name} offset{index}", f"{name} mask{index}")
                    handles.append(module.deform_conv.register_forward_pre_hook(inputs_as(*names)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def principal_components(features: Tensor, count: int = 3, margin: int = 0) -> tuple[Tensor, Tensor]:
    """Principal components of a feature map over its pixels (fig. 9b).

    Args:
        features: (C, h, w).
        count: of components, at most C.
        margin: pixels at each border that are left out when the components are computed, if the map is large enough;
            otherwise the effect of the convolutions' zero padding would dominate them.

    Returns:
        The pixels' coordinates along the first ``count`` components (count, h, w), each with a positive largest
        loading, and the share of the variance that each explains (count,), 0 if nothing varies. Both float64.

    Raises:
        InputError: another shape, or more components than channels.
    """
    if features.ndim != 3 or not 1 <= count <= len(features):
        raise InputError(f"{count} components of features of shape {tuple(features.shape)}; expected (C, h, w)")
    features = features.detach().cpu().double()
    if 2 * margin >= min(features.shape[1:]):
        margin = 0
    inner = features[:, margin : features.shape[1] - margin, margin : features.shape[2] - margin].flatten(1)
    mean = inner.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh((inner - mean) @ (inner - mean).mT)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    chosen = vectors[:, :count]
    largest = chosen.gather(0, chosen.abs().argmax(0, keepdim=True))
    chosen = chosen * torch.where(largest < 0, -1.0, 1.0)
    total = values.sum()
    shares = values[:count] / total if total > 0 else torch.zeros_like(values[:count])
    return (chosen.mT @ (features.flatten(1) - mean)).unflatten(1, features.shape[1:]), shares


def displacement(offset: Tensor, mask: Tensor) -> Tensor:
    """Mean displacement of the nine taps, weighted by the mask.

    Args:
        offset: (18, h, w) pixels of the working grid, y then x for each tap.
        mask: (9, h, w).

    Returns:
        (2, h, w): x, y in pixels of the image.
    """
    taps = offset.unflatten(0, (TAPS, 2))
    weight = mask.unsqueeze(1)
    mean = (taps * weight).sum(0) / weight.sum(0).clamp_min(1e-12)
    return WORKING_STRIDE * mean.flip(0)
