"""The JSON Schema of a config, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from lrexp.config.schema import ExperimentConfig
from lrexp.config.tree import NAMED_SECTIONS


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
    for section in NAMED_SECTIONS:
        entry = schema["properties"][section]
        whole = {"$ref": entry.pop("$ref")}
        entry["anyOf"] = [{"type": "string", "minLength": 1}, whole]
    for section in ("schedule", "train", "compare", "find_lr"):  # all lines may be commented out
        entry = schema["properties"][section]
        forms = entry.pop("anyOf", None) or [{"$ref": entry.pop("$ref")}]
        entry["anyOf"] = [*forms, {"type": "null"}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "lrexp experiment",
    }
