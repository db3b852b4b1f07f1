"""Whether a loss that is not finite is due to the data: then no other LR would help."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lrexp.engine.rng import preserved_rng, preserved_settings
from lrexp.engine.step import DataState, Position, updates
from lrexp.engine.task import Task
from lrexp.workloads.objectives import copy_objective


def blame(task: Task, step: int) -> str:
    """Return what makes the loss of a step not finite with the initial weights as well.

    "" where these give a finite loss, and a finite gradient one update before: then the LR may be
    the cause. Also where the data has no length: its batches cannot be found again.

    Args:
        task: of the training.
        step: the first whose loss is not finite, counted from 0; at 0 there is nothing to compare.
    """
    if step == 0 or not task.steps_per_epoch:
        return ""
    with preserved_rng(task.device), preserved_settings(), DataState(task).kept():
        try:
            return _of_loss(task, step) or _of_gradient(task, step - 1)
        except Exception:  # of user code: it has failed already
            return ""


def _of_loss(task: Task, step: int) -> str:
    place, losses = _losses(task, step, _initial(task))
    bad = next((loss for loss in losses if not loss.isfinite()), None)
    return "" if bad is None else f"{place} gives {bad:.3g} with any weights: look at its data."


def _of_gradient(task: Task, step: int) -> str:
    """Return the same of a gradient: that of a square root is infinite at 0."""
    model = _initial(task)
    place, losses = _losses(task, step, model)
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if all(bool(gradient.isfinite().all()) for gradient in gradients):
        return ""
    return (
        f"{place} has a finite loss and no finite gradient, with the initial weights too: look for "
        "a square root, a logarithm or a division at 0 in model and loss."
    )


def _initial(task: Task) -> nn.Module:
    model, _ = task.build()
    return model if model.training else model.train()


def _losses(task: Task, step: int, model: nn.Module) -> tuple[str, list[Tensor]]:
    """Return which batches an update has, and their losses."""
    per_epoch = task.steps_per_epoch
    assert per_epoch
    epoch, update = divmod(step, per_epoch)
    begin = Position(step, epoch, epoch * per_epoch)
    _, batches = next(updates(task.train, task.trial.seed, task.accumulate, begin))
    objective = copy_objective(task.objective)
    with torch.autocast(task.device.type, task.autocast_dtype, enabled=task.autocast):
        losses = [objective(model, batch)[0] for batch in batches]
    first = next((i for i, loss in enumerate(losses) if not math.isfinite(loss.item())), 0)
    return f"Batch {update * task.accumulate + first} of epoch {epoch}", losses
