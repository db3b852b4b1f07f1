"""A command that is called in a program leaves the program's handling of signals as it was."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

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


def of_the_program(number: int, _: FrameType | None) -> None:
    """Stand for a handler of the program that calls a command."""


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
        ("raise SystemExit(5)", ["compare", "net.yaml"], None),
        *((f"signal.raise_signal({number:d})", ["compare", "net.yaml"], 130) for number in HANDLED),
    ],
)
def test_signals_are_handled_as_before(
    does: str,
    words: list[str],
    code: int | None,
    handlers: dict[int, object],
    lrexp: Callable,
    tmp_path: Path,
) -> None:
    (tmp_path / "net.yaml").write_text(CONFIG)
    (tmp_path / "signalling.py").write_text(NET.replace("DO", does))
    answer = lrexp(*words)
    ours = handlers[signal.SIGTERM] is signal.SIG_DFL
    if ours or code != 130:  # else the signal is the program's own
        assert code is None or answer.code == code, answer.err
    assert all_handlers() == handlers


def test_a_command_in_another_thread_handles_no_signals(
    lrexp: Callable, tmp_path: Path, handlers: dict[int, object]
) -> None:
    (tmp_path / "net.yaml").write_text(CONFIG)
    (tmp_path / "signalling.py").write_text(NET.replace("DO", "pass"))
    codes = []
    thread = threading.Thread(target=lambda: codes.append(lrexp("compare", "net.yaml").code))
    thread.start()
    thread.join()
    assert codes == [0]
    assert all_handlers() == handlers
