"""Ends the process when no Python code has run in it for too long, so that a dead node does not look alive.

A call to the middleware may hold Python's global lock for ever (Fast DDS, after subscribers were killed). Then nothing
is published or diagnosed, and no signal handler runs. The watchdog therefore consists of parts that need no lock:

1. A timer of the C library, which a thread of Python's starts anew every second.
2. If it expires, it calls ``alarm``, which sends SIGALRM after :data:`GRACE_SECONDS`.
3. ``faulthandler`` writes the stacks of all threads to stderr on SIGALRM, and the signal ends the process.

The second step spares a process that was merely stopped (Ctrl-Z, ``docker pause``, a debugger). Its timer has expired
when it continues, but its thread runs again and calls the alarm off. No part is inherited by child processes. What it
does not notice is a thread that is stuck while others run."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from stdnet_ros.node.clib_timer import LibraryTimer

DEFAULT_SECONDS = 30.0
LOADING_SECONDS = 300.0
"""Limit while libraries are loaded, which holds the lock: PyTorch took over 6 s with ten processes per core."""
GRACE_SECONDS = 5
_PERIOD = 1.0


class Watchdog:
    """Watches the process from now on; create it in the main thread of a process that is the node's alone.

    Where the C library has no such timers (not Linux), it does nothing.

    Args:
        seconds: called every second: how long no Python code may run, in seconds; 0: for ever. May be replaced.
        grace: seconds from then to the end.
    """

    def __init__(self, seconds: Callable[[], float], grace: int = GRACE_SECONDS) -> None:
        self.seconds = seconds
        self._least = 0.0
        self._lock = threading.Lock()
        self._timer: LibraryTimer | None = None
        try:
            self._timer = LibraryTimer("alarm", grace)
        except OSError:
            return
        # An ignored or blocked signal, which a process inherits from its parent, would not end it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        with suppress(RuntimeError, AttributeError, OSError):  # stderr is closed or no file
            faulthandler.register(signal.SIGALRM, file=sys.stderr, all_threads=True, chain=True)
        threading.Thread(target=self._beat, name="watchdog", daemon=True).start()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Have more patience in this block, at least :data:`LOADING_SECONDS`, unless the watchdog is off."""
        self._least = LOADING_SECONDS
        self._begin_anew()
        try:
            yield
        finally:
            self._least = 0.0
            self._begin_anew()

    def _begin_anew(self) -> None:
        if self._timer is None:
            return
        with self._lock:  # otherwise, the last thread to set the timer may have read an old limit
            seconds = self.seconds()
            self._timer.starter(max(seconds, self._least) if seconds > 0 else 0.0)()
        signal.alarm(0)

    def _beat(self) -> None:
        while True:
            self._begin_anew()
            time.sleep(_PERIOD)
