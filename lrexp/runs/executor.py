"""Training in worker processes: units go out, records come back.

Not `multiprocessing`: its children import the caller's main module again, which breaks a script
without a guard and cannot work in a notebook. A worker that dies takes only its unit down, and the
trials of that unit get one more try, each alone.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from queue import Empty, SimpleQueue
from typing import IO, Any, TypeAlias

from lrexp.engine.stop import Pause
from lrexp.errors import ConfigError, RunError, WorkerDiedError
from lrexp.records import Ended, Failed, Interrupted, Record, Started, TrialId, Unit
from lrexp.runs.spec import Order
from lrexp.runs.worker import (
    PauseNow,
    Raised,
    Ready,
    Recorded,
    Saved,
    Stop,
    Train,
    Work,
    pack_state,
    receive,
    send,
    torch_flags,
)

REMEDY = "Put it into a module that can be imported, or use 1: training in this process."


class _Pickler(pickle.Pickler):
    """Refuses what only this process knows, which an ordinary pickle names and cannot find."""

    def reducer_override(self, thing: Any) -> Any:
        """Refuse functions and classes of the main module: a worker has another one."""
        home = getattr(thing, "__module__", None)
        if home == "__main__" and hasattr(thing, "__qualname__"):
            raise pickle.PicklingError(
                f"{thing.__qualname__} is defined in the notebook or script itself"
            )
        return NotImplemented


def packed(order: Order, jobs: int) -> bytes:
    """Return the order as bytes that a worker process can open.

    Raises:
        ConfigError: its Python objects cannot be sent; the key is `jobs`.
    """
    buffer = io.BytesIO()
    _refuse(_packing_problem(order, buffer), jobs)
    return buffer.getvalue()


def refuse_processes(order: Order, jobs: int) -> None:
    """Raise a ConfigError for `jobs` if the order cannot be given to worker processes."""
    _refuse(why_not_processes(order), jobs)


def why_not_processes(order: Order) -> str | None:
    """Return why an order cannot be given to worker processes, None where it can.

    Example:
        >>> why_not_processes(order)  # doctest: +SKIP
        "needs what can be sent to another process, and loss cannot: Can't pickle <function ..."
    """
    if not sys.executable:
        return "needs a Python interpreter to start, and this program contains its own"
    return _packing_problem(order, _Nowhere())


def _refuse(reason: str | None, jobs: int) -> None:
    if reason is not None:
        raise ConfigError.single("jobs", reason, jobs, REMEDY)


def _packing_problem(order: Order, file: io.RawIOBase | io.BytesIO) -> str | None:
    try:
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(order)
    except Exception as error:  # an object's own __reduce__ may raise anything
        names = " or ".join(sorted(order.objects.sections)) or "the config"
        why = str(error) or type(error).__name__
        return f"needs what can be sent to another process, and {names} cannot: {why}"
    return None


class _Nowhere(io.RawIOBase):
    """A file for nothing: a trial needs no copy of the data."""

    def write(self, data: Any) -> int:
        """Count."""
        return memoryview(data).nbytes


STOP_SECONDS = 10.0  # for a worker to end by itself
# Not `-m`: that would put the working directory first, where a user's `queue.py` may lie.
_START = "import sys; sys.path[:] = {path!r}; from lrexp.runs.worker import main; main()"
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


TakeState: TypeAlias = Callable[[TrialId], Mapping[str, Any] | None]
ATTEMPTS = 2  # of a trial whose worker dies
_POLL_SECONDS = 0.2  # how long a request to pause may stay unseen


def run_in_processes(
    order: Order,
    units: Sequence[Unit],
    jobs: int,
    *,
    devices: Sequence[str] | None = None,
    threads: int = 1,
    pause: Pause | None = None,
    take_state: TakeState = lambda _: None,
) -> Iterator[Record]:
    """Train units in worker processes and yield their records; those of one trial are in order.

    Workers start in the caller's working directory, with its environment, `sys.path` and the flags
    of torch that change numbers. Closing the iterator kills them.

    Args:
        order: what the units are part of.
        units: each is trained in one process, in one go.
        jobs: workers at a time, at least 1.
        devices: worker i trains on `devices[i % len(devices)]`; by default all on the order's.
        threads: of torch in each worker. Sums may be split differently, and so differ in their
            last bits, with another number.
        pause: once it is requested, workers end their units at a checkpoint and get no others;
            trials that have not begun are then passed over. Each worker has its own clock for
            the checkpoints before.
        take_state: (first trial of a unit) -> the state of the checkpoint that it goes on from, or
            None, where it begins; asked when a worker gets the unit, and again if that one dies.

    Raises:
        ConfigError: the order's Python objects cannot be sent to another process.
        LrexpError: a worker could not make its plan, or none could be started.
    """
    data, flags = packed(order, jobs), torch_flags()
    work = [Work(data, device, threads, flags) for device in devices or (None,)]
    pool = _Pool(work, units, jobs, pause or Pause(), take_state)
    try:
        yield from pool.records()
        pool.stop()
    finally:
        pool.kill()


class _Pool:
    """The workers, what waits for one, and what they have said."""

    def __init__(
        self,
        work: Sequence[Work],
        units: Sequence[Unit],
        jobs: int,
        pause: Pause,
        take_state: TakeState,
    ) -> None:
        self._work, self._limit = work, jobs
        self._pending = deque(units)
        self._pause, self._take_state = pause, take_state
        self._workers: dict[int, WorkerProcess] = {}  # by slot
        self._said: SimpleQueue[tuple[WorkerProcess, Any]] = SimpleQueue()
        self._begun: set[TrialId] = set()
        self._deaths: dict[TrialId, list[str]] = {}

    def records(self) -> Iterator[Record]:
        """Yield the records of all units, or of those that had begun when a pause is requested."""
        while self._pending or any(worker.unit for worker in self._workers.values()):
            self._hand_over_a_pause()
            self._start_missing()
            try:
                # A wait without an end could not be interrupted on Windows.
                worker, message = self._said.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            match message:
                case Ready():
                    worker.is_ready, worker.unit = True, None
                case Recorded(record):
                    yield self._noted(worker, record)
                case Saved():
                    yield message.restored()
                case Raised(TrialId() as trial):
                    yield self._noted(worker, Failed(trial, message.restored()))
                case Raised():
                    raise message.restored()
                case None:
                    yield from self._after_death(worker)
            self._hand_out()

    def stop(self) -> None:
        """Let idle workers end by themselves, so that what user code opened is closed."""
        for worker in self._workers.values():
            worker.stop()
        for worker in self._workers.values():
            worker.wait()

    def kill(self) -> None:
        """Kill every worker, and wait until it is gone."""
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            worker.close()

    def _hand_over_a_pause(self) -> None:
        if self._pause.ask():
            self._pending.clear()
            for worker in self._workers.values():
                worker.pause()

    def _start_missing(self) -> None:
        """Start workers while there is more to do than workers to come."""
        idle = sum(worker.unit is None for worker in self._workers.values())
        for _ in range(min(self._limit - len(self._workers), len(self._pending) - idle)):
            slot = next(i for i in count() if i not in self._workers)
            try:
                work = self._work[slot % len(self._work)]
                self._workers[slot] = WorkerProcess(slot, work, self._said)
            except OSError as error:
                self._go_on_with_fewer(f"The system refuses: {error}")

    def _go_on_with_fewer(self, why: str) -> None:
        """Train in the workers that there are: one more has no room beside them."""
        self._limit -= 1
        if self._limit == 0:
            raise RunError(f"No worker process can be started. {why}. Try --jobs 1.")

    def _hand_out(self) -> None:
        if self._pause.requested:
            return
        for worker in self._workers.values():
            if worker.is_ready and worker.unit is None and self._pending:
                unit = self._pending.popleft()
                worker.train(unit, self._take_state(unit.trials[0]))

    def _noted(self, worker: WorkerProcess, record: Record) -> Record:
        if isinstance(record, Started):
            self._begun.add(record.trial)
            if record.trial in self._deaths and record.again is None:
                record = replace(record, again=f"its worker {self._deaths[record.trial][-1]}")
            if record.trial not in worker.left:  # a stack that raised trains its ended trials again
                worker.left.append(record.trial)
        elif isinstance(record, Ended | Failed):
            worker.left.remove(record.trial)
        elif isinstance(record, Interrupted):
            worker.left = [trial for trial in worker.left if trial not in record.trials]
        return record

    def _after_death(self, worker: WorkerProcess) -> Iterator[Record]:
        """Give the trials that a worker had not ended another try, or up."""
        how = worker.how_it_ended()
        del self._workers[worker.slot]
        if not worker.is_ready:
            self._go_on_with_fewer(f"The last one {how}")
        for trial in worker.left if worker.unit else ():
            deaths = self._deaths.setdefault(trial, [])
            deaths.append(how)
            if len(deaths) < ATTEMPTS:
                # Alone, so that it takes no other trial down. One of a stack may then differ from
                # what the stack would have given in its last bits.
                self._pending.appendleft(Unit("sequential", (trial,)))
                continue
            if trial not in self._begun:
                yield Started(trial)
            yield Failed(trial, _died(trial, deaths))


def _died(trial: TrialId, deaths: Sequence[str]) -> WorkerDiedError:
    first, last = deaths[0], deaths[-1]
    how = f"{last}, twice" if first == last else f"{first}, and at the second try {last}"
    hint = ""
    if "SIGKILL" in last:
        hint = "; the usual reason is a lack of memory. Try fewer processes (--jobs)"
    elif "signal" in last:
        hint = "; the reason is a fault in compiled code"
    return WorkerDiedError(
        f"variant {trial.variant}, seed {trial.seed}: its worker process {how}{hint}."
    )
