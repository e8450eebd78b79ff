"""The lock of a run's folder where the file system knows no locks; test_train_run.py has it between processes."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from stdnet_core.errors import ConfigError
from stdnet_core.training.lock import FILE_NAME, locked


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_the_second_run_of_a_folder_is_told_who_holds_it(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert (tmp_path / FILE_NAME).read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* since .* is training into {tmp_path}; "):
            locked(tmp_path).__enter__()
    assert not (tmp_path / FILE_NAME).exists()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_run_goes_on_with_a_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(monkeypatch, code)
    caplog.set_level(logging.WARNING)
    with locked(tmp_path):
        pass
    assert f"{tmp_path} cannot be locked ({os.strerror(code)}): make sure that no other run uses it" in caplog.text


def test_other_errors_are_not_taken_for_missing_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EIO)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), locked(tmp_path):
        pass
    assert len(os.listdir("/proc/self/fd")) == before, "the file is closed"
