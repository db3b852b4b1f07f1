"""Changing a value inside a config's text, so that comments and layout stay."""

from __future__ import annotations

import yaml

from lrexp.config.document import Document
from lrexp.config.reader import compose, read_yaml
from lrexp.config.tree import KeyPath, locate, put
from lrexp.config.writer import to_yaml
from lrexp.errors import ConfigError

# Options of one run; a copy of the config does not keep them.
_RUN_ONLY = (
    "device",
    "engine",
    "find_lr.seeds",
    "find_lr.race",
    "find_lr.budget",
    "compare.seeds",
)


def with_optimizer_lr(document: Document, lr: float) -> str:
    """Return the text of a copy of the config with another base LR.

    Settings of `--set` are part of the copy, since they are part of what the LR was found for;
    the device, the engine, the number of seeds and the race are not. Where the text cannot be
    edited (the LR comes from an alias, a setting is new), the copy is written anew, without
    comments.

    Example:
        >>> print(with_optimizer_lr(read_document("exp.yaml"), 0.14))  # doctest: +SKIP
        optimizer: {name: SGD, lr: 0.14}  # found by lrexp
    """
    changes = {k: v for k, v in document.overrides.items() if k not in _RUN_ONLY}
    changes.pop("optimizer.lr", None)
    changes["optimizer.lr"] = lr
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
