"""What is seen while trials run: bars, lines, and nothing where nobody reads."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from lrexp.errors import UserCodeError, WorkerDiedError
from lrexp.records import Checkpoint, Ended, Failed, NoCheckpoint, Started, Steps, TrialId
from lrexp.report import progress
from lrexp.report.progress import Bars, Lines
from lrexp.runs.trial_files import readable_error

A, B = TrialId("a", 0), TrialId("b", 0)


def steps(trial: TrialId, first: int, count: int, loss: float = 1.0) -> Steps:
    return Steps(trial, first, [0] * count, [0.1] * count, [loss] * count)


def bars(num_trials: int, total: int = 10) -> tuple[Bars, list[TrialId], Progress]:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    shown = Progress(console=console)
    trials = [TrialId(f"v{i}", 0) for i in range(num_trials)]
    return Bars(shown, dict.fromkeys(trials, total)), trials, shown


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


def test_a_bar_of_a_resumed_trial_starts_at_its_step() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    shown = Progress(console=console)
    observer = Bars(shown, {A: 10, B: 10}, {A: 6})
    observer(Started(A))
    observer(Started(B))
    assert [task.completed for task in shown.tasks] == [6, 6, 0]
    observer(steps(A, 6, 2))
    observer(Checkpoint((A,), 8, {}))
    assert shown.tasks[1].completed == 8
    observer(Started(A, "its worker died"))
    assert sorted(task.completed for task in shown.tasks) == [0, 0, 0]


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
    assert out.getvalue().splitlines()[3:] == ["done     64 of 64 trials"]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ValueError("x"), "ValueError"),
        (readable_error(KeyError("x"), A), "KeyError"),
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


def test_many_trials_that_finish_have_one_line_for_all_of_them() -> None:
    out = io.StringIO()
    trials = [TrialId(f"v{i}", 0) for i in range(30)]
    observer = Lines(Console(file=out, width=100), dict.fromkeys(trials, 4))
    for i, trial in enumerate(trials):
        for record in (
            Started(trial),
            steps(trial, 0, 4),
            Ended(trial, 4, 3 if i == 5 else None, 1),
        ):
            observer(record)
    first, last = out.getvalue().splitlines()
    assert first.startswith("stopped  v5 seed 0 at step 3")
    assert last == "done     30 of 30 trials"
    shown, trials, bar = bars(30)
    for record in (Started(trials[0]), Ended(trials[0], 10, None, 1.0)):
        shown(record)
    assert "done" not in bar.console.file.getvalue()  # type: ignore[attr-defined]
