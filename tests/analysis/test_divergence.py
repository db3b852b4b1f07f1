"""A training is stopped when it is lost for good, and left alone when it may come back."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.stopping import DivergenceStop
from lrexp.errors import ConfigError

RULE = DivergenceStop()


def stop_index(losses: object, rule: DivergenceStop = RULE) -> int | None:
    return rule.first_stop(losses, rule.init())[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 2, 3, 500])
def test_a_loss_that_is_not_finite_stops_at_once(bad: float, at: int) -> None:
    state, index = RULE.first_stop([1.0] * at + [bad], RULE.init())
    assert index == state.stopped_at == at
    assert RULE.update(state, 0.0) == (state, True)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (np.r_[np.ones(50), np.full(300, 1e6)], 50 + 99),
        (np.r_[np.ones(50), np.full(99, 1e6), np.ones(50)], None),  # one loss short
        (np.r_[np.ones(1000), np.full(500, 20.0)], 1333),  # the last quarter: 334 of 1334
        (np.r_[np.ones(50), np.full(300, 10.9)], None),  # below the bar of 1 + 10·1
        (np.r_[np.ones(50), np.full(300, 11.1)], 50 + 99),
        (np.r_[np.full(50, -2.0), np.full(300, 17.9)], None),  # −2 + 10·2
        (np.r_[np.full(50, -2.0), np.full(300, 18.1)], 50 + 99),
        (np.r_[1.0, -9.0, np.full(300, 40.0)], None),  # −9 was seen: the scale is at least 10
        (2.0 * 1.05 ** np.arange(300), 150),  # slow, steady growth: above 22 from step 50 on
    ],
)
def test_far_above_the_start_for_good(losses: np.ndarray, expected: int | None) -> None:
    index = stop_index(losses)
    assert index == expected or (expected is not None and index == pytest.approx(expected, abs=2))


def test_an_early_explosion_that_recovers_is_left_alone() -> None:
    # as AdamW on a small regression does at a huge rate: up to 1e13 within four steps, and back
    recovering = np.r_[1.1, 1e12, 4e12, 1e13, 1e13 * 0.97 ** np.arange(1100), np.full(500, 0.9)]
    assert stop_index(recovering) is None


def test_a_spike_and_a_warmup_transient_are_left_alone() -> None:
    steps = np.arange(2000)
    spike = 2.3 * np.exp(-steps / 300) + 500.0 * np.exp(-np.maximum(steps - 200, 0) / 30) * (
        steps >= 200
    )
    warmup = 2.3 + 60.0 * np.exp(-(((steps - 150) / 40) ** 2)) - steps / 1000
    assert stop_index(spike) is None
    assert stop_index(warmup) is None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["chi-square", "rare", "reward", "near zero", "one sample"])
def test_noisy_trainings_are_left_alone(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 3000
    losses = {
        "chi-square": rng.chisquare(1, n) * np.linspace(1, 0.2, n),
        "rare": np.where(rng.uniform(size=n) < 0.05, 10.0, 0.01) * rng.uniform(0.5, 1.5, n),
        "reward": rng.normal(size=n) - np.linspace(0, 5, n),
        "near zero": 1e-9 * rng.lognormal(0, 2, n),
        "one sample": rng.exponential(2.3, n),
    }[kind]
    assert stop_index(losses) is None


def test_an_explosion_in_the_first_updates_is_seen_beside_a_loss_from_before_training() -> None:
    # median of the first three: 800 without, 2.3 with the loss before training
    exploded = np.r_[2.3, 800.0, np.full(300, 900.0)]
    assert stop_index(exploded) is None
    assert RULE.first_stop(exploded, RULE.init(2.31))[1] == 101  # the hundredth above the bar
    for unknown in (None, math.nan, math.inf):
        assert RULE.init(unknown) == RULE.init()


@pytest.mark.parametrize(
    ("losses", "final", "expected"),
    [
        (np.ones(60), None, False),
        (np.r_[np.ones(50), np.full(10, 1e6)], None, True),  # above for the last tenth and more
        (np.r_[np.ones(56), np.full(4, 1e6)], None, False),  # four of sixty may be a spike
        (np.r_[np.ones(30), 1e6 * 0.9 ** np.arange(60)], None, True),  # coming back, not in time
        (np.r_[np.ones(30), 1e6 * 0.5 ** np.arange(60)], None, False),
        (np.ones(60), 10.9, False),  # an evaluation, against the bar of 1 + 10·1
        (np.ones(60), 11.1, True),
        (np.ones(60), math.nan, True),
        (np.ones(60), math.inf, True),
    ],
)
def test_how_a_training_ended(losses: np.ndarray, final: float | None, expected: bool) -> None:
    state, index = RULE.first_stop(losses, RULE.init())
    assert index is None
    assert RULE.never_came_back(state, final) is expected


def test_it_depends_on_the_losses_alone_and_keeps_its_scale() -> None:
    losses = np.r_[np.ones(30), 40 + np.random.default_rng(0).normal(size=300)]
    assert stop_index(losses) == stop_index(losses) == stop_index(losses * 2.0**-20)


LOSSES = st.lists(
    st.floats(-2, 2) | st.floats(20, 1e4) | st.sampled_from([math.nan, math.inf]), max_size=120
)


@given(losses=LOSSES, cuts=st.lists(st.integers(0, 120), max_size=4))
def test_chunks_give_what_single_losses_give(losses: list[float], cuts: list[int]) -> None:
    rule = DivergenceStop(factor=2.0, patience=5)
    state, stopped = rule.init(), None
    for index, loss in enumerate(losses):
        state, stop = rule.update(state, loss)
        if stop:
            stopped = index
            break
    chunked, found, start = rule.init(), None, 0
    for end in [*sorted(cuts), len(losses)]:
        if found is None and end > start:
            chunked, index = rule.first_stop(np.array(losses[start:end]), chunked)
            found = None if index is None else start + index
            start = end
    assert (chunked, found) == (state, stopped)


def test_a_million_calm_losses_take_one_pass() -> None:
    losses = np.random.default_rng(0).uniform(1, 3, size=1_000_000)
    start = time.process_time()
    state, index = RULE.first_stop(losses[3:], RULE.first_stop(losses[:3], RULE.init())[0])
    assert index is None
    assert state.steps == 1_000_000
    assert state.lowest == losses.min()
    assert time.process_time() - start < 1.0  # 2 ms; a Python loop takes a second


@pytest.mark.parametrize("arguments", [{"factor": 0.0}, {"factor": math.nan}, {"patience": 0}])
def test_bad_arguments(arguments: dict) -> None:
    with pytest.raises(ConfigError) as raised:
        DivergenceStop(**arguments)
    assert [problem.key for problem in raised.value.problems] == list(arguments)


@pytest.mark.parametrize(
    ("losses", "lost"),
    [
        ([2.3] * 3 + [1e17, 1e9, 1e6, 1e5] + [5e4] * 9, True),  # falls all the time, never back
        ([2.3] * 3 + [1e17, 1e9, 1e6, 1e5] + [5e4] * 9 + [2.0], False),  # back at the very end
        ([2.3] * 99 + [1e4], False),  # one spike at the end
        ([2.3] * 20, False),
        ([-5.0] * 20, False),
    ],
)
def test_a_training_that_ends_far_above_its_start_never_came_back(
    losses: list[float], lost: bool
) -> None:
    rule = DivergenceStop(patience=1000)
    state, stopped = rule.first_stop(losses, rule.init())
    assert stopped is None
    assert rule.never_came_back(state) is lost


@pytest.mark.parametrize(("final", "lost"), [(1e5, True), (float("nan"), True), (2.0, False)])
def test_a_final_evaluation_far_above_the_start_is_a_divergence(final: float, lost: bool) -> None:
    rule = DivergenceStop()
    state, _ = rule.first_stop([2.3, 2.2, 2.1, 1e6, 2.0], rule.init())
    assert rule.never_came_back(state, final) is lost


def test_an_explosion_in_the_first_updates_cannot_pass_for_the_start() -> None:
    losses = [2.35, 4e6, 6e14] + [1e5] * 60
    rule = DivergenceStop(patience=16)
    with_initial, _ = rule.first_stop(losses, rule.init(2.31))
    without, _ = rule.first_stop(losses, rule.init(float("nan")))
    assert rule.never_came_back(with_initial)
    assert not rule.never_came_back(without)  # 4e6 is all it knows of the start
