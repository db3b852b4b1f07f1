"""Verdicts without pairs, against SciPy's Welch and Mann-Whitney and by their false claims."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lrexp.analysis.claims import BETTER, NO_DIFFERENCE, TOO_FEW, UNDECIDED
from lrexp.analysis.unpaired import compare_groups, least_p

LOST = math.inf


def test_every_number_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 0.1, 8), rng.normal(1.2, 0.3, 11)
    (found,) = compare_groups({"a": list(a), "b": list(b)}, "a")
    welch = stats.ttest_ind(b, a, equal_var=False)
    low, high = welch.confidence_interval(0.95)
    assert found.interval == (pytest.approx(low), pytest.approx(high))
    assert found.p == found.p_holm == pytest.approx(welch.pvalue)
    assert found.check_p == pytest.approx(stats.mannwhitneyu(b, a).pvalue)
    assert found.mean == pytest.approx(b.mean() - a.mean())
    assert (found.n, found.of_reference) == (11, 8)
    assert found.wins + found.losses == 88


# reference | variant | kind | who is better
@pytest.mark.parametrize(
    ("reference", "variant", "kind", "better"),
    [
        ([1.0, 1.1, 0.9, 1.05], [2.0, 2.2, 1.9, 2.1], BETTER, "a"),
        ([2.0, 2.2, 1.9, 2.1], [1.0, 1.1, 0.9, 1.05], BETTER, "b"),
        ([1.0, 1.1, 0.9], [2.0, 2.2, 1.9], TOO_FEW, None),  # 2 / C(6, 3) = 0.1
        ([1.0] * 4, [1.0] * 4, NO_DIFFERENCE, None),
        ([1.0] * 4, [2.0] * 4, BETTER, "a"),  # t has no size for two constants
        ([1.0, 1.1, 0.9, 1.05], [1.0, 1.2, 0.95, 1.0], UNDECIDED, None),
        # ranks say nothing of five against five, one of which is far away: Welch neither
        ([1.0, 1.1, 0.9, 1.05, 1.0], [1.0, 1.1, 0.9, 1.05, 9.0], UNDECIDED, None),
        ([1.0, 1.1, 0.9, 1.05], [LOST] * 4, BETTER, "a"),
        ([1.0, 1.1, 0.9, 1.05], [0.5, 0.5, 0.5, LOST], UNDECIDED, None),
        ([1.0], [2.0], TOO_FEW, None),
    ],
)
def test_the_kind_of_a_verdict(
    reference: list[float], variant: list[float], kind: str, better: str | None
) -> None:
    (found,) = compare_groups({"a": reference, "b": variant}, "a")
    assert (found.kind, found.better) == (kind, better)
    assert found.verdict.startswith(f"{better} is better (" if better else kind)
    (mirror,) = compare_groups(
        {"a": [-x for x in reference], "b": [-x for x in variant]}, "a", "max"
    )
    assert (mirror.kind, mirror.better, mirror.p) == (kind, better, found.p)


def test_several_share_their_chance_of_error() -> None:
    groups = {"a": [1.0, 1.1, 0.9, 1.05], "b": [1.3, 1.2, 1.4, 1.25], "c": [1.0, 1.2, 0.9, 1.0]}
    alone = compare_groups({name: groups[name] for name in "ab"}, "a")[0]
    among = compare_groups(groups, "a")[0]
    assert among.p == alone.p
    assert among.p_holm == pytest.approx(2 * alone.p)
    assert compare_groups(groups, "a", family=3)[0].p_holm == pytest.approx(3 * alone.p)
    # with nine comparisons, four against four cannot give one
    assert least_p(4, 4) > 0.05 / 9
    assert compare_groups(groups, "a", family=9)[0].kind == TOO_FEW


@pytest.mark.parametrize("draw", ["normal", "lognormal", "standard_exponential"])
def test_false_claims_are_rare(draw: str) -> None:
    rng = np.random.default_rng(1)
    claims = 0
    for _ in range(400):
        a, b = (getattr(rng, draw)(size=n) for n in (6, 9))
        claims += compare_groups({"a": list(a), "b": list(b)}, "a")[0].kind == BETTER
    assert claims / 400 <= 0.08  # 5 % and three standard errors of 400 experiments
