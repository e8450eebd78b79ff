"""The common part of the batch builders: draws a process's share of each joint batch from the run's sources."""

from __future__ import annotations

import numpy as np
import torch

from stdnet_core.data.augmentation import AugmentationConfig
from stdnet_core.data.clip import RgbdClip
from stdnet_core.training.config import TrainConfig
from stdnet_core.training.draw import BatchPlan, plan_batch, sample_rng
from stdnet_core.training.pool import Pool


class ShareBuilder:
    """One process's share of the batches of a run.

    Args:
        config: of the run.
        device: on which scenes are rendered and depth is simulated.
        rank, processes: rank of this process, number of processes.
    """

    planner = staticmethod(plan_batch)
    """Draws what the clips of a batch have in common (:mod:`stdnet_core.training.draw`)."""

    def __init__(
        self, config: TrainConfig, device: torch.device | str = "cpu", rank: int = 0, processes: int = 1
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.rank, self.processes = rank, processes
        self.augmentation = AugmentationConfig.from_dict(config.data.augmentation)
        self.pool = Pool(config.data)

    def plan(self, index: int) -> BatchPlan:
        """Plan of the joint batch ``index``."""
        config = self.config
        return self.planner(
            config.data, config.seed, index, processes=self.processes, accumulate=config.optim.accumulate
        )

    def drawn(self, index: int) -> tuple[BatchPlan, list[tuple[RgbdClip, np.random.Generator]]]:
        """The plan of batch ``index``, and this process's clips for it, each with its random generator."""
        plan = self.plan(index)
        share = plan.clips // self.processes
        samples = range(self.rank * share, (self.rank + 1) * share)
        rngs = [sample_rng(self.config.seed, plan.index, sample) for sample in samples]
        return plan, list(zip(self.pool.samples(plan, rngs, self.device), rngs, strict=True))
