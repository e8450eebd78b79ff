"""When the temporal window is cleared (stdnet_ros.node.window)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import ros_fixtures  # noqa: F401  (isolates ROS before the package is imported)

from stdnet_ros.messages.camera_info import Intrinsics
from stdnet_ros.node.window import FrameSignature, WindowGuard

SECOND = 1_000_000_000
CAMERA = Intrinsics(500.0, 500.0, 320.0, 240.0, 640, 480)
FRAME = FrameSignature((480, 640), (60, 80), "rgb8", "16UC1", "camera", CAMERA)


@pytest.mark.parametrize(
    ("change", "cause", "words"),
    [
        ({"color_size": (240, 320)}, "color_size", "(240, 320)"),
        ({"depth_size": (30, 40)}, "depth_size", "(30, 40)"),
        ({"color_encoding": "bgr8"}, "color_encoding", "bgr8"),
        ({"depth_encoding": "32FC1"}, "depth_encoding", "32FC1"),
        ({"frame_id": "other"}, "frame_id", "other"),
        ({"camera": replace(CAMERA, fx=501.0)}, "intrinsics", "intrinsics"),
    ],
)
def test_a_frame_of_another_kind_does_not_continue_the_window(change, cause, words):
    guard = WindowGuard()
    changed = replace(FRAME, **change)
    assert guard.check(0, FRAME, 1.0) is None
    assert guard.check(SECOND // 30, FRAME, 1.0) is None
    told, sentence = guard.check(SECOND // 15, changed, 1.0)
    assert told == cause
    assert words in sentence
    assert guard.check(SECOND // 10, changed, 1.0) is None


def test_time_and_forgetting():
    guard = WindowGuard()
    assert guard.check(SECOND, FRAME, 1.0) is None
    assert guard.check(2 * SECOND, FRAME, 1.0) is None
    assert guard.check(4 * SECOND + SECOND // 2 + 1, FRAME, 1.0)[0] == "gap"
    assert guard.check(3 * SECOND, FRAME, 1.0)[0] == "time_jump"
    assert guard.check(4 * SECOND + 1, FRAME, 1.0)[0] == "gap"


def test_a_slow_camera_has_no_gaps():
    guard = WindowGuard()
    guard.check(0, FRAME, 1.0)
    assert guard.check(2 * SECOND, FRAME, 1.0)[0] == "gap"  # nothing says yet that this is its pace
    for second in (4, 6, 8, 12):
        assert guard.check(second * SECOND, FRAME, 1.0) is None
    assert guard.check(25 * SECOND, FRAME, 1.0)[0] == "gap"


def test_forgetting():
    guard = WindowGuard()
    guard.check(SECOND, FRAME, 1.0)
    guard.forget()
    assert guard.check(0, replace(FRAME, frame_id="other"), 1.0) is None


def test_camera_info_that_is_missing_for_a_while_changes_nothing_and_hides_nothing():
    guard = WindowGuard()
    for stamp, camera in enumerate((None, CAMERA, None, CAMERA)):
        assert guard.check(stamp, replace(FRAME, camera=camera), 1.0) is None
    assert guard.check(4, replace(FRAME, camera=None), 1.0) is None
    assert guard.check(5, replace(FRAME, camera=replace(CAMERA, cx=0.0)), 1.0)[0] == "intrinsics"
