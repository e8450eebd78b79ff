"""From a pair of messages to an upsampled frame. Everything here runs on the inference thread; it does not use rclpy.

It converts and registers the images, clears the temporal window when needed, runs inference, and recovers from a device
that fails or runs out of memory."""

from __future__ import annotations

import contextlib
import copy
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from sensor_msgs.msg import CameraInfo

from stdnet_core.data.bags.ros_images import (
    FrameError,
    color_of,
    frames_agree,
    printable,
    same_field_of_view,
    stored_depth,
)
from stdnet_core.depth_units import look_at
from stdnet_core.errors import StdnetError
from stdnet_ros.messages import registration
from stdnet_ros.messages.camera_info import CameraInfoError, Intrinsics, fit_to_image, pinhole
from stdnet_ros.messages.registration import Extrinsics
from stdnet_ros.node.parameters import depth_units
from stdnet_ros.node.window import FrameSignature, WindowGuard
from stdnet_ros.synchronization.synchronizer import Pair


class Upsampler(Protocol):
    """The part of ``stdnet_core.DepthUpsampler`` that the node needs."""

    method: str
    info: Any
    placement: Any
    backend: str
    notices: list[str]
    edge_filter: float

    def step(self, rgb: np.ndarray, depth: np.ndarray, stamp: Any = None) -> Any: ...

    def reset(self) -> None: ...


@dataclass(frozen=True)
class Request:
    """A pair to process, with the camera_infos known when it was made; ``arrival`` is in monotonic seconds."""

    pair: Pair
    color_info: CameraInfo | None
    depth_info: CameraInfo | None
    arrival: float


@dataclass(frozen=True)
class UpsampledFrame:
    """A finished frame.

    Attributes:
        request: the pair it was made from.
        depth: (H, W) metres, NaN invalid.
        confidence: (H, W), 0 to 1.
        color: (H, W, 3).
        info: camera_info of ``depth``, None without a usable one.
        inference_seconds: duration of the inference that finished it.
    """

    request: Request
    depth: np.ndarray
    confidence: np.ndarray
    color: np.ndarray
    info: CameraInfo | None
    inference_seconds: float


@dataclass(frozen=True)
class Reporter:
    """Callbacks for what the pipeline reports: ``warn(key, text)``, ``drop(cause)``, ``reset(cause)``."""

    warn: Callable[[str, str], None]
    drop: Callable[[str], None]
    reset: Callable[[str], None]


@dataclass(frozen=True)
class _Taken:
    """The data of a frame that is kept while the frame is in the upsampler."""

    request: Request
    color: np.ndarray
    info: CameraInfo | None


def make_upsampler(settings: SimpleNamespace, **changes: Any) -> Upsampler:
    """The DepthUpsampler for the settings; ``changes`` override single ones (device, model, method)."""
    # Imported here, since torch takes seconds to import and a refused parameter should be reported at once.
    from stdnet_core.inference import DepthUpsampler

    chosen = {**vars(settings), **changes}
    return DepthUpsampler(
        chosen["model"] or "auto",
        method=chosen["method"],
        device=chosen["device"],
        precision=chosen["precision"],
        backend=chosen["backend"],
        compile_beside=True,
        latency=chosen["latency_frames"],
        edge_filter=chosen["edge_filter"],
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device or the machine is out of memory."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "alloc" in str(error) and "memory" in str(error))
    )


def is_of_the_device(error: BaseException) -> bool:
    """Whether an exception comes from CUDA or one of its libraries, rather than from a bug in Python code."""
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _CUDA_WORDS)


class Pipeline:
    """Owns the upsampler and its temporal window. Everything here runs on the inference thread.

    Args:
        settings: the node's settings at configuration.
        reporter: receives warnings, drops and window resets.
        extrinsics: (source frame, target frame, stamp in ns) -> pose of source in target, None if unknown.
        factory: creates the upsampler (:func:`make_upsampler`).

    Raises:
        StdnetError: the model is missing, damaged or does not fit the settings.
    """

    def __init__(
        self,
        settings: SimpleNamespace,
        reporter: Reporter,
        extrinsics: Callable[[str, str, int], Extrinsics | None],
        factory: Callable[..., Upsampler] = make_upsampler,
    ):
        self._reporter = reporter
        self._extrinsics = extrinsics
        self._factory = factory
        self._guard = WindowGuard()
        self._model = settings.model or "auto"
        self._changes: dict[str, Any] = {}
        self._noticed = 0
        self._without_info = 0
        self._fitted: tuple[CameraInfo | None, CameraInfo | None] = (None, None)
        self.waiting = 0
        """Frames in the upsampler that wait for following ones (latency_frames)."""
        self.fallback: str | None = None
        """Why the requested model, method or device was replaced; None if nothing was replaced."""
        self.doubt: str | None = None
        """Why the assumed unit of depth cannot be right; None if it can."""
        self._looked_at: tuple[Any, ...] | None = None
        self.empty = 0
        """Number of depth images in a row, up to the last one, without a measurement."""
        self._upsampler = self._first(settings)

    @property
    def upsampler(self) -> Upsampler | None:
        """The upsampler in use; None if, after a failure, no other could be created yet."""
        return self._upsampler

    def warm_up(self) -> None:
        """Run one small frame, so that kernels are loaded before the first real one."""
        info = self._upsampler.info
        scale = _CLASSICAL_WARM_UP_SCALE if info is None else min(info.scales, default=_CLASSICAL_WARM_UP_SCALE)
        size = _WARM_UP_CELLS * scale
        cells = np.ones((_WARM_UP_CELLS, _WARM_UP_CELLS), np.float32)
        self._upsampler.step(np.zeros((size, size, 3), np.uint8), cells)
        self._upsampler.reset()

    def reset(self) -> None:
        """Clear the temporal window; the frames waiting in it are dropped as ``window_reset``."""
        for _ in range(self.waiting):
            self._reporter.drop("window_reset")
        self.waiting = 0
        self._guard.forget()
        if self._upsampler is not None:
            self._upsampler.reset()

    def process(self, request: Request, settings: SimpleNamespace) -> UpsampledFrame | None:
        """Process a pair; returns the frame that this finishes, None if there is none.

        Raises:
            FrameError: the frame is refused; its ``cause`` says why.
            StdnetError: the upsampler refuses the frame.
        """
        if self._upsampler is None:
            self._use(self._factory(settings, **self._changes))
        taken, depth = self._prepare(request, settings)
        if self._upsampler.edge_filter != settings.edge_filter:
            self._upsampler.edge_filter = settings.edge_filter
        started = time.monotonic()
        try:
            result = self._step(taken, depth, settings)
        except StdnetError:
            raise
        except Exception:
            self.reset()
            raise
        seconds = time.monotonic() - started
        self.waiting += 1
        self._say_notices()
        if result is None:
            return None
        self.waiting -= 1
        depth_out = result.depth
        if settings.min_confidence > 0:
            depth_out = np.where(result.confidence >= settings.min_confidence, depth_out, np.float32(np.nan))
        done = result.stamp
        return UpsampledFrame(done.request, depth_out, result.confidence, done.color, done.info, seconds)

    def state(self) -> dict[str, Any]:
        """For diagnostics: method, model, device, memory use and waiting frames. Any thread may call it."""
        upsampler = self._upsampler
        if upsampler is None:
            return {"fallback": "in progress"}
        place = upsampler.placement
        state = {
            "method": upsampler.method,
            "model": self._changes.get("model", self._model) if upsampler.method == "stdnet" else "",
            "device": place.device,
            "precision": place.precision,
            "backend": upsampler.backend if upsampler.method == "stdnet" else "",
            "fallback": self.fallback or "none",
            "window waiting": self.waiting,
        }
        if str(place.device).startswith("cuda"):
            import torch

            state["GPU memory allocated [MiB]"] = f"{torch.cuda.memory_allocated(place.device) / 2**20:.0f}"
            state["GPU memory peak [MiB]"] = f"{torch.cuda.max_memory_allocated(place.device) / 2**20:.0f}"
        return state

    def _prepare(self, request: Request, settings: SimpleNamespace) -> tuple[np.ndarray, np.ndarray, CameraInfo | None]:
        color_message, depth_message = request.pair.color, request.pair.depth
        color = color_of(color_message, max_pixels=settings.max_image_pixels)
        depth = self._metres(depth_message, settings)
        color_encoding, depth_encoding = (getattr(m, "encoding", "compressed") for m in (color_message, depth_message))

        info = self._fitted_info(request.color_info, color.shape[1], color.shape[0])
        camera = None
        if info is not None:
            info.header = color_message.header
            camera = pinhole(info, settings.color_rectified)
        sensor_size = depth.shape
        depth = self._registered(request, color.shape[:2], depth, camera, settings)
        if settings.max_depth > 0:
            with np.errstate(invalid="ignore"):
                depth = np.where(depth <= settings.max_depth, depth, np.float32(np.nan))
        signature = FrameSignature(
            color.shape[:2],
            sensor_size,
            color_encoding,
            depth_encoding,
            color_message.header.frame_id,
            camera,
        )
        broken = self._guard.check(request.pair.color_stamp, signature, settings.max_gap)
        if broken is not None:
            cause, sentence = broken
            self._reporter.reset(cause)
            self._reporter.warn(f"window {cause}", f"temporal window cleared: {sentence}")
            self.reset()
            self._guard.check(request.pair.color_stamp, signature, settings.max_gap)
        return _Taken(request, color, info), depth

    def _metres(self, message: Any, settings: SimpleNamespace) -> np.ndarray:
        """Depth (h, w) in metres, NaN invalid. Checks on a stream's first image whether its unit is plausible."""
        units = depth_units(settings)
        stored = stored_depth(message, max_pixels=settings.max_image_pixels)
        if self._looked_at != (units, stored.dtype):
            seen = look_at(stored, units)
            if seen is not None:
                self._looked_at = units, stored.dtype
                self.doubt = None if seen.given or seen.plausible else seen.doubt("depth_unit")
        if self.doubt is not None:
            self._reporter.warn("depth unit", self.doubt)
        depth = units.metres(stored, invalid=np.nan)
        self.empty = 0 if np.isfinite(depth).any() else self.empty + 1
        return depth

    def _fitted_info(self, info: CameraInfo | None, width: int, height: int) -> CameraInfo | None:
        if info is None:
            # Topics start in any order, so a few frames without camera_info are normal.
            self._without_info += 1
            if self._without_info > _FRAMES_WITHOUT_INFO:
                self._reporter.warn(
                    "no camera_info",
                    "no message on color/camera_info; depth is published, camera_info and points are not",
                )
            return None
        self._without_info = 0
        of, fitted = self._fitted
        if of is not info or (fitted.width, fitted.height) != (width, height):
            try:
                fitted = fit_to_image(info, width, height)
            except CameraInfoError as error:
                self._reporter.warn(
                    "bad camera_info", f"color/camera_info: {error}; camera_info and points are not published"
                )
                return None
            self._fitted = info, fitted
        return copy.copy(fitted)

    def _registered(
        self,
        request: Request,
        color_size: tuple[int, int],
        depth: np.ndarray,
        camera: Intrinsics | None,
        settings: SimpleNamespace,
    ) -> np.ndarray:
        """Depth registered to the colour image, reprojected if necessary."""
        color_frame = request.pair.color.header.frame_id
        depth_frame = request.pair.depth.header.frame_id
        same_frame = frames_agree(depth_frame, color_frame)
        same_view = same_field_of_view(color_size, depth.shape)
        if settings.registration == "registered" or (settings.registration == "auto" and same_frame and same_view):
            if not same_view:
                raise FrameError(
                    "not_registered",
                    f"depth of {_wh(depth.shape)} does not cover the colour image of {_wh(color_size)}: their aspect "
                    f"ratios differ; register depth (ros2 run depth_image_proc register_node) or set registration: "
                    f"reproject",
                )
            return depth
        reason = (
            f"its frame_id {printable(depth_frame)} is not colour's {printable(color_frame)}"
            if not same_frame
            else f"the aspect ratio of its size {_wh(depth.shape)} is not that of colour's {_wh(color_size)}"
        )
        if camera is None or request.depth_info is None:
            raise FrameError(
                "not_registered",
                f"depth is not registered to colour ({reason}) and cannot be reprojected without usable messages on "
                f"color/camera_info and depth/camera_info; publish them, or register depth with "
                f"depth_image_proc's register_node",
            )
        extrinsics = self._pose(depth_frame, color_frame, same_frame, request.pair.depth_stamp, settings)
        if extrinsics is None:
            raise FrameError(
                "not_registered",
                f"depth is not registered to colour ({reason}); run depth_image_proc's register_node, or set the "
                f"parameter extrinsics (or publish the transform, where tf2_ros is installed), or set "
                f"registration: registered if the driver registers depth but keeps another frame_id",
            )
        try:
            depth_info = fit_to_image(request.depth_info, depth.shape[1], depth.shape[0])
            depth_camera = pinhole(depth_info, settings.color_rectified)
        except CameraInfoError as error:
            raise FrameError("not_registered", f"depth/camera_info: {error}") from error
        size = registration.target_size(camera, depth_camera)
        return registration.reproject(depth, depth_camera, camera, extrinsics, size)

    def _pose(
        self, depth_frame: str, color_frame: str, same_frame: bool, stamp: int, settings: SimpleNamespace
    ) -> Extrinsics | None:
        given = settings.extrinsics
        if any(given):
            return Extrinsics.from_quaternion(given[:3], given[3:])
        if same_frame:
            return Extrinsics(np.eye(3), np.zeros(3))
        return self._extrinsics(depth_frame.lstrip("/"), color_frame.lstrip("/"), stamp)

    def _step(self, taken: _Taken, depth: np.ndarray, settings: SimpleNamespace) -> Any:
        """Run one inference. If the device fails or is out of memory, recover and try the frame again."""
        try:
            return self._upsampler.step(taken.color, depth, taken)
        except Exception as error:
            full = is_out_of_memory(error)
            if isinstance(error, StdnetError) or not (full or (self._on_cuda() and is_of_the_device(error))):
                raise
            text = _first_line(error)
        self._reporter.reset("out_of_memory" if full else "device_error")
        for _ in range(self.waiting):
            self._reporter.drop("window_reset")
        self.waiting = 0
        _free_memory()
        if full:
            try:
                self._reporter.warn("out of memory", "out of memory: temporal window cleared, trying again")
                self._upsampler.reset()
                return self._upsampler.step(taken.color, depth, taken)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
        self._fall_back(settings, "out of memory" if full else f"the device failed ({text})", full)
        return self._upsampler.step(taken.color, depth, taken)

    def _fall_back(self, settings: SimpleNamespace, why: str, full: bool) -> None:
        """Replace the upsampler by one that needs less of the device; the last resort is joint_bilateral on the CPU."""
        if full and settings.out_of_memory == "fallback_model":
            changes, instead = {"model": settings.fallback_model}, f"model {settings.fallback_model}"
        elif full and settings.out_of_memory == "joint_bilateral":
            changes, instead = {"method": "joint_bilateral"}, "joint_bilateral"
        else:
            changes, instead = _CPU, "the CPU"
        if changes.items() <= self._changes.items():
            changes, instead = _LAST_RESORT, _LAST_RESORT_NAME
        self._changes = {**self._changes, **changes}
        self._upsampler = None
        _free_memory()
        try:
            self._use(self._factory(settings, **self._changes))
        except Exception as error:
            instead = f"{_LAST_RESORT_NAME}, because {instead} failed ({_first_line(error)})"
            self._changes = {**self._changes, **_LAST_RESORT}
        self.fallback = f"{why}: continued with {instead}"
        if self._upsampler is None:
            _free_memory()
            self._use(self._factory(settings, **self._changes))
        self._reporter.warn("fallback", self.fallback)

    def _first(self, settings: SimpleNamespace) -> Upsampler:
        try:
            upsampler = self._factory(settings)
        except Exception as error:
            if isinstance(error, StdnetError) or settings.device == "cpu" or not isinstance(error, RuntimeError):
                raise
            self._changes = dict(_CPU)
            self.fallback = f"device {settings.device} failed ({_first_line(error)}): running on the CPU"
            upsampler = self._factory(settings, **self._changes)
        if self.fallback is None and upsampler.placement.fallback:
            self.fallback = upsampler.placement.reason
        if self.fallback is not None:
            self._reporter.warn("fallback", self.fallback)
        return upsampler

    def _use(self, upsampler: Upsampler) -> None:
        self._upsampler, self._noticed = upsampler, 0

    def _say_notices(self) -> None:
        for notice in self._upsampler.notices[self._noticed :]:
            self._reporter.warn(notice, notice)
        self._noticed = len(self._upsampler.notices)

    def _on_cuda(self) -> bool:
        return str(self._upsampler.placement.device).startswith("cuda")


_FRAMES_WITHOUT_INFO = 10
_WARM_UP_CELLS = 16
_CLASSICAL_WARM_UP_SCALE = 4
_CUDA_WORDS = ("cuda", "cudnn", "cublas", "cufft", "nvrtc", "triton")
_CPU = {"device": "cpu", "precision": "auto"}
_LAST_RESORT = {"method": "joint_bilateral", **_CPU}
_LAST_RESORT_NAME = "joint_bilateral on the CPU"


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        # A failed device raises its error at every call; there is nothing to free then.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _wh(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
