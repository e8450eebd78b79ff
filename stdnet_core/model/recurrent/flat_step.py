"""The step of the recurrent network with plain tensors as inputs and outputs, for runtimes other than PyTorch."""

from __future__ import annotations

from dataclasses import fields

from torch import Tensor, nn

from stdnet_core.model.recurrent.network import RecurrentNet, RecurrentState

STATE = tuple(field.name for field in fields(RecurrentState))
"""Names of the tensors of the state, in the order of inputs and outputs."""


def flat_state(state: RecurrentState) -> tuple[Tensor, ...]:
    """The tensors of a state in the order of :data:`STATE`."""
    return tuple(getattr(state, name) for name in STATE)


class FlatStep(nn.Module):
    """:meth:`RecurrentNet.step` for one ratio of colour to depth.

    Args:
        model: the network.
        ratio: pixels of a cell of depth on each axis (rows, columns).
    """

    def __init__(self, model: RecurrentNet, ratio: tuple[float, float]) -> None:
        super().__init__()
        self.model = model
        self.ratio = ratio

    def forward(self, rgb: Tensor, depth: Tensor, flow: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Depth and the scale of its error (N, 1, H, W) in metres, then the next state; the inputs are those of
        :meth:`RecurrentNet.step`."""
        output, following = self.model.step(rgb, depth, flow, RecurrentState(*state), self.ratio)
        return output.depth, output.log_scale.exp(), *flat_state(following)
