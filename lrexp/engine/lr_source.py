"""The LR of every step of one trial, from a schedule, or from a controller and its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lrexp.engine.task import Task
from lrexp.schedules import Schedule


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
