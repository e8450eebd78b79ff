"""Decides when a frame does not continue the temporal window.

The network assumes that neighbouring frames follow each other closely. A looped bag, a restarted camera or a long pause
violates this assumption. The node therefore checks each frame here, and clears its temporal window if necessary."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stdnet_core.data.bags.ros_images import printable
from stdnet_ros.messages.camera_info import Intrinsics


@dataclass(frozen=True)
class FrameSignature:
    """The properties that must not change from frame to frame; sizes are (height, width)."""

    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    color_encoding: str
    depth_encoding: str
    frame_id: str
    camera: Intrinsics | None


_LABELS = {
    "color_size": "colour size",
    "depth_size": "depth size",
    "color_encoding": "colour encoding",
    "depth_encoding": "depth encoding",
    "frame_id": "frame",
}


_PERIODS = 2.5
"""A pause shorter than this many frame intervals does not clear the window, even if it exceeds ``max_gap``."""


class WindowGuard:
    """Remembers the last frame, and decides whether the next one continues the window."""

    def __init__(self) -> None:
        self._stamp: int | None = None
        self._signature: FrameSignature | None = None
        self._period: int | None = None

    def forget(self) -> None:
        """Treat the next frame as the first."""
        self._stamp = self._signature = None

    def check(self, stamp: int, signature: FrameSignature, max_gap: float) -> tuple[str, str] | None:
        """Check and remember the next frame.

        Args:
            stamp: of the frame, in nanoseconds.
            signature: its sizes, encodings, ``frame_id`` and intrinsics.
            max_gap: longest pause that does not clear the window, in seconds.

        Returns:
            None if the frame continues the window or is the first; otherwise the name of a counter, and a sentence
            with the reason.
        """
        last_stamp, last = self._stamp, self._signature
        if last is not None and signature.camera is None:
            signature = replace(signature, camera=last.camera)  # a missing or unusable camera_info is not a change
        self._stamp, self._signature = stamp, signature
        if last is None:
            return None
        before, self._period = self._period, max(0, stamp - last_stamp)
        if stamp < last_stamp:
            return "time_jump", f"time jumped back by {(last_stamp - stamp) / 1e9:.3f} s"
        if stamp - last_stamp > max(max_gap * 1e9, _PERIODS * (before or 0)):
            return "gap", f"{(stamp - last_stamp) / 1e9:.3f} s without a frame (max_gap is {max_gap:g} s)"
        for field, label in _LABELS.items():
            old, new = getattr(last, field), getattr(signature, field)
            if old != new:
                return field, f"{label} changed from {_shown(old)} to {_shown(new)}"
        if None not in (last.camera, signature.camera) and last.camera != signature.camera:
            return "intrinsics", "the camera's intrinsics changed"
        return None


def _shown(value: object) -> str:
    return printable(value) if isinstance(value, str) else str(value)
