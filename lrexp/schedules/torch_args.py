"""Whether `args` from a config fit a callable's signature: a torch scheduler class or a user's own.

Torch's own checks come late (a text as `step_size` fails at the first epoch's end) or never (a
boolean passes as 1), so names and plain types are compared before anything is built. Annotations
are read as text: torch imports some of their names for type checkers only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence

from lrexp.errors import NOTHING, Problem, did_you_mean
from lrexp.schedules import checks


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
