"""Where a race begins where the range test has no answer, and where it does not begin at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lrexp.analysis.answer import verdict
from lrexp.analysis.race import Raced, Rung, race_start
from lrexp.analysis.range_curve import Curve, combine
from lrexp.analysis.rules import stability_edge
from lrexp.analysis.suggest import suggest

from .planted_races import trainings

LR = np.logspace(-7, 1, 100)


def curves(loss: Callable[[np.ndarray], np.ndarray], noise: float = 0.05) -> list[Curve]:
    return [Curve(LR, loss(LR) + draw) for draw in normal(noise)]


def normal(noise: float) -> list[np.ndarray]:
    return [np.random.default_rng(seed).normal(0, noise, len(LR)) for seed in range(3)]


def flat(lr: np.ndarray) -> np.ndarray:
    return np.full(len(lr), 2.0)


def blows_up(lr: np.ndarray) -> np.ndarray:
    return 2.0 + (lr / 0.1) ** 2


def falls(lr: np.ndarray) -> np.ndarray:
    return 2.0 - np.clip(np.log10(lr / 1e-4), 0, 2) * 0.5 + (lr / 0.3) ** 2


def test_where_the_range_test_has_an_answer_it_begins_there() -> None:
    tests = curves(falls)
    found, begin = suggest(tests), race_start(tests, suggest(tests))
    assert begin is not None
    assert (begin.lr, begin.least_gain, begin.note) == (found.suggested_lr, 0.0, None)


def test_where_nothing_falls_it_begins_below_the_edge_of_stability() -> None:
    tests = curves(blows_up)
    found = suggest(tests)
    assert found.suggested_lr is None
    edge = stability_edge(combine(tests))
    assert edge == pytest.approx(0.04, rel=0.5)  # where the rise is three times the noise
    begin = race_start(tests, found)
    assert begin is not None
    assert begin.lr == pytest.approx(0.05 * edge)
    assert begin.least_gain == pytest.approx(0.25 * 0.05, rel=0.5)
    assert "saw no fall" in str(begin.note)
    halved = race_start(tests, suggest(tests, mean_frac=0.5))  # a schedule that decays to zero
    assert halved is not None
    assert halved.lr == pytest.approx(2 * begin.lr)


def test_where_the_seeds_disagree_it_begins_at_what_they_say_together() -> None:
    tests = [
        Curve(LR, 3.0 - np.clip(np.log10(LR / fall), 0, 1) + (LR / (1e3 * fall)) ** 2 + noise)
        for fall, noise in zip((1e-6, 1e-5, 1e-3), normal(0.01), strict=True)
    ]
    found = suggest(tests)
    assert found.suggested_lr is None
    assert "disagree" in str(found.reason)
    begin = race_start(tests, found)
    assert begin is not None
    assert (begin.lr, begin.least_gain) == (found.rules["auto"], 0.0)  # that it falls is known
    assert "disagree" in str(begin.note)


@pytest.mark.parametrize(
    "loss",
    [
        lambda lr: 2.0 + (lr / 2e-7) ** 2,  # too high from the first LR on
        lambda lr: 2.0 + (lr / 2e-6) ** 2,  # and where there is no room below
    ],
    ids=["from the start", "no room"],
)
def test_where_all_lrs_are_too_high_it_does_not_begin(
    loss: Callable[[np.ndarray], np.ndarray],
) -> None:
    tests = curves(loss)
    assert race_start(tests, suggest(tests)) is None


@pytest.mark.parametrize(
    "loss", [flat, lambda lr: np.where(np.arange(100) == 60, 50.0, 2.0)], ids=["flat", "a spike"]
)
def test_where_nothing_shows_it_tries_far_and_wide(
    loss: Callable[[np.ndarray], np.ndarray],
) -> None:
    tests = curves(loss)
    begin = race_start(tests, suggest(tests))
    assert begin is not None
    assert begin.is_guess
    assert 1e-3 < begin.lr < 1
    assert begin.least_gain > 0


@pytest.mark.parametrize(("gain", "learns"), [(0.3, True), (0.004, False), (-0.1, False)])
def test_what_luck_may_bring_is_no_answer(gain: float, learns: bool) -> None:
    begin = race_start(curves(blows_up), suggest(curves(blows_up)))
    assert begin is not None
    search = trainings(1.0, 160, begin.lr, least_gain=begin.least_gain, is_guess=begin.is_guess)
    rung = Rung(40, (1e-4, 1e-3, 1e-2), (0,))
    found = verdict(search, [Raced(rung, (2.0,), ((2.0,), (2.0 - gain,), (9.0,)))])
    assert (found.lr is not None) == learns
    assert learns or "more than luck" in str(found.reason)
