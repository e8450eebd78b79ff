"""The common interface to every source of RGB-D video, whatever its files.

A sequence knows its length and frame size from the start and reads frames only when :meth:`RgbdSequence.clip` is
called, so that a list of hour-long recordings needs no memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor

from stdnet_core.data.clip import RgbdClip
from stdnet_core.errors import InputError


@runtime_checkable
class RgbdSequence(Protocol):
    """A video of aligned colour and depth frames that is read lazily."""

    @property
    def name(self) -> str:
        """Identifies the sequence in tables and messages."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the colour frames in pixels."""

    @property
    def intrinsics(self) -> Tensor | None:
        """(3, 3) float32 in pixels of the colour frame, or None when unknown."""

    def __len__(self) -> int:
        """Number of frames."""

    def clip(self, start: int, length: int, stride: int = 1) -> RgbdClip:
        """Read ``length`` frames from ``start``, every ``stride``-th one.

        Raises:
            DataError: a file is missing or damaged; the error names it.
            InputError: the requested frames are not in the sequence.
        """


def frame_indices(sequence: RgbdSequence, start: int, length: int, stride: int) -> range:
    """The frames that ``clip(start, length, stride)`` reads.

    Raises:
        InputError: they are not all in the sequence, or there are none.
    """
    indices = range(start, start + length * stride, stride) if stride > 0 else range(0)
    if not indices or indices[0] < 0 or indices[-1] >= len(sequence):
        raise InputError(
            f"{sequence.name}: {length} frames from frame {start} with stride {stride} are not in a sequence "
            f"of {len(sequence)} frames"
        )
    return indices


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, with a number added to those that occur again."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique
