"""The training step: network, loss, moving average, optimiser, and the check that stops a diverging run."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor, nn

from stdnet_core.errors import ConfigError, StdnetError
from stdnet_core.model import ModelConfig, RecurrentConfig, STDNet, build
from stdnet_core.model.blocks import channels_last
from stdnet_core.training.batches import Batch
from stdnet_core.training.config import TrainConfig, model_config, validation_key
from stdnet_core.training.initial import initialize
from stdnet_core.training.losses import LossConfig, STDNetLoss
from stdnet_core.training.muon import Muon
from stdnet_core.training.recurrent_loss import RecurrentLoss, RecurrentLossConfig
from stdnet_core.training.schedule import ema_decay, learning_rate
from stdnet_core.training.state import RunState, capture, restore_optimizer, restore_weights


class TrainingDiverged(StdnetError):
    """The gradient is not finite; the message says in which step, and where to look."""


def loss_config(config: TrainConfig) -> LossConfig | RecurrentLossConfig:
    """Configuration of a run's loss; for a network that predicts no uncertainty, the weight of that term is 0.

    Raises:
        ConfigError: the loss of the run's network has no such setting, or a value is not a number or out of range.
    """
    model = model_config(config)
    values = dict(config.loss)
    if not model.uncertainty:
        values["uncertainty_weight"] = 0.0
    kind = RecurrentLossConfig if isinstance(model, RecurrentConfig) else LossConfig
    known = [field.name for field in dataclasses.fields(kind)]
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"loss has no setting {name!r}; it has {', '.join(known)}")
        allowed = str if name == "spatial_weight_form" else int | float | bool | list
        if not isinstance(value, allowed):
            raise ConfigError(f"loss.{name} is {value!r}, which is not a number")
    return kind(**values)


class Learner(nn.Module):
    """Everything that is trained: the network and the loss's heads."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        model = model_config(config)
        loss = loss_config(config)
        self.model = build(model)
        self.loss: STDNetLoss | RecurrentLoss
        if isinstance(loss, RecurrentLossConfig):
            self.loss = RecurrentLoss(loss)
        else:
            assert isinstance(model, ModelConfig)
            self.loss = STDNetLoss(loss, model.channels, model.neighbors)
        if config.optim.zero_init_heads and isinstance(self.model, STDNet):  # the recurrent network always does this
            self.model.zero_init_heads()
        channels_last(self.model)  # convolutions are faster on every device

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss's terms for a batch."""
        if isinstance(self.loss, RecurrentLoss):
            output = self.model(batch["rgb"], batch["depth_lr"], batch["flow"], tuple(batch["ratio"]))
            return self.loss(output, batch["depth"], batch["valid"], batch.get("measured"))
        output = self.model(
            rgb=batch["rgb"],
            depth_lr=batch["depth_lr"],
            return_differences=self.loss.config.uses_differences,
        )
        return self.loss(output, batch["depth"], batch["valid"])


class TrainingModule(lightning.LightningModule):
    """The Lightning module of a run.

    Args:
        config: of the run.
        state: state to resume from; None for a new run.
        origin: where the state comes from, for messages.
    """

    def __init__(self, config: TrainConfig, state: RunState | None = None, origin: str = "the state") -> None:
        super().__init__()
        self.config = config
        torch.manual_seed(config.seed)
        self.learner = Learner(config)
        if state is None and config.init is not None:
            initialize(self.learner.model, config.init)
        self.average = copy.deepcopy(self.learner.model).eval().requires_grad_(False)
        if state is not None:
            restore_weights(state, self.learner, self.average, origin)
        self._state = state
        self.first_step = state.step if state else 0
        self.best_score: float | None = None
        if state is not None and state.about.get("validation") == validation_key(config):
            self.best_score = state.about.get("best_score")
        self.seconds_before = state.seconds if state else 0.0
        self.began = time.monotonic()
        self.seconds_allowed: float | None = None
        self.seconds_counted = 0.0
        """Seconds of earlier calls that count towards ``seconds_allowed``."""
        self.terms: dict[str, Tensor] = {}
        self.gradient_norm = 0.0
        self.lr = 0.0
        self.last_batch: Batch | None = None

    @property
    def step(self) -> int:
        """Finished steps of the run, including those of earlier calls."""
        return self.first_step + self.trainer.global_step

    @property
    def seconds(self) -> float:
        """Seconds spent on the run, over all calls."""
        return self.seconds_before + time.monotonic() - self.began

    def time_used(self) -> float:
        """Share of the allowed time that has passed; 0 unless the schedule depends on it."""
        if self.config.optim.horizon != "time" or not self.seconds_allowed:
            return 0.0
        used = (self.seconds_counted + time.monotonic() - self.began) / self.seconds_allowed
        # from one clock, or the processes would use different learning rates
        return self.trainer.strategy.broadcast(used, src=0) if self.trainer.world_size > 1 else used

    def capture(self) -> RunState:
        """The current state, on the CPU."""
        return capture(
            self.learner,
            self.average,
            self.trainer.optimizers[0],
            step=self.step,
            seconds=self.seconds,
            about={
                "model": self.learner.model.config.to_dict(),
                "seed": self.config.seed,
                "best_score": self.best_score,
                "validation": validation_key(self.config),
            },
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optim = self.config.optim
        parameters, betas = self.learner.parameters(), (optim.betas[0], optim.betas[1])
        optimizer: torch.optim.Optimizer
        if optim.name == "muon":
            optimizer = Muon(parameters, lr=optim.lr, betas=betas)
        else:
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optim.name]
            optimizer = kind(parameters, lr=optim.lr, betas=betas, weight_decay=optim.weight_decay)
        if self._state is not None:
            restore_optimizer(self._state, self.learner, optimizer)
            self._state = None
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        # What still draws from the global generator must not depend on when the run was interrupted.
        torch.manual_seed(hash((self.config.seed, batch["index"])) % 2**63)
        self.lr = learning_rate(self.config.optim, self.step, self.time_used())
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        terms = self.learner(batch)
        self.terms = {name: value.detach() for name, value in terms.items()}
        self.last_batch = batch
        return terms["total"]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm; raise before a step that would destroy the weights."""
        limit = self.config.optim.clip_norm or math.inf
        self.gradient_norm = float(nn.utils.clip_grad_norm_(self.learner.parameters(), limit))
        if not math.isfinite(self.gradient_norm):
            raise TrainingDiverged(self._diagnosis())

    def _diagnosis(self) -> str:
        """What is not finite, where, and with which data."""
        terms = ", ".join(f"{name} {float(value):.4g}" for name, value in self.terms.items())
        bad_weights = [n for n, p in self.learner.named_parameters() if not torch.isfinite(p).all()]
        bad_gradients = [
            n for n, p in self.learner.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        batch = self.last_batch or {}
        inputs = [
            f"{name} {float(batch[name].min()):.3g} to {float(batch[name].max()):.3g}"
            for name in ("rgb", "depth_lr", "depth", "depth_range", "flow")
            if name in batch
        ]
        tensors = [name for name in ("rgb", "depth_lr", "depth", "flow") if name in batch]
        bad_inputs = [name for name in tensors if not torch.isfinite(batch[name]).all()]
        cause = (
            f"the data are not finite ({', '.join(bad_inputs)}): check these clips"
            if bad_inputs
            else "lower optim.lr, or raise optim.warmup_steps, or set trainer.precision=32-true"
        )
        clips = ", ".join(dict.fromkeys(batch.get("names", [])))
        first = f" (first: {bad_gradients[0]})" if bad_gradients else ""
        return (
            f"training diverged in step {self.step + 1}: the gradient is not finite (loss: {terms}; learning rate "
            f"{self.lr:.3g}; batch {batch.get('index')} of scale {batch.get('scale')}: {', '.join(inputs)}; "
            f"clips {clips}; not finite: {len(bad_gradients)} gradients{first}, {len(bad_weights)} weights); the state "
            f"before this step is kept; {cause}"
        )

    @torch.no_grad()
    def update_average(self) -> None:
        """Update the moving average after a step."""
        decay = ema_decay(self.config.optim.ema, self.step - 1) if self.config.optim.ema else 0.0
        targets = dict(self.learner.model.named_parameters())
        names = [name for name, _ in self.average.named_parameters()]
        averages: list[Tensor] = [p for _, p in self.average.named_parameters()]
        torch._foreach_lerp_(averages, [targets[name] for name in names], 1.0 - decay)
        for own, other in zip(self.average.buffers(), self.learner.model.buffers(), strict=True):
            own.copy_(other)

    def finite(self) -> bool:
        """Whether all weights and averages are finite."""
        return all(bool(torch.isfinite(p).all()) for p in self.parameters())

    def describe(self) -> dict[str, Any]:
        """Loss terms averaged over the processes, as plain numbers."""
        values = torch.stack([value.float() for value in self.terms.values()])
        if self.trainer.world_size > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")
        return dict(zip(self.terms, [float(v) for v in values], strict=True))
