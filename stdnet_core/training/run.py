"""One call of a training run: from the state in the output folder to the last step or the time limit."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from stdnet_core.errors import CheckpointError, ConfigError, OutputError
from stdnet_core.inference.devices import cpu_computes_bf16
from stdnet_core.training import compact
from stdnet_core.training import state as run_state
from stdnet_core.training.batches import BatchStream, make_loader
from stdnet_core.training.config import TrainConfig, model_config, to_yaml
from stdnet_core.training.keeper import Keeper
from stdnet_core.training.lock import locked
from stdnet_core.training.module import TrainingModule, loss_config
from stdnet_core.training.state import RunState
from stdnet_core.whole_files import write_text, writing

_EXPECTED = (
    ".*does not have many workers.*",
    ".*IterableDataset.*",
    ".*module\\(s\\) in eval mode.*",  # the moving average
    ".*LeafSpec.*",
)
"""Warnings of Lightning that do not matter here."""


@dataclass(frozen=True)
class RunResult:
    """Result of a call of :func:`run`.

    Attributes:
        first_step, last_step: finished steps before and after the call.
        seconds: of training in this call.
        figures: of the last validation.
        interrupted: by Ctrl-C or SIGTERM.
        finished: whether all steps, or all of ``minutes_in_all``, are done.
    """

    first_step: int
    last_step: int
    seconds: float
    figures: dict[str, Any]
    interrupted: bool
    finished: bool


def starting_state(output: Path, compact_folder: Path | None, *, fresh: bool) -> tuple[RunState | None, str]:
    """The state to resume from: the exact one in the output folder, else the compact one, else None.

    Raises:
        CheckpointError: the state cannot be read, or there is one although ``fresh`` is set.
    """
    exact = output / run_state.FILE_NAME
    if fresh and exact.is_file():
        raise CheckpointError(f"{output} already holds a run; to start a new one, remove it or give another --output")
    if exact.is_file():
        return run_state.read(exact), str(exact)
    if compact_folder is not None:
        return compact.read(compact_folder), str(compact_folder)
    return None, ""


def run(
    config: TrainConfig,
    output: str | Path,
    *,
    minutes: float | None = None,
    minutes_in_all: float | None = None,
    resume_compact: str | Path | None = None,
    fresh: bool = False,
) -> RunResult:
    """Train.

    Args:
        config: of the run.
        output: folder of the run; if it holds a state, the run resumes from it.
        minutes: stop after this many minutes, counted from now.
        minutes_in_all: instead of ``minutes``: finish after this many minutes of training, including those of earlier
            calls. A schedule whose horizon is time runs over all of them.
        resume_compact: folder of a compact state to resume from if ``output`` holds no state.
        fresh: refuse to resume.

    Raises:
        ConfigError, DataError, CheckpointError: an argument does not fit, or another run uses ``output``.
        OutputError: the disk is full; the message says what is saved.
        TrainingDiverged: the gradient is not finite.
    """
    started = time.monotonic()
    if minutes is not None and minutes_in_all is not None:
        raise ConfigError("give minutes, or minutes_in_all, not both")
    output = Path(output)
    model_config(config)
    loss_config(config)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    # Only the first process of a run locks the folder; the others write nothing.
    with locked(output) if is_first_process() else contextlib.nullcontext():
        return _run(config, output, started, minutes, minutes_in_all, resume_compact, fresh)


def _run(
    config: TrainConfig,
    output: Path,
    started: float,
    minutes: float | None,
    minutes_in_all: float | None,
    resume_compact: str | Path | None,
    fresh: bool,
) -> RunResult:
    folder = Path(resume_compact) if resume_compact is not None else None
    state, origin = starting_state(output, folder, fresh=fresh)
    first_step = state.step if state else 0
    if minutes_in_all is not None and state is not None and state.seconds >= 60 * minutes_in_all:
        return RunResult(first_step, first_step, 0.0, {}, interrupted=False, finished=True)
    if first_step >= config.optim.steps:
        if not (output / run_state.FILE_NAME).is_file():
            raise ConfigError(
                f"the run in {origin} has finished its {config.optim.steps} steps; raise optim.steps to continue"
            )
        return RunResult(first_step, first_step, 0.0, {}, interrupted=False, finished=True)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    module = TrainingModule(config, state, origin)
    if minutes is not None:
        module.seconds_allowed = 60 * minutes
    elif minutes_in_all is not None:
        module.seconds_allowed, module.seconds_counted = 60 * minutes_in_all, module.seconds_before
    trainer, device, rank, processes = _trainer(config, first_step)
    stream = BatchStream(config, device, rank, processes, start=first_step * config.optim.accumulate)
    if not (output / "best.safetensors").is_file():
        module.best_score = None
    saved = first_step if (output / run_state.FILE_NAME).is_file() else None
    keeper = Keeper(config, output, stream.builder.pool.names, started, minutes, saved)
    trainer.callbacks.append(keeper)  # type: ignore[attr-defined]  # lightning sets it from elsewhere
    if rank == 0:
        write_text(output / "config.yaml", to_yaml(config))
    if config.trainer.compile:
        module.learner.model.compile(dynamic=True)
    module.began = time.monotonic()
    if minutes_in_all is not None:
        keeper.deadline = module.began + 60 * minutes_in_all - module.seconds_before
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        try:
            with _process_group(trainer):
                trainer.fit(module, train_dataloaders=make_loader(stream, config.data.workers))
        except OutputError as error:
            raise OutputError(f"{error}; {keeper.what_is_safe()}") from error
    last_step = module.first_step + trainer.global_step
    return RunResult(
        first_step,
        last_step,
        time.monotonic() - module.began,
        keeper.figures,
        interrupted=keeper.interrupted,
        finished=last_step >= config.optim.steps or (minutes_in_all is not None and not keeper.interrupted),
    )


@contextlib.contextmanager
def _process_group(trainer: lightning.Trainer) -> Iterator[None]:
    """Destroy the process group at the end of the block, because its threads may abort a process that exits.

    Without an error, the processes wait for each other: the first one still validates and saves when the others are
    done."""
    try:
        yield
        trainer.strategy.barrier()
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process is the one that writes the run's files."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # lightning sets it on the function


def _lightning_trainer(**options: Any) -> lightning.Trainer:
    try:
        return lightning.Trainer(**options)
    except (ValueError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {error}") from error


def _trainer(config: TrainConfig, first_step: int) -> tuple[lightning.Trainer, str, int, int]:
    """The trainer, the device that generates the data, this process's rank and the number of processes."""
    options = config.trainer
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    on_gpu = options.accelerator in ("gpu", "cuda") or (options.accelerator == "auto" and torch.cuda.is_available())
    if options.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(f"trainer.accelerator is {options.accelerator}, but there is no GPU; set it to cpu or auto")
    processes = int(os.environ.get("WORLD_SIZE", options.devices))
    strategy: Any = options.strategy
    if processes > 1 and strategy in ("auto", "ddp"):
        short_clips = min(config.data.lengths) < 2  # a clip of one frame uses no temporal module
        strategy = DDPStrategy(process_group_backend=None if on_gpu else "gloo", find_unused_parameters=short_clips)
    precision: Any = options.precision
    if precision == "auto":
        precision = "bf16-mixed" if on_gpu or cpu_computes_bf16() else "32-true"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    trainer = _lightning_trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=local,
        num_nodes=max(1, processes // local),
        strategy=strategy,
        precision=precision,
        max_steps=config.optim.steps - first_step,
        max_epochs=-1,
        accumulate_grad_batches=config.optim.accumulate,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    rank = trainer.global_rank
    data_on_gpu = on_gpu and config.data.workers == 0
    device = f"cuda:{trainer.local_rank}" if data_on_gpu else "cpu"
    return trainer, device, rank, processes
