"""Stacks that are stopped and continued: the same copies at the same rows, so the same bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from engine.resume_cases import (
    BOTH,
    CASES,
    diverging,
    pair,
    short,
)
from engine.resuming import (
    Always,
    Raising,
    assert_continues,
    assert_goes_on,
    at_step,
    checkpoints,
    resumed,
    rows,
    run,
    saved,
)

from lrexp.engine.family import families
from lrexp.engine.stop import Pace
from lrexp.engine.task import Task
from lrexp.records import Ended, Started, TrialId


def test_a_stack_drops_copies_and_goes_on() -> None:
    pace = Pace(chunk_steps=1, drop_every=4)
    expected = assert_goes_on(
        "vectorized", lambda: diverging("CNN"), lambda step: step in (11, 21), pace
    )
    assert len(expected) == 5


@pytest.mark.long
@pytest.mark.parametrize("net", ["CNN", "dropout"])
def test_a_stack_drops_copies_and_goes_on_at_every_step(net: str) -> None:
    pace = Pace(chunk_steps=1, drop_every=4)
    assert_continues("vectorized", lambda: diverging(net), pace=pace)


def rows_of_stacks(records: Sequence[Any]) -> dict[int, list[Any]]:
    """Return whose rows a stack has at each step."""
    return {
        c.step: [column["trial"] for column in c.state["columns"]] for c in checkpoints(records)
    }


@pytest.fixture(scope="module")
def watched() -> list[Any]:
    """A stack whose copies diverge one after the other, with a checkpoint after every step."""
    return run("vectorized", diverging(), pause=Always())


def test_trials_that_ended_since_the_checkpoint_keep_their_rows(watched: list[Any]) -> None:
    """Until they would have been dropped: the others' bits may depend on how many there are."""
    at_5 = at_step(watched, 5)
    assert len(at_5.trials) == 4
    state, tail = saved(at_5.state), rows(watched, 5)
    for left in (at_5.trials[1:], at_5.trials[2:3]):
        tasks = [replace(task, is_over=task.trial not in left) for task in diverging()]
        rest = run("vectorized", tasks, pause=Always(), state=state)
        assert rows(rest) == {trial: tail[trial] for trial in left}
        assert {trial for c in checkpoints(rest) for trial in c.trials} == set(left)
        expected, found = rows_of_stacks(watched), rows_of_stacks(rest)
        assert found == {step: expected[step] for step in found}
        assert found.keys() == set(range(7, tail[left[-1]][-1][1]))  # fmt: skip


def test_a_stack_goes_on_twice(watched: list[Any]) -> None:
    """Rows of what is over are in the second checkpoint, too."""
    at_5 = at_step(watched, 5)
    left = at_5.trials[2:]
    tasks = [replace(task, is_over=task.trial not in left) for task in diverging()]
    first = run("vectorized", tasks, state=saved(at_5.state), pause=Always(stop_at=3))
    at_8 = checkpoints(first)[-1]
    assert (at_8.step, at_8.trials) == (8, left)
    assert len(at_8.state["columns"]) == 5
    tail = rows(watched, 8)
    assert rows(run("vectorized", tasks, state=saved(at_8.state))) == {t: tail[t] for t in left}


def test_a_stack_goes_on_without_the_tasks_of_what_is_over(watched: list[Any]) -> None:
    at_5 = at_step(watched, 5)
    left = at_5.trials[2:]
    tasks = [task for task in diverging() if task.trial in left]
    rest, tail = rows(run("vectorized", tasks, state=saved(at_5.state))), rows(watched, 5)
    assert rest.keys() == set(left)
    for trial, own in rest.items():  # its rows are dropped earlier: bits may differ
        assert [row[:2] for row in own] == [row[:2] for row in tail[trial]]


@pytest.mark.parametrize("engine", BOTH)
def test_what_is_over_is_not_told_where_others_begin_anew(engine: str, watched: list[Any]) -> None:
    straight = rows(watched if engine == "vectorized" else run(engine, diverging()))
    over = {TrialId("3", 1), TrialId("16", 0)}
    records = run(engine, [replace(t, is_over=t.trial in over) for t in diverging()])
    assert rows(records) == {trial: own for trial, own in straight.items() if trial not in over}
    assert not any(record.trial in over for record in records)
    assert run(engine, [replace(task, is_over=True) for task in diverging()]) == []


def test_a_trial_that_a_checkpoint_does_not_know_begins_anew() -> None:
    first, *others = CASES["several seeds"]()
    straight, alone = run("vectorized", others), run("vectorized", [first])
    at_4 = at_step(run("vectorized", others, pause=Always()), 4)
    rest = run("vectorized", [first, *others], state=saved(at_4.state))
    assert rows(rest) == rows(straight, 4) | rows(alone)


@pytest.mark.parametrize("raises_at", [1, 11])
def test_a_stack_that_raised_goes_on_one_by_one(raises_at: float) -> None:
    def no_memory() -> None:
        raise ValueError("no memory")

    def tasks(raises_at: float = math.inf) -> list[Task]:
        data = Raising(short().train, no_memory)
        made = pair("MLP", total_steps=12, eval_every=5, train=data)
        families(made)  # their first steps are tried before
        data.nth, data.read = data.read + raises_at, 0
        return made

    straight = run("vectorized", tasks(raises_at))
    again = [record for record in straight if isinstance(record, Started) and record.again]
    assert len(again) == 2
    expected = rows(run("sequential", tasks()))
    watched = run("vectorized", tasks(raises_at), pause=Always())
    apart = [c for c in checkpoints(watched) if "apart" in c.state]
    assert [c.step for c in apart] == [0, *range(2, 12), *range(2, 12)]
    assert [len(c.trials) for c in apart] == [2] * 11 + [1] * 10
    for checkpoint in apart[::4]:  # what is left of the stack would not raise any more
        rest = resumed("vectorized", tasks(), checkpoint)
        found = rows(rest)
        assert not any(record.again for record in rest if isinstance(record, Started))
        for number, trial in enumerate(checkpoint.trials):
            after = checkpoint.step if number == 0 else 0
            assert found[trial] == rows(run("sequential", tasks()), after)[trial]
    assert rows(watched).keys() == expected.keys()


def test_what_is_over_is_not_trained_again_where_a_stack_raises() -> None:
    def no_memory() -> None:
        raise ValueError("no memory")

    data = Raising(short().train, no_memory)
    made = pair("MLP", total_steps=12, eval_every=5, train=data)
    families(made)
    data.nth, data.read = data.read + 3, 0
    records = run("vectorized", [replace(made[0], is_over=True), made[1]])
    assert {record.trial for record in records} == {made[1].trial}
    assert [r.steps for r in records if isinstance(r, Ended)] == [12]
