"""From a config's `{name: cosine, warmup: 5%, ...}` to a schedule for a training of T steps.

A name is a built-in of `SCHEDULES`, a class of torch.optim.lr_scheduler, or an import path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

from lrexp.errors import ConfigError, Problem, did_you_mean
from lrexp.schedules import combine, controllers, custom, cycles, decays, greedy, named
from lrexp.schedules.combine import Part, range_problems
from lrexp.schedules.custom import custom_problems, custom_schedule, title_of
from lrexp.schedules.schedule import (
    FILLED,
    SCHEDULES,
    Controller,
    PerEpoch,
    Schedule,
    common_problems,
    register,
)
from lrexp.schedules.signatures import (
    Count,
    Positive,
    fits,
    named_parameters,
    read_arguments,
    under,
)

__all__ = ["SCHEDULES", "build_schedule", "check_schedule", "known_names", "register"]
FAMILIES = (combine, controllers, custom, cycles, decays, greedy, named)  # they fill SCHEDULES
# A built-in name, the name of a torch class, or what an import path led to: a torch scheduler class
# or a factory of the user's own.
Name: TypeAlias = str | Callable[..., object]


@dataclass(frozen=True)
class Maker:
    """A factory, and how to call it with what a config says.

    Args:
        title: what errors call it.
        factory: its keyword-only parameters are those of the config.
        fixed: steps per epoch -> its arguments between T and those of the config.
        args_problems: rules for the parameter `args`.
        filled: what a config must not give -> the key or section that it comes from.
    """

    title: str
    factory: Callable[..., Schedule | Controller]
    fixed: Callable[[PerEpoch], tuple[object, ...]] = lambda per_epoch: ()
    args_problems: Callable[[Mapping[str, object]], list[Problem]] = lambda args: []
    filled: Mapping[str, str] = field(default_factory=lambda: FILLED)


def maker_of(name: Name) -> Maker | None:
    """Return the maker of a name, None where there is none; torch is imported only for its own."""
    if isinstance(name, str) and name in SCHEDULES:
        return Maker(name, SCHEDULES[name])
    if isinstance(name, str | type):
        from lrexp.schedules import torch_adapter as adapter

        scheduler = adapter.torch_class(name) if isinstance(name, str) else name
        if scheduler is not None and adapter.is_scheduler(scheduler):
            filled = {**FILLED, "scheduler": "schedule.name", "steps_per_epoch": "data"}
            problems = partial(adapter.torch_problems, scheduler)
            maker = Maker(
                scheduler.__name__,
                adapter.torch_schedule,
                lambda per_epoch: (scheduler, per_epoch),
                problems,
                filled,
            )
            if adapter.is_plateau(scheduler):
                return replace(maker, factory=adapter.torch_plateau, fixed=lambda per_epoch: ())
            return maker
    if isinstance(name, str):
        return None
    filled = {**FILLED, "factory": "schedule.name"}
    problems = partial(custom_problems, name)
    return Maker(title_of(name), custom_schedule, lambda per_epoch: (name,), problems, filled)


def build_schedule(
    name: Name,
    params: Mapping[str, object],
    *,
    lr: float,
    total_steps: int,
    to_steps: Callable[[object], int],
    steps_per_epoch: PerEpoch,
    direction_of: Callable[[str], str | None] = lambda monitor: None,
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
        direction_of: min or max, which is better of what a schedule monitors; None where nobody
            knows.

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
    common = {"lr": lr} if fits(lr, Positive) else {}
    common |= {"total_steps": total_steps} if fits(total_steps, Count) else {}
    maker, values, problems = _read(name, params, to_steps, common)
    if name == "combined" and "parts" in values:
        build = partial(build_schedule, lr=lr, to_steps=to_steps, steps_per_epoch=steps_per_epoch)
        values["parts"], found = _built_parts(values["parts"], build)
        problems += found
    if isinstance(values.get("monitor"), str):
        values |= _with_mode(maker, values, direction_of)
    try:
        if not problems:
            return maker.factory(lr, total_steps, *maker.fixed(steps_per_epoch), **values)
    except ConfigError as error:
        problems = list(error.problems)
    raise ConfigError([_as_written(problem, params) for problem in problems])


def _with_mode(
    maker: Maker, values: Mapping[str, Any], direction_of: Callable[[str], str | None]
) -> dict[str, Any]:
    """Return the `mode`, of `plateau` or in torch's arguments, that follows from the monitor."""
    known, args = named_parameters(maker.factory), values.get("args") or {}
    mode = values.get("mode") or args.get("mode") or direction_of(values["monitor"])
    if mode is None:
        return {}
    return {"mode": mode} if "mode" in known else {"args": {**args, "mode": mode}}


NOISE = ("noise_range_t", "noise_pct", "noise_std", "noise_seed")  # of timm
NO_NOISE = "Leave it out: an LR is a function of the step, the same for all seeds and variants."


def check_schedule(name: Name, params: Mapping[str, object]) -> list[Problem]:
    """Return what is wrong with a section whatever the LR and the length of the training.

    Example:
        >>> print(check_schedule("cosine", {"warmpu": "5%"})[0])
        warmpu: is not a parameter of cosine (got '5%'). Did you mean 'warmup'?
    """
    try:
        # how long a duration is, no clock tells yet
        _, values, problems = _read(name, params, to_steps=lambda duration: None)
        parts = values.get("parts", []) if name == "combined" else []
        return problems + _section_problems(parts)
    except ConfigError as error:
        return list(error.problems)


def _read(
    name: Name,
    params: Mapping[str, object],
    to_steps: Callable[[object], int | None],
    common: Mapping[str, object] = MappingProxyType({}),
) -> tuple[Maker, dict[str, Any], list[Problem]]:
    """Return how a schedule is made, the parameters that fit, and what is wrong with the others."""
    maker = maker_of(name)
    if maker is None:
        text = str(name)
        remedy = did_you_mean(text, known_names())
        raise ConfigError.single("name", "is not a known schedule", text, remedy)
    values, problems = read_arguments(
        maker.factory,
        params,
        title=maker.title,
        filled=maker.filled,
        finite=True,
        context=to_steps,
        rules=lambda given: common_problems({**given, **common}),
    )
    problems = [replace(p, remedy=NO_NOISE) if p.key in NOISE else p for p in problems]
    if name == "combined" and "parts" in values:
        values["parts"], found = _read_parts(values["parts"], to_steps)
        problems += found
    args = params.get("args") or {}
    problems += maker.args_problems(args) if isinstance(args, Mapping) else []
    return maker, values, problems


def known_names() -> list[str]:
    """Return every name a config may use: the built-in ones, then torch's classes."""
    from lrexp.schedules.torch_adapter import torch_class_names

    return [*SCHEDULES, *torch_class_names()]


def _read_parts(
    parts: Any, to_steps: Callable[[object], int | None]
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Return what fits of each part, and what is wrong with the rest."""
    read: list[dict[str, Any]] = []
    problems = [] if parts else range_problems([], [])
    for index, part in enumerate(parts):
        key = f"parts[{index}]"
        values: dict[str, Any] = {}
        if isinstance(part, Mapping):
            values, found = read_arguments(Part, part, title="a part", context=to_steps)
            problems += under(key, found)
        else:
            example = "{start: 0, end: 50%, schedule: cosine}"
            problems.append(Problem(key, "must be a mapping", part, f"Write e.g. {example}."))
        read.append(values)
    return read, problems


def _section(section: object) -> tuple[Any, Mapping[str, object]]:
    """Return name and parameters of a schedule; a bare name is one without parameters."""
    name, params = section, {}
    if isinstance(section, Mapping):
        name, params = section.get("name"), {k: v for k, v in section.items() if k != "name"}
    if not isinstance(name, str) and not callable(name):
        remedy = "Give a name, or {name: cosine, ...}."
        raise ConfigError.single("", "must be a schedule", section, remedy)
    return name, params


def _section_problems(parts: list[dict[str, Any]]) -> list[Problem]:
    problems: list[Problem] = []
    for index, part in enumerate(parts):
        try:
            found = check_schedule(*_section(part["schedule"])) if "schedule" in part else []
        except ConfigError as error:
            found = list(error.problems)
        problems += under(f"parts[{index}].schedule", found)
    return problems


def _built_parts(
    parts: list[dict[str, Any]], build: Callable[..., Schedule | Controller]
) -> tuple[list[Part], list[Problem]]:
    """Return the parts, each with a schedule whose T is its own length."""
    ranges = [(part.get("start"), part.get("end")) for part in parts]
    is_whole = bool(parts) and all(len(part) == len(fields(Part)) for part in parts)
    keys = [f"parts[{index}]" for index in range(len(parts))]
    problems = range_problems(ranges, keys) if is_whole else []
    if problems or not is_whole:
        return [], problems + _section_problems(parts)
    built = []
    for key, part in zip(keys, parts, strict=True):
        start, end, section = part["start"], part["end"], part["schedule"]
        try:
            name, params = _section(section)
            schedule = build(name, params, total_steps=end - start)
            if not isinstance(schedule, Schedule):
                rule = "reacts to training, and cannot be a part of a combined schedule"
                remedy = "Use it alone, with its own warmup."
                raise ConfigError.single("name", rule, name, remedy)
            built.append(Part(start, end, schedule))
        except ConfigError as error:
            problems += under(f"{key}.schedule", error.problems)
    return built, problems


def _as_written(problem: Problem, params: Mapping[str, object]) -> Problem:
    """Return the problem with a duration as the user wrote it beside the steps it came to."""
    written, steps = params.get(problem.key), problem.given
    if isinstance(written, str) and isinstance(steps, int):
        return replace(problem, given=f"{written} = {steps} steps")
    return problem
