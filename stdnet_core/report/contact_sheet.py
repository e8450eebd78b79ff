"""An overview of a data source: frames as strips on one sheet, and statistics of each sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.report.colorize import colorize_depth

_HEADER, _GAP = 22, 4
_BACKGROUND = 40


def statistics(sequence: RgbdSequence, clips: Sequence[RgbdClip]) -> dict[str, Any]:
    """Statistics of a sequence from some of its frames.

    Returns:
        name, frames, height, width; valid_percent; depth_m: the 1st, 50th and 99th percentile and the maximum of valid
        depth (None without any); brightness 0..1; focal_px and frames_per_second (None if unknown); flow: whether the
        source has optical flow; lr_scale: scale of its own low-resolution depth (None without).
    """
    height, width = sequence.frame_size
    valid = torch.cat([clip.depth[clip.valid] for clip in clips]).numpy()
    percentiles = [round(float(v), 3) for v in np.percentile(valid, (1, 50, 99, 100))] if valid.size else None
    pair = sequence.clip(0, 2) if len(sequence) > 1 else clips[0]
    interval = float(pair.stamps[1] - pair.stamps[0]) if pair.stamps is not None and len(pair) > 1 else 0.0
    share = torch.stack([clip.valid.float().mean() for clip in clips]).mean()
    brightness = torch.stack([clip.rgb.mean() for clip in clips]).mean()
    return {
        "name": sequence.name,
        "frames": len(sequence),
        "height": height,
        "width": width,
        "valid_percent": round(100 * float(share), 2),
        "depth_m": percentiles,
        "brightness": round(float(brightness), 3),
        "focal_px": None if sequence.intrinsics is None else round(float(sequence.intrinsics[0, 0]), 2),
        "frames_per_second": round(1 / interval, 2) if interval > 0 else None,
        "flow": pair.flow is not None,
        "lr_scale": None if pair.lr_scale is None else round(pair.lr_scale, 3),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results of :func:`statistics` as text."""
    heads = (
        "sequence",
        "frames",
        "size",
        "valid %",
        "depth 1/50/99 % / max [m]",
        "bright",
        "f [px]",
        "fps",
        "flow",
        "LR",
    )
    lines = [heads]
    for row in rows:
        depth = "none" if row["depth_m"] is None else " / ".join(f"{value:.2f}" for value in row["depth_m"])
        lines.append(
            (
                row["name"],
                str(row["frames"]),
                f"{row['width']}x{row['height']}",
                f"{row['valid_percent']:.1f}",
                depth,
                f"{row['brightness']:.2f}",
                *("-" if row[key] is None else f"{row[key]:g}" for key in ("focal_px", "frames_per_second")),
                "yes" if row["flow"] else "-",
                "-" if row["lr_scale"] is None else f"x{row['lr_scale']:g}",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def frame_strip(clip: RgbdClip, low: Tensor, limits: tuple[float, float], title: str, width: int) -> np.ndarray:
    """One frame as four pictures side by side under a title.

    Args:
        clip: one frame.
        low: (1, 1, h, w) metres, 0 invalid.
        limits: depths in metres at the warm and the cold end of the colours.
        title: text above the pictures.
        width: of each picture in pixels.

    Returns:
        (rows, 4 pictures, 3) uint8 RGB.
    """
    size = width, max(1, round(width * clip.frame_size[0] / clip.frame_size[1]))
    color = (clip.rgb[0].permute(1, 2, 0) * 255).round().byte().numpy()
    mask = np.repeat(clip.valid[0, 0, :, :, None].numpy().astype(np.uint8) * 255, 3, 2)
    depth, depth_lr = (colorize_depth(values[0, 0].numpy(), *limits) for values in (clip.depth, low))
    pictures = {
        title: cv2.resize(color, size, interpolation=cv2.INTER_AREA),
        f"depth, {limits[0]:.2f} to {limits[1]:.2f} m": cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST),
        f"LR {low.shape[-1]}x{low.shape[-2]}": cv2.resize(depth_lr, size, interpolation=cv2.INTER_NEAREST),
        "valid": cv2.resize(mask, size, interpolation=cv2.INTER_AREA),
    }
    strip = np.full((_HEADER + size[1] + _GAP, len(pictures) * (width + _GAP), 3), _BACKGROUND, np.uint8)
    for column, (label, picture) in enumerate(pictures.items()):
        place = slice(column * (width + _GAP), column * (width + _GAP) + width)
        strip[_HEADER : _HEADER + size[1], place] = picture
        _write_label(strip[: _HEADER - 2, place], label)
    return strip


def contact_sheet(strips: Sequence[np.ndarray], across: int) -> np.ndarray:
    """Strips of frames in reading order, ``across`` per line, as one RGB picture."""
    lines = [strips[i : i + across] for i in range(0, len(strips), across)]
    width = max(strip.shape[1] for strip in strips)
    sheet = np.full((sum(max(s.shape[0] for s in line) for line in lines), width * across, 3), _BACKGROUND, np.uint8)
    top = 0
    for line in lines:
        for column, strip in enumerate(line):
            sheet[top : top + strip.shape[0], column * width : column * width + strip.shape[1]] = strip
        top += max(strip.shape[0] for strip in line)
    return sheet


def _write_label(area: np.ndarray, text: str) -> None:
    """Write a label; if it is too long, its start is cut off, so that the frame number at its end remains."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    while text and cv2.getTextSize(text, font, size, 1)[0][0] > area.shape[1] - 8:
        text = text[1:]
    canvas = np.ascontiguousarray(area)
    cv2.putText(canvas, text, (3, area.shape[0] - 6), font, size, (235, 235, 235), 1, cv2.LINE_AA)
    area[:] = canvas
