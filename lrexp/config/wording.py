"""What the schema found wrong, in the words of this project: one table of wordings."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from lrexp.config.keys import field_at, unknown_key
from lrexp.config.scalars import parse_scalar
from lrexp.config.schema import ExperimentConfig
from lrexp.config.tree import KeyPath, dotted
from lrexp.config.types import CUSTOM
from lrexp.errors import NOTHING, Problem

_WHAT = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
}


def schema_problems(tree: Mapping[str, object]) -> list[Problem]:
    """Return everything in a config that does not fit the schema, in the schema's order.

    Example:
        >>> print(schema_problems({"seed": True})[0])
        seed: must be a whole number (got true). E.g. `seed: 0`.
    """
    try:
        ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        return [_problem(details) for details in error.errors(include_url=False)]
    return []


def _problem(details: ErrorDetails) -> Problem:
    kind, path, given = details["type"], details["loc"], details["input"]
    context: dict[str, Any] = details.get("ctx", {})
    if kind == CUSTOM:
        inner = (context["key"],) if context["key"] else ()
        if inner:
            given = given.get(context["key"], NOTHING) if isinstance(given, Mapping) else NOTHING
        return Problem(dotted((*path, *inner)), context["what"], given, context["remedy"])
    if kind == "extra_forbidden":
        return Problem(dotted(path), "is not a known key", given, unknown_key(path))
    if kind not in _WHAT:
        return Problem(dotted(path), f"is not right: {details['msg']}", given, "Correct it.")
    if kind == "literal_error":
        context = {"expected": ", ".join(_choices(path))}
    what = _WHAT[kind].format(**context)
    given = NOTHING if kind == "missing" else given
    return Problem(dotted(path), what, given, _remedy(kind, path, given))


def _remedy(kind: str, path: KeyPath, given: object) -> str:
    if kind == "literal_error" and isinstance(given, str):
        close = difflib.get_close_matches(given, _choices(path), n=1, cutoff=0.8)
        return f"Did you mean {close[0]!r}?" if close else "Choose one of them."
    if isinstance(given, str) and kind in ("int_type", "float_type"):
        number = parse_scalar(given)
        if isinstance(number, int | float):
            return f"Remove the quotes: {number}."
    if kind == "int_type" and isinstance(given, float) and given.is_integer():
        return f"Write {int(given)}."
    example = _example(path)
    if example is None:
        return "Correct it."
    verb = "Add it, e.g." if kind == "missing" else "E.g."
    return f"{verb} `{path[-1]}: {example}`."


def _example(path: KeyPath) -> str | None:
    """Return an example of the value at a path, as it would stand in YAML."""
    field = field_at(path)
    if field is None:
        return None
    value = field.examples[0] if field.examples else field.default
    if value is None or value is PydanticUndefined:
        return None
    return str(value) if isinstance(value, str | int | float) else _flow(value)


def _flow(value: object) -> str:
    return json.dumps(value).replace('"', "")


def _choices(path: KeyPath) -> list[str]:
    field = field_at(path)
    return [str(choice) for choice in get_args(field.annotation)] if field else []
