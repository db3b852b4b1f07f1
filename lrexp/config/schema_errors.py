"""What the schema found wrong, in the words of this project: one table of wordings.

Unknown keys are looked up by path, for a did-you-mean.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from lrexp.config.fields import CUSTOM
from lrexp.config.reader import parse_scalar
from lrexp.config.schema import ExperimentConfig
from lrexp.config.tree import KeyPath, dotted
from lrexp.errors import NOTHING, Problem, did_you_mean


def field_at(path: KeyPath) -> FieldInfo | None:
    """Return the schema's entry for a path, None where there is none."""
    model = model_at(path[:-1])
    return model.model_fields.get(str(path[-1])) if model and path else None


def model_at(path: KeyPath) -> type[BaseModel] | None:
    """Return the model that describes the mapping at a path."""
    model: type[BaseModel] | None = ExperimentConfig
    for part in path:
        if isinstance(part, int):
            continue  # items of a list share their list's model
        field = model.model_fields.get(part) if model else None
        model = _model_of(field.annotation) if field else None
    return model


def _model_of(annotation: object) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def unknown_part(path: KeyPath) -> KeyPath | None:
    """Return the shortest part of a path that the schema does not know, None if it knows all.

    Example:
        >>> unknown_part(("optimizer", "lrr")), unknown_part(("model", "args", "anything"))
        (('optimizer', 'lrr'), None)
    """
    for size in range(1, len(path) + 1):
        model = model_at(path[: size - 1])
        if isinstance(path[size - 1], int):
            continue
        if model is None or model.model_config.get("extra") == "allow":
            return None  # free parameters
        if path[size - 1] not in model.model_fields:
            return path[:size]
    return None


def unknown_key(path: KeyPath) -> str:
    """Return the remedy for a key that the schema does not know.

    Example:
        >>> unknown_key(("lr",))
        'It belongs in its section: optimizer.lr.'
    """
    key = str(path[-1])
    siblings = model_at(path[:-1])
    known = list(siblings.model_fields) if siblings else []
    elsewhere = [
        dotted((section, key))
        for section, field in ExperimentConfig.model_fields.items()
        if (model := _model_of(field.annotation)) and key in model.model_fields
    ]
    remedy = did_you_mean(key, known)
    if len(elsewhere) == 1 and not remedy.startswith("Did"):
        return f"It belongs in its section: {elsewhere[0]}."
    if "args" in known and not remedy.startswith("Did"):
        remedy += f" An argument of its own goes under `{dotted((*path[:-1], 'args', key))}`."
    return remedy


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
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps(value).replace('"', "")


def _choices(path: KeyPath) -> list[str]:
    field = field_at(path)
    found = get_args(field.annotation) if field else ()
    nested = [choice for one in found for choice in get_args(one)]  # of what may also be null
    return [str(choice) for choice in nested or found]
