"""One thread for everything that touches the model, fed by a mailbox that holds the newest item only.

The executor's thread never waits for inference: it posts and goes on answering services. What could not be taken in
time is replaced, so the age of what is published does not grow however slow inference is. Models are also built and
dropped on this thread, because compiled ones (CUDA graphs) work on the thread that made them alone."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

STEP_ASIDE_SECONDS = 1e-4
"""Python's lock stays with the thread that has it for up to 5 ms, even after it has woken another one, unless it
sleeps."""


class InferenceWorker:
    """A thread that handles posted items, newest only, and runs submitted calls first.

    Args:
        handle: called with each item taken, on the worker's thread.
        on_error: called with the item and the exception that ``handle`` raised; the thread goes on.
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
        """Leave an item; returns the one it replaces (None if the mailbox was empty).

        A closed worker returns the item itself: it will not be handled.
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
        """Take the waiting item out again, if there is one."""
        with self._condition:
            item, self._item = self._item, None
            return item

    def call(self, function: Callable[[], Any]) -> Future:
        """Run ``function`` on the worker's thread before the next item; its result or error is the Future's."""
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
        """Stop after the item in work; returns the item that was still waiting.

        The thread is a daemon: if inference takes longer than ``timeout`` seconds it is left to the process's end.
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
