"""Training in worker processes: units go out, records come back; only this process writes files.

Not `multiprocessing`: its children import the caller's main module again, which breaks a script
without a guard and cannot work in a notebook. A worker that dies takes only its unit down, and the
trials of that unit get one more try, each alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from lrexp.engine import Ended, Failed, Interrupted, Pause, Record, Started, TrialId, Unit
from lrexp.errors import RunError, WorkerDiedError
from lrexp.order import Order
from lrexp.workers.messages import Raised, Ready, Recorded, Saved, Work
from lrexp.workers.process import WorkerProcess
from lrexp.workers.sendable import packed
from lrexp.workers.worker import torch_flags

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
