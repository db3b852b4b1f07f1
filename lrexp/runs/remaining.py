"""What is left to do of a run, and what it goes on from.

A trial with a result is done. Of the others, those in a checkpoint go on from there, if their CSV
files still hold what they held then; the rest begin anew, which gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lrexp.engine.engines import ENGINES
from lrexp.records import Group, TrialId
from lrexp.runs.checkpoint import (
    Position,
    SavedGroup,
    checkpoint_path,
    load_checkpoint,
    peek_checkpoint,
)
from lrexp.runs.files import disk_errors, remove_directory, trial_path
from lrexp.runs.reader import TrialRecord


@dataclass(frozen=True)
class Remaining:
    """What is left to do of some groups.

    Checkpoints, and the trials that their files are named after, are by the first trial of the
    group that goes on from each.
    """

    groups: tuple[Group, ...]  # in order, without the trials that are done
    saved: Mapping[TrialId, SavedGroup] = field(default_factory=dict)
    outcomes: Mapping[TrialId, str] = field(default_factory=dict)  # of those that have a result
    files: Mapping[TrialId, TrialId] = field(default_factory=dict)

    @property
    def trials(self) -> tuple[TrialId, ...]:
        """All trials that are not done."""
        return tuple(trial for group in self.groups for trial in group.trials)

    @property
    def begun(self) -> dict[TrialId, int]:
        """The step at which each trial of a checkpoint goes on."""
        return {trial: saved.step for trial, saved in self._going_on()}

    @property
    def positions(self) -> dict[TrialId, Position]:
        """How far the files of each trial of a checkpoint were."""
        return {trial: saved.trials[trial.name] for trial, saved in self._going_on()}

    def _going_on(self) -> Iterator[tuple[TrialId, SavedGroup]]:
        for group in self.groups:
            if (saved := self.saved.get(group.trials[0])) is not None:
                yield from ((trial, saved) for trial in group.trials)

    def __str__(self) -> str:
        done, going_on = len(self.outcomes), len(self.begun)
        begin = len(self.trials) - going_on
        parts = [
            (done, "trial is done", "trials are done"),
            (going_on, "goes on from a checkpoint", "go on from a checkpoint"),
            (begin, "begins", "begin"),
        ]
        return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in parts if n)


def read_remaining(
    run: Path, groups: Iterable[Group], load: Callable[[Path], SavedGroup] = load_checkpoint
) -> Remaining:
    """Return what is left to do of groups; `peek_checkpoint` loads where no tensor is needed."""
    groups = list(groups)
    outcomes = read_outcomes(run, [trial for group in groups for trial in group.trials])
    saved: dict[TrialId, SavedGroup] = {}
    files: dict[TrialId, TrialId] = {}
    parts = []
    for group in groups:
        waiting = [trial for trial in group.trials if trial not in outcomes]
        for name in group.trials:  # a file of its own where the group fell apart
            path = checkpoint_path(run, name)
            if not path.is_file():
                continue
            found = load(path)
            here = tuple(trial for trial in waiting if _is_at(run, trial, found))
            if here:
                saved[here[0]], files[here[0]] = found, name
                engine = str(found.state.get("engine"))
                parts.append(Group(engine, here, _stack(group, engine, here, outcomes)))
                waiting = [trial for trial in waiting if trial not in here]
        if waiting:
            fresh = tuple(waiting)
            parts.append(Group(group.engine, fresh, _stack(group, group.engine, fresh, outcomes)))
    return Remaining(tuple(parts), saved, outcomes, files)


def _stack(
    group: Group, engine: str, left: Collection[TrialId], done: Collection[TrialId]
) -> tuple[TrialId, ...]:
    """Return `Group.stack` of what is left of a group: trials that are done keep their rows."""
    if engine != "vectorized" or not any(trial in done for trial in group.trials):
        return ()
    return tuple(trial for trial in group.trials if trial in left or trial in done)


def read_outcomes(run: Path, trials: Iterable[TrialId]) -> dict[TrialId, str]:
    """Return the outcomes of the trials that have a result: finished, diverged or failed."""
    found = {}
    for trial in trials:
        path = trial_path(run, trial.variant, trial.seed)
        result = TrialRecord(trial.variant, trial.seed, path).result
        if result is not None:
            found[trial] = str(result.get("outcome"))
    return found


def forget_failed(run: Path, trials: Iterable[TrialId]) -> None:
    """Remove what trials that failed have left: they begin anew when a run is resumed."""
    for trial, outcome in read_outcomes(run, trials).items():
        if outcome not in ("finished", "diverged"):
            remove_directory(trial_path(run, trial.variant, trial.seed))
            path = checkpoint_path(run, trial)
            if path.is_file() and peek_checkpoint(path).trials.keys() <= {trial.name}:
                remove_checkpoint(run, trial)  # others of its stack may go on from it


def remove_checkpoint(run: Path, first: TrialId) -> None:
    """Remove the checkpoint of the group that begins with a trial, if there is one."""
    path = checkpoint_path(run, first)
    with disk_errors(path):
        path.unlink(missing_ok=True)


def _is_at(run: Path, trial: TrialId, saved: SavedGroup) -> bool:
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
