"""Bags written here in every format are read back value by value; pairing, choice of topics and damage."""

import pickle
import struct
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from test_rvl import encode

from stdnet_core.data.bags.bag_file import BagFile
from stdnet_core.data.bags.sequence import BagSequence
from stdnet_core.data.sources import open_source, split_options
from stdnet_core.errors import DataError

pytest.importorskip("rosbags")

from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

HEIGHT, WIDTH = 12, 16
ROS2, ROS1 = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)


def color_image(seed):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def depth_image(seed, height=HEIGHT, width=WIDTH):
    depth = np.random.default_rng(100 + seed).integers(300, 9000, (height, width)).astype(np.uint16)
    depth[0, :3] = 0
    return depth


class Bag:
    """Writes messages with chosen stamps to a bag of any format."""

    def __init__(self, path, kind):
        self.kind = kind
        self.store = ROS1 if kind == "ros1" else ROS2
        if kind == "ros1":
            self.path = path.with_suffix(".bag")
            self.writer = rosbag1.Writer(self.path)
        else:
            self.path = path
            plugin = rosbag2.StoragePlugin.MCAP if kind == "mcap" else rosbag2.StoragePlugin.SQLITE3
            self.writer = rosbag2.Writer(path, version=9, storage_plugin=plugin)
        self.connections = {}

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *_):
        self.writer.close()

    def header(self, stamp, frame="camera"):
        seconds, nanoseconds = divmod(round(stamp * 1e9), 10**9)
        time = self.store.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        more = {"seq": 7} if self.kind == "ros1" else {}
        return self.store.types["std_msgs/msg/Header"](stamp=time, frame_id=frame, **more)

    def write(self, topic, message, logged):
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, message.__msgtype__, typestore=self.store)
        serialize = self.store.serialize_ros1 if self.kind == "ros1" else self.store.serialize_cdr
        self.writer.write(self.connections[topic], round(logged * 1e9), serialize(message, message.__msgtype__))

    def image(self, topic, pixels, encoding, stamp, logged=None, big_endian=False, padding=0):
        if big_endian:
            pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
        rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape[0], -1)
        rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
        message = self.store.types["sensor_msgs/msg/Image"](
            header=self.header(stamp),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=int(big_endian),
            step=rows.shape[1],
            data=rows.ravel(),
        )
        self.write(topic, message, stamp + 0.005 if logged is None else logged)

    def compressed(self, topic, data, form, stamp):
        kind = self.store.types["sensor_msgs/msg/CompressedImage"]
        message = kind(header=self.header(stamp), format=form, data=np.frombuffer(data, np.uint8))
        self.write(topic, message, stamp)

    def camera(self, topic, stamp, k, width=WIDTH, height=HEIGHT):
        roi = self.store.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        names = "DKRP" if self.kind == "ros1" else "dkrp"
        arrays = (np.zeros(5), np.array(k, dtype=np.float64), np.eye(3).ravel(), np.zeros(12))
        message = self.store.types["sensor_msgs/msg/CameraInfo"](
            header=self.header(stamp),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            binning_x=0,
            binning_y=0,
            roi=roi,
            **dict(zip(names, arrays, strict=True)),
        )
        self.write(topic, message, stamp)


def rvl(depth):
    return struct.pack("<II", *depth.shape[::-1]) + encode(depth)


def write_camera_bag(path, kind="mcap", frames=5):
    with Bag(path, kind) as bag:
        for t in range(frames):
            stamp = 1000.0 + t / 30
            bag.camera("/cam/color/camera_info", stamp, [20, 0, 7.5, 0, 21, 5.5, 0, 0, 1])
            bag.image("/cam/color/image_raw", color_image(t), "rgb8", stamp)
            bag.image("/cam/depth/image_raw", depth_image(t), "16UC1", stamp + 0.004)
    return bag.path


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ros1"])
@pytest.mark.parametrize("single_file", [False, True])
def test_every_format(tmp_path, kind, single_file):
    path = write_camera_bag(tmp_path / "run", kind)
    if single_file and path.is_dir():
        (path,) = (p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    (sequence,) = open_source(path)
    assert sequence.name.startswith("run")
    assert len(sequence) == 5
    assert sequence.unpaired == (0, 0)
    assert sequence.intrinsics.tolist() == [[20, 0, 7.5], [0, 21, 5.5], [0, 0, 1]]
    clip = sequence.clip(1, 2, stride=2)
    for i, t in enumerate((1, 3)):
        np.testing.assert_array_equal(clip.rgb[i].numpy(), color_image(t).transpose(2, 0, 1) / np.float32(255))
        np.testing.assert_array_equal(clip.depth[i, 0].numpy(), depth_image(t).astype(np.float32) / np.float32(1000))
    assert torch.equal(clip.valid, clip.depth > 0)
    torch.testing.assert_close(clip.stamps, torch.tensor([1000 + 1 / 30, 1000.1], dtype=torch.float64))


def test_frames_are_paired_by_header_stamp_whatever_was_logged_when(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        for t, (stamp, logged) in enumerate([(10.0, 10.3), (10.1, 10.1), (10.2, 10.2), (10.3, 10.3)]):
            bag.image("/rgb", color_image(t), "rgb8", stamp, logged)
        for t, (stamp, logged) in enumerate([(10.09, 10.3), (10.11, 10.3), (10.31, 10.3), (10.26, 10.4)]):
            bag.image("/depth", depth_image(t), "16UC1", stamp, logged)
    (sequence,) = open_source(bag.path)
    assert sequence.unpaired == (2, 2)
    clip = sequence.clip(0, 2)
    assert clip.stamps.tolist() == pytest.approx([10.1, 10.3])
    np.testing.assert_array_equal(clip.rgb[1].numpy(), color_image(3).transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_array_equal(clip.depth[1, 0].numpy(), depth_image(2).astype(np.float32) / np.float32(1000))
    with pytest.raises(DataError, match="no frames of /rgb and /depth within 1 ms"):
        BagSequence(bag.path, max_difference=0.001)


def test_no_image_is_decoded_again_for_what_was_seen_in_it(tmp_path, monkeypatch):
    """Topics are chosen, described and checked by one image of each."""
    path = write_camera_bag(tmp_path / "run")
    decoded = []
    genuine = BagFile.decode

    def decode(self, raw):
        decoded.append((raw.topic, raw.logged))
        return genuine(self, raw)

    monkeypatch.setattr(BagFile, "decode", decode)
    monkeypatch.setattr(BagSequence, "_leave_out_damaged_begin", lambda self: None)  # it reads pairs, not topics
    BagSequence(path)
    images = Counter(topic for topic, _ in decoded if "image" in topic)
    assert images == {"/cam/color/image_raw": 1, "/cam/depth/image_raw": 1}, decoded


def test_topics_are_told_by_content_and_name(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        for t in range(2):
            stamp = 5 + t / 10
            bag.image("/a_infra1/image", color_image(9)[..., :1].copy(), "mono8", stamp)
            bag.image("/cam/depth/image", depth_image(8), "16UC1", stamp)
            bag.image("/cam/aligned_depth_to_color/image", depth_image(t), "16UC1", stamp)
            bag.image("/cam/confidence", depth_image(7), "mono16", stamp)
            bag.compressed("/cam/color/image/compressed", cv2.imencode(".png", color_image(5))[1], "png", stamp)
            bag.image("/cam/color/image", color_image(t), "rgb8", stamp)
    (sequence,) = open_source(bag.path)
    assert sequence.color_topic == "/cam/color/image"
    assert sequence.depth_topic == "/cam/aligned_depth_to_color/image"
    (chosen,) = open_source(f"bag:{bag.path}?color=/a_infra1/image&depth=/cam/depth/image")
    assert (chosen.color_topic, chosen.depth_topic) == ("/a_infra1/image", "/cam/depth/image")
    gray = color_image(9)[..., 0] / np.float32(255)
    np.testing.assert_array_equal(chosen.clip(0, 1).rgb[0].numpy(), np.stack([gray] * 3))
    with pytest.raises(DataError, match="/cam/color/image .* holds no depth images; the bag holds"):
        open_source(f"bag:{bag.path}?depth=/cam/color/image")


def test_options_of_a_bag():
    assert split_options("/x/run.mcap") == ("/x/run.mcap", {})
    assert split_options("/x?depth=/d&color=/c") == ("/x", {"depth": "/d", "color": "/c"})
    for wrong in ("/x?tof=/d", "/x?depth="):
        with pytest.raises(DataError, match="unknown option"):
            split_options(wrong)


def test_low_resolution_depth_of_a_sensor(tmp_path):
    with Bag(tmp_path / "run", "sqlite3") as bag:
        bag.camera("/camera_info", 1.0, [40, 0, 15.5, 0, 42, 11.5, 0, 0, 1], width=2 * WIDTH, height=2 * HEIGHT)
        bag.image("/rgb", color_image(0), "rgb8", 1.0)
        bag.image("/tof", depth_image(0, 3, 4).astype(np.float32) / 1000, "32FC1", 1.0)
    (sequence,) = open_source(bag.path, lr_scale=4)
    clip = sequence.clip(0, 1)
    np.testing.assert_array_equal(clip.depth_lr[0, 0].numpy(), depth_image(0, 3, 4).astype(np.float32) / 1000)
    assert not clip.valid.any()
    # Binned by two: pixel centres at integers, so 15.5 of 32 columns is 7.5 of 16.
    assert clip.intrinsics.tolist() == [[20, 0, 7.5], [0, 21, 5.5], [0, 0, 1]]


def test_depth_that_is_not_aligned_is_refused(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        bag.image("/rgb", color_image(0), "rgb8", 1.0)
        bag.image("/depth", depth_image(0, 24, 24), "16UC1", 1.0)
    with pytest.raises(DataError, match="depth of 24x24 pixels on /depth is not aligned with colour of 16x12"):
        open_source(bag.path)


def test_rows_with_padding(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        bag.image("/rgb", color_image(0), "bgr8", 1.0, padding=5)
        bag.image("/depth", depth_image(0), "16UC1", 1.0, big_endian=True, padding=6)
    clip = open_source(bag.path)[0].clip(0, 1)
    np.testing.assert_array_equal(clip.rgb[0].numpy()[::-1], color_image(0).transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_array_equal(clip.depth[0, 0].numpy(), depth_image(0).astype(np.float32) / np.float32(1000))


def test_compressed_images(tmp_path):
    metres = depth_image(0).astype(np.float32) / 1000
    a, b = 50.0, -200.0  # 32FC1: v = a / z + b
    quantised = np.where(metres > 0, a / np.maximum(metres, 1e-3) * 100 + b, 0).round().astype(np.uint16)
    header = np.int32(0).tobytes() + np.float32(a * 100).tobytes() + np.float32(b).tobytes()
    with Bag(tmp_path / "run", "mcap") as bag:
        bgr = cv2.imencode(".png", color_image(0)[..., ::-1])[1].tobytes()
        bag.compressed("/rgb/compressed", bgr, "rgb8; png compressed bgr8", 1.0)
        png = cv2.imencode(".png", quantised)[1].tobytes()
        bag.compressed("/depth/compressedDepth", header + png, "32FC1; compressedDepth", 1.0)
        png = cv2.imencode(".png", depth_image(0))[1].tobytes()
        bag.compressed("/raw/compressedDepth", header + png, "16UC1; compressedDepth png", 1.0)
        bag.compressed("/rvl/compressedDepth", header + rvl(depth_image(0)), "16UC1; compressedDepth rvl", 1.0)
    (sequence,) = open_source(f"bag:{bag.path}?depth=/depth/compressedDepth")
    clip = sequence.clip(0, 1)
    np.testing.assert_array_equal(clip.rgb[0].numpy(), color_image(0).transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_allclose(clip.depth[0, 0].numpy(), metres, rtol=1e-2)
    (sequence,) = open_source(f"bag:{bag.path}?depth=/raw/compressedDepth")
    np.testing.assert_array_equal(sequence.clip(0, 1).depth[0, 0].numpy(), metres)
    (sequence,) = open_source(f"bag:{bag.path}?depth=/rvl/compressedDepth")
    np.testing.assert_array_equal(sequence.clip(0, 1).depth[0, 0].numpy(), metres)


def test_bad_images_are_named(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        bag.image("/rgb", color_image(0), "hsv8", 1.0)
        bag.image("/depth", depth_image(0), "16UC1", 1.0)
    with pytest.raises(DataError, match="/rgb: encoding 'hsv8' is not supported for color") as caught:
        open_source(bag.path)
    assert str(caught.value).startswith(str(bag.path))


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ros1"])
def test_bags_that_are_cut_off_are_named(tmp_path, kind):
    path = write_camera_bag(tmp_path / "bad", kind)
    file = path if path.is_file() else next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match="ROS bag|sqlite3 file is damaged"):
        open_source(path).pop().clip(0, 5)


def test_bags_without_images_or_that_are_no_bags(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        bag.image("/rgb", color_image(0), "rgb8", 1.0)
    with pytest.raises(DataError, match=r"no topic with depth .*; the bag holds /rgb \(sensor_msgs/msg/Image, 1\)"):
        open_source(bag.path)
    (tmp_path / "x.mcap").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"x\.mcap: no readable ROS bag"):
        open_source(tmp_path / "x.mcap")


def test_folder_of_bags_and_skipping_bad_ones(tmp_path):
    for name in ("one", "two"):
        write_camera_bag(tmp_path / name)
    (tmp_path / "bad.mcap").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"bad\.mcap"):
        open_source(tmp_path)
    found = open_source(tmp_path, skip_bad=True)
    assert [s.name for s in found] == ["one", "two"]
    assert "bad.mcap" in found.left_out[0]


def test_size_that_changes_is_named(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        for t in range(3):
            bag.image("/rgb", color_image(t) if t < 2 else color_image(t)[:8], "rgb8", 1.0 + t)
            bag.image("/depth", depth_image(t), "16UC1", 1.0 + t)
    (sequence,) = open_source(bag.path)
    assert len(sequence.clip(0, 2)) == 2
    with pytest.raises(DataError, match=r"/rgb changes from 16x12 to 16x8 pixels at 3\.000 s"):
        sequence.clip(1, 2)


def test_sequences_travel_to_loader_workers(tmp_path):
    (sequence,) = open_source(write_camera_bag(tmp_path / "run"))
    copy = pickle.loads(pickle.dumps(sequence))
    assert torch.equal(copy.clip(0, 5).rgb, sequence.clip(0, 5).rgb)
