"""The JSON Schema of a config, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from lrexp.config.schema import ExperimentConfig
from lrexp.config.tree import NAMED_SECTIONS, OPTIONAL_SECTIONS


def json_schema() -> dict[str, Any]:
    """Return the schema that `# yaml-language-server: $schema=FILE` in a config points to.

    It knows the short forms (`schedule: cosine`) and the patterns of units; names and arguments
    are for `lrexp validate` to check.

    Example:
        >>> json_schema()["properties"]["loss"]["examples"]
        ['cross_entropy']
    """
    schema = ExperimentConfig.model_json_schema()
    for name, field in ExperimentConfig.model_fields.items():
        # left out where it equals the description of the section itself
        schema["properties"][name].setdefault("description", field.description)
        section = getattr(field.annotation, "__name__", "")
        if section in schema["$defs"]:
            entry = schema["properties"][name]
            for key in ("$ref", "allOf"):  # versions of pydantic differ
                entry.pop(key, None)
            entry["anyOf"] = _forms(name, {"$ref": f"#/$defs/{section}"})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "lrexp experiment",
    }


def _forms(name: str, whole: dict[str, Any]) -> list[dict[str, Any]]:
    short = [{"type": "string", "minLength": 1}] if name in NAMED_SECTIONS else []
    empty = [{"type": "null"}] if name in OPTIONAL_SECTIONS else []  # all lines commented out
    return [*short, whole, *empty]
