"""The training loop of a stack: all its trials step by step together.

The copies are fed every seed's batches and dropout masks, and the LRs and momenta of some steps
ahead as coefficients on the device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrexp.engine.read_back import Losses, is_chunk_due
from lrexp.engine.rng import (
    generator_states,
    preserved_rng,
    preserved_settings,
    restore_generators,
    seed_everything,
)
from lrexp.engine.state import (
    SelfCheck,
    checkpoint,
    fitting,
    plain,
    require_made_by,
)
from lrexp.engine.step import DataState, Position, copy_batch, updates
from lrexp.engine.task import Task
from lrexp.engine.training import LrSource
from lrexp.engine.vectorized.proof import (
    COMPARED,
    Facts,
    first_losses,
    require_alike,
    witnesses,
)
from lrexp.engine.vectorized.stack import Masks, Stack
from lrexp.engine.vectorized.update_rules import Table
from lrexp.records import Evaluation, Record, Started, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.seeds import derive_seed
from lrexp.workloads.tensors import ResidentBatches

AHEAD = 256  # steps


@dataclass(frozen=True)
class LrWindow:
    """Steps from `first` to before `end`.

    Args:
        lrs: of every copy, (steps, copies).
        ready: for each step, the coefficients of each parameter group, (coefficients, copies, 1).
    """

    first: int
    end: int
    lrs: list[list[float]]
    ready: list[tuple[Tensor, ...]]

    @classmethod
    def of_no_steps(cls, step: int = 0) -> LrWindow:
        """Return a window that is over at `step`."""
        return cls(step, step, [], [])

    @classmethod
    def from_sources(cls, stack: Stack, sources: Sequence[LrSource], step: int) -> LrWindow:
        """Return the window that begins at `step`; each copy has one of the sources."""
        end = _window_end(stack.tasks[0], sources, step)
        steps = range(step, end)
        columns: dict[int, list[float]] = {}  # seeds of a variant share a schedule
        for task, source in zip(stack.tasks, sources, strict=True):
            key = id(task.schedule) if isinstance(task.schedule, Schedule) else id(source)
            if key not in columns:
                columns[key] = list(map(source.lr, steps))
            columns[id(source)] = columns[key]
        lr = np.array([columns[id(source)] for source in sources]).T  # (steps, copies)
        base = np.array([task.base_lr for task in stack.tasks])
        momentum = _momentum(stack.tasks, steps)
        tables = []
        for group in stack.copies.groups:
            own = np.where(np.isnan(momentum), group.numbers["momentum"], momentum)
            stays = stack.tasks[0].others_stay and group.part != stack.tasks[0].lead
            share = np.ones_like(lr) if stays else lr / base
            table = group.coefficients(group.numbers["lr"] * share, own, step)
            tables.append(torch.from_numpy(table).to(group.flat).unsqueeze(-1).unbind(0))
        return cls(step, end, lr.tolist(), list(zip(*tables, strict=True)))

    def lr(self, step: int) -> list[float]:
        """Return every copy's LR."""
        return self.lrs[step - self.first]

    def coefficients(self, step: int) -> tuple[Tensor, ...]:
        """Return what the update of each parameter group is given."""
        return self.ready[step - self.first]


def _window_end(task: Task, sources: Sequence[LrSource], step: int) -> int:
    if any(source.wants_loss for source in sources):
        return step + 1
    end = min(step + AHEAD, task.total_steps)
    if task.eval_every and not all(source.is_known_ahead for source in sources):
        end = min(end, step - step % task.eval_every + task.eval_every)
    return end


def _momentum(tasks: Sequence[Task], steps: range) -> Table:
    """Return the momentum that schedules set, (steps, copies), NaN where they do not."""
    given: list[Callable[[int], float] | None] = [
        task.schedule.momentum if isinstance(task.schedule, Schedule) else None for task in tasks
    ]
    columns = [[np.nan if of is None else of(step) for step in steps] for of in given]
    table: Table = np.array(columns, dtype=np.float64).T
    return table


def stacked_updates(
    stack: Stack, begin: Position | None = None, data: DataState | None = None
) -> Iterator[tuple[int, list[Any]]]:
    """Yield (epoch, micro-batches) for each update after `begin`, epoch after epoch."""
    first, begin = stack.tasks[0], begin or Position()
    if len(stack.seeds) == 1:
        yield from updates(first.train, stack.seeds[0], first.accumulate, begin, data)
        return
    batches = first.train
    assert isinstance(batches, ResidentBatches)  # others are stacked seed by seed
    size, epoch, done = batches.batch_size, begin.epoch, begin.step - begin.epoch_start
    span = size * first.accumulate
    while True:
        order = torch.stack(
            [batches.order(seed, epoch) for seed in stack.seeds]
        )  # (seeds, samples)
        for start in range(done * span, batches.num_samples - span + 1, span):
            own = order[:, start : start + span].index_select(0, stack.seed_rows)
            yield epoch, [batches.gather(rows) for rows in torch.split(own, size, dim=1)]
        epoch, done = epoch + 1, 0


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
        NotStackable: vmap cannot run them, or the first steps are not those of trials on their own.
        MisfitError: the state is of something else.
    """
    state, data = tasks[0].state, DataState(tasks[0])
    with preserved_rng(tasks[0].device), preserved_settings(), data.kept():
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
                    data.restore(state["data"])
            masks = Masks(stack, facts)
            with fitting() if state is not None else nullcontext():
                begin = _begin(stack, state)
            over = {task.trial for task in tasks if task.is_over}
            yield from (Started(task.trial) for task in tasks if not task.is_over)
            with closing(_train(stack, columns, masks, begin, data)) as records:
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


class _Steps:
    """The updates of a stack, with all that a step of it takes, and what its first ones prove.

    Attributes:
        check: of the first checkpoint.
    """

    def __init__(
        self, stack: Stack, columns: Sequence[Column], masks: Masks, begin: Position
    ) -> None:
        self._stack, self._masks = stack, masks
        self.drop_to(columns, begin.step)
        self.check = SelfCheck()
        self._alone = {}  # first losses of some trials, one by one; after a checkpoint it is proved
        if begin.step == 0:
            for row in witnesses(stack.tasks):
                task = stack.tasks[row]
                buffers = {name: rows[row] for name, rows in stack.copies.stacked.items()}
                self._alone[task.trial] = first_losses(task, buffers)

    def drop_to(self, columns: Sequence[Column], step: int) -> None:
        """Go on with these columns, which are the rows of the stack by now."""
        self._sources = [column.lr_source for column in columns]
        self._window = LrWindow.of_no_steps(step)

    def update(self, step: int, micro_batches: list[Any]) -> Tensor:
        """Do an update; return the losses of the copies, on the device.

        Raises:
            NotStackable: they are not those of trials on their own.
        """
        losses = self._update(step, micro_batches)
        if step < COMPARED:
            require_alike(self._alone, self._stack.tasks, step, losses)
        return losses

    def _update(self, step: int, micro_batches: list[Any]) -> Tensor:
        is_checked = self.check.state is not None
        if is_checked:
            self.check.rehearse(self._replayed, step, micro_batches)
        if step == self._window.end:
            self._window = LrWindow.from_sources(self._stack, self._sources, step)
        masks = self._masks.draw(step)
        losses = self._stack.update(micro_batches, masks, self._window.coefficients(step))
        if is_checked:
            self.check.compare(self._stack.numbers(losses))
        return losses

    def lr(self, step: int) -> list[float]:
        """Return every copy's LR."""
        return self._window.lr(step)

    def step_ahead(self, at: Position, micro_batches: list[Any]) -> None:
        """Do the next update of a stack that stops here: nothing is recorded of it."""
        if len(self._stack.seeds) > 1:  # a row per copy, and copies may have been dropped since
            _, micro_batches = next(stacked_updates(self._stack, at))
        self._update(at.step, micro_batches)

    def _replayed(
        self, state: Mapping[str, Any], step: int, micro_batches: list[Any]
    ) -> dict[str, Tensor]:
        """Return the numbers of another stack that went on from a state for one step."""
        stack = self._stack
        with preserved_rng(stack.device), preserved_settings():
            again = Stack(stack.tasks, stack.facts)
            try:
                again.restore(state["stack"])
                restore_generators(state["generators"], stack.device)
                window = LrWindow.from_sources(again, self._sources, step)
                masks = Masks(again, stack.facts).draw(step)
                losses = again.update(copy_batch(micro_batches), masks, window.coefficients(step))
                return again.numbers(losses)
            finally:
                again.close()


def _train(
    stack: Stack, columns: list[Column], masks: Masks, begin: Position, data: DataState
) -> Generator[Record, None, None]:
    """Train the stack; `columns` and the rows of the stack are in the same order throughout."""
    first = columns[0].task
    if first.eval_every and begin.step == 0:
        yield from _evaluate_initially(stack, columns)
    held = _Held(time.perf_counter(), begin.epoch, begin.epoch_start)
    read_every_step = any(column.lr_source.wants_loss for column in columns)
    steps = _Steps(stack, columns, masks, begin)
    for step, (epoch, micro_batches) in zip(
        range(begin.step, first.total_steps), stacked_updates(stack, begin, data), strict=False
    ):
        losses = steps.update(step, micro_batches)
        held.add(step, epoch, steps.lr(step), losses)
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
            steps.drop_to(columns, done)
        if evaluate_now:
            yield from _evaluate(stack, columns, step)
        if first.is_pause_due(done):
            at = Position(done, held.epoch, held.epoch_start)
            ahead = partial(steps.step_ahead, at, micro_batches)
            saved = partial(_saved, stack, columns, at, data)
            trials = tuple(column.task.trial for column in columns if column.is_wanted)
            assert first.pause is not None
            if (yield from checkpoint(first.pause, trials, done, saved, steps.check, ahead)):
                return
    yield from _end(columns)


def _begin(stack: Stack, state: Mapping[str, Any] | None) -> Position:
    """Return where to begin; the generators are those of that place."""
    if state is None:
        seed_everything(derive_seed(stack.tasks[0].trial.seed, "training"))
        return Position()
    restore_generators(state["generators"], stack.device)
    return Position.from_plain(state["position"], stack.tasks[0].total_steps)


def _saved(
    stack: Stack, columns: Sequence[Column], at: Position, data: DataState
) -> dict[str, Any]:
    """Return the state of a stack; all losses were handed out."""
    saved: dict[str, Any] = plain(
        {
            "engine": "vectorized",
            "position": vars(at),
            "stack": stack.to_plain(),
            "columns": [column.to_plain() for column in columns],
            "generators": generator_states(stack.device),
            "data": data.to_plain(),
        }
    )
    return saved


def _end(columns: Sequence[Column]) -> Iterator[Record]:
    for column in columns:
        if not column.ended:
            column.losses.end(column.final)
            yield column.losses.ended(column.seconds)


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
                    yield column.losses.ended(column.seconds)
