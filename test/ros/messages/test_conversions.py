"""Images to arrays and back, against OpenCV, struct and hand-made bytes; and everything that can be wrong with them."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from ros_fixtures import image
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from test_rvl import encode

from stdnet_core.data.bags import ros_images
from stdnet_core.data.bags.ros_images import FrameError
from stdnet_core.depth_units import DepthUnits
from stdnet_ros.messages import conversions


def _picture(height: int = 12, width: int = 16) -> np.ndarray:
    """Smooth RGB, so that chroma subsampling and demosaicing lose little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([40 + 3 * x, 60 + 3 * y, 250 - x - 2 * y], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("rgb8", None),
        ("bgr8", cv2.COLOR_RGB2BGR),
        ("rgba8", cv2.COLOR_RGB2RGBA),
        ("bgra8", cv2.COLOR_RGB2BGRA),
        ("8UC3", cv2.COLOR_RGB2BGR),
    ],
)
def test_color_encodings_give_the_same_rgb(encoding, code):
    rgb = _picture()
    coded = rgb if code is None else cv2.cvtColor(rgb, code)
    np.testing.assert_array_equal(ros_images.color_from_image(image(coded, encoding, Header())), rgb)


def test_mono_is_repeated_in_all_channels():
    gray = _picture()[..., 0]
    out = ros_images.color_from_image(image(gray, "mono8", Header()))
    np.testing.assert_array_equal(out, np.repeat(gray[..., None], 3, 2))


def test_sixteen_bit_color_keeps_the_upper_byte():
    rgb16 = _picture().astype(np.uint16) * 256 + 77
    np.testing.assert_array_equal(ros_images.color_from_image(image(rgb16, "rgb16", Header())), _picture())


@pytest.mark.parametrize(("encoding", "luma_at"), [("yuv422", 1), ("uyvy", 1), ("yuyv", 0), ("yuv422_yuy2", 0)])
def test_yuv_gray_has_its_luma(encoding, luma_at):
    packed = np.full((4, 6, 2), 128, np.uint8)
    packed[..., luma_at] = 16 + 219 // 2
    out = ros_images.color_from_image(image(packed, encoding, Header()))
    assert out.shape == (4, 6, 3)
    assert np.abs(out.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_by_their_first_row(pattern):
    rgb = np.full((16, 16, 3), (220, 120, 20), np.uint8)
    mosaic = np.empty((16, 16), np.uint8)
    for position, letter in enumerate(pattern):
        mosaic[position // 2 :: 2, position % 2 :: 2] = rgb[0, 0, "rgb".index(letter)]
    out = ros_images.color_from_image(image(mosaic, f"bayer_{pattern}8", Header()))
    np.testing.assert_array_equal(out[4:-4, 4:-4], rgb[4:-4, 4:-4])


def test_padded_rows_are_cut():
    rgb = _picture(3, 5)
    padded = np.full((3, 20), 255, np.uint8)
    padded[:, :15] = rgb.reshape(3, 15)
    message = image(padded, "rgb8", Header())
    message.width = 5
    np.testing.assert_array_equal(ros_images.color_from_image(message), rgb)
    message.data = message.data[:-5]  # some drivers leave the last row's padding out
    np.testing.assert_array_equal(ros_images.color_from_image(message), rgb)


@pytest.mark.parametrize(("bigendian", "order"), [(0, "<"), (1, ">")])
def test_depth_byte_order(bigendian, order):
    for encoding, code, values in (("16UC1", "H", [0, 1, 1500, 65535]), ("32FC1", "f", [0.0, 0.25, 1.5, 9.0])):
        message = Image(height=2, width=2, encoding=encoding, is_bigendian=bigendian)
        message.step = 2 * struct.calcsize(code)
        message.data.frombytes(struct.pack(f"{order}4{code}", *values))
        unit = 0.001 if encoding == "16UC1" else 1.0
        expected = np.array(values, np.float32) * np.float32(unit)
        expected[[i for i, value in enumerate(values) if value in (0, 65535)]] = np.nan
        np.testing.assert_allclose(ros_images.depth_of(message).ravel(), expected, rtol=1e-6)


def test_invalid_depth_becomes_nan_and_the_unit_is_used():
    metres = np.array([[1.0, 0.0, -1.0, np.nan, np.inf, -np.inf]], np.float32)
    out = ros_images.depth_of(image(metres, "32FC1", Header()))
    np.testing.assert_array_equal(out, [[1.0] + [np.nan] * 5])
    units = np.array([[4000, 0]], np.uint16)
    out = ros_images.depth_of(image(units, "16UC1", Header()), DepthUnits(0.00025))
    np.testing.assert_allclose(out, [[1.0, np.nan]])


def test_depth_out_round_trip_and_saturation():
    depth = np.array([[0.0005, 1.2344, 70.0, np.nan, 65.535, np.inf]], np.float32)
    header = Header(frame_id="camera")
    message = conversions.depth_to_image(depth, header, "16UC1")
    assert (message.encoding, message.step, message.height, message.width) == ("16UC1", 12, 1, 6)
    samples = np.frombuffer(message.data.tobytes(), "<u2")
    np.testing.assert_array_equal(samples, [0, 1234, 65535, 0, 65535, 65535])
    message = conversions.depth_to_image(depth, header)
    np.testing.assert_array_equal(np.frombuffer(message.data.tobytes(), "<f4"), depth[0])
    assert message.header.frame_id == "camera"


def test_jpeg_and_png_color():
    rgb = _picture(48, 64)
    for name, tolerance in ((".png", 0), (".jpg", 8)):
        ok, data = cv2.imencode(name, rgb[..., ::-1])
        assert ok
        out = ros_images.color_from_compressed(CompressedImage(format="jpeg", data=data.tobytes()))
        assert np.abs(out.astype(int) - rgb).max() <= tolerance
        filled = ros_images.color_from_compressed(CompressedImage(format="jpeg", data=data.tobytes() + bytes(1000)))
        np.testing.assert_array_equal(filled, out)


def _compressed_depth(encoding: str, samples: np.ndarray, a: float = 0.0, b: float = 0.0) -> CompressedImage:
    data = struct.pack("<iff", 0, a, b) + cv2.imencode(".png", samples)[1].tobytes()
    return CompressedImage(format=f"{encoding}; compressedDepth png", data=data)


def test_compressed_depth():
    millimetres = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
    out = ros_images.depth_of(_compressed_depth("16UC1", millimetres))
    expected = millimetres.astype(np.float32) / 1000
    expected[0, 0] = np.nan
    np.testing.assert_allclose(out, expected, rtol=1e-6)

    # compressed_depth_image_transport: A = z_q (z_q + 1), B = 1 - A / z_max, sample = A / z + B.
    a = 100.0 * 101.0
    b = 1.0 - a / 10.0
    depth = np.linspace(0.5, 9.5, 48, dtype=np.float32).reshape(6, 8)
    samples = np.rint(a / depth + b).astype(np.uint16)
    samples[0, 0] = 0
    out = ros_images.depth_of(_compressed_depth("32FC1", samples, a, b))
    assert np.isnan(out[0, 0])
    step = depth**2 / a  # one quantisation step in metres
    assert (np.abs(out - depth) <= step).ravel()[1:].all()


def _raw(**fields) -> Image:
    message = image(np.zeros((4, 6), np.float32), "32FC1", Header())
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoding": "32FC2"}, "encoding"),
        ({"encoding": ""}, "encoding"),
        ({"width": 0}, "no pixels"),
        ({"height": 0}, "no pixels"),
        ({"step": 23}, "step 23"),
        ({"step": 26}, "step 26"),
        ({"height": 5}, "too few"),
        ({"width": 2**31, "height": 2**31}, "larger than"),
        ({"step": 2**32 - 4}, "too few"),
    ],
)
def test_damaged_depth_is_refused_with_its_topic(fields, words):
    with pytest.raises(FrameError, match=words) as raised:
        ros_images.depth_of(_raw(**fields), topic="/camera/depth")
    assert raised.value.cause == "bad_depth"
    assert str(raised.value).startswith("/camera/depth")


def test_damaged_color_is_refused():
    with pytest.raises(FrameError, match="32FC1") as raised:
        ros_images.color_from_image(_raw())
    assert raised.value.cause == "bad_color"
    with pytest.raises(FrameError, match="even width"):
        ros_images.color_from_image(image(np.zeros((4, 5, 2), np.uint8), "yuyv", Header()))


@pytest.mark.parametrize("name", [".png", ".jpg"])
def test_truncated_compressed_color_is_refused_not_half_decoded(name):
    whole = cv2.imencode(name, _picture(48, 64))[1].tobytes()
    for length in (0, 5, 30, len(whole) // 2, len(whole) - 20):
        with pytest.raises(FrameError):
            ros_images.color_from_compressed(CompressedImage(data=whole[:length]))


def test_compressed_headers_are_not_trusted():
    bomb = bytearray(cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes())
    bomb[16:24] = struct.pack(">II", 60000, 60000)
    with pytest.raises(FrameError, match="larger than"):
        ros_images.color_from_compressed(CompressedImage(data=bytes(bomb)))
    # A last chunk that claims gigabytes: OpenCV would reserve them and take many seconds.
    greedy = bytearray(cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes())
    greedy[-12] = 0xB6
    with pytest.raises(FrameError, match="damaged"):
        ros_images.color_from_compressed(CompressedImage(data=bytes(greedy)))
    depth = _compressed_depth("16UC1", np.ones((4, 4), np.uint16))
    for wrong in ("16UC1; jpeg compressed ", "32FC1; png compressed ", "jpeg", "8UC1; compressedDepth png"):
        depth.format = wrong
        with pytest.raises(FrameError):
            ros_images.depth_of(depth)
    with pytest.raises(FrameError, match="16-bit"):
        ros_images.depth_of(_compressed_depth("16UC1", np.ones((4, 4), np.uint8)))
    with pytest.raises(FrameError, match="finite"):
        ros_images.depth_of(_compressed_depth("32FC1", np.ones((4, 4), np.uint16), float("nan"), 0.0))


def test_ten_thousand_fuzzed_messages_give_an_image_or_a_frame_error():
    rng = np.random.default_rng(3)
    encodings = [*ros_images.COLOR_ENCODINGS, *ros_images.DEPTH_ENCODINGS, "", "foo", "32FC1 "]
    png = cv2.imencode(".png", _picture())[1]
    jpg = cv2.imencode(".jpg", _picture())[1]
    depth = np.frombuffer(_compressed_depth("32FC1", np.ones((6, 8), np.uint16), 1.0, 0.0).data, np.uint8)
    seen = {"image": 0, "refused": 0}
    for index in range(10_000):
        if index % 2:
            message = Image(
                width=int(rng.integers(0, 9)),
                height=int(rng.integers(0, 9)),
                step=int(rng.integers(0, 40)),
                encoding=encodings[rng.integers(len(encodings))],
                is_bigendian=int(rng.integers(0, 2)),
            )
            message.data.frombytes(rng.bytes(int(rng.integers(0, 300))))
            convert = (ros_images.color_from_image, ros_images.depth_of)[index // 2 % 2]
        else:
            data = np.array((png, jpg, depth)[index // 2 % 3]).ravel()
            at = rng.integers(45, data.size, 3)  # behind the headers, whose damage is tested above
            data[at] = rng.integers(0, 256, 3)
            message = CompressedImage(format=("png", "32FC1; compressedDepth png")[index // 2 % 3 == 2])
            length = data.size if rng.random() < 0.7 else rng.integers(1, data.size)
            message.data.frombytes(data[:length].tobytes())
            convert = (ros_images.color_from_compressed, ros_images.depth_of)[index // 2 % 3 == 2]
        try:
            out = convert(message)
        except FrameError:
            seen["refused"] += 1
        else:
            seen["image"] += 1
            assert out.dtype in (np.uint8, np.float32)
            assert min(out.shape) > 0
    assert seen["image"] > 500
    assert seen["refused"] > 500


def _rvl(encoding: str, samples: np.ndarray, a: float = 0.0, b: float = 0.0, size=None) -> CompressedImage:
    width, height = size or samples.shape[::-1]
    data = struct.pack("<iffII", 0, a, b, width, height) + encode(samples)
    return CompressedImage(format=f"{encoding}; compressedDepth rvl", data=data)


def test_compressed_depth_in_rvl():
    millimetres = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
    for message in (_rvl("16UC1", millimetres), _compressed_depth("16UC1", millimetres)):
        np.testing.assert_array_equal(ros_images.stored_depth(message), millimetres)
    a, b = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0
    samples = np.rint(a / np.linspace(0.5, 9.5, 48).reshape(6, 8) + b).astype(np.uint16)
    np.testing.assert_array_equal(
        ros_images.depth_of(_rvl("32FC1", samples, a, b)),
        ros_images.depth_of(_compressed_depth("32FC1", samples, a, b)),
    )


@pytest.mark.parametrize("size", [(0, 6), (2**31, 2**31), (60000, 60000), (9, 6), (8, 7)])
def test_sizes_in_rvl_are_not_trusted(size):
    with pytest.raises(FrameError, match="no pixels|larger than|RVL data"):
        ros_images.depth_of(_rvl("16UC1", np.full((6, 8), 700, np.uint16), size=size))


def test_luma_with_half_chroma_is_read_as_opencv_reads_it():
    rgb = _picture(16, 32)
    planar = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)  # Y, then U and V at half size
    u, v = planar[16:20].reshape(8, 16), planar[20:24].reshape(8, 16)
    for encoding, chroma in (("nv12", (u, v)), ("nv21", (v, u))):
        samples = np.concatenate([planar[:16], np.stack(chroma, -1).reshape(8, 32)])
        message = Image(height=16, width=32, encoding=encoding, step=32)
        message.data.frombytes(samples.tobytes())
        expected = cv2.cvtColor(planar, cv2.COLOR_YUV2RGB_I420)
        assert np.abs(ros_images.color_of(message).astype(int) - expected).max() <= 1
    message.data = message.data[:-1]
    with pytest.raises(FrameError, match="too few"):
        ros_images.color_of(message)


def test_frame_names_in_messages_are_shortened_and_escaped():
    assert ros_images.printable("camera") == "'camera'"
    long = ros_images.printable("a\nb" * 5000)
    assert len(long) < 120
    assert "\n" not in long
    assert "15000 characters" in long
