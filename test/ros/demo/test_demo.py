"""The demo: its stream, its scores, and the three processes end to end on a small scene."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from ros_fixtures import ROOT, rclpy  # noqa: F401 (isolates the ROS graph before rclpy is imported)

from stdnet_core.data.sensors import sensor
from stdnet_core.data.sources import open_source
from stdnet_core.errors import DataError, InputError, StdnetError
from stdnet_ros.demo import __main__ as demo
from stdnet_ros.demo.scoring import ErrorSums, _window, cloud_arrays
from stdnet_ros.demo.stream import open_stream, write_stream
from stdnet_ros.demo.topics import camera_info
from stdnet_ros.messages.point_cloud import organized_cloud
from stdnet_ros.processes import Children, options, ros_environment
from stdnet_ros.resources import config_file

pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed; pip install '.[report]'")

H, W, FRAMES = 60, 80, 10
METHOD = "joint_bilateral"
"""Needs no weights."""


def write_scene(folder: Path, frames: int = FRAMES, *, depths: int | None = None) -> Path:
    """A folder in the project's layout: a striped wall that leans back, and a box that moves before it."""
    (folder / "color").mkdir(parents=True)
    (folder / "depth").mkdir()
    (folder / "intrinsics.txt").write_text("70 70 39.5 29.5\n")
    rows, columns = np.mgrid[:H, :W]
    for i in range(frames):
        color = np.where((columns // 5 % 2)[..., None] == 0, (200, 180, 160), (90, 110, 130)).astype(np.uint8)
        # A plane is linear in inverse depth.
        depth = 1 / (0.4 + 0.001 * rows)
        left = 10 + 3 * i
        color[15:45, left : left + 20] = (30, 40, 200)
        depth[15:45, left : left + 20] = 1.2
        cv2.imwrite(str(folder / "color" / f"{i:06d}.png"), color)
        if i < (frames if depths is None else depths):
            cv2.imwrite(str(folder / "depth" / f"{i:06d}.png"), np.rint(1000 * depth).astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scene") / "wall")


def children_alive(marker: str) -> list[str]:
    """Command lines of processes that mention ``marker``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if marker in line and int(entry.parent.name) != os.getpid():
            found.append(line)
    return found


@pytest.fixture(scope="module")
def finished(scene, tmp_path_factory) -> tuple[Path, dict, str]:
    output = tmp_path_factory.mktemp("demo") / "out"
    done = subprocess.run(
        [sys.executable, "-m", "stdnet_ros.demo", *options(output=output, input=scene, scale=4, method=METHOD)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr + "".join(log.read_text() for log in output.glob("*.log"))
    return output, json.loads((output / "metrics.json").read_text()), done.stdout


def test_every_frame_published_is_received(finished):
    frames = finished[1]["frames"]
    assert frames["published"] == frames["received"] == frames["camera_infos"] == frames["clouds"] == FRAMES
    assert frames["lost"] == frames["duplicates"] == 0
    assert frames["dropped_by_node"] == {}
    assert finished[1]["node"]["total published"] == str(FRAMES)


def test_scores_are_plausible_and_printed(finished):
    _, metrics, printed = finished
    for method in ("output", "bilinear"):
        assert 0 < metrics[method]["mae_cm"] < metrics[method]["rmse_cm"] < 40
        assert metrics[method]["coverage"] > 0.99
        assert f"{metrics[method]['rmse_cm']:.2f}" in printed
    latency = metrics["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert metrics["rate_hz"] > 0.1
    assert metrics["input"]["scale"] == 4
    assert f"{FRAMES} in, {FRAMES} out, 0 lost" in printed


def test_the_cloud_lies_on_its_pixels_and_the_wall_is_flat(finished):
    cloud = finished[1]["cloud"]
    assert cloud["reprojection_px_max"] < 1e-3
    assert cloud["depth_difference_m_max"] == 0.0
    assert cloud["colour_difference_max"] == 0
    flat = cloud["flat_patch"]
    assert flat["cloud_rms"] < 0.02
    assert abs(flat["offset"]) < 0.02


def test_pictures_are_there_to_look_at(finished):
    output = finished[0]
    pictures = sorted(output.glob("frame_*.png"))
    assert len(pictures) == 5
    for path in [*pictures, output / "cloud.png"]:
        assert cv2.imread(str(path)).std() > 10
    height, width = cv2.imread(str(pictures[0])).shape[:2]
    assert width > 6 * 320  # colour, input, bilinear, output, truth and the errors
    assert height > 2 * 240  # and a part of them larger
    for name in ("node", "receiver", "publisher"):
        assert (output / f"{name}.log").read_text().strip()
    assert f"sent {FRAMES} frames" in (output / "publisher.log").read_text()
    from PIL import Image

    with Image.open(output / "preview.gif") as gif:
        assert gif.n_frames == FRAMES
    assert (output / "preview.mp4").stat().st_size > 2000
    assert (output / "cloud.ply").read_bytes().startswith(b"ply\n")


def test_no_process_is_left(finished):
    assert children_alive(str(finished[0])) == []


def test_ctrl_c_ends_all_processes(scene, tmp_path):
    output = tmp_path / "stopped_demo"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "stdnet_ros.demo",
            "--output",
            output,
            "--input",
            scene,
            "--scale",
            "4",
            "--rate",
            "0.5",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any(line.startswith("live:") for line in process.stdout)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 130
    assert errors.strip() == "interrupted"
    assert children_alive(str(output)) == []


def test_a_node_that_cannot_start_is_quoted(scene, tmp_path):
    with pytest.raises(StdnetError, match=r"the node ended with status .*method must be one of .*node.log"):
        demo.run_demo(["--output", str(tmp_path), "--input", str(scene), "--method", "magic"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: write_scene(folder / "uneven", depths=7), "uneven"),
        (lambda folder: folder / "missing", "missing"),
    ],
)
def test_bad_input_is_one_line_that_names_it(make, words, tmp_path):
    with pytest.raises(DataError, match=words) as error:
        demo.run_demo(["--output", str(tmp_path / "out"), "--input", str(make(tmp_path))])
    assert "\n" not in str(error.value)


def test_an_unreadable_bag_exits_without_a_traceback(tmp_path):
    bag = tmp_path / "cut.mcap"
    bag.write_bytes(b"\x89MCAP0\r\n" + bytes(100))
    done = subprocess.run(
        [sys.executable, "-m", "stdnet_ros.demo", "--output", tmp_path / "out", "--input", bag],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*cut\.mcap.*\n", done.stderr)


def test_rates_are_checked(capsys):
    parsed = demo.parser().parse_args(["--rate", "12.5"])
    assert parsed.rate == 12.5
    assert demo.parser().parse_args(["--rate", "auto"]).rate is None
    for bad in ("fast", "0", "-3"):
        with pytest.raises(SystemExit):
            demo.parser().parse_args(["--rate", bad])
        assert "neither auto nor a positive number" in capsys.readouterr().err


def test_a_stream_is_cropped_to_whole_cells_and_keeps_units(scene, tmp_path):
    sequence = open_source(str(scene))[0]
    info = write_stream(sequence, tmp_path, scale=8, frames=4, sensor=sensor("exact"))
    stream = open_stream(tmp_path)
    assert len(stream) == info.frames == 4
    assert stream.rgb.shape == (4, 56, 80, 3)
    assert stream.depth_lr.shape == (4, 7, 10)
    assert info.intrinsics == (70, 70, 39.5, 29.5)
    expected = cv2.imread(str(scene / "depth" / "000002.png"), cv2.IMREAD_UNCHANGED)[:56] / 1000
    assert np.allclose(stream.truth[2], expected, atol=1e-6)
    color = cv2.imread(str(scene / "color" / "000002.png"))[:56, :, ::-1]
    assert np.array_equal(stream.rgb[2], color)
    with pytest.raises(InputError, match="--scale 64 does not fit frames of 80x60"):
        write_stream(sequence, tmp_path, scale=64, frames=4, sensor=sensor("exact"))


def test_errors_are_pooled_over_common_pixels():
    sums = ErrorSums()
    truth = np.array([[1.0, 2.0, np.nan, 4.0]])
    depth = np.array([[1.1, 2.0, 3.0, np.nan]])
    common = np.isfinite(truth) & np.isfinite(depth)
    assert sums.add(depth, truth, common) == pytest.approx((0.01 / 2) ** 0.5)
    sums.add(np.array([[1.0, 2.3, 1.0, 4.0]]), truth, np.isfinite(truth))
    result = sums.result()
    assert result["rmse_cm"] == pytest.approx(100 * ((0.01 + 0.09) / 5) ** 0.5)
    assert result["mae_cm"] == pytest.approx(100 * 0.4 / 5)
    assert result["coverage"] == pytest.approx(5 / 6)
    assert ErrorSums().result()["rmse_cm"] is None


def test_the_zoom_is_where_interpolation_errs_most():
    truth = np.full((60, 90), 2.0)
    truth[0, :5] = np.nan
    simple = truth.copy()
    simple[5, 5] = 90.0  # a single far outlier counts for little
    simple[30:40, 70:80] += 0.2
    rows, columns = _window(simple, truth, 0.1)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (20, 30)
    assert rows.start <= 30 < 40 <= rows.stop
    assert columns.start <= 70 < 80 <= columns.stop


def test_cloud_messages_read_back():
    from std_msgs.msg import Header

    depth = np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)
    depth[1, 1] = np.nan
    color = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    info = camera_info((10.0, 10.0, 1.5, 1.0), 4, 3, Header())
    points, colors = cloud_arrays(organized_cloud(depth, info, Header(), color=color))
    assert np.array_equal(colors, color)
    assert np.array_equal(points[..., 2], depth, equal_nan=True)
    assert points[2, 3, 0] == pytest.approx((3 - 1.5) / 10 * depth[2, 3])


def test_children_are_stopped_even_if_they_ignore_ctrl_c(tmp_path, monkeypatch):
    (tmp_path / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    monkeypatch.setattr("stdnet_ros.processes._GRACE", 0.5)
    environment = ros_environment(config_file("fastdds.xml"), tmp_path) | {"PYTHONPATH": str(tmp_path)}
    with Children(tmp_path, environment) as children:
        child = children.start("stubborn", "stubborn", [])
        failing = children.start("failing", "no_such_module", [])
        with pytest.raises(StdnetError, match=r"the failing ended with status 1: .*no_such_module"):
            failing.wait()
        while not (tmp_path / "stubborn.log").read_text():
            time.sleep(0.05)
    assert child.poll() == -signal.SIGTERM
