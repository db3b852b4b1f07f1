"""An exception on its way out of a loading worker, so that it arrives as itself.

torch raises a new exception of the same type whose message is the worker's whole traceback. Here
the exception travels as a value and is raised again with its own message; frames that name the
user's file and line are put back into its traceback.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from torch.utils.data import get_worker_info

from lrexp.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """What a worker sends instead of a batch."""

    error: Exception
    frames: tuple[tuple[str, int, str], ...]  # (file, line, function), outermost first


def attempt(read: Callable[[], T]) -> T | Failure:
    """Return `read()`; in a worker process, what it raises is returned as a `Failure`."""
    if get_worker_info() is None:
        return read()
    try:
        return read()
    except Exception as error:
        found = traceback.extract_tb(error.__traceback__)
        frames = tuple((frame.filename, frame.lineno or 1, frame.name) for frame in found)
        return Failure(_picklable(error), frames)


def opened(value: T | Failure) -> T:
    """Return the value that a worker sent, or raise the exception that it had."""
    if not isinstance(value, Failure):
        return value
    if isinstance(value.error, ConfigError):  # pickling keeps its problems, not its message
        raise ConfigError(value.error.problems)
    raise value.error.with_traceback(_replayed(value.frames))


def _picklable(error: Exception) -> Exception:
    try:
        same = pickle.loads(pickle.dumps(error))
        if type(same) is type(error) and (str(same) == str(error) or isinstance(same, ConfigError)):
            return error
    except Exception:  # whatever a user's exception does when pickled
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def _replayed(frames: tuple[tuple[str, int, str], ...]) -> TracebackType | None:
    """Return a traceback through the same files and lines; the worker's own cannot be pickled."""
    found: TracebackType | None = None
    for filename, line, name in reversed(frames):
        code = compile("\n" * (line - 1) + "raise ValueError", filename, "exec")
        try:
            exec(code.replace(co_name=name), {})
        except ValueError as error:
            here = error.__traceback__ and error.__traceback__.tb_next
            if here is not None:
                found = TracebackType(found, here.tb_frame, here.tb_lasti, here.tb_lineno)
    return found
