"""Random materials for walls, wood, cloth, metal, leaves and the rest."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np

from .scene import Material

Colour = tuple[float, float, float]


class Paint:
    """Draws materials.

    Args:
        rng: source of randomness.
        groups: indices of the textures of each kind in the bank.
        scale: factor on the period of every texture; about the size of the scene over that of a room.
    """

    def __init__(self, rng: np.random.Generator, groups: dict[str, tuple[int, ...]], scale: float = 1.0) -> None:
        self.rng, self.groups, self.scale = rng, groups, scale
        self.hue = rng.random()

    def texture(self, *names: str) -> int:
        """A texture of one of the named kinds."""
        return int(self.rng.choice(self.groups[names[self.rng.integers(len(names))]]))

    def colour(self, value: tuple[float, float] = (0.05, 0.9), saturation: tuple[float, float] = (0, 0.7)) -> Colour:
        """A random colour; half of them near the scene's own hue."""
        hue = self.hue + self.rng.normal(0, 0.06) if self.rng.random() < 0.5 else self.rng.random()
        return colorsys.hsv_to_rgb(hue % 1, self.rng.uniform(*saturation), self.rng.uniform(*value))

    def mix(
        self, low: Colour, high: Colour, textures: tuple[str, ...], period: tuple[float, float], *,
        detail: float = 0.15, angle: float | None = 0.0, gloss: float = 0.0,
    ) -> Material:  # fmt: skip
        """A material between two colours; ``angle`` None for any rotation, ``detail`` the strength of fine grain."""
        rng = self.rng
        strength = detail * rng.uniform(0, 1)
        tone = rng.uniform(0.6, 1, 3) if rng.random() < 0.3 else np.ones(3)
        return Material(
            low=low,
            high=high,
            accent=tuple(strength * tone),
            texture=self.texture(*textures),
            detail=self.texture("noise", "noise", "speckle"),
            period=self.scale * float(np.exp(rng.uniform(*np.log(period)))),
            detail_period=self.scale * float(np.exp(rng.uniform(np.log(0.3), np.log(2.5)))),
            angle=rng.uniform(0, 6.28) if angle is None else angle,
            shift=(rng.random(), rng.random()),
            gloss=gloss,
        )

    def plain(self, value: tuple[float, float] = (0.05, 0.9)) -> Material:
        """One colour, next to no texture."""
        colour = self.colour(value)
        gloss = self.rng.choice((0.0, 0.0, 0.3))
        return self.mix(colour, colour, ("cloud",), (0.5, 3), detail=self.rng.choice((0.0, 0.06)), gloss=gloss)

    def near(self, colour: Colour, contrast: float) -> Colour:
        """A colour like ``colour``, lighter or darker by up to ``contrast``."""
        factor = 1 + contrast * self.rng.uniform(-1, 1)
        red, green, blue = (float(np.clip(c * factor * self.rng.uniform(0.93, 1.07), 0.01, 0.95)) for c in colour)
        return red, green, blue

    def wall(self) -> Material:
        """Plaster, wallpaper, panels, brick, tiles."""
        colour = self.colour((0.35, 0.9), (0, 0.35))
        draw = self.rng.random()
        if draw < 0.5:
            return self.mix(colour, self.near(colour, 0.08), ("cloud", "noise"), (1, 4), detail=0.1)
        other = self.near(colour, 0.5)
        if draw < 0.65:
            return self.mix(colour, other, ("stripes", "dots", "weave", "marble"), (0.4, 2))
        if draw < 0.85:
            return self.mix(self.near(colour, 0.6), colour, ("brick", "tiles"), (0.5, 2.5))
        return self.mix(colour, other, ("wood", "cells", "cloud"), (1, 3))

    def floor(self) -> Material:
        """Boards, tiles, carpet, concrete."""
        colour = self.colour((0.1, 0.7), (0, 0.5))
        other = self.near(colour, 0.6)
        kinds = ("wood", "tiles", "checker", "noise", "cloud", "weave", "cells", "speckle")
        gloss = self.rng.choice((0.0, 0.15))
        angle = self.rng.choice((0.0, np.pi / 2))
        return self.mix(colour, other, (self.rng.choice(kinds),), (0.8, 3), angle=angle, gloss=gloss)

    def wood(self) -> Material:
        """Wood, varnished or painted."""
        rng = self.rng
        dark = colorsys.hsv_to_rgb(rng.uniform(0.05, 0.11), rng.uniform(0.3, 0.8), rng.uniform(0.05, 0.4))
        red, green, blue = (min(1.0, c * rng.uniform(1.3, 2.2)) for c in dark)
        angle = rng.choice((0.0, np.pi / 2))
        return self.mix(dark, (red, green, blue), ("wood",), (0.4, 1.5), angle=angle, gloss=rng.choice((0.0, 0.25)))

    def cloth(self) -> Material:
        """Upholstery, clothes."""
        colour = self.colour((0.05, 0.7))
        kinds = ("noise", "weave", "stripes", "checker", "dots", "cloud")
        return self.mix(colour, self.near(colour, 0.8), kinds, (0.15, 1), angle=None)

    def metal(self) -> Material:
        """Steel, brass, black bars."""
        colour = self.colour((0.03, 0.7), (0, 0.2))
        return self.mix(colour, self.near(colour, 0.3), ("cloud", "wood"), (0.3, 1), gloss=0.6)

    def leaf(self) -> Material:
        """Leaves, moss, grass."""
        rng = self.rng
        hue, saturation = rng.uniform(0.17, 0.38), rng.uniform(0.4, 0.9)
        dark = colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.02, 0.12))
        light = colorsys.hsv_to_rgb(hue + rng.normal(0, 0.03), saturation, rng.uniform(0.2, 0.6))
        return self.mix(dark, light, ("noise", "speckle", "cells"), (0.1, 0.6), angle=None)

    def picture(self) -> Material:
        """Posters, covers, packages: strong edges of colour without an edge of depth."""
        kinds = ("rectangles", "text", "stripes", "cells", "checker", "marble", "dots")
        return self.mix(self.colour(), self.colour(), kinds, (0.2, 1.2), detail=0.5)

    def stone(self) -> Material:
        """Concrete, rock, plaster of facades."""
        colour = self.colour((0.15, 0.7), (0, 0.25))
        return self.mix(colour, self.near(colour, 0.5), ("cloud", "noise", "cells", "brick"), (0.5, 3), detail=0.3)

    def lamp(self) -> Material:
        """Something that shines."""
        colour = self.colour((0.85, 1.0), (0, 0.2))
        return Material(low=colour, high=colour, glow=1.0)

    def screen(self) -> Material:
        """A monitor that is on, or a bright window."""
        return Material(
            low=self.colour((0.0, 0.5)),
            high=self.colour((0.5, 1.0)),
            texture=self.texture("rectangles", "text", "cloud"),
            period=self.scale * self.rng.uniform(0.3, 1.2),
            shift=(self.rng.random(), self.rng.random()),
            glow=1.0,
        )

    def any(self) -> Material:
        """Any of the above that suits an object."""
        makers: tuple[Callable[[], Material], ...] = (
            self.plain, self.plain, self.wood, self.cloth, self.picture, self.metal, self.stone, self.floor,
        )  # fmt: skip
        return makers[self.rng.integers(len(makers))]()
