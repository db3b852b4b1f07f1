"""How long every variant trains and which schedule it has, before any training and without torch.

Of data, only its size is asked, and only where a duration needs it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import numpy as np

from lrexp.config.checks import section_problems
from lrexp.config.config import Config
from lrexp.config.metric_names import EVERY_STEP, asked_metrics
from lrexp.config.schema import ExperimentConfig
from lrexp.config.units import Clock, parse_duration
from lrexp.errors import ConfigError, Problem
from lrexp.records import METRICS, Direction, Metric, column_of
from lrexp.runs.files import write_whole
from lrexp.schedules.build import SCHEDULES, build_schedule
from lrexp.schedules.schedule import Controller, Schedule
from lrexp.workloads.builtin_data import told_size
from lrexp.workloads.metrics import direction_of
from lrexp.workloads.table import Size

T = TypeVar("T")


class Problems:
    """Collects the ConfigErrors of independent checks, to report them together."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, ConfigError):
            self.found += [p for p in error.problems if p not in self.found]
            return True
        return False

    def raise_any(self) -> None:
        """Raise what was collected, if anything."""
        if self.found:
            raise ConfigError(self.found)


def for_every_variant(config: Config, plan: Callable[[str, ExperimentConfig], T]) -> dict[str, T]:
    """Return `plan(name, settings)` of every variant, or raise the problems of all of them."""
    made: dict[str, T] = {}
    problems = Problems()
    for name, settings in config.variants.items():
        with problems:
            try:
                made[name] = plan(name, settings)
            except ConfigError as error:
                raise config.locate(name, error) from None
    problems.raise_any()
    return made


_OF_DATA = ("ep", "tok", "sa")  # units that mean nothing without it


@dataclass(frozen=True)
class PatientClock:
    """A clock that asks for the size of the data when a duration first needs it."""

    ask: Callable[[], Clock]
    total_steps: int | None = None

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps in one pass over the data; None without a length."""
        return self.ask().steps_per_epoch

    def steps(self, duration: object, *, at_least: int = 0) -> int:
        """Return the duration in whole steps; see `Clock.steps`."""
        of_data = parse_duration(duration).unit in _OF_DATA
        clock = replace(self.ask() if of_data else Clock(), total_steps=self.total_steps)
        return clock.steps(duration, at_least=at_least)


# What turns durations into steps: a clock, or one that asks for the data when it must.
Timekeeper: TypeAlias = Clock | PatientClock


def clock_of(settings: ExperimentConfig, size: Size) -> Clock:
    """Return the clock that turns a variant's durations into steps; its length is not known yet."""
    accumulate, batches = settings.train.accumulate, size.batches_per_epoch
    per_epoch = None if batches is None else batches // accumulate
    if per_epoch == 0:
        raise ConfigError.single(
            "train.accumulate",
            f"needs more batches than the {batches} of one epoch",
            accumulate,
            "Lower it, or lower data.batch_size.",
        )
    return Clock(
        steps_per_epoch=per_epoch,
        samples_per_step=size.batch_size * accumulate,
        tokens_per_sample=size.seq_len,
    )


def length_of(settings: ExperimentConfig, clock: Timekeeper) -> int:
    """Return the steps of a variant's training."""
    return _at_least_one(settings.train.duration, "train.duration", clock)


def eval_every(settings: ExperimentConfig, clock: Timekeeper) -> int:
    """Return the steps between evaluations."""
    return _at_least_one(settings.train.eval_every, "train.eval_every", clock)


def _at_least_one(duration: object, key: str, clock: Timekeeper) -> int:
    try:
        return clock.steps(duration, at_least=1)
    except ConfigError as error:
        raise error.under(key) from None


def full_name(settings: ExperimentConfig, name: str) -> str:
    """Return a metric's name as `metrics` has it, where it names a column of one of these."""
    asked = asked_metrics({"metrics": settings.metrics, "compare": {"metric": name}})
    return asked[column_of(name)][1]


def declared_direction(settings: ExperimentConfig) -> dict[str, Direction]:
    """Return which values of the metric that ranks are better, by its column, if it is declared."""
    compare = settings.compare
    return {} if compare.direction is None else {column_of(compare.metric): compare.direction}


def make_schedule(
    settings: ExperimentConfig,
    clock: Timekeeper,
    config: Config,
    known: Mapping[str, Metric] = METRICS,
) -> Schedule | Controller:
    """Return the schedule of one variant; problems have keys under `schedule`."""
    assert clock.total_steps is not None
    try:
        return build_schedule(
            config.names.of("schedule", settings),
            config.names.schedule_params(settings),
            lr=settings.optimizer.lr,
            total_steps=clock.total_steps,
            to_steps=clock.steps,
            steps_per_epoch=lambda: clock.steps_per_epoch,
            direction_of=lambda monitor: direction_of(
                full_name(settings, monitor), known, declared_direction(settings)
            ),
        )
    except ConfigError as error:
        raise error.under("schedule") from None


CYCLES = "cycle_momentum"


def check_momentum(
    schedule: Schedule | Controller,
    settings: ExperimentConfig,
    optimizers: Callable[[ExperimentConfig], Sequence[Any]],
) -> None:
    """Refuse a schedule that cycles the momentum of optimizers without any."""
    if not isinstance(schedule, Schedule) or schedule.momentum is None:
        return
    from lrexp.workloads.optimizers import has_momentum

    try:
        found = optimizers(settings)
    except ConfigError:  # it is reported where the optimizer is
        return
    if any(map(has_momentum, found)):
        return
    section, named = settings.schedule, " and ".join(cls.__name__ for cls in found)
    what = f"cycles the momentum, and {named} has neither momentum nor betas"
    is_own = section.name in SCHEDULES  # a class of torch takes its arguments in `args`
    given = section.params if is_own else section.params.get("args") or {}
    if CYCLES in given:
        key = f"schedule.{CYCLES}" if is_own else f"schedule.args.{CYCLES}"
        raise ConfigError.single(key, what, given[CYCLES], "Set it to false.")
    key = f"schedule.{CYCLES}" if is_own else f"schedule.args.{CYCLES}"
    known = section.name != "combined" and ":" not in section.name
    remedy = f"Set {key}: false, or take" if known else "Take"
    remedy += " an optimizer with momentum."
    raise ConfigError.single("schedule.name", what, section.name, remedy)


@dataclass(frozen=True)
class PlannedSchedule:
    """A schedule, how long it is followed, and how often what it may follow is evaluated."""

    schedule: Schedule | Controller
    total_steps: int
    eval_every: int = 1  # steps, of a controller that follows what is evaluated
    part_lrs: tuple[float, ...] = ()  # base LRs of several optimizers

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

    def traces(self) -> dict[str, np.ndarray]:
        """Return the LRs of every optimizer by their columns: see `Task.other_lrs`."""
        lrs = self.trace()
        others = enumerate(self.part_lrs[1:], start=1)
        return {"lr": lrs} | {f"lr_{i}": own * (lrs / self.part_lrs[0]) for i, own in others}


def plan_schedules(config: Config) -> dict[str, PlannedSchedule]:
    """Return every variant's schedule; makes no model."""
    sizes: dict[str, Size] = {}  # variants with equal data settings share one

    def plan(_: str, settings: ExperimentConfig) -> PlannedSchedule:
        key = json.dumps([settings.data.model_dump(), settings.precision], sort_keys=True)

        def ask() -> Clock:
            try:
                if key not in sizes:
                    sizes[key] = _size(config, settings)
                return clock_of(settings, sizes[key])
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
    check_momentum(schedule, settings, config.names.optimizers)
    part_lrs = tuple(part.lr for part in settings.optimizer.parts)
    if isinstance(schedule, Schedule) or schedule.monitor == EVERY_STEP:
        return PlannedSchedule(schedule, length, part_lrs=part_lrs)
    return PlannedSchedule(schedule, length, eval_every(settings, clock), part_lrs)


def _size(config: Config, settings: ExperimentConfig) -> Size:
    """Return the size of a variant's training data, which is loaded where it cannot be told."""
    data = settings.data
    if problems := section_problems("data", data.model_dump(), config.names):
        raise ConfigError(problems)
    options = {key: data.options[key] for key in ("batch_size", "val_fraction", "split")}
    if (told := told_size(data.name, data.args, **options)) is not None:
        return told
    import torch

    from lrexp.runs.builder import Objects, TrialBuilder

    return TrialBuilder(config, Objects(), torch.device("cpu")).data(settings).size


def write_traces(traces: Mapping[str, np.ndarray], path: Path) -> None:
    """Write LRs as CSV: a column `step`, then one per variant, empty after its last step."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", *traces])
    for step, lrs in enumerate(zip_longest(*(trace.tolist() for trace in traces.values()))):
        rows.writerow([step, *lrs])
    write_whole(path, text.getvalue())
