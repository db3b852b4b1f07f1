"""Turning the records of an engine into the files of a run directory.

One checkpoint file is kept per unit. All trials of a stack lie in one file, so that they are always
at the same step. A trial that begins again is on its own from then on, and so are the others of its
stack: what the stack had saved counts no more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lrexp.errors import FailedTrialsError, LrexpError, UserCodeError, WorkerDiedError, user_error
from lrexp.records import (
    Checkpoint,
    Ended,
    Evaluation,
    Failed,
    Interrupted,
    NoCheckpoint,
    Record,
    Sink,
    Started,
    Steps,
    TrialId,
    Unit,
)
from lrexp.runs.checkpoint import Position, SavedUnit, save_checkpoint
from lrexp.runs.files import disk_errors, remove_directory
from lrexp.runs.remaining import CHECKPOINTS, Left, checkpoint_path
from lrexp.runs.writer import RunWriter, TrialWriter


class Checkpoints:
    """Writes and removes the checkpoint files of a run.

    Args:
        run: its directory.
        units: those to train. A trial of none of them is a unit of its own.
    """

    def __init__(self, run: Path, units: Iterable[Unit] = ()) -> None:
        self._run = run
        self._first: dict[TrialId, TrialId] = {}
        self._running: dict[TrialId, set[TrialId]] = {}
        for unit in units:
            running = set(unit.trials)
            for trial in unit.trials:
                self._first[trial], self._running[trial] = unit.trials[0], running

    def save(self, record: Checkpoint, positions: Mapping[TrialId, Position]) -> None:
        """Write a checkpoint in place of the unit's one before it."""
        first, running = self._first.get(record.trial, record.trial), set(record.trials)
        for trial in record.trials:  # those of a stack that fell apart were on their own before
            self._first[trial], self._running[trial] = first, running
        trials = {trial.name: position for trial, position in positions.items()}
        save_checkpoint(self._path(record.trial), SavedUnit(record.step, record.state, trials))

    def has(self, trial: TrialId) -> bool:
        """Return whether there is one to go on from."""
        return self._path(trial).is_file()

    def ended(self, trial: TrialId) -> None:
        """Note the end of a trial; the last one of a unit takes the file along."""
        unit = self._unit(trial)
        unit.discard(trial)
        if not unit:
            self._remove(trial)

    def begins_again(self, trial: TrialId) -> None:
        """Forget what the trial's unit had saved."""
        self._remove(trial)
        for member in {trial, *self._unit(trial)}:
            self._first[member], self._running[member] = member, {member}

    def clear(self) -> None:
        """Remove all: every trial has its result."""
        if (self._run / CHECKPOINTS).is_dir():
            remove_directory(self._run / CHECKPOINTS)

    def _unit(self, trial: TrialId) -> set[TrialId]:
        """Return the trials of its unit that have not ended; they share this set."""
        return self._running.setdefault(trial, {trial})

    def _path(self, trial: TrialId) -> Path:
        return checkpoint_path(self._run, self._first.get(trial, trial))

    def _remove(self, trial: TrialId) -> None:
        path = self._path(trial)
        with disk_errors(path):
            path.unlink(missing_ok=True)


HIGHER_IS_BETTER = {"val_accuracy"}


class Recorder:
    """Writes each record where it belongs; one `TrialWriter` per running trial.

    A trial that starts a second time (its worker died, say) begins anew, and so do its files.

    Args:
        run: the run's writer.
        stop_is_outcome: whether an early stop means divergence (a comparison) or is how the
            trial normally ends (a range test).
        loss_digits: significant digits of a loss in steps.csv.
        left: of a run that is resumed: which trials are done, and where others go on.
    """

    def __init__(
        self,
        run: RunWriter,
        *,
        stop_is_outcome: bool,
        loss_digits: int,
        left: Left | None = None,
    ) -> None:
        left = left or Left(())
        self.failures: dict[TrialId, LrexpError] = {}
        self._run, self._stop_is_outcome, self._digits = run, stop_is_outcome, loss_digits
        self._checkpoints = Checkpoints(run.directory.absolute(), left.units)
        self._going_on = left.positions
        self._writers: dict[TrialId, TrialWriter] = {}
        self._values: dict[TrialId, _Values] = {}
        self._outcomes: dict[TrialId, str | None] = dict(left.outcomes)  # None while it runs
        self._unsaved: dict[TrialId, str] = {}  # why there is no checkpoint

    def write_all(self, records: Iterable[Record], shown: Sink) -> None:
        """Write every record, and show it."""
        try:
            for record in records:
                self.write(record)
                shown(record)
        finally:
            for writer in self._writers.values():
                writer.close()

    def has_ended(self, trials: Iterable[TrialId]) -> bool:
        """Return whether all these trials have an outcome."""
        return all(self._outcomes.get(trial) is not None for trial in trials)

    @property
    def begin_anew(self) -> dict[str, str]:
        """Why trials that have begun would begin anew: no checkpoint could be taken of them."""
        return {
            trial.name: why
            for trial, why in self._unsaved.items()
            if self._outcomes.get(trial) is None and not self._checkpoints.has(trial)
        }

    def clear_checkpoints(self) -> None:
        """Remove all checkpoints: every trial has its result."""
        self._checkpoints.clear()

    def raise_failures(self, run: Path) -> None:
        """Raise one FailedTrialsError that lists every failed trial, if there is one."""
        if self.failures:
            lines = "\n".join(dict.fromkeys(map(str, self.failures.values())))
            count = (
                f"{len(self.failures)} of {len(self._outcomes)} trials failed. The run is in {run}."
            )
            raise FailedTrialsError(f"{lines}\n{count}", run) from next(
                iter(self.failures.values())
            )

    def write(self, record: Record) -> None:
        """Write one record."""
        trial = record.trial
        match record:
            case Started():
                self._start(record)
            case Steps():
                self._writers[trial].steps(record.first, record.epoch, record.lr, record.loss)
                self._values[trial].step(record)
            case Evaluation():
                self._writers[trial].evaluation(record.step, record.epoch, record.values)
                self._values[trial].evaluation(record)
            case Ended():
                diverged = self._stop_is_outcome and record.stopped_at is not None
                self._end(trial, "diverged" if diverged else "finished", _ending(record))
            case Failed():
                error = self.failures[trial] = readable_error(record)
                facts = {"steps": self._values[trial].steps, "error": str(error)}
                self._end(trial, "failed", facts)
            case Checkpoint():
                self._save(record)
            case NoCheckpoint() | Interrupted():
                self._go_without(record)

    def _start(self, record: Started) -> None:
        trial = record.trial
        directory = self._run.trial_directory(trial.variant, trial.seed)
        going_on = self._going_on.pop(trial, None)
        if going_on is None or record.again is not None:
            going_on = None
            self._clear(record, directory)
        self._run.require_directory()
        self._writers[trial] = TrialWriter(
            directory, loss_digits=self._digits, sizes=None if going_on is None else going_on.sizes
        )
        self._values[trial] = _Values() if going_on is None else _Values(**going_on.values)
        self._outcomes[trial] = None

    def _clear(self, record: Started, directory: Path) -> None:
        """Remove what an earlier try of a trial left, in this process or in one before."""
        trial = record.trial
        if trial in self._outcomes or record.again is not None:
            self._checkpoints.begins_again(trial)
            if trial in self._writers:
                self._writers.pop(trial).close()
            self.failures.pop(trial, None)
        if directory.exists():
            remove_directory(directory)

    def _save(self, record: Checkpoint) -> None:
        """Write a checkpoint: first what it counts on, then itself."""
        self._run.require_ours()  # a take-over, while this process was suspended
        positions = {
            trial: Position(self._writers[trial].sync(), asdict(self._values[trial]))
            for trial in record.trials
        }
        self._checkpoints.save(record, positions)

    def _go_without(self, record: NoCheckpoint | Interrupted) -> None:
        """Note why there is no checkpoint, if so; nothing more comes of what was interrupted."""
        if record.why is not None:
            self._unsaved |= dict.fromkeys(record.trials, record.why)
        if isinstance(record, Interrupted):
            for paused in record.trials:
                if paused in self._writers:
                    self._writers.pop(paused).close()

    def _end(self, trial: TrialId, outcome: str, facts: Mapping[str, Any]) -> None:
        values = self._values.pop(trial)
        final = {} if outcome != "finished" else values.final
        self._writers[trial].result(
            {
                "variant": trial.variant,
                "seed": trial.seed,
                "outcome": outcome,
                **facts,
                "final": final,
                "best": values.best,
            }
        )
        self._writers.pop(trial).close()
        self._checkpoints.ended(trial)
        self._outcomes[trial] = outcome
        self._run.note_counts(Counter(filter(None, self._outcomes.values())))


def readable_error(record: Failed) -> UserCodeError | WorkerDiedError:
    """Return why a trial failed, with the trial, and the file and line of the user's code."""
    error, trial = record.error, record.trial
    if isinstance(error, UserCodeError | WorkerDiedError):
        return error
    readable = user_error(error, f"variant {trial.variant}, seed {trial.seed}")
    readable.__cause__ = error
    return readable


@dataclass
class _Values:
    """Final and best measures of one trial, and its steps."""

    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def step(self, chunk: Steps) -> None:
        self.steps = chunk.first + len(chunk.loss)
        if chunk.loss:
            self.final["loss"] = chunk.loss[-1]

    def evaluation(self, record: Evaluation) -> None:
        for name, value in record.values.items():
            if record.step == 0 and not math.isfinite(value):
                continue  # no training loss before training
            self.final[name] = value
            choose = max if name in HIGHER_IS_BETTER else min
            known = [v for v in (self.best.get(name), value) if v is not None and math.isfinite(v)]
            if known:
                self.best[name] = choose(known)


def _ending(record: Ended) -> dict[str, Any]:
    speed = record.steps / record.seconds if record.seconds else None
    return {
        "steps": record.steps,
        "stopped_at": record.stopped_at,
        "seconds": round(record.seconds, 6),
        "steps_per_second": None if speed is None else round(speed, 3),
    }
