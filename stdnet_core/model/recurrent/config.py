"""Configuration of the recurrent network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from stdnet_core.model.checks import check_names, check_switches, check_whole_numbers

ARCHITECTURE = "recurrent"
"""Value of ``architecture`` in the plain values of these configurations."""


@dataclass(frozen=True)
class RecurrentConfig:
    """Structure of the network; the defaults are those of the network that ships.

    Attributes:
        channels: width of the features at H/4.
        channels_8, channels_16: the same at H/8, where the state's features are, and at H/16.
        blocks: residual blocks of the encoders at H/8 and H/16.
        temporal_difference: False replaces the temporal difference (eq. 5) by zeros (ablation).
    """

    channels: int = 32
    channels_8: int = 64
    channels_16: int = 96
    blocks: int = 2
    temporal_difference: bool = True

    def __post_init__(self) -> None:
        check_whole_numbers(
            self, (("channels", 4, 256), ("channels_8", 4, 512), ("channels_16", 4, 512), ("blocks", 0, 16))
        )
        check_switches(self, ("temporal_difference",))

    causal = True
    """No output depends on a later frame."""
    uncertainty = True
    """It predicts the scale of its error."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RecurrentConfig:
        """Build from plain values (JSON, YAML), with or without ``architecture``.

        Raises:
            ConfigError: an unknown field or an invalid value.
        """
        values = {name: value for name, value in values.items() if name != "architecture"}
        check_names(values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"architecture": ARCHITECTURE, **dataclasses.asdict(self)}
