"""The examples in the docstrings of `lrexp.schedules` say what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lrexp.schedules

MODULES = [info.name for info in pkgutil.iter_modules(lrexp.schedules.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"lrexp.schedules.{name}")
    assert doctest.testmod(module).failed == 0
