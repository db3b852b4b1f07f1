"""What gets no suggestion but a sentence instead, and what is found in spite of the noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from analysis.planted_curves import (
    decades,
    noisy,
    parabola_valley,
    ramp_lrs,
    seeds_of,
    sigmoid_valley,
)

from lrexp.analysis.range_curve import Curve
from lrexp.analysis.suggest import Suggestion, suggest
from lrexp.errors import ConfigError

LR = ramp_lrs()


def refused(found: Suggestion) -> str:
    assert found.suggested_lr is None
    assert found.interval is None
    assert found.base_lr is None
    assert found.max_lr is None
    assert found.reason
    return found.reason


def one_spike(at: int, height: float) -> np.ndarray:
    loss = np.full(100, 2.3)
    loss[at] += height
    return loss


@pytest.mark.parametrize(
    ("losses", "says", "do"),
    [
        (np.full(100, 2.3), "stayed flat from 1e-07 to 10", "Raise find_lr.max_lr"),
        (np.zeros(100), "stayed flat", "gradients"),
        (np.full(100, -1e6), "stayed flat", "Raise find_lr.max_lr"),
        (2.302585 + 1e-7 * np.sin(np.arange(100.0) ** 2), "stayed flat", "Raise find_lr.max_lr"),
        (one_spike(0, 50.0), "stayed flat", ""),
        (one_spike(50, 50.0), "stayed flat", ""),
        (one_spike(99, 50.0), "stayed flat", ""),
        (one_spike(50, -50.0), "stayed flat", ""),
        (np.linspace(1, 5, 100), "diverged from the start", "lower find_lr.min_lr"),
        (np.exp(np.linspace(0, 9, 100)), "diverged from the start", "lower find_lr.min_lr"),
        (np.r_[np.ones(60), np.exp(np.linspace(0, 5, 40))], "never fell", "sign of the loss"),
        (np.r_[math.nan, np.ones(99)], "not finite at the first step", "Check the data"),
        (np.r_[1.0, math.nan, np.ones(98)], "diverged from the start", "lower find_lr.min_lr"),
        (np.r_[1.0, 3.0, 9.0, 70.0, math.inf], "diverged from the start", "lower find_lr.min_lr"),
        (np.r_[3.0, 2.0, 1.5, 1.2], "too few points (4", "raise find_lr.steps"),
        (np.empty(0), "too few points (0", "raise find_lr.steps"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_null_controls_are_refused(losses: np.ndarray, says: str, do: str, count: int) -> None:
    reason = refused(suggest([Curve(LR[: len(losses)], losses)] * count))
    assert says in reason
    assert do in reason
    assert reason.endswith(".")


NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
    "student t": lambda rng, n: rng.standard_t(3, size=n),
    "rare": lambda rng, n: (rng.uniform(size=n) < 0.1).astype(float),
}


@pytest.mark.parametrize(
    ("noise", "count", "steps"),
    [  # by default half of the product, in which every two of the three occur together
        pytest.param(noise, count, steps, marks=() if (i + j + k) % 2 == 0 else pytest.mark.long)
        for i, noise in enumerate(NOISES)
        for j, count in enumerate([1, 3])
        for k, steps in enumerate([50, 100, 300])
    ],
)
def test_pure_noise_is_refused(noise: str, count: int, steps: int) -> None:
    rng = np.random.default_rng(0)
    lr = ramp_lrs(steps)
    answered = 0
    for _ in range(40):
        curves = [Curve(lr, NOISES[noise](rng, steps)) for _ in range(count)]
        answered += suggest(curves).reason is None
    assert answered <= 1  # about 1 in 100 is expected


def test_noise_that_begins_on_the_way_is_refused() -> None:
    # as with a model that ignores its inputs: every batch has the same loss until it has moved
    rng = np.random.default_rng(1)
    grows = np.clip(np.log10(LR) + 2, 0.0, None)  # from 0.01 on
    answered = sum(
        suggest([Curve(LR, 1.4 + 0.05 * grows * rng.normal(size=100)) for _ in range(3)]).reason
        is None
        for _ in range(40)
    )
    assert answered <= 1


def test_a_fall_within_the_scatter_of_single_batches_is_found() -> None:
    # the drop is 1, the losses scatter by 0.8: clear only over all points of the basin
    answers = [
        suggest(seeds_of(LR, sigmoid_valley(LR, 1e-3, 1e-1), 0.8, first=k)).suggested_lr
        for k in range(0, 60, 3)
    ]
    found = np.log10([lr for lr in answers if lr is not None])
    assert len(found) >= 18
    assert np.all((found > -4) & (found < -1.5))


def test_seeds_that_start_from_losses_far_apart_are_no_noise() -> None:
    curves = [
        Curve(LR, noisy(sigmoid_valley(LR) * height + k, 0.05, k))
        for k, height in enumerate((1.0, 3.0, 2.0))
    ]
    assert suggest(curves).reason is None


def test_noise_before_a_blow_up_is_refused() -> None:
    answered = 0
    for first in range(0, 120, 3):
        loss = np.r_[np.full(80, 2.3), 2.3 + np.expm1(np.linspace(0, 6, 20))]
        answered += suggest(seeds_of(LR, loss, 0.2, first=first)).reason is None
    assert answered <= 1


def test_seeds_that_disagree_by_more_than_two_decades_are_refused() -> None:
    def curves(*minima: float) -> list[Curve]:
        return [Curve(LR, noisy(parabola_valley(LR, m), 0.01, k)) for k, m in enumerate(minima)]

    reason = refused(suggest(curves(1e-4, 1e-3, 1e-1)))
    assert "disagree by more than two decades" in reason
    assert "find_lr.seeds" in reason
    assert suggest(curves(1e-3, 1e-2, 3e-2)).reason is None


def test_a_seed_that_fails_at_once_does_not_spoil_the_others() -> None:
    curves = seeds_of(LR, sigmoid_valley(LR), 0.03)
    alone = suggest(curves).suggested_lr
    broken = [*curves, Curve(LR, np.full(100, math.nan))]
    found = suggest(broken)
    assert found.suggested_lr is not None
    assert alone is not None
    assert decades(found.suggested_lr, alone) < 0.2
    assert found.per_seed[3] is None


def test_a_rule_that_cannot_read_the_curve_says_so() -> None:
    lr = np.geomspace(1e-3, 1e-2, 100)  # one decade: no room for the window of slide
    found = suggest(seeds_of(lr, np.cos(np.linspace(0, 4, 100)), 0.01), "slide")
    assert "'slide' finds nothing to read" in refused(found)
    assert found.rules["slide"] is None
    assert found.rules["auto"] is not None


def test_an_unknown_rule_is_recognised() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'steepest'"):
        suggest([Curve(LR, LR)], rule="steepst")
