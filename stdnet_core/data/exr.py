"""Reads single-channel OpenEXR images, in which apps and renderers store depth; many builds of OpenCV cannot.

Supported are scan lines of 16- or 32-bit numbers, uncompressed or compressed by ZIP. File layout:
https://openexr.com/en/latest/OpenEXRFileLayout.html"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from stdnet_core.errors import DataError

MAGIC = b"\x76\x2f\x31\x01"
_TILED_DEEP_MULTIPART = 0x200 | 0x800 | 0x1000
_TYPES = {0: "<u4", 1: "<f2", 2: "<f4"}
_COMPRESSIONS = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
_LINES = {"none": 1, "ZIPS": 1, "ZIP": 16}
"""Scan lines per block."""


def read_exr(path: Path) -> np.ndarray:
    """The channel of an OpenEXR image, (H, W) float16, float32 or uint32.

    Raises:
        DataError: the file is damaged, or has several channels, tiles or another compression method.
    """
    data = path.read_bytes()
    try:
        return _decode(data, path)
    except (struct.error, zlib.error, KeyError, ValueError, IndexError, MemoryError):
        raise DataError(f"{path} is damaged or cut off; expected an OpenEXR image of one channel") from None


def _decode(data: bytes, path: Path) -> np.ndarray:
    (flags,) = struct.unpack_from("<I", data, 4)
    attributes, position = _header(data, 8)
    names, kind, sampling = _channels(attributes["channels"])
    compression = _COMPRESSIONS[attributes["compression"][0]]
    if flags & _TILED_DEEP_MULTIPART or len(names) != 1 or sampling != (1, 1) or compression not in _LINES:
        raise DataError(
            f"{path}: expected one channel in scan lines, not compressed or compressed by ZIP, found "
            f"{compression} of channels {', '.join(names)}; store depth as .npy or TIFF"
        )
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    dtype = np.dtype(_TYPES[kind])
    image = np.zeros((bottom - top + 1, right - left + 1), dtype)
    lines = _LINES[compression]
    blocks = -(-len(image) // lines)
    for offset in struct.unpack_from(f"<{blocks}Q", data, position):
        y, size = struct.unpack_from("<2i", data, offset)
        block = data[offset + 8 : offset + 8 + size]
        rows = image[y - top : y - top + lines]
        if len(block) < rows.nbytes:
            block = _unpredict(zlib.decompress(block))
        rows[:] = np.frombuffer(block, dtype).reshape(rows.shape)
    return image


def _header(data: bytes, position: int) -> tuple[dict[str, bytes], int]:
    attributes = {}
    while data[position]:
        end_of_name = data.index(0, position)
        end_of_type = data.index(0, end_of_name + 1)
        (size,) = struct.unpack_from("<i", data, end_of_type + 1)
        begin = end_of_type + 5
        attributes[data[position:end_of_name].decode("latin-1")] = data[begin : begin + size]
        position = begin + size
    return attributes, position + 1


def _channels(data: bytes) -> tuple[list[str], int, tuple[int, int]]:
    """Names of all channels, and type and sampling of the last one."""
    names, position, kind, sampling = [], 0, 0, (1, 1)
    while data[position]:
        end = data.index(0, position)
        names.append(data[position:end].decode("latin-1"))
        kind, _, *steps = struct.unpack_from("<4i", data, end + 1)
        sampling = tuple(steps)
        position = end + 17
    return names, kind, sampling


def _unpredict(packed: bytes) -> bytes:
    """Undo the transform before deflation: bytes are stored as differences, those at even positions first."""
    values = np.frombuffer(packed, np.uint8).astype(np.int64)
    values[1:] -= 128
    values = np.cumsum(values).astype(np.uint8)
    half = (values.size + 1) // 2
    whole = np.empty_like(values)
    whole[0::2], whole[1::2] = values[:half], values[half:]
    return whole.tobytes()
