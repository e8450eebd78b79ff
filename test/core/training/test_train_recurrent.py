"""Training of the recurrent network: configuration, batches of any ratio, loss, runs, validation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from train_fixtures import write_clip

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.sensors import sensor
from stdnet_core.data.sensors.cell import JUDGED
from stdnet_core.data.sensors.variation import smoothed, varied
from stdnet_core.errors import ConfigError
from stdnet_core.model import ModelConfig, RecurrentConfig, RecurrentNet, STDNet
from stdnet_core.model.recurrent import RecurrentOutput
from stdnet_core.training import state as run_state
from stdnet_core.training.batches import BatchStream
from stdnet_core.training.config import TrainConfig, load_config, to_yaml, validation_key
from stdnet_core.training.keeper import read_log
from stdnet_core.training.module import TrainingDiverged, loss_config, model_config
from stdnet_core.training.recurrent_batches import VideoBatchBuilder, hidden
from stdnet_core.training.recurrent_loss import RecurrentLossConfig
from stdnet_core.training.run import run
from stdnet_core.training.validation import VideoValidator, make_validator, table, validated_cells

CPU = torch.device("cpu")
SMALL = [
    "model={preset: live, channels: 4, channels_8: 8, channels_16: 8, blocks: 0}",
    "data.cells={realsense_d435@1: 1, area@2.5: 1, dtof_jitter@8: 1}",
    "data.video.crops=[{from_ratio: 1, sides: [48, 64]}]",
    "data.lengths=[2, 3]",
    "data.batch_size=2",
    "optim.warmup_steps=0",
    "optim.horizon=steps",
    "optim.schedule=constant",
    "val.sources=[{source: 'synthetic:900001,1,64x64,3'}]",
    "val.cells=[realsense_d435@1.5]",
    "val.every=0",
    "val.clips=1",
    "val.length=3",
    "val.crop=64",
    "val.pictures=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.threads=1",
]
UNVARIED = [
    "data.augmentation={flip_horizontal: 0, flip_vertical: 0, transpose: 0, reverse: 0, depth_gain: [1,1]}",
    "data.video={standing: 0, gained: 0, recorded: 0, varied: 0, smoothed: 0, hidden: 0}",
]


def small(*overrides: str) -> TrainConfig:
    """A run on procedural scenes whose steps take a part of a second."""
    return load_config(None, [*SMALL, *overrides])


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("data.cells={}", "data.cells is empty"),
        ("data.cells={sonar@8: 1}", "sonar"),
        ("data.cells={exact@0.5: 1}", "ratio must be 1 or more"),
        ("data.cells={exact@fine: 1}", "not a ratio"),
        ("data.cells={exact@1: 0}", "at least one of them positive"),
        ("data.cells={exact@1: -1, area@8: 3}", "non-negative"),
        ("data.video.recorded_by={sonar: 1}", "sonar"),
        ("data.video.standing=2", "data.video.standing"),
        ("data.video.gain=[2,1]", "data.video.gain"),
        ("data.video.crops=[]", "data.video.crops"),
        ("data.video.crops=[{from_ratio: 4}]", "the first from 1"),
        ("data.video.crops=[{from_ratio: 1, sides: [100]}]", "multiples of 16"),
        ("data.video.size=3", "size"),
        ("model.preset=tiny_causal", "only for recurrent networks"),
    ],
)
def test_wrong_values_are_named(override: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        small(override)


def test_loss_and_model_are_those_of_the_network() -> None:
    config = small("loss.flicker_weight=0.3")
    assert loss_config(config) == RecurrentLossConfig(flicker_weight=0.3)
    assert model_config(config) == RecurrentConfig(channels=4, channels_8=8, channels_16=8, blocks=0)
    with pytest.raises(ConfigError, match="stage_weight"):
        loss_config(small("loss.stage_weight=0.1"))
    with pytest.raises(ConfigError, match="not a number"):
        loss_config(small("loss.mae_weight=much"))
    with pytest.raises(ConfigError, match="hole_share"):
        loss_config(small("loss.hole_share=2"))
    with pytest.raises(ConfigError, match="passes"):
        model_config(small("model.passes=[forward]"))


def test_the_recipe_that_ships(tmp_path: Path) -> None:
    config = load_config("live", ["data.root=/data"])
    assert model_config(config) == RecurrentConfig()
    assert loss_config(config) == RecurrentLossConfig()
    assert {str(cell) for cell in JUDGED} <= set(config.data.cells)
    assert validated_cells(config) == list(JUDGED)
    replaced = load_config("live", ["data.root=/data", "data.cells={exact@1: 1}"])
    assert replaced.data.cells == {"exact@1": 1.0}
    assert validation_key(replaced) == validation_key(config), "both are judged alike"
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config


# --- batches ---------------------------------------------------------------------------------------------------------


def same(one: dict, other: dict) -> bool:
    tensors = [name for name in one if isinstance(one[name], torch.Tensor)]
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in tensors)


def test_a_batch_depends_on_its_number_alone() -> None:
    builder = VideoBatchBuilder(small())
    batches = {index: builder.build(index) for index in (3, 1, 2)}
    again = VideoBatchBuilder(small())
    assert all(same(again.build(index), batches[index]) for index in (1, 2, 3))
    assert not same(VideoBatchBuilder(small("seed=1")).build(3), batches[3])
    stream = iter(BatchStream(small(), "cpu", 0, 1, start=1))
    assert all(same(next(stream), batches[index]) for index in (1, 2, 3))


def test_processes_share_a_batch(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "clip", height=64)
    config = small("data.batch_size=4", f"data.sources=[{{source: 'folder:{tmp_path / 'clips'}'}}]")
    joint = VideoBatchBuilder(config).build(2)
    parts = [VideoBatchBuilder(config, rank=rank, processes=2).build(2) for rank in range(2)]
    for name in ("rgb", "depth", "valid", "depth_lr", "flow"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), joint[name])


def test_crops_are_chosen_by_ratio() -> None:
    crops = (
        "data.video.crops=[{from_ratio: 1, sides: [48]}, {from_ratio: 7.5, sides: [64]}, {from_ratio: 16, sides: [80]}]"
    )
    config = small(crops, "data.cells={exact@1: 1, exact@7.5: 1, exact@30: 1}", "data.pixel_budget=20000")
    builder = VideoBatchBuilder(config)
    plans = [builder.plan(index) for index in range(40)]
    assert {(plan.scale, plan.height, plan.width) for plan in plans} == {(1, 48, 48), (7.5, 64, 64), (30, 80, 80)}
    assert all(plan.clips == max(1, round(20000 / (plan.height * plan.width * plan.length))) for plan in plans)


@pytest.mark.parametrize("ratio", [1, 1.5, 3, 7.5, 30])
def test_cells_lie_where_their_depth_was_measured(ratio: float) -> None:
    config = small(*UNVARIED, f"data.cells={{exact@{ratio}: 1}}", "data.batch_size=1")
    batch = VideoBatchBuilder(config).build(0)
    truth, low = batch["depth"][0, :, 0].numpy(), batch["depth_lr"][0, :, 0].numpy()
    frames, height, width = truth.shape
    assert batch["rgb"].shape == (1, frames, 3, height, width)
    assert batch["flow"].shape == (1, frames, 2, height // 4, width // 4)
    for size, cells, pixels in zip((height, width), low.shape[-2:], batch["ratio"], strict=True):
        assert (cells - 1) * pixels < size <= cells * pixels + 1e-6, "they cover the crop, all of them are in it"
        assert pixels == pytest.approx(ratio, rel=0.1)
    rows, columns = (
        np.minimum(((np.arange(size) + 0.5) / pixels).astype(int), cells - 1)
        for size, pixels, cells in zip((height, width), batch["ratio"], low.shape[-2:], strict=True)
    )
    for row in range(low.shape[1]):
        for column in range(low.shape[2]):
            inside = truth[:, rows == row][:, :, columns == column].reshape(frames, -1)
            assert np.abs(inside - low[:, row, column, None]).min(1).max() < 1e-5
    assert batch["valid"].all()
    assert ("measured" in batch) == (ratio < 4)
    if ratio == 1:
        np.testing.assert_array_equal(low, truth)
        assert batch["measured"].all()


def test_measured_pixels_are_told_from_holes() -> None:
    config = small("data.cells={realsense_d435@2: 1}", "data.video.crops=[{sides: [64]}]")
    batch = VideoBatchBuilder(config).build(1)
    expected = (batch["depth_lr"] > 0).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.equal(batch["measured"], expected)
    assert not expected.all()
    assert (batch["valid"] & ~expected).any()


def test_hidden_patches_are_holes_where_the_truth_stays() -> None:
    patches = [hidden((120, 160), np.random.default_rng(seed)) for seed in range(40)]
    shares = [float(patch.float().mean()) for patch in patches]
    assert 0.01 <= min(shares) < 0.05 < 0.1 < max(shares) < 0.25
    assert all(patch.shape == (120, 160) for patch in patches)
    batch = VideoBatchBuilder(small("data.cells={exact@1: 1}", *UNVARIED, "data.video.hidden=1")).build(0)
    missing = batch["depth_lr"] == 0
    assert 0.005 < float(missing.float().mean()) < 0.3
    assert torch.equal(missing[:, 0], missing[:, 1]), "for as long as the clip lasts"
    assert batch["valid"][missing].float().mean() > 0.5


def test_standing_and_recorded_clips() -> None:
    still = VideoBatchBuilder(small("data.cells={exact@4: 1}", "data.video={standing: 1, recorded: 0}")).build(0)
    assert torch.equal(still["depth"][:, 1:], still["depth"][:, :1].expand_as(still["depth"][:, 1:]))
    assert 0.001 < float((still["rgb"][:, 1] - still["rgb"][:, 0]).std()) < 0.02
    recorded = VideoBatchBuilder(small("data.cells={exact@4: 1}", "data.video={standing: 1, recorded: 1}")).build(0)
    assert (recorded["depth"] == 0).any(), "holes of the camera that saw it first"
    assert not torch.equal(recorded["depth"][:, 1], recorded["depth"][:, 0])


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_is_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    run(small("optim.steps=2"), tmp_path / "parts")
    result = run(small("optim.steps=4"), tmp_path / "parts")
    assert (result.first_step, result.last_step) == (2, 4)
    run(small("optim.steps=4"), tmp_path / "whole")
    parts, whole = (run_state.read(tmp_path / name / run_state.FILE_NAME).tensors() for name in ("parts", "whole"))
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    lines = [line for line in read_log(tmp_path / "whole" / "log.jsonl") if "loss" in line]
    assert set(lines[0]["terms"]) == {"mae", "rmse", "flicker", "confidence"}
    assert {line["batch"]["scale"] for line in lines} <= {1, 2.5, 8}
    model, info = checkpoints.load(tmp_path / "whole" / "last.safetensors")
    assert isinstance(model, RecurrentNet)
    assert (info.scales, info.depth_range, info.provenance["step"]) == ((), None, 4)
    assert (tmp_path / "whole" / "best.safetensors").is_file()
    json.dumps(info.metrics, allow_nan=False)


def test_runs_start_from_equal_networks_in_bf16(tmp_path: Path) -> None:
    run(small("optim.steps=2"), tmp_path / "first")
    start = f"init={tmp_path / 'first' / 'last.safetensors'}"
    run(small(start, "optim.steps=1", "optim.lr=1e-12", "trainer.precision=bf16-mixed"), tmp_path / "second")
    first, second = (checkpoints.load(tmp_path / name / "last.safetensors")[0] for name in ("first", "second"))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, atol=1e-6, rtol=1e-6)
    with pytest.raises(ConfigError, match="channels_16: 8.*channels_16: 4"):
        run(small(start, "model.channels_16=4"), tmp_path / "narrower")
    model = STDNet(ModelConfig.preset("tiny", channels=4, head_channels=4))
    checkpoints.save(tmp_path / "stdnet.safetensors", model, CheckpointInfo(model.config, (4,), None))
    with pytest.raises(ConfigError, match="STDNet; the run's is recurrent"):
        run(small(f"init={tmp_path / 'stdnet.safetensors'}"), tmp_path / "other")


def test_bad_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = VideoBatchBuilder.build

    def spoiled(builder: VideoBatchBuilder, index: int) -> dict:
        batch = build(builder, index)
        batch["depth_lr"][..., 3] = math.nan
        batch["rgb"][..., 3] = math.nan
        return batch

    monkeypatch.setattr(VideoBatchBuilder, "build", spoiled)
    with pytest.raises(TrainingDiverged, match=r"step 1: .*data are not finite \(rgb, depth_lr\)"):
        run(small("optim.steps=1"), tmp_path / "run")
    assert (tmp_path / "run" / "diverged.txt").is_file()


# --- validation ------------------------------------------------------------------------------------------------------


class Nearest(nn.Module):
    """Every pixel has the depth of its cell, and whoever asks without history gets 1 m more."""

    def forward(
        self, rgb: torch.Tensor, depth: torch.Tensor, flow: torch.Tensor, ratio: tuple[float, float]
    ) -> RecurrentOutput:
        rows, columns = (
            ((torch.arange(size) + 0.5) / pixels).long().clamp(max=cells - 1)
            for size, pixels, cells in zip(rgb.shape[-2:], ratio, depth.shape[-2:], strict=True)
        )
        upsampled = depth.index_select(-2, rows).index_select(-1, columns) + float(rgb.shape[1] == 1)
        return RecurrentOutput(upsampled, torch.zeros_like(upsampled))


def test_validation_is_at_native_ratios() -> None:
    cells = ["exact@1", "exact@3", "area@7.5", "vl53_8x8", "realsense_d435@1"]
    validator = make_validator(small(f"val.cells=[{','.join(cells)}]", "val.pictures=2"))
    assert isinstance(validator, VideoValidator)
    figures, score, picture = validator.run(Nearest(), CPU)
    by_cell = {name.rsplit(" ", 1)[1]: values for name, values in figures.items()}
    assert list(by_cell) == ["exact@1", "exact@3", "area@7.5", "vl53_8x8@30", "realsense_d435@1"]
    assert "rmse_ratio" not in by_cell["exact@1"], "nothing is better than what is faultless"
    assert by_cell["exact@1"]["rmse_cm"] == pytest.approx(0, abs=1e-4)
    for case in validator.cases:
        assert set(case.rivals) == {"nearest", "bilinear"} | ({"joint_bilateral"} if case.cell.ratio != 7.5 else set())
        cells = Nearest()(case.clip.rgb[None], case.depth_lr, case.flow, case.ratio).depth[0]
        torch.testing.assert_close(case.rivals["nearest"][cells > 0], cells[cells > 0])
    for name in ("exact@3", "area@7.5"):
        assert by_cell[name]["rmse_ratio"] >= 1 - 1e-4
        assert by_cell[name]["history_mae"] < 1
    assert all(math.isfinite(value) for values in figures.values() for value in values.values())
    assert math.isfinite(score)
    assert picture.shape[1] == 7 * 64
    assert len(table(figures).splitlines()) == 1 + len(figures)


def test_where_rivals_are_faultless_the_score_is_of_errors() -> None:
    _, score, _ = make_validator(small("val.cells=[exact@1]")).run(RecurrentNet(), CPU)
    assert math.isfinite(score)


# --- cameras of their own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exact", "realsense_d435", "kinect_azure", "iphone_lidar", "dtof_paper"])
def test_a_varied_camera_is_of_the_same_kind_and_another_each_time(name):
    rng = np.random.default_rng(0)
    cameras = [varied(sensor(name), rng) for _ in range(40)]
    assert {camera.family for camera in cameras} == {sensor(name).family}
    assert len({repr(camera) for camera in cameras}) > 3
    again = np.random.default_rng(0)
    assert [varied(sensor(name), again) for _ in range(40)] == cameras


def test_smoothing_in_the_camera_takes_noise_and_leaves_holes():
    rng = np.random.default_rng(0)
    depth = torch.from_numpy(2 + 0.02 * rng.standard_normal((2, 1, 40, 60)).astype(np.float32))
    depth[..., 10:20, 10:20] = 0
    out = smoothed(depth, 5)
    assert torch.equal(out == 0, depth == 0)
    assert out[..., 25:35, 30:50].std() < 0.6 * depth[..., 25:35, 30:50].std()
    middle = depth[0, 0, 28:33, 38:43].flatten()
    assert out[0, 0, 30, 40] == middle.median()
