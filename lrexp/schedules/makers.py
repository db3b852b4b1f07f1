"""Which factory makes the schedule of a name: a built-in, a torch class, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from lrexp.errors import Problem
from lrexp.schedules.custom import custom_problems, custom_schedule
from lrexp.schedules.registry import SCHEDULES
from lrexp.schedules.schedule import Controller, PerEpoch, Schedule

# A built-in name, the name of a torch class, or what an import path led to: a torch scheduler class
# or a factory of the user's own.
Name: TypeAlias = str | Callable[..., object]


@dataclass(frozen=True)
class Maker:
    """A factory, and how to call it with what a config says.

    Args:
        title: what errors call it.
        factory: its keyword-only parameters are those of the config.
        make: (η, T, steps per epoch, parameters of the config) -> schedule.
        args_problems: rules for the parameter `args`.
    """

    title: str
    factory: Callable[..., Schedule | Controller]
    make: Callable[[float, int, PerEpoch, Mapping[str, Any]], Schedule | Controller]
    args_problems: Callable[[Mapping[str, object]], list[Problem]] = lambda args: []


def maker_of(name: Name) -> Maker | None:
    """Return the maker of a name, None where there is none; torch is imported only for its own."""
    if isinstance(name, str) and name in SCHEDULES:
        factory = SCHEDULES[name]
        return Maker(name, factory, lambda lr, total, per_epoch, p: factory(lr, total, **p))
    if isinstance(name, (str, type)):
        from lrexp.schedules import torch_adapter

        scheduler = torch_adapter.torch_class(name) if isinstance(name, str) else name
        if scheduler is not None and torch_adapter.is_scheduler(scheduler):
            return _torch_maker(scheduler)
    return None if isinstance(name, str) else _custom_maker(name)


def _torch_maker(scheduler: type) -> Maker:
    from lrexp.schedules.torch_adapter import (
        is_plateau,
        torch_plateau,
        torch_problems,
        torch_schedule,
    )

    def make(
        lr: float, total_steps: int, per_epoch: PerEpoch, params: Mapping[str, Any]
    ) -> Schedule | Controller:
        if is_plateau(scheduler):
            return torch_plateau(lr, total_steps, **params)
        return torch_schedule(lr, total_steps, scheduler, per_epoch, **params)

    factory = torch_plateau if is_plateau(scheduler) else torch_schedule
    return Maker(scheduler.__name__, factory, make, lambda args: torch_problems(scheduler, args))


def _custom_maker(factory: Callable[..., object]) -> Maker:
    return Maker(
        getattr(factory, "__name__", str(factory)),
        custom_schedule,
        lambda lr, total, per_epoch, p: custom_schedule(lr, total, factory, **p),
        lambda args: custom_problems(factory, args),
    )
