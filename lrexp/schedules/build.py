"""From a config's `{name: cosine, warmup: 5%, ...}` to a schedule for a training of T steps.

A name is a built-in of `SCHEDULES`, a class of torch.optim.lr_scheduler, or an import path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from lrexp.errors import NOTHING, ConfigError, Problem, did_you_mean
from lrexp.schedules.combine import Part, combined, range_problems
from lrexp.schedules.controllers import adaptive_cycle, plateau
from lrexp.schedules.custom import custom_problems, custom_schedule, from_function
from lrexp.schedules.cycles import cosine_restarts, cyclic, one_cycle
from lrexp.schedules.decays import (
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    multi_step,
    polynomial,
    rex,
    step,
    wsd,
)
from lrexp.schedules.parameters import parameter_problems, parameters, resolved
from lrexp.schedules.schedule import Controller, PerEpoch, Schedule

SCHEDULES: dict[str, Callable[..., Schedule | Controller]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "exponential": exponential,
    "polynomial": polynomial,
    "inverse_sqrt": inverse_sqrt,
    "wsd": wsd,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "cyclic": cyclic,
    "step": step,
    "multi_step": multi_step,
    "combined": combined,
    "rex": rex,
    "plateau": plateau,
    "adaptive_cycle": adaptive_cycle,
    "lambda": from_function,
}
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


_PART = "Write {start: 0, end: 50%, schedule: cosine}."


def build_schedule(
    name: Name,
    params: Mapping[str, object],
    *,
    lr: float,
    total_steps: int,
    to_steps: Callable[[object], int],
    steps_per_epoch: PerEpoch,
) -> Schedule | Controller:
    """Return the schedule that a config's section describes.

    Args:
        name: a name of `SCHEDULES`, a class name of torch.optim.lr_scheduler, or what an import
            path led to: a torch scheduler class, or a factory (see `custom_schedule`).
        params: the rest of the section; durations as the user wrote them, functions resolved.
        lr: the base LR η, above 0.
        total_steps: T, at least 1.
        to_steps: turns a duration into whole steps; raises `ConfigError` with the key "".
        steps_per_epoch: None where the data has no length; a function is called where a class of
            torch counts epochs.

    Raises:
        ConfigError: everything that is wrong, as far as it does not hang on another problem.

    Example:
        >>> section = {"warmup": 2, "min_lr": 0.1}
        >>> s = build_schedule(
        ...     "linear", section, lr=1.0, total_steps=6, to_steps=int, steps_per_epoch=None
        ... )
        >>> [round(s(i), 3) for i in range(7)]
        [0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1]
    """
    problems, maker = check_schedule(name, params), maker_of(name)
    if maker is None:
        raise ConfigError(problems)
    wrong = {_parameter(problem.key) for problem in problems}
    known, values = parameters(maker.factory), dict(params)
    for key, value in params.items():
        if key in known and key not in wrong and known[key].is_duration:
            values[key], found = resolved(key, value, to_steps)
            problems += found
    if name == "combined" and not wrong:
        setting = _Setting(lr, to_steps, steps_per_epoch)
        values["parts"], found = _built_parts(params["parts"], setting)
        problems += found
    if problems:
        raise ConfigError(problems)
    try:
        return maker.make(lr, total_steps, steps_per_epoch, values)
    except ConfigError as error:
        raise ConfigError([_as_written(p, params, values) for p in error.problems]) from None


def check_schedule(name: Name, params: Mapping[str, object]) -> list[Problem]:
    """Return what is wrong with a section whatever the LR and the length of the training.

    Example:
        >>> print(check_schedule("cosine", {"warmpu": "5%"})[0])
        warmpu: is not a parameter of cosine (got '5%'). Did you mean 'warmup'?
    """
    maker = maker_of(name)
    if maker is None:
        text = str(name)
        return [Problem("name", "is not a known schedule", text, did_you_mean(text, known_names()))]
    problems = parameter_problems(maker.title, maker.factory, params)
    if name == "combined" and not problems:
        problems = _part_problems(params["parts"])
    args = params.get("args") or {}
    return problems + (maker.args_problems(args) if isinstance(args, Mapping) else [])


def known_names() -> list[str]:
    """Return every name a config may use: the built-in ones, then torch's classes."""
    from lrexp.schedules.torch_adapter import torch_class_names

    return [*SCHEDULES, *torch_class_names()]


@dataclass(frozen=True)
class _Setting:
    """What the parts of a combined schedule have in common."""

    lr: float
    to_steps: Callable[[object], int]
    steps_per_epoch: PerEpoch


def _part_problems(parts: Any) -> list[Problem]:
    problems = [] if parts else range_problems([], [])
    for index, part in enumerate(parts):
        key = f"parts[{index}]"
        problems += [
            Problem(f"{key}.{word}", "is not a key of a part", part[word], _PART)
            for word in part
            if word not in ("start", "end", "schedule")
        ]
        problems += [
            Problem(f"{key}.{word}", "is needed", NOTHING, _PART)
            for word in ("start", "end", "schedule")
            if word not in part
        ]
        if "schedule" in part:
            problems += _section_problems(f"{key}.schedule", part["schedule"])
    return problems


def _section_problems(key: str, section: object) -> list[Problem]:
    name, params = _section(section)
    if not isinstance(name, str) and not callable(name):
        return [Problem(key, "must be a schedule", section, "Give a name, or {name: cosine, ...}.")]
    return _under(key, check_schedule(name, params))


def _section(section: object) -> tuple[Any, Mapping[str, object]]:
    """Return name and parameters of a schedule; a bare name is one without parameters."""
    if isinstance(section, Mapping):
        return section.get("name"), {k: v for k, v in section.items() if k != "name"}
    return section, {}


def _built_parts(parts: Any, setting: _Setting) -> tuple[list[Part], list[Problem]]:
    keys = [f"parts[{index}]" for index in range(len(parts))]
    ranges: list[tuple[int, int]] = []
    problems: list[Problem] = []
    for key, part in zip(keys, parts, strict=True):
        start, at_start = resolved(f"{key}.start", part["start"], setting.to_steps)
        end, at_end = resolved(f"{key}.end", part["end"], setting.to_steps)
        ranges.append((start, end))
        problems += at_start + at_end
    problems = problems or range_problems(ranges, keys)
    if problems:
        return [], problems
    built = []
    for key, part, bounds in zip(keys, parts, ranges, strict=True):
        found, wrong = _built_part(part["schedule"], bounds, setting)
        built += found
        problems += _under(f"{key}.schedule", wrong)
    return built, problems


def _built_part(
    section: object, bounds: tuple[int, int], setting: _Setting
) -> tuple[list[Part], list[Problem]]:
    """Return one part, or none and what is wrong; its schedule has T = its own length."""
    (name, params), (start, end) = _section(section), bounds
    try:
        schedule = build_schedule(
            name,
            params,
            lr=setting.lr,
            total_steps=end - start,
            to_steps=setting.to_steps,
            steps_per_epoch=setting.steps_per_epoch,
        )
    except ConfigError as error:
        return [], list(error.problems)
    if isinstance(schedule, Schedule):
        return [Part(start, end, schedule)], []
    rule = "reacts to training, and cannot be a part of a combined schedule"
    return [], [Problem("name", rule, name, "Use it alone, with its own warmup.")]


def _under(prefix: str, problems: Sequence[Problem]) -> list[Problem]:
    return list(ConfigError(problems).under(prefix).problems)


def _parameter(key: str) -> str:
    """Return the parameter that a problem's key belongs to: `milestones[1]` -> `milestones`."""
    return key.partition(".")[0].partition("[")[0]


def _as_written(
    problem: Problem, params: Mapping[str, object], values: Mapping[str, object]
) -> Problem:
    """Return the problem with a duration as the user wrote it beside the steps it came to."""
    written, steps = params.get(problem.key), values.get(problem.key)
    if isinstance(written, str) and isinstance(steps, int):
        return replace(problem, given=f"{written} = {steps} steps")
    return problem
