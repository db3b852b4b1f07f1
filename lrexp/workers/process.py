"""One worker process as its parent sees it: started, listened to, killed, and how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any

from lrexp.engine import TrialId, Unit
from lrexp.workers.messages import PauseNow, Stop, Train, Work, pack_state, receive, send

STOP_SECONDS = 10.0  # for a worker to end by itself

# Not `-m`: that would put the working directory first, where a user's `queue.py` may lie.
_START = "import sys; sys.path[:] = {path!r}; from lrexp.workers.worker import main; main()"

_printing = threading.Lock()  # lines of several workers do not mix


class WorkerProcess:
    """A worker, and what it is doing.

    Args:
        slot: its place among the workers; one that replaces it takes the same.
        work: what it is told first.
        said: gets (this, message) of all it says; the message None is its end.
    """

    def __init__(self, slot: int, work: Work, said: SimpleQueue[tuple[WorkerProcess, Any]]) -> None:
        self.slot, self._said = slot, said
        self.is_ready = False  # it has made its plan
        self.unit: Unit | None = None
        self.left: list[TrialId] = []  # trials of its unit that have not ended
        self._pausing = False
        start = _START.format(path=[entry for entry in sys.path if isinstance(entry, str)])
        self._process = subprocess.Popen(
            [sys.executable, *(f"-W{option}" for option in sys.warnoptions), "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **_thread_settings(work.threads)},
            start_new_session=True,  # Ctrl-C reaches the parent only, which then ends its workers
        )
        self._threads = [
            threading.Thread(target=listen, daemon=True) for listen in (self._hear, self._show)
        ]
        for thread in self._threads:
            thread.start()
        self._send(work)

    def train(self, unit: Unit, state: Mapping[str, Any] | None = None) -> None:
        """Give it a unit, to begin or to go on with from a checkpoint's state."""
        self.unit, self.left = unit, list(unit.trials)
        self._send(Train(unit, None if state is None else pack_state(state)))

    def pause(self) -> None:
        """Let it end its unit at a checkpoint, as soon as it can."""
        if self.unit is not None and not self._pausing:
            self._pausing = True
            self._send(PauseNow())

    def stop(self) -> None:
        """Tell it that there is nothing more to do, if it listens already."""
        if self.is_ready:
            self._send(Stop())

    def wait(self) -> None:
        """Wait a while for the end of one that was told to stop."""
        if self.is_ready:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kill it and what it started; `close` it afterwards."""
        with suppress(OSError):
            if hasattr(os, "killpg"):  # it leads a group of its own
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def close(self) -> None:
        """Wait until it is gone, and all it said and printed is passed on."""
        self._process.wait()
        for thread in self._threads:
            thread.join(1.0)
        with suppress(OSError):
            _pipe(self._process.stdin).close()

    def how_it_ended(self) -> str:
        """Return how it ended, once it has said None, and clean up after it."""
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:  # it only closed the pipe
            self.kill()
        self.kill()  # what it started may live on
        self.close()
        code = self._process.returncode
        if code >= 0:
            return f"ended with exit code {code}"
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed (signal {-code}, {known.get(-code, 'unknown')})"

    def _send(self, message: Work | Train | PauseNow | Stop) -> None:
        with suppress(OSError):  # that it is dead is found out by listening
            send(_pipe(self._process.stdin), message)

    def _hear(self) -> None:
        with _pipe(self._process.stdout) as pipe:
            message: Any = ...
            try:
                while message is not None:
                    message = receive(pipe)
                    if message is not None:
                        self._said.put((self, message))
            finally:  # also if what it sent cannot be read: then it counts as dead
                self._said.put((self, None))

    def _show(self) -> None:
        """Print what it prints where this process shows its messages."""
        with _pipe(self._process.stderr) as pipe:
            for line in pipe:
                with _printing, suppress(OSError, ValueError):
                    sys.stderr.write(line.decode(errors="replace"))


def _thread_settings(threads: int) -> dict[str, str]:
    """Return what must be in the environment before torch is imported."""
    count = str(threads)
    # Threads that spin while they wait take the cores from the other workers.
    return {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OMP_WAIT_POLICY": "PASSIVE"}


def _pipe(pipe: IO[bytes] | None) -> Any:
    assert pipe is not None
    return pipe
