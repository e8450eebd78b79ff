"""Processes that others wait for."""

import subprocess
import sys

import pytest

_CHILD = """
import atexit, ctypes, sys
from stdnet_core.errors import StdnetError
from stdnet_ros.processes import run_child

libc = ctypes.CDLL(None)
libc.on_exit(libc.pause, None)  # an exit handler that never returns
atexit.register(print, "saved")
print("before")
run_child({main})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="on_exit is a function of glibc")
@pytest.mark.parametrize(
    ("main", "status", "error"),
    [
        ("lambda: None", 0, ""),
        ("lambda: 3", 3, ""),
        ("lambda: sys.exit('no')", 1, "no\n"),
        ("lambda: sys.exit()", 0, ""),
        ("lambda: (_ for _ in ()).throw(StdnetError('no camera'))", 2, "error: no camera\n"),
        ("lambda: 1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_a_child_ends_although_an_exit_handler_of_a_library_does_not(main, status, error):
    code = _CHILD.replace("{main}", main)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (status, "before\nsaved\n")
    assert error in ended.stderr
