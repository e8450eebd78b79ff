"""Ctrl-C and SIGTERM end a process within a second and with status 0, at whatever moment they come.

Python runs signal handlers between two steps of its main thread, which may be importing or waiting for the model;
exceptions out of them come at any place. Therefore a thread of its own waits for the signals: at first they end the
process at once, later it has :data:`GRACE_SECONDS` to end in order. The end of these is brought by a timer of the C
library, since a call of the middleware may keep Python's lock for seconds. Where it does so already when the signal
comes (Fast DDS, after many subscribers were killed), the end waits for that call."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

GRACE_SECONDS = 0.6
_CLOCK_MONOTONIC = 1
_SIGEV_THREAD = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_prepared = False
_in_order = threading.Event()


def prepare() -> None:
    """Call it in the main thread, before imports that take long. The process has then to end with :func:`leave`."""
    global _prepared
    _prepared = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader, _exit_timer()), name="stopping", daemon=True).start()
    for number in _SIGNALS:
        signal.signal(number, _nothing)


def in_order() -> None:
    """From now on whoever calls it ends the process in order when a signal comes (rclpy's own handlers tell it)."""
    _in_order.set()


def leave(status: int) -> NoReturn:
    """End the process; a prepared one at once, since a thread in inference would hold up the interpreter's own end."""
    if not _prepared:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _nothing(number: int, frame: Any) -> None:
    """Python's default handlers would raise; the thread hears of the signal without one."""


def _wait(reader: int, set_timer: Callable[[], object]) -> None:
    while os.read(reader, 1)[0] not in _SIGNALS:
        pass
    if _in_order.is_set():
        set_timer()  # one call: this thread may not have the lock again in time
        time.sleep(GRACE_SECONDS)
    os._exit(0)


class _Event(ctypes.Structure):
    """``struct sigevent`` of Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("padding", ctypes.c_char * 32),
    )


class _Interval(ctypes.Structure):
    """``struct itimerspec``."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))


def _exit_timer() -> Callable[[], object]:
    """A call after which the C library, on a thread of its own, calls ``_exit(0)`` when the grace is over.

    It does nothing where there is no such timer; there the Python thread alone must do."""
    if sys.platform != "linux":
        return lambda: None
    try:
        library = ctypes.PyDLL("librt.so.1")  # PyDLL: a call that does not let go of the lock
        function = ctypes.cast(ctypes.CDLL(None)._exit, ctypes.c_void_p)
        event = _Event(value=0, notify=_SIGEV_THREAD, function=function)
        timer = ctypes.c_void_p()
        if library.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) != 0:
            return lambda: None
    except (OSError, AttributeError):
        return lambda: None
    first = _Interval(first_s=int(GRACE_SECONDS), first_ns=int(GRACE_SECONDS % 1 * 1e9))
    return partial(library.timer_settime, timer, 0, ctypes.byref(first), None)
