"""Checkpoints: what is written is read back, and what is no checkpoint is refused with a remedy."""

from __future__ import annotations

import io
import json
import pickle
import time
from pathlib import Path

import numpy as np
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


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118


def refused(path: Path, match: str) -> None:
    """Loading the file fails with one line that names it, in less than a second."""
    began = time.process_time()
    with pytest.raises(CheckpointError, match=match) as caught:
        checkpoints.load(path)
    assert time.process_time() - began < 1.0
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_figures_that_could_not_be_measured_are_null(saved):
    path, model = saved
    metrics = {"a": [1.0, float("nan")], "b": {"c": float("inf")}}
    checkpoints.save(path, model, CheckpointInfo(CONFIG, (8,), None, metrics=metrics))
    assert checkpoints.load(path)[1].metrics == {"a": [1.0, None], "b": {"c": None}}


def test_a_loaded_network_does_not_depend_on_its_file(saved):
    path, model = saved
    loaded, _ = checkpoints.load(path)
    with open(path, "r+b") as file:
        file.seek(-4096, io.SEEK_END)
        file.write(b"\xff" * 4096)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_weights_that_are_no_numbers(value, dtype, saved):
    if dtype == torch.float16 and value == 1e30:
        value = float("inf")
    path, _ = saved
    state, metadata = contents(path)
    name = sorted(state)[3]
    state = {k: v.to(dtype) for k, v in state.items()}
    state[name].view(-1)[-1] = value
    save_file(state, path, metadata=metadata)
    refused(path, f"NaN, infinity or numbers beyond.*{name}")


def test_whole_numbers_are_no_weights(saved):
    path, _ = saved
    state, metadata = contents(path)
    name = sorted(state)[2]
    state[name] = torch.ones(state[name].shape, dtype=torch.int64)
    save_file(state, path, metadata=metadata)
    refused(path, f"not floating-point numbers.*{name}")


NESTED = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"depth_range": "Infinity"}, "depth_range.*not a finite number"),
        ({"depth_range": "NaN"}, "depth_range.*not a finite number"),
        ({"depth_range": "1e999"}, "depth_range.*not a finite number"),
        ({"depth_range": "1e308"}, "depth_range is 1e.308"),
        ({"depth_range": "1e-300"}, "depth_range is 1e-300"),
        ({"depth_range": "1" + "0" * 400}, "depth_range is 1000"),
        ({"depth_range": '"5"'}, "depth_range is '5'"),
        ({"depth_range": "true"}, "depth_range is True"),
        ({"scales": "[1000000000]"}, "scales are"),
        ({"scales": "[1e9]"}, "scales are"),
        ({"scales": "8"}, "scales is 8"),
        ({"scales": "[[8]]"}, "metadata"),
        ({"config": "[]"}, "config is"),
        ({"config": NESTED}, "config is nested too deeply"),
        ({"provenance": '{"a": ' + NESTED + "}"}, "provenance is nested too deeply"),
        ({"provenance": "[1]"}, "provenance is"),
        ({"metrics": '{"rmse_cm": NaN}'}, "metrics.*not a finite number"),
        ({"metrics": "{"}, "metrics is not JSON"),
        ({"config": None}, "config is missing"),
    ],
)
def test_metadata_that_no_training_writes(changes, match, saved):
    path, _ = saved
    state, metadata = contents(path)
    metadata.update({k: v for k, v in changes.items() if v is not None})
    for key in (k for k, v in changes.items() if v is None):
        del metadata[key]
    save_file(state, path, metadata=metadata)
    refused(path, match)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 512, "head_channels": 512, "trunk_blocks": 64, "reconstruction_blocks": 64, "fusion_blocks": 16},
        {"channels": 512, "head_channels": 512, "trunk_blocks": 64, "passes": ["forward"] * 16, "stages": 2},
        {"channels": 10**9},
        {"passes": ["forward"] * 10**6},
        {"max_offset": 1e300},
        {"architecture": "recurrent"},
    ],
)
def test_configurations_whose_network_is_not_in_the_file(changes, saved):
    path, _ = saved
    state, metadata = contents(path)
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | changes)
    save_file(state, path, metadata=metadata)
    refused(path, r"do not fit its configuration|model\.|unknown model setting")


def test_a_file_of_gigabytes_is_not_read(saved):
    path, _ = saved
    _, metadata = contents(path)
    header = {"x": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}, "__metadata__": metadata}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 2**32)  # takes no room on the disk
    refused(path, "1,073,741,824 values")


def test_truncated_file(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"a\.safetensors.*truncated"):
        checkpoints.load(path)


def test_foreign_safetensors(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
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
    with pytest.raises(CheckpointError, match="not with the names"):
        checkpoints.load_released(foreign, scale=8, depth_range=40.0)
    with pytest.raises(CheckpointError, match=r"stdnet_core\.convert"):
        checkpoints.load(foreign)


def test_released_files_that_are_none_are_refused_whatever_is_in_them(saved, tmp_path):
    """Files of other kinds, and a genuine one with bytes changed: nothing but this project's error gets out."""

    def attempt(content: bytes) -> None:
        path = tmp_path / "x.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.pth") as caught:
            checkpoints.load_released(path, scale=8, depth_range=40.0)
        assert "\n" not in str(caught.value)

    buffer, old = io.BytesIO(), io.BytesIO()
    torch.save({"layer.weight": torch.rand(4, 4), "layer.bias": torch.rand(4)}, buffer)
    torch.save({"layer.weight": torch.rand(4, 4)}, old, _use_new_zipfile_serialization=False)
    array = io.BytesIO()
    np.savez(array, a=np.zeros(3))
    for content in (b"", b"\x80", b"PK\x03\x04", b"not a checkpoint", b"\x00" * 4096, array.getvalue()):
        attempt(content)
    attempt(saved[0].read_bytes())
    for value in ([1, 2], {1: torch.zeros(2)}, {"state_dict": 5}, torch.zeros(3), None, {"a": "b"}):
        whole = io.BytesIO()
        torch.save(value, whole)
        attempt(whole.getvalue())
    rng = np.random.default_rng(4)
    for genuine in (buffer.getvalue(), old.getvalue()):
        for _ in range(150):
            content = bytearray(genuine[: rng.integers(1, len(genuine) + 1)] if rng.random() < 0.3 else genuine)
            for place in rng.integers(0, len(content), 3):
                content[place] = rng.integers(256)
            attempt(bytes(content))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda weight: weight.to(torch.int32), "not floating-point numbers"),
        (lambda weight: torch.full_like(weight, float("nan")), "NaN, infinity"),
        (lambda weight: weight.double() * 1e60, "NaN, infinity"),
        (lambda weight: weight[:1].expand(10**7, *weight.shape[1:]), "of another shape"),
        (lambda weight: weight.to_sparse(), "no state dict of tensors"),
        (lambda weight: weight[:, :-1], "of another shape"),
    ],
)
def test_released_weights_that_no_training_leaves(change, match, tmp_path):
    state = torch.load(Path(__file__).parents[1] / "golden" / "stdnet_c16.pt", weights_only=True)["state_dict"]
    name = next(k for k in state if k.endswith("hg_2.0.weight"))
    torch.save({**state, name: change(state[name])}, tmp_path / "w.pth")
    began = time.process_time()
    with pytest.raises(CheckpointError, match=match):
        checkpoints.load_released(tmp_path / "w.pth", scale=8, depth_range=40.0)
    assert time.process_time() - began < 1.0
    torch.save(state, tmp_path / "w.pth")
    checkpoints.load_released(tmp_path / "w.pth", scale=8, depth_range=40.0)


@pytest.mark.parametrize(
    ("scales", "depth_range"),
    [((), None), ((68,), None), ((8,), float("inf")), ((8,), True), ((6,), None), ((8,), -1.0)],
)
def test_invalid_info(scales, depth_range):
    with pytest.raises(CheckpointError):
        CheckpointInfo(CONFIG, scales, depth_range)
