"""What a search trains and answers, on landscapes whose best LR is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.answer import Verdict, verdict
from lrexp.analysis.race import Raced, Rung, mean_losses, position, regrets
from lrexp.analysis.search import Costs, Search, evaluations, next_rung, predicted

from .planted_races import Basin, came_to, searched, trainings

LANDS = {
    "best": st.floats(-5, 0),
    "off": st.floats(-0.6, 0.6),
    "width": st.floats(0.6, 1.5),
    "cliff": st.floats(0.4, 1.5),
}


def answered(search: Search, land: Basin) -> tuple[Verdict, list[Rung], list[Raced]]:
    asked, done = searched(search, land.loss, land.start)
    return verdict(search, done), asked, done


@given(**LANDS, budget=st.floats(1.0, 40.0))
def test_the_answer_lies_in_a_planted_basin(
    best: float, off: float, width: float, cliff: float, budget: float
) -> None:
    land = Basin(best, width, cliff)
    search = trainings(budget, start_lr=10 ** (best + off))
    answer, *_ = answered(search, land)
    assert answer.lr is not None
    assert abs(math.log10(answer.lr) - best) < 0.5
    assert land.regret(answer.lr) < (0.02 if budget > 8 else 0.25)


@given(**LANDS, budget=st.floats(0.3, 40.0), narrow=st.booleans())
def test_an_interval_never_leaves_what_was_tried_and_holds_none_that_failed(
    best: float, off: float, width: float, cliff: float, budget: float, narrow: bool
) -> None:
    land = Basin(best, width / (4 if narrow else 1), cliff / (4 if narrow else 1))
    search = trainings(budget, start_lr=10 ** (best + 2 * off))
    answer, _, done = answered(search, land)
    if answer.interval is None:
        assert answer.reason
        return
    low, high = answer.interval
    tried = [lr for raced in done for lr in raced.rung.lrs]
    assert answer.lr is not None
    assert low <= answer.lr <= high
    assert min(tried) * 0.995 <= low <= high <= max(tried) * 1.005
    for raced in done:
        for lr, failed in zip(raced.rung.lrs, raced.failed, strict=True):
            assert not (failed and low * 1.005 < lr < high * 0.995)


@given(**LANDS, seed=st.integers(0, 3))
def test_of_the_lrs_in_an_interval_nearly_all_are_as_good_as_it_says(
    best: float, off: float, width: float, cliff: float, seed: int
) -> None:
    land = Basin(best, width, cliff)
    search = trainings(40.0, start_lr=10 ** (best + off), seed=seed)
    answer, *_ = answered(search, land)
    assert answer.interval is not None
    assert answer.within is not None
    lrs = np.geomspace(*answer.interval, 21)
    losses = np.array([land.loss(400, float(lr)) for lr in lrs])
    assert np.mean(losses <= land.low * (1 + answer.within)) >= 0.9


@given(total=st.integers(100, 10_000), budget=st.floats(0.5, 30), best=st.floats(-6, 1))
def test_a_budget_is_never_exceeded_and_no_training_is_made_twice(
    total: int, budget: float, best: float
) -> None:
    land = Basin(best, total_steps=total)
    asked, _ = searched(trainings(budget, total), land.loss, land.start)
    assert sum(rung.steps for rung in asked) <= budget * total * (1 + 1e-6)
    assert all(1 <= rung.horizon <= total for rung in asked)
    named = [trial for rung in asked for trial in rung.trials]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize(
    ("budget", "first"),
    [
        (0.5, [(5, 4), (20, 3)]),
        (1.0, [(10, 4), (40, 3)]),
        (2.0, [(20, 4), (80, 3)]),
        (4.0, [(20, 4), (160, 3)]),  # whole trainings after scouts
        (6.0, [(160, 4)]),  # whole trainings alone
        (20.0, [(160, 9)]),
    ],
)
def test_what_a_budget_buys(budget: float, first: list[tuple[int, int]]) -> None:
    land = Basin(-2.0, total_steps=160)
    asked, _ = searched(trainings(budget, 160), land.loss, land.start)
    of_each = {rung.horizon: len(rung.lrs) for rung in reversed(asked)}
    assert sorted(of_each.items()) == first


def test_stacks_buy_more_lrs() -> None:
    alone, stacked = Costs({1: 0.01}), Costs({1: 0.01, 4: 0.003}, setup=0.5)
    assert Search(0.01, 100, 5.0, alone).horizons != (100,)
    assert Search(0.01, 100, 5.0, stacked).horizons == (100,)
    assert stacked.of(8, 100) == pytest.approx(0.5 + 8 * 100 * 0.003)
    assert stacked.of(3, 100) == pytest.approx(3.0)  # too few for the stack that was measured


def test_evaluations_are_paid_for_and_stay_few() -> None:
    costs = Costs({1: 0.01}, evaluation=10.0)
    assert evaluations(100, 10.0) == 2
    assert costs.of(1, 100) == pytest.approx((100 + 3 * 10.0) * 0.01)


@pytest.mark.parametrize("off", [-2.5, 2.5])
def test_it_is_found_from_far_away(off: float) -> None:
    land = Basin(-2.0)
    answer, asked, _ = answered(trainings(40.0, start_lr=10 ** (-2 + off)), land)
    assert answer.lr is not None
    assert land.regret(answer.lr) < 0.02
    assert len(asked) > 2  # the grid was widened


def test_a_grid_is_refined_and_then_gets_seeds() -> None:
    land = Basin(-2.0, 0.5)
    asked, done = searched(trainings(90.0), land.loss, land.start)
    lrs = np.log10(done[-1].rung.lrs)
    best = int(np.argmin(done[-1].means))
    assert max(b - a for a, b in pairwise(lrs[best - 1 : best + 2])) < 0.27
    assert done[-1].rung.seeds == (0, 1, 2, 3, 4)
    assert {rung.seeds for rung in asked} == {(0,), (1,), (2,), (3,), (4,)}


def test_lrs_that_are_all_too_high_are_followed_down_at_any_budget() -> None:
    land = Basin(-4.0, 0.8, total_steps=1600)
    for budget in (1.0, 4.0):
        answer, *_ = answered(trainings(budget, 1600, 0.005), land)
        assert answer.lr is not None, answer.reason


@pytest.mark.parametrize("drift", [-1.0, -0.5, 0.0, 0.5])
def test_how_the_best_lr_moves_with_the_length_is_measured(drift: float) -> None:
    land = Basin(-2.0, 0.8, cliff=9.0, total_steps=4000, drift=drift)
    short = trainings(1.0, 4000).horizons[0]
    way = math.log10(4000 / short)
    middle = -2.0 - drift * way  # of the scouts, which so have the best LR between them
    search = trainings(1.0, 4000, 10 ** (middle - 0.4 * way - 0.3))
    _, done = searched(search, land.loss, land.start)
    near, far = (predicted(search, done, length) for length in (done[-1].rung.horizon, 4000))
    way = math.log10(4000 / done[-1].rung.horizon)
    slope = (far.middle - near.middle) / way
    assert abs(slope - drift) < abs(-0.4 - drift) or abs(slope - drift) < 0.1  # nearer than before
    assert near.doubt == 0 < far.doubt < 0.25 * way


def test_an_extrapolated_answer_says_so() -> None:
    land = Basin(-2.0, total_steps=4000)
    answer, *_ = answered(trainings(0.5, 4000), land)
    assert answer.is_extrapolated
    assert any("Extrapolated from trainings of" in note for note in answer.notes)
    whole, *_ = answered(trainings(40.0, 4000), land)
    assert not whole.is_extrapolated
    assert whole.notes == ()


@pytest.mark.parametrize(("best", "end"), [(-9.0, "lowest"), (5.0, "highest")])
def test_a_best_lr_at_an_end_is_told(best: float, end: str) -> None:
    answer, *_ = answered(trainings(1.0), Basin(best, 4.0, 9.0))
    assert any(f"is the {end} of all" in note for note in answer.notes)


def rung_of(losses: list[list[float]], horizon: int = 100) -> Raced:
    lrs = tuple(10.0 ** (-4 + i / 2) for i in range(len(losses)))
    seeds = tuple(range(len(losses[0])))
    return Raced(Rung(horizon, lrs, seeds), (2.0,) * len(seeds), tuple(map(tuple, losses)))


def test_where_the_best_evaluation_parts_from_the_last_it_is_told() -> None:
    plain = rung_of([[1.0], [1.2], [1.4]])
    best = ((1.0,), (0.8,), (0.7,))
    at = ((100.0,), (50.0,), (20.0,))
    search = trainings(9.0, 100)
    parts = Raced(plain.rung, plain.start, plain.losses, best, at)
    notes = " ".join(verdict(search, [parts]).notes)
    assert "0.0001 ends best (1); 0.001 is better if you stop at step 20 (0.7)" in notes
    same = Raced(plain.rung, plain.start, plain.losses, plain.losses, ((100.0,),) * 3)
    assert "Overfitting" not in " ".join(verdict(search, [same]).notes)


@pytest.mark.parametrize(
    ("losses", "guess", "learns"),
    [
        ([[1.9], [1.0], [1.8]], 1.5, True),
        ([[1.9], [1.5], [1.8]], 1.4, False),  # no better than a constant
        ([[2.0], [2.0], [2.0]], None, False),
        ([[math.inf], [2.5], [2.1]], None, False),
    ],
)
def test_noise_is_said_to_be_noise(
    losses: list[list[float]], guess: float | None, learns: bool
) -> None:
    search = trainings(9.0, 100, guess=guess)
    answer = verdict(search, [rung_of(losses)])
    assert (answer.lr is not None) == learns
    assert learns or "nothing to learn" in str(answer.reason) or "No LR from" in str(answer.reason)


def test_one_seed_cannot_claim_a_percent() -> None:
    search = trainings(9.0, 100)
    near = [[1.5], [1.0001], [1.0], [1.0001], [1.5]]
    one = verdict(search, [rung_of(near)])
    three = verdict(search, [rung_of([row * 3 for row in near])])
    assert (one.within, three.within) == (0.1, 0.01)


@given(scale=st.floats(1e-3, 1e3), best=st.floats(-3, -1), budget=st.floats(1, 30))
def test_the_unit_of_the_loss_does_not_matter(scale: float, best: float, budget: float) -> None:
    land, search = Basin(best), trainings(budget)
    plain = verdict(search, searched(search, land.loss, land.start)[1])
    _, moved = searched(search, lambda h, lr, s: scale * land.loss(h, lr, s), scale * land.start)
    assert verdict(search, moved).lr == pytest.approx(plain.lr, rel=0.02)


def test_what_comes_next_follows_from_results_alone() -> None:
    land, search = Basin(-2.0), trainings(20.0)
    asked, _ = searched(search, land.loss, land.start)
    assert len(asked) > 2
    for count in range(len(asked)):
        known = asked[:count]
        assert next_rung(search, known, came_to(known, land.loss, land.start)) == asked[count]


def test_lrs_that_a_schedule_cannot_have_are_left_out() -> None:
    land = Basin(-2.0)
    asked, _ = searched(trainings(20.0, can_have=lambda lr: lr > 0.01), land.loss, land.start)
    assert all(lr > 0.01 for rung in asked for lr in rung.lrs)
    none = trainings(20.0, can_have=lambda lr: False)
    assert next_rung(none, [], []) is None
    assert "cannot have" in str(verdict(none, []).reason)


def test_one_seed_that_diverges_counts_as_not_trained() -> None:
    assert regrets([2.0, 2.0], [[1.0, 1.0], [1.0, math.inf]]).tolist() == [0.0, 0.5]


def test_an_lr_that_lacks_a_seed_is_compared_over_those_it_has() -> None:
    # the second seed ends 0.2 lower with every LR; the third LR would look worse for lacking it
    losses = [[1.0, 0.8], [1.2, 1.0], [0.95, math.nan]]
    assert mean_losses([2.0, 2.0], losses) == pytest.approx([0.9, 1.1, 0.85])


def test_the_middle_of_a_flat_basin_is_not_its_best_point() -> None:
    short = [0.001, 0.0, 0.002, 0.9]
    assert position([1e-3, 1e-2, 1e-1, 1.0], short) == pytest.approx(-2.0, abs=0.05)


def test_two_lrs_close_together_count_as_one() -> None:
    assert position([1e-3, 1e-2, 1.1e-2, 1e-1], [0.0] * 4) == pytest.approx(-2.0, abs=0.1)
