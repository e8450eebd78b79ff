"""Released files made into checkpoints: the same depth as from the released file, wherever a checkpoint is taken."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stdnet_core import DepthUpsampler, checkpoints, convert, evaluate, predict
from stdnet_core.benchmark import __main__ as benchmark
from stdnet_core.cli import run_cli
from stdnet_core.errors import CheckpointError
from stdnet_ros.node.pipeline import make_upsampler

RELEASED = Path(__file__).parents[1] / "golden" / "stdnet_c16.pt"


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "made" / "x8.safetensors"
    convert.main([str(RELEASED), "--scale", "8", "--depth-range", "40", str(path)])
    return path


def upsampled(upsampler, case) -> np.ndarray:
    """Depth (T, H, W) in metres of a golden case, normalised by 40 m."""
    rgb = case["rgb"][0].permute(0, 2, 3, 1).numpy()
    return np.stack([frame.depth for frame in upsampler.run(rgb, 40 * case["depth_lr"][0, :, 0].numpy())])


def test_the_checkpoint_is_the_released_network(converted):
    released, told = checkpoints.load_released(RELEASED, scale=8, depth_range=40.0)
    model, info = checkpoints.load(converted)
    assert (info.config, info.scales, info.depth_range) == (told.config, (8,), 40.0)
    assert info.provenance == {"released": "stdnet_c16.pt"}
    state = released.state_dict()
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_node_and_every_command_take_it(converted, tmp_path, monkeypatch):
    case = torch.load(RELEASED, weights_only=True)["cases"]["x8_t6"]
    expected = 40 * case["depth_hr"][0, :, 0].numpy()
    settings = {"device": "cpu", "precision": "fp32", "backend": "torch", "edge_filter": 0.0}
    node = make_upsampler(SimpleNamespace(model=str(converted), method="stdnet", latency_frames=8, **settings))
    for upsampler in (node, DepthUpsampler.from_pretrained(converted, method="stdnet", latency=8, device="cpu")):
        depth = upsampled(upsampler, case)
        shown = np.isfinite(depth) & (expected > 0)
        assert shown.mean() > 0.5
        np.testing.assert_allclose(depth[shown], expected[shown], atol=40 * 1e-4)

    def figures(*arguments):
        data = ("--data", "synthetic:2000001,1,48x64,2", "--methods", "model", "--device", "cpu")
        evaluate.main([*data, *arguments, "--json", str(tmp_path / "figures.json")])
        return json.loads((tmp_path / "figures.json").read_text())["mean"]["model"]

    mine = figures("--checkpoint", str(converted))
    theirs = figures("--checkpoint", str(RELEASED), "--trained-scale", "8", "--depth-range", "40")
    assert mine["rmse_cm"] == theirs["rmse_cm"] > 0
    out = ["--input", "synthetic:2000001,1,48x64,2", "--scale", "8", "--output", str(tmp_path / "out"), "--no-video"]
    predict.main([*out, "--checkpoint", str(converted), "--device", "cpu", "--precision", "fp32"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["method"], summary["checkpoint"]) == ("stdnet", "x8")
    monkeypatch.setattr("stdnet_core.benchmark.measure._PEAK_SIZES", {"cpu": 64, "cuda": 64})
    measured = ["--checkpoints", str(converted), "--presets", "", "--sizes", "24x16", "--modes", "latency0"]
    measured += ["--devices", "cpu", "--precisions", "fp32", "--frames", "2", "--quiet"]
    benchmark.main([*measured, "--json", str(tmp_path / "speed.json")])
    assert [m["model"] for m in json.loads((tmp_path / "speed.json").read_text())["measurements"]] == ["x8"]


def refused(tmp_path, capsys, file, *arguments) -> str:
    """The one line that the command ends with."""
    output = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: convert.main([str(file), *arguments, str(output)]))
    assert ended.value.code == 2
    assert not output.exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_converted_ends_with_one_line(tmp_path, capsys):
    usual = ("--scale", "8", "--depth-range", "40")
    state = torch.load(RELEASED, weights_only=True)["state_dict"]
    for name, content in (
        ("foreign", {"layer.weight": torch.zeros(2, 2)}),
        ("numbers", {0: torch.zeros(2)}),
        ("renamed", {name.replace("kg.rg", "kg.group"): value for name, value in state.items()}),
        ("incomplete", dict(list(state.items())[:-1])),
    ):
        torch.save(content, tmp_path / f"{name}.pth")
    (tmp_path / "text.pth").write_text("no weights")
    line = refused(tmp_path, capsys, tmp_path / "text.pth", *usual)
    assert "is not a PyTorch file" in line
    assert "weights_only" not in line
    assert "not with the names of the released STDNet" in refused(tmp_path, capsys, tmp_path / "foreign.pth", *usual)
    assert "holds no state dict of tensors" in refused(tmp_path, capsys, tmp_path / "numbers.pth", *usual)
    assert " missing, " in refused(tmp_path, capsys, tmp_path / "renamed.pth", *usual)
    assert "1 missing, 0 unknown" in refused(tmp_path, capsys, tmp_path / "incomplete.pth", *usual)
    assert "there is no file" in refused(tmp_path, capsys, tmp_path / "none.pth", *usual)
    assert "scales are (6,)" in refused(tmp_path, capsys, RELEASED, "--scale", "6", "--depth-range", "40")
    for metres in ("0", "nan", "inf"):
        line = refused(tmp_path, capsys, RELEASED, "--scale", "8", "--depth-range", metres)
        assert "give metres from 0.01" in line
    with pytest.raises(SystemExit):
        run_cli(lambda: convert.main([str(RELEASED), *usual, str(tmp_path / "x8.pth")]))
    assert "x8.pth: a checkpoint is a .safetensors file" in capsys.readouterr().err


def test_loading_a_released_file_says_how_to_convert_it(tmp_path):
    (tmp_path / "x8.pth").write_bytes(RELEASED.read_bytes())
    with pytest.raises(CheckpointError, match=r"python -m stdnet_core\.convert .*x8\.pth --scale S"):
        checkpoints.load(tmp_path / "x8.pth")
