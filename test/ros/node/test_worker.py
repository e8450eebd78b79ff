"""The inference thread: newest only, calls first, errors survived, clean end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import pytest

from stdnet_ros.node.worker import InferenceWorker


class Bench:
    """A worker whose handler waits for a gate, and a record of what happened."""

    def __init__(self):
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.handled: list = []
        self.errors: list = []
        self.worker = InferenceWorker(self.handle, lambda item, error: self.errors.append((item, str(error))))

    def handle(self, item):
        self.entered.set()
        assert self.gate.wait(5.0)
        if item == "bad":
            raise ValueError("bad item")
        self.handled.append(item)

    def drained(self):
        deadline = time.monotonic() + 5.0
        while not self.worker.idle:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.gate.set()
    bench.worker.close()


def test_only_the_newest_waits(bench):
    assert bench.worker.post(0) is None
    assert bench.entered.wait(5.0)
    replaced = [bench.worker.post(item) for item in (1, 2, 3)]
    assert replaced == [None, 1, 2]
    bench.gate.set()
    bench.drained()
    assert bench.handled == [0, 3]


def test_an_error_is_reported_and_the_thread_goes_on(bench):
    bench.gate.set()
    bench.worker.post("bad")
    bench.drained()
    bench.worker.post("good")
    bench.drained()
    assert bench.errors == [("bad", "bad item")]
    assert bench.handled == ["good"]


def test_calls_run_on_the_thread_before_items(bench):
    bench.worker.post("first")
    assert bench.entered.wait(5.0)
    bench.worker.post("second")
    future = bench.worker.call(lambda: (threading.current_thread().name, list(bench.handled)))
    failing = bench.worker.call(lambda: 1 / 0)
    bench.gate.set()
    assert future.result(5.0) == ("inference", ["first"])
    with pytest.raises(ZeroDivisionError):
        failing.result(5.0)
    bench.drained()
    assert bench.handled == ["first", "second"]


def test_discard_and_close_hand_back_what_waited(bench):
    bench.worker.post(0)
    assert bench.entered.wait(5.0)
    bench.worker.post(1)
    assert bench.worker.discard() == 1
    assert bench.worker.discard() is None
    bench.worker.post(2)
    call = bench.worker.call(lambda: None)
    bench.gate.set()
    bench.worker.close()
    assert not bench.worker.alive
    assert bench.worker.post(3) == 3
    assert bench.worker.call(lambda: None).cancelled()
    if call.cancelled():
        with pytest.raises(CancelledError):
            call.result()


def test_close_does_not_wait_for_ever(bench):
    bench.worker.post(0)
    assert bench.entered.wait(5.0)
    started = time.monotonic()
    bench.worker.close(timeout=0.05)
    assert time.monotonic() - started < 1.0
    assert bench.worker.alive


def test_age_stays_bounded_when_posts_are_faster_than_work():
    """10 ms of work, a post each 2 ms: what is handled is never older than two works and a post."""
    ages = []
    worker = InferenceWorker(lambda posted: (time.sleep(0.01), ages.append(time.monotonic() - posted)), lambda *_: None)
    for _ in range(200):
        worker.post(time.monotonic())
        time.sleep(0.002)
    worker.close()
    assert len(ages) > 20
    assert sorted(ages)[len(ages) // 2] < 0.03
    # It does not grow: the second half is no older than the first, noise of a busy machine aside.
    half = len(ages) // 2
    assert sorted(ages[half:])[half // 2] < sorted(ages[:half])[half // 2] + 0.02
