"""A config as text: its values, the line of each key, and where it lies.

`--set` makes a new document; the place of a key that it set is the option, not a line. Edits keep
comments and layout, and what is written reads back exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import yaml

from lrexp.config.reader import (
    MAX_BYTES,
    MAX_DEPTH,
    compose,
    decode,
    parse_scalar,
    read_yaml,
    refused,
)
from lrexp.config.tree import KeyPath, dotted, get, locate, put
from lrexp.errors import NOTHING, ConfigError, Problem, did_you_mean

_IN_PYTHON = "config"  # the name of a document that was made in Python


@dataclass(frozen=True)
class Document:
    """One config, read but not yet checked.

    Args:
        data: its values: dict, list, str, int, float, bool and None.
        name: what problems call it, as the user gave it (`configs/exp.yaml`).
        text: the file as given.
        directory: where relative paths and import paths start.
        places: `name:line` of every path, or the option that set it.
        overrides: dotted keys that were replaced, in order.
    """

    data: dict[str, object]
    name: str
    text: str
    directory: Path
    places: Mapping[KeyPath, str] = field(repr=False)
    overrides: Mapping[str, object] = field(default_factory=dict)

    def place_of(self, key: str) -> str:
        """Return where a dotted key stands; of a key that is absent, where its parent stands.

        Example:
            >>> read_document("exp.yaml").place_of("optimizer.lr")  # doctest: +SKIP
            'exp.yaml:12'
        """
        while key and key not in self._by_key:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self._by_key.get(key, "")

    def with_override(self, key: str, value: object, place: str) -> Document:
        """Return this document with the value of one dotted key replaced.

        Raises:
            ConfigError: the key leads nowhere; the problem's place is `place`.
        """
        try:
            path = locate(self.data, key)
            data = put(self.data, path, value)
        except ConfigError as error:
            raise error.placed(lambda _: place) from None
        kept = {p: where for p, where in self.places.items() if p[: len(path)] != path}
        parents = (path[:size] for size in range(1, len(path)))
        made = {parent: place for parent in parents if get(self.data, parent) is None}
        assert isinstance(data, dict)
        return replace(
            self,
            data=data,
            places={**made, **kept, path: place},
            overrides={**self.overrides, key: value},
        )

    @property
    def title(self) -> str:
        """The name of an experiment that has none: that of its file."""
        return "experiment" if self.name == _IN_PYTHON else Path(self.name).stem

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {dotted(path): place for path, place in self.places.items()}


def starter() -> str:
    """Return the commented config that `lrexp init` writes; it runs as it is."""
    return (files("lrexp.config") / "starter.yaml").read_text(encoding="utf-8")


def read_document(path: Path | str, directory: Path | None = None) -> Document:
    """Read a YAML file.

    Args:
        path: the file.
        directory: where relative paths and import paths start; by default the file's own.

    Raises:
        ConfigError: it cannot be read, or is no YAML mapping; every problem has its line.
    """
    name = str(path)
    text = decode(_bytes(Path(path), name), name)
    return document_from_text(text, name, directory or Path(path).absolute().parent)


def document_from_text(text: str, name: str | None, directory: Path) -> Document:
    """Return the document of a config whose text was read before.

    `name` is that of its file, None where it was made in Python and has no lines.

    Raises:
        ConfigError: it is no YAML mapping; every problem has its line.
    """
    known = name or _IN_PYTHON
    data, places = read_yaml(text, known)
    if not isinstance(data, dict):
        what = "is empty" if data is None else "must be a mapping of keys to values"
        given = NOTHING if data is None else data
        remedy = "`lrexp init` writes a config to start from."
        raise ConfigError([Problem("", what, given, remedy, f"{known}:1")])
    lines = {} if name is None else {(): f"{name}:1", **places}
    return Document(data, known, text, directory, lines)


def document_from_dict(source: Mapping[str, object], directory: Path | None = None) -> Document:
    """Return the document of a config that was made in Python.

    Tuples become lists, NumPy numbers and paths become plain numbers and text.

    Raises:
        ConfigError: it holds something that a file could not hold.
    """
    problems: list[Problem] = []
    data = _plain(source, (), problems)
    if problems:
        raise ConfigError(problems)
    assert isinstance(data, dict)
    return Document(data, _IN_PYTHON, to_yaml(data), directory or Path.cwd(), {})


def _bytes(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        remedy = did_you_mean(path.name, beside[:20]) if beside else "Write one with `lrexp init`."
        raise refused(name, "does not exist", remedy) from None
    except IsADirectoryError:
        raise refused(name, "is a directory, not a file", "Give a YAML file.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        what = f"cannot be read: {why}"
        raise refused(name, what, "Check the file's name and permissions.") from None


def _plain(value: object, path: KeyPath, problems: list[Problem]) -> object:
    """Return the value in plain types; what has none is a problem."""
    if len(path) > MAX_DEPTH:
        raise ConfigError.single("", f"is nested deeper than {MAX_DEPTH} levels", NOTHING, "")
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        problems += [
            Problem(dotted(path), "has a key that is not text", key, "Use text.") for key in wrong
        ]
        texts = {str(key): item for key, item in value.items() if isinstance(key, str)}
        return {key: _plain(item, (*path, key), problems) for key, item in texts.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item, (*path, i), problems) for i, item in enumerate(value)]
    if isinstance(value, str | Path):
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    return _number(value, path, problems)


def _number(value: object, path: KeyPath, problems: list[Problem]) -> object:
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    what = "is a Python object, which a config cannot hold"
    remedy = (
        "Give text, numbers, lists or dicts; model, data, loss and optimizer are arguments of "
        "their own, and any other class or function stands in a module: 'mine:name'."
    )
    problems.append(Problem(dotted(path), what, value, remedy))
    return value


# Options of one run; a copy of the config does not keep them.
_RUN_ONLY = (
    "device",
    "engine",
    "find_lr.seeds",
    "find_lr.race",
    "find_lr.budget",
    "compare.seeds",
)


def with_lrs(document: Document, lrs: Mapping[str, float]) -> str:
    """Return the text of a copy of the config with other base LRs, given by their dotted keys.

    Settings of `--set` are part of the copy, since they are part of what the LR was found for;
    the device, the engine, the number of seeds and the race are not. Where the text cannot be
    edited (the LR comes from an alias, a setting is new), the copy is written anew, without
    comments.

    Example:
        >>> document = read_document("exp.yaml")  # doctest: +SKIP
        >>> print(with_lrs(document, {"optimizer.lr": 0.14}))  # doctest: +SKIP
        optimizer: {name: SGD, lr: 0.14}  # found by lrexp
    """
    changes = {k: v for k, v in document.overrides.items() if k not in _RUN_ONLY}
    changes = {k: v for k, v in changes.items() if k not in lrs} | dict(lrs)
    text = document.text
    wanted, _ = read_yaml(text, document.name)
    for key, value in changes.items():
        path = locate(wanted, key)
        wanted = put(wanted, path, value)
        text = _edited(text, path, value) or ""
    assert isinstance(wanted, dict)
    return text if _reads_as(text, wanted) else to_yaml(wanted)


def _edited(text: str, path: KeyPath, value: object) -> str | None:
    """Return the text with a plain value replaced in place, None where that is not possible."""
    node = compose(text, "config") if text else None
    for part in path:
        node = _child(node, part)
    if not isinstance(node, yaml.ScalarNode) or isinstance(value, dict | list):
        return None
    # As it is written inside brackets, where more must be quoted than outside.
    written = to_yaml({"x": value}).removeprefix("{x: ").removesuffix("}\n")
    return text[: node.start_mark.index] + written + text[node.end_mark.index :]


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        item: yaml.Node | None = node.value[part] if part < len(node.value) else None
        return item
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    return None


def _reads_as(text: str, wanted: dict[str, object]) -> bool:
    """Return whether the text gives these values: an edited anchor would change its aliases too."""
    try:
        found, _ = read_yaml(text, "config")
    except ConfigError:
        return False
    return repr(found) == repr(wanted)


_LINE_BREAKS = set("\r\x85\u2028\u2029\ufeff")


class _Dumper(yaml.SafeDumper):
    """Quotes what is text here but a number to other readers, and the other way round."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: a value that occurs twice is written twice."""
        return True


def to_yaml(tree: Mapping[str, object]) -> str:
    """Return a config as YAML text, keys in their order; floats read back to the last bit.

    Example:
        >>> print(to_yaml({"optimizer": {"name": "SGD", "lr": 1e-07}, "note": "1e-7"}), end="")
        optimizer: {name: SGD, lr: 1.0e-07}
        note: '1e-7'
    """
    text = _dumped(tree, escaped=False)
    # what a terminal obeys, or nobody sees, is written as an escape, and so is every other letter
    return text if text.replace("\n", "").isprintable() else _dumped(tree, escaped=True)


def _dumped(tree: Mapping[str, object], *, escaped: bool) -> str:
    text: str = yaml.dump(
        dict(tree),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=not escaped,
        default_flow_style=None,  # the innermost lists and mappings on one line
        width=100,
    )
    return text


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(parse_scalar(text), str) else "'"
    if _LINE_BREAKS & set(text):
        style = '"'  # YAML 1.1 folds these; escapes keep them
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_str)
