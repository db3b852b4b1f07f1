"""The ranking: worked by hand; divergence last and counted, never given a stand-in value."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.claims import summarise
from lrexp.errors import ConfigError


def run(values: dict[str, list[float | None]], direction: str = "min") -> list[tuple]:
    """Rank variants whose None values diverged; return (variant, mean, finished)."""
    rows = summarise(
        {name: dict(enumerate(row)) for name, row in values.items()},
        {
            name: {
                seed: "diverged" if value is None else "finished" for seed, value in enumerate(row)
            }
            for name, row in values.items()
        },
        direction,  # type: ignore[arg-type]
    )
    ranks = [row.rank for row in rows]
    assert ranks == [1 + sum(other < rank for other in ranks) for rank in ranks]
    return [(row.variant, row.mean, row.num_finished) for row in rows]


@pytest.mark.parametrize(
    ("values", "direction", "expected"),
    [
        ({"a": [2.0], "b": [1.0]}, "min", [("b", 1.0, 1), ("a", 2.0, 1)]),
        ({"a": [2.0], "b": [1.0]}, "max", [("a", 2.0, 1), ("b", 1.0, 1)]),
        # one seed of three diverged: below every variant without divergence, however good its rest
        ({"a": [0.1, 0.1, None], "b": [9.0, 9.0, 9.0]}, "min", [("b", 9.0, 3), ("a", 0.1, 2)]),
        ({"a": [0.9, None], "b": [0.1, 0.2]}, "max", [("b", pytest.approx(0.15), 2), ("a", 0.9, 1)]),
        # fewer divergences first, then the mean
        ({"a": [1.0, None, None], "b": [5.0, 5.0, None]}, "min", [("b", 5.0, 2), ("a", 1.0, 1)]),
        ({"a": [None], "b": [None], "c": [3.0]}, "min", [("c", 3.0, 1), ("a", None, 0), ("b", None, 0)]),
        # ties keep the order of the config
        ({"z": [1.0, 2.0], "a": [2.0, 1.0]}, "min", [("z", 1.5, 2), ("a", 1.5, 2)]),
        ({"z": [1.0, 2.0], "a": [2.0, 1.0]}, "max", [("z", 1.5, 2), ("a", 1.5, 2)]),
        ({"a": [-3.0], "b": [-5.0]}, "min", [("b", -5.0, 1), ("a", -3.0, 1)]),
        ({}, "min", []),
    ],
)  # fmt: skip
def test_ranking(values: dict, direction: str, expected: list[tuple]) -> None:
    assert run(values, direction) == expected


def test_every_number_of_a_row() -> None:
    rows = summarise(
        {"base": {7: 1.0, 8: 2.0, 9: 3.0}, "fast": {7: 0.5, 8: 1.0, 9: None}, "new": {7: 0.75}},
        {
            "base": {7: "finished", 8: "finished", 9: "finished"},
            "fast": {7: "finished", 8: "finished", 9: "failed"},
            "new": {7: "finished"},
        },
    )
    new, base, fast = rows
    assert [row.variant for row in rows] == ["new", "base", "fast"]
    assert base.mean == 2.0
    assert base.sd == 1.0  # ddof = 1
    assert base.values == (1.0, 2.0, 3.0)
    assert base.outcomes == {"finished": 3}
    assert fast.values == (0.5, 1.0, None)
    assert fast.outcomes == {"finished": 2, "failed": 1}
    assert fast.sd == pytest.approx(statistics.stdev([0.5, 1.0]))
    assert new.values == (0.75, None, None)  # seeds 8 and 9 have not run
    assert new.outcomes == {"finished": 1}
    assert new.sd is None
    # against the best, seed by seed: only seed 7 is shared
    assert (new.difference.mean, new.difference.sd, new.difference.num_pairs) == (0.0, None, 1)
    assert (base.difference.mean, base.difference.num_pairs) == (0.25, 1)
    assert (fast.difference.mean, fast.difference.num_pairs) == (-0.25, 1)


def test_pairing_removes_what_the_seeds_share() -> None:
    seeds = {0: 1.0, 1: 5.0, 2: 9.0}
    values = {
        "a": seeds,
        "b": {k: v + d for (k, v), d in zip(seeds.items(), (0.1, 0.2, 0.3), strict=True)},
    }
    outcomes = {name: dict.fromkeys(seeds, "finished") for name in values}
    best, other = summarise(values, outcomes)
    assert best.sd == pytest.approx(4.0)
    assert other.difference.mean == pytest.approx(0.2)
    assert other.difference.sd == pytest.approx(0.1)
    assert other.difference.num_pairs == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_finished_seed_without_a_finite_value_counts_as_diverged(value: float | None) -> None:
    rows = summarise(
        {"a": {0: value, 1: 0.1}, "b": {0: 5.0, 1: 5.0}},
        {"a": {0: "finished", 1: "finished"}, "b": {0: "finished", 1: "finished"}},
    )
    assert [row.variant for row in rows] == ["b", "a"]
    assert rows[1].outcomes == {"diverged": 1, "finished": 1}
    assert rows[1].values == (None, 0.1)


def test_the_value_of_a_diverged_seed_is_never_used() -> None:
    with_value = summarise({"a": {0: 1.0, 1: 777.0}}, {"a": {0: "finished", 1: "diverged"}})
    assert with_value[0].mean == 1.0
    assert with_value[0].values == (1.0, None)


@given(
    values=st.dictionaries(
        st.sampled_from("abcdef"),
        st.lists(st.none() | st.floats(-1e3, 1e3), min_size=3, max_size=3),
        min_size=1,
    ),
)
def test_min_and_max_mirror_each_other(values: dict) -> None:
    mirrored = {k: [None if v is None else -v for v in row] for k, row in values.items()}
    assert [row[0] for row in run(values)] == [row[0] for row in run(mirrored, "max")]
    for name, mean, finished in run(values):
        kept = [v for v in values[name] if v is not None]
        assert finished == len(kept)
        assert mean == (pytest.approx(statistics.fmean(kept)) if kept else None)


def test_an_unknown_direction() -> None:
    with pytest.raises(ConfigError, match="direction"):
        summarise({}, {}, "lowest")  # type: ignore[arg-type]


def test_variants_with_equal_results_share_a_rank() -> None:
    values = {"a": {0: 0.9}, "b": {0: 0.8}, "c": {0: 0.9}, "d": {0: None}, "e": {0: None}}
    outcomes = {name: {0: "diverged" if v[0] is None else "finished"} for name, v in values.items()}
    ranking = summarise(values, outcomes, "max")
    assert [(row.variant, row.rank) for row in ranking] == [
        ("a", 1), ("c", 1), ("b", 3), ("d", 4), ("e", 4),
    ]  # fmt: skip
