"""Interprets the options of ``python -m stdnet_core.evaluate``: sequences, methods, devices, file names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stdnet_core import checkpoints
from stdnet_core.cli import plain_json, print_notes
from stdnet_core.data.protocol import PROTOCOL_RANGES
from stdnet_core.data.rgbd_sequence import RgbdSequence
from stdnet_core.data.sensors import Sensor
from stdnet_core.data.sensors.arguments import describe, sensor_from
from stdnet_core.data.sources import Sequences, open_source, parse_source
from stdnet_core.evaluation.methods import FORGETFUL, Method, Runner
from stdnet_core.evaluation.sequence import SequenceResult
from stdnet_core.inference import DepthUpsampler
from stdnet_core.model import RecurrentNet, STDNet

_RELEASED_SUFFIXES = (".pth", ".pt")
_RELEASED_RANGE = 30.0


def is_released(checkpoint: str | None) -> bool:
    return checkpoint is not None and Path(checkpoint).suffix in _RELEASED_SUFFIXES


def chosen_sensor(args: argparse.Namespace) -> Sensor:
    chosen = sensor_from(args)
    return chosen if args.range_m is None else chosen.with_values({"dtof.range_m": args.range_m})


def describe_low_resolution(args: argparse.Namespace) -> dict[str, Any]:
    if args.lr == "disk":
        return {"source": "disk"}
    return {"source": "simulated", **describe(args), "seed": args.seed}


def make_runner(name: str, args: argparse.Namespace) -> Runner:
    if name not in ("model", FORGETFUL):
        return Runner.classical(name, args.device)
    model: STDNet | RecurrentNet
    if is_released(args.checkpoint):
        depth_range = args.depth_range
        if depth_range is None:
            depth_range = PROTOCOL_RANGES.get(parse_source(args.data)[0], _RELEASED_RANGE)
        model, info = checkpoints.load_released(args.checkpoint, scale=args.trained_scale, depth_range=depth_range)
    else:
        model, info = checkpoints.load(args.checkpoint)
    latency = 0 if info.config.causal else args.latency
    settings = {"device": args.device, "precision": args.precision, "latency": latency}
    upsampler = DepthUpsampler.from_model(model, info, method="stdnet", mask_unsupported=False, **settings)
    return Runner(upsampler, forgetful=name == FORGETFUL)


def describe_model(runner: Runner) -> dict[str, Any]:
    upsampler = runner.upsampler
    info = upsampler.info
    assert info is not None
    return {
        "name": info.name,
        "trained_scales": list(info.scales),
        "depth_range": info.depth_range,
        "config": info.config.to_dict(),
        "latency": upsampler.latency,
    }


def computed_on(runners: dict[str, Runner]) -> tuple[str, str]:
    """The device, and the precision of the network; all other methods compute in float32."""
    placement = runners.get("model", next(iter(runners.values()))).upsampler.placement
    return str(placement.device), placement.precision if "model" in runners else "fp32"


def open_sequences(args: argparse.Namespace, lr_scale: float | None) -> Sequences:
    sequences = open_source(
        args.data,
        split=args.split,
        skip_bad=args.skip_bad,
        lr_scale=lr_scale,
        lr_folder=args.lr_folder,
        depth_unit=args.depth_unit,
        invalid_above=args.invalid_above,
    )
    print_notes(sequences.notes)
    return sequences


def in_question_first(methods: Mapping[str, Method], args: argparse.Namespace) -> list[str]:
    """The methods, with the subject of the report first: the model, else the first given, else the most elaborate."""
    if "model" in methods:
        return sorted(methods, key=lambda name: name != "model")
    return list(methods) if args.methods or args.predictions else list(methods)[::-1]


def file_name(sequence: str, scale: float) -> str:
    return f"{plain_name(sequence)}_x{scale}"


def write_json(args: argparse.Namespace, report: dict[str, Any]) -> None:
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(plain_json(report), indent=1) + "\n")


def plain_name(sequence: str) -> str:
    return sequence.replace("/", "_").replace(":", "_")


def settings_of(report: dict[str, Any], result: SequenceResult | None = None) -> dict[str, Any]:
    """The configuration that a page shows; ``result`` adds the settings chosen for the sequence."""
    settings = {name: report[name] for name in ("data", "split", "checkpoint") if report[name] is not None}
    settings |= {f"predictions: {name}": folder for name, folder in report.get("predictions", {}).items()}
    settings |= {f"low-resolution depth: {key}": value for key, value in report.get("low_resolution", {}).items()}
    if result is not None and result.range_m is not None:
        settings["low-resolution depth: range_m"] = round(result.range_m, 3)
    if result is not None and result.clip_truth_m is not None:
        settings["true depth: clip_truth_m"] = result.clip_truth_m
    settings |= {name: report[name] for name in ("device", "precision")}
    shown = ("name", "trained_scales", "depth_range", "latency")
    return settings | {f"model: {key}": report["model"][key] for key in shown if "model" in report}


def spread(sequences: Sequences, limit: int | None) -> list[RgbdSequence]:
    if limit is None or limit >= len(sequences):
        return list(sequences)
    return [sequences[int(i)] for i in np.linspace(0, len(sequences) - 1, limit).round()]


def score_device(methods: Mapping[str, Method]) -> torch.device:
    return next(m for m in methods.values() if isinstance(m, Runner)).upsampler.placement.device
