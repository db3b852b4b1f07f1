"""One optimizer update: forward, backward over the micro-batches, clip, step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.engine.dropout import own_dropout
from lrexp.engine.loss import wrong_loss
from lrexp.engine.task import Task


def make_update(
    task: Task,
    model: nn.Module,
    optimizer: Optimizer,
    gather: Callable[[Any], tuple[Any, Any]] | None = None,
) -> Callable[[list[Any]], Tensor]:
    """Return a function that does one update and returns its mean loss, still on the device.

    The gradient of k micro-batches is the mean of theirs, so that k micro-batches of n samples
    give the update of one batch of k·n.

    Args:
        task: what to train, model: its model, optimizer: its optimizer.
        gather: what makes (inputs, targets) of a micro-batch, where it is no such pair itself.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    share: Tensor | None = None  # of each micro-batch in the gradient
    on_cuda = task.device.type == "cuda"

    def forward(batch: Any) -> Tensor:
        inputs, targets = batch if gather is None else gather(batch)
        if task.autocast:
            # What CUDA's documentation asks of steps that are captured, and so of those before
            # them: with casts kept, gradients of a weight used twice would be summed in bfloat16.
            with torch.autocast(task.device.type, torch.bfloat16, cache_enabled=not on_cuda):
                return task.loss(model(inputs), targets)
        return task.loss(model(inputs), targets)

    def forward_backward(batch: Any) -> Tensor:
        nonlocal share
        loss = forward(batch)
        share = _backward(task, loss, share)
        return loss.detach()

    def forward_backward_on_cuda(batch: Any) -> Tensor:
        with own_dropout():  # the masks that stacked copies can be given; recomputed ones, too
            return forward_backward(batch)

    def update(micro_batches: list[Any]) -> Tensor:
        work = forward_backward_on_cuda if on_cuda else forward_backward
        loss = work(micro_batches[0])
        if len(micro_batches) > 1:
            others = [work(batch) for batch in micro_batches[1:]]
            loss = torch.stack([loss, *others]).mean()
        if task.grad_clip is not None:
            nn.utils.clip_grad_norm_(parameters, task.grad_clip)
        optimizer.step()
        for parameter in parameters:  # zero_grad() does this and a dozen microseconds of profiling
            parameter.grad = None
        return loss

    return update


def _backward(task: Task, loss: Tensor, share: Tensor | None) -> Tensor:
    """Add a micro-batch's gradients to the parameters'; return its share, for the next one."""
    try:
        if share is None:  # made once: loss.backward() makes a new tensor of ones every time
            share = torch.full_like(loss, 1 / task.accumulate)
        torch.autograd.backward(loss, grad_tensors=share)
    except Exception as error:
        wrong = wrong_loss(task, loss)
        if wrong is None:
            raise
        raise wrong from error
    return share
