"""Learning rate and decay of the moving average as functions of the step, so that they need not be saved."""

from __future__ import annotations

import math

from stdnet_core.training.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, time_used: float = 0.0) -> float:
    """Learning rate of step ``step`` (from 0).

    Args:
        time_used: share of the allowed time that has passed, 0..1; 0 without a time limit. The schedule follows
            whichever of steps and time is further ahead.
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
    """Decay of the average after step ``step`` (from 0): low at first, so that the initial weights fade quickly."""
    return min(limit, (1 + step) / (10 + step))
