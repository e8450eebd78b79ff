"""Reports: what is counted, checked against plain numpy; pictures, videos and the HTML file, read back."""

from __future__ import annotations

import base64
import csv
import itertools
import math
import re
import tempfile
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from stdnet_core.errors import InputError
from stdnet_core.report import ReportData, write_report
from stdnet_core.report.analysis import (
    DEPTH_EDGES_M,
    ERROR_EDGES_M,
    SLICE_FRAMES,
    Analysis,
    AnalysisFrame,
    error_histogram,
)
from stdnet_core.report.cloud import back_project, fit_plane, flatness, render_cloud, without_margins, write_ply
from stdnet_core.report.colorize import NO_ERROR, colorize_confidence, colorize_error
from stdnet_core.report.page import Section
from stdnet_core.report.panels import Tile, compose, frame_tiles, scale_bars
from stdnet_core.report.preview import PreviewVideo
from stdnet_core.report.video import Mp4Writer, write_gif

H, W = 24, 32
K = np.array([[40.0, 0, 15.5], [0, 40.0, 11.5], [0, 0, 1]])


def make_frame(index: int, seed: int = 0, error: float = 0.05) -> AnalysisFrame:
    """A step in depth that moves, two noisy methods, holes in the truth and in one method."""
    random = np.random.default_rng(100 * seed + index)
    truth = np.full((H, W), 2.0, np.float32)
    truth[:, 10 + index % 8 :] = 3.5
    outputs = {
        "ours": (truth + error * random.standard_normal((H, W))).astype(np.float32),
        "theirs": (truth + 0.2 * random.standard_normal((H, W))).astype(np.float32),
    }
    outputs["ours"][2:4, 2:6] = np.nan
    truth[-2:] = np.nan
    rgb = random.integers(0, 255, (H, W, 3), dtype=np.uint8)
    upsampled = cv2.blur(np.nan_to_num(truth, nan=2.0), (7, 7))
    return AnalysisFrame(index, 10.0 + index / 30, rgb, truth[::8, ::8].copy(), outputs, truth, upsampled=upsampled)


@pytest.fixture(scope="module")
def frames() -> list[AnalysisFrame]:
    return [make_frame(i, error=0.02 * (1 + (7 * i) % 10)) for i in range(10)]


@pytest.fixture(scope="module")
def analysis(frames) -> Analysis:
    collected = Analysis(["ours", "theirs"], temporal=False)
    for frame in frames:
        collected.add(frame)
    return collected


def common_errors(frames, name):
    """Errors of a method at pixels where truth and both methods are valid, frame by frame."""
    errors = []
    for frame in frames:
        seen = np.isfinite(frame.truth) & np.isfinite(frame.outputs["ours"]) & np.isfinite(frame.outputs["theirs"])
        errors.append((frame.outputs[name] - frame.truth)[seen].astype(np.float64))
    return errors


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_figures_are_those_of_common_pixels(analysis, frames, name):
    errors = common_errors(frames, name)
    pooled = np.concatenate(errors)
    figures = analysis.figures()[name]
    assert figures["rmse_cm"] == pytest.approx(100 * np.sqrt(np.mean(pooled**2)), rel=1e-4)
    assert figures["mae_cm"] == pytest.approx(100 * np.abs(pooled).mean(), rel=1e-4)
    for row, error in zip(analysis.rows, errors, strict=True):
        assert row[f"{name} rmse_cm"] == pytest.approx(100 * np.sqrt(np.mean(error**2)), rel=1e-6)


def test_coverage_is_the_share_of_known_pixels(analysis):
    known = (H - 2) * W
    assert analysis.figures()["theirs"]["coverage"] == 1.0
    assert analysis.figures()["ours"]["coverage"] == pytest.approx((known - 8) / known)


def test_flicker_of_a_frame_is_the_change_that_the_truth_does_not_have(analysis, frames):
    before, after = frames[3], frames[4]
    seen = np.isfinite(before.outputs["ours"] + after.outputs["ours"] + before.truth + after.truth)
    change = (after.outputs["ours"] - after.truth) - (before.outputs["ours"] - before.truth)
    assert analysis.rows[4]["ours flicker_cm"] == pytest.approx(100 * np.abs(change[seen]).mean(), rel=1e-4)
    assert math.isnan(analysis.rows[0]["ours flicker_cm"])


def test_errors_against_depth_match_a_loop_over_bins(analysis, frames):
    for low, high, count, mean in zip(
        DEPTH_EDGES_M[:-1],
        DEPTH_EDGES_M[1:],
        analysis.by_depth.counts,
        analysis.by_depth.mean("theirs"),
        strict=True,
    ):
        inside = []
        for frame, error in zip(frames, common_errors(frames, "theirs"), strict=True):
            seen = np.isfinite(frame.truth) & np.isfinite(frame.outputs["ours"])
            depth = frame.truth[seen]
            inside += list(np.abs(error[(depth >= low) & (depth < high)]))
        assert count == len(inside)
        if inside:
            assert mean == pytest.approx(np.mean(inside), rel=1e-5)


def test_errors_are_largest_near_edges_when_they_are_made_there():
    truth = np.full((H, W), 2.0, np.float32)
    truth[:, 16:] = 4.0
    output = truth.copy()
    output[:, 14:18] += 0.5  # two columns on each side of the edge between 15 and 16
    collected = Analysis(["ours"], temporal=False)
    rgb = np.zeros((H, W, 3), np.uint8)
    collected.add(AnalysisFrame(0, None, rgb, truth[::8, ::8], {"ours": output}, truth))
    means = collected.by_edge_distance.mean("ours")
    assert means[0] == pytest.approx(0.5)
    assert means[1] == pytest.approx(0.0)


def test_histogram_agrees_with_numpy_and_keeps_what_is_beyond():
    errors = np.abs(np.random.default_rng(0).standard_normal(5000)) * 2
    expected, _ = np.histogram(errors, ERROR_EDGES_M)
    assert np.array_equal(error_histogram(errors), expected)
    assert error_histogram(np.array([50.0, 0.0])).sum() == 2


def test_long_tails_hold_the_pixels_that_qualify(analysis, frames):
    spatial = temporal = 0
    for i, frame in enumerate(frames):
        seen = np.isfinite(frame.truth) & np.isfinite(frame.outputs["ours"])
        spatial += int((seen & (np.abs(frame.truth - frame.upsampled) >= 0.1)).sum())
        if i:
            temporal += int((seen & (np.abs(frame.truth - frames[i - 1].truth) >= 0.1)).sum())
    assert analysis.histograms["spatial long tail"]["ours"].sum() == spatial > 0
    assert analysis.histograms["temporal long tail"]["theirs"].sum() == temporal > 0


def test_what_passes_by_is_in_the_temporal_long_tail_and_not_in_the_motion_tail():
    """The paper's tail is of pixels, the other of points: a box that moves sideways changes no depth along its way."""
    collected = Analysis(["ours"])
    rgb = np.zeros((H, W, 3), np.uint8)
    for i in range(2):
        truth = np.full((H, W), 3.0, np.float32)
        truth[8:16, 4 + 3 * i : 12 + 3 * i] = 1.5
        flow = np.zeros((2, H, W), np.float32)
        flow[0, 8:16, 4:12] = 3
        collected.add(AnalysisFrame(i, None, rgb, truth[::8, ::8], {"ours": truth + 0.1}, truth, flow=flow))
    assert collected.histograms["temporal long tail"]["ours"].sum() == 8 * 2 * 3
    assert math.isnan(collected.figures()["ours"]["motion_tail_rmse_cm"])


def test_examples_are_best_median_and_worst(analysis):
    order = sorted(range(10), key=lambda i: analysis.rows[i]["ours rmse_cm"])
    examples = analysis.examples()
    assert examples["best"].index == order[0]
    assert examples["worst"].index == order[-1]
    assert examples["median"].index in order[4:6]


def test_long_videos_keep_a_bounded_number_of_frames():
    collected = Analysis(["ours", "theirs"], temporal=False)
    for i in range(SLICE_FRAMES + 60):
        collected.add(make_frame(i))
    assert len(collected) == SLICE_FRAMES + 60
    assert len(collected.slice.rgb) == SLICE_FRAMES
    held = {id(frame) for _, frame in [*collected._candidates, collected._best, collected._worst]}
    assert len(held) <= 14


def test_a_frame_of_another_size_is_refused(analysis):
    collected = Analysis(["ours", "theirs"], temporal=False)
    collected.add(make_frame(0))
    other = make_frame(1)
    cut = {name: depth[:-1] for name, depth in other.outputs.items()}
    with pytest.raises(InputError, match="size differs"):
        collected.add(AnalysisFrame(1, None, other.rgb[:-1], other.depth_lr, cut, other.truth[:-1]))
    with pytest.raises(InputError, match="no depth of theirs"):
        collected.add(AnalysisFrame(1, None, other.rgb, other.depth_lr, {"ours": other.truth}, other.truth))


@pytest.fixture(scope="module")
def report(analysis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with Mp4Writer(folder / "video.mp4", 10) as video:
        for i in range(4):
            video.add(np.full((48, 64, 3), 40 * i, np.uint8))
    data = ReportData(
        title="A <script>alert(1)</script> bag",
        analysis=analysis,
        facts=[("frames", "10")],
        notes=["two frames were dropped"],
        counts={"processed": 10, "busy": 2, "none of these": 0},
        latency=[(i / 30, 12.0 + i) for i in range(10)],
        frame_interval_ms=33.3,
        video=folder / "video.mp4",
        sections=[Section("Live run", "", [("rate", "30 Hz")])],
        configuration={"method": "ours"},
    )
    return write_report(data, folder)


def test_report_needs_nothing_but_itself(report):
    html = report.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(sources) >= 9
    assert all(source.startswith("data:") for source in sources)
    assert "http://" not in html
    assert "https://" not in html
    assert "<script" not in html


def test_pictures_in_the_report_are_the_files_beside_it(report):
    inlined = re.findall(r'src="data:image/png;base64,([^"]*)"', report.read_text())
    pictures = {base64.b64decode(text) for text in inlined}
    files = {path.read_bytes() for path in report.parent.glob("*.png")}
    assert pictures == files
    assert all(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).std() > 1 for data in files)
    names = {path.stem for path in report.parent.glob("*.png")}
    expected = {"frame_best", "frame_median", "frame_worst", "frame_curves", "xt_slices"}
    assert expected | {"error_histograms", "error_by_place", "latency", "frame_counts"} <= names


def test_table_of_frames_reads_back(report, analysis):
    with (report.parent / "per_frame.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 10
    assert float(rows[6]["ours rmse_cm"]) == pytest.approx(analysis.rows[6]["ours rmse_cm"], rel=1e-8)
    assert rows[0]["ours flicker_cm"] == ""


def test_a_report_of_no_frames_is_still_a_report(tmp_path):
    path = write_report(ReportData("nothing", Analysis(["ours"]), warnings=["Interrupted at once."]), tmp_path)
    assert "Interrupted at once." in path.read_text()


def test_videos_have_the_frames_given(tmp_path):
    pictures = [np.full((41, 63, 3), 30 * i, np.uint8) for i in range(5)]
    with Mp4Writer(tmp_path / "v.mp4", 10) as video:
        for picture in pictures:
            video.add(picture)
        with pytest.raises(ValueError, match="62x40"):
            video.add(np.zeros((20, 20, 3), np.uint8))
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "v.mp4"))[0] == 5
    write_gif(tmp_path / "v.gif", pictures, 10)
    with Image.open(tmp_path / "v.gif") as gif:
        assert (gif.n_frames, gif.size) == (5, (63, 41))
        gif.seek(3)
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - 90).max() <= 8


def test_tiles_show_what_they_say():
    frame = make_frame(0)
    tiles = frame_tiles(frame.rgb, frame.depth_lr, dict(frame.outputs), frame.truth, error_max=0.5)
    captions = [tile.caption for tile in tiles]
    assert captions[:4] == ["colour", "input depth 4x3", "ours", "theirs"]
    assert captions[-1] == "error of theirs, 0 to 50 cm"
    ours = tiles[2].image
    assert (ours[2:4, 2:6] == 0).all()  # NaN is black
    assert ours[10, 5, 0] > ours[10, 30, 0]  # near is warm
    picture = compose([Tile("a", frame.rgb)] * 5, columns=3, tile_width=64)
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0
    assert picture.shape[1] >= 3 * 64


def test_scales_of_colours_run_from_end_to_end():
    strip = scale_bars(1200, (1.0, 3.0), 0.15)
    assert strip.shape[1] == 1200
    assert strip.shape[0] % 2 == 0  # videos need even sides
    row = strip[strip.shape[0] // 2].astype(int)
    coloured = np.nonzero(np.ptp(row, axis=1) > 60)[0]
    near, far = row[coloured[3]], row[coloured[coloured < 600][-4]]
    assert near[0] > near[2]  # warm to cold
    assert far[2] > far[0]


def verdict_of(ours: float, theirs: float, name: str = "bilinear") -> tuple[str, str]:
    """Kind and sentence of the verdict in a report on constant errors."""
    truth = np.full((H, W), 2.0, np.float32)
    collected = Analysis(["ours", name], temporal=False)
    rgb = np.zeros((H, W, 3), np.uint8)
    for i in range(2):
        outputs = {"ours": truth + np.float32(ours), name: truth + np.float32(theirs)}
        collected.add(AnalysisFrame(i, None, rgb, truth[::8, ::8], outputs, truth))
    html = write_report(ReportData("r", collected), Path(tempfile.mkdtemp())).read_text()
    return re.search(r'class="verdict (\w+)">([^<]*)<', html).groups()


def test_the_verdict_says_who_is_better():
    kind, text = verdict_of(0.05, 0.10)
    assert kind == "good"
    assert text == (
        "Here, ours is more accurate than bilinear: RMSE 5.00 against 10.00 cm (50 % smaller), "
        "MAE 5.00 against 10.00 cm (50 % smaller)."
    )
    assert verdict_of(0.2, 0.1)[0] == "bad"
    kind, text = verdict_of(0.1, 0.1, "theirs")
    assert kind == "mixed"
    assert "neither ours nor theirs" in text
    assert "(equal)" in text


def test_what_a_method_withholds_is_no_coverage():
    truth = np.full((H, W), 2.0, np.float32)
    shown = np.ones((H, W), bool)
    shown[: H // 4] = False
    collected = Analysis(["ours"], temporal=False)
    collected.add(
        AnalysisFrame(
            0, None, np.zeros((H, W, 3), np.uint8), truth[::8, ::8], {"ours": truth}, truth, shown={"ours": shown}
        )
    )
    assert collected.figures()["ours"]["coverage"] == 0.75
    assert collected.rows[0]["pixels"] == H * W  # and is scored all the same


def test_an_error_that_is_not_known_does_not_look_like_none():
    error = np.array([[0.0, np.nan, 1.0]])
    picture = colorize_error(error, 1.0)
    assert picture[0, 0].max() < 30
    assert set(picture[0, 1].tolist()) == {NO_ERROR}


def test_confidence_goes_from_dark_to_bright_and_is_black_where_it_is_missing():
    picture = colorize_confidence(np.array([[0.0, 0.5, 1.0, np.nan]])).astype(int)
    brightness = picture.sum(-1)[0]
    assert brightness[0] < brightness[1] < brightness[2]
    assert picture[0, 2, 0] > picture[0, 2, 2]  # yellow
    assert brightness[3] == 0


def test_margins_are_cut_off():
    picture = np.full((40, 60, 3), 255, np.uint8)
    picture[10:20, 30:35] = 7
    cut = without_margins(picture, margin=2)
    assert cut.shape == (14, 9, 3)
    assert (cut[2:-2, 2:-2] == 7).all()
    assert without_margins(picture[:5]).shape == (5, 60, 3)


def test_a_preview_of_a_long_run_shows_frames_spread_over_it(tmp_path):
    frame = make_frame(0)
    with PreviewVideo(tmp_path / "v.mp4", "ours", 1200) as video:
        for _ in range(40):
            video.add(frame.rgb, frame.depth_lr, frame.outputs["ours"], frame.truth)
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "v.mp4"))[0] == 10
    assert "Every 4th frame" in video.caption


def test_flatness_of_a_tilted_noisy_wall():
    rows, columns = np.mgrid[:H, :W]
    normal = np.array([0.2, -0.1, -1.0])
    rays = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones((H, W))], -1)
    wall = -2.0 / (rays @ normal)  # points with normal . p = -2
    truth = back_project(wall, K)
    assert np.allclose(truth @ normal, -2.0)
    noise = 0.004 * np.random.default_rng(0).standard_normal((H, W))
    unit = normal / np.linalg.norm(normal)
    cloud = truth + (noise + 0.03)[..., None] * unit
    found = flatness(cloud, truth)
    assert found.truth_rms < 1e-9
    assert found.cloud_rms == pytest.approx(0.004, rel=0.25)
    assert abs(found.offset) == pytest.approx(0.03, rel=0.1)
    bumpy = back_project(2 + 0.3 * np.sin(rows) * np.cos(columns), K)
    assert flatness(bumpy, bumpy) is None
    _, direction, _ = fit_plane(truth.reshape(-1, 3))
    assert abs(direction @ unit) == pytest.approx(1.0)


def test_ply_holds_the_finite_points(tmp_path):
    points = np.arange(24, dtype=np.float64).reshape(2, 4, 3)
    points[0, 1] = np.nan
    colors = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert write_ply(tmp_path / "c.ply", points, colors) == 7
    header, _, body = (tmp_path / "c.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 7\n" in header
    first = np.frombuffer(body, np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    assert first[1]["xyz"].tolist() == [6, 7, 8]
    assert first[1]["rgb"].tolist() == [6, 7, 8]


def test_a_cloud_is_drawn_with_near_things_in_front():
    depth = np.full((4 * H, 4 * W), 4.0)
    depth[32:64, 48:80] = 2.0
    colors = np.full((*depth.shape, 3), (0, 0, 255), np.uint8)
    colors[32:64, 48:80] = (255, 0, 0)
    k = K * [[4], [4], [1]]
    picture = render_cloud(back_project(depth, k), colors, size=(60, 80), yaw=0, pitch=0)
    assert tuple(picture[30, 40]) == (255, 0, 0)
    assert ((picture == (255, 0, 0)).all(-1)).sum() > 50
    assert ((picture == (0, 0, 255)).all(-1)).sum() > 50
    assert (picture == 255).all(-1).any()
    assert (render_cloud(np.full((4 * H, 4 * W, 3), np.nan), colors, size=(10, 10)) == 255).all()


def test_surfaces_of_a_cloud_are_closed_from_beside_and_what_was_hidden_is_grey():
    depth = np.full((4 * H, 4 * W), 4.0)
    depth[32:64, 48:80] = 2.0
    colors = np.full((*depth.shape, 3), (0, 0, 255), np.uint8)
    colors[32:64, 48:80] = (255, 0, 0)
    picture = render_cloud(back_project(depth, K * [[4], [4], [1]]), colors, size=(120, 160), yaw=12, pitch=0)
    row = [tuple(map(int, pixel)) for pixel in picture[60]]
    plain = [pixel for pixel in row if pixel in {(0, 0, 255), (255, 0, 0), (255, 255, 255)} or len(set(pixel)) == 1]
    names = ["white" if sum(p) == 765 else "grey" if len(set(p)) == 1 else "red" if p[0] else "blue" for p in plain]
    runs = [name for name, _ in itertools.groupby(names)]
    assert [name for name in runs if name != "white"] in (
        ["blue", "red", "grey", "blue"],
        ["blue", "grey", "red", "blue"],
    )
    assert "white" not in runs[1:-1]  # no gap within a surface or beside it
