"""A process in which a call keeps Python's lock ends; one that is busy or was stopped for a while goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the timers are Linux's")]

ROOT = Path(__file__).resolve().parents[3]
GRACE = 1
BEGIN = """
import ctypes, os, signal, sys, threading, time
from stdnet_ros.node.watchdog import Watchdog
def hold(seconds):
    ctypes.PyDLL(None).sleep(seconds)
{before}
watchdog = Watchdog(lambda: {seconds}, grace={grace})
print("ready", flush=True)
{body}
"""
LONG = 0.5 + GRACE + 2


def start(body: str, *, seconds: float = 0.5, grace: int = GRACE, before: str = "") -> subprocess.Popen:
    """A watched process that runs ``body``, once it has begun to."""
    code = BEGIN.format(body=body, seconds=seconds, grace=grace, before=before)
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize(
    ("body", "before"),
    [
        ("hold(60)", ""),
        ("threading.Thread(target=hold, args=[60], daemon=True).start(); threading.Event().wait()", ""),
        ("with watchdog.loading(): pass\nhold(60)", ""),
        # as a process may inherit it from its parent
        ("hold(60)", "signal.signal(14, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, {14})"),
    ],
    ids=["main thread", "another thread", "after loading", "signal ignored"],
)
def test_a_process_whose_lock_is_held_ends_with_its_stacks(body: str, before: str) -> None:
    child = start(body, before=before)
    began = time.monotonic()
    errors = child.communicate(timeout=30)[1]
    assert child.returncode == -signal.SIGALRM
    assert 0.5 + GRACE - 0.2 < time.monotonic() - began < 0.5 + GRACE + 4.0
    assert "in hold" in errors
    assert "in _beat" in errors  # of all threads


# name -> what a process does, and its watchdog's seconds
OTHERS = {
    # Python work in more threads than there are processors
    "busy": (
        f"end = time.monotonic() + {LONG}\n"
        "def work():\n"
        "    while time.monotonic() < end: sum(range(10**5))\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]",
        0.5,
    ),
    # the lock is held again and again, each time for less than the limit
    "often held": (
        f"end = time.monotonic() + {LONG + 4}\nwhile time.monotonic() < end: hold(1); time.sleep(0.01)",
        2.0,
    ),
    # a child holds its own lock
    "child": (
        f"child = os.fork()\nif child == 0: hold({LONG:.0f}); os._exit(0)\nsys.exit(os.waitpid(child, 0)[1])",
        0.5,
    ),
    "off": (f"hold({LONG:.0f})", 0.0),
    "loading": (f"with watchdog.loading(): hold({LONG:.0f})", 0.5),
}


@pytest.fixture(scope="module")
def others() -> Iterator[dict[str, subprocess.Popen]]:
    """All of them at once, because they mostly wait."""
    children = {name: start(body, seconds=seconds) for name, (body, seconds) in OTHERS.items()}
    yield children
    for child in children.values():
        child.kill()


def test_a_process_that_was_stopped_goes_on(others: dict[str, subprocess.Popen]) -> None:
    """It takes longest, so it runs beside the others."""
    child = start("time.sleep(60)", grace=2)
    try:
        for _ in range(2):
            child.send_signal(signal.SIGSTOP)
            time.sleep(4.0)  # longer than both steps
            child.send_signal(signal.SIGCONT)
            time.sleep(3.5)
            assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_process_goes_on(name: str, others: dict[str, subprocess.Popen]) -> None:
    errors = others[name].communicate(timeout=60)[1]
    assert (others[name].returncode, errors) == (0, "")


NODE = """
from stdnet_ros.node import stopping
stopping.prepare()
import ctypes, sys, threading
from stdnet_ros.node.node import main
def hold():
    if sys.stdin.readline():
        ctypes.PyDLL(None).sleep(60)
threading.Thread(target=hold, daemon=True).start()
main()
"""


@pytest.mark.parametrize("held", [True, False], ids=["lock held", "stopped by SIGINT"])
def test_the_nodes_process_is_watched(held: bool, tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed; pip install '.[ros]'")
    from stdnet_ros.processes import ros_environment

    arguments = ["--ros-args", "-p", "method:=nearest", "-p", "watchdog_seconds:=1.0"]
    node = subprocess.Popen(
        [sys.executable, "-c", NODE, *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ros_environment(ROOT / "config" / "fastdds.xml", tmp_path) | {"PYTHONPATH": str(ROOT)},
    )
    try:
        seen = ""
        while "active: " not in seen:
            line = node.stderr.readline()
            assert line, seen
            seen += line
        began = time.monotonic()
        if held:
            print(file=node.stdin, flush=True)
        else:
            node.send_signal(signal.SIGINT)
        errors = node.communicate(timeout=30)[1]
        took = time.monotonic() - began
    finally:
        node.kill()
    if held:
        assert node.returncode == -signal.SIGALRM
        assert 5.0 < took < 10.0
        assert "in hold" in errors
        assert "in spin" in errors
    else:
        assert node.returncode == 0
        assert took < 2.0  # 1 s where others do not use the processors
        assert "Thread 0x" not in errors


def test_a_process_that_merely_uses_the_node_is_not_watched() -> None:
    """As the tests do, and whoever composes it with other nodes."""
    code = "import sys, stdnet_ros.node.watchdog as w, threading\n"
    code += "w.Watchdog = None\n"
    code += "from stdnet_ros.node.node import main\n"
    code += "main(['stdnet_node', '--ros-args', '-p', 'points.stride:=0'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "points.stride" in done.stderr
