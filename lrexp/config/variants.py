"""What `compare` compares: named variants, a grid, or high / standard / low.

A variant is a set of dotted keys and values that are put into the config. This module reads them
and refuses what no variant may change; what the values do to the config is checked by the loader.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from lrexp.config.schema_errors import unknown_key, unknown_part
from lrexp.config.tree import dotted, get, locate
from lrexp.config.variant_names import (
    axis_names,
    combination_names,
    value_labels,
    why_taken,
    why_unsafe,
)
from lrexp.errors import NOTHING, ConfigError, Problem

MAX_VARIANTS = 1000

_FIXED = {
    "compare": "it says what is compared. Set it in its own section.",
    "find_lr": "it belongs to lrexp find-lr. Set it in its own section.",
    "name": "it names the experiment. A variant is named by its key.",
    "seed": "all variants must share their seeds, or chance would be compared. Use compare.seeds.",
    "device": "all trials of a run share the device. Use --device.",
    "engine": "it never changes results. Use --engine.",
    "executor": "it never changes results. Use --executor.",
}

Overrides: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Variant:
    """A name, what it changes, and where in the config each change is written."""

    name: str
    overrides: Overrides
    origins: Mapping[str, str]  # dotted key -> dotted key of the place where it is written
    home: str = ""  # key of the variant itself; "" for high, standard and low


def read_variants(tree: Mapping[str, object]) -> tuple[list[Variant], list[Problem]]:
    """Return the variants of an expanded config, in order, and what is wrong with them.

    Example:
        >>> [v.name for v in read_variants({"optimizer": {"name": "SGD", "lr": 0.01}})[0]]
        ['high', 'standard', 'low']
    """
    variants, grid = get(tree, ("compare", "variants")), get(tree, ("compare", "grid"))
    if isinstance(variants, Mapping):
        return _named(variants, tree)
    if isinstance(grid, Mapping):
        return _product(grid, tree)
    return _default(get(tree, ("optimizer", "lr"))), []


def _named(
    variants: Mapping[str, object], tree: Mapping[str, object]
) -> tuple[list[Variant], list[Problem]]:
    found, problems = [], []
    if not variants:
        remedy = "Name one, or remove the key for high / standard / low."
        problems.append(Problem("compare.variants", "names no variant", NOTHING, remedy))
    if len(variants) > MAX_VARIANTS:
        what = f"names more than {MAX_VARIANTS} variants"
        problems.append(Problem("compare.variants", what, len(variants), "Split the file."))
        return [], problems
    seen: dict[str, str] = {}
    for name, overrides in variants.items():
        home = f"compare.variants.{name}"
        why = why_unsafe(name) or why_taken(name)
        if why:
            what = f"is no name for a variant: it {why}"
            problems.append(Problem(home, what, NOTHING, "Rename it, e.g. lr-0.1."))
        other = seen.setdefault(name.lower(), name)
        if other != name:
            what = f"has the same name as {other!r} but for capitals"
            problems.append(Problem(home, what, NOTHING, "Rename one of them."))
        if isinstance(overrides, Mapping):
            wrong = [p for key in overrides for p in _key_problems(key, f"{home}.{key}", tree)]
            problems += wrong
            if not wrong:
                origins = {key: f"{home}.{key}" for key in overrides}
                found.append(Variant(name, dict(overrides), origins, home))
    return found, problems


def _product(
    grid: Mapping[str, object], tree: Mapping[str, object]
) -> tuple[list[Variant], list[Problem]]:
    home, problems, size = "compare.grid", [], 1
    if not grid:
        remedy = "Give a list of values for a dotted key, or remove it."
        problems.append(Problem(home, "is empty", NOTHING, remedy))
    for key, values in grid.items():
        problems += _key_problems(key, f"{home}.{key}", tree)
        if not isinstance(values, list):
            return [], problems  # the schema says so
        problems += _value_problems(values, f"{home}.{key}")
        size *= len(values)
    if size > MAX_VARIANTS:
        what = f"has {size} combinations, more than {MAX_VARIANTS}"
        problems.append(Problem(home, what, NOTHING, "Shorten a list."))
    if problems:
        return [], problems
    lists = {key: values for key, values in grid.items() if isinstance(values, list)}
    return _combinations(lists), []


def _combinations(grid: Mapping[str, list[object]]) -> list[Variant]:
    axes = axis_names(list(grid))
    labels = [value_labels(axis, grid[key]) for axis, key in zip(axes, grid, strict=True)]
    found = []
    combinations = itertools.product(*(range(len(values)) for values in grid.values()))
    for name, indices in zip(combination_names(labels), combinations, strict=True):
        pairs = list(zip(grid, indices, strict=True))
        found.append(
            Variant(
                name=name,
                overrides={key: grid[key][i] for key, i in pairs},
                origins={key: f"compare.grid.{key}[{i}]" for key, i in pairs},
                home="compare.grid",
            )
        )
    return found


def _default(lr: object) -> list[Variant]:
    """Return high, standard and low; decimal arithmetic keeps 0.1 × 0.003 at 0.0003."""
    if not isinstance(lr, int | float) or isinstance(lr, bool) or not 0 < lr < float("inf"):
        return []
    scaled = {
        "high": float(Decimal(repr(lr)) * 10),
        "standard": float(lr),
        "low": float(Decimal(repr(lr)) / 10),
    }
    key = "optimizer.lr"
    return [Variant(name, {key: value}, {key: key}) for name, value in scaled.items()]


def _key_problems(key: str, origin: str, tree: Mapping[str, object]) -> list[Problem]:
    """Return why a dotted key cannot be changed by a variant, if it cannot."""
    try:
        path = locate(tree, key)
    except ConfigError as error:
        return [Problem(origin, p.what, p.given, p.remedy) for p in error.problems]
    if path[0] in _FIXED:
        reason, remedy = _FIXED[str(path[0])].split(". ", maxsplit=1)
        what = f"cannot differ between variants: {reason}"
        return [Problem(origin, what, NOTHING, remedy)]
    unknown = unknown_part(path)
    if unknown:
        what = "is not a known key" if unknown == path else f"{dotted(unknown)} is not a known key"
        return [Problem(origin, what, NOTHING, unknown_key(unknown))]
    return []


def _value_problems(values: list[object], origin: str) -> list[Problem]:
    if not values:
        return [Problem(origin, "is an empty list", NOTHING, "Give at least one value.")]
    return [
        Problem(f"{origin}[{i}]", "is given twice", value, "Keep one of them.")
        for i, value in enumerate(values)
        if any(_same(value, earlier) for earlier in values[:i])
    ]


def _same(a: object, b: object) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)
