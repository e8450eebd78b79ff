"""One run at a time in a folder.

The kernel holds the lock and lets go of it when the process ends, however it ends; the text of the file only says who
has it. What a killed process leaves is therefore taken over."""

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
"""What some network file systems answer."""
_LOG = logging.getLogger(__name__)
_held: set[int] = set()


def _let_go_in_child() -> None:
    """A loader's worker must not keep what its killed parent had."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A block in which no other run can have ``folder``, which must be there.

    Raises:
        ConfigError: another process has it; says which, where and since when.
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
    """A descriptor that has the lock; None where the file system has no locks."""
    while True:
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            os.close(descriptor)  # its owner has just ended and removed it
        except BlockingIOError:
            owner = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise ConfigError(
                f"{owner} is training into {path.parent}; wait for its end, or give another --output"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _UNSUPPORTED:
                raise
            _LOG.warning("%s cannot be locked (%s): see that no second run trains there", path.parent, error.strerror)
            return None
