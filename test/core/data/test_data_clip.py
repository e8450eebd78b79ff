"""RgbdClip: shapes are checked, crops stay aligned."""

import pytest
import torch

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_sequence import RgbdSequence, frame_indices
from stdnet_core.errors import InputError


def clip(frames=3, height=24, width=32, **changes):
    depth = torch.arange(frames * height * width, dtype=torch.float32).view(frames, 1, height, width)
    values = {
        "rgb": torch.rand(frames, 3, height, width),
        "depth": depth,
        "valid": depth > 0,
        "intrinsics": torch.tensor([[40.0, 0, 13.25], [0, 50.0, 9.5], [0, 0, 1]]),
        "flow": torch.rand(frames - 1, 2, height, width),
        "depth_lr": depth[..., ::8, ::8],
        "stamps": torch.arange(frames, dtype=torch.float64),
        "name": "c",
    }
    return RgbdClip(**(values | changes))


def test_crop_takes_the_same_window_of_everything():
    whole = clip()
    part = whole.crop(8, 16, 16, 8)
    assert part.frame_size == (16, 8)
    assert torch.equal(part.depth, whole.depth[..., 8:24, 16:24])
    assert torch.equal(part.rgb, whole.rgb[..., 8:24, 16:24])
    assert torch.equal(part.flow, whole.flow[..., 8:24, 16:24])
    assert torch.equal(part.depth_lr, part.depth[..., ::8, ::8])
    assert part.intrinsics.tolist() == [[40, 0, 13.25 - 16], [0, 50, 9.5 - 8], [0, 0, 1]]
    assert whole.intrinsics[0, 2] == 13.25
    assert part.lr_scale == 8


def test_crop_that_cuts_a_cell_or_leaves_the_frame_is_refused():
    with pytest.raises(InputError, match="multiples of 8"):
        clip().crop(4, 0, 8, 8)
    assert clip(depth_lr=None).crop(4, 3, 8, 8).frame_size == (8, 8)
    for window in ((-8, 0, 8, 8), (0, 0, 32, 8), (0, 32, 8, 8), (0, 0, 0, 8)):
        with pytest.raises(InputError, match="not inside"):
            clip().crop(*window)


def test_frames_take_the_flow_between_them():
    whole = clip(5)
    part = whole.frames(1, 4)
    assert len(part) == 3
    assert torch.equal(part.flow, whole.flow[1:3])
    assert part.stamps.tolist() == [1, 2, 3]
    assert len(whole.frames(2, 3)) == 1
    with pytest.raises(InputError, match="frames 4 to 6"):
        whole.frames(4, 6)


def test_moving_and_making_contiguous_keep_the_values():
    whole = clip()
    moved = whole.crop(0, 8, 16, 16).to("cpu").contiguous()
    assert moved.rgb.is_contiguous()
    assert torch.equal(moved.rgb, whole.rgb[..., :16, 8:24])
    assert moved.to("meta").depth.device.type == "meta"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rgb", torch.zeros(3, 4, 24, 32)),
        ("depth", torch.zeros(3, 24, 32)),
        ("valid", torch.zeros(3, 1, 24, 31, dtype=torch.bool)),
        ("flow", torch.zeros(3, 2, 24, 32)),
        ("intrinsics", torch.zeros(4, 4)),
        ("depth_lr", torch.zeros(2, 1, 3, 4)),
        ("stamps", torch.zeros(2)),
    ],
)
def test_wrong_shapes_are_named(name, value):
    with pytest.raises(InputError, match=f"clip 'c': {name} has shape"):
        clip(**{name: value})


def test_frame_indices():
    class Ten:
        name, frame_size, intrinsics = "ten", (4, 4), None

        def __len__(self):
            return 10

        def clip(self, start, length, stride=1):
            raise NotImplementedError

    assert isinstance(Ten(), RgbdSequence)
    assert list(frame_indices(Ten(), 0, 4, 3)) == [0, 3, 6, 9]
    for wrong in ((1, 4, 3), (-1, 2, 1), (0, 0, 1), (0, 2, 0), (9, 2, 1)):
        with pytest.raises(InputError, match="ten: "):
            frame_indices(Ten(), *wrong)
