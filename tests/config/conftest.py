"""Writing configs and the user's own modules, and loading them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from lrexp.config.config import Config
from lrexp.config.load import load_config
from lrexp.config.trust import forget_modules


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a file in a fresh folder, which is also the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str, name: str = "exp.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return Path(name)

    return write_file


@pytest.fixture
def load(write: Callable[[str, str], Path]) -> Callable[..., Config]:
    """Load a config from its text."""
    return lambda text, *args, **options: load_config(write(text, "exp.yaml"), *args, **options)


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    """Forget the modules that a test imported from its folder."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    forget_modules()
    sys.modules.update({name: modules[name] for name in modules.keys() - sys.modules.keys()})
