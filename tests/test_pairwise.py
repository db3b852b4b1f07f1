"""The cover of pairs that other tests choose their cases by."""

from __future__ import annotations

from itertools import product

import pytest
from pairwise import pairs_left_out, pairwise_cover

SIZES = [(2, 2), (3, 2, 4), (4, 17), (17, 4, 22), (5, 5, 5, 5), (1, 3, 1), (22, 2, 4, 17)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_each_pair_meets(sizes: tuple[int, ...]) -> None:
    tables = [
        [f"{name}{i}" for i in range(size)] for name, size in zip("abcd", sizes, strict=False)
    ]
    rows = pairwise_cover(*tables)
    for (i, one), (j, other) in product(enumerate(tables), repeat=2):
        if i < j:
            assert {(row[i], row[j]) for row in rows} == set(product(one, other))
    assert pairs_left_out(rows, *tables) == set()
    assert all(value in table for row in rows for value, table in zip(row, tables, strict=True))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_there_are_not_many_more_rows_than_the_largest_two_tables_need(
    sizes: tuple[int, ...],
) -> None:
    second, largest = sorted(sizes)[-2:]
    assert largest * second <= len(pairwise_cover(*map(range, sizes))) <= 1.7 * largest * second


def test_a_cover_is_the_same_each_time() -> None:
    assert pairwise_cover("abc", "wxyz", "12") == pairwise_cover("abc", "wxyz", "12")


def test_one_table_is_gone_through_and_an_empty_one_has_no_rows() -> None:
    assert pairwise_cover("abc") == [("a",), ("b",), ("c",)]
    assert pairwise_cover("abc", "") == []


def test_a_pair_that_is_left_out_is_found() -> None:
    rows = pairwise_cover("ab", "xy", "12")
    assert pairs_left_out(rows[1:], "ab", "xy", "12") == {("a", "x"), ("a", "1"), ("x", "1")}
