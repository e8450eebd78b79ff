"""Predictions read from files: their figures are those of the arrays, whatever the layout, and misfits are named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_evaluate import images, moving_box

from stdnet_core import evaluate, predict
from stdnet_core.errors import ConfigError, DataError
from stdnet_core.evaluation.scoring import ScoredFrame, VideoScore

FRAMES = 5
NAMES = ("office/Hard/P000", "office/Hard/P001")


@pytest.fixture
def data(tmp_path) -> Path:
    """Two TartanAir trajectories of the same moving box."""
    clip = moving_box(frames=FRAMES)
    for name in NAMES:
        folder = tmp_path / "tartan" / name
        for part in ("image_left", "depth_left", "flow"):
            (folder / part).mkdir(parents=True)
        for i, image in enumerate(images(clip)):
            cv2.imwrite(str(folder / f"image_left/{i:06d}_left.png"), image)
            np.save(folder / f"depth_left/{i:06d}_left_depth.npy", clip.depth[i, 0].numpy())
            if i:
                flow = clip.flow[i - 1].permute(1, 2, 0).numpy()
                np.save(folder / f"flow/{i - 1:06d}_{i:06d}_flow.npy", flow)
    return tmp_path / "tartan"


def truth() -> np.ndarray:
    return moving_box(frames=FRAMES).depth[:, 0].numpy()


def store(folder: Path, depths: np.ndarray, kind: str = "npy", first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for i, depth in enumerate(depths, first):
        if kind == "npy":
            np.save(folder / f"frame{i}.npy", depth)
        else:
            millimetres = np.nan_to_num(1000 * depth).round().astype(np.uint16)
            assert cv2.imwrite(str(folder / f"{i:06d}.png"), millimetres)
    return folder


def run(tmp_path, data, *arguments):
    out = tmp_path / "figures.json"
    methods = ("--data", f"tartanair:{data}", "--methods", "nearest", "--device", "cpu")
    evaluate.main([*methods, *map(str, arguments), "--json", str(out)])
    return json.loads(out.read_text())


def test_figures_are_those_of_the_arrays(data, tmp_path, capsys):
    depth = truth()
    steps = 0.01 * np.arange(FRAMES, dtype=np.float32)[:, None, None]
    drifting = depth + 0.03 + steps  # errors of 3 to 7 cm, 1 cm more in each frame
    for name in NAMES:
        store(tmp_path / "drifting" / name, drifting, first=3)
        store(tmp_path / "exact" / name.replace("/", "_"), depth, kind="png")
    report = run(
        *(tmp_path, data, "--predictions", f"drifting={tmp_path / 'drifting'}"),
        *("--predictions", f"theirs={tmp_path / 'exact'}", "--pictures", tmp_path / "pictures"),
    )
    assert list(report["mean"]) == ["drifting", "theirs", "nearest"]
    assert report["predictions"] == {"drifting": str(tmp_path / "drifting"), "theirs": str(tmp_path / "exact")}
    figures = report["sequences"][NAMES[1]]
    assert figures["drifting"]["mae_cm"] == pytest.approx(5, rel=1e-4)
    assert figures["drifting"]["rmse_cm"] == pytest.approx(math.sqrt(27), rel=1e-4)  # of 3, 4, 5, 6, 7
    assert figures["drifting"]["flicker_cm"] == pytest.approx(1, rel=1e-3)
    assert 0.9 < figures["drifting"]["tepe_cm"] <= 1.001  # 1 cm wherever something is warped to
    assert figures["theirs"]["mae_cm"] < 0.05  # whole millimetres
    clip = moving_box(frames=FRAMES)
    score = VideoScore(["drifting", "theirs"])
    for i, image in enumerate(images(clip)):
        flow = clip.flow[i - 1].numpy() if i else None
        stored = np.round(1000 * depth[i]).astype(np.float32) / np.float32(1000)
        score.add(ScoredFrame(image[..., ::-1], depth[i], {"drifting": drifting[i], "theirs": stored}, flow=flow))
    for method, expected in score.figures().items():
        for key in ("rmse_cm", "mae_cm", "tepe_cm", "delta1", "edge_rmse_cm", "flicker_cm", "jitter_cm", "coverage"):
            assert figures[method][key] == pytest.approx(expected[key], rel=1e-5, abs=1e-6), (method, key)
        assert figures[method]["ms_per_frame"] is None
        assert figures[method]["confidence_error"] is None
    assert report["notices"] == []
    picture = cv2.imread(str(tmp_path / "pictures" / "office_Hard_P000_x8.png"))
    assert picture.shape[1] > 5 * 240  # colour, input, three methods
    row = next(line for line in capsys.readouterr().out.splitlines() if " drifting " in line)
    assert row.split()[:4] == [NAMES[0], "drifting", "5.20", "5.00"]


def test_pixels_without_depth_count_as_nothing_seen(data, tmp_path):
    depth = truth()
    for value, kind in ((np.nan, "npy"), (0.0, "png")):
        holes = depth.copy()
        holes[:, :, :16] = value  # a quarter
        store(tmp_path / kind, holes, kind)
        report = run(tmp_path, data, "--limit", 1, "--predictions", f"theirs={tmp_path / kind}")
        figures = report["mean"]["theirs"]
        assert figures["coverage"] == pytest.approx(0.75)
        assert figures["mae_cm"] == pytest.approx(100 * depth[:, :, :16].sum() / depth.size, abs=0.05)
        assert report["notices"] == ["theirs: 25 % of its pixels have no depth; those with ground truth count as 0 m"]


def test_what_predict_wrote_is_what_the_method_says(data, tmp_path):
    for source, name in ((f"{data}/office/Hard/P000", "one"), (data, "both")):
        out = ("--output", str(tmp_path / name), "--format", "npy", "--no-video", "--no-preview")
        predict.main(["--input", f"tartanair:{source}", "--scale", "8", "--method", "nearest", *out])
    same = ("--range-m", truth().max())  # predict simulates the range that the depth has
    one = run(tmp_path, data, *same, "--limit", 1, "--max-frames", 3, "--predictions", f"stored={tmp_path / 'one'}")
    both = run(tmp_path, data, *same, "--predictions", f"stored={tmp_path / 'both'}")
    for report in (one, both):
        for key in ("rmse_cm", "mae_cm", "tepe_cm", "coverage"):
            assert report["mean"]["stored"][key] == pytest.approx(report["mean"]["nearest"][key], rel=1e-6)
    assert one["frames"] == {NAMES[0]: 3}
    store(tmp_path / "first", truth()[:3] + 0.02)  # of the frames that are evaluated alone
    first = run(tmp_path, data, "--limit", 1, "--max-frames", 3, "--predictions", f"first={tmp_path / 'first'}")
    assert first["mean"]["first"]["mae_cm"] == pytest.approx(2, rel=1e-4)


def test_a_report_is_about_the_predictions(data, tmp_path):
    depth = truth() + 0.02
    depth[:, :8] = np.nan
    store(tmp_path / "theirs", depth)
    page = tmp_path / "page"
    run(tmp_path, data, "--limit", 1, "--predictions", f"theirs={tmp_path / 'theirs'}", "--report", page)
    html = (page / "report.html").read_text()
    assert "RMSE of theirs" in html
    assert "predictions: theirs" in html
    assert "of its pixels have no depth; those with ground truth count as 0 m" in html
    assert "time per frame" not in html
    assert "nan ms" not in html


def test_misfits_are_named(data, tmp_path, capsys):
    depth = truth()

    def refused(name: str, *more) -> str:
        with pytest.raises(DataError) as caught:
            run(tmp_path, data, "--predictions", f"theirs={tmp_path / name}", *more)
        return str(caught.value)

    one = ("--limit", 1)
    store(tmp_path / "few", depth[:4])
    assert f"few: 4 predictions, expected 5, one for each frame of {NAMES[0]}; the last is" in refused("few", *one)
    assert "frame3.npy" in refused("few", *one)
    store(tmp_path / "gap", depth)
    (tmp_path / "gap" / "frame2.npy").unlink()
    assert f"the number after {tmp_path / 'gap' / 'frame1.npy'} is missing" in refused("gap", *one)
    store(tmp_path / "small", depth)
    np.save(tmp_path / "small" / "frame3.npy", depth[3, :40])
    assert "frame3.npy: the prediction has 64x40 pixels, expected 64x48" in refused("small", *one)
    store(tmp_path / "eight", depth, kind="png")
    cv2.imwrite(str(tmp_path / "eight" / "000001.png"), np.ones((48, 64), np.uint8))
    assert "000001.png: expected a 16-bit single-channel image" in refused("eight", *one)
    np.save(tmp_path / "eight" / "000001.npy", depth[1])
    (tmp_path / "eight" / "000001.png").unlink()
    assert "the predictions are .npy and .png files; keep only one kind" in refused("eight", *one)
    store(tmp_path / "part" / NAMES[0], depth)
    missing = refused("part")
    assert f"part: no predictions for {NAMES[1]}" in missing
    assert "nowhere: no predictions" in refused("nowhere", *one)
    capsys.readouterr()
    report = run(tmp_path, data, "--predictions", f"theirs={tmp_path / 'part'}", "--skip-bad")
    assert list(report["sequences"]) == [NAMES[0]]
    assert report["skipped"] == [missing]


def test_contradictions_are_refused(data, tmp_path):
    folder = store(tmp_path / "theirs", truth())
    with pytest.raises(ConfigError, match="of one scale"):
        run(tmp_path, data, "--scale", "4,8", "--predictions", f"theirs={folder}")
    with pytest.raises(ConfigError, match="theirs is given twice"):
        run(tmp_path, data, "--predictions", f"theirs={folder}", "--predictions", f"theirs={folder}")
    with pytest.raises(ConfigError, match="--self has none"):
        run(tmp_path, data, "--self", "--predictions", f"theirs={folder}")
    for wrong in ("theirs", "=x", "theirs=", "nearest=x"):
        with pytest.raises(SystemExit):
            run(tmp_path, data, "--predictions", wrong)
