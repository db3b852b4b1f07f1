"""Signals of the terminal, and a terminal that goes away while trials run.

The first Ctrl-C, SIGTERM or SIGHUP asks for a pause, the second ends at once. A signal handler runs
between any two lines, in the middle of a write, say; so the first one only sets a flag, which
engines read at a step's end. What a closed terminal would have shown is dropped.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from lrexp.engine.stop import Pause, is_of_loader

_HANG_UP = getattr(signal, "SIGHUP", None)  # of a terminal that was closed; not on Windows
SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, _HANG_UP)))
_NOBODY_READS = (errno.EPIPE, errno.EIO)


def take_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, so that a run is closed.

    One that is ignored stays so: that is what `nohup` is for.
    """
    if _may_handle():
        for number in SIGNALS[1:]:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


@contextmanager
def borrowed_signals() -> Iterator[None]:
    """Take signals meanwhile and give them back, for a program that calls a command.

    So is the hook for exceptions that are dropped, which a command may leave changed. A command in
    another thread leaves both alone: it may handle no signal, and what the program sets meanwhile
    is the program's.
    """
    if not _may_handle():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    hook = sys.unraisablehook
    try:
        take_signals()
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def ended_by_signals(text: str, code: int) -> Iterator[None]:
    """Let a signal end the program at once meanwhile, with a text on stderr.

    While torch is imported, C++ code runs Python and is not made for what a signal raises there:
    the process would abort.
    """
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            with suppress(OSError, ValueError, AttributeError):
                os.write(sys.stderr.fileno(), text.encode())
        os._exit(code)

    with _interruptions(end):
        yield


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Let a signal wait meanwhile and raise KeyboardInterrupt then.

    It is as `ended_by_signals`, for a program that calls a command and is not to be ended.
    """
    came: list[int] = []
    try:
        with _interruptions(lambda number, _: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _interruptions(handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle meanwhile the signals that would raise KeyboardInterrupt."""
    ours = [n for n in SIGNALS if signal.getsignal(n) is signal.default_int_handler]
    before = {n: signal.signal(n, handle) for n in ours if _may_handle()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _may_handle() -> bool:
    return threading.current_thread() is threading.main_thread()


def ignore_signals() -> None:
    """Let nothing disturb the end of the program, which does not take long."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _forget_interruption()


def _forget_interruption() -> None:
    """Let Python exit with the code it is given.

    After a KeyboardInterrupt that left a text which Python ran, as that of a named tuple or a
    dataclass, `python -m` ends itself by SIGINT, whatever became of it (`Modules/main.c`,
    `unhandled_keyboard_interrupt`): until another text, here the empty one, has ended well.
    """
    exec("")


def outlive_readers() -> None:
    """Let stdout and stderr be written to although nobody reads them any more."""
    if os.name != "nt":
        sys.stdout = _lasting(sys.stdout, _NOBODY_READS)
        sys.stderr = _lasting(sys.stderr, errno.errorcode)  # no message is worth a run


def _lasting(stream: Any, errors: Collection[int]) -> Any:
    """Return a stream to the same place that drops what cannot be written for these reasons."""
    if type(stream) is not io.TextIOWrapper:  # an editor's, or none
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(stream.fileno(), errors)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Lasting(io.FileIO):
    def __init__(self, descriptor: int, errors: Collection[int]) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._errors = errors

    def write(self, data: Any, /) -> int:
        """Write, or do as if."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in self._errors:
                raise
            return memoryview(data).nbytes


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
