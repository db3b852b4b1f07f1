"""The records of trials that other processes train, read from their files as these grow.

Workers need no channel to who started them: their folders say all there is to say. So sinks get
the same records whether a trial is trained here, in another process or on another machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lrexp.engine.stop import Pause
from lrexp.errors import LrexpError, UserCodeError, WorkerDiedError
from lrexp.records import (
    Ended,
    Evaluation,
    Failed,
    Record,
    Started,
    Steps,
    Trial,
    TrialId,
    Unit,
)
from lrexp.runs.executor import Executor, StopSignal
from lrexp.runs.files import find_json, trial_path
from lrexp.runs.remaining import Remaining

POLL_SECONDS = 0.1  # between two looks at the files


def followed(
    executor: Executor,
    run: Path,
    trials: Sequence[Trial],
    groups: Sequence[Unit],
    *,
    left: Remaining,
    pause: Pause,
) -> Generator[Record, None, None]:
    """Let an executor train groups, and yield their records as the files show them.

    Args:
        executor: starts the workers.
        run: the run directory.
        trials: those that have no result yet.
        groups: all that they belong to.
        left: where those in a checkpoint go on.
        pause: ends the training when it is requested; closing the generator kills the workers.

    Raises:
        LrexpError: no worker could train.
    """
    signal = StopSignal(pause.ask)
    with ThreadPoolExecutor(1, "lrexp-executor") as pool:
        training = pool.submit(executor.run, run, groups, signal)
        try:
            for record in follow(run, trials, left, training.done):
                yield _explained(record, executor)
        finally:
            signal.at_once = not training.done()
        training.result()


def _explained(record: Record, executor: Executor) -> Record:
    """Return a record with the reason why its trial begins again."""
    deaths = executor.deaths.get(record.trial)
    if isinstance(record, Started) and deaths:
        return Started(record.trial, f"its worker {deaths[-1]}")
    return record


def follow(
    run: Path, trials: Sequence[Trial], left: Remaining, is_over: Callable[[], bool]
) -> Iterator[Record]:
    """Yield the records of trials until nobody trains them any more.

    Args:
        run: the run directory.
        trials: those that have no result yet.
        left: where those in a checkpoint go on.
        is_over: returns whether nothing is written any more.
    """
    positions = left.positions
    waiting = [
        _TrialReader(trial.id, trial_path(run, trial.id.variant, trial.id.seed), positions)
        for trial in trials
    ]
    while True:
        is_last = is_over()  # before the look: what is written after it is seen by the next one
        for reader in tuple(waiting):
            yield from reader.news()
            if reader.has_ended:
                waiting.remove(reader)
        if is_last or not waiting:
            return
        time.sleep(POLL_SECONDS)


class _TrialReader:
    """Reads what is new in the files of one trial."""

    def __init__(self, trial: TrialId, folder: Path, positions: Any) -> None:
        self.trial, self._folder = trial, folder
        self.has_ended = False
        self._position = positions.get(trial)
        self._was = _state(folder / "steps.csv")  # of an earlier process: not followed
        self._steps: _Rows | None = None
        self._evals: _Rows | None = None

    def news(self) -> Iterator[Record]:
        """Yield the records of what was written since the last call."""
        result = find_json(self._folder / "result.json")
        state = _state(self._folder / "steps.csv")
        if state is None or state == self._was:
            return
        if self._steps is None or self._steps.was_replaced():
            yield from self._begin(again=self._steps is not None)
        assert self._steps is not None
        assert self._evals is not None
        yield from self._rows(self._steps, self._evals)
        if result is not None and not self.has_ended:
            self.has_ended = True
            yield _ending(self.trial, result)

    def _begin(self, *, again: bool) -> Iterator[Record]:
        sizes = {} if again or self._position is None else self._position.sizes
        self._steps = _Rows(self._folder / "steps.csv", sizes.get("steps.csv", 0))
        self._evals = _Rows(self._folder / "evals.csv", sizes.get("evals.csv", 0))
        yield Started(self.trial, "its worker ended" if again else None)

    def _rows(self, steps: _Rows, evals: _Rows) -> Iterator[Record]:
        """Yield steps, and each evaluation after the steps that came before it."""
        rows = [(int(s), int(e), float(lr), float(x)) for s, e, lr, x in steps.new()]
        for row in evals.new():
            step = int(row[0])
            before = [r for r in rows if r[0] < step]
            rows = rows[len(before) :]
            if before:
                yield self._chunk(before)
            values = dict(zip(evals.names[2:], map(float, row[2:]), strict=True))
            yield Evaluation(self.trial, step, float(row[1]), values)
        if rows:
            yield self._chunk(rows)

    def _chunk(self, rows: Sequence[tuple[int, int, float, float]]) -> Steps:
        step, epoch, lr, loss = (list(column) for column in zip(*rows, strict=True))
        return Steps(self.trial, int(step[0]), [int(e) for e in epoch], lr, loss)


class _Rows:
    """The rows of a CSV file that is appended to; a last line without an end waits."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path, self._offset = path, offset
        self._inode = _inode(path)
        self.names: list[str] = []

    def was_replaced(self) -> bool:
        """Return whether another file lies there now: its trial has begun again."""
        return _inode(self._path) not in (None, self._inode)

    def new(self) -> list[list[str]]:
        """Return the cells of the rows that were not returned yet."""
        try:
            with self._path.open("rb") as file:
                if not self.names:
                    header = file.readline()
                    if not header.endswith(b"\n"):
                        return []
                    self.names = header.decode().strip().split(",")
                    self._offset = max(self._offset, len(header))
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = [line.split(",") for line in whole.decode().splitlines()]
        return [row for row in rows if len(row) == len(self.names)]


def _ending(trial: TrialId, result: dict[str, Any]) -> Ended | Failed:
    if result.get("outcome") == "failed":
        return Failed(trial, _error(result))
    stopped, seconds = result.get("stopped_at"), result.get("seconds") or 0.0
    return Ended(trial, int(result.get("steps", 0)), stopped, float(seconds))


def _error(result: dict[str, Any]) -> LrexpError:
    """Return the error that a trial failed with, with the worker's traceback as its cause."""
    text, kind = str(result.get("error")), str(result.get("error_kind"))
    error: LrexpError
    if kind == WorkerDiedError.__name__:
        error = WorkerDiedError(text)
    else:
        error = UserCodeError(text)
        error.kind = kind
    error.__cause__ = WorkerTraceback(f"\n{result.get('traceback', '')}")
    return error


class WorkerTraceback(Exception):  # noqa: N818  # it only carries a text
    """Where an exception came from in a worker process, as text."""


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
