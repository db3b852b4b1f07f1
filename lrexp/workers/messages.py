"""What this process and its workers say to each other: length-prefixed pickles over pipes.

Pickles are only read from a process that this one started, or that started this one. An exception
crosses as a text and its traceback: a class of the user's own need not pickle, nor unpickle.
"""

from __future__ import annotations

import io
import pickle
import struct
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:  # a worker reads its first message before it imports torch
    from lrexp.engine import Checkpoint, Record, TrialId, Unit

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
        from lrexp.engine import Checkpoint

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
