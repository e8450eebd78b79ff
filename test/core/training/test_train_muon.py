"""Muon against PyTorch's own (which takes matrices alone), a singular value decomposition, and Adam."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stdnet_core.training.muon import Muon, orthogonalize


def test_singular_values_come_near_one_and_singular_vectors_stay() -> None:
    torch.manual_seed(0)
    for rows, columns in ((16, 144), (48, 16), (32, 96)):
        matrices = torch.randn(3, rows, columns) * torch.tensor([1e-6, 1.0, 1e4]).view(3, 1, 1)
        found = orthogonalize(matrices)
        assert torch.linalg.svdvals(found).sub(0.95).abs().max() < 0.3
        left, _, right = torch.linalg.svd(matrices, full_matrices=False)
        values = left.mT @ found @ right.mT  # diagonal if the singular vectors are the same
        assert (values - torch.diag_embed(values.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3
        assert values.diagonal(dim1=1, dim2=2).min() > 0
    assert not orthogonalize(torch.zeros(1, 8, 8)).any()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has it from 2.9 on")
def test_matrices_take_the_steps_of_pytorchs_muon() -> None:
    torch.manual_seed(1)
    ours = [nn.Parameter(torch.randn(24, 40)), nn.Parameter(torch.randn(24, 40)), nn.Parameter(torch.randn(40, 16))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    optimizers = (
        Muon(ours, lr=0.01),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    )
    targets = [torch.randn_like(p) for p in ours]
    for _ in range(5):
        for optimizer, parameters in zip(optimizers, (ours, theirs), strict=True):
            optimizer.zero_grad()
            sum((p - t).pow(2).sum() for p, t in zip(parameters, targets, strict=True)).backward()
            optimizer.step()
    for a, b, s in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.03 * (a - s).norm()  # theirs orthogonalises in bfloat16


def test_other_parameters_take_the_steps_of_adam() -> None:
    torch.manual_seed(2)
    shapes = ((5,), (), (4, 2, 3, 3), (3, 16, 1, 1))
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = Muon(ours, lr=0.01), torch.optim.Adam(theirs, lr=0.01, betas=(0.9, 0.99))
    for _ in range(3):
        for optimizer, parameters in zip(optimizers, (ours, theirs), strict=True):
            optimizer.zero_grad()
            sum(p.pow(2).sum() for p in parameters).backward()
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_convolution_is_a_matrix_and_unused_parameters_stay() -> None:
    torch.manual_seed(3)
    conv = nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)
    unused = nn.Parameter(torch.ones(9, 9))
    optimizer = Muon([*conv.parameters(), unused], lr=0.1)
    before = conv.weight.detach().clone()
    conv(torch.randn(1, 8, 6, 6)).square().sum().backward()
    optimizer.step()
    change = (conv.weight.detach() - before).reshape(16, 72)
    values = torch.linalg.svdvals(change) / (0.1 * 0.2 * 72**0.5)
    assert values.sub(0.95).abs().max() < 0.3
    assert unused.eq(1).all()
    assert unused not in optimizer.state
