"""Keeping one checkpoint file per unit while a run goes on.

All trials of a stack lie in one file, named after the first of them, so that they are always at
the same step. A trial that begins again is on its own from then on, and so are the others of its
stack: what the stack had saved counts no more. Trials that are saved together belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lrexp.engine import Checkpoint, TrialId, Unit
from lrexp.left import CHECKPOINTS, checkpoint_path
from lrexp.store import Position, SavedUnit, save_checkpoint
from lrexp.store.files import disk_errors, remove_directory


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
