"""The judge and its command, on small clips made here: the arithmetic by hand, and the command as it is used."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from stdnet_core import ModelConfig, STDNet, accuracy, checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_folder import write_folder
from stdnet_core.data.sensors.cell import JUDGED, STANDING, Cell
from stdnet_core.data.sensors.presets import PRESETS
from stdnet_core.data.synthetic import render_clip
from stdnet_core.errors import ConfigError, DataError
from stdnet_core.evaluation import judge, librealsense
from stdnet_core.evaluation.judge import ALONE, Task
from stdnet_core.evaluation.sequence import EvaluationFrame

SMALL = ["--frames", "3", "--size", "64x96", "--clips", "2"]
CELLS = ["--cell", "exact@1,realsense_d435@1", "--cell", "area@8"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accuracy")
    for number, name in enumerate(("level_a", "level_b")):
        write_folder(render_clip(number, 3, 64, 96), folder / "clips" / name)
    (folder / "heldout.txt").write_text("# chosen before training\nlevel_b\n")
    config = ModelConfig.preset("tiny_causal", channels=4, head_channels=4)
    model = STDNet(config)
    model.zero_init_heads()
    checkpoints.save(folder / "untrained.safetensors", model, CheckpointInfo(config, (4, 8, 16), None))
    return folder


def options(files, *more: str) -> list[str]:
    return [
        *("--checkpoint", str(files / "untrained.safetensors"), "--procedural", "none", *SMALL),
        *("--rendered", str(files / "clips"), "--heldout", str(files / "heldout.txt"), *more),
    ]


@pytest.fixture(scope="module")
def done(files):
    """The command's results in one process, with all that it can write."""
    path = files / "one.json"
    more = ["--real", str(files / "clips"), "--json", str(path), "--workers", "1"]
    more += ["--markdown", str(files / "one.md"), "--picture", str(files / "one.png")]
    assert accuracy.main(options(files, *CELLS, *more)) == 0
    return json.loads(path.read_text())


def test_every_method_in_every_cell_that_suits_the_data(done, files):
    names = {key: set(result["figures"]) for key, result in done["results"].items()}
    ours = {"untrained", "untrained" + ALONE, "guided_temporal", "guided_temporal" + ALONE}
    rivals = {"nearest", "bilinear", "joint_bilateral"}
    fine = rivals | ({"librealsense"} if librealsense.installed() else set())
    assert names == {
        "exact@1 rendered 0": ours | fine,
        "realsense_d435@1 rendered 0": ours | fine,
        "area@8 rendered 0": ours | rivals,
        "area@8 real 0": ours | rivals,
        "area@8 real 1": ours | rivals,
        "standing realsense_d435@1 rendered 0": ours,
    }
    assert done["results"]["area@8 rendered 0"]["sequence"].endswith("level_b")
    summary = done["summary"]["methods"]["guided_temporal"]
    assert summary["worst"]["rmse_cm"]["ratio"] >= summary["mean"]["rmse_cm"] > 0
    assert set(done["summary"]["history"]) == {
        f"{name}{still}" for name in ("untrained", "guided_temporal") for still in ("", ", standing")
    }
    text = (files / "one.md").read_text()
    assert "| stereo under x4, holes | guided_temporal |" in text
    assert "area@8" in text
    assert "realsense_d435@1" in text
    for name in ("one.png", "one_history.png"):
        assert cv2.imread(str(files / name)).std() > 5


def test_faultless_depth_comes_back_from_the_filter(done):
    figures = done["results"]["exact@1 rendered 0"]["figures"]["guided_temporal"]
    assert figures["rmse_cm"] < 0.2  # 2 mm


def test_two_processes_find_the_same(done, files):
    path = files / "two.json"
    assert accuracy.main(options(files, "--cell", "area@8", "--json", str(path), "--workers", "2")) == 0
    result = json.loads(path.read_text())["results"]["area@8 rendered 0"]["figures"]
    for method, figures in done["results"]["area@8 rendered 0"]["figures"].items():
        for name, value in figures.items():
            if name != "ms_per_frame":
                assert result[method][name] == pytest.approx(value, rel=1e-4), (method, name)


def test_goes_on_where_it_was(files, monkeypatch, capsys):
    path = files / "resumed.json"
    command = options(files, "--cell", "area@8", "--json", str(path), "--workers", "1")
    accuracy.main(command)
    before = capsys.readouterr().out
    monkeypatch.setattr(judge.Judge, "run", lambda self, task: pytest.fail(f"{task} was run again"))
    accuracy.main(command)
    assert capsys.readouterr().out == before


def test_files_of_others_are_not_overwritten(files):
    path = files / "other.json"
    path.write_text('{"my": "data"}')
    with pytest.raises(ConfigError, match="not a file of this command"):
        accuracy.main(options(files, "--cell", "area@8", "--json", str(path)))
    assert path.read_text() == '{"my": "data"}'
    settings = files / "settings.json"
    accuracy.main(options(files, "--cell", "area@8", "--json", str(settings), "--workers", "1"))
    with pytest.raises(ConfigError, match="other settings"):
        accuracy.main([*options(files, "--cell", "area@8", "--json", str(settings)), "--frames", "2"])


def test_ctrl_c_leaves_what_was_done(files):
    path = files / "interrupted.json"
    command = [sys.executable, "-m", "stdnet_core.accuracy", *options(files, "--json", str(path), "--workers", "1")]
    # A process that was started in the background ignores SIGINT, and so would this one's children.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 60
    while not path.is_file() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    text = None
    while text is None and time.monotonic() < end + 60:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that comes during a destructor is lost: once more
            text, _ = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "interrupted" in text
    assert 0 < len(json.loads(path.read_text())["results"]) < len(JUDGED)


def test_a_listing_without_matches_is_an_error(files):
    (files / "other.txt").write_text("level_z\n")
    with pytest.raises(DataError, match="none of the 1 clips"):
        accuracy.held_out([files / "clips"], files / "other.txt")
    with pytest.raises(DataError, match=r"there is no list of held-out clips .*nowhere\.txt; give one with --heldout"):
        accuracy.held_out([files / "clips"], files / "nowhere.txt")


def test_networks_of_one_name_are_refused(files):
    path = str(files / "untrained.safetensors")
    with pytest.raises(ConfigError, match="two methods are called 'untrained'; rename"):
        judge.Judge([], [path, path])


def test_cells_that_no_recording_can_have_are_refused(files):
    data = ["--procedural", "none", "--real", str(files / "clips"), "--cell", "realsense_d435@1", "--no-standing"]
    with pytest.raises(ConfigError, match="no cell fits the data: on recordings, only reductions and dToF"):
        accuracy.main(["--checkpoint", str(files / "untrained.safetensors"), *SMALL, *data])


@pytest.mark.parametrize("size", ["96", "axb", "31x96", "96x31", "96 x 64"])
def test_sizes_have_two_sides_of_32_or_more(size, capsys):
    with pytest.raises(SystemExit):
        accuracy.main(["--size", size])
    assert f"'{size}' is not HxW in pixels, at least 32 each, such as 240x320" in capsys.readouterr().err


# --- by hand ---------------------------------------------------------------------------------------------------------


def result(methods: dict[str, tuple[float, float]], prefix: str = "") -> dict:
    """A task's result with RMSE and MAE of each method; every other figure is unknown."""
    nothing = dict.fromkeys((*judge.FIGURES, "ms_per_frame"), math.nan)
    figures = {m: nothing | {f"{prefix}rmse_cm": r, f"{prefix}mae_cm": a} for m, (r, a) in methods.items()}
    by_frame = {
        m: {"rmse_cm": [r, 2 * r], "mae_cm": [a, 2 * a], "flicker_cm": [math.nan, 1.0]} for m, (r, a) in methods.items()
    }
    return {"figures": figures, "by_frame": by_frame}


def test_rows_are_geometric_means_and_ratios_to_the_best_rival():
    tasks = [Task(Cell.parse("area@8"), "rendered", 0), Task(Cell.parse("area@8"), "rendered", 1)]
    results = {
        tasks[0].key: result({"ours": (2.0, 1.0), "nearest": (4.0, 4.0), "bilinear": (1.0, 2.0)}),
        tasks[1].key: result({"ours": (8.0, 1.0), "nearest": (1.0, 4.0), "bilinear": (4.0, 8.0)}),
    }
    (row,) = judge.rows_of(results, tasks)
    assert (row.region, row.figures["ours"]["rmse_cm"]) == ("all", pytest.approx(4))
    assert row.rival["rmse_cm"] in ("nearest", "bilinear")  # both have 2
    assert row.ratio("ours", "rmse_cm") == pytest.approx(2)
    assert row.ratio("ours", "mae_cm") == pytest.approx(1 / 4)  # nearest and bilinear have 4
    assert math.isnan(row.ratio("ours", "tepe_cm"))
    assert judge.rows_of({}, tasks) == []


def test_measured_pixels_and_holes_are_judged_apart_where_depth_is_fine():
    task = Task(Cell.parse("oakd@2"), "rendered", 0)
    both = result({"ours": (1.0, 1.0), "bilinear": (2.0, 2.0)}, "measured_")
    for method, (rmse, mae) in {"ours": (6.0, 6.0), "bilinear": (3.0, 3.0)}.items():
        both["figures"][method] |= {"hole_rmse_cm": rmse, "hole_mae_cm": mae}
    rows = judge.rows_of({task.key: both}, [task])
    assert [row.region for row in rows] == ["measured", "holes"]
    assert [row.ratio("ours", "rmse_cm") for row in rows] == pytest.approx([0.5, 2.0])
    rows = judge.rows_of({task.key: result({"ours": (1.0, 1.0), "bilinear": (2.0, 2.0)}, "measured_")}, [task])
    assert [row.region for row in rows] == ["measured"]  # a camera without holes


def test_a_bad_cell_is_named_and_faultless_ones_do_not_count():
    cells = {"area@8": 0.5, "median@8": 2.0}
    tasks = [Task(Cell.parse(name), "rendered", 0) for name in (*cells, "exact@1")]
    results = {
        task.key: result({"ours": (ratio, 1.0), "bilinear": (1.0, 1.0)})
        for task, ratio in zip(tasks, cells.values(), strict=False)
    }
    results[tasks[2].key] = result({"ours": (3.0, 3.0), "bilinear": (0.0, 0.0)}, "measured_")
    rows = judge.rows_of(results, tasks)
    assert [row.faultless for row in rows] == [False, False, True]
    summary = judge.summarize(rows, "ours")
    assert summary.mean["rmse_cm"] == pytest.approx(1)
    assert summary.worst["rmse_cm"] == (pytest.approx(2), "median@8 rendered all")


def test_kinds_of_cameras_are_summed_up_apart():
    names = ("oakd@2", "area@8", "median@8", "dtof_paper@8", "exact@1")
    tasks = [Task(Cell.parse(name), "rendered", 0) for name in names] + [Task(Cell.parse("area@8"), "real", 0)]
    figures = {"ours": (2.0, 1.0), "bilinear": (1.0, 1.0)}
    results = {task.key: result(figures) for task in tasks}
    results[tasks[0].key] = result(figures, "measured_")
    results[tasks[2].key] = result({"ours": (0.5, 1.0), "bilinear": (1.0, 1.0)})
    results[tasks[4].key] = result({"ours": (3.0, 3.0), "bilinear": (0.0, 0.0)}, "measured_")
    kinds = judge.by_kind(judge.rows_of(results, tasks))
    assert {kind: [str(row.cell) for row in rows] for kind, rows in kinds.items()} == {
        "stereo under x4, measured": ["oakd@2"],
        "reductions from x4 on": ["area@8", "median@8"],
        "direct time of flight from x4 on": ["dtof_paper@8"],
        "reductions from x4 on, of recordings": ["area@8"],
    }
    assert judge.summarize(kinds["reductions from x4 on"], "ours").mean["rmse_cm"] == pytest.approx(1)


def test_history_gain_is_with_over_without():
    task = Task(Cell.parse("area@8"), "rendered", 0)
    figures = result({"ours": (1.0, 3.0), "ours" + ALONE: (2.0, 2.0)})
    figures["by_frame"]["ours"]["mae_cm"][-1] = 1.0
    gain = judge.history_gain({task.key: figures}, [task], "ours")
    assert gain["cells"]["area@8"]["rmse_cm"] == pytest.approx(0.5)
    assert gain["cells"]["area@8"]["mae_cm"] == pytest.approx(1.5)
    assert gain["frames"]["rmse_cm"] == pytest.approx([0.5, 0.5])
    assert gain["frames"]["mae_cm"] == pytest.approx([1.5, 0.25])
    assert gain["last_frame"]["area@8"]["mae_cm"] == pytest.approx(0.25)
    assert judge.history_gain({}, [task], "ours")["cells"] == {}


def test_recordings_are_not_given_the_faults_of_other_cameras():
    tasks = judge.tasks_of({"real": 2, "rendered": 1}, JUDGED, STANDING)
    families = {PRESETS[task.cell.camera].sensor.family for task in tasks if task.group == "real"}
    assert families == {"reduction", "dtof"}
    assert all(task.cell.ratio >= 4 and not task.standing for task in tasks if task.group == "real")
    assert {task.cell for task in tasks if task.standing} == set(STANDING)
    assert len({task.key for task in tasks}) == len(tasks)


def test_a_standing_camera_sees_one_frame_with_new_noise():
    clip = render_clip(0, 2, 32, 48)
    still = judge.standing(clip, 4)
    assert len(still) == 4
    assert (still.depth == clip.depth[0]).all()
    assert (still.flow == 0).all()
    change = (still.rgb[1:] - still.rgb[:-1])[(still.rgb[1:] > 0.05) & (still.rgb[1:] < 0.95)]
    assert float(change.std()) == pytest.approx(math.sqrt(2) * 1.5 / 255, rel=0.05)


def test_clips_are_cut_around_their_middle():
    clip = render_clip(0, 3, 40, 60)
    cut = judge.read_clip(judge.ClipSequence(clip), 2, (32, 100))
    assert (len(cut), cut.frame_size) == (2, (32, 60))
    assert torch.equal(cut.depth, clip.depth[:2, :, 4:36])


@pytest.mark.parametrize("there", [True, False])
def test_a_missing_rival_is_said_and_not_mixed_with_others(there, files, tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.json"
    monkeypatch.setattr(librealsense, "installed", lambda: there)
    fine = options(files, "--cell", "exact@1,area@8", "--json", str(path), "--workers", "1", "--no-standing")
    monkeypatch.setattr(librealsense, "suits", lambda ratio: False)
    assert accuracy.main(fine) == 0
    assert "librealsense" not in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(librealsense, "installed", lambda: not there)
    with pytest.raises(ConfigError, match="other settings"):
        accuracy.main(fine)
    said = "librealsense's filters are not among the rivals" in capsys.readouterr().err
    assert said == there  # this time it is the other way round


def test_a_library_that_cannot_be_loaded_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "pyrealsense2.py").write_text("raise ImportError('libusb-1.0.so.0: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyrealsense2", raising=False)
    assert not librealsense.installed()


@pytest.mark.skipif(not librealsense.installed(), reason="pyrealsense2 is not installed")
def test_librealsense_runs_its_filters():
    filters = librealsense.LibrealsenseFilters()
    depth = np.full((48, 64), 2.0, np.float32)
    depth[20:24, 30:36] = 0
    noisy = np.where(depth > 0, depth + 0.01 * np.random.default_rng(0).standard_normal(depth.shape), 0)
    colour = np.zeros((96, 128, 3), np.uint8)
    last = [filters.step(colour, noisy.astype(np.float32)).depth for _ in range(5)][-1]
    assert last.shape == (96, 128)
    assert last[40:48, 60:72] == pytest.approx(2.0, abs=0.05)  # the hole
    assert last.std() < 0.5 * noisy[depth > 0].std()
    filters.reset()
    assert filters.step(colour, depth).depth == pytest.approx(2.0, abs=2e-3)


def test_every_frame_s_own_figures_are_those_of_the_frame_alone():
    clip = render_clip(3, 3, 48, 64)
    frames: list[EvaluationFrame] = []
    from stdnet_core.data.protocol import LowResolution
    from stdnet_core.evaluation.methods import Runner
    from stdnet_core.evaluation.sequence import evaluate_sequence

    low = LowResolution(4, sensor=PRESETS["area"].sensor)
    outputs = []
    evaluated = evaluate_sequence(
        judge.ClipSequence(clip),
        {"bilinear": Runner.classical("bilinear", "cpu")},
        low,
        by_frame=True,
        on_frame=lambda i, frame, scored: (frames.append(frame), outputs.append(scored.predictions["bilinear"])),
    )
    for frame, output, figures in zip(frames, outputs, evaluated.by_frame, strict=True):
        known = frame.target > 0
        error = 100 * np.abs(output - frame.target)[known]
        assert figures["bilinear"]["mae_cm"] == pytest.approx(error.mean(), rel=1e-4)
        assert figures["bilinear"]["rmse_cm"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)


def test_a_forgetful_runner_begins_anew_with_every_frame():
    from stdnet_core.evaluation.methods import Runner
    from stdnet_core.inference import DepthUpsampler

    clip: RgbdClip = judge.standing(render_clip(1, 1, 64, 96), 4)
    rng = np.random.default_rng(0)
    noisy = [(clip.depth[0, 0].numpy() * (1 + 0.01 * rng.standard_normal((64, 96)))).astype(np.float32) for _ in "1234"]
    rgb = (clip.rgb[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    runner = Runner(DepthUpsampler(method="guided_temporal", mask_unsupported=False), forgetful=True)
    runner.begin()
    for depth in noisy:
        runner.step(rgb, depth)
        alone = DepthUpsampler(method="guided_temporal", mask_unsupported=False).step(rgb, depth)
        assert np.array_equal(runner.pop()[0], alone.depth)


@pytest.mark.parametrize("name", checkpoints.available())
def test_shipped_checkpoints_say_what_they_are_and_run(name):
    model, info = checkpoints.load(name)
    assert info.name == name
    assert info.recurrent
    assert info.provenance["data"]
    assert info.provenance["step"] > 0
    rgb, flow = torch.rand(1, 2, 3, 32, 32), torch.zeros(1, 2, 2, 8, 8)
    for ratio in (1, 2, 8):
        with torch.inference_mode():
            out = model(rgb, torch.full((1, 2, 1, 32 // ratio, 32 // ratio), 2.5), flow, (float(ratio),) * 2)
        assert (out.depth - 2.5).abs().max() < 1e-3
