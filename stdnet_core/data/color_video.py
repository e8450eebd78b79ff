"""Colour videos whose frames are read by their index, as the recordings of phones are.

A video says where its frames are by time stamps alone, and those of a phone are not evenly spaced, so that a seek may
land beside the frame asked for. Here frames are counted by decoding forward; the stamps seen on the way tell where a
later seek landed, and one that cannot be told is given up for decoding from the begin."""

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
"""Frames from which on a seek is quicker than decoding forward."""
_AHEAD = (2, 30)
"""How many frames before the one asked for a seek aims, one try after the other."""
_SAME_MS = 0.01


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a video whose pixels are given as stored: what lies beside it is not turned as its rotation tag says.

    Raises:
        DataError: the file is missing or no video that OpenCV reads.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such video")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        capture.release()
        raise DataError(
            f"{path}: not a video that OpenCV can read; copy it again if it was cut off, or convert it with ffmpeg"
        )
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


class ColorVideo:
    """The frames of a colour video by index, 0 the first.

    Frames are decoded when asked for, quickest in rising order. One video is open at a time in a process, however many
    there are, and none is held in memory.

    Args:
        path: a file that OpenCV reads.

    Attributes:
        length: how many frames the file says it has; 0 if it does not.

    Raises:
        DataError: the file is missing or no video.
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
            DataError: the video ends before, or cannot be decoded there.
        """
        with self._lock:
            if self._decode_to(index):
                readable, image = self._video().retrieve()
                if readable:
                    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            raise DataError(
                f"{self.path}: it ends after {len(self._stamps)} frames, and there is depth for frame {index}; copy "
                "the recording again"
            )

    def count(self, at_most: int) -> int:
        """How many frames there are, counted no further than ``at_most``: by what the file says, or, where that is
        fewer, by decoding all."""
        if self.length >= at_most:
            return at_most
        with self._lock:
            return at_most if self._decode_to(at_most - 1) else len(self._stamps)

    def _open(self) -> cv2.VideoCapture:
        """(Re)open the file at its begin, and close the video that was open."""
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
        """Decode until ``index`` is the frame last decoded; whether the video has it."""
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
                self._open()  # after the seek a frame was passed over
                return True
        elif not decoded:
            self._close()  # what it decoded last is gone
            return False
        elif following == len(self._stamps):
            self._stamps.append(stamp)
        self._at = following
        return True

    def _seek(self, index: int) -> bool:
        """Go to a frame that was counted before, or some frames before it; whether it is sure which one that is."""
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
        """The one counted frame of this stamp; None if there is none, or several."""
        first = bisect_left(self._stamps, stamp - _SAME_MS)
        same = [i for i in range(first, min(first + 2, len(self._stamps))) if self._stamps[i] <= stamp + _SAME_MS]
        return same[0] if len(same) == 1 else None


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video, as a colour image in a file is one."""

    video: ColorVideo
    index: int

    def __str__(self) -> str:
        return f"{self.video.path}, frame {self.index}"

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB; see :meth:`ColorVideo.read`."""
        return self.video.read(self.index)
