"""Every layout on disk: trees written here are read back value by value, and damaged ones are named."""

import gzip
import json
import logging
import pickle

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from stdnet_core.data import dydtof, dynamic_replica, tartanair
from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.image_files import read_color
from stdnet_core.data.rgbd_folder import read_intrinsics, write_folder
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sources import open_source
from stdnet_core.data.stamp_matching import match_nearest
from stdnet_core.errors import ConfigError, DataError, InputError

HEIGHT, WIDTH = 24, 32


def picture(seed, height=HEIGHT, width=WIDTH):
    """Random colour image (H, W, 3) RGB; PNG keeps it exactly."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def depth_image(seed, height=HEIGHT, width=WIDTH):
    """Random depth (H, W) float32 metres with some zeros."""
    rng = np.random.default_rng(1000 + seed)
    depth = rng.uniform(0.5, 20, (height, width)).astype(np.float32)
    depth[rng.random((height, width)) < 0.1] = 0
    return depth


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def write_array(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def millimetres(depth):
    return np.round(depth.astype(np.float64) * 1000).astype(np.uint16)


def write_tartanair(folder, frames=4, seed=0, flow=True):
    for t in range(frames):
        write_image(folder / f"image_left/{t:06d}_left.png", picture(seed + t))
        write_array(folder / f"depth_left/{t:06d}_left_depth.npy", depth_image(seed + t))
        if flow and t:
            field = np.random.default_rng(t).normal(size=(HEIGHT, WIDTH, 2)).astype(np.float32)
            write_array(folder / f"flow/{t - 1:06d}_{t:06d}_flow.npy", field)
            write_array(folder / f"flow/{t - 1:06d}_{t:06d}_mask.npy", np.zeros((HEIGHT, WIDTH), np.uint8))


def write_dydtof(scene, shot, frames=4, seed=0, first=0):
    folder = scene / shot
    for t in range(frames):
        write_image(folder / f"color/{shot}.{t + first:04d}.jpeg", picture(seed + t))
        write_array(folder / f"depth/{shot}.{t + first:04d}.npy", depth_image(seed + t))


def write_own(folder, frames=4, seed=0, first=0, arrays=False):
    for t in range(frames):
        write_image(folder / f"color/{t + first:06d}.png", picture(seed + t))
        if arrays:
            write_array(folder / f"depth/{t + first:06d}.npy", depth_image(seed + t))
        else:
            write_image(folder / f"depth/{t + first:06d}.png", millimetres(depth_image(seed + t)))
    (folder / "intrinsics.txt").write_text("30.5 31 15.5 11.5\n# fx fy cx cy\n")


def check(sequence, start, numbers, seed=0, exact=True):
    """The clip's colour and depth are those written for the frames ``numbers``."""
    clip = sequence.clip(start, len(numbers))
    for t, number in enumerate(numbers):
        color = picture(seed + number).transpose(2, 0, 1) / np.float32(255)
        if exact:
            np.testing.assert_array_equal(clip.rgb[t].numpy(), color)
        np.testing.assert_array_equal(clip.depth[t, 0].numpy(), depth_image(seed + number))
    assert torch.equal(clip.valid, clip.depth > 0)
    assert clip.rgb.dtype == clip.depth.dtype == torch.float32
    return clip


# --- TartanAir


@pytest.mark.parametrize("level", ["Hard", ""])
def test_tartanair(tmp_path, level):
    write_tartanair(tmp_path / "hospital" / level / "P039")
    (sequence,) = open_source(tmp_path)
    assert isinstance(sequence, RgbdSequence)
    assert sequence.name == "/".join(filter(None, ("hospital", level, "P039")))
    assert len(sequence) == 4
    assert sequence.frame_size == (HEIGHT, WIDTH)
    clip = check(sequence, 0, [0, 1, 2, 3])
    for t in range(3):
        expected = np.random.default_rng(t + 1).normal(size=(HEIGHT, WIDTH, 2)).astype(np.float32)
        np.testing.assert_array_equal(clip.flow[t].numpy(), expected.transpose(2, 0, 1))
    assert clip.intrinsics.tolist() == [[320, 0, 320], [0, 320, 240], [0, 0, 1]]
    assert clip.depth_lr is None
    part = check(sequence, 2, [2, 3])
    assert torch.equal(part.flow, clip.flow[2:])
    skipping = sequence.clip(0, 2, stride=2)
    assert skipping.flow is None
    np.testing.assert_array_equal(skipping.depth[1, 0].numpy(), depth_image(2))
    with pytest.raises(InputError, match="4 frames from frame 1"):
        sequence.clip(1, 4)


def test_tartanair_without_flow_and_nested_as_it_unpacks(tmp_path):
    write_tartanair(tmp_path / "office2" / "office2" / "Easy" / "P001", flow=False)
    (sequence,) = open_source(f"tartanair:{tmp_path}")
    assert sequence.name == "office2/Easy/P001"
    assert sequence.clip(0, 4).flow is None


def test_tartanair_splits_of_the_paper(tmp_path, caplog):
    assert sum(tartanair.SPLITS["train"].values()) == 6164
    assert sum(tartanair.SPLITS["test"].values()) == 1228
    for level in ("Easy", "Hard"):
        for split in ("train", "test"):
            for name in tartanair.SPLITS[split]:
                write_tartanair(tmp_path / name.replace("Hard", level), frames=2, flow=False)
    write_tartanair(tmp_path / "seasidetown" / "Hard" / "P000", frames=2, flow=False)
    with caplog.at_level(logging.WARNING):
        test = open_source(tmp_path, split="test")
    assert [s.name for s in test] == ["hospital/Hard/P047", "office2/Hard/P001", "office2/Hard/P004"]
    assert "has 2 frames; the paper's has 533" in caplog.text
    assert caplog.text.count("left out, since they are in neither of the paper's splits: ") == 1
    assert "hospital/Easy/P044, hospital/Easy/P047 and 10 more" in caplog.text
    train = open_source(tmp_path, split="train")
    assert len(train) == 11
    assert not {s.name for s in train} & {s.name for s in test}
    assert len(open_source(tmp_path)) == 29
    with pytest.raises(DataError, match=r"no split 'val'; it has train and test"):
        open_source(tmp_path, split="val")


def test_tartanair_split_without_all_its_sequences(tmp_path):
    write_tartanair(tmp_path / "office2" / "P001", frames=2)
    with pytest.raises(DataError, match=r"no hospital/Hard/P047 .533 frames. of the test split"):
        open_source(tmp_path, split="test")
    found = open_source(tmp_path, split="test", skip_bad=True)
    assert [s.name for s in found] == ["office2/P001"]
    assert len(found.left_out) == 2
    assert "P047" in found.left_out[0]


def test_trajectories_of_no_split_are_left_out_with_a_word_where_they_are_incomplete(tmp_path, caplog):
    for name in ("office/Hard/P000", "carwelding/Hard/P002", "carwelding/Hard/P003"):
        write_tartanair(tmp_path / name, frames=6)
    (tmp_path / "carwelding/Hard/P002/depth_left/000003_left_depth.npy").unlink()
    for file in (tmp_path / "carwelding/Hard/P003/image_left").iterdir():
        file.unlink()
    with caplog.at_level(logging.WARNING):
        found = open_source(tmp_path)
    names = ["carwelding/Hard/P002[0-2]", "carwelding/Hard/P002[4-5]", "office/Hard/P000"]
    assert [s.name for s in found] == names
    assert [text.split(": ")[0].rsplit("/", 1)[1] for text in found.left_out] == ["P002", "P003"]
    assert "left out: " in caplog.text
    (tmp_path / "office/Hard/P000/depth_left/000003_left_depth.npy").unlink()
    with pytest.raises(DataError, match="office/Hard/P000: expected 6 complete frames"):
        open_source(tmp_path)


# --- DyDToF


def test_dydtof(tmp_path):
    write_dydtof(tmp_path / "school", "school_shot2", first=3)
    write_dydtof(tmp_path / "school", "school_shot8", seed=10)
    write_dydtof(tmp_path / "ship", "ship_shot1", seed=20)
    found = open_source(tmp_path)
    assert [s.name for s in found] == ["school/school_shot2", "school/school_shot8", "ship/ship_shot1"]
    clip = check(found[0], 1, [1, 2], exact=False)
    color = cv2.imread(str(tmp_path / "school/school_shot2/color/school_shot2.0004.jpeg"))[..., ::-1]
    np.testing.assert_array_equal(clip.rgb[0].numpy(), color.transpose(2, 0, 1) / np.float32(255))
    assert clip.intrinsics is None
    test = open_source(f"dydtof:{tmp_path}", split="test")
    assert [s.name for s in test] == ["school/school_shot2", "school/school_shot8"]
    assert sum(dydtof.SPLITS["test"].values()) == 576


def test_dydtof_with_its_own_low_resolution_depth(tmp_path):
    write_dydtof(tmp_path / "DyDToF_HR_RGB" / "school", "school_shot2")
    for t in range(4):
        low = depth_image(50 + t, HEIGHT // 8, WIDTH // 8)
        write_array(tmp_path / f"DyDToF_LR/X8/school/school_shot2/depth/school_shot2.{t:04d}.npy", low)
    (plain,) = open_source(tmp_path)
    assert plain.clip(0, 2).depth_lr is None
    for root in (tmp_path, tmp_path / "DyDToF_HR_RGB", tmp_path / "DyDToF_HR_RGB" / "school"):
        (sequence,) = open_source(f"dydtof:{root}", lr_scale=8)
        clip = check(sequence, 1, [1, 2], exact=False)
        assert clip.lr_scale == 8
        for t in range(2):
            np.testing.assert_array_equal(clip.depth_lr[t, 0].numpy(), depth_image(51 + t, HEIGHT // 8, WIDTH // 8))
    with pytest.raises(DataError, match=r"DyDToF_LR/X4: no such folder.*there is X8"):
        open_source(tmp_path, lr_scale=4)
    (tmp_path / "DyDToF_LR/X8/school/school_shot2/depth/school_shot2.0003.npy").unlink()
    with pytest.raises(DataError, match="4 depth, 3 X8 depth files; X8 depth of frame 3 is missing"):
        open_source(tmp_path, lr_scale=8)


# --- DynamicReplica


def write_dynamic_replica(root, sequence, frames=3, height=HEIGHT, width=WIDTH, seed=0):
    for t in range(frames):
        write_image(root / sequence / f"images/{sequence}-{t:04d}.png", picture(seed + t, height, width))
        bits = depth_image(seed + t, height, width).astype(np.float16).view(np.uint16)
        write_image(root / sequence / f"depths/{sequence}_{t:04d}.geometric.png", bits)


def test_dynamic_replica_reads_the_bits_of_half_floats(tmp_path):
    write_dynamic_replica(tmp_path / "test", "029beb-3_obj_source_left")
    (sequence,) = open_source(tmp_path)
    clip = sequence.clip(0, 3)
    for t in range(3):
        np.testing.assert_array_equal(clip.depth[t, 0].numpy(), depth_image(t).astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(clip.rgb[t].numpy(), picture(t).transpose(2, 0, 1) / np.float32(255))
    assert clip.intrinsics is None
    assert clip.stamps is None


def test_dynamic_replica_infinite_and_wrong_half_floats_are_invalid(tmp_path):
    name = "a_source_left"
    write_dynamic_replica(tmp_path, name, frames=1)
    bits = np.array([[np.inf, np.nan, -1.0, 2.0]], np.float16).view(np.uint16)
    image = np.zeros((HEIGHT, WIDTH), np.uint16)
    image[:1, :4] = bits
    write_image(tmp_path / name / f"depths/{name}_0000.geometric.png", image)
    clip = open_source(tmp_path)[0].clip(0, 1)
    assert clip.depth[0, 0, 0, :4].tolist() == [0, 0, 0, 2]
    assert clip.valid.sum() == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_dynamic_replica_cameras_from_annotations(tmp_path, zipped):
    name = "029beb-3_obj_source_left"
    write_dynamic_replica(tmp_path / "test", name)
    notes = [
        {
            "frame_number": t,
            "frame_timestamp": t / 30,
            "image": {"path": f"{name}/images/{name}-{t:04d}.png", "size": [HEIGHT, WIDTH]},
            "viewpoint": {
                "focal_length": [2.0, 2.0],
                "principal_point": [0.25, -0.5],
                "intrinsics_format": "ndc_isotropic" if zipped else "ndc_norm_image_bounds",
            },
        }
        for t in range(3)
    ]
    data = json.dumps(notes).encode()
    path = tmp_path / "test" / ("frame_annotations_test.jgz" if zipped else "frame_annotations_test.json")
    path.write_bytes(gzip.compress(data) if zipped else data)
    (sequence,) = open_source(tmp_path)
    # A point at the principal point projects to x_ndc = p: pixel edge coordinate W/2 - p * unit, centres at integers.
    unit = (12, 12) if zipped else (16, 12)
    expected = [[2 * unit[0], 0, 16 - 0.25 * unit[0] - 0.5], [0, 2 * unit[1], 12 + 0.5 * unit[1] - 0.5], [0, 0, 1]]
    assert sequence.intrinsics.tolist() == expected
    torch.testing.assert_close(sequence.clip(1, 2).stamps, torch.tensor([1, 2], dtype=torch.float64) / 30)
    path.write_bytes(gzip.compress(data)[:40])
    with pytest.raises(DataError, match="no DynamicReplica frame annotations"):
        open_source(tmp_path)


def test_dynamic_replica_test_split_is_cropped(tmp_path):
    name = "029beb-3_obj_source_left"
    write_dynamic_replica(tmp_path / "test_001", name, frames=1, height=500, width=700)
    write_dynamic_replica(tmp_path / "test_001", "other_source_left", frames=1)
    (sequence,) = open_source(tmp_path, split="test")
    assert sequence.frame_size == (480, 640)
    whole = depth_image(0, 500, 700).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(sequence.clip(0, 1).depth[0, 0].numpy(), whole[10:490, 30:670])
    assert dynamic_replica.SPLITS["test"][name] == 500
    with pytest.raises(DataError, match="no split 'train'"):
        open_source(tmp_path, split="train")


# --- folders


@pytest.mark.parametrize("arrays", [False, True])
def test_own_layout(tmp_path, arrays):
    write_own(tmp_path / "a", arrays=arrays, first=7)
    (sequence,) = open_source(tmp_path / "a")
    assert sequence.name == "a"
    clip = sequence.clip(1, 3)
    for t in range(3):
        depth = depth_image(t + 1)
        expected = depth if arrays else millimetres(depth).astype(np.float32) / np.float32(1000)
        np.testing.assert_array_equal(clip.depth[t, 0].numpy(), expected)
    assert clip.intrinsics.tolist() == [[30.5, 0, 15.5], [0, 31, 11.5], [0, 0, 1]]


def test_folder_of_folders_and_its_splits(tmp_path):
    for name in ("train/x", "train/deep/er/y", "val/z"):
        write_own(tmp_path / name, frames=2)
    assert [s.name for s in open_source(tmp_path)] == ["train/deep/er/y", "train/x", "val/z"]
    assert [s.name for s in open_source(f"folder:{tmp_path}", split="val")] == ["z"]
    with pytest.raises(DataError, match="test: no such folder"):
        open_source(tmp_path, split="test")


def test_written_folder_is_read_back(tmp_path):
    depth = torch.stack([torch.from_numpy(millimetres(depth_image(t)).astype(np.float32) / 1000) for t in range(3)])
    depth = depth.unsqueeze(1)
    rgb = torch.stack([torch.from_numpy(picture(t)).permute(2, 0, 1).float() / 255 for t in range(3)])
    clip = RgbdClip(
        rgb,
        depth,
        depth > 0,
        intrinsics=torch.tensor([[30.25, 0, 15.5], [0, 31.125, 11.5], [0, 0, 1]]),
        flow=torch.rand(2, 2, HEIGHT, WIDTH),
        depth_lr=depth[..., ::8, ::8],
        stamps=torch.tensor([1.7e9 + 0.123456, 1.7e9 + 0.2, 1.7e9 + 0.3], dtype=torch.float64),
    )
    write_folder(clip, tmp_path / "w")
    (sequence,) = open_source(tmp_path / "w")
    read = sequence.clip(0, 3)
    for name in ("rgb", "depth", "valid", "intrinsics", "flow", "depth_lr"):
        torch.testing.assert_close(getattr(read, name), getattr(clip, name), rtol=0, atol=1e-6)
    torch.testing.assert_close(read.stamps, clip.stamps, rtol=0, atol=1e-6)
    assert sequence.lr_scale == 8
    assert open_source(tmp_path / "w", lr_scale=8)
    with pytest.raises(DataError, match="expected low-resolution depth for x4, found x8"):
        open_source(tmp_path / "w", lr_scale=4)


def test_written_in_parts(tmp_path):
    depth = torch.full((4, 1, HEIGHT, WIDTH), 70.0)
    depth[:, :, 0] = torch.arange(1.0, 5.0).view(4, 1, 1)
    clip = RgbdClip(torch.zeros(4, 3, HEIGHT, WIDTH), depth, depth > 0, stamps=torch.arange(4, dtype=torch.float64))
    write_folder(clip.frames(0, 2), tmp_path / "w")
    write_folder(clip.frames(2, 4), tmp_path / "w", first=2)
    read = open_source(tmp_path / "w")[0].clip(0, 4)
    assert read.stamps.tolist() == [0, 1, 2, 3]
    assert read.depth[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert read.valid[:, :, 1:].sum() == 0  # 70 m do not fit into 16 bits of millimetres


def test_depth_of_lower_resolution_is_low_resolution_depth(tmp_path):
    for t in range(2):
        write_image(tmp_path / f"color/{t:06d}.png", picture(t))
        write_image(tmp_path / f"depth/{t:06d}.png", millimetres(depth_image(t, HEIGHT // 4, WIDTH // 4)))
    clip = open_source(tmp_path, lr_scale=4)[0].clip(0, 2)
    assert clip.depth_lr.shape == (2, 1, 6, 8)
    assert not clip.valid.any()
    assert clip.depth.eq(0).all()


@pytest.mark.parametrize("factor", [1, 5])
def test_low_resolution_depth_of_another_unit_is_said(tmp_path, factor):
    write_own(tmp_path / "a", frames=2)
    for t in range(2):
        write_image(tmp_path / f"a/depth_lr/{t:06d}.png", millimetres(depth_image(t))[::4, ::4] // factor)
    notes = open_source(tmp_path / "a").notes
    assert any("likely stored in another unit" in note for note in notes) == (factor == 5)


def test_depth_of_other_proportions_is_refused(tmp_path):
    write_image(tmp_path / "color/000000.png", picture(0))
    write_image(tmp_path / "depth/000000.png", millimetres(depth_image(0, 24, 24)))
    with pytest.raises(DataError, match="depth of 24x24 pixels does not fit the colour image of 32x24"):
        open_source(tmp_path)


def test_tum(tmp_path):
    folder = tmp_path / "rgbd_dataset_freiburg2_desk"
    color_stamps, depth_stamps = [10.00, 10.033, 10.066, 10.10], [10.012, 10.040, 10.2, 10.07]
    lists = {"rgb": ["# color images"], "depth": ["# depth maps"]}
    for t, stamp in enumerate(color_stamps):
        write_image(folder / f"rgb/{stamp:.3f}.png", picture(t))
        lists["rgb"].append(f"{stamp:.3f} rgb/{stamp:.3f}.png")
    for t, stamp in enumerate(depth_stamps):
        units = np.round(depth_image(t).astype(np.float64) * 5000 / 2).astype(np.uint16)  # TUM counts 1/5000 m
        write_image(folder / f"depth/{stamp:.3f}.png", units)
        lists["depth"].append(f"{stamp:.3f} depth/{stamp:.3f}.png")
    for listed in (True, False):
        if listed:
            for kind, lines in lists.items():
                (folder / f"{kind}.txt").write_text("\n".join(lines))
        else:
            for kind in lists:
                (folder / f"{kind}.txt").unlink()
        (sequence,) = open_source(tmp_path)
        assert sequence.name == "rgbd_dataset_freiburg2_desk"
        clip = sequence.clip(0, len(sequence))
        assert clip.stamps.tolist() == [10.00, 10.033, 10.066]
        for t, written in enumerate((0, 1, 3)):
            np.testing.assert_array_equal(clip.rgb[t].numpy(), picture(t).transpose(2, 0, 1) / np.float32(255))
            np.testing.assert_allclose(clip.depth[t, 0].numpy(), depth_image(written) / 2, atol=1.1e-4)
        assert clip.intrinsics[0, 0] == pytest.approx(520.9)
    (folder / "rgb.txt").write_text("no list")
    with pytest.raises(DataError, match='expected lines "stamp file"'):
        open_source(tmp_path)


def test_rgb_and_depth_without_tum_s_lists_are_in_millimetres(tmp_path):
    write_own(tmp_path / "demo", frames=3)
    (tmp_path / "demo/color").rename(tmp_path / "demo/rgb")
    (sequence,) = open_source(tmp_path / "demo")
    np.testing.assert_allclose(sequence.clip(1, 1).depth[0, 0].numpy(), depth_image(1), atol=6e-4)
    (tmp_path / "demo/rgb.txt").write_text("0.0 rgb/000000.png")
    with pytest.raises(DataError, match="open it as tum:"):
        open_source(f"folder:{tmp_path / 'demo'}")


@pytest.mark.parametrize("line", ["{0} {1}\\{2}.png", "{0},{1}/{2}.png"])
@pytest.mark.parametrize("unit", [1, 10**6])
def test_lists_of_other_tools(tmp_path, line, unit):
    folder = tmp_path / "rgbd_dataset_freiburg1_xyz"
    for kind, delay in (("rgb", 0), ("depth", 4_000_000)):
        rows = []
        for t in range(3):
            stamp = 1_700_000_000_000_000_000 + t * 33_000_000 + delay
            image = picture(t) if kind == "rgb" else millimetres(depth_image(t))
            write_image(folder / f"{kind}/{stamp}.png", image)
            rows.append(line.format(stamp // unit, kind, stamp))
        (folder / f"{kind}.txt").write_text("\n".join(rows))
    (sequence,) = open_source(folder)
    stamps = sequence.clip(0, 3).stamps.numpy()
    np.testing.assert_allclose(stamps - 1_700_000_000, [0, 0.033, 0.066], atol=1e-5)


def test_files_named_by_stamps_of_their_own_are_paired_as_tum_s(tmp_path):
    write_own(tmp_path / "a", frames=3)
    (tmp_path / "a/color").rename(tmp_path / "a/rgb")
    for kind, delay in (("rgb", 0), ("depth", 4_000_000)):
        for t, path in enumerate(sorted((tmp_path / "a" / kind).iterdir())):
            path.rename(path.with_name(f"{1_700_000_000_000_000_000 + t * 33_000_000 + delay}.png"))
    with pytest.raises(DataError, match=f"nearest stamp with tum:{tmp_path / 'a'}"):
        open_source(tmp_path / "a")
    (sequence,) = open_source(f"tum:{tmp_path / 'a'}", depth_unit=0.001)
    np.testing.assert_allclose(sequence.clip(2, 1).depth[0, 0].numpy(), depth_image(2), atol=6e-4)


def test_a_list_of_associations_makes_a_note_of_the_unit(tmp_path):
    write_own(tmp_path / "demo", frames=3)
    (tmp_path / "demo/associations.txt").write_text("0 depth/0.png 0 rgb/0.png")
    (note,) = open_source(tmp_path / "demo").notes
    assert "--depth-unit 0.0002" in note
    assert open_source(tmp_path / "demo", depth_unit=0.001).notes == []


@pytest.mark.parametrize(
    ("kind", "name", "holds"),
    [("depth", "0.npz", ".npz"), ("color", "cam0/0.png", "folder cam0"), ("color", "", "nothing")],
)
def test_a_folder_without_readable_images_is_named_with_what_it_holds(tmp_path, kind, name, holds):
    write_own(tmp_path / "a", frames=2)
    for path in (tmp_path / "a" / kind).iterdir():
        path.unlink()
    if name:
        (tmp_path / "a" / kind / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / kind / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"a/{kind}: no images of .*it holds {holds}"):
        open_source(tmp_path / "a")


@pytest.mark.parametrize("name", ["{}", "{:.6f}"])
def test_files_named_by_stamps_are_read_in_their_order(name, tmp_path):
    write_own(tmp_path / "a", frames=4)
    for kind in ("color", "depth"):
        for t, path in enumerate(sorted((tmp_path / "a" / kind).iterdir())):
            stamp = 1_700_000_000_123_456_789 + t * 33_333_333 if name == "{}" else 1_700_000_000.9 + t / 30
            path.rename(path.with_name(name.format(stamp) + path.suffix))
    (sequence,) = open_source(tmp_path)
    assert (sequence.name, len(sequence)) == ("a", 4)
    for t in range(4):
        np.testing.assert_allclose(sequence.clip(t, 1).depth[0, 0].numpy(), depth_image(t), atol=6e-4)
    next((tmp_path / "a/depth").iterdir()).unlink()
    with pytest.raises(DataError, match="expected 4 complete frames"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "{kind}_{0:04d}_640x480",
        "frame{0:03d}_cam1",
        "{0:03d}_{kind}16",
        "1699999999_{1:09d}",
        "cam0-{2}_{3:09d}",
        "2024-05-01_12-00-{4:02d}.{5:03d}",
    ],
)
def test_the_number_that_tells_frames_apart_may_stand_anywhere_in_a_name(name, tmp_path):
    write_own(tmp_path / "a", frames=4)
    for kind in ("color", "depth"):
        for t, path in enumerate(sorted((tmp_path / "a" / kind).iterdir())):
            seconds, rest = divmod(1_699_999_999_800_000_000 + t * 150_000_000, 10**9)
            parts = (t, t * 10**8, seconds, rest, 58 + t // 3, t % 3 * 300)
            path.rename(path.with_name(name.format(*parts, kind=kind) + path.suffix))
    (sequence,) = open_source(tmp_path)
    assert len(sequence) == 4
    for t in range(4):
        np.testing.assert_allclose(sequence.clip(t, 1).depth[0, 0].numpy(), depth_image(t), atol=6e-4)


def test_two_files_of_one_frame_are_named(tmp_path):
    write_own(tmp_path / "a", frames=4)
    write_image(tmp_path / "a/color/000002.png", picture(3))
    write_image(tmp_path / "a/color/000002.bmp", picture(2))
    with pytest.raises(DataError, match="000002.bmp and 000002.* are of the same frame"):
        open_source(tmp_path / "a")


def test_pixels_are_read_as_stored_whatever_exif_says(tmp_path):
    path = tmp_path / "turned.jpg"
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8] = 255
    tags = Image.Exif()
    tags[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(picture).save(path, exif=tags, quality=95)
    assert read_color(path)[:6].min() > 200
    assert read_color(path)[10:].max() < 50


def test_scannet_brings_colour_to_the_size_of_depth(tmp_path):
    folder = tmp_path / "scene0000_00"
    for t in range(0, 12, 4):  # every fourth frame exported, numbers without leading zeros
        write_image(folder / f"color/{t}.png", np.repeat(np.repeat(picture(t), 2, 0), 2, 1))
        write_image(folder / f"depth/{t}.png", millimetres(depth_image(t)))
    matrix = np.diag([30.0, 31, 1, 1])
    matrix[:2, 2] = 15.5, 11.5
    (folder / "intrinsic").mkdir()
    np.savetxt(folder / "intrinsic/intrinsic_depth.txt", matrix)
    (sequence,) = open_source(tmp_path)
    assert len(sequence) == 3
    clip = sequence.clip(0, 3)
    for t in range(3):
        np.testing.assert_allclose(clip.rgb[t].numpy(), picture(4 * t).transpose(2, 0, 1) / 255, atol=1e-6)
        np.testing.assert_allclose(clip.depth[t, 0].numpy(), depth_image(4 * t), atol=6e-4)
    assert clip.intrinsics.tolist() == [[30, 0, 15.5], [0, 31, 11.5], [0, 0, 1]]


@pytest.mark.parametrize("text", ["1 2 3", "a b c d", "0 0 1 1", "nan 1 1 1", ""])
def test_wrong_intrinsics_are_named(tmp_path, text):
    path = tmp_path / "intrinsics.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=r"intrinsics\.txt"):
        read_intrinsics(path)


def test_stamps_are_matched_to_their_mutually_nearest():
    rng = np.random.default_rng(0)
    for _ in range(30):
        a, b = rng.uniform(0, 1, rng.integers(1, 12)), rng.uniform(0, 1, rng.integers(1, 12))
        distance = np.abs(a[:, None] - b)
        expected = [
            (i, j)
            for i, j in np.ndindex(distance.shape)
            if distance[i].argmin() == j and distance[:, j].argmin() == i and distance[i, j] <= 0.1
        ]
        assert match_nearest(a, b, 0.1) == sorted(expected, key=lambda pair: a[pair[0]])
    assert match_nearest([], [1.0], 1) == []
    assert match_nearest([1.0], [5.0], 1) == []


# --- what goes wrong


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{}/none", "no such file or folder"),
        ("tartanair:{}/none", "no such file or folder; expected <scene>"),
        ("{}", "no known RGB-D data"),
        ("tum:{}", "no sequence of kind 'tum'; expected {rgb,depth}"),
        ("kitti:{}", "unknown kind of source 'kitti'; use one of tartanair, dydtof"),
        ("{}/file.txt", "not a ROS bag"),
        ("folder:{}/file.txt", "not a folder"),
        ("synthetic:x", "expected synthetic:seed"),
        ("synthetic:1,0", "expected synthetic:seed"),
    ],
)
def test_sources_that_are_not_there(tmp_path, source, message):
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        open_source(source.replace("{}", str(tmp_path)))
    assert message in str(caught.value)


def test_half_downloaded_sequence(tmp_path):
    write_own(tmp_path / "bad", frames=8)
    write_own(tmp_path / "good", frames=2)
    (tmp_path / "bad/depth/000006.png").unlink()
    (tmp_path / "bad/depth/000007.png").unlink()
    with pytest.raises(DataError) as caught:
        open_source(tmp_path)
    message = str(caught.value)
    assert "bad: expected 8 complete frames (0 to 7), found 8 colour, 6 depth files" in message
    assert "depth of frame 6 is missing, and 1 more frames are incomplete" in message
    assert "--skip-bad" in message
    found = open_source(tmp_path, skip_bad=True)
    assert [(s.name, len(s)) for s in found] == [("bad", 6), ("good", 2)]
    assert len(found.left_out) == 1


def test_gap_in_the_numbers_of_a_data_set_splits_the_sequence(tmp_path):
    write_tartanair(tmp_path / "office" / "P000", frames=9, flow=False)
    for file in ("image_left/000003_left.png", "depth_left/000003_left_depth.npy", "depth_left/000007_left_depth.npy"):
        (tmp_path / "office/P000" / file).unlink()
    with pytest.raises(DataError, match=r"expected 9 complete frames.*colour of frame 3 is missing"):
        open_source(tmp_path)
    found = open_source(tmp_path, skip_bad=True)
    assert [(s.name, len(s)) for s in found] == [("office/P000[0-2]", 3), ("office/P000[4-6]", 3)]


@pytest.mark.parametrize("names", [[0, 5, 10, 15], [2, 3, 7, 8], ["0.033000", "0.066667", "0.1", "12.5"]])
def test_own_frames_are_sorted_by_name_and_not_counted(tmp_path, names):
    write_own(tmp_path / "a", frames=4)
    for kind in ("color", "depth"):
        for number, name in reversed(list(enumerate(names))):
            stem = f"{name:06d}" if isinstance(name, int) else name
            (tmp_path / f"a/{kind}/{number:06d}.png").rename(tmp_path / f"a/{kind}/new{stem}.png")
        for path in (tmp_path / f"a/{kind}").iterdir():
            path.rename(path.with_name(path.name.removeprefix("new")))
    (sequence,) = open_source(tmp_path)
    assert len(sequence) == 4
    for t in range(4):
        np.testing.assert_allclose(sequence.clip(t, 1).depth[0, 0].numpy(), depth_image(t), atol=6e-4)


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tiff"])
def test_sixteen_bit_depth_of_any_file(tmp_path, suffix):
    write_own(tmp_path / "a", frames=2)
    for path in (tmp_path / "a/depth").iterdir():
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        assert cv2.imwrite(str(path.with_suffix(suffix)), stored)
    (sequence,) = open_source(tmp_path)
    np.testing.assert_allclose(sequence.clip(1, 1).depth[0, 0].numpy(), depth_image(1), atol=6e-4)


@pytest.mark.parametrize("suffix", [".pfm", ".tiff"])
def test_floating_point_depth_of_any_file(tmp_path, suffix):
    write_own(tmp_path / "a", frames=2)
    for path in (tmp_path / "a/depth").iterdir():
        metres = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        path.unlink()
        assert cv2.imwrite(str(path.with_suffix(suffix)), metres)
    (sequence,) = open_source(tmp_path)
    np.testing.assert_allclose(sequence.clip(1, 1).depth[0, 0].numpy(), depth_image(1), atol=6e-4)


def replace_depth(folder, store):
    """Write each depth file of an own folder anew as ``store(millimetres)``, as .npy."""
    for path in (folder / "depth").iterdir():
        stored = store(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        path.unlink()
        np.save(path.with_suffix(".npy"), stored)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
def test_integers_are_millimetres(tmp_path, kind):
    write_own(tmp_path / "a", frames=2)
    replace_depth(tmp_path / "a", lambda mm: mm.astype(kind))
    clip = open_source(tmp_path)[0].clip(1, 1)
    np.testing.assert_allclose(clip.depth[0, 0].numpy(), depth_image(1), atol=6e-4)


def test_floating_point_millimetres_are_refused_until_the_unit_is_given(tmp_path):
    write_own(tmp_path / "a", frames=2)
    replace_depth(tmp_path / "a", lambda mm: mm.astype(np.float32))
    with pytest.raises(DataError, match=r"32-bit floating-point .* no depth camera measures.*--depth-unit"):
        open_source(tmp_path)
    for source, options in ((tmp_path, {"depth_unit": 0.001}), (f"{tmp_path}?depth_unit=0.001", {})):
        clip = open_source(source, **options)[0].clip(1, 1)
        np.testing.assert_allclose(clip.depth[0, 0].numpy(), depth_image(1), atol=6e-4)
    with pytest.raises(ConfigError, match="depth unit is -1"):
        open_source(f"{tmp_path}?depth_unit=-1")


def along_ray(z, fx, fy, cx, cy):
    """Distances from the camera of depth z (H, W) along the optical axis, pixel by pixel."""
    distance = np.zeros_like(z)
    for v, u in np.ndindex(z.shape):
        distance[v, u] = np.linalg.norm([(u - cx) / fx * z[v, u], (v - cy) / fy * z[v, u], z[v, u]])
    return distance


def test_distances_along_rays_become_depth(tmp_path):
    write_own(tmp_path / "a", frames=2, arrays=True)
    wall = np.full((HEIGHT, WIDTH), 2.5, np.float32)
    wall[4:6] = 0
    for t in range(2):
        np.save(tmp_path / f"a/depth/{t:06d}.npy", along_ray(wall, 30.5, 31, 15.5, 11.5))
    corner = open_source(tmp_path)[0].clip(1, 1).depth[0, 0, 0, 0]
    assert corner == pytest.approx(2.5 * (1 + (15.5 / 30.5) ** 2 + (11.5 / 31) ** 2) ** 0.5)
    clip = open_source(f"{tmp_path}?distance=ray")[0].clip(1, 1)
    np.testing.assert_allclose(clip.depth[0, 0].numpy(), wall, rtol=1e-6)
    assert torch.equal(clip.valid, clip.depth > 0)


def test_distances_along_rays_at_the_resolution_of_the_depth(tmp_path):
    write_own(tmp_path / "a", frames=1, arrays=True)
    wall = np.full((HEIGHT // 4, WIDTH // 4), 2.5, np.float32)
    # A cell of 4x4 pixels has its centre at pixel 4 u + 1.5.
    distance = along_ray(wall, 30.5 / 4, 31 / 4, (15.5 - 1.5) / 4, (11.5 - 1.5) / 4)
    np.save(tmp_path / "a/depth/000000.npy", distance)
    clip = open_source(f"folder:{tmp_path}?distance=ray")[0].clip(0, 1)
    np.testing.assert_allclose(clip.depth_lr[0, 0].numpy(), wall, rtol=1e-6)


def test_intrinsics_of_a_picture_of_another_size_are_said(tmp_path):
    write_own(tmp_path / "a", frames=2)
    (tmp_path / "a/intrinsics.txt").write_text("1060 1060 960 540")
    (note,) = open_source(tmp_path / "a").notes
    assert "principal point (960, 540), outside the frames" in note
    with pytest.raises(DataError, match="distances along rays cannot be converted to depth"):
        open_source(f"{tmp_path / 'a'}?distance=ray")


def test_distances_along_rays_need_intrinsics(tmp_path):
    write_own(tmp_path / "a", frames=1)
    with pytest.raises(DataError, match="distance is 'slant'; give z or ray"):
        open_source(f"{tmp_path}?distance=slant")
    (tmp_path / "a/intrinsics.txt").unlink()
    with pytest.raises(DataError, match=r"a: distances along rays .* intrinsics, and it has none; add them"):
        open_source(f"{tmp_path}?distance=ray")
    with pytest.raises(DataError, match="sources of kind 'tartanair' have no option distance"):
        open_source(f"tartanair:{tmp_path}?distance=ray")


def test_no_reading_is_said_and_more_can_be_taken_away(tmp_path):
    write_own(tmp_path / "a", frames=2)
    path = tmp_path / "a/depth/000000.png"
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    measured = stored > 0
    stored[:3] = 65535
    cv2.imwrite(str(path), stored)
    found = open_source(tmp_path)
    assert "is 65535, which counts as invalid" in found.notes[0]
    valid = found[0].clip(0, 1).valid[0, 0].numpy()
    assert not valid[:3].any()
    np.testing.assert_array_equal(valid[3:], measured[3:])
    limit = float(np.median(stored[3:]))
    valid = open_source(tmp_path, invalid_above=limit)[0].clip(0, 1).valid[0, 0].numpy()
    np.testing.assert_array_equal(valid, (stored > 0) & (stored <= limit))


def test_lists_may_begin_with_a_byte_order_mark(tmp_path):
    write_own(tmp_path / "a", frames=2)
    (tmp_path / "a/intrinsics.txt").write_bytes(b"\xef\xbb\xbf30 31 15.5 11.5\n")
    (tmp_path / "a/stamps.txt").write_bytes(b"\xef\xbb\xbf1.5\n1.6\n")
    clip = open_source(tmp_path)[0].clip(0, 2)
    assert clip.intrinsics[0].tolist() == [30, 0, 15.5]
    assert clip.stamps.tolist() == [1.5, 1.6]


def cut_off(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("image_left/000002_left.png", cut_off, "cut off"),
        ("depth_left/000002_left_depth.npy", cut_off, "is cut off: "),
        ("depth_left/000002_left_depth.npy", lambda p: p.write_bytes(b""), "is empty"),
        ("image_left/000002_left.png", lambda p: p.write_bytes(b"<html>404</html>" * 9), "is not a PNG image"),
        ("depth_left/000002_left_depth.npy", lambda p: p.write_bytes(b"<html>404</html>" * 9), "is not a NumPy array"),
    ],
)
def test_damaged_files_are_found_when_opening(tmp_path, file, damage, message):
    write_tartanair(tmp_path / "office" / "P000", frames=6, flow=False)
    damage(tmp_path / "office/P000" / file)
    with pytest.raises(DataError) as caught:
        open_source(tmp_path)
    assert file in str(caught.value)
    assert message in str(caught.value)
    found = open_source(tmp_path, skip_bad=True)
    assert [s.name for s in found] == ["office/P000[0-1]", "office/P000[3-5]"]
    assert file in found.left_out[0]


def test_damage_inside_a_file_is_found_when_reading(tmp_path):
    write_own(tmp_path / "a", frames=3)
    path = tmp_path / "a/depth/000001.png"
    data = bytearray(path.read_bytes())
    data[40:-20] = bytes(len(data) - 60)
    path.write_bytes(data)
    (sequence,) = open_source(tmp_path)
    with pytest.raises(DataError, match=r"000001\.png cannot be decoded; expected a 16-bit PNG"):
        sequence.clip(0, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.zeros((HEIGHT, WIDTH, 3)), "expected depth of shape"), (np.array(["x"]), "expected depth of shape")],
)
def test_arrays_of_another_kind_are_refused(tmp_path, array, message):
    write_own(tmp_path / "a", frames=2, arrays=True)
    np.save(tmp_path / "a/depth/000000.npy", array)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


def test_pickled_arrays_are_never_loaded(tmp_path):
    write_own(tmp_path / "a", frames=2, arrays=True)
    np.save(tmp_path / "a/depth/000000.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"000000\.npy (cannot be loaded|is cut off)"):
        open_source(tmp_path)


def test_eight_bit_depth_is_refused(tmp_path):
    write_own(tmp_path / "a", frames=2)
    write_image(tmp_path / "a/depth/000000.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(DataError, match="expected a 16-bit single-channel image, found 8-bit"):
        open_source(tmp_path)


def test_change_of_size_is_named(tmp_path):
    write_own(tmp_path / "a", frames=3)
    write_image(tmp_path / "a/color/000002.png", picture(2, 12, 16))
    write_image(tmp_path / "a/depth/000002.png", millimetres(depth_image(2, 12, 16)))
    (sequence,) = open_source(tmp_path)
    with pytest.raises(DataError, match=r"000002\.png: 16x12 pixels, expected 32x24"):
        sequence.clip(1, 2)
    with pytest.raises(DataError, match=r"000002\.png: 16x12 pixels, expected 32x24"):
        sequence.clip(2, 1)


def test_wrong_stamps_are_named(tmp_path):
    write_own(tmp_path / "a", frames=3)
    (tmp_path / "a/stamps.txt").write_text("0.1\n0.2\n")
    with pytest.raises(DataError, match="2 stamps for 3 colour frames"):
        open_source(tmp_path)


def test_opening_reads_one_frame_alone(tmp_path, monkeypatch):
    write_own(tmp_path / "a", frames=5)
    read = []
    from stdnet_core.data import file_sequence

    original = file_sequence.read_color
    monkeypatch.setattr(file_sequence, "read_color", lambda path: read.append(path.name) or original(path))
    (sequence,) = open_source(tmp_path)
    assert read == ["000000.png"]
    sequence.clip(2, 2)
    assert read[1:] == ["000002.png", "000003.png"]


def test_sequences_travel_to_loader_workers(tmp_path):
    write_tartanair(tmp_path / "office" / "P000", frames=3)
    (sequence,) = open_source(tmp_path)
    copy = pickle.loads(pickle.dumps(sequence))
    assert torch.equal(copy.clip(0, 3).rgb, sequence.clip(0, 3).rgb)
