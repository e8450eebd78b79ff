"""Depth cameras by name, with the sources of their parameters, and simple reductions for comparison.

Parameters are those of the camera at its usual settings. What no data sheet states (how ragged holes are, what a
surface reflects) was chosen so that simulated images look like recordings."""

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
        ratio: usual number of colour pixels in a depth pixel, on each axis.
        about: what it is, in a few words.
        source: of its parameters.
    """

    sensor: Sensor
    ratio: float
    about: str
    source: str = ""


_MILLIMETRES = Faults(unit_m=0.001)
_OWN = "this project; not a real camera"
_PAPER = "STDNet, section 4.1; DVSR eq. 1: 1024 bins over the data set's range"
_D400 = (
    "Intel RealSense D400 tuning guide and data sheet: 0.08 px, disparities of 1/32 px, census window of 9x9, the left "
    "imager is the reference; in one unit, nine tenths of a static scene's noise were constant over time; here half are"
)


def _active_stereo(baseline_m: float, min_m: float, max_m: float, field_of_view_deg: float | None = None) -> Stereo:
    """A RealSense D4xx at 848x480."""
    return Stereo(
        focal_px=424.0,
        subpixel=0.08,
        step=1 / 32,
        window=9,
        static=0.5,
        correlation=0.3,
        bias=0.03,
        texture=0.006,
        projector=0.15,
        gloss=0.97,
        edge_loss=0.3,
        baseline_m=baseline_m,
        min_m=min_m,
        max_m=max_m,
        field_of_view_deg=field_of_view_deg,
    )


PRESETS: dict[str, Preset] = {
    "exact": Preset(Sensor(Reduction("nearest")), 1, "faultless depth, one pixel of each cell", _OWN),
    "noisy": Preset(
        Sensor(Reduction("nearest"), faults=Faults(noise_relative=0.01)),
        1,
        "faultless except for independent noise of every reading, 1 % of the depth",
        _OWN,
    ),
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
        "faultless depth, misregistered to colour and up to a frame late",
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
        Sensor(_active_stereo(baseline_m=0.050, min_m=0.17, max_m=10.0), faults=_MILLIMETRES),
        1,
        "active stereo, depth aligned to colour",
        f"{_D400}; f 424 px at 848x480, B 50 mm, minimum 0.17 m",
    ),
    "realsense_d455": Preset(
        Sensor(_active_stereo(baseline_m=0.095, min_m=0.34, max_m=15.0, field_of_view_deg=87.0), faults=_MILLIMETRES),
        1,
        "active stereo of twice the baseline, colour of the same field of view",
        f"{_D400}; B 95 mm, minimum 0.34 m at 848x480",
    ),
    "oakd": Preset(
        Sensor(
            Stereo(
                focal_px=441.0,
                baseline_m=0.075,
                subpixel=0.15,
                step=1 / 8,
                window=7,
                static=0.5,
                correlation=0.2,
                bias=0.05,
                texture=0.008,
                gloss=0.97,
                edge_loss=0.4,
                min_m=0.35,
                max_m=12.0,
                field_of_view_deg=72.0,
            ),
            faults=_MILLIMETRES,
        ),
        1,
        "passive stereo, depth aligned to colour",
        "Luxonis documentation of StereoDepth: f 441 px at 640x400, B 75 mm, 3 subpixel bits, 95 disparities; accuracy "
        "of 2 % below 4 m, which is 0.1 to 0.3 px",
    ),
    "kinect_v1": Preset(
        Sensor(
            Stereo(
                focal_px=580.0,
                baseline_m=0.075,
                subpixel=0.06,
                step=1 / 8,
                window=9,
                static=0.5,
                texture=0.02,
                projector=1.0,
                gloss=0.97,
                edge_loss=0.2,
                min_m=0.5,
                max_m=5.0,
            ),
            faults=_MILLIMETRES,
        ),
        1,
        "structured light, depth registered to colour",
        "Khoshelham and Oude Elberink, Sensors 2012: deviation of 1.4 mm z^2, steps of 1/8 px, f 580 px, B 75 mm",
    ),
    "kinect_v2": Preset(
        Sensor(
            PhaseTof(
                ambiguity_m=18.75,
                noise_m=0.0012,
                floor_m=0.001,
                dark=0.005,
                multipath_m=0.03,
                wiggle_m=0.005,
                baseline_m=0.052,
                min_m=0.5,
                max_m=4.5,
            ),
            faults=_MILLIMETRES,
        ),
        3,
        "phase ToF with a third of colour's resolution",
        "Fankhauser et al., ICAR 2015 (1.3 mm at 1 m, 2.7 mm at 3 m); Corti et al., Robotics and Autonomous Systems "
        "2016 (wiggling, corners); 512x424 with colour of 1920x1080, 52 mm apart",
    ),
    "kinect_azure": Preset(
        Sensor(
            PhaseTof(
                ambiguity_m=10.0,
                pitch=1.25,
                noise_m=0.0015,
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
        "phase ToF, projected into the colour image point by point: a third of its pixels are empty",
        "Azure Kinect DK hardware specification (random error below 17 mm, systematic below 11 mm + 0.1 %, up to "
        "5.46 m); 640x576 at f 504 px with colour of 1280x720 at 603 px, 32 mm apart",
    ),
    "iphone_lidar": Preset(
        Sensor(PhoneLidar(blur=0.7, lag=0.5, noise=0.005, noise_cells=10.0, bias=0.005, max_m=5.0)),
        7.5,
        "256x192 of a phone for 1920x1440 of colour",
        "Luetzenburg et al., Scientific Reports 2021 (1 cm, up to 5 m); Tondo et al., Sensors 2023 (576 dots, new at "
        "15 Hz in a stream of 60 Hz), so some 10 pixels from dot to dot",
    ),
    "vl53_8x8": Preset(
        Sensor(
            Dtof(range_m=4.0, bins=128, zone=1.1, crosstalk=0.05, photons=2000.0),
            faults=Faults(noise_relative=0.02, unit_m=0.001),
        ),
        30,
        "8 rows of zones, the strongest target of each",
        "ST VL53L5CX data sheet: 8x8 zones, up to 4 m, accuracy of 5 % or 15 mm",
    ),
}
"""Cameras and reductions by name."""


def preset(name: str) -> Preset:
    """A camera by name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no depth camera {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def sensor(name: str) -> Sensor:
    """The sensor of :func:`preset`."""
    return preset(name).sensor
