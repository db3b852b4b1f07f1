"""Public names of a package that are imported when they are first used.

A package that holds something heavy beside something light (data: loaders, and how many samples
there are) would else make everybody wait for the heavy part. A module is imported once, as ever.
A public name must not be that of a module of the package: Python sets a module as an attribute of
its package as soon as it is imported, and `__getattr__` is then no longer asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported_from(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: its name.
        homes: public name -> the module that defines it.

    Example:
        >>> imported_from("shapes", {"pi": "math"})("pi")
        3.141592653589793
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return get
