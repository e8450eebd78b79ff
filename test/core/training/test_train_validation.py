"""Validation during training: what is measured, where, and by which score the best weights are chosen."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from train_fixtures import small_config, write_clip

from stdnet_core.evaluation.scoring import cell_score
from stdnet_core.model import STDNetOutput
from stdnet_core.training.validation import Validator, away_from_edges

CPU = torch.device("cpu")


def upsampled(rgb: torch.Tensor, depth_lr: torch.Tensor) -> torch.Tensor:
    """Bilinear interpolation of normalised depth (B, T, 1, h, w)."""
    size = rgb.shape[-2:]
    depth = nn.functional.interpolate(depth_lr.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
    return depth.unflatten(0, rgb.shape[:2])


class Shifted(nn.Module):
    """Bilinear interpolation of its input, moved by a constant."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, rgb: torch.Tensor, depth_lr: torch.Tensor) -> STDNetOutput:
        depth = upsampled(rgb, depth_lr) + self.shift
        return STDNetOutput(depth, (depth,), (depth,), torch.ones_like(depth))


class Averaging(nn.Module):
    """The mean of the interpolated frames up to each frame: all that history can give where nothing moves."""

    def forward(self, rgb: torch.Tensor, depth_lr: torch.Tensor) -> STDNetOutput:
        depth = upsampled(rgb, depth_lr)
        depth = depth.cumsum(1) / torch.arange(1, depth.shape[1] + 1).view(1, -1, 1, 1, 1)
        return STDNetOutput(depth, (depth,), (depth,), torch.ones_like(depth))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clips" / "clip")
    return tmp_path / "clips"


def test_bilinear_is_as_good_as_the_better_rival_or_worse(clips: Path) -> None:
    validator = Validator(
        small_config(clips, "val.pictures=1", "data.scales={4: 1, 8: 1}", "val.cells=[area@4,exact@8]")
    )
    figures, score, picture = validator.run(Shifted(0.0), CPU)
    assert [name.rsplit(" ", 1)[1] for name in figures] == ["area@4", "exact@8"]
    for values in figures.values():
        assert values["rmse_ratio"] >= 1 - 1e-4
        assert values["flat_mae_ratio"] == pytest.approx(1, abs=1e-4)
        assert values["history_rmse"] == pytest.approx(1, abs=1e-5), "it has no memory"
    assert score >= 1 - 1e-4
    assert picture is not None
    assert picture.shape == (34, 7 * 32, 3)


def test_figures_by_hand(clips: Path) -> None:
    validator = Validator(small_config(clips, "data.scales={4: 1}", "val.cells=[median@4]"))
    figures, score, _ = validator.run(Shifted(0.1), CPU)
    (case,) = validator.cases
    truth, valid = case.clip.depth.numpy(), case.clip.valid.numpy()

    def error(depth: torch.Tensor) -> np.ndarray:
        return 100 * np.abs(depth.numpy() - truth)[valid]

    ours = error((upsampled(case.clip.rgb[None], case.depth_lr) + 0.1)[0] * case.depth_range[0])
    rivals = [error(depth) for depth in case.rivals.values()]
    (values,) = figures.values()
    assert values["mae_cm"] == pytest.approx(ours.mean(), rel=1e-4)
    assert values["rmse_cm"] == pytest.approx(np.sqrt((ours**2).mean()), rel=1e-4)
    assert values["rival_mae_cm"] == pytest.approx(min(e.mean() for e in rivals), rel=1e-4)
    assert values["rival_rmse_cm"] == pytest.approx(min(np.sqrt((e**2).mean()) for e in rivals), rel=1e-4)
    assert score == pytest.approx(math.sqrt(values["rmse_ratio"] * values["mae_ratio"]))


def test_history_is_seen_where_it_is_used(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clips" / "still", frames=4)
    for path in (clip / "depth").glob("*.png"):
        depth = np.full((48, 64), 3000, np.uint16)  # nothing but the jitter of readings is wrong,
        depth[20, 20] = 6000  # which is of bins of this range
        cv2.imwrite(str(path), depth)
    config = small_config(
        tmp_path / "clips", "data.scales={4: 1}", "val.cells=[dtof_jitter@4]", "val.length=4", "val.crop=32"
    )
    ((_, values),) = Validator(config).run(Averaging(), CPU)[0].items()
    assert values["history_mae"] < 0.85
    ((_, values),) = Validator(config).run(Shifted(0.0), CPU)[0].items()
    assert values["history_mae"] == pytest.approx(1, abs=1e-5)


def test_a_bad_cell_cannot_hide() -> None:
    good = [(0.5, 0.5)] * 30
    assert cell_score(good) == pytest.approx(0.5)
    assert cell_score([*good, (2.0, 2.0)]) > 1, "the root of a mean of about 0.52 times a worst cell of 2"
    mean = math.exp((30 * math.log(0.5) + math.log(2.0)) / 31)
    assert cell_score([*good, (1.0, 4.0)]) == pytest.approx(math.sqrt(mean * 2.0))


def test_each_cell_takes_other_clips_in_turn(tmp_path: Path) -> None:
    for seed in range(4):
        write_clip(tmp_path / "clips" / f"clip_{seed}", seed=seed)
    config = small_config(
        tmp_path / "clips", "data.scales={4: 1}", "val.cells=[area@4,min@4,median@4,exact@4,bicubic@4]"
    )
    names = [case.clip.name.rsplit("/", 1)[-1] for case in Validator(config).cases]
    assert names == ["clip_0", "clip_1", "clip_2", "clip_3", "clip_0"]


def test_without_cells_those_of_the_judge_at_the_scales_that_are_trained(clips: Path) -> None:
    cells = {case.cell for case in Validator(small_config(clips, "data.scales={8: 1, 16: 0}")).cases}
    assert {cell.ratio for cell in cells} == {8}
    assert {"dtof_paper", "area", "median"} < {cell.camera for cell in cells}


def test_a_scene_is_brought_into_the_range_of_the_camera(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clips" / "far")
    for path in (clip / "depth").glob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * 15)  # 22 to 60 m
    config = small_config(tmp_path / "clips", "data.scales={4: 1}", "val.cells=[dtof_paper@4,kinect_azure@4]")
    far, near = Validator(config).cases
    assert float(far.clip.depth.max()) > 40, "this one has the range of the scene"
    assert float((far.depth_lr * far.depth_range).max()) > 40
    assert float(near.clip.depth.max()) < 6, "and this one sees 5.5 m"


def test_edges_are_steps_and_not_slopes() -> None:
    slope = torch.linspace(3, 4, 64).expand(1, 1, 48, 64).clone()
    valid = torch.ones_like(slope, dtype=torch.bool)
    assert away_from_edges(slope, valid, 4).all()
    slope[..., 30:] = 9.0
    flat = away_from_edges(slope, valid, 4)[0, 0, 20]
    assert not flat[26:34].any()
    assert flat[:24].all()
    assert flat[36:].all()
