"""Ablations: a matrix of very small networks that is interrupted and goes on, and what it writes, read back."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from train_fixtures import SMALL, sources, write_clip

from stdnet_core import ablate, checkpoints
from stdnet_core.data.protocol import LowResolution, sensor_range
from stdnet_core.data.sources import open_source
from stdnet_core.errors import ConfigError
from stdnet_core.evaluation.methods import Runner
from stdnet_core.evaluation.sequence import evaluate_sequence
from stdnet_core.report.paper_figures import ablation_points
from stdnet_core.training import state as run_state
from stdnet_core.training.keeper import Keeper, read_log

SOURCE = "synthetic:7,1,48x64,3"
SETTINGS = [*SMALL, "data.lengths=[3]", "data.scales={8: 1}"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clips" / "clip")
    return tmp_path / "clips"


def ablation(clips: Path, output: Path, *arguments: str) -> int:
    options = ["--data", SOURCE, "--device", "cpu", "--output", str(output), *arguments]
    if not {"--steps", "--minutes"} & set(arguments):
        options += ["--steps", "4"]
    return ablate.main([*options, *SETTINGS, *sources(clips)])


def stored(output: Path) -> dict:
    return json.loads((output / ablate.FILE_NAME).read_text())


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_log(folder / "log.jsonl") if "loss" in line]


@pytest.mark.slow
def test_an_interrupted_matrix_goes_on_and_ends_as_if_it_had_not_been(clips, tmp_path, monkeypatch, capsys):
    cells = ("--variants", "full,neighbors_0")
    assert ablation(clips, tmp_path / "whole", *cells) == 0
    steps = Keeper.on_train_batch_end

    def interrupt_second(self, trainer, module, *rest):
        steps(self, trainer, module, *rest)
        if self.output.parent.name == "neighbors_0" and module.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "on_train_batch_end", interrupt_second)
        assert ablation(clips, tmp_path / "two", *cells) == 130
    assert "the same command resumes" in capsys.readouterr().out
    assert set(stored(tmp_path / "two")["results"]) == {"full/seed_0"}
    assert "neighbors_0" not in (tmp_path / "two" / "ablation.md").read_text()
    done = run_state.read(tmp_path / "two" / "neighbors_0" / "seed_0" / run_state.FILE_NAME).step
    assert 2 <= done < 4
    first = tmp_path / "two" / "full" / "seed_0" / run_state.FILE_NAME
    written = first.stat().st_mtime_ns

    assert ablation(clips, tmp_path / "two", *cells) == 0
    assert first.stat().st_mtime_ns == written  # what was finished is left alone
    whole, two = stored(tmp_path / "whole"), stored(tmp_path / "two")
    assert whole["settings"] == two["settings"]
    for name in ("full", "neighbors_0"):
        run = f"{name}/seed_0"
        assert losses(tmp_path / "two" / run) == losses(tmp_path / "whole" / run)
        assert [step for step, _ in losses(tmp_path / "two" / run)] == [1, 2, 3, 4]
        for figure in ("steps", "parameters", "rmse_cm", "mae_cm"):
            assert two["results"][run][figure] == whole["results"][run][figure]
    assert (tmp_path / "two" / "ablation.png").read_bytes() == (tmp_path / "whole" / "ablation.png").read_bytes()


@pytest.mark.slow
def test_what_is_written_is_what_the_weights_give(clips, tmp_path):
    output = tmp_path / "out"
    assert ablation(clips, output, "--variants", "full,neighbors_0", "--steps", "2") == 0
    content = stored(output)
    sequence = open_source(SOURCE)[0]
    for name, neighbors in (("full", 2), ("neighbors_0", 0)):
        model, info = checkpoints.load(output / name / "seed_0" / "last.safetensors")
        assert info.config.neighbors == neighbors
        assert info.provenance["step"] == 2
        result = content["results"][f"{name}/seed_0"]
        assert result["parameters"] == sum(p.numel() for p in model.parameters())
        upsampler = ablate.network_runner(ablate.Network(name, model, info), _arguments()).upsampler
        camera = LowResolution(8).sensor.with_values({"dtof.range_m": sensor_range(sequence)})
        figures = evaluate_sequence(sequence, {"m": Runner(upsampler)}, LowResolution(8, sensor=camera)).figures["m"]
        assert result["rmse_cm"] == pytest.approx(figures["rmse_cm"], rel=1e-6)
        assert result["flicker_cm"] == pytest.approx(figures["flicker_cm"], rel=1e-6)
        if neighbors == 0:
            rgb, low = torch.rand(1, 3, 3, 16, 16), torch.rand(1, 3, 1, 2, 2)
            with torch.inference_mode():
                clip = model(rgb=rgb, depth_lr=low).depth[:, 1]
                alone = model(rgb=rgb[:, 1:2], depth_lr=low[:, 1:2]).depth[:, 0]
            torch.testing.assert_close(clip, alone)

    lines = (output / "ablation.md").read_text().splitlines()
    assert "Each network was trained for 2 steps; measured at x8 on synthetic:7,1,48x64,3" in lines[0]
    assert [line for line in lines if line.startswith("## ")] == ["## Fig. 10a: neighbours on each side"]
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in lines if "|" in line}
    assert list(rows)[2:] == ["neighbors_0", "full", "bicubic"]
    head = rows["variant"]
    for name in ("full", "neighbors_0"):
        result = content["results"][f"{name}/seed_0"]
        row = dict(zip(head, rows[name], strict=True))
        assert row["parameters"] == f"{result['parameters']:,}"
        assert float(row["RMSE"]) == pytest.approx(result["rmse_cm"], abs=0.006)
        ratio = result["rmse_cm"] / content["results"]["full/seed_0"]["rmse_cm"]
        assert float(row["RMSE / full"]) == pytest.approx(ratio, abs=6e-4)
    assert cv2.imread(str(output / "ablation.png")) is not None

    with pytest.raises(ConfigError, match="another budget"):
        ablation(clips, output, "--variants", "full", "--steps", "3")
    with pytest.raises(ConfigError, match="another configuration"):
        ablation(clips, output, "--variants", "full", "--steps", "2", "optim.lr=1e-4")
    # more seeds and variants join what is there
    assert ablation(clips, output, "--variants", "full", "--steps", "2", "--seeds", "2") == 0
    again = stored(output)
    assert set(again["results"]) == {"full/seed_0", "full/seed_1", "neighbors_0/seed_0", "bicubic"}
    assert again["results"]["full/seed_0"] == content["results"]["full/seed_0"]
    values = [again["results"][f"full/seed_{seed}"]["rmse_cm"] for seed in (0, 1)]
    assert values[0] != values[1]
    assert again["summary"]["full"]["rmse_cm"] == pytest.approx(np.mean(values))
    assert again["summary"]["full"]["rmse_cm_std"] == pytest.approx(np.std(values, ddof=1))


def _arguments():
    return ablate._parser().parse_args(["--steps", "1", "--device", "cpu"])


def test_every_variant_is_the_network_that_it_says(clips):
    from stdnet_core.training.module import loss_config, model_config

    args = ablate._parser().parse_intermixed_args(["--steps", "7", *SETTINGS, *sources(clips), "model.neighbors=1"])
    found = {}
    for name in ablate.VARIANTS:
        config = ablate._config(args, name)
        assert (config.optim.steps, config.optim.horizon) == (7, "steps")
        model, loss = model_config(config), loss_config(config)
        switches = (model.spatial_difference, model.temporal_difference, model.neighbors)
        found[name] = (*switches, loss.uses_spatial, loss.uses_temporal)
    assert found == {
        "full": (True, True, 2, True, True),
        "baseline": (False, False, 2, True, True),
        "sd": (True, False, 2, True, True),
        "td": (False, True, 2, True, True),
        "neighbors_0": (True, True, 0, True, True),
        "neighbors_1": (True, True, 1, True, True),
        "neighbors_3": (True, True, 3, True, True),
        "rec": (True, True, 2, False, False),
        "rec_sd": (True, True, 2, True, False),
        "rec_td": (True, True, 2, False, True),
    }
    assert {name for _, names in ablate.FIGURES.values() for name in names} == set(ablate.VARIANTS)


def test_what_cannot_be_compared_is_refused_before_the_first_step(clips, tmp_path, capsys):
    with pytest.raises(ConfigError, match="neighbors_3 needs 4"):
        ablation(clips, tmp_path / "out", "--figures", "10a")
    with pytest.raises(ConfigError, match=r"loss\.spatial_weight is 0"):
        ablation(clips, tmp_path / "out", "--figures", "10b", "loss.spatial_weight=0")
    with pytest.raises(ConfigError, match="paper's network"):
        ablate.main(["--config", "live", f"data.root={clips}", "--steps", "1", "--output", str(tmp_path / "out")])
    with pytest.raises(ConfigError, match="trains for"):
        ablation(clips, tmp_path / "out", "--variants", "full", "--scale", "4")
    with pytest.raises(ConfigError, match="one process"):
        ablation(clips, tmp_path / "out", "--variants", "full", "trainer.devices=2")
    with pytest.raises(SystemExit):
        ablate.main(["--steps", "3", "--minutes", "1"])
    with pytest.raises(SystemExit):
        ablate.main(["--figures", "11", "--steps", "3"])
    assert "unknown 11; choose of 9a, 10a, 10b" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_minutes_are_a_budget_too(clips, tmp_path):
    assert ablation(clips, tmp_path / "out", "--variants", "full", "--minutes", "0.01") == 0
    result = stored(tmp_path / "out")["results"]["full/seed_0"]
    assert result["steps"] >= 1
    assert result["minutes"] > 0
    rates = [line["lr"] for line in read_log(tmp_path / "out" / "full" / "seed_0" / "log.jsonl") if "lr" in line]
    assert rates[-1] < rates[0] or len(rates) == 1


def test_points_of_the_plot():
    panels = {"fig. 9a": {"baseline": [20.0, 21.0], "full": [18.0]}, "fig. 10a": {"full": [18.0]}}
    one, other = ablation_points(panels, 25.0, "bicubic"), ablation_points(panels, None, "")
    assert one != other
    picture = cv2.imdecode(np.frombuffer(one, np.uint8), 1)
    assert picture.shape[1] == 840
    assert not math.isclose(picture.std(), 0)
