"""SpatioTemporal Difference Network for video depth super-resolution, without ROS.

``from stdnet_core import STDNet, ModelConfig, DepthUpsampler, StreamingSTDNet``. Names are imported on first
use, so that ``--help`` of the command-line tools need not load torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stdnet_core.inference import DepthUpsampler, UpsampledDepth
    from stdnet_core.model import ModelConfig, STDNet, STDNetOutput
    from stdnet_core.streaming import StreamingSTDNet

__version__ = "0.1.0"

_EXPORTS = {
    "DepthUpsampler": "stdnet_core.inference",
    "ModelConfig": "stdnet_core.model",
    "STDNet": "stdnet_core.model",
    "STDNetOutput": "stdnet_core.model",
    "StreamingSTDNet": "stdnet_core.streaming",
    "UpsampledDepth": "stdnet_core.inference",
}
__all__ = ["DepthUpsampler", "ModelConfig", "STDNet", "STDNetOutput", "StreamingSTDNet", "UpsampledDepth"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'stdnet_core' has no attribute {name!r}")
