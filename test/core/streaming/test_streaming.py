"""The stream against the network on whole clips, and its work against a simulation of the dependencies."""

from __future__ import annotations

import itertools

import pytest
import torch
from sensitive_model import SMALL, sensitive_model

from stdnet_core import ModelConfig, STDNet, StreamingSTDNet
from stdnet_core.errors import ConfigError, InputError
from stdnet_core.streaming import Schedule, upsample_video, whole_clip_latency
from stdnet_core.streaming.fixed_step import FixedStep, FixedTail
from stdnet_core.streaming.fixed_stream import FixedStreamingSTDNet

PAPER = ModelConfig()


def clip(frames: int, batch: int = 1, height: int = 16, width: int = 24, scale: int = 8):
    torch.manual_seed(frames)
    low = (-(-height // scale), -(-width // scale))
    return torch.rand(batch, frames, 3, height, width), torch.rand(batch, frames, 1, *low)


def stream_clip(stream: StreamingSTDNet, rgb, depth_lr):
    """All outputs, each with the number of frames that had been seen."""
    outputs = []
    for t in range(rgb.shape[1]):
        output = stream.step(rgb[:, t], depth_lr[:, t])
        assert (output is None) == (t < stream.latency)
        if output is not None:
            outputs.append((output, t + 1))
    return outputs + [(output, rgb.shape[1]) for output in stream.flush()]


def assert_exact(model: STDNet, latency: int, frames: int, **sizes) -> None:
    """Every output is the whole-clip network's on the frames up to f + latency."""
    rgb, depth_lr = clip(frames, **sizes)
    outputs = stream_clip(StreamingSTDNet(model, latency=latency), rgb, depth_lr)
    assert [output.frame for output, _ in outputs] == list(range(frames))
    with torch.inference_mode():
        whole = {n: model(rgb=rgb[:, :n], depth_lr=depth_lr[:, :n]) for n in sorted({n for _, n in outputs})}
    for output, seen in outputs:
        f = output.frame
        torch.testing.assert_close(output.depth, whole[seen].depth[:, f], atol=1e-4, rtol=1e-5)
        for stage, depth in enumerate(output.stage_depths):
            torch.testing.assert_close(depth, whole[seen].stage_depths[stage][:, f], atol=1e-4, rtol=1e-5)
        if output.log_scale is not None:
            torch.testing.assert_close(output.log_scale, whole[seen].log_scale[:, f], atol=1e-4, rtol=1e-5)


def test_network_of_these_tests_depends_on_every_frame_within_reach():
    model = sensitive_model()
    rgb, depth_lr = clip(19)
    with torch.inference_mode():
        depth = model(rgb=rgb, depth_lr=depth_lr).depth[:, 9]
        for frame in range(19):
            changed = rgb.clone()
            changed[:, frame] = 1 - changed[:, frame]
            effect = (model(rgb=changed, depth_lr=depth_lr).depth[:, 9] - depth).abs().max()
            assert effect > 1e-4 if 1 <= frame <= 17 else effect < 2e-5, frame


@pytest.mark.parametrize("latency", range(9))
def test_stream_equals_whole_clip_at_every_latency(latency):
    model = sensitive_model()
    for frames in (1, 2, latency + 12):
        assert_exact(model, latency, frames)


@pytest.mark.parametrize(
    ("latency", "changes"),
    [
        (0, dict(passes=("forward", "forward"))),
        (3, dict(passes=("forward",), neighbors=3)),
        (1, dict(passes=("backward",), neighbors=3)),
        (2, dict(passes=("forward", "backward", "backward"), neighbors=3, stages=1)),
        (0, dict(stages=1, neighbors=1)),
        (0, dict(neighbors=0)),
        (2, dict(neighbors=0)),
        (8, dict(stages=1)),
        (1, dict(temporal_difference=False, spatial_difference=False, output="residual", uncertainty=False)),
    ],
)
def test_stream_equals_whole_clip_for_other_configurations(latency, changes):
    assert_exact(sensitive_model(**changes), latency, 14, batch=2)


def test_sizes_that_the_scale_does_not_divide():
    assert_exact(sensitive_model(), 1, 6, height=21, width=30)


def simulated_work(config: ModelConfig, latency: int, steps: int) -> dict[str, list[int]]:
    """What the definition of the outputs needs to be computed at the last step, found without the engine.

    Every value of the network on every prefix of the video is written as the expression that defines it; equal
    expressions are equal numbers, and an expression costs something the first time that it is needed."""
    ids: dict[tuple, int] = {}
    count = itertools.count()

    def work(newest: int) -> list[tuple]:
        new = []
        memo = {}

        def expression(*parts) -> int:
            if parts not in ids:
                ids[parts] = next(count)
                new.append(parts)
            return ids[parts]

        def level(stage: int, index: int, t: int) -> int:
            if (stage, index, t) not in memo:
                memo[stage, index, t] = compute(stage, index, t)
            return memo[stage, index, t]

        def compute(stage: int, index: int, t: int) -> int:
            if index == 0:
                source = ("frame", t) if stage == 0 else ("fused", fused(stage - 1, t), t)
                return expression("encode", stage, source)
            side = 1 if config.passes[index - 1] == "backward" else -1
            others = [t + side * k for k in range(1, config.neighbors + 1) if 0 <= t + side * k <= newest]
            if not others:
                return level(stage, index - 1, t)
            calls = tuple(
                expression(
                    "call",
                    (stage, index),
                    (level(stage, index - 1, t), level(stage, index - 1, o), level(stage, 0, t), level(stage, 0, o)),
                )
                for o in others
            )
            return expression("sum", (stage, index), calls)

        def fused(stage: int, t: int) -> int:
            return expression("fused", stage, tuple(level(stage, i, t) for i in range(len(config.passes) + 1)))

        if newest >= latency:
            fused(config.stages - 1, newest - latency)
        return new

    for newest in range(steps):
        new = work(newest)
    return {
        "calls": sum(parts[0] == "call" for parts in new),
        "encoded": [sum(parts[:2] == ("encode", s) for parts in new) for s in range(config.stages)],
        "fused": [sum(parts[:2] == ("fused", s) for parts in new) for s in range(config.stages)],
    }


def done_work(config: ModelConfig, latency: int, steps: int) -> dict[str, list[int]]:
    """What the engine does at the last of some steps, counted at the network's own modules."""
    model = STDNet(config)
    counts = {"calls": 0, "encoded": [0] * config.stages, "fused": [0] * config.stages}

    def count(name, stage=None):
        def hook(_module, inputs, _output):
            if stage is None:
                counts[name] += inputs[0].shape[0]
            else:
                counts[name][stage] += inputs[0].shape[0]

        return hook

    stream = StreamingSTDNet(model, latency=latency)
    rgb, depth_lr = clip(1, height=8, width=8)
    for _ in range(steps - 1):
        stream.step(rgb[:, 0], depth_lr[:, 0])
    for index, stage in enumerate(model.stages):
        for module in stage.temporal:
            module.register_forward_hook(count("calls"))
        stage.guide_encoder.register_forward_hook(count("encoded", index))
        stage.reconstruction.register_forward_hook(count("fused", index))
    stream.step(rgb[:, 0], depth_lr[:, 0])
    return counts


def test_module_calls_of_the_paper_network():
    expected = [42, 48, 52, 52, 51, 45, 37, 25, 16]
    assert [simulated_work(PAPER, latency, 30)["calls"] for latency in range(9)] == expected
    assert [Schedule.of(PAPER, latency).steady.module_calls for latency in range(9)] == expected


@pytest.mark.parametrize("latency", range(9))
def test_engine_does_only_what_the_dependencies_ask_for(latency):
    config = ModelConfig.preset("tiny", **SMALL)
    work = done_work(config, latency, 30)
    assert work == simulated_work(config, latency, 30)
    assert work["encoded"] == [1, {0: 5, 8: 1}.get(latency, work["encoded"][1])]


@pytest.mark.parametrize(
    "changes", [dict(passes=("forward", "forward")), dict(neighbors=3, stages=1), dict(passes=("backward",) * 2)]
)
def test_engine_does_only_what_the_dependencies_ask_for_in_other_configurations(changes):
    config = ModelConfig.preset("tiny", **SMALL, **changes)
    assert done_work(config, 1, 34) == simulated_work(config, 1, 34)


def test_causal_network_gives_the_whole_clip_result_at_once():
    model = sensitive_model(passes=("forward", "forward"))
    assert whole_clip_latency(model.config) == 0
    assert Schedule.of(model.config, 0).steady.module_calls == 8
    rgb, depth_lr = clip(12)
    outputs = stream_clip(StreamingSTDNet(model), rgb, depth_lr)
    with torch.inference_mode():
        whole = model(rgb=rgb, depth_lr=depth_lr).depth
    torch.testing.assert_close(torch.stack([o.depth for o, _ in outputs], 1), whole, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, dict(neighbors=3, stages=1), dict(passes=("forward",))])
def test_whole_video_in_constant_memory_equals_the_network_on_the_clip(changes):
    model = sensitive_model(**changes)
    rgb, depth_lr = clip(19)
    frames = ((rgb[:, t], depth_lr[:, t]) for t in range(19))
    depth = torch.stack([output.depth for output in upsample_video(model, frames)], 1)
    with torch.inference_mode():
        torch.testing.assert_close(depth, model(rgb=rgb, depth_lr=depth_lr).depth, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("latency", [0, 3, 8])
def test_state_does_not_grow(latency):
    stream = StreamingSTDNet(sensitive_model(), latency=latency)
    rgb, depth_lr = clip(1)
    sizes = set()
    for _ in range(60):
        stream.step(rgb[:, 0], depth_lr[:, 0])
        sizes.add(stream.state_bytes())
    assert len(sizes) == 1
    assert 0 < sizes.pop() < 200 * 4 * (4 * 4 * 6)  # as much as 200 feature maps of 4 channels on the 4x6 grid


def test_state_size_is_what_is_documented():
    stream = StreamingSTDNet(STDNet(ModelConfig.preset("tiny_causal")))
    stream.step(torch.rand(1, 3, 240, 320), torch.rand(1, 1, 30, 40))
    feature_map = 16 * 60 * 80 * 4
    # two frames of trunk and RGB features, of the first pass's output, for each of two stages
    assert stream.state_bytes() == 2 * 3 * 2 * feature_map


def test_reset_and_flush_begin_a_new_clip():
    model = sensitive_model()
    stream = StreamingSTDNet(model, latency=2)
    first = [o.depth for o, _ in stream_clip(stream, *clip(7))]
    stream.step(*(x[:, 0] for x in clip(3, height=32)))
    stream.reset()
    again = stream_clip(stream, *clip(7))
    assert [o.frame for o, _ in again] == list(range(7))
    for a, (b, _) in zip(first, again, strict=True):
        torch.testing.assert_close(a, b.depth, atol=0, rtol=0)
    assert stream.flush() == []


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ((torch.rand(1, 3, 16, 32), torch.rand(1, 1, 2, 4)), "size changed"),
        ((torch.full((1, 3, 16, 24), torch.nan), torch.rand(1, 1, 2, 3)), "rgb holds NaN"),
        ((torch.rand(1, 3, 16, 24), torch.full((1, 1, 2, 3), torch.inf)), "depth_lr holds NaN"),
        ((torch.rand(3, 16, 24), torch.rand(1, 2, 3)), "expected rgb"),
        ((torch.rand(1, 1, 16, 24), torch.rand(1, 3, 2, 3)), "expected rgb"),
        ((torch.zeros(1, 3, 16, 24, dtype=torch.uint8), torch.rand(1, 1, 2, 3)), "floating point"),
        ((torch.rand(2, 3, 16, 24), torch.rand(1, 1, 2, 3)), "same batch"),
        ((torch.rand(1, 3, 0, 24), torch.rand(1, 1, 0, 3)), "at least one pixel"),
    ],
)
def test_bad_frames_are_refused_and_leave_the_state_unharmed(frame, message):
    model = sensitive_model()
    rgb, depth_lr = clip(8)
    expected = stream_clip(StreamingSTDNet(model, latency=1), rgb, depth_lr)
    stream = StreamingSTDNet(model, latency=1)
    actual = []
    for t in range(8):
        output = stream.step(rgb[:, t], depth_lr[:, t])
        actual += [] if output is None else [output]
        with pytest.raises(InputError, match=message):
            stream.step(*frame)
    actual += stream.flush()
    for (e, _), a in zip(expected, actual, strict=True):
        torch.testing.assert_close(a.depth, e.depth, atol=0, rtol=0)


def test_sizes_without_a_common_scale_are_refused_from_the_first_frame():
    stream = StreamingSTDNet(sensitive_model())
    with pytest.raises(InputError, match="multiple of 4"):
        stream.step(torch.rand(1, 3, 16, 24), torch.rand(1, 1, 5, 3))
    assert stream.state_bytes() == 0


def test_failure_inside_a_step_leaves_the_state_unharmed():
    model = sensitive_model()
    rgb, depth_lr = clip(9)
    expected = stream_clip(StreamingSTDNet(model, latency=1), rgb, depth_lr)
    stream = StreamingSTDNet(model, latency=1)
    actual = []

    def fail(_module, _inputs):
        raise torch.OutOfMemoryError("as if memory had run out")

    for t in range(9):
        if t in (1, 2, 5):
            hook = model.stages[1].reconstruction.register_forward_pre_hook(fail)
            with pytest.raises(torch.OutOfMemoryError):
                stream.step(rgb[:, t] * 0.5, depth_lr[:, t])
            hook.remove()
        output = stream.step(rgb[:, t], depth_lr[:, t])
        actual += [] if output is None else [output]
    actual += stream.flush()
    for (e, _), a in zip(expected, actual, strict=True):
        torch.testing.assert_close(a.depth, e.depth, atol=0, rtol=0)


def test_state_can_be_kept_and_restored():
    stream = StreamingSTDNet(sensitive_model(), latency=1)
    rgb, depth_lr = clip(8)
    for t in range(5):
        stream.step(rgb[:, t], depth_lr[:, t])
    kept = stream.state
    expected = stream.step(rgb[:, 5], depth_lr[:, 5])
    stream.step(rgb[:, 6], depth_lr[:, 6])
    stream.state = kept
    torch.testing.assert_close(stream.step(rgb[:, 5], depth_lr[:, 5]).depth, expected.depth, atol=0, rtol=0)
    assert stream.step(rgb[:, 6], depth_lr[:, 6]).frame == 5


@pytest.mark.parametrize("other", [dict(seed=1), dict(max_offset=None)])
def test_state_of_another_model_is_refused(other):
    stream = StreamingSTDNet(sensitive_model(), latency=1)
    foreign = StreamingSTDNet(sensitive_model(**other), latency=1)
    rgb, depth_lr = clip(4)
    for t in range(3):
        stream.step(rgb[:, t], depth_lr[:, t])
        foreign.step(rgb[:, t], depth_lr[:, t])
    expected = StreamingSTDNet(stream.model, latency=1)
    expected.state = stream.state
    with pytest.raises(InputError, match="another model or latency"):
        stream.state = foreign.state
    with pytest.raises(InputError, match="another model or latency"):
        stream.state = StreamingSTDNet(stream.model, latency=2).state
    last = rgb[:, 3], depth_lr[:, 3]
    torch.testing.assert_close(stream.step(*last).depth, expected.step(*last).depth, atol=0, rtol=0)


@pytest.mark.parametrize("latency", [-1, 9, 1.0, True, None])
def test_latency_out_of_range_is_refused(latency):
    with pytest.raises(ConfigError, match="from 0 to 8"):
        StreamingSTDNet(sensitive_model(), latency=latency)


def test_half_precision_streams():
    model = sensitive_model(passes=("forward", "forward"))
    rgb, depth_lr = clip(5)
    exact = stream_clip(StreamingSTDNet(model), rgb, depth_lr)
    half = model.to(torch.bfloat16, memory_format=torch.channels_last)
    for (a, _), (b, _) in zip(stream_clip(StreamingSTDNet(half), rgb, depth_lr), exact, strict=True):
        assert a.depth.dtype == torch.float32
        assert (a.depth - b.depth).abs().mean() < 2e-2


@pytest.mark.parametrize(
    ("latency", "changes"),
    [
        (0, {}),
        (3, {}),
        (8, {}),
        (0, dict(passes=("forward", "forward"))),
        (2, dict(neighbors=3, stages=1)),
        (0, dict(neighbors=0)),
    ],
)
def test_fixed_step_equals_the_stream_from_the_first_frame(latency, changes):
    model = sensitive_model(**changes)
    rgb, depth_lr = clip(14, batch=2)
    shapes = rgb.shape[:1] + rgb.shape[2:], depth_lr.shape[:1] + depth_lr.shape[2:]
    step, tail = FixedStep(model, latency, *shapes), FixedTail(model, latency, *shapes)
    stream = StreamingSTDNet(model, latency)
    state = step.initial_state()
    with torch.inference_mode():
        for t in range(14):
            output = stream.step(rgb[:, t], depth_lr[:, t])
            result, state = step(torch.tensor([t]), rgb[:, t], depth_lr[:, t], *state)
            if output is not None:
                torch.testing.assert_close(result.depth, output.depth, atol=1e-4, rtol=1e-5)
            if t in (1, 13):
                ending = StreamingSTDNet(model, latency)
                ending.state = stream.state
                rest = tail(torch.tensor([t]), *state)[max(0, latency - 1 - t) :]
                for a, b in zip(rest, ending.flush(), strict=True):
                    torch.testing.assert_close(a.depth, b.depth, atol=1e-4, rtol=1e-5)


def test_fixed_step_in_half_precision_keeps_images_and_depth_in_full():
    """And its state takes as much memory as that of the stream, which keeps the same tensors."""
    model = sensitive_model().to(torch.bfloat16)
    rgb, depth_lr = clip(14)
    step = FixedStep(model, 2, rgb[:, 0].shape, depth_lr[:, 0].shape)
    full = {"rgb", "depth", "prediction"}
    types = {tensor.slot.name: tensor.dtype for tensor in step.layout}
    assert full < set(types)
    assert types == {name: torch.float32 if name in full else torch.bfloat16 for name in types}
    state = step.initial_state()
    assert [tensor.dtype for tensor in state] == [tensor.dtype for tensor in step.layout]
    assert [tensor.bytes for tensor in step.layout] == [x.numel() * x.element_size() for x in state]
    stream = StreamingSTDNet(model, 2)
    for t in range(14):
        stream.step(rgb[:, t], depth_lr[:, t])
    assert sum(tensor.bytes for tensor in step.layout) == stream.state_bytes()


def test_fixed_step_refuses_sizes_that_need_padding():
    with pytest.raises(InputError, match="pad 30x21 to 32x24"):
        FixedStep(sensitive_model(), 0, (1, 3, 21, 30), (1, 1, 3, 4))


@pytest.mark.parametrize(("latency", "changes"), [(2, {}), (0, dict(passes=("forward", "forward")))])
def test_fixed_stream_is_interchangeable_with_the_stream(latency, changes):
    model = sensitive_model(**changes)
    fixed = FixedStreamingSTDNet(model, latency)
    for frames in (1, 6):
        rgb, depth_lr = clip(frames)
        expected = stream_clip(StreamingSTDNet(model, latency), rgb, depth_lr)
        for (a, _), (b, _) in zip(stream_clip(fixed, rgb, depth_lr), expected, strict=True):
            assert a.frame == b.frame
            torch.testing.assert_close(a.depth, b.depth, atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(a.log_scale, b.log_scale, atol=1e-4, rtol=1e-5)
    with pytest.raises(ConfigError, match="CUDA graph needs"):
        FixedStreamingSTDNet(model, cuda_graph=True)
