"""The real node with an upsampler that does nothing, to measure the overhead of the node itself.

The upsampler returns depth of the colour image's size unchanged, so the node only receives, pairs, converts and
publishes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from stdnet_core.inference import UpsampledDepth
from stdnet_ros.node.node import main


class PassThrough:
    """Returns each depth image unchanged."""

    method = "none"
    info = None
    backend = "none"

    def __init__(self) -> None:
        self.placement = SimpleNamespace(device="cpu", precision="fp32", fallback=False, reason=None)
        self.notices: list[str] = []
        self.edge_filter = 0.0
        self._confidence = np.ones((1, 1), np.float32)

    def step(self, rgb: np.ndarray, depth: np.ndarray, stamp: Any = None) -> UpsampledDepth:
        """Return ``depth``, which must have the size of the colour image."""
        if self._confidence.shape != depth.shape:
            self._confidence = np.ones(depth.shape, np.float32)
        return UpsampledDepth(depth, self._confidence, stamp)

    def reset(self) -> None:
        """Do nothing: there is no state."""


if __name__ == "__main__":
    main(upsampler_factory=lambda settings, **changes: PassThrough())
