"""Atomic writing of files: each appears complete or not at all, and failures (a full disk) are one kind of error."""

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
    """Context of a block that writes to ``path``.

    Raises:
        OutputError: instead of the system's error if writing fails.
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
    """Context of a block that writes to the temporary path it gets, which then replaces ``path``.

    The temporary file is flushed to disk before it is renamed, and deleted if the block fails.

    Raises:
        OutputError: the file cannot be written.
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
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors creates files that only their owner may read


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
