"""PyTorch's own schedulers, stepped as a training loop steps them: the LR read before each update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def stepped(
    make: Callable[[Optimizer], LRScheduler], lr: float, num_steps: int
) -> tuple[list[float], list[float]]:
    """Return the LR and the momentum of each of the first `num_steps` updates."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    lrs, momenta = [], []
    for step in range(num_steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if step < num_steps - 1:
            scheduler.step()
    return lrs, momenta
