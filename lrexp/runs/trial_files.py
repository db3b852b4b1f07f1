"""The sink that writes the folders of trials: curves, results and checkpoints.

One process writes a trial's folder: the one that trains it. All trials of a stack share one
checkpoint, so that they are always at the same step. A trial that begins again is on its own from
then on, and so are the others of its stack: what the stack had saved counts no more.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lrexp.errors import LrexpError, UserCodeError, WorkerDiedError, user_error
from lrexp.records import (
    METRICS,
    Checkpoint,
    Direction,
    Ended,
    Evaluation,
    Failed,
    Interrupted,
    NoCheckpoint,
    Record,
    Started,
    Steps,
    Trial,
    TrialId,
)
from lrexp.runs.checkpoint import (
    Position,
    Remaining,
    SavedGroup,
    again_path,
    checkpoint_path,
    remove_checkpoint,
    save_checkpoint,
)
from lrexp.runs.files import disk_errors, remove_directory, trial_path, write_whole
from lrexp.runs.writer import TrialWriter

DIRECTIONS = {name: m.direction for name, m in METRICS.items() if m.direction is not None}
MOST_TRACE = 20_000  # characters of a traceback, its end


class TrialFiles:
    """Writes each record of a group where it belongs; `close` it in the end.

    A trial that starts a second time (its stack raised, say) begins anew, and so do its files. A
    loss in steps.csv has so many significant `digits`; `require_ours` raises where the folders have
    become another process's. `directions` says of metrics which values are better, `hardware` on
    what kind of machine this process trains.
    """

    def __init__(
        self,
        run: Path,
        trials: Iterable[Trial],
        remaining: Remaining,
        *,
        digits: int = 9,
        require_ours: Callable[[], None] = lambda: None,
        directions: Mapping[str, Direction] = DIRECTIONS,
        hardware: str | None = None,
    ) -> None:
        self._hardware = hardware
        self._run = run.absolute()  # user code may change the working directory
        self._trials = {trial.id: trial for trial in trials}
        self._digits, self._require_ours = digits, require_ours
        self._directions = directions
        self._going_on = dict(remaining.positions)
        self._first: dict[TrialId, TrialId] = {}  # of the group that a trial belongs to
        self._running: dict[TrialId, set[TrialId]] = {}  # those of its group, which share the set
        for group in remaining.groups:
            self._belong_together(group.trials, remaining.files.get(group.trials[0]))
        self._writers: dict[TrialId, TrialWriter] = {}
        self._values: dict[TrialId, _Values] = {}

    def __call__(self, record: Record) -> None:
        """Write one record; RunError where the run is another process's by now."""
        trial = record.trial
        match record:
            case Started():
                self._start(record)
            case Steps():
                columns = (record.epoch, record.lr, record.loss, record.more)
                self._writers[trial].steps(record.first, *columns)
                self._values[trial].step(record)
            case Evaluation():
                self._writers[trial].evaluation(record.step, record.epoch, record.values)
                self._values[trial].evaluation(record, self._directions)
            case Ended():
                diverged = record.stopped_at is not None and self._trials[trial].is_training
                self._end(trial, "diverged" if diverged else "finished", _ending(record))
            case Failed():
                self._end(trial, "failed", failure(record.error, trial))
            case Checkpoint():
                self._save(record)
            case Interrupted() | NoCheckpoint():  # what has no checkpoint begins anew
                pass

    def close(self) -> None:
        """Close the files of trials that have not ended."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _start(self, record: Started) -> None:
        trial = record.trial
        directory = trial_path(self._run, trial.variant, trial.seed)
        going_on = self._going_on.pop(trial, None)
        self._require_ours()
        if record.again is not None:
            going_on = None
            self._begin_again(trial, record.again)
        if going_on is None and directory.exists():  # of an earlier try, here or elsewhere
            remove_directory(directory)
        sizes = None if going_on is None else going_on.sizes
        self._writers[trial] = TrialWriter(directory, loss_digits=self._digits, sizes=sizes)
        self._values[trial] = _Values() if going_on is None else _Values(**going_on.values)

    def _begin_again(self, trial: TrialId, why: str) -> None:
        """Forget what there is of a trial, and note why for whoever follows its files."""
        if trial in self._writers:
            self._writers.pop(trial).close()
        self._remove_checkpoint(trial)
        for member in self._group(trial) | {trial}:
            self._belong_together((member,))
        path = again_path(self._run, trial)
        with disk_errors(path.parent):
            path.parent.mkdir(exist_ok=True)
        write_whole(path, why)

    def _save(self, record: Checkpoint) -> None:
        """Write a checkpoint: first what it counts on, then itself."""
        self._require_ours()  # a take-over, while this process was suspended
        first = self._first.get(record.trial, record.trial)
        self._belong_together(record.trials, first)  # those of a stack that fell apart did not
        positions = {
            trial.name: Position(self._writers[trial].sync(), asdict(self._values[trial]))
            for trial in record.trials
        }
        path = checkpoint_path(self._run, first)
        save_checkpoint(path, SavedGroup(record.step, record.state, positions))

    def _end(self, trial: TrialId, outcome: str, facts: Mapping[str, Any]) -> None:
        values = self._values.pop(trial)
        facts = {"steps": values.steps, **facts}
        final = {} if outcome != "finished" else values.final
        self._require_ours()
        self._writers[trial].result(
            {
                "variant": trial.variant,
                "seed": trial.seed,
                "kind": self._trials[trial].kind,
                "outcome": outcome,
                **facts,
                "final": final,
                "best": values.best,
                "best_step": values.best_step,
                "best_epoch": values.best_epoch,
                "hardware": self._hardware,
            }
        )
        self._writers.pop(trial).close()
        group = self._group(trial)
        group.discard(trial)
        if not group:  # the last one takes the file along
            self._remove_checkpoint(trial)

    def _belong_together(self, trials: Iterable[TrialId], first: TrialId | None = None) -> None:
        members = set(trials)
        first = first or next(iter(trials))
        for trial in members:
            self._first[trial], self._running[trial] = first, members

    def _group(self, trial: TrialId) -> set[TrialId]:
        return self._running.setdefault(trial, {trial})

    def _remove_checkpoint(self, trial: TrialId) -> None:
        remove_checkpoint(self._run, self._first.get(trial, trial))


def failure(error: BaseException, trial: TrialId) -> dict[str, Any]:
    """Return what result.json says of why a trial failed."""
    readable = readable_error(error, trial)
    kind = readable.kind if isinstance(readable, UserCodeError) else type(readable).__name__
    trace = "".join(traceback.format_exception(error)).rstrip()
    return {"error": str(readable), "error_kind": kind, "traceback": trace[-MOST_TRACE:]}


def readable_error(error: BaseException, trial: TrialId) -> LrexpError:
    """Return why a trial failed, with the trial, and the file and line of the user's code."""
    if isinstance(error, UserCodeError | WorkerDiedError):
        return error
    readable = user_error(error, f"variant {trial.variant}, seed {trial.seed}")
    readable.__cause__ = error
    return readable


@dataclass
class _Values:
    """Final and best measures of one trial, where the best were first reached, and its steps."""

    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: dict[str, int] = field(default_factory=dict)
    best_epoch: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def step(self, chunk: Steps) -> None:
        self.steps = chunk.first + len(chunk.loss)
        if chunk.loss:
            self.final["loss"] = chunk.loss[-1]

    def evaluation(self, record: Evaluation, directions: Mapping[str, Direction]) -> None:
        for name, value in record.values.items():
            if record.step == 0 and not math.isfinite(value):
                continue  # no training loss before training
            self.final[name] = value
            if name not in directions or not math.isfinite(value):
                continue
            sign = 1 if directions[name] == "min" else -1
            if name not in self.best or sign * value < sign * self.best[name]:
                self.best[name] = value
                self.best_step[name], self.best_epoch[name] = record.step, record.epoch


def _ending(record: Ended) -> dict[str, Any]:
    speed = record.steps / record.seconds if record.seconds else None
    return {
        "steps": record.steps,
        "stopped_at": record.stopped_at,
        "seconds": round(record.seconds, 6),
        "steps_per_second": None if speed is None else round(speed, 3),
        **({"cause": record.cause} if record.cause else {}),
    }
