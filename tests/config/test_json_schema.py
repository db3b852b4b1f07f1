"""The JSON Schema against the models that do the checking."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from lrexp.config import schema as models
from lrexp.config.document import starter
from lrexp.config.reader import read_yaml
from lrexp.config.schema import json_schema
from lrexp.config.tree import NAMED_SECTIONS

SCHEMA = json_schema()
SECTIONS = {
    name: model
    for name, model in vars(models).items()
    if isinstance(model, type)
    and issubclass(model, BaseModel)
    and model is not BaseModel
    and not name.startswith("_")  # what others have in common
}


OPEN = (
    "ScheduleConfig",
    "ExecutorConfig",
    "TrackerConfig",
    "GroupConfig",
)  # options stand beside the name


def properties(model: str) -> dict[str, Any]:
    whole = SCHEMA if model == "ExperimentConfig" else SCHEMA["$defs"][model]
    return whole["properties"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", SECTIONS)
def test_the_schema_has_exactly_the_keys_that_are_read(name: str) -> None:
    fields = SECTIONS[name].model_fields
    assert set(properties(name)) == set(fields)
    for key, entry in properties(name).items():
        assert entry["description"].endswith("."), key
        assert len(entry["description"]) > 8
        field = fields[key]
        assert field.is_required() == (key in _required(name))
        if "default" in entry:
            assert entry["default"] == field.default


def _required(name: str) -> list[str]:
    whole = SCHEMA if name == "ExperimentConfig" else SCHEMA["$defs"][name]
    return [*whole.get("required", ()), *whole.get("else", {}).get("required", ())]


def test_only_some_sections_take_more_keys() -> None:
    for name, model in SECTIONS.items():
        whole = SCHEMA if name == "ExperimentConfig" else SCHEMA["$defs"][name]
        assert whole["additionalProperties"] is (name in OPEN), model


def test_short_forms() -> None:
    for section in NAMED_SECTIONS:
        forms = properties("ExperimentConfig")[section]["anyOf"]
        assert {"type": "string", "minLength": 1} in forms


def test_it_is_json() -> None:
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA
    assert SCHEMA["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize(
    ("text", "length", "time"),
    [
        ("10ep", True, True), ("500st", True, True), ("2e6tok", True, True), (".5ep", True, True),
        ("64000sa", True, True), ("5%", False, True), ("5", False, False), ("5min", False, False),
        ("ten", False, False), ("-5ep", False, False),
    ],
)  # fmt: skip
def test_patterns_of_units(text: str, length: bool, time: bool) -> None:
    train = properties("TrainConfig")
    for key, fitting in (("duration", length), ("eval_every", time)):
        pattern = train[key]["anyOf"][1]["pattern"]
        assert bool(re.search(pattern, text)) is fitting


def test_the_starter_fits() -> None:
    data, _ = read_yaml(starter(), "starter")
    assert violations(data, SCHEMA, "") == []
    parts = {"parts": [{"name": "Muon", "lr": 0.02, "ndim": 2}, {"name": "AdamW", "lr": 0.1}]}
    assert violations({**data, "optimizer": parts}, SCHEMA, "") == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"nmae": 1}, "nmae"), ({"seed": -1}, "seed"), ({"loss": 5}, "loss"), ({"schedule": 5}, "schedule"),
        ({"device": "gpu"}, "device"), ({"engine": "warp"}, "engine"), ({"train": {"duration": "5"}}, "train"),
        ({"optimizer": {"name": "SGD", "lr": 0}}, "optimizer"), ({"optimizer": {"name": "SGD"}}, "optimizer"),
        ({"optimizer": {"parts": [{"name": "SGD"}]}}, "optimizer"), ({"model": {}}, "model"), ({"name": "a/b"}, "name"),
    ],
)  # fmt: skip
def test_a_mistake_does_not_fit(change: dict[str, Any], key: str) -> None:
    data, _ = read_yaml(starter(), "starter")
    assert [k for k in violations({**data, **change}, SCHEMA, "") if k.startswith(key)]  # type: ignore[dict-item]


def violations(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Return the paths where a value does not fit: the keywords that this schema uses."""
    if "$ref" in schema:
        target = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        return violations(value, target, path)
    if "anyOf" in schema:
        found = [violations(value, option, path) for option in schema["anyOf"]]
        return [] if [] in found else [path]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
             "null": type(None), "boolean": bool}  # fmt: skip
    is_bool = isinstance(value, bool) and schema.get("type") in ("integer", "number")
    if "type" in schema and (is_bool or not isinstance(value, kinds[schema["type"]])):
        return [path]
    bounds = (
        ("enum" in schema and value not in schema["enum"])
        or ("pattern" in schema and not re.search(schema["pattern"], value))
        or ("minLength" in schema and len(value) < schema["minLength"])
        or ("minimum" in schema and value < schema["minimum"])
        or ("maximum" in schema and value > schema["maximum"])
        or ("exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"])
        or ("exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"])
    )
    found = [path] if bounds else []
    if isinstance(value, dict):
        known = schema.get("properties", {})
        is_other = "if" in schema and not {*schema["if"]["required"]} <= value.keys()
        required = [*schema.get("required", ()), *(schema["else"]["required"] if is_other else ())]
        found += [f"{path}{key}" for key in required if key not in value]
        for key, item in value.items():
            rest = schema.get("additionalProperties", True)
            option = known.get(key, rest if isinstance(rest, dict) else {})
            if key not in known and rest is False:
                found.append(f"{path}{key}")
            found += violations(item, option, f"{path}{key}.")
    if isinstance(value, list):
        for item in value:
            found += violations(item, schema.get("items", {}), path)
    return found
