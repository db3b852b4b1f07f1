"""The training loop, one trial after the other. Start reading here.

`train` is the whole of it, top to bottom: set the LR, take a batch, update, now and then read the
losses back and evaluate. What it yields depends on the task alone: not on wall-clock time, not on
the trials before it. Losses stay on the device and are read back in chunks, because a read-back
every step makes the host wait for an accelerator; a chunk that goes past the stopping step is cut.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lrexp.data import Batches, derive_seed
from lrexp.engine.evaluate import evaluate
from lrexp.engine.optimizer import set_lr, set_momentum
from lrexp.engine.rng import Reseed, preserved_rng, seed_everything
from lrexp.engine.step import make_update
from lrexp.engine.task import Ended, Evaluation, Failed, Record, Started, Steps, Task
from lrexp.schedules import Schedule

CHUNK_SECONDS = 0.25  # how often losses are read back, shown and written
CHUNK_STEPS = 2_000


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
    losses, begun = _Losses(task), time.perf_counter()
    try:
        yield from _train(task, losses)
    except Exception:
        if losses.pending:
            yield losses.flush()
        if losses.stopped_at is None:  # else it was over before, and nobody had looked yet
            raise
    yield Ended(task.trial, losses.num_steps, losses.stopped_at, time.perf_counter() - begun)


def _train(task: Task, losses: _Losses) -> Iterator[Record]:
    model, optimizer = task.build()
    if not model.training:  # parts that its author froze in evaluation mode stay frozen
        model.train()
    update = make_update(task, model, optimizer)
    seed_everything(derive_seed(task.trial.seed, "training"))  # Python's and NumPy's, too
    reseed = Reseed(task.trial.seed, task.device)
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    lr_source = _LrSource(task)
    momentum = task.schedule.momentum if isinstance(task.schedule, Schedule) else None

    final: float | None = None
    if task.eval_every:
        initial = _evaluation(task, model, 0, {"train_loss": math.nan})
        losses.begin(initial.values.get("val_loss"))
        yield initial
    for step, (epoch, micro_batches) in zip(
        range(task.total_steps), _steps(task.train, task), strict=False
    ):
        lr = lr_source.lr(step)
        set_lr(optimizer, base_lrs, lr / task.base_lr)
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


def _steps(batches: Batches, task: Task) -> Iterator[tuple[int, list[Any]]]:
    """Yield (epoch, its micro-batches) for each update, epoch after epoch.

    Every epoch starts afresh: micro-batches that do not fill an update are left out.
    """
    epoch = 0
    while True:
        pending: list[Any] = []
        empty = True
        for batch in batches.epoch(task.trial.seed, epoch):
            pending.append(batch)
            if len(pending) == task.accumulate:
                yield epoch, pending
                pending, empty = [], False
        if empty:
            raise RuntimeError(f"the training data gave no full update in epoch {epoch}")
        epoch += 1


def _evaluation(
    task: Task, model: torch.nn.Module, step: int, values: dict[str, float]
) -> Evaluation:
    if task.val is not None:
        values = values | evaluate(model, task.val, task)
    per_epoch = task.steps_per_epoch
    return Evaluation(task.trial, step, step / per_epoch if per_epoch else math.nan, values)


class _LrSource:
    """The LR of every step, from a schedule, or from a controller and its state."""

    def __init__(self, task: Task) -> None:
        schedule = task.schedule
        if isinstance(schedule, Schedule):
            self.lr: Callable[[int], float] = schedule.lr
            self._controller, self.wants_loss = None, False
            return
        self._controller = schedule
        self._state = schedule.init()
        self.wants_loss = schedule.monitor == "loss"
        self.lr = lambda step: schedule.lr(self._state, step)

    def observe(self, step: int, value: float) -> None:
        if self._controller is not None:
            self._state = self._controller.observe(self._state, step, value)

    def observe_evaluation(self, step: int, values: dict[str, float]) -> None:
        if self._controller is not None and self._controller.monitor in values:
            self.observe(step, values[self._controller.monitor])


@dataclass
class _Losses:
    """Losses on their way from the device: held back, read in chunks, cut at the stopping step."""

    task: Task
    num_steps: int = 0  # already handed out
    stopped_at: int | None = None
    _epochs: list[int] = field(default_factory=list)
    _lrs: list[float] = field(default_factory=list)
    _held: list[Tensor] = field(default_factory=list)
    _read: list[float] = field(default_factory=list)
    _flushed: float = field(default_factory=time.perf_counter)
    _sum: float = 0.0
    _count: int = 0

    def __post_init__(self) -> None:
        self.begin(None)

    def begin(self, initial: float | None) -> None:
        """Tell the stop rule a loss measured before training, if there is one."""
        self._rule_state = self.task.stop.init(initial)

    def add(self, epoch: int, lr: float, loss: Tensor) -> None:
        self._epochs.append(epoch)
        self._lrs.append(lr)
        self._held.append(loss)

    def due(self) -> bool:
        return (
            len(self._epochs) >= CHUNK_STEPS or time.perf_counter() - self._flushed > CHUNK_SECONDS
        )

    @property
    def pending(self) -> bool:
        """Whether there are steps that were not handed out yet."""
        return bool(self._held or self._read)

    def read_back(self) -> float:
        """Read the held losses from the device, ask the stop rule, and return the last one."""
        losses: list[float] = torch.stack(self._held).tolist()
        self._held = []
        self._rule_state, stop = self.task.stop.first_stop(losses, self._rule_state)
        self._read += losses if stop is None else losses[: stop + 1]
        if stop is not None:
            self.stopped_at = self.num_steps + len(self._read) - 1
        return self._read[-1]

    def end(self, final: float | None) -> None:
        """Ask the rule about a training that ran to its end; `final` is a loss evaluated there."""
        if self.stopped_at is None and self.task.stop.never_came_back(self._rule_state, final):
            self.stopped_at = self.num_steps - 1

    def flush(self) -> Steps:
        """Hand out all steps since the last flush, up to the stopping one."""
        if self._held:
            self.read_back()
        n = len(self._read)
        chunk = Steps(self.task.trial, self.num_steps, self._epochs[:n], self._lrs[:n], self._read)
        self.num_steps += n
        for loss in self._read:  # one by one: the sum must not depend on the size of chunks
            self._sum += loss
        self._count += n
        self._epochs, self._lrs, self._read = [], [], []
        self._flushed = time.perf_counter()
        return chunk

    def mean_since_last(self) -> float:
        """Return the mean loss of the steps since the last call."""
        mean = self._sum / self._count if self._count else math.nan
        self._sum, self._count = 0.0, 0
        return mean
