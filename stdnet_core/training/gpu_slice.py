"""Trains the next slice of a long run: ``python -m stdnet_core.training.gpu_slice``.

A slice is a part of a run, for a machine that is available only for minutes. It resumes from the compact state in
``--from`` if there is one and trains for ``--minutes``. It leaves in ``--output`` what the next slice and a reader
need: ``compact/`` (files below 15 MB), the weights, the log, a picture, ``slice.json``. With the output copied back to
``--from``, the same command trains the slice after it. Rendered clips are used if there are shards of them
(:mod:`.shards`). Data are generated on the GPU, or by worker processes if a short measurement finds these faster. If a
slice diverges, only its log is kept, and the next slice starts from the same state with half the learning rate.
:mod:`stdnet_core.gpu_session` runs a slice as its last step."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import torch

from stdnet_core.cli import run_cli
from stdnet_core.errors import ConfigError
from stdnet_core.training import compact, shards
from stdnet_core.training import state as run_state
from stdnet_core.training.batches import BatchStream
from stdnet_core.training.config import TrainConfig, load_config, validate
from stdnet_core.training.keeper import LOG_FILE, read_log
from stdnet_core.training.module import TrainingDiverged

COMPACT = "compact"
SUMMARY = "slice.json"
CONFIG = "live_wide"
_AFTER_DIVERGENCE = 0.5
"""Factor on the learning rate of the slices after one that diverged."""
_RETURNED = ("best.safetensors", "last.safetensors", LOG_FILE, "config.yaml", "diverged.txt")
_MARGIN_MINUTES = 0.5
"""Reserved for the last validation and for writing."""


def without_recordings(config: TrainConfig) -> TrainConfig:
    """The configuration with procedural scenes alone, for a machine without the recorded clips.

    Raises:
        ConfigError: it has no procedural source for training or validation.
    """
    config.data.sources = [s for s in config.data.sources if s.source == "synthetic"]
    config.val.sources = [s for s in config.val.sources if s.source.startswith("synthetic")]
    if not config.data.sources or not config.val.sources:
        raise ConfigError(
            "there are no shards of recorded clips, and the configuration has no procedural source for training "
            "and validation; give --shards FOLDER"
        )
    validate(config)
    return config


def batch_seconds(config: TrainConfig, device: str, batches: int = 2) -> float:
    """Seconds to build a batch of the run on a device; on the CPU with one thread, like a worker process."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    if device == "cpu":
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    try:
        builder = BatchStream(config, device, 0, 1, 0).builder
        builder.build(0)
        began = time.monotonic()
        for index in range(1, batches + 1):
            builder.build(index)
        if device != "cpu":
            torch.cuda.synchronize()
        return (time.monotonic() - began) / batches
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def choose_workers(config: TrainConfig, device: str, cores: int) -> dict[str, float]:
    """Measure whether the device or worker processes build batches faster.

    Returns:
        ``on_device`` and ``by_workers``: seconds per batch; ``workers``: how many to use, 0 for the device.
    """
    processes = max(1, min(cores - 2, 14))  # two cores are left for training and its optical flow
    on_device, by_workers = batch_seconds(config, device), batch_seconds(config, "cpu") / processes
    return {
        "on_device": round(on_device, 4),
        "by_workers": round(by_workers, 4),
        "workers": 0 if on_device <= by_workers else processes,
    }


def throughput(log: Path, after: int) -> dict[str, float]:
    """Speed of the steps after step ``after``, from the run's log; empty if there are none."""
    lines = [line for line in read_log(log) if "loss" in line and line["step"] > after]
    seconds = sum(line["seconds"] for line in lines)
    if not seconds:
        return {}
    frames = [line["batch"]["clips"] * line["batch"]["frames"] for line in lines]
    pixels = [n * line["batch"]["height"] * line["batch"]["width"] for n, line in zip(frames, lines, strict=True)]
    return {
        "steps_per_s": round(len(lines) / seconds, 3),
        "frames_per_s": round(sum(frames) / seconds, 1),
        "megapixels_per_s": round(sum(pixels) / seconds / 1e6, 3),
        "waiting_for_data": round(sum(line["data_seconds"] for line in lines) / seconds, 3),
    }


def train_slice(
    start: Path | None,
    output: Path,
    minutes: float,
    *,
    config: str = CONFIG,
    overrides: tuple[str, ...] = (),
    shard_folder: Path | None = None,
    work: Path | None = None,
    compact_mb: float = 60.0,
) -> dict[str, object]:
    """Train one slice.

    Args:
        start: folder with the ``compact`` state to resume from; None, or without one: start a new run.
        output: folder of the results.
        minutes: total time, including unpacking and writing.
        config, overrides: as for :mod:`stdnet_core.train`.
        shard_folder: folder of shards.
        work: folder for large files; by default a temporary one.

    Returns:
        The contents of ``slice.json``; ``diverged`` holds the diagnosis if the loss or gradient was not finite.
    """
    from stdnet_core.training.run import run

    temporary = tempfile.TemporaryDirectory(prefix="stdnet_slice_") if work is None else contextlib.nullcontext(work)
    with temporary as place:
        folder = Path(place)
        began = time.monotonic()
        recordings = shard_folder is not None and any(shard_folder.glob(shards.PATTERN))
        if shard_folder is not None and recordings:
            shards.unpack(shard_folder, folder / "data")
            settings = load_config(config, [*overrides, f"data.root={folder / 'data'}"])
        else:
            settings = without_recordings(load_config(config, overrides, check_root=False))
        run_folder = folder / "run"
        run_folder.mkdir(parents=True, exist_ok=True)
        previous = start / COMPACT if start is not None and (start / COMPACT / compact.INDEX).is_file() else None
        first_step = 0
        factor = 1.0 if start is None else _learning_rate_factor(start / SUMMARY)
        if start is not None and previous is not None:
            first_step = compact.read(previous).step
            for name in (LOG_FILE, "best.safetensors"):
                if (start / name).is_file():
                    shutil.copy(start / name, run_folder / name)
        settings.optim.lr *= factor
        data: dict[str, float] = {}
        if torch.cuda.is_available() and not any(o.startswith("data.workers=") for o in overrides):
            data = choose_workers(settings, "cuda", os.cpu_count() or 1)
            settings.data.workers = int(data["workers"])
            torch.cuda.reset_peak_memory_stats()
        left = minutes - (time.monotonic() - began) / 60 - min(_MARGIN_MINUTES, 0.2 * minutes)
        summary: dict[str, object] = {
            "config": config,
            "first_step": first_step,
            "last_step": first_step,
            "steps": settings.optim.steps,
            "learning_rate_factor": factor,
            "recorded_clips": recordings,
            "seconds_for_a_batch": data,
        }
        try:
            result = run(settings, run_folder, minutes=max(left, 0.01), resume_compact=previous)
            summary |= {
                "last_step": result.last_step,
                "finished": result.finished,
                "training_minutes": round(result.seconds / 60, 2),
                "validation": result.figures,
            }
        except TrainingDiverged as error:
            summary |= {"diverged": str(error), "learning_rate_factor": factor * _AFTER_DIVERGENCE}
            # The weights before the last step are finite, but may be far gone.
            for name in (run_state.FILE_NAME, "last.safetensors"):
                (run_folder / name).unlink(missing_ok=True)
            if start is not None and previous is not None:
                if (start / "last.safetensors").is_file():
                    shutil.copy(start / "last.safetensors", run_folder)
                if start != output:
                    shutil.copytree(previous, output / COMPACT, dirs_exist_ok=True)
        finally:
            # However the run ended, copy what it has saved.
            summary["left_out_of_compact"] = _deliver(run_folder, output, compact_mb)
            summary |= throughput(run_folder / LOG_FILE, first_step)
            summary["minutes"] = round((time.monotonic() - began) / 60, 2)
            if torch.cuda.is_available():
                summary["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
            (output / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary


def _learning_rate_factor(summary: Path) -> float:
    """Factor on the learning rate that the slices before this one have set."""
    try:
        return float(json.loads(summary.read_text(encoding="utf-8")).get("learning_rate_factor", 1.0))
    except (OSError, ValueError):
        return 1.0


def _deliver(run_folder: Path, output: Path, compact_mb: float) -> list[str]:
    """Copy the small files of a run; return the parts that the compact state leaves out."""
    output.mkdir(parents=True, exist_ok=True)
    for name in _RETURNED:
        (output / name).unlink(missing_ok=True)  # of the slice before
        if (run_folder / name).is_file():
            shutil.copy(run_folder / name, output / name)
    pictures = sorted((run_folder / "pictures").glob("*.png"))
    if pictures:
        shutil.copy(pictures[-1], output / "validation.png")
    state = run_folder / run_state.FILE_NAME
    return compact.write(output / COMPACT, run_state.read(state), compact_mb) if state.is_file() else []


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.training.gpu_slice", description="Train the next slice of a run, then exit."
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY.SUB=VALUE", help="change the configuration")
    parser.add_argument("--config", default=CONFIG, help="default: %(default)s")
    parser.add_argument("--from", dest="start", type=Path, default=Path("runs/gpu"), help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="default: the folder of --from")
    parser.add_argument("--minutes", type=float, default=8.0, help="total time (default: %(default)s)")
    parser.add_argument(
        "--shards",
        type=Path,
        help="folder of shards (default: runs/shards; without shards, only procedural scenes are used)",
    )
    parser.add_argument("--work", type=Path, help="folder for large files (default: a temporary one)")
    parser.add_argument("--compact-mb", type=float, default=60.0, help="limit of the compact state (default: 60)")
    options = parser.parse_intermixed_args(arguments)
    if not options.minutes > 0:
        raise ConfigError(f"--minutes is {options.minutes}; give a positive number")
    if options.shards is not None and not any(options.shards.glob(shards.PATTERN)):
        raise ConfigError(f"there are no shards in {options.shards}; leave --shards out to train on procedural scenes")
    summary = train_slice(
        options.start,
        options.output or options.start,
        options.minutes,
        config=options.config,
        overrides=tuple(options.overrides),
        shard_folder=options.shards or Path("runs/shards"),
        work=options.work,
        compact_mb=options.compact_mb,
    )
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    run_cli(main)
