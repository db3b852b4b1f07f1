"""Arguments against signatures: names, types and ranges, every problem at once.

A signature is the schema. Pydantic checks a value against its parameter's annotation, strictly:
true is no number, and '3' is text. Ranges are metadata of the annotation (`Positive`). A list
stands for any tuple or sequence, because YAML has no others. Pydantic would build an object of a
class that it does not know, or refuse it; the function may do neither, so such a value fits.
"""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache, wraps
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeAlias, TypeVar, get_args, get_origin

import annotated_types as limits
from pydantic import (
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from lrexp.errors import NOTHING, ConfigError, Problem, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")

Natural: TypeAlias = Annotated[int, limits.Ge(0)]
Count: TypeAlias = Annotated[int, limits.Ge(1)]
Positive: TypeAlias = Annotated[float, limits.Gt(0)]
NonNegative: TypeAlias = Annotated[float, limits.Ge(0)]
OneOrMore: TypeAlias = Annotated[float, limits.Ge(1)]
Share: TypeAlias = Annotated[float, limits.Ge(0), limits.Le(1)]
Fraction: TypeAlias = Annotated[float, limits.Ge(0), limits.Lt(1)]
Decay: TypeAlias = Annotated[float, limits.Gt(0), limits.Le(1)]

_UNIONS = (typing.Union, types.UnionType)
_STAR = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_LISTS = (list, tuple, Sequence, Iterable, Collection)


def _plain_number(value: object) -> object:
    """Return a number of numpy's as Python's: strictly, pydantic takes no others."""
    if isinstance(value, int):  # a boolean too, which is to stay one
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


_NUMBER = BeforeValidator(_plain_number)
# annotation -> what pydantic is to read it as, its word, and an example as a config would hold it
_PLAIN: dict[object, tuple[Any, str, str]] = {
    bool: (Annotated[bool, Strict()], "true or false", "true"),
    int: (Annotated[int, Strict(), _NUMBER], "a whole number", "2"),
    float: (Annotated[float, Strict(), _NUMBER], "a number", "0.5"),
    str: (Annotated[str, Strict()], "text", "..."),
    Path: (Path, "a path", "..."),
    None: (None, "null", "null"),
    type(None): (None, "null", "null"),
    collections.abc.Callable: (Callable, "a function", "package.module:function"),
    dict: (dict[Any, Any], "a mapping", "{...}"),
    Mapping: (dict[Any, Any], "a mapping", "{...}"),
}


def require(*problems: Problem | None, prefix: str = "") -> None:
    """Raise one `ConfigError` with the problems that there are, keys under `prefix`.

    Example:
        >>> require(None, None)
    """
    found = [problem for problem in problems if problem is not None]
    if found:
        raise ConfigError(found).under(prefix)


def under(prefix: str, problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems with `prefix.` before every key."""
    return list(ConfigError([*problems]).under(prefix).problems)


def one_of(key: str, value: object, known: Iterable[str]) -> Problem | None:
    """Return the problem if `value` is none of the names known at run time."""
    names = list(known)
    if isinstance(value, str) and value in names:
        return None
    what = f"must be one of {', '.join(names)}"
    return Problem(key, what, value, did_you_mean(str(value), names))


def among(known: Iterable[str]) -> PlainValidator:
    """Return the metadata of an annotation for one of the names known at run time."""

    def validate(value: object) -> object:
        require(one_of("", value, known))
        return value

    return PlainValidator(validate)


def checked(
    prefix: str = "", rules: Callable[[Mapping[str, Any]], Iterable[Problem]] = lambda given: ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: a call with arguments that its signature refuses is a `ConfigError`.

    Args:
        prefix: the section of a config that the keys of problems start with.
        rules: what the arguments that fit, defaults included, still do wrong together.

    Example:
        >>> @checked("model.args")
        ... def net(width: Count) -> int:
        ...     return width
        >>> net(0)
        Traceback (most recent call last):
        ...
        lrexp.errors.ConfigError: model.args.width: must be a whole number of at least 1 (got 0). \
Give e.g. 2.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = list(inspect.signature(function).parameters)

        @cache  # to look at a signature takes longer than all the rest
        def signature() -> Signature:
            return Signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            options = {"title": function.__name__, "finite": True, "rules": rules}
            require(*check_arguments(signature(), given, **options), prefix=prefix)
            return function(*args, **kwargs)

        return call

    return decorate


def named_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters that have a name, annotations evaluated where that works."""
    known = _parameters(function) or {}
    return {name: p for name, p in known.items() if p.kind not in _STAR}


def check_arguments(
    function: Callable[..., Any] | Signature, args: Mapping[str, object], **options: Any
) -> list[Problem]:
    """Return what is wrong with `args`, keyed by their names; see `read_arguments`.

    Example:
        >>> def net(width: int, depth: int = 2): ...
        >>> print(check_arguments(net, {"widht": 3}, title="net")[0])
        widht: is not a parameter of net (got 3). Did you mean 'width'?
    """
    return read_arguments(function, args, **options)[1]


def read_arguments(
    function: Callable[..., Any] | Signature,
    args: Mapping[str, object],
    *,
    title: str,
    filled: Mapping[str, str] = types.MappingProxyType({}),
    facts: Collection[str] = (),
    automatic: Collection[str] = (),
    finite: bool = False,
    context: Any = None,
    rules: Callable[[Mapping[str, Any]], Iterable[Problem]] = lambda given: (),
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the arguments that fit, as validators made them, and what is wrong with the others.

    Args:
        function: the callable, or its signature; what cannot be inspected is not judged.
        args: its keyword arguments.
        title: what problems call the callable.
        filled: parameters that lrexp fills in -> the key or section they come from.
        facts: what `$name` may stand for in values.
        automatic: parameters that are filled in when they are not given.
        finite: whether inf and nan are refused.
        context: for validators in annotations.
        rules: what the arguments that fit, defaults included, still do wrong together.
    """
    signature = function if isinstance(function, Signature) else Signature(function)
    known = signature.parameters
    if known is None:
        return dict(args), []
    named = {name: p for name, p in known.items() if p.kind not in _STAR}
    is_open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    absent = {n: p for n, p in named.items() if n not in {*args, *filled, *automatic}}
    values = {n: p.default for n, p in absent.items() if p.default is not p.empty}
    problems = []
    for name, value in args.items():
        if name in filled:
            what = f"is given to {title} already, by {filled[name]}"
            problems.append(Problem(name, what, value, "Remove it."))
        elif name not in named and not is_open_ended:
            free = [n for n in named if n not in filled]
            remedy = did_you_mean(str(name), free) if free else "It takes no arguments."
            problems.append(Problem(str(name), f"is not a parameter of {title}", value, remedy))
        elif found := _fact_problems(name, value, facts):
            problems += found
        elif name not in named or (facts and _facts_in(value)) or _is_default(value, named[name]):
            values[name] = value
        else:
            read, found = signature.read(name, value, finite, context)
            problems += found
            values.update({} if found else {name: read})
    for name in (name for name in absent if name not in values):
        example = _example(named[name].annotation, in_config=context is not None)
        example = f"${name}" if name in facts else example
        remedy = "Add it." if example == "..." else f"Add it, e.g. {name}: {example}."
        problems.append(Problem(name, f"is needed by {title}", NOTHING, remedy))
    problems += rules(values)
    return {name: value for name, value in values.items() if name in args}, problems


def fits(value: object, annotation: Any) -> bool:
    """Return whether a value fits an annotation.

    Example:
        >>> fits("no", bool), fits(1, float), fits([0.9, 0.99], tuple[float, float])
        (False, True, True)
    """
    return not _read("", value, annotation, _adapter(annotation))[1]


class Signature:
    """The parameters of a function, None where they cannot be told, and what reads their values."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.parameters = _parameters(function)

    def read(
        self, name: str, value: object, finite: bool, context: Any
    ) -> tuple[Any, list[Problem]]:
        """Return what validators make of a parameter's value, or what is wrong with it."""
        assert self.parameters is not None
        hint = self.parameters[name].annotation
        return _read(name, value, hint, _adapter(hint, finite), context)


def with_parameter(
    function: Callable[..., R], name: str, annotation: object, default: object
) -> Callable[..., R]:
    """Return the function, which takes one more keyword than its signature says.

    To change the signature itself, its annotations would have to be evaluated at once, and may
    name what its module defines later.
    """
    kind = inspect.Parameter.KEYWORD_ONLY
    parameter = inspect.Parameter(name, kind, default=default, annotation=annotation)
    vars(function)["added_parameters"] = {name: parameter}
    return function


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    is_class = isinstance(function, type)
    target: Any = getattr(function, "__init__" if is_class else "__call__", function)
    # torch imports names such as Callable for type checkers only
    known = {**vars(collections.abc), **getattr(target, "__globals__", {})}
    for options in ({"eval_str": True}, {"eval_str": True, "globals": known}, {}):
        with suppress(Exception):  # an annotation may raise anything
            signature = inspect.signature(function, **options)
            return {**signature.parameters, **getattr(function, "added_parameters", {})}
    return None


def _is_default(value: object, parameter: inspect.Parameter) -> bool:
    """Return whether this is the default, which may not fit its annotation: `x: int = None`."""
    plain = (bool, int, float, str, type(None))
    default = parameter.default
    return type(value) is type(default) and type(value) in plain and value == default


def _fact_problems(name: str, value: object, facts: Collection[str]) -> list[Problem]:
    unknown = [fact for fact in _facts_in(value) if facts and fact not in facts]
    if not unknown:
        return []
    remedy = did_you_mean(unknown[0], facts).replace("'", "'$", 1)
    return [Problem(name, f"uses ${unknown[0]}, which is no fact of the data", value, remedy)]


def _facts_in(value: object) -> list[str]:
    """Return the facts that a value uses: `$num_classes`, also inside lists and mappings."""
    if isinstance(value, list | Mapping):
        items = value.values() if isinstance(value, Mapping) else value
        return [fact for item in items for fact in _facts_in(item)]
    return [value[1:]] if isinstance(value, str) and value.startswith("$") else []


def _adapter(hint: Any, finite: bool = False) -> TypeAdapter[Any] | None:
    """Return what reads values of an annotation, None where it may be anything."""
    try:
        return _made_adapter(hint, finite)
    except TypeError:  # metadata without a hash
        return _made_adapter.__wrapped__(hint, finite)


@lru_cache(maxsize=1_000)  # making one takes a millisecond, reading a value with it a microsecond
def _made_adapter(hint: Any, finite: bool) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(_strict(hint), config=ConfigDict(allow_inf_nan=not finite))
    except Exception:  # of the metadata of other libraries
        return None


def _read(
    key: str, value: object, hint: Any, adapter: TypeAdapter[Any] | None, context: Any = None
) -> tuple[Any, list[Problem]]:
    if adapter is None:  # then the value is not judged
        return value, []
    try:
        read = adapter.validate_python(value, context=context)
        is_same = isinstance(value, numbers.Real) and read == value
        return value if is_same else read, []  # 2 is to stay 2, not 2.0
    except ValidationError as error:
        first: dict[tuple[int, ...], ErrorDetails] = {}  # of several types, each says its own
        for details in error.errors(include_url=False):
            first.setdefault(_place(details), details)
        found = [_problems(key, hint, d, context is not None) for d in first.values()]
        return None, [problem for problems in found for problem in problems]


def _strict(hint: Any) -> Any:
    """Return the annotation as pydantic is to read it."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        parts = (_strict(inner[0]), *inner[1:])
        return Any if parts[0] is Any else Annotated[parts]
    if kind in _UNIONS:
        return typing.Union[tuple(map(_strict, inner))]  # noqa: UP007
    if _is_fixed(hint):
        return tuple[tuple(map(_strict, inner))]  # type: ignore[misc]
    if kind in _LISTS:
        return list[_strict(inner[0]) if inner else Any]  # type: ignore[misc]
    return hint if kind is Literal else _plain(kind)[0]


def _plain(kind: Any) -> tuple[Any, str, str]:
    """Return the row of a plain type; an annotation may be anything, and need not be hashable."""
    found = [row for plain, row in _PLAIN.items() if kind is plain]
    return found[0] if found else (Any, getattr(kind, "__name__", str(kind)), "...")


def _is_fixed(hint: Any) -> bool:
    """Return whether this is a tuple with a type for each of its items."""
    return get_origin(hint) is tuple and ... not in get_args(hint)


def _place(details: ErrorDetails) -> tuple[int, ...]:
    """Return where in a list an error is; () in one of several types, or where an item lacks."""
    indexes = takewhile(lambda part: isinstance(part, int), details["loc"])
    return () if details["type"] == "missing" else tuple(map(int, indexes))


def _problems(key: str, hint: Any, details: ErrorDetails, in_config: bool) -> Iterable[Problem]:
    for index in _place(details):
        key, items = f"{key}[{index}]", get_args(_bare(hint))
        hint = items[index] if _is_fixed(_bare(hint)) else items[0]
    error = details.get("ctx", {}).get("error")
    if isinstance(error, ConfigError):  # of a validator of ours
        return error.under(key).problems
    what, value = f"must be {_describe(hint)}", details["input"]
    if details["type"] == "finite_number":
        what = what.replace("a number", "a finite number")
    return [Problem(key, what, value, _remedy(value, hint, in_config))]


def _bare(hint: Any) -> Any:
    """Return the annotation without metadata and without null."""
    hint = _not_null(hint)
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _not_null(hint: Any) -> Any:
    members = [m for m in get_args(hint) if m is not type(None)]
    return members[0] if get_origin(hint) in _UNIONS and len(members) == 1 else hint


def _describe(hint: Any) -> str:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return _describe_range(_describe(inner[0]), inner[1:])
    if kind in _UNIONS:
        words = dict.fromkeys(_describe(member) for member in inner if member is not type(None))
        return " or ".join(words)
    if kind is Literal:
        return f"{'one of ' if len(inner) > 1 else ''}{', '.join(map(str, inner))}"
    if _is_fixed(hint):
        return f"a list of {len(inner)}: {', '.join(map(_describe, inner))}"
    if kind in _LISTS:
        return f"a list, each item {_describe(inner[0])}" if inner else "a list"
    return _plain(kind)[1]


def _describe_range(word: str, metadata: Iterable[object]) -> str:
    low = next((m for m in metadata if isinstance(m, limits.Gt | limits.Ge)), None)
    high = next((m for m in metadata if isinstance(m, limits.Lt | limits.Le)), None)
    start: Any = low.gt if isinstance(low, limits.Gt) else low and low.ge
    end: Any = high.lt if isinstance(high, limits.Lt) else high and high.le
    if low and high:
        left, right = "(["[isinstance(low, limits.Ge)], ")]"[isinstance(high, limits.Le)]
        return f"{word} in {left}{start}, {end}{right}"
    if low:
        positive = isinstance(low, limits.Gt) and start == 0
        above = "above" if isinstance(low, limits.Gt) else "of at least"
        return word.replace("a ", "a positive ", 1) if positive else f"{word} {above} {start}"
    if any(isinstance(m, limits.MinLen) for m in metadata):
        return word.replace("a list", "a list with an item or more", 1)
    return word


def _remedy(value: object, hint: Any, in_config: bool) -> str:
    if isinstance(value, str) and fits(True, hint):
        return "Write true or false: yes, no, on and off are text."
    if isinstance(value, str) and (fits(2, hint) or fits(0.5, hint)):
        return "Write a number without quotes."
    if get_origin(_bare(hint)) is Literal:
        return did_you_mean(str(value), map(str, get_args(_bare(hint))))
    example = _example(hint, in_config)
    return "Correct it." if example == "..." else f"Give e.g. {example}."


def _example(hint: Any, in_config: bool) -> str:
    """Return a value that fits, for Python or as a config holds it; `...` where none is known."""
    hint = _not_null(hint)
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    shown = [m.examples for m in metadata if isinstance(m, FieldInfo) and m.examples]
    if in_config and shown:
        return str(shown[0][0])
    hint = _bare(hint)
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return str(inner[0])
    if kind in _LISTS:
        return f"[{_example(inner[0], in_config)}]" if inner else "[...]"
    low = [m.ge for m in metadata if isinstance(m, limits.Ge) and isinstance(m.ge, int | float)]
    return f"{max(low[0], float(_plain(kind)[2])):g}" if low else _plain(kind)[2]
