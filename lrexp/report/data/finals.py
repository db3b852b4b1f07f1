"""Where every seed of every variant ended, as dots in rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrexp.report.data.picture import (
    NAME_WIDTH,
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
from lrexp.report.text import count_text, measure_text, told_apart
from lrexp.runs.reader import Run


def finals_picture(run: Run) -> Picture:
    """Return the metric of every seed that has one, a row for each variant, the best on top."""
    summary: dict[str, Any] = run.summary or {}
    rows, places = summary["ranking"], {name: i for i, name in enumerate(run.variants)}
    marks: Marks = []
    for y, row in enumerate(rows):
        its = look(places.get(row["variant"], y))
        values = np.array([v for v in row["values"] if v is not None], dtype=np.float64)
        marks.append(
            Mark("finals.seed", values, np.full(len(values), float(y)), its, row["variant"])
        )
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
    found = [v for row in rows for v in row["values"] if v is not None]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    log = wants_log(low, high)
    x = value_axis(low, high, 0.06, 0.06, log=log)
    better = f"← better · {what} · worse →"
    title = better if summary["direction"] == "min" else f"← worse · {what} · better →"
    names = tuple(told_apart([row["variant"] for row in rows], NAME_WIDTH))
    entries = [Entry("finals.seed", "each seed"), Entry("finals.mean", "their mean")]
    if any(m.kind == "finals.lost" for m in marks if isinstance(m, Mark)):
        entries.append(Entry("finals.lost", "seeds lost", "diverged or failed"))
    at = "best" if summary.get("select") == "best" else "last"
    return of_run(
        run,
        f"{at} {what} of every seed, {count_text(len(summary['seeds']), 'seed')}",
        [Panel(Axis(x.limits, title, x.scale), Axis((len(rows) - 0.4, -0.6), names=names), marks)],
        entries=entries,
    )
