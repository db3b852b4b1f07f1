"""What a race decides, on landscapes whose best LR is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.race import (
    Course,
    Raced,
    Rung,
    next_rung,
    position,
    regrets,
    survivors,
    verdict,
)
from lrexp.errors import ConfigError

from .planted_races import Basin, came_to, race

BUDGETS = st.floats(0.25, 9.0)


@given(
    best=st.floats(-5, 0),
    off=st.floats(-0.6, 0.6),
    width=st.floats(0.6, 1.5),
    cliff=st.floats(0.4, 1.5),
    budget=st.floats(0.5, 6.0),
)
def test_the_answer_lies_in_a_planted_basin(
    best: float, off: float, width: float, cliff: float, budget: float
) -> None:
    land = Basin(best, width, cliff)
    course = Course(10 ** (best + off), land.total_steps, budget)
    answer = verdict(course, race(course, land.loss, land.start))
    assert answer.lr is not None
    assert answer.interval is not None
    assert abs(math.log10(answer.lr) - best) < 0.45
    assert land.regret(answer.lr) < 0.2
    assert answer.interval[0] <= answer.lr <= answer.interval[1]
    assert (answer.regret is None) == (answer.note is not None)
    assert answer.regret is None or 0 <= answer.regret <= 1


def test_the_expected_regret_tells_a_steep_basin_from_a_flat_one() -> None:
    def expected(width: float) -> float:
        land = Basin(-2.0, width, 2.0)
        answer = verdict(course, race(course, land.loss, land.start))
        assert answer.regret is not None
        return answer.regret

    course = Course(0.005, 400, 1.0)
    steep, usual, flat = expected(0.35), expected(0.7), expected(1.5)
    assert flat < usual < steep
    assert flat < 0.02 < steep


@pytest.mark.parametrize(("best", "end"), [(-4.5, "lowest"), (-0.2, "highest")])
def test_where_the_best_is_an_end_of_what_was_tried_the_regret_is_not_known(
    best: float, end: str
) -> None:
    land, course = Basin(best, 1.5, 3.0), Course(0.003, 400, 1.0)
    answer = verdict(course, race(course, land.loss, land.start))
    assert answer.lr is not None
    assert answer.regret is None
    assert f"is the {end} of all" in str(answer.note)


def test_equals_at_an_end_are_no_best_end() -> None:
    course = Course(0.01, 400, 1.0)
    answer = verdict(course, race(course, lambda h, lr, s: 1.0, 2.0))
    assert answer.note is None
    assert answer.regret == pytest.approx(0.0, abs=1e-9)


def test_a_rung_that_learned_nothing_is_not_read() -> None:
    course = Course(0.01, 160, 2.0)
    short = Raced(
        Rung(40, (0.01, 0.02, 0.04, 0.08), (0,)), (2.0,), ((2.1,), (2.2,), (2.3,), (2.4,))
    )
    long = Raced(Rung(80, (0.008, 0.016), (0,)), (2.0,), ((1.9,), (1.2,)))
    answer = verdict(course, [short, long])
    assert "The best LR tried, 0.016, is the highest" in str(answer.note)


def test_it_is_found_from_far_away() -> None:
    land = Basin(-2.0)
    for off in (-1.2, 1.2):
        course = Course(10 ** (-2 + off), land.total_steps, 2.0)
        answer = verdict(course, race(course, land.loss, land.start))
        assert answer.lr is not None
        assert land.regret(answer.lr) < 0.35


@given(
    total=st.integers(100, 10_000), budget=BUDGETS, seed=st.integers(0, 5), best=st.floats(-6, 1)
)
def test_a_budget_is_kept_to_the_step(total: int, budget: float, seed: int, best: float) -> None:
    land = Basin(best, total_steps=total)
    course = Course(0.01, total, budget, seed)
    done = race(course, land.loss, land.start)
    spent = sum(raced.rung.steps for raced in done)
    assert spent == sum(len(raced.rung.trials) * raced.rung.horizon for raced in done)
    assert spent <= budget * total + 1e-6
    assert spent >= 0.9 * min(budget, 8) * total - 8 * len(course.seeds) or budget > 4
    assert all(1 <= raced.rung.horizon <= total for raced in done)
    assert all(raced.rung.seeds[0] == seed for raced in done)
    names = [trial for raced in done for trial in raced.rung.trials]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("budget", "rungs"),
    [
        (0.5, [(20, 3, 1), (20, 1, 1)]),
        (1.0, [(40, 3, 1), (40, 1, 1)]),
        (1.5, [(60, 3, 1), (60, 1, 1)]),
        (2.0, [(40, 3, 1), (40, 1, 1), (80, 2, 1)]),
        (4.0, [(40, 3, 2), (40, 1, 2), (80, 2, 2)]),
    ],
)
def test_what_a_budget_buys(budget: float, rungs: list[tuple[int, int, int]]) -> None:
    land = Basin(-2.0, total_steps=160)
    done = race(Course(0.01, 160, budget), land.loss, land.start)
    assert [(r.rung.horizon, len(r.rung.lrs), len(r.rung.seeds)) for r in done] == rungs
    assert sum(r.rung.steps for r in done) == budget * 160


def test_a_budget_that_is_too_small_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"find_lr.budget: leaves less than 4 steps .* \(got 0.1\)"
    ):
        Course(0.01, 100, 0.1)


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), best=st.floats(-3, -1))
def test_units_of_the_loss_do_not_matter(scale: float, shift: float, best: float) -> None:
    land, course = Basin(best), Course(0.01, 400, 2.0)
    plain = verdict(course, race(course, land.loss, land.start))
    moved = race(course, lambda h, lr, s: scale * land.loss(h, lr, s) + shift, scale * 2 + shift)
    other = verdict(course, moved)
    assert plain.lr is not None
    assert other.lr == pytest.approx(plain.lr, rel=0.02)


def test_rungs_follow_from_results_alone() -> None:
    land, course = Basin(-2.0), Course(0.01, 400, 2.0)
    done = race(course, land.loss, land.start)
    for known in range(len(done)):
        assert next_rung(course, done[:known]) == done[known].rung
    assert next_rung(course, done) is None


@pytest.mark.parametrize(
    ("losses", "fourth"),
    [
        ([1.0, 1.5, 1.9], -3.6),  # past the lowest
        ([1.9, 1.5, 1.0], -1.2),  # past the highest
        ([1.5, 1.0, 1.9], -2.7),  # halfway to the better neighbour
        ([1.9, 1.0, math.inf], -2.7),
        ([1.9, 1.0, 1.5], -2.1),
        ([math.inf] * 3, -4.2),  # far below
    ],
)
def test_the_fourth_goes_where_it_is_needed(losses: list[float], fourth: float) -> None:
    course = Course(0.01, 160, 1.0)
    rung = Rung(40, tuple(10.0**x for x in (-3.0, -2.4, -1.8)), (0,))
    raced = Raced(rung, (2.0,), tuple((loss,) for loss in losses))
    following = next_rung(course, [raced])
    assert following is not None
    assert np.log10(following.lrs) == pytest.approx([fourth], abs=1e-3)


def test_lrs_that_a_schedule_cannot_have_are_left_out() -> None:
    land = Basin(-2.0)
    course = Course(0.01, 400, 2.0, can_have=lambda lr: lr > 0.01)
    done = race(course, land.loss, land.start)
    assert all(lr > 0.01 for raced in done for lr in raced.rung.lrs)
    none = Course(0.01, 400, 2.0, can_have=lambda lr: False)
    assert next_rung(none, []) is None
    assert "cannot have" in str(verdict(none, []).reason)


def test_where_nothing_learns_there_is_no_answer() -> None:
    course = Course(0.01, 400, 1.0)
    for end in (math.inf, 2.0, 2.5, math.nan):
        done = race(course, lambda h, lr, s, end=end: end, 2.0)  # type: ignore[misc]
        answer = verdict(course, done)
        assert (answer.lr, answer.interval, answer.regret) == (None, None, None)
        assert "No LR from" in str(answer.reason)


def test_one_seed_that_diverges_counts_as_not_trained() -> None:
    assert regrets([2.0, 2.0], [[1.0, 1.0], [1.0, math.inf]]).tolist() == [0.0, 0.5]


def test_the_middle_of_a_flat_basin_is_not_its_best_point() -> None:
    losses = [[1.0], [0.999], [1.001], [1.9]]
    assert position([1e-3, 1e-2, 1e-1, 1.0], [2.0], losses) == pytest.approx(-2.0, abs=0.01)


def test_two_lrs_close_together_count_as_one() -> None:
    flat = [[1.0]] * 4
    assert position([1e-3, 1e-2, 1.1e-2, 1e-1], [2.0], flat) == pytest.approx(-2.0, abs=0.1)


def test_the_better_half_is_trained_for_longer_a_little_lower() -> None:
    course = Course(0.01, 160, 2.0)
    rung = Rung(40, (0.01, 0.02, 0.04, 0.08), (0,))
    following = next_rung(course, [Raced(rung, (2.0,), ((1.9,), (1.5,), (1.0,), (1.8,)))])
    assert following is not None  # one more LR of the same length
    fourth = Raced(following, (2.0,), ((1.7,),))
    longer = next_rung(course, [Raced(rung, (2.0,), ((1.9,), (1.5,), (1.0,), (1.8,))), fourth])
    assert longer is not None
    assert longer.horizon == 80
    down = 2**-0.4  # the best LR falls with the length to the power of 0.4
    assert longer.lrs[-1] == pytest.approx(0.04 * down, rel=1e-3)
    assert set(np.round(np.array(longer.lrs) / down, 4)) <= {0.02, 0.04, round(following.lrs[0], 4)}


def test_the_better_half_survives() -> None:
    rung = Rung(10, (0.1, 0.2, 0.4, 0.8), (0,))
    raced = Raced(rung, (2.0,), ((1.5,), (1.0,), (1.2,), (math.inf,)))
    assert survivors(raced) == (0.2, 0.4)
    assert survivors(came_to(Rung(10, (0.1,), (0,)), lambda h, lr, s: 1.0, 2.0)) == (0.1,)
