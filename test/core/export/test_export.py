"""Exported files against PyTorch, and what is said about files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sensitive_model import sensitive_model

from stdnet_core import DepthUpsampler, STDNet, StreamingSTDNet, checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import CheckpointError, ConfigError, InputError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from stdnet_core.export import __main__ as export  # noqa: E402
from stdnet_core.export.onnx_file import OPSET  # noqa: E402
from stdnet_core.export.streaming import (  # noqa: E402
    ExportSize,
    export_onnx,
    largest_difference,
    random_frames,
    source_frames,
)
from stdnet_core.inference.onnx_engine import OnnxEngine, tail_path  # noqa: E402

SIZE = ExportSize(24, 32, 8)
STANDARD_OPERATORS = {"", "ai.onnx"}


def info_of(model: STDNet) -> CheckpointInfo:
    return CheckpointInfo(model.config, (8,), 12.5, metrics={"rmse_cm": 3.0})


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    model = sensitive_model(passes=("forward",))
    path = tmp_path_factory.mktemp("causal") / "model.onnx"
    return model, export_onnx(model, info_of(model), path, SIZE)


@pytest.fixture(scope="module")
def delayed(tmp_path_factory):
    model = sensitive_model(
        passes=("backward",), neighbors=1, output="residual", uncertainty=False, depth_features="depth"
    )
    path = tmp_path_factory.mktemp("delayed") / "model.onnx"
    return model, export_onnx(model, info_of(model), path, SIZE, latency=1)


def moving_frames(count: int):
    """A textured slope that moves, as real frames do: neighbouring frames are alike."""
    rows, columns = np.mgrid[:24, :32].astype(np.float32)
    for t in range(count):
        grey = 0.5 + 0.4 * np.sin((columns + t) / 3) * np.cos(rows / 4)
        depth = 0.3 + 0.01 * (rows + columns + t)
        yield np.repeat(grey[..., None], 3, 2).astype(np.float32), depth[::8, ::8].copy()


@pytest.mark.parametrize(("fixture", "latency"), [("causal", 0), ("delayed", 1)])
def test_onnx_runtime_gives_what_pytorch_gives(fixture, latency, request):
    model, path = request.getfixturevalue(fixture)
    assert largest_difference(model, path, random_frames(SIZE, 12), latency) < 1e-4
    assert largest_difference(model, path, moving_frames(12), latency) < 1e-4
    assert largest_difference(model, path, moving_frames(1), latency) < 1e-4


def test_recorded_frames_are_resized_and_normalised(causal):
    model, path = causal
    frames = list(source_frames("synthetic:5,1,48x64,4", SIZE, 3, None))
    assert len(frames) == 3
    for rgb, depth in frames:
        assert (rgb.shape, depth.shape, rgb.dtype, depth.dtype) == ((24, 32, 3), (3, 4), np.float32, np.float32)
        assert 0 <= rgb.min() < rgb.max() <= 1
        assert depth.min() > 0
    assert frames[0][1].max() == pytest.approx(1 / 1.25)
    assert largest_difference(model, path, frames, 0) < 1e-4


def test_file_has_standard_operators_fixed_sizes_and_nothing_outside(causal):
    model, path = causal
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert [(o.domain, o.version) for o in graph.opset_import if o.domain in STANDARD_OPERATORS] == [("", OPSET)]
    assert {node.domain for node in graph.graph.node} <= STANDARD_OPERATORS
    assert "GridSample" in {node.op_type for node in graph.graph.node}
    assert all(d.dim_value > 0 for i in graph.graph.input for d in i.type.tensor_type.shape.dim)
    parameters = sum(p.numel() for p in model.parameters())
    assert path.stat().st_size < 4 * parameters + 1_000_000
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_engine_says_what_it_runs_and_takes_8_bit_colour(causal):
    model, path = causal
    engine = OnnxEngine(path)
    assert (engine.size, engine.depth_size, engine.latency) == ((24, 32), (3, 4), 0)
    assert (engine.info.config, engine.info.scales, engine.info.depth_range) == (model.config, (8,), 12.5)
    assert engine.info.metrics == {"rmse_cm": 3.0}
    rgb = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    depth = np.full((3, 4), 0.4, np.float32)
    from_bytes = engine.step(rgb, depth)
    engine.reset()
    from_floats = engine.step(rgb.astype(np.float32) / 255, depth)
    np.testing.assert_allclose(from_bytes.depth, from_floats.depth, atol=1e-6)
    expected = StreamingSTDNet(model).step(
        torch.from_numpy(rgb / 255).float().permute(2, 0, 1)[None], torch.from_numpy(depth)[None, None]
    )
    np.testing.assert_allclose(from_bytes.error_scale, expected.log_scale.exp()[0, 0], rtol=1e-3)
    assert from_bytes.disagreement is None


def test_engine_returns_the_disagreement_of_stages_without_a_predicted_error(delayed):
    model, path = delayed
    engine, stream = OnnxEngine(path), StreamingSTDNet(model, latency=1)
    for rgb, depth in moving_frames(4):
        actual = engine.step(rgb, depth)
        expected = stream.step(torch.from_numpy(rgb).permute(2, 0, 1)[None], torch.from_numpy(depth)[None, None])
    first, second = expected.stage_depths
    np.testing.assert_allclose(actual.disagreement, (second - first).abs()[0, 0], atol=1e-4)
    assert actual.error_scale is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_flush_gives_the_frames_that_are_due_and_begins_anew(delayed, count):
    _, path = delayed
    engine = OnnxEngine(path)
    frames = list(moving_frames(count))
    stepped = [engine.step(*frame) for frame in frames]
    assert [s is None for s in stepped] == [True, False, False][:count]
    assert len(engine.flush()) == min(count, 1)
    assert engine.flush() == []
    assert engine.step(*next(moving_frames(1))) is None


def test_bad_frames_are_refused_and_leave_the_state_unharmed(causal):
    _, path = causal
    frames = list(moving_frames(5))
    clean = OnnxEngine(path)
    expected = [clean.step(*frame).depth for frame in frames]
    engine = OnnxEngine(path)
    for (rgb, depth), depth_expected in zip(frames, expected, strict=True):
        with pytest.raises(InputError, match="exported for colour of 32x24 and depth of 4x3"):
            engine.step(rgb[:16], depth[:2])
        with pytest.raises(InputError, match="NaN"):
            engine.step(rgb, np.full_like(depth, np.nan))
        np.testing.assert_array_equal(engine.step(rgb, depth).depth, depth_expected)


def test_files_that_do_not_fit_are_refused(causal, delayed, tmp_path):
    _, path = causal
    assert OnnxEngine(path, fingerprint=OnnxEngine(path).fingerprint).latency == 0
    with pytest.raises(CheckpointError, match="holds another model"):
        OnnxEngine(path, fingerprint="0" * 32)
    with pytest.raises(CheckpointError, match="there is no file"):
        OnnxEngine(tmp_path / "missing.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be opened"):
        OnnxEngine(damaged)
    foreign = tmp_path / "foreign.onnx"
    graph = onnx.load(path)
    del graph.metadata_props[:]
    onnx.save(graph, foreign)
    with pytest.raises(CheckpointError, match="not one of this project's models"):
        OnnxEngine(foreign)
    with pytest.raises(ConfigError, match="no execution provider NoSuchProvider"):
        OnnxEngine(path, providers=["NoSuchProvider"])


def test_tail_of_another_model_or_a_missing_one_is_refused(causal, delayed, tmp_path):
    _, path = delayed
    copy = tmp_path / "model.onnx"
    copy.write_bytes(path.read_bytes())
    engine = OnnxEngine(copy)
    engine.step(*next(moving_frames(1)))
    with pytest.raises(CheckpointError, match=r"there is no file .*model\.tail\.onnx"):
        engine.flush()
    tail_path(copy).write_bytes(causal[1].read_bytes())
    with pytest.raises(CheckpointError, match="another model or latency"):
        engine.flush()


@pytest.mark.parametrize(
    ("size", "message"),
    [((24, 30, 8), "export for 32x24"), ((24, 32, 6), "multiple of 4"), ((0, 32, 8), "export for 32x8")],
)
def test_sizes_that_cannot_be_exported(size, message):
    with pytest.raises(ConfigError, match=message):
        ExportSize(*size)


def test_command_line_refuses_a_scale_that_was_not_trained(tmp_path):
    model = sensitive_model(passes=("forward",), stages=1)
    checkpoints.save(tmp_path / "m.safetensors", model, info_of(model))
    with pytest.raises(ConfigError, match="trained for x8, not for x4"):
        export.main([str(tmp_path / "m.safetensors"), "--scale", "4", "--output", str(tmp_path / "m.onnx")])
    with pytest.raises(ConfigError, match=r"must end in \.onnx"):
        export.main([str(tmp_path / "m.safetensors"), "--output", str(tmp_path / "m.bin")])


def test_command_line_exports_and_checks(tmp_path, capsys):
    model = sensitive_model(passes=("forward",), stages=1, neighbors=1, temporal_difference=False, fusion_blocks=1)
    checkpoints.save(tmp_path / "m.safetensors", model, info_of(model))
    export.main([str(tmp_path / "m.safetensors"), "--size", "32x24", "--output", str(tmp_path / "m.onnx")])
    out = capsys.readouterr().out
    assert "largest difference to PyTorch on random frames" in out
    assert OnnxEngine(tmp_path / "m.onnx").size == (24, 32)


def test_depth_upsampler_runs_an_exported_network(delayed):
    model, path = delayed
    exported = DepthUpsampler(path, backend="onnxruntime", latency=1)
    assert (exported.method, exported.latency, exported.info.scales) == ("stdnet", 1, (8,))
    native = DepthUpsampler((model, info_of(model)), device="cpu", precision="fp32", latency=1)
    results = []
    for upsampler in (exported, native):
        for t, (rgb, depth) in enumerate(moving_frames(5)):
            upsampler.step((255 * rgb).astype(np.uint8)[:21], 5 * depth, stamp=t)
        results.append(upsampler.flush())
    (a,), (b,) = results
    assert a.stamp == b.stamp == 4
    assert a.depth.shape == (21, 32)
    np.testing.assert_allclose(a.depth, b.depth, atol=12.5 * 1e-4)
    np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(), "exported with latency 1, not 0"),
        (dict(latency=1, method="bilinear"), "not method bilinear"),
        (dict(latency=1, device="cuda"), "no execution provider CUDAExecutionProvider"),
    ],
)
def test_depth_upsampler_refuses_settings_that_an_export_cannot_have(delayed, settings, message):
    with pytest.raises(ConfigError, match=message):
        DepthUpsampler(delayed[1], backend="onnxruntime", **settings)
    with pytest.raises(ConfigError, match=r"needs an \.onnx file"):
        DepthUpsampler("model.safetensors", backend="onnxruntime")
