"""The paper's ablations (fig. 9a, 10): ``python -m stdnet_core.ablate --config paper_x4 data.root=... --steps 20000``.

Trains one network for each variant, all with the same data, seeds and budget. It measures the final weights (validation
selects nothing) on one source, and writes a table, the numbers and a plot. After an interruption, the same command
resumes. More figures, variants or seeds can be added later."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stdnet_core.analyses.scenes import Network, network_runner, open_scenes
from stdnet_core.cli import names_argument, plain_json, positive_int, require, run_cli
from stdnet_core.data.protocol import TEST_SOURCE
from stdnet_core.data.sensors.arguments import add_sensor_arguments, describe, ratio_argument
from stdnet_core.errors import ConfigError
from stdnet_core.evaluation.methods import Runner
from stdnet_core.evaluation.scoring import mean_figures
from stdnet_core.evaluation.sequence import evaluate_sequence
from stdnet_core.inference import MAX_LATENCY
from stdnet_core.report.versions import versions
from stdnet_core.training.config import TrainConfig, is_recurrent, load_config, public_configuration

FILE_NAME = "ablation.json"
REFERENCE = "bicubic"
"""The method that the networks are compared with."""
_COLUMNS = {"RMSE": "rmse_cm", "MAE": "mae_cm", "TEPE": "tepe_cm", "flicker": "flicker_cm"}
_ENDLESS = 1 << 30  # steps of a run that is limited by time


@dataclass(frozen=True)
class Variant:
    """One network of the ablation: its description, and its changes to the configuration."""

    about: str
    overrides: tuple[str, ...] = ()


_FULL = ("model.spatial_difference=true", "model.temporal_difference=true", "model.neighbors=2")
_NO_SD, _NO_TD = "model.spatial_difference=false", "model.temporal_difference=false"
_NO_LSD, _NO_LTD = "loss.spatial_weight=0", "loss.temporal_weight=0"

VARIANTS = {
    "full": Variant("SD and TD, 2 neighbours, L_rec + L_sd + L_td", _FULL),
    "baseline": Variant("neither SD nor TD", (*_FULL, _NO_SD, _NO_TD)),
    "sd": Variant("SD alone", (*_FULL, _NO_TD)),
    "td": Variant("TD alone", (*_FULL, _NO_SD)),
    "neighbors_0": Variant("no neighbours: single frames", (*_FULL, "model.neighbors=0")),
    "neighbors_1": Variant("1 neighbour", (*_FULL, "model.neighbors=1")),
    "neighbors_3": Variant("3 neighbours", (*_FULL, "model.neighbors=3")),
    "rec": Variant("L_rec alone", (*_FULL, _NO_LSD, _NO_LTD)),
    "rec_sd": Variant("L_rec + L_sd", (*_FULL, _NO_LTD)),
    "rec_td": Variant("L_rec + L_td", (*_FULL, _NO_LSD)),
}
"""Networks that can be trained; ``full`` is the paper's and part of every figure."""

FIGURES = {
    "9a": ("spatial and temporal difference", ("baseline", "sd", "td", "full")),
    "10a": ("neighbours on each side", ("neighbors_0", "neighbors_1", "full", "neighbors_3")),
    "10b": ("loss terms", ("rec", "rec_sd", "rec_td", "full")),
}
"""Figure of the paper -> what varies in it, and its networks in order."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; ``arguments`` default to those of the process. Returns 130 after Ctrl-C, else 0."""
    args = _parser().parse_intermixed_args(arguments)
    for module in ("lightning", "tensorboard", "tqdm", "cv2"):
        require(module, extra="train")
    require("matplotlib", extra="report")
    logging.getLogger("stdnet_core.inference").setLevel(logging.ERROR)
    wanted = args.variants or list(dict.fromkeys(name for figure in args.figures for name in FIGURES[figure][1]))
    configs = {name: _config(args, name) for name in wanted}
    base = _config(args, "full")
    _check(base, configs, args)
    settings = _settings(base, args)
    results = _stored(args.output / FILE_NAME, settings)
    complete = True
    try:
        for seed in range(args.seeds):
            for name, config in configs.items():
                if _key(name, seed) not in results and complete:
                    print(f"{_key(name, seed)}: {VARIANTS[name].about}", file=sys.stderr)
                    result = _train_and_measure(config, name, seed, args)
                    complete = result is not None
                    if result is not None:
                        results[_key(name, seed)] = result
                        _store(args.output, settings, results)
        if REFERENCE not in results and results and complete:
            results[REFERENCE] = _measure(Runner.classical(REFERENCE, args.device), args)
    except KeyboardInterrupt:
        complete = False
    text = _store(args.output, settings, results)
    print(text)
    if not complete:
        print("interrupted: the same command resumes")
    return 0 if complete else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.ablate", description=__doc__.partition("\n\n")[2].strip()
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY.SUB=VALUE", help="change the configuration")
    parser.add_argument("--config", metavar="FILE", help="YAML file, or the name of a shipped one (paper_x4)")
    parser.add_argument(
        "--figures",
        type=names_argument(FIGURES),
        default=list(FIGURES),
        metavar="F[,F...]",
        help=f"of the paper: {', '.join(f'{name} ({about})' for name, (about, _) in FIGURES.items())} (default: all)",
    )
    parser.add_argument(
        "--variants",
        type=names_argument(VARIANTS),
        metavar="V[,V...]",
        help=f"only these, of {', '.join(VARIANTS)} (default: those of the figures)",
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--steps", type=positive_int, metavar="N", help="train each variant for N steps")
    budget.add_argument("--minutes", type=float, metavar="M", help="train each variant for M minutes in total")
    parser.add_argument("--seeds", type=positive_int, default=1, metavar="N", help="runs of each variant (default: 1)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/ablation"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--device", default="auto", help="for measuring accuracy (default: %(default)s)")
    judged = parser.add_argument_group("data for measuring accuracy")
    judged.add_argument("--data", default=TEST_SOURCE, metavar="KIND:PATH", help="source (default: %(default)s)")
    judged.add_argument("--split", help="a split of the paper's data sets, e.g. test, or a sub-folder of a folder")
    judged.add_argument("--scale", type=ratio_argument, metavar="S", help="default: 8, or the smallest trained for")
    judged.add_argument("--limit", type=positive_int, metavar="N", help="N sequences, evenly spread over all")
    judged.add_argument("--max-frames", type=positive_int, metavar="N", help="the first N frames of each sequence")
    add_sensor_arguments(judged)
    parser.set_defaults(sequence=None, lr="simulated", seed=0, latency=MAX_LATENCY)
    return parser


def _config(args: argparse.Namespace, name: str) -> TrainConfig:
    """Configuration of a variant; its own changes and the budget take precedence over the given overrides."""
    steps = _ENDLESS if args.steps is None else args.steps
    horizon = "time" if args.steps is None else "steps"
    budget = (f"optim.steps={steps}", f"optim.horizon={horizon}", "val.every=0")
    return load_config(args.config, [*args.overrides, *VARIANTS[name].overrides, *budget])


def _check(base: TrainConfig, configs: Mapping[str, TrainConfig], args: argparse.Namespace) -> None:
    """Refuse settings that cannot be compared before the first step, and choose the scale."""
    from stdnet_core.model import ModelConfig
    from stdnet_core.training.config import model_config
    from stdnet_core.training.losses import LossConfig
    from stdnet_core.training.module import loss_config

    if is_recurrent(base):
        raise ConfigError("the ablations are for the paper's network; choose another model.preset than live")
    if base.trainer.devices > 1 or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError("the ablation trains in one process; set trainer.devices to 1 and do not use torchrun")
    if args.minutes is not None and not args.minutes > 0:
        raise ConfigError(f"--minutes is {args.minutes}; give more than 0")
    scales = sorted(scale for scale, weight in base.data.scales.items() if weight > 0)
    if args.scale is None:
        args.scale = 8 if 8 in scales else scales[0]
    if args.scale not in scales:
        raise ConfigError(f"--scale is {args.scale:g}, but data.scales trains for {scales} only")
    loss = loss_config(base)
    assert isinstance(loss, LossConfig)
    asked = {name for name in configs if name.startswith("rec")}
    for weight, used, cells in (
        ("loss.spatial_weight", loss.uses_spatial, {"rec", "rec_sd"}),
        ("loss.temporal_weight", loss.uses_temporal, {"rec", "rec_td"}),
    ):
        if asked & cells and not used:
            raise ConfigError(f"{weight} is 0 in the configuration, so there is nothing to turn off; raise it")
    for name, config in configs.items():
        model = model_config(config)
        assert isinstance(model, ModelConfig)
        neighbors = model.neighbors
        if max(config.data.lengths) <= neighbors:
            raise ConfigError(
                f"data.lengths has at most {max(config.data.lengths)} frames; {name} needs {neighbors + 1} to use all "
                "its neighbours"
            )


def _settings(base: TrainConfig, args: argparse.Namespace) -> dict[str, Any]:
    """Settings that all results of a folder share."""
    return {
        "budget": {"steps": args.steps} if args.steps is not None else {"minutes": args.minutes},
        "measured_on": {
            "data": args.data,
            "split": args.split,
            "scale": args.scale,
            "limit": args.limit,
            "max_frames": args.max_frames,
            **describe(args),
        },
        "configuration": public_configuration(base),
    }


def _key(name: str, seed: int) -> str:
    return f"{name}/seed_{seed}"


def _train_and_measure(config: TrainConfig, name: str, seed: int, args: argparse.Namespace) -> dict[str, Any] | None:
    """Train a variant to its end and measure it; None if it was interrupted."""
    from stdnet_core import checkpoints
    from stdnet_core.training.keeper import read_log
    from stdnet_core.training.run import run

    folder = args.output / name / f"seed_{seed}"
    result = run(dataclasses.replace(config, seed=config.seed + seed), folder, minutes_in_all=args.minutes)
    if result.interrupted:
        return None
    model, info = checkpoints.load(folder / "last.safetensors")
    network = Network(name, model, info)
    lines = [line for line in read_log(folder / "log.jsonl") if "loss" in line]
    return {
        "about": VARIANTS[name].about,
        "parameters": network.parameters,
        "steps": result.last_step,
        "minutes": lines[-1]["run_seconds"] / 60 if lines else None,
        "loss": lines[-1]["loss"] if lines else None,
        **_measure(network_runner(network, args), args),
    }


def _measure(runner: Runner, args: argparse.Namespace) -> dict[str, float]:
    """Figures of a method in cm: means over the sequences."""
    found = {
        scene.name: evaluate_sequence(
            scene.sequence,
            {"method": runner},
            scene.low,
            kind=scene.kind,
            frames=args.max_frames,
            clip_truth=scene.clip_truth,
        ).figures
        for scene in open_scenes(args)
    }
    mean = mean_figures(found)["method"]
    return {figure: mean[figure] for figure in _COLUMNS.values()}


# --- what is written --------------------------------------------------------------------------------------------------


def _stored(path: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Results of earlier calls.

    Raises:
        ConfigError: the folder's results belong to other settings, or the file is not one of this command.
    """
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text())
        theirs, results = stored["settings"], stored["results"]
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{path} is not a file of this command ({error}); give another --output") from error
    ours = plain_json(json.loads(json.dumps(settings)))
    for part in ours:
        if theirs.get(part) != ours[part]:
            raise ConfigError(
                f"{path} holds results of another {part.replace('_', ' ')}, which cannot be compared with these; "
                "give another --output, or the settings of those results"
            )
    return results


def summaries(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Summary of each variant over its seeds: mean and, from two seeds on, standard deviation of every figure in cm.

    Args:
        results: of each run, by ``VARIANT/seed_N``.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, variant in VARIANTS.items():
        runs = [result for key, result in results.items() if key.partition("/")[0] == name]
        if not runs:
            continue
        found[name] = {"about": variant.about, "seeds": len(runs), "parameters": runs[0]["parameters"]}
        for key in ("steps", "minutes", *_COLUMNS.values()):
            values = [run[key] for run in runs if run[key] is not None]
            found[name][key] = statistics.fmean(values) if values else None
            if len(values) > 1:
                found[name][f"{key}_std"] = statistics.stdev(values)
    return found


def _store(folder: Path, settings: dict[str, Any], results: dict[str, dict[str, Any]]) -> str:
    """Write the numbers, the table and the plot; return the table."""
    from stdnet_core.report.paper_figures import ablation_points

    found = summaries(results)
    content = {"settings": settings, "results": results, "summary": found, "versions": versions()}
    text = markdown(found, results.get(REFERENCE), settings)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (
        (FILE_NAME, (json.dumps(plain_json(content), indent=1) + "\n").encode()),
        ("ablation.md", text.encode()),
    ):
        partial = folder / f"{name}.partial"
        partial.write_bytes(data)
        partial.replace(folder / name)
    panels = {
        f"fig. {figure}: {about}": {
            name: [results[key]["rmse_cm"] for key in results if key.partition("/")[0] == name]
            for name in names
            if name in found
        }
        for figure, (about, names) in FIGURES.items()
        if _told(names, found)
    }
    if panels:
        reference = results[REFERENCE]["rmse_cm"] if REFERENCE in results else None
        (folder / "ablation.png").write_bytes(ablation_points(panels, reference, REFERENCE))
    return text


def _told(names: Sequence[str], found: Mapping[str, Any]) -> bool:
    """Whether a figure has results besides ``full``, which is part of all figures (or ``full`` is the only result)."""
    return any(name in found for name in names if name != "full") or set(found) == {"full"}


def markdown(
    found: Mapping[str, Mapping[str, Any]], reference: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> str:
    """Tables of the figures, lengths in cm.

    Args:
        found: of :func:`summaries`.
        reference: figures of interpolation; None if not measured yet.
        settings: that all runs share.
    """
    measured, budget = settings["measured_on"], settings["budget"]
    each = f"{budget['steps']:,} steps" if "steps" in budget else f"{budget['minutes']:g} minutes"
    lines = [
        f"Each network was trained for {each}; measured at x{measured['scale']:g} on {measured['data']}"
        f"{'' if measured['split'] is None else ' (' + measured['split'] + ')'}; lengths in cm."
    ]
    for figure, (about, names) in FIGURES.items():
        shown = [name for name in names if name in found]
        if not shown or not _told(names, found):
            continue
        lines += ["", f"## Fig. {figure}: {about}", ""]
        lines += ["| variant | | parameters | steps | minutes | seeds | " + " | ".join(_COLUMNS) + " | RMSE / full |"]
        lines += ["|" + "---|" * (7 + len(_COLUMNS))]
        full = found["full"]["rmse_cm"] if "full" in found else None
        for name in shown:
            row = found[name]
            cells = [name, row["about"], f"{row['parameters']:,}", f"{row['steps']:,.0f}", _cell(row, "minutes")]
            cells += [str(row["seeds"]), *(_cell(row, key) for key in _COLUMNS.values())]
            cells.append("" if full is None else f"{row['rmse_cm'] / full:.3f}")
            lines.append(f"| {' | '.join(cells)} |")
        if reference is not None:
            figures = " | ".join(_cell(reference, key) for key in _COLUMNS.values())
            ratio = "" if full is None else f"{reference['rmse_cm'] / full:.3f}"
            lines.append(f"| {REFERENCE} | no network | | | | | {figures} | {ratio} |")
    return "\n".join(lines) + "\n"


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if value is None or value != value:
        return "-"
    spread = f" ± {row[f'{key}_std']:.2f}" if f"{key}_std" in row else ""
    return f"{value:.2f}{spread}"


if __name__ == "__main__":
    run_cli(main)
