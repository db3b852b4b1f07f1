"""When a range test stops, and when it must not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis.planted_curves import noisy, quadratic_range_test, ramp_lrs
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.stopping import RangeTestStop
from lrexp.errors import ConfigError


def stop_index(rule: RangeTestStop, losses: object) -> int | None:
    return rule.first_stop(losses, rule.init())[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 1, 50])
def test_a_loss_that_is_not_finite_stops_at_once(bad: float, at: int) -> None:
    rule = RangeTestStop(4.0, floor=0.0)
    losses = [1.0] * at + [bad] + [1.0] * 10
    state, index = rule.first_stop(losses, rule.init())
    assert index == state.stopped_at == at
    assert rule.update(state, 1.0) == (state, True)  # for good


def test_the_bar_is_the_stop_factor_times_the_best_above_the_floor() -> None:
    # flat losses leave the floor as the only scale: 2 + (4 − 1)·(2 − 0) = 4 × 2
    for floor, bar in ((0.0, 8.0), (1.0, 5.0), (-2.0, 14.0)):
        rule = RangeTestStop(4.0, floor=floor)
        state, _ = rule.first_stop([2.0] * 20, rule.init())
        assert rule.threshold(state) == pytest.approx(bar)


def test_the_bar_after_a_fall_leaves_room_for_what_was_gained() -> None:
    rule = RangeTestStop(4.0, floor=0.0)
    state, index = rule.first_stop([2.0] * 10 + [1e-9] * 200, rule.init())
    assert index is None
    assert rule.threshold(state) == pytest.approx(6.0, rel=1e-3)  # 3 × (first − best)


def test_the_smoothed_loss_is_debiased() -> None:
    rule = RangeTestStop()
    state, _ = rule.first_stop([3.0], rule.init())
    assert state.smooth == 3.0
    state, _ = rule.first_stop([3.0, 1.0], rule.init())
    assert state.smooth == pytest.approx((0.9 * 3 + 1) / 1.9)


@pytest.mark.parametrize("shift", [0.0, -1.0, -1000.0, 50.0])
def test_without_a_floor_only_differences_count(shift: float) -> None:
    lr = ramp_lrs()
    losses = quadratic_range_test(lr, np.array([1.0, 10.0, 100.0]))
    rule = RangeTestStop(4.0, floor=None)
    index = stop_index(rule, losses)
    assert index is not None
    assert 0.02 <= lr[index] < 0.5  # the loss explodes from 2/100 on
    assert stop_index(rule, losses + shift) == index
    assert stop_index(rule, 7.0 * losses) == index


def test_negative_losses_that_go_on_falling_never_stop() -> None:
    losses = noisy(-np.linspace(0.3, 40.0, 300), 0.5, seed=0)
    for floor in (None, -100.0):
        assert stop_index(RangeTestStop(4.0, floor), losses) is None


@pytest.mark.parametrize("floor", [0.0, None])
@pytest.mark.parametrize("seed", range(5))
def test_a_best_loss_near_zero_does_not_stop_on_noise(floor: float | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    falling = np.exp(-np.linspace(0, 21, 150))  # 1 to 1e-9
    tail = 1e-9 * rng.lognormal(0, 2, size=300)  # jumps by factors of ten and more
    losses = np.concatenate([falling * rng.lognormal(0, 0.3, 150), tail])
    assert stop_index(RangeTestStop(4.0, floor), losses) is None


@pytest.mark.parametrize("floor", [0.0, None])
@pytest.mark.parametrize("noise", ["normal", "chi-square", "lognormal", "batch of one"])
def test_noise_alone_does_not_stop(noise: str, floor: float | None) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        losses = {
            "normal": 2.3 + 0.3 * rng.normal(size=1000),
            "chi-square": rng.chisquare(1, size=1000),
            "lognormal": rng.lognormal(0, 1, size=1000),
            "batch of one": np.where(rng.uniform(size=1000) < 0.9, 2.0, 3.0) * rng.uniform(0.8, 1.2, 1000),
        }[noise]  # fmt: skip
        index = stop_index(RangeTestStop(4.0, floor), losses)
        assert index is None, seed


@pytest.mark.parametrize("floor", [0.0, None])
def test_a_spike_is_waited_out_and_a_blow_up_is_not(floor: float | None) -> None:
    lr = ramp_lrs()
    curve = 2.3 - 1.5 / (1 + np.exp(-(np.log10(lr) + 3) / 0.3))
    spiked = noisy(curve, 0.05, 1)
    spiked[40] += 6.0
    assert stop_index(RangeTestStop(4.0, floor), spiked) is None
    blown = noisy(curve, 0.05, 1)
    blown[80:] = 100.0
    index = stop_index(RangeTestStop(4.0, floor), blown)
    assert index is not None
    assert 84 <= index <= 86  # five losses make a rise


def test_one_step_is_cheap_and_the_state_is_plain() -> None:
    rule = RangeTestStop(4.0, 0.0)
    state, _ = rule.update(rule.init(), 1.0)
    assert isinstance(state, tuple)
    with pytest.raises(AttributeError):
        state.best = 0.0  # type: ignore[misc]
    assert type(state)(*state) == state  # a checkpoint is its values


LOSSES = st.lists(
    st.floats(-1e3, 1e3) | st.sampled_from([math.nan, math.inf, 1e6]), min_size=0, max_size=60
)


@given(
    losses=LOSSES, cuts=st.lists(st.integers(0, 60), max_size=4), floor=st.sampled_from([None, 0.0])
)
def test_chunks_give_what_single_losses_give(
    losses: list[float], cuts: list[int], floor: float | None
) -> None:
    rule = RangeTestStop(2.0, floor)
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
    assert state.stopped_at == stopped


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ({"stop_factor": 1.0}, ["stop_factor"]),
        ({"stop_factor": math.nan}, ["stop_factor"]),
        ({"floor": -math.inf}, ["floor"]),
        ({"stop_factor": -2, "floor": math.nan}, ["stop_factor", "floor"]),
    ],
)
def test_bad_arguments(arguments: dict, keys: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        RangeTestStop(**arguments)
    assert [problem.key for problem in raised.value.problems] == keys
