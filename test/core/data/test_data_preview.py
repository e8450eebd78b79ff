"""The contact sheet shows the pixels of the source, and its figures are right."""

import json
import sys

import cv2
import numpy as np
import pytest

from stdnet_core import preview
from stdnet_core.data.sources import open_source
from stdnet_core.errors import DataError
from stdnet_core.report import contact_sheet

HEIGHT, WIDTH = 16, 24


def write_folder(folder, frames=3, low=False):
    """Left half 1 m, right half 4 m, a quarter of it invalid; red picture, brighter with every frame."""
    for t in range(frames):
        color = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        color[..., 2] = 60 + 60 * t
        depth = np.full((HEIGHT, WIDTH), 1000, np.uint16)
        depth[:, WIDTH // 2 :] = 4000
        depth[: HEIGHT // 2, WIDTH // 2 :] = 0
        for kind, image in (("color", color), ("depth", depth)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{t:06d}.png"), image)
        if low:
            (folder / "depth_lr").mkdir(exist_ok=True)
            cv2.imwrite(str(folder / "depth_lr" / f"{t:06d}.png"), np.full((2, 3), 2000, np.uint16))
    (folder / "stamps.txt").write_text("".join(f"{t / 25}\n" for t in range(frames)))
    (folder / "intrinsics.txt").write_text("20 20 11.5 7.5\n")


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["preview", *map(str, arguments)])
    preview.main()


def test_sheet_and_figures(tmp_path, monkeypatch, capsys):
    write_folder(tmp_path / "data/a")
    write_folder(tmp_path / "data/b", frames=2, low=True)
    picture, figures = tmp_path / "sheet.png", tmp_path / "figures.json"
    run(
        monkeypatch, tmp_path / "data", "--output", picture, "--json", figures, "--width", WIDTH,
        "--frames", 3, "--scale", 4, "--sensor", "exact",
    )  # fmt: skip
    sheet = cv2.imread(str(picture))[..., ::-1]
    row, column = HEIGHT + 26, WIDTH + 4
    assert sheet.shape == (5 * row, 4 * column, 3)
    for line, (name, t, low) in enumerate([("a", 0, 4), ("a", 1, 4), ("a", 2, 4), ("b", 0, 8), ("b", 1, 8)]):
        parts = [sheet[line * row + 22 : line * row + 22 + HEIGHT, i * column : i * column + WIDTH] for i in range(4)]
        color, depth, depth_lr, valid = (part.astype(int) for part in parts)
        assert (color == (60 + 60 * t, 0, 0)).all(), name
        near, far, hole = depth[:, : WIDTH // 2], depth[HEIGHT // 2 :, WIDTH // 2 :], depth[: HEIGHT // 2, WIDTH // 2 :]
        assert (near[..., 0] > near[..., 2]).all()  # warm
        assert (far[..., 2] > far[..., 0]).all()  # cold
        assert (hole == 0).all()
        assert (valid[..., 0] == np.where((depth == 0).all(2), 0, 255)).all()
        if low == 4:
            assert (depth_lr[HEIGHT // 2 :, : WIDTH // 2] == near[HEIGHT // 2 :]).all()
            assert (depth_lr[: HEIGHT // 2, WIDTH // 2 :] == 0).all()
        else:
            assert (depth_lr == depth_lr[0, 0]).all()
            assert depth_lr[0, 0].any()
    result = json.loads(figures.read_text())
    assert result["sequences"] == 2
    assert result["frames"] == 5
    assert result["left_out"] == []
    first, second = result["shown"]
    assert first["valid_percent"] == 75.0
    assert first["depth_m"] == [1.0, 1.0, 4.0, 4.0]
    assert first["brightness"] == pytest.approx(120 / 255 / 3, abs=1e-3)
    assert first["frames_per_second"] == 25.0
    assert first["focal_px"] == 20.0
    assert (first["lr_scale"], second["lr_scale"]) == (None, 8.0)
    assert (first["height"], first["width"], first["frames"]) == (HEIGHT, WIDTH, 3)
    printed = capsys.readouterr().out
    assert "24x16" in printed
    assert "2 sequences, 5 frames" in printed


def test_many_sequences_are_spread_and_laid_out_two_across(tmp_path, monkeypatch, capsys):
    for i in range(9):
        write_folder(tmp_path / f"data/s{i}", frames=1)
    picture = tmp_path / "sheet.png"
    run(monkeypatch, tmp_path / "data", "--output", picture, "--width", 24, "--max-sequences", 7)
    assert cv2.imread(str(picture)).shape == (4 * (HEIGHT + 26), 8 * 28, 3)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:8]] == [
        f"s{i}" for i in (0, 1, 3, 4, 5, 7, 8)
    ]


def test_synthetic_source(tmp_path, monkeypatch, capsys):
    run(monkeypatch, "synthetic:1,2,32x48,3", "--output", tmp_path / "s.png", "--frames", 1)
    assert "48x32" in capsys.readouterr().out
    sequences = open_source("synthetic:1,2,32x48,3")
    assert len(sequences) == 2
    clip = sequences[1].clip(0, 3)
    assert clip.rgb.shape == (3, 3, 32, 48)
    assert clip.flow.shape == (2, 2, 32, 48)


def test_damage_is_listed_or_stops(tmp_path, monkeypatch, capsys):
    for name in ("a", "b", "c"):
        write_folder(tmp_path / "data" / name)
    path = tmp_path / "data/b/color/000002.png"
    data = bytearray(path.read_bytes())
    data[36:-16] = bytes(len(data) - 52)  # passes for complete, cannot be decoded
    path.write_bytes(data)
    (tmp_path / "data/c/depth/000000.png").unlink()
    output = ("--output", tmp_path / "x.png", "--json", tmp_path / "x.json")
    with pytest.raises(DataError, match="data/c: expected 3 complete frames"):
        run(monkeypatch, tmp_path / "data", *output)
    run(monkeypatch, tmp_path / "data", *output, "--skip-bad")
    result = json.loads((tmp_path / "x.json").read_text())
    assert [shown["name"] for shown in result["shown"]] == ["a", "c"]
    assert "data/c" in result["left_out"][0]
    assert "000002.png cannot be decoded" in result["left_out"][1]
    assert "left out: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["none/x.png", "x.unknown"])
def test_place_that_cannot_be_written(tmp_path, monkeypatch, name):
    write_folder(tmp_path / "data")
    with pytest.raises(DataError, match="the picture cannot be written"):
        run(monkeypatch, tmp_path / "data", "--output", tmp_path / name)


def test_labels_keep_the_frame_number():
    clip = open_source("synthetic:1,1,16x24,1")[0].clip(0, 1)
    wide = contact_sheet.frame_strip(clip, clip.depth, (0, 5), "frame 7", 200)
    long = contact_sheet.frame_strip(clip, clip.depth, (0, 5), "a/very/long/name" * 9 + "frame 7", 200)
    letters = [(strip[:20, :200].max(2) > 150).any(0) for strip in (wide, long)]
    assert letters[0].sum() > 20
    assert letters[1].nonzero()[0].max() > letters[0].nonzero()[0].max()
