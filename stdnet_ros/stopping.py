"""Ctrl-C and SIGTERM end a process within a second and with status 0, at whatever moment they come.

Python runs signal handlers between two steps of its main thread, which may be importing or waiting for the model;
exceptions out of them come at any place. Therefore a thread of its own waits for the signals: at first they end the
process at once, later it has :data:`GRACE_SECONDS` to end in order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

GRACE_SECONDS = 0.6
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
        time.sleep(GRACE_SECONDS)
    os._exit(0)
