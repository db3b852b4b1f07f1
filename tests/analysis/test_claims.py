"""The three verdicts: seeds, divergence, failures, ties, direction, several variants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lrexp.analysis.claims import (
    BETTER,
    NO_DIFFERENCE,
    TOO_FEW,
    UNDECIDED,
    Comparison,
    compare_to,
)

LOST, FAILED = "diverged", "failed"
Row = list[Any]  # by seed: a value, LOST or FAILED


def compare(rows: dict[str, Row], direction: str = "min", **options: Any) -> dict[str, Comparison]:
    values = {
        name: {s: v if isinstance(v, float) else None for s, v in enumerate(row)}
        for name, row in rows.items()
    }
    outcomes = {
        name: {s: v if isinstance(v, str) else "finished" for s, v in enumerate(row)}
        for name, row in rows.items()
    }
    found = compare_to(values, outcomes, next(iter(rows)), direction, **options)  # type: ignore[arg-type]
    return {comparison.variant: comparison for comparison in found}


def around(mean: float, n: int, step: float = 0.01) -> Row:
    return [mean + step * (i - (n - 1) / 2) for i in range(n)]


def noisy(n: int) -> Row:
    return [1.0 + 0.3 * (-1) ** i + 0.01 * i for i in range(n)]


@pytest.mark.parametrize(
    ("reference", "variant", "kind", "better"),
    [
        (around(1.0, 6), around(0.5, 6, 0.02), BETTER, "b"),
        (around(1.0, 6), around(1.5, 6, 0.02), BETTER, "a"),
        (around(1.0, 5), around(0.5, 5, 0.02), TOO_FEW, None),
        (around(1.0, 1), around(0.5, 1), TOO_FEW, None),
        (around(1.0, 8), noisy(8), UNDECIDED, None),
        (around(1.0, 8), around(1.0, 8), NO_DIFFERENCE, None),  # A against A
        # all six are wins, but the interval of the mean holds 0
        ([1.0] * 6, [0.99, 0.99, 0.99, 0.99, 0.99, -1.0], UNDECIDED, None),
        # a diverged seed is lost by more than any finite difference
        ([1.0] * 6, [LOST] * 6, BETTER, "a"),
        ([LOST] * 6, [1.0] * 6, BETTER, "b"),
        ([1.0] * 8, [LOST, *[0.5] * 7], UNDECIDED, None),
        ([1.0] * 8, [LOST, *[1.5] * 7], BETTER, "a"),
        ([1.0] * 10, [*[LOST] * 5, *[0.9] * 5], UNDECIDED, None),  # 2 / 2⁵
        ([1.0] * 10, [*[LOST] * 6, *[0.9] * 4], BETTER, "a"),  # 2 / 2⁶, though the rest was won
        # both diverged: a tie, and five wins beside it are too few
        ([LOST, *[1.0] * 5], [LOST, *[0.5] * 5], UNDECIDED, None),
        ([LOST] * 8, [LOST] * 8, UNDECIDED, None),
        # a failed seed is left out; who failed cannot win by it
        ([1.0] * 7, [FAILED, *[1.5] * 6], BETTER, "a"),
        ([1.0] * 7, [FAILED, *[0.5] * 6], UNDECIDED, None),
        ([1.0] * 6, [FAILED, *[1.5] * 5], TOO_FEW, None),
        ([FAILED] * 6, [1.0] * 6, TOO_FEW, None),
    ],
)
def test_the_kind_of_a_verdict(reference: Row, variant: Row, kind: str, better: str | None) -> None:
    found = compare({"a": reference, "b": variant})["b"]
    assert (found.kind, found.better) == (kind, better)
    assert found.verdict.startswith(f"{better} is better (" if better else kind)


def mirrored(row: Row) -> Row:
    return [-value if isinstance(value, float) else value for value in row]


@pytest.mark.parametrize("variant", [around(0.5, 7, 0.02), noisy(7), [LOST, *[0.1] * 6]])
def test_a_metric_that_rises_is_the_mirror_of_one_that_falls(variant: Row) -> None:
    rows = {"a": around(1.0, 7), "b": variant}
    low = compare(rows)["b"]
    high = compare({name: mirrored(row) for name, row in rows.items()}, "max")["b"]
    assert (high.kind, high.better, high.wins, high.p) == (low.kind, low.better, low.wins, low.p)
    assert high.mean == (None if low.mean is None else pytest.approx(-low.mean))
    assert high.diverged == low.diverged


def test_every_number_of_a_comparison() -> None:
    found = compare({"a": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "b": [0.5, 1.0, 2.0, 3.0, 4.0, 5.0]})["b"]
    assert found.differences == (-0.5, -1.0, -1.0, -1.0, -1.0, -1.0)
    assert found.results == ("win",) * 6
    assert (found.n, found.wins, found.losses, found.ties, found.failed) == (6, 6, 0, 0, 0)
    assert found.mean == pytest.approx(-5.5 / 6)
    assert found.median == -1.0
    assert found.relative == pytest.approx(-5.5 / 21)
    half = 2.5705818 * np.std(found.differences, ddof=1) / math.sqrt(6)
    assert found.interval == (pytest.approx(-5.5 / 6 - half), pytest.approx(-5.5 / 6 + half))
    assert found.p == found.p_holm == 2 / 64
    assert found.verdict == (
        "b is better (Δ -0.917 = -26 %, 95 % interval -1.131 to -0.702, p = 0.031, n = 6, b wins 6)"
    )


def test_of_a_winning_reference_the_difference_is_still_that_of_the_variant() -> None:
    rows = {"a": [0.5, 1.0, 2.0, 3.0, 4.0, 5.0], "b": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    found = compare(rows)["b"]
    assert found.mean == pytest.approx(5.5 / 6)  # variant − reference
    assert (found.wins, found.losses) == (0, 6)
    assert found.verdict == (
        "a is better (Δ +0.917 = +35 %, 95 % interval 0.702 to 1.131, p = 0.031, n = 6, a wins 6)"
    )


def test_divergence_has_no_mean_and_no_interval() -> None:
    found = compare({"a": [LOST, *[1.0] * 7], "b": [LOST, LOST, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5]})["b"]
    assert found.diverged == {"variant": 1, "reference": 0, "both": 1}
    assert found.differences == (0.0, None, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert found.results == ("tie", "loss", *["loss"] * 6)
    assert (found.mean, found.sd, found.interval, found.relative) == (None, None, None, None)
    assert found.median == 0.5
    assert found.p == 2 / 128
    verdict = "a is better (b diverged in 1 of 8, both in 1, p = 0.016, n = 8, a wins 7)"
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("factor", "share"), [(1.5, " = +50 %"), (4.5, " = +350 %"), (20.0, ""), (0.1, " = -90 %")]
)
def test_a_relative_difference_is_read_at_a_glance(factor: float, share: str) -> None:
    found = compare({"a": around(0.1, 8), "b": [factor * x for x in around(0.1, 8)]})["b"]
    assert f"{share}, 95 % interval" in found.verdict


def test_where_both_diverged_there_is_no_mean_either() -> None:
    rows = {"a": [LOST, LOST, LOST, *around(1.5, 6)], "b": [LOST, LOST, LOST, *around(1.0, 6)]}
    found = compare(rows)["b"]
    assert found.kind == BETTER
    assert (found.mean, found.sd, found.interval, found.relative) == (None, None, None, None)
    assert found.verdict == "b is better (both diverged in 3 of 9, p = 0.031, n = 9, b wins 6)"


def test_lost_against_lost_has_no_median() -> None:
    found = compare({"a": [LOST, 1.0], "b": [1.0, LOST]})["b"]
    assert found.median is None
    assert found.p == 1.0


def test_holm_is_over_the_variants() -> None:
    rows = {"a": around(1.0, 6), "b": around(0.5, 6, 0.02), "c": around(2.0, 6, 0.02)}
    found = compare(rows)
    assert [c.p for c in found.values()] == [2 / 64] * 2
    assert [c.p_holm for c in found.values()] == [4 / 64] * 2
    assert [c.verdict for c in found.values()] == ["too few seeds to tell (n < 7)"] * 2
    rows = {"a": around(1.0, 7), "b": around(0.5, 7, 0.02), "c": noisy(7)}
    found = compare(rows)
    assert (found["b"].kind, found["c"].kind) == (BETTER, UNDECIDED)
    assert found["b"].p_holm == 2 * found["b"].p
    assert compare(rows, family=3)["b"].p_holm == 3 * found["b"].p  # as many were open to choice
    chosen = compare(rows, family=45)
    assert {c.verdict for c in chosen.values()} == {"too few seeds to tell (n < 11)"}


def test_below_six_seeds_the_verdict_says_six() -> None:
    rows = {"a": around(1.0, 3), "b": around(0.5, 3), "c": around(2.0, 3)}
    assert {c.verdict for c in compare(rows).values()} == {"too few seeds to tell (n < 6)"}


def test_differences_of_rounding_are_ties() -> None:
    rows = {"a": [1.0] * 8, "b": [1.0 + 3e-7 * (1 + i / 10) for i in range(8)]}
    found = compare(rows)["b"]
    assert (found.kind, found.ties, found.p) == (NO_DIFFERENCE, 8, 1.0)
    assert found.mean == pytest.approx(3e-7 * 1.35)


def test_one_variant_has_nothing_to_be_compared_with() -> None:
    assert compare({"a": [1.0, 2.0]}) == {}


def test_shares_are_left_out_where_they_say_nothing() -> None:
    assert compare({"a": [0.0, -1.0], "b": [1.0, 1.0]})["b"].relative is None
    assert compare({"a": [0.5] * 6, "b": [0.9] * 6}, "max")["b"].relative is None
    far = compare({"a": [1e-3] * 6, "b": [9.0] * 6})["b"]
    assert far.relative == pytest.approx(8999)
    assert "= -100 %" not in far.verdict


# reference | variant | the verdict, of seeds that differ little or too much to tell
EQUAL = [1.0, 1.2, 0.8, 1.1, 0.9, 1.05, 0.95, 1.0]
NEAR = [1e-3, -1e-3, 2e-3, -2e-3, 1e-3, -1e-3, 0.0, 0.0]


@pytest.mark.parametrize(
    ("variant", "kind", "seeds"),
    [
        (EQUAL, NO_DIFFERENCE, None),
        ([a + b for a, b in zip(EQUAL, NEAR, strict=True)], NO_DIFFERENCE, None),
        # 20 times as far: the interval leaves ±1 %, the mean does not
        ([a + 20 * b for a, b in zip(EQUAL, NEAR, strict=True)], UNDECIDED, 29),
        # 5 % below on average, in 6 of 8: Cohen's d of 0.78 takes 15 seeds
        ([a - 0.05 + 0.06 * (-1) ** i for i, a in enumerate(EQUAL)], UNDECIDED, 15),
    ],
)
def test_no_difference_is_a_finding_and_not_a_shrug(variant: Row, kind: str, seeds: int) -> None:
    found = compare({"a": EQUAL, "b": variant})["b"]
    assert (found.kind, found.seeds_needed) == (kind, seeds)
    assert found.margin == pytest.approx(0.01)  # 1 % of the mean is less than the spread
    d = np.subtract(variant, EQUAL)
    half = 2.3646243 * d.std(ddof=1) / math.sqrt(8)
    if kind == NO_DIFFERENCE:
        assert abs(d.mean()) + half <= 0.01
    else:
        assert abs(d.mean()) + half > 0.01
        assert f"; about {seeds} seeds would settle" in found.verdict


def test_the_margin_is_the_spread_of_the_seeds_where_that_is_less() -> None:
    reference = [1.0, 1.001, 0.999, 1.0, 1.001, 0.999, 1.0, 1.0]
    found = compare({"a": reference, "b": [x + 0.002 for x in reference]})["b"]
    assert found.margin == pytest.approx(np.std(reference, ddof=1))
    assert found.kind == BETTER  # though it is 0.2 % only
