"""The generator's promises: repeatable, valid, varied, lazily read, refusing nonsense."""

import dataclasses
import sys

import cv2
import numpy as np
import pytest
import torch

from stdnet_core.cli import run_cli
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.synthetic import (
    SyntheticConfig,
    SyntheticSequence,
    benchmark,
    demo_sequence,
    render_clip,
    render_clips,
)
from stdnet_core.data.synthetic.__main__ import main
from stdnet_core.data.synthetic.config import LAYOUTS
from stdnet_core.data.synthetic.raycast import cast
from stdnet_core.data.synthetic.renderer import RenderOptions, render
from stdnet_core.errors import ConfigError, InputError


def only(layout, **options):
    return SyntheticConfig(**({name: float(name == layout) for name in LAYOUTS} | options))


def tensors(clip):
    return {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip) if torch.is_tensor(getattr(clip, f.name))}


def assert_same(one, other):
    assert tensors(one).keys() == tensors(other).keys()
    for name, value in tensors(one).items():
        assert torch.equal(value, tensors(other)[name]), name


def test_a_seed_gives_the_same_clip_again_and_in_a_batch():
    again = [render_clip(seed, 3, 48, 64) for seed in (4, 9)]
    batch = render_clips([4, 9], 3, 48, 64)
    for one, other in zip(again, batch, strict=True):
        assert_same(one, other)
    assert not torch.equal(batch[0].rgb, batch[1].rgb)
    assert_same(render_clip(4, 3, 48, 64), again[0])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_repeats_itself_and_agrees_with_the_cpu():
    clips = [render_clip(4, 3, 48, 64, device=device) for device in ("cuda", "cuda", "cpu")]
    assert_same(clips[0], clips[1])
    close = torch.isclose(clips[0].depth.cpu(), clips[2].depth, rtol=1e-4)
    assert close.float().mean() > 0.999


def test_every_layout_gives_sound_clips():
    for layout in LAYOUTS:
        for clip in render_clips(range(30, 33), 3, 40, 56, only(layout)):
            assert clip.rgb.shape == (3, 3, 40, 56)
            for name, value in tensors(clip).items():
                assert torch.isfinite(value.double()).all(), (layout, name)
            assert clip.rgb.min() >= 0
            assert clip.rgb.max() <= 1
            assert torch.equal(clip.valid, clip.depth > 0)
            if layout != "outdoor":
                assert clip.valid.all()
            assert torch.equal(clip.rgb * 255, (clip.rgb * 255).round())


def test_layouts_span_table_tops_to_halls():
    def median(layout):
        clips = render_clips(range(40, 46), 1, 24, 32, only(layout))
        return float(np.median([clip.depth[clip.valid].median() for clip in clips]))

    table, room, hall = (median(layout) for layout in ("table", "room", "hall"))
    assert 0.2 < table < 2 < room < 7 < hall < 40


def test_the_sky_is_invalid_or_a_far_wall_as_configured():
    invalid = render_clips(range(8), 1, 32, 48, only("outdoor", sky_valid=0.0, zoom=1.0))
    far = render_clips(range(8), 1, 32, 48, only("outdoor", sky_valid=1.0, zoom=1.0))
    skies = [(~clip.valid).float().mean().item() for clip in invalid]
    assert sum(share > 0.02 for share in skies) >= 5
    for clip, with_sky in zip(invalid, far, strict=True):
        assert with_sky.valid.all()
        assert (clip.depth[~clip.valid] == 0).all()
        assert torch.equal(clip.depth[clip.valid], with_sky.depth[clip.valid])
        if (~clip.valid).any():
            assert with_sky.depth[~clip.valid].min() > clip.depth.max()


def test_clips_vary():
    config = SyntheticConfig(sensor=False)
    clips = render_clips(range(100, 140), 2, 32, 40, config)
    assert len({clip.intrinsics[0, 0].item() for clip in clips}) == len(clips)
    ranges = np.array([(clip.depth[clip.valid].max() / clip.depth[clip.valid].min()).item() for clip in clips])
    assert (ranges > 2).mean() > 0.5
    nearest = np.array([clip.depth[clip.valid].min().item() for clip in clips])
    assert nearest.min() < 0.6
    assert nearest.max() > 3
    brightness = np.array([clip.rgb.mean().item() for clip in clips])
    assert brightness.std() > 0.08
    assert 0.2 < brightness.mean() < 0.8
    assert (np.abs(brightness - 0.5) < 0.4).mean() > 0.9
    motion = np.array([clip.flow.norm(dim=1).median().item() for clip in clips])
    assert (motion < 0.01).any()
    assert (motion > 1).mean() > 0.1

    def steps(picture, threshold):
        return ((picture[..., 1:] - picture[..., :-1]).abs() > threshold)[..., :-1, :]

    depth_only = texture_only = 0
    for clip in clips:
        depth = clip.depth[0, 0].clamp_min(1e-3).log()
        jump = (depth[:-1, 1:] - depth[:-1, :-1]).abs() > 0.1
        edge = steps(clip.rgb[0].mean(0), 0.15)
        plain = ~steps(clip.rgb[0].mean(0), 0.03)
        depth_only += int((jump & plain).sum())
        texture_only += int((edge & ~jump).sum())
    assert depth_only > 100  # depth edges without texture edges
    assert texture_only > 500  # texture edges without depth edges


def test_objects_move_by_themselves():
    """Flow that no camera motion over a still scene explains, against the flow of the same clip with objects still."""
    moving = 0
    for seed in range(12):
        loose = render_clip(seed, 3, 40, 56, SyntheticConfig(zoom=1.0))
        still = render_clip(seed, 3, 40, 56, SyntheticConfig(zoom=1.0, object_speed=0.0))
        # Things are where they would be standing in the middle of the clip.
        same = torch.isclose(loose.depth[1, 0], still.depth[1, 0])
        difference = (loose.flow[1] - still.flow[1]).norm(dim=0)
        moving += bool(((difference > 0.2) & same).sum() > 10)
    assert moving >= 4


def test_the_sensor_is_what_sets_clips_apart_from_clean_ones():
    noisy = render_clips(range(20, 32), 2, 32, 40)
    clean = render_clips(range(20, 32), 2, 32, 40, SyntheticConfig(sensor=False))
    for one, other in zip(noisy, clean, strict=True):
        assert torch.equal(one.depth, other.depth)
        assert torch.equal(one.flow, other.flow)
    rough = [(one.rgb - other.rgb).abs().mean().item() for one, other in zip(noisy, clean, strict=True)]
    assert max(rough) > 0.02
    assert min(rough) < 0.01


def test_a_still_camera_without_moving_objects_repeats_its_depth():
    config = SyntheticConfig(still_camera=1.0, object_speed=0.0, room=1.0)
    clip = render_clip(2, 3, 32, 40, dataclasses.replace(config, sensor=False, abstract=0.0, outdoor=0.0))
    moved = (clip.flow.norm(dim=1) > 1e-3).float().mean()
    assert moved < 0.15  # limbs of people who walk on the spot
    assert torch.isclose(clip.depth[0], clip.depth[1]).float().mean() > 0.85


def test_frames_look_the_same_however_they_are_read():
    for seed in (3, 5, 8):
        sequence = SyntheticSequence(seed, frames=6, size=(40, 48))
        assert isinstance(sequence, RgbdSequence)
        assert len(sequence) == 6
        assert sequence.frame_size == (40, 48)
        whole = sequence.clip(0, 6)
        assert torch.equal(whole.intrinsics, sequence.intrinsics)
        for start, length, stride in ((2, 2, 1), (1, 3, 2), (5, 1, 1)):
            part, chosen = sequence.clip(start, length, stride), list(range(start, start + length * stride, stride))
            assert torch.equal(part.rgb, whole.rgb[chosen])
            assert torch.equal(part.depth, whole.depth[chosen])
            assert torch.equal(part.stamps, whole.stamps[chosen])
            if stride == 1 and length > 1:
                assert torch.equal(part.flow, whole.flow[start : start + length - 1])


def test_the_demo_is_a_room_that_repeats():
    first, second = demo_sequence(6, 60, 80), demo_sequence(6, 60, 80)
    assert_same(first.clip(3, 2), second.clip(3, 2))
    clip = first.clip(0, 6)
    assert clip.valid.all()
    assert clip.depth.min() > 1
    assert clip.depth.max() < 6.5
    assert 0.3 < clip.rgb.mean() < 0.7
    longer = demo_sequence(12, 60, 80)
    assert len(longer) == 12
    assert len(demo_sequence()) == 90
    assert demo_sequence().frame_size == (480, 640)
    # Depth at pixel centres holds at any size: every odd multiple of a pixel is a pixel of the larger picture.
    large = demo_sequence(6, 180, 240).clip(0, 1)
    assert torch.isclose(large.depth[..., 1::3, 1::3], clip.depth[:1], rtol=1e-4).float().mean() > 0.999


def test_nonsense_is_refused_with_a_reason():
    with pytest.raises(ConfigError, match="zoom"):
        SyntheticConfig(zoom=0.5)
    with pytest.raises(ConfigError, match="weight"):
        SyntheticConfig(table=0, room=0, hall=0, outdoor=0, abstract=0)
    with pytest.raises(ConfigError, match="object_speed"):
        SyntheticConfig(object_speed=-1)
    with pytest.raises(ConfigError, match="textures"):
        SyntheticConfig(textures=3)
    with pytest.raises(InputError, match="0 frames"):
        render_clip(0, 0, 32, 32)
    with pytest.raises(InputError, match="seed -1"):
        render_clip(-1, 2, 16, 16)
    with pytest.raises(InputError, match="pixel"):
        render_clip(0, 2, 0, 32)
    with pytest.raises(InputError, match="frame"):
        SyntheticSequence(0, frames=3, size=(16, 16)).clip(2, 2)


def test_the_benchmark_compares_equal_pictures():
    scene = benchmark.standard_scene(benchmark.bank_for(SyntheticConfig()).groups)
    bank, options = benchmark.bank_for(SyntheticConfig()), RenderOptions(False, False, False)
    tiled, slow = (
        render([scene], range(0, 7, 3), 40, 128, bank, options, ["x"], caster)[0]
        for caster in (cast, benchmark.cast_straightforwardly)
    )
    assert torch.isclose(tiled.depth, slow.depth, rtol=1e-4).float().mean() > 0.999
    assert len(scene.kind) == benchmark.PRIMITIVES


def test_the_command_line_draws_and_explains(tmp_path, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["synthetic", *words])
        with pytest.raises(SystemExit) as end:
            run_cli(main)
        return end.value.code

    sheet = tmp_path / "sheet.png"
    assert run("--sheet", str(sheet), "--count", "3", "--columns", "2", "--size", "24x32", "--layout", "room") == 0
    assert cv2.imread(str(sheet)).shape == (2 * 2 * 24, 2 * 32, 3)
    capsys.readouterr()
    assert run("--sheet", str(tmp_path / "no" / "sheet.png"), "--count", "1", "--size", "16x16") == 2
    assert capsys.readouterr().err.startswith("error: cannot write")
    assert run() == 2
    assert "nothing to do" in capsys.readouterr().err
