"""The curve over LR, the time to a target and the floor of noise, worked by hand."""

from __future__ import annotations

import math

import pytest

from lrexp.analysis.sensitivity import lr_sensitivity
from lrexp.analysis.statistics import floor_of_noise, median_with_misses, time_to

INF, NAN = math.inf, math.nan
LRS = [0.001, 0.01, 0.1, 1.0]


@pytest.mark.parametrize(
    ("costs", "best", "end", "basin"),  # basin: log10 of low and high, open ends, LRs in it
    [
        ([0.5, 0.0, 0.5, 1.0], 0.01, None, (-2.1, -1.9, False, False, 1)),
        ([0.5, 0.05, 0.0, 0.05], 0.1, None, (-2.0, 0.0, False, True, 3)),
        ([0.0, 0.1, 1.0, 1.0], 0.001, "lowest", (-3.0, -2.5, True, False, 1)),
        ([1.0, 1.0, 0.5, 0.0], 1.0, "highest", (-0.1, 0.0, False, True, 1)),
        ([1.0, 0.0, INF, 0.01], 0.01, None, (-2.05, -2.0, False, False, 1)),  # lost between
        ([INF, INF, 0.2, INF], 0.1, None, (-1.0, -1.0, False, False, 1)),
        ([0.0, 0.0, 0.0, 0.0], 0.001, None, (-3.0, 0.0, True, True, 4)),
        ([1.0, 0.0, NAN, 1.0], 0.01, None, (-2.05, -1.9, False, False, 1)),  # failed: not tried
        ([NAN, 0.0, 0.5, NAN], 0.01, "lowest", (-2.0, -1.9, True, False, 1)),
        ([NAN, NAN, 0.0, NAN], 0.1, None, (-1.0, -1.0, True, True, 1)),
    ],
)  # fmt: skip
def test_the_basin(costs: list[float], best: float, end: str | None, basin: tuple) -> None:
    found = lr_sensitivity(LRS, [[cost] for cost in costs], [1.0])
    assert (found.best_lr, found.best_is_end) == (best, end)
    assert found.basin is not None
    low, high, *rest = basin
    assert math.log10(found.basin.low) == pytest.approx(low)
    assert math.log10(found.basin.high) == pytest.approx(high)
    assert found.basin.decades == pytest.approx(high - low)
    assert (found.basin.open_low, found.basin.open_high, found.basin.num_lrs) == tuple(rest)


def test_one_diverged_seed_takes_an_lr_out_of_the_basin() -> None:
    found = lr_sensitivity(LRS[:3], [[0.5, 0.5], [0.2, 0.2], [0.0, INF]], [1.0, 1.0])
    assert found.best_lr == 0.01
    assert found.means == (0.5, 0.2, None)
    assert found.relative == (pytest.approx(0.375), 0.0, None)


def test_an_lr_at_which_every_seed_failed_is_as_one_that_was_not_tried() -> None:
    found = lr_sensitivity(LRS, [[0.5, 0.5], [NAN, NAN], [0.0, NAN], [0.8, 1.0]], [1.0, 1.0])
    others = lr_sensitivity([LRS[0], *LRS[2:]], [[0.5, 0.5], [0.0, NAN], [0.8, 1.0]], [1.0, 1.0])
    assert (found.lrs, found.means) == (tuple(LRS), (0.5, None, 0.0, 0.9))
    assert found.relative == (0.5, None, 0.0, 0.9)
    assert (found.basin, found.sensitivity) == (others.basin, others.sensitivity)


def test_the_sensitivity_counts_the_lost_as_not_having_moved() -> None:
    found = lr_sensitivity(LRS[:3], [[0.6, 0.4], [0.2, 0.2], [INF, 9.0]], [1.0, 1.2])
    gaps = [0.4, 0.2, 0.0, 0.0, 0.8, 1.0]  # min(cost, initial) − 0.2
    assert found.sensitivity == pytest.approx(sum(gaps) / 6)
    assert found.sensitivity_relative == pytest.approx(sum(gaps) / 6 / 0.9)


@pytest.mark.parametrize("costs", [[[INF]] * 3, [[NAN]] * 3])
def test_without_one_good_lr_nothing_is_said(costs: list) -> None:
    found = lr_sensitivity(LRS[:3], costs, [1.0])
    assert (found.best_lr, found.basin, found.sensitivity) == (None, None, None)


def test_a_loss_that_never_fell_has_no_basin() -> None:
    found = lr_sensitivity(LRS[:3], [[3.0], [2.0], [4.0]], [1.0])
    assert (found.best_lr, found.basin, found.relative) == (0.01, None, (None, None, None))


def test_a_failed_seed_is_left_out() -> None:
    found = lr_sensitivity(LRS[:3], [[0.6, NAN], [0.2, 0.4], [NAN, NAN]], [1.0, 1.0])
    assert found.means == (0.6, pytest.approx(0.3), None)


@pytest.mark.parametrize(
    ("target", "values", "direction", "expected"),
    [
        (0.5, [2.3, 0.6, 0.4], "min", 20.0),
        (0.5, [2.3, 0.5, 0.4], "min", 10.0),  # as good is enough
        (0.5, [NAN, 0.4, 0.6], "min", 10.0),  # first reached, whatever comes after
        (0.1, [2.3, 0.6, 0.4], "min", INF),
        (0.9, [0.1, 0.85, 0.95], "max", 20.0),
        (3.0, [2.3, 0.6, 0.4], "min", 0.0),
        (0.5, [], "min", INF),
    ],
)
def test_the_time_to_a_target(
    target: float, values: list[float], direction: str, expected: float
) -> None:
    at = [0, 10, 20][: len(values)]
    assert time_to(target, at, values, direction) == expected  # type: ignore[arg-type]


def test_misses_are_infinite_in_the_median() -> None:
    assert median_with_misses([10.0, 20.0, INF]) == 20.0
    assert median_with_misses([10.0, INF, INF]) == INF
    assert median_with_misses([10.0, 20.0, INF, INF]) == INF
    assert median_with_misses([]) == INF


def test_the_floor_is_over_all_pairs_of_seeds() -> None:
    floor = floor_of_noise([1.0, 2.0, 4.0])
    assert floor is not None
    assert (floor.mean, floor.highest, floor.num_seeds) == (2.0, 3.0, 3)
    assert floor_of_noise([1.0]) is None
