"""Freed memory that stays with the process, and its holes that are given back; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEEPING = """
import sys
from pathlib import Path
from stdnet_core.memory import give_back_holes, keep_freed_memory
def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
if not keep_freed_memory():
    sys.exit(3)
"""


def printed(program: str) -> float:
    """The number that a program prints in a process that keeps freed memory; it can call resident(), in MB."""
    done = subprocess.run([sys.executable, "-c", KEEPING + program], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("not glibc")
    assert done.stdout, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_memory_that_is_freed_and_taken_again_costs_no_page_faults():
    """Blocks of a cloud's size, freed together, as the node does once a frame; in a process of its own."""
    program = """
import resource, sys
from stdnet_core.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
def frame():
    blocks = [bytearray(3_000_000) for _ in range(4)]
for _ in range(5):
    frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {}
    for mode in ("keep", "default"):
        done = subprocess.run([sys.executable, "-c", program, mode], cwd=ROOT, capture_output=True, text=True)
        if done.returncode == 3:
            pytest.skip("not glibc")
        faults[mode] = int(done.stdout)
    assert faults["keep"] < 100 < faults["default"]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_holes_in_kept_memory_are_given_back():
    """Every second of forty blocks is freed: 60 MB of holes that no later free at the heap's top would return."""
    program = """
blocks = [bytearray(b"x" * 3_000_000) for _ in range(40)]
del blocks[::2]
before = resident()
give_back_holes()
print(before - resident())
"""
    assert printed(program) > 40


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_threads_use_what_others_have_freed():
    """Eight threads in turn take 48 MB and free them."""
    program = """
import threading
before, end, done = resident(), threading.Event(), threading.Semaphore(0)
def work():
    blocks = [bytearray(b"x" * 3_000_000) for _ in range(16)]
    del blocks
    done.release()
    end.wait()
for _ in range(8):
    threading.Thread(target=work).start()
    done.acquire()
print(resident() - before)
end.set()
"""
    assert printed(program) < 100
