"""Bag evaluation on bags written here: known answers, both protocols, bad bags, written bags, and the live run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ros_fixtures import rclpy  # noqa: F401 (isolates the ROS graph before rclpy is imported)

from stdnet_core.data.bags.topics import find_topics
from stdnet_core.errors import ConfigError, DataError, InputError
from stdnet_ros.bag_evaluation import command, evaluation
from stdnet_ros.bag_evaluation.bag import Bag
from stdnet_ros.bag_evaluation.settings import make_settings

rosbag1 = pytest.importorskip("rosbags.rosbag1", reason="rosbags is not installed; pip install '.[bags]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install '.[report]'")
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

H, W, FRAMES = 48, 64, 12
COLOR, DEPTH = "/cam/color/image_raw", "/cam/depth/image_raw"
COLOR_INFO, DEPTH_INFO = "/cam/color/camera_info", "/cam/depth/camera_info"
BEGIN = 1_700_000_000_000_000_000
STEP = 50_000_000
QUIET = ["--no-flow", "--baselines", "bilinear"]


class BagMaker:
    """Writes RGB-D bags of ROS 2 (mcap, sqlite3) or ROS 1."""

    def __init__(self, path: Path, kind: str = "mcap") -> None:
        self.ros1 = kind == "ros1"
        self._store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_JAZZY)
        if self.ros1:
            self._writer = rosbag1.Writer(path)
        else:
            storage = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
            self._writer = Writer(path, version=9, storage_plugin=storage)
        self._connections = {}

    def __enter__(self) -> BagMaker:
        self._writer.open()
        return self

    def __exit__(self, *_) -> None:
        self._writer.close()

    def _type(self, name):
        return self._store.types[name]

    def header(self, stamp: int, frame: str):
        time = self._type("builtin_interfaces/msg/Time")(stamp // 10**9, stamp % 10**9)
        header = self._type("std_msgs/msg/Header")
        return header(0, time, frame) if self.ros1 else header(time, frame)

    def write(self, topic: str, kind: str, logged: int, message) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=self._store)
        serialize = self._store.serialize_ros1 if self.ros1 else self._store.serialize_cdr
        self._writer.write(self._connections[topic], logged, serialize(message, kind))

    def image(self, topic: str, stamp: int, pixels: np.ndarray, encoding: str, logged: int | None = None) -> None:
        kind = "sensor_msgs/msg/Image"
        data = np.ascontiguousarray(pixels)
        header = self.header(stamp, "optical")
        height, width = data.shape[:2]
        message = self._type(kind)(header, height, width, encoding, 0, data.strides[0], data.view(np.uint8).reshape(-1))
        self.write(topic, kind, stamp if logged is None else logged, message)

    def info(self, topic: str, stamp: int, height: int = H, width: int = W) -> None:
        kind = "sensor_msgs/msg/CameraInfo"
        roi = self._type("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
        k = np.array([60.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1])
        p = np.array([60.0, 0, 31.5, 0, 0, 60.0, 23.5, 0, 0, 0, 1, 0])
        header = self.header(stamp, "optical")
        message = self._type(kind)(header, height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, roi)
        self.write(topic, kind, stamp, message)


def scene(i: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) uint8 and depth (H, W) uint16 mm: a box before a wall, moving, with a hole in the depth."""
    color = np.full((H, W, 3), (180, 170, 150), np.uint8)
    depth = np.full((H, W), 2000, np.uint16)
    left = 8 + 2 * i
    color[12:36, left : left + 20] = (40, 60, 160)
    depth[12:36, left : left + 20] = 1200
    depth[40:, :10] = 0
    return color, depth


def write_bag(
    path: Path, kind: str = "mcap", *, depth_offset: int = 0, infos: bool = True, frames: int = FRAMES
) -> Path:
    """A bag of :func:`scene`; ``depth_offset`` shifts the depth stamps by so many nanoseconds."""
    with BagMaker(path, kind) as bag:
        for i in range(frames):
            stamp = BEGIN + i * STEP
            color, depth = scene(i)
            if infos:
                bag.info(COLOR_INFO, stamp)
                bag.info(DEPTH_INFO, stamp)
            bag.image(COLOR, stamp, color, "rgb8")
            bag.image(DEPTH, stamp + depth_offset, depth, "16UC1", logged=stamp + 1000)
    return path


def evaluate(bag: Path, output: Path, *options: str) -> dict:
    """Run the command with a method that needs no weights; returns metrics.json."""
    method = [] if "--params-file" in options else ["--method", "joint_bilateral"]
    command.main([str(bag), "--output", str(output), *QUIET, *method, *options])
    return json.loads((output / "metrics.json").read_text())


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "run")


@pytest.fixture(scope="module")
def evaluated(bag, tmp_path_factory) -> tuple[Path, dict, Path]:
    output = tmp_path_factory.mktemp("report")
    written = output / "out.mcap"
    return output, evaluate(bag, output, "--scale", "4", "--write-bag", str(written)), written


def test_every_frame_is_scored_and_reported(evaluated):
    output, metrics, _ = evaluated
    assert metrics["frames"]["scored"] == metrics["frames"]["processed"] == FRAMES
    assert metrics["topics"]["color"] == COLOR
    assert metrics["topics"]["depth_info"] == DEPTH_INFO
    assert len((output / "per_frame.csv").read_text().splitlines()) == FRAMES + 1
    for name in ("report.html", "video.mp4", "cloud.png", "frame_worst.png", "xt_slices.png"):
        assert (output / name).stat().st_size > 500
    page = (output / "report.html").read_text()
    assert page.index("The input is simulated: a dtof_paper at x4") < page.index('<p class="verdict')


def test_figures_are_those_of_upsampling_by_hand(evaluated, bag):
    """The same bilinear interpolation by OpenCV, on the same simulated input, over the same pixels."""
    import cv2

    _, metrics, written = evaluated
    errors = []
    with Bag(written) as out:
        raws = [r for r in out.messages(["/stdnet/input/depth/image"])]
        for i, raw in enumerate(raws):
            message = out.decode(raw)
            low = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
            assert low.shape == (H // 4, W // 4)
            valid = np.isfinite(low)
            filled = np.where(valid, low, 0)
            value = cv2.resize(filled, (W, H), interpolation=cv2.INTER_LINEAR)
            weight = cv2.resize(valid.astype(np.float32), (W, H), interpolation=cv2.INTER_LINEAR)
            truth = scene(i)[1] / 1000.0
            # Away from the hole, where interpolation is not normalised and every method has a depth.
            seen = (truth > 0) & (weight > 0.999)
            errors.append((value - truth)[seen])
    error = np.concatenate(errors)
    assert metrics["figures"]["bilinear"]["rmse_cm"] == pytest.approx(100 * np.sqrt(np.mean(error**2)), rel=0.05)


@pytest.mark.parametrize("kind", ["sqlite3", "ros1"])
def test_other_formats_give_the_same_figures(kind, evaluated, tmp_path):
    path = write_bag(tmp_path / ("run.bag" if kind == "ros1" else "run"), kind)
    metrics = evaluate(path, tmp_path / "out", "--scale", "4")
    for method, figures in evaluated[1]["figures"].items():
        assert metrics["figures"][method] == pytest.approx(figures, rel=1e-6, nan_ok=True)


def test_a_flat_wall_is_off_by_the_sensor_s_quantisation_alone(tmp_path):
    with BagMaker(tmp_path / "run") as bag:
        for i in range(3):
            bag.image(COLOR, BEGIN + i * STEP, np.full((H, W, 3), 128, np.uint8), "bgr8")
            bag.image(DEPTH, BEGIN + i * STEP, np.full((H, W), 2.0, np.float32), "32FC1")
    metrics = evaluate(tmp_path / "run", tmp_path / "out", "--sensor-value", "dtof.range_m=5")
    bin_m = 5 / 1023
    expected = 100 * abs(round(2.0 / bin_m) * bin_m - 2.0)
    for figures in metrics["figures"].values():
        assert figures["rmse_cm"] == pytest.approx(expected, rel=1e-3)
    assert any("camera_info" in note for note in metrics["notes"])


def test_a_recording_is_judged_by_itself(bag, tmp_path):
    """The wall and the box are recorded without noise, so what is hidden is found but at the box's edges."""
    metrics = evaluate(bag, tmp_path, "--self", "--method", "guided_temporal")
    assert metrics["protocol"]["by_itself"]
    assert set(metrics["figures"]) == {"as recorded", "guided_temporal", "bilinear"}
    ours, recorded = metrics["figures"]["guided_temporal"], metrics["figures"]["as recorded"]
    assert metrics["recording"]["unmeasured_share"] == pytest.approx(8 * 10 / (H * W), rel=1e-3)
    assert recorded["hidden_mae_cm"] is None
    assert recorded["holes_filled"] == 0
    assert ours["holes_filled"] == 1
    assert ours["changed_share"] == 0
    assert ours["changed_cm"] < 0.1
    assert ours["hidden_mae_cm"] < 30  # the step from the box to the wall is 80 cm
    page = (tmp_path / "report.html").read_text()
    assert page.index(metrics["recording"]["verdict"][:40]) < page.index("frames scored")
    assert "judged by itself" in page
    assert "flicker in holes" in page
    assert metrics["frames"]["scored"] == FRAMES


def test_the_method_that_auto_takes_is_named(bag, tmp_path):
    metrics = evaluate(bag, tmp_path, "--self", "--method", "auto")
    assert metrics["method"] == metrics["run"]["method"] == "stdnet"


def test_a_recording_whose_depth_is_elsewhere_is_not_judged_by_itself(tmp_path, bag):
    with BagMaker(tmp_path / "run") as maker:
        for i in range(3):
            maker.image(COLOR, BEGIN + i * STEP, np.full((H, W, 3), 128, np.uint8), "rgb8")
            maker.image(DEPTH, BEGIN + i * STEP, np.full((H, W // 4), 2000, np.uint16), "16UC1")
    with pytest.raises(DataError, match=r"not registered to colour .*aligned_depth_to_color"):
        evaluate(tmp_path / "run", tmp_path / "out", "--self")
    with pytest.raises(ConfigError, match="remove --scale"):
        evaluate(bag, tmp_path / "out", "--self", "--scale", "4")


def test_a_reference_topic_is_the_truth(tmp_path):
    with BagMaker(tmp_path / "run") as bag:
        for i in range(5):
            stamp = BEGIN + i * STEP
            color, _ = scene(i)
            bag.info(COLOR_INFO, stamp)
            bag.image(COLOR, stamp, color, "rgb8")
            bag.image("/tof/depth", stamp, np.full((H // 8, W // 8), 2100, np.uint16), "16UC1")
            if i != 2:
                bag.image("/truth", stamp + 3_000_000, np.full((H, W), 2000, np.uint16), "16UC1")
    metrics = evaluate(tmp_path / "run", tmp_path / "out", "--depth", "/tof/depth", "--reference", "/truth")
    assert metrics["figures"]["joint_bilateral"]["mae_cm"] == pytest.approx(10.0, rel=1e-4)
    assert metrics["frames"]["scored"] == 4
    assert metrics["frames"]["without reference"] == 1


def test_parts_of_a_bag(bag, tmp_path):
    metrics = evaluate(bag, tmp_path, "--start", "0.1", "--duration", "0.35", "--every", "2")
    assert metrics["frames"]["scored"] == 4  # frames 2 to 8, every second one
    with pytest.raises(InputError, match=r"--start 99 is after the end of the bag"):
        evaluate(bag, tmp_path, "--start", "99")


def test_the_written_bag_has_the_originals_and_the_output(evaluated, bag):
    _, _, written = evaluated
    with Bag(written) as out, Bag(bag) as original:
        expected = {"/stdnet/depth/image", "/stdnet/depth/camera_info", "/stdnet/points", "/stdnet/input/depth/image"}
        assert set(out.counts) == expected | set(original.counts)
        assert all(count == FRAMES for count in out.counts.values())
        for topic in (COLOR, DEPTH):
            assert [r.data for r in out.messages([topic])] == [r.data for r in original.messages([topic])]
        depth, info = out.first("/stdnet/depth/image"), out.first("/stdnet/depth/camera_info")
        color = original.first(COLOR)
        assert (depth.height, depth.width, depth.encoding) == (H, W, "32FC1")
        assert depth.header == color.header == info.header
        assert find_topics(out, {}).depth == DEPTH  # not what was made from it


def test_a_bag_is_not_overwritten(evaluated, bag, tmp_path):
    with pytest.raises(DataError, match="exists already"):
        evaluate(bag, tmp_path, "--write-bag", str(evaluated[2]))


def test_ctrl_c_leaves_a_valid_partial_report(bag, tmp_path, monkeypatch):
    add = evaluation.Scorer.add

    def interrupted(self, done):
        if done.frame.index == 5:
            raise KeyboardInterrupt
        return add(self, done)

    monkeypatch.setattr(evaluation.Scorer, "add", interrupted)
    metrics = evaluate(bag, tmp_path, "--write-bag", str(tmp_path / "part.mcap"))
    assert metrics["partial"] is True
    assert metrics["frames"]["scored"] == 5
    assert "Interrupted: this report covers the first 5 frames" in (tmp_path / "report.html").read_text()
    with Bag(tmp_path / "part.mcap") as part:
        assert part.counts["/stdnet/depth/image"] == 5


def damage(kind: str, bag: Path, folder: Path) -> Path:
    """Make a bad bag."""
    copy = folder / "bad"
    if kind == "nothing":
        return copy
    if kind == "empty folder":
        copy.mkdir()
        return copy
    if kind == "garbage":
        (folder / "bad.mcap").write_bytes(b"not a bag" * 50)
        return folder / "bad.mcap"
    shutil.copytree(bag, copy)
    file = next(copy.glob("*.mcap"))
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return copy


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nothing", "no such file or folder; expected a ROS bag"),
        ("empty folder", "no ROS bag in this folder; expected metadata.yaml"),
        ("garbage", "by its first bytes this is neither an mcap file"),
        ("truncated", "holds no messages; bad.mcap is truncated|holds no messages; .* is truncated"),
    ],
)
def test_bad_bags_say_what_was_found_and_what_to_do(kind, words, bag, tmp_path):
    path = damage(kind, bag, tmp_path)
    with pytest.raises(DataError, match=words) as error:
        evaluate(path, tmp_path / "out")
    assert str(path) in str(error.value)


def test_a_lost_metadata_file_is_got_over(bag, tmp_path):
    shutil.copytree(bag, tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").unlink()
    metrics = evaluate(tmp_path / "bag", tmp_path / "out")
    assert metrics["frames"]["scored"] == FRAMES
    assert any("metadata.yaml is missing; read 1 storage file directly" in note for note in metrics["notes"])


def test_missing_topics_are_named_with_what_is_there(tmp_path, bag):
    with BagMaker(tmp_path / "color") as colors:
        colors.image(COLOR, BEGIN, scene(0)[0], "rgb8")
    words = r"no topic with depth .*expected sensor_msgs/msg/Image .*; the bag holds /cam/color"
    with pytest.raises(DataError, match=words):
        evaluate(tmp_path / "color", tmp_path / "out")
    with pytest.raises(DataError, match=r"no messages on /nowhere, given as depth topic; the bag holds"):
        evaluate(bag, tmp_path / "out", "--depth", "/nowhere")
    with pytest.raises(DataError, match=r"/cam/color/image_raw .* holds no depth images"):
        evaluate(bag, tmp_path / "out", "--depth", COLOR)


def test_unsynchronised_clocks_are_said_and_got_over(tmp_path):
    path = write_bag(tmp_path / "run", depth_offset=-7_000_000_000)
    with pytest.raises(DataError, match=r"form no pair in the chosen part: colour stamps are 7.0 s .* --stamps record"):
        evaluate(path, tmp_path / "out")
    metrics = evaluate(path, tmp_path / "out", "--stamps", "record")
    assert metrics["frames"]["scored"] == FRAMES


def test_depth_of_another_size_is_refused_as_truth(tmp_path):
    with BagMaker(tmp_path / "run") as bag:
        for i in range(3):
            bag.image(COLOR, BEGIN + i * STEP, scene(i)[0], "rgb8")
            bag.image(DEPTH, BEGIN + i * STEP, scene(i)[1][::2, ::2], "16UC1")
    with pytest.raises(DataError, match="the truth is 32x24 and colour 64x48; expected the same size"):
        evaluate(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize("values", [0, np.nan])
def test_depth_without_a_valid_pixel_is_an_error(values, tmp_path):
    with BagMaker(tmp_path / "run") as bag:
        for i in range(3):
            depth = np.full((H, W), values, np.float32)
            bag.image(COLOR, BEGIN + i * STEP, scene(i)[0], "rgb8")
            bag.image(DEPTH, BEGIN + i * STEP, depth, "32FC1")
    with pytest.raises(DataError, match=f"nothing could be judged: {DEPTH} is 0 or not finite in every pixel"):
        evaluate(tmp_path / "run", tmp_path / "itself", "--self")
    with pytest.raises(DataError, match=f"{DEPTH} is 0 or not finite in every pixel of 3 frames"):
        evaluate(tmp_path / "run", tmp_path / "out")


def test_depth_that_no_method_can_give_is_not_called_empty(tmp_path):
    with BagMaker(tmp_path / "run") as bag:
        for i in range(3):
            bag.image(COLOR, BEGIN + i * STEP, scene(i)[0], "rgb8")
            bag.image(DEPTH, BEGIN + i * STEP, scene(i)[1].astype(np.float32), "32FC1")  # millimetres
    with pytest.raises(DataError, match=r"no pixel has a depth in .* and from every method; is the depth in metres"):
        evaluate(tmp_path / "run", tmp_path / "out", "--depth-unit", "1")
    with pytest.raises(DataError, match=r"median of 2000, interpreted as metres.*--depth-unit"):
        evaluate(tmp_path / "run", tmp_path / "out")
    metrics = evaluate(tmp_path / "run", tmp_path / "out", "--depth-unit", "0.001")
    assert metrics["frames"]["scored"] == 3


def test_one_damaged_image_is_left_out_and_said(tmp_path):
    with BagMaker(tmp_path / "run") as bag:
        for i in range(4):
            color, depth = scene(i)
            bag.image(COLOR, BEGIN + i * STEP, color, "rgb8" if i != 1 else "nonsense")
            bag.image(DEPTH, BEGIN + i * STEP, depth, "16UC1")
    metrics = evaluate(tmp_path / "run", tmp_path / "out")
    assert metrics["frames"]["scored"] == 3
    assert metrics["frames"]["unusable"] == 1
    assert any("nonsense" in note for note in metrics["notes"])


def test_the_node_s_parameter_file_rules(tmp_path, bag):
    file = tmp_path / "params.yaml"
    file.write_text("/**:\n  ros__parameters:\n    method: nearest\n    sync_slop: 0.01\n    points: {stride: 2}\n")
    settings, values = make_settings(file, {"latency_frames": 1})
    assert (settings.method, settings.points_stride, settings.latency_frames) == ("nearest", 2, 1)
    assert values["points.stride"] == 2
    metrics = evaluate(bag, tmp_path / "out", "--params-file", str(file), "--duration", "0.2")
    assert metrics["method"] == "nearest"
    file.write_text("/**:\n  ros__parameters:\n    metod: nearest\n")
    with pytest.raises(ConfigError, match="no parameter metod"):
        make_settings(file, {})
    file.write_text("other_node:\n  ros__parameters:\n    method: nearest\n")
    with pytest.raises(ConfigError, match=r"no ros__parameters for the node; .*found other_node"):
        make_settings(file, {})


def test_a_live_replay_gives_what_the_deterministic_run_gives(bag, tmp_path):
    """Real topics, a real node process, simulated time; slow enough that nothing is lost on a busy machine."""
    metrics = evaluate(bag, tmp_path, "--scale", "4", "--live", "--rate", "0.1")
    live = metrics["live"]
    assert live["published"] == FRAMES
    assert live["processed"] + sum(n for c, n in live["dropped"].items() if not c.startswith("depth_")) == FRAMES
    assert live["processed"] >= FRAMES - 2
    agreement = Counter(live["agreement"])
    assert agreement["compared"] == agreement["equal_windows"] == agreement["agreeing"] == live["processed"]
    assert agreement["largest_m"] <= 1e-6
    assert 0 < live["latency_ms"]["p50"] < 5000
    assert "Live run" in (tmp_path / "report.html").read_text()
    assert not list(tmp_path.glob("stdnet_live_*"))


def test_ctrl_c_during_a_replay_leaves_what_came_back(bag, tmp_path):
    """A real SIGINT to the real command, once the first depth has come back from the node."""
    output = tmp_path / "out"
    command_line = [str(bag), "--output", str(output), *QUIET, "--method", "joint_bilateral", "--scale", "4"]
    command_line += ["--live", "--rate", "0.002", "--write-bag", str(tmp_path / "part.mcap")]  # 5 minutes if it is left
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stdnet_ros.evaluate_bag", *command_line],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[3],
            start_new_session=True,
        )
    try:
        heard, deadline = output / "recorder.log", time.monotonic() + 120
        while not (heard.exists() and "the first depth image was received" in heard.read_text()):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        status = process.wait(120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    text = (tmp_path / "log").read_text()
    assert status == 130, text
    metrics = json.loads((output / "metrics.json").read_text())
    live = metrics["live"]
    assert metrics["partial"] is live["interrupted"] is True
    assert 1 <= metrics["frames"]["scored"] == live["processed"] <= live["published"] < FRAMES
    html = (output / "report.html").read_text()
    assert f"Interrupted during the live replay after {live['published']} frames were published" in html
    assert "Open" in text
    assert len((output / "per_frame.csv").read_text().splitlines()) == live["processed"] + 1
    assert not list(output.glob("stdnet_live_*"))
    with Bag(tmp_path / "part.mcap") as part:
        assert part.counts["/stdnet/depth/image"] == live["processed"]
