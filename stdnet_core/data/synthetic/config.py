"""Options of synthetic scenes: the ranges from which the procedural generator draws."""

from __future__ import annotations

from dataclasses import dataclass, fields

from stdnet_core.errors import ConfigError

LAYOUTS = ("table", "room", "hall", "outdoor", "abstract")


@dataclass(frozen=True)
class SyntheticConfig:
    """Options of the procedural generator.

    Attributes:
        table, room, hall, outdoor, abstract: relative frequency of each kind of scene (table-top 0.3 to 2 m, furnished
            room 1 to 10 m, hall 3 to 40 m, outdoors 2 to 60 m, primitives floating at all depths).
        zoom: largest ratio between the width of the virtual full frame and the rendered width. 1 renders whole
            frames; 5 also renders crops, with an off-centre principal point, of frames up to five times as wide.
        still_camera: share of clips with a static camera.
        camera_speed: factor on the camera's motion.
        object_speed: factor on the motion of objects.
        sky_valid: share of outdoor clips whose sky has a depth (that of a far wall); in the others it is invalid.
        antialias: render colour at object outlines with 2x2 samples per pixel (depth stays exact at pixel centres).
        shadows: cast shadows.
        sensor: imperfections of a camera (noise, blur, exposure drift, vignetting, motion blur, 8 bits).
        textures: number of textures in the bank from which surfaces choose.
        texture_seed: seed of that bank.
    """

    table: float = 1.0
    room: float = 2.5
    hall: float = 1.0
    outdoor: float = 1.0
    abstract: float = 1.0
    zoom: float = 4.0
    still_camera: float = 0.1
    camera_speed: float = 1.0
    object_speed: float = 1.0
    sky_valid: float = 0.5
    antialias: bool = True
    shadows: bool = True
    sensor: bool = True
    textures: int = 48
    texture_seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool) and value < 0:
                raise ConfigError(f"synthetic option {field.name} is {value}; give a value of 0 or more")
        if sum(self.weights) <= 0:
            raise ConfigError(f"all of {', '.join(LAYOUTS)} have weight 0; give at least one a positive weight")
        if self.zoom < 1:
            raise ConfigError(f"synthetic option zoom is {self.zoom}; give a value of 1 or more")
        if self.textures < 12:
            raise ConfigError(f"synthetic option textures is {self.textures}; give 12 or more")

    @property
    def weights(self) -> tuple[float, ...]:
        """Relative frequencies in the order of :data:`LAYOUTS`."""
        return tuple(getattr(self, name) for name in LAYOUTS)
