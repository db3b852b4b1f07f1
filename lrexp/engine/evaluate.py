"""Validation: mean loss and accuracy over a whole split, in evaluation mode, without gradients."""

from __future__ import annotations

import torch
from torch import nn

from lrexp.data import Batches
from lrexp.engine.task import Task


def evaluate(model: nn.Module, batches: Batches, task: Task) -> dict[str, float]:
    """Return `val_loss` (mean over samples) and, for classes, `val_accuracy` (share in [0, 1]).

    Sums stay on the device until the end; there is one read-back for the whole split.
    """
    was_training = model.training
    model.eval()
    wide = torch.float32 if task.device.type == "mps" else torch.float64  # MPS has no float64
    loss_sum = torch.zeros((), dtype=wide, device=task.device)
    right = torch.zeros((), dtype=wide, device=task.device)
    num_samples = num_predictions = 0
    with torch.no_grad():
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
    model.train(was_training)
    values = {"val_loss": loss_sum.item() / num_samples}
    if num_predictions:
        values["val_accuracy"] = right.item() / num_predictions
    return values
