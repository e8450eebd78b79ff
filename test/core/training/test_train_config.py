"""Configuration, schedule and random draws of training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from train_fixtures import REPOSITORY

from stdnet_core import train
from stdnet_core.errors import ConfigError
from stdnet_core.training.config import DataConfig, OptimConfig, SourceConfig, load_config, to_plain
from stdnet_core.training.draw import plan_batch
from stdnet_core.training.module import loss_config, model_config
from stdnet_core.training.pool import selected
from stdnet_core.training.schedule import ema_decay, learning_rate

SHIPPED = sorted((REPOSITORY / "config" / "train").glob("*.yaml"))


def test_overrides_win_over_the_file_which_wins_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("optim: {lr: 0.5, steps: 7, ema: 0.25}\n")
    (tmp_path / "run.yaml").write_text("base: base.yaml\noptim: {steps: 8, ema: 0.5}\n")
    config = load_config(tmp_path / "run.yaml", ["optim.ema=0.75"])
    assert (config.optim.lr, config.optim.steps, config.optim.ema) == (0.5, 8, 0.75)


def test_a_table_of_probabilities_replaces_the_default() -> None:
    assert load_config(None, ["data.scales={8: 1}"]).data.scales == {8: 1.0}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configurations_are_complete_and_without_folders_of_a_machine(path: Path) -> None:
    config = load_config(path, ["data.root=/data"])
    model_config(config)
    loss_config(config)
    if path.stem.startswith("paper"):
        scale = int(path.stem.removeprefix("paper_x"))
        assert config.data.scales == {scale: 1.0}
        assert model_config(config).channels == 64
        assert config.data.normalization.depth_range == 30.0
        assert (config.optim.name, config.optim.steps, config.optim.ema) == ("adam", 506_000, 0.0)
        steps = (0, 151_799, 151_800, 202_399, 202_400, 505_999)
        rates = [learning_rate(config.optim, step) for step in steps]
        assert rates == pytest.approx([1e-4, 1e-4, 2e-5, 2e-5, 4e-6, 4e-6])
        assert (list(config.data.lengths), list(config.data.crops), config.data.batch_size) == ([7], ["256"], 6)
        assert [source.max_depth for source in config.data.sources] == [None]
    text = path.read_text()
    assert not [word for word in text.replace(":", " ").split() if len(word) > 1 and word.startswith("/")]


@pytest.mark.parametrize("name_of_config", ["tiny_causal_mixed", "live"])
def test_held_out_clips_are_left_out_of_training_and_are_what_validation_uses(name_of_config: str) -> None:
    lines = (REPOSITORY / "config" / "train" / "heldout_clips.txt").read_text().splitlines()
    held_out = [line for line in lines if line and not line.startswith("#")]
    assert len(held_out) == 15
    config = load_config(name_of_config, ["data.root=/data"])
    for name in held_out:
        kind = "libero" if "libero" in name else "openarena"
        for sources, wanted in ((config.data.sources, False), (config.val.sources, True)):
            (source,) = (s for s in sources if s.source.endswith(kind))
            assert selected(f"{kind}/{name}", source) is wanted
            assert selected(name, source) is wanted
    trained = ["cbctf1_055", "oa_dm1_059", "002_libero_kitchen_tabletop_base_style"]
    for name in trained:
        assert any(selected(name, s) for s in config.data.sources if not s.source.startswith("synthetic"))


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("optim.steps=many", "optim.steps=many"),
        ("optim.stepz=3", "stepz"),
        ("optim.lr=-1", "optim.lr"),
        ("optim.lr", "no value"),
        ("data.crops=[100]", "multiple of 16"),
        ("data.crops=[]", "at least one"),
        ("data.scales={5: 1}", "scale 5"),
        ("data.scales={4: 0}", "data.scales"),
        ("data.normalization.mode=fixed", "depth_range"),
        ("data.normalization.depth_range=3", "mode fixed"),
        ("data.normalization.gain=[2,1]", "gain"),
        ("data.sensors.log_uniform={dtof.range_m: [0, 4]}", "range_m"),
        ("data.sources=[{source: synthetic, weight: 0}]", "positive weight"),
        ("optim.schedule=step", "cosine"),
        ("trainer.precision=16", "precision"),
        ("trainer.accelerator=tpu", "accelerator"),
        ("val.sources=[]", "val.sources"),
        ("data.sensors.holes={cheese: 1}", "cheese"),
        ("data.sensors.presets={sonar: 1}", "sonar"),
        ("data.sensors.uniform={dtof.colour: [0, 1]}", "colour"),
        ("data.sensors.imperfections={radar.range_m: [0, 1]}", "radar"),
        ("val.cells=[area@2]", "area@2"),
        ("val.cells=[sonar@8]", "sonar"),
    ],
)
def test_wrong_values_are_named(override: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part.replace("[", r"\[")):
        load_config(None, [override])


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file 'nowhere'"):
        load_config("nowhere")
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    with pytest.raises(ConfigError, match="its own base"):
        load_config(tmp_path / "loop.yaml")
    (tmp_path / "broken.yaml").write_text("optim: {lr: [1\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds no keys"):
        load_config(tmp_path / "list.yaml")


def test_sources_below_a_root_need_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STDNET_DATA", raising=False)
    monkeypatch.delenv("TARTANAIR", raising=False)
    for name, variable in (("tiny_causal_mixed", "STDNET_DATA"), ("paper_x8", "TARTANAIR")):
        with pytest.raises(ConfigError, match=rf"data\.root=FOLDER or set the environment variable {variable}$"):
            load_config(name)
    monkeypatch.setenv("STDNET_DATA", "/data")
    assert load_config("tiny_causal_mixed").data.sources[0].source == "folder:/data/openarena"


def test_unknown_model_and_loss_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="chanels"):
        model_config(load_config(None, ["model.chanels=3"]))
    with pytest.raises(ConfigError, match="alpha"):
        loss_config(load_config(None, ["loss.alpha=3"]))


def test_ablations_are_overrides() -> None:
    config = load_config("paper_x8", ["data.root=/d", "model.spatial_difference=false", "model.neighbors=1"])
    assert not model_config(config).spatial_difference
    assert model_config(config).neighbors == 1
    assert not loss_config(load_config(None, ["loss.temporal_weight=0"])).uses_temporal


def test_networks_without_uncertainty_are_not_asked_for_it() -> None:
    assert loss_config(load_config(None)).uncertainty_weight > 0
    assert loss_config(load_config(None, ["model.preset=base"])).uncertainty_weight == 0


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_the_papers_recipe_has_the_released_loss(scale: int) -> None:
    loss = loss_config(load_config(f"paper_x{scale}", ["data.root=/d"]))
    published = {
        "eps": 1e-12,
        "spatial_weight": 0.5,
        "temporal_weight": 0.5,
        "regularization_weight": 0.01,
        "spatial_weight_form": "release",
        "spatial_weight_offset": 1.0,
        "spatial_stage_share": 0.2,
    }
    ours = dict.fromkeys(vars(loss).keys() - published.keys(), 0.0)
    assert vars(loss) == published | ours


def test_print_config_prints_what_it_would_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert train.main(["--config", "paper_x4", "--print-config", "optim.lr=0.125"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    printed = load_config(tmp_path / "printed.yaml", ["data.root=/data"])
    assert printed.optim.lr == 0.125
    expected = to_plain(load_config("paper_x4", ["data.root=/data", "optim.lr=0.125"]))
    assert to_plain(printed)["optim"] == expected["optim"]


@pytest.mark.parametrize("override", ["model.foo=1", "loss.foo=1", "loss.eps=x"])
def test_print_config_refuses_what_a_run_would(override: str) -> None:
    with pytest.raises(ConfigError, match="foo|loss.eps"):
        train.main(["--print-config", override])


def test_cosine_schedule_by_hand() -> None:
    optim = OptimConfig(lr=2.0, steps=100, warmup_steps=9, final_lr=0.1)
    assert learning_rate(optim, 0) == pytest.approx(0.2)
    assert learning_rate(optim, 50) == pytest.approx(2.0 * 0.55)
    assert learning_rate(optim, 100) == pytest.approx(0.2)
    assert learning_rate(optim, 10**6) == pytest.approx(0.2)
    quarter = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))
    assert learning_rate(optim, 25) == pytest.approx(2.0 * quarter)
    assert learning_rate(optim, 10, time_used=0.5) == pytest.approx(2.0 * 0.55)


def test_average_forgets_its_start() -> None:
    value, weights = 100.0, 1.0
    for step in range(60):
        decay = ema_decay(0.999, step)
        value = decay * value + (1 - decay) * weights
    assert value < 1.01
    assert ema_decay(0.9, 10**6) == 0.9


def test_patterns_match_a_name_or_its_last_part() -> None:
    source = SourceConfig(include=["a*"], exclude=["*bad"])
    assert [selected(n, source) for n in ("abc", "x/abc", "xabc", "a_bad")] == [True, True, False, False]


def test_plans_follow_their_probabilities_and_the_pixel_budget() -> None:
    data = DataConfig(scales={4: 3.0, 16: 1.0}, crops=["32", "64x96"], lengths=[2, 4], pixel_budget=24576)
    plans = [plan_batch(data, 5, index) for index in range(2000)]
    assert plans == [plan_batch(data, 5, index) for index in range(2000)]
    assert np.mean([plan.scale == 4 for plan in plans]) == pytest.approx(0.75, abs=0.04)
    clips = {(p.height, p.width, p.length): p.clips for p in plans}
    assert clips == {(32, 32, 2): 12, (32, 32, 4): 6, (64, 96, 2): 2, (64, 96, 4): 1}
    assert plan_batch(data, 5, 0) != plan_batch(data, 6, 0)
    shared = [plan_batch(data, 5, index, processes=4) for index in range(50)]
    assert all(plan.clips % 4 == 0 for plan in shared)
