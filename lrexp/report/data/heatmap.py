"""The final metric over two numbers that a grid varies, as coloured cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrexp.report.data.picture import Array, Axis, Cells, Entry, Panel, Picture, of_run, wants_log
from lrexp.report.text import count_text, lost_texts, lr_text, measure_text, number_text
from lrexp.runs.reader import Run

LR_KEY = re.compile(r"optimizer\.(?:parts(?:\.|\[)(\d+)\]?\.)?lr")


UNEVEN = 3.0  # the largest step between values, as a multiple of the smallest


def grid_of(run: Run) -> dict[str, list[float]] | None:
    """Return the two numbers that a grid varies, rising, by key; None where it does not."""
    settings = [row["settings"] for row in (run.summary or {}).get("ranking", ())]
    keys = list(settings[0]) if settings else []
    if len(keys) != 2 or any(own.keys() != settings[0].keys() for own in settings):
        return None
    if not all(_is_number(value) for own in settings for value in own.values()):
        return None
    grid = {key: sorted({own[key] for own in settings}) for key in keys}
    sizes = [len(values) for values in grid.values()]
    return grid if min(sizes) > 1 and sizes[0] * sizes[1] == len(settings) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def heatmap_picture(run: Run) -> Picture:
    """Return the mean of the final metric for each pair of values, better ones brighter."""
    summary, grid = run.summary or {}, grid_of(run)
    assert grid is not None
    (x_key, xs), (y_key, ys) = grid.items()
    rows = {tuple(row["settings"].get(key) for key in grid): row for row in summary["ranking"]}
    table = [[rows.get((x, y)) for x in xs] for y in ys]  # (ys, xs)
    values = np.array([[_mean(row) for row in line] for line in table])
    direction, what = str(summary["direction"]), measure_text(str(summary["metric"]))
    low, high, log = _colours(run, values, direction)
    best = _best(values, direction)
    (x_axis, x_edges), (y_axis, y_edges) = _axis(run, x_key, xs), _axis(run, y_key, ys)
    cells = Cells(
        x_edges,
        y_edges,
        values,
        texts=[[_text(row) for row in line] for line in table],
        notes=[[_note(row) for row in line] for line in table],
        best=best,
        limits=(low, high),
        log=log,
        title=f"{what} at the {'best' if summary.get('select') == 'best' else 'end'}",
        darkest="highest" if direction == "min" else "lowest",
    )
    kind = "learning rates" if all(map(LR_KEY.fullmatch, grid)) else "settings"
    lost = [row for line in table for row in line if row is not None and _note(row)]
    return of_run(
        run,
        f"{what} over two {kind}, {count_text(len(summary['seeds']), 'seed')}",
        [Panel(x_axis, y_axis, [cells])],
        caption=_caption(values, (low, high)),
        entries=_entries(table, best, bool(lost)),
    )


def _mean(row: Mapping[str, Any] | None) -> float:
    mean = None if row is None else row.get("mean")
    return np.nan if mean is None or _note(row) else float(mean)


def _text(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    mean = row.get("mean")
    return "" if mean is None else number_text(mean, 3, zeros=True)


def _note(row: Mapping[str, Any] | None) -> str:
    """Return how many seeds of a cell diverged or failed."""
    outcomes = (row or {}).get("outcomes") or {}
    return ", ".join(lost_texts(outcomes, sum(outcomes.values())))


def _best(values: Array, direction: str) -> tuple[int, int] | None:
    """Return row and column of the best cell without a lost seed."""
    if np.isnan(values).all():
        return None
    flat = np.nanargmin(values) if direction == "min" else np.nanargmax(values)
    row, column = divmod(int(flat), values.shape[1])
    return row, column


def _colours(run: Run, values: Array, direction: str) -> tuple[float, float, bool]:
    """Return the range that the colours span; what is worse than before training has the last."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0, False
    low, high = float(known.min()), float(known.max())
    metric = str((run.summary or {})["metric"])
    starts = [t.evals[metric][0] for t in run.trials if len(t.evals.get(metric, ()))]
    finite = [float(start) for start in starts if np.isfinite(start)]
    if finite and direction == "min" and max(finite) > low:
        high = min(high, max(finite))
    elif finite and direction == "max" and min(finite) < high:
        low = max(low, min(finite))
    if low == high:
        low, high = low - 0.5 * abs(low or 1.0), high + 0.5 * abs(high or 1.0)
    return low, high, wants_log(low, high)


def _axis(run: Run, key: str, values: Sequence[float]) -> tuple[Axis, Array]:
    """Return the axis of one setting, and the borders of cells: half way from value to value.

    Values that lie unevenly get cells of one size: narrow ones would have no room for words.
    """
    of_lr = LR_KEY.fullmatch(key)
    log = of_lr is not None or wants_log(values[0], values[-1])
    at = np.log10(values) if log else np.asarray(values, float)
    gaps = np.diff(at)
    is_even = gaps.max() <= UNEVEN * gaps.min()
    at = at if is_even else np.arange(len(values), dtype=float)
    inner = (at[1:] + at[:-1]) / 2
    edges = np.concatenate([[2 * at[0] - inner[0]], inner, [2 * at[-1] - inner[-1]]])
    if log and is_even:
        at, edges = np.asarray(values, float), 10**edges
    axis = Axis(
        (float(edges[0]), float(edges[-1])),
        _title(run, key),
        "log" if log and is_even else "linear",
        ticks=tuple(at.tolist()),
        labels=tuple((lr_text if of_lr else number_text)(value) for value in values),
    )
    return axis, edges


def _title(run: Run, key: str) -> str:
    of_lr = LR_KEY.fullmatch(key)
    if of_lr is None:
        return key
    parts = (run.config.get("optimizer") or {}).get("parts") or []
    name = parts[int(of_lr[1])]["name"] if of_lr[1] and int(of_lr[1]) < len(parts) else None
    return f"learning rate of {name} ({key})" if name else "learning rate"


def _caption(values: Array, limits: tuple[float, float]) -> str:
    known = values[np.isfinite(values)]
    beyond = ((known < limits[0]) | (known > limits[1])).any()
    worse = " What is worse than before training has the darkest colour." if beyond else ""
    return f"Each cell is the mean of its seeds; brighter is better.{worse}"


def _entries(
    table: Sequence[Sequence[Mapping[str, Any] | None]],
    best: tuple[int, int] | None,
    has_lost: bool,
) -> list[Entry]:
    entries = []
    if best is not None:
        row = table[best[0]][best[1]] or {}
        numbers = [
            lr_text(v) if LR_KEY.fullmatch(key) else number_text(v)
            for key, v in row["settings"].items()
        ]
        entries.append(Entry("heatmap.best", "best", f"{' and '.join(numbers)}: {_text(row)}"))
    if has_lost:
        entries.append(Entry("heatmap.lost", "seeds lost", "diverged or failed"))
    return entries
