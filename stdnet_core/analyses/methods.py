"""Figures of methods: long tails, slices, consecutive frames, complexity (fig. 2, 4b, 5b, 6, 7 and 8)."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from stdnet_core.analyses.scenes import (
    Drawn,
    Network,
    Part,
    Scene,
    mean_of,
    network_runner,
    open_networks,
    open_runners,
    open_scenes,
    progress,
    results_of,
    root_mean_of,
    scale_warnings,
    with_predictions,
)
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import ConfigError, DataError
from stdnet_core.evaluation.methods import Method, Runner, notices_of
from stdnet_core.evaluation.metric_functions import LONG_TAIL
from stdnet_core.evaluation.scoring import mean_figures
from stdnet_core.evaluation.sequence import EvaluationFrame, evaluate_sequence
from stdnet_core.inference.devices import place
from stdnet_core.inference.engine import as_bytes
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.inference.frames import Geometry
from stdnet_core.model import ModelConfig, RecurrentNet, build
from stdnet_core.model.low_resolution import WORKING_STRIDE
from stdnet_core.report import drawing, figures, paper_figures
from stdnet_core.report.analysis import ERROR_EDGES_M, REGIONS, Analysis, AnalysisFrame
from stdnet_core.report.long_tail import LongTail, tail_table
from stdnet_core.report.panels import Tile, compose, depth_limits, error_limit, frame_tiles
from stdnet_core.report.paper_figures import Bubble

SHIPPED = "live"
"""The network that is shown by default."""
_TIMED = 8
_SETTLING = 2  # frames beyond the latency that are not timed


def _analysis(args: argparse.Namespace, scene: Scene, runners: dict[str, Method], row: int | None = None) -> Analysis:
    """Analyse the output of all methods for a scene.

    Raises:
        DataError: it has no ground-truth depth.
    """
    analysis = Analysis(list(runners), temporal=False, row=row)
    for index, (frame, said) in enumerate(results_of(scene, runners, args.start, args.frames), start=args.start):
        analysis.add(
            AnalysisFrame(
                index,
                None,
                as_bytes(frame.rgb),
                nan_where_invalid(frame.depth_lr),
                {name: np.nan_to_num(said[name].depth, nan=0.0) for name in runners},
                nan_where_invalid(frame.target),
                upsampled=said["bicubic"].depth,
            )
        )
    if not any(row["pixels"] for row in analysis.rows):
        raise DataError(f"{scene.name}: it has no ground-truth depth to compare with")
    return analysis


def long_tail(args: argparse.Namespace) -> Drawn:
    """Fig. 2: differences in space and time."""
    tail, shown = LongTail(), None
    scenes = open_scenes(args)
    for scene in scenes:
        tail.begin()
        count = min(len(scene.sequence) - args.start, args.frames or len(scene.sequence))
        wanted = max(0, min(count - 1, (count if args.frame is None else 2 * (args.frame - args.start)) // 2))
        for index, (frame, said) in enumerate(results_of(scene, {}, args.start, args.frames)):
            maps = tail.add(said["bicubic"].depth, frame.target)
            if shown is None and index >= wanted and len(maps) == 5:
                shown = as_bytes(frame.rgb), nan_where_invalid(frame.target), maps, args.start + index
    if shown is None or "cross" not in tail.figures():
        raise DataError(f"{args.data}: fig. 2 needs ground-truth depth of at least three frames in a row")
    rgb, truth, maps, index = shown
    kinds = {
        "spatial": "|truth - bicubic|",
        "consecutive": "bicubic, |t - (t-1)|",
        "cross": "bicubic, |t - (t-2)|",
    }
    numbers = {
        "sequences": [scene.name for scene in scenes],
        "frame_shown": index,
        "tail_from_m": LONG_TAIL,
        "differences": {name: dataclasses.asdict(values) for name, values in tail.figures().items()},
        "long_tail": tail.curves(),
    }
    for name, values in tail.figures().items():
        print(
            f"{name:17} {100 * values.tail_share:5.1f} % of the pixels differ by {100 * LONG_TAIL:g} cm or more, with "
            f"{100 * values.tail_difference:.0f} % of all difference; mean {values.mean_cm:.2f} cm"
        )
    return paper_figures.long_tail(rgb, truth, maps, tail.bins, kinds), numbers


def _first(scenes: Sequence[Scene]) -> tuple[Scene, bool]:
    """The scene that is shown, and whether it is the only one."""
    return scenes[0], len(scenes) == 1


def tail_errors(args: argparse.Namespace) -> Drawn:
    """Fig. 4b: errors of the methods in the long tails."""
    scenes = open_scenes(args)
    networks = open_networks(args.checkpoint or [SHIPPED])
    alone = len(scenes) == 1
    runners = open_runners(networks, args)
    of_scenes = [(scene, with_predictions(runners, scene, args, alone=alone)) for scene in scenes]
    shown = of_scenes[0][1]
    found = [_analysis(args, scene, methods).histograms for scene, methods in of_scenes]
    histograms = {
        region: {name: np.sum([of[region][name] for of in found], axis=0) for name in shown} for region in REGIONS
    }
    regions = tail_table(histograms)
    for region, of_region in regions.items():
        for name, values in of_region.items():
            print(f"{region:19} {name:18} {100 * values['tail_share']:6.2f} % off by {100 * LONG_TAIL:g} cm or more")
    numbers = {
        "sequences": [scene.name for scene in scenes],
        "methods": list(shown),
        "tail_from_m": LONG_TAIL,
        "edges_m": ERROR_EDGES_M.tolist(),
        "regions": regions,
        "warnings": scale_warnings(networks, args.scale),
        "notices": notices_of(shown),
    }
    return figures.error_histograms(histograms, list(shown)), numbers


def slices(args: argparse.Namespace) -> Drawn:
    """Fig. 5b: one row of the image over time."""
    scene, alone = _first(open_scenes(args))
    networks = open_networks(args.checkpoint or [SHIPPED])
    runners = with_predictions(open_runners(networks, args), scene, args, alone=alone)
    analysis = _analysis(args, scene, runners, args.row)
    piece = analysis.slice
    assert piece is not None
    truth = np.array(piece.depth["truth"])
    numbers: dict[str, Any] = {"sequence": scene.name, "row": piece.row, "frames": len(truth), "slice": {}}
    for name in analysis.methods:
        error = np.array(piece.depth[name]) - truth
        numbers["slice"][name] = {
            "rmse_cm": 100 * root_mean_of(error),
            "mae_cm": 100 * mean_of(np.abs(error)),
            "flicker_cm": 100 * mean_of(np.abs(np.diff(error, axis=0))),
        }
        print(f"row {piece.row}  {name:18} " + ", ".join(f"{k} {v:.2f}" for k, v in numbers["slice"][name].items()))
    numbers |= {"warnings": scale_warnings(networks, args.scale), "notices": notices_of(runners)}
    return figures.xt_slices(piece, analysis.methods), numbers


def frames(args: argparse.Namespace) -> Drawn:
    """Fig. 6 and 7: consecutive frames, methods side by side."""
    scene, alone = _first(open_scenes(args))
    networks = open_networks(args.checkpoint or [SHIPPED])
    runners = with_predictions(open_runners(networks, args), scene, args, alone=alone)
    length = min(len(scene.sequence), args.start + (args.frames or len(scene.sequence)))
    first = (args.start + length - args.count) // 2 if args.frame is None else args.frame
    first = max(args.start, first)
    if first + args.count > length:
        raise ConfigError(
            f"{scene.name} ends with frame {length - 1}; frames {first} to {first + args.count - 1} are not all there"
        )
    needed = min(length, first + args.count + args.latency) - args.start
    tiles: list[Tile] = []
    rows: list[dict[str, Any]] = []
    limits = error_max = None
    columns = 3 + len(runners)
    for index, (frame, said) in enumerate(results_of(scene, runners, args.start, needed), start=args.start):
        if not first <= index < first + args.count:
            continue
        window = cell_window(args.crop, frame)
        rgb, truth = window(as_bytes(frame.rgb)), window(nan_where_invalid(frame.target))
        outputs = {name: window(said[name].depth) for name in runners}
        known = np.isfinite(truth).any()
        if limits is None and known:
            limits, error_max = depth_limits(truth), error_limit(truth)
        low = window(nan_where_invalid(frame.depth_lr))
        of_frame = frame_tiles(rgb, low, outputs, truth if known else None, limits=limits, error_max=error_max)
        of_frame[0] = Tile(f"frame {index}", rgb)
        blank = Tile("", np.full_like(rgb, 255))
        of_frame.insert(columns, blank)
        of_frame.insert(columns, blank)  # errors stand below their depths
        tiles += of_frame + [blank] * (-len(of_frame) % columns)
        errors = {name: outputs[name] - truth for name in runners}
        figures_of = {
            n: {"rmse_cm": 100 * root_mean_of(e), "mae_cm": 100 * mean_of(np.abs(e))} for n, e in errors.items()
        }
        rows.append({"frame": index, "methods": figures_of})
    for row in rows:
        for name, values in row["methods"].items():
            print(f"frame {row['frame']}  {name:18} RMSE {values['rmse_cm']:.2f}, MAE {values['mae_cm']:.2f} cm")
    picture = compose(tiles, columns=columns, tile_width=max(240, min(480, tiles[0].image.shape[1])))
    numbers = {
        "sequence": scene.name,
        "crop": args.crop,
        "frames": rows,
        "warnings": scale_warnings(networks, args.scale),
        "notices": notices_of(runners),
    }
    return drawing.encode_png(picture), numbers


def cell_window(crop: tuple[int, int, int, int] | None, frame: EvaluationFrame) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that crops images of the frame's size or of its low-resolution depth's.

    The crop is widened to whole cells.

    Raises:
        ConfigError: the crop leaves the frame.
    """
    if crop is None:
        return lambda image: image
    size, cells = frame.target.shape, frame.depth_lr.shape
    top, left, height, width = crop
    if top + height > size[0] or left + width > size[1]:
        raise ConfigError(f"--crop {','.join(map(str, crop))} leaves the frame of {size[0]} rows and {size[1]} columns")
    spans = []
    covered = Geometry.native(size, cells).covered
    for begin, extent, pixels, count in zip((top, left), (height, width), covered, cells, strict=True):
        cell = pixels / count
        first, end = math.floor(begin / cell), min(count, math.ceil((begin + extent) / cell))
        spans.append({True: slice(first, end), False: slice(round(first * cell), round(end * cell))})

    def cut(image: np.ndarray) -> np.ndarray:
        return image[tuple(span[image.shape[:2] == cells] for span in spans)]

    return cut


def complexity(args: argparse.Namespace) -> Drawn:
    """Fig. 8: parameters, time and RMSE."""
    scenes = open_scenes(args)
    networks = open_networks(args.checkpoint if args.checkpoint is not None else [SHIPPED])
    runners = open_runners(networks, args)
    parameters = {network.name: network.parameters for network in networks}
    results: dict[str, dict[str, dict[str, float]]] = {}
    for scene in scenes:
        part = Part(scene.sequence, args.start, args.frames)
        bar = iter(progress(range(len(part)), scene.name, len(part)))
        results[scene.name] = evaluate_sequence(
            part,
            runners,
            scene.low,
            kind=scene.kind,
            clip_truth=scene.clip_truth,
            on_frame=lambda *_, bar=bar: next(bar, None),
        ).figures
        next(bar, None)  # all frames are counted: this closes the bar
    mean = mean_figures(results)
    frames = list(scenes[0].frames(args.start, min(len(scenes[0].sequence) - args.start, _TIMED)))
    points = [
        Bubble(name, parameters.get(name, 0), _milliseconds(runner, frames), mean[name]["rmse_cm"])
        for name, runner in runners.items()
    ]
    for name in args.presets:
        torch.manual_seed(0)
        model = build(ModelConfig.preset(name)).eval()
        recurrent = isinstance(model, RecurrentNet)
        trained = () if recurrent else (-(-int(args.scale) // WORKING_STRIDE) * WORKING_STRIDE,)
        network = Network(name, model, CheckpointInfo(model.config, trained, None, name=name))
        points.append(Bubble(name, network.parameters, _milliseconds(network_runner(network, args), frames), None))
    height, width = scenes[0].sequence.frame_size
    device = str(place(args.device, "fp32").device)
    numbers = {
        "sequences": list(results),
        "size": [height, width],
        "device": device,
        "threads": torch.get_num_threads(),
        "precision": "fp32",
        "latency": args.latency,
        "methods": {p.name: {"parameters": p.parameters, "ms_per_frame": p.ms, "rmse_cm": p.rmse_cm} for p in points},
        "warnings": scale_warnings(networks, args.scale),
        "notices": notices_of(runners),
    }
    for p in points:
        rmse = "no weights" if p.rmse_cm is None else f"RMSE {p.rmse_cm:.2f} cm"
        print(f"{p.name:18} {p.parameters:11,} parameters, {p.ms:8.1f} ms a frame, {rmse}")
    return paper_figures.bubbles(points, f"{width}x{height} x{args.scale:g} on {device} in float32"), numbers


def _milliseconds(runner: Runner, frames: Sequence[EvaluationFrame]) -> float:
    """Median time per frame once the stream has settled; the frames are repeated forwards and backwards."""
    runner.begin()
    order = itertools.cycle([*frames, *frames[-2:0:-1]])
    times = []
    count = runner.upsampler.latency + _SETTLING + _TIMED
    for number in progress(range(count), "time", count):
        frame = next(order)
        begin = time.perf_counter()
        runner.step(frame.rgb, frame.depth_lr)
        if number >= runner.upsampler.latency + _SETTLING:
            times.append(1e3 * (time.perf_counter() - begin))
    runner.begin()
    return float(np.median(times))
