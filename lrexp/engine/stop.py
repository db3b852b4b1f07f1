"""When a training takes a checkpoint, and whether it stops there.

Also how often an engine looks up from its steps: to read losses back, and to drop copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Pace:
    """What a task says about that; no result depends on it but by rounding.

    Args:
        chunk_steps: losses are read back at least this often; on a GPU each waits in a slot.
        chunk_seconds: and this often, to be shown and written; None is `losses.CHUNK_SECONDS`.
        drop_every: steps after which copies that are over may be dropped from a stack; at
            evaluations they may be, too.
    """

    chunk_steps: int = 2_000
    chunk_seconds: float | None = None
    drop_every: int = 500


Stop: TypeAlias = Callable[[], object]  # asked at the end of a step: what is true stops there
CHECKPOINT_SECONDS = 60.0  # between checkpoints: what a crash may cost
SIGNAL_SECONDS = 2.0  # between the death of a process that loads data and a request to stop
MOST_SHARE = 0.02  # of the time that checkpoints may take: large ones come less often


class Pause:
    """Tells engines when a checkpoint is due, and whether to stop after it.

    Args:
        stop: a function that is also asked after every step; None asks nobody. What it raises
            stops the training as well, and is kept in `error`.
        checkpoint_seconds: between checkpoints; None is `CHECKPOINT_SECONDS`.
        most_share: of the time that checkpoints may take; None is `MOST_SHARE`.
        signal_seconds: how long `is_coming` waits; None is `SIGNAL_SECONDS`.

    Example:
        >>> pause = Pause()
        >>> pause.due()
        False
        >>> pause.requested = True
        >>> pause.due()
        True
    """

    def __init__(
        self,
        stop: Stop | None = None,
        *,
        checkpoint_seconds: float | None = None,
        most_share: float | None = None,
        signal_seconds: float | None = None,
    ) -> None:
        self.requested = False  # setting it is all that a signal handler has to do
        self.error: Exception | None = None  # of the function
        self._stop = stop
        self._checkpoint_seconds = _given(checkpoint_seconds, CHECKPOINT_SECONDS)
        self._most_share = _given(most_share, MOST_SHARE)
        self._signal_seconds = _given(signal_seconds, SIGNAL_SECONDS)
        self._last, self._cost = time.perf_counter(), 0.0

    def ask(self) -> bool:
        """Return whether to stop at the end of this step."""
        if self._stop is not None and not self.requested:
            try:
                if self._stop():  # a signal may have requested it meanwhile
                    self.requested = True
            except Exception as error:  # no fault of the trial that happens to run
                self.requested, self.error = True, error
        return self.requested

    def is_coming(self) -> bool:
        """Return whether a stop is requested, or is in a moment.

        A signal to a whole job kills the processes that load data before this one hears of it, be
        it from a handler or from the process that started it.
        """
        deadline = time.monotonic() + self._signal_seconds
        while not self.requested and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.requested

    def due(self) -> bool:
        """Return whether to take a checkpoint now."""
        waited = time.perf_counter() - self._last
        return self.requested or waited > max(
            self._checkpoint_seconds, self._cost / self._most_share
        )

    def done(self, seconds: float = 0.0) -> None:
        """Note that a checkpoint was taken, or cannot be, and what that cost: the next is later."""
        self._last, self._cost = time.perf_counter(), seconds


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def is_of_loader(error: object) -> bool:
    """Return whether torch found that a process which loads data was killed.

    What a dataset raised in such a process is told in other words: "Caught RuntimeError in
    DataLoader worker process 0".
    """
    return isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error)


def may_be_of_loader(error: object) -> bool:
    """Return whether an exception may come of that, where processes load data.

    torch raises its own wherever Python is. If that is where exceptions are dropped, reading from
    a dead process raises instead.
    """
    return is_of_loader(error) or isinstance(error, EOFError | OSError)
