"""Exported recurrent networks against PyTorch, and what is said about frames and files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recurrent_fixtures import moving_frames, network

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.data.sensors import delivered_size
from stdnet_core.errors import CheckpointError, ConfigError, InputError
from stdnet_core.inference import DepthUpsampler
from stdnet_core.inference.devices import Placement
from stdnet_core.inference.engine import RecurrentTorchEngine
from stdnet_core.model import RecurrentNet
from stdnet_core.model.recurrent.flat_step import STATE
from stdnet_core.optical_flow import FlowEstimator

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from stdnet_core.export import __main__ as export  # noqa: E402
from stdnet_core.export.recurrent import (  # noqa: E402
    RecurrentExportSize,
    export_recurrent,
    largest_relative_differences,
    random_frames,
    source_frames,
)
from stdnet_core.inference.onnx_engine import OnnxEngine, RecurrentOnnxEngine, open_engine  # noqa: E402

SIZES = [RecurrentExportSize(64, 96, 1), RecurrentExportSize(60, 90, 8)]


def info_of(model: RecurrentNet) -> CheckpointInfo:
    return CheckpointInfo(model.config, (), None, metrics={"rmse_cm": 3.0})


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Exports each size once, as that takes seconds."""
    made = {}

    def get(size):
        if size not in made:
            model = network()
            path = tmp_path_factory.mktemp("recurrent") / "model.onnx"
            made[size] = model, export_recurrent(model, info_of(model), path, size), size
        return made[size]

    return get


@pytest.fixture(params=SIZES, ids=lambda s: f"x{s.scale:g}")
def exported(request, exports):
    return exports(request.param)


@pytest.fixture
def coarse(exports):
    return exports(SIZES[-1])


def assert_same(actual, expected, tolerance=1e-3) -> None:
    for name in ("depth", "error_scale"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), rtol=tolerance)


def test_onnx_runtime_gives_what_pytorch_gives_and_again_after_reset(exported):
    model, path, size = exported
    engine = RecurrentOnnxEngine(path)
    reference = RecurrentTorchEngine(model, Placement(torch.device("cpu"), torch.float32))
    frames = moving_frames((size.height, size.width), size.scale, 4)
    first = []
    for rgb, depth in frames:
        output = engine.step(rgb, depth, size.ratio)
        assert output.depth.shape == output.error_scale.shape == (size.height, size.width)
        assert_same(output, reference.step(rgb, depth, size.ratio))
        first.append((output.depth.copy(), output.error_scale.copy()))
        output.depth[:], output.error_scale[:] = np.nan, np.nan  # the caller's, and no part of the state
    assert not np.allclose(first[0][0], first[1][0], rtol=1e-3), "a frame says nothing new"
    engine.reset()
    for (rgb, depth), (metres, scale) in zip(frames, first, strict=True):
        again = engine.step(rgb, depth)
        np.testing.assert_array_equal(again.depth, metres)
        np.testing.assert_array_equal(again.error_scale, scale)
    assert max(largest_relative_differences(model, path, random_frames(size, 3)).values()) < 1e-3


def test_the_state_is_what_the_networks_step_carries(coarse):
    model, path, size = coarse
    engine, flows = RecurrentOnnxEngine(path), FlowEstimator()
    state = model.start(torch.zeros(size.rgb))
    for rgb, depth in moving_frames((size.height, size.width), size.scale, 3):
        padded = np.pad(rgb, ((0, 4), (0, 6), (0, 0)), mode="edge")
        flow = torch.from_numpy(flows.step(padded))[None]
        colour = torch.from_numpy(padded / np.float32(255)).permute(2, 0, 1)[None]
        measured = torch.from_numpy(depth)[None, None]
        with torch.no_grad():
            output, state = model.step(colour, measured, flow, state, (8, 8))
        np.testing.assert_allclose(engine.step(rgb, depth).depth, output.depth[0, 0, :60, :90], rtol=1e-3)
        for name in STATE:
            np.testing.assert_allclose(engine._state[f"state_{name}"], getattr(state, name), rtol=1e-3, atol=1e-4)
    assert engine.state_bytes() == 4 * (2 * 64 * 96 + (3 + 1) * 16 * 24 + 8 * 8 * 12 + 83)


def test_file_says_what_it_is(exported):
    model, path, size = exported
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    assert [i.name for i in graph.graph.input] == [
        "rgb",
        "depth_lr",
        "flow",
        "state_depth",
        "state_mean",
        "state_rgb",
        "state_evidence",
        "state_hidden",
        "state_registration",
    ]
    following = ["next_depth", "next_mean", "next_rgb", "next_evidence", "next_hidden", "next_registration"]
    assert [o.name for o in graph.graph.output] == ["depth", "error_scale", *following]
    assert all(d.dim_value > 0 for i in graph.graph.input for d in i.type.tensor_type.shape.dim)
    engine = open_engine(path)
    assert isinstance(engine, RecurrentOnnxEngine)
    assert (engine.info.config, engine.info.recurrent, engine.info.scales) == (model.config, True, ())
    assert engine.info.metrics == {"rmse_cm": 3.0}
    assert (engine.size, engine.latency) == ((size.height, size.width), 0)
    assert engine.depth_size == delivered_size(engine.size, size.scale)
    assert engine.ratio == tuple(c / d for c, d in zip(engine.covered, engine.depth_size, strict=True))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_float_colour_and_colour_padded_to_the_cells_give_the_same(coarse):
    _, path, size = coarse
    outputs = []
    for change in (
        lambda rgb: rgb,
        lambda rgb: rgb.astype(np.float32) / 255,
        lambda rgb: np.pad(rgb, ((0, 4), (0, 6), (0, 0)), mode="edge"),
    ):
        engine = RecurrentOnnxEngine(path)
        outputs.append(
            [engine.step(change(rgb), depth) for rgb, depth in moving_frames((size.height, size.width), size.scale, 3)]
        )
    assert outputs[2][0].depth.shape == engine.covered == (64, 96)
    for plain, floats, padded in zip(*outputs, strict=True):
        assert_same(floats, plain)
        np.testing.assert_array_equal(padded.depth[:60, :90], plain.depth)


def test_bad_frames_are_refused_and_leave_the_state_unharmed(coarse):
    _, path, size = coarse
    frames = moving_frames((size.height, size.width), size.scale, 3)
    clean, engine = RecurrentOnnxEngine(path), RecurrentOnnxEngine(path)
    for rgb, depth in frames:
        expected = clean.step(rgb, depth).depth
        with pytest.raises(InputError, match="exported for colour of 90x60 and depth of 12x8"):
            engine.step(rgb[:48], depth)
        with pytest.raises(InputError, match="exported for colour of 90x60 and depth of 12x8"):
            engine.step(rgb, depth[:, :11])
        with pytest.raises(InputError, match="exported for cells of 8x8 pixels, and got cells of 7.5x8"):
            engine.step(rgb, depth, (8.0, 7.5))
        for bad in (np.nan, np.inf, -1):
            with pytest.raises(InputError, match="depth holds NaN, infinite or negative"):
                engine.step(rgb, np.full_like(depth, bad))
        with pytest.raises(InputError, match="rgb holds NaN"):
            engine.step(np.full(rgb.shape, np.nan, np.float32), depth)
        np.testing.assert_array_equal(engine.step(rgb, depth).depth, expected)


def test_files_that_do_not_fit_are_refused(coarse, tmp_path):
    _, path, _ = coarse
    fingerprint = RecurrentOnnxEngine(path).fingerprint
    assert isinstance(open_engine(path, fingerprint=fingerprint, threads=1), RecurrentOnnxEngine)
    with pytest.raises(CheckpointError, match="holds another model"):
        open_engine(path, fingerprint="0" * 32)
    with pytest.raises(CheckpointError, match="holds another kind of network .* open it with"):
        OnnxEngine(path)
    with pytest.raises(CheckpointError, match="there is no file"):
        open_engine(tmp_path / "missing.onnx")
    with pytest.raises(ConfigError, match="no execution provider NoSuchProvider"):
        open_engine(path, providers=["NoSuchProvider"])
    for name, expected in (("format", "not one of this project's models"), ("ratio", "metadata of .* cannot be used")):
        graph = onnx.load(path)
        kept = [p for p in graph.metadata_props if p.key != name]
        del graph.metadata_props[:]
        graph.metadata_props.extend(kept)
        onnx.save(graph, tmp_path / "foreign.onnx")
        with pytest.raises(CheckpointError, match=expected):
            open_engine(tmp_path / "foreign.onnx")


@pytest.mark.parametrize(
    ("size", "cells", "covered", "padded"),
    [
        ((480, 640, 1), (480, 640), (480, 640), (480, 640)),
        ((720, 1280, 1.5), (480, 853), (720, 1280), (720, 1280)),
        ((479, 641, 8), (60, 81), (480, 648), (480, 656)),
        ((1080, 1920, 7.5), (144, 256), (1080, 1920), (1088, 1920)),
    ],
)
def test_sizes_are_those_of_a_camera_of_that_ratio(size, cells, covered, padded):
    export_size = RecurrentExportSize(*size)
    assert (export_size.depth[2:], export_size.geometry.covered, export_size.padded) == (cells, covered, padded)
    assert export_size.ratio == tuple(c / d for c, d in zip(covered, cells, strict=True))
    assert export_size.flow[2:] == tuple(p // 4 for p in padded)


@pytest.mark.parametrize(
    ("size", "message"), [((64, 96, 0.5), "a number from 1 on"), ((0, 96, 1), "give at least one pixel")]
)
def test_sizes_that_cannot_be_exported(size, message):
    with pytest.raises(ConfigError, match=message):
        RecurrentExportSize(*size)


def test_recorded_frames_are_resized_and_keep_metres(coarse):
    model, path, size = coarse
    frames = list(source_frames("synthetic:5,1,48x64,4", size, 3))
    assert len(frames) == 3
    for rgb, depth in frames:
        assert (rgb.shape, depth.shape, rgb.dtype, depth.dtype) == ((60, 90, 3), (8, 12), np.uint8, np.float32)
        assert depth.min() >= 0
        assert depth.max() > 1
    assert max(largest_relative_differences(model, path, frames).values()) < 1e-3


def test_depth_upsampler_runs_it_as_it_runs_pytorch(coarse):
    model, path, size = coarse
    exported = DepthUpsampler(path, backend="onnxruntime")
    torch_one = DepthUpsampler.from_model(model, info_of(model), method="stdnet", device="cpu", precision="fp32")
    for rgb, depth in moving_frames((size.height, size.width), size.scale, 3):
        actual, expected = exported.step(rgb, depth), torch_one.step(rgb, depth)
        np.testing.assert_allclose(actual.depth, expected.depth, rtol=1e-4)
        np.testing.assert_allclose(actual.confidence, expected.confidence, atol=1e-3)


def test_command_line_exports_and_checks(tmp_path, capsys, monkeypatch):
    model = network()
    checkpoint, path = str(tmp_path / "m.safetensors"), tmp_path / "m.onnx"
    checkpoints.save(checkpoint, model, info_of(model))
    export.main([checkpoint, "--size", "32x48", "--scale", "2.5", "--output", str(path), "--check-frames", "2"])
    out = capsys.readouterr().out
    assert "colour 32x48, depth 13x19, cells of 2.46154x2.52632 pixels" in out
    assert "largest difference to PyTorch on random frames" in out
    assert RecurrentOnnxEngine(path).depth_size == (19, 13)
    with pytest.raises(ConfigError, match="waits for no frame"):
        export.main([checkpoint, "--latency", "1", "--output", str(path)])
    with pytest.raises(SystemExit):
        export.main([checkpoint, "--scale", "0.5", "--output", str(path)])
    assert "not a number of at least 1" in capsys.readouterr().err
    monkeypatch.setattr("stdnet_core.export.recurrent.export_recurrent", lambda *_: path)
    model.fine_head.bias.data[-16:] += 1  # the error's scale alone
    checkpoints.save(checkpoint, model, info_of(model))
    with pytest.raises(CheckpointError, match="holds another model"):
        export.main([checkpoint, "--size", "32x48", "--scale", "2.5", "--output", str(path)])
    monkeypatch.setattr("stdnet_core.export.recurrent.model_fingerprint", lambda _: None)
    with pytest.raises(CheckpointError, match="error_scale of .* differs from PyTorch by .* on random frames"):
        export.main([checkpoint, "--size", "32x48", "--scale", "2.5", "--output", str(path)])


def test_a_scale_that_is_not_whole_is_refused_for_the_papers_network(tmp_path):
    from sensitive_model import sensitive_model

    model = sensitive_model(passes=("forward",), stages=1)
    checkpoints.save(tmp_path / "m.safetensors", model, CheckpointInfo(model.config, (8,), 12.5))
    with pytest.raises(ConfigError, match=r"scale is 2\.5; STDNet needs multiples of 4"):
        export.main([str(tmp_path / "m.safetensors"), "--scale", "2.5", "--output", str(tmp_path / "m.onnx")])
