"""How often verdicts are wrong, over simulated experiments: 2,000 of each kind with --long.

By default they are a few hundred, of fixed seeds: a p that is not corrected, or an interval that is
too short, makes twice as many claims as are allowed, and shows in those as well.
"""

from __future__ import annotations

import numpy as np
import pytest

from lrexp.analysis.claims import BETTER, NO_DIFFERENCE, compare_to
from lrexp.analysis.statistics import look_alpha, looks_between, t_interval

EXPERIMENTS = 2_000


def draw(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if kind == "lognormal":
        return rng.lognormal(size=shape)
    return rng.normal(size=shape) if kind == "normal" else rng.standard_t(3, size=shape)


@pytest.mark.parametrize("n", [6, 10])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "heavy"])
def test_the_interval_covers_the_difference(n: int, kind: str) -> None:
    """The seeds of both variants are of one kind, shifted: their differences are symmetric."""
    rng = np.random.default_rng([0, n])
    shift = 0.7
    pairs = draw(rng, kind, (EXPERIMENTS, n)) + shift - draw(rng, kind, (EXPERIMENTS, n))
    held = [low <= shift <= high for low, high in map(t_interval, pairs)]
    assert np.mean(held) >= 0.93


@pytest.mark.parametrize("n", [6, 10])
def test_what_the_docstring_says_of_skewed_differences(n: int) -> None:
    rng = np.random.default_rng([1, n])
    skewed = rng.lognormal(size=(EXPERIMENTS, n))
    held = [low <= np.exp(0.5) <= high for low, high in map(t_interval, skewed)]
    assert 0.80 <= np.mean(held) <= 0.87


def rate_of_claims(
    n: int, kind: str, variants: int, lost: float = 0.0, *, best: bool = False, runs: int
) -> float:
    """Return the share of experiments without any difference in which one is claimed."""
    rng = np.random.default_rng([2, n, variants])
    claims = 0
    for _ in range(runs):
        table = draw(rng, kind, (variants, n)) + 2 * draw(rng, kind, (n,))  # seeds share something
        diverged = rng.random(table.shape) < lost
        values = {
            f"v{i}": {s: None if diverged[i, s] else float(x) for s, x in enumerate(row)}
            for i, row in enumerate(table)
        }
        outcomes = {
            name: {s: "diverged" if x is None else "finished" for s, x in row.items()}
            for name, row in values.items()
        }
        reference = f"v{int(table.mean(axis=1).argmin())}" if best else "v0"
        family = variants * (variants - 1) // 2 if best else None
        found = compare_to(values, outcomes, reference, family=family)
        claims += any(comparison.kind == BETTER for comparison in found)
    return claims / runs


FEW = [250, pytest.param(EXPERIMENTS, marks=pytest.mark.long)]


@pytest.mark.parametrize("runs", FEW)
@pytest.mark.parametrize(("n", "variants"), [(6, 2), (8, 3), (10, 3)])
def test_false_claims_are_rare(n: int, variants: int, runs: int) -> None:
    assert rate_of_claims(n, "normal", variants, runs=runs) <= 0.05


@pytest.mark.parametrize("runs", FEW)
@pytest.mark.parametrize("best", [False, True])
def test_false_claims_are_rare_where_seeds_diverge_and_the_best_is_chosen(
    best: bool, runs: int
) -> None:
    assert rate_of_claims(8, "normal", 3, lost=0.2, best=best, runs=runs) <= 0.05


@pytest.mark.long
@pytest.mark.parametrize("n", [6, 7, 10])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "heavy"])
@pytest.mark.parametrize(("variants", "lost", "best"), [(2, 0.0, False), (2, 0.2, False), (3, 0.2, False), (6, 0.0, False), (3, 0.0, True), (5, 0.1, True)])  # fmt: skip
def test_false_claims_of_every_kind(
    n: int, kind: str, variants: int, lost: float, best: bool
) -> None:
    rate = rate_of_claims(n, kind, variants, lost, best=best, runs=EXPERIMENTS)
    assert rate <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / EXPERIMENTS)


def claims_until_decided(runs: int, first: int, most: int, variants: int) -> float:
    """Return the share of equal variants of which one is called better at any of the looks."""
    rng = np.random.default_rng([3, first, most])
    looks, claims = looks_between(first, most), 0
    for _ in range(runs):
        table = rng.normal(size=(variants, most)) + 2 * rng.normal(size=most)
        for n in looks:
            values = {f"v{i}": dict(enumerate(row[:n].tolist())) for i, row in enumerate(table)}
            done = {name: dict.fromkeys(row, "finished") for name, row in values.items()}
            found = compare_to(values, done, "v0", alpha=look_alpha(looks, n))
            if any(comparison.kind == BETTER for comparison in found):
                claims += 1
                break
            if all(comparison.kind == NO_DIFFERENCE for comparison in found):
                break
    return claims / runs


@pytest.mark.parametrize(
    ("first", "most", "variants", "runs"),
    [  # random flips, above 16 seeds, take long
        (4, 12, 3, 150),
        (6, 10, 2, 150),
        pytest.param(4, 12, 3, EXPERIMENTS, marks=pytest.mark.long),
        pytest.param(6, 24, 2, EXPERIMENTS, marks=pytest.mark.long),
    ],
)
def test_looking_again_and_again_makes_no_more_false_claims(
    first: int, most: int, variants: int, runs: int
) -> None:
    rate = claims_until_decided(runs, first, most, variants)
    assert rate <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
