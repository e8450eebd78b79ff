"""Bags as drivers, converters, killed recorders and copying leave them: what can be read is read, the rest is named."""

import sqlite3
import struct

import cv2
import numpy as np
import pytest
from test_data_rosbag import ROS1, ROS2, Bag, color_image, depth_image, write_camera_bag

from stdnet_core.data.bags.bag_file import BagFile, recordings
from stdnet_core.data.bags.topics import find_topics
from stdnet_core.data.sources import open_source
from stdnet_core.errors import DataError

zstandard = pytest.importorskip("zstandard")
mcap_writer = pytest.importorskip("mcap.writer")

STEP = 33_333_333
BEGIN = 1_000_000_000_000


def check(source, frames=5):
    """The frames of :func:`write_camera_bag` are there, value by value."""
    (sequence,) = open_source(source)
    assert len(sequence) == frames
    for t in range(frames):
        clip = sequence.clip(t, 1)
        np.testing.assert_array_equal(clip.rgb[0].numpy(), color_image(t).transpose(2, 0, 1) / np.float32(255))
        np.testing.assert_array_equal(clip.depth[0, 0].numpy(), depth_image(t).astype(np.float32) / np.float32(1000))
    return sequence


def image_bytes(store, pixels, encoding, stamp, serialize):
    """A serialised Image."""
    types = store.types
    seconds, nanoseconds = divmod(stamp, 10**9)
    more = {"seq": 3} if store is ROS1 else {}
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds), frame_id="camera", **more
    )
    data = np.ascontiguousarray(pixels)
    message = types["sensor_msgs/msg/Image"](
        header=header,
        height=data.shape[0],
        width=data.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.strides[0],
        data=data.view(np.uint8).ravel(),
    )
    return bytes(serialize(message, "sensor_msgs/msg/Image"))


def write_mcap(path, profile="ros2", extra=None, frames=5, **options):
    """Colour and depth by the mcap package's own writer, as ROS 2 or ROS 1; ``extra(writer)`` adds channels."""
    ros1 = profile == "ros1"
    store, serialize = (ROS1, ROS1.serialize_ros1) if ros1 else (ROS2, ROS2.serialize_cdr)
    with path.open("wb") as file:
        writer = mcap_writer.Writer(file, **options)
        writer.start(profile=profile, library="test")
        name, encoding = ("sensor_msgs/Image", "ros1msg") if ros1 else ("sensor_msgs/msg/Image", "ros2msg")
        schema = writer.register_schema(name, encoding, b"")
        form = "ros1" if ros1 else "cdr"
        channels = [writer.register_channel(topic, form, schema) for topic in ("/cam/color/image", "/cam/depth/image")]
        if extra is not None:
            extra(writer)
        for t in range(frames):
            stamp = BEGIN + t * STEP
            for channel, pixels, kind in zip(
                channels, (color_image(t), depth_image(t)), ("rgb8", "16UC1"), strict=True
            ):
                writer.add_message(channel, stamp, image_bytes(store, pixels, kind, stamp, serialize), stamp)
        writer.finish()
    return path


@pytest.mark.parametrize("profile", ["ros2", "ros1", ""])
def test_mcap_of_any_profile(tmp_path, profile):
    check(write_mcap(tmp_path / "run.mcap", profile))


def test_other_channels_need_not_be_understood(tmp_path):
    def extra(writer):
        for topic, name, encoding, form in (
            ("/health", "Health", "jsonschema", "json"),
            ("/detections", "Detections", "protobuf", "protobuf"),
            ("/add/_service_event", "example_interfaces/srv/AddTwoInts_Event", "ros2msg", "cdr"),
            ("/broken", "my/msg/Broken", "ros2msg", "cdr"),
        ):
            schema = writer.register_schema(name, encoding, b"NoSuchType x\n= not a definition")
            channel = writer.register_channel(topic, form, schema)
            writer.add_message(channel, BEGIN, b"{}", BEGIN)

    path = write_mcap(tmp_path / "run.mcap", extra=extra)
    check(path)
    with BagFile(path) as bag:
        assert "/health" not in bag.topics
        assert bag.topics["/broken"] == "my/msg/Broken"


@pytest.mark.parametrize("encoding", ["unknown", "ros2msg"])
def test_a_definition_that_is_empty_or_unknown_in_sqlite(tmp_path, encoding):
    folder = write_camera_bag(tmp_path / "run", "sqlite3")
    with sqlite3.connect(next(folder.glob("*.db3"))) as base:
        kind = "example_interfaces/action/Fibonacci_FeedbackMessage"
        base.execute(
            "INSERT INTO message_definitions(topic_type, encoding, encoded_message_definition, type_description_hash) "
            "VALUES(?, ?, '', '')",
            (kind, encoding),
        )
        base.execute(
            "INSERT INTO topics(name, type, serialization_format, offered_qos_profiles, type_description_hash) "
            "VALUES('/feedback', ?, 'cdr', '', '')",
            (kind,),
        )
    check(folder)


@pytest.mark.parametrize("kind", ["mcap", "sqlite3"])
def test_files_compressed_as_a_whole_with_and_without_metadata(tmp_path, kind):
    folder = write_camera_bag(tmp_path / "run", kind)
    (file,) = (p for p in folder.iterdir() if p.suffix in (".mcap", ".db3"))
    packed = file.with_name(file.name + ".zstd")
    packed.write_bytes(zstandard.ZstdCompressor().compress(file.read_bytes()))
    file.unlink()
    check(folder)  # whose metadata names the file as it was
    (folder / "metadata.yaml").unlink()
    check(folder)
    check(packed)


def test_messages_compressed_one_by_one(tmp_path):
    folder = write_camera_bag(tmp_path / "run", "sqlite3")
    with sqlite3.connect(next(folder.glob("*.db3"))) as base:
        for key, data in list(base.execute("SELECT id, data FROM messages")):
            base.execute("UPDATE messages SET data = ? WHERE id = ?", (zstandard.ZstdCompressor().compress(data), key))
    check(folder)


@pytest.mark.parametrize("metadata", [None, "", "{", "rosbag2_bagfile_information: {version: 99}", "renamed"])
def test_metadata_that_is_missing_empty_newer_or_of_another_file(tmp_path, metadata):
    folder = write_camera_bag(tmp_path / "run", "mcap")
    if metadata == "renamed":
        (file,) = folder.glob("*.mcap")
        file.rename(folder / "copy.mcap")
    elif metadata is None:
        (folder / "metadata.yaml").unlink()
    else:
        (folder / "metadata.yaml").write_text(metadata)
    sequence = check(folder)
    assert metadata is None or "ros2 bag reindex" in sequence.notes[0]


def test_parts_of_a_split_recording(tmp_path):
    for kind in ("mcap", "ros1"):
        folder = tmp_path / kind
        folder.mkdir()
        for part in range(3):
            with Bag(tmp_path / f"{kind}_{part}", kind) as bag:
                for t in (2 * part, 2 * part + 1):
                    stamp = 1000.0 + t / 30
                    bag.image("/cam/color/image_raw", color_image(t), "rgb8", stamp)
                    bag.image("/cam/depth/image_raw", depth_image(t), "16UC1", stamp + 0.004)
            file = bag.path if kind == "ros1" else next(bag.path.glob("*.mcap"))
            file.rename(folder / f"run_{9 + part}{file.suffix}")  # 9, 10, 11: by number, not by letters
        check(folder, 6)
        assert [path.stem for path in recordings(folder)[0]] == ["run_9", "run_10", "run_11"]


def test_an_mcap_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path):
    path = write_mcap(tmp_path / "run.mcap", chunk_size=4000, frames=20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    (sequence,) = open_source(path)
    assert 8 < len(sequence) < 20
    assert "is truncated" in sequence.notes[0]
    last = len(sequence) - 1
    np.testing.assert_array_equal(
        sequence.clip(last, 1).depth[0, 0].numpy(), depth_image(last).astype(np.float32) / np.float32(1000)
    )


@pytest.mark.parametrize("kind", ["mcap", "sqlite3"])
@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".bag"])
def test_a_recording_is_told_by_its_first_bytes(tmp_path, kind, suffix):
    folder = write_camera_bag(tmp_path / "run", kind)
    (file,) = (path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))
    check(file.rename(tmp_path / f"renamed{suffix}"))


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "run.db3").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match="git lfs pull"):
        BagFile(tmp_path / "run.db3")


def test_what_cannot_be_read_names_the_remedy(tmp_path):
    path = write_camera_bag(tmp_path / "run", "ros1")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="rosbag reindex"):
        open_source(path)
    active = tmp_path / "x.bag.active"
    active.write_bytes(whole)
    with pytest.raises(DataError, match="rosbag reindex"):
        open_source(active)
    (tmp_path / "two").mkdir()
    for name in ("a.mcap", "b.mcap"):
        write_mcap(tmp_path / "two" / name)
    with pytest.raises(DataError, match="2 recordings are in this folder"):
        BagFile(tmp_path / "two")
    write_mcap(tmp_path / "json.mcap", frames=0, extra=_only_json)
    with pytest.raises(DataError, match=r"holds no messages of ROS, only /health \(json Health\)"):
        BagFile(tmp_path / "json.mcap")


def _only_json(writer):
    channel = writer.register_channel("/health", "json", writer.register_schema("Health", "jsonschema", b"{}"))
    writer.add_message(channel, BEGIN, b"{}", BEGIN)


@pytest.mark.parametrize("stamp", [0.0, 77.0])
def test_stamps_that_say_nothing_give_way_to_the_recorder_s(tmp_path, stamp):
    with Bag(tmp_path / "run", "mcap") as bag:
        for t in range(5):
            bag.image("/cam/color/image_raw", color_image(t), "rgb8", stamp, logged=1000 + t / 30)
            bag.image("/cam/depth/image_raw", depth_image(t), "16UC1", stamp, logged=1000.004 + t / 30)
    sequence = check(bag.path)
    assert "all header stamps" in sequence.notes[-1]
    assert sequence.clip(0, 2).stamps.tolist() == pytest.approx([1000.0, 1000 + 1 / 30])


def test_stamps_of_different_clocks_give_way_to_the_recorder_s_when_told(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        for t in range(5):
            bag.image("/cam/color/image_raw", color_image(t), "rgb8", 5 + t / 30, logged=1000 + t / 30)
            bag.image("/cam/depth/image_raw", depth_image(t), "16UC1", 90 + t / 30, logged=1000.004 + t / 30)
    with pytest.raises(DataError, match=r"ms apart.*\?stamps=record"):
        open_source(bag.path)
    check(f"{bag.path}?stamps=record")


def test_recordings_inside_a_folder_are_named(tmp_path):
    for name in ("a", "b"):
        write_camera_bag(tmp_path / name, "mcap")
    with pytest.raises(DataError, match="give the path of one inside: a, b"):
        BagFile(tmp_path)


def test_what_has_no_partner_is_said(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        for t in range(6):
            bag.image("/color", color_image(t), "rgb8", 1000 + t / 30)
            if t % 2:
                bag.image("/depth", depth_image(t), "16UC1", 1000 + t / 30)
    (sequence,) = open_source(bag.path)
    assert "3 of 6 colour and 0 of 3 depth frames have no partner within 20 ms" in sequence.notes[-1]


def test_a_damaged_first_frame_is_left_out(tmp_path):
    with Bag(tmp_path / "run", "mcap") as bag:
        for t in range(4):
            jpeg = cv2.imencode(".png", color_image(t)[..., ::-1])[1].tobytes()
            bag.compressed("/color/compressed", jpeg if t else jpeg[:40], "rgb8; png compressed bgr8", 1000 + t)
            bag.image("/depth", depth_image(t), "16UC1", 1000 + t)
    (sequence,) = open_source(bag.path)
    assert len(sequence) == 3
    assert "frame 0 is left out" in sequence.notes[-1]
    np.testing.assert_array_equal(
        sequence.clip(0, 1).rgb[0].numpy(), color_image(1).transpose(2, 0, 1) / np.float32(255)
    )


# --- topics ----------------------------------------------------------------------------------------------------------


def write_topics(path, topics, frames=2):
    """``topics``: name -> (pixels(t), encoding, frame_id); encoding of bytes is a CompressedImage's format."""
    with Bag(path, "mcap") as bag:
        for t in range(frames):
            for name, (pixels, encoding, frame) in topics.items():
                kind = "sensor_msgs/msg/Image"
                stamp = 1000.0 + t / 30
                if isinstance(pixels(t), bytes):
                    kind = bag.store.types["sensor_msgs/msg/CompressedImage"]
                    data = np.frombuffer(pixels(t), np.uint8)
                    bag.write(name, kind(header=bag.header(stamp, frame), format=encoding, data=data), stamp)
                    continue
                data = np.ascontiguousarray(pixels(t))
                message = bag.store.types[kind](
                    header=bag.header(stamp, frame),
                    height=data.shape[0],
                    width=data.shape[1],
                    encoding=encoding,
                    is_bigendian=0,
                    step=data.strides[0],
                    data=data.view(np.uint8).ravel(),
                )
                bag.write(name, message, stamp)
    return bag.path


def gray(t):
    return np.full((12, 16), 700 + t, np.uint16)


def chosen(path, **wanted):
    with BagFile(path) as bag:
        topics = find_topics(bag, wanted)
    return topics.color, topics.depth


def test_colour_and_depth_are_of_one_camera(tmp_path):
    path = write_topics(
        tmp_path / "run",
        {
            "/cam_a/rgb/image_raw": (color_image, "rgb8", "a_optical"),
            "/cam_b/rgb/image_raw": (color_image, "rgb8", "/b_optical"),
            "/cam_b/depth_registered/image_raw": (depth_image, "16UC1", "b_optical"),
        },
    )
    assert chosen(path) == ("/cam_b/rgb/image_raw", "/cam_b/depth_registered/image_raw")


def test_two_whole_cameras_are_asked_about(tmp_path):
    topics = {}
    for name in ("cam_a", "cam_b"):
        topics[f"/{name}/rgb/image_raw"] = (color_image, "rgb8", f"{name}_optical")
        topics[f"/{name}/depth/image_raw"] = (depth_image, "16UC1", f"{name}_optical")
    path = write_topics(tmp_path / "run", topics)
    with pytest.raises(DataError, match=r"several cameras.*/cam_a/rgb/image_raw.*/cam_b/rgb/image_raw.*color=TOPIC"):
        chosen(path)
    with pytest.raises(DataError, match="several cameras"):
        open_source(path)
    assert chosen(path, color="/cam_b/rgb/image_raw")[1] == "/cam_b/depth/image_raw"


def test_what_is_no_depth_is_not_taken_for_depth(tmp_path):
    path = write_topics(
        tmp_path / "run",
        {
            "/a_amplitude/image": (gray, "16UC1", "optical"),
            "/b_heat/image": (lambda t: gray(t) * 0, "16UC1", "optical"),
            "/c_float/image": (lambda t: gray(t).astype(np.float32), "32FC1", "optical"),
            "/cam/z/image": (depth_image, "16UC1", "optical"),
            "/cam/rgb/image": (color_image, "rgb8", "optical"),
        },
    )
    assert chosen(path) == ("/cam/rgb/image", "/cam/z/image")


def compressed_depth(t):
    return bytes(12) + cv2.imencode(".png", depth_image(t))[1].tobytes()


@pytest.mark.parametrize(
    "form", ["16UC1; compressedDepth png", "16UC1; compressedDepth", "mono16; compressedDepth png", "compressedDepth"]
)
def test_lossless_depth_is_taken_and_not_its_jpeg(tmp_path, form):
    def lossy(t):
        return cv2.imencode(".jpg", (depth_image(t) >> 8).astype(np.uint8))[1].tobytes()

    path = write_topics(
        tmp_path / "run",
        {
            "/cam/color/image_raw": (color_image, "rgb8", "optical"),
            "/cam/depth/image_raw/compressed": (lossy, "16UC1; jpeg compressed ", "optical"),
            "/cam/depth/image_raw/compressedDepth": (compressed_depth, form, "optical"),
        },
    )
    assert chosen(path)[1] == "/cam/depth/image_raw/compressedDepth"
    check(path, 2)


@pytest.mark.parametrize("header", [b"", bytes(12)])
@pytest.mark.parametrize(
    "form",
    [
        *("16UC1; png compressed ", "mono16; png compressed ", "16UC1", "png", "PNG", ".png", "image/png", ""),
        *("16uc1; compresseddepth", "png; compressedDepth"),
    ],
)
def test_a_png_of_sixteen_bits_is_depth_whatever_its_format_is_called(tmp_path, form, header):
    path = write_topics(
        tmp_path / "run",
        {
            "/cam/color/image_raw": (color_image, "rgb8", "optical"),
            "/cam/color/compressed": (lambda t: cv2.imencode(".png", color_image(t))[1].tobytes(), "png", "optical"),
            "/cam/depth/image_raw/compressed": (lambda t: header + compressed_depth(t)[12:], form, "optical"),
        },
    )
    check(path, 2)


def test_a_picture_of_depth_is_not_taken_for_colour(tmp_path):
    path = write_topics(
        tmp_path / "run",
        {
            "/cam/color/image_raw": (color_image, "rgb8", "optical"),
            "/cam/depth/image_color": (lambda t: np.full((12, 16, 3), 90, np.uint8), "bgr8", "optical"),
            "/cam/depth/image_rect": (depth_image, "16UC1", "optical"),
        },
    )
    assert chosen(path) == ("/cam/color/image_raw", "/cam/depth/image_rect")


@pytest.mark.parametrize("frames", [("", "optical"), ("optical", ""), ("", "")])
def test_an_empty_frame_says_nothing(tmp_path, frames):
    color, depth = frames
    path = write_topics(
        tmp_path / "run",
        {
            "/cam/color/image_raw": (color_image, "rgb8", color),
            "/cam/depth/image_raw": (depth_image, "16UC1", depth),
        },
    )
    check(path, 2)


def test_mono16_is_colour_where_it_is_named_so(tmp_path):
    path = write_topics(
        tmp_path / "run",
        {"/ir/image": (gray, "mono16", "optical"), "/depth/image": (depth_image, "16UC1", "optical")},
    )
    with pytest.raises(DataError, match="no topic with colour images"):
        chosen(path)
    assert chosen(path, color="/ir/image") == ("/ir/image", "/depth/image")


def test_depth_of_another_frame_is_not_registered_until_that_is_said(tmp_path):
    path = write_topics(
        tmp_path / "run",
        {
            "/cam/color/image_raw": (color_image, "rgb8", "color_optical"),
            "/cam/depth/image_raw": (depth_image, "16UC1", "depth_optical"),
        },
    )
    with pytest.raises(DataError, match="'depth_optical'.*'color_optical': not registered.*registered=yes"):
        open_source(path)
    check(f"{path}?registered=yes", 2)


@pytest.mark.parametrize(("encoding", "kind"), [("64FC1", np.float64), ("32SC1", np.int32), ("16SC1", np.int16)])
def test_depth_of_an_encoding_that_is_not_read_is_named(tmp_path, encoding, kind):
    path = write_topics(
        tmp_path / "run",
        {
            "/cam/color/image_raw": (color_image, "rgb8", "optical"),
            "/cam/depth/image_raw": (lambda t: depth_image(t).astype(kind), encoding, "optical"),
        },
    )
    with pytest.raises(DataError, match=f"/cam/depth/image_raw: encoding '{encoding}' is not supported for depth"):
        open_source(path)


def test_a_recording_of_librealsense_itself(tmp_path):
    """Its own topics and camera_infos (rs-record): depth is mono16, infrared mono8."""
    color, depth = "/device_0/sensor_1/Color_0/image/data", "/device_0/sensor_0/Depth_0/image/data"
    with Bag(tmp_path / "run", "ros1") as bag:
        for t in range(3):
            stamp = 1000.0 + t / 30
            bag.camera("/device_0/sensor_1/Color_0/info/camera_info", stamp, [20, 0, 7.5, 0, 21, 5.5, 0, 0, 1])
            bag.camera("/device_0/sensor_0/Depth_0/info/camera_info", stamp, [30, 0, 7.5, 0, 31, 5.5, 0, 0, 1])
            bag.image("/device_0/sensor_0/Infrared_1/image/data", gray(t).astype(np.uint8), "mono8", stamp)
            bag.image(color, color_image(t), "rgb8", stamp)
            bag.image(depth, depth_image(t), "mono16", stamp)
    sequence = check(bag.path, 3)
    assert (sequence.color_topic, sequence.depth_topic) == (color, depth)
    assert sequence.intrinsics[0].tolist() == [20, 0, 7.5]


def test_an_empty_last_part_is_left_out(tmp_path):
    folder = write_camera_bag(tmp_path / "run", "mcap")
    (folder / "metadata.yaml").unlink()
    next(folder.glob("*.mcap")).rename(folder / "run_0.mcap")
    (folder / "run_1.mcap").write_bytes(b"")
    sequence = check(folder)
    assert "run_1.mcap is empty and ignored" in sequence.notes
    (folder / "run_0.mcap").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        BagFile(folder)


def test_a_video_stream_is_named_with_what_decodes_it(tmp_path):
    def extra(writer):
        schema = writer.register_schema("ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "ros2msg", b"")
        channel = writer.register_channel("/cam/color/ffmpeg", "cdr", schema)
        writer.add_message(channel, BEGIN, b"\0\1\0\0", BEGIN)

    path = write_mcap(tmp_path / "run.mcap", extra=extra)
    with BagFile(path) as bag:
        bag.topics.pop("/cam/color/image")
        with pytest.raises(DataError, match="/cam/color/ffmpeg is a video stream: decode it"):
            find_topics(bag, {})


def test_header_stamps_of_both_serialisations(tmp_path):
    stamp = 1_234_567_890_123_456_789
    for profile in ("ros1", "ros2"):
        path = write_mcap(tmp_path / f"{profile}.mcap", profile, frames=1)
        with BagFile(path) as bag:
            (raw,) = bag.messages(["/cam/color/image"])
            assert bag.header_stamp(raw) == BEGIN
            seconds, nanoseconds = divmod(stamp, 10**9)
            data = raw.data[:4] + struct.pack("<iI", seconds, nanoseconds) + raw.data[12:]
            assert bag.header_stamp(type(raw)(raw.topic, raw.kind, 0, data, raw.ros1)) == stamp
