"""What any sink can rely on: see `sinks` of `lrexp.compare`.

Of one trial: `Started` first, `Ended` or `Failed` last, every step once and in order, each evaluation
between the steps that it came between; the same records whether a trial is trained in this process or
its files are followed, but for checkpoints.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from starting import Starter
from stopping import After, contents

import lrexp
from lrexp.records import (
    Ended,
    Evaluation,
    Failed,
    Group,
    Record,
    Started,
    Steps,
    Trial,
    TrialId,
)
from lrexp.runs.checkpoint import Position, Remaining, SavedGroup
from lrexp.runs.follow import Follower
from lrexp.runs.writer import TrialWriter

CONFIG = {
    "model": {"name": "mlp", "args": {"hidden": [8], "dropout": 0.1}},
    "data": {"name": "digits", "batch_size": 64},
    "optimizer": {"name": "SGD", "lr": 0.1},
    "schedule": "cosine",
    "loss": "cross_entropy",
    "train": {"duration": 300, "eval_every": 90},
    "compare": {"seeds": 2, "variants": {"a": {}, "wild": {"optimizer.lr": 1e6}}},
}
WAYS = {
    "one by one": ("sequential", 1),
    "a stack": ("vectorized", 1),
    "processes": ("sequential", 2),
}


def told(records: Iterable[Record]) -> dict[TrialId, list[Any]]:
    """Return what sinks rely on, by trial: steps one by one, numbers as files hold them.

    Fails where a record is out of its place.
    """
    found: dict[TrialId, list[Any]] = {}
    for record in records:
        own = found.setdefault(record.trial, [])
        match record:
            case Started():
                assert not own or record.again
                own[:] = ["started"]
            case Steps():
                assert own[0] == "started"
                rows = zip(record.epoch, record.lr, record.loss, strict=True)
                own += [
                    (step, epoch, lr, f"{loss:.9g}")
                    for step, (epoch, lr, loss) in enumerate(rows, record.first)
                ]
            case Evaluation():
                done = 1 + max((row[0] for row in own if isinstance(row, tuple)), default=-1)
                assert record.step == done
                values = {name: f"{value:.12g}" for name, value in record.values.items()}
                own.append({"step": record.step, "epoch": f"{record.epoch:.6g}", **values})
            case Ended():
                own.append(("ended", record.steps, record.stopped_at))
            case Failed():
                own.append(("failed", str(record.error)))
    return found


def steps_of(rows: Sequence[Any]) -> list[int]:
    return [row[0] for row in rows if isinstance(row, tuple) and isinstance(row[0], int)]


@pytest.mark.parametrize("way", WAYS)
def test_a_sink_gets_the_records_of_a_trial_in_order(
    way: str, tmp_path: Path, quick_workers: Starter
) -> None:
    engine, jobs = WAYS[way]
    records: list[Record] = []
    run = lrexp.compare(
        CONFIG, engine=engine, jobs=jobs, sinks=[records.append], out=tmp_path / "run"
    )
    found = told(records)
    assert len(found) == 4
    for trial in run.trials:
        rows = found[TrialId(trial.variant, trial.seed)]
        last = rows[-1]
        assert last[0] == "ended"
        assert steps_of(rows) == list(range(last[1]))
        assert [row["step"] for row in rows if isinstance(row, dict)] == list(trial.evals["step"])
        assert (last[2] is None) == (trial.variant == "a")
    if way == "processes":
        here: list[Record] = []
        lrexp.compare(CONFIG, engine=engine, jobs=1, sinks=[here.append], out=tmp_path / "here")
        assert told(here) == found


@pytest.mark.parametrize("way", WAYS)
def test_every_step_comes_once_also_after_a_resume(
    way: str, tmp_path: Path, quick_workers: Starter
) -> None:
    engine, jobs = WAYS[way]
    first: list[Record] = []
    second: list[Record] = []
    run = tmp_path / "run"
    stop = After(40) if jobs == 1 else lambda: any(isinstance(r, Steps) for r in first)
    long = {**CONFIG, "train": {"duration": 900, "eval_every": 250}}
    with pytest.raises(lrexp.InterruptedRunError):
        lrexp.compare(long, engine=engine, jobs=jobs, sinks=[first.append], out=run, stop=stop)
    lrexp.resume(run, sinks=[second.append])
    before, after = told(first), told(second)
    assert any(steps_of(rows) for rows in before.values())
    for trial, rows in after.items():
        both = steps_of(before.get(trial, [])) + steps_of(rows)
        assert both == list(range(rows[-1][1]))
    assert {trial for trial, rows in (before | after).items() if rows[-1][0] == "ended"} == {
        TrialId(variant, seed) for variant in ("a", "wild") for seed in (0, 1)
    }


def test_a_sink_that_raises_is_dropped_and_harms_nothing(tmp_path: Path) -> None:
    said, calls, others = io.StringIO(), [], []

    def breaks(record: Record) -> None:
        calls.append(record)
        if isinstance(record, Steps):
            raise OSError("the tracker is gone")

    with pytest.warns(RuntimeWarning, match="breaks gets no more records: OSError"):
        run = lrexp.compare(
            CONFIG, jobs=1, engine="sequential", sinks=[breaks, others.append],
            out=tmp_path / "run", console=Console(file=said, width=200),
        )  # fmt: skip
    assert [type(call) for call in calls].count(Steps) == 1
    assert said.getvalue().count("gets no more records: OSError: the tracker is gone") == 1
    assert all(rows[-1][0] == "ended" for rows in told(others).values())
    lrexp.compare(CONFIG, jobs=1, engine="sequential", out=tmp_path / "peace")
    assert contents(run.path) == contents(tmp_path / "peace")


@pytest.mark.parametrize("sinks", [3, "print", [None], [print, 3]])
@pytest.mark.parametrize("verb", ["compare", "find_lr", "resume"])
def test_sinks_are_functions(verb: str, sinks: Any, tmp_path: Path) -> None:
    argument = tmp_path if verb == "resume" else CONFIG
    with pytest.raises(lrexp.ConfigError, match=r"^sinks: must be functions of a record"):
        getattr(lrexp, verb)(argument, sinks=sinks)


def test_find_lr_and_its_race_tell_of_every_stage(tmp_path: Path) -> None:
    records: list[Record] = []
    config = {**CONFIG, "find_lr": {"steps": 60, "seeds": 1, "race": True, "budget": 1}}
    run = lrexp.find_lr(config, jobs=1, sinks=[records.append], out=tmp_path / "run").run
    named = {trial.variant for trial in run.trials}
    assert {trial.variant for trial in told(records)} == named
    assert {"range_test"} < named


A = TrialId("a", 0)


class Files:
    """The files of a trial, as a process writes them; `news` is what is read meanwhile."""

    def __init__(self, run: Path) -> None:
        self.run, self.folder = run, run / "trials/a/seed-0"
        self.deaths: dict[TrialId, list[str]] = {}
        self.writers: list[TrialWriter] = []
        self.follow(Remaining(()))

    def follow(self, left: Remaining) -> None:
        """Begin to read."""
        self.follower = Follower(self.run, [Trial(A, "compare", 9)], left, self.deaths)

    def begin(self) -> None:
        """Begin the trial, anew if it was there."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.writers.append(TrialWriter(self.folder))

    def save_and_follow(self, saved: int, rows: int) -> None:
        """Write a trial that is saved after some steps; who reads begins when there are so many."""
        self.begin()
        self.steps(*range(saved))
        self.sizes = self.writers[-1].sync()
        self.steps(*range(saved, rows))
        position = Position(self.sizes, {"steps": saved})
        group = Group("sequential", (A,))
        self.follow(Remaining((group,), {A: SavedGroup(saved, {}, {A.name: position})}))

    def go_on(self) -> None:
        """Go on from where it was saved."""
        self.writers.append(TrialWriter(self.folder, sizes=self.sizes))

    def steps(self, *numbers: int) -> None:
        """Write steps."""
        if numbers:
            count = len(numbers)
            self.writers[-1].steps(numbers[0], [0] * count, [0.1] * count, [1.0] * count)

    def evaluation(self, step: int) -> None:
        """Write an evaluation."""
        self.writers[-1].evaluation(step, 0.5, {"val_loss": float(step)})

    def result(self, **more: Any) -> None:
        """Write the result."""
        self.writers[-1].result({"outcome": "finished", "steps": 9, "seconds": 1.0, **more})

    def news(self) -> list[str]:
        """Return the records since the last call, in short."""
        return [short(record) for record in self.follower.records(lambda: True)]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """A trial that has not begun."""
    found = Files(tmp_path)
    yield found
    for writer in found.writers:
        writer.close()


def short(record: Record) -> str:
    match record:
        case Started():
            return f"started: {record.again}" if record.again else "started"
        case Steps():
            return f"{record.first}-{record.first + len(record.loss) - 1}"
        case Evaluation():
            return f"eval {record.step}"
        case _:
            return type(record).__name__.lower()


def test_an_evaluation_waits_for_the_steps_before_it(files: Files) -> None:
    files.begin()
    files.evaluation(0)
    assert files.news() == ["started", "eval 0"]
    files.steps(0, 1, 2)
    read = files.follower._waiting[0]._steps.fetch

    def slow(is_over: bool) -> bool:
        """The trial goes on between the look at its steps and that at its evaluations."""
        found = read(is_over)
        files.steps(3, 4)
        files.evaluation(5)
        files.steps(5)
        return found

    files.follower._waiting[0]._steps.fetch = slow
    assert files.news() == ["0-2"]
    files.follower._waiting[0]._steps.fetch = read
    files.steps(6)
    assert files.news() == ["3-4", "eval 5", "5-6"]


def test_half_of_a_line_waits_for_its_end(files: Files) -> None:
    files.begin()
    files.steps(0)
    with (files.folder / "steps.csv").open("a") as file:
        file.write("1,0,0.1")
        file.flush()
        assert files.news() == ["started", "0-0"]
        file.write(",1\n")
    assert files.news() == ["1-1"]


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_a_trial_that_begins_anew_starts_again_from_its_first_step(rows: int, files: Files) -> None:
    files.begin()
    files.steps(0, 1, 2, 3)
    assert files.news() == ["started", "0-3"]
    files.deaths[A] = ["was killed"]
    assert files.news() == ["started: its worker was killed", "0-3"]
    files.begin()
    files.steps(*range(rows))
    found = files.news()
    if found[:1] == [
        "started: it was begun anew"
    ]:  # where the file system shows that it is another
        assert found[1:] == [f"0-{rows - 1}"]
    else:
        assert found == ([f"4-{rows - 1}"] if rows > 4 else [])


def test_a_trial_that_died_before_it_wrote_anything_starts_once(files: Files) -> None:
    files.deaths[A] = ["was killed"]
    assert files.news() == ["started: its worker was killed"]
    files.begin()
    files.steps(0)
    assert files.news() == ["0-0"]


def test_a_last_death_is_no_new_beginning(files: Files) -> None:
    files.begin()
    assert files.news() == ["started"]
    files.result(outcome="failed", error="died", error_kind="WorkerDiedError")
    files.deaths[A] = ["was killed"]
    assert files.news() == ["failed"]


@pytest.mark.parametrize("rows", [5, 8])
def test_a_trial_that_goes_on_gives_what_comes_after_its_checkpoint(
    rows: int, files: Files
) -> None:
    files.save_and_follow(5, rows)
    assert files.news() == []  # of an earlier process
    files.go_on()
    files.steps(5, 6)
    assert files.news() == ["started", "5-6"]


def test_a_trial_that_was_saved_after_its_last_step_ends(files: Files) -> None:
    files.save_and_follow(9, 9)
    files.go_on()
    files.result()
    assert files.news() == ["started", "ended"]


def test_a_checkpoint_that_was_not_used_loses_no_step(files: Files) -> None:
    files.save_and_follow(5, 5)
    files.begin()
    files.steps(*range(7))
    files.result()
    found = files.news()
    # Rows that are the same need not be read again: a sink of this process has had none of them.
    assert found[-2:] in (["0-6", "ended"], ["5-6", "ended"])
    assert found[0] == "started"
