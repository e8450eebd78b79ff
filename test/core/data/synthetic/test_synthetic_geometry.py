"""Depth, flow, colour and shadow of the procedural renderer against closed forms and slow, independent versions."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from stdnet_core.data.synthetic.motion import look_at, rigid_path
from stdnet_core.data.synthetic.raycast import Pairs, Rays, cast
from stdnet_core.data.synthetic.renderer import RenderOptions, render
from stdnet_core.data.synthetic.scene import Light, Material, SceneBuilder, Sensor, pose
from stdnet_core.data.synthetic.textures import texture_bank

HEIGHT, WIDTH, FOCAL = 60, 80, 70.0
CENTRE = (38.3, 30.9)
GREY = Material(low=(0.2, 0.2, 0.2), high=(0.8, 0.8, 0.8))


@pytest.fixture(scope="module")
def bank():
    return texture_bank(0, 16, torch.device("cpu"))


def finish(builder, camera=None, light=(0.3, -0.4, -1.0), target=(0.0, 0.0, 3.0)):
    frames = builder.frames
    return builder.build(
        seed=1,
        camera=np.broadcast_to(np.eye(4), (frames, 4, 4)) if camera is None else camera,
        light=Light(light, target, 1.2, math.inf, (0.7, 0.7, 0.7), (0.3, 0.3, 0.3)),
        sensor=Sensor(exposure=np.ones(frames)),
        focal=(FOCAL, FOCAL),
        centre=CENTRE,
    )


def picture(scene, bank, frames=(0,), **options):
    plain = {"antialias": False, "shadows": False, "sensor": False} | options
    return render([scene], list(frames), HEIGHT, WIDTH, bank, RenderOptions(**plain), ["test"])[0]


def pixel_rays():
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    return np.stack(((x - CENTRE[0]) / FOCAL, (y - CENTRE[1]) / FOCAL, np.ones_like(x)), -1)


def test_sphere_depth_is_the_closed_form(bank):
    centre, radius = np.array((0.4, -0.2, 3.0)), 0.7
    builder = SceneBuilder(1)
    builder.ellipsoid(pose(*centre), (radius,) * 3, builder.paint(GREY))
    depth = picture(finish(builder), bank).depth[0, 0].double().numpy()
    d = pixel_rays()
    a, b, c = (d * d).sum(-1), -2 * d @ centre, centre @ centre - radius**2
    root = b * b - 4 * a * c
    expected = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / (2 * a), 0)
    clear = np.abs(root) > 1e-4  # at the very rim one float rounding decides
    assert (expected > 0).sum() > 300
    np.testing.assert_allclose(depth[clear], expected[clear], rtol=1e-5)


def test_small_far_sphere_keeps_its_depth(bank):
    builder = SceneBuilder(1)
    where = np.array((0.0, 0.0, 40.0))
    builder.ellipsoid(pose(*where), (0.5, 0.5, 0.5), builder.paint(GREY))
    depth = picture(finish(builder), bank).depth[0, 0].double().numpy()
    d = pixel_rays()
    nearest = (d @ where) / (d * d).sum(-1)
    miss = np.linalg.norm(nearest[..., None] * d - where, axis=-1)
    hit = miss < 0.4
    expected = nearest - np.sqrt(np.maximum(0.25 - miss**2, 0)) / np.linalg.norm(d, axis=-1)
    assert hit.any()
    np.testing.assert_allclose(depth[hit], expected[hit], atol=1e-4)


def test_slanted_plane_depth_is_the_closed_form(bank):
    turn = pose(0, 0, 2.0, 0.3, 0.5, -0.4)
    builder = SceneBuilder(1)
    builder.box(turn @ pose(z=5.0), (40, 40, 10), builder.paint(GREY))
    depth = picture(finish(builder), bank).depth[0, 0].double().numpy()
    normal = turn[:3, 2]
    expected = (normal @ (0, 0, 2.0)) / (pixel_rays() @ normal)
    np.testing.assert_allclose(depth, expected, rtol=2e-6)


def test_rotated_box_depth_is_that_of_its_six_planes(bank):
    where, size = pose(0.2, 0.1, 2.5, 0.7, -0.4, 0.9), np.array((0.9, 0.5, 1.3))
    builder = SceneBuilder(1)
    builder.box(where, tuple(size), builder.paint(GREY))
    depth = picture(finish(builder), bank).depth[0, 0].double().numpy()
    d, expected = pixel_rays(), np.full((HEIGHT, WIDTH), np.inf)
    for axis in range(3):
        for sign in (-1, 1):
            normal = where[:3, axis]
            t = (normal @ where[:3, 3] + sign * size[axis] / 2) / (d @ normal)
            local = (t[..., None] * d - where[:3, 3]) @ where[:3, :3]
            inside = (np.abs(np.delete(local, axis, -1)) <= np.delete(size, axis) / 2).all(-1) & (t > 0)
            expected = np.where(inside & (t < expected), t, expected)
    expected[np.isinf(expected)] = 0
    assert (expected > 0).sum() > 300
    agree = np.isclose(depth, expected, rtol=1e-5)
    assert agree.mean() > 0.999


@pytest.mark.parametrize("kind", ["box", "ellipsoid", "cylinder", "cone"])
@pytest.mark.parametrize("inside", [False, True])
def test_depth_is_where_a_march_along_the_ray_meets_the_solid(bank, kind, inside):
    """Slow truth: step along each ray in float64 until the implicit solid changes sides, then bisect."""
    where = pose(0.1, -0.1, 0.2 if inside else 3.0, 0.5, 0.8, -0.3)
    half = np.array((1.2, 1.2, 1.6) if inside else (0.6, 0.6, 0.9))
    builder = SceneBuilder(1)
    material = builder.paint(GREY)
    if kind == "box":
        builder.box(where, tuple(2 * half), material)
    elif kind == "ellipsoid":
        builder.ellipsoid(where, tuple(half), material)
    else:
        getattr(builder, kind)(where, half[0], 2 * half[2], material)
    depth = picture(finish(builder), bank).depth[0, 0].double().numpy().ravel()

    def solid(t):
        x, y, z = np.moveaxis((t[..., None] * rays - where[:3, 3]) @ where[:3, :3] / half, -1, 0)
        radius = {"cylinder": 1.0, "cone": 0.625 - 0.375 * z}.get(kind)
        if kind == "box":
            return np.maximum(np.maximum(abs(x), abs(y)), abs(z)) <= 1
        if kind == "ellipsoid":
            return x * x + y * y + z * z <= 1
        return (abs(z) <= 1) & (x * x + y * y <= radius**2)

    chosen = np.arange(0, HEIGHT * WIDTH, 7)
    rays = pixel_rays().reshape(-1, 3)[chosen]
    steps = np.linspace(1e-3, 6.0, 3000)
    states = np.stack([solid(np.full(len(rays), t)) for t in steps])
    change = states != states[0]
    first = change.argmax(0)
    low, high = steps[np.maximum(first - 1, 0)], steps[first]
    for _ in range(40):
        middle = (low + high) / 2
        before = solid(middle) == states[0]
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    expected = np.where(change.any(0), high, 0)
    assert (expected > 0).sum() > (600 if inside else 60)
    # A march of 2 mm overlooks grazing hits.
    assert np.isclose(depth[chosen], expected, rtol=1e-4).mean() > 0.99


def random_pairs(seed, number=60, views=2):
    rng = np.random.default_rng(seed)
    poses = np.stack([pose(*rng.uniform((-3, -3, -1), (3, 3, 6)), *rng.uniform(0, 6, 3)) for _ in range(number)])
    half = np.exp(rng.uniform(np.log(0.01), np.log(1.0), (number, 3)))
    half[:, 1] = np.where(rng.random(number) < 0.5, half[:, 0], half[:, 1])
    kind, view = torch.from_numpy(rng.integers(0, 4, number)), torch.from_numpy(rng.integers(0, views, number))
    return Pairs.build(kind, view, torch.from_numpy(poses), torch.from_numpy(half))


def test_tiles_see_what_every_primitive_against_every_pixel_sees():
    """Culling must lose nothing, also for primitives that cross the camera plane."""
    from stdnet_core.data.synthetic.intersect import INTERSECT

    views = 2
    rays = Rays(torch.full((views, 2), FOCAL), torch.tensor([CENTRE] * views), HEIGHT, WIDTH)
    for seed in range(5):
        pairs = random_pairs(seed)
        depth, seen = cast(pairs, rays)
        best = torch.full((views, HEIGHT, WIDTH), math.inf)
        directions = torch.from_numpy(pixel_rays()).float()
        for index in range(len(pairs.kind)):
            matrix, origin = pairs.direction[index], pairs.origin[index]
            d = (directions @ matrix.t()).unbind(-1)
            o = tuple(origin[axis].reshape(1, 1) for axis in range(3))
            view = pairs.view[index]
            best[view] = torch.minimum(best[view], INTERSECT[int(pairs.kind[index])](o, d))
        # Grazing rays may fall either way by one rounding; everything else is the same.
        same = torch.isclose(depth, best, rtol=1e-4) | (torch.isinf(depth) & torch.isinf(best))
        assert same.float().mean() > 0.9995
        assert ((seen >= 0) == torch.isfinite(depth)).all()
        assert (pairs.view[seen.clamp_min(0)] == torch.arange(views)[:, None, None])[seen >= 0].all()


def test_flow_is_the_reprojection_of_moved_points(bank):
    rng, frames = np.random.default_rng(3), 3
    times = np.arange(frames) / 10
    builder = SceneBuilder(frames)
    paint = builder.paint(GREY)
    path = rigid_path(rng, times, pose(0.1, 2.5, 0.9, 0.4), np.array((0.6, 0.3, 0.1)), np.array((0.2, 0.5, 1.0)))
    node = builder.node(path)
    builder.box(pose(z=1.0), (8, 12, 4), paint)
    builder.box(pose(0.2), (0.6, 0.8, 0.5), paint, node)
    camera = look_at(
        np.array(((0, 0, 1.0), (0.05, 0.02, 1.02), (0.12, 0.03, 1.05))),
        np.array(((0, 3, 1), (0.1, 3, 1), (0.1, 3, 0.9))),
    )
    clip = picture(finish(builder, camera), bank, frames=range(frames))
    rays = pixel_rays()
    moved_pixels = 0
    for t in range(frames - 1):
        depth = clip.depth[t, 0].double().numpy()
        world = (rays * depth[..., None]) @ camera[t, :3, :3].T + camera[t, :3, 3]
        local = (world - path[t, :3, 3]) @ path[t, :3, :3] - (0.2, 0, 0)
        on_box = (np.abs(local) < np.array((0.3, 0.4, 0.25)) + 1e-4).all(-1)
        later = (world - path[t, :3, 3]) @ path[t, :3, :3] @ path[t + 1, :3, :3].T + path[t + 1, :3, 3]
        later = np.where(on_box[..., None], later, world)
        x, y, z = np.moveaxis((later - camera[t + 1, :3, 3]) @ camera[t + 1, :3, :3], -1, 0)
        expected = np.stack((FOCAL * x / z + CENTRE[0], FOCAL * y / z + CENTRE[1])) - np.mgrid[:HEIGHT, :WIDTH][::-1]
        np.testing.assert_allclose(clip.flow[t].numpy(), expected, atol=2e-3)
        moved_pixels += on_box.sum()
    assert moved_pixels > 200
    # Every second frame: the flow spans both steps.
    wide = picture(finish(builder, camera), bank, frames=(0, 2))
    assert wide.flow.shape[0] == 1
    assert not torch.allclose(wide.flow[0], clip.flow[0], atol=0.1)


def test_colours_travel_with_the_surface(bank):
    """The next frame, looked up along the flow, shows the same colour wherever the point stays in sight."""
    rng, frames = np.random.default_rng(5), 2
    material = Material((0.1, 0.15, 0.2), (0.9, 0.8, 0.7), texture=bank.groups["cloud"][0], period=1.5)
    builder = SceneBuilder(frames)
    paint = builder.paint(material)
    path = rigid_path(
        rng, np.arange(frames) / 10, pose(0, 2.5, 1.0, 0.3), np.array((0.5, 0.2, 0)), np.array((0, 0, 1.0))
    )
    node = builder.node(path)
    builder.box(pose(z=1.0), (5, 8, 3), paint)
    builder.ellipsoid(pose(), (0.5, 0.6, 0.4), paint, node)
    camera = look_at(np.array(((0, 0, 1.0), (0.03, 0.05, 1.02))), np.array(((0, 3, 1), (0.06, 3, 1.03))))
    scene = finish(builder, camera)
    # Only light from everywhere: no shading that changes as things turn.
    scene.materials[:, 18] = 1
    clip = picture(scene, bank, frames=range(frames))
    grid = torch.stack(torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")[::-1]).float()
    target = (grid + clip.flow[0] + 0.5) * torch.tensor((2 / WIDTH, 2 / HEIGHT))[:, None, None] - 1
    warped = torch.nn.functional.grid_sample(
        torch.cat((clip.rgb[1], clip.depth[1]))[None], target.permute(1, 2, 0)[None], align_corners=False
    )[0]
    inside = (target.abs() < 0.95).all(0)
    visible = inside & ((warped[3] - clip.depth[0, 0]).abs() < 0.15)
    error = (warped[:3] - clip.rgb[0]).abs().mean(0)[visible]
    unwarped = (clip.rgb[1] - clip.rgb[0]).abs().mean(0)[visible]
    assert visible.float().mean() > 0.7
    assert error.median() < 0.012
    assert error.median() < 0.4 * unwarped.median()


def test_shadows_of_scenes_in_a_batch_are_those_of_each_alone(bank):
    """Lamps of different spreads."""
    scenes = []
    for spread in (1.2, 0.7):
        builder = SceneBuilder(2)
        paint = builder.paint(GREY)
        builder.box(pose(z=-0.5), (20, 20, 1), paint)
        builder.box(pose(0, 0, 1.0), (0.8, 0.8, 0.1), paint)
        camera = look_at(np.array(((0, -3.0, 2.0),)), np.array(((0, 0.0, 0.0),)))
        scene = finish(builder, np.repeat(camera, 2, 0), light=(0.0, 0.0, 3.0), target=(0.0, 0.01, 0.0))
        scenes.append(dataclasses.replace(scene, light=dataclasses.replace(scene.light, spread=spread)))
    options = RenderOptions(antialias=False, shadows=True, sensor=False)
    together = render(scenes, [0, 1], HEIGHT, WIDTH, bank, options, ["a", "b"])
    for scene, clip in zip(scenes, together, strict=True):
        alone = render([scene], [0, 1], HEIGHT, WIDTH, bank, options, ["alone"])[0]
        torch.testing.assert_close(clip.rgb, alone.rgb, rtol=0, atol=1e-3)


def test_a_box_between_lamp_and_floor_casts_a_shadow(bank):
    def brightness(**options):
        builder = SceneBuilder(1)
        paint = builder.paint(GREY)
        builder.box(pose(z=-0.5), (20, 20, 1), paint)
        builder.box(pose(0, 0, 1.0), (0.8, 0.8, 0.1), paint)
        camera = look_at(np.array(((0, -3.0, 2.0),)), np.array(((0, 0.0, 0.0),)))
        scene = finish(builder, camera, light=(0.0, 0.0, 3.0), target=(0.0, 0.01, 0.0))
        return picture(scene, bank, **options).rgb[0].mean(0), scene

    (lit, scene), (shadowed, _) = brightness(), brightness(shadows=True)

    def at(point):
        x, y, z = np.linalg.inv(scene.camera[0])[:3] @ (*point, 1)
        return round(FOCAL * y / z + CENTRE[1]), round(FOCAL * x / z + CENTRE[0])

    # The shadow's half width on the floor is 0.4 * 3 / 2 = 0.6 m.
    for point in ((0.0, -0.3, 0.0), (0.4, -0.4, 0.0)):
        assert shadowed[at(point)] < 0.8 * lit[at(point)]
    for point in ((1.0, -0.4, 0.0), (-0.9, 0.5, 0.0)):
        assert shadowed[at(point)] == pytest.approx(lit[at(point)].item(), abs=1e-3)


def test_outlines_are_blended_and_depth_is_not(bank):
    builder = SceneBuilder(1)
    black, white = (builder.paint(Material((v,) * 3, (v,) * 3, glow=1.0)) for v in (0.01, 1.0))
    builder.box(pose(z=4.0), (20, 20, 1), black)
    builder.box(pose(z=2.0, yaw=0.5), (1, 1, 0.1), white)
    scene = finish(builder)
    hard, soft = picture(scene, bank), picture(scene, bank, antialias=True)
    assert torch.equal(hard.depth, soft.depth)
    assert len(hard.rgb.unique()) == 2
    between = (soft.rgb[0, 0] > 0.2) & (soft.rgb[0, 0] < 0.95)
    assert 40 < between.sum() < 200
    # Linear light over the whole picture is what a picture of four times the resolution has.
    fine = finish(builder)
    object.__setattr__(fine, "focal", (4 * FOCAL,) * 2)
    object.__setattr__(fine, "centre", tuple(4 * c + 1.5 for c in CENTRE))
    big = render([fine], [0], 4 * HEIGHT, 4 * WIDTH, bank, RenderOptions(False, False, False), ["big"])[0]
    truth = torch.nn.functional.avg_pool2d(big.rgb[0, :1] ** 2, 4)[0]
    error = lambda clip: ((clip.rgb[0, 0] ** 2 - truth) ** 2).mean().sqrt()  # noqa: E731
    assert error(soft) < 0.5 * error(hard)
