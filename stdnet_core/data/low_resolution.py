"""Low-resolution depth on disk beside a published data set, in the layout of DyDToF's release:

    DyDToF_LR/X8/<scene>/<shot>/depth/<shot>.0000.npy
    TartanAir_LR/X8/<scene>/<Easy|Hard>/<Pxxx>/depth_left/000000_left_depth.npy
    DynamicReplica_LR/X8/<sequence>/depths/<sequence>_0000.npy

Values are float32 metres, 0 invalid; files are named like those of full-resolution depth. ``python -m
stdnet_core.make_lr`` writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.file_sequence import is_smaller_version
from stdnet_core.data.frame_files import numbered_files
from stdnet_core.data.image_files import DEPTH_SUFFIXES, read_depth
from stdnet_core.data.rgbd_sequence import RgbdSequence, frame_indices
from stdnet_core.errors import DataError


@dataclass(frozen=True)
class LowResolutionTree:
    """The folders of a data set's low-resolution depth.

    Attributes:
        name: of the tree, such as ``DyDToF_LR``.
        folder_of: maps the folder of a sequence to that of its low-resolution depth below ``X<scale>``.
        beside: name of the folder of full-resolution data that the tree lies beside, if the data set has one.
    """

    name: str
    folder_of: Callable[[Path], Path]
    beside: str = ""

    def place(self, root: Path) -> Path:
        """The folder that contains the tree, or should: the nearest at or above ``root`` that has it, else the one
        above :attr:`beside`, else ``root``."""
        above = [root.resolve(), *root.resolve().parents]
        there = next((folder for folder in above if (folder / self.name).is_dir()), None)
        return there or next((folder.parent for folder in above if self.beside and folder.name == self.beside), root)

    def find(self, root: Path, scale: float, place: Path | None = None) -> Path:
        """The folder ``X<scale>`` for the data in ``root``.

        Args:
            place: the folder that contains the tree; None: the result of :meth:`place`.

        Raises:
            DataError: it does not exist.
        """
        folder = (place or self.place(root)) / self.name / f"X{scale}"
        if not folder.is_dir():
            there = ", ".join(sorted(path.name for path in folder.parent.glob("X*")))
            raise DataError(
                f"{folder}: no such folder; expected low-resolution depth for x{scale} there"
                + (f" (there is {there})" if there else "")
                + "; python -m stdnet_core.make_lr writes it"
            )
        return folder

    def files(self, scale_folder: Path, sequence: Path) -> dict[int, Path]:
        """Files of low-resolution depth by frame number, for the sequence in the folder ``sequence``."""
        return numbered_files(scale_folder / self.folder_of(sequence), DEPTH_SUFFIXES)

    def file_of(self, depth: Path) -> Path:
        """The ``.npy`` file below ``X<scale>`` that belongs to a file of full-resolution depth."""
        stem = depth.name.removesuffix(depth.suffix).removesuffix(".geometric")
        return self.folder_of(depth.parent.parent) / f"{stem}.npy"


class WithLowResolution:
    """A sequence whose clips include low-resolution depth from separate files.

    Args:
        sequence: colour and full-resolution depth.
        files: one per frame, of the same crop as the sequence's frames.

    Raises:
        DataError: the first file cannot be read, or its aspect ratio is not that of colour.
    """

    def __init__(self, sequence: RgbdSequence, files: Sequence[Path]) -> None:
        self._sequence, self._files = sequence, tuple(files)
        self.name, self.frame_size, self.intrinsics = sequence.name, sequence.frame_size, sequence.intrinsics
        self._size = read_depth(self._files[0]).shape
        if not is_smaller_version(self._size, self.frame_size):
            raise DataError(
                f"{self._files[0]}: low-resolution depth of {_pixels(self._size)} does not have the proportions of the "
                f"frames of {_pixels(self.frame_size)}; was it made of another part of them (another split)?"
            )
        self.lr_scale = self.frame_size[0] / self._size[0]

    def __len__(self) -> int:
        return len(self._sequence)

    def clip(self, start: int, length: int, stride: int = 1) -> RgbdClip:
        """Read ``length`` frames from ``start``, every ``stride``-th one; see :class:`RgbdSequence`."""
        lows = []
        for index in frame_indices(self, start, length, stride):
            low = read_depth(self._files[index])
            if low.shape != self._size:
                raise DataError(
                    f"{self._files[index]}: low-resolution depth of {_pixels(low.shape)}, expected "
                    f"{_pixels(self._size)} as in the rest of {self.name}"
                )
            lows.append(low)
        clip = self._sequence.clip(start, length, stride)
        return replace(clip, depth_lr=torch.from_numpy(np.stack(lows)).unsqueeze(1))


def _pixels(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
