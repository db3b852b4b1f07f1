"""The training loop of a stack: all its trials step by step together.

The same loop as in `sequential.py` with K copies in every line: set their LRs, take a batch,
update, now and then read the losses back and evaluate. A copy whose rule has stopped it is
dropped; how many there are changes what the others get by rounding alone. Where copies are dropped
is fixed by the settings and the losses, never by the clock or by where a training was stopped and
resumed: so a stack that goes on from a checkpoint has the same rows at every step, and the same
bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lrexp.data import derive_seed
from lrexp.engine.data_state import DataState
from lrexp.engine.losses import Losses, is_chunk_due
from lrexp.engine.lr_source import LrSource
from lrexp.engine.probing import Facts
from lrexp.engine.rng import (
    generator_states,
    preserved_rng,
    restore_generators,
    seed_everything,
)
from lrexp.engine.settings import preserved_settings
from lrexp.engine.state import checkpoint, fitting, plain, require_made_by
from lrexp.engine.task import Ended, Evaluation, Record, Started, Task, TrialId
from lrexp.engine.updates import Position
from lrexp.engine.vectorized.feed import Masks, stacked_updates
from lrexp.engine.vectorized.lr_window import LrWindow
from lrexp.engine.vectorized.stack import Stack

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

    @property
    def is_wanted(self) -> bool:
        """Whether something is still to come of its trial."""
        return not (self.ended or self.task.is_over)

    def to_plain(self) -> dict[str, Any]:
        """Return all that is remembered; what was held back must have been handed out."""
        return {
            "trial": [self.task.trial.variant, self.task.trial.seed],
            "losses": self.losses.to_plain(),
            "controller": self.lr_source.to_plain(),
            "seconds": self.seconds,
            "final": self.final,
            "ended": self.ended,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `to_plain` gave."""
        self.losses.restore(saved["losses"])
        self.lr_source.restore(saved["controller"])
        self.seconds, self.final = saved["seconds"], saved["final"]


def train_stack(tasks: Sequence[Task], facts: Facts) -> Generator[Record, None, None]:
    """Train tasks of equal kind and form as one stack and yield the records of all.

    Tasks with a state go on from there; it is the same for all of them.

    Raises:
        NotStackable: before the first record.
        MisfitError: the state is of something else.
    """
    state = tasks[0].state
    with preserved_rng(tasks[0].device), preserved_settings():
        if state is None:
            columns = [Column(task) for task in tasks]
        else:
            with fitting():
                require_made_by("vectorized", state)
                columns = _columns_of(state, tasks)
        stack = Stack([column.task for column in columns], facts)
        try:
            if state is not None:
                with fitting():
                    stack.restore(state["stack"])
            masks = Masks(stack, facts)
            with fitting() if state is not None else nullcontext():
                begin = _begin(stack, state)
            over = {task.trial for task in tasks if task.is_over}
            yield from (Started(task.trial) for task in tasks if not task.is_over)
            with closing(_train(stack, columns, masks, begin)) as records:
                yield from (record for record in records if record.trial not in over)
        finally:
            stack.close()


def trials_of(state: Mapping[str, Any]) -> list[TrialId]:
    """Return the trials that a stack's checkpoint can go on with."""
    return [TrialId(*saved["trial"]) for saved in state["columns"] if not saved["ended"]]


def _columns_of(state: Mapping[str, Any], tasks: Sequence[Task]) -> list[Column]:
    """Return the columns of a checkpoint in its order.

    A trial that had ended has a row, too, until copies are dropped. A trial whose task is left out
    counts as ended: its row is dropped with those, and the bits of the others may change.
    """
    by_trial = {task.trial: task for task in tasks}
    columns = []
    for saved in state["columns"]:
        trial = TrialId(*saved["trial"])
        column = Column(by_trial.get(trial, replace(tasks[0], trial=trial)))
        column.ended = saved["ended"] or trial not in by_trial
        if not column.ended:
            column.restore(saved)
        columns.append(column)
    return columns


def _train(
    stack: Stack, columns: list[Column], masks: Masks, begin: Position
) -> Generator[Record, None, None]:
    """Train the stack; `columns` and the rows of the stack are in the same order throughout."""
    first = columns[0].task
    data = DataState(first) if first.pause is not None else None
    if first.eval_every and begin.step == 0:
        yield from _evaluate_initially(stack, columns)
    held = _Held(time.perf_counter(), begin.epoch, begin.epoch_start)
    read_every_step = any(column.lr_source.wants_loss for column in columns)
    window = LrWindow.of_no_steps(begin.step)
    for step, (epoch, micro_batches) in zip(
        range(begin.step, first.total_steps), stacked_updates(stack, begin), strict=False
    ):
        if step == window.end:
            window = LrWindow.from_sources(stack, [c.lr_source for c in columns], step)
        losses = stack.update(micro_batches, masks.draw(step), window.coefficients(step))
        held.add(step, epoch, window.lr(step), losses)
        if read_every_step:
            _observe(columns, step, losses)

        done = step + 1
        evaluate_now = first.evaluates_after(done)
        may_drop = evaluate_now or done % first.pace.drop_every == 0
        read_now = may_drop or done == first.total_steps
        chunk_due = is_chunk_due(first, len(held.epochs), held.flushed)
        if not (first.asks_to_stop() or read_now or chunk_due):
            continue
        yield from held.hand_out(columns)
        if not any(column.is_wanted for column in columns):
            return
        if may_drop and _is_worth_dropping(columns, done):
            columns = _without_ended(stack, columns)
            window = LrWindow.of_no_steps(done)
        if evaluate_now:
            yield from _evaluate(stack, columns, step)
        at = Position(done, held.epoch, held.epoch_start)
        if first.is_pause_due(done) and (yield from _checkpoint(stack, columns, at, data)):
            return
    yield from _end(columns)


def _begin(stack: Stack, state: Mapping[str, Any] | None) -> Position:
    """Return where to begin; the generators are those of that place."""
    if state is None:
        seed_everything(derive_seed(stack.tasks[0].trial.seed, "training"))
        return Position()
    restore_generators(state["generators"], stack.device)
    return Position.from_plain(state["position"], stack.tasks[0].total_steps)


def _checkpoint(
    stack: Stack, columns: Sequence[Column], at: Position, data: DataState | None
) -> Generator[Record, None, bool]:
    """Yield a checkpoint, and return whether to stop; all losses were handed out."""
    trials = tuple(column.task.trial for column in columns if column.is_wanted)
    pause = columns[0].task.pause
    assert pause is not None
    assert data is not None

    def capture() -> dict[str, Any]:
        data.require_unchanged()
        saved: dict[str, Any] = plain(
            {
                "engine": "vectorized",
                "position": vars(at),
                "stack": stack.to_plain(),
                "columns": [column.to_plain() for column in columns],
                "generators": generator_states(stack.device),
            }
        )
        return saved

    return (yield from checkpoint(pause, trials, at.step, capture))


def _end(columns: Sequence[Column]) -> Iterator[Record]:
    for column in columns:
        if not column.ended:
            column.losses.end(column.final)
            yield _ended(column)


def _observe(columns: Sequence[Column], step: int, losses: Tensor) -> None:
    for column, loss in zip(columns, losses.tolist(), strict=True):
        if column.lr_source.wants_loss and math.isfinite(loss):  # else its rule stops it soon
            column.lr_source.observe(step, loss)


def _is_worth_dropping(columns: Sequence[Column], done: int) -> bool:
    alive = sum(not column.ended for column in columns)
    return alive < DROP_BELOW * len(columns) and done < columns[0].task.total_steps


def _without_ended(stack: Stack, columns: Sequence[Column]) -> list[Column]:
    alive = [row for row, column in enumerate(columns) if not column.ended]
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
    return [{}] * len(stack.tasks) if stack.tasks[0].val is None else stack.evaluate()


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
    epoch: int  # of the last step
    epoch_start: int  # its first step
    epochs: list[int] = field(default_factory=list)
    lrs: list[list[float]] = field(default_factory=list)  # (steps, copies)
    losses: list[Tensor] = field(default_factory=list)

    def add(self, step: int, epoch: int, lr: list[float], losses: Tensor) -> None:
        if epoch != self.epoch:
            self.epoch, self.epoch_start = epoch, step
        self.epochs.append(epoch)
        self.lrs.append(lr)
        self.losses.append(losses)

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
