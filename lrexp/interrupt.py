"""Ctrl-C, SIGTERM and SIGHUP while trials run: the first asks for a pause, the second ends at once.

A signal handler runs between any two lines of the program, in the middle of a write, say. So the
first one only sets a flag, which engines read at a step's end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from lrexp.engine import Pause, is_of_loader
from lrexp.terminal import SIGNALS

_NOTE = "\nFinishing the step; press Ctrl-C again to stop at once.\n"


@contextmanager
def pausing(pause: Pause) -> Iterator[None]:
    """Let signals request a pause meanwhile; one that the program handles itself is left to it."""
    process = os.getpid()

    def handle(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:
            return  # a DataLoader's process: Ctrl-C reaches it too, and its batch is still needed
        if pause.requested:
            raise KeyboardInterrupt
        pause.requested = True
        _tell(_NOTE)

    ours = [number for number in SIGNALS if _is_free(number)]
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        with quiet_loaders(pause):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def quiet_loaders(pause: Pause) -> Iterator[None]:
    """Say nothing of processes that load data and are killed by the signal that requests a stop.

    torch tells of them wherever Python is. Where exceptions are dropped, Python prints them.
    """
    hook = sys.unraisablehook

    def tell(told: sys.UnraisableHookArgs) -> None:
        if not (is_of_loader(told.exc_value) and pause.is_coming()):
            hook(told)

    sys.unraisablehook = tell
    try:
        yield
    finally:
        if not pause.requested:  # else loaders may be cleared away later
            sys.unraisablehook = hook


def _is_free(number: signal.Signals) -> bool:
    """Return whether a signal does here what it does by default, and may be handled."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def _tell(text: str) -> None:
    """Print to stderr; past its buffer, which may be in use at this very moment."""
    with suppress(OSError, ValueError, AttributeError):
        os.write(sys.stderr.fileno(), text.encode())
