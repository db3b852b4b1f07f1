"""What is left of a run: results that are there, checkpoints that fit, and the rest anew."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from lrexp.errors import RunError
from lrexp.records import Group, TrialId
from lrexp.runs.checkpoint import (
    Position,
    SavedGroup,
    checkpoint_path,
    forget_failed,
    peek_checkpoint,
    read_outcomes,
    read_remaining,
    save_checkpoint,
)
from lrexp.runs.files import trial_path

A, B, C, D = (TrialId(name, 0) for name in "abcd")
STACK = Group("vectorized", (A, B, C))
ALONE = Group("sequential", (D,))


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
    save_checkpoint(path, SavedGroup(step, {"engine": engine}, positions))
    return path


def test_a_run_that_has_not_begun_begins(tmp_path: Path) -> None:
    left = read_remaining(tmp_path, [STACK, ALONE])
    assert left.groups == (STACK, ALONE)
    assert (left.saved, left.outcomes, left.begun, left.files) == ({}, {}, {}, {})
    assert str(left) == "4 begin"


def test_a_stack_goes_on_without_the_trials_that_are_done(tmp_path: Path) -> None:
    begin(tmp_path, A, B, C)
    save(tmp_path, [A, B, C], first=A)
    begin(tmp_path, A, outcome="diverged")
    left = read_remaining(tmp_path, [STACK, ALONE])
    assert left.groups == (Group("vectorized", (B, C), stack=(A, B, C)), ALONE)
    assert left.outcomes == {A: "diverged"}
    assert left.begun == {B: 5, C: 5}
    assert left.saved[B].state == {"engine": "vectorized"}
    assert set(left.positions) == {B, C}
    assert left.files == {B: A}  # the next one of b and c replaces this one
    assert str(left) == "1 trial is done, 2 go on from a checkpoint, 1 begins"


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_a_glance_finds_the_same(tmp_path: Path, engine: str) -> None:
    begin(tmp_path, A, B, C)
    save(tmp_path, [B, C], first=A, engine=engine)
    whole, glance = (
        read_remaining(tmp_path, [STACK, ALONE], *load) for load in ([], [peek_checkpoint])
    )
    assert (glance.groups, glance.begun, glance.positions, glance.files) == (
        whole.groups, whole.begun, whole.positions, whole.files
    )  # fmt: skip


def test_a_stack_that_begins_anew_has_the_rows_it_had(tmp_path: Path) -> None:
    begin(tmp_path, A, C)
    begin(tmp_path, B, outcome="finished")
    left = read_remaining(tmp_path, [STACK, ALONE])
    assert left.groups == (Group("vectorized", (A, C), stack=(A, B, C)), ALONE)
    assert left.trials == (A, C, D)


@pytest.mark.parametrize("outcome", ["failed", "of a later lrexp"])
def test_what_failed_begins_anew_and_apart_from_its_stack(tmp_path: Path, outcome: str) -> None:
    begin(tmp_path, A, B, C)
    save(tmp_path, [A, B, C], first=A)
    begin(tmp_path, A, outcome=outcome)
    assert read_remaining(tmp_path, [STACK]).trials == (B, C)  # failed: it is over in this command
    forget_failed(tmp_path, [A, B, C])
    assert not trial_path(tmp_path, "a", 0).exists()
    left = read_remaining(tmp_path, [STACK])
    assert left.groups == (Group("vectorized", (B, C)), Group("vectorized", (A,)))
    assert (left.outcomes, set(left.begun)) == ({}, {B, C})


def test_what_failed_does_not_go_on_where_it_was(tmp_path: Path) -> None:
    begin(tmp_path, D, outcome="failed")
    begin(tmp_path, A, outcome="finished")
    saved = save(tmp_path, [D], first=D, engine="sequential"), save(tmp_path, [A], first=A)
    forget_failed(tmp_path, [A, D])
    begin(tmp_path, D)  # its first rows, before it has a checkpoint of its own
    assert read_remaining(tmp_path, [ALONE]).begun == {}
    assert [path.exists() for path in saved] == [False, True]
    assert trial_path(tmp_path, "a", 0).exists()


def test_a_stack_that_fell_apart_goes_on_as_it_was_trained(tmp_path: Path) -> None:
    begin(tmp_path, A, B, C)
    save(tmp_path, [B], first=B, step=8, engine="sequential")
    left = read_remaining(tmp_path, [STACK])
    assert left.groups == (Group("sequential", (B,)), Group("vectorized", (A, C)))
    assert (left.begun, left.files) == ({B: 8}, {B: B})


def test_checkpoints_that_do_not_fit_count_for_nothing(tmp_path: Path) -> None:
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
    left = read_remaining(tmp_path, [STACK, ALONE])
    assert (left.groups, left.saved) == ((STACK,), {})
    assert str(left) == "1 trial is done, 3 begin"


@pytest.mark.parametrize("groups", [[STACK], [ALONE]])
def test_a_damaged_checkpoint_is_refused_only_where_it_is_needed(
    tmp_path: Path, groups: list[Group]
) -> None:
    path = checkpoint_path(tmp_path, D)
    path.parent.mkdir()
    path.write_text("half")
    if groups == [ALONE]:
        with pytest.raises(RunError, match=r"d-seed-0\.safetensors: is no .* Delete it"):
            read_remaining(tmp_path, groups)
    else:
        assert read_remaining(tmp_path, groups).groups == (STACK,)


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
    group = SavedGroup(steps, {"engine": "sequential"}, {A.name: position})
    save_checkpoint(checkpoint_path(tmp_path, A), group)
    assert bool(read_remaining(tmp_path, [Group("sequential", (A,))]).saved) == goes_on


def test_sizes_of_other_files_count_for_nothing(tmp_path: Path) -> None:
    begin(tmp_path, A)
    for sizes in ({}, {"evals.csv": 0}, {"steps.csv": 1, "../../../status.json": 0}):
        group = SavedGroup(1, {"engine": "sequential"}, {"a/seed-0": Position(sizes)})
        save_checkpoint(checkpoint_path(tmp_path, A), group)
        assert read_remaining(tmp_path, [STACK]).saved == {}


def test_outcomes_are_read_where_there_is_a_result(tmp_path: Path) -> None:
    begin(tmp_path, A, outcome="finished")
    begin(tmp_path, B, outcome="failed")
    begin(tmp_path, C)
    assert read_outcomes(tmp_path, [A, B, C, D]) == {A: "finished", B: "failed"}
    (tmp_path / "trials/c/seed-0/result.json").write_text("{")
    with pytest.raises(RunError, match=r"result\.json: is damaged"):
        read_outcomes(tmp_path, [C])


@pytest.mark.parametrize(
    ("name", "trial"),
    [
        ("lr=0.1/seed-12", TrialId("lr=0.1", 12)),
        ("a/seed-x", None),
        ("a", None),
        ("a/seed-", None),
        ("a/seed-1/seed-2", TrialId("a/seed-1", 2)),
    ],
)
def test_a_trial_is_named_by_its_folder(name: str, trial: TrialId | None) -> None:
    if trial is None:
        with pytest.raises(ValueError, match="invalid literal"):
            TrialId.of(name)
    else:
        assert (TrialId.of(name), trial.name) == (trial, name)
