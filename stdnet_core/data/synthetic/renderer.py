"""Renders scenes to clips: colour, depth, validity and flow, for many scenes and frames at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stdnet_core.data.clip import RgbdClip
from stdnet_core.errors import InputError

from .motion import look_at
from .raycast import Pairs, Rays, cast, cast_among
from .scene import Array, Scene
from .sensor import expose
from .shading import ShadingTables, ShadowMaps, shade
from .textures import TextureBank

_AA_OFFSETS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))


@dataclass(frozen=True)
class RenderOptions:
    """What to render besides depth.

    Attributes:
        antialias: 2x2 colour samples at outlines.
        shadows: cast shadows.
        sensor: the camera's imperfections.
        shadow_size: side of a shadow map in pixels.
    """

    antialias: bool = True
    shadows: bool = True
    sensor: bool = True
    shadow_size: int = 128


Integers = NDArray[np.signedinteger[Any]]


def _inverse(pose: Array) -> Array:
    """Inverses of rigid poses (..., 4, 4)."""
    result = np.zeros_like(pose)
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    result[..., :3, :3] = rotation
    result[..., :3, 3] = -(rotation @ pose[..., :3, 3:])[..., 0]
    result[..., 3, 3] = 1
    return result


class _Assembly:
    """The scenes' primitives as pairs; pair = primitive * T + t, view = scene * T + t."""

    def __init__(self, scenes: Sequence[Scene], frames: Sequence[int], device: torch.device) -> None:
        self.device, self.scenes, self.frames, self.length = device, scenes, list(frames), len(frames)
        self.count = np.array([len(scene.kind) for scene in scenes])
        self.owner = np.repeat(np.arange(len(scenes)), self.count)  # scene of each primitive
        self.world_from_object = self._world_from_object(self.frames)  # (P, T, 4, 4)
        self.camera_from_object = self._camera_from_object(self.frames)
        self.kind = np.concatenate([scene.kind for scene in scenes])
        self.half = np.concatenate([scene.half for scene in scenes])
        self.moves = np.concatenate([scene.node > 0 for scene in scenes])
        view = self.owner[:, None] * self.length + np.arange(self.length)
        self.pairs = self._pairs(self.camera_from_object, view, np.arange(len(self.kind)))
        lights = [scene.light for scene in scenes]
        position = np.array([light.position for light in lights], float)
        self.light_from_world = _inverse(look_at(position, np.array([light.target for light in lights], float)))

    def _world_from_object(self, frames: list[int]) -> Array:
        return np.concatenate([scene.nodes[:, frames][scene.node] @ scene.local[:, None] for scene in self.scenes])

    def _camera_from_object(self, frames: list[int]) -> Array:
        camera = np.stack([scene.camera[frames] for scene in self.scenes])
        return _inverse(camera)[self.owner] @ self._world_from_object(frames)

    def _pairs(self, camera_from_object: Array, view: Integers, primitive: Integers) -> Pairs:
        """Pairs of the given primitives with poses (p, t, 4, 4) in views (p, t)."""
        times = view.shape[1]
        return Pairs.build(
            self.integers(np.repeat(self.kind[primitive], times)),
            self.integers(view.reshape(-1)),
            torch.from_numpy(camera_from_object.reshape(-1, 4, 4)).to(self.device),
            torch.from_numpy(np.repeat(self.half[primitive], times, 0)).to(self.device),
        )

    def integers(self, values: Integers) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)

    def floats(self, values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self.device)

    def tables(self, frames: Sequence[int]) -> ShadingTables:
        """The tables that shading uses."""
        first = np.cumsum([0] + [len(scene.materials) for scene in self.scenes[:-1]])
        material = np.concatenate([scene.material for scene in self.scenes]) + first[self.owner]
        faces = np.concatenate([scene.faces for scene in self.scenes])
        light = np.stack([scene.light.position for scene in self.scenes])[self.owner]
        to_object = np.swapaxes(self.world_from_object[..., :3, :3], -1, -2)
        offset = light[:, None] - self.world_from_object[..., :3, 3]
        light_in_object = (to_object @ offset[..., None])[..., 0]
        light_from_object = self.light_from_world[self.owner][:, None] @ self.world_from_object
        lighting = np.concatenate(
            (light_in_object, to_object[..., 2], light_from_object[..., :3, :].reshape(*offset.shape[:2], 12)), -1
        )
        lamps = np.array([(*s.light.colour, *s.light.ambient, 1 / s.light.reach) for s in self.scenes for _ in frames])
        return ShadingTables(
            geometry=ShadingTables.geometry_of(
                self.pairs,
                self.integers(np.repeat(material, self.length)),
                self.integers(np.repeat(faces, self.length)),
            ),
            lighting=self.floats(lighting.reshape(-1, 18).T),
            materials=self.floats(np.concatenate([scene.materials for scene in self.scenes]).T),
            lamps=self.floats(lamps.T),
        )

    def shadows(self, size: int) -> ShadowMaps:
        """Shadow maps of the lights: one per scene for static objects, and one per view for moving ones."""
        number, length = len(self.scenes), self.length
        spread = np.array([scene.light.spread for scene in self.scenes])
        focal = self.floats(np.repeat(size / 2 / np.tan(spread)[:, None], 2, 1))
        centre = torch.full_like(focal, (size - 1) / 2)
        still, moving = (~self.moves).nonzero()[0], self.moves.nonzero()[0]
        from_object = self.light_from_world[self.owner][:, None] @ self.world_from_object
        still_pairs = self._pairs(from_object[still, :1], self.owner[still, None], still)
        depth, _ = cast(still_pairs, Rays(focal, centre, size, size))
        depths, layer = [depth], torch.arange(number, device=self.device)
        focal, centre = focal.repeat_interleave(length, 0), centre.repeat_interleave(length, 0)
        if len(moving):
            view = self.owner[moving, None] * length + np.arange(length)
            depth, _ = cast(self._pairs(from_object[moving], view, moving), Rays(focal, centre, size, size))
            depths.append(depth)
            layer_moving = number + torch.arange(number * length, device=self.device)
        else:
            layer_moving = layer.repeat_interleave(length)
        rays = Rays(focal, centre, size, size)
        return ShadowMaps(torch.cat(depths), rays, layer.repeat_interleave(length), layer_moving)

    def motion_in_list(self) -> Tensor:
        """(12, pairs) pose that maps a point seen on a pair to the camera of the following frame in the list."""
        return self._motion(np.concatenate((self.camera_from_object[:, 1:], self.camera_from_object[:, -1:]), 1))

    def motion_to_next_frame(self) -> Tensor:
        """(12, pairs) pose that maps a point seen on a pair to the camera of the scene's next frame.

        After a scene's last frame, the motion from the frame before continues unchanged."""
        ahead = [min(frame + 1, len(self.scenes[0].camera) - 1) for frame in self.frames]
        following = self._camera_from_object(ahead)
        last = np.array([frame == after for frame, after in zip(self.frames, ahead, strict=True)])
        if last.any() and ahead[-1] > 0:
            now = self.camera_from_object[:, last]
            following[:, last] = now @ _inverse(self._camera_from_object([ahead[-1] - 1])) @ now
        return self._motion(following)

    def _motion(self, following: Array) -> Tensor:
        relative = following @ _inverse(self.camera_from_object)
        return self.floats(relative[..., :3, :].reshape(-1, 12).T)


def _flow(pairs: Pairs, rays: Rays, motion: Tensor, depth: Tensor, pair: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Displacement (2, N) in pixels of the points seen at (x, y) (N,) if pairs move by ``motion`` (12, pairs)."""
    view = pairs.view.index_select(0, pair)
    u, v = rays.normalised(view, x, y)
    pose = motion.index_select(1, pair)
    moved = [(pose[4 * i] * u + pose[4 * i + 1] * v + pose[4 * i + 2]) * depth + pose[4 * i + 3] for i in range(3)]
    inverse = 1 / moved[2].clamp_min(1e-3)
    scale, shift = (table.t().contiguous().index_select(1, view) for table in (rays.focal, rays.centre))
    return torch.stack((moved[0] * inverse * scale[0] + shift[0] - x, moved[1] * inverse * scale[1] + shift[1] - y))


def _outline(pair: Tensor) -> Tensor:
    """Pixels (V, H, W) with a 4-neighbour that shows a different primitive."""
    edge = torch.zeros_like(pair, dtype=torch.bool)
    across, down = pair[:, :, 1:] != pair[:, :, :-1], pair[:, 1:] != pair[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    return edge


def render(
    scenes: Sequence[Scene],
    frames: Sequence[int],
    height: int,
    width: int,
    bank: TextureBank,
    options: RenderOptions,
    names: Sequence[str],
    caster: Callable[[Pairs, Rays], tuple[Tensor, Tensor]] = cast,
) -> list[RgbdClip]:
    """Render the same frames of several scenes.

    Args:
        frames: increasing frame numbers; flow is from each to the next in this list.
        height, width: pixels; the scenes' intrinsics refer to this size.
        bank: textures; rendering runs on their device.
        names: the clips' names.
        caster: finds the surface that each pixel sees; :func:`.raycast.cast`, or another one for comparison.

    Raises:
        InputError: an empty size or no frames.
    """
    if height < 1 or width < 1 or not len(frames):
        raise InputError(f"cannot render {len(frames)} frames of {width}x{height}; give at least one pixel and frame")
    device = bank.texels.device
    length = len(frames)
    assembly = _Assembly(scenes, frames, device)
    focal = np.repeat(np.array([scene.focal for scene in scenes]), length, 0)
    centre = np.repeat(np.array([scene.centre for scene in scenes]), length, 0)
    rays = Rays(assembly.floats(focal), assembly.floats(centre), height, width)
    depth, pair = caster(assembly.pairs, rays)
    hit = pair >= 0
    seen, distance = pair.clamp_min(0).flatten(), torch.where(hit, depth, 1.0).flatten()
    tables = assembly.tables(frames)
    shadows = assembly.shadows(options.shadow_size) if options.shadows else None
    rows = torch.arange(height, device=device, dtype=torch.float32)[None, :, None].expand(pair.shape).flatten()
    columns = torch.arange(width, device=device, dtype=torch.float32).expand(pair.shape).flatten()

    def colour(which: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        chunk = 16384 if device.type == "cpu" else 1 << 24
        parts = zip(which.split(chunk), x.split(chunk), y.split(chunk), z.split(chunk), strict=True)
        return torch.cat([shade(tables, assembly.pairs, rays, bank, shadows, *part) for part in parts], 1)

    light = colour(seen, columns, rows, distance).view(3, *pair.shape) * hit
    # Blur follows the motion to the scene's next frame, whichever frames are requested, so that a frame always looks
    # the same.
    to_next = _flow(assembly.pairs, rays, assembly.motion_to_next_frame(), distance, seen, columns, rows)
    if list(frames) == list(range(frames[0], frames[0] + length)):
        flow = to_next
    else:
        flow = _flow(assembly.pairs, rays, assembly.motion_in_list(), distance, seen, columns, rows)

    if options.antialias:
        view, row, column = _outline(pair).nonzero(as_tuple=True)
        padded = torch.nn.functional.pad(pair, (1, 1, 1, 1), value=-1)
        neighbours = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
        around = torch.stack([padded[view, row + 1 + dy, column + 1 + dx] for dy, dx in neighbours], 1)
        offset = torch.tensor(_AA_OFFSETS, device=device)
        x, y = column[:, None] + offset[:, 0], row[:, None] + offset[:, 1]
        sample_depth, sample_pair = cast_among(assembly.pairs, rays, around, x, y)
        found = sample_pair >= 0
        samples = torch.zeros(3, *x.shape, device=device)
        samples[:, found] = colour(sample_pair[found], x[found], y[found], sample_depth[found])
        share = found.sum(1)
        mean = samples.clamp(max=2.0).sum(2) / share.clamp_min(1)
        light[:, view, row, column] = mean.where(share > 0, light[:, view, row, column])

    batch = len(scenes)
    split = (batch, length, height, width)
    light = light.view(3, *split).permute(1, 2, 0, 3, 4).contiguous()
    flow, to_next = (motion.view(2, *split).permute(1, 2, 0, 3, 4).contiguous() for motion in (flow, to_next))
    rgb = expose(light, to_next, scenes, frames, options.sensor)
    far = assembly.floats(np.array([scene.far for scene in scenes]))[:, None, None, None]
    depth = depth.view(split)
    valid = depth < far
    depth = torch.where(valid, depth, 0.0)
    intrinsics = torch.zeros(batch, 3, 3, device=device)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = rays.focal[::length].unbind(1)
    intrinsics[:, :2, 2] = rays.centre[::length]
    intrinsics[:, 2, 2] = 1
    return [
        RgbdClip(
            rgb=rgb[index],
            depth=depth[index, :, None],
            valid=valid[index, :, None],
            intrinsics=intrinsics[index],
            flow=flow[index, :-1] if length > 1 else None,
            depth_lr=None,
            stamps=None,
            name=names[index],
        )
        for index in range(batch)
    ]
