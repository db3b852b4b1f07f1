"""YAML text to plain values, each with its line.

PyYAML finds the nodes; the values are made here. So every key has a line, a key given twice is a
problem, tags construct nothing, and aliases cannot explode. Unquoted words follow the core schema
of YAML 1.2: `1e-3` is a number, `10:30`, `no` and `0777` are text.

Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

import yaml
from yaml.composer import Composer

from lrexp.config.tree import KeyPath, dotted
from lrexp.errors import NOTHING, ConfigError, Problem

Scalar: TypeAlias = bool | int | float | str | None
MAX_INT_LENGTH = 300  # such an int still fits a float; a longer one is text
# A leading zero makes text (0777, 007): people who write it mean octal or an identifier.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", "+.inf", ".Inf", ".INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}


def parse_scalar(text: str) -> Scalar:
    """Return the value of an unquoted YAML scalar.

    Integers are decimal or `0x` hexadecimal; `1_000`, `0777`, `yes`, `on`, `10:30` and dates are
    text.

    Example:
        >>> [parse_scalar(text) for text in ("1e-3", ".5", "0x10", "10:30", "yes", "null")]
        [0.001, 0.5, 16, '10:30', 'yes', None]
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= MAX_INT_LENGTH and _INT.fullmatch(text):
        return int(text)
    if len(text) <= MAX_INT_LENGTH and _HEX.fullmatch(text):
        return int(text, base=16)
    if _FLOAT.fullmatch(text) and not _INT.fullmatch(text):
        return float(text)
    return text


MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_NODES = 20_000  # after aliases are expanded; PyYAML takes a second for them
MAX_KEY = 500  # characters
MAX_PROBLEMS = 100  # each repeats the keys above it: without an end, more than memory holds
Places: TypeAlias = dict[KeyPath, str]
_Pair: TypeAlias = tuple[str, yaml.Node, yaml.Node]
# What a YAML file cannot hold unescaped; PyYAML refuses the same characters, without a line.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTE = "Quote the text if it is meant as text."

_SYNTAX: list[tuple[str, str, str]] = [  # how PyYAML's message starts, what is wrong, remedy
    (r"found character '\t'", "a tab stands where YAML wants spaces", "Use spaces."),
    ("found character", "an unquoted text cannot start with this character", _QUOTE),
    (
        "mapping values are not allowed",
        "a key stands where none can be: a second ': ' in the line, or a wrong indentation",
        "Quote text that holds ': ', and indent the keys of one section alike.",
    ),
    (
        "expected <block end>",
        "the indentation does not fit the lines above",
        "Indent the keys of one section alike.",
    ),
    ("could not find expected ':'", "a key has no ': ' after it", "Write it as `key: value`."),
    ("expected ',' or", "a bracket is not closed", "Add the missing ',', ']' or '}'."),
    ("did not find expected ',' or", "a bracket is not closed", "Add the missing ',' or bracket."),
    ("found undefined alias", "an alias (*name) has no anchor (&name) before it", _QUOTE),
    ("found duplicate anchor", "an anchor (&name) is given twice", "Rename one of them."),
    ("found unexpected end of stream", "a quote is not closed", "Close it."),
    ("but found another document", "the file holds several documents", "Keep one, without '---'."),
]


def decode(raw: bytes, name: str) -> str:
    """Return the text of a YAML file.

    Raises:
        ConfigError: it is too large, not UTF-8, or holds control characters.
    """
    if len(raw) > MAX_BYTES:
        raise refused(name, f"is larger than {MAX_BYTES} bytes", "Give a config file.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = "is not UTF-8 text"
        raise refused(f"{name}:{line}", what, "Save the file as UTF-8.") from None


def read_yaml(text: str, name: str) -> tuple[object, Places]:
    """Return the value of a YAML document, and for every path in it `name:line`.

    The value holds only dict, list, str, int, float, bool and None; keys are always text.

    Raises:
        ConfigError: with every problem found, each with its place.

    Example:
        >>> read_yaml("optimizer:\\n  lr: 1e-3", "exp.yaml")[1][("optimizer", "lr")]
        'exp.yaml:2'
    """
    bad = _UNPRINTABLE.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        what = f"holds the control character U+{ord(bad.group()):04X}: this is no text file"
        raise refused(f"{name}:{line}", what, "Give a YAML file, or remove the character.")
    builder = _Builder(name)
    root = compose(text, name)
    value = None if root is None else builder.value(root, ())
    if builder.problems:
        raise ConfigError(builder.problems)
    return value, builder.places


def read_override(text: str) -> tuple[str, object]:
    """Return the dotted key and the value of `KEY=VALUE`, the value read as YAML.

    Raises:
        ConfigError: there is no `=` or no key, or the value is no YAML.

    Example:
        >>> read_override("optimizer.lr=1e-3")
        ('optimizer.lr', 0.001)
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError.single("--set", "takes KEY=VALUE", text, "E.g. optimizer.lr=0.1.")
    try:
        return key, parse_value(value)
    except ConfigError as error:
        place = f"--set {key}"
        raise ConfigError([replace(p, place=place) for p in error.problems]) from None


def parse_value(text: str) -> object:
    """Return the value of one YAML text, as in `--set KEY=VALUE`.

    Raises:
        ConfigError: without a place; the value given is the text.

    Example:
        >>> parse_value("{name: cosine, warmup: 5%}")
        {'name': 'cosine', 'warmup': '5%'}
    """
    try:
        return read_yaml(text, "value")[0]
    except ConfigError as error:
        raise ConfigError([replace(p, given=text, place="") for p in error.problems]) from None


class _Bounded(Composer):
    """PyYAML's composer with a bound on depth, and without tags."""

    depth = 0
    num_nodes = 0
    source = ""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node."""
        event: yaml.Event = self.peek_event()  # type: ignore[attr-defined]
        place = f"{self.source}:{event.start_mark.line + 1}"  # type: ignore[union-attr]
        tag = getattr(event, "tag", None)
        if tag is not None:
            what = f"holds the tag {tag!r}; tags could run code and are refused"
            raise refused(place, what, "Remove it; quote text that starts with '!'.")
        if self.depth > MAX_DEPTH:
            raise refused(place, f"is nested deeper than {MAX_DEPTH} levels", "Flatten it.")
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise refused(place, f"holds more than {MAX_NODES} values", "Shorten it.")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Composer(_Bounded, yaml.SafeLoader):
    """Finds the nodes in Python; its messages say what is wrong."""


class _QuickComposer(_Bounded, yaml.CSafeLoader):
    """Finds the same nodes fifteen times faster, by libyaml."""

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)  # keeps the anchors, which the C class does on its own


def compose(text: str, name: str) -> yaml.Node | None:
    """Return the root node of a YAML document, None for an empty one.

    Raises:
        ConfigError: for a syntax error, a tag, or nesting that is too deep.
    """
    if yaml.__with_libyaml__ and "\t" not in text:  # of tabs, libyaml allows more
        quick = _QuickComposer(text)
        quick.source = name
        with suppress(yaml.YAMLError):
            return quick.get_single_node()
    loader = _Composer(text)
    loader.source = name
    try:
        return loader.get_single_node()
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, name) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # e.g. "\U99999999" in quotes
        what = f"is not valid YAML: {error}".split("\n", maxsplit=1)[0]
        place = f"{name}:{loader.line + 1}"
        raise refused(place, what, "Correct the text near this line.") from None
    finally:
        loader.dispose()


def _syntax_error(error: yaml.MarkedYAMLError, name: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    place = f"{name}:{mark.line + 1}" if mark else name
    said = error.problem or error.context or str(error)
    for start, what, remedy in _SYNTAX:
        if said.startswith(start):
            return refused(place, what, remedy)
    return refused(place, f"is not valid YAML: {said}", "Correct the text near this line.")


class _Builder:
    """Makes plain values from nodes; collects places and problems on the way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: Places = {}
        self.problems: list[Problem] = []
        self._num_nodes = 0

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        """Return the value of a node."""
        self._count(node, path)
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, object] = {}
            for key, key_node, value_node in self._pairs(node, path, depth=0):
                inner = (*path, key)
                self.places[inner] = self._place(key_node)
                mapping[key] = self.value(value_node, inner)
            return mapping
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                inner = (*path, index)
                self.places[inner] = self._place(item)
                items.append(self.value(item, inner))
            return items
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: KeyPath) -> object:
        text = str(node.value)
        if _LONE_SURROGATE.search(text):
            self._problem(node, path, "holds half of a surrogate pair", "Write the character.")
        return text if getattr(node, "style", "") else parse_scalar(text)

    def _pairs(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> Iterator[_Pair]:
        """Return key, its node and its value's node, of merged mappings (`<<`) first."""
        merged: dict[str, _Pair] = {}
        own: dict[str, _Pair] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, path, "holds a key that is no text", "Use a plain word.")
            elif len(key_node.value) > MAX_KEY:
                what = f"holds a key of more than {MAX_KEY} characters"
                raise refused(self._place(key_node), what, "Use a short word.")
            elif key_node.value == "<<" and not key_node.style:
                for pair in self._merged(value_node, path, depth):
                    merged.setdefault(pair[0], pair)
            elif key_node.value in own:
                first = own[key_node.value][1].start_mark.line + 1
                what = f"is given twice, first in line {first}"
                self._problem(key_node, (*path, key_node.value), what, "Keep one of them.")
            else:
                own[key_node.value] = (key_node.value, key_node, value_node)
        yield from {**merged, **own}.values()

    def _merged(self, node: yaml.Node, path: KeyPath, depth: int) -> Iterator[_Pair]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            self._count(source, (*path, *("<<",) * depth))  # a merge may contain itself
            if isinstance(source, yaml.MappingNode):
                yield from self._pairs(source, path, depth + 1)
            else:
                self._problem(source, (*path, "<<"), "can only merge mappings", "Give an alias.")

    def _count(self, node: yaml.Node, path: KeyPath) -> None:
        """Bound size and depth, which aliases can blow up beyond what the file shows."""
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            what = f"holds more than {MAX_NODES} values when its aliases are expanded"
            raise refused(self._place(node), what, "Use fewer aliases.")
        if len(path) > MAX_DEPTH:
            what = f"is nested deeper than {MAX_DEPTH} levels, or contains itself"
            raise refused(self._place(node), what, "Flatten it.")

    def _place(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"

    def _problem(self, node: yaml.Node, path: KeyPath, what: str, remedy: str) -> None:
        self.problems.append(Problem(dotted(path), what, NOTHING, remedy, self._place(node)))
        if len(self.problems) >= MAX_PROBLEMS:
            raise ConfigError(self.problems)


def refused(place: str, what: str, remedy: str) -> ConfigError:
    """Return the error of a file that cannot be read from `place` on."""
    return ConfigError([Problem("", what, NOTHING, remedy, place)])
