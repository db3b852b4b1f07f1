"""The adaptive cycle: phases on synthetic losses, bounds, bursts, and an exact state."""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.schedules.build import SCHEDULES
from lrexp.schedules.controllers import AdaptiveCycle, AdaptiveCycleState

LOSSES = st.lists(
    st.one_of(
        st.floats(-5, 5),
        st.floats(allow_nan=True, allow_infinity=True),
        st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e308]),
    ),
    max_size=60,
)


def controller(**params: Any) -> AdaptiveCycle:
    made = SCHEDULES["adaptive_cycle"](1.0, 1000, **{"window_size": 10, "patience": 50, **params})
    assert isinstance(made, AdaptiveCycle)
    return made


def states(control: AdaptiveCycle, losses: Iterable[float]) -> list[AdaptiveCycleState]:
    """Return the state after each loss."""
    state, seen = control.init(), []
    for step, loss in enumerate(losses):
        state = control.observe(state, step, loss)
        seen.append(state)
    return seen


@pytest.mark.parametrize(
    ("losses", "phase", "lr"),
    [
        ([0.99**k for k in range(400)], "exploit", 0.1),  # to base_lr
        ([1.0] * 45, "explore", 0.55),  # around the middle, before patience runs out
        ([1.01**k for k in range(400)], "escape", 0.825),  # 1.5 x the middle
        ([math.nan] * 400, "escape", 0.825),
        ([1.0] * 20 + [math.inf], "escape", None),
        ([-1.0 - 0.01 * k for k in range(400)], "exploit", 0.1),  # below zero, falling
        ([-5.0 + 0.01 * k for k in range(300)], "escape", 0.825),  # below zero, rising
    ],
)
def test_phase_on_synthetic_losses(losses: list[float], phase: str, lr: float | None) -> None:
    last = states(controller(smoothing=0.9), losses)[-1]
    assert last.phase == phase
    if lr is not None:
        assert last.lr == pytest.approx(lr, abs=0.06)


def test_improvement_compares_the_halves_of_the_window() -> None:
    seen = states(controller(window_size=4), [9.0, 4.0, 4.0, 2.0, 1.0])
    assert [s.improvement for s in seen] == [0, 0, 0, (6.5 - 3) / 6.5, (4 - 1.5) / 4]
    odd = states(controller(window_size=3), [4.0, 3.0, 1.0])
    assert odd[-1].improvement == (4 - 2) / 4


def test_between_the_thresholds_the_phase_stays() -> None:
    falling = [1 - 0.002 * k for k in range(40)]  # about 1 % per half window of 5
    slower = [falling[-1] * (1 - 0.0014) ** k for k in range(1, 40)]  # about 0.7 %
    seen = states(controller(), falling + slower)
    assert seen[39].phase == "exploit"
    assert 0.005 < seen[-1].improvement < 0.01
    assert seen[-1].phase == "exploit"
    assert states(controller(), slower)[-1].phase == "explore"  # as it started


def test_nothing_is_judged_before_the_window_is_full() -> None:
    assert [s.phase for s in states(controller(), [5.0 - k / 2 for k in range(9)])] == [
        "explore"
    ] * 9


def test_a_burst_for_patience_is_bounded_and_starts_the_count_afresh() -> None:
    phases = [s.phase for s in states(controller(), [1.0] * 400)]
    runs = [(phase, len(list(group))) for phase, group in itertools.groupby(phases)]
    # the first loss is the best; 50 without a better one; then a window of escape, again and again
    assert runs[:4] == [("explore", 50), ("escape", 10), ("explore", 50), ("escape", 10)]
    counts = [s.steps_since_best for s in states(controller(), [1.0] * 400)]
    assert max(counts) < 50 + 10


def test_a_burst_is_not_interrupted() -> None:
    losses = [1.0] * 20 + [math.nan] + [0.5] * 9 + [0.4] * 20
    phases = [s.phase for s in states(controller(), losses)]
    assert phases[20:30] == ["escape"] * 10
    assert phases[30] == "exploit"


def test_non_finite_losses_never_enter_an_average() -> None:
    clean = [1.0, 0.9, 0.8, 0.7] * 5
    dirty = [x for loss in clean for x in (loss, math.nan, math.inf, 1e308)]
    a, b = states(controller(), clean)[-1], states(controller(), dirty)[-1]
    assert (a.window, a.smoothed_loss, a.best_loss) == (b.window, b.smoothed_loss, b.best_loss)


def test_a_flat_loss_sets_no_new_best_by_rounding() -> None:
    assert states(controller(patience=10**6), [0.1] * 500)[-1].steps_since_best == 499


@given(losses=LOSSES, smoothing=st.sampled_from([0.0, 0.5, 0.99]), seed=st.integers(0, 99))
def test_the_bounds_are_never_left(losses: list[float], smoothing: float, seed: int) -> None:
    control = controller(
        window_size=4, patience=7, smoothing=smoothing, seed=seed, escape_multiplier=9.0
    )
    for state in states(control, losses):
        assert 0.1 <= state.lr <= 1.0
        assert math.isfinite(state.improvement)
        assert state.best_loss is None or math.isfinite(state.best_loss)


def test_the_noise_is_a_function_of_seed_and_step() -> None:
    def explored(seed: int) -> list[float]:
        """Return where in the middle half of the LRs each step of a flat loss goes, in [-1, 1)."""
        control = controller(smoothing=0.0, patience=10**6, seed=seed)
        quarter, middle = (1.0 - 0.1) / 4, (1.0 + 0.1) / 2
        return [(state.lr - middle) / quarter for state in states(control, [1.0] * 2000)]

    values = explored(seed=3)
    assert values == explored(seed=3)
    assert values != explored(seed=4)
    assert len(set(values)) > 1990  # of 2000: every step has its own
    assert -1 <= min(values) < -0.9
    assert 0.9 < max(values) < 1
    assert sum(values) / 2000 == pytest.approx(0, abs=0.05)


def test_the_lr_moves_by_the_smoothing() -> None:
    control = controller(smoothing=0.75)
    seen = states(control, [0.9**k for k in range(30)])
    before, after = seen[-2].lr, seen[-1].lr
    assert after == pytest.approx(0.75 * before + 0.25 * 0.1)


def test_warmup_leads_to_the_middle_and_is_not_judged() -> None:
    control = controller(warmup=4)
    state = control.init()
    assert [control.lr(state, s) for s in range(5)] == pytest.approx(
        [0.55 * k for k in (0.25, 0.5, 0.75, 1, 1)]
    )
    for step in range(4):
        state = control.observe(state, step, math.nan)
    assert state == control.init()


@pytest.mark.parametrize("split", [0, 3, 25, 77])
def test_state_is_plain_and_comes_back_exactly(split: int) -> None:
    control, rng = controller(), random.Random(0)
    losses = [rng.choice([1.0, 0.5, 2.0, math.nan]) * rng.random() for _ in range(120)]
    seen = states(control, losses)
    state = control.init() if split == 0 else seen[split - 1]
    state = control.from_plain(json.loads(json.dumps(control.to_plain(state), allow_nan=False)))
    for step in range(split, 120):
        state = control.observe(state, step, losses[step])
        assert state == seen[step]


def test_a_step_is_cheap() -> None:
    """No figure is asserted on time; a step that copied a big state would take a minute here."""
    control = SCHEDULES["adaptive_cycle"](1.0, 10**5)
    began, state = time.perf_counter(), control.init()
    for step in range(20_000):
        state = control.observe(state, step, 1.0)
    print(f"adaptive_cycle: {(time.perf_counter() - began) / 20_000 * 1e6:.1f} µs per step")
    assert len(state.window) == 150
