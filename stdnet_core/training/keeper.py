"""Work around the training steps: log, progress bar, validation, saved states and weights, time limit."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stdnet_core import checkpoints
from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.errors import OutputError
from stdnet_core.training import state as run_state
from stdnet_core.training.config import TrainConfig, is_recurrent, public_configuration
from stdnet_core.training.module import TrainingDiverged, TrainingModule
from stdnet_core.training.validation import Validator, make_validator, table
from stdnet_core.whole_files import replacing, write_text, writing

LOG_FILE = "log.jsonl"
BOARD = "tensorboard"


class Keeper(Callback):
    """Lightning callback of a run.

    Args:
        config: of the run.
        output: folder of the run.
        data: description of the training data, for the provenance.
        started: ``time.monotonic()`` at which the time limit began.
        minutes: time limit; None: until the last step.
        saved: step of the state that is already in the folder.
    """

    def __init__(
        self,
        config: TrainConfig,
        output: Path,
        data: list[dict[str, Any]],
        started: float,
        minutes: float | None,
        saved: int | None = None,
    ) -> None:
        self.config, self.output, self.data, self.saved = config, output, data, saved
        self.deadline = None if minutes is None else started + 60 * minutes
        self.validator: Validator | None = None
        """Created before the first step, so that an error in its sources shows at once."""
        self.figures: dict[str, Any] = {}
        self.reason = ""
        self.interrupted = False
        self._seen = -1
        self._saved_at = time.monotonic()
        self._validated = -1
        self._step_seconds = self._wait_seconds = 0.0
        self._last = time.monotonic()
        self._handlers: dict[int, Any] = {}
        self._thread_hook = threading.excepthook

    # --- start and end -------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        self._seen = module.step
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._interrupt)
        if trainer.is_global_zero:
            self.validator = make_validator(self.config)
            truncate_log(self.output / LOG_FILE, module.step)
            threading.excepthook = _all_but_tensorboard
            with writing(self.output / BOARD):
                self.board = SummaryWriter(self.output / BOARD, purge_step=module.step + 1)
            self.bar = tqdm(
                total=self.config.optim.steps,
                initial=module.step,
                desc="training",
                unit="step",
                mininterval=0.5 if sys.stderr.isatty() else 30,
                dynamic_ncols=True,
            )
        self._last = time.monotonic()

    def _interrupt(self, number: int, frame: Any) -> None:
        """The first Ctrl-C or SIGTERM ends the run after the current step, the second at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        if trainer.is_global_zero:
            self.save(module)
            if self._validated != module.step and not self.interrupted:
                self._validate(module)
                self.save(module)
        with writing(self.output / BOARD):
            self._close(trainer)

    def on_exception(self, trainer: lightning.Trainer, module: lightning.LightningModule, error: BaseException) -> None:
        assert isinstance(module, TrainingModule)
        if trainer.is_global_zero and self._seen >= 0:
            with contextlib.suppress(OutputError):  # a full disk must not hide the first error
                if isinstance(error, TrainingDiverged):
                    write_text(self.output / "diverged.txt", f"{error}\n")
                if module.finite():
                    self.save(module)
        with contextlib.suppress(OSError):
            self._close(trainer)

    def _close(self, trainer: lightning.Trainer) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        try:
            if trainer.is_global_zero and hasattr(self, "bar"):
                self.bar.close()
                self.board.close()
        finally:
            threading.excepthook = self._thread_hook

    def what_is_safe(self) -> str:
        """What is saved of a run that could not write, and how to resume it."""
        if self.saved is None:
            return "nothing of this run has been saved; free some space and run the same command again"
        return (
            f"everything up to step {self.saved} is safe in {self.output / run_state.FILE_NAME}; free some space, and "
            "the same command resumes from there"
        )

    # --- every step ----------------------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any, index: int
    ) -> None:
        self._wait_seconds += time.monotonic() - self._last

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        assert isinstance(module, TrainingModule)
        if module.step == self._seen:  # only a part of the step's gradients is accumulated
            return
        self._seen = module.step
        module.update_average()
        now = time.monotonic()
        self._step_seconds, self._last = now - self._last, now
        if module.step % self.config.trainer.log_every == 0:
            terms = module.describe()
            if trainer.is_global_zero:
                self._log(module, terms, batch)
        if trainer.is_global_zero:
            self.bar.update()
            every = self.config.val.every
            if every and module.step % every == 0 and module.step < self.config.optim.steps:
                self._validate(module)
                self.save(module)
            elif now - self._saved_at >= 60 * self.config.trainer.save_minutes:
                self.save(module)
            self._last = time.monotonic()
        self._wait_seconds = 0.0
        self._stop_in_time(trainer, now)

    def _stop_in_time(self, trainer: lightning.Trainer, now: float) -> None:
        late = self.deadline is not None and now >= self.deadline
        stop = self.interrupted or late
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self.reason = "interrupted" if self.interrupted else "the time allowed is over"
            trainer.should_stop = True

    def _log(self, module: TrainingModule, terms: dict[str, float], batch: Any) -> None:
        height, width = batch["rgb"].shape[-2:]
        line = {
            "step": module.step,
            "loss": terms["total"],
            "terms": {k: v for k, v in terms.items() if k != "total"},
            "lr": module.lr,
            "gradient_norm": module.gradient_norm,
            "seconds": round(self._step_seconds, 4),
            "data_seconds": round(self._wait_seconds, 4),
            "run_seconds": round(module.seconds, 2),
            "batch": {"scale": batch["scale"], "clips": len(batch["names"]), "frames": batch["rgb"].shape[1]}
            | {"height": height, "width": width},
        }
        append_line(self.output / LOG_FILE, line)
        with writing(self.output / BOARD):
            for name, value in terms.items():
                self.board.add_scalar(f"loss/{name}", value, module.step)
            self.board.add_scalar("optimizer/lr", module.lr, module.step)
            self.board.add_scalar("optimizer/gradient_norm", module.gradient_norm, module.step)
        self.bar.set_postfix(loss=f"{terms['total']:.4f}", lr=f"{module.lr:.1e}", refresh=False)

    # --- validation and files ------------------------------------------------------------------------------------

    def _validate(self, module: TrainingModule) -> None:
        began = time.monotonic()
        assert self.validator is not None
        figures, score, picture = self.validator.run(module.average, module.device)
        self._validated = module.step
        self.figures = {"step": module.step, "score": score, **figures}
        line = {"step": module.step, "validation": figures, "score": score}
        append_line(self.output / LOG_FILE, line | {"seconds": round(time.monotonic() - began, 2)})
        with writing(self.output / BOARD):
            for name, values in figures.items():
                for key, value in values.items():
                    self.board.add_scalar(f"validation {name}/{key}", value, module.step)
            self.board.add_scalar("validation/score", score, module.step)
            if picture is not None:
                self.board.add_image("validation/pictures", picture, module.step, dataformats="HWC")
        if picture is not None:
            with replacing(self.output / "pictures" / f"step_{module.step:07d}.png") as path:
                path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        best = module.best_score is None or not score >= module.best_score
        if best:
            module.best_score = score
            self._write_weights("best", module)
        note = " (best so far)" if best else ""
        tqdm.write(f"step {module.step}: score {score:.4f}{note}\n{table(figures)}", file=sys.stderr)

    def save(self, module: TrainingModule) -> None:
        """Write the state to resume from, and the averaged weights as ``last.safetensors``."""
        run_state.write(self.output / run_state.FILE_NAME, module.capture())
        self.saved = module.step
        self._write_weights("last", module)
        self._saved_at = time.monotonic()

    def _write_weights(self, name: str, module: TrainingModule) -> None:
        normalization = self.config.data.normalization
        scales = tuple(scale for scale, weight in self.config.data.scales.items() if weight > 0)
        depth_range = normalization.depth_range if normalization.mode == "fixed" else None
        if is_recurrent(self.config):  # accepts any ratio, in metres
            scales, depth_range = (), None
        info = CheckpointInfo(
            config=module.average.config,
            scales=scales,
            depth_range=depth_range,
            provenance={
                "step": module.step,
                "training_seconds": round(module.seconds),
                "seed": self.config.seed,
                "data": self.data,
                "configuration": public_configuration(self.config),
            },
            metrics={"validation": self.figures} if self.figures else {},
        )
        checkpoints.save(self.output / f"{name}.safetensors", module.average, info)


def _all_but_tensorboard(arguments: threading.ExceptHookArgs) -> None:
    """Report errors of threads, except of TensorBoard's writer: the next call to it raises those again."""
    if not type(arguments.thread).__module__.startswith("tensorboard"):
        threading.__excepthook__(arguments)


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Append one JSON line.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a log, without a last line that is incomplete because the process was killed."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def truncate_log(path: Path, step: int) -> None:
    """Remove the lines about steps after ``step``, which will be repeated."""
    kept = [line for line in read_log(path) if line["step"] <= step]
    if path.is_file():
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
