"""Evaluation: figures against whole-clip arithmetic, the published layouts, constant memory, and honest reports."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import weakref
from argparse import Namespace
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stdnet_core import checkpoints, evaluate
from stdnet_core.analyses.options import in_question_first
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.protocol import LowResolution
from stdnet_core.data.rgbd_sequence import unique_names
from stdnet_core.data.sensors import sensor, simulate
from stdnet_core.errors import ConfigError, DataError, InputError
from stdnet_core.evaluation import metrics
from stdnet_core.evaluation.methods import Runner
from stdnet_core.evaluation.scoring import ScoredFrame, VideoScore, mean_figures
from stdnet_core.evaluation.sequence import evaluate_sequence, read_frames
from stdnet_core.inference import DepthUpsampler
from stdnet_core.inference.fill import fill_invalid
from stdnet_core.inference.normalization import clip_depth_range
from stdnet_core.model import ModelConfig, STDNet
from stdnet_core.optical_flow import estimate_flow
from stdnet_core.report.evaluation_report import EvaluationReport

SENSOR = sensor("dtof_paper").with_values({"dtof.range_m": 6.0})
GOLDEN = Path(__file__).parents[2] / "golden"
SMALL = ModelConfig(
    channels=4,
    head_channels=4,
    trunk_blocks=1,
    reconstruction_blocks=1,
    fusion_blocks=1,
    passes=("backward", "forward"),
    output="guided_kernel",
)


def moving_box(frames=19, height=48, width=64, seed=0) -> RgbdClip:
    """A box at 1.5 m that moves by 2 px a frame in front of a slope from 2.5 to 4 m, with its exact flow."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.rand(3, height, width, generator=generator)
    texture = F.avg_pool2d(texture, 3, 1, 1)
    box_texture = F.avg_pool2d(torch.rand(3, 20, 16, generator=generator), 3, 1, 1)
    slope = torch.linspace(2.5, 4, width).expand(height, width)
    rgb = texture.repeat(frames, 1, 1, 1)
    depth = slope.repeat(frames, 1, 1, 1)
    flow = torch.zeros(frames - 1, 2, height, width)
    for t in range(frames):
        left = 4 + 2 * t % (width - 24)
        rgb[t, :, 14:34, left : left + 16] = box_texture
        depth[t, :, 14:34, left : left + 16] = 1.5
        if t < frames - 1 and 2 * (t + 1) % (width - 24):
            flow[t, 0, 14:34, left : left + 16] = 2
    return RgbdClip(rgb, depth.clone(), depth > 0, flow=flow, name="box")


class Recording:
    """A sequence that gives parts of a clip and knows how much of them is alive and was asked for."""

    intrinsics = None

    def __init__(self, clip: RgbdClip, length: int | None = None) -> None:
        self.whole = clip
        self.name = clip.name
        self.frame_size = clip.frame_size
        self._length = length or len(clip)
        self._given: list[weakref.ref] = []
        self.most_alive = self.longest = 0

    def __len__(self) -> int:
        return self._length

    def clip(self, start, length, stride=1):
        assert start + (length - 1) * stride < self._length
        frames = [(start + i * stride) % len(self.whole) for i in range(length)]
        rgb = self.whole.rgb[frames].clone()
        self._given.append(weakref.ref(rgb))
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self._given))
        self.longest = max(self.longest, length)
        part = self.whole
        return RgbdClip(
            rgb,
            part.depth[frames],
            part.valid[frames],
            flow=None if part.flow is None else part.flow[[i % len(part.flow) for i in frames[:-1]]],
            depth_lr=None if part.depth_lr is None else part.depth_lr[frames],
            name=self.name,
        )


def by_hand(pred, clip):
    error = 100 * (pred - clip.depth)[clip.valid].double()
    return {"rmse_cm": float(error.square().mean().sqrt()), "mae_cm": float(error.abs().mean())}


def test_figures_are_those_of_the_whole_clip():
    """Reading in parts changes nothing: interpolation, RMSE, MAE, TEPE and flicker of 19 frames at once."""
    clip = moving_box()
    clip.depth[1::2] *= 1.1  # so that depth changes along the flow
    low = LowResolution(8, sensor=SENSOR)
    runners = {name: Runner.classical(name, "cpu") for name in ("nearest", "bilinear")}
    result = evaluate_sequence(Recording(clip), runners, low)
    assert result.frames == 19
    assert result.flow == "true"
    depth_lr = simulate(SENSOR, clip.depth, clip.rgb, 8)
    for name, mode in (("nearest", "nearest-exact"), ("bilinear", "bilinear")):
        pred = F.interpolate(depth_lr, clip.frame_size, mode=mode)
        expected = by_hand(pred, clip)
        collection = metrics.depth_metrics(flow=True, upsampled=True)
        upsampled = F.interpolate(depth_lr, clip.frame_size, mode="bilinear")
        collection.update(pred=pred, target=clip.depth, valid=clip.valid, flow=clip.flow, upsampled=upsampled)
        expected |= {key: float(value) for key, value in collection.compute().items()}
        for key, value in expected.items():
            assert result.figures[name][key] == pytest.approx(value, rel=1e-4), key
        assert result.figures[name]["coverage"] == 1
        assert result.figures[name]["ms_per_frame"] > 0


def test_model_with_full_latency_is_the_whole_clip_network():
    torch.manual_seed(1)
    model = STDNet(SMALL).eval()
    clip = moving_box(frames=12)
    info = checkpoints.CheckpointInfo(SMALL, (8,), None)
    upsampler = DepthUpsampler.from_model(model, info, device="cpu", latency=8, mask_unsupported=False)
    result = evaluate_sequence(Recording(clip), {"model": Runner(upsampler)}, LowResolution(8, sensor=SENSOR))
    depth_lr = simulate(SENSOR, clip.depth, clip.rgb, 8)[None]
    metres = clip_depth_range(depth_lr)
    with torch.no_grad():
        pred = (model(rgb=clip.rgb[None], depth_lr=depth_lr / metres).depth * metres)[0]
    for key, value in by_hand(pred, clip).items():
        assert result.figures["model"][key] == pytest.approx(value, rel=1e-4)
    assert result.frames == 12


def test_withholding_depth_gains_nothing():
    """Where low-resolution depth is missing, methods are scored by what they would have said there."""
    clip = moving_box(frames=3)
    low = clip.depth[..., 4::8, 4::8].clone()
    low[:, :, :, 4:] = 0
    clip = RgbdClip(clip.rgb, clip.depth, clip.valid, depth_lr=low, name="holes")
    runners = {name: Runner.classical(name, "cpu") for name in ("nearest", "joint_bilateral")}
    result = evaluate_sequence(Recording(clip), runners, LowResolution(8, simulated=False))
    pred = F.interpolate(fill_invalid(low), clip.frame_size, mode="nearest-exact")
    assert result.figures["nearest"]["rmse_cm"] == pytest.approx(by_hand(pred, clip)["rmse_cm"], rel=1e-5)
    shown = DepthUpsampler(method="nearest", device="cpu").step(clip.rgb[0].permute(1, 2, 0).numpy(), low[0, 0].numpy())
    share = float(np.isfinite(shown.depth).mean())
    assert 0.4 < share < 0.7
    assert result.figures["nearest"]["coverage"] == pytest.approx(share)
    assert 0 < result.figures["joint_bilateral"]["coverage"] < 1
    assert result.flow == "estimated"
    assert result.range_m is None


def test_memory_does_not_grow_with_the_length():
    sequence = Recording(moving_box(frames=8, height=40, width=48), length=60)
    low = LowResolution(8, sensor=SENSOR)
    model = STDNet(SMALL).eval()
    info = checkpoints.CheckpointInfo(SMALL, (8,), None)
    upsampler = DepthUpsampler.from_model(model, info, device="cpu", latency=2, mask_unsupported=False)
    result = evaluate_sequence(sequence, {"model": Runner(upsampler)}, low)
    assert result.frames == 60
    assert sequence.longest <= 9
    assert sequence.most_alive <= 3


def test_same_low_resolution_depth_for_the_same_seed():
    low = LowResolution(8, sensor=SENSOR.with_values({"dtof.jitter_bins": 4, "faults.dropout": 0.1}), seed=3)

    def run(low):
        runners = {"nearest": Runner.classical("nearest", "cpu")}
        return evaluate_sequence(Recording(moving_box()), runners, low).figures["nearest"]["mae_cm"]

    assert run(low) == run(low)
    assert run(low) != run(LowResolution(8, sensor=low.sensor, seed=4))


def test_what_history_is_worth_can_be_seen(tmp_path):
    report = tmp_path / "figures.json"
    methods = "--checkpoint live --methods model,model_without_history"
    data = "--data synthetic:2000001,1,64x96,4 --sensor kinect_azure --scale 1"
    evaluate.main([*methods.split(), *data.split(), "--json", str(report)])
    figures = json.loads(report.read_text())["mean"]
    assert set(figures) == {"model", "model_without_history"}
    assert figures["model"]["flicker_cm"] < figures["model_without_history"]["flicker_cm"]
    with pytest.raises(ConfigError, match="add model"):
        evaluate.main(["--methods", "model_without_history,bilinear", "--checkpoint", "live"])


def test_confidence_is_off_by_what_it_claims_and_is_not():
    rgb, target = np.zeros((10, 20, 3), np.uint8), np.full((10, 20), 3.0, np.float32)
    target[0] = 0
    depth = target.copy()
    depth[5:] += 0.055  # within 2 % of 3 m
    depth[8:] += 0.1
    confidence = np.full((10, 20), 0.75)  # right in 140 of 180 pixels
    split = np.where(depth > 3.1, 0.35, 0.95)  # right in none of 40, and in all of 140
    score = VideoScore(["flat", "split"])
    score.add(ScoredFrame(rgb, target, dict.fromkeys(("flat", "split"), depth),
                          confidence={"flat": confidence, "split": split}))  # fmt: skip
    figures = score.figures()
    assert figures["flat"]["confidence_error"] == pytest.approx(140 / 180 - 0.75)
    assert figures["split"]["confidence_error"] == pytest.approx((40 * 0.35 + 140 * 0.05) / 180)


def test_scores_of_missing_predictions():
    score = VideoScore(["a", "b"])
    target = np.full((4, 6), 2.0, np.float32)
    target[0] = np.nan
    half = np.full((4, 6), 2.0, np.float32)
    half[:, :3] = np.nan
    rgb = np.zeros((4, 6, 3), np.uint8)
    score.add(ScoredFrame(rgb, target, {"a": half, "b": target}))
    figures = score.figures()
    assert figures["a"]["mae_cm"] == pytest.approx(100)  # half of the valid pixels are 2 m off
    assert figures["a"]["coverage"] == pytest.approx(0.5)
    assert figures["b"]["rmse_cm"] == 0
    assert figures["b"]["coverage"] == 1
    assert math.isnan(figures["b"]["tepe_cm"])
    with pytest.raises(InputError, match="truth"):
        score.add(ScoredFrame(rgb, target[:3], {"a": half, "b": target}))


def test_mean_leaves_out_what_a_sequence_lacks():
    mean = mean_figures({"x": {"m": {"a": 1.0, "b": float("nan")}}, "y": {"m": {"a": 3.0, "b": 5.0}}})
    assert mean == {"m": {"a": 2.0, "b": 5.0}}


def test_estimated_flow_finds_a_shift():
    generator = np.random.default_rng(0)
    image = cv2.GaussianBlur(generator.integers(0, 256, (96, 128, 3)).astype(np.uint8), (0, 0), 2)
    flow = estimate_flow(image, np.roll(image, (2, 3), (0, 1)))
    assert flow.shape == (2, 96, 128)
    inner = flow[:, 20:-20, 20:-20]
    assert np.median(np.abs(inner - np.array([3, 2]).reshape(2, 1, 1))) < 0.3
    assert not estimate_flow(image[:8, :8], image[:8, :8]).any()


# --- the command line, on the published layouts ---------------------------------------------------------------


def images(clip):
    return (clip.rgb * 255).round().byte().permute(0, 2, 3, 1).numpy()[..., ::-1]


@pytest.fixture
def tartanair(tmp_path):
    clip = moving_box(frames=5)
    for name in ("P000", "P001"):
        folder = tmp_path / "tartan" / "office" / "Hard" / name
        for part in ("image_left", "depth_left", "flow"):
            (folder / part).mkdir(parents=True)
        for i, image in enumerate(images(clip)):
            cv2.imwrite(str(folder / "image_left" / f"{i:06d}_left.png"), image)
            np.save(folder / "depth_left" / f"{i:06d}_left_depth.npy", clip.depth[i, 0].numpy())
            if i < 4:
                np.save(folder / "flow" / f"{i:06d}_{i + 1:06d}_flow.npy", clip.flow[i].permute(1, 2, 0).numpy())
    return tmp_path / "tartan"


@pytest.fixture
def dydtof(tmp_path):
    clip = moving_box(frames=4)
    clip.depth[:, :, :4] = 60.0  # beyond the 40 m to which the paper clips this set
    high = tmp_path / "DyDToF_HR_RGB" / "school" / "shot1"
    low = tmp_path / "DyDToF_LR" / "X8" / "school" / "shot1" / "depth"
    for folder in (high / "color", high / "depth", low):
        folder.mkdir(parents=True)
    for i, image in enumerate(images(clip)):
        cv2.imwrite(str(high / "color" / f"shot1.{i:04d}.jpeg"), image)
        np.save(high / "depth" / f"shot1.{i:04d}.npy", clip.depth[i, 0].numpy())
        np.save(low / f"shot1.{i:04d}.npy", clip.depth[i, 0, 4::8, 4::8].clamp(max=40).numpy() + np.float32(0.25))
    return tmp_path


def run(tmp_path, *arguments):
    out = tmp_path / "out" / "figures.json"
    evaluate.main([*map(str, arguments), "--json", str(out), "--device", "cpu"])
    return json.loads(out.read_text())


def test_tartanair_with_a_model(tartanair, tmp_path, capsys):
    model = STDNet(SMALL)
    model.zero_init_heads()
    provenance = {
        "data": [{"source": "tartanair:tartan", "weight": 1, "sequences": ["office/Hard/P001", "office/Hard/P007"]}]
    }
    checkpoint = tmp_path / "tiny.safetensors"
    checkpoints.save(checkpoint, model, checkpoints.CheckpointInfo(SMALL, (8, 16), None, provenance))
    pictures = tmp_path / "pictures"
    report = run(
        *(tmp_path, "--data", f"tartanair:{tartanair}", "--scale", 8, "--checkpoint", checkpoint),
        *("--pictures", pictures, "--report", tmp_path / "pages"),
    )
    assert list(report["mean"]) == ["model", "nearest", "bilinear", "bicubic", "joint_bilateral", "guided_temporal"]
    assert set(report["sequences"]) == {"office/Hard/P000", "office/Hard/P001"}
    assert set(report["tepe_flow"].values()) == {"true"}
    assert set(report["range_m"].values()) == {30.0}
    for method in report["mean"]:
        for figure in ("rmse_cm", "mae_cm", "tepe_cm", "delta1", "edge_rmse_cm", "flicker_cm", "coverage"):
            values = [report["sequences"][name][method][figure] for name in report["sequences"]]
            assert report["mean"][method][figure] == pytest.approx(sum(values) / 2), (method, figure)
    assert report["model"]["latency"] == 8
    assert report["trained_on"] == ["office/Hard/P001"]
    assert report["warnings"] == ["the model was trained on office/Hard/P001"]
    for name, warned in (("P000_x8/report", False), ("P001_x8/report", True)):
        html = (tmp_path / "pages" / f"office_Hard_{name}.html").read_text()
        assert ("WARNING: the model was trained on office/Hard/P001" in html) == warned
    drawn = cv2.imread(str(pictures / "office_Hard_P000_x8.png"))
    assert drawn.shape[0] > 96
    assert drawn.std() > 20
    text = capsys.readouterr().out
    assert "WARNING: the model was trained on office/Hard/P001\n" in text
    assert "own optical flow" in text
    row = next(line for line in text.splitlines() if line.startswith("office/Hard/P000"))
    assert f"{report['sequences']['office/Hard/P000']['model']['rmse_cm']:.2f}" in row


def test_report_of_one_sequence_has_the_figures_of_the_table(tartanair, tmp_path):
    """The page, its files and the same figures as in the JSON file, also when a method withholds depth."""
    for i in range(5):
        file = tartanair / "office" / "Hard" / "P000" / "depth_left" / f"{i:06d}_left_depth.npy"
        depth = np.load(file)
        depth[:24, :32] = 0  # no truth, and no input, either
        np.save(file, depth)
    page = tmp_path / "page"
    arguments = ("--data", f"tartanair:{tartanair}", "--limit", 1, "--methods", "bilinear,nearest")
    report = run(tmp_path, *arguments, "--report", page)
    assert not (page / "index.html").exists()
    html = (page / "report.html").read_text()
    assert "https://" not in html
    assert "own optical flow" in html
    body = html[html.index("<body>") :]
    said = body.index("The input is simulated: a dtof_paper at x8")
    assert "--sensor offers exact, noisy, nearest_corner" in body[said:]
    assert said < body.index('class="verdict')
    assert imageio_ffmpeg.count_frames_and_secs(str(page / "video.mp4"))[0] == 5
    for name in ("frame_worst", "frame_curves", "xt_slices", "error_histograms", "error_by_place"):
        assert cv2.imread(str(page / f"{name}.png")).std() > 1
    rows = list(csv.DictReader((page / "per_frame.csv").open()))
    assert len(rows) == 5
    for method, figures in report["mean"].items():
        for key in ("rmse_cm", "mae_cm", "tepe_cm", "flicker_cm", "edge_rmse_cm", "longtail_spatial_rmse_cm"):
            assert f"<td>{figures[key]:.2f}</td>" in html.replace(' class="best"', ""), (method, key)
        assert f"<td>{100 * figures['coverage']:.2f}</td>" in html.replace(' class="best"', "")
        squares = [float(row[f"{method} rmse_cm"]) ** 2 for row in rows]  # every frame has as many pixels
        assert math.sqrt(np.mean(squares)) == pytest.approx(figures["rmse_cm"], rel=1e-5)


def test_reports_of_several_sequences_and_scales_are_reached_from_one_page(tartanair, tmp_path):
    page = tmp_path / "pages"
    report = run(
        tmp_path, "--data", f"tartanair:{tartanair}", "--scale", "4,8", "--methods", "nearest", "--report", page
    )
    html = (page / "index.html").read_text()
    links = re.findall(r'href="([^"]*)"', html)
    assert sorted(links) == sorted(f"office_Hard_{p}_x{s}/report.html" for p in ("P000", "P001") for s in (4, 8))
    assert all((page / link).is_file() for link in links)
    for scale in ("4", "8"):
        assert f"<td>{report['scales'][scale]['mean']['nearest']['rmse_cm']:.2f}</td>" in html


def test_ctrl_c_leaves_a_report_of_what_there_is(tartanair, tmp_path, monkeypatch):
    add = EvaluationReport.add

    def interrupted(self, index, frame, scored):
        if index == 3:
            raise KeyboardInterrupt
        add(self, index, frame, scored)

    monkeypatch.setattr(EvaluationReport, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--data", f"tartanair:{tartanair}", "--methods", "nearest", "--report", tmp_path / "page")
    folder = tmp_path / "page" / "office_Hard_P000_x8"
    assert "Interrupted: this report covers the first 3 frames." in (folder / "report.html").read_text()
    assert imageio_ffmpeg.count_frames_and_secs(str(folder / "video.mp4"))[0] == 3


def test_dydtof_with_depth_from_disk(dydtof, tmp_path, capsys):
    report = run(tmp_path, "--data", f"dydtof:{dydtof}", "--scale", 8, "--lr", "disk", "--methods", "nearest")
    clip = moving_box(frames=4)
    clip.depth[:, :, :4] = 40.0
    low = torch.from_numpy(
        np.stack([np.load(dydtof / f"DyDToF_LR/X8/school/shot1/depth/shot1.{i:04d}.npy") for i in range(4)])
    )[:, None]
    expected = by_hand(F.interpolate(low, clip.frame_size, mode="nearest-exact"), clip)
    assert report["mean"]["nearest"]["rmse_cm"] == pytest.approx(expected["rmse_cm"], rel=1e-5)
    assert report["mean"]["nearest"]["mae_cm"] == pytest.approx(expected["mae_cm"], rel=1e-5)
    assert report["low_resolution"] == {"source": "disk"}
    assert list(report["tepe_flow"].values()) == ["estimated"]
    assert "ESTIMATED" in capsys.readouterr().out
    with pytest.raises(DataError, match="X16"):
        run(tmp_path, "--data", f"dydtof:{dydtof}", "--scale", 16, "--lr", "disk")


def test_range_normaliser_and_clipping_are_apart(dydtof, tmp_path, capsys):
    """The paper's for its data set; any of them given leaves the others."""
    checkpoint = tmp_path / "released.pth"
    shutil.copy(GOLDEN / "stdnet_c16.pt", checkpoint)
    arguments = ("--data", f"dydtof:{dydtof}", "--checkpoint", checkpoint, "--trained-scale", 8)

    def settings(*more):
        report = run(tmp_path, *arguments, "--methods", "model,nearest", "--max-frames", 1, *more)
        of_shot = (report[key]["school/shot1"] for key in ("range_m", "clip_truth_m"))
        return *of_shot, report["model"]["depth_range"], report["mean"]["nearest"]["rmse_cm"]

    range_m, clip_m, normaliser, rmse = settings()
    assert (range_m, clip_m, normaliser) == (40, 40, 40)
    text = capsys.readouterr().out
    assert "simulated (a dtof_paper, range 40 m)" in text
    assert "ground truth is clipped to 40 m" in text
    assert settings("--range-m", 20)[:3] == (20, 40, 40)
    assert settings("--depth-range", 25) == (40, 40, 25, rmse)
    assert settings("--clip-truth", 10)[:3] == (40, 10, 40)
    capsys.readouterr()
    *_, unclipped = settings("--clip-truth", "none")
    assert unclipped > rmse  # the sensor sees 40 m where there are 60
    assert "clipped" not in capsys.readouterr().out
    assert settings("--clip-truth", "none")[:3] == (40, None, 40)


def test_a_released_checkpoint_at_another_scale_is_warned_about_everywhere(tartanair, tmp_path, capsys):
    checkpoint = tmp_path / "released.pth"
    shutil.copy(GOLDEN / "stdnet_c16.pt", checkpoint)
    arguments = ("--data", f"tartanair:{tartanair}", "--checkpoint", checkpoint, "--trained-scale", 8)
    arguments += ("--methods", "model,nearest", "--max-frames", 2)
    page = tmp_path / "pages"
    report = run(tmp_path, *arguments, "--scale", "8,16", "--report", page)
    warning = "the model was not trained for x16, but for x8"
    assert report["model"]["trained_scales"] == [8]
    assert report["scales"]["8"]["warnings"] == []
    assert report["scales"]["16"]["warnings"] == [warning]
    printed = capsys.readouterr()
    # Also before the work, not beside its figures alone.
    assert 0 <= printed.err.index(f"WARNING: {warning}\n") < printed.err.index("x16:")
    eight, sixteen = printed.out.split("\nx16,")
    assert "trained for x8," in eight
    assert "WARNING" not in eight
    assert f"WARNING: {warning}\n" in sixteen
    assert f"WARNING: {warning}" in (page / "index.html").read_text()
    assert f"WARNING: {warning}" in (page / "office_Hard_P000_x16" / "report.html").read_text()
    assert "WARNING" not in (page / "office_Hard_P000_x8" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "precision", "line"),
    [
        (("--methods", "nearest"), "fp32", "computed on cpu in fp32\n"),
        (("--checkpoint", "live", "--methods", "model"), "fp32", "computed on cpu in fp32\n"),
        (
            ("--checkpoint", "live", "--methods", "model", "--precision", "auto"),
            "bf16",
            "computed on cpu in bf16, other methods in fp32\n",
        ),
    ],
)
def test_device_and_precision_are_said_and_do_not_depend_on_the_machine(
    tartanair, tmp_path, capsys, monkeypatch, arguments, precision, line
):
    monkeypatch.setattr("stdnet_core.inference.devices.cpu_computes_bf16", lambda: True)
    page = tmp_path / "page"
    data = ("--data", f"tartanair:{tartanair}", "--limit", 1, "--max-frames", 1)
    report = run(tmp_path, *data, *arguments, "--report", page)
    assert (report["device"], report["precision"]) == ("cpu", precision)
    assert line in capsys.readouterr().out
    rows = dict(re.findall(r"<tr><th>([^<]*)</th><td>([^<]*)</td></tr>", (page / "report.html").read_text()))
    assert (rows["device"], rows["precision"]) == ("cpu", precision)


def test_truth_is_clipped_before_the_sensor_sees_it():
    clip = moving_box(frames=2)

    low = LowResolution(8, sensor=sensor("exact"))
    whole, clipped = (next(read_frames(Recording(clip), low, clip_truth=metres)) for metres in (math.inf, 3.0))
    for before, after in ((whole.target, clipped.target), (whole.depth_lr, clipped.depth_lr)):
        assert before.max() > 3
        np.testing.assert_array_equal(after, before.clip(max=3))


def test_dynamic_replica_at_several_scales(tmp_path):
    clip = moving_box(frames=3)
    folder = tmp_path / "replica" / "test" / "scene_left"
    (folder / "images").mkdir(parents=True)
    (folder / "depths").mkdir()
    for i, image in enumerate(images(clip)):
        cv2.imwrite(str(folder / "images" / f"scene_left-{i:04d}.png"), image)
        bits = clip.depth[i, 0].half().numpy().view(np.uint16)
        cv2.imwrite(str(folder / "depths" / f"scene_left_{i:04d}.geometric.png"), bits)
    report = run(
        tmp_path, "--data", f"dynamic_replica:{tmp_path}/replica", "--scale", "4,16", "--methods", "bilinear,nearest"
    )
    assert set(report["scales"]) == {"4", "16"}
    assert "mean" not in report
    coarse, fine = (report["scales"][s]["mean"]["bilinear"]["rmse_cm"] for s in ("16", "4"))
    assert 0 < fine < coarse
    assert report["scales"]["4"]["range_m"]["scene_left"] == pytest.approx(4, rel=1e-3)


def test_bad_sequences_are_named_or_left_out(tartanair, tmp_path):
    """A file that is whole at first sight and turns out to be damaged only when it is read."""
    broken = tartanair / "office/Hard/P001/image_left/000003_left.png"
    data = bytearray(broken.read_bytes())
    data[60:-20] = bytes(len(data) - 80)
    broken.write_bytes(data)
    arguments = ("--data", f"tartanair:{tartanair}", "--methods", "nearest")
    with pytest.raises(DataError, match="000003_left"):
        run(tmp_path, *arguments)
    report = run(tmp_path, *arguments, "--skip-bad")
    assert list(report["sequences"]) == ["office/Hard/P000"]
    assert any("000003_left" in text for text in report["skipped"])


def test_limits(tartanair, tmp_path):
    arguments = ("--data", f"tartanair:{tartanair}", "--methods", "nearest", "--limit", 1, "--max-frames", 1)
    report = run(tmp_path, *arguments)
    assert report["frames"] == {"office/Hard/P000": 1}
    assert report["tepe_flow"] == {"office/Hard/P000": "none"}
    assert report["mean"]["nearest"]["tepe_cm"] is None  # JSON has no NaN


def test_contradictions_are_refused(tartanair, tmp_path):
    data = ("--data", f"tartanair:{tartanair}")
    with pytest.raises(ConfigError, match="--checkpoint"):
        run(tmp_path, *data, "--methods", "model")
    with pytest.raises(ConfigError, match="does not include model"):
        run(tmp_path, *data, "--methods", "nearest", "--checkpoint", "x.safetensors")
    with pytest.raises(ConfigError, match="--limit"):
        run(tmp_path, *data, "--limit", 0)
    with pytest.raises(ConfigError, match="latency"):
        run(tmp_path, *data, "--latency", 9)
    with pytest.raises(ConfigError, match="--range-m is only for a simulated dToF sensor"):
        run(tmp_path, *data, "--lr", "disk", "--range-m", 30)
    for checkpoint in ((), ("--checkpoint", "live")):
        for option in ("--depth-range", "--trained-scale"):
            with pytest.raises(ConfigError, match=f"{option}.* for a released .pth"):
                run(tmp_path, *data, *checkpoint, option, 8)
    with pytest.raises(ConfigError, match="weights.pth does not store .* --trained-scale 8"):
        run(tmp_path, *data, "--checkpoint", "weights.pth")
    for wrong in (
        *(("--methods", "magic"), ("--scale", "8,x"), ("--scale", "8,8")),
        *(("--clip-truth", "some"), ("--clip-truth", "0"), ("--clip-truth", "nan")),
    ):
        with pytest.raises(SystemExit):
            run(tmp_path, *data, *wrong)


def test_sequence_without_truth_is_refused():
    clip = moving_box(frames=2)
    empty = RgbdClip(clip.rgb, clip.depth * 0, clip.valid & False, depth_lr=clip.depth[..., ::8, ::8], name="sensor")
    with pytest.raises(DataError, match="sensor: it has no ground-truth depth"):
        evaluate_sequence(
            Recording(empty), {"nearest": Runner.classical("nearest", "cpu")}, LowResolution(8, simulated=False)
        )


def test_sequence_without_depth_to_upsample_is_refused():
    runners = {"nearest": Runner.classical("nearest", "cpu")}
    with pytest.raises(DataError, match="it comes without low-resolution depth; simulate it with --lr simulated"):
        evaluate_sequence(Recording(moving_box(frames=2)), runners, LowResolution(8, simulated=False))


def test_names_stay_apart():
    assert unique_names(["box", "box", "box"]) == ["box", "box (2)", "box (3)"]


@pytest.mark.parametrize(
    ("methods", "given", "first"),
    [
        ("bilinear,nearest,model", True, "model"),
        ("model,bilinear", True, "model"),
        ("nearest,bilinear", True, "nearest"),
        ("nearest,bilinear", False, "bilinear"),
    ],
)
def test_pictures_and_reports_are_of_the_model_wherever_it_is_named(methods, given, first):
    """An animation of ``--methods bilinear,model`` lacked the model's panel."""
    names = methods.split(",")
    order = in_question_first(dict.fromkeys(names), Namespace(methods=names if given else None, predictions=[]))
    assert order[0] == first
    assert sorted(order) == sorted(names)
