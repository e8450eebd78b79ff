"""Image messages read from their bytes, against rclpy's own serialisation."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from stdnet_core.data.bags.ros_images import FrameError
from stdnet_ros.messages.serialized import read_compressed_image, read_image


def _header(frame: str) -> Header:
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = -7, 999_999_999
    return header


@pytest.mark.parametrize("frame", ["", "c", "cam", "camera_color_optical_frame", "kamera_zur_tür"])
@pytest.mark.parametrize("encoding", ["", "mono8", "rgb8", "32FC1", "16UC1"])
def test_images_of_any_alignment_are_read_as_rclpy_wrote_them(frame, encoding):
    message = Image(header=_header(frame), height=3, width=70_000, encoding=encoding, is_bigendian=1, step=9)
    message.data.frombytes(bytes(range(27)))
    view = read_image(serialize_message(message), "cause", "topic")
    for name in ("header", "height", "width", "encoding", "is_bigendian", "step"):
        assert getattr(view, name) == getattr(message, name)
    assert bytes(view.data) == message.data.tobytes()

    compressed = CompressedImage(header=_header(frame), format=encoding, data=bytes(range(13)))
    view = read_compressed_image(serialize_message(compressed), "cause", "topic")
    assert (view.header, view.format) == (compressed.header, encoding)
    assert bytes(view.data) == compressed.data.tobytes()


def test_big_endian_messages():
    parts = struct.pack(">BBBBiI", 0, 0, 0, 0, 12, 34) + struct.pack(">I4s", 4, b"abc\0")
    parts += struct.pack(">III2s2xII", 2, 1, 1, b"\0\0", 1, 2) + b"xy"
    view = read_image(parts, "cause", "topic")
    assert (view.header.stamp.sec, view.header.stamp.nanosec, view.header.frame_id) == (12, 34, "abc")
    assert (view.height, view.width, view.encoding, view.step, bytes(view.data)) == (2, 1, "", 1, b"xy")


def test_every_truncation_is_refused():
    message = Image(header=_header("camera"), height=2, width=2, encoding="mono8", step=2, data=[1, 2, 3, 4])
    whole = serialize_message(message)
    length = len(whole.rstrip(b"\0"))  # the middleware may pad
    for end in range(length):
        with pytest.raises(FrameError, match=f"ends after {end} bytes") as raised:
            read_image(whole[:end], "color_damaged", "color/image")
        assert raised.value.cause == "color_damaged"


def test_unknown_encapsulations_and_impossible_stamps_are_refused():
    whole = serialize_message(Image(header=_header("camera"), height=1, width=1, encoding="mono8", step=1, data=[1]))
    with pytest.raises(FrameError, match="encapsulation 0x0003"):
        read_image(b"\0\3" + whole[2:], "cause", "topic")
    with pytest.raises(FrameError, match="nanoseconds"):
        read_image(whole[:8] + struct.pack("<I", 2**32 - 1) + whole[12:], "cause", "topic")


def test_fuzzed_bytes_give_a_view_or_a_frame_error():
    rng = np.random.default_rng(5)
    message = Image(header=_header("camera"), height=2, width=2, encoding="mono8", step=2, data=[1, 2, 3, 4])
    whole = np.frombuffer(serialize_message(message), np.uint8)
    refused = 0
    for _ in range(5000):
        damaged = whole.copy()
        damaged[rng.integers(0, whole.size, 2)] = rng.integers(0, 256, 2)
        try:
            view = read_image(damaged.tobytes(), "cause", "topic")
        except FrameError:
            refused += 1
        else:
            assert len(view.data) <= whole.size
    assert 100 < refused < 5000
