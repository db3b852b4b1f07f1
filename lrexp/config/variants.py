"""What `compare` compares: named variants, a grid, or high / standard / low; and their names.

A variant is a set of dotted keys and values that are put into the config. This module reads them
and refuses what no variant may change; what the values do to the config is checked by the loader.
A grid's combination is named after its values, `lr=0.5,schedule=cosine`; of mappings the name says
only in what they differ.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from lrexp.config.fields import MAX_LENGTH, make_safe, why_unsafe
from lrexp.config.schema_errors import unknown_key, unknown_part
from lrexp.config.tree import NAMED_SECTIONS, dotted, get, locate
from lrexp.errors import NOTHING, ConfigError, Problem

_TAKEN = re.compile(r"range_test|untrained|race-\d.*")  # see finder.trials and race.candidates
MAX_VARIANTS = 1000

_FIXED = {
    "compare": "it says what is compared. Set it in its own section.",
    "find_lr": "it belongs to lrexp find-lr. Set it in its own section.",
    "name": "it names the experiment. A variant is named by its key.",
    "seed": "all variants must share their seeds, or chance would be compared. Use compare.seeds.",
    "device": "all trials of a run share the device. Use --device.",
    "engine": "it never changes results. Use --engine.",
    "executor": "it never changes results. Use --executor.",
    "log": "it never changes results. Use --log.",
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
    parts = get(tree, ("optimizer", "parts"))
    if not isinstance(parts, list) or not parts:
        return _default({"optimizer.lr": get(tree, ("optimizer", "lr"))}), []
    lrs = {f"optimizer.parts.{i}.lr": get(part, ("lr",)) for i, part in enumerate(parts)}
    return _default(lrs), []


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
        taken = "is what find-lr calls its own trials" if _TAKEN.fullmatch(name) else None
        why = why_unsafe(name) or taken
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
    return _combinations(lists, axis_names([_spoken(key, tree) for key in lists])), []


def _spoken(key: str, tree: Mapping[str, object]) -> str:
    """Return a key with a part of the optimizer called by its name, and its number if others are.

    Example:
        >>> parts = {"optimizer": {"parts": [{"name": "Muon"}, {"name": "Adam"}, {"name": "Adam"}]}}
        >>> _spoken("optimizer.parts.0.lr", parts), _spoken("optimizer.parts.2.lr", parts)
        ('optimizer.parts.Muon.lr', 'optimizer.parts.Adam-2.lr')
    """
    path, parts = locate(tree, key), get(tree, ("optimizer", "parts"))
    if path[:2] != ("optimizer", "parts") or len(path) < 4 or not isinstance(parts, list):
        return key
    names = [str(get(part, ("name",))).rpartition(":")[2] for part in parts]
    name, number = names[int(path[2])], int(path[2])
    name += f"-{number}" if names.count(name) > 1 else ""
    return dotted((*path[:2], name, *path[3:]))


def _combinations(grid: Mapping[str, list[object]], axes: Sequence[str]) -> list[Variant]:
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


def _default(lrs: Mapping[str, object]) -> list[Variant]:
    """Return high, standard and low; decimal arithmetic keeps 0.1 × 0.003 at 0.0003."""
    found: dict[str, Overrides] = {"high": {}, "standard": {}, "low": {}}
    for key, lr in lrs.items():
        if not isinstance(lr, int | float) or isinstance(lr, bool) or not 0 < lr < float("inf"):
            return []
        found["high"][key] = float(Decimal(repr(lr)) * 10)
        found["standard"][key] = float(lr)
        found["low"][key] = float(Decimal(repr(lr)) / 10)
    return [Variant(name, own, {key: key for key in own}) for name, own in found.items()]


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


Leaves: TypeAlias = dict[str, object]
_MAX_VALUE = 24
_SECTION = re.compile(rf"\b({'|'.join(NAMED_SECTIONS)})=")


def axis_names(keys: Sequence[str]) -> list[str]:
    """Return what each dotted key is called in names: its last part, more where that is shared.

    Example:
        >>> axis_names(["optimizer.lr", "schedule", "model.args.hidden", "data.name"])
        ['lr', 'schedule', 'hidden', 'data']
    """
    parts = [re.sub(r"\[(\d+)\]", r".\1", key).removesuffix(".name").split(".") for key in keys]
    names = []
    for own in parts:
        size = 1
        while size < len(own) and sum(other[-size:] == own[-size:] for other in parts) > 1:
            size += 1
        if own[:2] == ["optimizer", "parts"] and len(own) > 3:
            size = max(size, len(own) - 2)  # of which part it is
        names.append(".".join(own[-size:]))
    return names


def value_labels(axis: str, values: Sequence[object]) -> list[str]:
    """Return a label for each value of one axis, different from the others whatever their case.

    Example:
        >>> value_labels("lr", [0.5, 1e-07])
        ['lr=0.5', 'lr=1e-07']
        >>> value_labels("schedule", ["cosine", {"name": "cosine", "warmup": "5%"}])
        ['schedule=cosine', 'schedule=cosine,warmup=5%']
    """
    leaves = [_leaves(value) for value in values]
    keys = [key for key in dict.fromkeys(itertools.chain(*leaves)) if key]
    differing = [key for key in keys if len({repr(own.get(key)) for own in leaves}) > 1] or keys
    names = dict(zip(differing, axis_names(differing), strict=True))
    for shown, exact in (({}, False), (names, False), (names, True)):
        labels = [_label(axis, own, shown, exact) for own in leaves]
        if len({label.lower() for label in labels}) == len(labels):
            return labels
    return [f"{label}-{i}" for i, label in enumerate(labels, start=1)]


def combination_names(labels: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of all combinations of the axes' labels, safe and different.

    One that is too long goes without the names of sections; if it still is, its end gives way to
    its number.

    Example:
        >>> combination_names([["lr=0.5", "lr=0.1"], ["schedule=cosine"]])
        ['lr=0.5,schedule=cosine', 'lr=0.1,schedule=cosine']
    """
    names: dict[str, str] = {}  # as a file system without capitals sees it -> name
    for number, chosen in enumerate(itertools.product(*labels), start=1):
        name = full = ",".join(chosen)
        if len(full) > MAX_LENGTH:
            name = full = _SECTION.sub("", full)
        tail = ""
        while why_unsafe(name) or name.lower() in names:
            tail += f"-{number}"
            name = make_safe(full)[: MAX_LENGTH - len(tail)].rstrip(" .") + tail
        names[name.lower()] = name
    return list(names.values())


def _leaves(value: object, key: str = "") -> Leaves:
    """Return the plain values inside a value by dotted key; a plain value's own key is ''."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        value = {str(i): item for i, item in enumerate(value)}
    if not isinstance(value, Mapping):
        return {("" if key == "name" else key): value}
    found: Leaves = {}
    for name, item in value.items():
        found.update(_leaves(item, f"{key}.{name}" if key else str(name)))
    return found


def _label(axis: str, leaves: Leaves, shown: Mapping[str, str], exact: bool) -> str:
    own = [f"{axis}={_text(leaves[''], exact)}"] if "" in leaves else []
    rest = [
        f"{_clean(name)}={_text(leaves[key], exact)}"
        for key, name in shown.items()
        if key in leaves
    ]
    return ",".join(own + rest) or f"{axis}=none"


def _text(value: object, exact: bool) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value) if exact else f"{value:g}"
    length = MAX_LENGTH if exact else _MAX_VALUE
    if isinstance(value, list):
        return _clean("x".join(_text(item, exact) for item in value), length)
    return _clean(str(value), length)


def _clean(text: str, length: int = _MAX_VALUE) -> str:
    return make_safe(text.replace(",", "-"))[:length]
