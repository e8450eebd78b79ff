"""Ctrl-C and SIGTERM end the process within a second and with status 0, whenever they come.

Python runs signal handlers between two bytecode steps of its main thread, which may be importing or waiting for the
model, and an exception raised by a handler could surface anywhere. Therefore a separate thread waits for the signals.
At first, a signal ends the process at once; after :func:`in_order`, the process has :data:`GRACE_SECONDS` to shut down
cleanly. When they are over, a timer of the C library ends the process, since a call to the middleware may hold Python's
global lock for seconds. If such a call already holds the lock when the signal comes (Fast DDS, after many subscribers
were killed), the process ends only after that call, or by :mod:`stdnet_ros.node.watchdog`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from stdnet_ros.node.clib_timer import LibraryTimer

GRACE_SECONDS = 0.6
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_prepared = False
_in_order = threading.Event()


def prepare() -> None:
    """Install the handling; call it in the main thread, before slow imports. End the process with :func:`leave`."""
    global _prepared
    _prepared = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader, _exit_timer()), name="stopping", daemon=True).start()
    for number in _SIGNALS:
        signal.signal(number, _nothing)


def in_order() -> None:
    """From now on a signal starts the grace period; the caller, informed by rclpy's handlers, shuts down cleanly."""
    _in_order.set()


def prepared() -> bool:
    """Whether this is a process of the node's command, where :func:`prepare` was called."""
    return _prepared


def leave(status: int) -> NoReturn:
    """End the process. After :func:`prepare`, skip the interpreter's own shutdown, which would wait for inference."""
    if not _prepared:
        sys.exit(status)
    from stdnet_core.cli import exit_at_once  # not at the top: this module is the first that the node imports

    exit_at_once(status)


def _nothing(number: int, frame: Any) -> None:
    """Replaces Python's default handlers, which would raise; the thread gets the signal through the wake-up pipe."""


def _wait(reader: int, set_timer: Callable[[], object]) -> None:
    while os.read(reader, 1)[0] not in _SIGNALS:
        pass
    if _in_order.is_set():
        set_timer()  # a single call: afterwards this thread may not get Python's lock again in time
        time.sleep(GRACE_SECONDS)
    os._exit(0)


def _exit_timer() -> Callable[[], object]:
    """A function that starts the timer: the C library then calls ``_exit(0)`` on its own thread after the grace period.

    Without such a timer (not Linux), the function does nothing, and the Python thread alone ends the process."""
    try:
        return LibraryTimer("_exit", 0).starter(GRACE_SECONDS)
    except OSError:
        return lambda: None
