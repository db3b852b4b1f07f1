"""From the values in a file to the values that are checked: short forms, defaults, paths."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from lrexp.config.names import IN_PYTHON
from lrexp.config.safe_names import make_safe
from lrexp.config.tree import NAMED_SECTIONS, expand, get, locate, put

PATHS = ("path", "root")  # what built-in data and torchvision call their files


def prepare(
    data: Mapping[str, object], *, directory: Path, title: str, given: Collection[str] = ()
) -> dict[str, object]:
    """Return the config with short forms written out.

    Args:
        data: the values as read.
        directory: where relative paths of built-in data start.
        title: the experiment's name where it has none.
        given: sections that Python objects stand in for.

    Example:
        >>> prepare({"data": "digits"}, directory=Path(), title="a/b.yaml")
        {'name': 'a.b.yaml', 'data': {'name': 'digits'}}
    """
    tree = expand({"name": make_safe(title), **data})
    for section in given:
        if section in NAMED_SECTIONS:
            value = tree.get(section, {})
            tree[section] = {**value, "name": IN_PYTHON} if isinstance(value, Mapping) else value
        else:
            tree[section] = IN_PYTHON
    return _with_absolute_paths(tree, directory)


def apply(
    tree: Mapping[str, object], overrides: Mapping[str, object], directory: Path
) -> dict[str, object]:
    """Return a prepared config with dotted keys replaced; whole sections before keys in them.

    Raises:
        ConfigError: a key leads through a value that is no mapping; the problem's key is its own.
    """
    changed: object = tree
    for key in sorted(overrides, key=lambda key: len(locate(tree, key))):
        changed = put(changed, locate(changed, key), overrides[key])
    assert isinstance(changed, dict)
    return _with_absolute_paths(expand(changed), directory)


def at_home(path: str) -> Path:
    """Return a path with the user's home in place of `~`; as it is where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # of a user who does not exist
        return Path(path)


def _with_absolute_paths(tree: dict[str, object], directory: Path) -> dict[str, object]:
    """A user's own callable gets its arguments as they are written."""
    name, args = get(tree, ("data", "name")), get(tree, ("data", "args"))
    if not isinstance(name, str) or ":" in name or not isinstance(args, Mapping):
        return tree
    located = {
        key: str(directory / at_home(value))
        if key in PATHS and isinstance(value, str) and value and "\0" not in value
        else value
        for key, value in args.items()
    }
    changed = put(tree, ("data", "args"), located)
    assert isinstance(changed, dict)
    return changed
