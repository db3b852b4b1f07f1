"""What the sequential loop keeps of one training beside its model, fresh or from a checkpoint.

The LR of every step comes from a schedule, or from a controller and its state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.engine.cuda_graphs.capture import Rows, Update, is_undecided
from lrexp.engine.read_back import Losses
from lrexp.engine.rng import (
    Reseed,
    generator_states,
    preserved_rng,
    preserved_settings,
    restore_generators,
)
from lrexp.engine.state import (
    NotYetCapturable,
    SelfCheck,
    capture_objects,
    checkpoint,
    fitting,
    misfit,
    plain,
    require_made_by,
    restore_objects,
)
from lrexp.engine.step import DataState, Position, copy_batch, make_update, updates
from lrexp.engine.task import Task
from lrexp.records import Record
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.objectives import copy_objective
from lrexp.workloads.optimizers import d_of, parts_of, set_lr, set_momentum


class LrSource:
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

    @property
    def is_known_ahead(self) -> bool:
        """Return whether the LR depends on the step alone."""
        return self._controller is None

    def observe(self, step: int, value: float) -> None:
        """Tell the controller, if there is one, the value seen after update `step`."""
        if self._controller is not None:
            self._state = self._controller.observe(self._state, step, value)

    def observe_evaluation(self, step: int, values: dict[str, float]) -> None:
        """Tell the controller what was evaluated after update `step`, if it monitors that."""
        if self._controller is not None and self._controller.monitor in values:
            self.observe(step, values[self._controller.monitor])

    def to_plain(self) -> dict[str, Any] | None:
        """Return the controller's state; None where there is no controller."""
        return None if self._controller is None else self._controller.to_plain(self._state)

    def restore(self, plain: Mapping[str, Any] | None) -> None:
        """Go on from what `to_plain` gave."""
        if self._controller is not None and plain is not None:
            self._state = self._controller.from_plain(plain)


class Training:
    """One training: fresh, or at the place of the checkpoint in `task.state`.

    Attributes:
        losses: on their way into records.
        lr_source: the LR of every step.
        final: the loss of the last evaluation.
        capturable: what `prepare_update` is told: a training that stayed eager does so to its end.
        check: of its first checkpoint.
        effective: what the last update was done with, by column of the trace; see `effective_lrs`.

    Raises:
        MisfitError: the state is of something else.
    """

    def __init__(self, task: Task) -> None:
        self.losses, self.lr_source = Losses(task), LrSource(task)
        self.final: float | None = None
        self._task, self._state = task, task.state
        self._lr_in_use: float | None = None
        self._reseed = Reseed(task.trial.seed, task.device)
        self._epoch = self._epoch_start = 0
        self._begun = time.perf_counter()
        schedule = task.schedule
        self._momentum = schedule.momentum if isinstance(schedule, Schedule) else None
        self._data = DataState(task)
        self.check = SelfCheck()
        self.capturable: bool | None = None
        if self._state is not None:
            with fitting():
                require_made_by("sequential", self._state)
                if self._state["trial"] != [task.trial.variant, task.trial.seed]:
                    raise misfit(f"it is of the trial {self._state['trial']}")
                self._begun -= self._state["seconds"]
                self.capturable = None if self._state["captured"] else False

    @property
    def seconds(self) -> float:
        """How long it has taken, the time before the checkpoint included."""
        return time.perf_counter() - self._begun

    def begin(self, model: nn.Module, optimizer: Optimizer, update: Update) -> Position:
        """Return where to begin, with the fresh objects brought to that place."""
        task, state = self._task, self._state
        self._model, self._optimizer, self._update = model, optimizer, update
        # those whose LR the schedule sets
        self._scheduled = parts_of(optimizer)[task.lead] if task.others_stay else optimizer
        self._has_d = any(d_of(part) is not None for part in parts_of(optimizer))
        self._base_lrs = [group["lr"] for group in self._scheduled.param_groups]
        if task.pause is not None:  # else there is no checkpoint to check
            self._fresh_objective = copy_objective(task.objective)
        if state is None:
            return Position()
        with fitting():
            return self._go_on(state)

    def _go_on(self, state: Mapping[str, Any]) -> Position:
        task = self._task
        restore_objects(task, self._model, self._optimizer, state["objects"])
        self._data.restore(state["data"])
        self.losses.restore(state["losses"])
        self.lr_source.restore(state["controller"])
        self.final, self._lr_in_use = state["final"], state["lr_in_use"]
        restore_generators(state["generators"], task.device)
        begin = Position.from_plain(state["position"], task.total_steps)
        self._epoch, self._epoch_start = begin.epoch, begin.epoch_start
        self._state = None  # its tensors take memory
        return begin

    def updates(self, batches: Any, begin: Position) -> Iterator[tuple[int, list[Any]]]:
        """Yield (epoch, micro-batches) of each update after `begin`."""
        self._batches = batches
        return updates(batches, self._task.trial.seed, self._task.accumulate, begin, self._data)

    def _begin_step(self, step: int, epoch: int) -> float:
        """Set LR and momentum for a step, seed the generators for it, and return the LR."""
        if epoch != self._epoch:
            self._epoch, self._epoch_start = epoch, step
        lr = self.lr_source.lr(step)
        if lr != self._lr_in_use:  # filling a tensor on a device costs half a captured step
            set_lr(self._scheduled, self._base_lrs, lr / self._task.base_lr)
            self._lr_in_use = lr
        if self._momentum is not None:
            set_momentum(self._optimizer, self._momentum(step))
        self._reseed(step)
        return lr

    def effective_lrs(self) -> dict[str, float]:
        """Return the LRs that optimizers are about to make of theirs, by column; see `d_of`."""
        if not self._has_d:
            return {}
        parts = parts_of(self._optimizer)
        return {
            "effective_lr" + (f"_{i}" if i != self._task.lead else ""): d
            * part.param_groups[0]["lr"]
            for i, part in enumerate(parts)
            if (d := d_of(part)) is not None
        }

    def step(self, step: int, epoch: int, micro_batches: list[Any]) -> tuple[float, Tensor]:
        """Do an update; return its LR and its loss."""
        is_checked = self.check.state is not None
        if is_checked:
            self.check.rehearse(self._replayed, step, epoch, micro_batches)
        lr = self._begin_step(step, epoch)
        self.effective = self.effective_lrs()
        loss = self._update(micro_batches)
        if is_checked:
            self.check.compare(_numbers(self._model, loss))
        return lr, loss

    def observe(self, step: int, values: dict[str, float]) -> None:
        """Take note of what was evaluated after update `step`."""
        self.lr_source.observe_evaluation(step, values)
        # the lower of both: BatchNorm's young statistics alone can raise val_loss a lot
        self.final = min(values.get("val_loss", math.inf), values["train_loss"])

    def checkpoint(self, steps: int, micro_batches: list[Any]) -> Generator[Record, None, bool]:
        """Yield a checkpoint, and return whether to stop; all losses were handed out.

        Args:
            steps: updates done, micro_batches: of the last of them.
        """
        assert self._task.pause is not None

        return checkpoint(
            self._task.pause,
            (self._task.trial,),
            steps,
            lambda: self._capture(steps),
            self.check,
            # of a training that stops here: nothing is recorded of it
            lambda: self.step(steps, self._epoch, micro_batches),
        )

    def _replayed(
        self, state: Mapping[str, Any], step: int, epoch: int, micro_batches: list[Any]
    ) -> dict[str, Tensor]:
        """Return the numbers of a copy that went on from a state for one step."""
        task = replace(self._task, objective=self._fresh_objective, state=state, pause=None)
        gather = self._batches.gather if isinstance(self._batches, Rows) else None
        with preserved_rng(task.device), preserved_settings():
            again = Training(task)
            model, optimizer = task.build()
            if not model.training:
                model.train()
            update = make_update(task, model, optimizer, gather)
            again.begin(model, optimizer, update)
            _, loss = again.step(step, epoch, copy_batch(micro_batches))
            return _numbers(model, loss)

    def _capture(self, steps: int) -> dict[str, Any]:
        captured = any(isinstance(group["lr"], Tensor) for group in self._optimizer.param_groups)
        if is_undecided(self._update) and not captured:
            raise NotYetCapturable("its first steps decide how it goes on")
        trial = self._task.trial
        state = {
            "engine": "sequential",
            "trial": [trial.variant, trial.seed],
            "position": vars(Position(steps, self._epoch, self._epoch_start)),
            "losses": self.losses.to_plain(),
            "controller": self.lr_source.to_plain(),
            "final": self.final,
            "lr_in_use": self._lr_in_use,
            "seconds": self.seconds,
            "captured": captured,
            "generators": generator_states(self._task.device),
            "data": self._data.to_plain(),
        }
        # what `capture_objects` gives is plain already, and its tensors marked by where they are
        objects = capture_objects(self._task, self._model, self._optimizer)
        return {name: plain(value) for name, value in state.items()} | {"objects": objects}


def _numbers(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Return the loss of a step, and the parameters and buffers after it."""
    return {"loss": loss.detach(), **dict(model.named_parameters()), **dict(model.named_buffers())}
