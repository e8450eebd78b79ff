"""The deterministic run: processes every frame of a bag with the node's own pipeline and drops none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo

from stdnet_core.errors import StdnetError
from stdnet_ros.bag_evaluation.frames import BagFrame
from stdnet_ros.node.pipeline import Pipeline, Reporter, Request

_ALL_BEFORE = 1 << 30


@dataclass(frozen=True)
class Upsampled:
    """A frame with its upsampled depth.

    Attributes:
        frame: the input.
        depth: (H, W) metres, NaN invalid.
        info: camera_info of ``depth``, None if there is none.
        seconds: duration of the inference; NaN for frames that were flushed at the end of the bag.
    """

    frame: BagFrame
    depth: np.ndarray
    info: CameraInfo | None
    seconds: float


class OfflineNode:
    """Processes pairs as the live node does, without topics and threads.

    Args:
        settings: settings of the node.

    Attributes:
        drops, resets: number of dropped frames and of cleared temporal windows, by cause.
        messages: warnings of the pipeline, each once.

    Raises:
        StdnetError: the model cannot be loaded.
    """

    def __init__(self, settings: SimpleNamespace) -> None:
        self._settings = settings
        self.drops: Counter = Counter()
        self.resets: Counter = Counter()
        self.messages: dict[str, str] = {}
        reporter = Reporter(warn=self._warn, drop=self._drop, reset=self._reset)
        self.pipeline = Pipeline(settings, reporter, lambda source, target, stamp: None)
        self.pipeline.warm_up()
        self._inside: dict[int, BagFrame] = {}

    def process(self, frame: BagFrame) -> Iterator[Upsampled]:
        """Process the next frame; yields the frame that this finishes, if there is one."""
        request = Request(frame.pair, frame.color_info, frame.depth_info, time.monotonic())
        self._inside[frame.stamp] = frame
        try:
            done = self.pipeline.process(request, self._settings)
        except StdnetError as error:
            self._inside.pop(frame.stamp, None)
            self._drop(getattr(error, "cause", "refused"))
            self._warn(str(error), str(error))
            return
        if done is not None:
            yield self._finished(done.request, done.depth, done.info, done.inference_seconds)
        # When the window is cleared, the frames waiting in it are dropped.
        for stamp in list(self._inside)[: len(self._inside) - self.pipeline.waiting]:
            del self._inside[stamp]

    def finish(self) -> Iterator[Upsampled]:
        """At the end of the bag: the frames that are still waiting for following ones."""
        for result in self.pipeline.upsampler.flush():
            taken = result.stamp
            depth = result.depth
            if self._settings.min_confidence > 0:
                depth = np.where(result.confidence >= self._settings.min_confidence, depth, np.float32(np.nan))
            yield self._finished(taken.request, depth, taken.info, float("nan"))

    @property
    def ended(self) -> bool:
        """Always False: every frame of the bag is processed."""
        return False

    @property
    def memory(self) -> int:
        """How many previous frames can influence the depth of a frame; a large number if all of them can."""
        info = getattr(self.pipeline.upsampler, "info", None)
        if info is None:
            return 0
        if info.depth_range is None:  # the range is set from the first frame
            return _ALL_BEFORE
        config = info.config
        return config.stages * len(config.passes) * config.neighbors

    def state(self) -> dict[str, Any]:
        """Method, checkpoint, device and precision in use."""
        state = self.pipeline.state()
        info = getattr(self.pipeline.upsampler, "info", None)
        if info is not None:
            state["checkpoint"] = info.name
        return {name: value for name, value in state.items() if name not in ("window waiting", "model")}

    def _finished(self, request: Request, depth: np.ndarray, info: CameraInfo | None, seconds: float) -> Upsampled:
        return Upsampled(self._inside.pop(request.pair.color_stamp), depth, info, seconds)

    def _warn(self, key: str, text: str) -> None:
        self.messages.setdefault(key, text)

    def _drop(self, cause: str, count: int = 1) -> None:
        self.drops[cause] += count

    def _reset(self, cause: str) -> None:
        self.resets[cause] += 1
