"""The paper's figures: numbers against plain loops and closed forms, hooks against the modules called by hand, and
every command from the source to the files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sensitive_model import sensitive_model

from stdnet_core import analyze, checkpoints
from stdnet_core.analyses.methods import cell_window
from stdnet_core.analyses.probe import displacement, observe, principal_components
from stdnet_core.analyses.scenes import Part
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.protocol import LowResolution, sensor_range
from stdnet_core.data.sources import open_source
from stdnet_core.errors import ConfigError, DataError, InputError
from stdnet_core.evaluation.methods import Runner, run_together
from stdnet_core.evaluation.sequence import EvaluationFrame, read_frames
from stdnet_core.model import ModelConfig, STDNet
from stdnet_core.report.analysis import ERROR_EDGES_M
from stdnet_core.report.long_tail import LongTail, differences, tail_counts
from stdnet_core.report.paper_figures import Bubble, bubbles

SOURCE = "synthetic:7,2,48x64,6"


# --- long tails -------------------------------------------------------------------------------------------------------


def videos(count: int = 2, frames: int = 4, size: tuple[int, int] = (9, 11)) -> list[list[np.ndarray]]:
    """Depth with holes, of which some pixels change by much and most by little."""
    random = np.random.default_rng(3)
    made = []
    for _ in range(count):
        steady = random.uniform(1, 3, size)
        video = []
        for _ in range(frames):
            depth = steady + random.exponential(0.06, size)
            depth[random.random(size) < 0.1] = np.nan
            video.append(depth.astype(np.float32))
        made.append(video)
    return made


def test_difference_maps_by_hand():
    interpolated, truth = videos()
    maps = differences(interpolated[:3], truth[:3])
    assert set(maps) == {"spatial", "consecutive", "cross", "true consecutive", "true cross"}
    for y, x in np.ndindex(9, 11):
        for name, a, b in (
            ("spatial", truth[2], interpolated[2]),
            ("consecutive", interpolated[2], interpolated[1]),
            ("cross", interpolated[2], interpolated[0]),
            ("true consecutive", truth[2], truth[1]),
            ("true cross", truth[2], truth[0]),
        ):
            np.testing.assert_allclose(maps[name][y, x], abs(a[y, x] - b[y, x]), rtol=1e-6)
    assert set(differences(interpolated[:1], truth[:1])) == {"spatial"}
    assert set(differences(interpolated[:2], truth[:2])) == {"spatial", "consecutive", "true consecutive"}


def test_long_tail_of_two_videos_matches_a_loop():
    tail = LongTail()
    seen: dict[str, list[float]] = {}
    for number in range(2):
        interpolated, truth = videos(4)[2 * number : 2 * number + 2]
        tail.begin()
        for t in range(4):
            tail.add(np.nan_to_num(interpolated[t]), truth[t])  # 0 is a hole as NaN is
            pairs = {"spatial": (truth[t], interpolated[t])}
            for name, k in (("consecutive", 1), ("cross", 2)):
                if t >= k:
                    pairs[name] = interpolated[t], interpolated[t - k]
                    pairs[f"true {name}"] = truth[t], truth[t - k]
            for name, (a, b) in pairs.items():
                values = np.abs(a - b).ravel()
                seen.setdefault(name, []).extend(values[np.isfinite(values)])
    figures, curves = tail.figures(), tail.curves()
    assert set(figures) == set(seen)
    for name, values in seen.items():
        values = np.array(values, np.float64)
        beyond = values >= 0.1
        assert figures[name].pixels == len(values)
        assert figures[name].mean_cm == pytest.approx(100 * values.mean())
        assert figures[name].tail_share == pytest.approx(beyond.mean())
        assert 0 < figures[name].tail_share < figures[name].tail_difference < figures[name].tail_square < 1
        assert figures[name].tail_difference == pytest.approx(values[beyond].sum() / values.sum())
        assert figures[name].tail_square == pytest.approx((values[beyond] ** 2).sum() / (values**2).sum())
        for edge, share, part in zip(*curves[name].values(), strict=True):
            assert share == pytest.approx((values >= edge).mean())
            assert part == pytest.approx(values[values >= edge].sum() / values.sum())


def test_long_tail_of_a_known_distribution():
    """A tenth of the pixels off by 1 m, the others by 1 cm: the tail is a tenth of them with 100/109 of the sum."""
    truth = np.full((10, 10), 2.0)
    interpolated = truth + 0.01
    interpolated[0] += 0.99
    tail = LongTail()
    tail.add(interpolated, truth)
    figures = tail.figures()["spatial"]
    assert figures.tail_share == pytest.approx(0.1)
    assert figures.tail_difference == pytest.approx(100 / 109)
    with pytest.raises(InputError, match="differ in size"):
        tail.add(interpolated[:5], truth[:5])


def test_tail_counts():
    counts = np.zeros(len(ERROR_EDGES_M) - 1, int)
    counts[:21], counts[21:] = 1, 2
    assert tail_counts(counts) == {"pixels": 61, "tail_pixels": 40, "tail_share": pytest.approx(40 / 61)}
    assert math.isnan(tail_counts(0 * counts)["tail_share"])


# --- inside the network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "margin"), [(1, 0), (3, 0), (5, 0), (3, 1), (2, 3)])
def test_principal_components_are_those_of_a_singular_value_decomposition(count, margin):
    features = torch.randn(5, 6, 7) * torch.tensor([3.0, 0.2, 1.0, 2.0, 0.5]).view(5, 1, 1) + 4
    components, shares = principal_components(features, count, margin)
    if margin == 1:
        features, components = features[:, 1:-1, 1:-1], components[:, 1:-1, 1:-1]
    pixels = features.flatten(1).double().numpy()  # a margin of 3 would leave nothing and is dropped
    pixels = pixels - pixels.mean(1, keepdims=True)
    left, singular, right = np.linalg.svd(pixels, full_matrices=False)
    for number in range(count):
        expected = singular[number] * right[number] * np.sign(left[np.abs(left[:, number]).argmax(), number])
        np.testing.assert_allclose(components[number].flatten(), expected, atol=1e-9)
    np.testing.assert_allclose(shares, (singular**2 / (singular**2).sum())[:count], atol=1e-12)


def test_principal_components_of_what_varies_in_one_direction_or_not_at_all():
    direction = torch.tensor([3.0, -4.0])
    ramp = torch.arange(12.0).view(1, 3, 4)
    components, shares = principal_components(direction.view(2, 1, 1) * ramp, 2)
    np.testing.assert_allclose(components[0], -5 * (ramp[0] - 5.5), atol=1e-9)  # -4 is the larger loading
    np.testing.assert_allclose(shares, [1, 0], atol=1e-12)
    assert principal_components(torch.ones(2, 3, 4), 1)[1] == 0
    with pytest.raises(InputError, match="3 components"):
        principal_components(torch.ones(2, 3, 4))


def test_displacement_is_in_pixels_of_the_image_and_weighted():
    offset = torch.zeros(18, 2, 3)
    offset[0::2], offset[1::2] = 0.5, -2.0
    moved = displacement(offset, torch.rand(9, 2, 3) + 0.1)
    torch.testing.assert_close(moved, torch.tensor([-8.0, 2.0]).view(2, 1, 1).expand(2, 2, 3))
    mask = torch.zeros(9, 2, 3)
    mask[4], mask[7] = 0.75, 0.25
    offset[8], offset[14] = 1.0, 3.0  # y of taps 4 and 7
    torch.testing.assert_close(displacement(offset, mask)[1], torch.full((2, 3), 4 * (0.75 * 1 + 0.25 * 3)))


def small_clip(frames: int = 5):
    return torch.rand(1, frames, 3, 16, 24), torch.rand(1, frames, 1, 2, 3)


def test_watching_changes_nothing_and_leaves_nothing_behind():
    model, (rgb, depth) = sensitive_model(), small_clip()
    output, _ = observe(model, rgb, depth)
    with torch.inference_mode():
        torch.testing.assert_close(output.depth, model(rgb=rgb, depth_lr=depth).depth)
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    with pytest.raises(InputError):
        observe(model, rgb, depth[:, :2])
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


@pytest.mark.parametrize("changes", [{}, dict(neighbors=3, stages=1), dict(passes=("forward", "backward"))])
def test_watched_features_are_those_of_the_modules_called_by_hand(changes):
    model, (rgb, depth) = sensitive_model(**changes), small_clip()
    output, stages = observe(model, rgb, depth)
    stage, seen = model.stages[0], stages[0]
    config = model.config
    assert len(stages) == config.stages
    with torch.inference_mode():
        from stdnet_core.model.low_resolution import LowResolutionDepth

        low = LowResolutionDepth(depth[0], 8, rgb[0])
        guide = stage.guide_encoder(rgb[0])
        torch.testing.assert_close(seen.depth, stage.depth_encoder(low.features(config.depth_features)))
        spatial = stage.spatial(seen.depth, guide)
        torch.testing.assert_close(seen.spatial, spatial.fused)
        torch.testing.assert_close(seen.weight, spatial.weight)
        torch.testing.assert_close(seen.trunk, stage.trunk(spatial.fused))
        torch.testing.assert_close(seen.fused, stage.reconstruction(torch.cat((seen.trunk, *seen.passes), 1)))
        torch.testing.assert_close(output.differences[0].sigma[0], spatial.sigma)
        assert [s.direction for s in seen.sampling] == list(config.passes)
        levels = [seen.trunk, *seen.passes]
        for index, (module, sampling) in enumerate(zip(stage.temporal, seen.sampling, strict=True)):
            side = -1 if sampling.direction == "forward" else 1
            for t in range(5):
                parts = []
                for distance in range(1, config.neighbors + 1):
                    n = t + side * distance
                    if not 0 <= n < 5:
                        with pytest.raises(InputError, match=f"frame {t} has no neighbour {distance}"):
                            sampling.call(t, distance)
                        continue
                    difference = (seen.trunk[t] - seen.trunk[n]).abs()[None]
                    encoded = module.difference_fusion(
                        torch.cat((levels[index][t][None], module.difference_conv(difference)), 1)
                    )
                    offset, mask = module.offset_mask_conv(encoded).split((18, 9), 1)
                    if config.max_offset:
                        offset = config.max_offset * torch.tanh(offset / config.max_offset)
                    found = sampling.call(t, distance)
                    torch.testing.assert_close(found[0], offset[0], atol=1e-4, rtol=1e-4)
                    torch.testing.assert_close(found[1], mask[0].sigmoid(), atol=1e-4, rtol=1e-4)
                    pair = levels[index][t][None], levels[index][n][None]
                    parts.append(module(*pair, difference, guide[n][None], spatial.weight[t][None]))
                expected = sum(parts) if parts else levels[index][t][None]
                torch.testing.assert_close(levels[index + 1][t], expected[0], atol=1e-4, rtol=1e-4)


def test_networks_without_a_part_say_so():
    rgb, depth = small_clip()
    assert observe(sensitive_model(temporal_difference=False), rgb, depth)[1][0].sampling == ()
    features = observe(STDNet(ModelConfig(channels=4, head_channels=4, neighbors=0)).eval(), rgb, depth)[1][0]
    assert features.passes == features.sampling == ()
    live, _ = checkpoints.load("live")
    with pytest.raises(ConfigError, match="only the paper's network"):
        observe(live, rgb, depth)


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    model = sensitive_model(channels=4, fusion_blocks=1)
    path = tmp_path_factory.mktemp("model") / "narrow.safetensors"
    checkpoints.save(path, model, CheckpointInfo(model.config, (8,), None))
    return path


def run(figure: str, folder: Path, *arguments: str) -> tuple[dict, np.ndarray]:
    """Numbers and picture of a command."""
    analyze.main([figure, "--data", SOURCE, "--output", str(folder), "--device", "cpu", *arguments])
    picture = cv2.imread(str(folder / f"{figure}.png"))
    assert picture is not None
    assert picture.std() > 10
    numbers = json.loads((folder / f"{figure}.json").read_text())
    assert numbers["figure"] == figure
    return numbers, picture


def results(method: str, number: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth of a classical method, bicubic depth and truth (T, H, W) of a sequence of the source, 0 invalid."""
    sequence = open_source(SOURCE)[number]
    runners = {name: Runner.classical(name, "cpu") for name in (method, "bicubic")}
    low = LowResolution(8, seed=number)
    frames = read_frames(sequence, low, range_m=sensor_range(sequence, "synthetic"))
    pairs = list(run_together(runners, frames, lambda frame: (frame.rgb, frame.depth_lr)))
    depth, bicubic = (np.stack([np.nan_to_num(said[name].depth) for _, said in pairs]) for name in (method, "bicubic"))
    return depth, bicubic, np.stack([frame.target for frame, _ in pairs])


def test_long_tail_command(tmp_path, capsys):
    numbers, _ = run("long-tail", tmp_path, "--frame", "3")
    assert numbers["frame_shown"] == 3
    assert len(numbers["sequences"]) == 2
    values = []
    for number in range(2):
        _, bicubic, truth = results("nearest", number)
        values.append(np.abs(bicubic - truth)[(truth > 0) & (bicubic > 0)])
    values = np.concatenate(values)
    assert numbers["differences"]["spatial"]["pixels"] == len(values)
    assert numbers["differences"]["spatial"]["tail_share"] == pytest.approx((values >= 0.1).mean())
    assert "of the pixels differ by 10 cm or more" in capsys.readouterr().out


def test_tail_errors_command(tmp_path, checkpoint):
    arguments = ("--checkpoint", str(checkpoint), "--methods", "nearest")
    numbers, _ = run("tail-errors", tmp_path, *arguments)
    assert numbers["methods"] == ["narrow", "nearest"]
    pixels = tail = spatial = temporal = 0
    for number in range(2):  # the temporal long tail is of each sequence by itself
        nearest, bicubic, truth = results("nearest", number)
        known = truth > 0
        pixels += int(known.sum())
        tail += int((np.abs(nearest - truth)[known] >= 0.1).sum())
        spatial += int((np.abs(bicubic - truth)[known] >= 0.1).sum())
        changed = np.abs(np.diff(truth, axis=0)) >= 0.1
        temporal += int((changed & known[1:] & known[:-1]).sum())
    everything = numbers["regions"]["all pixels"]["nearest"]
    assert (everything["pixels"], everything["tail_pixels"]) == (pixels, tail)
    assert sum(everything["counts"]) == pixels
    for method in ("nearest", "narrow"):
        assert numbers["regions"]["spatial long tail"][method]["pixels"] == spatial
        assert numbers["regions"]["temporal long tail"][method]["pixels"] == temporal


def test_slices_command_takes_the_row_asked_for(tmp_path):
    numbers, _ = run("slices", tmp_path, "--row", "17", "--methods", "nearest,bicubic", "--frames", "5")
    assert (numbers["row"], numbers["frames"]) == (17, 5)
    depth, _, truth = results("nearest")
    error = np.where(truth > 0, depth - truth, np.nan)[:5, 17]
    found = numbers["slice"]["nearest"]
    assert found["rmse_cm"] == pytest.approx(100 * math.sqrt(np.nanmean(error**2)), rel=1e-5)
    assert found["flicker_cm"] == pytest.approx(100 * np.nanmean(np.abs(np.diff(error, axis=0))), rel=1e-5)
    assert set(numbers["slice"]) == {"live", "nearest", "bicubic"}
    with pytest.raises(InputError, match="no row 48"):
        run("slices", tmp_path, "--row", "48")


def test_frames_command_shows_consecutive_frames(tmp_path):
    numbers, whole = run("frames", tmp_path, "--frame", "2", "--count", "2", "--methods", "nearest")
    assert [row["frame"] for row in numbers["frames"]] == [2, 3]
    depth, _, truth = results("nearest")
    for row in numbers["frames"]:
        error = (depth - truth)[row["frame"]][truth[row["frame"]] > 0]
        assert row["methods"]["nearest"]["mae_cm"] == pytest.approx(100 * np.abs(error).mean(), rel=1e-5)
    cropped, part = run(
        "frames", tmp_path, "--frame", "2", "--count", "2", "--methods", "nearest", "--crop", "9,17,20,30"
    )
    error = (depth - truth)[2, 8:32, 16:48][truth[2, 8:32, 16:48] > 0]
    assert cropped["frames"][0]["methods"]["nearest"]["mae_cm"] == pytest.approx(100 * np.abs(error).mean(), rel=1e-5)
    assert part.shape != whole.shape or (part != whole).any()
    with pytest.raises(ConfigError, match="frames 5 to 6"):
        run("frames", tmp_path, "--frame", "5", "--count", "2")
    with pytest.raises(ConfigError, match="leaves the frame"):
        run("frames", tmp_path, "--crop", "40,0,20,20")


def test_depth_of_other_methods_stands_beside_the_others(tmp_path):
    """Nearest interpolation, written to files, has the figures of nearest interpolation."""
    depth, _, truth = results("nearest")
    folder = tmp_path / "theirs"
    folder.mkdir()
    for number, frame in enumerate(depth):
        np.save(folder / f"{number:06d}.npy", frame)
    given = ("--predictions", f"theirs={folder}", "--methods", "nearest", "--sequence", "0")
    numbers, _ = run("frames", tmp_path, *given, "--frame", "3", "--count", "1")
    of = numbers["frames"][0]["methods"]
    error = (depth - truth)[3][truth[3] > 0]
    assert of["theirs"] == of["nearest"]
    assert of["theirs"]["mae_cm"] == pytest.approx(100 * np.abs(error).mean(), rel=1e-5)
    tails, _ = run("tail-errors", tmp_path, *given)
    assert tails["methods"] == ["live", "nearest", "theirs"]
    for region in tails["regions"].values():
        assert region["theirs"] == region["nearest"]
    with pytest.raises(DataError, match="no predictions"):
        run("slices", tmp_path, "--predictions", f"theirs={tmp_path / 'nothing'}")
    with pytest.raises(ConfigError, match="names must differ"):
        run("slices", tmp_path, *given, "--predictions", f"theirs={folder}")
    with pytest.raises(ConfigError, match="a method has that name"):
        run("slices", tmp_path, "--predictions", f"live={folder}", "--sequence", "0")
    with pytest.raises(ConfigError, match="leave out --start"):
        run("slices", tmp_path, *given, "--start", "1")


def test_crops_are_widened_to_whole_cells():
    frame = EvaluationFrame(np.zeros((24, 30, 3)), np.zeros((24, 30)), np.zeros((3, 4)), None, False)
    cut = cell_window((9, 3, 2, 10), frame)
    pixels, cells = np.arange(720).reshape(24, 30), np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(cut(pixels), pixels[8:16, 0:16])
    np.testing.assert_array_equal(cut(cells), cells[1:2, 0:2])
    np.testing.assert_array_equal(cell_window((20, 25, 4, 5), frame)(pixels), pixels[16:, 24:])
    np.testing.assert_array_equal(cell_window((0, 0, 24, 30), frame)(pixels), pixels)


def test_complexity_command(tmp_path, checkpoint):
    numbers, _ = run(
        "complexity",
        tmp_path,
        *("--checkpoint", f"trained={checkpoint}", "--methods", "nearest", "--presets", "tiny_causal"),
        *("--frames", "4", "--latency", "1", "--limit", "1"),
    )
    methods = numbers["methods"]
    assert set(methods) == {"trained", "nearest", "tiny_causal"}
    model, _ = checkpoints.load(checkpoint)
    assert methods["trained"]["parameters"] == sum(p.numel() for p in model.parameters())
    expected = STDNet(ModelConfig.preset("tiny_causal"))
    assert methods["tiny_causal"]["parameters"] == sum(p.numel() for p in expected.parameters())
    assert methods["tiny_causal"]["rmse_cm"] is None
    assert methods["nearest"]["parameters"] == 0
    assert all(values["ms_per_frame"] > 0 for values in methods.values())
    depth, _, truth = results("nearest")
    error = (depth - truth)[:4][truth[:4] > 0]
    assert methods["nearest"]["rmse_cm"] == pytest.approx(100 * math.sqrt((error**2).mean()), rel=1e-4)


def test_circles_without_an_rmse_have_a_strip_of_their_own():
    some = [Bubble("a", 0, 2.0, 30.0), Bubble("b", 10**6, 20.0, None)]
    sizes = {cv2.imdecode(np.frombuffer(bubbles(points, "x8"), np.uint8), 1).shape for points in (some, some[:1])}
    assert len(sizes) == 1
    assert bubbles(some, "x8") != bubbles(some[:1], "x8")


def test_features_command(tmp_path, checkpoint):
    arguments = ("--checkpoint", str(checkpoint), "--checkpoint", f"again={checkpoint}", "--window", "3")
    numbers, picture = run("features", tmp_path, *arguments)
    assert numbers["frame"] == 3
    assert set(numbers["networks"]) == {"narrow", "again"}
    narrow = numbers["networks"]["narrow"]
    assert narrow == numbers["networks"]["again"]
    assert narrow["stage"] == 2
    assert set(narrow["features"]) == {"F_d", "F_sd", "F_td"}
    for values in narrow["features"].values():
        assert 0 < sum(values["explained"]) <= 1 + 1e-9
        assert values["explained"] == sorted(values["explained"], reverse=True)
    other, _ = run("features", tmp_path, *arguments, "--stage", "1")
    assert other["networks"]["narrow"]["features"] != narrow["features"]
    assert other["networks"]["narrow"]["rmse_cm"] == narrow["rmse_cm"]
    assert picture.shape[0] > 2 * picture.shape[1] * 48 / 64 / 5  # three rows of five


def test_offsets_command(tmp_path, checkpoint):
    numbers, _ = run("offsets", tmp_path, "--checkpoint", str(checkpoint))
    assert [(p["pass"], p["direction"], p["distance"]) for p in numbers["passes"]] == [
        (number, direction, distance)
        for number, direction in enumerate(("backward", "forward") * 2, start=1)
        for distance in (1, 2)
    ]
    assert all(p["displacement_mean_px"] > 0 and 0 < p["mask_mean"] < 1 for p in numbers["passes"])
    first, _ = run("offsets", tmp_path, "--checkpoint", str(checkpoint), "--frame", "0")
    assert {p["direction"] for p in first["passes"]} == {"backward"}
    with pytest.raises(ConfigError, match="no neighbours"):
        run("offsets", tmp_path, "--checkpoint", str(checkpoint), "--window", "1")


def test_differences_command(tmp_path, checkpoint):
    numbers, _ = run("differences", tmp_path, "--checkpoint", str(checkpoint))
    assert [set(stage) for stage in numbers["stages"]] == [{"sigma", "phi 1", "phi 2"}] * 2
    for stage in numbers["stages"]:
        for values in stage.values():
            if values["tail_ratio"] is not None:
                assert values["tail_ratio"] == pytest.approx(values["tail_mean"] / values["elsewhere_mean"])
    last, _ = run("differences", tmp_path, "--checkpoint", str(checkpoint), "--frame", "5")
    assert [set(stage) for stage in last["stages"]] == [{"sigma"}] * 2


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path, checkpoint, capsys):
    with pytest.raises(ConfigError, match="not recurrent"):
        run("features", tmp_path, "--checkpoint", "live")
    with pytest.raises(ConfigError, match="share a name"):
        run("slices", tmp_path, "--checkpoint", str(checkpoint), "--checkpoint", str(checkpoint))
    with pytest.raises(ConfigError, match="one --checkpoint"):
        run("offsets", tmp_path, "--checkpoint", str(checkpoint), "--checkpoint", f"again={checkpoint}")
    with pytest.raises(DataError, match="no sequence 'nothing'"):
        run("long-tail", tmp_path, "--sequence", "nothing")
    with pytest.raises(DataError, match="three frames"):
        run("long-tail", tmp_path, "--frames", "2")
    with pytest.raises(ConfigError, match="no frame 6"):
        run("features", tmp_path, "--checkpoint", str(checkpoint), "--frame", "6")
    with pytest.raises(InputError, match="no frame 9"):
        run("long-tail", tmp_path, "--start", "9")
    with pytest.raises(SystemExit):
        run("slices", tmp_path, "--methods", "magic")
    assert "unknown magic" in capsys.readouterr().err
    run("frames", tmp_path, "--scale", "4", "--count", "1", "--checkpoint", str(checkpoint))
    assert "WARNING: narrow was not trained for x4, but for x8" in capsys.readouterr().out


def test_a_part_is_the_frames_from_its_first_on():
    sequence = open_source(SOURCE)[0]
    part = Part(sequence, 2, 3)
    assert len(part) == 3
    assert len(Part(sequence, 4, 9)) == 2
    torch.testing.assert_close(part.clip(1, 2).depth, sequence.clip(3, 2).depth)
