"""Runs that start from a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_fixtures import small_config, write_clip

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import ConfigError
from stdnet_core.model import ModelConfig, RecurrentConfig, RecurrentNet, STDNet
from stdnet_core.training.initial import initialize
from stdnet_core.training.keeper import read_log
from stdnet_core.training.run import run

SMALL = dict(channels=4, head_channels=4, trunk_blocks=0, reconstruction_blocks=0)


def network(*passes: str, seed: int = 0, **values) -> STDNet:
    torch.manual_seed(seed)
    model = STDNet(ModelConfig.preset("tiny_causal", **SMALL, passes=passes, **values))
    with torch.no_grad():
        for parameter in model.parameters():  # also those that start at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def saved(model: STDNet | RecurrentNet, path: Path) -> str:
    scales = () if isinstance(model, RecurrentNet) else (4, 8)
    checkpoints.save(path, model, CheckpointInfo(model.config, scales, None))
    return str(path)


def clip():
    generator = torch.Generator().manual_seed(3)
    return torch.rand(1, 4, 3, 32, 32, generator=generator), torch.rand(1, 4, 1, 8, 8, generator=generator) + 1


@pytest.mark.parametrize("passes", [("forward", "forward"), ("forward", "forward", "backward", "forward")])
def test_the_started_network_computes_what_the_checkpoint_does(tmp_path, passes):
    causal = network("forward", "forward")
    started = network(*passes, seed=1)
    rgb, depth = clip()
    with torch.no_grad():
        expected = causal(rgb, depth).depth
        assert not torch.allclose(started(rgb, depth).depth, expected, atol=1e-3)
        initialize(started, saved(causal, tmp_path / "causal.safetensors"))
        torch.testing.assert_close(started(rgb, depth).depth, expected, atol=1e-5, rtol=1e-5)


def test_further_passes_learn(tmp_path):
    started = network("forward", "forward", "backward", "backward", seed=1)
    initialize(started, saved(network("forward", "forward"), tmp_path / "causal.safetensors"))
    started(*clip()).depth.mean().backward()
    gradient = started.stages[0].reconstruction[0].weight.grad
    assert (gradient[:, -8:] != 0).any()


def recurrent(channels: int, channels_8: int, channels_16: int, seed: int) -> RecurrentNet:
    torch.manual_seed(seed)
    model = RecurrentNet(RecurrentConfig(channels, channels_8, channels_16, blocks=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def recurrent_clip(ratio: int):
    generator = torch.Generator().manual_seed(3)
    rgb = torch.rand(1, 3, 3, 32, 48, generator=generator)
    depth = torch.rand(1, 3, 1, 32 // ratio, 48 // ratio, generator=generator) + 1
    depth[..., 2:4, 3:6] = 0
    return rgb, depth, torch.randn(1, 3, 2, 8, 12, generator=generator), (float(ratio), float(ratio))


@pytest.mark.parametrize("ratio", [1, 4])
@pytest.mark.parametrize("widths", [(4, 8, 8), (6, 8, 8), (4, 12, 8), (4, 8, 12), (7, 12, 20)])
def test_a_wider_network_starts_as_what_the_checkpoint_computes(tmp_path, widths, ratio):
    narrow, wide = recurrent(4, 8, 8, 0), recurrent(*widths, 1)
    with torch.no_grad():
        expected = narrow(*recurrent_clip(ratio))
        assert not torch.allclose(wide(*recurrent_clip(ratio)).depth, expected.depth, atol=1e-3)
        initialize(wide, saved(narrow, tmp_path / "narrow.safetensors"))
        started = wide(*recurrent_clip(ratio))
    torch.testing.assert_close(started.depth, expected.depth, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(started.log_scale, expected.log_scale, atol=1e-4, rtol=1e-4)


def test_its_further_channels_learn(tmp_path):
    narrow, wide = recurrent(4, 8, 8, 0), recurrent(6, 12, 16, 1)
    before = {name: p.shape[1] for name, p in narrow.named_parameters() if p.ndim > 1}
    initialize(wide, saved(narrow, tmp_path / "narrow.safetensors"))
    output = wide(*recurrent_clip(1))
    (output.depth.mean() + output.log_scale.mean()).backward()
    moving = {name: bool(p.grad[-1].abs().sum() > 0) for name, p in wide.named_parameters()}
    inner = ("stem.", "conv1.", "refine.", "gate.")  # nothing looks at these yet, or there is nothing to gate
    assert not [name for name, moves in moving.items() if not moves and not any(i in name for i in inner)]
    for name, parameter in wide.named_parameters():
        if name in ("stem2.weight", "encode8.0.conv2.weight", "fine_head.weight"):
            assert (parameter.grad[:, before[name] :] != 0).any(), name


def test_a_narrower_network_is_refused(tmp_path):
    path = saved(recurrent(4, 12, 8, 0), tmp_path / "wide.safetensors")
    with pytest.raises(ConfigError, match=r"init: .*channels_8: 12.*channels_8: 8"):
        initialize(recurrent(4, 8, 8, 0), path)


def test_another_network_is_refused(tmp_path):
    path = saved(network("forward", "forward"), tmp_path / "causal.safetensors")
    with pytest.raises(ConfigError, match=r"init: .*stages: 2.*stages: 1.*model"):
        initialize(network("forward", stages=1), path)


def test_a_run_starts_from_the_checkpoint_and_goes_on_from_itself(tmp_path):
    write_clip(tmp_path / "clips" / "one")
    first = small_config(tmp_path / "clips", "optim.steps=3", "optim.lr=1e-3", "data.scales={4: 1}")
    run(first, tmp_path / "first")
    init = f"init={tmp_path / 'first' / 'last.safetensors'}"
    frozen = ("optim.lr=1e-12", "data.scales={4: 1}")
    run(small_config(tmp_path / "clips", "optim.steps=2", init, *frozen), tmp_path / "second")
    start, end = (checkpoints.load(tmp_path / name / "last.safetensors")[0] for name in ("first", "second"))
    for name, value in start.state_dict().items():
        torch.testing.assert_close(end.state_dict()[name], value, atol=1e-6, rtol=1e-6)
    # Going on needs the checkpoint no more.
    (tmp_path / "first" / "last.safetensors").unlink()
    run(small_config(tmp_path / "clips", "optim.steps=4", init, *frozen), tmp_path / "second")
    assert max(line["step"] for line in read_log(tmp_path / "second" / "log.jsonl") if "step" in line) >= 3
