"""What was measured once chooses the engine from then on, whatever the load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from engine.small_tasks import make_task

from lrexp.engine import calibrate
from lrexp.engine.calibrate import Speed
from lrexp.runs.timings import Timings, forget_timings, timings_path

CONFIG = """\
name: timed
model: {name: mlp, args: {hidden: [16]}}
data: {name: digits, batch_size: 64}
loss: cross_entropy
optimizer: {name: SGD, lr: 0.1}
train: {duration: 600st, eval_every: 600st}
compare: {variants: {a: {}, b: {optimizer.lr: 0.2}, c: {optimizer.lr: 0.3}, d: {optimizer.lr: 0.05}}}
"""


def test_a_figure_is_kept_where_another_run_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "deep/timings.json"
    assert Timings(path).get("step", "of this") is None
    assert Timings(path).keep(0.25, "step", "of this") == 0.25
    assert Timings(path).keep(9.0, "step", "of this") == 0.25  # what is known counts
    assert Timings(path).keep(9.0, "step", "of that") == 9.0


def test_of_two_runs_at_once_the_first_figure_counts(tmp_path: Path) -> None:
    one, other = Timings(tmp_path / "t.json"), Timings(tmp_path / "t.json")
    assert one.keep(1.0, "step") == other.keep(2.0, "step") == 1.0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": "y"}', "null"])
def test_a_damaged_file_is_written_anew(content: str, tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    path.write_text(content)
    assert Timings(path).keep(1.0, "step") == 1.0
    assert Timings(path).get("step") == 1.0


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    timings = Timings(tmp_path / "file/timings.json")
    assert timings.keep(1.0, "step") == 1.0
    assert timings.get("step") == 1.0


def test_the_oldest_figures_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrexp.runs.timings.MOST_ENTRIES", 3)
    timings = Timings(tmp_path / "t.json")
    for number in range(5):
        timings.keep(number, number)
    assert [Timings(tmp_path / "t.json").get(n) for n in range(5)] == [None, None, 2, 3, 4]


def test_a_speed_keeps_its_seconds_and_not_its_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter(
        [Speed(0.1, 0.5, 8, [[1.0]]), Speed(0.9, 0.7, 8, [[2.0]]), Speed(3.0, 1.0, 8, [])]
    )
    monkeypatch.setattr(calibrate, "sequential_speed", lambda *_: next(speeds))
    machine = Timings(tmp_path / "t.json").machine()
    task = make_task(timed_as="a small net")
    assert machine.alone(task, 50) == Speed(0.1, 0.5, 8, [[1.0]])
    assert machine.alone(task, 50) == Speed(0.1, 0.5, 8, [[2.0]])
    assert machine.alone(make_task(), 50).seconds == 3.0  # nobody knows what this one is


@pytest.mark.parametrize(("first", "engine"), [(1e-3, "vectorized"), (100.0, "sequential")])
def test_the_choice_is_that_of_the_first_time(
    first: float, engine: str, lrexp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stacks look faster or slower than single steps at first, and the other way round later."""
    (tmp_path / "timed.yaml").write_text(CONFIG)
    true_alone, true_stacked = calibrate.sequential_speed, calibrate.stacked_speed
    factor = {"stack": 0.1 * first}

    def alone(task, most_steps):
        return calibrate.replace(true_alone(task, most_steps), seconds=0.0009)

    def stacked(tasks, facts):
        return calibrate.replace(true_stacked(tasks, facts), seconds=0.0009 * factor["stack"])

    monkeypatch.setattr(calibrate, "sequential_speed", alone)
    monkeypatch.setattr(calibrate, "stacked_speed", stacked)
    found = []
    for load in (1.0, 1000.0 if first < 1 else 1e-4):
        factor["stack"] = 0.1 * first * load
        out = f"run{load}"
        assert lrexp("compare", "timed.yaml", "--out", out, "--jobs", 1, "--quiet").code == 0
        (stage,) = json.loads((tmp_path / out / "engine.json").read_text())["stages"]
        found.append(stage["units"])
    assert found[0] == found[1]
    assert {unit["engine"] for unit in found[0]} == {engine}
    assert timings_path().exists()
    answer = lrexp("--forget-timings")
    assert (answer.code, str(timings_path()) in answer.out) == (0, True)
    assert not timings_path().exists()
    assert not forget_timings()
