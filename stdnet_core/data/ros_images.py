"""Recorded ROS image messages as arrays, without ROS.

Takes any object with a message's fields, as the ``rosbags`` package makes them. The live node converts its own
messages in ``stdnet_ros.conversions``."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from stdnet_core.data.image_files import clean_depth
from stdnet_core.errors import DataError

MILLIMETRES = 1000.0

# Sample type, channels and OpenCV's conversion to RGB. OpenCV names a Bayer pattern by its second row's second pixel.
_COLORS: dict[str, tuple[type, int, int | None]] = {
    "rgb8": (np.uint8, 3, None),
    "bgr8": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC3": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
}
_DEPTHS: dict[str, type] = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
_PNG = b"\x89PNG"
_DEPTH_HEADER = struct.Struct("<iff")


def is_depth(message: Any) -> bool:
    """Whether a raw or compressed image message holds depth, by its encoding."""
    if hasattr(message, "encoding"):
        return message.encoding in _DEPTHS
    return "compressedDepth" in message.format or message.format.partition(";")[0].strip() in ("16UC1", "32FC1")


def color_of(message: Any, topic: str) -> np.ndarray:
    """RGB (H, W, 3) uint8 of an Image or CompressedImage.

    Raises:
        DataError: unknown encoding, or data that do not fit; names the topic.
    """
    if not hasattr(message, "encoding"):
        return cv2.cvtColor(_decode(message.data, cv2.IMREAD_COLOR, topic), cv2.COLOR_BGR2RGB)
    if message.encoding not in _COLORS:
        raise DataError(f"{topic}: colour encoding {message.encoding!r} is unknown; use one of {', '.join(_COLORS)}")
    dtype, channels, to_rgb = _COLORS[message.encoding]
    pixels = _pixels(message, np.dtype(dtype), channels, topic)
    return pixels.copy() if to_rgb is None else cv2.cvtColor(np.ascontiguousarray(pixels), to_rgb)


def depth_of(message: Any, topic: str) -> np.ndarray:
    """Depth (H, W) float32 in metres, 0 invalid, of an Image or a CompressedImage of the compressedDepth transport.

    Raises:
        DataError: unknown encoding, or data that do not fit; names the topic.
    """
    if not hasattr(message, "encoding"):
        return _compressed_depth(message, topic)
    if message.encoding not in _DEPTHS:
        raise DataError(f"{topic}: depth encoding {message.encoding!r} is unknown; use one of {', '.join(_DEPTHS)}")
    pixels = _pixels(message, np.dtype(_DEPTHS[message.encoding]), 1, topic)
    if pixels.dtype == np.float32:
        return clean_depth(pixels)
    return pixels.astype(np.float32) / np.float32(MILLIMETRES)


def _pixels(message: Any, dtype: np.dtype, channels: int, topic: str) -> np.ndarray:
    """(H, W) or (H, W, channels) in native byte order."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels * dtype.itemsize
    data = np.frombuffer(memoryview(message.data), np.uint8)
    if height < 1 or width < 1 or step < row or data.size < step * (height - 1) + row:
        raise DataError(
            f"{topic}: {data.size} bytes with step {step} are no {width}x{height} image of {message.encoding}"
        )
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    wire = dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixels = np.ascontiguousarray(rows).view(wire).astype(dtype, copy=False)
    return pixels.reshape((height, width) if channels == 1 else (height, width, channels))


def _compressed_depth(message: Any, topic: str) -> np.ndarray:
    data = np.frombuffer(memoryview(message.data), np.uint8)
    has_header = data[:4].tobytes() != _PNG
    png = data[_DEPTH_HEADER.size :] if has_header else data
    if png[:4].tobytes() != _PNG:
        raise DataError(f"{topic}: format {message.format!r} holds no PNG; only PNG compressedDepth can be read")
    values = _decode(png, cv2.IMREAD_UNCHANGED, topic)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise DataError(f"{topic}: expected 16-bit depth in the PNG, found {values.dtype} {values.shape}")
    if not message.format.startswith("32FC1"):
        return values.astype(np.float32) / np.float32(MILLIMETRES)
    if not has_header:
        raise DataError(f"{topic}: format {message.format!r} without the header that its numbers need")
    _, a, b = _DEPTH_HEADER.unpack(data[: _DEPTH_HEADER.size].tobytes())
    with np.errstate(divide="ignore"):
        depth = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    depth[values == 0] = 0
    return clean_depth(depth)


def _decode(data: Any, flags: int, topic: str) -> np.ndarray:
    data = np.frombuffer(memoryview(data), np.uint8)
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise DataError(f"{topic}: a compressed image of {data.size} bytes cannot be decoded")
    return image
