"""The tables of the accuracy benchmark, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from accuracy.regret import Landscape
from accuracy.scores import Row
from accuracy.workloads import Workload


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Yield one line per contender, lowest mean regret first."""
    yield (
        "| contender | mean regret | worst | of which cell | training loss: mean "
        "| spread, decades | refused | steps | seconds | LRs in the interval as good as stated |"
    )
    yield "| --- |" + " --- |" * 9
    for row in rows:
        worst = row.worst
        yield (
            f"| {row.name} | {row.mean:.3f} | {worst.regret:.2f} | {worst.cell.name} "
            f"| {row.train_mean:.3f} | {_decades(row.spread)} "
            f"| {row.refusals} of {row.questions} | {row.steps:.0f} | {row.seconds:.2g} "
            f"| {'–' if math.isnan(row.kept_claims) else f'{row.kept_claims:.0%}'} |"
        )


def by_workload(rows: Sequence[Row], works: Sequence[Workload]) -> Iterator[str]:
    """Yield the mean regret of every contender on every workload."""
    yield f"| workload | {' | '.join(row.name for row in rows)} |"
    yield "| --- |" + " --- |" * len(rows)
    for work in works:
        yield f"| {work.name} | {' | '.join(f'{row.of_workload(work):.2f}' for row in rows)} |"


def refused(found: dict[str, dict[str, tuple[int, int]]]) -> Iterator[str]:
    """Yield how often each contender refused the null controls."""
    names = list(next(iter(found.values())))
    yield f"| contender | {' | '.join(names)} |"
    yield "| --- |" + " --- |" * len(names)
    for contender, counts in found.items():
        cells = " | ".join(f"{refusals} of {asked}" for refusals, asked in counts.values())
        yield f"| {contender} | {cells} |"


def doubts(lands: dict[str, Landscape]) -> Iterator[str]:
    """Yield what is wrong with a grid: its best LR is an end of it, or nothing was learned."""
    for name, land in lands.items():
        if not land.learns:
            yield f"{name}: no LR is better than not training."
        elif not land.is_interior:
            yield f"{name}: the best LR ({land.best_lr:.2g}) is an end of the grid."


def _decades(spread: float) -> str:
    return "–" if math.isnan(spread) else f"{spread:.2f}"
