"""A command that is called in a program leaves the program's handling of signals as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from starting import Starter

CONFIG = """\
model: {name: 'signalling:Net'}
data: {name: linear, batch_size: 8, args: {samples: 64, features: 2}}
loss: mse_loss
optimizer: {name: SGD, lr: 0.01}
engine: sequential
train: {duration: 9}
compare: {variants: {a: {}}}
"""
# It does in its fourth step what it is told to.
NET = """\
import os
import signal
from torch import nn
class Net(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
        self.steps = 0
    def forward(self, x):
        self.steps += self.training
        if self.training and self.steps == 4:
            DO
        return super().forward(x)
"""
HANDLED = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


came: list[int] = []  # to the program


def of_the_program(number: int, _: FrameType | None) -> None:
    """Stand for a handler of the program that calls a command."""
    came.append(number)


@pytest.fixture(params=["defaults", "ignored", "own"])
def handlers(request: pytest.FixtureRequest) -> Iterator[dict[int, object]]:
    """Handle the signals in a way that does not depend on how the tests were started."""
    ways = {
        "defaults": [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL],
        "ignored": [signal.default_int_handler, signal.SIG_IGN, signal.SIG_IGN],
        "own": [of_the_program] * 3,
    }
    before = [signal.getsignal(number) for number in HANDLED]
    for number, way in zip(HANDLED, ways[request.param], strict=True):
        signal.signal(number, way)
    came.clear()
    yield all_handlers()
    for number, way in zip(HANDLED, before, strict=True):
        signal.signal(number, way)


def all_handlers() -> dict[int, object]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()} | {
        0: sys.unraisablehook
    }


@pytest.mark.parametrize(
    ("does", "words", "code"),
    [
        ("pass", ["compare", "net.yaml"], 0),
        ("pass", ["compare", "none.yaml"], 2),
        ("pass", ["--help"], 0),
        ("pass", ["nonsense"], 2),
        ("raise ValueError", ["compare", "net.yaml"], 3),
        ("raise SystemExit(5)", ["compare", "net.yaml"], 3),
    ],
)
def test_signals_are_handled_as_before(
    does: str,
    words: list[str],
    code: int,
    handlers: dict[int, object],
    lrexp: Callable,
    tmp_path: Path,
) -> None:
    write(tmp_path, does)
    answer = lrexp(*words)
    assert answer.code == code, answer.err
    assert all_handlers() == handlers


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_is_the_commands_where_the_program_does_nothing_with_it(
    number: signal.Signals, handlers: dict[int, object], lrexp: Callable, tmp_path: Path
) -> None:
    """One that is ignored stays so, and one with a handler goes there; the training goes on."""
    write(tmp_path, f"signal.raise_signal({number:d})")
    answer = lrexp("compare", "net.yaml")
    is_free = handlers[number] in (signal.SIG_DFL, signal.default_int_handler)
    assert answer.code == (130 if is_free else 0), answer.err
    assert came == ([number] if handlers[number] is of_the_program else [])
    assert all_handlers() == handlers


def write(folder: Path, does: str) -> None:
    (folder / "net.yaml").write_text(CONFIG)
    (folder / "signalling.py").write_text(NET.replace("DO", does))


def test_a_command_in_another_thread_handles_no_signals(
    lrexp: Callable, tmp_path: Path, handlers: dict[int, object]
) -> None:
    write(tmp_path, "pass")
    codes = []
    thread = threading.Thread(target=lambda: codes.append(lrexp("compare", "net.yaml").code))
    thread.start()
    thread.join()
    assert codes == [0]
    assert all_handlers() == handlers


def test_what_a_program_handles_during_a_command_in_another_thread_is_left_to_it(
    lrexp: Callable, tmp_path: Path, handlers: dict[int, object]
) -> None:
    write(tmp_path, "pass")
    codes, asked, changed = [], threading.Event(), threading.Event()

    def stop() -> bool:  # it is asked in the middle of the command
        asked.set()
        return not changed.wait(100)

    thread = threading.Thread(
        target=lambda: codes.append(lrexp("compare", "net.yaml", stop=stop).code)
    )
    thread.start()
    assert asked.wait(100)
    mine: dict[int, object] = {
        number: lambda *_, n=number: came.append(n)  # type: ignore[misc]
        for number in HANDLED
    }
    for number, handler in mine.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
    changed.set()
    thread.join(100)
    assert codes == [0]
    assert all_handlers() == handlers | mine


# A program that calls a command; Ctrl-C comes while that imports what needs torch.
CALLER = """\
import signal, sys
import lrexp
from lrexp.cli import run
del sys.modules["lrexp.api"], lrexp.api
class Signals:
    def find_spec(self, name, path, target=None):
        if name == "lrexp.api":
            signal.raise_signal(signal.NUMBER)
sys.meta_path.insert(0, Signals())
code = run(["compare", "net.yaml", "--out", "run"])
print("the program lives:", code, "lrexp.api" in sys.modules)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_during_an_import_does_not_end_the_program(
    name: str, starter: Starter, tmp_path: Path
) -> None:
    write(tmp_path, "pass")
    with starter.start(
        ["-c", CALLER.replace("NUMBER", name)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert out == "the program lives: 130 True\nTrue\n"
    assert err == "Interrupted before training; nothing was written.\n"
    assert not (tmp_path / "run").exists()


def test_an_interruption_inside_of_a_text_leaves_the_exit_code(tmp_path: Path) -> None:
    """As in the text that makes a named tuple, while a module is imported."""
    program = """if True:
        import sys
        from lrexp.runs.signals import ignore_signals
        try:
            exec("raise KeyboardInterrupt")
        except KeyboardInterrupt:
            pass
        ignore_signals()
        sys.exit(130)
    """
    (tmp_path / "interrupted.py").write_text(program)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == 130
