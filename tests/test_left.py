"""What is left of a run: results that are there, checkpoints that fit, and the rest anew."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from lrexp.errors import RunError
from lrexp.records import TrialId, Unit
from lrexp.runs.checkpoint import Position, SavedUnit, save_checkpoint
from lrexp.runs.files import trial_path
from lrexp.runs.remaining import checkpoint_path, read_left, read_units, tidy_checkpoints

A, B, C, D = (TrialId(name, 0) for name in "abcd")
STACK = Unit("vectorized", (A, B, C))
ALONE = Unit("sequential", (D,))


def begin(run: Path, *trials: TrialId, outcome: str | None = None) -> None:
    for trial in trials:
        folder = trial_path(run, trial.variant, trial.seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "steps.csv").write_text("step,epoch,lr,loss\n")
        if outcome is not None:
            (folder / "result.json").write_text(json.dumps({"outcome": outcome}))


def save(
    run: Path,
    trials: Iterable[TrialId],
    *,
    first: TrialId,
    step: int = 5,
    engine: str = "vectorized",
) -> Path:
    path = checkpoint_path(run, first)
    positions = {t.name: Position({"steps.csv": 19}) for t in trials}
    save_checkpoint(path, SavedUnit(step, {"engine": engine}, positions))
    return path


def test_a_run_that_has_not_begun_begins(tmp_path: Path) -> None:
    left = read_left(tmp_path, [STACK, ALONE])
    assert left.units == (STACK, ALONE)
    assert (left.saved, left.outcomes, left.begun) == ({}, {}, {})
    assert str(left) == "4 begin"


def test_a_stack_goes_on_without_the_trials_that_are_done(tmp_path: Path) -> None:
    begin(tmp_path, A, B, C)
    save(tmp_path, [A, B, C], first=A)
    begin(tmp_path, A, outcome="diverged")
    left = read_left(tmp_path, [STACK, ALONE])
    assert left.units == (Unit("vectorized", (B, C), stack=(A, B, C)), ALONE)
    assert left.outcomes == {A: "diverged"}
    assert left.begun == {B: 5, C: 5}
    assert left.saved[B].state == {"engine": "vectorized"}
    assert set(left.positions) == {B, C}
    tidy_checkpoints(tmp_path, left)  # the next one of b and c replaces this one
    assert list((tmp_path / "checkpoints").iterdir()) == [checkpoint_path(tmp_path, B)]
    assert read_left(tmp_path, [STACK, ALONE]).units == left.units


def test_a_stack_that_begins_anew_has_the_rows_it_had(tmp_path: Path) -> None:
    begin(tmp_path, A, C)
    begin(tmp_path, B, outcome="finished")
    left = read_left(tmp_path, [STACK, ALONE])
    assert left.units == (Unit("vectorized", (A, C), stack=(A, B, C)), ALONE)
    assert left.trials == (A, C, D)


def test_what_failed_begins_anew_and_apart_from_its_stack(tmp_path: Path) -> None:
    begin(tmp_path, A, B, C)
    save(tmp_path, [A, B, C], first=A)
    begin(tmp_path, A, outcome="failed")
    left = read_left(tmp_path, [STACK])
    assert left.units == (Unit("vectorized", (B, C)), Unit("vectorized", (A,)))
    assert (left.outcomes, set(left.begun)) == ({}, {B, C})


def test_a_stack_that_fell_apart_goes_on_as_it_was_trained(tmp_path: Path) -> None:
    begin(tmp_path, A, B, C)
    save(tmp_path, [B], first=B, step=8, engine="sequential")
    left = read_left(tmp_path, [STACK])
    assert left.units == (Unit("sequential", (B,)), Unit("vectorized", (A, C)))
    assert left.begun == {B: 8}


def test_checkpoints_that_nobody_needs_are_removed(tmp_path: Path) -> None:
    begin(tmp_path, D, outcome="finished")
    begin(tmp_path, A, B, C)
    save(tmp_path, [D], first=D)
    (tmp_path / "trials/a/seed-0/steps.csv").write_text("")  # shorter than it was
    save(tmp_path, [A], first=A)
    save(tmp_path, [TrialId("../../x", 0)], first=TrialId("x", 0))
    (tmp_path / "trials/b/seed-0/steps.csv").unlink()
    (tmp_path / "trials/b/seed-0/steps.csv").symlink_to(__file__)
    save(tmp_path, [B], first=B)
    save(tmp_path, [C], first=C, engine="unknown")
    left = read_left(tmp_path, [STACK, ALONE])
    assert (left.units, left.saved) == ((STACK,), {})
    assert str(left) == "1 trial is done, 3 begin"
    tidy_checkpoints(tmp_path, left)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "steps", "goes_on"),
    [
        ("step,epoch,lr,loss\n0,0,0.1,2\n1,0,0.1,1.5\n", 2, True),
        ("step,epoch,lr,loss\n0,0,0.1,2\n1,0,0.1,1.5\n2,0,0.1,1.25\n3,", 2, True),  # and more
        ("step,epoch,lr,loss\r\n0,0,0.1,2\r\n1,0,0.1,1.5\r\n", 2, False),  # an editor saved it
        ("step;epoch;lr;loss\n0;0;0,1;2,0\n1;0;0,1;1,5\n", 2, False),
        ("step,epoch,lr,loss\n0,0,0.1,2\n1,0,0.1,1\n.\n\n\n", 2, False),
    ],
)
def test_a_trial_goes_on_where_its_file_holds_the_rows_of_the_checkpoint(
    text: str, steps: int, goes_on: bool, tmp_path: Path
) -> None:
    begin(tmp_path, A)
    (tmp_path / "trials/a/seed-0/steps.csv").write_bytes(text.encode())
    size = len("step,epoch,lr,loss\n0,0,0.1,2\n1,0,0.1,1.5\n")
    position = Position({"steps.csv": size}, {"steps": steps})
    unit = SavedUnit(steps, {"engine": "sequential"}, {A.name: position})
    save_checkpoint(checkpoint_path(tmp_path, A), unit)
    assert bool(read_left(tmp_path, [Unit("sequential", (A,))]).saved) == goes_on


def test_sizes_of_other_files_count_for_nothing(tmp_path: Path) -> None:
    begin(tmp_path, A)
    for sizes in ({}, {"evals.csv": 0}, {"steps.csv": 1, "../../../status.json": 0}):
        unit = SavedUnit(1, {"engine": "sequential"}, {"a/seed-0": Position(sizes)})
        save_checkpoint(checkpoint_path(tmp_path, A), unit)
        assert read_left(tmp_path, [STACK]).saved == {}


@pytest.mark.parametrize(
    ("units", "jobs"),
    [
        ([{"engine": "sequential", "trials": ["a/seed-0"]}], 1),
        ([{"engine": "magic", "trials": ["a/seed-0", "b/seed-0"]}], 1),
        ([{"engine": "sequential", "trials": ["a/seed-0", "b/seed-0"]}], 0),
        ([{"engine": "sequential", "trials": ["a/seed-0", "b/seed-x"]}], 1),
        ([{"engine": "sequential"}], 1),
        ("units", 1),
        (None, 1),
        ([], float("inf")),
        ([], 10**400),
    ],
)
def test_a_damaged_engine_json_is_an_error(tmp_path: Path, units: object, jobs: float) -> None:
    (tmp_path / "engine.json").write_text(json.dumps({"units": units, "jobs": jobs}))
    with pytest.raises(RunError, match=r"engine\.json: is damaged"):
        read_units(tmp_path, [A, B])


def test_units_are_read_as_they_were(tmp_path: Path) -> None:
    units = [{"engine": "vectorized", "trials": ["b/seed-0", "a/seed-0"]}]
    (tmp_path / "engine.json").write_text(json.dumps({"units": units, "jobs": 3}))
    assert read_units(tmp_path, [A, B]) == ([Unit("vectorized", (B, A))], 3)
    assert TrialId.of("lr=0.1/seed-12") == TrialId("lr=0.1", 12)


def test_a_state_is_handed_over_once_and_held_no_longer(tmp_path: Path) -> None:
    begin(tmp_path, A, B, C)
    save(tmp_path, [A, B, C], first=A)
    left = read_left(tmp_path, [STACK, ALONE])
    before = (left.begun, left.positions, left.files)
    assert left.take_state(D) is None
    assert left.take_state(A) == {"engine": "vectorized"}
    assert left.saved[A].state == {}
    assert left.take_state(A) is None  # the worker that took it has died: the trial begins anew
    assert (left.begun, left.positions, left.files) == before
