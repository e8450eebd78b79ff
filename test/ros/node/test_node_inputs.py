"""What the field throws at the live node: stamps, units, camera_infos and sizes, over real topics."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_fixtures import NearestUpsampler, camera_info, image, running_graph, stamp_message, wait_for
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

RATE = 0.05


def factory(settings, **changes):
    return NearestUpsampler(latency=settings.latency_frames)


def unpaired(graph, colors, depths):
    """The diagnostics once nothing could be paired for two seconds of images with these stamps."""
    import time

    end = time.monotonic() + 6
    index = 0
    while time.monotonic() < end:
        color = Header(stamp=stamp_message(colors(index)), frame_id="camera")
        depth = Header(stamp=stamp_message(depths(index)), frame_id="camera")
        graph.publisher("color/image").publish(image(np.zeros((24, 32, 3), np.uint8), "rgb8", color))
        graph.publisher("depth/image").publish(image(np.ones((6, 8), np.float32), "32FC1", depth))
        time.sleep(RATE)
        index += 1
        level, sentence = graph.node.health()
        if level == 1 and "paired" in sentence:
            return sentence
    return f"level {level}: {sentence}"


@pytest.mark.parametrize(
    ("colors", "depths", "words"),
    [
        (lambda i: 0.0, lambda i: 0.0, "all color images have the stamp 0.000: the driver does not set stamps; set"),
        (lambda i: 9 + i / 5, lambda i: 9.1 + i / 5, "are 100 ms apart, and sync_slop is 20 ms; set sync_slop to 0.15"),
        (lambda i: 99 + i / 20, lambda i: 9 + i / 20, "colour stamps are 90.0 s ahead of depth stamps"),
    ],
    ids=["no stamps", "half a period", "two clocks"],
)
def test_what_is_heard_and_never_paired_is_said_with_the_remedy(colors, depths, words):
    with running_graph(factory=factory) as graph:
        graph.listen()
        graph.connect(info=False)
        assert words in unpaired(graph, colors, depths)


def test_images_without_stamps_are_paired_by_arrival():
    with running_graph(factory=factory, use_arrival_time=True, sync_slop=0.2) as graph:
        graph.listen()
        graph.connect()
        for count in range(1, 7):
            graph.send(0.0)
            graph.settle(color=count, depth=count)
        wait_for(lambda: len(graph.depths) >= 4)
        stamps = [m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in graph.depths]
        now = graph.node.get_clock().now().nanoseconds / 1e9
        assert stamps == sorted(set(stamps))
        assert now - 60 < stamps[0] < now


def test_depth_that_comes_late_is_paired():
    with running_graph(factory=factory) as graph:
        graph.listen()
        graph.connect()
        headers = [Header(stamp=stamp_message(5 + i / 30), frame_id="camera") for i in range(25)]
        for count, header in enumerate(headers, 1):
            graph.publisher("color/image").publish(image(np.zeros((24, 32, 3), np.uint8), "rgb8", header))
            graph.settle(color=count)
        for count, header in enumerate(headers, 1):
            graph.publisher("depth/image").publish(image(np.ones((6, 8), np.float32), "32FC1", header))
            wait_for(lambda n=count: len(graph.depths) == n)
        assert graph.settle(published=25)["drops"] == {}


def test_camera_info_that_was_published_once_before_is_heard():
    with running_graph(factory=factory, start=False) as graph:
        kept = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        graph.publisher("color/camera_info", CameraInfo, kept).publish(camera_info(32, 24, Header()))
        graph.node.start()
        wait_for(lambda: graph.node.infos[0] is not None)
        assert graph.node.infos[0].k[0] == 30.0


@pytest.mark.parametrize(("unit", "metres", "level"), [(0.0, 2000.0, 1), (0.001, 2.0, 0)])
def test_floating_point_millimetres_are_noticed(unit, metres, level):
    with running_graph(factory=factory, depth_unit=unit) as graph:
        graph.listen()
        graph.connect()
        graph.send(1.0, metres=2000.0)
        wait_for(lambda: graph.depths)
        out = np.frombuffer(graph.depths[0].data.tobytes(), np.float32)
        np.testing.assert_allclose(out, metres, rtol=1e-6)
        found, sentence = graph.node.health()
        assert found == level
        assert ("set depth_unit" in sentence or "with depth_unit" in sentence) == (level == 1)


def test_values_that_mean_no_reading():
    with running_graph(factory=factory, invalid_above=9000.0) as graph:
        graph.listen()
        graph.connect()
        stored = np.full((6, 8), 1500, np.uint16)
        stored[0, 0], stored[0, 1], stored[0, 2] = 65535, 9001, 9000
        header = Header(stamp=stamp_message(5.0), frame_id="camera")
        graph.publisher("color/image").publish(image(np.zeros((24, 32, 3), np.uint8), "rgb8", header))
        graph.publisher("depth/image").publish(image(stored, "16UC1", header))
        wait_for(lambda: graph.depths)
        out = np.frombuffer(graph.depths[0].data.tobytes(), np.float32).reshape(24, 32)[::4, ::4]
        assert np.isnan(out[0, :2]).all()
        np.testing.assert_allclose(out[0, 2:4], [9.0, 1.5], rtol=1e-6)


def test_depth_without_any_measurement_is_said():
    with running_graph(factory=factory) as graph:
        graph.listen()
        graph.connect()
        for index in range(1, 21):
            graph.send(1 + index / 30, metres=float("nan"))
            graph.settle(pairs=index, published=index)
        level, sentence = graph.node.health()
        assert level == 1
        assert "the last 20 depth images hold no measurement" in sentence
        graph.send(3.0)
        graph.settle(published=21)
        assert graph.node.health() == (0, "running")


def test_larger_images_are_refused_by_their_header():
    with running_graph(factory=factory, max_image_pixels=32 * 24) as graph:
        graph.listen()
        graph.connect()
        graph.send(1.0)
        wait_for(lambda: graph.depths)
        graph.send(2.0, size=(64, 48))
        snapshot = graph.settle(pairs=2)
        assert snapshot["drops"] == {"bad_color": 1}


@pytest.mark.parametrize("frame", ["/camera", ""])
def test_frames_with_and_without_a_slash_are_the_same_and_an_empty_one_says_nothing(frame):
    with running_graph(factory=factory) as graph:
        graph.listen()
        graph.connect()
        graph.send(1.0, frame=frame, depth_frame="camera")
        wait_for(lambda: graph.depths)


def test_endless_frame_names_are_shortened_where_they_are_reported():
    with running_graph(factory=factory) as graph:
        graph.listen()
        graph.connect()
        for stamp in range(1, 12):
            graph.send(float(stamp), depth_frame="x\n" * 5000)
            graph.settle(pairs=stamp)
        _, sentence = graph.node.health()
        assert "not registered" in sentence
        assert len(sentence) < 600
        assert "\n" not in sentence


def test_a_zone_sensor_beside_a_wide_camera_is_projected_into_it():
    """8x8 zones over 45 degrees, 3 cm beside a 16:9 camera: measurements land where the pinhole cameras say."""
    with running_graph(method="joint_bilateral", extrinsics=[0.03, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]) as graph:
        graph.listen()
        graph.publisher("depth/camera_info", CameraInfo)
        graph.connect()
        color_frame, depth_frame = (Header(stamp=stamp_message(5.0), frame_id=name) for name in ("color", "zones"))
        graph.publisher("color/camera_info").publish(camera_info(320, 180, color_frame, 160.0))
        graph.publisher("depth/camera_info").publish(camera_info(8, 8, depth_frame, 9.66))
        wait_for(lambda: None not in graph.node.infos and graph.node.infos[0].width == 320)
        zones = np.full((8, 8), 2000, np.uint16)
        zones[:, :4] = 1000
        picture = np.full((180, 320, 3), 200, np.uint8)
        # The border between zones 3 and 4, seen on the near surface: u = fx (X + 3 cm) / Z + cx.
        border = round(160.0 * 0.03 / 1.0 + 159.5)
        picture[:, :border] = 40
        graph.publisher("color/image").publish(image(picture, "rgb8", color_frame))
        graph.publisher("depth/image").publish(image(zones, "16UC1", depth_frame))
        wait_for(lambda: graph.depths)
        out = np.frombuffer(graph.depths[0].data.tobytes(), np.float32).reshape(180, 320)
        np.testing.assert_allclose(out[90, border - 50 : border - 12], 1.0, rtol=0.02)
        np.testing.assert_allclose(out[90, border + 16 : border + 40], 2.0, rtol=0.02)
        assert graph.node.snapshot()["drops"] == {}
