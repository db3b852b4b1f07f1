"""One optimizer update: forward, backward over the micro-batches, clip, step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.engine.dropout import own_dropout
from lrexp.engine.task import Task
from lrexp.workloads.batches import Batches
from lrexp.workloads.losses import wrong_loss
from lrexp.workloads.optimizers import unfuse_if_sparse


@dataclass(frozen=True)
class Position:
    """How far a training has come: `step` updates, of which `epoch` began after `epoch_start`.

    `epoch` is that of the last update, even where it was the last one of its epoch: data without
    a length shows that only when it is asked for more.
    """

    step: int = 0
    epoch: int = 0
    epoch_start: int = 0

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], total_steps: int) -> Position:
        """Return the position that a checkpoint holds as a dict.

        Raises:
            ValueError: it is no place inside of a training of so many steps.
        """
        at = cls(**plain)
        are_counts = all(type(n) is int and n >= 0 for n in (at.step, at.epoch, at.epoch_start))
        if not are_counts or not at.epoch_start <= at.step < total_steps:
            raise ValueError(f"there is no {at} in {total_steps} steps")
        return at


def updates(
    batches: Batches, seed: int, accumulate: int, begin: Position | None = None
) -> Iterator[tuple[int, list[Any]]]:
    """Yield (epoch, its micro-batches) for each update after `begin`, epoch after epoch.

    Every epoch starts afresh: micro-batches that do not fill an update are left out.
    """
    begin = begin or Position()
    epoch, done = begin.epoch, begin.step - begin.epoch_start  # updates of this epoch
    while True:
        pending: list[Any] = []
        empty = done == 0
        for batch in batches.epoch(seed, epoch, done * accumulate):
            pending.append(batch)
            if len(pending) == accumulate:
                yield epoch, pending
                pending, empty = [], False
        if empty:
            raise RuntimeError(f"the training data gave no full update in epoch {epoch}")
        epoch, done = epoch + 1, 0


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
    is_settled = False  # which kernels the optimizer uses

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
        nonlocal is_settled
        work = forward_backward_on_cuda if on_cuda else forward_backward
        loss = work(micro_batches[0])
        if len(micro_batches) > 1:
            others = [work(batch) for batch in micro_batches[1:]]
            loss = torch.stack([loss, *others]).mean()
        if task.grad_clip is not None:
            nn.utils.clip_grad_norm_(parameters, task.grad_clip)
        if not is_settled:
            is_settled = unfuse_if_sparse(optimizer)
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
        wrong = wrong_loss(task.loss, loss, task.trial)
        if wrong is None:
            raise
        raise wrong from error
    return share
