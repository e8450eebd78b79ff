"""The command that prints the figures of checkpoints, on small data made here."""

from __future__ import annotations

import json

import pytest
import torch

from stdnet_core import ModelConfig, STDNet, accuracy, checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.rgbd_folder import write_folder
from stdnet_core.data.synthetic import render_clip
from stdnet_core.errors import DataError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accuracy")
    for number, name in enumerate(("level_a", "level_b")):
        write_folder(render_clip(number, 3, 64, 96), folder / "clips" / name)
    (folder / "heldout.txt").write_text("# chosen before training\nlevel_b\n")
    config = ModelConfig.preset("tiny_causal", channels=4, head_channels=4)
    model = STDNet(config)
    model.zero_init_heads()
    checkpoints.save(folder / "untrained.safetensors", model, CheckpointInfo(config, (4, 8, 16), None))
    return folder


def test_figures_of_networks_and_classical_methods_on_held_out_clips(files, capsys):
    accuracy.main(
        [
            *("--checkpoint", str(files / "untrained.safetensors"), "--scale", "8", "--max-frames", "2"),
            *("--procedural", "synthetic:5,1,64x96,2", "--rendered", str(files / "clips")),
            *("--heldout", str(files / "heldout.txt"), "--real", str(files / "clips"), "--json", str(files / "o.json")),
        ]
    )
    groups = json.loads((files / "o.json").read_text())["groups"]
    assert [name.rpartition("/")[2] for name in groups["rendered"]["sequences"]] == ["level_b"]
    assert len(groups["real"]["sequences"]) == 2
    mean = groups["rendered"]["scales"]["8"]["mean"]
    assert set(mean) == {"untrained", "nearest", "bilinear", "bicubic", "joint_bilateral"}
    only = groups["rendered"]["scales"]["8"]["sequences"][groups["rendered"]["sequences"][0]]
    assert mean["bilinear"]["rmse_cm"] == pytest.approx(only["bilinear"]["rmse_cm"])
    printed = capsys.readouterr().out
    ratio = mean["untrained"]["rmse_cm"] / mean["bilinear"]["rmse_cm"]
    assert f"{ratio:.3f}" in printed


def test_a_listing_without_matches_is_an_error(files):
    (files / "other.txt").write_text("level_z\n")
    with pytest.raises(DataError, match="none of the 1 clips"):
        accuracy.held_out([files / "clips"], files / "other.txt")


@pytest.mark.parametrize("name", checkpoints.available())
def test_shipped_checkpoints_say_what_they_are_and_run(name):
    model, info = checkpoints.load(name)
    assert info.name == name
    assert info.scales == (4, 8, 16)
    assert info.provenance["data"]
    assert info.provenance["step"] > 0
    with torch.inference_mode():
        out = model(rgb=torch.rand(1, 2, 3, 32, 32), depth_lr=torch.full((1, 2, 1, 4, 4), 0.5))
    assert (out.depth - 0.5).abs().max() < 0.05
