"""Clouds, camera_info and registration against projections written out pixel by pixel."""

from __future__ import annotations

import array
import copy

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from ros_fixtures import camera_info
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from stdnet_core.data.bags.ros_images import same_field_of_view
from stdnet_ros.messages import registration
from stdnet_ros.messages.camera_info import CameraInfoError, Intrinsics, fit_to_image, pinhole, viewing_rays
from stdnet_ros.messages.conversions import give_data
from stdnet_ros.messages.info_messages import CameraInfoReader, CameraInfoWriter
from stdnet_ros.messages.point_cloud import CloudMemory, organized_cloud
from stdnet_ros.messages.registration import Extrinsics


def read(cloud) -> dict[str, np.ndarray]:
    """The cloud's fields by their offsets, as any consumer reads them."""
    raw = np.frombuffer(cloud.data.tobytes(), np.uint8).reshape(cloud.height, cloud.width, cloud.point_step)
    assert cloud.row_step == cloud.width * cloud.point_step
    return {
        field.name: raw[..., field.offset : field.offset + 4].copy().view(np.float32)[..., 0] for field in cloud.fields
    }


def scene(height=7, width=10):
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.5, 5.0, (height, width)).astype(np.float32)
    depth[2, 3] = depth[0, 0] = np.nan
    return depth, rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_cloud_is_the_back_projection_of_each_pixel(stride):
    depth, color = scene()
    info = camera_info(10, 7, Header(), focal=12.5)
    cloud = organized_cloud(depth, info, Header(frame_id="camera"), color=color, stride=stride)
    points = read(cloud)
    assert (cloud.height, cloud.width) == (-(-7 // stride), -(-10 // stride))
    assert not cloud.is_dense
    for row in range(cloud.height):
        for column in range(cloud.width):
            v, u = row * stride, column * stride
            z = float(depth[v, u])
            expected = [(u - 4.5) * z / 12.5, (v - 3.0) * z / 12.5, z]
            got = [points[name][row, column] for name in "xyz"]
            np.testing.assert_allclose(got, expected, rtol=1e-6)
            packed = int(points["rgb"][row, column].view(np.uint32))
            assert ((packed >> 16) & 255, (packed >> 8) & 255, packed & 255) == tuple(color[v, u])


def test_xyz_cloud_has_three_fields():
    depth, _ = scene()
    cloud = organized_cloud(depth, camera_info(10, 7, Header()), Header())
    assert [field.name for field in cloud.fields] == ["x", "y", "z"]
    assert cloud.point_step == 12
    np.testing.assert_array_equal(read(cloud)["z"], depth)
    assert np.isnan(read(cloud)["x"][2, 3])


def test_memory_is_reused_and_gives_the_same_cloud():
    memory = CloudMemory()
    info = camera_info(10, 7, Header())
    addresses = set()
    for seed in range(3):
        depth = np.random.default_rng(seed).uniform(1, 2, (7, 10)).astype(np.float32)
        reused = organized_cloud(depth, info, Header(), memory=memory)
        assert reused.data == organized_cloud(depth, info, Header()).data
        addresses.add(reused.data.buffer_info()[0])
    assert len(addresses) == 1
    assert organized_cloud(depth, info, Header(), stride=2, memory=memory).width == 5


def test_messages_hold_the_memory_that_they_were_given():
    """A copy of each cloud and image would cost more than making them."""
    memory = CloudMemory()
    depth = np.ones((7, 10), np.float32)
    cloud = organized_cloud(depth, camera_info(10, 7, Header()), Header(), memory=memory)
    assert cloud.data is memory.take(7, 10, 3)[0]
    buffer = array.array("B", [1, 2, 3])
    message = Image()
    give_data(message, buffer)
    assert message.data is buffer
    assert deserialize_message(serialize_message(message), Image).data.tobytes() == b"\x01\x02\x03"


def test_camera_info_is_made_anew_only_when_more_than_the_stamp_changes():
    reader = CameraInfoReader()

    def take(sec: int, focal: float) -> CameraInfo:
        header = Header(stamp=Time(sec=sec, nanosec=7 * sec), frame_id="camera")
        reader.take(serialize_message(camera_info(10, 7, header, focal)))
        return reader.info

    first = take(1, 30.0)
    assert (first.width, first.k[0], first.header.frame_id) == (10, 30.0, "camera")
    assert take(2, 30.0) is first
    assert take(3, 31.0).k[0] == 31.0
    assert take(4, 30.0).k[0] == 30.0


def test_bytes_that_are_no_camera_info_are_refused_and_the_one_before_stays():
    reader = CameraInfoReader()
    whole = serialize_message(camera_info(10, 7, Header()))
    for damaged in (b"", whole[:50], bytes(400)[:3] + b"\xff" * 397):
        with pytest.raises(CameraInfoError, match="deserialised"):
            reader.take(damaged)
    assert reader.info is None
    reader.take(whole)
    with pytest.raises(CameraInfoError):
        reader.take(whole[:-50])
    assert reader.info.width == 10


def test_camera_info_is_written_as_rclpy_would():
    writer = CameraInfoWriter()
    calibration = camera_info(10, 7, Header(frame_id="camera"), 30.0)
    for sec, change in enumerate(({}, {}, {"binning_x": 2}, {}, {"k": [float(i) for i in range(9)]}, {"width": 11})):
        info = copy.copy(calibration)
        for name, value in change.items():
            setattr(info, name, value)
        info.header = Header(stamp=Time(sec=sec, nanosec=sec + 5), frame_id="other" if sec == 1 else "camera")
        assert deserialize_message(writer.serialized(info), CameraInfo) == info


def test_a_wall_is_flat():
    """Depth is along the axis: a fronto-parallel wall has one z, its x spacing is z / f."""
    cloud = organized_cloud(np.full((48, 64), 2.5, np.float32), camera_info(64, 48, Header(), 50.0), Header())
    points = read(cloud)
    assert np.ptp(points["z"]) == 0
    np.testing.assert_allclose(np.diff(points["x"], axis=1), 2.5 / 50, rtol=1e-4)


def test_lens_distortion_is_removed_from_rays():
    info = camera_info(64, 48, Header(), 50.0)
    info.d = [0.1, -0.05, 0.001, 0.002, 0.01]
    x, y = viewing_rays(info, rectified=False)
    # Distorting the rays again must give the pixels back.
    rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 1, 3).astype(np.float64)
    matrix = np.array(info.k).reshape(3, 3)
    pixels, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, np.array(info.d))
    expected = np.stack(np.meshgrid(np.arange(64), np.arange(48)), -1).reshape(-1, 1, 2)
    assert np.abs(pixels - expected).max() < 0.02
    rectified, _ = viewing_rays(info, rectified=True)
    assert np.abs(rectified - x).max() > 1e-3
    info.distortion_model = "somebody's"
    with pytest.raises(CameraInfoError, match="somebody"):
        viewing_rays(info, rectified=False)


def project(info: CameraInfo, point) -> np.ndarray:
    """K and P applied to a point: (u, v) of each."""
    k = np.array(info.k).reshape(3, 3) @ point
    p = np.array(info.p).reshape(3, 4) @ np.append(point, 1.0)
    return np.array([k[:2] / k[2], p[:2] / p[2]])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 8.0])
def test_camera_info_follows_the_pixel_centres(scale):
    """A point's pixel maps by s*x + (s-1)/2 in both K and P, with P's baseline."""
    info = camera_info(64, 48, Header(), 50.0)
    info.p[3] = -7.5
    width, height = int(64 * scale), int(48 * scale)
    fitted = fit_to_image(info, width, height)
    assert (fitted.width, fitted.height) == (width, height)
    for point in ([0.1, 0.2, 1.0], [-0.4, 0.3, 2.0]):
        expected = scale * project(info, point) + (scale - 1) / 2
        np.testing.assert_allclose(project(fitted, point), expected, rtol=1e-12)
    assert info.width == 64, "the driver's message must stay as it was"


def test_region_of_interest_and_binning_are_resolved():
    """A 320x240 region at (100, 50) of the sensor, binned 2x2, arrives as 160x120."""
    info = camera_info(640, 480, Header(), 500.0)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 50, 320, 240
    info.binning_x = info.binning_y = 2
    fitted = fit_to_image(info, 160, 120)
    full = project(info, [0.05, -0.03, 1.0])
    expected = 0.5 * (full - [100, 50]) - 0.25
    np.testing.assert_allclose(project(fitted, [0.05, -0.03, 1.0]), expected, rtol=1e-12)
    assert fitted.roi.width == fitted.binning_x == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": [0.0] * 9}, "uncalibrated"),
        ({"k": [float("nan")] * 9}, "uncalibrated"),
        ({"p": [float("inf")] * 12}, "not finite"),
        ({"width": 100}, "aspect"),
    ],
)
def test_unusable_camera_info_is_refused(change, words):
    info = camera_info(64, 48, Header())
    for name, value in change.items():
        setattr(info, name, value)
    with pytest.raises(CameraInfoError, match=words):
        fit_to_image(info, 640, 480)


def test_camera_info_without_a_size_describes_the_image():
    info = camera_info(640, 480, Header(), 500.0)
    sized = fit_to_image(info, 640, 480)
    info.width = info.height = 0
    fitted = fit_to_image(info, 640, 480)
    assert (fitted.width, fitted.height) == (640, 480)
    np.testing.assert_array_equal(fitted.k, sized.k)


def test_p_is_used_for_rectified_images_and_k_without_p():
    info = camera_info(64, 48, Header(), 50.0)
    info.p[0] = info.p[5] = 44.0
    assert pinhole(info, rectified=True).fx == 44.0
    assert pinhole(info, rectified=False).fx == 50.0
    info.p[0] = info.p[5] = 0.0
    assert pinhole(info, rectified=True).fx == 50.0


def test_reprojection_matches_a_loop_over_the_pixels():
    rng = np.random.default_rng(2)
    depth = rng.uniform(1.0, 3.0, (12, 16)).astype(np.float32)
    depth[3, 4] = np.nan
    depth_camera = Intrinsics(20.0, 21.0, 7.5, 5.5, 16, 12)
    color_camera = Intrinsics(60.0, 61.0, 40.0, 30.0, 80, 60)
    angle = 0.05
    pose = Extrinsics.from_quaternion([0.05, -0.02, 0.1], [0.0, np.sin(angle / 2), 0.0, np.cos(angle / 2)])
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    np.testing.assert_allclose(pose.rotation, rotation, atol=1e-12)
    out = registration.reproject(depth, depth_camera, color_camera, pose, (20, 27))

    expected = np.full((20, 27), np.inf)
    sx, sy = 27 / 80, 20 / 60
    for v in range(12):
        for u in range(16):
            z = depth[v, u]
            if np.isnan(z):
                continue
            x, y, z = rotation @ np.array([(u - 7.5) / 20 * z, (v - 5.5) / 21 * z, z]) + [0.05, -0.02, 0.1]
            column = round(sx * (60 * x / z + 40) + (sx - 1) / 2)
            row = round(sy * (61 * y / z + 30) + (sy - 1) / 2)
            if 0 <= column < 27 and 0 <= row < 20:
                expected[row, column] = min(expected[row, column], z)
    expected[np.isinf(expected)] = np.nan
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert 100 < np.isfinite(out).sum() <= 191


def test_field_of_view_allows_for_rounding_alone():
    same = same_field_of_view
    assert same((480, 640), (60, 80))
    assert same((480, 640), (480, 640))
    assert same((481, 641), (61, 81))
    assert same((720, 1280), (23, 40))
    assert not same((480, 640), (480, 848))
    assert not same((480, 640), (172, 224))
