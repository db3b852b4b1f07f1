"""The folders of trials: records into files, trials that mix, and trials that begin again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lrexp.engine.choice import Choice
from lrexp.engine.stop import Pause
from lrexp.errors import FailedTrialsError, RunError, UserCodeError, WorkerDiedError
from lrexp.records import (
    KINDS,
    Checkpoint,
    Ended,
    Evaluation,
    Failed,
    Group,
    Interrupted,
    NoCheckpoint,
    Record,
    Started,
    Steps,
    Trial,
    TrialId,
)
from lrexp.runs.checkpoint import Remaining, read_remaining
from lrexp.runs.stages import Stage, StageRecord
from lrexp.runs.train import GuardedSink, Session, noted
from lrexp.runs.trial_files import MOST_TRACE, TrialFiles, failure, readable_error
from lrexp.runs.writer import RunWriter

A, B, C = (TrialId(name, 0) for name in "abc")
STACK = Group("vectorized", (A, B))
AGAIN = "its worker was killed"


def trials(kind: Any = "compare") -> list[Trial]:
    return [Trial(trial, kind, 10) for trial in (A, B, C)]


def steps(trial: TrialId, first: int, count: int, loss: float = 1.0) -> Steps:
    return Steps(trial, first, [0] * count, [0.1] * count, [loss] * count)


def checkpoint(step: int, *trials: TrialId) -> Checkpoint:
    return Checkpoint(trials, step, {"engine": "vectorized", "at": step})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path


def files_of(run: Path, *groups: Group) -> TrialFiles:
    """Return the sink of a process that trains what is left of these groups."""
    return TrialFiles(run, trials(), read_remaining(run, groups))


@pytest.fixture
def files(run: Path) -> Iterator[TrialFiles]:
    with closing(files_of(run, STACK)) as made:
        yield made


def write(files: TrialFiles, *records: Record) -> None:
    for record in records:
        files(record)


def saved(run: Path) -> list[str]:
    return sorted(path.stem for path in (run / "checkpoints").glob("*.safetensors"))


def result(run: Path, trial: TrialId) -> Any:
    return json.loads((run / "trials" / trial.name / "result.json").read_text())


def rows(run: Path, trial: TrialId) -> list[str]:
    lines = (run / "trials" / trial.name / "steps.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,lr,loss"
    return [line.partition(",")[0] for line in lines[1:]]


def test_a_trial_that_starts_again_leaves_nothing_of_its_first_try(
    files: TrialFiles, run: Path
) -> None:
    write(files, Started(A), Evaluation(A, 0, 0.0, {"val_loss": 0.01}), steps(A, 0, 5, 9.0))
    write(files, Started(B), steps(B, 0, 3))
    write(files, Started(A, AGAIN))
    assert rows(run, A) == []
    assert not (run / "trials/a/seed-0/evals.csv").exists()
    write(files, steps(A, 0, 2), Ended(A, 2, None, 1.0), Ended(B, 3, None, 1.0))
    assert rows(run, A) == ["0", "1"]
    found = result(run, A)
    assert (found["steps"], found["final"], found["best"]) == (2, {"loss": 1.0}, {})
    assert rows(run, B) == ["0", "1", "2"]


def test_the_best_of_each_measure_is_in_its_own_direction(files: TrialFiles, run: Path) -> None:
    write(files, Started(A))
    for step, loss, accuracy in ((0, 3.0, 0.1), (1, 1.0, 0.9), (2, 2.0, 0.5)):
        write(files, Evaluation(A, step, 0.0, {"val_loss": loss, "val_accuracy": accuracy}))
    write(files, Ended(A, 2, None, 1.0))
    assert result(run, A)["final"] == {"val_loss": 2.0, "val_accuracy": 0.5}
    assert result(run, A)["best"] == {"val_loss": 1.0, "val_accuracy": 0.9}


@pytest.mark.parametrize(
    ("kind", "stopped_at", "outcome"),
    [
        ("compare", None, "finished"),
        ("compare", 3, "diverged"),
        ("race", None, "finished"),
        ("race", 3, "diverged"),
        ("range_test", 3, "finished"),  # it ends like that as a rule
        ("paired_control", 3, "finished"),
    ],
)
def test_what_a_stop_means_is_up_to_the_kind_of_the_trial(
    run: Path, kind: Any, stopped_at: int | None, outcome: str
) -> None:
    """Whatever else is in the run: a range test beside a race says nothing of the race."""
    mixed = [Trial(B, "range_test", 10), Trial(C, "compare", 10), Trial(A, kind, 10)]
    with closing(TrialFiles(run, mixed, Remaining(()))) as files:
        write(files, Started(A), steps(A, 0, 4), Ended(A, 4, stopped_at, 1.0))
    assert (result(run, A)["outcome"], result(run, A)["kind"]) == (outcome, kind)
    assert result(run, A)["final"] == ({"loss": 1.0} if outcome == "finished" else {})


def test_every_kind_has_an_outcome_for_a_stop() -> None:
    assert {kind for kind in KINDS if Trial(A, kind, 1).is_training} == {"compare", "race"}


@pytest.mark.parametrize(("digits", "text"), [(9, "0.333333333"), (17, "0.33333333333333331")])
def test_a_loss_has_the_digits_of_its_precision(run: Path, digits: int, text: str) -> None:
    with closing(TrialFiles(run, trials(), Remaining(()), digits=digits)) as files:
        write(files, Started(A), steps(A, 0, 1, 1 / 3))
    assert (run / "trials/a/seed-0/steps.csv").read_text().endswith(f"0,0,0.1,{text}\n")


def test_a_trial_that_goes_on_does_so_where_the_checkpoint_was(run: Path) -> None:
    with closing(files_of(run, STACK)) as first:
        write(first, Started(A), Started(B), Evaluation(A, 0, 0.0, {"val_loss": 0.5}))
        write(first, steps(A, 0, 3), steps(B, 0, 3), checkpoint(3, A, B), steps(A, 3, 2, 0.1))
        write(first, Evaluation(A, 5, 1.0, {"val_loss": 0.25}))
        write(first, Evaluation(B, 5, 1.0, {"val_loss": 1.0}), Interrupted((A, B)))
    with closing(files_of(run, STACK)) as second:
        write(second, Started(A), Started(B))
        assert rows(run, A) == rows(run, B) == ["0", "1", "2"]
        assert (run / "trials/a/seed-0/evals.csv").read_text().count("\n") == 2
        assert not (run / "trials/b/seed-0/evals.csv").exists()
        write(second, steps(A, 3, 1, 2.0), Ended(A, 4, None, 1.0))
        assert rows(run, A) == ["0", "1", "2", "3"]
        assert result(run, A)["final"] == {"val_loss": 0.5, "loss": 2.0}
        assert result(run, A)["best"] == {"val_loss": 0.5}
        assert saved(run) == ["a-seed-0"]  # b goes on
        write(second, Ended(B, 3, None, 1.0))
    assert saved(run) == []


def test_a_stack_keeps_its_file_when_its_first_trial_has_ended(run: Path) -> None:
    """Else the one of its first trial would stay, and each resume go back to it."""
    with closing(files_of(run, STACK)) as first:
        write(first, Started(A), Started(B), steps(A, 0, 2), steps(B, 0, 2), checkpoint(2, A, B))
        write(first, Ended(A, 2, None, 1.0), Interrupted((B,)))
    with closing(files_of(run, STACK)) as second:
        write(second, Started(B), steps(B, 2, 3), checkpoint(5, B), Interrupted((B,)))
    assert saved(run) == ["a-seed-0"]
    left = read_remaining(run, [STACK])
    assert left.begun == {B: 5}
    assert left.groups == (Group("vectorized", (B,), stack=(A, B)),)
    with closing(files_of(run, STACK)) as third:
        write(third, Started(B), steps(B, 5, 1), Started(B, AGAIN))
        assert saved(run) == []  # it would go on in the middle
        write(third, steps(B, 0, 6), checkpoint(6, B), Ended(B, 6, None, 1.0))
    assert saved(run) == []


def test_a_worker_that_died_before_its_trials_were_started_again_leaves_nothing(
    run: Path,
) -> None:
    with closing(files_of(run, STACK)) as first:
        write(first, Started(A), Started(B), steps(A, 0, 2), steps(B, 0, 2), checkpoint(2, A, B))
    with closing(files_of(run, STACK)) as second:
        write(second, Started(B, AGAIN), steps(B, 0, 3))
    assert rows(run, B) == ["0", "1", "2"]
    assert saved(run) == []  # of the stack: it would go on in the middle


def test_a_stack_that_fell_apart_stays_so_when_its_first_trial_has_ended(run: Path) -> None:
    with closing(files_of(run, STACK)) as files:
        write(files, Started(A), Started(B), steps(A, 0, 1), steps(B, 0, 1), checkpoint(1, A, B))
        write(files, Started(A, "not as part of a stack"), Started(B, "likewise"))
        write(files, Checkpoint((A, B), 0, {"engine": "vectorized", "apart": None}))
        write(files, steps(A, 0, 1), Ended(A, 1, 0, 1.0))
        assert saved(run) == ["a-seed-0"]
        write(files, Interrupted((B,)))
    left = read_remaining(run, [STACK])
    assert left.groups == (Group("vectorized", (B,), stack=(A, B)),)
    assert left.saved[B].state == {"engine": "vectorized", "apart": None}
    with closing(files_of(run, STACK)) as again:
        write(again, Started(B), steps(B, 0, 1), Ended(B, 1, None, 1.0))
    assert read_remaining(run, [STACK]).trials == ()
    assert saved(run) == []


def test_trials_of_a_stack_that_begin_again_are_on_their_own(files: TrialFiles, run: Path) -> None:
    write(files, Started(A), Started(B), steps(A, 0, 1), steps(B, 0, 1), checkpoint(1, A, B))
    write(files, Started(A, AGAIN))
    assert saved(run) == []  # what the stack had saved counts no more
    write(files, steps(A, 0, 2), checkpoint(2, A), Started(B, AGAIN), checkpoint(0, B))
    assert saved(run) == ["a-seed-0", "b-seed-0"]
    write(files, Ended(A, 2, None, 1.0))
    assert saved(run) == ["b-seed-0"]
    write(files, Failed(B, ValueError("x")))
    assert saved(run) == []


def test_a_trial_without_a_checkpoint_begins_anew(run: Path) -> None:
    with closing(files_of(run, STACK)) as first:
        write(first, Started(A), steps(A, 0, 5), NoCheckpoint((A, B), "x"), Interrupted((A,), "x"))
    with closing(files_of(run, STACK)) as second:
        write(second, Started(A), steps(A, 0, 2))
    assert rows(run, A) == ["0", "1"]


@pytest.mark.parametrize(
    ("records", "refused"),
    [
        ([], Started(A)),
        ([Started(A)], Checkpoint((A,), 0, {})),
        ([Started(A)], Ended(A, 0, None, 1.0)),
        ([Started(A)], Failed(A, ValueError())),
        ([Started(A)], Started(A, AGAIN)),
    ],
)
def test_who_has_lost_the_run_writes_no_more_of_it(
    run: Path, records: list[Record], refused: Record
) -> None:
    lost = False

    def require_ours() -> None:
        if lost:
            raise RunError("was taken over")

    files = TrialFiles(run, trials(), Remaining((STACK,)), require_ours=require_ours)
    with closing(files):
        write(files, *records)
        lost, before = True, sorted(run.rglob("*"))
        with pytest.raises(RunError, match="was taken over"):
            files(refused)
    assert sorted(run.rglob("*")) == before


def test_user_code_may_change_the_working_directory(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    with closing(TrialFiles(Path("here"), trials(), Remaining(()))) as files:
        (run / "here").mkdir()
        (run / "elsewhere").mkdir()
        write(files, Started(A))
        monkeypatch.chdir(run / "elsewhere")
        write(files, steps(A, 0, 1), checkpoint(1, A), Ended(A, 1, None, 1.0))
    assert result(run / "here", A)["steps"] == 1
    assert list((run / "elsewhere").iterdir()) == []


def raised(error: Exception) -> Exception:
    """Return an exception with a traceback."""
    try:
        raise error
    except type(error) as found:
        return found


@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        (ValueError("x"), "variant a, seed 0 raised an exception: ValueError: x", "ValueError"),
        (UserCodeError("as it is"), "as it is", ""),
        (WorkerDiedError("its worker died"), "its worker died", "WorkerDiedError"),
    ],
)
def test_the_error_of_a_trial_is_readable(error: Exception, message: str, kind: str) -> None:
    assert str(readable_error(error, A)) == message
    facts = failure(error, A)
    assert (facts["error"], facts["error_kind"]) == (message, kind)


def test_a_failed_trial_tells_where_it_raised(files: TrialFiles, run: Path) -> None:
    error = raised(ValueError("x" * MOST_TRACE))
    write(files, Started(A), steps(A, 0, 3), Failed(A, error))
    found = result(run, A)
    assert (found["outcome"], found["steps"], found["error_kind"]) == ("failed", 3, "ValueError")
    assert f"{__file__}:" in found["error"]
    assert len(found["traceback"]) == MOST_TRACE
    assert "in raised" in failure(raised(ValueError("x")), A)["traceback"]


class Silent:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str, style: str = "") -> None:
        self.said.append(text)


@pytest.fixture
def session(run: Path) -> Session:
    """A session of three trials, of the parts that `noted` needs."""
    stage = Stage("compare", tuple(trials()))
    records = [StageRecord(stage, Choice((STACK,)))]
    parts: Any = None  # of which nothing is asked here
    return Session(parts, parts, parts, RunWriter(run, {}), Pause(), records)


def counts(session: Session) -> Any:
    """Return how many trials have which outcome; noted once a second, and at the end."""
    session.writer.update_status()
    return json.loads((session.run / "status.json").read_text())["counts"]


def test_a_trial_that_had_failed_may_start_again_and_counts_once(session: Session) -> None:
    note = noted(session)
    for record in (Started(A), Failed(A, ValueError("x")), Started(B), Failed(B, ValueError("y"))):
        note(record)
    assert counts(session) == {"failed": 2}
    for record in (Started(A, AGAIN), steps(A, 0, 1), Ended(A, 1, 0, 1.0)):
        note(record)
    assert counts(session) == {"diverged": 1, "failed": 1}
    assert list(session.failures) == [B]
    with pytest.raises(FailedTrialsError, match=r"seed 0 raised .* y\n1 of 2 trials failed"):
        session.raise_failures()


def test_trials_without_a_checkpoint_are_known(session: Session) -> None:
    note = noted(session)
    note(NoCheckpoint((A, B), "x"))
    note(Interrupted((C,), "y"))
    note(Interrupted((B,)))  # it has one
    assert session.unsaved == {A: "x", B: "x", C: "y"}


def test_a_sink_that_raises_is_dropped_and_ends_nothing() -> None:
    reporter, got = Silent(), []

    def picky(record: Record) -> None:
        got.append(record)
        if isinstance(record, Steps):
            raise OSError("no network")

    sink = GuardedSink(picky, reporter)
    sink(Started(A))
    with pytest.warns(RuntimeWarning, match="picky gets no more records"):
        sink(steps(A, 0, 1))
    sink(Ended(A, 1, None, 1.0))
    assert len(got) == 2
    (said,) = reporter.said
    assert said.startswith("The sink ")
    assert said.endswith("picky gets no more records: OSError: no network")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_sink_may_end_the_run_on_purpose(stop: type[BaseException]) -> None:
    def ends(record: Record) -> None:
        raise stop

    with pytest.raises(stop):
        GuardedSink(ends, Silent())(Started(A))
