"""Allows one run at a time per folder.

The kernel holds the lock and releases it when the process ends, however it ends. The text in the lock file only names
the owner, so the file that a killed process leaves behind does not block the next run."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stdnet_core.errors import ConfigError
from stdnet_core.whole_files import writing

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]  # a name of the module otherwise

FILE_NAME = "run.lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Error codes of file systems without locks, e.g. some network file systems."""
_LOG = logging.getLogger(__name__)
_held: set[int] = set()


def _let_go_in_child() -> None:
    """A loader worker must not keep the lock of its parent when that is killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock ``folder``, which must exist, against other runs for the duration of the block.

    Raises:
        ConfigError: another process holds the lock; the message says which, where and since when.
        OutputError: the lock file cannot be written.
    """
    path = folder / FILE_NAME
    descriptor = _take(path) if fcntl is not None else None
    if descriptor is None:
        yield
        return
    _held.add(descriptor)
    try:
        with writing(path):
            since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _take(path: Path) -> int | None:
    """A file descriptor that holds the lock; None if the file system has no locks."""
    while True:
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            os.close(descriptor)  # the owner has just ended and removed the file
        except BlockingIOError:
            owner = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise ConfigError(
                f"{owner} is training into {path.parent}; wait until it ends, or give another --output"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _UNSUPPORTED:
                raise
            _LOG.warning("%s cannot be locked (%s): make sure that no other run uses it", path.parent, error.strerror)
            return None
