"""Draws which values a frame changes in the paper's network: ``python scripts/streaming_diagram.py docs/images``.

What is drawn is the work of a step as ``stdnet_core.streaming.schedule`` plans it when the stream has run for a
while."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from stdnet_core.model.config import ModelConfig
from stdnet_core.streaming.schedule import Schedule, Slot, Value, pass_input

LATENCIES = (2, 8)
OLDEST = -10
LEFT, TOP, COLUMN, ROW, RADIUS = 150, 62, 33, 27, 8
STYLE = """\
<style>
  text { font: 13px sans-serif; fill: #222 }
  .axis { fill: #555; text-anchor: middle; font-size: 12px }
  .reads { stroke: #9aa5b1; stroke-width: 1.2 }
  .final { fill: #00796b }
  .again { fill: #ffb300; stroke: #8a5a00; stroke-width: 1.5 }
  .kept { fill: #fafafa; stroke: #00796b; stroke-width: 2 }
  .idle { fill: #cfd4d9 }
</style>"""
LEGEND = (
    ("final", "computed now, for the last time"),
    ("again", "computed now and again with the next frame"),
    ("kept", "computed before, read now"),
)


def diagram(latency: int) -> str:
    """The SVG of a step at a latency in frames."""
    config = ModelConfig()
    plan = Schedule.of(config, latency).steady
    rows = list(_rows(config))
    now = set(plan.writes())
    before = set(plan.reads()) - now
    height = TOP + ROW * len(rows) + 24 + 22 * len(LEGEND)
    width = LEFT + COLUMN * (1 - OLDEST) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>What is computed when frame n arrives, at latency {latency}</title>",
        STYLE,
        f'<rect width="{width}" height="{height}" rx="8" fill="#fafafa"/>',
        f'<text x="12" y="22">Frame n arrives; at latency {latency}, frame n-{latency} is put out</text>',
    ]
    for frame in range(OLDEST, 1):
        parts.append(f'<text class="axis" x="{_x(frame)}" y="{TOP - 18}">{f"n{frame}" if frame else "n"}</text>')
    height_of = {slot: TOP + ROW * index for index, (_, slot) in enumerate(rows)}
    for value, read in _reads(config, plan):
        start, end = (_x(value.frame), height_of[value.slot]), (_x(read.frame), height_of[read.slot])
        parts.append(f'<line class="reads" x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"/>')
    for label, slot in rows:
        parts.append(f'<text x="12" y="{height_of[slot] + 4}">{label}</text>')
        for frame in range(OLDEST, 1):
            kind = _kind(Value(slot, frame), now, before)
            radius = 2 if kind == "idle" else RADIUS
            parts.append(f'<circle class="{kind}" cx="{_x(frame)}" cy="{height_of[slot]}" r="{radius}"/>')
    for index, (kind, text) in enumerate(LEGEND):
        y = TOP + ROW * len(rows) + 12 + 22 * index
        parts.append(f'<circle class="{kind}" cx="22" cy="{y}" r="{RADIUS}"/><text x="38" y="{y + 4}">{text}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _rows(config: ModelConfig) -> Iterator[tuple[str, Slot]]:
    yield "colour and depth", Slot("depth")
    for stage in range(config.stages):
        yield f"stage {stage + 1}: encoders", Slot("trunk", stage)
        for index, direction in enumerate(config.passes):
            yield f"pass {index + 1}, {direction}", Slot("pass", stage, index)
        yield f"output of stage {stage + 1}", Slot("prediction", stage)


def _x(frame: int) -> int:
    return LEFT + COLUMN * (frame - OLDEST) + COLUMN // 2


def _kind(value: Value, now: set[Value], before: set[Value]) -> str:
    if value.slot == Slot("depth"):
        return "final" if value.frame == 0 else "kept" if value in before else "idle"
    if value in now:
        later = (Value(value.slot, frame) for frame in range(OLDEST - 20, value.frame))
        return "again" if any(other in now for other in later) else "final"
    return "kept" if value in before else "idle"


def _reads(config: ModelConfig, plan) -> Iterator[tuple[Value, Value]]:
    """What each value drawn is computed from, in the row above it."""
    last = len(config.passes) - 1
    for s, stage in enumerate(plan.stages):
        above = Slot("depth") if s == 0 else Slot("prediction", s - 1)
        yield from ((Value(Slot("trunk", s), t), Value(above, t)) for t in stage.encode)
        for p, work in enumerate(stage.passes):
            yield from ((Value(Slot("pass", s, p), t), Value(pass_input(s, p), t)) for t, _ in work.sums)
            for t, k in work.calls:
                yield Value(Slot("pass", s, p), t), Value(pass_input(s, p), t + work.step * k)
        yield from ((Value(Slot("prediction", s), t), Value(Slot("pass", s, last), t)) for t in stage.predict)


def main() -> None:
    """Write the pictures into a folder."""
    for latency in LATENCIES:
        (Path(sys.argv[1]) / f"streaming_{latency}.svg").write_text(diagram(latency), encoding="utf-8")


if __name__ == "__main__":
    main()
