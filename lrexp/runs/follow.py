"""The records of trials that other processes train, read from their files as these grow.

Workers need no channel to who started them: their folders say all there is to say. So sinks get
the same records whether a trial is trained here, in another process or on another machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lrexp.engine.stop import Pause
from lrexp.errors import LrexpError, UserCodeError, WorkerDiedError
from lrexp.records import Ended, Evaluation, Failed, Group, Record, Started, Steps, Trial, TrialId
from lrexp.runs.checkpoint import Position, Remaining, again_path
from lrexp.runs.executor import Executor, StopSignal
from lrexp.runs.files import find_json, find_text, trial_path

MOST_REASON = 10_000  # bytes of why a trial began again
POLL_SECONDS = 0.1  # between two looks at the files
MOST_SECONDS = 2.0  # where there are many files, or a slow disk
_LOOKS = 10.0  # times as long as a look takes is until the next one


def followed(
    executor: Executor,
    run: Path,
    trials: Sequence[Trial],
    groups: Sequence[Group],
    *,
    left: Remaining,
    pause: Pause,
) -> Generator[Record, None, None]:
    """Let an executor train groups, and yield the records of `trials` as the files show them.

    A requested pause ends the training at a checkpoint; closing the generator kills the workers.
    """
    signal = StopSignal(pause.ask)
    follower = Follower(run, trials, left, getattr(executor, "deaths", {}))  # before they start
    with ThreadPoolExecutor(1, "lrexp-executor") as pool:
        training = pool.submit(executor.run, run, groups, signal)
        try:
            yield from follower.records(training.done)
            training.result()
        except BaseException:
            signal.at_once = True
            raise


class Follower:
    """Reads the records of trials from their files.

    It gives each step of a trial once. One that begins again, for the process that trained it has
    died, say, is `Started` again, and then all its records come anew from the first. It is made
    before anything is trained; `deaths` grows by a sentence where a process dies at a trial.
    """

    def __init__(
        self,
        run: Path,
        trials: Sequence[Trial],
        left: Remaining,
        deaths: Mapping[TrialId, Sequence[str]],
    ) -> None:
        positions, begun = left.positions, left.begun
        self._waiting = [
            _TrialReader(
                trial.id,
                trial_path(run, trial.id.variant, trial.id.seed),
                (positions[trial.id], begun[trial.id]) if trial.id in positions else None,
                deaths,
                again_path(run, trial.id),
            )
            for trial in trials
        ]

    def records(self, is_over: Callable[[], bool]) -> Iterator[Record]:
        """Yield them until every trial has ended, or `is_over` says that nobody writes any more."""
        while self._waiting:
            begin = time.monotonic()
            is_last = is_over()  # before the look: what is written after it is seen by the next one
            found = [record for reader in self._waiting for record in reader.news()]
            self._waiting = [reader for reader in self._waiting if not reader.has_ended]
            looked = time.monotonic() - begin
            yield from found
            if is_last:
                return
            time.sleep(max(POLL_SECONDS, min(looked * _LOOKS, MOST_SECONDS)))


class _TrialReader:
    """Reads what is new in the files of one trial."""

    def __init__(
        self,
        trial: TrialId,
        folder: Path,
        begun: tuple[Position, int] | None,
        deaths: Mapping[TrialId, Sequence[str]],
        again: Path,
    ) -> None:
        self.trial, self._folder, self._deaths = trial, folder, deaths
        self.has_ended, self._again = False, again
        position, step = begun or (Position({}), 0)
        self._steps = _Rows(folder / "steps.csv", position.sizes.get("steps.csv", 0), step)
        self._evals = _Rows(folder / "evals.csv", position.sizes.get("evals.csv", 0))
        self._result = folder / "result.json"
        self._seen = _state(self._steps.path)  # of an earlier process
        self._has_begun, self._known_deaths = False, 0

    def news(self) -> Iterator[Record]:
        """Yield the records of what was written since the last call."""
        deaths = self._deaths.get(self.trial, ())  # before the result: the last one comes after it
        is_over = self._result.exists()  # before the rows: then all of them are there
        state = _state(self._steps.path)
        has_died = len(deaths) > self._known_deaths and not is_over
        if state == self._seen and not (is_over or has_died):
            return
        self._seen, self._known_deaths = state, len(deaths)
        is_anew = not all([self._steps.fetch(is_over), self._evals.fetch(is_over)])
        if is_anew or has_died:
            self._steps, self._evals = _Rows(self._steps.path, step=0), _Rows(self._evals.path)
            self._steps.fetch(is_over)  # in this order: an evaluation waits for the steps before it
            self._evals.fetch(is_over)
        if not self._has_begun or is_anew or has_died:
            yield Started(self.trial, self._why_again(deaths if has_died else ()))
        self._has_begun = True
        yield from self._rows()
        if is_over and (result := find_json(self._result)) is not None:
            self.has_ended = True
            yield _ending(self.trial, result)

    def _why_again(self, deaths: Sequence[str]) -> str | None:
        """Return why a trial begins again, None where it begins."""
        if deaths:
            return f"its worker {deaths[-1]}"
        told = find_text(self._again, MOST_REASON)
        return told or ("it was begun anew" if self._has_begun else None)

    def _rows(self) -> Iterator[Record]:
        """Yield steps, and each evaluation after the steps that came before it."""
        steps = self._steps.take()
        for number, epoch, *values in self._evals.take(self._steps.next):
            before = [row for row in steps if row[0] < number]
            steps = steps[len(before) :]
            if before:
                yield self._chunk(before)
            measures = dict(zip(self._evals.names[2:], values, strict=True))
            yield Evaluation(self.trial, int(number), epoch, measures)
        if steps:
            yield self._chunk(steps)

    def _chunk(self, rows: Sequence[Sequence[float]]) -> Steps:
        step, epoch, lr, loss, *more = (list(column) for column in zip(*rows, strict=True))
        named = dict(zip(self._steps.names[4:], more, strict=True))
        return Steps(self.trial, int(step[0]), [int(e) for e in epoch], lr, loss, named)


class _Rows:
    """The rows of a CSV file that is appended to, each with its step in front.

    A last line without an end waits. So does a file that was cut: a process that goes on from a
    checkpoint writes the same rows again. Rows begin at `offset`, 0 is behind the header; `step` is
    the first one of a file with a row per step, None where steps are left out.
    """

    def __init__(self, path: Path, offset: int = 0, step: int | None = None) -> None:
        self.path, self.names = path, list[str]()
        self.next = step or 0  # the step that a next row may have
        self._is_dense, self._offset = step is not None, offset
        self._inode = _inode(path) if offset else None
        self._rows: list[list[float]] = []

    def fetch(self, is_over: bool) -> bool:
        """Take in what was appended; False where the file does not go on from what was read."""
        try:
            data = self._appended(is_over)
            rows = [list(map(float, line.split(b","))) for line in data.splitlines()]
            self._check(rows)
        except FileNotFoundError:
            return True
        except ValueError:
            return False
        self._offset += len(data)
        self._rows += rows
        self.next = int(rows[-1][0]) + 1 if rows else self.next
        return True

    def _appended(self, is_over: bool) -> bytes:
        """Return whole lines; another file than before is a ValueError."""
        with self.path.open("rb") as file:
            found = os.fstat(file.fileno())
            if self._inode not in (None, found.st_ino) or found.st_size < self._offset * is_over:
                raise ValueError
            header = file.readline()
            if not header.endswith(b"\n"):
                return b""
            self.names, self._inode = header.decode().strip().split(","), found.st_ino
            self._offset = max(self._offset, len(header))
            file.seek(self._offset)
            data = file.read()
        return data[: data.rfind(b"\n") + 1]

    def _check(self, rows: Sequence[Sequence[float]]) -> None:
        """Refuse rows that do not follow: an inode may be that of a file which was removed."""
        if any(len(row) != len(self.names) for row in rows):
            raise ValueError
        if rows and (rows[0][0] != self.next if self._is_dense else rows[0][0] < self.next):
            raise ValueError

    def take(self, reached: int | None = None) -> list[list[float]]:
        """Return the rows up to a step, or all; each once."""
        count = sum(reached is None or row[0] <= reached for row in self._rows)
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken


def _ending(trial: TrialId, result: dict[str, Any]) -> Ended | Failed:
    if result.get("outcome") == "failed":
        return Failed(trial, _error(result))
    stopped, seconds = result.get("stopped_at"), result.get("seconds") or 0.0
    steps, cause = int(result.get("steps", 0)), str(result.get("cause") or "")
    return Ended(trial, steps, stopped, float(seconds), cause)


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
