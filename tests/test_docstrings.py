"""The examples in the docstrings of every module are true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import lrexp

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(lrexp.__path__, "lrexp.")
    if module.name != "lrexp.__main__"
)

NEEDS = {
    f"lrexp.integrations.{name}": name for name in ("keras", "transformers")
}  # module -> the package that it imports


class Finder(doctest.DocTestFinder):
    """Finds the examples of decorated functions too: by where the function itself is from."""

    def _from_module(self, module: ModuleType, object: Any) -> bool:  # noqa: A002
        return super()._from_module(module, inspect.unwrap(object))  # type: ignore[misc]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    runner = doctest.DocTestRunner()
    for test in Finder().find(importlib.import_module(name)):
        runner.run(test)
    assert runner.failures == 0


def test_there_are_examples() -> None:
    modules = [importlib.import_module(name) for name in MODULES if name not in NEEDS]
    tests = [test for module in modules for test in Finder().find(module)]
    assert sum(bool(test.examples) for test in tests) > 100
    assert "lrexp.schedules.decays.cosine" in {test.name for test in tests}
