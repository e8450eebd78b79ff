"""Depth cameras by name, with where their parameters come from, and plain reductions to compare with.

Parameters are of the camera at its usual settings. What no data sheet says (how ragged holes are, what a surface
reflects) was chosen so that pictures look like recordings."""

from __future__ import annotations

from dataclasses import dataclass

from stdnet_core.data.sensors.alignment import Alignment
from stdnet_core.data.sensors.camera import Sensor
from stdnet_core.data.sensors.dtof import Dtof
from stdnet_core.data.sensors.faults import Faults
from stdnet_core.data.sensors.phase_tof import PhaseTof
from stdnet_core.data.sensors.phone_lidar import PhoneLidar
from stdnet_core.data.sensors.reduction import Reduction
from stdnet_core.data.sensors.stereo import Stereo
from stdnet_core.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A camera.

    Attributes:
        sensor: what it is.
        ratio: colour pixels in a depth pixel, as it is mostly used.
        about: what it is, in a few words.
        source: where its parameters come from.
    """

    sensor: Sensor
    ratio: float
    about: str
    source: str = ""


_MILLIMETRES = Faults(unit_m=0.001)
_OWN = "this project's; no camera's"
_PAPER = "STDNet, section 4.1; DVSR eq. 1: 1024 bins over the data set's range"

PRESETS: dict[str, Preset] = {
    "exact": Preset(Sensor(Reduction("nearest")), 1, "faultless depth, one pixel of each cell", _OWN),
    "nearest_corner": Preset(Sensor(Reduction("nearest", 0.0)), 8, "every k-th pixel", _OWN),
    "nearest_any": Preset(Sensor(Reduction("nearest", None)), 8, "one pixel of each cell, anywhere in it", _OWN),
    "area": Preset(Sensor(Reduction("area")), 8, "mean of each cell", _OWN),
    "median": Preset(Sensor(Reduction("median")), 8, "median of each cell", _OWN),
    "min": Preset(Sensor(Reduction("min")), 8, "nearest depth of each cell", _OWN),
    "bilinear": Preset(Sensor(Reduction("bilinear")), 8, "resized without low-pass filter, across edges", _OWN),
    "bicubic": Preset(
        Sensor(Reduction("bicubic")), 8, "resized with low-pass filter", "as in guided depth SR benchmarks"
    ),
    "misaligned": Preset(
        Sensor(Reduction("nearest"), Alignment(shift_px=3, scale=0.01, rotation_deg=0.5, delay=1.0)),
        8,
        "faultless depth that lies badly on colour and is up to a frame late",
        _OWN,
    ),
    "dtof_paper": Preset(Sensor(Dtof(range_m=None, clip_beyond_range=True)), 8, "the paper's direct ToF", _PAPER),
    "dtof_jitter": Preset(
        Sensor(Dtof(range_m=None, clip_beyond_range=True, jitter_bins=2)),
        8,
        "the paper's direct ToF, readings off by up to 2 bins",
        "the DyDToF sample of the release",
    ),
    "realsense_d435": Preset(
        Sensor(
            Stereo(
                focal_px=425,
                baseline_m=0.050,
                subpixel=0.08,
                step=1 / 32,
                window=9,
                correlation=0.3,
                bias=0.03,
                texture=0.006,
                projector=0.15,
                gloss=0.97,
                edge_loss=0.3,
                min_m=0.2,
                max_m=10.0,
            ),
            faults=_MILLIMETRES,
        ),
        1,
        "active stereo, depth aligned to colour",
        "",
    ),
    "oakd": Preset(
        Sensor(
            Stereo(
                focal_px=441,
                baseline_m=0.075,
                subpixel=0.12,
                step=1 / 8,
                window=7,
                correlation=0.2,
                bias=0.05,
                texture=0.008,
                gloss=0.97,
                edge_loss=0.4,
                min_m=0.35,
                max_m=12.0,
                field_of_view_deg=72,
            ),
            faults=_MILLIMETRES,
        ),
        1,
        "passive stereo, depth aligned to colour",
        "",
    ),
    "kinect_azure": Preset(
        Sensor(
            PhaseTof(
                ambiguity_m=10.0,
                pitch=1.25,
                noise_m=0.002,
                floor_m=0.001,
                dark=0.006,
                multipath_m=0.03,
                wiggle_m=0.004,
                baseline_m=0.032,
                min_m=0.5,
                max_m=5.5,
            ),
            faults=_MILLIMETRES,
        ),
        1,
        "phase ToF, put on the colour image point by point",
        "",
    ),
    "iphone_lidar": Preset(Sensor(PhoneLidar(max_m=5.0)), 7.5, "256x192 for 1920x1440", ""),
    "vl53_8x8": Preset(
        Sensor(Dtof(range_m=4.0, bins=128, zone=1.1, crosstalk=0.05, photons=2000), faults=_MILLIMETRES),
        30,
        "8 rows of zones",
        "",
    ),
}
"""Cameras and reductions by name."""


def preset(name: str) -> Preset:
    """A camera by name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no depth camera {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def sensor(name: str) -> Sensor:
    """The sensor of :func:`preset`."""
    return preset(name).sensor
