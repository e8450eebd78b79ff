"""Prediction: the files it writes against what the upsampler says, inputs of every kind, and refusals."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stdnet_core import predict
from stdnet_core.cli import run_cli
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_folder import write_folder
from stdnet_core.data.sensors import sensor, simulate
from stdnet_core.errors import ConfigError, DataError, InputError
from stdnet_core.inference import DepthUpsampler

HEIGHT, WIDTH, FRAMES = 48, 64, 5


def scene(low_resolution: bool) -> RgbdClip:
    """A slope with a hole in its low-resolution depth, or with full-resolution depth alone."""
    generator = torch.Generator().manual_seed(0)
    rgb = F.avg_pool2d(torch.rand(FRAMES, 3, HEIGHT, WIDTH, generator=generator), 3, 1, 1)
    depth = torch.linspace(1, 3, WIDTH).expand(FRAMES, 1, HEIGHT, WIDTH).contiguous()
    low = depth[..., 4::8, 4::8].clone()
    low[..., :3, :3] = 0
    return RgbdClip(
        rgb,
        depth * (not low_resolution),
        torch.full_like(depth, not low_resolution, dtype=torch.bool),
        intrinsics=torch.tensor([[60.0, 0, 31.5], [0, 61.0, 23.5], [0, 0, 1]]),
        depth_lr=low if low_resolution else None,
        stamps=torch.arange(FRAMES, dtype=torch.float64) / 20,
        name="slope",
    )


@pytest.fixture
def recording(tmp_path):
    write_folder(scene(low_resolution=True), tmp_path / "recording")
    return tmp_path / "recording"


def run(*arguments):
    predict.main([*map(str, arguments), "--device", "cpu"])


def expected_depths(method="joint_bilateral"):
    clip = scene(low_resolution=True)
    rgb = (clip.rgb * 255).round().byte().permute(0, 2, 3, 1).numpy()
    low = (clip.depth_lr[:, 0] * 1000).round().numpy().astype(np.uint16)
    upsampler = DepthUpsampler(method=method, device="cpu")
    return [frame.depth for frame in upsampler.run(rgb, low)]


def video_frames(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        readable, frame = capture.read()
        if not readable:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


def test_folder(recording, tmp_path):
    out = tmp_path / "out"
    run("--input", recording, "--output", out, "--method", "joint_bilateral", "--confidence")
    for i, depth in enumerate(expected_depths()):
        written = cv2.imread(str(out / "depth" / f"{i:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert written.dtype == np.uint16
        valid = np.isfinite(depth)
        assert not valid.all()
        np.testing.assert_array_equal(written > 0, valid)
        assert np.abs(written[valid] / 1000 - depth[valid]).max() <= 0.0005 + 1e-6
        preview = cv2.imread(str(out / "preview" / f"{i:06d}.png"))
        assert not preview[~valid].any()
        assert preview[valid].any(-1).all()
        confidence = cv2.imread(str(out / "confidence" / f"{i:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert not confidence[~valid].any()
        assert confidence[valid].mean() > 50
    assert len(list((out / "depth").iterdir())) == FRAMES
    frames, fps = video_frames(out / "video.mp4")
    assert len(frames) == FRAMES
    assert fps == pytest.approx(20)
    assert frames[0].shape[1] > 3 * WIDTH
    fx, fy, cx, cy = map(float, (out / "intrinsics.txt").read_text().split())
    assert (fx, fy, cx, cy) == (60, 61, 31.5, 23.5)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == FRAMES
    assert (summary["size"], summary["input_size"], summary["scale"]) == ([WIDTH, HEIGHT], [8, 6], 8)
    assert summary["method"] == "joint_bilateral"
    assert summary["valid_share"] == pytest.approx(np.mean([np.isfinite(d).mean() for d in expected_depths()]))
    assert 0.9 < summary["least_m"] < summary["largest_m"] < 3.1


def test_npy_keeps_metres(recording, tmp_path):
    out = tmp_path / "out"
    run("--input", f"folder:{recording}", "--output", out, "--method", "bilinear", "--format", "npy", "--max-frames", 2,
        "--no-preview", "--no-video")  # fmt: skip
    assert sorted(p.name for p in out.iterdir()) == ["depth", "intrinsics.txt", "summary.json"]
    written = [np.load(path) for path in sorted((out / "depth").iterdir())]
    assert len(written) == 2
    for depth, expected in zip(written, expected_depths("bilinear"), strict=False):
        np.testing.assert_allclose(depth, expected, rtol=1e-6)  # millimetres become metres by two ways


def test_simulated_input_is_compared_with_the_truth(tmp_path):
    clip = scene(low_resolution=False)
    write_folder(clip, tmp_path / "full")
    out = tmp_path / "out"
    run("--input", tmp_path / "full", "--output", out, "--method", "nearest", "--scale", 8, "--no-video")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["simulated_input"]
    depth = (clip.depth * 1000).round() / 1000
    rgb = (clip.rgb * 255).round() / 255
    low = simulate(sensor("dtof_paper").with_values({"dtof.range_m": 3.0}), depth, rgb, 8)
    error = 100 * (F.interpolate(low, (HEIGHT, WIDTH), mode="nearest-exact") - depth)
    figures = summary["figures_of_shown_pixels"]
    assert figures["rmse_cm"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-3)
    assert figures["mae_cm"] == pytest.approx(float(error.abs().mean()), rel=1e-3)
    write_folder(scene(low_resolution=True), tmp_path / "low")
    with pytest.raises(DataError, match="leave out --scale"):
        run("--input", tmp_path / "low", "--output", tmp_path / "other", "--scale", 8, "--no-video")


def test_depth_as_large_as_colour_is_taken_as_it_is(tmp_path):
    write_folder(scene(low_resolution=False), tmp_path / "full")
    out = tmp_path / "out"
    run("--input", tmp_path / "full", "--output", out, "--method", "nearest", "--no-video", "--no-preview")
    written = cv2.imread(str(out / "depth" / "000000.png"), cv2.IMREAD_UNCHANGED)
    expected = (scene(low_resolution=False).depth[0, 0] * 1000).round().numpy()
    assert np.abs(written.astype(float) - expected).max() <= 1


def test_several_sequences_get_a_folder_each(recording, tmp_path):
    root = tmp_path / "many"
    for name in ("a", "b"):
        write_folder(scene(low_resolution=True), root / name)
    run("--input", root, "--output", tmp_path / "out", "--method", "nearest", "--no-video")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "b"]
    assert (tmp_path / "out" / "b" / "depth" / "000004.png").is_file()


def test_sequences_of_one_name_do_not_overwrite_each_other(tmp_path):
    for day in ("monday", "tuesday"):
        write_folder(scene(low_resolution=True), tmp_path / "many" / day / "run")
    run("--input", tmp_path / "many", "--output", tmp_path / "out", "--method", "nearest", "--no-video", "--overwrite")
    assert len(list((tmp_path / "out").rglob("000004.png"))) == 4  # depth and preview of both


def test_bad_sequences_are_left_out_and_listed(tmp_path, capsys):
    root = tmp_path / "many"
    for name in ("corrupt", "good", "incomplete"):
        write_folder(scene(low_resolution=True), root / name)
    corrupt = sorted((root / "corrupt" / "color").iterdir())[3]
    content = corrupt.read_bytes()  # whole at both ends, so that it is found out when it is read
    corrupt.write_bytes(content[:60] + bytes(len(content) - 72) + content[-12:])
    gone = sorted((root / "incomplete" / "color").iterdir())[2]
    gone.unlink()
    arguments = ("--input", root, "--output", tmp_path / "out", "--method", "nearest", "--no-video", "--overwrite")
    with pytest.raises(DataError):
        run(*arguments)
    run(*arguments, "--skip-bad")
    assert len(list((tmp_path / "out" / "good" / "depth").iterdir())) == FRAMES
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert any("corrupt" in line for line in listed)
    assert any("incomplete" in line for line in listed)
    shutil.rmtree(root / "good")
    shutil.rmtree(root / "incomplete")
    with pytest.raises(DataError, match=r"no sequence could be predicted; the first problem was: .*corrupt"):
        run(*arguments, "--skip-bad")


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "colour.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12, (WIDTH, HEIGHT))
    clip = scene(low_resolution=True)
    (tmp_path / "depth").mkdir()
    for i, image in enumerate((clip.rgb * 255).byte().permute(0, 2, 3, 1).numpy()):
        writer.write(np.ascontiguousarray(image[..., ::-1]))
        np.save(tmp_path / "depth" / f"d{i}.npy", clip.depth_lr[i, 0].numpy())
    writer.release()
    return path


def test_video_with_depth_images(video, tmp_path):
    out = tmp_path / "out"
    run("--input", video, "--depth", tmp_path / "depth", "--output", out, "--method", "nearest", "--format", "npy")
    upsampled = F.interpolate(scene(True).depth_lr, (HEIGHT, WIDTH), mode="nearest-exact")[:, 0].numpy()
    for i in range(FRAMES):
        depth = np.load(out / "depth" / f"{i:06d}.npy")
        shown = np.isfinite(depth)
        np.testing.assert_allclose(depth[shown], upsampled[i][shown], rtol=1e-6)
        assert shown.mean() > 0.7
    assert video_frames(out / "video.mp4")[1] == pytest.approx(12)


def test_a_video_may_be_longer_than_its_depth_but_not_shorter(video, tmp_path, caplog):
    arguments = ("--input", video, "--depth", tmp_path / "depth", "--method", "nearest", "--no-video", "--overwrite")
    extra = tmp_path / "depth" / "d5.npy"
    np.save(extra, np.ones((6, 8), np.float32))
    with pytest.raises(DataError, match="ends after 5 frames, and there are 6"):
        run(*arguments, "--output", tmp_path / "out")
    extra.unlink()
    (tmp_path / "depth" / "d4.npy").unlink()
    run(*arguments, "--output", tmp_path / "out")
    assert len(list((tmp_path / "out/depth").iterdir())) == 4
    assert "has more frames than there are depth images (4)" in caplog.text


def test_earlier_results_are_kept_unless_told(recording, tmp_path):
    out = tmp_path / "out"
    arguments = ("--input", recording, "--output", out, "--method", "nearest", "--no-video", "--no-preview")
    run(*arguments)
    (out / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="--overwrite"):
        run(*arguments, "--max-frames", 2)
    run(*arguments, "--max-frames", 2, "--overwrite")
    assert len(list((out / "depth").iterdir())) == 2
    assert (out / "mine.txt").read_text() == "keep"


def test_refusals(recording, video, tmp_path, capsys):
    out = ("--output", tmp_path / "out")
    with pytest.raises(ConfigError, match="--depth DIR"):
        run("--input", video, *out)
    with pytest.raises(ConfigError, match="is only for colour videos"):
        run("--input", recording, "--depth", tmp_path, *out)
    with pytest.raises(ConfigError, match="--fps"):
        run("--input", recording, "--fps", 0, *out)
    with pytest.raises(DataError, match="no such video"):
        run("--input", tmp_path / "none.mp4", "--depth", tmp_path / "depth", *out)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="OpenCV"):
        run("--input", tmp_path / "text.mp4", "--depth", tmp_path / "depth", *out)
    with pytest.raises(SystemExit) as stop:
        run_cli(lambda: run("--input", tmp_path / "nothing", *out))
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_recording_without_any_depth_is_an_error(tmp_path):
    for kind, picture in (("color", np.full((24, 32, 3), 90, np.uint8)), ("depth", np.zeros((24, 32), np.uint16))):
        (tmp_path / "empty" / kind).mkdir(parents=True)
        for t in range(3):
            cv2.imwrite(str(tmp_path / f"empty/{kind}/{t:06d}.png"), picture)
    options = ("--method", "bilinear", "--no-video", "--no-preview")
    with pytest.raises(DataError, match="none of its 3 frames has a measurement of depth"):
        predict.main(["--input", str(tmp_path / "empty"), "--output", str(tmp_path / "out"), *options])
