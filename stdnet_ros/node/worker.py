"""One thread for everything that uses the model, with a mailbox that holds only the newest item.

The executor thread never waits for inference: it posts an item and continues with its callbacks. A newer item replaces
one that is still waiting, so the age of the output does not grow, however slow inference is. Models are also created
and released on this thread, because compiled ones (CUDA graphs) work only on the thread that created them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

STEP_ASIDE_SECONDS = 1e-4
"""Short sleep that hands Python's global lock to the inference thread.

Without it, the executor thread may keep the lock for up to 5 ms after it has woken the inference thread."""


class InferenceWorker:
    """A thread that handles the newest posted item, and runs submitted calls before it.

    Args:
        handle: called on the worker's thread with each item that it takes.
        on_error: called with the item and the exception that ``handle`` raised; the thread continues.
        name: name of the thread.
    """

    def __init__(
        self,
        handle: Callable[[Any], None],
        on_error: Callable[[Any, Exception], None],
        name: str = "inference",
    ):
        self._handle = handle
        self._on_error = on_error
        self._condition = threading.Condition()
        self._item: Any = None
        self._calls: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._closed = False
        self._busy = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, item: Any) -> Any:
        """Put an item into the mailbox; returns the item that it replaces (None if the mailbox was empty).

        A closed worker does not handle the item and returns it.
        """
        with self._condition:
            if self._closed:
                return item
            replaced, self._item = self._item, item
            self._condition.notify()
            idle = not self._busy
        if idle:
            time.sleep(STEP_ASIDE_SECONDS)
        return replaced

    def discard(self) -> Any:
        """Remove the waiting item and return it; None if the mailbox is empty."""
        with self._condition:
            item, self._item = self._item, None
            return item

    def call(self, function: Callable[[], Any]) -> Future:
        """Run ``function`` on the worker's thread before the next item; the Future gets its result or exception."""
        future: Future = Future()
        with self._condition:
            if self._closed:
                future.cancel()
                return future
            self._calls.append((future, function))
            self._condition.notify()
        return future

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or being handled."""
        with self._condition:
            return not (self._busy or self._calls or self._item is not None)

    def close(self, timeout: float | None = 5.0) -> Any:
        """Stop after the item that is being handled; returns the item that was still waiting.

        The thread is a daemon thread: if it takes longer than ``timeout`` seconds, it is left running until the
        process ends.
        """
        with self._condition:
            self._closed = True
            waiting, self._item = self._item, None
            while self._calls:
                self._calls.popleft()[0].cancel()
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return waiting

    @property
    def alive(self) -> bool:
        """Whether the thread is still running."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                while not (self._closed or self._calls or self._item is not None):
                    self._condition.wait()
                if self._closed:
                    return
                self._busy = True
                call = self._calls.popleft() if self._calls else None
                item = None
                if call is None:
                    item, self._item = self._item, None
            if call is not None:
                self._answer(*call)
                continue
            try:
                self._handle(item)
            except Exception as error:
                self._on_error(item, error)

    @staticmethod
    def _answer(future: Future, function: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)
