"""Animations for web pages: read back with Pillow, and their panels compared with arrays coloured here."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from stdnet_core import DepthUpsampler, evaluate
from stdnet_core.data.sensors import sensor, simulate
from stdnet_core.data.synthetic import SyntheticSequence
from stdnet_core.errors import ConfigError, OutputError
from stdnet_core.report.animation import Animation, animated_webp

WIDTH, HEIGHT, GAP, CAPTION = 440, 330, 6, 24
FIRST_ROW = CAPTION + GAP + CAPTION  # title, gap and the panel's caption
SECOND_ROW = FIRST_ROW + HEIGHT + GAP + CAPTION
PLACES = [(row, column) for row in (FIRST_ROW, SECOND_ROW) for column in (GAP, 2 * GAP + WIDTH)]
LOSS = 3.0
"""Mean difference of a channel, of 255, that WebP's quantisation and halved resolution of colour leave here at most."""


def read(path):
    """All frames (N, H, W, 3), and how long each is shown in ms."""
    with Image.open(path) as file:
        assert file.format == "WEBP"
        assert file.info["loop"] == 0  # endless
        frames, durations = [], []
        for index in range(file.n_frames):
            file.seek(index)
            frames.append(np.array(file.convert("RGB")))
            durations.append(file.info["duration"])
    return np.stack(frames), durations


def panels(frame):
    """Colour, input, interpolation and output of a frame."""
    return [frame[top : top + HEIGHT, left : left + WIDTH].astype(float) for top, left in PLACES]


def colours(depth, low, high):
    """Depth (H, W) as a panel shows it: cells as they are, turbo from 238 at ``low`` down to 20 at ``high``."""
    share = np.clip((np.nan_to_num(depth, nan=high) - low) / (high - low), 0, 1)
    picture = cv2.applyColorMap(np.rint(238 - share * 218).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1].copy()
    picture[~(np.isfinite(depth) & (depth > 0))] = 0
    return enlarged(picture)


def enlarged(picture):
    return cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST).astype(float)


def make(index):
    """A step in depth that moves by 2 px a frame: colour, input, panels and truth."""
    truth = np.full((48, 64), 1.0, np.float32)
    truth[:, 10 + 2 * index :] = 3.0
    rgb = np.full((48, 64, 3), (200, 120, 40), np.uint8)
    rgb[:, 10 + 2 * index :] = (30, 60, 90)
    low = truth[4::8, 4::8].copy()
    low[:2, :2] = np.nan
    return rgb, low, {"bilinear": cv2.blur(truth, (9, 9)), "ours": truth}, truth


def test_every_frame_and_panel_is_there(tmp_path):
    animation = Animation("a camera", 12)
    for index in range(12):
        animation.add(*make(index))
    size = animation.write(tmp_path / "new" / "a.webp")
    assert size == (tmp_path / "new" / "a.webp").stat().st_size < 1_000_000
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.webp"]
    frames, durations = read(tmp_path / "new" / "a.webp")
    assert durations == [100] * 12
    assert frames.shape == (12, PLACES[-1][0] + HEIGHT + GAP, 2 * WIDTH + 3 * GAP, 3)
    expected = []
    for index in range(12):
        rgb, low, outputs, _ = make(index)
        depths = low, outputs["bilinear"], outputs["ours"]
        expected.append([enlarged(rgb), *(colours(depth, 1.0, 3.0) for depth in depths)])
    for index, frame in enumerate(frames):
        for panel, shown in enumerate(panels(frame)):
            errors = [np.abs(shown - wanted[panel]).mean() for wanted in expected]
            assert errors[index] < LOSS, (index, panel)
            if panel != 1:  # cells of 8 px stand still for some frames
                assert np.argmin(errors) == index
        for top, left in [(FIRST_ROW - CAPTION - GAP, GAP), *PLACES]:
            assert (frame[top - CAPTION : top, left : left + 120] < 90).any(), "no caption"


def test_long_clips_are_thinned():
    animation = Animation("a camera", 61)
    for index in range(61):
        animation.add(*make(index % 20))
    assert animation.step == 3
    assert len(animation.pictures) == 21
    again = Animation("a camera", 1)
    again.add(*make(3))
    np.testing.assert_array_equal(animation.pictures[1], again.pictures[0])


def test_the_best_quality_that_fits_is_taken():
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(3)]
    best = animated_webp(pictures, 10, 10**9)
    less = animated_webp(pictures, 10, len(best) - 1)
    assert len(less) < len(best)
    with pytest.raises(OutputError, match="3 frames of 96x64 take .* use fewer frames"):
        animated_webp(pictures, 10, 1000)


def test_evaluate_draws_what_it_scored(tmp_path):
    """The command's file against the camera and the network run here."""
    source, frames = "synthetic:7,1,48x64,5", 4
    evaluate.main(
        [
            *("--data", source, "--max-frames", str(frames), "--sensor", "area", "--scale", "8", "--device", "cpu"),
            *("--checkpoint", "live", "--methods", "model,nearest", "--animation", str(tmp_path)),
        ]
    )
    clip = SyntheticSequence(7, 5, (48, 64)).clip(0, frames)
    truth = clip.depth * clip.valid
    low = simulate(sensor("area"), truth, clip.rgb, 8)
    known = truth[0][truth[0] > 0].numpy()
    limits = np.percentile(known, (1, 99))
    (path,) = tmp_path.iterdir()
    assert path.name == "synthetic_7_x8.webp"
    shown, _ = read(path)
    assert len(shown) == frames
    network = DepthUpsampler.from_pretrained("live", device="cpu", precision="fp32", mask_unsupported=False)
    simple = DepthUpsampler(method="bilinear", device="cpu", mask_unsupported=False)
    for index, frame in enumerate(shown):
        rgb, depth = clip.rgb[index].permute(1, 2, 0).contiguous().numpy(), low[index, 0].numpy()
        expected = [
            enlarged(np.rint(255 * rgb).astype(np.uint8)),
            colours(depth, *limits),
            colours(simple.step(rgb, depth).depth, *limits),
            colours(network.step(rgb, depth).depth, *limits),
        ]
        for name, got, wanted in zip(("colour", "input", "bilinear", "ours"), panels(frame), expected, strict=True):
            assert np.abs(got - wanted).mean() < LOSS, (index, name)
        assert np.abs(expected[2] - expected[3]).mean() > 2 * LOSS, "panels that are alike prove nothing"


def test_recordings_judged_by_themselves_have_no_animation():
    with pytest.raises(ConfigError, match="drop the other options"):
        evaluate.main(["--data", "synthetic:7,1,48x64,5", "--self", "--animation", "x"])
