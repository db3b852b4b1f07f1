"""The types of single values: what each accepts, how a refusal reads, its JSON Schema.

Pydantic checks them strictly: `true` is no number, `"5"` is no number, `.nan` is no rate.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from lrexp.config.safe_names import NAME_PATTERN, why_unsafe
from lrexp.config.units import DURATION_PATTERN, UNITS, parse_duration
from lrexp.errors import ConfigError

CUSTOM = "lrexp"  # the type of errors whose wording comes from here

_DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,3})?|mps)$"


def refusal(what: str, remedy: str, key: str = "") -> PydanticCustomError:
    """Return the error that makes `wording.py` say just this; `key` is relative to the value."""
    return PydanticCustomError(CUSTOM, "{what}", {"what": what, "remedy": remedy, "key": key})


def _duration(value: object) -> int | str:
    try:
        parsed = parse_duration(value)
    except ConfigError as error:
        raise refusal(error.problems[0].what, error.problems[0].remedy) from None
    if parsed.amount == 0:
        raise refusal("must be more than 0", "Raise it.")
    assert isinstance(value, int | str)
    return value


def _length(value: object) -> int | str:
    duration = _duration(value)
    if isinstance(duration, str) and duration.endswith("%"):
        raise refusal("cannot be a share of itself", "Write e.g. 10ep or 500st.")
    return duration


def _device(value: str) -> str:
    if not re.fullmatch(_DEVICE[1:-1], value):
        raise refusal("is no device", "Write auto, cpu, cuda, cuda:N or mps.")
    return value


def _name(value: str) -> str:
    why = why_unsafe(value)
    if why:
        raise refusal(f"{why}, to be part of a folder's name", "Write e.g. digits-lr.")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        what = f"is no regular expression: {error}"
        raise refusal(what, "Write e.g. head.* or .*bias$.") from None
    return value


def _in_memory(value: object) -> Any:
    if value == "auto" or isinstance(value, bool):
        return value
    raise refusal("must be auto, true or false", "Write auto unless the data is too large.")


def _duration_schema(units: list[str]) -> dict[str, Any]:
    text = DURATION_PATTERN.replace("([a-z]+|%)", f"({'|'.join(units)})")
    return {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{text}$"}]
    }


Text: TypeAlias = Annotated[str, Field(min_length=1)]
Name: TypeAlias = Annotated[
    str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})
]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Duration: TypeAlias = Annotated[
    int | str, PlainValidator(_duration), WithJsonSchema(_duration_schema(list(UNITS)))
]
Length: TypeAlias = Annotated[
    int | str,
    PlainValidator(_length),
    WithJsonSchema(_duration_schema([unit for unit in UNITS if unit != "%"])),
]
Device: TypeAlias = Annotated[
    str, AfterValidator(_device), WithJsonSchema({"type": "string", "pattern": _DEVICE})
]
Pattern: TypeAlias = Annotated[
    str, AfterValidator(_pattern), WithJsonSchema({"type": "string", "format": "regex"})
]
InMemory: TypeAlias = Annotated[
    bool | str, PlainValidator(_in_memory), WithJsonSchema({"enum": ["auto", True, False]})
]
Arguments: TypeAlias = dict[str, Any]
