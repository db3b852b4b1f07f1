"""The examples in the docstrings of `lrexp.finder` are true, and the package needs no torch."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import lrexp.finder

MODULES = sorted(module.name for module in pkgutil.iter_modules(lrexp.finder.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    importlib.import_module(f"lrexp.finder.{name}")
    module = sys.modules[f"lrexp.finder.{name}"]  # the package may export a function of that name
    result = doctest.testmod(module)
    assert result.failed == 0


def test_it_imports_no_torch() -> None:
    code = "import sys, lrexp.finder; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
