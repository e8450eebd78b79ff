"""Smooth trajectories: hand-held cameras and moving objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def smooth_noise(rng: np.random.Generator, times: Array, channels: int, rate: float = 0.5) -> Array:
    """Band-limited random signals.

    Args:
        times: (N,) seconds.
        channels: number of independent signals.
        rate: typical frequency in hertz.

    Returns:
        (N, channels), standard deviation about 1, varying over ``1 / rate`` seconds.
    """
    waves = 4
    frequency = rate * rng.uniform(0.3, 2.0, (waves, 1, channels))
    phase = rng.uniform(0, 2 * np.pi, (waves, 1, channels))
    amplitude = 1 / np.sqrt(1 + (frequency / rate) ** 2)
    angle = 2 * np.pi * frequency * times[None, :, None] + phase
    return (amplitude * np.sin(angle)).sum(0) / np.sqrt(0.5 * (amplitude**2).sum(0))


def look_at(position: Array, target: Array, roll: Array | float = 0.0) -> Array:
    """Camera poses (N, 4, 4) at ``position`` (N, 3) looking at ``target`` (N, 3), rolled by ``roll`` radians."""
    forward = target - position
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-9)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    if np.ndim(roll):
        cos, sin = cos[:, None], sin[:, None]
    result = np.zeros((len(position), 4, 4))
    result[:, :3, 0] = cos * right + sin * down
    result[:, :3, 1] = cos * down - sin * right
    result[:, :3, 2] = forward
    result[:, :3, 3] = position
    result[:, 3, 3] = 1
    return result


def handheld(rng: np.random.Generator, times: Array, start: Array, target: Array, travel: float, turn: float) -> Array:
    """Poses (N, 4, 4) of a hand-held camera that looks at ``target`` from ``start`` while moving.

    Args:
        times: (N,) seconds.
        start, target: (3,) metres.
        travel: typical speed in metres per second.
        turn: typical speed of turning in radians per second.
    """
    drift = rng.normal(0, 1, 3) * (1, 1, 0.4)
    middle = times[len(times) // 2]
    position = start + travel * drift * (times - middle)[:, None]
    position = (
        position + 0.3 * travel * smooth_noise(rng, times, 3, 0.4) + 0.02 * travel * smooth_noise(rng, times, 3, 3)
    )
    distance = np.linalg.norm(target - start)
    sweep = rng.normal(0, 1, 3) * (1, 1, 0.4) * (times - middle)[:, None] * 0.7
    sweep = sweep + 0.3 * smooth_noise(rng, times, 3, 0.5) + 0.02 * smooth_noise(rng, times, 3, 4)
    roll = rng.normal(0, 0.05) + 0.1 * turn * smooth_noise(rng, times, 1, 0.4)[:, 0]
    return look_at(position, target + turn * distance * sweep, roll)


def rigid_path(rng: np.random.Generator, times: Array, start: Array, velocity: Array, spin: Array) -> Array:
    """Poses (N, 4, 4) of an object that starts at pose ``start``, drifts, wobbles and spins.

    Args:
        times: (N,) seconds.
        start: (4, 4) pose at the middle of the clip.
        velocity: (3,) metres per second; the wobble is a third of it.
        spin: (3,) axis times radians per second.
    """
    middle = times[len(times) // 2]
    offset = velocity * (times - middle)[:, None]
    wobble = smooth_noise(rng, times, 3, 0.7)
    offset = offset + 0.3 * np.linalg.norm(velocity) * (wobble - wobble[len(times) // 2]) * (1, 1, 0)
    speed = float(np.linalg.norm(spin))
    axis = spin / speed if speed > 0 else np.array((0.0, 0.0, 1.0))
    angle = speed * (times - middle)
    skew = np.array(((0, -axis[2], axis[1]), (axis[2], 0, -axis[0]), (-axis[1], axis[0], 0)))
    turn = np.eye(3) + np.sin(angle)[:, None, None] * skew + (1 - np.cos(angle))[:, None, None] * (skew @ skew)
    result = np.broadcast_to(start, (len(times), 4, 4)).copy()
    result[:, :3, :3] = turn @ start[:3, :3]
    result[:, :3, 3] += offset
    return result
