"""Shared by the tests: few threads (shared cores), and a way to run a command as a user would."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start, too

import gc
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from starting import Starter, serving

# Where bytecode is not kept, each of the processes below would compile all of lrexp anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ROOT = Path(__file__).parents[1]
MEMORY = Path("/dev/shm")  # a file system in memory: there a run's syncs cost nothing
LEAST_MEMORY = 4_000_000_000  # bytes; in a container it may be tiny


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True, scope="session")
def _digits_are_read_once() -> None:
    import_module("kept_digits")


@pytest.fixture(autouse=True)
def _no_timings_from_before(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Let nothing that another test, or the user, has measured choose an engine."""
    # One name for all: mktemp lists thousands of folders to find the next number.
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("LREXP_CACHE", str(cache))
    yield
    shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture(autouse=True)
def _pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs draw only in tests marked `pictures`: a run's take a second, its numbers do not."""
    if "pictures" in request.keywords:
        monkeypatch.delenv("LREXP_PLOTS", raising=False)
    else:
        monkeypatch.setenv("LREXP_PLOTS", "0")


@pytest.fixture
def lrexp(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Answer]:
    """Run `lrexp WORDS` in an empty folder, in this process; `stop` is as of `lrexp.compare`."""
    from lrexp.cli import run

    monkeypatch.chdir(tmp_path)

    def command(*words: object, stop: Callable[[], object] | None = None) -> Answer:
        capsys.readouterr()
        code = run([str(word) for word in words], stop=stop)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """Start Python processes that have torch at once; the server of them starts when it is asked."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    with serving() as starter:
        yield starter


@pytest.fixture
def quick_workers(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> Starter:
    """Let the workers that this process starts be forked from one that has torch."""
    monkeypatch.setattr(subprocess, "Popen", starter.popen)
    return starter


@pytest.fixture
def at_once() -> Iterator[None]:
    """Fail a test that waits, as for a pipe into which nobody writes."""

    def late(*_: object) -> None:
        pytest.fail("it waits for something")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 20, 5)  # again: a command survives the first
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked `long` as well")


def is_long(config: pytest.Config) -> bool:
    return config.getoption("--long") or "long" in config.getoption("-m")


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis try a few examples by default, and many with --long."""
    settings.register_profile("few", max_examples=50, deadline=None)
    settings.register_profile("many", max_examples=300, deadline=None)
    settings.load_profile("many" if is_long(config) else "few")
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > LEAST_MEMORY:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish() -> None:
    """Spare the garbage collector thousands of modules and tests, which all stay."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not is_long(config):
        skip = pytest.mark.skip(reason="takes long; runs with --long")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip)
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(skip)
