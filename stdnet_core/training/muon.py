"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum with all singular values set to one.

With it, convolutions need several times fewer steps than with Adam (docs/training_log.md). PyTorch's own version
accepts only two-dimensional parameters and processes them one by one. Here, kernels are reshaped to matrices
(out, in * k * k), matrices of one shape are orthogonalised as one batch, and Adam updates all other parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

SMALLEST = 8
"""Smallest number of rows and of columns with which a weight is treated as a matrix."""
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_RMS = 0.2
"""Root mean square of an update, in learning rates: that of Adam's updates, so that both use one learning rate."""


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the singular values close to one (0.7..1.2) by Newton-Schulz iterations.

    Args:
        matrices: (N, rows, columns).
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, Adam for all other parameters.

    Args:
        parameters: of the network.
        lr: learning rate of both.
        betas: of Adam.
        momentum: of Muon (Nesterov's).
        eps: of Adam.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        eps: float = 1e-8,
    ) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter in parameters:
            matrix = parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= SMALLEST
            (matrices if matrix else others).append(parameter)
        groups = [{"params": matrices, "orthogonal": True}, {"params": others, "orthogonal": False}]
        defaults = {"lr": lr, "betas": betas, "momentum": momentum, "eps": eps}
        super().__init__([group for group in groups if group["params"]], defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; see :class:`torch.optim.Optimizer`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(parameter)
                    if not group["orthogonal"]:
                        state["exp_avg_sq"] = torch.zeros_like(parameter)
            if group["orthogonal"]:
                self._orthogonal_step(parameters, group)
            else:
                self._adam_step(parameters, group)
        return loss

    def _orthogonal_step(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        same_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
        for parameter in parameters:
            same_shape.setdefault((len(parameter), parameter[0].numel()), []).append(parameter)
        for (rows, columns), members in same_shape.items():
            torch._foreach_add_([self.state[p]["step"] for p in members], 1)
            averages = [self.state[p]["exp_avg"] for p in members]
            gradients = [p.grad for p in members if p.grad is not None]
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
            updates = orthogonalize(torch.stack([update.reshape(rows, columns) for update in ahead]))
            size = -group["lr"] * _RMS * max(rows, columns) ** 0.5
            for parameter, update in zip(members, updates, strict=True):
                parameter.add_(update.view(parameter.shape), alpha=size)

    def _adam_step(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        if not parameters:
            return
        states = [self.state[p] for p in parameters]
        beta1, beta2 = group["betas"]
        adam(
            [*parameters],
            [p.grad for p in parameters if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            foreach=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )
