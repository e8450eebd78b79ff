"""Timers of the C library, which call one of its functions even while Python's global lock is held."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial

_CLOCK_MONOTONIC = 1
_SIGEV_THREAD = 2


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


class LibraryTimer:
    """A timer that calls a function of the C library on a thread of its own.

    Args:
        function: its name; it takes one integer.
        argument: what it is called with.

    Raises:
        OSError: there are no such timers (not Linux, another C library).
    """

    def __init__(self, function: str, argument: int) -> None:
        if sys.platform != "linux":
            raise OSError("the timers are Linux's")
        try:
            library = ctypes.PyDLL("librt.so.1")  # PyDLL: calls do not release Python's lock
            create, self._settime = library.timer_create, library.timer_settime
            address = ctypes.cast(getattr(ctypes.CDLL(None), function), ctypes.c_void_p)
        except AttributeError as error:
            raise OSError(str(error)) from error
        event = _Event(value=argument, notify=_SIGEV_THREAD, function=address)
        self._timer = ctypes.c_void_p()
        if create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)) != 0:
            raise OSError("timer_create failed")

    def starter(self, seconds: float) -> Callable[[], object]:
        """A function that starts the timer anew, to expire once after ``seconds``; 0 stops it.

        It is a single call, during which no other Python thread runs."""
        first = _Interval(first_s=int(seconds), first_ns=int(seconds % 1 * 1e9))
        return partial(self._settime, self._timer, 0, ctypes.byref(first), None)
