"""Reads the files of RGB-D data: colour images, depth as 16-bit image, NumPy array or OpenEXR, optical flow.

Every reader returns a plain array in the project's units. A :class:`DataError` names the file and what was expected."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from stdnet_core.data.exr import MAGIC as EXR_MAGIC
from stdnet_core.data.exr import read_exr
from stdnet_core.depth_units import DepthUnits
from stdnet_core.errors import DataError

COLOR_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff", ".pgm", ".pfm", ".exr")
CONFIDENCE_SUFFIXES = (".png", ".npy")
BY_TYPE = DepthUnits()
"""Integers are millimetres, floating-point numbers metres."""


def read_color(path: Path) -> np.ndarray:
    """Colour image (H, W, 3) uint8, RGB. EXIF orientation is ignored, because the depth image is not rotated either.

    Raises:
        DataError: the file is missing or not a readable image.
    """
    image = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, "a colour image such as JPEG or PNG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_depth(path: Path, units: DepthUnits = BY_TYPE) -> np.ndarray:
    """Depth (H, W) float32 in metres, 0 invalid.

    Args:
        path: see :func:`read_stored_depth`.
        units: how the stored values become metres.

    Raises:
        DataError: the file is missing, damaged or of another type.
    """
    return units.metres(read_stored_depth(path))


def read_stored_depth(path: Path) -> np.ndarray:
    """Depth (H, W) as stored: a 16-bit PNG, PGM or TIFF, a float32 TIFF or PFM, a ``.npy`` of numbers, or a
    single-channel OpenEXR image (see :mod:`stdnet_core.data.exr`).

    Raises:
        DataError: the file is missing, damaged or of another type.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _two_dimensional(_load_array(path), path)
    if suffix == ".exr":
        wrong = what_is_wrong(path)
        if wrong is not None:
            raise DataError(f"{path} {wrong}; expected an OpenEXR image of one channel")
        return read_exr(path)
    if suffix not in (".tif", ".tiff", ".pfm"):
        return read_uint16(path)
    image = _decode(path, cv2.IMREAD_UNCHANGED, "depth of 16 bits or float32")
    if image.ndim != 2 or image.dtype not in (np.uint16, np.float32):
        raise DataError(
            f"{path}: expected depth of one channel of 16 bits or float32, found {image.dtype} of shape {image.shape}"
        )
    return image


def read_half_depth(path: Path) -> np.ndarray:
    """Depth (H, W) float32 in metres from a 16-bit PNG that holds the bits of float16 numbers (DynamicReplica).

    Raises:
        DataError: the file is missing, damaged or not a 16-bit PNG.
    """
    return clean_depth(read_uint16(path).view(np.float16))


def read_uint16(path: Path) -> np.ndarray:
    """The values of a 16-bit single-channel PNG or PGM, (H, W) uint16.

    Raises:
        DataError: the file is missing, damaged or of another kind.
    """
    image = _decode(path, cv2.IMREAD_UNCHANGED, "a 16-bit PNG")
    if image.dtype != np.uint16 or image.ndim != 2:
        raise DataError(
            f"{path}: expected a 16-bit single-channel image, found {8 * image.dtype.itemsize}-bit "
            f"of shape {image.shape}"
        )
    return image


def read_confidence(path: Path) -> np.ndarray:
    """Confidence of a phone's depth, (H, W) uint8: 0 (low), 1 or 2 (high), from an 8-bit PNG or a ``.npy`` array.

    Raises:
        DataError: the file is missing, damaged or has other content.
    """
    if path.suffix.lower() == ".npy":
        confidence = _two_dimensional(_load_array(path), path)
    else:
        confidence = _decode(path, cv2.IMREAD_UNCHANGED, "an 8-bit PNG of confidences")
    if confidence.ndim != 2 or confidence.dtype != np.uint8 or confidence.max() > 2:
        raise DataError(
            f"{path}: expected confidences 0, 1 and 2 of 8 bits, found {confidence.dtype} of shape {confidence.shape} "
            f"up to {confidence.max()}"
        )
    return confidence


def read_flow(path: Path) -> np.ndarray:
    """Optical flow (2, H, W) float32 in pixels, x then y, from a ``.npy`` array (H, W, 2).

    Raises:
        DataError: the file is missing, damaged or of another shape.
    """
    flow = _load_array(path)
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise DataError(f"{path}: expected optical flow of shape (H, W, 2), found {flow.shape}")
    return np.ascontiguousarray(flow.transpose(2, 0, 1), dtype=np.float32)


def clean_depth(depth: np.ndarray) -> np.ndarray:
    """Depth as float32; values that are not positive and finite become 0."""
    depth = depth.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0
    return depth


def what_is_wrong(path: Path) -> str | None:
    """What is wrong with a PNG, JPEG, EXR or ``.npy`` file, by its first and last bytes; None if nothing.

    Finds missing, empty and truncated files, as left by an interrupted download, without decoding them."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(128)
            file.seek(max(0, size - 16))
            tail = file.read()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not size:
        return "is empty"
    if path.suffix == ".png":
        if not head.startswith(b"\x89PNG\r\n\x1a\n"):
            return "is not a PNG image"
        return None if b"IEND" in tail else f"is cut off after {size} bytes"
    if path.suffix in (".jpg", ".jpeg"):
        if not head.startswith(b"\xff\xd8"):
            return "is not a JPEG image"
        return None if b"\xff\xd9" in tail else f"is cut off after {size} bytes"
    if path.suffix == ".exr":
        return None if head.startswith(EXR_MAGIC) else "is not an OpenEXR image"
    return _what_is_wrong_with_array(path, size) if path.suffix == ".npy" else None


def _what_is_wrong_with_array(path: Path, size: int) -> str | None:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
            read_header = read_header or np.lib.format.read_array_header_2_0
            shape, _, dtype = read_header(file)
            expected = file.tell() + int(np.prod(shape)) * dtype.itemsize
    except (ValueError, OSError):
        return "is not a NumPy array"
    return None if size >= expected else f"is cut off: {size} of {expected} bytes"


def _decode(path: Path, flags: int, expected: str) -> np.ndarray:
    wrong = what_is_wrong(path)
    if wrong is None:
        image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
        if image is not None:
            return image
        wrong = "cannot be decoded"
    raise DataError(f"{path} {wrong}; expected {expected}")


def _load_array(path: Path) -> np.ndarray:
    wrong = what_is_wrong(path)
    if wrong is None:
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            wrong = f"cannot be loaded ({error})"
    raise DataError(f"{path} {wrong}; expected a NumPy array of numbers")


def _two_dimensional(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array.squeeze(0 if array.shape[0] == 1 else 2)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected depth of shape (H, W), found {array.dtype} {array.shape}")
    return array
