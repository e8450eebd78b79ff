"""From sources to batches: reproducible, aligned, masked."""

from __future__ import annotations

import json
import pickle
import zipfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_data_layouts import write_tartanair
from train_fixtures import small_config, write_clip

from stdnet_core import checkpoints, train
from stdnet_core.data import tartanair
from stdnet_core.data.sources import open_source
from stdnet_core.errors import ConfigError, DataError
from stdnet_core.training import shards
from stdnet_core.training.batches import (
    BatchBuilder,
    BatchStream,
    ThreadedBatches,
    make_loader,
    network_input,
    supported,
)
from stdnet_core.training.config import NormalizationConfig, load_config
from stdnet_core.training.pool import FrameCache, halve
from stdnet_core.training.shards import pack, unpack
from stdnet_core.training.validation import Validator

PLAIN = (
    "data.sensors={presets: {exact: 1}, uniform: {dtof.jitter_bins: [0,0]}, log_uniform: {dtof.range_m: [10,10]}}",
    "data.normalization.gain=[1,1]",
)
MIXED = "data.sources=[{source: synthetic, weight: 1}, {source: 'folder:%s', weight: 1}]"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TartanAir tree with one trajectory in each of the paper's splits."""
    monkeypatch.setattr(tartanair, "SPLITS", {"train": {"office/Hard/P000": 8}, "test": {"office/Hard/P001": 8}})
    for number in range(2):
        write_tartanair(tmp_path / f"tartanair/office/Hard/P00{number}", frames=8, seed=10 * number)
    return tmp_path / "tartanair"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for seed in range(2):
        write_clip(tmp_path / "clips" / f"clip_{seed}", seed=seed)
    return tmp_path / "clips"


KEYS = ("rgb", "depth", "valid", "depth_lr", "depth_range")


def same(a: dict, b: dict) -> bool:
    return a["names"] == b["names"] and all(torch.equal(a[key], b[key]) for key in KEYS)


def test_a_batch_depends_on_seed_and_index_alone(clips: Path) -> None:
    overrides = (MIXED % clips, "data.batch_size=4")
    forward = BatchBuilder(small_config(clips, *overrides))
    batches = [forward.build(index) for index in range(4)]
    backward = BatchBuilder(small_config(clips, *overrides))
    assert all(same(backward.build(index), batches[index]) for index in reversed(range(4)))
    names = [name for batch in batches for name in batch["names"]]
    assert any(name.startswith("synthetic") for name in names)
    assert any("clip_" in name for name in names)
    other = BatchBuilder(small_config(clips, *overrides, "seed=1"))
    assert not same(other.build(0), batches[0])


def test_processes_share_the_joint_batch(clips: Path) -> None:
    config = small_config(clips, MIXED % clips, "data.batch_size=4")
    joint = BatchBuilder(config).build(3)
    parts = [BatchBuilder(config, rank=rank, processes=2).build(3) for rank in range(2)]
    for key in KEYS:
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), joint[key], rtol=0, atol=0)


def test_loader_workers_and_threads_do_not_change_the_order(clips: Path) -> None:
    config = small_config(clips)
    expected = [BatchBuilder(config).build(index) for index in range(2, 6)]
    stream = BatchStream(config, "cpu", 0, 1, start=2)
    for loader in (make_loader(stream, 0), make_loader(stream, 2), ThreadedBatches(stream)):
        for batch, alone in zip(islice(iter(loader), 4), expected, strict=True):
            workers = getattr(loader, "num_workers", 0)
            where = f"batch {alone['index']} of {type(loader).__name__} with {workers} workers"
            assert (batch["index"], batch["names"]) == (alone["index"], alone["names"]), where
            for key in KEYS:
                torch.testing.assert_close(batch[key], alone[key], rtol=0, atol=0, msg=f"{where}, {key}: {{}}".format)


def test_a_fault_in_the_thread_reaches_the_training() -> None:
    def broken():
        yield {"index": 0}
        raise DataError("frame 7 is damaged")

    batches = iter(ThreadedBatches(broken()))
    assert next(batches)["index"] == 0
    with pytest.raises(DataError, match="frame 7"):
        next(batches)


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_low_resolution_is_the_truth_at_the_blocks_centres(clips: Path, scale: int) -> None:
    config = small_config(clips, *PLAIN, f"data.scales={{{scale}: 1}}")
    batch = BatchBuilder(config).build(0)
    assert batch["scale"] == scale
    centres = batch["depth"][..., scale // 2 :: scale, scale // 2 :: scale]
    torch.testing.assert_close(batch["depth_lr"], centres)
    first = (batch["depth_lr"] * batch["depth_range"])[:, 0].flatten(1).amax(1)
    torch.testing.assert_close(batch["depth_range"].flatten(), 1.25 * first)


def test_fixed_normalization_divides_by_the_number_given(clips: Path) -> None:
    fixed = ("data.normalization={mode: fixed, depth_range: 8.0, gain: [0.5, 2]}", PLAIN[0])
    batch = BatchBuilder(small_config(clips, *fixed)).build(0)
    assert batch["depth_range"].unique().tolist() == [8.0]
    assert float(batch["depth_lr"].max()) <= 4.001 * 1.25 / 8  # the clips' depth, times the largest depth_gain


def test_a_clip_that_begins_in_front_of_a_wall_is_not_hundreds_of_ranges_deep() -> None:
    low = torch.full((2, 3, 1, 2, 2), 0.01)
    low[0, 1:] = 8.0  # then the wall is gone
    depth, depth_range = network_input(low, NormalizationConfig(), gain=torch.ones(2, 1, 1, 1, 1))
    torch.testing.assert_close(depth_range.flatten(), torch.tensor([4.0, 0.0125]))
    torch.testing.assert_close(depth * depth_range, low)


def test_nothing_is_learned_far_from_a_measurement() -> None:
    low = torch.zeros(1, 1, 8, 8)
    low[..., 1, 5] = 2.0
    mask = supported(low, 4)[0, 0]
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[0:16, 12:32] = True  # two cells to each side of row 1, column 5
    assert torch.equal(mask, expected)


def test_sensors_that_see_nothing_are_not_used(clips: Path) -> None:
    faults = "data.sensors={imperfect: 1.0, holes: {blind: 1}, presets: {exact: 1}}"
    with pytest.raises(ConfigError, match="blind"):
        BatchBuilder(small_config(clips, faults))
    short_sighted = "data.sensors={imperfect: 1.0, holes: {structured_light: 1}, presets: {exact: 1}}"
    config = small_config(clips, short_sighted, "data.augmentation={depth_gain: [20, 20]}")
    for index in range(3):
        batch = BatchBuilder(config).build(index)
        assert batch["valid"].any(), "30 to 80 m deep: beyond what such a sensor measures"
        assert float(batch["depth_lr"].min()) > 0


def test_cached_frames_are_the_frames_on_disk(clips: Path) -> None:
    (sequence, _) = open_source(f"folder:{clips}")
    clip = sequence.clip(1, 1)
    cache = FrameCache(1 << 20)
    for _ in range(2):
        color, depth = cache.frame(sequence, 1)
        torch.testing.assert_close(color.float() / 255, clip.rgb[0])
        assert depth.dtype == torch.uint16
        np.testing.assert_allclose(depth.numpy().astype(float) / 1000, clip.depth[0].numpy(), atol=1e-6)
    assert cache.used == color.nbytes + depth.nbytes
    full = FrameCache(10)
    full.frame(sequence, 0)
    assert full.used == 0
    copy = pickle.loads(pickle.dumps(cache))  # a loader's process finds other sequences under these numbers
    assert (copy.limit, copy.used, copy._frames) == (cache.limit, 0, {})


def test_halving_keeps_depth_and_colour_at_the_same_pixels() -> None:
    columns = torch.arange(12.0).expand(1, 1, 8, 12)
    rgb, depth = halve(columns.expand(1, 3, 8, 12), columns)
    torch.testing.assert_close(depth[0, 0, 0], torch.arange(0.0, 12, 2))
    torch.testing.assert_close(rgb[0, :, :, 1:], depth[0, :, :, 1:].expand(3, 4, 5))


def test_sources_that_do_not_fit_are_named(clips: Path) -> None:
    with pytest.raises(ConfigError, match="no sequence of 9 frames"):
        BatchBuilder(small_config(clips, "data.lengths=[9]"))
    with pytest.raises(DataError, match="smaller than a crop of 64x64"):
        BatchBuilder(small_config(clips, "data.crops=[64]")).build(0)
    with pytest.raises(DataError, match="leave none"):
        BatchBuilder(small_config(clips, f"data.sources=[{{source: 'folder:{clips}', include: [x]}}]"))
    with pytest.raises(DataError, match="nowhere"):
        BatchBuilder(small_config(clips, "data.sources=[{source: 'folder:/nowhere'}]"))


def test_a_source_without_truth_is_refused(clips: Path, tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "low" / "clip")
    (folder / "depth").rename(folder / "depth_lr")
    for file in (folder / "depth_lr").iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[::4, ::4])
    with pytest.raises(DataError, match="no full-resolution depth"):
        BatchBuilder(small_config(clips, f"data.sources=[{{source: 'folder:{tmp_path / 'low'}'}}]"))


def test_frames_that_cannot_be_read_are_left_out_if_asked(clips: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = clips / "clip_1" / "depth" / "000002.png"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    file.write_bytes(content)
    builder = BatchBuilder(small_config(clips, "data.lengths=[4]"))
    with pytest.raises(DataError, match=r"000002.png.*data.skip_bad=true"):
        list(map(builder.build, range(20)))
    builder = BatchBuilder(small_config(clips, "data.lengths=[4]", "data.skip_bad=true"))
    names = {name for index in range(20) for name in builder.build(index)["names"]}
    assert {name.rsplit("/", 1)[-1] for name in names} == {"clip_0"}
    assert sum("000002.png" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("name", ["paper_x4", "paper_x8", "paper_x16", "tartanair_x8"])
def test_the_papers_recipes_find_their_data(name: str, published: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the trajectory that they validate on, which is in no split; without it; and where it is incomplete."""
    config = load_config(name, [f"data.root={published}", "data.workers=0"])

    def found() -> tuple[list[str], set[str], str]:
        caplog.clear()
        trained = BatchBuilder(config).pool.names[0]["sequences"]
        validated = {case.clip.name for case in Validator(config).cases}
        return trained, validated, caplog.text

    trained, validated, said = found()
    assert (trained, validated) == (["office/Hard/P000"], {"office/Hard/P000"})
    assert "has 2 sequences, but include ['*carwelding/*P002*']" in said
    assert "validation measures on training data" in said
    write_tartanair(published / "carwelding/Hard/P002", frames=8)
    trained, validated, said = found()
    assert (trained, validated) == (["office/Hard/P000"], {"carwelding/Hard/P002"})
    assert "left out, since they are in neither of the paper's splits: carwelding/Hard/P002" in said
    assert "what is trained on" not in said
    for file in (published / "carwelding/Hard/P002/depth_left").iterdir():
        file.unlink()
    trained, validated, said = found()
    assert (trained, validated) == (["office/Hard/P000"], {"office/Hard/P000"})
    assert "P002: no depth files" in said
    for file in (published / "office/Hard/P001/depth_left").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="office/Hard/P001: no depth files"):  # a split's own are not left out
        found()


def test_the_papers_recipe_is_trained_beside_a_trajectory_of_no_split(published: Path, tmp_path: Path) -> None:
    write_tartanair(published / "carwelding/Hard/P002", frames=8)
    small = ("model.preset=tiny", "data.crops=[16]", "data.batch_size=1", "data.workers=0", "data.cache_gb=0")
    short = ("optim.steps=2", "val.clips=1", "val.every=1", "trainer.accelerator=cpu", f"data.root={published}")
    arguments = ["--config", "paper_x8", "--output", str(tmp_path / "run"), *small, *short]
    assert train.main(arguments) == 0
    _, info = checkpoints.load(tmp_path / "run" / "best.safetensors")
    assert info.provenance["data"][0]["sequences"] == ["office/Hard/P000"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum("score" in line for line in lines) >= 1


def test_optional_sources_alone_are_not_enough(clips: Path) -> None:
    absent = f"{{source: 'folder:{clips}', include: [x], optional: true}}"
    with pytest.raises(DataError, match="no source of data.sources has a sequence"):
        BatchBuilder(small_config(clips, f"data.sources=[{absent}]"))
    missing = f"{{source: 'folder:{clips}/elsewhere', optional: true}}"
    for left_out in (absent, missing):
        both = small_config(clips, f"data.sources=[{left_out}, {{source: 'folder:{clips}', include: ['*_1']}}]")
        assert {name.rsplit("/", 1)[-1] for name in BatchBuilder(both).build(0)["names"]} == {"clip_1"}
    with pytest.raises(DataError, match="elsewhere: no such file or folder"):
        BatchBuilder(small_config(clips, f"data.sources=[{missing.replace('true', 'false')}]"))
    with pytest.raises(ConfigError, match="no source of val.sources has a sequence"):
        Validator(small_config(clips, "data.sources=[{source: synthetic}]", f"val.sources=[{absent}]"))


def test_depth_beyond_the_limit_is_clipped_or_invalid(clips: Path) -> None:
    limited = "data.sources=[{source: 'folder:%s', max_depth: 2.0, far: %s}]"
    still = "data.augmentation={depth_gain: [1, 1]}"
    for far in ("clip", "invalid"):
        batch = BatchBuilder(small_config(clips, limited % (clips, far), still, *PLAIN)).build(0)
        depth = batch["depth"] * batch["depth_range"]
        if far == "clip":
            assert float(depth.max()) == pytest.approx(2.0)
            assert batch["valid"].all()
        else:
            assert float(depth.max()) == pytest.approx(1.5)
            assert not batch["valid"].all()


def test_shards_hold_every_file_and_stay_small(clips: Path, tmp_path: Path) -> None:
    files = {p.relative_to(clips): p.read_bytes() for p in clips.rglob("*") if p.is_file()}
    limit = 2.5 * max(len(content) for content in files.values()) / 1e6
    shards = pack(clips, tmp_path / "shards", max_mb=limit)
    assert len(shards) > 2
    assert all(shard.stat().st_size <= limit * 1e6 for shard in shards)
    assert unpack(tmp_path / "shards", tmp_path / "copy") == len(files)
    copied = {p.relative_to(tmp_path / "copy"): p.read_bytes() for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    assert copied == files
    shards[0].write_bytes(b"PK")
    with pytest.raises(DataError, match=r"clips_000\.zip is damaged"):
        unpack(tmp_path / "shards", tmp_path / "again")
    with pytest.raises(DataError, match="per shard"):
        pack(clips, tmp_path / "none", max_mb=1e-5)


def test_folders_without_anything_to_pack_or_unpack_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="holds no files to pack; give a folder of sequences"):
            pack(folder, tmp_path / "shards")
    with pytest.raises(DataError, match=r"holds no shards \(clips_\*\.zip\)"):
        unpack(tmp_path / "empty", tmp_path / "copy")


@pytest.mark.parametrize("member", ["../outside.txt", "/outside.txt", "clip/../../outside.txt"])
def test_a_shard_cannot_write_outside_its_folder(member: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "clips_000.zip", "w") as archive:
        archive.writestr("inside.txt", "good")
        archive.writestr(member, "bad")
    with pytest.raises(DataError, match=r"clips_000\.zip names a file outside its folder .*it is not a shard"):
        unpack(tmp_path, tmp_path / "deep" / "copy")
    assert not list(tmp_path.rglob("*side.txt")), "not even the good file, since the shard is a foreign one"


def test_a_new_packing_leaves_no_shard_of_an_older_one(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{number}.bin").write_bytes(bytes(1000))
    assert len(pack(tmp_path / "many", tmp_path / "shards", max_mb=0.003)) > 1
    (only,) = pack(tmp_path / "many", tmp_path / "shards", max_mb=1)
    assert list((tmp_path / "shards").iterdir()) == [only]
    shards.main(["unpack", str(tmp_path / "shards"), str(tmp_path / "copy")])
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [f"{number}.bin" for number in range(6)]
