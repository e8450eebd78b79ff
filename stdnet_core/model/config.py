"""Configuration of STDNet: one validated dataclass; and the presets of both networks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from stdnet_core.errors import ConfigError
from stdnet_core.model.checks import check_names, check_number, check_switches, check_whole_numbers
from stdnet_core.model.recurrent.config import ARCHITECTURE, RecurrentConfig

Direction = Literal["forward", "backward"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "spatial_fusion": ("release", "paper"),
    "output": ("residual", "guided_kernel"),
    "depth_features": ("depth", "local"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of STDNet. The defaults are the network of the paper as its authors released it.

    Attributes:
        channels: C, the width of every feature map on the working grid (H/4 x W/4).
        head_channels: width at H x W, after the second pixel shuffle.
        trunk_blocks: residual blocks after the spatial difference.
        reconstruction_blocks: residual blocks that merge the outputs of the passes.
        fusion_blocks: channel-attention blocks at the end of a temporal difference module.
        stages: 2, or 1 for the RGB-guided stage alone.
        passes: direction of each pass over the clip; with forward passes only, the network is causal.
        neighbors: number of frames that a pass reads on one side: 1 adjacent, 2 with the cross frame, at most 3. 0: a
            single-frame network (ablation, fig. 10) without passes; ``passes`` is then ignored.
        spatial_fusion: eq. 4 as released (weighted sum of the RGB terms) or as printed (concatenation).
        spatial_difference: False replaces the module by a concatenation (ablation, fig. 9).
        temporal_difference: False replaces the modules by concatenations (ablation, fig. 9).
        output: "residual" adds a residual to the bilinear base (paper). "guided_kernel" takes a weighted mean of the
            3x3 low-resolution depths around each pixel, starting from a joint bilateral filter whose strength is
            predicted per pixel. It adds a residual in units of their spread, so that the result scales with depth.
        depth_features: "depth" uses the depth alone (paper); "local" adds its contrast and spread in the 3x3
            low-resolution neighbourhood and the position inside the low-resolution pixel.
        uncertainty: whether to predict the scale of a Laplace distribution of the error.
        max_offset: bound of the deformable offsets in working-grid pixels; None: no bound.
    """

    channels: int = 64
    head_channels: int = 64
    trunk_blocks: int = 5
    reconstruction_blocks: int = 5
    fusion_blocks: int = 2
    stages: int = 2
    passes: tuple[Direction, ...] = ("backward", "forward", "backward", "forward")
    neighbors: int = 2
    spatial_fusion: Literal["release", "paper"] = "release"
    spatial_difference: bool = True
    temporal_difference: bool = True
    output: Literal["residual", "guided_kernel"] = "residual"
    depth_features: Literal["depth", "local"] = "depth"
    uncertainty: bool = False
    max_offset: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "passes", () if self.neighbors == 0 else tuple(self.passes))
        check_whole_numbers(
            self,
            (
                ("channels", 4, 512),
                ("head_channels", 4, 512),
                ("trunk_blocks", 0, 64),
                ("reconstruction_blocks", 0, 64),
                ("fusion_blocks", 1, 16),
                ("stages", 1, 2),
                ("neighbors", 0, 3),
            ),
        )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"model.{name} is {getattr(self, name)!r:.60}; choose one of {', '.join(choices)}")
        check_switches(self, ("spatial_difference", "temporal_difference", "uncertainty"))
        known = all(p in ("forward", "backward") for p in self.passes)
        if (self.neighbors and not self.passes) or len(self.passes) > 16 or not known:
            raise ConfigError(
                f"model.passes is {self.passes!r:.200}; give a list of 1 to 16 'forward' and 'backward', one per pass"
            )
        if self.max_offset is not None:
            check_number(self, "max_offset", 1000.0)

    @property
    def causal(self) -> bool:
        """Whether no output depends on a later frame."""
        return all(direction == "forward" for direction in self.passes)

    @property
    def depth_feature_channels(self) -> int:
        """Input channels of the depth encoder."""
        return 1 if self.depth_features == "depth" else 5

    @property
    def prediction_parts(self) -> tuple[int, int, int, int, int]:
        """Channels of each part of a stage's last convolution; 0 for parts that the configuration turns off.

        The parts are residual, confidence logit, log scale, strength of the colour guidance and kernel logits.
        """
        guided = self.output == "guided_kernel"
        return 1, 1, int(self.uncertainty), int(guided), 9 * guided

    @property
    def prediction_channels(self) -> int:
        """All channels of a stage's last convolution."""
        return sum(self.prediction_parts)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> ModelConfig | RecurrentConfig:
        """The named preset, with overrides. ``live`` is for the recurrent network, all others are for STDNet.

        Raises:
            ConfigError: no such preset or field.
        """
        if name not in PRESETS:
            raise ConfigError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
        return network_config({**PRESETS[name].to_dict(), **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build from plain values (JSON, YAML).

        Raises:
            ConfigError: an unknown field or an invalid value.
        """
        check_names(values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**dataclasses.asdict(self), "passes": list(self.passes)}


_COMPACT = ModelConfig(output="guided_kernel", depth_features="local", uncertainty=True, max_offset=16.0)

PRESETS: dict[str, ModelConfig | RecurrentConfig] = {
    "base": ModelConfig(),
    "small": dataclasses.replace(
        _COMPACT, channels=32, head_channels=32, trunk_blocks=3, reconstruction_blocks=3, fusion_blocks=1
    ),
    "tiny": dataclasses.replace(
        _COMPACT, channels=16, head_channels=16, trunk_blocks=2, reconstruction_blocks=2, fusion_blocks=1
    ),
    "tiny_causal": dataclasses.replace(
        _COMPACT,
        channels=16,
        head_channels=16,
        trunk_blocks=2,
        reconstruction_blocks=2,
        fusion_blocks=1,
        passes=("forward", "forward"),
    ),
    "live": RecurrentConfig(),
}
"""``base`` is the paper's network, ``live`` the recurrent network for any depth camera. The others are narrower
variants of the paper's, whose output scales with depth."""


def network_config(values: dict[str, Any]) -> ModelConfig | RecurrentConfig:
    """The configuration of a network from plain values (JSON, YAML); ``architecture`` identifies recurrent networks.

    Raises:
        ConfigError: an unknown field or an invalid value.
    """
    if values.get("architecture") == ARCHITECTURE:
        return RecurrentConfig.from_dict(values)
    return ModelConfig.from_dict(values)
