"""Records into files, and onto the screen: trials that mix, and trials that begin again."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from lrexp.errors import FailedTrialsError, RunError, UserCodeError, WorkerDiedError
from lrexp.records import (
    Checkpoint,
    Ended,
    Evaluation,
    Failed,
    Interrupted,
    NoCheckpoint,
    Record,
    Started,
    Steps,
    TrialId,
    Unit,
)
from lrexp.report import progress
from lrexp.report.progress import Bars, Lines
from lrexp.runs.recorder import Recorder, readable_error
from lrexp.runs.remaining import Left, read_left
from lrexp.runs.writer import RunWriter

A, B = TrialId("a", 0), TrialId("b", 0)


def steps(trial: TrialId, first: int, count: int, loss: float = 1.0) -> Steps:
    return Steps(trial, first, [0] * count, [0.1] * count, [loss] * count)


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    return RunWriter(tmp_path, {})


def counts(writer: RunWriter) -> Any:
    """Return how many trials have which outcome; noted once a second, and at the end."""
    writer.update_status()
    return json.loads((writer.directory / "status.json").read_text())["counts"]


@pytest.fixture
def recorder(writer: RunWriter) -> Iterator[Recorder]:
    made = Recorder(writer, stop_is_outcome=True, loss_digits=9)
    yield made
    made.write_all([], lambda record: None)  # closes what is open


def write(recorder: Recorder, *records: Record) -> None:
    for record in records:
        recorder.write(record)


def test_a_trial_that_starts_again_leaves_nothing_of_its_first_try(
    recorder: Recorder, writer: RunWriter, tmp_path: Path
) -> None:
    directory = tmp_path / "trials/a/seed-0"
    write(recorder, Started(A), Evaluation(A, 0, 0.0, {"val_loss": 0.01}), steps(A, 0, 5, 9.0))
    write(recorder, Started(B), steps(B, 0, 3))
    write(recorder, Started(A))
    assert (directory / "steps.csv").read_text() == "step,epoch,lr,loss\n"
    assert not (directory / "evals.csv").exists()
    write(recorder, steps(A, 0, 2), Ended(A, 2, None, 1.0), Ended(B, 3, None, 1.0))
    assert (directory / "steps.csv").read_text().count("\n") == 3
    result = json.loads((directory / "result.json").read_text())
    assert (result["steps"], result["final"], result["best"]) == (2, {"loss": 1.0}, {})
    assert counts(writer) == {"finished": 2}


def test_the_best_of_each_measure_is_in_its_own_direction(
    recorder: Recorder, writer: RunWriter
) -> None:
    write(recorder, Started(A))
    for step, loss, accuracy in ((0, 3.0, 0.1), (1, 1.0, 0.9), (2, 2.0, 0.5)):
        write(recorder, Evaluation(A, step, 0.0, {"val_loss": loss, "val_accuracy": accuracy}))
    write(recorder, Ended(A, 2, None, 1.0))
    result = json.loads((writer.trial_directory(A.variant, A.seed) / "result.json").read_text())
    assert result["final"] == {"val_loss": 2.0, "val_accuracy": 0.5}
    assert result["best"] == {"val_loss": 1.0, "val_accuracy": 0.9}


def test_a_trial_that_had_failed_may_start_again_and_counts_once(
    recorder: Recorder, writer: RunWriter, tmp_path: Path
) -> None:
    write(recorder, Started(A), Failed(A, ValueError("x")), Started(B), Failed(B, ValueError("x")))
    assert counts(writer) == {"failed": 2}
    write(recorder, Started(A), steps(A, 0, 1), Ended(A, 1, 0, 1.0))
    assert counts(writer) == {"diverged": 1, "failed": 1}
    assert list(recorder.failures) == [B]
    with pytest.raises(FailedTrialsError, match="1 of 2 trials failed"):
        recorder.raise_failures(tmp_path)


STACK = Unit("vectorized", (A, B))


def recorder_of(folder: Path, left: Left) -> Recorder:
    return Recorder(RunWriter(folder, {}), stop_is_outcome=True, loss_digits=9, left=left)


def checkpoint(step: int, *trials: TrialId) -> Checkpoint:
    return Checkpoint(trials, step, {"engine": "vectorized", "at": step})


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*"))


def test_a_resumed_recorder_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    first = recorder_of(tmp_path, Left((STACK,)))
    write(first, Started(A), Started(B), Evaluation(A, 0, 0.0, {"val_loss": 0.5}))
    write(first, steps(A, 0, 3), steps(B, 0, 3), checkpoint(3, A, B), steps(A, 3, 2, 0.1))
    write(
        first, Evaluation(A, 5, 1.0, {"val_loss": 0.25}), Evaluation(B, 5, 1.0, {"val_loss": 1.0})
    )
    first.write_all([Interrupted((A, B))], lambda record: None)
    assert not first.has_ended([A])
    left = read_left(tmp_path, [STACK])
    second = recorder_of(tmp_path, left)
    write(second, Started(A), Started(B))
    curve = tmp_path / "trials/a/seed-0/steps.csv"
    assert curve.read_text().count("\n") == 4
    assert (tmp_path / "trials/a/seed-0/evals.csv").read_text().count("\n") == 2
    assert not (tmp_path / "trials/b/seed-0/evals.csv").exists()
    write(second, steps(A, 3, 1, 2.0), Ended(A, 4, None, 1.0))
    assert curve.read_text().splitlines()[-1] == "3,0,0.1,2"
    result = json.loads((tmp_path / "trials/a/seed-0/result.json").read_text())
    assert result["final"] == {"val_loss": 0.5, "loss": 2.0}
    assert result["best"] == {"val_loss": 0.5}
    assert files(tmp_path) == ["a-seed-0.pt"]  # b goes on
    write(second, Ended(B, 3, None, 1.0))
    assert files(tmp_path) == []
    assert second.has_ended([A, B])
    second.clear_checkpoints()
    assert not (tmp_path / "checkpoints").exists()


def test_a_worker_that_died_before_its_trials_were_started_again_leaves_nothing(
    tmp_path: Path,
) -> None:
    first = recorder_of(tmp_path, Left((STACK,)))
    write(first, Started(A), Started(B), steps(A, 0, 2), steps(B, 0, 2), checkpoint(2, A, B))
    first.write_all([Interrupted((A, B))], lambda record: None)
    second = recorder_of(tmp_path, read_left(tmp_path, [STACK]))
    second.write_all(
        [Started(B, again="its worker was killed"), steps(B, 0, 3)], lambda record: None
    )
    rows = (tmp_path / "trials/b/seed-0/steps.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ["0", "1", "2"]
    assert files(tmp_path) == []  # of the stack: it would go on in the middle


def test_a_stack_that_fell_apart_stays_so_when_its_first_trial_has_ended(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path, Left((STACK,)))
    write(recorder, Started(A), Started(B), steps(A, 0, 1), steps(B, 0, 1), checkpoint(1, A, B))
    write(recorder, Started(A, again="not as part of a stack"), Started(B, again="likewise"))
    write(recorder, Checkpoint((A, B), 0, {"engine": "vectorized", "apart": None}))
    write(recorder, steps(A, 0, 1), Ended(A, 1, 0, 1.0))
    assert files(tmp_path) == ["a-seed-0.pt"]
    recorder.write_all([Interrupted((B,))], lambda record: None)
    left = read_left(tmp_path, [STACK])
    assert left.units == (Unit("vectorized", (B,), stack=(A, B)),)
    assert left.saved[B].state == {"engine": "vectorized", "apart": None}
    again = recorder_of(tmp_path, left)
    write(again, Started(B), steps(B, 0, 1), Ended(B, 1, None, 1.0))
    assert again.has_ended([A, B])


def test_trials_of_a_stack_that_begin_again_are_on_their_own(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path, Left((STACK,)))
    write(recorder, Started(A), Started(B), steps(A, 0, 1), steps(B, 0, 1), checkpoint(1, A, B))
    write(recorder, Started(A))
    assert files(tmp_path) == []  # what the stack had saved counts no more
    write(recorder, steps(A, 0, 2), checkpoint(2, A), Started(B), checkpoint(0, B))
    assert files(tmp_path) == ["a-seed-0.pt", "b-seed-0.pt"]
    write(recorder, Ended(A, 2, None, 1.0))
    assert files(tmp_path) == ["b-seed-0.pt"]
    recorder.write_all([Failed(B, ValueError("x"))], lambda record: None)
    assert files(tmp_path) == []


def test_trials_without_a_checkpoint_are_known(tmp_path: Path) -> None:
    c = TrialId("c", 0)
    recorder = recorder_of(tmp_path, Left((STACK, Unit("sequential", (c,)))))
    write(recorder, Started(A), Started(B), Started(c), NoCheckpoint((A, B), "x"))
    write(recorder, NoCheckpoint((c,), "y"))
    assert recorder.begin_anew == {"a/seed-0": "x", "b/seed-0": "x", "c/seed-0": "y"}
    write(recorder, steps(c, 0, 1), Ended(c, 1, None, 1.0))
    assert recorder.begin_anew == {"a/seed-0": "x", "b/seed-0": "x"}
    write(recorder, checkpoint(1, A, B), NoCheckpoint((A, B), "x"))
    assert recorder.begin_anew == {}  # there is an earlier one
    recorder.write_all([Interrupted((A, B), "x")], lambda record: None)
    assert recorder.begin_anew == {}


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("error", [BrokenPipeError, OSError, ValueError])
def test_an_observer_that_nobody_sees_ends_nothing(
    terminal: bool, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        is_open = True

        def write(self, text: str) -> int:
            if not self.is_open:
                raise error
            return super().write(text)

        def fileno(self) -> int:
            raise OSError

    monkeypatch.setattr("os.dup2", lambda *_: None)  # rich gives stdout away
    file = Gone()
    console = Console(file=file, force_terminal=terminal, width=100)
    with progress.observe({A: 10, B: 10}, console) as observer:
        observer(Started(A))
        file.is_open = False
        shown = file.getvalue()
        for record in (steps(A, 0, 4), Ended(A, 4, None, 1.0), Started(B), Failed(B, KeyError())):
            observer(record)
    assert file.getvalue() == shown  # nothing more got through, and nothing was raised


@pytest.mark.parametrize("kind", [Bars, Lines])
def test_that_there_are_no_checkpoints_is_told_once_for_a_variant(kind: Any) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=200)
    shown = Progress(console=console) if kind is Bars else console
    trials = [TrialId(variant, seed) for variant in ("a[1]", "b") for seed in (0, 1)]
    observer = kind(shown, dict.fromkeys(trials, 10))
    for trial in trials:
        observer(Started(trial))
        for _ in range(3):
            observer(NoCheckpoint((trial,), "training changes the attribute `n`"))
    assert out.getvalue().splitlines() == [
        f"note     no checkpoints for {name}: training changes the attribute `n`"
        for name in ("a[1]", "b")
    ]


def test_nothing_is_written_into_a_run_that_was_deleted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    recorder = recorder_of(run, Left(()))
    (run / "status.json").unlink()
    with pytest.raises(RunError, match="was deleted while the run was writing it"):
        write(recorder, Started(A))
    assert list(run.iterdir()) == []


def test_a_bar_of_a_resumed_trial_starts_at_its_step() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    shown = Progress(console=console)
    observer = Bars(shown, {A: 10, B: 10}, {A: 6})
    observer(Started(A))
    observer(Started(B))
    assert [task.completed for task in shown.tasks] == [6, 6, 0]
    observer(steps(A, 6, 2))
    observer(checkpoint(8, A))
    assert shown.tasks[1].completed == 8
    observer(Started(A, "its worker died"))
    assert sorted(task.completed for task in shown.tasks) == [0, 0, 0]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("x"), "variant a, seed 0 raised an exception: ValueError: x"),
        (UserCodeError("as it is"), "as it is"),
        (WorkerDiedError("variant a, seed 0: its worker died"), "variant a, seed 0: its worker died"),
    ],
)  # fmt: skip
def test_the_error_of_a_trial_is_readable(error: Exception, message: str) -> None:
    assert str(readable_error(Failed(A, error))) == message


def bars(num_trials: int, total: int = 10) -> tuple[Bars, list[TrialId], Progress]:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    shown = Progress(console=console)
    trials = [TrialId(f"v{i}", 0) for i in range(num_trials)]
    return Bars(shown, dict.fromkeys(trials, total)), trials, shown


def test_a_stack_of_trials_has_few_bars_and_one_right_sum() -> None:
    observer, trials, shown = bars(20)
    everything = shown.tasks[0]
    for trial in trials:
        observer(Started(trial))
    assert len(shown.tasks) == 1 + progress.MAX_BARS
    assert everything.fields["facts"] == "steps, 12 more running"
    for first in (0, 4):
        for trial in trials:
            observer(steps(trial, first, 4))
    assert everything.completed == 20 * 8
    for trial in trials[:8]:
        observer(Ended(trial, 8, 8, 1.0))  # stopped early: its steps need not be waited for
    assert len(shown.tasks) == 1
    assert everything.completed == 8 * 10 + 12 * 8
    observer(steps(trials[-1], 8, 1))  # there is room for it now
    assert [task.completed for task in shown.tasks[1:]] == [9]
    for trial in trials[8:]:
        observer(Ended(trial, 10, None, 1.0))
    assert (len(shown.tasks), everything.completed, everything.total) == (1, 200, 200)
    assert everything.fields["facts"] == "steps"


def test_the_bar_of_a_trial_that_starts_again_does_so_too() -> None:
    observer, (a, b), shown = bars(2)
    everything = shown.tasks[0]
    for record in (Started(a), Started(b), steps(a, 0, 7), steps(b, 0, 2), Started(a)):
        observer(record)
    assert everything.completed == 2
    assert sorted(task.completed for task in shown.tasks[1:]) == [0, 2]
    for record in (Failed(b, ValueError()), Started(b), steps(b, 0, 1)):  # even after its end
        observer(record)
    assert everything.completed == 1


def test_lines_of_many_trials_come_at_most_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    trials = [TrialId(f"v{i}", 0) for i in range(64)]
    observer = Lines(Console(file=out, width=200), dict.fromkeys(trials, 100))
    for trial in trials:
        observer(Started(trial))
    for first in range(40):
        now[0] += 1.0
        for trial in trials:
            observer(steps(trial, first, 1))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("v0 seed 0: step 11/100 ")
    assert lines[0].endswith("; 63 more running")
    for trial in trials:
        observer(Ended(trial, 40, None, 1.0))
    assert len(out.getvalue().splitlines()) == 3 + 64


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ValueError("x"), "ValueError"),
        (readable_error(Failed(A, KeyError("x"))), "KeyError"),
        (UserCodeError("x"), "UserCodeError"),
        (WorkerDiedError("x"), "its process died"),
    ],
)
def test_a_failed_trial_says_in_a_word_why(error: Exception, word: str) -> None:
    out = io.StringIO()
    observer = Lines(Console(file=out), {A: 10})
    observer(Started(A))
    observer(Failed(A, error))
    assert out.getvalue() == f"failed   a seed 0: {word}\n"
