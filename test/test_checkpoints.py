"""Checkpoints: what is written is read back, and what is no checkpoint is refused with a remedy."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stdnet_core import ModelConfig, STDNet, checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import CheckpointError

CONFIG = ModelConfig.preset("tiny_causal", channels=4, head_channels=4)


@pytest.fixture
def saved(tmp_path) -> tuple[Path, STDNet]:
    model = STDNet(CONFIG)
    info = CheckpointInfo(CONFIG, (16, 4), None, {"seed": 3}, {"rmse_cm": 1.5})
    checkpoints.save(tmp_path / "a.safetensors", model, info)
    return tmp_path / "a.safetensors", model


def test_round_trip(saved):
    path, model = saved
    loaded, info = checkpoints.load(path)
    assert (info.config, info.scales, info.depth_range) == (CONFIG, (4, 16), None)
    assert (info.provenance, info.metrics, info.name) == ({"seed": 3}, {"rmse_cm": 1.5}, "a")
    assert not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert not list(path.parent.glob("*.partial"))


def test_half_precision_storage_halves_the_file(saved, tmp_path):
    path, model = saved
    half = tmp_path / "half.safetensors"
    checkpoints.save(half, model, CheckpointInfo(CONFIG, (8,), 10.0), dtype=torch.float16)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    loaded, _ = checkpoints.load(half)
    assert next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=1e-3, rtol=1e-3)


def test_missing_file_names_it_and_what_ships():
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors.*shipped"):
        checkpoints.load("nowhere.safetensors")


def test_truncated_file(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"a\.safetensors.*truncated"):
        checkpoints.load(path)


def test_foreign_safetensors(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint of this project"):
        checkpoints.load(tmp_path / "b.safetensors")


def test_tensors_of_another_width(saved, tmp_path):
    path, _ = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    other = STDNet(ModelConfig.preset("tiny_causal", channels=8, head_channels=4))
    save_file(dict(other.state_dict()), tmp_path / "c.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="do not fit its configuration"):
        checkpoints.load(tmp_path / "c.safetensors")


def test_unknown_setting_from_a_newer_version(saved):
    path, _ = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    metadata["config"] = metadata["config"].replace("channels", "breadth", 1)
    save_file(state, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="newer version"):
        checkpoints.load(path)


def test_released_files_refuse_code_and_foreign_content(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "pwned").touch, ())

    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="plain tensors"):
        checkpoints.load_released(evil, scale=8, depth_range=40.0)
    assert not (tmp_path / "pwned").exists()

    foreign = tmp_path / "foreign.pth"
    torch.save({"layer.weight": torch.zeros(2, 2)}, foreign)
    with pytest.raises(CheckpointError, match="not under the names"):
        checkpoints.load_released(foreign, scale=8, depth_range=40.0)
    with pytest.raises(CheckpointError, match=r"stdnet_core\.convert"):
        checkpoints.load(foreign)


@pytest.mark.parametrize(("scales", "depth_range"), [((), None), ((6,), None), ((8,), -1.0)])
def test_invalid_info(scales, depth_range):
    with pytest.raises(CheckpointError):
        CheckpointInfo(CONFIG, scales, depth_range)
