"""Low-resolution depth on disk: what is written is what the camera measures, is read back, and is never mixed up."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from test_data_layouts import (
    HEIGHT,
    WIDTH,
    depth_image,
    write_array,
    write_dydtof,
    write_dynamic_replica,
    write_tartanair,
)

from stdnet_core import evaluate, make_lr
from stdnet_core.data import dynamic_replica
from stdnet_core.data.sensors import sensor, simulate
from stdnet_core.data.sources import open_source
from stdnet_core.errors import ConfigError, DataError

FRAMES = 10  # more than are read at once


@pytest.fixture
def trees(tmp_path):
    """A tree of each layout, with the folder and the names of low-resolution depth of its first sequence."""
    write_tartanair(tmp_path / "tartanair/office/Hard/P000", frames=FRAMES)
    write_tartanair(tmp_path / "tartanair/office/Hard/P001", frames=FRAMES, seed=20)
    write_dydtof(tmp_path / "dydtof/DyDToF_HR_RGB/school", "school_shot2", frames=FRAMES, first=3)
    write_dynamic_replica(tmp_path / "dynamic_replica/test", "a1_source_left", frames=FRAMES)
    return {
        "tartanair": ("TartanAir_LR/X{}/office/Hard/P000/depth_left", "{:06d}_left_depth.npy", 0),
        "dydtof": ("DyDToF_LR/X{}/school/school_shot2/depth", "school_shot2.{:04d}.npy", 3),
        "dynamic_replica": ("DynamicReplica_LR/X{}/a1_source_left/depths", "a1_source_left_{:04d}.npy", 0),
    }


def make(*arguments):
    make_lr.main([str(argument) for argument in arguments])


def written(folder):
    return {path.name: np.load(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["tartanair", "dydtof", "dynamic_replica"])
def test_round_trip(kind, trees, tmp_path, capsys):
    root = tmp_path / kind
    paper = ("--sensor", "dtof_paper", "--range-m", 25)
    make(f"{kind}:{root}", "--scale", "4,8", *paper)
    folder, name, first = trees[kind]
    whole = open_source(f"{kind}:{root}")[0].clip(0, FRAMES)
    for scale in (4, 8):
        files = written(root / folder.format(scale))
        assert list(files) == [name.format(first + t) for t in range(FRAMES)]
        low = np.stack(list(files.values()))
        assert low.dtype == np.float32
        expected = simulate(sensor("dtof_paper").with_values({"dtof.range_m": 25.0}), whole.depth, whole.rgb, scale)
        np.testing.assert_allclose(low, expected[:, 0].numpy(), rtol=1e-6)
        sequence = open_source(f"{kind}:{root}", lr_scale=scale)[0]
        assert (len(sequence), sequence.lr_scale, sequence.frame_size) == (FRAMES, scale, (HEIGHT, WIDTH))
        clip = sequence.clip(1, 4, stride=2)
        np.testing.assert_array_equal(clip.depth_lr[:, 0].numpy(), low[1:8:2])
        assert torch.equal(clip.depth, whole.depth[1:8:2])
        assert torch.equal(clip.rgb, whole.rgb[1:8:2])
    assert str(root / folder.format(8).split("/X8")[0] / "X8") in capsys.readouterr().out
    assert open_source(f"{kind}:{root}")[0].clip(0, 1).depth_lr is None


def test_dydtof_is_as_in_the_release_and_the_others_as_in_the_paper(trees, tmp_path):
    for kind, (folder, _, _) in trees.items():
        root = tmp_path / kind
        make(root, "--scale", 8)
        low = np.stack(list(written(root / folder.format(8)).values()))
        clip = open_source(root)[0].clip(0, FRAMES)
        metres = {"tartanair": 30.0, "dydtof": 20.0}.get(kind, float(clip.depth.max()))
        steady = simulate(sensor("dtof_paper").with_values({"dtof.range_m": metres}), clip.depth, clip.rgb, 8)
        bins, expected = low * 1023 / metres, steady[:, 0].numpy() * 1023 / metres
        np.testing.assert_allclose(bins, bins.round(), atol=1e-3)
        off = (bins - expected).round()
        assert set(np.unique(off)) == ({-2, -1, 0, 1, 2} if kind == "dydtof" else {0})
        settings = json.loads((root / folder.format(8)).parent.joinpath("make_lr.json").read_text())
        assert settings["sensor"] == ("dtof_jitter" if kind == "dydtof" else "dtof_paper")
        assert settings["size"] == [WIDTH // 8, HEIGHT // 8]


def test_noise_is_of_the_sequence_and_not_of_its_place_in_the_source(trees, tmp_path):
    shots = ("school_shot2", "school_shot8")
    write_dydtof(tmp_path / "dydtof/DyDToF_HR_RGB/school", shots[1], frames=FRAMES, first=3)  # the same depth
    make(tmp_path / "dydtof", "--scale", 8)
    first, second = (open_source(tmp_path / "dydtof", lr_scale=8)[i].clip(0, FRAMES) for i in range(2))
    assert torch.equal(first.depth, second.depth)
    assert not torch.equal(first.depth_lr, second.depth_lr)
    shot = tmp_path / "dydtof/DyDToF_HR_RGB/school" / shots[1]
    make(shot, "--scale", 8, "--output", tmp_path / "alone")
    (alone,) = open_source(f"dydtof:{shot}", lr_scale=8, lr_folder=tmp_path / "alone")
    assert torch.equal(alone.clip(0, FRAMES).depth_lr, second.depth_lr)


def test_the_truth_of_dydtof_is_clipped_before_it_is_measured(trees, tmp_path):
    folder = tmp_path / "dydtof/DyDToF_HR_RGB/school/school_shot2/depth"
    for path in folder.iterdir():
        np.save(path, np.full((HEIGHT, WIDTH), 60.0, np.float32))
    make(tmp_path / "dydtof", "--scale", 8, "--sensor", "exact")
    for low in written(tmp_path / "dydtof" / trees["dydtof"][0].format(8)).values():
        assert (low == 40).all()


def figures(tmp_path, *arguments):
    out = tmp_path / "figures.json"
    arguments = ("--scale", "8", "--methods", "nearest", "--device", "cpu", "--json", str(out), *map(str, arguments))
    evaluate.main(list(arguments))
    return json.loads(out.read_text())


def test_evaluated_from_disk_as_simulated(trees, tmp_path):
    """Also where the tree lies elsewhere, and where a part of the data set is evaluated."""
    data = f"tartanair:{tmp_path / 'tartanair'}"
    make(data, "--scale", 8, "--output", tmp_path / "elsewhere")
    assert not (tmp_path / "tartanair/TartanAir_LR").exists()
    simulated = figures(tmp_path, "--data", data)
    disk = figures(tmp_path, "--data", data, "--lr", "disk", "--lr-folder", tmp_path / "elsewhere")
    assert disk["low_resolution"] == {"source": "disk"}
    for name, methods in simulated["sequences"].items():
        for key in ("rmse_cm", "mae_cm", "tepe_cm", "longtail_spatial_rmse_cm", "measured_rmse_cm"):
            assert disk["sequences"][name]["nearest"][key] == pytest.approx(methods["nearest"][key], rel=1e-6)
    with pytest.raises(DataError, match=r"TartanAir_LR/X8: no such folder.*python -m stdnet_core\.make_lr writes it"):
        figures(tmp_path, "--data", data, "--lr", "disk")
    (tmp_path / "elsewhere/TartanAir_LR").rename(tmp_path / "tartanair/TartanAir_LR")
    part = figures(tmp_path, "--data", f"{data}/office/Hard/P001", "--lr", "disk")
    assert list(part["sequences"]) == ["office/Hard/P001"]
    whole = disk["sequences"]["office/Hard/P001"]["nearest"]
    assert part["mean"]["nearest"] | {"ms_per_frame": 0} == whole | {"ms_per_frame": 0}
    with pytest.raises(ConfigError, match="add --lr disk"):
        figures(tmp_path, "--data", data, "--lr-folder", tmp_path)


def test_an_interrupted_run_goes_on(trees, tmp_path, monkeypatch, capsys):
    """Noise is the same as in one go, and what was there is not touched."""
    source = (f"tartanair:{tmp_path / 'tartanair'}", "--scale", 8, "--sensor", "dtof_jitter")
    make(*source, "--output", tmp_path / "once")
    save, saved = make_lr._save, []

    def interrupted(path, depth):
        if len(saved) == 9:
            (path.parent / (path.name + ".partial")).write_bytes(b"half")
            raise KeyboardInterrupt
        saved.append(path)
        save(path, depth)

    monkeypatch.setattr(make_lr, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(*source, "--output", tmp_path / "twice")
    monkeypatch.setattr(make_lr, "_save", save)
    for path in saved:
        os.utime(path, (1, 1))
    capsys.readouterr()
    make(*source, "--output", tmp_path / "twice")
    assert f"{2 * FRAMES} files, {2 * FRAMES - 9} of them written now" in capsys.readouterr().out
    assert [path.stat().st_mtime for path in saved] == [1] * 9
    files = {p.relative_to(tmp_path / "once"): p.read_bytes() for p in (tmp_path / "once").rglob("*") if p.is_file()}
    again = {p.relative_to(tmp_path / "twice"): p.read_bytes() for p in (tmp_path / "twice").rglob("*") if p.is_file()}
    assert len(files) == 2 * (FRAMES + 1)
    assert again == files
    make(*source, "--output", tmp_path / "twice")
    assert f"{2 * FRAMES} files, 0 of them written now" in capsys.readouterr().out


def test_depth_of_other_settings_is_not_mixed_in(trees, tmp_path):
    data = tmp_path / "dydtof"
    folder = data / trees["dydtof"][0].format(8)
    for t in range(FRAMES + 2):  # as published: of no settings that are known
        write_array(folder / f"school_shot2.{t:04d}.npy", depth_image(t, 3, 4))
    published = written(folder)
    with pytest.raises(ConfigError, match=r"X8/school/school_shot2/depth holds .* did not write; .*--output"):
        make(data, "--scale", 8)
    np.testing.assert_equal(written(folder), published)
    make(data, "--scale", 8, "--overwrite")
    mine = written(folder)
    assert len(mine) == FRAMES
    with pytest.raises(ConfigError, match=r"with other settings \(seed 0\)"):
        make(data, "--scale", "4,8", "--seed", 1)
    assert not (data / "DyDToF_LR/X4").exists()
    np.testing.assert_equal(written(folder), mine)
    make(data, "--scale", 8, "--seed", 1, "--overwrite")
    assert any((written(folder)[name] != depth).any() for name, depth in mine.items())


def test_the_cropped_split_has_low_resolution_depth_of_its_own(trees, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_replica, "SPLITS", {"test": {"a1_source_left": FRAMES}})
    monkeypatch.setattr(dynamic_replica, "CENTER_CROP", (8, 24))
    data = f"dynamic_replica:{tmp_path / 'dynamic_replica'}"
    make(data, "--scale", 8, "--split", "test")
    (sequence,) = open_source(data, split="test", lr_scale=8)
    clip = sequence.clip(0, FRAMES)
    assert (clip.frame_size, clip.depth_lr.shape) == ((8, 24), (FRAMES, 1, 1, 3))
    metres = float(clip.depth.max())
    expected = simulate(sensor("dtof_paper").with_values({"dtof.range_m": metres}), clip.depth, clip.rgb, 8)
    torch.testing.assert_close(clip.depth_lr, expected)
    with pytest.raises(DataError, match="3x1 pixels does not have the proportions of the frames of 32x24 pixels"):
        open_source(data, lr_scale=8)
    with pytest.raises(ConfigError, match="with other settings"):
        make(data, "--scale", 8)


def test_what_cannot_be_made_or_read_is_named(trees, tmp_path, capsys):
    with pytest.raises(ConfigError, match="of kind synthetic; low-resolution depth is written for tartanair, dydtof"):
        make("synthetic:1", "--scale", 8)
    data = tmp_path / "tartanair"
    with pytest.raises(ConfigError, match="--range-m is only for dToF sensors, and area is not one"):
        make(data, "--scale", 8, "--sensor", "area", "--range-m", 20)
    with pytest.raises(ConfigError, match="range_m is -1"):
        make(data, "--scale", 8, "--range-m", -1)
    depth = data / "office/Hard/P000/depth_left/000004_left_depth.npy"
    np.save(depth, np.zeros((3, 3, 3), np.float32))
    with pytest.raises(DataError, match="000004_left_depth"):
        make(data, "--scale", 8)
    capsys.readouterr()
    make(data, "--scale", 8, "--skip-bad")
    out = capsys.readouterr().out
    assert "left out: " in out
    assert "000004_left_depth" in out
    with pytest.raises(DataError, match="office/Hard/P000: no X8 depth files"):
        open_source(data, lr_scale=8)
    assert [s.name for s in open_source(data, lr_scale=8, skip_bad=True)] == ["office/Hard/P001"]
    low = data / "TartanAir_LR/X8/office/Hard/P001/depth_left/000007_left_depth.npy"
    np.save(low, np.ones((3, 5), np.float32))
    with pytest.raises(DataError, match="000007_left_depth.npy: low-resolution depth of 5x3 pixels, expected 4x3"):
        open_source(data, lr_scale=8, skip_bad=True)[0].clip(0, FRAMES)
