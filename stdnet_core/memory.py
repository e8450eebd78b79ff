"""Keeps freed memory in the process, so that the next frame's images cause no page faults.

By default, glibc returns the top of its heap to the system as soon as a few megabytes are free. An image pipeline frees
and allocates the same megabytes for each frame; with a coloured 640x480 cloud, this takes 3200 page faults per frame,
more than half of the node's time.

Kept memory becomes fragmented: images and clouds of different sizes do not always fit into freed blocks, so that the
process would still grow by a cloud now and then. Unused pages are therefore returned once a minute. All threads share
one heap. With several, a thread does not use what others have freed: with images of changing sizes, a node grew by 5 to
12 MB in half an hour instead of not at all."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
_KEPT = 512 * 1024 * 1024


GIVE_BACK_SECONDS = 60.0
"""Interval at which :func:`give_back_holes` is worth the page faults of the next frame."""


def keep_freed_memory() -> bool:
    """Keep freed memory, up to 512 MB, in one heap. Call it before a process has threads. Returns False without
    glibc."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD), (_M_TRIM_THRESHOLD, _KEPT), (_M_ARENA_MAX, 1))
    return all(mallopt(*option) for option in options)


def give_back_holes() -> bool:
    """Return all unused pages to the system, also those between used ones. Returns False without glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return bool(trim is not None and trim(0))
