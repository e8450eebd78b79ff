"""The benchmark's naive reference, its figures and its command line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sensitive_model import sensitive_model

from stdnet_core import ModelConfig, STDNet, StreamingSTDNet, checkpoints
from stdnet_core.benchmark import __main__ as benchmark
from stdnet_core.benchmark.measure import Case, Measurement, MovingScene, measure, relative_error
from stdnet_core.benchmark.naive import naive_calls, naive_depth, naive_window
from stdnet_core.benchmark.tables import table, with_operations, with_speedups
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import ConfigError
from stdnet_core.inference.devices import place
from stdnet_core.model import RecurrentConfig, RecurrentNet


def small_case(precision: str = "fp32", **changes) -> Case:
    model = sensitive_model(**changes)
    return Case("small", model, CheckpointInfo(model.config, (8,), None), 16, 24, 8, place("cpu", precision))


@pytest.mark.parametrize("changes", [{}, dict(neighbors=3, stages=1), dict(output="residual", uncertainty=False)])
def test_naive_way_gives_the_networks_result(changes):
    case = small_case(**changes)
    frames = [case.scene[t] for t in range(7)]
    rgb, depth_lr = (torch.cat(x) for x in zip(*frames, strict=True))
    with torch.inference_mode():
        expected = case.model(rgb=rgb[None], depth_lr=depth_lr[None]).depth[0]
    torch.testing.assert_close(naive_depth(case.model, rgb, depth_lr), expected, atol=1e-4, rtol=0)


def test_naive_window_is_the_receptive_field():
    assert sum(naive_window(ModelConfig())) + 1 == 17
    assert naive_window(ModelConfig.preset("tiny_causal")) == (8, 0)
    case = small_case(passes=("backward", "forward"))
    before, after = naive_window(case.model.config)
    frames = [case.scene[t] for t in range(before + after + 5)]
    rgb, depth_lr = (torch.cat(x) for x in zip(*frames, strict=True))
    whole = naive_depth(case.model, rgb, depth_lr)[before + 2]
    inner = slice(2, 2 + before + after + 1)
    torch.testing.assert_close(naive_depth(case.model, rgb[inner], depth_lr[inner])[before], whole, atol=1e-4, rtol=0)
    short = slice(3, 2 + before + after + 1)
    assert (naive_depth(case.model, rgb[short], depth_lr[short])[before - 1] - whole).abs().max() > 1e-4


def test_calls_of_the_naive_way_are_those_that_it_makes():
    case = small_case()
    calls = []
    for stage in case.model.stages:
        for module in stage.temporal:
            module.register_forward_hook(lambda *_: calls.append(1))
    frames = [case.scene[t] for t in range(17)]
    naive_depth(case.model, *(torch.cat(x) for x in zip(*frames, strict=True)))
    assert len(calls) == 248
    assert naive_calls(case.model.config) == 248


def test_scene_moves_and_is_sampled_at_cell_centres():
    scene = MovingScene(16, 24, 8, torch.device("cpu"))
    (rgb, depth), (later, _) = scene[0], scene[5]
    assert (tuple(rgb.shape), tuple(depth.shape)) == ((1, 3, 16, 24), (1, 1, 2, 3))
    torch.testing.assert_close(later[..., :-5], rgb[..., 5:])
    assert 0 <= rgb.min() < rgb.max() <= 1
    assert depth.min() > 0


@pytest.mark.parametrize("mode", ["naive", "offline", "latency4"])
def test_figures_of_a_measurement_agree_with_each_other(mode):
    case = small_case()
    row = measure(case, mode, 8, peak=10.0)
    assert row.median_ms <= row.p95_ms <= row.p99_ms
    assert row.frames_per_s == pytest.approx(1e3 / row.median_ms)
    assert row.peak_share == pytest.approx(row.gflop / (row.median_ms / 1e3) / 10.0)
    assert row.calls == {"naive": 248, "offline": 16, "latency4": 51}[mode]
    assert row.peak_mb > 10
    assert (row.state_mb > 0) == (mode == "latency4")


def test_operations_are_those_of_the_convolutions():
    case = small_case(stages=1, passes=("forward",), temporal_difference=False)
    row = measure(case, "latency0", 2, peak=1.0)
    total = 0

    def count(module, inputs, output):
        nonlocal total
        taps = math.prod(module.kernel_size) * module.in_channels
        total += 2 * taps * output.numel()

    stream = StreamingSTDNet(case.model)
    for t in range(4):
        stream.step(*case.scene[t])
    for module in case.model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    stream.step(*case.scene[4])
    kernels = 2 * 4 * 36 * (16 // 4) * (24 // 4)  # the kernel generator's last convolution is called as a function
    assert row.gflop == pytest.approx((total + kernels) / 1e9, rel=0.01)


def test_half_precision_error_is_small_and_zero_for_float32():
    assert relative_error(small_case()) == 0
    assert 0 < relative_error(small_case("bf16")) < 0.1


def line(
    mode: str, median: float, size: str = "24x16", engine: str = "eager", gflop: float | None = None
) -> Measurement:
    return Measurement(
        "m", size, 8, "cpu", "fp32", mode, engine, 8, median, median, median, 1e3 / median, 1, gflop, None, 0.0, 1.0
    )


def test_a_graph_has_the_operations_of_the_eager_stream_at_its_latency():
    rows = [line("latency0", 10.0, gflop=3.0), line("latency8", 10.0, gflop=7.0)]
    rows += [line("latency0", 2.0, engine="cuda-graph"), line("latency4", 2.0, engine="compiled")]
    result = with_operations(rows, {("cpu", "fp32"): 6000.0})
    assert [r.gflop for r in result] == [3.0, 7.0, 3.0, None]
    assert result[2].peak_share == pytest.approx(3.0 / 2e-3 / 6000)
    assert result[:2] == rows[:2]


def test_speedups_compare_like_with_like():
    rows = with_speedups([line("naive", 100.0), line("latency0", 20.0), line("latency0", 5.0, "48x32")])
    assert [r.speedup for r in rows] == [1.0, 5.0, None]
    assert "| 5.0 |" in table(rows)


def test_command_line_writes_table_figures_and_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "stdnet_core.benchmark.measure._PEAK_SIZES", {"cpu": 128, "cuda": 128}
    )  # bf16 is emulated on many a CPU
    case = small_case(passes=("forward",), stages=1)
    checkpoints.save(tmp_path / "net.safetensors", case.model, case.info)
    arguments = ["--checkpoints", str(tmp_path / "net.safetensors"), "--presets", "", "--sizes", "24x16"]
    arguments += ["--modes", "naive,latency0,latency8", "--devices", "cpu", "--precisions", "fp32,bf16"]
    arguments += ["--frames", "4", "--quiet", "--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")]
    benchmark.main(arguments)
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "b.json").read_text())
    modes = [(r["mode"], r["precision"]) for r in content["measurements"]]
    assert modes == [("naive", "fp32"), ("causal", "fp32"), ("causal", "bf16")]
    naive, causal = content["measurements"][:2]
    assert causal["speedup"] == pytest.approx(naive["median_ms"] / causal["median_ms"])
    assert content["machine"]["torch"] == torch.__version__
    assert np.isfinite(list(content["relative_errors"].values())).all()
    assert out.count("| net |") == 3
    assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"


def test_openvino_is_compared_with_pytorch(tmp_path, capsys, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr("stdnet_core.benchmark.measure._PEAK_SIZES", {"cpu": 128})
    model = RecurrentNet(RecurrentConfig(channels=8, channels_8=8, channels_16=8, blocks=0)).eval()
    checkpoints.save(tmp_path / "net.safetensors", model, CheckpointInfo(model.config, (), None))
    arguments = ["--checkpoints", str(tmp_path / "net.safetensors"), "--presets", "", "--sizes", "48x32", "--quiet"]
    arguments += ["--modes", "frame,openvino,naive", "--devices", "cpu", "--precisions", "fp32,bf16", "--frames", "4"]
    assert benchmark.main([*arguments, "--json", str(tmp_path / "b.json")]) == 0
    rows = json.loads((tmp_path / "b.json").read_text())["measurements"]
    measured = [(r["mode"], r["engine"], r["precision"]) for r in rows]
    assert measured == [("frame", "eager", "fp32"), ("frame", "openvino", "fp32"), ("frame", "eager", "bf16")]
    assert rows[1]["gflop"] == rows[0]["gflop"] > 0
    ratio = rows[0]["median_ms"] / rows[1]["median_ms"]
    out = capsys.readouterr().out
    assert f"net 48x32 x8 fp32 frame with OpenVINO: {ratio:.1f} times as fast as with PyTorch\n" in out


def test_a_line_that_fails_is_noted_and_the_next_one_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stdnet_core.benchmark.measure._PEAK_SIZES", {"cpu": 128})

    def offline(case):
        raise RuntimeError("out of memory\nmore")

    monkeypatch.setattr("stdnet_core.benchmark.measure._offline", offline)
    case = small_case(stages=1)
    checkpoints.save(tmp_path / "net.safetensors", case.model, case.info)
    arguments = ["--checkpoints", str(tmp_path / "net.safetensors"), "--presets", "", "--sizes", "24x16", "--quiet"]
    arguments += ["--modes", "offline,latency0", "--devices", "cpu", "--frames", "2"]
    with pytest.raises(RuntimeError, match="out of memory"):
        benchmark.main(arguments)
    assert benchmark.main([*arguments, "--keep-going", "--json", str(tmp_path / "b.json")]) == 1
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["failed"] == {"net cpu fp32 offline": "RuntimeError: out of memory"}
    assert [r["mode"] for r in content["measurements"]] == ["latency0"]
    assert "failed: net cpu fp32 offline" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--sizes", "30x16"], "not a multiple of the scale 8"), (["--devices", "cuda:99"], "choose an available device")],
)
def test_what_cannot_be_measured_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.main(["--quiet", *arguments])


def test_table_of_states_agrees_with_a_stream(capsys):
    benchmark.main(["--state", "--presets", "tiny,tiny_causal", "--sizes", "64x32"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [[cell.strip() for cell in row[:3]] for row in rows] == [
        [name, "64x32", precision] for name in ("tiny", "tiny_causal") for precision in ("fp32", "half")
    ]
    stream = StreamingSTDNet(STDNet(ModelConfig.preset("tiny")), latency=4)
    stream.step(torch.rand(1, 3, 32, 64), torch.rand(1, 1, 4, 8))
    assert rows[0][3 + 4].strip() == f"{stream.state_bytes() / 1e6:.1f}"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--presets", "tiny_causal", "--modes", "offline,latency8"], "those that are not causal also offline"),
        (["--presets", "", "--modes", "frame"], "no network to measure"),
    ],
)
def test_what_measures_nothing_says_why(arguments, reason):
    with pytest.raises(ConfigError, match=reason):
        benchmark.main([*arguments, "--sizes", "64x32", "--quiet"])
