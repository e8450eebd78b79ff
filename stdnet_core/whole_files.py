"""Writes files atomically, and turns errors of the system (e.g. a full disk) into one type of error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from stdnet_core.errors import OutputError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context for a block that writes to ``path``.

    Raises:
        OutputError: instead of the errors that the system raises in the block.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    except SafetensorError as error:
        reason = str(error).rpartition("I/O error: ")[2]
        raise OutputError(f"{path} cannot be written: {reason}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context for a block that writes to the yielded temporary path; the file then replaces ``path``.

    The file is flushed to the disk before it is renamed. If the block fails, it is deleted.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors writes files that only their owner may read


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
