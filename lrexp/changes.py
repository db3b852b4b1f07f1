"""What the caller of a verb changes in a config, in the one form that `load_config` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from lrexp.config import read_override

Overrides: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any] | str]


def changes_of(
    overrides: Overrides,
    names: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> list[tuple[str, Any] | tuple[str, Any, str]]:
    """Return all that changes the config, each flag with its name for messages."""
    items = overrides.items() if isinstance(overrides, Mapping) else overrides
    pairs = [read_override(item) if isinstance(item, str) else item for item in items]
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    labelled = [(key, value, f"--{key.rpartition('.')[2]}") for key, value in given.items()]
    return [*pairs, *(names or {}).items(), *labelled]
