"""What a prompt shows of results and networks is short, and names no array's contents."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from stdnet_core import DepthUpsampler, ModelConfig, STDNet, checkpoints
from stdnet_core import cli as cli_module
from stdnet_core.data.sources import open_source
from stdnet_core.errors import StdnetError
from stdnet_core.evaluation.sequence import EvaluationFrame, SequenceResult
from stdnet_core.model import RecurrentNet
from stdnet_core.short_repr import short_repr

ROOT = Path(__file__).resolve().parents[2]


def test_results_and_the_upsampler():
    upsampler = DepthUpsampler(method="bilinear", device="cpu", precision="fp32")
    assert repr(upsampler) == "DepthUpsampler(bilinear, cpu in fp32)"
    depth = np.full((6, 8), 1500, np.uint16)
    depth[:, 4:] = 3000
    depth[0] = 0
    result = upsampler.step(np.zeros((48, 64, 3), np.uint8), depth, stamp=0.1)
    assert repr(result).startswith("UpsampledDepth(64x48, 1.50 to 3.00 m in 92 %")
    assert repr(result).endswith("stamp=0.1)")
    nothing = dataclasses.replace(result, depth=np.full((48, 64), np.nan, np.float32))
    assert repr(nothing) == "UpsampledDepth(64x48, no depth, stamp=0.1)"


def test_what_ships_and_what_is_read():
    assert len(repr(checkpoints.load("live")[1])) < 800
    (sequence,) = open_source("synthetic:1,1,48x64,2")
    assert len(repr(sequence.clip(0, 2))) < 400


def test_arrays_are_told_by_type_and_shape():
    image = np.zeros((4, 6, 3), np.float32)
    frame = EvaluationFrame(image, image[..., 0], image[..., 1], None, True)
    assert repr(frame) == (
        "EvaluationFrame(rgb=float32(4, 6, 3), target=float32(4, 6), depth_lr=float32(4, 6), flow=None, true_flow=True)"
    )
    output = STDNet(ModelConfig(channels=8, head_channels=8))(torch.rand(1, 1, 3, 16, 16), torch.rand(1, 1, 1, 4, 4))
    assert "depth=float32(1, 1, 1, 16, 16), stage_depths=(float32(" in repr(output)
    figures = {"model": {f"figure_{i}": np.float64(1 / 3) for i in range(40)}}
    result = SequenceResult(figures, [figures] * 500, 500, "true", None, None, {})
    assert "'figure_0': 0.333333" in short_repr(result)
    assert "... 37 more" in repr(result)
    assert len(repr(result)) < 2000


def test_networks_are_told_by_size_and_settings():
    network = STDNet(ModelConfig(channels=16, head_channels=8))
    count = sum(p.numel() for p in network.parameters())
    assert repr(network) == f"STDNet({count:,} parameters, channels=16, head_channels=8)"
    assert repr(RecurrentNet()).startswith("RecurrentNet(781,048 ")
    assert len(repr(RecurrentNet())) < 100


def test_a_missing_package_comes_with_a_command_that_works(monkeypatch, tmp_path):
    with pytest.raises(StdnetError, match=r"'no_such_thing'.* pip install -e '/.*\[report\]'$") as error:
        cli_module.require("no_such_thing.part", extra="report")
    assert f"'{ROOT}[report]'" in str(error.value)
    monkeypatch.setattr(cli_module, "__file__", str(tmp_path / "stdnet_core" / "cli.py"))
    with pytest.raises(StdnetError, match=r"pip install '\.\[bags\]' \(in a clone of this project\)$"):
        cli_module.require("no_such_thing", extra="bags")


def test_what_the_packages_promise_to_hold_is_there():
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.keyword)]
    promised = ast.literal_eval(next(call.value for call in calls if call.arg == "package_data"))
    for package, patterns in promised.items():
        assert "py.typed" in patterns
        for pattern in patterns:
            assert list((ROOT / package).glob(pattern)), f"{package}/{pattern} matches nothing"
