"""The guided temporal filter: denoises depth over time and space and fills its holes, frame by frame.

For depth at or near colour's resolution: RealSense, OAK-D, Kinect. Depth is never downsampled, and a measured pixel
stays within the noise of its sensor, which is estimated from the frames (:mod:`.noise`). An image without noise is
returned unchanged.

A Kalman filter tracks each pixel's inverse depth. The state of the frame before is warped by optical flow and corrected
for the camera's motion (:mod:`.motion`); pixels whose measurement disagrees with it start anew. Then pixels of one
surface are averaged (:mod:`.smoothing`), and holes are filled with depth seen there before, or from their surroundings,
guided by colour (:mod:`.filling`)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stdnet_core.filtering.filling import fill_holes
from stdnet_core.filtering.motion import MotionEstimator, follow_camera
from stdnet_core.filtering.noise import NoiseCurve
from stdnet_core.filtering.smoothing import smooth
from stdnet_core.short_repr import short_repr

_GATE = 3.0  # standard deviations by which a measurement may differ from the prediction
_LEAST_VARIANCE = 1 / 16  # smallest variance in units of a measurement's: that of a mean over 16 frames
_STAYS = 0.5  # share of a measurement's variance that does not average out over time: a static scene repeats its error
_LOCAL = 15  # pixels of a window in which moving objects are assumed to move alike
_LOCAL_NOISE = 0.6  # deviation of the window's mean, relative to a pixel's: neighbouring pixels share their noise
_LOCAL_GATE = 1.0
_FORGET = 2.0  # factor on the variance of a pixel that was predicted but not measured
_FORGET_AT_EDGE = 16.0  # the same beside an edge, where sensors give wrong depth before they give none
_FORGOTTEN = 16.0  # variance, in units of a measurement's, from which a prediction is dropped
_EDGE_WINDOW = 9  # pixels
_EDGE_STEP = 0.1  # of inverse depth
_FILL_FOLLOWS = 0.4  # weight of the new fill in a hole that was filled before
_FILL_AGREES = 0.1  # relative difference up to which both fills are of one surface


@dataclass(frozen=True)
class Filtered:
    """The filter's output for a frame.

    Attributes:
        depth: (h, w) float32 metres; 0 only if no frame has measured anything yet.
        deviation: (h, w) float32, standard deviation of depth in metres where it was measured in this frame or shortly
            before; elsewhere 0.
        origin: (h, w) uint8, 0 where it was measured; n where a measurement is within 2^n pixels.
    """

    depth: np.ndarray
    deviation: np.ndarray
    origin: np.ndarray

    __repr__ = short_repr


@dataclass(frozen=True)
class _Memory:
    """State that a frame leaves for the next one.

    Attributes:
        grey: (h, w) uint8.
        images: (h, w, 3) float32: inverse depth (0 unknown), its variance in units of a measurement's, the output.
    """

    grey: np.ndarray
    images: np.ndarray


class GuidedTemporalFilter:
    """Filters one stream.

    Attributes:
        noise: of the camera, as estimated so far.
    """

    def __init__(self) -> None:
        self.noise = NoiseCurve()
        self._motion = MotionEstimator()
        self._memory: _Memory | None = None

    def step(self, rgb: np.ndarray, depth: np.ndarray) -> Filtered:
        """Filter the next frame.

        Args:
            rgb: (h, w, 3) uint8.
            depth: (h, w) float32 metres, 0 where invalid.
        """
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        measured = depth > 0
        inverse = np.divide(1, depth, out=np.zeros_like(depth), where=measured)
        self.noise.observe(inverse)
        if self._memory is None or self._memory.grey.shape != grey.shape:
            deviation = self.noise.deviation(inverse)
            estimate, share, last_output = inverse, np.ones_like(inverse), None
        else:
            estimate, share, deviation, last_output = self._fuse(self._memory, inverse, measured, grey)
        known = estimate > 0
        deviation_now = deviation * np.sqrt(_STAYS + (1 - _STAYS) * share)
        smoothed = smooth(estimate, deviation_now)
        # Measured pixels stay within the noise.
        smoothed = np.where(
            measured, np.clip(smoothed, inverse - _GATE * deviation, inverse + _GATE * deviation), smoothed
        )
        output, origin = fill_holes(smoothed, rgb)
        if last_output is not None:
            agrees = (origin > 0) & (np.abs(output - last_output) < _FILL_AGREES * last_output)
            output = np.where(agrees, last_output + np.float32(_FILL_FOLLOWS) * (output - last_output), output)
        self._memory = _Memory(grey, np.dstack((estimate, share, output)))
        depth_out = np.divide(1, output, out=np.zeros_like(output), where=output > 0)
        return Filtered(depth_out, np.where(known, deviation_now * depth_out * depth_out, np.float32(0)), origin)

    def _fuse(
        self, memory: _Memory, inverse: np.ndarray, measured: np.ndarray, grey: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step of the Kalman filter.

        Returns:
            Inverse depth (0 unknown), its variance in units of a measurement's, the standard deviation of a
            measurement, and the warped output of the frame before (0 where colour disagrees).
        """
        moved = self._motion.bring(grey, memory.grey, memory.images)
        expected, share, last_output = (np.ascontiguousarray(image) for image in np.moveaxis(moved.images, -1, 0))
        expected_here = (expected > 0) & moved.same
        both = measured & expected_here
        deviation = self.noise.deviation(np.where(measured, inverse, expected))
        moving = moved.error > 0
        if moving.any():
            followed = follow_camera(expected, inverse, deviation, both)
            change = np.divide(followed, expected, out=np.ones_like(expected), where=expected > 0)
            expected, last_output = followed, last_output * change
            slope = moved.error * _slope(expected)
            share = share + np.square(slope / np.maximum(deviation, np.float32(1e-9)))
        difference = np.where(both, inverse - expected, np.float32(0))
        spread = deviation * np.sqrt(1 + share)
        agrees = both & (np.abs(difference) < _GATE * spread)
        share = share + self._moving_by_itself(difference, agrees, spread, deviation)
        gain = share / (1 + share)
        estimate = np.where(agrees, expected + gain * difference, inverse)
        new_share = np.where(agrees, np.maximum(gain, np.float32(_LEAST_VARIANCE)), np.float32(1))
        aged = share * np.where(_near_edge(expected), np.float32(_FORGET_AT_EDGE), np.float32(_FORGET))
        carried = ~measured & expected_here & (aged < _FORGOTTEN)
        # Beside a measurement, warped depth is worse than filled depth: flow is off by fractions of a pixel.
        beside = cv2.dilate(measured.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        carried &= ~(moving & beside)
        estimate = np.where(carried, expected, estimate)
        new_share = np.where(carried, aged, new_share)
        return estimate, new_share, deviation, np.where(moved.same, last_output, np.float32(0))

    @staticmethod
    def _moving_by_itself(
        difference: np.ndarray, agrees: np.ndarray, spread: np.ndarray, deviation: np.ndarray
    ) -> np.ndarray:
        """Variance, in units of a measurement's, by which the mean difference in a window exceeds that of noise."""
        window = (_LOCAL, _LOCAL)
        weight = agrees.astype(np.float32)
        mean = cv2.blur(difference * weight, window) / np.maximum(cv2.blur(weight, window), np.float32(0.05))
        excess = np.maximum(np.abs(mean) - np.float32(_LOCAL_GATE * _LOCAL_NOISE) * spread, np.float32(0))
        return np.square(excess / np.maximum(deviation, np.float32(1e-9)))


def _near_edge(inverse: np.ndarray) -> np.ndarray:
    """Pixels with a step of known inverse depth within a few pixels."""
    window = np.ones((_EDGE_WINDOW, _EDGE_WINDOW), np.uint8)
    highest = cv2.dilate(inverse, window)
    lowest = cv2.erode(np.where(inverse > 0, inverse, np.float32(np.finfo(np.float32).max)), window)
    return highest - lowest > np.float32(_EDGE_STEP) * lowest


def _slope(inverse: np.ndarray) -> np.ndarray:
    """Change of inverse depth per pixel within a surface: the smaller difference to either side, summed over axes."""
    total = np.zeros_like(inverse)
    for axis in (0, 1):
        step = np.abs(np.diff(inverse, axis=axis))
        before = np.insert(step, 0, step.take(0, axis), axis) if step.shape[axis] else np.zeros_like(inverse)
        after = np.insert(step, step.shape[axis], step.take(-1, axis), axis) if step.shape[axis] else before
        total += np.minimum(before, after)
    return total
