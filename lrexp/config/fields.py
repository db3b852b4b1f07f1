"""What the values of a config may be: names, durations, devices, and how they are refused."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lrexp.config.budget import parse_budget
from lrexp.config.rule_names import RULES as RANGE_TEST_RULES
from lrexp.config.units import DURATION_PATTERN, UNITS, parse_duration
from lrexp.errors import ConfigError
from lrexp.workloads.splits import WHOLE, parse_split

CUSTOM = "lrexp"  # the type of errors whose wording comes from here
MAX_LENGTH = 64
SAFE_CHARACTERS = "A-Za-z0-9._=,+@% -"
NAME_PATTERN = rf"^[A-Za-z0-9]([{SAFE_CHARACTERS}]{{0,{MAX_LENGTH - 2}}}[A-Za-z0-9_=,+@%-])?$"
_NAME = re.compile(NAME_PATTERN[1:-1])
_DEVICES = {"con", "prn", "aux", "nul", *(f"{p}{i}" for p in ("com", "lpt") for i in range(10))}
_DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,3})?|mps)$"


def why_unsafe(name: str) -> str | None:
    """Return why a name cannot be the name of a folder, None when it can.

    Example:
        >>> why_unsafe("../up")
        'must start with a letter or digit'
    """
    if not name or len(name) > MAX_LENGTH:
        return f"must have 1 to {MAX_LENGTH} characters"
    if not re.match("[A-Za-z0-9]", name):
        return "must start with a letter or digit"
    if name.endswith((" ", ".")):
        return "must not end with a space or a dot"
    if not _NAME.fullmatch(name):
        return "may only hold the letters a-z, digits, spaces and ._-=,+@%"
    if name.partition(".")[0].strip().lower() in _DEVICES:
        return "is the name of a device on Windows"
    return None


def make_safe(text: str) -> str:
    """Return a safe name that resembles the text.

    Example:
        >>> make_safe("train:make_model")
        'train.make_model'
    """
    text = re.sub(r"[:/\\]+", ".", text)
    text = re.sub(rf"[^{SAFE_CHARACTERS}]+", "-", text)
    text = re.sub(r"^[^A-Za-z0-9]+", "", text)[:MAX_LENGTH].rstrip(" .-") or "x"
    return text if why_unsafe(text) is None else f"x{text}"[:MAX_LENGTH]


def refusal(what: str, remedy: str, key: str = "") -> PydanticCustomError:
    """Return the error that `schema_errors.py` words like this; `key` is relative to the value."""
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


def _split(value: object) -> Any:
    try:
        parse_split(value)
    except ConfigError as error:
        raise refusal(error.problems[0].what, error.problems[0].remedy) from None
    return value


def _duration_schema(units: list[str]) -> dict[str, Any]:
    text = DURATION_PATTERN.replace("([a-z]+|%)", f"({'|'.join(units)})")
    return {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{text}$"}]
    }


Text: TypeAlias = Annotated[str, Field(min_length=1)]

Name: TypeAlias = Annotated[
    str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})
]


def _spending(value: object) -> int | float | str:
    try:
        parse_budget(value)
    except ConfigError as error:
        raise refusal(error.problems[0].what, error.problems[0].remedy) from None
    assert isinstance(value, int | float | str)
    return value


Spending: TypeAlias = Annotated[
    int | float | str,
    PlainValidator(_spending),
    WithJsonSchema({"type": ["string", "number"]}),
]
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


def _of_column(key: str, **others: Any) -> dict[str, Any]:
    keys = {key: {"type": "string", "minLength": 1}, **others}
    closed = {"required": [key], "additionalProperties": False}
    return {"type": "object", "properties": keys, **closed}


_SPLITS = [{"enum": [*WHOLE, None]}, _of_column("column", val={}), _of_column("groups")]
SplitRule: TypeAlias = Annotated[
    str | dict[str, Any] | None, PlainValidator(_split), WithJsonSchema({"anyOf": _SPLITS})
]

RuleName: TypeAlias = Annotated[
    Text,
    WithJsonSchema({"anyOf": [{"enum": [*RANGE_TEST_RULES]}, {"type": "string", "minLength": 1}]}),
]

Arguments: TypeAlias = dict[str, Any]
RULES = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
OPEN = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class ExecutorConfig(BaseModel):
    """Who starts worker processes, and where; its options stand beside its name."""

    model_config = OPEN

    name: Text = Field(
        default="local",
        description="local (this process, or --jobs workers), processes (workers always), ray, "
        "slurm, or a name that lrexp.register_executor was given.",
        examples=["local", "processes", "ray", "slurm"],
    )


class TrackerConfig(BaseModel):
    """A tracker that gets the numbers of a training; its options stand beside its name."""

    model_config = OPEN

    name: Text = Field(
        description="tensorboard, wandb, trackio, swanlab, mlflow, or a name that "
        "lrexp.register_tracker was given.",
        examples=["tensorboard"],
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given
