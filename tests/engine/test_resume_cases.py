"""Trainings of every kind, stopped and continued, give what they give without a stop, bit for bit.

By default one of each engine is continued at every step, the others at a few; --long does all.
"""

from __future__ import annotations

import pytest
from engine.resume_cases import (
    BOTH,
    CASES,
    STEPS,
    goes_on_somewhere,
    pair,
)
from engine.resuming import assert_continues, run

from lrexp.records import Ended


@pytest.mark.parametrize(
    ("case", "engine"),
    [  # by default each case with one of the engines, in turn
        pytest.param(case, engine, marks=() if (row + column) % 2 else pytest.mark.long)
        for row, case in enumerate(CASES)
        for column, engine in enumerate(BOTH)
    ],
)
def test_every_case_continued_at_some_steps(case: str, engine: str) -> None:
    goes_on_somewhere(engine, CASES[case])


@pytest.mark.parametrize("engine", BOTH)
def test_a_case_continued_at_every_step(engine: str) -> None:
    """Within an epoch, between two, and right before and after an evaluation."""
    steps = STEPS if engine == "sequential" else 9
    assert_continues(engine, lambda: pair("dropout", "AdamW", total_steps=steps))


def test_checkpoints_change_nothing_of_a_stack() -> None:
    """It is trained without them, too; one of those it goes on from is right after an evaluation."""
    assert_continues("vectorized", CASES["AdamW, dropout"], lambda step: step in {13, 14})


@pytest.mark.long
@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("case", CASES)
def test_every_case_continued_at_every_step(case: str, engine: str) -> None:
    assert_continues(engine, CASES[case])


def test_the_cases_above_diverge_before_and_after_a_checkpoint() -> None:
    for case, count in (("diverging", 4), ("range test", 1)):
        ends = [r for r in run("sequential", CASES[case]()) if isinstance(r, Ended)]
        assert sum(end.stopped_at is not None for end in ends) == count
