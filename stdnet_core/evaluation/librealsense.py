"""librealsense's own post-processing without a camera, as a baseline: users of a RealSense run it today.

The disparity, spatial, temporal and hole-filling filters run with their default settings, in the order that the library
recommends. Needs ``pip install '.[realsense]'`` (and the system's libusb 1.0 and libudev)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np

from stdnet_core.cli import require
from stdnet_core.inference import UpsampledDepth
from stdnet_core.inference.fill import fill_invalid
from stdnet_core.inference.frames import Geometry, to_metres

_MILLIMETRE = 0.001
_BASELINE_MM = 50.0  # RealSense D435; it scales disparities, which matters only to the filters' thresholds
_FPS = 30
_UP_TO = 2  # largest ratio of colour to depth at which the filters are a rival
_FARTHEST_AROUND = 1  # mode of hole filling, the library's default


def installed() -> bool:
    """Whether pyrealsense2 is installed, with the system's libraries that it needs."""
    if importlib.util.find_spec("pyrealsense2") is None:
        return False
    try:
        importlib.import_module("pyrealsense2")
    except ImportError:  # libusb is missing
        return False
    return True


def suits(ratio: float) -> bool:
    """Whether the filters are a rival for depth of this ratio of colour to depth."""
    return ratio <= _UP_TO


class LibrealsenseFilters:
    """The filter chain, with the part of :class:`stdnet_core.DepthUpsampler`'s interface that evaluation needs.

    Args:
        focal_px: focal length of the depth image in pixels; None: 0.8 times its width.

    Raises:
        StdnetError: pyrealsense2 is not installed.
    """

    def __init__(self, focal_px: float | None = None) -> None:
        self._library = require("pyrealsense2", extra="realsense")
        self._focal_px = focal_px
        self.notices: list[str] = []
        self._queue: Any = None
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        if self._queue is not None:
            self._sensor.stop()
            self._sensor.close()
        self._queue = None
        self._chain: list[Any] = []
        self._frames = 0

    def step(self, rgb: np.ndarray, depth: np.ndarray, stamp: Any = None) -> UpsampledDepth:
        """Filter the next frame, as :meth:`stdnet_core.DepthUpsampler.step`; colour is not used.

        Depth smaller than colour is filtered at its own size; then its pixels are repeated."""
        metres = to_metres(depth)
        if self._queue is None:
            self._open(metres.shape)
        library = self._library
        frame = library.software_video_frame()
        frame.pixels = np.ascontiguousarray((metres / _MILLIMETRE).round().clip(0, 65535).astype(np.uint16))
        frame.stride, frame.bpp = 2 * metres.shape[1], 2
        frame.timestamp, frame.domain = 1000.0 * self._frames / _FPS, library.timestamp_domain.hardware_clock
        frame.frame_number, frame.profile, frame.depth_units = self._frames, self._profile, _MILLIMETRE
        self._sensor.on_video_frame(frame)
        self._frames += 1
        out = self._queue.wait_for_frame()
        for step in self._chain:
            out = step.process(out)
        filtered = fill_invalid(np.asanyarray(out.get_data()).astype(np.float32) * np.float32(_MILLIMETRE))
        geometry = Geometry.native(rgb.shape[:2], metres.shape)
        height, width = geometry.covered
        rows, columns = (np.arange(n) * cells // n for n, cells in zip((height, width), filtered.shape, strict=True))
        full = filtered[np.ix_(rows, columns)][: geometry.size[0], : geometry.size[1]]
        return UpsampledDepth(np.ascontiguousarray(full), np.ones_like(full), stamp)

    def flush(self) -> list[UpsampledDepth]:
        """End the stream; no frame is pending."""
        self.reset()
        return []

    def _open(self, size: tuple[int, int]) -> None:
        library = self._library
        height, width = size
        self._device = library.software_device()
        self._sensor = self._device.add_sensor("depth")
        stream = library.video_stream()
        stream.type, stream.index, stream.uid, stream.fmt = library.stream.depth, 0, 0, library.format.z16
        stream.width, stream.height, stream.fps, stream.bpp = width, height, _FPS, 2
        camera = library.intrinsics()
        camera.width, camera.height, camera.ppx, camera.ppy = width, height, width / 2, height / 2
        camera.fx = camera.fy = self._focal_px or 0.8 * width
        camera.model, camera.coeffs = library.distortion.none, [0.0] * 5
        stream.intrinsics = camera
        self._profile = self._sensor.add_video_stream(stream).as_video_stream_profile()
        self._sensor.add_read_only_option(library.option.depth_units, _MILLIMETRE)
        self._sensor.add_read_only_option(library.option.stereo_baseline, _BASELINE_MM)
        self._queue = library.frame_queue(10)
        self._sensor.open(self._profile)
        self._sensor.start(self._queue)
        self._chain = [
            library.disparity_transform(True),
            library.spatial_filter(),
            library.temporal_filter(),
            library.disparity_transform(False),
            library.hole_filling_filter(_FARTHEST_AROUND),
        ]
