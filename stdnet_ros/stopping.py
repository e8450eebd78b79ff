"""Ctrl-C and SIGTERM end a process within a second and with status 0, at whatever moment they come.

Python runs signal handlers between two steps of its main thread, which may be importing or waiting for the model;
exceptions out of them come at any place. Therefore a thread of its own waits for the signals: at first they end the
process at once, later it has :data:`GRACE_SECONDS` to end in order. The end of these is brought by a timer of the C
library, because the middleware may hold Python's lock for a minute while it closes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
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
    threading.Thread(target=_wait, args=(reader,), name="stopping", daemon=True).start()
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


def _wait(reader: int) -> None:
    while os.read(reader, 1)[0] not in _SIGNALS:
        pass
    if _in_order.is_set():
        with suppress(OSError, AttributeError):  # where there is no such timer, the thread alone must do
            _exit_after(GRACE_SECONDS)
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


def _exit_after(seconds: float) -> None:
    """Have the C library call ``_exit(0)`` on a thread of its own.

    Raises:
        OSError, AttributeError: this system has no such timer.
    """
    if sys.platform != "linux":
        raise OSError("no timer")
    library = ctypes.CDLL("librt.so.1")
    function = ctypes.cast(ctypes.CDLL(None)._exit, ctypes.c_void_p)
    event = _Event(value=0, notify=_SIGEV_THREAD, function=function)
    timer = ctypes.c_void_p()
    first = _Interval(first_s=int(seconds), first_ns=int(seconds % 1 * 1e9))
    if library.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
        library.timer_settime(timer, 0, ctypes.byref(first), None)
