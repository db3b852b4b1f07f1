"""Null controls: there is no LR to suggest, and the right answer is a refusal.

Each is a workload without anything to learn, given to every finder like the others.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from accuracy import nets, sets
from accuracy.workloads import Workload

CONTROL = "control"
CLASSES = 4
ENGINE = "sequential"  # what `auto` takes for tests this short; rounding differs between engines


class Constant(nn.Module):
    """The same logits for every input; at first those of equal shares."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits.expand(len(inputs), CLASSES)


class NoGradient(nn.Module):
    """A network whose output does not depend on its weights to the first order."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.mlp([8, 16, CLASSES])

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = 0.0 * self.net(inputs)
        return out


def shuffled() -> sets.Split:
    """Return inputs with labels of exactly equal shares that have nothing to do with them."""
    draw = torch.Generator().manual_seed(21)
    train, val = (torch.randn(size, 8, generator=draw) for size in (600, 200))
    return (train, torch.arange(600) % CLASSES), (val, torch.arange(200) % CLASSES)


def noisy_line() -> sets.Split:
    draw = torch.Generator().manual_seed(22)
    inputs = torch.randn(800, 8, generator=draw)
    return sets.split(inputs, inputs.sum(1, True) + torch.randn(800, 1, generator=draw), 600)


def solved() -> nn.Module:
    """Return the linear model at its optimum: every step leads away from it."""
    (inputs, targets), _ = noisy_line()
    with_bias = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    best = torch.linalg.lstsq(with_bias, targets).solution
    model = nn.Linear(8, 1)
    with torch.no_grad():
        model.weight.copy_(best[:-1].T)
        model.bias.copy_(best[-1])
    return model


CONTROLS = [
    Workload("shuffled labels", CONTROL, "no signal", Constant, shuffled, engine=ENGINE),
    Workload("zero gradients", CONTROL, "no signal", NoGradient, shuffled, engine=ENGINE),
    Workload(
        "at the optimum", CONTROL, "never descends", solved, noisy_line, functional.mse_loss,
        engine=ENGINE,
    ),
    Workload(
        "range too high", CONTROL, "never descends", partial(nets.mlp, [8, 16, 1], nn.GELU),
        noisy_line, functional.mse_loss, find_lr={"min_lr": 30.0, "max_lr": 3e4}, engine=ENGINE,
    ),
]  # fmt: skip
