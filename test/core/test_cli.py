"""How a command ends: its status, and one line of error."""

from __future__ import annotations

import argparse
import re

import pytest

from stdnet_core.cli import positive_int, run_cli
from stdnet_core.errors import ConfigError


def ended(capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[object, str]:
    def main() -> int | None:
        raise error

    with pytest.raises(SystemExit) as ending:
        run_cli(main)
    return ending.value.code, capsys.readouterr().err


def test_errors_that_users_can_mend_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys, ConfigError("scale is 3; choose 4, 8 or 16")) == (2, "error: scale is 3; choose 4, 8 or 16\n")
    missing = FileNotFoundError(2, "No such file or directory", "clip.bag")
    assert ended(capsys, missing) == (2, "error: clip.bag: No such file or directory\n")
    assert ended(capsys, KeyboardInterrupt()) == (130, "interrupted\n")


def test_errors_of_the_system_without_a_file_keep_their_traceback() -> None:
    def main() -> None:
        raise OSError("out of handles")

    with pytest.raises(OSError, match="out of handles"):
        run_cli(main)


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_the_status_is_what_the_command_returns(returned: int | None, status: int) -> None:
    with pytest.raises(SystemExit) as ending:
        run_cli(lambda: returned)
    assert ending.value.code == status


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_counts_are_whole_and_positive(text: str) -> None:
    assert positive_int("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(f"{text!r} is not a whole number of at least 1")):
        positive_int(text)
