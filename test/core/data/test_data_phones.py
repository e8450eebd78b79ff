"""Recordings of phones: layouts written here are read back value by value, and frames of videos by their index."""

import json
import pickle
import struct
import subprocess
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stdnet_core.data.color_video import ColorVideo
from stdnet_core.data.exr import read_exr
from stdnet_core.data.prediction_input import from_video
from stdnet_core.data.sources import open_source
from stdnet_core.errors import DataError

HEIGHT, WIDTH = 48, 64
LOW = 12, 16


def picture(seed, height=HEIGHT, width=WIDTH):
    """A colour image (H, W, 3) RGB of 8x8 pixel squares, told from any other after lossy compression."""
    squares = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return squares.repeat(8, 0).repeat(8, 1)[:height, :width]


def low_depth(seed, size=LOW):
    """Depth (h, w) in whole millimetres, uint16."""
    return np.random.default_rng(100 + seed).integers(300, 5000, size, dtype=np.uint16)


def confidence(seed, size=LOW):
    return np.random.default_rng(200 + seed).integers(0, 3, size, dtype=np.uint8)


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def write_video(path, frames, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = cv2.VideoWriter.fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), codec, 30, size[::-1])
    assert writer.isOpened()
    for t in range(frames):
        writer.write(picture(t, *size)[..., ::-1])
    writer.release()


def decoded(path):
    """Every frame of a video, in order, by OpenCV alone."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        readable, image = capture.read()
        if not readable:
            return frames
        frames.append(image[..., ::-1])


def write_stray(folder, frames=6, video=None, arrays=False):
    write_video(folder / "rgb.mp4", frames if video is None else video)
    for t in range(frames):
        if arrays:
            (folder / "depth").mkdir(exist_ok=True)
            np.save(folder / f"depth/{t:06d}.npy", low_depth(t))
        else:
            write_image(folder / f"depth/{t:06d}.png", low_depth(t))
        write_image(folder / f"confidence/{t:06d}.png", confidence(t))
    (folder / "camera_matrix.csv").write_text("60.5,0.0,31.5\n0.0,61.0,23.5\n0.0,0.0,1.0\n")
    lines = [f"{100 + t / 30:.6f}, {t:06d}, 0, 0, 0, 0, 0, 0, 1" for t in range(frames)]
    (folder / "odometry.csv").write_text("timestamp, frame, x, y, z, qx, qy, qz, qw\n" + "\n".join(lines) + "\n")


# --- videos


def test_frames_of_a_video_by_index(tmp_path):
    path = tmp_path / "rgb.mp4"
    write_video(path, 150)
    expected = decoded(path)
    far = [np.abs(expected[77].astype(int) - picture(t)).mean() for t in range(150)]
    assert np.argmin(far) == 77
    video = ColorVideo(path)
    assert (video.length, len(expected)) == (150, 150)
    for index in [100, 3, 3, 149, 0, *range(60, 70), 148, 1, 140]:
        np.testing.assert_array_equal(video.read(index), expected[index])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(video)).read(120), expected[120])
    with pytest.raises(DataError, match=r"it ends after 150 frames, but there is depth for frame 150; copy"):
        video.read(150)
    np.testing.assert_array_equal(video.read(149), expected[149])


def test_frames_that_are_not_evenly_spaced(tmp_path):
    """As phones record: a plain seek of OpenCV lands beside the frame."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    path = tmp_path / "rgb.mp4"
    count = 300
    stamps = "settb=1/600,setpts='N*20+8*mod(N*N,3)+600*floor(N/90)'"  # jitter, and a pause every 90 frames
    command = [ffmpeg, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}"]
    command += ["-r", "30", "-i", "-", "-vf", stamps, "-fps_mode", "passthrough", "-enc_time_base", "1/600"]
    command += ["-c:v", "libx264", "-bf", "3", "-g", "100", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, input=b"".join(picture(t).tobytes() for t in range(count)), check=True)
    expected = decoded(path)
    assert len(expected) == count
    plain = cv2.VideoCapture(str(path))
    plain.set(cv2.CAP_PROP_POS_FRAMES, 250)
    assert not np.array_equal(plain.read()[1][..., ::-1], expected[250])
    video = ColorVideo(path)
    for index in [250, *np.random.default_rng(0).permutation(count)[:40]]:
        np.testing.assert_array_equal(video.read(index), expected[index])


class Slipping:
    """A capture whose seeks go wrong: they land ``late`` frames after their aim, or a frame is lost after them."""

    def __init__(self, capture, late=0, lose=False):
        self.capture, self.late, self.lose, self.sought = capture, late, lose, False

    def __getattr__(self, name):
        return getattr(self.capture, name)

    def set(self, what, value):
        self.sought = True
        return self.capture.set(what, value + self.late * 1000 / 30)

    def grab(self):
        if self.sought and self.lose and self.capture.get(cv2.CAP_PROP_POS_MSEC) > 0:
            self.sought = False
            self.capture.grab()
        return self.capture.grab()


@pytest.mark.parametrize("slip", [{"late": 10}, {"late": 45}, {"lose": True}])
def test_seeks_that_go_wrong_are_noticed(tmp_path, monkeypatch, slip):
    from stdnet_core.data import color_video

    path = tmp_path / "rgb.mp4"
    write_video(path, 150)
    expected = decoded(path)
    opened = []
    original = color_video.open_video
    monkeypatch.setattr(color_video, "open_video", lambda p: opened.append(Slipping(original(p), **slip)) or opened[-1])
    video = ColorVideo(path)
    for index in (149, 20, 21, 22, 120, 60, 140, 3, 80):
        np.testing.assert_array_equal(video.read(index), expected[index])
    assert any(capture.sought or slip.get("lose") for capture in opened)


def test_video_that_was_cut_off_in_the_middle(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    write_stray(tmp_path / "run", frames=60)
    whole = (tmp_path / "run/rgb.mp4").rename(tmp_path / "whole.mp4")
    path = tmp_path / "run/rgb.mp4"
    subprocess.run(
        [ffmpeg, "-loglevel", "error", "-i", str(whole), "-c", "copy", "-movflags", "+faststart", str(path)], check=True
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (sequence,) = open_source(tmp_path)
    expected = decoded(path)
    assert 10 < len(expected) < 50
    last = len(expected) - 1
    with pytest.raises(DataError, match=rf"rgb\.mp4: it ends after {len(expected)} frames, .* frame {last + 1}; copy"):
        sequence.clip(last, 2)
    rgb = sequence.clip(last, 1).rgb[0].numpy()
    np.testing.assert_array_equal(rgb, expected[last].transpose(2, 0, 1) / np.float32(255))


def test_one_video_is_open_at_a_time(tmp_path, monkeypatch):
    live = []
    from stdnet_core.data import color_video

    original = color_video.open_video
    monkeypatch.setattr(color_video, "open_video", lambda path: live.append(original(path)) or live[-1])
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4", 4)
    videos = [ColorVideo(tmp_path / f"{name}.mp4") for name in "abc"]
    for index in range(3):
        for video in videos:
            np.testing.assert_array_equal(video.read(index), decoded(video.path)[index])
            assert sum(capture.isOpened() for capture in live) == 1


def test_pixels_of_a_video_are_as_stored_whatever_its_rotation_tag_says(tmp_path):
    path = tmp_path / "rgb.mp4"
    write_video(path, 3)
    expected = decoded(path)
    data = bytearray(path.read_bytes())
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.index(matrix, data.index(b"tkhd"))
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).read()[1].shape[:2] == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(ColorVideo(path).read(2), expected[2])
    for t in range(3):
        write_image(tmp_path / f"depth/{t}.png", low_depth(t))
    frames = [frame.rgb for frame in from_video(path, tmp_path / "depth")]
    np.testing.assert_array_equal(frames, expected)


def test_depth_missing_in_the_middle_of_a_video_is_named(tmp_path):
    write_video(tmp_path / "rgb.mp4", 6)
    for t in (0, 1, 3, 4, 5):
        write_image(tmp_path / f"depth/{t:04d}.png", low_depth(t))
    with pytest.raises(DataError, match=r"between 0001.png and 0003.png depth images are missing"):
        from_video(tmp_path / "rgb.mp4", tmp_path / "depth")
    write_video(tmp_path / "five.mp4", 5)  # of the frames that have depth alone
    assert from_video(tmp_path / "five.mp4", tmp_path / "depth").length == 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "not a video that OpenCV can read; copy it again"),
        (lambda path: path.write_bytes(b""), "not a video that OpenCV can read"),
        (lambda path: path.unlink(), "no colour; expected images in rgb/ or a video such as rgb.mp4"),
    ],
)
def test_damaged_videos_are_named(tmp_path, damage, message):
    write_stray(tmp_path / "run", frames=20)
    damage(tmp_path / "run/rgb.mp4")
    (tmp_path / "run/rgb.avi").mkdir()  # still told by its entries' names
    with pytest.raises(DataError, match=message):
        open_source(f"stray:{tmp_path}")
    write_stray(tmp_path / "good")
    found = open_source(f"stray:{tmp_path}", skip_bad=True)
    assert ([s.name for s in found], len(found.left_out)) == (["good"], 1)


# --- Stray Scanner


@pytest.mark.parametrize("arrays", [False, True])
def test_stray_scanner(tmp_path, arrays):
    write_stray(tmp_path / "71de12f9", arrays=arrays)
    (sequence,) = found = open_source(tmp_path, lr_scale=4)
    assert (sequence.name, len(sequence), sequence.frame_size) == ("71de12f9", 6, (HEIGHT, WIDTH))
    expected = decoded(tmp_path / "71de12f9/rgb.mp4")
    for start, length, stride in ((2, 3, 1), (0, 6, 1), (1, 2, 4)):
        clip = sequence.clip(start, length, stride)
        for i, t in enumerate(range(start, start + length * stride, stride)):
            np.testing.assert_array_equal(clip.rgb[i].numpy(), expected[t].transpose(2, 0, 1) / np.float32(255))
            depth = np.where(confidence(t) > 0, low_depth(t), 0) / np.float32(1000)
            np.testing.assert_allclose(clip.depth_lr[i, 0].numpy(), depth, rtol=1e-6)
            assert clip.stamps[i] == pytest.approx(100 + t / 30, abs=1e-6)
    assert not clip.valid.any()
    assert clip.intrinsics.tolist() == [[60.5, 0, 31.5], [0, 61, 23.5], [0, 0, 1]]
    assert "confidence below 1 counts as invalid; ?min_confidence=0" in found.notes[0]
    copy = pickle.loads(pickle.dumps(sequence))
    assert torch.equal(copy.clip(4, 2).rgb, sequence.clip(4, 2).rgb)


def test_confidence_that_is_asked_for(tmp_path):
    write_stray(tmp_path / "run", frames=2)
    for least in (0, 1, 2):
        clip = open_source(f"{tmp_path}?min_confidence={least}")[0].clip(0, 2)
        np.testing.assert_array_equal(clip.depth_lr[1, 0].numpy() > 0, confidence(1) >= least)
    with pytest.raises(DataError, match="min_confidence is '3'; give 1 or 0 or 2"):
        open_source(f"{tmp_path}?min_confidence=3")
    write_image(tmp_path / "run/confidence/000001.png", np.full(LOW, 255, np.uint8))
    with pytest.raises(DataError, match=r"000001\.png: expected confidences 0, 1 and 2 .* up to 255"):
        open_source(tmp_path)[0].clip(0, 2)
    write_image(tmp_path / "run/confidence/000001.png", np.ones((6, 8), np.uint8))
    with pytest.raises(DataError, match="confidence of 8x6 pixels does not fit depth of 16x12"):
        open_source(tmp_path)[0].clip(0, 2)
    (tmp_path / "run/confidence/000001.png").unlink()
    with pytest.raises(DataError, match=r"2 depth, 1 confidence files; confidence of frame 1 is missing.*--skip-bad"):
        open_source(tmp_path)


def test_recording_without_stamps_or_confidence(tmp_path):
    write_stray(tmp_path / "run")
    for path in (tmp_path / "run/confidence").iterdir():
        path.unlink()
    (tmp_path / "run/odometry.csv").write_text("x, y, z, qx, qy, qz, qw\n0, 0, 0, 0, 0, 0, 1\n")
    found = open_source(tmp_path)
    clip = found[0].clip(0, 6)
    assert (clip.stamps, found.notes) == (None, [])
    np.testing.assert_allclose(clip.depth_lr[5, 0].numpy(), low_depth(5) / 1000, rtol=1e-6)
    (tmp_path / "run/odometry.csv").write_text("timestamp, frame\nnever, 0\n")
    with pytest.raises(DataError, match=r"odometry\.csv: expected a header and lines with timestamp and frame"):
        open_source(tmp_path)


def test_video_shorter_or_longer_than_its_depth(tmp_path):
    write_stray(tmp_path / "run", frames=6, video=4)
    with pytest.raises(
        DataError, match=r"rgb\.mp4: it has 4 frames, but depth continues to frame 5; copy .*--skip-bad"
    ):
        open_source(tmp_path)
    (sequence,) = found = open_source(tmp_path, skip_bad=True)
    assert (len(sequence), len(found.left_out)) == (4, 1)
    write_stray(tmp_path / "run", frames=6, video=9)
    (sequence,) = found = open_source(tmp_path)
    assert len(sequence) == 6
    assert "run: rgb.mp4 has 9 frames; only the 6 with depth are used" in found.notes
    (tmp_path / "run/depth/000002.png").unlink()
    (tmp_path / "run/confidence/000002.png").unlink()
    clip = open_source(tmp_path)[0].clip(2, 1)
    np.testing.assert_array_equal(
        clip.rgb[0].numpy(), decoded(tmp_path / "run/rgb.mp4")[3].transpose(2, 0, 1) / np.float32(255)
    )


def test_distances_along_rays_of_a_phone(tmp_path):
    write_stray(tmp_path / "run", frames=1)
    write_image(tmp_path / "run/depth/000000.png", np.full(LOW, 2000, np.uint16))
    clip = open_source(f"{tmp_path}?distance=ray&min_confidence=0")[0].clip(0, 1)
    # The corner cell's centre is pixel (1.5, 1.5) of the video.
    corner = 2 / (1 + ((1.5 - 31.5) / 60.5) ** 2 + ((1.5 - 23.5) / 61) ** 2) ** 0.5
    assert clip.depth_lr[0, 0, 0, 0].item() == pytest.approx(corner, rel=1e-6)


# --- Record3D


def exr_bytes(image, compression):
    """An OpenEXR file of one channel R; compression 0 is none, 2 ZIPS, 3 ZIP."""
    height, width = image.shape
    kind = {np.dtype("<f2"): 1, np.dtype("<f4"): 2}[image.dtype]
    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = [
        (b"channels", b"chlist", b"R\0" + struct.pack("<4i", kind, 0, 1, 1) + b"\0"),
        (b"compression", b"compression", bytes([compression])),
        (b"dataWindow", b"box2i", box),
        (b"displayWindow", b"box2i", box),
        (b"lineOrder", b"lineOrder", b"\0"),
    ]
    header = b"\x76\x2f\x31\x01" + struct.pack("<I", 2)
    header += b"".join(n + b"\0" + t + b"\0" + struct.pack("<i", len(v)) + v for n, t, v in attributes) + b"\0"
    lines = 16 if compression == 3 else 1
    blocks = []
    for y in range(0, height, lines):
        raw = image[y : y + lines].tobytes()
        packed = raw
        if compression:
            values = np.frombuffer(raw[0::2] + raw[1::2], np.uint8).astype(np.int64)
            values[1:] = (np.diff(values) + 128) % 256
            packed = min(zlib.compress(values.astype(np.uint8).tobytes()), raw, key=len)
        blocks.append(struct.pack("<2i", y, len(packed)) + packed)
    first = len(header) + 8 * len(blocks)
    offsets = [first + sum(map(len, blocks[:i])) for i in range(len(blocks))]
    return header + struct.pack(f"<{len(blocks)}Q", *offsets) + b"".join(blocks)


@pytest.mark.parametrize("compression", [0, 2, 3])
@pytest.mark.parametrize("kind", ["<f2", "<f4"])
@pytest.mark.parametrize("noise", [0, 1])
def test_exr(tmp_path, compression, kind, noise):
    image = np.linspace(0.5, 4, 37 * 15).reshape(37, 15) + noise * np.random.default_rng(0).random((37, 15))
    path = tmp_path / "0.exr"
    path.write_bytes(exr_bytes(image.astype(kind), compression))
    np.testing.assert_array_equal(read_exr(path), image.astype(kind))


def test_exr_that_cannot_be_read_is_named(tmp_path):
    data = exr_bytes(np.ones((37, 15), np.float32), 3)
    path = tmp_path / "0.exr"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"0\.exr is damaged or cut off"):
        read_exr(path)
    path.write_bytes(data.replace(b"compression\0\1\0\0\0\3", b"compression\0\1\0\0\0\4"))
    with pytest.raises(DataError, match=r"0\.exr: expected one channel .* found PIZ of channels R; store depth as"):
        read_exr(path)


def write_record3d(folder, frames=3, **changes):
    for t in range(frames):
        write_image(folder / f"rgb/{t}.png", picture(t))
        (folder / "depth").mkdir(exist_ok=True)
        (folder / f"depth/{t}.exr").write_bytes(exr_bytes((low_depth(t) / 1000).astype(np.float16), 3))
    metadata = {
        "w": 2 * WIDTH,
        "h": 2 * HEIGHT,
        "fps": 60,
        "K": [121, 0, 0, 0, 122, 0, 63.5, 47.5, 1],
        "poses": [[0, 0, 0, 1, 0, 0, 0]] * frames,
        "frameTimestamps": [t / 50 for t in range(frames)],
    }
    (folder / "metadata.json").write_text(json.dumps(metadata | changes))


def test_record3d(tmp_path):
    write_record3d(tmp_path / "EXR_RGBD", frames=12)
    (sequence,) = open_source(tmp_path)
    assert (sequence.name, len(sequence), sequence.lr_scale) == ("EXR_RGBD", 12, 4)
    clip = sequence.clip(8, 4)  # 10.exr follows 9.exr
    for i, t in enumerate(range(8, 12)):
        np.testing.assert_array_equal(clip.rgb[i].numpy(), picture(t).transpose(2, 0, 1) / np.float32(255))
        np.testing.assert_allclose(clip.depth_lr[i, 0].numpy(), low_depth(t) / 1000, rtol=1e-3)
    assert clip.stamps.tolist() == [t / 50 for t in range(8, 12)]
    assert clip.intrinsics.tolist() == [[60.5, 0, 31.5], [0, 61, 23.5], [0, 0, 1]]
    write_record3d(tmp_path / "EXR_RGBD", frames=2, frameTimestamps=None, K=[121, 0, 63.5, 0, 122, 47.5, 0, 0, 1])
    clip = open_source(f"record3d:{tmp_path}")[0].clip(0, 2)
    assert clip.stamps.tolist() == [0, 1 / 60]
    assert clip.intrinsics.tolist() == [[60.5, 0, 31.5], [0, 61, 23.5], [0, 0, 1]]


def test_record3d_with_confidence_and_a_video(tmp_path):
    write_record3d(tmp_path / "a")
    for t in range(3):
        (tmp_path / f"a/rgb/{t}.png").unlink()
        write_image(tmp_path / f"a/confidence/{t}.png", confidence(t))
    write_video(tmp_path / "a/rgb.mp4", 3)
    clip = open_source(tmp_path)[0].clip(0, 3)
    np.testing.assert_array_equal(clip.depth_lr[2, 0].numpy() > 0, confidence(2) > 0)
    expected = decoded(tmp_path / "a/rgb.mp4")[2]
    np.testing.assert_array_equal(clip.rgb[2].numpy(), expected.transpose(2, 0, 1) / np.float32(255))


def test_record3d_as_it_is_says_what_to_export(tmp_path):
    (tmp_path / "a/rgbd").mkdir(parents=True)
    (tmp_path / "a/metadata").write_text("{}")
    (tmp_path / "b.r3d").write_bytes(b"PK")
    for source in (tmp_path / "a", tmp_path / "b.r3d"):
        with pytest.raises(DataError, match=r"LZFSE; share it from Record3D as 'EXR \+ JPG sequence'"):
            open_source(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"K": [1, 2]}, "expected K of 9 numbers, w and h"),
        ({"K": [0] * 9}, "K, w and h must be positive"),
        ({"w": "wide"}, "expected K of 9 numbers, w and h"),
        ({"frameTimestamps": ["soon"]}, "expected numbers in frameTimestamps and fps"),
    ],
)
def test_wrong_metadata_of_record3d_are_named(tmp_path, changes, message):
    write_record3d(tmp_path / "a", **changes)
    with pytest.raises(DataError, match=rf"metadata\.json: {message}"):
        open_source(tmp_path)


def test_intrinsics_of_a_picture_of_other_proportions_are_refused(tmp_path):
    write_record3d(tmp_path / "a", w=HEIGHT, h=WIDTH)
    with pytest.raises(DataError, match="intrinsics are for 48x64 pixels, another aspect ratio than the frames' 64x48"):
        open_source(tmp_path)


def test_metadata_of_another_kind_leave_a_folder_a_folder(tmp_path):
    write_record3d(tmp_path / "a")
    (tmp_path / "a/metadata.json").write_text('{"author": "x"}')
    (sequence,) = open_source(tmp_path)
    assert (len(sequence), sequence.intrinsics, sequence.lr_scale) == (3, None, 4)
    (tmp_path / "a/metadata.json").write_text("no json")
    with pytest.raises(DataError, match=r"metadata\.json: no JSON object"):
        open_source(f"record3d:{tmp_path}")


# --- ScanNet++


def write_scannetpp(scene, frames=5):
    folder = scene / "iphone"
    write_video(folder / "rgb.mkv", frames)
    write_video(folder / "rgb_mask.mkv", frames)
    poses = {}
    for t in range(frames):
        write_image(folder / f"depth/frame_{t:06d}.png", low_depth(t))
        intrinsic = [[60.5 + t, 0, 31.5], [0, 61 + t, 23.5], [0, 0, 1]]
        poses[f"frame_{t:06d}"] = {"timestamp": 10 + t / 60, "pose": np.eye(4).tolist(), "intrinsic": intrinsic}
    (folder / "pose_intrinsic_imu.json").write_text(json.dumps(poses))
    (folder / "exif.json").write_text("{}")


def test_scannetpp(tmp_path):
    write_scannetpp(tmp_path / "data/036bce3393")
    assert open_source(tmp_path / "data/036bce3393/iphone")[0].name == "036bce3393"
    (sequence,) = open_source(tmp_path)
    assert (sequence.name, len(sequence)) == ("data/036bce3393", 5)
    clip = sequence.clip(1, 4)
    expected = decoded(tmp_path / "data/036bce3393/iphone/rgb.mkv")
    for i in range(4):
        np.testing.assert_array_equal(clip.rgb[i].numpy(), expected[i + 1].transpose(2, 0, 1) / np.float32(255))
        np.testing.assert_allclose(clip.depth_lr[i, 0].numpy(), low_depth(i + 1) / 1000, rtol=1e-6)
    assert clip.stamps.tolist() == [10 + t / 60 for t in range(1, 5)]
    assert clip.intrinsics.tolist() == [[60.5, 0, 31.5], [0, 61, 23.5], [0, 0, 1]]


def test_scannetpp_with_colour_of_some_frames_extracted(tmp_path):
    write_scannetpp(tmp_path / "s")
    for t in (0, 3):
        write_image(tmp_path / f"s/iphone/rgb/frame_{t:06d}.png", picture(t))
    (sequence,) = found = open_source(tmp_path)
    assert "s: 2 of 5 frames have colour in rgb/; the others are left out" in found.notes
    clip = sequence.clip(0, 2)
    np.testing.assert_array_equal(clip.rgb[1].numpy(), picture(3).transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_allclose(clip.depth_lr[1, 0].numpy(), low_depth(3) / 1000, rtol=1e-6)


def test_scannetpp_as_downloaded_says_how_to_extract_depth(tmp_path):
    write_scannetpp(tmp_path / "s")
    Path(tmp_path / "s/iphone/depth").rename(tmp_path / "elsewhere")
    (tmp_path / "s/iphone/depth.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"depth: no such folder; write it from depth.bin with iphone/prepare_iphone"):
        open_source(tmp_path / "s")
    (tmp_path / "elsewhere").rename(tmp_path / "s/iphone/depth")
    (tmp_path / "s/iphone/pose_intrinsic_imu.json").write_text('{"frame_000000": {}}')
    with pytest.raises(DataError, match=r"imu\.json: expected frame_000000 and so on, each with intrinsic"):
        open_source(tmp_path)


# --- ARKitScenes


def write_arkitscenes(folder, color="vga_wide", stamps=(305.244, 305.278, 305.311), size=(HEIGHT, WIDTH)):
    """Colour at ``stamps``, low-resolution depth 60 times a second; what is written at a time has its index as seed."""
    video = folder.name
    for t, stamp in enumerate(stamps):
        write_image(folder / f"{color}/{video}_{stamp:.3f}.png", picture(t, *size))
        camera = folder / f"{color}_intrinsics/{video}_{stamp:.3f}.pincam"
        camera.parent.mkdir(exist_ok=True)
        camera.write_text(f"{size[1]} {size[0]} {60.5 + t} {61 + t} 31.5 23.5")
    for t, stamp in enumerate(np.arange(stamps[0] - 1 / 60, stamps[-1] + 1 / 60, 1 / 60)):
        write_image(folder / f"lowres_depth/{video}_{stamp + 0.001:.3f}.png", low_depth(t))
        write_image(folder / f"confidence/{video}_{stamp + 0.001:.3f}.png", confidence(t))


def test_arkitscenes_without_truth(tmp_path):
    write_arkitscenes(tmp_path / "Training/41069021")
    (sequence,) = found = open_source(tmp_path)
    assert (sequence.name, len(sequence), sequence.lr_scale) == ("Training/41069021", 3, 4)
    clip = sequence.clip(0, 3)
    for t in range(3):
        np.testing.assert_array_equal(clip.rgb[t].numpy(), picture(t).transpose(2, 0, 1) / np.float32(255))
        near = 1 + 2 * t  # 60 depth images and 30 colour images a second
        depth = np.where(confidence(near) > 0, low_depth(near), 0) / np.float32(1000)
        np.testing.assert_allclose(clip.depth_lr[t, 0].numpy(), depth, rtol=1e-6)
    assert not clip.valid.any()
    assert clip.stamps.tolist() == [305.244, 305.278, 305.311]
    assert clip.intrinsics.tolist() == [[60.5, 0, 31.5], [0, 61, 23.5], [0, 0, 1]]
    assert ["confidence below 1" in note for note in found.notes] == [True]


@pytest.mark.parametrize("color", ["wide", "color"])
def test_arkitscenes_with_truth_of_some_frames(tmp_path, color):
    folder = tmp_path / "41069021"
    write_arkitscenes(folder, color, stamps=(305.244, 307.343, 309.742))
    write_arkitscenes(folder, "vga_wide", stamps=(305.244, 305.278), size=(24, 32))
    for t, stamp in ((0, 305.244), (2, 309.742)):
        write_image(folder / f"highres_depth/41069021_{stamp:.3f}.png", low_depth(50 + t, (HEIGHT, WIDTH)))
    (sequence,) = found = open_source(folder)
    clip = sequence.clip(0, 3)
    for t in range(3):
        np.testing.assert_array_equal(clip.rgb[t].numpy(), picture(t).transpose(2, 0, 1) / np.float32(255))
        truth = low_depth(50 + t, (HEIGHT, WIDTH)) / np.float32(1000) * (t != 1)
        np.testing.assert_allclose(clip.depth[t, 0].numpy(), truth, rtol=1e-6)
        assert clip.depth_lr[t].any()
    assert clip.valid.flatten(1).any(1).tolist() == [True, False, True]
    assert f"41069021: 2 of 3 frames of {color}/ have ground truth in highres_depth/" in found.notes
    assert any("are 2.2 s apart, too far for a video; ?color=vga_wide" in note for note in found.notes)
    (sequence,) = open_source(f"{folder}?color=vga_wide")
    assert (sequence.frame_size, sequence.lr_scale) == ((24, 32), 2)
    with pytest.raises(DataError, match="color is 'ultrawide'; ARKitScenes has wide, color, vga_wide, lowres_wide"):
        open_source(f"{folder}?color=ultrawide")


def test_arkitscenes_at_the_size_of_its_depth(tmp_path):
    write_arkitscenes(tmp_path / "1", "lowres_wide", size=LOW)
    (tmp_path / "1/lowres_wide_intrinsics").rename(tmp_path / "1/vga_wide_intrinsics")
    for path in (tmp_path / "1/vga_wide_intrinsics").iterdir():
        path.write_text("64 48 60 60 31.5 23.5")
    clip = open_source(tmp_path)[0].clip(1, 1)
    np.testing.assert_array_equal(clip.valid[0, 0].numpy(), confidence(3) > 0)
    assert clip.depth_lr is None
    assert clip.intrinsics.tolist() == [[15, 0, 7.5], [0, 15, 5.5], [0, 0, 1]]


def test_arkitscenes_frames_without_partners(tmp_path):
    folder = tmp_path / "1"
    write_arkitscenes(folder)
    for path in sorted((folder / "lowres_depth").iterdir())[2:5]:
        path.unlink()
    (sequence,) = found = open_source(tmp_path)
    assert len(sequence) == 2
    assert "1: 2 of 3 frames of vga_wide/ have depth; the others are left out" in found.notes
    min((folder / "vga_wide").iterdir()).write_bytes(b"")
    with pytest.raises(DataError, match=r"\.png is empty.*--skip-bad"):
        open_source(tmp_path)
    assert len(open_source(tmp_path, skip_bad=True)[0]) == 1
    write_image(min((folder / "vga_wide").iterdir()), picture(0))
    for path in (folder / "vga_wide_intrinsics").iterdir():
        path.write_text("640 480 500")
    with pytest.raises(DataError, match=r"\.pincam: expected width, height, fx, fy, cx, cy"):
        open_source(tmp_path)
    for path in (folder / "confidence").iterdir():
        path.unlink()
    for path in (folder / "lowres_depth").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="1: no frames of vga_wide/ within 17 ms of lowres_depth/"):
        open_source(tmp_path)


# --- 7-Scenes


def write_seven_scenes(folder, frames=3):
    for t in range(frames):
        depth = low_depth(t, (HEIGHT, WIDTH))
        depth[:4] = 65535
        write_image(folder / f"frame-{t:06d}.color.png", picture(t))
        write_image(folder / f"frame-{t:06d}.depth.png", depth)
        (folder / f"frame-{t:06d}.pose.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")


def test_seven_scenes(tmp_path):
    for name in ("chess/seq-01", "chess/seq-02"):
        write_seven_scenes(tmp_path / name)
    found = open_source(tmp_path)
    assert [s.name for s in found] == ["chess/seq-01", "chess/seq-02"]
    clip = found[1].clip(1, 2)
    for i, t in enumerate((1, 2)):
        np.testing.assert_array_equal(clip.rgb[i].numpy(), picture(t).transpose(2, 0, 1) / np.float32(255))
        depth = low_depth(t, (HEIGHT, WIDTH)) / np.float32(1000)
        depth[:4] = 0
        np.testing.assert_allclose(clip.depth[i, 0].numpy(), depth, rtol=1e-6)
    scale = WIDTH / 640  # the published camera is for 640x480
    expected = [[585 * scale, 0, 320.5 * scale - 0.5], [0, 585 * scale, 240.5 * scale - 0.5], [0, 0, 1]]
    np.testing.assert_allclose(clip.intrinsics.numpy(), expected, rtol=1e-6)
    assert sum("not registered to colour" in note for note in found.notes) == 1
    assert any("is 65535, which counts as invalid" in note for note in found.notes)
    (tmp_path / "chess/camera-intrinsics.txt").write_text("570 0 319\n0 571 239\n0 0 1\n")
    camera = open_source(f"7scenes:{tmp_path / 'chess'}")[0].intrinsics
    assert camera.tolist() == [[570, 0, 319], [0, 571, 239], [0, 0, 1]]
    (tmp_path / "chess/seq-01/frame-000001.depth.png").unlink()
    with pytest.raises(DataError, match=r"seq-01: .*; depth of frame 1 is missing.*--skip-bad"):
        open_source(tmp_path)


def test_seven_scenes_with_larger_jpeg_colour(tmp_path):
    write_seven_scenes(tmp_path / "seq-01")
    for path in sorted((tmp_path / "seq-01").glob("*.color.png")):
        image = cv2.imread(str(path))
        path.unlink()
        write_image(path.with_suffix(".jpg"), cv2.resize(image, (2 * WIDTH, 2 * HEIGHT)))
    (sequence,) = open_source(tmp_path)
    assert (len(sequence), sequence.lr_scale) == (3, 2)
    assert sequence.intrinsics[0, 0] == pytest.approx(585 * 2 * WIDTH / 640)
