"""ROS image messages as arrays, without ROS.

Takes any object with the fields of sensor_msgs Image or CompressedImage: messages of rclpy, of the ``rosbags`` package,
or of :mod:`stdnet_ros.serialized`. Depth comes out as float32 metres with NaN where invalid (REP-117, REP-118), colour
as RGB, uint8. Every message is distrusted: its size, step, encoding, byte order and payload are checked before memory
is allocated for it, and what is wrong is said in a :class:`FrameError` that carries the counter it belongs to."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stdnet_core.errors import InputError

MAX_PIXELS = 64_000_000
"""Images larger than this are taken for damaged headers rather than allocated."""


class FrameError(InputError):
    """A frame that is refused; ``cause`` is the name of its drop counter."""

    def __init__(self, cause: str, text: str):
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True)
class _Layout:
    """Memory layout of a raw encoding: sample type, samples per pixel and the OpenCV code that makes RGB of it."""

    dtype: type
    channels: int
    to_rgb: int | None = None


# ROS names a Bayer pattern by its first row, OpenCV by the second row from the second column: RGGB is "BayerBG".
_COLOR_LAYOUTS = {
    "rgb8": _Layout(np.uint8, 3),
    "bgr8": _Layout(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC3": _Layout(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": _Layout(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": _Layout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Layout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": _Layout(np.uint16, 3),
    "bgr16": _Layout(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "mono16": _Layout(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "yuv422": _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": _Layout(np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Layout(np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Layout(np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Layout(np.uint8, 1, cv2.COLOR_BayerGB2RGB),
}
_EVEN_WIDTH = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")
_DEPTH_LAYOUTS = {
    "32FC1": _Layout(np.float32, 1),
    "16UC1": _Layout(np.uint16, 1),
    "mono16": _Layout(np.uint16, 1),
}
COLOR_ENCODINGS = tuple(_COLOR_LAYOUTS)
DEPTH_ENCODINGS = tuple(_DEPTH_LAYOUTS)
_MAX_PIXELS_PER_BYTE = 2000
"""No 8 or 16-bit PNG (at most 1032) nor JPEG (about 200) packs more; a header that claims it is damaged."""

_COMPRESSED_DEPTH_HEADER = struct.Struct("<iff")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"


def is_depth(message: Any) -> bool:
    """Whether a raw or compressed image message holds depth, by its encoding."""
    if hasattr(message, "encoding"):
        return message.encoding in _DEPTH_LAYOUTS
    return "compressedDepth" in message.format or message.format.partition(";")[0].strip() in ("16UC1", "32FC1")


def color_of(message: Any, topic: str = "color/image") -> np.ndarray:
    """RGB (H, W, 3) uint8 of an Image or CompressedImage.

    Raises:
        FrameError: as :func:`color_from_image` and :func:`color_from_compressed`.
    """
    read = color_from_image if hasattr(message, "encoding") else color_from_compressed
    return read(message, topic)


def depth_of(message: Any, unit: float = 0.001, topic: str = "depth/image") -> np.ndarray:
    """Depth (h, w) float32 metres, NaN invalid, of an Image, or of a CompressedImage of the compressedDepth transport.

    Raises:
        FrameError: as :func:`depth_from_image` and :func:`depth_from_compressed`.
    """
    read = depth_from_image if hasattr(message, "encoding") else depth_from_compressed
    return read(message, unit, topic)


def color_from_image(message: Any, topic: str = "color/image") -> np.ndarray:
    """RGB of a raw colour image.

    Args:
        message: any of :data:`COLOR_ENCODINGS`; 16-bit samples keep their upper byte.
        topic: name used in errors.

    Returns:
        (H, W, 3) uint8. For rgb8 a view of the message's memory, so it must not be written to.

    Raises:
        FrameError: unknown encoding, zero size, or step or data that do not fit the size.
    """
    pixels = _pixels(message, _COLOR_LAYOUTS, "color", topic)
    layout = _COLOR_LAYOUTS[message.encoding]
    if message.encoding in _EVEN_WIDTH and message.width % 2:
        raise FrameError("bad_color", f"{topic}: {message.encoding} needs an even width, got {message.width}")
    if message.encoding.startswith("bayer") and min(message.width, message.height) < 2:
        raise FrameError("bad_color", f"{topic}: a Bayer image needs at least 2x2 pixels")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if layout.to_rgb is None:
        return pixels
    return cv2.cvtColor(np.ascontiguousarray(pixels), layout.to_rgb)


def depth_from_image(message: Any, unit: float = 0.001, topic: str = "depth/image") -> np.ndarray:
    """Depth of a raw depth image.

    Args:
        message: 32FC1 in metres, or 16UC1 (mono16) in device units.
        unit: metres per unit of a 16UC1 image.
        topic: name used in errors.

    Returns:
        (h, w) float32 metres, NaN where the sensor gave 0, a negative or a non-finite value.

    Raises:
        FrameError: unknown encoding, zero size, or step or data that do not fit the size.
    """
    pixels = _pixels(message, _DEPTH_LAYOUTS, "depth", topic)
    return _metres(pixels, unit if pixels.dtype == np.uint16 else 1.0)


def color_from_compressed(message: Any, topic: str = "color/image/compressed") -> np.ndarray:
    """RGB (H, W, 3) uint8 of a JPEG or PNG image as image_transport's ``compressed`` plugin sends it.

    Raises:
        FrameError: neither JPEG nor PNG, truncated, too large or not decodable.
    """
    data = np.frombuffer(message.data, np.uint8)
    decoded = _decode(data, cv2.IMREAD_COLOR, "color", topic)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def depth_from_compressed(message: Any, unit: float = 0.001, topic: str = "depth/image/compressedDepth") -> np.ndarray:
    """Depth of an image as image_transport's ``compressedDepth`` plugin sends it.

    The payload is a 12-byte header (format, quantisation A and B) and a 16-bit PNG: device units for 16UC1, and for
    32FC1 the quantised inverse depth v, metres = A / (v - B), 0 invalid.

    Returns:
        (h, w) float32 metres, NaN invalid.

    Raises:
        FrameError: another format (RVL), truncated, too large or not decodable.
    """
    encoding, _, transport = message.format.partition(";")
    if encoding.strip() not in ("16UC1", "32FC1") or "compressedDepth" not in transport:
        raise FrameError(
            "bad_depth",
            f"{topic}: format {message.format[:60]!r} is not '16UC1; compressedDepth' or '32FC1; compressedDepth'; "
            f"check that depth_transport fits the topic",
        )
    if "rvl" in transport:
        raise FrameError(
            "bad_depth", f"{topic}: RVL is not supported; set the publisher's compressedDepth format to png"
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size <= _COMPRESSED_DEPTH_HEADER.size:
        raise FrameError("bad_depth", f"{topic}: {data.size} bytes are no compressedDepth image")
    _, quantisation_a, quantisation_b = _COMPRESSED_DEPTH_HEADER.unpack(data[: _COMPRESSED_DEPTH_HEADER.size].tobytes())
    decoded = _decode(data[_COMPRESSED_DEPTH_HEADER.size :], cv2.IMREAD_UNCHANGED, "depth", topic)
    if decoded.dtype != np.uint16 or decoded.ndim != 2:
        raise FrameError("bad_depth", f"{topic}: the PNG inside is not 16-bit with one channel")
    if encoding.strip() == "16UC1":
        return _metres(decoded, unit)
    if not (np.isfinite(quantisation_a) and np.isfinite(quantisation_b)):
        raise FrameError("bad_depth", f"{topic}: the quantisation header is not finite")
    with np.errstate(divide="ignore"):
        metres = np.float32(quantisation_a) / (decoded.astype(np.float32) - np.float32(quantisation_b))
    metres[decoded == 0] = 0.0
    return _metres(metres, 1.0)


def _pixels(message: Any, layouts: dict[str, _Layout], kind: str, topic: str) -> np.ndarray:
    """The samples of a raw image as (H, W) or (H, W, C) in native byte order, without a copy where possible."""
    cause = f"bad_{kind}"
    layout = layouts.get(message.encoding)
    if layout is None:
        raise FrameError(
            cause,
            f"{topic}: encoding {message.encoding[:40]!r} is not supported for {kind}; use one of {', '.join(layouts)}",
        )
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise FrameError(cause, f"{topic}: image of size {width}x{height} has no pixels")
    if height * width > MAX_PIXELS:
        raise FrameError(cause, f"{topic}: {width}x{height} is larger than {MAX_PIXELS} pixels")
    sample = np.dtype(layout.dtype)
    row = width * layout.channels * sample.itemsize
    if step < row or step % sample.itemsize:
        raise FrameError(
            cause, f"{topic}: step {step} does not fit width {width} in {message.encoding} (at least {row} bytes)"
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size < step * (height - 1) + row:  # the last row need not be padded
        raise FrameError(cause, f"{topic}: {data.size} bytes of data are too few for {height} rows of {step} bytes")
    if sample.itemsize > 1:
        sample = sample.newbyteorder(">" if message.is_bigendian else "<")
    if step == row:
        samples = data[: step * height].reshape(height, row).view(sample)
    else:
        rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
        samples = np.ascontiguousarray(rows).view(sample)
    if not sample.isnative:
        samples = samples.astype(sample.newbyteorder("="))
    return samples if layout.channels == 1 else samples.reshape(height, width, layout.channels)


def _metres(samples: np.ndarray, unit: float) -> np.ndarray:
    depth = samples.astype(np.float32)
    if unit != 1.0:
        depth /= np.float32(1.0 / unit)  # exact for millimetres
    with np.errstate(invalid="ignore"):
        depth[~((depth > 0) & (depth < np.inf))] = np.nan
    return depth


def _decode(data: np.ndarray, flags: int, kind: str, topic: str) -> np.ndarray:
    """Decode a complete PNG or JPEG. OpenCV alone would return the first rows of a truncated one."""
    cause = f"bad_{kind}"
    signature = data[:8].tobytes()
    if signature == _PNG_SIGNATURE:
        width, height = _png_size(data)
        complete = True
    elif signature.startswith(_JPEG_SIGNATURE):
        width, height = _jpeg_size(data)
        # some cameras fill the message up with zeros
        complete = b"\xff\xd9" in data[-64:].tobytes() or b"\xff\xd9" in data.tobytes().rstrip(b"\0")[-64:]
    else:
        raise FrameError(cause, f"{topic}: the data are neither JPEG nor PNG")
    if width * height > MAX_PIXELS:
        raise FrameError(cause, f"{topic}: {width}x{height} is larger than {MAX_PIXELS} pixels")
    if not complete or not 0 < width * height <= _MAX_PIXELS_PER_BYTE * data.size:
        raise FrameError(cause, f"{topic}: the compressed image is truncated or damaged")
    try:
        decoded = cv2.imdecode(data, flags)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise FrameError(cause, f"{topic}: the compressed image cannot be decoded")
    return decoded


def _png_size(data: np.ndarray) -> tuple[int, int]:
    """Width and height in a PNG's header, (0, 0) unless its chunks lead from there to its end.

    A decoder that believes a damaged chunk length reserves gigabytes."""
    position, size = 8, (0, 0)
    while position + 12 <= data.size:
        length, kind = struct.unpack(">I4s", data[position : position + 8].tobytes())
        if kind == b"IHDR" and position + 16 <= data.size:
            size = struct.unpack(">II", data[position + 8 : position + 16].tobytes())
        if kind == b"IEND":
            return size if length == 0 else (0, 0)
        position += 12 + length
    return 0, 0


def _jpeg_size(data: np.ndarray) -> tuple[int, int]:
    """Width and height in a JPEG's frame header, (0, 0) if there is none."""
    position = 2
    while position + 9 <= data.size and data[position] == 0xFF:
        marker = int(data[position + 1])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9].tobytes())
            return width, height
        position += 2 + int(data[position + 2]) * 256 + int(data[position + 3])
    return 0, 0
