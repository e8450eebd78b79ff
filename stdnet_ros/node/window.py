"""When the frames before no longer belong to the frame at hand.

The network takes motion and differences between neighbouring frames for granted; a looped bag, a restarted camera
or a long pause break that. The node asks here before each frame and clears its temporal window when it must."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stdnet_core.data.bags.ros_images import printable
from stdnet_ros.messages.camera_info import Intrinsics


@dataclass(frozen=True)
class FrameSignature:
    """What must stay the same from frame to frame; sizes are (height, width)."""

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
"""A pause of fewer periods of a slow camera is none."""


class WindowGuard:
    """Remembers the last frame and says why the next one does not continue it."""

    def __init__(self) -> None:
        self._stamp: int | None = None
        self._signature: FrameSignature | None = None
        self._period: int | None = None

    def forget(self) -> None:
        """Take the next frame for the first."""
        self._stamp = self._signature = None

    def check(self, stamp: int, signature: FrameSignature, max_gap: float) -> tuple[str, str] | None:
        """Take the next frame.

        Args:
            stamp: nanoseconds.
            signature: its sizes, encodings, frame and camera.
            max_gap: longest pause that a window survives, seconds.

        Returns:
            None if the frame continues the window (or is the first), else a counter's name and a sentence.
        """
        last_stamp, last = self._stamp, self._signature
        if last is not None and signature.camera is None:
            signature = replace(signature, camera=last.camera)  # unusable camera_info does not say that it changed
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
