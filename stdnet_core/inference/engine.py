"""Engines: they execute the network for :class:`stdnet_core.inference.DepthUpsampler`.

Input and output are numpy arrays, so that each engine can transfer them to its device in its own way. STDNet's engines
get prepared frames: their sizes fit the scale, and depth is hole-free and normalised. The recurrent network's engines
take depth as the camera delivers it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from stdnet_core.inference.devices import Placement
from stdnet_core.inference.frames import pad_colour
from stdnet_core.model import RecurrentNet, STDNet
from stdnet_core.model.blocks import channels_last
from stdnet_core.model.recurrent import RecurrentState, padded_size
from stdnet_core.optical_flow import FlowEstimator
from stdnet_core.short_repr import short_repr
from stdnet_core.streaming import StreamingSTDNet, StreamOutput


@dataclass(frozen=True)
class EngineOutput:
    """What an engine returns for a frame: normalised like its input, or in metres from the recurrent network.

    Attributes:
        depth: (H, W) float32.
        error_scale: (H, W) float32, predicted Laplace scale of the error; None if the network predicts none.
        disagreement: (H, W) float32, absolute difference between the depths of the two stages; None if unknown.
        registration: what the recurrent network remembers of edges of depth and colour, see
            :func:`stdnet_core.model.recurrent.registration.edge_products`; None from other networks.
    """

    depth: np.ndarray
    error_scale: np.ndarray | None = None
    disagreement: np.ndarray | None = None
    registration: np.ndarray | None = None

    __repr__ = short_repr


class Engine(Protocol):
    """Runs the streaming network with any backend."""

    def step(self, rgb: np.ndarray, depth_lr: np.ndarray) -> EngineOutput | None:
        """Process rgb (H, W, 3), uint8 or float32 in 0..1, and hole-free normalised depth_lr (h, w), H = s h and
        W = s w. Return the output for the frame ``latency`` frames before, or None if there is none yet."""

    def flush(self) -> list[EngineOutput]:
        """Return the outputs of the frames still pending, oldest first; the next step begins a new clip."""

    def reset(self) -> None:
        """Clear the state; the next step begins a new clip."""


class TorchEngine:
    """The network in PyTorch.

    Args:
        model: copied, because its device and type may change.
        latency: following frames to wait for, 0 to 8.
        placement: device and precision.
    """

    def __init__(self, model: STDNet, latency: int, placement: Placement) -> None:
        self._device = placement.device
        model = channels_last(copy.deepcopy(model).to(self._device, placement.dtype))
        self._stream = StreamingSTDNet(model, latency=latency)

    @torch.inference_mode()
    def step(self, rgb: np.ndarray, depth_lr: np.ndarray) -> EngineOutput | None:
        """See :class:`Engine`."""
        colour = unit_range(self._upload(rgb)).permute(2, 0, 1)[None]
        output = self._stream.step(colour, self._upload(depth_lr)[None, None])
        return None if output is None else _download(output)

    @torch.inference_mode()
    def flush(self) -> list[EngineOutput]:
        """See :class:`Engine`."""
        return [_download(output) for output in self._stream.flush()]

    def reset(self) -> None:
        """See :class:`Engine`."""
        self._stream.reset()

    def _upload(self, array: np.ndarray) -> torch.Tensor:
        if self._device.type == "cpu":
            return tensor(array)
        pinned = torch.empty(array.shape, dtype=tensor(array[:0]).dtype, pin_memory=True)
        np.copyto(pinned.numpy(), array)
        return pinned.to(self._device, non_blocking=True)


class RecurrentEngine(Protocol):
    """Runs the recurrent network with any backend."""

    @property
    def executes(self) -> str:
        """The backend that computed the last frame: ``torch``, ``openvino`` or ``onnxruntime``."""

    def step(self, rgb: np.ndarray, depth: np.ndarray, ratio: tuple[float, float]) -> EngineOutput:
        """Process rgb (H, W, 3), uint8 or float32 in 0..1, and depth (h, w) in metres, 0 invalid, whose cells are
        ``ratio`` (rows, columns) pixels in size. Return depth and error scale (H, W) of this frame, in metres."""

    def reset(self) -> None:
        """Clear the state; the next step begins a new clip."""


class RecurrentTorchEngine:
    """The recurrent network in PyTorch; see :class:`RecurrentEngine`.

    Args:
        model: copied, because its device may change.
        placement: device, and precision of the convolutions.
    """

    executes = "torch"

    def __init__(self, model: RecurrentNet, placement: Placement) -> None:
        self._placement = placement
        self._model = channels_last(copy.deepcopy(model).to(placement.device)).eval()
        self._flow = FlowEstimator()
        self._state: RecurrentState | None = None

    @torch.inference_mode()
    def step(self, rgb: np.ndarray, depth: np.ndarray, ratio: tuple[float, float]) -> EngineOutput:
        """See :class:`RecurrentEngine`."""
        height, width = rgb.shape[:2]
        padded = pad_colour(rgb, padded_size((height, width)))
        flow = tensor(self._flow.step(as_bytes(padded)))[None].to(self._placement.device)
        colour = unit_range(tensor(padded).to(self._placement.device)).permute(2, 0, 1)[None].contiguous()
        measured = tensor(depth)[None, None].to(self._placement.device)
        if self._state is None:
            self._state = self._model.start(colour)
        reduced = self._placement.dtype != torch.float32
        with torch.autocast(self._placement.device.type, self._placement.dtype, enabled=reduced):
            output, self._state = self._model.step(colour, measured, flow, self._state, ratio)
        depth_out, log_scale = output.depth, output.log_scale
        return EngineOutput(
            depth_out[0, 0, :height, :width].float().cpu().numpy(),
            log_scale[0, 0, :height, :width].float().exp().cpu().numpy(),
            registration=self._state.registration[0].float().cpu().numpy(),
        )

    def reset(self) -> None:
        """See :class:`RecurrentEngine`."""
        self._flow.reset()
        self._state = None

    def hand_over(self) -> tuple[FlowEstimator, RecurrentState | None]:
        """The flow and the state, for another engine that continues; this one then begins a new clip."""
        handed, self._flow, self._state = (self._flow, self._state), FlowEstimator(), None
        return handed


def recurrent_inputs(
    rgb: np.ndarray, depth: np.ndarray, size: tuple[int, int], flow: FlowEstimator
) -> dict[str, np.ndarray]:
    """Inputs of a step of the recurrent network, except its state, as arrays for runtimes other than PyTorch.

    Args:
        rgb: (H, W, 3), uint8 or float in 0..1.
        depth: (h, w) metres, 0 invalid.
        size: (H', W') to which colour is padded.
        flow: of this video; it takes the frame.

    Returns:
        ``rgb`` (1, 3, H', W') in 0..1, ``depth_lr`` (1, 1, h, w) and ``flow`` (1, 2, H'/4, W'/4), float32.
    """
    padded = pad_colour(rgb, size)
    colour = padded * np.float32(1 / 255) if padded.dtype == np.uint8 else padded.astype(np.float32, copy=False)
    return {
        "rgb": np.ascontiguousarray(colour.transpose(2, 0, 1))[None],
        "depth_lr": np.ascontiguousarray(depth, np.float32)[None, None],
        "flow": flow.step(as_bytes(padded))[None],
    }


def as_bytes(rgb: np.ndarray) -> np.ndarray:
    """Colour as uint8."""
    return rgb if rgb.dtype == np.uint8 else (rgb * 255).round().astype(np.uint8)


def _download(output: StreamOutput) -> EngineOutput:
    error_scale = None if output.log_scale is None else output.log_scale.float().exp()
    stages = output.stage_depths
    disagreement = (stages[1] - stages[0]).abs() if error_scale is None and len(stages) == 2 else None
    return EngineOutput(
        _image(output.depth),
        None if error_scale is None else _image(error_scale),
        None if disagreement is None else _image(disagreement),
    )


def _image(batch: torch.Tensor) -> np.ndarray:
    return batch[0, 0].float().cpu().numpy()


def tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the array's memory, or a copy where PyTorch cannot share it: read-only arrays (a message's
    buffer) and reversed ones (``bgr[..., ::-1]``)."""
    shareable = array.flags.writeable and min(array.strides) >= 0
    return torch.from_numpy(array if shareable else array.copy())


def unit_range(rgb: torch.Tensor) -> torch.Tensor:
    return rgb if rgb.is_floating_point() else rgb.float().mul_(1 / 255)
