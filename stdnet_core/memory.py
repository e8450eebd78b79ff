"""Freed memory stays with the process, so that the next frame's images do not fault in fresh pages.

By default glibc returns the top of its heap to the system whenever a few megabytes of it are free. An image pipeline
frees and takes the same megabytes for each frame: with a coloured 640x480 cloud 3200 page faults a frame, more than
half of the node's time.

Kept memory has holes: images and clouds of changing sizes do not always fit into what others left, so that a process
which keeps everything still grows by a cloud now and then. Once a minute the holes are therefore given back."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
_KEPT = 512 * 1024 * 1024


GIVE_BACK_SECONDS = 60.0
"""How often :func:`give_back_holes` is worth the page faults of the frame after it."""


def keep_freed_memory() -> bool:
    """Call at the start of a process; its memory then stays at its peak (up to 512 MB free). False if not on glibc."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _KEPT))


def give_back_holes() -> bool:
    """Return all pages to the system that hold nothing, also between others. False if not on glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return bool(trim is not None and trim(0))
