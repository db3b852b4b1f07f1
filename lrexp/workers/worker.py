"""A worker process: makes the plan of an order again and trains the units it is told to train.

Started by `process.py`, it speaks over the pipes that are its stdin and stdout. Both are moved
out of the way first, so that prints and reads of user code touch neither. It ends when it is told
to, and at once when the process that started it is gone.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

from lrexp.errors import ConfigError, LrexpError, RunError
from lrexp.terminal import SIGNALS
from lrexp.workers.messages import (
    PauseNow,
    Ready,
    Recorded,
    Saved,
    Train,
    Work,
    pack_state,
    raised,
    receive,
    send,
    unpack_state,
)

if TYPE_CHECKING:  # torch comes later: until then the first message is read
    from lrexp.engine import Pause, Task, Unit
    from lrexp.order import Order
    from lrexp.plan import Plan


def main() -> None:
    """Work until told to stop."""
    _leave_signals_to_the_parent()
    incoming, outgoing = _private_pipes()
    inbox = _Inbox(incoming)
    work = inbox.get()
    assert isinstance(work, Work)
    try:
        with _silence():
            order, plan = _prepare(work)
        from lrexp.engine import Pause
        from lrexp.interrupt import quiet_loaders

        pause = inbox.pause = Pause()
        send(outgoing, Ready())
        with quiet_loaders(pause), _dying_with_loaders():
            while isinstance(message := inbox.get(), Train):
                tasks = _tasks(message, order, plan, pause)
                _train(message.unit, tasks, outgoing)
                send(outgoing, Ready())
    except BaseException as error:  # user code may raise anything
        unknown = RunError(f"A worker process failed: {_named(error)}")
        told = error if isinstance(error, LrexpError) else unknown
        send(outgoing, raised(None, told, error))
    finally:
        outgoing.close()  # it has ended for the parent, whatever threads of user code still run


@contextmanager
def _dying_with_loaders() -> Iterator[None]:
    """End where torch tells between two steps that a process which loads data was killed.

    That is raised anywhere, even in the middle of a message, after which nothing can be said.
    """
    try:
        yield
    except RuntimeError as error:
        from lrexp.engine import is_of_loader

        if not is_of_loader(error):
            raise
        os._exit(1)


def torch_flags() -> dict[str, Any]:
    """Return the settings of torch that change numbers and are of a process, not of a config."""
    import torch

    return {
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
    }


def _set_flags(work: Work) -> None:
    import torch

    flags = work.flags
    torch.set_num_threads(work.threads)
    torch.set_default_dtype(flags["dtype"])
    torch.use_deterministic_algorithms(flags["deterministic"], warn_only=flags["warn_only"])
    if flags["matmul"] != torch.get_float32_matmul_precision():
        torch.set_float32_matmul_precision(flags["matmul"])


def _tasks(message: Train, order: Order, plan: Plan, pause: Pause) -> Iterator[Task]:
    state = None if message.state is None else unpack_state(message.state)
    yield from order.unit_tasks(plan, message.unit, pause, state)


def _train(unit: Unit, tasks: Iterator[Task], outgoing: BinaryIO) -> None:
    from lrexp.engine import ENGINES, Checkpoint, Failed
    from lrexp.record import readable_error

    for record in ENGINES[unit.engine](tasks):
        if isinstance(record, Failed):
            send(outgoing, raised(record.trial, readable_error(record), record.error))
        elif isinstance(record, Checkpoint):
            send(outgoing, Saved(record.trials, record.step, pack_state(record.state)))
        else:
            send(outgoing, Recorded(record))


def _prepare(work: Work) -> tuple[Order, Plan]:
    """Return the order and its plan."""
    _set_flags(work)
    try:
        order: Order = pickle.loads(work.order)
    except BaseException as error:
        what = f"cannot be made again in a worker process ({_named(error)})"
        remedy = (
            "Put what is given as a Python object into a module that can be imported, or use 1."
        )
        raise ConfigError.single("jobs", what, "model, data or loss", remedy) from error
    if work.device is not None:
        order = replace(order, changes=(*order.changes, ("device", work.device, "--device")))
    return order, order.plan()


def _leave_signals_to_the_parent() -> None:
    """Go on when Ctrl-C or SIGTERM reaches every process of a job: the parent says when to pause.

    Others than SIGINT are handled, not ignored: what this process starts would ignore them, too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in SIGNALS[1:]:
        signal.signal(number, lambda *_: None)
    if hasattr(os, "register_at_fork"):  # SIG_DFL lets a DataLoader end its processes
        os.register_at_fork(after_in_child=lambda: list(map(_end_by, SIGNALS[1:])))


def _end_by(number: signal.Signals) -> None:
    with suppress(ValueError):  # forked by another thread than the main one
        signal.signal(number, signal.SIG_DFL)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes to the parent; what user code knows as stdin is empty, stdout is stderr."""
    private = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if hasattr(os, "register_at_fork"):
        # A DataLoader's process that outlives this one must not keep the pipes open.
        os.register_at_fork(after_in_child=lambda: _close(*private))
    # Unbuffered: a thread that waits in a buffered read cannot be ended cleanly.
    return os.fdopen(private[0], "rb", buffering=0), os.fdopen(private[1], "wb")


def _close(*descriptors: int) -> None:
    for number in descriptors:
        os.close(number)


class _Inbox:
    """What the parent says: one message after the other, but a pause at once.

    When the parent is gone, whatever the main thread does is in vain, and the process ends.
    """

    def __init__(self, incoming: BinaryIO) -> None:
        self.pause: Pause | None = None  # of the engines; the parent pauses who is ready
        self._incoming = incoming
        self._messages: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def get(self) -> Any:
        """Return the next message, when there is one."""
        return self._messages.get()

    def _listen(self) -> None:
        while (message := receive(self._incoming)) is not None:
            if isinstance(message, PauseNow):
                assert self.pause is not None
                self.pause.requested = True
            else:
                self._messages.put(message)
        os._exit(1)


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what is printed meanwhile: the parent has made the same plan and shown it all."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (1, 2):
            os.dup2(kept, number)
        os.close(kept)
        os.close(nothing)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
