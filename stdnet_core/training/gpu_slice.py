"""The next slice of a long run on a machine that is lent for minutes: ``python -m stdnet_core.training.gpu_slice``.

Goes on from the compact state in ``--from`` if there is one, trains for ``--minutes``, and leaves in ``--output`` what
the next slice needs and what a reader wants: ``compact/`` (files below 15 MB), the weights, the log, a picture,
``slice.json``. Rendered clips are used if shards of them are at hand (:mod:`.shards`); procedural scenes are made on
the GPU in any case. The same command, with the output copied back to ``--from``, does the slice after."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path

from stdnet_core.cli import run_cli
from stdnet_core.errors import ConfigError
from stdnet_core.training import compact, shards
from stdnet_core.training import state as run_state
from stdnet_core.training.config import TrainConfig, load_config, validate

COMPACT = "compact"
_RETURNED = ("best.safetensors", "last.safetensors", "log.jsonl", "config.yaml", "diverged.txt")
_MARGIN_MINUTES = 0.5
"""Kept for the last validation and for writing."""


def without_recordings(config: TrainConfig) -> TrainConfig:
    """The configuration with procedural scenes alone, for a machine without the recorded clips.

    Raises:
        ConfigError: it has no procedural source to train on.
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


def train_slice(
    start: Path | None,
    output: Path,
    minutes: float,
    *,
    config: str = "small_mixed",
    overrides: tuple[str, ...] = (),
    shard_folder: Path | None = None,
    work: Path | None = None,
    compact_mb: float = 60.0,
) -> dict[str, object]:
    """Train one slice.

    Args:
        start: folder whose ``compact`` is gone on from; None or without one: a fresh start.
        output: folder of the results.
        minutes: all in all, unpacking and writing included.
        config, overrides: as of :mod:`stdnet_core.train`.
        shard_folder: folder of shards.
        work: folder for what is large; a temporary one by default.

    Returns:
        What ``slice.json`` holds.
    """
    from stdnet_core.training.run import run

    temporary = tempfile.TemporaryDirectory(prefix="stdnet_slice_") if work is None else contextlib.nullcontext(work)
    with temporary as place:
        folder = Path(place)
        began = time.monotonic()
        recordings = shard_folder is not None and any(shard_folder.glob(shards.PATTERN))
        if recordings:
            shards.unpack(shard_folder, folder / "data")
            settings = load_config(config, [*overrides, f"data.root={folder / 'data'}"])
        else:
            settings = without_recordings(load_config(config, overrides, check_root=False))
        run_folder = folder / "run"
        run_folder.mkdir(parents=True, exist_ok=True)
        previous = start / COMPACT if start is not None and (start / COMPACT / compact.INDEX).is_file() else None
        for name in ("log.jsonl", "best.safetensors"):
            if previous is not None and (start / name).is_file():
                shutil.copy(start / name, run_folder / name)
        left = minutes - (time.monotonic() - began) / 60 - min(_MARGIN_MINUTES, 0.2 * minutes)
        try:
            result = run(settings, run_folder, minutes=max(left, 0.01), resume_compact=previous)
        finally:
            # Whatever ended the run: what it has saved comes back.
            left_out = _deliver(run_folder, output, compact_mb)
        summary: dict[str, object] = {
            "first_step": result.first_step,
            "last_step": result.last_step,
            "steps": settings.optim.steps,
            "finished": result.finished,
            "training_minutes": round(result.seconds / 60, 2),
            "minutes": round((time.monotonic() - began) / 60, 2),
            "recorded_clips": recordings,
            "left_out_of_compact": left_out,
            "validation": result.figures,
        }
        (output / "slice.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary


def _deliver(run_folder: Path, output: Path, compact_mb: float) -> list[str]:
    """Copy what is small out of the folder of a run; the parts that the compact state leaves out."""
    output.mkdir(parents=True, exist_ok=True)
    for name in _RETURNED:
        if (run_folder / name).is_file():
            shutil.copy(run_folder / name, output / name)
    pictures = sorted((run_folder / "pictures").glob("*.png"))
    if pictures:
        shutil.copy(pictures[-1], output / "validation.png")
    state = run_folder / run_state.FILE_NAME
    return compact.write(output / COMPACT, run_state.read(state), compact_mb) if state.is_file() else []


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.training.gpu_slice", description="Train the next slice of a run and come back."
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY.SUB=VALUE", help="change the configuration")
    parser.add_argument("--config", default="small_mixed", help="default: %(default)s")
    parser.add_argument("--from", dest="start", type=Path, default=Path("runs/gpu"), help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="default: the folder of --from")
    parser.add_argument("--minutes", type=float, default=8.0, help="all in all (default: %(default)s)")
    parser.add_argument(
        "--shards",
        type=Path,
        help="folder of shards (default: runs/shards if there are any, else procedural scenes alone)",
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
