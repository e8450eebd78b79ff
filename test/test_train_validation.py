"""Validation during training: what is measured, and where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from train_fixtures import small_config, write_clip

from stdnet_core.model import STDNetOutput
from stdnet_core.training.validation import Validator, away_from_edges, interpolate


class Shifted(nn.Module):
    """Bilinear interpolation of its input, moved by a constant."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, rgb: torch.Tensor, depth_lr: torch.Tensor) -> STDNetOutput:
        size = rgb.shape[-2:]
        depth = nn.functional.interpolate(depth_lr.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
        depth = depth.unflatten(0, rgb.shape[:2]) + self.shift
        return STDNetOutput(depth, (depth,), (depth,), torch.ones_like(depth))


@pytest.fixture
def validator(tmp_path: Path) -> Validator:
    write_clip(tmp_path / "clips" / "clip")
    return Validator(small_config(tmp_path / "clips", "val.pictures=1", "data.scales={4: 1, 8: 1}"))


def test_bilinear_scores_one_against_itself(validator: Validator) -> None:
    figures, score, picture = validator.run(Shifted(0.0), torch.device("cpu"))
    assert score == pytest.approx(1.0, abs=1e-4)
    assert [name.rsplit(" ", 1)[1] for name in figures] == ["x4", "x8"]
    assert picture is not None
    assert picture.shape == (34, 7 * 32, 3)


def test_figures_by_hand(validator: Validator) -> None:
    figures, _, _ = validator.run(Shifted(0.1), torch.device("cpu"))
    case = validator.cases[0]
    truth, valid = case.clip.depth.numpy(), case.clip.valid.numpy()
    error = 100 * np.abs(interpolate(case).numpy() + 0.1 * case.depth_range.item() - truth)[valid]
    name = f"{case.source} x4"
    assert figures[name]["mae_cm"] == pytest.approx(error.mean(), rel=1e-4)
    assert figures[name]["rmse_cm"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert figures[name]["mae_ratio"] > 1


def test_depth_beyond_the_sensor_of_the_configuration_is_seen(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clips" / "far")
    for path in (clip / "depth").glob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * 15)  # 22 to 60 m, range_m is 20
    validator = Validator(small_config(tmp_path / "clips"))
    for case in validator.cases:
        low = case.depth_lr * case.depth_range
        assert float(low.max()) > 40
        assert case.clip.valid.all()


def test_edges_are_steps_and_not_slopes() -> None:
    slope = torch.linspace(3, 4, 64).expand(1, 1, 48, 64).clone()
    valid = torch.ones_like(slope, dtype=torch.bool)
    assert away_from_edges(slope, valid, 4).all()
    slope[..., 30:] = 9.0
    flat = away_from_edges(slope, valid, 4)[0, 0, 20]
    assert not flat[26:34].any()
    assert flat[:24].all()
    assert flat[36:].all()
