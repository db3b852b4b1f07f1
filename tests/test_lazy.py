"""Packages whose public names are imported at first use list each of them, and find each."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

import lrexp

PACKAGE = Path(lrexp.__file__).parent
LAZY = [
    ".".join(("lrexp", *path.parent.relative_to(PACKAGE).parts))
    for path in sorted(PACKAGE.rglob("__init__.py"))
    if "imported_from(" in path.read_text(encoding="utf-8")
]


def test_there_are_some() -> None:
    assert {"lrexp", "lrexp.data", "lrexp.report", "lrexp.store"} <= set(LAZY)


@pytest.mark.parametrize("package", LAZY)
def test_every_public_name_is_found_and_no_other(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert not isinstance(getattr(module, name), ModuleType), name
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
