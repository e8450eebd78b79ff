"""Files are there whole or not at all, and what prevents it is one error with the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stdnet_core.errors import OutputError
from stdnet_core.whole_files import replacing, write_tensors, write_text, writing


def test_what_was_written_is_there_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    write_tensors(path, {"a": torch.arange(3)}, {"note": "x"})
    assert torch.equal(load_file(path)["a"], torch.arange(3))
    assert path.stat().st_mode & 0o777 == 0o644
    write_text(path.with_suffix(".txt"), "größer")
    assert path.with_suffix(".txt").read_bytes() == "größer".encode()
    assert sorted(file.name for file in path.parent.iterdir()) == ["weights.safetensors", "weights.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("no")])
def test_a_block_that_fails_leaves_the_file_as_it_was(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    write_text(path, "before")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of it")
            raise error

    with pytest.raises((KeyboardInterrupt, ValueError)):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OutputError, match=rf"^{tmp_path}/file/inside\.txt cannot be written: (Not a directory|File exists)"
    ):
        write_text(tmp_path / "file" / "inside.txt", "text")


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match=r"taken cannot be written: Is a directory"):
        write_tensors(tmp_path / "taken", {"a": torch.zeros(2)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_reason_of_safetensors_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "weights.partial").mkdir()
    with pytest.raises(OutputError, match=r"weights cannot be written: .*[Dd]irectory"):
        write_tensors(tmp_path / "weights", {"a": torch.zeros(2)}, {})


def test_an_error_without_a_text_of_the_system_keeps_its_own(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"picture\.png cannot be written: the encoder failed"),
        writing(tmp_path / "picture.png"),
    ):
        raise OSError("the encoder failed")
