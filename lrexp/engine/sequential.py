"""The training loop, one trial after the other. Start reading here.

`train` is the whole of it, top to bottom: set the LR, take a batch, update, now and then read the
losses back and evaluate. What it yields depends on the task alone: not on wall-clock time, not on
the trials before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator

import torch

from lrexp.data import derive_seed
from lrexp.engine.cuda_graphs.captured_update import prepare_update
from lrexp.engine.evaluate import evaluate
from lrexp.engine.losses import Losses
from lrexp.engine.lr_source import LrSource
from lrexp.engine.optimizer import set_lr, set_momentum
from lrexp.engine.rng import Reseed, preserved_rng, seed_everything
from lrexp.engine.task import Ended, Evaluation, Failed, Record, Started, Task
from lrexp.engine.updates import updates
from lrexp.schedules import Schedule


def run_sequentially(tasks: Iterable[Task]) -> Iterator[Record]:
    """Train the tasks one by one; one that raises is reported and the next one begins."""
    for task in tasks:
        yield Started(task.trial)
        try:
            with preserved_rng(task.device):
                yield from train(task)
        except Exception as error:  # user code may raise anything; the other trials still count
            yield Failed(task.trial, error)


def train(task: Task) -> Iterator[Record]:
    """Train one task and yield its records; what was done before an exception is among them."""
    losses, begun = Losses(task), time.perf_counter()
    try:
        yield from _train(task, losses)
    except Exception:
        if losses.pending:
            yield losses.flush()
        if losses.stopped_at is None:  # else it was over before, and nobody had looked yet
            raise
    yield Ended(task.trial, losses.num_steps, losses.stopped_at, time.perf_counter() - begun)


def _train(task: Task, losses: Losses) -> Iterator[Record]:
    model, optimizer = task.build()
    if not model.training:  # parts that its author froze in evaluation mode stay frozen
        model.train()
    batches, update = prepare_update(task, model, optimizer)
    seed_everything(derive_seed(task.trial.seed, "training"))  # Python's and NumPy's, too
    reseed = Reseed(task.trial.seed, task.device)
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    lr_source = LrSource(task)
    momentum = task.schedule.momentum if isinstance(task.schedule, Schedule) else None

    final: float | None = None
    lr_in_use: float | None = None
    if task.eval_every:
        initial = _evaluation(task, model, 0, {"train_loss": math.nan})
        losses.begin(initial.values.get("val_loss"))
        yield initial
    for step, (epoch, micro_batches) in zip(
        range(task.total_steps), updates(batches, task.trial.seed, task.accumulate), strict=False
    ):
        lr = lr_source.lr(step)
        if lr != lr_in_use:  # filling a tensor on a device costs as much as half a captured step
            set_lr(optimizer, base_lrs, lr / task.base_lr)
            lr_in_use = lr
        if momentum is not None:
            set_momentum(optimizer, momentum(step))
        reseed(step)
        losses.add(epoch, lr, update(micro_batches))

        done = step + 1
        evaluate_now = bool(task.eval_every) and (
            done % task.eval_every == 0 or done == task.total_steps
        )
        if lr_source.wants_loss:
            lr_source.observe(step, losses.read_back())
        pause = evaluate_now or done == task.total_steps
        if pause or losses.stopped_at is not None or losses.due():
            yield losses.flush()
            if losses.stopped_at is not None:
                break
        if evaluate_now:
            evaluation = _evaluation(task, model, done, {"train_loss": losses.mean_since_last()})
            yield evaluation
            lr_source.observe_evaluation(step, evaluation.values)
            # the lower of both: BatchNorm's young statistics alone can raise val_loss a lot
            final = min(
                evaluation.values.get("val_loss", math.inf), evaluation.values["train_loss"]
            )
    losses.end(final)


def _evaluation(
    task: Task, model: torch.nn.Module, step: int, values: dict[str, float]
) -> Evaluation:
    if task.val is not None:
        values = values | evaluate(model, task.val, task)
    per_epoch = task.steps_per_epoch
    return Evaluation(task.trial, step, step / per_epoch if per_epoch else math.nan, values)
