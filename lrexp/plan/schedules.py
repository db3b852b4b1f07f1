"""Every variant's schedule before any training: its LRs need no model, and mostly no data either.

Of data, no more is asked than its size, and that only where a duration needs it. Data that is not
built in has to be loaded for that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrexp.config import Clock, Config, ExperimentConfig, section_problems
from lrexp.data.size import Size, told_size
from lrexp.errors import ConfigError
from lrexp.plan.length import PatientClock, clock_of, eval_every, length_of, make_schedule
from lrexp.plan.problems import for_every_variant
from lrexp.schedules import Controller, Schedule

EVERY_STEP = "loss"  # what a controller may monitor: the training loss; all else is evaluated


@dataclass(frozen=True)
class PlannedSchedule:
    """A schedule, how long it is followed, and how often what it may follow is evaluated."""

    schedule: Schedule | Controller
    total_steps: int
    eval_every: int = 1  # steps, of a controller that follows what is evaluated

    @property
    def is_reactive(self) -> bool:
        """Whether it follows a loss, so that its LRs are not known ahead."""
        return not isinstance(self.schedule, Schedule)

    def trace(self) -> np.ndarray:
        """Return the LR of every step, (total_steps,).

        A controller is traced as it would run if what it monitors never changed: the training loss
        of every step, or what is evaluated every `eval_every` steps.
        """
        schedule = self.schedule
        if isinstance(schedule, Schedule):
            return np.array([schedule.lr(step) for step in range(self.total_steps)])
        state = schedule.init()
        lrs = np.empty(self.total_steps)
        for step in range(self.total_steps):
            lrs[step] = schedule.lr(state, step)
            if (step + 1) % self.eval_every == 0:
                state = schedule.observe(state, step, 1.0)
        return lrs


def plan_schedules(config: Config) -> dict[str, PlannedSchedule]:
    """Return every variant's schedule; makes no model.

    Raises:
        ConfigError, UserCodeError: as `make_plan`, as far as schedules and their durations go.
    """
    sizes = _Sizes(config)

    def plan(_: str, settings: ExperimentConfig) -> PlannedSchedule:
        def ask() -> Clock:
            try:
                return clock_of(settings, sizes.of(settings))
            except ConfigError as error:
                raise _WrongDataError(error) from None

        try:
            return _planned(settings, config, ask)
        except _WrongDataError as wrong:
            raise wrong.error from None

    return for_every_variant(config, plan)


class _WrongDataError(Exception):
    """Carries a problem of the data past those who asked, who would take it for one of theirs."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.error = error


def _planned(
    settings: ExperimentConfig, config: Config, ask: Callable[[], Clock]
) -> PlannedSchedule:
    length = length_of(settings, PatientClock(ask))
    clock = PatientClock(ask, length)
    schedule = make_schedule(settings, clock, config)
    if isinstance(schedule, Schedule) or schedule.monitor == EVERY_STEP:
        return PlannedSchedule(schedule, length)
    return PlannedSchedule(schedule, length, eval_every(settings, clock))


class _Sizes:
    """The sizes of a config's data; variants with equal data settings share one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[str, Size] = {}

    def of(self, settings: ExperimentConfig) -> Size:
        """Return the size of a variant's training data."""
        key = json.dumps([settings.data.model_dump(), settings.precision], sort_keys=True)
        if key not in self._known:
            self._known[key] = self._found(settings)
        return self._known[key]

    def _found(self, settings: ExperimentConfig) -> Size:
        data = settings.data
        if problems := section_problems("data", data.model_dump(), self._config.names):
            raise ConfigError(problems)
        options = {key: data.options[key] for key in ("batch_size", "val_fraction")}
        return told_size(data.name, data.args, **options) or _loaded(self._config, settings)


def _loaded(config: Config, settings: ExperimentConfig) -> Size:
    import torch

    from lrexp.plan.workshop import Objects, Workshop

    return Workshop(config, Objects(), torch.device("cpu")).data(settings).size
