"""Lists the depth cameras that can be simulated: ``python -m stdnet_core.data.sensors``."""

from __future__ import annotations

from stdnet_core.data.sensors.presets import PRESETS


def main() -> None:
    """Print a Markdown table of the cameras, with their parameters and sources."""
    print(markdown())


def markdown() -> str:
    """The table of docs/sensors.md."""
    lines = ["| camera | usual ratio | what it is | parameters | source |", "|---|---|---|---|---|"]
    for name, preset in PRESETS.items():
        cells = (f"`{name}`", f"x{preset.ratio:g}", preset.about, preset.sensor.describe(), preset.source)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
