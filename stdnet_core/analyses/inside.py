"""Figures of the network's internals: features, sampled neighbours, difference representations (fig. 3, 5a and 9b)."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stdnet_core.analyses.probe import StageFeatures, displacement, observe, principal_components
from stdnet_core.analyses.scenes import (
    Drawn,
    Network,
    Scene,
    open_networks,
    open_scenes,
    root_mean_of,
    scale_warnings,
)
from stdnet_core.errors import ConfigError, InputError
from stdnet_core.evaluation.methods import Runner
from stdnet_core.evaluation.metric_functions import LONG_TAIL
from stdnet_core.evaluation.sequence import EvaluationFrame
from stdnet_core.inference.devices import place
from stdnet_core.inference.engine import as_bytes
from stdnet_core.inference.fill import fill_invalid, nan_where_invalid
from stdnet_core.inference.normalization import clip_depth_range
from stdnet_core.model import ModelConfig, STDNetOutput
from stdnet_core.model.low_resolution import WORKING_STRIDE
from stdnet_core.report import drawing, paper_figures
from stdnet_core.report.colorize import colorize_depth, colorize_error
from stdnet_core.report.panels import Tile, compose, depth_limits, error_limit
from stdnet_core.report.paper_figures import Map

MARGIN = 3
"""Border of the working grid that is left out when principal components are computed."""


@dataclass(frozen=True)
class Look:
    """A network's output for a short clip around the frame that is shown.

    Attributes:
        frames: of the clip.
        place: index of the frame in the clip.
        index: of the frame in the sequence.
        config: of the network.
        depth: (H, W), the network's depth for the frame in metres.
    """

    scene: Scene
    frames: list[EvaluationFrame]
    place: int
    index: int
    output: STDNetOutput
    stages: list[StageFeatures]
    config: ModelConfig
    depth: np.ndarray

    @property
    def frame(self) -> EvaluationFrame:
        """The frame that is shown."""
        return self.frames[self.place]


def _clip_around(args: argparse.Namespace) -> tuple[Scene, list[EvaluationFrame], int, int]:
    """The scene, the frames of a window, and the index of the shown frame in the window and in the sequence."""
    scene = open_scenes(args)[0]
    length = len(scene.sequence)
    index = length // 2 if args.frame is None else args.frame
    if not 0 <= index < length:
        raise ConfigError(f"{scene.name} has frames 0 to {length - 1}, but no frame {index}")
    first = max(0, min(index - args.window // 2, length - args.window))
    return scene, list(scene.frames(first, args.window)), index - first, index


def _look(network: Network, clip: tuple[Scene, list[EvaluationFrame], int, int], args: argparse.Namespace) -> Look:
    scene, frames, place_in_clip, index = clip
    device = place(args.device, "fp32").device
    rgb = torch.from_numpy(np.stack([frame.rgb for frame in frames])).permute(0, 3, 1, 2)[None]
    low = torch.from_numpy(np.stack([frame.depth_lr for frame in frames]))[None, :, None].float()
    metres = network.info.depth_range or float(clip_depth_range(low))
    model = network.model.to(device)
    output, stages = observe(model, rgb.to(device), (fill_invalid(low) / metres).to(device))
    config = network.info.config
    assert isinstance(config, ModelConfig), "observe refuses other networks"
    depth = metres * output.depth[0, place_in_clip, 0].cpu().numpy()
    return Look(scene, frames, place_in_clip, index, output, stages, config, depth)


def _stage(look: Look, args: argparse.Namespace) -> tuple[int, StageFeatures]:
    number = len(look.stages) if args.stage is None else args.stage
    if number > len(look.stages):
        raise ConfigError(f"the network has {len(look.stages)} stage; there is no stage {number}")
    return number, look.stages[number - 1]


def features(args: argparse.Namespace) -> Drawn:
    """Fig. 9b: principal components of depth features before and after both branches."""
    networks, clip = open_networks(args.checkpoint), _clip_around(args)
    frame = clip[1][clip[2]]
    truth = nan_where_invalid(frame.target)
    limits, error_max = depth_limits(truth), error_limit(truth)
    size = frame.target.shape
    cells: np.ndarray = cv2.resize(nan_where_invalid(frame.depth_lr), size[::-1], interpolation=cv2.INTER_NEAREST)
    blank = Tile("", np.full((*size, 3), 255, np.uint8))
    tiles = [
        Tile(f"frame {clip[3]}", as_bytes(frame.rgb)),
        Tile("input depth", colorize_depth(cells, *limits)),
        Tile(f"truth, {limits[0]:.2g} to {limits[1]:.2g} m", colorize_depth(truth, *limits)),
        blank,
        blank,
    ]
    numbers: dict[str, Any] = {"sequence": clip[0].name, "frame": clip[3], "networks": {}}
    for network in networks:
        look = _look(network, clip, args)
        number, stage = _stage(look, args)
        config = look.config
        parts = {
            "F_d": ("before SD", stage.depth),
            "F_sd": ("after SD" if config.spatial_difference else "no SD, concatenated", stage.spatial),
            "F_td": ("after TD" if config.temporal_difference else "no TD, concatenated", stage.fused),
        }
        error = np.abs(look.depth - truth)
        of_network: dict[str, Any] = {"stage": number, "rmse_cm": 100 * root_mean_of(error), "features": {}}
        for symbol, (title, features) in parts.items():
            components, shares = principal_components(features[look.place], margin=MARGIN)
            of_network["features"][symbol] = {"explained": shares.tolist()}
            tiles.append(Tile(f"{network.name}: {symbol}, {title}", _component_picture(components, size)))
        tiles.append(Tile(f"depth of {network.name}", colorize_depth(look.depth, *limits)))
        tiles.append(Tile(f"error, 0 to {100 * error_max:.0f} cm", colorize_error(error, error_max)))
        numbers["networks"][network.name] = of_network
        explained = {k: round(100 * sum(v["explained"])) for k, v in of_network["features"].items()}
        print(f"{network.name}: stage {number}, three components explain {explained} %")
    numbers["warnings"] = scale_warnings(networks, args.scale)
    return drawing.encode_png(compose(tiles, columns=5, tile_width=max(240, min(400, size[1])))), numbers


def _component_picture(components: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Three components (3, h, w) as red, green and blue, each from its 1st to its 99th percentile; (H, W, 3) uint8."""
    values = components.numpy()
    inner = values[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    low, high = np.percentile(inner if inner.size else values, (1, 99), axis=(1, 2), keepdims=True)
    scaled = np.clip((values - low) / np.maximum(high - low, 1e-12), 0, 1)
    picture = (255 * scaled).round().astype(np.uint8).transpose(1, 2, 0)
    stretched = cv2.resize(picture, None, fx=WORKING_STRIDE, fy=WORKING_STRIDE, interpolation=cv2.INTER_NEAREST)
    return stretched[: size[0], : size[1]]


def offsets(args: argparse.Namespace) -> Drawn:
    """Fig. 5a: where each pass samples the neighbours of a frame (eq. 7)."""
    (network,), clip = open_networks(args.checkpoint), _clip_around(args)
    look = _look(network, clip, args)
    number, stage = _stage(look, args)
    if not stage.sampling:
        raise ConfigError(f"{network.name} samples no neighbours: it uses none, or has no temporal difference")
    rgb = as_bytes(look.frame.rgb)
    rows: list[list[Map]] = []
    numbers: dict[str, Any] = {"sequence": look.scene.name, "frame": look.index, "stage": number, "passes": []}
    for index, sampling in enumerate(stage.sampling, start=1):
        sign = "-" if sampling.direction == "forward" else "+"
        line: list[Map] = []
        for distance in range(1, look.config.neighbors + 1):
            try:
                offset, mask = sampling.call(look.place, distance)
            except InputError:
                continue
            offset, mask = offset.float().cpu(), mask.float().cpu()
            moved = displacement(offset, mask)
            length = moved.norm(dim=0)
            title = f"pass {index} ({sampling.direction}), t{sign}{distance}"
            line.append(Map(title, rgb, arrows=moved.numpy()))
            line.append(Map("mean displacement", length.numpy(), "px"))
            line.append(Map("mean mask", mask.mean(0).numpy(), "", 1.0))
            numbers["passes"].append(
                {
                    "pass": index,
                    "direction": sampling.direction,
                    "distance": distance,
                    "displacement_mean_px": float(length.mean()),
                    "displacement_p95_px": float(length.quantile(0.95)),
                    "tap_offset_mean_px": WORKING_STRIDE * float(offset.unflatten(0, (9, 2)).norm(dim=1).mean()),
                    "mask_mean": float(mask.mean()),
                    "mask_std": float(mask.std()),
                }
            )
            print(f"{title}: displaced by {length.mean():.2f} px on average, mask {mask.mean():.2f}")
        if line:
            rows.append(line)
    if not rows:
        raise ConfigError(f"frame {look.index} has no neighbours; give another --frame or a larger --window")
    numbers["warnings"] = scale_warnings([network], args.scale)
    return paper_figures.map_grid(rows), numbers


def differences(args: argparse.Namespace) -> Drawn:
    """Difference representations (eq. 1 and 5) beside the differences of depth that they represent."""
    (network,), clip = open_networks(args.checkpoint), _clip_around(args)
    look = _look(network, clip, args)
    size = look.frame.target.shape
    truth = [nan_where_invalid(frame.target) for frame in look.frames]
    bicubic = Runner.classical("bicubic", "cpu").upsampler.step(look.frame.rgb, look.frame.depth_lr)
    assert bicubic is not None
    of_depth = {"sigma": np.abs(truth[look.place] - bicubic.depth)}
    titles = {"sigma": "|truth - bicubic|"}
    neighbors = look.config.neighbors
    for distance in range(1, min(neighbors, len(truth) - 1 - look.place) + 1):
        of_depth[f"phi {distance}"] = np.abs(truth[look.place] - truth[look.place + distance])
        titles[f"phi {distance}"] = f"truth, |t - (t+{distance})|"
    rows: list[list[Map | None]] = [[Map(f"frame {look.index}", as_bytes(look.frame.rgb))]]
    rows[0] += [Map(titles[name], 100 * values, "cm") for name, values in of_depth.items()]
    numbers: dict[str, Any] = {"sequence": look.scene.name, "frame": look.index, "tail_from_m": LONG_TAIL, "stages": []}
    assert look.output.differences is not None
    for number, found in enumerate(look.output.differences, start=1):
        learned = {"sigma": found.sigma[0, look.place]}
        for distance, phi in enumerate(found.phi, start=1):
            if look.place < phi.shape[1]:
                learned[f"phi {distance}"] = phi[0, look.place]
        line: list[Map | None] = [None]
        of_stage: dict[str, Any] = {}
        for name, values in learned.items():
            mean = values.mean(0).cpu().numpy()
            line.append(Map(f"{name} of stage {number}", mean, "mean over channels"))
            of_stage[name] = {"mean": float(mean.mean()), **_inside_tail(mean, of_depth[name], size)}
            ratio = of_stage[name]["tail_ratio"]
            print(f"stage {number} {name}: {ratio:.2f} times as large where depth differs by {100 * LONG_TAIL:g} cm")
        rows.append(line)
        numbers["stages"].append(of_stage)
    numbers["warnings"] = scale_warnings([network], args.scale)
    return paper_figures.map_grid(rows), numbers


def _inside_tail(values: np.ndarray, depth: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """Means of a map on the working grid: over cells with any pixel that differs by 0.1 m or more, and elsewhere."""
    tail = torch.from_numpy(np.nan_to_num(depth, nan=0.0) >= LONG_TAIL)[None, None].float()
    height, width = (-(-n // WORKING_STRIDE) for n in size)
    padded = F.pad(tail, (0, width * WORKING_STRIDE - size[1], 0, height * WORKING_STRIDE - size[0]))
    inside = F.max_pool2d(padded, WORKING_STRIDE)[0, 0].numpy() > 0
    values = values[:height, :width]
    within, beyond = (float(values[m].mean()) if m.any() else math.nan for m in (inside, ~inside))
    return {"tail_mean": within, "elsewhere_mean": beyond, "tail_ratio": within / beyond if beyond else math.nan}
