"""What the table of a comparison says of metrics: last and best values, and what guessing gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from lrexp.report.text import (
    cell,
    mean_sd_column,
    measure_text,
    new_table,
    number_text,
    shortened,
    shown_of,
)

SHOWN = 8  # metrics with a column; the others stand in summary.csv
GUESSES = "guessing"  # the row of the baseline
NAMED = 6  # variants that a sentence names


def other_columns(summary: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the columns beside the values that rank: title, and a text for each variant.

    Ranked by the last evaluation, these are the best value and when it was reached; ranked by the
    best, when that was, and the last value. An older run has none.
    """
    rows = [_metric(row, summary["metric"]) for row in summary["ranking"]]
    if not all(rows):
        return []
    unit, times = _times(rows)
    if summary.get("select") == "best":
        return [(unit, times), ("last", _means(rows, "final"))]
    return [("best", _means(rows, "best")), (unit, times)]


def _metric(row: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (row.get("metrics") or {}).get(column) or {}
    return found


def _means(rows: Sequence[Mapping[str, Any]], which: str) -> list[str]:
    return [text.rstrip() for text in mean_sd_column([(r[which]["mean"], None) for r in rows])]


def _times(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return the unit and, of each row, when its seeds had their best value: the median."""
    has_epochs = any(value is not None for row in rows for value in row["best_epoch"])
    unit = "epoch" if has_epochs else "step"
    found = [[value for value in row[f"best_{unit}"] if value is not None] for row in rows]
    return unit, [number_text(median(values)) if values else "–" for values in found]


def guesses(summary: Mapping[str, Any], column: str) -> str | None:
    """Return what guessing gets of a metric, where it is the same for all variants."""
    values = {(row.get("baseline") or {}).get(column) for row in summary["ranking"]}
    value = values.pop() if len(values) == 1 else None
    return None if value is None else number_text(value)


def metrics_table(summary: Mapping[str, Any]) -> Table | None:
    """Return the metrics that do not rank, `last (best, when)` of each; None without any."""
    columns = [name for name in summary.get("metrics") or () if name.startswith("val_")]
    columns = [name for name in columns if name != summary["metric"]][:SHOWN]
    if not columns:
        return None
    heads = [measure_text(name).removeprefix("validation ") for name in columns]
    table = new_table("last (best, when)", *(Column(Text(head)) for head in heads))
    rows = summary["ranking"]
    cells = [_cells([_metric(row, name) for row in rows]) for name in columns]
    for i in shown_of(len(rows)):
        table.add_row(cell(rows[i]["variant"]), *(Text(texts[i]) for texts in cells))
    found = [guesses(summary, name) for name in columns]
    if any(found):
        table.add_row(Text(GUESSES, "dim"), *(Text(text or "", "dim") for text in found))
    return table


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not all(rows):
        return ["–"] * len(rows)
    times = _times(rows)[1]
    texts = []
    for row, time in zip(rows, times, strict=True):
        last, best = row["final"]["mean"], row["best"]["mean"]
        aside = "" if best is None else f" ({number_text(best)}, {time})"
        texts.append(number_text(last) + aside)
    return texts


def metric_notes(summary: Mapping[str, Any]) -> list[str]:
    """Return what order the other selection gives, and where guessing is as good."""
    notes = []
    if summary.get("other_order"):
        by = "last" if summary.get("select") == "best" else "best"
        order = _named(summary["other_order"])
        notes.append(f"By the {by} evaluation of each seed the order would be {order}.")
    worse: dict[str, list[str]] = {}
    for variant, column in summary.get("not_better") or ():
        worse.setdefault(column, []).append(variant)
    for column, variants in worse.items():
        value = guesses(summary, column)
        what = measure_text(column) + (f", {value}" if value else "")
        notes.append(f"Not better than guessing the same each time in {what}: {_named(variants)}.")
    return notes


def _named(names: Sequence[str]) -> str:
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*(shortened(name, 40) for name in names[:NAMED]), *more])
