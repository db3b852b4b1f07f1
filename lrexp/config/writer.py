"""Plain values to YAML that this project's reader, and any other, reads back exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from lrexp.config.scalars import parse_scalar

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
