"""A worker process: makes the plan of a run again and trains the units it is told to train.

It speaks over the pipes that are its stdin and stdout. Both are moved out of the way first, so that
prints and reads of user code touch neither. It ends when the process that started it is gone.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from lrexp.errors import ConfigError, LrexpError, RunError
from lrexp.runs.signals import SIGNALS

if TYPE_CHECKING:
    from lrexp.engine.stop import Pause
    from lrexp.engine.task import Task
    from lrexp.records import Checkpoint, Record, TrialId, Unit
    from lrexp.runs.plan import Plan
    from lrexp.runs.spec import Order


_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Work:
    """To a worker, first of all: what it will train parts of.

    Args:
        order: a pickled `Order`; opened late, where its errors can be told.
        device: replaces the order's, None leaves it.
        threads: of torch.
        flags: see `worker.torch_flags`.
    """

    order: bytes
    device: str | None
    threads: int
    flags: Mapping[str, Any]


@dataclass(frozen=True)
class Train:
    """To a worker that is ready: train this.

    Args:
        unit: its trials, by one engine.
        state: of a checkpoint of this unit, as `pack_state` gives it; None begins it.
    """

    unit: Unit
    state: bytes | None = None


@dataclass(frozen=True)
class PauseNow:
    """To a worker that trains: take a checkpoint where it can, and end the unit there."""


@dataclass(frozen=True)
class Stop:
    """To a worker that is ready: there is nothing more to do."""


@dataclass(frozen=True)
class Ready:
    """From a worker: it has its plan, or has trained its unit, and waits for the next."""


@dataclass(frozen=True)
class Recorded:
    """From a worker: a record of one of its trials; a failed trial comes as `Raised`."""

    record: Record


@dataclass(frozen=True)
class Saved:
    """From a worker: a `Checkpoint`, its state as `pack_state` gives it."""

    trials: tuple[TrialId, ...]
    step: int
    state: bytes

    def restored(self) -> Checkpoint:
        """Return the checkpoint."""
        from lrexp.records import Checkpoint

        return Checkpoint(self.trials, self.step, unpack_state(self.state))


@dataclass(frozen=True)
class Raised:
    """From a worker: an exception of one trial, or, without a trial, of the worker itself."""

    trial: TrialId | None
    error: Exception
    trace: str

    def restored(self) -> Exception:
        """Return the error with the worker's traceback as its cause, for --debug."""
        self.error.__cause__ = WorkerTraceback(f"\n{self.trace}")
        return self.error


Message: TypeAlias = Work | Train | PauseNow | Stop | Ready | Recorded | Saved | Raised


class WorkerTraceback(Exception):  # noqa: N818  # it only carries a text
    """Where an exception came from in a worker process, as text."""


def raised(trial: TrialId | None, error: Exception, origin: BaseException) -> Raised:
    """Return the message that tells of `error`, made from the exception `origin`."""
    return Raised(trial, error, "".join(traceback.format_exception(origin)).rstrip())


def pack_state(state: Mapping[str, Any]) -> bytes:
    """Return an engine's state as bytes; its tensors travel in them, not in shared memory."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack_state(data: bytes) -> dict[str, Any]:
    """Return the state that `pack_state` packed, its tensors on the CPU."""
    import torch

    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def send(pipe: BinaryIO, message: Message) -> None:
    """Write one message."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Read one message; None when the other process is gone, or died in the middle of one."""
    head = _read(pipe, _LENGTH.size)
    data = None if head is None else _read(pipe, _LENGTH.unpack(head)[0])
    return None if data is None else pickle.loads(data)


def _read(pipe: BinaryIO, size: int) -> bytes | None:
    """Read `size` bytes; an unbuffered pipe gives them in pieces."""
    data = bytearray()
    while len(data) < size:
        piece = pipe.read(min(size - len(data), 2**20))
        if not piece:
            return None
        data += piece
    return bytes(data)


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
        from lrexp.engine.stop import Pause
        from lrexp.runs.signals import quiet_loaders

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
        from lrexp.engine.stop import is_of_loader

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
    from lrexp.engine.engines import ENGINES
    from lrexp.records import Checkpoint, Failed
    from lrexp.runs.recorder import readable_error

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
