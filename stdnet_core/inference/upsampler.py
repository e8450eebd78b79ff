"""DepthUpsampler: colour and low-resolution depth in, high-resolution depth out, frame by frame.

The one way to run the network or a classical method on real frames. The node, ``predict``, ``evaluate`` and the bag
evaluation all use it, so that evaluation measures the code that runs on a robot. It handles units, sizes, invalid
pixels, the normalisation of depth, the choice of device and precision, and the confidence of each pixel. Arrays are
numpy; STDNet itself runs frame by frame in :mod:`stdnet_core.streaming`."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.cli import require
from stdnet_core.errors import CheckpointError, ConfigError, InputError, StdnetError
from stdnet_core.filtering import GuidedTemporalFilter
from stdnet_core.filtering.upsampling import upsample
from stdnet_core.inference import classical
from stdnet_core.inference.confidence import (
    cell_confidence,
    filter_confidence,
    flying_pixels,
    stage_confidence,
    within_tolerance,
)
from stdnet_core.inference.devices import Placement, place
from stdnet_core.inference.engine import (
    Engine,
    EngineOutput,
    RecurrentEngine,
    RecurrentTorchEngine,
    TorchEngine,
    as_bytes,
    tensor,
    unit_range,
)
from stdnet_core.inference.fill import fill_invalid, measured_here, measured_nearby, measured_within
from stdnet_core.inference.frames import DepthRange, Geometry, cells_fit, check_rgb, pad_colour, to_metres
from stdnet_core.inference.onnx_engine import OnnxEngine, RecurrentOnnxEngine, open_engine
from stdnet_core.inference.openvino_engine import CompilingEngine, RecurrentOpenVinoEngine
from stdnet_core.memory import keep_freed_memory
from stdnet_core.model import RecurrentNet, STDNet
from stdnet_core.model.recurrent.registration import register
from stdnet_core.short_repr import short_repr

METHODS = ("auto", "stdnet", "guided_temporal", "joint_bilateral", "bilinear", "nearest", "bicubic")
BACKENDS = ("torch", "openvino", "auto", "onnxruntime")
MAX_LATENCY = 8

_JOINT_BILATERAL_SCALES = tuple(range(1, 65))
_LEAST_SCALE = 4
"""Ratio of colour to depth below which depth is fine. There, ``auto`` chooses the filter if there is no network, or one
that takes only the scales of its checkpoint; the smallest of these then counts instead."""
_SUPPORTED_LEVEL = 5
_SUPPORTED_DISTANCE = 32.0
"""In holes of fine depth, pixels farther than 32 pixels from a measurement count as unsupported."""
_WEIGHTS = ("live",)
"""The shipped checkpoints that ``auto`` prefers."""
_NOTICES_KEPT = 50
_MISREGISTERED_FRAMES = 15
"""Frames in a row in which colour is shifted before the user is told."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpsampledDepth:
    """One frame of the result.

    Attributes:
        depth: (H, W) float32 metres along the optical axis, NaN where invalid.
        confidence: (H, W) float32, estimated probability that the error is below 2 cm or 2 % of the depth, whichever
            is larger; 0 where depth is invalid.
        stamp: the stamp passed in with the frame.
        supported: (H, W) bool, where a measurement supports the depth, regardless of ``mask_unsupported``; None:
            everywhere.
    """

    depth: np.ndarray
    confidence: np.ndarray
    stamp: Any = None
    supported: np.ndarray | None = None

    def __repr__(self) -> str:
        known = np.isfinite(self.depth)
        text = "no depth"
        if known.any():
            near, far = self.depth[known].min(), self.depth[known].max()
            text = f"{near:.2f} to {far:.2f} m in {100 * known.mean():.0f} % of the pixels"
        height, width = self.depth.shape
        return f"UpsampledDepth({width}x{height}, {text}, stamp={self.stamp!r})"

    @property
    def shown(self) -> np.ndarray:
        """(H, W) bool, where there is a depth and a measurement supports it."""
        known = np.isfinite(self.depth)
        return known if self.supported is None else known & self.supported


@dataclass(frozen=True)
class _Pending:
    """What is stored of a frame until its output is available."""

    cells: np.ndarray  # (rows, columns) m, 0 where invalid
    geometry: Geometry
    metres: float  # range by which its depth was divided
    stamp: Any

    __repr__ = short_repr


class DepthUpsampler:
    """Upsamples the depth of an RGB-D stream.

    Args:
        checkpoint: a ``.safetensors`` file, the name of a shipped checkpoint, a model with its info, or ``auto`` for
            the shipped one (``joint_bilateral`` if none ships). With None, method ``auto`` uses no network, and
            method ``stdnet`` the shipped one. The classical methods ignore it.
        method: ``auto`` (the network if there is a checkpoint, else ``joint_bilateral``; but ``guided_temporal`` if
            depth is less than 4 times coarser than colour and the network is not a recurrent one, which takes depth of
            any ratio), ``stdnet``, ``guided_temporal``, ``joint_bilateral``, ``bilinear``, ``nearest`` or
            ``bicubic``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        latency: following frames that the network waits for, 0 to 8; more increase accuracy. Other methods and causal
            networks do not benefit from waiting, and do not wait.
        max_depth: metres; larger measurements are ignored.
        edge_filter: 0: off. Otherwise, remove pixels that float between two surfaces whose depths differ, within 3x3
            pixels, by more than this share of the depth. 0.03 suits point clouds.
        mask_unsupported: make depth invalid where no measurement is within about one cell. Where holes of fine depth
            are filled (``guided_temporal``, recurrent network), the limit is about 32 pixels.
        backend: what executes the network: ``torch``; ``openvino`` for a recurrent network on the CPU in float32,
            which is faster, but takes seconds to compile it for the sizes of a stream; ``auto``: OpenVINO if it is
            installed, the device is the CPU and bf16 is not asked for, otherwise PyTorch; or ``onnxruntime`` for
            an ``.onnx`` checkpoint from ``stdnet_core.export``, whose sizes and latency are fixed. With ``openvino``
            and ``onnxruntime``, device ``auto`` is the CPU.
        compile_beside: with OpenVINO, compile on another thread once the sizes stay the same, while PyTorch computes
            the frames. No frame then waits, but which of them PyTorch computed is not reproducible.
        keep_memory: on a CPU, let the process keep memory that it frees (:mod:`stdnet_core.memory`), which makes a
            frame about a quarter faster. This affects the whole process.

    Attributes:
        notices: messages for the user (fallbacks, resampled sizes, restarted windows), each once; also logged as
            warnings to the logger ``stdnet_core.inference.upsampler``.
        method: the method in use; ``auto`` chooses it with the first frame of a stream.
        latency: frames between an input and its output.
        edge_filter: as passed in; may be changed between frames.
        backend: what executes the network now; ``torch`` as long as OpenVINO compiles beside the stream.
        info: the checkpoint's description; None for a classical method.

    Raises:
        ConfigError: an unknown or contradictory argument.
        CheckpointError: the checkpoint is missing, damaged or not from this project.

    Examples:
        >>> upsampler = DepthUpsampler(method="bilinear")
        >>> out = upsampler.step(np.zeros((48, 64, 3), np.uint8), np.full((6, 8), 1500, np.uint16), stamp=0.1)
        >>> out.depth.shape, round(float(out.depth[0, 0]), 3)
        ((48, 64), 1.5)
    """

    def __init__(
        self,
        checkpoint: str | Path | tuple[STDNet | RecurrentNet, CheckpointInfo] | None = None,
        *,
        method: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        latency: int = 0,
        max_depth: float | None = None,
        edge_filter: float = 0.0,
        mask_unsupported: bool = True,
        backend: str = "torch",
        compile_beside: bool = False,
        keep_memory: bool = True,
    ) -> None:
        _check_settings(method, latency, max_depth, edge_filter, backend)
        self.notices: list[str] = []
        self._noted: set[str] = set()
        self._max_depth = max_depth
        self.edge_filter = edge_filter
        self._mask_unsupported = mask_unsupported
        exported = _load_exported(checkpoint, method, device, latency) if backend == "onnxruntime" else None
        if backend == "openvino":
            _check_openvino(device, precision)
            precision = "fp32"
        self._placement = place(device if backend in ("torch", "auto") else "cpu", precision)
        if keep_memory and self._placement.device.type == "cpu":
            keep_freed_memory()
        loaded = _load(checkpoint, method) if exported is None else None
        if backend == "auto":
            backend = "openvino" if _suits_openvino(loaded, self._placement, precision) else "torch"
            if backend == "openvino":
                self._placement = replace(self._placement, dtype=torch.float32)
        self._backend = backend
        self.info: CheckpointInfo | None = None
        self._engine: Engine | None = None
        self._recurrent_engine: RecurrentEngine | None = None
        if isinstance(exported, OnnxEngine):
            self.info, self._engine = replace(exported.info, scales=(exported.scale,)), exported
        elif exported is not None:
            self.info, self._recurrent_engine = exported.info, exported
        elif loaded is not None:
            self.info = loaded[1]
        self._range = DepthRange(None if self.info is None else self.info.depth_range)
        self._filter: GuidedTemporalFilter | None = None
        self._automatic = method == "auto" and exported is None
        if self._placement.reason and (loaded is not None or self._placement.fallback):
            self._note("device", self._placement.reason)
        network_latency = latency
        if loaded is not None:
            model, info = loaded
            if latency and info.config.causal:
                self._note("latency", f"latency {latency}: the network is causal, so waiting does not help; using 0")
                network_latency = 0
            if isinstance(model, RecurrentNet):
                if backend == "openvino":
                    self._recurrent_engine = (CompilingEngine if compile_beside else RecurrentOpenVinoEngine)(model)
                else:
                    self._recurrent_engine = RecurrentTorchEngine(model, self._placement)
            elif backend == "openvino":
                raise ConfigError(
                    f"backend openvino runs recurrent networks such as live, and {info.name} is none; use backend torch"
                )
            else:
                self._engine = TorchEngine(model, network_latency, self._placement)
        self._latencies = {"stdnet": network_latency}
        network = exported is not None or loaded is not None
        self._usual = "stdnet" if network else "joint_bilateral" if method == "auto" else method
        self.reset()

    @property
    def backend(self) -> str:
        return self._backend if self._recurrent_engine is None else self._recurrent_engine.executes

    @classmethod
    def from_pretrained(cls, name: str | Path, **settings: Any) -> DepthUpsampler:
        """The network of a checkpoint: a shipped one (see :func:`stdnet_core.checkpoints.available`) or a file."""
        return cls(name, **settings)

    @classmethod
    def from_model(cls, model: STDNet | RecurrentNet, info: CheckpointInfo, **settings: Any) -> DepthUpsampler:
        """A network in memory, e.g. from training or ``load_released``; a copy is moved to the device."""
        return cls((model, info), **settings)

    def __repr__(self) -> str:
        name = self.info.name if self.info is not None else ""
        device = f"{self.placement.device} in {self.placement.precision}"
        return f"DepthUpsampler({', '.join(filter(None, [self.method, name, device]))})"

    @property
    def _recurrent(self) -> bool:
        return self._recurrent_engine is not None

    @property
    def _scales(self) -> tuple[int, ...]:
        """The scales that the network was trained for."""
        return () if self.info is None else self.info.scales

    @property
    def placement(self) -> Placement:
        """Device and precision in use; the guided temporal filter always runs on the CPU."""
        return self._placement if self._filter is None else Placement(torch.device("cpu"), torch.float32)

    @property
    def geometry(self) -> Geometry | None:
        """Sizes and scale of the current stream; None before its first frame."""
        return self._geometry

    def reset(self) -> None:
        """Begin a new stream: clear the temporal window, the sizes and the depth range. Pending frames are lost."""
        self._use(self._usual)
        self._geometry: Geometry | None = None
        self._last_filled: np.ndarray | None = None
        self._misregistered = 0  # frames in a row
        self._pending: deque[_Pending] = deque()
        self._ready: deque[UpsampledDepth] = deque()
        self._range.reset()
        for engine in (self._engine, self._recurrent_engine):
            if engine is not None:
                engine.reset()

    def _use(self, method: str) -> None:
        self.method = method
        self.latency = self._latencies.get(method, 0)
        self._filter = GuidedTemporalFilter() if method == "guided_temporal" else None

    def step(self, rgb: np.ndarray, depth: np.ndarray, stamp: Any = None) -> UpsampledDepth | None:
        """Upsample the next frame of the stream.

        Args:
            rgb: (H, W, 3), uint8, or float in 0..1.
            depth: (h, w), aligned with rgb: float metres (0, NaN and infinite are invalid) or uint16 millimetres.
            stamp: any value; returned with the frame's result.

        Returns:
            The result for the frame ``latency`` frames before, or None if there is none yet.

        Raises:
            InputError: a shape, type or content that cannot be used, or other sizes than before (call :meth:`reset`
                when a stream changes). The stream continues as if the frame had never been passed in.
        """
        rgb = check_rgb(rgb)
        metres = to_metres(depth, self._max_depth)
        geometry = self._check_geometry(rgb.shape[:2], metres.shape)
        cells = geometry.to_grid(metres)
        if self.method != "stdnet" or self._recurrent:
            if self.method == "stdnet":
                result = self._recurrently(rgb, cells, geometry, stamp)
            elif self._filter is not None:
                result = self._filtered(self._filter, rgb, cells, geometry, stamp)
            else:
                result = self._classical(rgb, cells, geometry, stamp)
            self._geometry = geometry
            return result
        try:
            self._advance(rgb, cells, geometry, stamp)
        except BaseException:
            self.reset()  # a partly processed frame would mix up the following frames
            raise
        return self._ready.popleft() if self._ready else None

    def flush(self) -> list[UpsampledDepth]:
        """End the stream and return the pending results, oldest first. The next frame begins a new stream."""
        if self.method == "stdnet" and not self._recurrent:
            self._collect_rest()
        results = list(self._ready)
        self.reset()
        return results

    def run(
        self, rgb_video: Iterable[np.ndarray], depth_video: Iterable[np.ndarray], stamps: Iterable[Any] | None = None
    ) -> Iterator[UpsampledDepth]:
        """Upsample a video of any length in constant memory.

        Args:
            rgb_video: frames as for :meth:`step`; an array (T, H, W, 3) or any iterable.
            depth_video: as many frames (h, w).
            stamps: one per frame; None: the frame numbers from 0.

        Yields:
            One result per frame, in order.

        Raises:
            InputError: as for :meth:`step`, with the number of the frame; the videos differ in length; or there are
                fewer stamps than frames.
        """
        self.reset()
        end: Any = object()
        stamps = iter(itertools.count() if stamps is None else stamps)
        videos = itertools.zip_longest(rgb_video, depth_video, fillvalue=end)
        for index, (rgb, depth) in enumerate(videos):
            if rgb is end or depth is end:
                shorter = "colour" if rgb is end else "depth"
                raise InputError(
                    f"the {shorter} video ends after {index} frames and the other continues; give equal numbers"
                )
            stamp = next(stamps, end)
            if stamp is end:
                raise InputError(f"the stamps end after {index} frames and the video continues; give one per frame")
            try:
                result = self.step(rgb, depth, stamp)
            except InputError as error:
                raise InputError(f"frame {index}: {error}") from error
            if result is not None:
                yield result
        yield from self.flush()

    # --- the stream --------------------------------------------------------------------------------------------------

    def _check_geometry(self, size: tuple[int, int], depth_size: tuple[int, int]) -> Geometry:
        known = self._geometry
        if known is not None and (known.size, known.depth_size) == (size, depth_size):
            return known
        if known is not None:
            raise InputError(
                f"the stream had colour of {_text(known.size)} and depth of {_text(known.depth_size)}, and now has "
                f"{_text(size)} and {_text(depth_size)}; call reset() when sizes change"
            )
        self._choose_method(Geometry.native(size, depth_size))
        if self.method == "stdnet" and not self._recurrent:
            geometry = Geometry.choose(size, depth_size, self._scales)
        elif self.method == "joint_bilateral":
            geometry = Geometry.choose(size, depth_size, _JOINT_BILATERAL_SCALES)
        else:
            geometry = Geometry.native(size, depth_size)
        if geometry.resampled:
            network = self.method == "stdnet"
            method = self.method + (f", trained for {checkpoints.scales_text(self._scales)}" if network else "")
            self._note(
                f"geometry {geometry}",
                f"depth of {_text(depth_size)} is resampled to {_text(geometry.grid)} and upsampled x{geometry.scale} "
                f"to colour of {_text(size)}, whose size is {geometry.ratio:.3g} times that of depth ({method})",
            )
        return geometry

    def _choose_method(self, geometry: Geometry) -> None:
        """Method ``auto``: below x4, choose the filter unless the network takes such depth as it is."""
        if not self._automatic or self._recurrent:
            return
        least = min(self._scales, default=_LEAST_SCALE)
        filtering = geometry.ratio < least and not cells_fit(geometry.size, geometry.depth_size, least)
        self._use("guided_temporal" if filtering else self._usual)
        if filtering:
            self._note(
                "filter",
                f"depth of {_text(geometry.depth_size)} is nearly as fine as colour of {_text(geometry.size)}: method "
                f"auto runs guided_temporal, which removes noise and fills holes ({self._usual} is for coarser depth)",
            )

    def _advance(self, rgb: np.ndarray, cells: np.ndarray, geometry: Geometry, stamp: Any) -> None:
        """Pass a frame to the engine and collect its output."""
        previous_metres = self._range.metres
        if self._range.observe(float(cells.max())):
            self._collect_rest()
            self._note(
                "range",
                f"depth has left the range of {previous_metres:.3g} m that the temporal window began with; the window "
                f"restarts with {self._range.metres:.3g} m (reported once)",
            )
        if self._range.fixed is not None and cells.max() > self._range.fixed:
            self._note(
                "beyond", f"depth reaches beyond the {self._range.fixed:g} m that the checkpoint was trained for"
            )
        self._geometry = geometry
        self._pending.append(_Pending(cells, geometry, self._range.metres, stamp))
        assert self._engine is not None
        output = self._engine.step(
            pad_colour(rgb, geometry.covered), self._filled(cells) * np.float32(1 / self._range.metres)
        )
        if output is not None:
            self._ready.append(self._finish(output))

    def _collect_rest(self) -> None:
        assert self._engine is not None
        for output in self._engine.flush():
            self._ready.append(self._finish(output))

    def _filled(self, cells: np.ndarray) -> np.ndarray:
        """Hole-free depth; a frame without any measurement repeats the last frame that had one."""
        if cells.any() or self._last_filled is None:
            self._last_filled = fill_invalid(cells)
        return self._last_filled

    def _finish(self, output: EngineOutput) -> UpsampledDepth:
        frame = self._pending.popleft()
        height, width = frame.geometry.size
        metres = np.float32(frame.metres)
        depth = output.depth[:height, :width] * metres
        if output.error_scale is not None:
            confidence = within_tolerance(depth, output.error_scale[:height, :width] * metres)
        elif output.disagreement is not None:
            confidence = stage_confidence(depth, output.disagreement[:height, :width] * metres)
        else:
            confidence = cell_confidence(frame.cells, frame.geometry)
        return self._mask(depth, confidence, frame.cells > 0, frame.geometry, frame.stamp)

    def _classical(self, rgb: np.ndarray, cells: np.ndarray, geometry: Geometry, stamp: Any) -> UpsampledDepth:
        source = cells if self._mask_unsupported else fill_invalid(cells)
        with torch.inference_mode():
            lr = torch.from_numpy(source)[None, None].to(self._placement.device)
            if self.method == "joint_bilateral":
                guide = unit_range(tensor(pad_colour(rgb, geometry.covered)).to(lr.device)).permute(2, 0, 1)[None]
                upsampled = classical.joint_bilateral(guide, lr, scale=geometry.scale)
            else:
                upsampled = _INTERPOLATIONS[self.method](lr, geometry.covered)
            height, width = geometry.size
            depth = upsampled[0, 0, :height, :width].cpu().numpy()
        measured = cells > 0
        if self.method == "nearest":  # it has no values outside valid cells
            measured = measured_here(measured, *geometry.covered)
        return self._mask(depth, cell_confidence(cells, geometry), measured, geometry, stamp)

    def _filtered(
        self, temporal: GuidedTemporalFilter, rgb: np.ndarray, depth: np.ndarray, geometry: Geometry, stamp: Any
    ) -> UpsampledDepth:
        """Denoise and fill at the resolution of depth, then upsample to that of colour."""
        colour = pad_colour(as_bytes(rgb), geometry.covered)
        native = depth.shape == geometry.covered
        guide = colour if native else cv2.resize(colour, depth.shape[::-1], interpolation=cv2.INTER_AREA)
        filtered = temporal.step(guide, depth)
        height, width = geometry.size
        result = filtered.depth
        if not native:
            inverse = np.divide(1, result, out=np.zeros_like(result), where=result > 0)
            inverse = upsample(inverse, colour)
            result = np.divide(1, inverse, out=np.zeros_like(inverse), where=inverse > 0)
        near = (filtered.depth > 0) & (filtered.origin <= _SUPPORTED_LEVEL)
        return self._mask(result[:height, :width], filter_confidence(filtered, geometry), near, geometry, stamp)

    def _recurrently(self, rgb: np.ndarray, depth: np.ndarray, geometry: Geometry, stamp: Any) -> UpsampledDepth:
        """A step of the recurrent network, which accepts depth with holes, in metres."""
        assert self._recurrent_engine is not None
        (height, width), (rows, columns) = geometry.covered, depth.shape
        ratio = height / rows, width / columns
        output = self._recurrent_engine.step(pad_colour(rgb, geometry.covered), depth, ratio)
        assert output.error_scale is not None
        assert output.registration is not None
        self._watch_registration(output.registration, min(ratio))
        height, width = geometry.size
        metres = output.depth[:height, :width]
        confidence = within_tolerance(metres, output.error_scale[:height, :width])
        measured = depth > 0
        if geometry.ratio < _LEAST_SCALE and not measured.all():  # holes of fine depth are filled
            measured = measured_within(measured, geometry.covered, _SUPPORTED_DISTANCE)
        return self._mask(metres, confidence, measured, geometry, stamp)

    def _watch_registration(self, sums: np.ndarray, ratio: float) -> None:
        """Tell the user, once, if the network has shifted colour for a while."""
        if "registration" in self._noted:
            return
        placed = register(torch.from_numpy(sums)[None], ratio)
        shift = placed.shift - placed.sampling
        self._misregistered = self._misregistered + 1 if shift.any() else 0
        if self._misregistered == _MISREGISTERED_FRAMES:
            down, right = (int(pixels) for pixels in shift[0])
            vertical = f"{abs(down)} pixels {'lower' if down > 0 else 'higher'}"
            horizontal = f"{abs(right)} pixels further {'right' if right > 0 else 'left'}"
            where = " and ".join(text for text, by in ((vertical, down), (horizontal, right)) if by)
            self._note(
                "registration",
                f"depth does not seem to be registered to colour, whose edges are {where}. The network allows for "
                "this, but only for the image as a whole; register depth to colour, or correct the calibration",
            )

    def _mask(
        self, depth: np.ndarray, confidence: np.ndarray, measured: np.ndarray, geometry: Geometry, stamp: Any
    ) -> UpsampledDepth:
        """Mask invalid pixels and build the result.

        Args:
            measured: bool; either cells (rows, columns), which support the pixels around them, or pixels (of the size
                that the cells cover), which support only themselves.
        """
        keep = (depth > 0) & (depth < np.inf)
        if self.edge_filter:
            keep &= ~flying_pixels(depth, keep, self.edge_filter)
        supported = None
        if not measured.all():
            supported = measured if measured.shape == geometry.covered else measured_nearby(measured, *geometry.covered)
            supported = supported[: depth.shape[0], : depth.shape[1]]
            if self._mask_unsupported:
                keep &= supported
        if not keep.all():
            depth = np.where(keep, depth, np.float32(np.nan))
            confidence = np.where(keep, confidence, np.float32(0))
        return UpsampledDepth(np.ascontiguousarray(depth), np.ascontiguousarray(confidence), stamp, supported)

    def _note(self, key: str, text: str) -> None:
        if key in self._noted or len(self._noted) >= _NOTICES_KEPT:
            return
        self._noted.add(key)
        self.notices.append(text)
        _log.warning(text)


_INTERPOLATIONS: dict[str, Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]] = {
    "nearest": classical.nearest,
    "bilinear": classical.bilinear,
    "bicubic": classical.bicubic,
}


def _check_settings(method: str, latency: int, max_depth: float | None, edge_filter: float, backend: str) -> None:
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}; choose one of {', '.join(METHODS)}")
    if not isinstance(latency, int) or isinstance(latency, bool) or not 0 <= latency <= MAX_LATENCY:
        raise ConfigError(f"latency is {latency!r}; give a whole number of frames from 0 to {MAX_LATENCY}")
    if max_depth is not None and not max_depth > 0:
        raise ConfigError(f"max_depth is {max_depth!r}; give positive metres or None")
    if not 0 <= edge_filter < np.inf:
        raise ConfigError(f"edge_filter is {edge_filter!r}; give 0 (off) or a share of the depth such as 0.03")
    if backend not in BACKENDS:
        raise ConfigError(f"backend is {backend!r}; choose one of {', '.join(BACKENDS)}")


def _load(
    checkpoint: str | Path | tuple[STDNet | RecurrentNet, CheckpointInfo] | None, method: str
) -> tuple[STDNet | RecurrentNet, CheckpointInfo] | None:
    """The network to run, or None for a classical method."""
    if method not in ("auto", "stdnet") or (checkpoint is None and method == "auto"):
        return None
    if isinstance(checkpoint, tuple):
        return checkpoint
    if checkpoint not in (None, "auto"):
        return checkpoints.load(checkpoint)
    shipped = checkpoints.available()
    for name in (*_WEIGHTS, *shipped):
        if name in shipped:
            return checkpoints.load(name)
    if method == "stdnet":
        raise CheckpointError(
            "method stdnet needs a checkpoint and none ships with this installation; "
            "give the path of a .safetensors file or choose method joint_bilateral"
        )
    return None


def _check_openvino(device: str, precision: str) -> None:
    if device not in ("auto", "cpu"):
        raise ConfigError(f"backend openvino runs on the CPU, and device is {device!r}; choose auto or cpu")
    if precision not in ("auto", "fp32"):
        raise ConfigError(f"backend openvino computes in fp32, and precision is {precision!r}; choose auto or fp32")


def _suits_openvino(
    loaded: tuple[STDNet | RecurrentNet, CheckpointInfo] | None, placement: Placement, precision: str
) -> bool:
    """Whether OpenVINO is installed and may run the network, as PyTorch would and faster, even than in bfloat16."""
    if loaded is None or not isinstance(loaded[0], RecurrentNet):
        return False
    if placement.device.type != "cpu" or (precision != "auto" and placement.dtype != torch.float32):
        return False
    try:
        require("openvino", extra="openvino")
    except StdnetError:
        return False
    return True


def _load_exported(checkpoint: object, method: str, device: str, latency: int) -> OnnxEngine | RecurrentOnnxEngine:
    """The engine of an exported network.

    Raises:
        ConfigError: settings that do not fit an exported network.
    """
    if method not in ("auto", "stdnet"):
        raise ConfigError(f"backend onnxruntime runs the network and not method {method}; choose method stdnet")
    if not isinstance(checkpoint, (str, Path)) or Path(checkpoint).suffix != ".onnx":
        raise ConfigError(
            f"backend onnxruntime needs an .onnx file as checkpoint, not {checkpoint!r}; create one with: "
            "python -m stdnet_core.export"
        )
    providers = ["CPUExecutionProvider"]
    engine = open_engine(checkpoint, providers=["CUDAExecutionProvider", *providers] if "cuda" in device else providers)
    if latency != engine.latency:
        raise ConfigError(f"{checkpoint} was exported with latency {engine.latency}, not {latency}; give its latency")
    return engine


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
