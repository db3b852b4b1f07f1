"""What a callable's signature says about its parameters, and whether values from a config fit.

The keyword-only parameters of a factory are what a config may set. Annotations say how a value is
read: `Steps` is a duration such as `5%` or `10ep`. Ranges are the factories' own business. Torch
checks its own arguments late or never, so names and plain types are compared before anything is
built.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lrexp.errors import NOTHING, ConfigError, Problem, did_you_mean
from lrexp.schedules import checks
from lrexp.schedules.combine import Part
from lrexp.schedules.schedule import Steps


@dataclass(frozen=True)
class Parameter:
    """One parameter that a config may set."""

    hint: Any  # its annotation, `| None` taken off
    nullable: bool
    required: bool

    @property
    def is_duration(self) -> bool:
        """Whether values are durations, one or a list of them."""
        return self.hint in (Steps, list[Steps])


def parameters(factory: Callable[..., object]) -> dict[str, Parameter]:
    """Return the parameters of a factory that a config may set, in order.

    Example:
        >>> from lrexp.schedules.decays import cosine
        >>> list(parameters(cosine))
        ['warmup', 'warmup_start', 'min_lr', 'final_div_factor']
    """
    hints = get_type_hints(factory, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            hint, nullable = _split(hints[name])
            found[name] = Parameter(hint, nullable, parameter.default is parameter.empty)
    return found


def parameter_problems(
    title: str, factory: Callable[..., object], params: Mapping[str, object]
) -> list[Problem]:
    """Return unknown and missing parameters and values of the wrong type."""
    known = parameters(factory)
    problems = []
    for key, value in params.items():
        if key in known:
            problems += value_problems(key, value, known[key])
        else:
            rule = f"is not a parameter of {title}"
            problems.append(Problem(str(key), rule, value, did_you_mean(str(key), known)))
    for key, parameter in known.items():
        if parameter.required and key not in params:
            remedy = f"Add it, e.g. {key}: {_example(parameter.hint)}."
            problems.append(Problem(key, f"is needed by {title}", NOTHING, remedy))
    return problems


def value_problems(key: str, value: object, parameter: Parameter) -> list[Problem]:
    """Return what is wrong with the type of a value."""
    if value is None:
        remedy = f"Give a value, e.g. {_example(parameter.hint)}, or leave the key out."
        return [] if parameter.nullable else [Problem(key, "must not be null", None, remedy)]
    if get_origin(parameter.hint) is list:
        (element,) = get_args(parameter.hint)
        if not isinstance(value, Sequence) or isinstance(value, str):
            remedy = f"Write it in brackets, e.g. {_example(parameter.hint)}."
            return [Problem(key, "must be a list", value, remedy)]
        found = [_single(f"{key}[{i}]", item, element) for i, item in enumerate(value)]
    else:
        found = [_single(key, value, parameter.hint)]
    return [problem for problem in found if problem is not None]


def resolved(
    key: str, value: object, to_steps: Callable[[object], int]
) -> tuple[Any, list[Problem]]:
    """Return a duration, or a list of them, in whole steps, and what was wrong."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        pairs = [resolved(f"{key}[{i}]", item, to_steps) for i, item in enumerate(value)]
        return [steps for steps, _ in pairs], [p for _, problems in pairs for p in problems]
    if value is None:
        return None, []
    try:
        return to_steps(value), []
    except ConfigError as error:
        return None, list(error.under(key).problems)


def _split(hint: Any) -> tuple[Any, bool]:
    """Return the hint without `| None`, and whether it had it."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    members = [member for member in get_args(hint) if member is not type(None)]
    return members[0], len(members) < len(get_args(hint))


def _single(key: str, value: object, hint: Any) -> Problem | None:
    if get_origin(hint) is Literal:
        return checks.one_of(key, value, get_args(hint))
    if hint is bool:
        return checks.truth(key, value)
    rules: dict[Any, tuple[Callable[[object], bool], str, str]] = {
        Steps: (_is_duration, "must be a duration", "Give e.g. 500, 10ep or 5%."),
        int: (checks.is_whole, "must be a whole number", "Give e.g. 2."),
        float: (checks.is_number, "must be a finite number", "Give e.g. 0.5."),
        Part: (_is_mapping, "must be a mapping", f"Write e.g. {_example(Part)}."),
    }
    if hint in rules:
        fits, rule, remedy = rules[hint]
    elif (get_origin(hint) or hint) is dict:
        fits, rule, remedy = _is_mapping, "must be a mapping", "Write e.g. {step_size: 10}."
    else:  # the one kind left
        fits, rule, remedy = callable, "must be a function", "Give its import path."
    return None if fits(value) else Problem(key, rule, value, remedy)


def _is_duration(value: object) -> bool:
    return checks.is_whole(value) or isinstance(value, str)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _example(hint: Any) -> str:
    if get_origin(hint) is list:
        element = get_args(hint)[0]
        return "[50%, 80%]" if element is Steps else f"[{_example(element)}]"
    examples = {
        Steps: "10%",
        int: "2",
        float: "0.5",
        bool: "true",
        Part: "{start: 0, end: 50%, schedule: cosine}",
    }
    return examples.get(hint, "package.module:function")


def args_problems(
    function: Callable[..., object], args: Mapping[str, object], *, filled: Collection[str]
) -> list[Problem]:
    """Return what is wrong with `args`, under the keys `args.<name>`.

    Args:
        function: a class or function; what cannot be inspected is not judged.
        args: its keyword arguments.
        filled: parameters that a config must not give, since they are filled in elsewhere.

    Example:
        >>> def decay(lr, power: float): ...
        >>> print(args_problems(decay, {"pover": 2}, filled=["lr"])[0])
        args.pover: is not an argument of decay (got 2). Did you mean 'power'?
    """
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    star = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = {n: p for n, p in known.items() if n not in filled and p.kind not in star}
    title = getattr(function, "__name__", str(function))
    problems = []
    for name, value in args.items():
        if name in named:
            problems += _value_problems(f"args.{name}", value, _hint(named[name]))
        elif not open_ended or name in filled:
            rule = f"is not an argument of {title}"
            problems.append(Problem(f"args.{name}", rule, value, _known(str(name), named)))
    missing = [n for n, p in named.items() if p.default is p.empty and n not in args]
    return problems + [
        Problem(f"args.{name}", f"is needed by {title}", NOTHING, f"Add {name} to args.")
        for name in missing
    ]


def _known(name: str, named: Collection[str]) -> str:
    return did_you_mean(name, named) if named else "It takes none."


def _hint(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _value_problems(key: str, value: object, hint: str) -> list[Problem]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [
            problem
            for index, element in enumerate(value)
            for problem in _value_problems(f"{key}[{index}]", element, hint)
        ]
    wrong = _rule(value, hint)
    return [Problem(key, wrong, value, "See the signature.")] if wrong else []


def _rule(value: object, hint: str) -> str:
    """Return the rule of a numeric or boolean annotation that a plain value breaks, or nothing."""
    rule = ""
    open_ended = "Any" in hint or "Callable" in hint
    numeric = ("int" in hint or "float" in hint) and not open_ended
    if isinstance(value, bool):
        if numeric and "bool" not in hint:
            rule = "must be a number"
    elif isinstance(value, str):
        if numeric and "str" not in hint and "Literal" not in hint:
            rule = "must be a number"
    elif isinstance(value, (int, float)):
        if hint == "bool":
            rule = "must be true or false"
        elif numeric and not checks.is_number(value):
            rule = "must be a finite number"
        elif numeric and "float" not in hint and not checks.is_whole(value):
            rule = "must be a whole number"
    return rule
