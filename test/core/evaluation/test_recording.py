"""Judging a recording by itself: every figure against what it must be on frames made for it."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch

from stdnet_core import evaluate
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_folder import write_folder
from stdnet_core.data.sensors import sensor, simulate
from stdnet_core.data.synthetic import render_clip
from stdnet_core.errors import ConfigError, DataError, InputError
from stdnet_core.evaluation.hidden_patches import hidden_patches
from stdnet_core.evaluation.judge import ClipSequence, standing
from stdnet_core.evaluation.methods import Runner
from stdnet_core.evaluation.recording import AS_RECORDED, Cells, RecordedFrame, RecordingScore, judge_recording
from stdnet_core.report.recording_report import recording_verdict

H, W = 120, 160
NOTHING_HIDDEN = np.zeros((H, W), bool)


def texture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(60, 200, (H, W, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def wall(metres: float = 2.0) -> np.ndarray:
    return np.full((H, W), metres, np.float32)


def figures_of(frames, method: str = "ours"):
    score = RecordingScore([method])
    for frame in frames:
        score.add(frame)
    return score.figures(), score


@pytest.mark.parametrize("size", [(480, 640), (120, 160), (30, 40), (8, 8)])
def test_patches_are_hidden_in_three_sizes_and_fixed_places(size):
    hidden = hidden_patches(size)
    assert hidden.shape == size
    assert np.array_equal(hidden, hidden_patches(size))
    assert 0.03 < hidden.mean() < 0.2
    _, _, stats, _ = cv2.connectedComponentsWithStats(hidden.astype(np.uint8), connectivity=4)
    sides = {max(stat[cv2.CC_STAT_WIDTH], stat[cv2.CC_STAT_HEIGHT]) for stat in stats[1:]}
    if size == (480, 640):
        assert {8, 16, 32} <= sides
    assert max(sides) <= max(size[1] / 5, 4)


def test_hidden_errors_are_taken_where_something_was_measured_and_hidden():
    hidden = NOTHING_HIDDEN.copy()
    hidden[10:20, 10:20] = hidden[50:60, 50:60] = True
    recorded = wall()
    recorded[50:60, 50:55] = 0  # hidden, and nothing there
    output = wall()
    output[10:20, 10:20] += 0.30
    output[50:60, 50:60] += 0.10
    output[80:90, 80:90] += 1.0  # not hidden
    shown = np.ones((H, W), bool)
    shown[10:20, 10:15] = False
    table, _ = figures_of([RecordedFrame(texture(), recorded, hidden, {"ours": output}, {"ours": shown})])
    assert table["ours"]["hidden_mae_cm"] == pytest.approx((100 * 30 + 50 * 10) / 150, rel=1e-4)
    assert table["ours"]["hidden_rmse_cm"] == pytest.approx(math.sqrt((100 * 900 + 50 * 100) / 150), rel=1e-4)
    assert table["ours"]["hidden_filled"] == pytest.approx(100 / 150)
    assert math.isnan(table[AS_RECORDED]["hidden_mae_cm"])


def test_holes_filled_are_those_of_the_recording_alone():
    hidden = NOTHING_HIDDEN.copy()
    hidden[:10] = True
    recorded = wall()
    recorded[60:80] = np.nan
    output = wall()
    output[60:65] = np.nan
    table, score = figures_of([RecordedFrame(texture(), recorded, hidden, {"ours": output})])
    assert table["ours"]["holes_filled"] == pytest.approx(15 / 20)
    assert table[AS_RECORDED]["holes_filled"] == 0
    assert score.unmeasured_share == pytest.approx(20 / H)


def test_flicker_is_that_of_standing_parts_with_and_without_a_measurement():
    rgb = texture()
    moved = rgb.copy()
    moved[:40] = 255  # something else is there in the second frame
    recorded = wall()
    recorded[100:] = 0
    second = recorded.copy()
    second[40:100] += 0.02
    first_out, second_out = wall(), wall()
    second_out[:100] += 0.01
    second_out[100:] += 0.05
    second_out[:30] += 3
    table, score = figures_of(
        [
            RecordedFrame(rgb, recorded, NOTHING_HIDDEN, {"ours": first_out}),
            RecordedFrame(moved, second, NOTHING_HIDDEN, {"ours": second_out}),
        ]
    )
    assert table["ours"]["flicker_cm"] == pytest.approx(1.0, rel=1e-3)
    assert table["ours"]["hole_flicker_cm"] == pytest.approx(5.0, rel=1e-3)
    assert table[AS_RECORDED]["flicker_cm"] == pytest.approx(2.0, rel=1e-3)
    assert 0.5 < score.standing_share < 0.75
    assert score.stands


def test_a_moving_camera_has_no_standing_parts():
    big = cv2.resize(texture(), (2 * W, 2 * H))
    frames = [
        RecordedFrame(np.ascontiguousarray(big[60 : 60 + H, x : x + W]), wall(), NOTHING_HIDDEN, {"ours": wall()})
        for x in (40, 45, 50)
    ]
    _, score = figures_of(frames)
    assert not score.stands
    assert score.standing_share < 0.01
    assert "flickers" not in recording_verdict(score, "ours").text


def test_change_is_judged_by_the_sensor_s_own_noise():
    rng = np.random.default_rng(0)
    rgb = texture()

    def frames(change: float):
        for _ in range(8):
            recorded = (wall() + 0.01 * rng.standard_normal((H, W))).astype(np.float32)
            yield RecordedFrame(rgb, recorded, NOTHING_HIDDEN, {"ours": recorded + np.float32(change)})

    table, score = figures_of(frames(0.02))
    (noise,) = score.noise().values()
    assert noise == pytest.approx(1.0, rel=0.25)
    assert table["ours"]["changed_cm"] == pytest.approx(2.0, rel=1e-3)
    assert table["ours"]["changed_share"] == 0
    table, _ = figures_of(frames(0.06))
    assert table["ours"]["changed_share"] > 0.95


def test_faultless_depth_may_change_by_2_mm():
    frames = lambda change: [RecordedFrame(texture(), wall(), NOTHING_HIDDEN, {"ours": wall(2 + change)})] * 3  # noqa: E731
    assert figures_of(frames(0.0015))[0]["ours"]["changed_share"] == 0
    assert figures_of(frames(0.0035))[0]["ours"]["changed_share"] == 1


def test_depth_edges_are_looked_for_near_those_of_colour():
    rgb = np.full((H, W, 3), 60, np.uint8)
    rgb[:, W // 2 :] = 180
    right, wrong = wall(), wall()
    right[:, W // 2 :] = wrong[:, W // 2 + 9 :] = 3.0
    for depth, agreement in ((right, 1.0), (wrong, 0.0)):
        table, _ = figures_of([RecordedFrame(rgb, wall(), NOTHING_HIDDEN, {"ours": depth})])
        assert table["ours"]["edge_agreement"] == agreement
        assert math.isnan(table[AS_RECORDED]["edge_agreement"])  # no edge at all


@pytest.mark.parametrize("cells", [(H, W), (H // 8, W // 8), (16, 21)])
def test_pixels_lie_in_the_cell_that_covers_them(cells):
    where = Cells((H, W), cells)
    numbers = np.arange(math.prod(cells)).reshape(cells)
    spread = where.spread(numbers)
    ratio = H / cells[0]
    for row in (0, 7, 63, H - 1):
        for column in (0, 11, 100, W - 1):
            expected = int((row + 0.5) / ratio) * cells[1] + min(int((column + 0.5) / (W / cells[1])), cells[1] - 1)
            assert spread[row, column] == expected
    assert int(where.centres.sum()) == math.prod(cells)
    assert sorted(spread[where.centres]) == list(range(math.prod(cells)))


def test_sizes_must_stay():
    score = RecordingScore(["ours"])
    with pytest.raises(InputError, match="not colour's size"):
        score.add(RecordedFrame(texture(), wall(), NOTHING_HIDDEN, {"ours": wall()[:60]}))
    score.add(RecordedFrame(texture(), wall(), NOTHING_HIDDEN, {"ours": wall()}))
    with pytest.raises(InputError, match=r"colour of \(60, 160\) follows one of \(120, 160\); sizes must not change"):
        score.add(RecordedFrame(texture()[:60], wall()[:60], NOTHING_HIDDEN[:60], {"ours": wall()[:60]}))


def test_a_recording_without_depth_is_refused():
    clip = render_clip(0, 2, 48, 64)
    dark = RgbdClip(clip.rgb, clip.depth * 0, clip.valid & False, name="dark")
    runners = {"nearest": Runner.classical("nearest", "cpu")}
    with pytest.raises(DataError, match="dark: no frame has any depth; evaluation needs some"):
        judge_recording(ClipSequence(dark), runners, RecordingScore(["nearest"]))


def test_the_verdict_says_what_is_worse():
    def score(hidden: float, other: float, flicker: float, change: float) -> RecordingScore:
        made = RecordingScore(["ours", "other"])
        patch = NOTHING_HIDDEN.copy()
        patch[20:40, 20:40] = True
        for t in range(4):
            recorded = wall(2 + 0.02 * (t % 2))
            ours = wall(2 + flicker * (t % 2)) + np.float32(change)
            ours[patch], theirs = recorded[patch] + hidden, recorded + other
            made.add(RecordedFrame(texture(), recorded, patch, {"ours": ours, "other": theirs}))
        return made

    kinds = {
        "better": (0.01, 0.02, 0.001, 0.0),
        "alike": (0.01, 0.01, 0.02, 0.0),
        "worse in patches, steadier": (0.03, 0.01, 0.001, 0.0),
        "worse in patches": (0.03, 0.01, 0.02, 0.0),
        "changes what was measured": (0.01, 0.02, 0.001, 0.5),
    }
    found = {name: recording_verdict(score(*values), "ours").kind for name, values in kinds.items()}
    assert list(found.values()) == ["good", "good", "mixed", "bad", "bad"]
    text = recording_verdict(score(*kinds["worse in patches"]), "ours").text
    assert "RMSE 3.00 cm (other: 1.00)" in text


def noisy_recording(frames: int = 6) -> tuple[RgbdClip, RgbdClip]:
    """A standing camera of stereo noise over a rendered scene, and the truth."""
    truth = standing(render_clip(2, 1, 128, 160), frames)
    noisy = simulate(sensor("realsense_d435"), truth.depth, truth.rgb, ratio=1, focal_px=150.0, seed=3)
    from dataclasses import replace

    return replace(truth, depth=noisy, valid=noisy > 0, flow=None), truth


def test_what_is_judged_without_a_truth_is_what_the_truth_says():
    """The filter takes flicker out and fills holes better than repeating the nearest."""
    recording, truth = noisy_recording()
    names = ["guided_temporal", "nearest"]
    runners = {name: Runner.classical(name, "cpu") for name in names}
    score = RecordingScore(names)
    errors: dict[str, list[float]] = {name: [] for name in names}

    def compare(judged):
        known = truth.valid[judged.index, 0].numpy() & judged.compared
        for name in names:
            error = judged.frame.outputs[name] - truth.depth[judged.index, 0].numpy()
            errors[name].append(np.abs(error[known]).mean())

    judge_recording(ClipSequence(recording), runners, score, on_frame=compare)
    table = score.figures()
    assert score.frames == len(recording)
    assert table["guided_temporal"]["flicker_cm"] < 0.7 * table[AS_RECORDED]["flicker_cm"]
    assert table["nearest"]["flicker_cm"] == pytest.approx(table[AS_RECORDED]["flicker_cm"], rel=1e-3)
    assert table["nearest"]["changed_share"] == 0
    assert table["guided_temporal"]["changed_share"] < 0.01
    # What the sensor makes wrong, such as fattened edges, is what is hidden, too: the filter's lead is smaller so.
    by_truth = np.mean(errors["guided_temporal"]) / np.mean(errors["nearest"])
    by_itself = table["guided_temporal"]["hidden_rmse_cm"] / table["nearest"]["hidden_rmse_cm"]
    assert by_truth < 0.8
    assert by_truth < by_itself < 1


def test_the_command_with_report_and_json(tmp_path, capsys):
    recording, _ = noisy_recording(4)
    write_folder(recording, tmp_path / "data" / "desk")
    arguments = ["--self", "--data", f"folder:{tmp_path / 'data'}", "--methods", "guided_temporal,bilinear"]
    evaluate.main([*arguments, "--json", str(tmp_path / "o.json"), "--report", str(tmp_path / "report")])
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "o.json").read_text())
    (found,) = content["recordings"].values()
    assert found["frames"] == 4
    assert f"{found['figures']['guided_temporal']['flicker_cm']:.2f}" in printed
    assert found["verdict"] in printed
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.index("where measured depth was hidden") < page.index("<table")
    assert "Noise of the sensor" in page
    assert (tmp_path / "report" / "video.mp4").stat().st_size > 1000
    rows = (tmp_path / "report" / "per_frame.csv").read_text().splitlines()
    assert len(rows) == 5


def test_recordings_without_depth_are_left_out_only_if_that_was_asked_for(tmp_path, capsys):
    clip = render_clip(3, 2, 48, 64)
    dark = RgbdClip(clip.rgb, clip.depth * 0, clip.valid & False, name="dark")
    write_folder(clip, tmp_path / "clips" / "lit")
    write_folder(dark, tmp_path / "clips" / "dark")
    command = ["--self", "--methods", "nearest", "--json", str(tmp_path / "all.json"), "--data"]
    both = [*command, f"folder:{tmp_path / 'clips'}"]
    with pytest.raises(DataError, match="dark: no frame has any depth"):
        evaluate.main(both)
    evaluate.main([*both, "--skip-bad"])
    report = json.loads((tmp_path / "all.json").read_text())
    assert list(report["recordings"]) == ["lit"]
    assert len(report["skipped"]) == 1
    assert f"left out: {report['skipped'][0]}" in capsys.readouterr().out
    with pytest.raises(DataError, match="no sequence could be judged; the first problem was: dark: no frame has any"):
        evaluate.main([*command, f"folder:{tmp_path / 'clips' / 'dark'}", "--skip-bad"])


def test_the_network_asked_for_is_the_one_that_is_judged(tmp_path):
    recording, _ = noisy_recording(2)
    write_folder(recording, tmp_path / "data" / "desk")
    settings = ["--data", f"folder:{tmp_path / 'data'}", "--checkpoint", "live", "--methods", "model,nearest"]
    evaluate.main(["--self", *settings, "--json", str(tmp_path / "o.json")])
    (found,) = json.loads((tmp_path / "o.json").read_text())["recordings"].values()
    assert found["figures"]["model"]["flicker_cm"] < found["figures"]["nearest"]["flicker_cm"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--scale", "8"], "uses depth unchanged"),
        (["--sensor", "area"], "simulates no sensor"),
        (["--lr", "disk", "--scale", "4,8"], "one --scale at a time"),
    ],
)
def test_contradictions_are_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        evaluate.main(["--self", *more])


def test_low_resolution_depth_is_judged_at_its_own_resolution():
    clip = render_clip(2, 3, 96, 128)
    from dataclasses import replace

    low = simulate(sensor("area"), clip.depth, clip.rgb, ratio=8, seed=0)
    recording = replace(clip, depth=torch.zeros_like(clip.depth), valid=torch.zeros_like(clip.valid), depth_lr=low)
    score = RecordingScore(["bilinear"])
    judge_recording(ClipSequence(recording), {"bilinear": Runner.classical("bilinear", "cpu")}, score)
    assert 0 < score.figures()["bilinear"]["hidden_mae_cm"] < 100
    assert score.unmeasured_share == 0
