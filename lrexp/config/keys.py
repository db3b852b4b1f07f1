"""Which keys a config may have: the schema, asked by path."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lrexp.config.schema import ExperimentConfig
from lrexp.config.tree import KeyPath, dotted
from lrexp.errors import did_you_mean


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
    return remedy
