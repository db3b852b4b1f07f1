"""A few rows in which each pair of values meets: most faults of a product are faults of a pair.

Test by test a product of four tables grows with all of them; its pairs grow with the largest two.
Source: R. Kuhn, D. Wallace, A. Gallo, "Software Fault Interactions and Implications for Software
Testing", IEEE TSE 30 (2004): 70 to 98 % of faults need no more than two of the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, TypeAlias

Row: TypeAlias = tuple[Any, ...]
Pair: TypeAlias = tuple[tuple[int, int], tuple[int, int]]  # (table, value) twice


def pairwise_cover(*tables: Sequence[Any]) -> list[Row]:
    """Return rows, a value of each table in each, so that any two values meet in one of them.

    Greedy and the same in every process: each row begins with a pair that has not met, and takes
    from every other table the value with most pairs that have not.

    Example:
        >>> pairwise_cover("ab", "xy", [1, 2])
        [('a', 'x', 1), ('a', 'y', 2), ('b', 'x', 2), ('b', 'y', 1)]
    """
    if len(tables) < 2:
        return [(value,) for table in tables for value in table]
    left = dict.fromkeys(_all_pairs([range(len(table)) for table in tables]))  # an ordered set
    rows = []
    while left:
        chosen: dict[int, int] = dict(next(iter(left)))
        for number, table in enumerate(tables):
            if number not in chosen:
                chosen[number] = max(
                    range(len(table)), key=lambda value: _met(left, chosen, (number, value))
                )
        for pair in combinations(sorted(chosen.items()), 2):
            left.pop(pair, None)
        rows.append(tuple(table[chosen[number]] for number, table in enumerate(tables)))
    return rows


def pairs_left_out(rows: Sequence[Row], *tables: Sequence[Any]) -> set[tuple[Any, Any]]:
    """Return the pairs of values of two tables that meet in no row; values must be hashable."""
    met = {(i, j, row[i], row[j]) for row in rows for i, j in combinations(range(len(tables)), 2)}
    wanted = {
        (i, j, one, other)
        for i, j in combinations(range(len(tables)), 2)
        for one, other in product(tables[i], tables[j])
    }
    return {(one, other) for _, _, one, other in wanted - met}


def _all_pairs(tables: Sequence[Sequence[int]]) -> Iterator[Pair]:
    for i, j in combinations(range(len(tables)), 2):
        for one, other in product(tables[i], tables[j]):
            yield (i, one), (j, other)


def _met(left: Mapping[Pair, None], chosen: Mapping[int, int], new: tuple[int, int]) -> int:
    """Return how many pairs that have not met yet would meet with one more value in the row."""
    pairs = (tuple(sorted([new, old])) for old in chosen.items())
    return sum(pair in left for pair in pairs)
