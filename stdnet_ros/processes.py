"""Child processes that end with their parent: cleanly on success and on Ctrl-C, at once if the parent is killed."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from stdnet_core.cli import exit_at_once, run_cli
from stdnet_core.errors import StdnetError

_PR_SET_PDEATHSIG = 1
_DDS_PORT = 7400
DOMAINS = 100
"""Domains 1 to this number are used; the ports of higher ones overlap with the ephemeral ports of Linux."""
_GRACE = 8.0


class Child:
    """A started ``python -m module`` whose output goes to a log file."""

    def __init__(self, name: str, process: subprocess.Popen, log: Path) -> None:
        self.name, self.log, self._process = name, log, process

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit status, None while it is running."""
        return self._process.poll()

    def check_running(self) -> None:
        """Raise an error that quotes its log if it has ended."""
        status = self.poll()
        if status is not None:
            raise self.failure(status)

    def wait(self, *others: Child, until: Path | None = None) -> None:
        """Wait until it has ended with status 0, or until the file ``until`` exists.

        Raises:
            StdnetError: it failed, or one of ``others`` ended before it.
        """
        while (status := self.poll()) is None:
            if until is not None and until.exists():
                return
            for other in others:
                other.check_running()
            time.sleep(0.05)
        if status != 0 or (until is not None and not until.exists()):
            for other in others:
                other.check_running()
            raise self.failure(status)

    def failure(self, status: int) -> StdnetError:
        """An error that quotes the last line of the log (the last with "error" in it, if there is one)."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        reason = (errors or lines or ["it wrote nothing"])[-1].removeprefix("error: ")
        return StdnetError(f"the {self.name} ended with status {status}: {reason} (log: {self.log})")

    def stop(self) -> None:
        """Stop it with SIGINT, as Ctrl-C does; if it does not end, with SIGTERM and then SIGKILL."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            deadline = time.monotonic() + _GRACE
            while self.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)


class Children:
    """Starts processes, and stops all of them when the ``with`` block ends, for whatever reason."""

    def __init__(self, log_folder: Path, environment: Mapping[str, str]) -> None:
        self._logs, self._environment = log_folder, dict(environment)
        self._children: list[Child] = []

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """Start ``python -m module arguments`` with output in ``<name>.log``."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Its own session: Ctrl-C in the terminal reaches only the parent, which then stops the children.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        with _undisturbed():
            for child in self._children:
                child.stop()


def run_child(main: Callable[[], int | None]) -> NoReturn:
    """Run the ``main`` of a process that others wait for, as :func:`run_cli` does.

    The C library's exit handlers are skipped. One of them, in the logging library of ROS (spdlog), joins its thread
    for flushing and sometimes waits for ever if the machine is busy."""
    status: str | int | None = 1
    try:
        run_cli(main)
    except SystemExit as end:  # run_cli's, or argparse's
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    atexit._run_exitfuncs()
    exit_at_once(status if isinstance(status, int) else int(status is not None))


def options(**values: object) -> list[str]:
    """Command-line options of a child; those that are None are omitted."""
    given = {name.replace("_", "-"): value for name, value in values.items() if value is not None}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore a second Ctrl-C while the children are being stopped."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _die_with_parent() -> None:
    """Make the kernel send SIGTERM to this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_domain(first: int | None = None) -> int:
    """A ROS domain in which no participant runs on this machine.

    DDS computes the UDP ports of each participant from its domain, so a domain is free if the ports of its first
    participants are free.

    Args:
        first: the domain to try first; by default it depends on the process ID.
    """
    start = os.getpid() if first is None else first - 1
    for offset in range(DOMAINS):
        domain = 1 + (start + offset) % DOMAINS
        if all(_port_is_free(_DDS_PORT + 250 * domain + 10 + 2 * number) for number in range(3)):
            return domain
    return 1 + start % DOMAINS


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def ros_environment(profile: Path | None, log_folder: Path, domain: int | None = None) -> dict[str, str]:
    """Environment for processes that communicate only with each other, on this machine.

    Args:
        profile: Fast DDS profile for large messages, None for no profile.
        log_folder: where ROS writes its logs.
        domain: ROS domain; by default one that no other process uses on this machine.
    """
    environment = dict(os.environ)
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment["ROS_DOMAIN_ID"] = str(free_domain() if domain is None else domain)
    environment["ROS_LOG_DIR"] = str(log_folder)
    environment["PYTHONUNBUFFERED"] = "1"
    # Several processes share the cores, so waiting threads must not spin.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.pop("ROS_LOCALHOST_ONLY", None)
    if profile is not None:
        environment["FASTDDS_DEFAULT_PROFILES_FILE"] = str(profile)
    return environment
