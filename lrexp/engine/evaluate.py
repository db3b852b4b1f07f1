"""Validation: mean loss and accuracy over a whole split, in evaluation mode, without gradients."""

from __future__ import annotations

import torch
from torch import nn

from lrexp.data import Batches, derive_seed
from lrexp.engine.rng import preserved_rng, seed_everything
from lrexp.engine.task import Task


def evaluate(model: nn.Module, batches: Batches, task: Task) -> dict[str, float]:
    """Return `val_loss` (mean over samples) and, for classes, `val_accuracy` (share in [0, 1]).

    Sums stay on the device until the end; there is one read-back for the whole split. Models that
    draw random numbers while evaluated draw the same ones every time, and training goes on with
    its own.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), preserved_rng(task.device):
            seed_everything(derive_seed(task.trial.seed, "evaluation"))
            return _measures(model, batches, task)
    finally:
        for module, training in modes:
            module.training = training


def _measures(model: nn.Module, batches: Batches, task: Task) -> dict[str, float]:
    wide = torch.float32 if task.device.type == "mps" else torch.float64  # MPS has no float64
    loss_sum = torch.zeros((), dtype=wide, device=task.device)
    right = torch.zeros((), dtype=wide, device=task.device)
    num_samples = num_predictions = 0
    for inputs, targets in batches.in_order():
        with torch.autocast(task.device.type, torch.bfloat16, enabled=task.autocast):
            output = model(inputs)
            loss = task.loss(output, targets)
        loss_sum += loss.to(wide) * len(targets)
        num_samples += len(targets)
        if task.count_correct is not None:
            hits, made = task.count_correct(output, targets)
            right += hits
            num_predictions += made
    values = {"val_loss": loss_sum.item() / num_samples}
    if num_predictions:
        values["val_accuracy"] = right.item() / num_predictions
    return values
