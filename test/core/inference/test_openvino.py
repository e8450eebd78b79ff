"""The recurrent network in OpenVINO against PyTorch, and what is refused."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from recurrent_fixtures import moving_frames, network

from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import ConfigError, InputError, StdnetError
from stdnet_core.inference import DepthUpsampler, devices, openvino_engine
from stdnet_core.inference.devices import Placement
from stdnet_core.inference.engine import RecurrentTorchEngine
from stdnet_core.inference.openvino_engine import CompilingEngine, RecurrentOpenVinoEngine
from stdnet_core.model import ModelConfig, STDNet
from stdnet_core.streaming.stream import model_fingerprint


def wait_for_compilation(engine):
    if engine._compilation is not None:
        engine._compilation.join(60.0)
        assert not engine._compilation.is_alive()


@pytest.fixture(scope="module")
def compiled():
    """What was compiled, or failed to, for each weights and sizes: it takes ten seconds."""
    return {}


class _SignalStack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack_is_mapped():
    """Whether the memory on which this thread handles signals exists; without such a stack, it is the thread's own."""
    stack = _SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    if stack.start is None:
        return True
    maps = [line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines()]
    writable = [[int(end, 16) for end in span.split("-")] for span, rights in maps if rights.startswith("rw")]
    return any(start <= stack.start < end for start, end in writable)


class TestWithOpenVino:
    @pytest.fixture(autouse=True)
    def _openvino(self, monkeypatch, compiled):
        pytest.importorskip("openvino")
        monkeypatch.setattr(openvino_engine, "SETTLED", 10)
        compile_now = RecurrentOpenVinoEngine.compile

        def compile_once(engine, sizes):
            key = model_fingerprint(engine._model), sizes
            if key not in compiled:
                try:
                    compiled[key] = compile_now(engine, sizes).get_compiled_model()
                except InputError as error:
                    compiled[key] = error
            if isinstance(compiled[key], InputError):
                raise compiled[key]
            return compiled[key].create_infer_request()

        monkeypatch.setattr(RecurrentOpenVinoEngine, "compile", compile_once)

    @pytest.mark.parametrize(("size", "scale"), [((64, 96), 1), ((50, 90), 8), ((60, 80), 2.5)])
    def test_frames_and_state_are_those_of_pytorch_and_again_after_reset(self, size, scale):
        model = network()
        expected = RecurrentTorchEngine(model, Placement(torch.device("cpu"), torch.float32))
        actual = RecurrentOpenVinoEngine(model)
        frames = moving_frames(size, scale, 5)
        ratio = tuple(pixels / cells for pixels, cells in zip(size, frames[0][1].shape, strict=True))
        returned, copies = [], []
        for number, frame in enumerate(frames):
            outputs = expected.step(*frame, ratio), actual.step(*frame, ratio)
            for name in ("depth", "error_scale"):
                e, a = (getattr(output, name) for output in outputs)
                assert a.shape == size
                np.testing.assert_allclose(a, e, rtol=1e-4, err_msg=f"{name} of frame {number}")
            returned.append(outputs[1].depth)
            copies.append(outputs[1].depth.copy())
        actual.reset()
        again = [actual.step(*frame, ratio).depth for frame in frames]
        for depth, copy, later in zip(returned, copies, again, strict=True):
            assert np.array_equal(depth, copy)
            assert np.array_equal(depth, later)

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_engines_that_come_and_go_leave_no_signal_handler_on_memory_that_is_gone(self):
        engines = []
        for _ in range(2):
            engines.append(RecurrentOpenVinoEngine(network()))
            engines[-1]._core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, as compiling does
        while engines:
            del engines[0]
            gc.collect()
            assert signal_stack_is_mapped()

    def test_beside_the_stream_pytorch_computes_until_openvino_goes_on_and_other_sizes_do_not_wait(self):
        model = network()
        expected = RecurrentTorchEngine(model, Placement(torch.device("cpu"), torch.float32))
        actual = CompilingEngine(model)
        frames = moving_frames((32, 48), 4, 16)
        executed = []
        for number, frame in enumerate(frames):
            if number == 12:
                wait_for_compilation(actual)
            depths = [engine.step(*frame, (4.0, 4.0)).depth for engine in (actual, expected)]
            executed.append(actual.executes)
            np.testing.assert_allclose(*depths, rtol=1e-4, err_msg=f"frame {number}")
        assert executed[:9] == ["torch"] * 9
        assert executed[12:] == ["openvino"] * 4
        actual.reset()
        expected.reset()
        for frame in frames[:2]:
            np.testing.assert_allclose(*(e.step(*frame, (4.0, 4.0)).depth for e in (actual, expected)), rtol=1e-4)
        assert actual.executes == "openvino"
        for size, engine in (((48, 32), "torch"), ((32, 48), "openvino")):
            actual.reset()
            actual.step(*moving_frames(size, 4, 2)[0], (4.0, 4.0))
            assert actual.executes == engine

    def test_beside_the_stream_a_limited_number_of_sizes_is_compiled_once(self, monkeypatch):
        monkeypatch.setattr(openvino_engine, "SETTLED", 2)
        monkeypatch.setattr(openvino_engine, "MOST_SIZES", 2)
        engine = CompilingEngine(network())
        reference = RecurrentTorchEngine(network(), Placement(torch.device("cpu"), torch.float32))
        executed = []
        for size in ((32, 48), (48, 32), (48, 48), (32, 48), (48, 32), (48, 48)):
            for e in (engine, reference):
                e.reset()
            for frame in moving_frames(size, 4, 3):
                np.testing.assert_allclose(*(e.step(*frame, (4.0, 4.0)).depth for e in (engine, reference)), rtol=1e-4)
                executed.append(engine.executes)
                wait_for_compilation(engine)
        first = ["torch", "torch", "openvino"]
        assert executed == [*first, *first, *["torch"] * 3, *["openvino"] * 6, *["torch"] * 3]

    def test_beside_the_stream_what_openvino_cannot_compile_stays_with_pytorch(self, caplog):
        engine = CompilingEngine(network())
        reference = RecurrentTorchEngine(network(), Placement(torch.device("cpu"), torch.float32))
        with caplog.at_level(logging.WARNING, "stdnet_core.inference.openvino_engine"):
            for number, frame in enumerate(moving_frames((16, 48), 4, 24)):
                if number in (10, 22):
                    wait_for_compilation(engine)
                assert np.array_equal(*(e.step(*frame, (4.0, 4.0)).depth for e in (engine, reference)))
        assert engine.executes == "torch"
        assert [r.message.split(" (")[0] for r in caplog.records] == [
            "OpenVINO cannot compile the network for colour of 48x16 and depth of 12x4"
        ]

    def test_beside_the_stream_any_failure_to_compile_leaves_it_to_pytorch(self, caplog, monkeypatch):
        engine = CompilingEngine(network())
        monkeypatch.setattr(engine._openvino, "_graph", lambda sizes: {}["operator"])
        with caplog.at_level(logging.WARNING, "stdnet_core.inference.openvino_engine"):
            for frame in moving_frames((32, 64), 4, 12):  # for no other test, so nothing is compiled yet
                wait_for_compilation(engine)
                assert np.isfinite(engine.step(*frame, (4.0, 4.0)).depth).all()
        assert engine.executes == "torch"
        sizes = "colour of 64x32 and depth of 16x8"
        assert [r.message for r in caplog.records] == [
            f"OpenVINO cannot compile the network for {sizes} ('operator'); choose backend torch"
        ]

    def test_another_size_is_compiled_anew_and_one_that_is_too_small_refused(self):
        model = network()
        info = CheckpointInfo(model.config, (), None, name="small")
        upsampler = DepthUpsampler.from_model(model, info, method="stdnet", device="cpu", backend="openvino")
        reference = DepthUpsampler.from_model(model, info, method="stdnet", device="cpu", precision="fp32")
        for size, scale in (((32, 48), 4), ((64, 96), 1)):
            with pytest.raises(InputError, match="compile the network for colour of 48x16 .*; choose backend torch"):
                upsampler.step(*moving_frames((16, 48), 4, 2)[0])
            upsampler.reset()
            for frame in moving_frames(size, scale, 2):
                depths = [u.step(*frame).depth for u in (upsampler, reference)]
                np.testing.assert_allclose(*depths, rtol=1e-4)
            for u in (upsampler, reference):
                u.reset()
        assert upsampler.placement.precision == "fp32"

    @pytest.mark.parametrize("precision", ["fp32", "auto"])
    def test_auto_takes_openvino_where_it_computes_the_same(self, precision, monkeypatch):
        monkeypatch.setattr(devices, "cpu_computes_bf16", lambda: True)
        released, compile_once = threading.Event(), RecurrentOpenVinoEngine.compile

        def compile_when_released(engine, sizes):
            assert released.wait(60.0)
            return compile_once(engine, sizes)

        monkeypatch.setattr(RecurrentOpenVinoEngine, "compile", compile_when_released)
        chosen = {"method": "stdnet", "device": "cpu", "backend": "auto", "compile_beside": True}
        model = network()
        info = CheckpointInfo(model.config, (), None, name="small")
        upsampler = DepthUpsampler.from_model(model, info, **chosen, precision=precision)
        assert upsampler.placement.precision == "fp32"
        for number, frame in enumerate(moving_frames((32, 48), 4, 12)):
            if number == 11:
                released.set()
                wait_for_compilation(upsampler._recurrent_engine)
            upsampler.step(*frame)
            assert upsampler.backend == ("openvino" if number == 11 else "torch")

    @pytest.mark.parametrize("case", ["bf16", "network", "method", "missing"])
    def test_auto_takes_pytorch_elsewhere(self, case, monkeypatch):
        model = STDNet(ModelConfig.preset("tiny_causal")) if case == "network" else network()
        info = CheckpointInfo(model.config, (8,) if case == "network" else (), None, name="small")
        if case == "missing":
            monkeypatch.setitem(sys.modules, "openvino", None)
        upsampler = DepthUpsampler.from_model(
            model,
            info,
            method="bilinear" if case == "method" else "stdnet",
            device="cpu",
            precision="bf16" if case == "bf16" else "fp32",
            backend="auto",
        )
        upsampler.step(*moving_frames((32, 48), 8, 1)[0])
        assert upsampler.backend == "torch"

    def test_classical_methods_ignore_the_backend(self):
        frame = moving_frames((32, 48), 4, 2)[0]
        one, other = (DepthUpsampler(method="bilinear", backend=b).step(*frame) for b in ("torch", "openvino"))
        assert np.array_equal(one.depth, other.depth, equal_nan=True)

    def test_the_papers_network_is_refused(self):
        config = ModelConfig.preset("tiny_causal")
        info = CheckpointInfo(config, (8,), None, name="papers")
        with pytest.raises(ConfigError, match="recurrent networks such as live, and papers is none; use backend torch"):
            DepthUpsampler.from_model(STDNet(config), info, backend="openvino")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": "cuda"}, "runs on the CPU, and device is 'cuda'"),
        ({"precision": "bf16"}, "computes in fp32, and precision is 'bf16'"),
    ],
)
def test_settings_that_openvino_does_not_have_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        DepthUpsampler("live", backend="openvino", **settings)


def test_without_openvino_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(StdnetError, match=r"'openvino'.*install it with: pip install .*\[openvino\]"):
        DepthUpsampler("live", backend="openvino")
