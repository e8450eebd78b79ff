"""Figures of a video, frame by frame, against loops over its pixels and the metrics of the whole clip."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stdnet_core.errors import InputError
from stdnet_core.evaluation import metric_functions as functions
from stdnet_core.evaluation.scoring import FIGURES, ScoredFrame, VideoScore, cell_score, mean_figures

SIZE = (7, 9)
FRAMES = 5


def video() -> list[ScoredFrame]:
    """Frames with everything that can be judged, and with all that can be wrong with depth."""
    rng = np.random.default_rng(3)
    frames = []
    for _ in range(FRAMES):
        target = rng.uniform(0.5, 4, SIZE).astype(np.float32)
        target = np.where(rng.random(SIZE) < 0.3, rng.choice([0, -1, np.nan, np.inf], SIZE), target).astype(np.float32)
        known = np.where(np.isfinite(target) & (target > 0), target, 1)
        predictions = {}
        for name, noise in (("fine", 0.03), ("coarse", 0.5)):
            missing = np.where(rng.random(SIZE) < 0.1, rng.choice([np.nan, np.inf, -np.inf], SIZE), 0)
            predictions[name] = (known + rng.normal(0, noise, SIZE) + missing).astype(np.float32)
        upsampled = (known + rng.choice([0, 0.05, 0.2, -0.3], SIZE)).astype(np.float32)
        upsampled[0, 0] = np.nan
        frames.append(
            ScoredFrame(
                rng.integers(100, 106, (*SIZE, 3)).astype(np.uint8)
                + rng.choice([0, 0, 0, 20], (*SIZE, 1)).astype(np.uint8),
                target,
                predictions,
                supported={name: rng.random(SIZE) < 0.8 for name in predictions},
                upsampled=upsampled,
                flow=rng.integers(-2, 3, (2, *SIZE)).astype(np.float32) if frames else None,
                measured=rng.random(SIZE) < 0.5,
                confidence={"fine": rng.uniform(0, 1, SIZE)},
            )
        )
    frames[2].confidence["fine"][:2] = 1.0
    return frames


def pixels_by_hand(frames: list[ScoredFrame], name: str) -> dict[str, float]:
    """Everything that a pixel alone decides."""
    errors: dict[str, list[float]] = {key: [] for key in ("all", "measured", "hole", "tail", "jitter", "flicker")}
    near, shown, classes = [], [], [[] for _ in range(10)]
    for t, frame in enumerate(frames):
        for place in np.ndindex(*SIZE):
            true, raw = float(frame.target[place]), float(frame.predictions[name][place])
            depth = raw if math.isfinite(raw) else 0.0
            if t >= 2:
                three = np.array([f.rgb[place] for f in frames[t - 2 : t + 1]], int)
                values = [float(f.predictions[name][place]) for f in frames[t - 2 : t + 1]]
                values = [value if math.isfinite(value) else 0.0 for value in values]
                if np.ptp(three, axis=0).max() <= 8:
                    errors["jitter"].append(values[1] - (values[0] + values[2]) / 2)
            if not (math.isfinite(true) and true > 0):
                continue
            errors["all"].append(depth - true)
            errors["measured" if frame.measured[place] else "hole"].append(depth - true)
            near.append(depth > 0 and max(depth / true, true / depth) < 1.25)
            shown.append(math.isfinite(raw) and frame.supported[name][place])
            guess = float(frame.upsampled[place])
            if abs(true - (0.0 if math.isnan(guess) else guess)) >= 0.1:
                errors["tail"].append(depth - true)
            if t:
                before = float(frames[t - 1].target[place])
                if math.isfinite(before) and before > 0:
                    old = float(frames[t - 1].predictions[name][place])
                    errors["flicker"].append((depth - true) - ((old if math.isfinite(old) else 0.0) - before))
            if name in frame.confidence:
                claimed = float(frame.confidence[name][place])
                right = abs(raw - true) <= max(0.02, 0.02 * raw) if math.isfinite(raw) else False
                classes[min(int(claimed * 10), 9)].append((claimed, right))

    def mae(key: str) -> float:
        return 100 * float(np.mean(np.abs(errors[key])))

    def rmse(key: str) -> float:
        return 100 * math.sqrt(np.mean(np.square(errors[key])))

    off = [abs(sum(claimed for claimed, _ in found) - sum(right for _, right in found)) for found in classes]
    return {
        "rmse_cm": rmse("all"),
        "mae_cm": mae("all"),
        "delta1": float(np.mean(near)),
        "coverage": float(np.mean(shown)),
        "measured_rmse_cm": rmse("measured"),
        "measured_mae_cm": mae("measured"),
        "hole_rmse_cm": rmse("hole"),
        "hole_mae_cm": mae("hole"),
        "longtail_spatial_rmse_cm": rmse("tail"),
        "jitter_cm": mae("jitter"),
        "flicker_cm": mae("flicker"),
        "confidence_error": sum(off) / sum(map(len, classes)) if name in frames[0].confidence else math.nan,
    }


def clip_at_once(frames: list[ScoredFrame], name: str) -> dict[str, float]:
    """Edges and what follows the flow, by the functions that test_metrics.py compares with loops."""
    target = torch.from_numpy(np.stack([frame.target for frame in frames]))[:, None]
    valid = target.isfinite() & (target > 0)
    target = target.where(valid, torch.zeros(()))
    pred = torch.from_numpy(np.stack([frame.predictions[name] for frame in frames]))[:, None]
    pred = pred.where(pred.isfinite(), torch.zeros(()))
    flow = torch.from_numpy(np.stack([frame.flow for frame in frames[1:]]))
    warped = functions.warp_previous(pred, target, valid, flow)
    tail = functions.motion_tail(target, valid, flow)
    return {
        "edge_rmse_cm": float(functions.edge_squared_error(pred, target, valid).root_mean()),
        "tepe_cm": float(functions.temporal_end_point_error(pred, target, valid, warped).mean()),
        "motion_tail_rmse_cm": float(functions.squared_error(pred[1:], target[1:], tail).root_mean()),
    }


def scored(frames: list[ScoredFrame], **options: bool) -> VideoScore:
    score = VideoScore(["fine", "coarse"], **options)
    for frame in frames:
        score.add(frame)
    return score


def test_every_figure_by_hand():
    frames = video()
    score = scored(frames)
    assert score.frames == FRAMES
    figures = score.figures()
    assert list(figures) == ["fine", "coarse"]
    for name in figures:
        expected = pixels_by_hand(frames, name) | clip_at_once(frames, name)
        assert set(expected) == set(FIGURES) == set(figures[name])
        assert figures[name] == pytest.approx(expected, rel=1e-4, nan_ok=True)
    assert math.isnan(figures["coarse"]["confidence_error"])


def test_figures_of_each_frame_pool_into_those_of_the_video():
    frames = video()
    by_frame = scored(frames, by_frame=True).figures_by_frame()
    assert len(by_frame) == FRAMES
    for t, frame in enumerate(frames):
        alone = scored([frame]).figures()
        for name in alone:
            for key in ("rmse_cm", "mae_cm", "delta1", "edge_rmse_cm", "coverage", "hole_mae_cm", "measured_rmse_cm"):
                assert by_frame[t][name][key] == pytest.approx(alone[name][key]), key
        pair = scored(frames[max(t - 1, 0) : t + 1]).figures()
        for key in ("flicker_cm", "tepe_cm", "motion_tail_rmse_cm"):
            assert by_frame[t]["fine"][key] == pytest.approx(pair["fine"][key], nan_ok=True), key
            assert math.isnan(by_frame[t]["fine"][key]) == (t == 0)
        assert math.isnan(by_frame[t]["fine"]["jitter_cm"]) == (t < 2)
    assert scored(frames).figures_by_frame() == [], "only if it was asked for"


def test_colour_may_be_float_and_support_absent():
    frames = video()
    plain = [
        ScoredFrame(frame.rgb.astype(np.float32) / 255, frame.target, frame.predictions, flow=frame.flow)
        for frame in frames
    ]
    figures, expected = scored(plain).figures()["fine"], scored(frames).figures()["fine"]
    for key in ("rmse_cm", "jitter_cm", "tepe_cm"):
        assert figures[key] == pytest.approx(expected[key]), key
    valid = [np.isfinite(frame.target) & (frame.target > 0) for frame in frames]
    shown = [np.isfinite(frame.predictions["fine"])[ok] for frame, ok in zip(frames, valid, strict=True)]
    assert figures["coverage"] == pytest.approx(np.concatenate(shown).mean())
    for key in ("longtail_spatial_rmse_cm", "measured_mae_cm", "hole_mae_cm", "confidence_error"):
        assert math.isnan(figures[key]), key


@pytest.mark.parametrize(
    ("part", "named"), [("rgb", "colour"), ("upsampled", "bilinear depth"), ("flow", "flow"), ("fine", "fine")]
)
def test_arrays_of_another_size_are_named(part, named):
    frame = video()[1]
    parts = {key: getattr(frame, key) for key in ("rgb", "target", "predictions", "upsampled", "flow")}
    if part == "fine":
        parts["predictions"] = frame.predictions | {"fine": frame.target[:, 1:]}
    else:
        parts[part] = parts[part][..., :8, :] if part == "rgb" else parts[part][..., 1:]
    with pytest.raises(InputError, match=rf"{named} of shape \(7, 8\) cannot be compared with truth of \(7, 9\)"):
        VideoScore(["fine", "coarse"]).add(ScoredFrame(**parts))


def test_mean_over_sequences_that_lack_a_figure():
    sequences = {
        "one": {"ours": {"mae_cm": 1.0, "tepe_cm": math.nan}},
        "two": {"ours": {"mae_cm": 4.0, "tepe_cm": 2.0}, "theirs": {"mae_cm": math.inf}},
    }
    mean = mean_figures(sequences)
    assert mean["ours"] == {"mae_cm": 2.5, "tepe_cm": 2.0}
    assert math.isnan(mean["theirs"]["mae_cm"])


def test_a_faultless_cell_does_not_break_the_score():
    """An error of 0 counts as 1e-12 of the rival's: sqrt(sqrt(1e-12 * 1) * 1)."""
    assert cell_score([(0.0, 0.0), (1.0, 1.0)]) == pytest.approx(1e-3)
    assert cell_score([(4.0, 1.0)]) == pytest.approx(2.0)


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_no_depth_is_never_within_the_tolerance(missing):
    """Two per cent of infinity are no licence."""
    target = np.full(SIZE, 2.0, np.float32)
    score = VideoScore(["ours"])
    claimed = {"ours": np.full(SIZE, 0.9)}
    score.add(
        ScoredFrame(np.zeros((*SIZE, 3), np.uint8), target, {"ours": target * np.float32(missing)}, confidence=claimed)
    )
    assert score.figures()["ours"]["confidence_error"] == pytest.approx(0.9)


def test_without_flow_only_the_figures_along_it_are_missing():
    frames = video()
    figures = scored([replace(frame, flow=None) for frame in frames]).figures()["fine"]
    expected = scored(frames).figures()["fine"]
    lacking = {name for name, value in figures.items() if math.isnan(value)}
    assert lacking == {"tepe_cm", "motion_tail_rmse_cm"}
    assert {name: value for name, value in figures.items() if name not in lacking} == {
        name: value for name, value in expected.items() if name not in lacking
    }
