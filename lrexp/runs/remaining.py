"""What is left to do of a run that was interrupted, and what it goes on from.

A trial with a result is done. Of the others, those in a checkpoint go on from there, if their CSV
files still hold what they held then; the rest begin anew, which gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lrexp.analysis.race import entrant_of
from lrexp.engine.choice import Choice
from lrexp.engine.engines import ENGINES
from lrexp.errors import RunError
from lrexp.records import TrialId, Unit
from lrexp.runs.checkpoint import Position, SavedUnit, load_checkpoint
from lrexp.runs.files import disk_errors, find_json, read_json, trial_path
from lrexp.runs.reader import UNTRAINED, TrialRecord

DONE = ("finished", "diverged")
CHECKPOINTS = "checkpoints"
RACE = "race.json"


@dataclass(frozen=True)
class Left:
    """What is left to do of a run.

    Args:
        units: in order, without the trials that are done.
        saved: checkpoints, by the first trial of the unit that goes on from each.
        outcomes: of the trials that are done.
        files: of the checkpoints, by the same trials as `saved`.
    """

    units: tuple[Unit, ...]
    saved: dict[TrialId, SavedUnit] = field(default_factory=dict)
    outcomes: Mapping[TrialId, str] = field(default_factory=dict)
    files: Mapping[TrialId, Path] = field(default_factory=dict)

    @property
    def trials(self) -> tuple[TrialId, ...]:
        """All trials that are not done."""
        return tuple(trial for unit in self.units for trial in unit.trials)

    @property
    def begun(self) -> dict[TrialId, int]:
        """The step at which each trial of a checkpoint goes on."""
        going_on = [unit for unit in self.units if unit.trials[0] in self.saved]
        return {t: self.saved[unit.trials[0]].step for unit in going_on for t in unit.trials}

    @property
    def positions(self) -> dict[TrialId, Position]:
        """How far the files of each trial of a checkpoint were."""
        going_on = [unit for unit in self.units if unit.trials[0] in self.saved]
        return {
            trial: self.saved[unit.trials[0]].trials[trial.name]
            for unit in going_on
            for trial in unit.trials
        }

    def take_state(self, first: TrialId) -> Mapping[str, Any] | None:
        """Return the engine's state of the unit that begins with a trial, and keep it no longer.

        None where that unit begins anew. Where the files of its trials were is known on.
        """
        saved = self.saved.get(first)
        if saved is None or not saved.state:  # none, or taken by a worker that has died
            return None
        self.saved[first] = replace(saved, state={})
        return saved.state

    def __str__(self) -> str:
        done, going_on = len(self.outcomes), len(self.begun)
        begin = len(self.trials) - going_on
        parts = [
            _counted(done, "trial is done", "trials are done"),
            _counted(going_on, "goes on from a checkpoint", "go on from a checkpoint"),
            _counted(begin, "begins", "begin"),
        ]
        return ", ".join(filter(None, parts))


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}" if count else ""


def checkpoint_path(run: Path, first: TrialId) -> Path:
    """Return the file of the unit that begins with this trial."""
    return run / CHECKPOINTS / f"{first.variant}-seed-{first.seed}.pt"


def read_units(run: Path, known: Collection[TrialId]) -> tuple[list[Unit], int]:
    """Return the units and the number of jobs that engine.json names.

    Raises:
        RunError: it is damaged, or names trials that the config does not have.
    """
    path = run / "engine.json"
    plain = read_json(path)
    try:
        choice = _choice(plain)
        if sorted(_trials(choice.units)) != sorted(known):
            raise ValueError("its trials are not those of the config")
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: is damaged: {error}. Run the config anew.") from error
    return list(choice.units), choice.jobs


def again_untrained(run: Path, units: Iterable[Unit]) -> list[Unit]:
    """Return the units of a second look at range tests, once that has begun."""
    return untrained_units(units) if (run / "trials" / UNTRAINED).is_dir() else []


def untrained_units(units: Iterable[Unit]) -> list[Unit]:
    """Return the units in which the batches of range tests are run once more: as they were."""
    return [
        replace(u, trials=tuple(replace(t, variant=UNTRAINED) for t in u.trials)) for u in units
    ]


def read_rungs(run: Path) -> list[Choice]:
    """Return how each rung of a race that has begun is trained; none without a race.

    Raises:
        RunError: race.json is damaged.
    """
    path = run / RACE
    plain = find_json(path)
    if plain is None:
        return []
    try:
        choices = [_choice(rung["engine"]) for rung in plain["rungs"]]
        named = [trial for choice in choices for trial in _trials(choice.units)]
        if len(set(named)) < len(named) or not all(entrant_of(t.variant) for t in named):
            raise ValueError("its trials are not those of a race")
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: is damaged: {error}. Run the config anew.") from error
    return choices


def _choice(plain: Mapping[str, Any]) -> Choice:
    """Return the choice that `Choice.to_plain` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
    """
    units = tuple(
        Unit(str(unit["engine"]), tuple(TrialId.of(str(name)) for name in unit["trials"]))
        for unit in plain["units"]
    )
    if any(unit.engine not in ENGINES for unit in units):
        raise ValueError("it names an engine that does not exist")
    if int(plain["jobs"]) < 1:
        raise ValueError("it names no processes")
    reasons = tuple(str(reason) for reason in plain.get("reasons", ()))
    return Choice(units, int(plain["jobs"]), reasons, dict(plain.get("figures", {})))


def _trials(units: Iterable[Unit]) -> list[TrialId]:
    return [trial for unit in units for trial in unit.trials]


def read_left(run: Path, units: Iterable[Unit]) -> Left:
    """Return what is left to do of these units.

    Raises:
        RunError: a file is damaged.
    """
    units = list(units)
    trials = [trial for unit in units for trial in unit.trials]
    outcomes, failed = _outcomes(run, trials)
    waiting = [trial for trial in trials if trial not in outcomes and trial not in failed]
    saved, files, parts = {}, {}, []
    for path in sorted((run / CHECKPOINTS).glob("*.pt")):
        found = load_checkpoint(path)
        here = tuple(trial for trial in waiting if _is_at(run, trial, found))
        if here:
            saved[here[0]], files[here[0]] = found, path
            engine = str(found.state.get("engine"))
            begun_with = next(unit for unit in units if here[0] in unit.trials)
            parts.append(Unit(engine, here, _stack(begun_with, engine, here, outcomes)))
            waiting = [trial for trial in waiting if trial not in here]
    begin = {*waiting, *failed}
    for unit in units:
        fresh = tuple(trial for trial in unit.trials if trial in begin)
        if fresh:
            parts.append(Unit(unit.engine, fresh, _stack(unit, unit.engine, fresh, outcomes)))
    return Left(tuple(parts), saved, outcomes, files)


def _stack(
    unit: Unit, engine: str, left: Collection[TrialId], done: Collection[TrialId]
) -> tuple[TrialId, ...]:
    """Return `Unit.stack` of what is left of a unit: the trials that are done keep their rows."""
    if engine != "vectorized" or not any(trial in done for trial in unit.trials):
        return ()
    return tuple(trial for trial in unit.trials if trial in left or trial in done)


def tidy_checkpoints(run: Path, left: Left) -> None:
    """Name each checkpoint after the first trial that goes on from it; remove the others.

    Raises:
        RunError: the disk refuses.
    """
    for path in (run / CHECKPOINTS).glob("*.pt"):
        if path not in left.files.values():
            with disk_errors(path):
                path.unlink()
    for first, path in left.files.items():
        with disk_errors(path):
            path.replace(checkpoint_path(run, first))


def _outcomes(run: Path, trials: Iterable[TrialId]) -> tuple[dict[TrialId, str], set[TrialId]]:
    """Return the outcomes of trials that are done, and the trials that failed."""
    done, failed = {}, set()
    for trial in trials:
        path = trial_path(run, trial.variant, trial.seed)
        result = TrialRecord(trial.variant, trial.seed, path).result
        if result is not None and result.get("outcome") in DONE:
            done[trial] = str(result["outcome"])
        elif result is not None:
            failed.add(trial)
    return done, failed


def _is_at(run: Path, trial: TrialId, saved: SavedUnit) -> bool:
    """Return whether a checkpoint holds the trial, and the trial's files all they held then."""
    position = saved.trials.get(trial.name)
    if position is None or saved.state.get("engine") not in ENGINES:
        return False
    if not {"steps.csv"} <= set(position.sizes) <= {"steps.csv", "evals.csv"}:
        return False
    folder = trial_path(run, trial.variant, trial.seed)
    rows = {"steps.csv": int(position.values.get("steps", 0))}
    return all(_holds(folder / name, size, rows.get(name)) for name, size in position.sizes.items())


def _holds(path: Path, size: int, rows: int | None) -> bool:
    """Return whether a CSV file's first `size` bytes are whole lines: a header and so many rows."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size < size:
            return False
        with path.open("rb") as file:
            begin = file.read(size)
    except (OSError, ValueError, OverflowError, MemoryError):
        return False
    return begin.endswith(b"\n") and rows in (None, begin.count(b"\n") - 1)
