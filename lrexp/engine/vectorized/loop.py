"""The training loop of a stack: all its trials step by step together.

The same loop as in `sequential.py` with K copies in every line: set their LRs, take a batch,
update, now and then read the losses back and evaluate. A copy whose rule has stopped it is
dropped; the others keep their bits, because what is computed for one copy does not depend on how
many there are. Where copies are dropped is fixed by the settings, never by the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lrexp.data import derive_seed
from lrexp.engine import losses as chunks
from lrexp.engine.losses import Losses
from lrexp.engine.lr_source import LrSource
from lrexp.engine.probing import Facts
from lrexp.engine.rng import preserved_rng, seed_everything
from lrexp.engine.task import Ended, Evaluation, Record, Started, Task
from lrexp.engine.vectorized.feed import Masks, stacked_updates
from lrexp.engine.vectorized.lr_window import LrWindow
from lrexp.engine.vectorized.stack import Stack

DROP_EVERY = 500  # steps; copies are dropped there and at evaluations
DROP_BELOW = 0.75  # of the rows alive: then the rest is worth a program of its own


@dataclass
class Column:
    """One trial of a stack: what the sequential loop keeps in local variables."""

    task: Task
    losses: Losses = field(init=False)
    lr_source: LrSource = field(init=False)
    seconds: float = 0.0  # its share of the stack's time
    final: float | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        self.losses, self.lr_source = Losses(self.task), LrSource(self.task)


def train_stack(tasks: Sequence[Task], facts: Facts) -> Iterator[Record]:
    """Train tasks of equal kind and form as one stack and yield the records of all.

    Raises:
        NotStackable: before the first record.
    """
    with preserved_rng(tasks[0].device):
        stack = Stack(tasks, facts)
        yield from (Started(task.trial) for task in tasks)
        try:
            yield from _train(stack, [Column(task) for task in tasks], Masks(stack, facts))
        finally:
            stack.close()


def _train(stack: Stack, columns: list[Column], masks: Masks) -> Iterator[Record]:
    """Train the stack; `columns` and the rows of the stack are in the same order throughout."""
    first = columns[0].task
    seed_everything(derive_seed(first.trial.seed, "training"))
    held = _Held(time.perf_counter())
    if first.eval_every:
        yield from _evaluate_initially(stack, columns)
    read_every_step = any(column.lr_source.wants_loss for column in columns)
    window = LrWindow.of_no_steps()
    for step, (epoch, micro_batches) in zip(
        range(first.total_steps), stacked_updates(stack), strict=False
    ):
        if step == window.end:
            window = LrWindow.from_sources(stack, [c.lr_source for c in columns], step)
        losses = stack.update(micro_batches, masks.draw(step), window.coefficients(step))
        held.add(epoch, window.lr(step), losses)
        if read_every_step:
            _observe(columns, step, losses)

        done = step + 1
        evaluate_now = _evaluates(first, done)
        may_drop = evaluate_now or done % DROP_EVERY == 0
        if may_drop or done == first.total_steps or held.due():
            yield from held.hand_out(columns)
            may_drop = may_drop or all(column.ended for column in columns)
            if may_drop and _is_worth_dropping(columns, done):
                columns = _without_ended(stack, columns)
                window = LrWindow.of_no_steps(done)
            if not columns:
                return
            if evaluate_now:
                yield from _evaluate(stack, columns, step)
    yield from _end(columns)


def _end(columns: Sequence[Column]) -> Iterator[Record]:
    for column in columns:
        if not column.ended:
            column.losses.end(column.final)
            yield _ended(column)


def _observe(columns: Sequence[Column], step: int, losses: Tensor) -> None:
    for column, loss in zip(columns, losses.tolist(), strict=True):
        if column.lr_source.wants_loss and math.isfinite(loss):  # else its rule stops it soon
            column.lr_source.observe(step, loss)


def _evaluates(task: Task, done: int) -> bool:
    return bool(task.eval_every) and (done % task.eval_every == 0 or done == task.total_steps)


def _is_worth_dropping(columns: Sequence[Column], done: int) -> bool:
    alive = sum(not column.ended for column in columns)
    return alive < DROP_BELOW * len(columns) and done < columns[0].task.total_steps


def _without_ended(stack: Stack, columns: Sequence[Column]) -> list[Column]:
    alive = [row for row, column in enumerate(columns) if not column.ended]
    if alive:
        stack.keep(alive)
    return [columns[row] for row in alive]


def _evaluate_initially(stack: Stack, columns: Sequence[Column]) -> Iterator[Record]:
    for column, values in zip(columns, _measures(stack), strict=True):
        column.losses.begin(values.get("val_loss"))
        yield _evaluation(column, 0, {"train_loss": math.nan} | values)


def _evaluate(stack: Stack, columns: Sequence[Column], step: int) -> Iterator[Record]:
    for column, measured in zip(columns, _measures(stack), strict=True):
        if not column.ended:
            values = {"train_loss": column.losses.mean_since_last()} | measured
            yield _evaluation(column, step + 1, values)
            column.lr_source.observe_evaluation(step, values)
            # the lower of both: BatchNorm's young statistics alone can raise val_loss a lot
            column.final = min(values.get("val_loss", math.inf), values["train_loss"])


def _measures(stack: Stack) -> list[dict[str, float]]:
    return [{}] * stack.size if stack.tasks[0].val is None else stack.evaluate()


def _evaluation(column: Column, steps: int, values: dict[str, float]) -> Evaluation:
    per_epoch = column.task.steps_per_epoch
    epoch = steps / per_epoch if per_epoch else math.nan
    return Evaluation(column.task.trial, steps, epoch, values)


def _ended(column: Column) -> Ended:
    losses = column.losses
    return Ended(column.task.trial, losses.num_steps, losses.stopped_at, column.seconds)


@dataclass
class _Held:
    """Steps of all copies whose losses are still on the device."""

    flushed: float  # when
    epochs: list[int] = field(default_factory=list)
    lrs: list[list[float]] = field(default_factory=list)  # (steps, copies)
    losses: list[Tensor] = field(default_factory=list)

    def add(self, epoch: int, lr: list[float], losses: Tensor) -> None:
        self.epochs.append(epoch)
        self.lrs.append(lr)
        self.losses.append(losses)

    def due(self) -> bool:
        waited = time.perf_counter() - self.flushed
        return len(self.epochs) >= chunks.CHUNK_STEPS or waited > chunks.CHUNK_SECONDS

    def hand_out(self, columns: Sequence[Column]) -> Iterator[Record]:
        """Yield the steps of every live copy, and the end of those that their rule stopped."""
        by_copy = torch.stack(self.losses, dim=1).tolist()
        epochs, lrs = self.epochs, list(zip(*self.lrs, strict=True))
        now = time.perf_counter()
        live = [column for column in columns if not column.ended]
        for column in live:
            column.seconds += (now - self.flushed) / len(live)
        self.flushed, self.epochs, self.lrs, self.losses = now, [], [], []
        for column, lr, losses in zip(columns, lrs, by_copy, strict=True):
            if not column.ended:
                column.losses.take(epochs, list(lr), losses)
                yield column.losses.flush()
                if column.losses.stopped_at is not None:
                    column.ended = True
                    yield _ended(column)
