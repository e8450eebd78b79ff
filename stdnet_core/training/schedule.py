"""Learning rate and decay of the moving average as functions of the step, so that nothing of them needs saving."""

from __future__ import annotations

import math

from stdnet_core.training.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, time_used: float = 0.0) -> float:
    """Learning rate of step ``step`` (from 0).

    Args:
        time_used: fraction of the time allowed that has passed, 0..1; 0 where none is set. The schedule is as far
            as the further of steps and time.
    """
    done = min(max(step / config.steps, time_used), 1.0)
    if config.schedule == "cosine":
        factor = config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
    elif config.schedule == "milestones":
        factor = config.milestone_factor ** sum(done >= milestone for milestone in config.milestones)
    else:
        factor = 1.0
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.lr * factor * warmup


def ema_decay(limit: float, step: int) -> float:
    """Decay of the average after step ``step`` (from 0): short at first, so that the start is forgotten."""
    return min(limit, (1 + step) / (10 + step))
