"""Where every seed of every variant ended, as dots in rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrexp.report.data.losses import looks_of
from lrexp.report.data.picture import (
    Axis,
    Entry,
    Mark,
    Marks,
    Panel,
    Picture,
    look,
    mark,
    of_run,
    value_axis,
    wants_log,
)
from lrexp.report.text import count_text, measure_text, shown_of, told_apart
from lrexp.runs.reader import Run

FIRST_ROWS = 27  # of the best variants, where there are too many for all
ROW_NAME = 44  # characters of a name beside its row


def finals_picture(run: Run) -> Picture:
    """Return the metric of every seed that has one, a row for each variant, the best on top."""
    summary: dict[str, Any] = run.summary or {}
    found, (_, looks) = summary["ranking"], looks_of(run)
    rows = [found[i] for i in shown_of(len(found), FIRST_ROWS, FIRST_ROWS + 3)]
    marks: Marks = []
    for y, row in enumerate(rows):
        its = looks.get(row["variant"], look(y))
        ends = np.array([v for v in row["values"] if v is not None], dtype=np.float64)
        marks.append(Mark("finals.seed", ends, np.full(len(ends), float(y)), its, row["variant"]))
        if row["mean"] is not None:
            marks.append(
                Mark(
                    "finals.mean",
                    np.array([row["mean"]]),
                    np.array([float(y)]),
                    its,
                    row["variant"],
                )
            )
        if row["outcomes"].keys() - {"finished"}:
            edge = 1.0 if summary["direction"] == "min" else 0.0
            marks.append(mark("finals.lost", [edge], [y], its, "x"))
    what = measure_text(str(summary["metric"]))
    values = [v for row in rows for v in row["values"] if v is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    log = wants_log(low, high)
    x = value_axis(low, high, 0.06, 0.06, log=log)
    left, right = ("better", "worse") if summary["direction"] == "min" else ("worse", "better")
    title = f"{left} ←   {what}   → {right}"
    names = tuple(told_apart([row["variant"] for row in rows], ROW_NAME))
    entries = [Entry("finals.seed", "each seed"), Entry("finals.mean", "their mean")]
    if any(m.kind == "finals.lost" for m in marks if isinstance(m, Mark)):
        entries.append(Entry("finals.lost", "seeds lost", "diverged or failed"))
    at = "best" if summary.get("select") == "best" else "last"
    return of_run(
        run,
        f"{at} {what} of every seed, {count_text(len(summary['seeds']), 'seed')}",
        [Panel(Axis(x.limits, title, x.scale), Axis((len(rows) - 0.4, -0.6), names=names), marks)],
        caption=""
        if len(rows) == len(found)
        else f"{len(found) - len(rows)} variants are left out.",
        entries=entries,
    )
