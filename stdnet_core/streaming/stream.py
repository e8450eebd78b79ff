"""The network on a stream: one frame in, one frame out, with an explicit state of constant size."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stdnet_core.errors import InputError
from stdnet_core.model import ModelConfig, RecurrentNet, STDNet
from stdnet_core.model.low_resolution import WORKING_STRIDE
from stdnet_core.model.stdnet import pad_to_scale
from stdnet_core.short_repr import short_repr
from stdnet_core.streaming.execution import StepResult, Values, run_plan
from stdnet_core.streaming.schedule import Schedule, Slot, StepPlan, Value


@dataclass(frozen=True)
class StreamOutput:
    """Output of a step.

    Attributes:
        depth: (B, 1, H, W) float32, normalised like the input depth.
        log_scale: (B, 1, H, W) or None, as in :class:`stdnet_core.model.STDNetOutput`.
        frame: number of the frame since the last reset, from 0.
        stage_depths: each stage's own depth, (B, 1, H, W).
    """

    depth: Tensor
    log_scale: Tensor | None
    frame: int
    stage_depths: tuple[Tensor, ...] = ()

    __repr__ = short_repr

    @classmethod
    def cropped(cls, result: StepResult, frame: int, height: int, width: int) -> StreamOutput:
        """Create from a step's result, which may be padded, and whose stage depths may lie in a ring buffer."""

        def crop(x: Tensor) -> Tensor:
            return x[..., :height, :width]

        log_scale = None if result.log_scale is None else crop(result.log_scale)
        return cls(crop(result.depth), log_scale, frame, tuple(crop(d).clone() for d in result.stage_depths))


def slot_channels(config: ModelConfig, slot: Slot) -> int:
    """Channels of a slot's values."""
    if slot.name in ("rgb", "depth"):
        return 3 if slot.name == "rgb" else 1
    return 2 + config.uncertainty if slot.name == "prediction" else config.channels


def slot_shape(config: ModelConfig, slot: Slot, rgb_shape: torch.Size, scale: int) -> tuple[int, int, int, int]:
    """Shape (B, channels, rows, columns) of a slot's values, for padded rgb (B, 3, H, W)."""
    batch, _, height, width = rgb_shape
    stride = {"rgb": 1, "prediction": 1, "depth": scale}.get(slot.name, WORKING_STRIDE)
    return batch, slot_channels(config, slot), height // stride, width // stride


class RingBuffer:
    """The newest values of one slot, each (B, channels, rows, columns), in one tensor."""

    def __init__(self, capacity: int, shape: tuple[int, int, int, int], **options: Any) -> None:
        self._batch = shape[0]
        self._capacity = capacity
        self._data = torch.empty((capacity * shape[0], *shape[1:]), **options).zero_()

    def __getitem__(self, frame: int) -> Tensor:
        slot = frame % self._capacity
        return self._data[slot * self._batch : (slot + 1) * self._batch]

    def __setitem__(self, frame: int, value: Tensor) -> None:
        self[frame].copy_(value)

    @property
    def bytes(self) -> int:
        """Bytes of memory of the buffer."""
        return self._data.numel() * self._data.element_size()

    def copy(self) -> RingBuffer:
        """An independent copy."""
        other = object.__new__(RingBuffer)
        other._batch, other._capacity, other._data = self._batch, self._capacity, self._data.clone()
        return other


@dataclass
class StreamState:
    """The complete state of a stream.

    Attributes:
        owner: fingerprint of the model and the latency to which the state belongs.
        frames: number of frames processed since the last reset.
        sizes: shapes of rgb and depth_lr, fixed by the first frame; None before it.
        rings: a ring buffer for each slot that later steps read.
    """

    owner: str
    frames: int = 0
    sizes: tuple[torch.Size, torch.Size] | None = None
    rings: dict[Slot, RingBuffer] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of memory of all buffers."""
        return sum(ring.bytes for ring in self.rings.values())

    def copy(self) -> StreamState:
        """An independent copy, to return to later."""
        return StreamState(self.owner, self.frames, self.sizes, {k: r.copy() for k, r in self.rings.items()})


def model_fingerprint(model: STDNet | RecurrentNet) -> str:
    """Hash of a model's configuration and weights (in float32, so that it is the same on every device)."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    for name, parameter in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def check_frame(rgb: Tensor, depth_lr: Tensor, sizes: tuple[torch.Size, torch.Size] | None) -> None:
    """Raise an error for a frame that a stream cannot process.

    Args:
        sizes: shapes of the stream's first frame, or None.

    Raises:
        InputError: shapes, types or values are wrong, or the shapes differ from those of the first frame.
    """
    if rgb.ndim != 4 or depth_lr.ndim != 4 or rgb.shape[1] != 3 or depth_lr.shape[1] != 1:
        raise InputError(
            f"expected rgb (B, 3, H, W) and depth_lr (B, 1, h, w), got {tuple(rgb.shape)} and {tuple(depth_lr.shape)}"
        )
    if rgb.shape[0] != depth_lr.shape[0] or 0 in rgb.shape or 0 in depth_lr.shape:
        raise InputError(
            "rgb and depth_lr need the same batch size and at least one pixel, "
            f"got {tuple(rgb.shape)} and {tuple(depth_lr.shape)}"
        )
    if not (rgb.is_floating_point() and depth_lr.is_floating_point()):
        raise InputError(
            f"rgb and depth_lr must be floating point, got {rgb.dtype} and {depth_lr.dtype}; "
            "divide 8-bit colour by 255 and depth by the model's range"
        )
    if sizes is not None and sizes != (rgb.shape, depth_lr.shape):
        raise InputError(
            f"the frame's size changed from {tuple(sizes[0])} and {tuple(sizes[1])} to {tuple(rgb.shape)} and "
            f"{tuple(depth_lr.shape)} in the middle of a stream; call reset() first to start a new one"
        )
    for name, tensor in (("rgb", rgb), ("depth_lr", depth_lr)):
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{name} holds NaN or infinite values; fill invalid depth first "
                "(stdnet_core.inference.fill.fill_invalid)"
            )


class StreamingSTDNet:
    """Runs the network frame by frame. The output for frame f equals that of the whole-clip network on all frames up to
    f + latency.

    A step computes everything before it stores anything, so the state does not change if the step raises an exception.

    Args:
        model: on the device, with the type (float32, bfloat16, float16) and in the memory format (e.g. channels_last)
            in which to run it; it is set to evaluation mode.
        latency: following frames to wait for, 0 to 8. More increase accuracy; 5 to 8 also need less work than 1 to 4.

    Raises:
        ConfigError: latency out of range.

    Examples:
        >>> from stdnet_core.model import ModelConfig
        >>> stream = StreamingSTDNet(STDNet(ModelConfig.preset("tiny")), latency=1)
        >>> frame = torch.rand(1, 3, 32, 32), torch.rand(1, 1, 4, 4)
        >>> stream.step(*frame) is None, stream.step(*frame).frame, [o.frame for o in stream.flush()]
        (True, 0, [1])
    """

    def __init__(self, model: STDNet, latency: int = 0) -> None:
        self.schedule = Schedule.of(model.config, latency)
        self.model = model.eval()
        self._fingerprint: str | None = None
        self._state = StreamState(owner="")

    @property
    def latency(self) -> int:
        """Frames between input and output."""
        return self.schedule.latency

    @property
    def fingerprint(self) -> str:
        """Identifies the model and the latency in the states of this stream."""
        if self._fingerprint is None:
            self._fingerprint = f"{model_fingerprint(self.model)}-latency{self.latency}"
        return self._fingerprint

    @property
    def state(self) -> StreamState:
        """A copy of the state; assign it to return to this point.

        Assigning a state of another model or latency raises InputError.
        """
        state = self._state.copy()
        state.owner = self.fingerprint
        return state

    @state.setter
    def state(self, state: StreamState) -> None:
        if not isinstance(state, StreamState) or state.owner != self.fingerprint:
            raise InputError(
                "this state belongs to another model or latency; use one taken from a stream with the same checkpoint "
                "and latency, or call reset()"
            )
        self._state = state.copy()

    def state_bytes(self) -> int:
        """Bytes of memory of the state: constant from the first frame to the last."""
        return self._state.bytes

    def reset(self) -> None:
        """Clear the state; the next frame may have another size."""
        self._state = StreamState(owner="")

    @torch.inference_mode()
    def step(self, rgb: Tensor, depth_lr: Tensor) -> StreamOutput | None:
        """Process the next frame.

        Args:
            rgb: (B, 3, H, W), 0..1.
            depth_lr: (B, 1, h, w), metres / depth_range, without holes. H/h = W/w = s, a multiple of 4.

        Returns:
            The output for the frame ``latency`` frames before; None during the first ``latency`` steps.

        Raises:
            InputError: shapes, sizes or values are wrong; the state does not change.
        """
        state = self._state
        check_frame(rgb, depth_lr, state.sizes)
        newest = state.frames
        padded_rgb, padded_depth, scale = pad_to_scale(rgb.float(), depth_lr.float())
        values = Values(self._kept)
        values.fresh[Value(Slot("rgb"), newest)] = padded_rgb
        values.fresh[Value(Slot("depth"), newest)] = padded_depth
        output = self._run(self.schedule.steady.at(newest), values, scale, rgb.shape)
        if state.sizes is None:
            state.rings = self._empty_rings(padded_rgb, scale)
        for (slot, frame), tensor in values.fresh.items():
            oldest, latest = self.schedule.kept.get(slot, (1, 0))
            if oldest <= frame - newest <= latest:
                state.rings[slot][frame] = tensor
        state.frames += 1
        state.sizes = (rgb.shape, depth_lr.shape)
        return output

    @torch.inference_mode()
    def flush(self) -> list[StreamOutput]:
        """End the clip: return the pending outputs, at most ``latency``, and reset the stream."""
        outputs = []
        newest, sizes = self._state.frames - 1, self._state.sizes
        if sizes is not None:
            rgb_shape, depth_shape = sizes
            scale = pad_to_scale(torch.empty(rgb_shape), torch.empty(depth_shape))[2]
            values = Values(self._kept)
            for plan in self.schedule.tail:
                outputs.append(self._run(plan.at(newest), values, scale, rgb_shape))
        self.reset()
        return [output for output in outputs if output is not None]

    def _kept(self, value: Value) -> Tensor:
        return self._state.rings[value.slot][value.frame]

    def _run(self, plan: StepPlan, values: Values, scale: int, rgb_shape: torch.Size) -> StreamOutput | None:
        result = run_plan(self.model, plan, values, scale)
        if result is None or plan.output is None:
            return None
        return StreamOutput.cropped(result, plan.output, *rgb_shape[-2:])

    def _empty_rings(self, rgb: Tensor, scale: int) -> dict[Slot, RingBuffer]:
        parameter = next(self.model.stages[0].guide_encoder.parameters())
        channels_last = parameter.is_contiguous(memory_format=torch.channels_last)
        rings = {}
        for slot, (oldest, latest) in self.schedule.kept.items():
            features = slot.name not in ("rgb", "depth", "prediction")
            rings[slot] = RingBuffer(
                latest - oldest + 1,
                slot_shape(self.model.config, slot, rgb.shape, scale),
                dtype=parameter.dtype if features else torch.float32,
                device=rgb.device,
                memory_format=torch.channels_last if features and channels_last else torch.contiguous_format,
            )
        return rings
