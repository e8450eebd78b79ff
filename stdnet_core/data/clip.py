"""The common type of all data: a short video of aligned colour and depth.

Synthetic scenes, published data sets, folders and ROS bags all yield :class:`RgbdClip`, the only input of training,
evaluation and prediction. Depth is in metres, 0 where there is no measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from stdnet_core.errors import InputError
from stdnet_core.short_repr import short_repr


@dataclass(frozen=True)
class RgbdClip:
    """T frames of aligned colour and depth.

    Attributes:
        rgb: (T, 3, H, W) float32, 0..1.
        depth: (T, 1, H, W) float32, metres along the optical axis, 0 where invalid. All zero if the source has only
            low-resolution depth.
        valid: (T, 1, H, W) bool, True where ``depth`` is a measurement.
        intrinsics: (3, 3) float32 or None when unknown; pixels, centres at integers.
        flow: (T-1, 2, H, W) float32 or None; displacement (x, y) in pixels from frame t to frame t+1.
        depth_lr: (T, 1, h, w) float32, metres, 0 invalid; None unless the source has low-resolution depth of
            its own.
        stamps: (T,) float64 seconds, or None.
        name: where the clip comes from, for messages and reports.
    """

    rgb: Tensor
    depth: Tensor
    valid: Tensor
    intrinsics: Tensor | None = None
    flow: Tensor | None = None
    depth_lr: Tensor | None = None
    stamps: Tensor | None = None
    name: str = ""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.rgb.ndim != 4 or self.rgb.shape[1] != 3:
            self._refuse("rgb", "(T, 3, H, W)")
        frames, _, height, width = self.rgb.shape
        expected: dict[str, tuple[int, ...]] = {
            "depth": (frames, 1, height, width),
            "valid": (frames, 1, height, width),
            "intrinsics": (3, 3),
            "flow": (frames - 1, 2, height, width),
            "stamps": (frames,),
        }
        for field, shape in expected.items():
            value = getattr(self, field)
            if value is not None and tuple(value.shape) != shape:
                self._refuse(field, str(shape))
        if self.depth_lr is not None and (self.depth_lr.ndim != 4 or self.depth_lr.shape[:2] != (frames, 1)):
            self._refuse("depth_lr", f"({frames}, 1, h, w)")

    def _refuse(self, field: str, expected: str) -> None:
        shape = tuple(getattr(self, field).shape)
        raise InputError(f"clip {self.name!r}: {field} has shape {shape}, expected {expected}")

    def __len__(self) -> int:
        return self.rgb.shape[0]

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.rgb.shape[2], self.rgb.shape[3]

    @property
    def lr_scale(self) -> float | None:
        """H / h of the source's own low-resolution depth, or None without one."""
        return None if self.depth_lr is None else self.rgb.shape[2] / self.depth_lr.shape[2]

    def crop(self, top: int, left: int, height: int, width: int) -> RgbdClip:
        """The window of ``height`` x ``width`` pixels whose first pixel is (``top``, ``left``).

        The principal point is shifted accordingly. If the clip has its own ``depth_lr``, the window's edges must lie on
        edges of low-resolution cells, so that both stay aligned.

        Raises:
            InputError: the window leaves the frame, is empty or cuts a low-resolution cell.
        """
        full_height, full_width = self.frame_size
        inside = min(top, left) >= 0 and top + height <= full_height and left + width <= full_width
        if not inside or height < 1 or width < 1:
            raise InputError(
                f"clip {self.name!r}: the crop of {height}x{width} at row {top}, column {left} is not inside "
                f"the frame of {full_height}x{full_width}"
            )

        def window(tensor: Tensor) -> Tensor:
            return tensor[..., top : top + height, left : left + width]

        depth_lr = self.depth_lr
        if depth_lr is not None:
            rows = _cells(top, height, full_height, depth_lr.shape[2], self.name)
            columns = _cells(left, width, full_width, depth_lr.shape[3], self.name)
            depth_lr = depth_lr[..., rows, columns]
        intrinsics = self.intrinsics
        if intrinsics is not None:
            intrinsics = intrinsics.clone()
            intrinsics[0, 2] -= left
            intrinsics[1, 2] -= top
        return replace(
            self,
            rgb=window(self.rgb),
            depth=window(self.depth),
            valid=window(self.valid),
            flow=None if self.flow is None else window(self.flow),
            depth_lr=depth_lr,
            intrinsics=intrinsics,
        )

    def frames(self, start: int, stop: int) -> RgbdClip:
        """Frames ``start`` to ``stop`` (exclusive) as a new clip.

        Raises:
            InputError: the range is empty or leaves the clip.
        """
        if not 0 <= start < stop <= len(self):
            raise InputError(f"clip {self.name!r}: frames {start} to {stop} are not in a clip of {len(self)}")
        return replace(
            self,
            rgb=self.rgb[start:stop],
            depth=self.depth[start:stop],
            valid=self.valid[start:stop],
            flow=None if self.flow is None else self.flow[start : stop - 1],
            depth_lr=None if self.depth_lr is None else self.depth_lr[start:stop],
            stamps=None if self.stamps is None else self.stamps[start:stop],
        )

    def to(self, device: torch.device | str) -> RgbdClip:
        """The clip with every tensor on ``device``."""
        return self._map(lambda tensor: tensor.to(device))

    def contiguous(self) -> RgbdClip:
        """The clip with every tensor contiguous in memory (crops and flips create views)."""
        return self._map(lambda tensor: tensor.contiguous())

    def _map(self, change: Callable[[Tensor], Tensor]) -> RgbdClip:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: change(t) for name, t in values.items() if isinstance(t, Tensor)}
        return replace(self, **changed)


def _cells(first: int, size: int, full: int, cells: int, name: str) -> slice:
    """The low-resolution cells that a window of pixels covers exactly, on one axis."""
    edges = first * cells, (first + size) * cells
    if any(edge % full for edge in edges):
        raise InputError(
            f"clip {name!r}: a crop from pixel {first} to {first + size} cuts a low-resolution cell "
            f"({full} pixels over {cells} cells); use multiples of {full / cells:g}"
        )
    return slice(edges[0] // full, edges[1] // full)
