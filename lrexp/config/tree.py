"""A config as nested dicts and lists, and the dotted keys that point into it.

`optimizer.lr` points to a value, `schedule.milestones[1]` or `schedule.milestones.1` into a list.
Variants hold dotted keys as their own keys (`compare.variants.high` has the key `optimizer.lr`), so
a dotted key is matched against what the config holds before it is cut at dots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from lrexp.errors import NOTHING, ConfigError

KeyPath: TypeAlias = tuple[str | int, ...]
# A bare string means {name: it}.
NAMED_SECTIONS = ("model", "data", "loss", "optimizer", "schedule", "executor")
# An empty one is as good as none.
OPTIONAL_SECTIONS = ("schedule", "train", "compare", "find_lr", "executor")
_ABSENT = object()
_INDEX = re.compile(r"\[(\d{1,6})\]|(\d{1,6})(?=[.\[]|$)")


def dotted(path: KeyPath) -> str:
    """Return the dotted key of a path.

    Example:
        >>> dotted(("optimizer", "groups", 0, "match"))
        'optimizer.groups[0].match'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def locate(tree: object, key: str) -> KeyPath:
    """Return the path that a dotted key means in `tree`, whether or not it is there yet.

    Raises:
        ConfigError: the key has an empty part, or an index where there is no list; the problem's
            key is `key`.

    Example:
        >>> locate({"compare": {"variants": {"a.b": {}}}}, "compare.variants.a.b.optimizer.lr")
        ('compare', 'variants', 'a.b', 'optimizer.lr')
    """
    path: KeyPath = ()
    node, rest = tree, key
    while rest or not path:
        part, rest = _next_part(node, path, rest, key)
        path = (*path, part)
        node = _child(node, part)
    return path


def get(tree: object, path: KeyPath) -> object:
    """Return the value at a path, None where there is none."""
    for part in path:
        tree = _child(tree, part)
    return None if tree is _ABSENT else tree


def put(tree: object, path: KeyPath, value: object) -> object:
    """Return a copy of `tree` with `value` at `path`; mappings on the way are made.

    A bare string on the way is the name of its section: `schedule: cosine` with
    `schedule.warmup` set is `{name: cosine, warmup: ...}`.

    Raises:
        ConfigError: a value on the way is neither a mapping nor a list.
    """
    return _put(tree, (), path, value)


def expand(tree: Mapping[str, object]) -> dict[str, object]:
    """Return the config with its short forms written out.

    Bare strings become `{name: ...}`; an empty section (all its lines commented out) counts as
    not given.

    Example:
        >>> expand({"schedule": "cosine", "train": None})
        {'schedule': {'name': 'cosine'}}
    """
    expanded = {k: v for k, v in tree.items() if v is not None or k not in OPTIONAL_SECTIONS}
    for section in NAMED_SECTIONS:
        value = expanded.get(section)
        if isinstance(value, str):
            expanded[section] = {"name": value}
        elif isinstance(value, Mapping) and value.get("args", _ABSENT) is None:
            expanded[section] = {k: v for k, v in value.items() if k != "args"}
    variants = get(expanded, ("compare", "variants"))
    if isinstance(variants, Mapping) and None in variants.values():
        filled = {name: {} if keys is None else keys for name, keys in variants.items()}
        return {**expanded, "compare": {**_mapping(expanded["compare"]), "variants": filled}}
    return expanded


def _next_part(node: object, path: KeyPath, rest: str, key: str) -> tuple[str | int, str]:
    """Return the next part of a dotted key and what is left of the key."""
    if isinstance(node, list):
        match = _INDEX.match(rest)
        index = int(match[1] or match[2]) if match else len(node)
        if match is None or index >= len(node):
            length = f"a list of {len(node)}" if node else "an empty list"
            remedy = f"Write e.g. {dotted((*path, 0))}, or give the whole list."
            raise ConfigError.single(key, f"{dotted(path)} is {length}", NOTHING, remedy)
        return index, rest[match.end() :].removeprefix(".")
    if (path[:2] == ("compare", "variants") and len(path) == 3) or path == ("compare", "grid"):
        return rest, ""  # dotted keys are keys here
    known = sorted(node, key=len, reverse=True) if isinstance(node, Mapping) else []
    for name in known if not key.endswith(".") else []:
        if rest == name or (rest.startswith((f"{name}.", f"{name}[")) and name):
            return name, rest[len(name) :].removeprefix(".")
    name = re.split(r"[.\[]", rest, maxsplit=1)[0]
    if not name.strip() or key.endswith("."):
        what = "is no dotted key"
        raise ConfigError.single(key, what, NOTHING, "Write it like optimizer.lr.")
    return name, rest[len(name) :].removeprefix(".")


def _put(tree: object, done: KeyPath, path: KeyPath, value: object) -> object:
    if not path:
        return value
    part, *rest = path
    inner = _put(_child(tree, part), (*done, part), tuple(rest), value)
    if isinstance(part, int) and isinstance(tree, list):
        return [*tree[:part], inner, *tree[part + 1 :]]
    if isinstance(tree, str) and len(done) == 1 and done[0] in NAMED_SECTIONS:
        tree = {"name": tree}
    if tree is None or tree is _ABSENT:
        tree = {}
    if not isinstance(tree, Mapping):
        what = f"cannot be set: {dotted(done)} is no mapping"
        raise ConfigError.single(dotted((*done, *path)), what, tree, f"Set {dotted(done)} itself.")
    return {**tree, part: inner}


def _child(node: object, part: str | int) -> object:
    if isinstance(node, Mapping):
        return node.get(part, _ABSENT)
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return node[part]
    return _ABSENT


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
