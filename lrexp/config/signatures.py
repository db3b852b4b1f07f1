"""Whether `args` from a config fit a callable: names, required ones, and plain types.

Python would find the names out late and the types never: `nesterov: no` is the text 'no', which
SGD takes for true.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lrexp.errors import NOTHING, Problem, did_you_mean

_NO_FILLED: Mapping[str, str] = {}
_UNIONS = (Union, types.UnionType)
_LISTS = (list, tuple, Sequence)
_MAPPINGS = (dict, Mapping)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# annotation -> its word, and whether a value fits it
_PLAIN: dict[object, tuple[str, Callable[[object], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", _is_number),
    str: ("text", lambda value: isinstance(value, str)),
    None: ("null", lambda value: value is None),
    type(None): ("null", lambda value: value is None),
}


def check_arguments(
    function: Callable[..., Any],
    args: Mapping[str, object],
    *,
    title: str,
    filled: Mapping[str, str] = _NO_FILLED,
    facts: Collection[str] = (),
    automatic: Collection[str] = (),
) -> list[Problem]:
    """Return what is wrong with `args`, keyed by their names.

    Args:
        function: the callable; one that cannot be inspected is not judged.
        args: its keyword arguments from the config.
        title: what problems call the callable.
        filled: parameters that lrexp fills in -> the key or section they come from.
        facts: what `$name` may stand for in values.
        automatic: parameters that are filled in when they are not given.

    Example:
        >>> def net(width: int, depth: int = 2): ...
        >>> print(check_arguments(net, {"widht": 3}, title="net")[0])
        widht: is no argument of net (got 3). Did you mean 'width'?
    """
    known = _parameters(function)
    if known is None:
        return []
    star = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = {n: p for n, p in known.items() if p.kind not in star}
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    problems = []
    for name, value in args.items():
        if name in filled:
            what = f"is given to {title} already, by {filled[name]}"
            problems.append(Problem(name, what, value, "Remove it from args."))
        elif name not in named and not open_ended:
            what = f"is no argument of {title}"
            problems.append(Problem(name, what, value, _known(name, named, filled)))
        else:
            problems += _value_problems(name, value, named.get(name), facts)
    for name, parameter in named.items():
        given = name in args or name in filled or name in automatic
        if parameter.default is parameter.empty and not given:
            example = f"${name}" if name in facts else "..."
            remedy = f"Add it to args: {{{name}: {example}}}."
            problems.append(Problem(name, f"is required by {title}", NOTHING, remedy))
    return problems


def fits(value: object, annotation: Any) -> bool:
    """Return whether a value from YAML fits an annotation; what is not a plain type fits always.

    Example:
        >>> fits("no", bool), fits(1, float), fits([0.9, 0.99], tuple[float, float])
        (False, True, True)
    """
    annotation = _bare(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in _UNIONS:
        return any(fits(value, member) for member in inner)
    if origin is Literal:
        return value in inner
    if (origin or annotation) in _LISTS:
        return isinstance(value, list) and _items_fit(value, origin, inner)
    if (origin or annotation) in _MAPPINGS:
        return isinstance(value, Mapping)
    return all(test(value) for kind, (_, test) in _PLAIN.items() if annotation is kind)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters, annotations evaluated where that works."""
    with suppress(Exception):  # an annotation may raise anything
        return inspect.signature(function, eval_str=True).parameters
    with suppress(TypeError, ValueError):
        return inspect.signature(function).parameters
    return None


def _known(name: str, named: Collection[str], filled: Collection[str]) -> str:
    free = [n for n in named if n not in filled]
    return did_you_mean(name, free) if free else "It takes no arguments."


def _value_problems(
    name: str, value: object, parameter: inspect.Parameter | None, facts: Collection[str]
) -> list[Problem]:
    unknown = [fact for fact in _facts_in(value) if facts and fact not in facts]
    if unknown:
        remedy = did_you_mean(unknown[0], facts).replace("'", "'$", 1)
        what = f"uses ${unknown[0]}, which is no fact of the data"
        return [Problem(name, what, value, remedy)]
    annotation = inspect.Parameter.empty if parameter is None else parameter.annotation
    if parameter is None or isinstance(annotation, str) or annotation is parameter.empty:
        return []
    if (facts and _facts_in(value)) or value == parameter.default or fits(value, annotation):
        return []
    return [Problem(name, f"must be {_describe(annotation)}", value, _remedy(value, annotation))]


def _facts_in(value: object) -> list[str]:
    """Return the facts that a value uses: `$num_classes`, also inside lists and mappings."""
    if isinstance(value, list | Mapping):
        items = value.values() if isinstance(value, Mapping) else value
        return [fact for item in items for fact in _facts_in(item)]
    return [value[1:]] if isinstance(value, str) and value.startswith("$") else []


def _items_fit(items: list[object], origin: Any, inner: tuple[Any, ...]) -> bool:
    if not inner:
        return True
    if origin is tuple and Ellipsis not in inner:
        pairs = zip(items, inner, strict=False)
        return len(items) == len(inner) and all(fits(item, kind) for item, kind in pairs)
    return all(fits(item, inner[0]) for item in items)


def _describe(annotation: Any) -> str:
    annotation = _bare(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(_describe(member) for member in inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if (origin or annotation) in _LISTS:
        return f"a list{_describe_items(origin, inner)}"
    if (origin or annotation) in _MAPPINGS:
        return "a mapping"
    words = [word for kind, (word, _) in _PLAIN.items() if annotation is kind]
    return words[0] if words else getattr(annotation, "__name__", str(annotation))


def _describe_items(origin: Any, inner: tuple[Any, ...]) -> str:
    if origin is tuple and inner and Ellipsis not in inner:
        return f" of {len(inner)}: {', '.join(_describe(kind) for kind in inner)}"
    return f", each item {_describe(inner[0])}" if inner else ""


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _remedy(value: object, annotation: Any) -> str:
    if isinstance(value, str) and fits(True, annotation):
        return "Write true or false: yes, no, on and off are text."
    if isinstance(value, str) and fits(0.5, annotation):
        return "Write a number without quotes."
    return "Correct it."
