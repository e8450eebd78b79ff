"""Converts ROS image messages to arrays, without ROS.

Accepts any object with the fields of sensor_msgs Image or CompressedImage: messages of rclpy, of the ``rosbags``
package, or of :mod:`stdnet_ros.messages.serialized`. The other direction needs ROS:
:mod:`stdnet_ros.messages.conversions`.

Depth becomes float32 metres with NaN where invalid (REP-117, REP-118), colour becomes RGB uint8. No message is trusted:
its size, step, encoding, byte order and payload are checked before memory is allocated for it. Invalid ones raise a
:class:`FrameError` that names their drop counter."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stdnet_core.data.bags.rvl import decode_rvl
from stdnet_core.depth_units import DepthUnits
from stdnet_core.errors import InputError

MAX_PIXELS = 64_000_000
"""A header that announces a larger image is considered damaged, and no memory is allocated."""
DEFAULT_UNITS = DepthUnits()


class FrameError(InputError):
    """A frame that is refused; ``cause`` is the name of its drop counter."""

    def __init__(self, cause: str, text: str):
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True)
class _Layout:
    """Memory layout of a raw encoding: sample type, samples per pixel and the OpenCV code that converts it to RGB."""

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
    "bayer_rggb16": _Layout(np.uint16, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": _Layout(np.uint16, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": _Layout(np.uint16, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": _Layout(np.uint16, 1, cv2.COLOR_BayerGB2RGB),
    "nv12": _Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV12),
    "nv21": _Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV21),
}
_EVEN_WIDTH = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21")
_HALF_CHROMA = ("nv12", "nv21")
"""Rows of luma are followed by half as many rows of chroma."""
_DEPTH_LAYOUTS = {
    "32FC1": _Layout(np.float32, 1),
    "16UC1": _Layout(np.uint16, 1),
    "mono16": _Layout(np.uint16, 1),
}
COLOR_ENCODINGS = tuple(_COLOR_LAYOUTS)
DEPTH_ENCODINGS = tuple(_DEPTH_LAYOUTS)
_MAX_PIXELS_PER_BYTE = 2000
"""No 8 or 16-bit PNG (at most 1032) or JPEG (about 200) reaches this; a header that implies more is damaged."""

_COMPRESSED_DEPTH_HEADER = struct.Struct("<iff")
_RVL_SIZE = struct.Struct("<II")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"


def is_depth(message: Any) -> bool:
    """Whether a raw or compressed image message holds readable depth, by its encoding.

    Depth that went through JPEG is not readable: only 8 of its 16 bits are left. A single-channel 16-bit PNG is depth,
    unless its format says otherwise."""
    if hasattr(message, "encoding"):
        return message.encoding in _DEPTH_LAYOUTS
    form = _CompressedFormat.of(message.format)
    return form.is_compressed_depth or (form.may_be_depth_png and _is_depth_png(message.data))


def encoding_of(message: Any) -> str:
    """Encoding of a raw or format of a compressed image message, for log messages."""
    return message.encoding if hasattr(message, "encoding") else message.format


def frames_agree(first: str, second: str) -> bool:
    """Whether two frame_ids may name the same frame: ROS 1's leading slash is ignored, and an empty one fits any."""
    return not first or not second or first.lstrip("/") == second.lstrip("/")


def same_field_of_view(color_size: tuple[int, int], depth_size: tuple[int, int]) -> bool:
    """Whether one scale turns the depth image's size into the colour image's, to within one depth pixel.

    Args:
        color_size, depth_size: (height, width).
    """
    lowest = max(big / (small + 1) for big, small in zip(color_size, depth_size, strict=True))
    highest = min(big / (small - 1) if small > 1 else np.inf for big, small in zip(color_size, depth_size, strict=True))
    return lowest < highest


def printable(text: str, limit: int = 80) -> str:
    """Text from a message made safe for logs: quoted, escaped and shortened."""
    shown = repr(text[: limit + 1])
    return shown if len(text) <= limit else f"{shown[:limit]}...' ({len(text)} characters)"


@dataclass(frozen=True)
class _CompressedFormat:
    """The ``format`` of a CompressedImage: "ENCODING; TRANSPORT ...", either of which may be missing."""

    encoding: str
    transport: str

    @staticmethod
    def of(text: str) -> _CompressedFormat:
        known = {name.lower(): name for name in ("16UC1", "32FC1", "mono16")}
        encoding, semicolon, transport = text.partition(";")
        name = encoding.strip().lower()
        if not semicolon and name not in known:  # "png", "image/png", "compressedDepth"
            name, transport = "", encoding
        return _CompressedFormat("" if name == "png" else known.get(name, name), transport.lower())

    @property
    def is_compressed_depth(self) -> bool:
        return "compresseddepth" in self.transport or "rvl" in self.transport

    @property
    def may_be_depth_png(self) -> bool:
        return self.encoding in ("16UC1", "mono16", "") and "jp" not in self.transport


def _is_depth_png(data: Any) -> bool:
    """Whether a payload is a single-channel 16-bit PNG, alone or after the header of ``compressedDepth``."""
    head = np.frombuffer(data, np.uint8)[: _COMPRESSED_DEPTH_HEADER.size + 26].tobytes()
    for at in (0, _COMPRESSED_DEPTH_HEADER.size):
        if head[at : at + 8] == _PNG_SIGNATURE:
            return head[at + 24 : at + 26] == b"\x10\x00"  # bit depth 16, colour type grey
    return False


def color_of(message: Any, topic: str = "color/image", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """RGB (H, W, 3) uint8 of an Image or CompressedImage; one with more than ``max_pixels`` is refused undecoded.

    Raises:
        FrameError: as :func:`color_from_image` and :func:`color_from_compressed`.
    """
    read = color_from_image if hasattr(message, "encoding") else color_from_compressed
    return read(message, topic, max_pixels)


def depth_of(
    message: Any, units: DepthUnits = DEFAULT_UNITS, topic: str = "depth/image", max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Depth of an Image, or of a CompressedImage of the compressedDepth transport.

    Args:
        message: raw: 16UC1, mono16 or 32FC1; compressed: see :func:`stored_depth`.
        units: how stored values become metres.
        topic: name used in errors.
        max_pixels: larger images are refused undecoded.

    Returns:
        (h, w) float32 metres, NaN without a measurement.

    Raises:
        FrameError: as :func:`stored_depth`.
    """
    return units.metres(stored_depth(message, topic, max_pixels), invalid=np.nan)


def stored_depth(message: Any, topic: str = "depth/image", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Depth of an Image or CompressedImage as stored: (h, w) uint16 or float32.

    Raises:
        FrameError: unknown encoding or format, zero size, too many pixels, or data that do not match the size or cannot
            be decoded.
    """
    if hasattr(message, "encoding"):
        return _pixels(message, _DEPTH_LAYOUTS, "depth", topic, max_pixels)
    return _stored_compressed(message, topic, max_pixels)


def color_from_image(message: Any, topic: str = "color/image", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """RGB of a raw colour image.

    Args:
        message: any of :data:`COLOR_ENCODINGS`; of 16-bit samples, the upper byte is kept.
        topic: name used in errors.
        max_pixels: larger images are refused undecoded.

    Returns:
        (H, W, 3) uint8. For rgb8, a view of the message's memory, which must not be written to.

    Raises:
        FrameError: unknown encoding, zero size, too many pixels, or step or data that do not match the size.
    """
    if message.encoding in _EVEN_WIDTH and message.width % 2:
        raise FrameError("bad_color", f"{topic}: {message.encoding} needs an even width, got {message.width}")
    if message.encoding in _HALF_CHROMA and message.height % 2:
        raise FrameError("bad_color", f"{topic}: {message.encoding} needs an even height, got {message.height}")
    pixels = _pixels(message, _COLOR_LAYOUTS, "color", topic, max_pixels)
    layout = _COLOR_LAYOUTS[message.encoding]
    if message.encoding.startswith("bayer") and min(message.width, message.height) < 2:
        raise FrameError("bad_color", f"{topic}: a Bayer image needs at least 2x2 pixels")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if layout.to_rgb is None:
        return pixels
    return cv2.cvtColor(np.ascontiguousarray(pixels), layout.to_rgb)


def color_from_compressed(
    message: Any, topic: str = "color/image/compressed", max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """RGB (H, W, 3) uint8 of a JPEG or PNG image, as sent by image_transport's ``compressed`` plugin.

    Raises:
        FrameError: neither JPEG nor PNG, truncated, too many pixels or not decodable.
    """
    data = np.frombuffer(message.data, np.uint8)
    decoded = _decode(data, cv2.IMREAD_COLOR, "color", topic, max_pixels)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _stored_compressed(message: Any, topic: str, max_pixels: int) -> np.ndarray:
    """Depth as sent by image_transport's plugins, as stored.

    The payload of ``compressedDepth`` is a 12-byte header (format, quantisation A and B), followed by a 16-bit PNG or
    by RVL (width and height of 4 bytes each, then the data). Its values are device units for 16UC1 (mono16), and the
    quantised inverse depth v for 32FC1: metres = A / (v - B), 0 invalid. The payload of ``compressed`` is just a 16-bit
    PNG."""
    form = _CompressedFormat.of(message.format)
    known = form.encoding in ("16UC1", "32FC1", "mono16", "")
    if not known or not is_depth(message):
        raise FrameError(
            "bad_depth",
            f"{topic}: format {printable(message.format)} is no depth that can be read; expected '16UC1; "
            f"compressedDepth' or '32FC1; compressedDepth' (png or rvl). JPEG has lost the depth; check that "
            f"depth_transport fits the topic",
        )
    data = np.frombuffer(message.data, np.uint8)
    if data[:8].tobytes() == _PNG_SIGNATURE:
        return _depth_png(data, topic, max_pixels)
    if data.size <= _COMPRESSED_DEPTH_HEADER.size:
        raise FrameError("bad_depth", f"{topic}: {data.size} bytes are not a compressedDepth image")
    _, quantisation_a, quantisation_b = _COMPRESSED_DEPTH_HEADER.unpack(data[: _COMPRESSED_DEPTH_HEADER.size].tobytes())
    payload = data[_COMPRESSED_DEPTH_HEADER.size :]
    is_png = payload[:8].tobytes() == _PNG_SIGNATURE
    if not is_png and "png" not in form.transport:
        decoded = _depth_rvl(payload, topic, max_pixels)
    else:
        decoded = _depth_png(payload, topic, max_pixels)
    if form.encoding != "32FC1":
        return decoded
    if not (np.isfinite(quantisation_a) and np.isfinite(quantisation_b)):
        raise FrameError("bad_depth", f"{topic}: the quantisation header is not finite")
    with np.errstate(divide="ignore"):
        metres = np.float32(quantisation_a) / (decoded.astype(np.float32) - np.float32(quantisation_b))
    metres[decoded == 0] = 0.0
    return metres


def _depth_png(data: np.ndarray, topic: str, max_pixels: int) -> np.ndarray:
    decoded = _decode(data, cv2.IMREAD_UNCHANGED, "depth", topic, max_pixels)
    if decoded.dtype != np.uint16 or decoded.ndim != 2:
        raise FrameError("bad_depth", f"{topic}: the PNG inside is not 16-bit with one channel")
    return decoded


def _depth_rvl(data: np.ndarray, topic: str, max_pixels: int) -> np.ndarray:
    if data.size < _RVL_SIZE.size:
        raise FrameError("bad_depth", f"{topic}: {data.size} bytes are not an RVL image")
    width, height = _RVL_SIZE.unpack(data[: _RVL_SIZE.size].tobytes())
    _check_size(width, height, max_pixels, "bad_depth", topic)
    try:
        return decode_rvl(data[_RVL_SIZE.size :], width * height).reshape(height, width)
    except ValueError as error:
        raise FrameError("bad_depth", f"{topic}: {error}") from error


def _check_size(width: int, height: int, max_pixels: int, cause: str, topic: str) -> None:
    if height == 0 or width == 0:
        raise FrameError(cause, f"{topic}: image of size {width}x{height} has no pixels")
    if height * width > max_pixels:
        raise FrameError(cause, f"{topic}: {width}x{height} is larger than {max_pixels} pixels")


def _pixels(message: Any, layouts: dict[str, _Layout], kind: str, topic: str, max_pixels: int) -> np.ndarray:
    """The samples of a raw image as (H, W) or (H, W, C) in native byte order, without a copy where possible."""
    cause = f"bad_{kind}"
    layout = layouts.get(message.encoding)
    if layout is None:
        raise FrameError(
            cause,
            f"{topic}: encoding {printable(message.encoding, 40)} is not supported for {kind}; use one of "
            f"{', '.join(layouts)}, or convert it (cv_bridge; an image_proc or format_converter node)",
        )
    height, width, step = message.height, message.width, message.step
    _check_size(width, height, max_pixels, cause, topic)
    if message.encoding in _HALF_CHROMA:
        height += height // 2
    sample = np.dtype(layout.dtype)
    row = width * layout.channels * sample.itemsize
    if step < row or step % sample.itemsize:
        raise FrameError(
            cause, f"{topic}: step {step} does not fit width {width} in {message.encoding} (at least {row} bytes)"
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size < step * (height - 1) + row:  # padding of the last row is optional
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


def _decode(data: np.ndarray, flags: int, kind: str, topic: str, max_pixels: int) -> np.ndarray:
    """Decode a PNG or JPEG that is complete; OpenCV would decode the first rows of a truncated one without an error."""
    cause = f"bad_{kind}"
    signature = data[:8].tobytes()
    if signature == _PNG_SIGNATURE:
        width, height = _png_size(data)
        complete = True
    elif signature.startswith(_JPEG_SIGNATURE):
        width, height = _jpeg_size(data)
        # some cameras pad the message with zeros
        complete = b"\xff\xd9" in data[-64:].tobytes() or b"\xff\xd9" in data.tobytes().rstrip(b"\0")[-64:]
    else:
        raise FrameError(cause, f"{topic}: the data are neither JPEG nor PNG")
    if width * height > max_pixels:
        raise FrameError(cause, f"{topic}: {width}x{height} is larger than {max_pixels} pixels")
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
    """Width and height in a PNG's header; (0, 0) if the chain of chunks from there to the end is broken.

    A decoder that trusts a damaged chunk length allocates gigabytes."""
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
