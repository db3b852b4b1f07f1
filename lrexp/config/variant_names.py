"""Names of variants: short ones for a grid, and safe ones for folders.

A grid's combination is named after its values, `lr=0.5,schedule=cosine`; of mappings the name says
only in what they differ.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lrexp.config.tree import NAMED_SECTIONS

MAX_LENGTH = 64
SAFE_CHARACTERS = "A-Za-z0-9._=,+@% -"
NAME_PATTERN = rf"^[A-Za-z0-9]([{SAFE_CHARACTERS}]{{0,{MAX_LENGTH - 2}}}[A-Za-z0-9_=,+@%-])?$"
_TAKEN = re.compile(r"range_test|untrained|race-\d.*")  # see runs/reader.py
_NAME = re.compile(NAME_PATTERN[1:-1])
_DEVICES = {"con", "prn", "aux", "nul", *(f"{p}{i}" for p in ("com", "lpt") for i in range(10))}


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


def why_taken(name: str) -> str | None:
    """Return why a name cannot be a variant's though it is safe, None when it can."""
    return "is what find-lr calls its own trials" if _TAKEN.fullmatch(name) else None


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


Leaves: TypeAlias = dict[str, object]
_MAX_VALUE = 24
_SECTION = re.compile(rf"\b({'|'.join(NAMED_SECTIONS)})=")


def axis_names(keys: Sequence[str]) -> list[str]:
    """Return what each dotted key is called in names: its last part, more where that is shared.

    Example:
        >>> axis_names(["optimizer.lr", "schedule", "model.args.hidden", "data.name"])
        ['lr', 'schedule', 'hidden', 'data']
    """
    parts = [key.removesuffix(".name").split(".") for key in keys]
    names = []
    for own in parts:
        size = 1
        while size < len(own) and sum(other[-size:] == own[-size:] for other in parts) > 1:
            size += 1
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
