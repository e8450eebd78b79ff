"""Reads frames of colour videos by index, e.g. of phone recordings.

A video locates its frames only by time stamps, and those of a phone are not evenly spaced, so that a seek may land on
another frame than requested. Here, frames are counted by decoding forward, and their stamps identify where a later seek
landed. If that is ambiguous, the video is decoded from the start."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stdnet_core.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
_FAR = 64
"""Distance in frames from which on a seek is faster than decoding forward."""
_AHEAD = (2, 30)
"""A seek targets a frame this far before the requested one; tried in turn."""
_SAME_MS = 0.01


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a video without applying its rotation tag, because the depth images are not rotated either.

    Raises:
        DataError: the file is missing or not a video that OpenCV can read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such video")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        capture.release()
        raise DataError(
            f"{path}: not a video that OpenCV can read; copy it again if it is truncated, or convert it with ffmpeg"
        )
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


class ColorVideo:
    """The frames of a colour video by index, starting at 0.

    Frames are decoded on request, fastest in increasing order. A process keeps only one video open at a time, and no
    frames in memory.

    Args:
        path: a file that OpenCV can read.

    Attributes:
        length: number of frames according to the file's header; 0 if it has none.

    Raises:
        DataError: the file is missing or not a video.
    """

    _lock = threading.Lock()
    _opened: ColorVideo | None = None
    """The video that is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps: list[float] = []  # milliseconds of the frames counted so far
        self._capture: cv2.VideoCapture | None = None
        self._at = -1  # frame last decoded
        self._sought = False
        with self._lock:
            self.length = max(0, int(self._open().get(cv2.CAP_PROP_FRAME_COUNT)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_capture": None, "_at": -1, "_sought": False}

    def read(self, index: int) -> np.ndarray:
        """A frame, (H, W, 3) uint8, RGB.

        Raises:
            DataError: the video ends before this frame or cannot be decoded there.
        """
        with self._lock:
            if self._decode_to(index):
                readable, image = self._video().retrieve()
                if readable:
                    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            raise DataError(
                f"{self.path}: it ends after {len(self._stamps)} frames, but there is depth for frame {index}; copy "
                "the recording again"
            )

    def count(self, at_most: int) -> int:
        """Number of frames, up to ``at_most``: from the file's header, or, if that says fewer, by decoding all."""
        if self.length >= at_most:
            return at_most
        with self._lock:
            return at_most if self._decode_to(at_most - 1) else len(self._stamps)

    def _open(self) -> cv2.VideoCapture:
        """(Re)open the file at its start, and close the video that was open."""
        if ColorVideo._opened is not None:
            ColorVideo._opened._close()
        self._capture = open_video(self.path)
        ColorVideo._opened = self
        return self._capture

    def _video(self) -> cv2.VideoCapture:
        """The file, open."""
        return self._open() if self._capture is None else self._capture

    def _close(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture, self._at, self._sought = None, -1, False

    def _decode_to(self, index: int) -> bool:
        """Decode until ``index`` is the frame last decoded; returns whether the video has it."""
        self._video()
        known = min(index, len(self._stamps) - 1)
        if (index < self._at or known - self._at > _FAR) and not self._seek(known):
            self._open()
        while self._at < index:
            if not self._decode_next():
                return False
        return True

    def _decode_next(self) -> bool:
        following = self._at + 1
        video = self._video()
        decoded = video.grab()
        stamp = video.get(cv2.CAP_PROP_POS_MSEC)
        if self._sought and following < len(self._stamps):
            if not decoded or abs(stamp - self._stamps[following]) > _SAME_MS:
                self._open()  # a frame was skipped after the seek
                return True
        elif not decoded:
            self._close()  # the last decoded frame is lost
            return False
        elif following == len(self._stamps):
            self._stamps.append(stamp)
        self._at = following
        return True

    def _seek(self, index: int) -> bool:
        """Seek to a counted frame or some frames before it; returns whether it is certain which frame was reached."""
        video = self._video()
        for ahead in _AHEAD:
            video.set(cv2.CAP_PROP_POS_MSEC, self._stamps[max(0, index - ahead)])
            if video.grab():
                landed = self._counted_at(video.get(cv2.CAP_PROP_POS_MSEC))
                if landed is not None and landed <= index:
                    self._at, self._sought = landed, True
                    return True
        return False

    def _counted_at(self, stamp: float) -> int | None:
        """The counted frame with this stamp; None if there is none or several."""
        first = bisect_left(self._stamps, stamp - _SAME_MS)
        same = [i for i in range(first, min(first + 2, len(self._stamps))) if self._stamps[i] <= stamp + _SAME_MS]
        return same[0] if len(same) == 1 else None


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video, used like a colour image file."""

    video: ColorVideo
    index: int

    def __str__(self) -> str:
        return f"{self.video.path}, frame {self.index}"

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB; see :meth:`ColorVideo.read`."""
        return self.video.read(self.index)
