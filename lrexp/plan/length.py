"""How long a variant trains, in steps, and the schedule of that length: what needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from lrexp.config import Clock, Config, ExperimentConfig, parse_duration
from lrexp.data.size import Size
from lrexp.errors import ConfigError
from lrexp.schedules import Controller, Schedule, build_schedule

_OF_DATA = ("ep", "tok", "sa")  # units that mean nothing without it


class Timekeeper(Protocol):
    """What turns durations into steps: a clock, or one that asks for the data when it must."""

    @property
    def total_steps(self) -> int | None:
        """The training's length in optimizer steps; None before it is known."""

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps in one pass over the data; None without a length."""

    def steps(self, duration: object, *, at_least: int = 0) -> int:
        """Return the duration in whole steps; see `Clock.steps`."""


@dataclass(frozen=True)
class PatientClock:
    """A clock that asks for the size of the data when a duration first needs it.

    Args:
        ask: gives the clock of the data, as `clock_of`; it is asked as often as needed.
        total_steps: as of `Clock`.
    """

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


def clock_of(settings: ExperimentConfig, size: Size) -> Clock:
    """Return the clock that turns a variant's durations into steps; its length is not known yet.

    Raises:
        ConfigError: an epoch has no full step.
    """
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
    """Return the steps of a variant's training.

    Raises:
        ConfigError: `train.duration` comes to none.
    """
    return _at_least_one(settings.train.duration, "train.duration", clock)


def eval_every(settings: ExperimentConfig, clock: Timekeeper) -> int:
    """Return the steps between evaluations.

    Raises:
        ConfigError: `train.eval_every` comes to none.
    """
    return _at_least_one(settings.train.eval_every, "train.eval_every", clock)


def _at_least_one(duration: object, key: str, clock: Timekeeper) -> int:
    try:
        return clock.steps(duration, at_least=1)
    except ConfigError as error:
        raise error.under(key) from None


def make_schedule(
    settings: ExperimentConfig, clock: Timekeeper, config: Config
) -> Schedule | Controller:
    """Return the schedule of one variant; problems have keys under `schedule`."""
    assert clock.total_steps is not None
    try:
        return build_schedule(
            config.names.schedule(settings),
            config.names.schedule_params(settings),
            lr=settings.optimizer.lr,
            total_steps=clock.total_steps,
            to_steps=clock.steps,
            steps_per_epoch=lambda: clock.steps_per_epoch,
        )
    except ConfigError as error:
        raise error.under("schedule") from None
