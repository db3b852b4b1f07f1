"""What a summary says of variants: differences to a reference, and final values over the LR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrexp.analysis.claims import BETTER, TOO_FEW
from lrexp.report.data.losses import looks_of
from lrexp.report.data.picture import (
    LOG_RATIO,
    NAME_WIDTH,
    NUM_COLORS,
    Axis,
    Entry,
    Look,
    Marks,
    Note,
    Panel,
    Picture,
    Span,
    View,
    look,
    lr_axis,
    mark,
    of_run,
    value_axis,
    wants_log,
)
from lrexp.report.text import (
    count_text,
    lr_text,
    measure_text,
    number_text,
    settings_text,
    shortened,
    shown_of,
    told_apart,
)
from lrexp.runs.reader import Run

MIN_ROWS = 3  # fewer would be far apart
MAX_CURVES = NUM_COLORS  # those with the best LRs are drawn
NEAR_START = 0.25  # of the range of final losses: a start that close above them is in view
LOSS_RATIO = 5.0  # of final losses, from which their axis is logarithmic: the best decide
BLOW_UP = 0.15  # above the values before training, as a share of the way down: still in view


def differences_picture(run: Run) -> Picture:
    """Return each variant's differences to the reference, in the order of the ranking."""
    summary = run.summary or {}
    declared, found = summary["declared"], summary["comparisons"]
    rows = [found[i] for i in shown_of(len(found))]
    _, looks = looks_of(run)
    too_few = all(row["kind"] == TOO_FEW for row in rows)  # once for all
    names = told_apart([row["variant"] for row in rows], NAME_WIDTH)
    equal = (summary.get("noise") or {}).get("equal_variants") or ()
    # of pairs, as the differences are: two seeds of one variant differ by much more
    noise = max((group["highest"] or 0.0 for group in equal), default=0.0)
    marks: Marks = [mark("verdicts.zero", [0, 0], [0, 1], within="y")]
    marks += [Span("verdicts.noise", -noise, noise)] if noise else []
    for y, (row, name) in enumerate(zip(rows, names, strict=True)):
        marks += _row(y, row, looks.get(row["variant"], look(y)), declared["direction"])
        won = "claim" if row["better"] == row["variant"] else "worse"
        kind = f"verdicts.{won if row['kind'] == BETTER else 'row'}"
        said = ", ".join([*([] if too_few else [_short(row)]), *_lost(row)])
        marks.append(Note(kind, name, 0, y, "x", "left", shortened(said, 60)))
    reference = shortened(declared["reference"], 30)
    room = max(0.0, (MIN_ROWS - len(rows)) / 2)
    y_axis = Axis((len(rows) - 0.45 + room, -0.55 - room), numbers="none")
    title = f"difference in {measure_text(declared['metric'])} to {reference}"
    x_axis = _difference_axis(rows, title, declared["direction"])
    return of_run(
        run,
        f"differences to {reference}, seed by seed, {_seeds(summary)}",
        [Panel(x_axis, y_axis, marks, rows[0]["verdict"] if too_few else "")],
        caption=_reading(declared, rows, len(found)),
        entries=_key_of_differences(rows, has_noise=bool(noise)),
        legend_title=f"variant − {reference}",
    )


def _difference_axis(rows: Sequence[Mapping[str, Any]], title: str, direction: str) -> Axis:
    """Return a linear axis, or one that is logarithmic to both sides of 0; its title says so."""
    left, right = ("better", "worse") if direction == "min" else ("worse", "better")
    title = f"{left} ←   {title}   → {right}"
    given = [(*row["differences"], *(row["interval"] or ())) for row in rows]
    shown = [np.array([x for x in row if x is not None], dtype=np.float64) for row in given]
    sizes = [float(np.abs(values).max()) for values in shown if values.any()]
    largest, smallest = (max(sizes), min(sizes)) if sizes else (1.0, 1.0)
    values = np.concatenate([np.zeros(1), *shown])
    low, high = float(values.min()), float(values.max())
    if largest <= LOG_RATIO * smallest:
        room = 0.06 * ((high - low) or 1.0)
        return Axis((low - room, high + room), title)
    # linear up to the smallest row's power of ten, logarithmic beyond
    linear = float(10.0 ** np.floor(np.log10(smallest)))
    powers = linear * 10.0 ** np.arange(0, np.ceil(np.log10(max(high, -low) / linear)) + 1)
    ticks = [*(-powers[::-1]), 0.0, *powers]
    return Axis(
        (1.6 * low - 0.3 * linear, 1.6 * high + 0.3 * linear),
        f"{title}   (logarithmic beyond ±{number_text(linear)})",
        scale="symlog",
        linear_until=linear,
        ticks=tuple(t for t in ticks if 1.6 * low - linear <= t <= 1.6 * high + linear),
    )


def _row(y: int, row: Mapping[str, Any], look: Look, direction: str) -> Marks:
    """Return the seeds, their mean with its interval, and a cross where seeds diverged."""
    seeds = np.array([x for x in row["differences"] if x is not None])
    spread = np.linspace(-0.08, 0.08, len(seeds)) if len(seeds) > 1 else np.zeros(len(seeds))
    marks: Marks = [mark("verdicts.seed", seeds, y + 0.16 + spread, look)]
    worse = 1.0 if direction == "min" else 0.0  # edge of the panel; the reference has the other
    for who, edge in (("variant", worse), ("reference", 1 - worse)):
        if row["diverged"][who]:
            marks.append(mark("verdicts.diverged", [edge], [y + 0.16], look, "x"))
    if row["interval"] and row["kind"] != TOO_FEW:
        marks.append(mark("verdicts.interval", row["interval"], [y - 0.07] * 2, look))
    if row["mean"] is not None:
        marks.append(mark("verdicts.mean", [row["mean"]], [y - 0.07], look))
    return marks


def _short(row: Mapping[str, Any]) -> str:
    """Return the verdict without its numbers but for p."""
    if row["kind"] == TOO_FEW:
        return str(row["verdict"])
    says = f"{shortened(row['better'], 30)} is better" if row["kind"] == BETTER else row["kind"]
    return f"{says}, p = {number_text(row['p_holm'], 2)}"


def _lost(row: Mapping[str, Any]) -> list[str]:
    """Return which of the two diverged in how many seeds, where the other did not."""
    both = {"variant": "", "reference": f"{shortened(row['reference'], 20)} "}
    counts = row["diverged"]
    return [f"{both[k]}diverged in {counts[k]} of {row['n']}" for k in both if counts[k]]


def _key_of_differences(rows: Sequence[Mapping[str, Any]], *, has_noise: bool) -> list[Entry]:
    entries = [Entry("verdicts.seed", "each seed"), Entry("verdicts.mean", "their mean")]
    if any(row["interval"] and row["kind"] != TOO_FEW for row in rows):
        entries.append(Entry("verdicts.interval", "95 % interval of the mean"))
    if has_noise:
        entries.append(Entry("verdicts.noise", "A against A", "equal variants, at most"))
    return entries


def _reading(declared: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], found: int) -> str:
    better = "Left of 0" if declared["direction"] == "min" else "Right of 0"
    parts = [f"{better} the variant is better."]
    if any(_lost(row) for row in rows):
        parts.append("Cross: seeds in which one of the two diverged.")
    family = declared["comparisons_corrected_for"]
    if family > 1 and any(row["kind"] != TOO_FEW for row in rows):
        parts.append(f"p is Holm's for {family} comparisons.")
    if len(rows) < found:
        parts.append(f"{found - len(rows)} variants are left out.")
    return " ".join(parts)


def sensitivity_picture(run: Run) -> Picture:
    """Return the final metric over the LR, one curve for each setting beside the LR."""
    summary = run.summary or {}
    direction, what = str(summary["direction"]), measure_text(str(summary["metric"]))
    sign, found = 1.0 if direction == "min" else -1.0, summary["lr_sensitivity"]
    best = [min((sign * m for m in c["means"] if m is not None), default=np.inf) for c in found]
    curves = [found[i] for i in np.argsort(best, kind="stable")[:MAX_CURVES]]
    lrs = [lr for curve in curves for lr in curve["lrs"]]
    y = _final_axis(curves, direction)
    marks: Marks = []
    for i, curve in enumerate(curves):
        marks += _curve(curve, i, len(curves), y.limits, from_top=direction == "min")
    marks += _start(curves, y.limits)
    alone = len(curves) == 1
    left_out = f" The {MAX_CURVES} best of {len(found)} settings." * (len(curves) < len(found))
    names = []
    for i, curve in enumerate(curves):
        settings = settings_text(curve["settings"]) or "nothing else changed"
        name = "mean of the seeds" if alone else settings
        names.append(Entry("sensitivity.mean", name, _note(curve), look(i)))
    x = lr_axis(min(lrs), max(lrs), 0.06, "learning rate (base LR)")
    return of_run(
        run,
        f"{what} over the learning rate, {_seeds(summary)}",
        [Panel(x, y, marks, f"{what} at the end")],
        caption="Between two LRs the basin's edge is interpolated in log LR; next to an LR with "
        f"diverged seeds it ends at the last good one.{left_out}",
        entries=[*names, *_key_of_curves(curves)],
        legend_title="" if alone else "all but the LR",
    )


def _final_axis(curves: Sequence[Mapping[str, Any]], direction: str) -> Axis:
    """Return an axis that shows all values but for those far worse than before training."""
    values = [v for curve in curves for row in curve["values"] for v in row if v is not None]
    starts = [curve["initial"] for curve in curves if curve["initial"] is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if starts and direction == "min":
        high = max(starts) + BLOW_UP * abs(max(starts) - low)
        high = min(high, max([*values, *starts], default=high))
    elif starts:
        low = max(low, min(starts) - BLOW_UP * abs(high - min(starts)))
    if direction == "min" and values:  # the start is a note at the edge where it would flatten all
        top = max(v for v in values if v <= high)
        seen = [s for s in starts if s <= top + NEAR_START * (top - low)]
        high = max([top, *seen])
        log = low > 0 and high > LOSS_RATIO * low
    else:
        log = wants_log(low, high)
    return value_axis(low, high, 0.06, 0.12, log=log)


def _curve(
    curve: Mapping[str, Any], index: int, num_curves: int, view: View, *, from_top: bool
) -> Marks:
    """Return one curve: its basin, the mean, the seeds, crosses where seeds diverged, the best LR.

    Curves stand a little apart, so that the dots of one do not hide those of another.
    """
    its, basin = look(index), curve["basin"]
    marks: Marks = []
    if basin is not None and num_curves == 1:
        marks.append(Span("sensitivity.basin", basin["low"], basin["high"], its))
    elif basin is not None:  # bars at the better edge: areas would cover each other
        height = 0.012 + 0.014 * index
        height = height if from_top else 1 - height
        ends = [basin["low"], basin["high"]]
        marks.append(mark("sensitivity.basins", ends, [height] * 2, its, "y"))
    means = [np.nan if mean is None else mean for mean in curve["means"]]
    marks.append(mark("sensitivity.mean", curve["lrs"], means, its))
    shift = 1.02 ** (index - (num_curves - 1) / 2)
    edge = 0.965 - 0.04 * index if from_top else 0.035 + 0.04 * index
    for lr, values, lost in zip(curve["lrs"], curve["values"], curve["diverged"], strict=True):
        seeds = [v for v in values if v is not None]
        inside = [v for v in seeds if view[0] <= v <= view[1]]
        marks.append(mark("sensitivity.seed", [lr * shift] * len(inside), inside, its))
        outside = len(seeds) - len(inside)
        if lost or outside:
            kind = "sensitivity.diverged" if lost else "sensitivity.beyond"
            text = f"{lost or outside} of {len(values)}" + ("" if lost else " beyond")
            marks.append(mark(kind, [lr], [edge], its, "y"))
            marks.append(Note("sensitivity.lost", text, lr, edge, "y"))
    best = curve["best_lr"]
    if best is not None:
        at = curve["means"][curve["lrs"].index(best)]
        marks.append(mark("sensitivity.best", [best], [at], its))
    return marks


def _start(curves: Sequence[Mapping[str, Any]], view: View) -> Marks:
    """Return the value before training, where it is in view and one for all."""
    starts = {round(curve["initial"], 9) for curve in curves if curve["initial"] is not None}
    if len(starts) != 1:
        return []
    [start] = starts
    if start >= view[1]:
        text = f"before training {number_text(start)} ↑"
        return [Note("sensitivity.start", text, 0.99, 0.93, "xy", "left")]
    if start <= view[0]:
        return []
    line = mark("sensitivity.start", [0, 1], [start, start], within="x")
    return [line, Note("sensitivity.start", "before training", 0.995, start, "x", "left")]


def _note(curve: Mapping[str, Any]) -> str:
    """Return the best LR, and how wide the basin around it is."""
    if curve["best_lr"] is None:
        return "no LR without divergence"
    text = f"best {lr_text(curve['best_lr'])}"
    basin = curve["basin"]
    if basin is None:
        return f"{text}, none below its start"
    least = "≥ " if basin["open_low"] or basin["open_high"] else ""
    width = number_text(basin["decades"], 2)
    return f"{text}, good over {least}{width} decade{'' if width == '1' else 's'}"


def _key_of_curves(curves: Sequence[Mapping[str, Any]]) -> list[Entry]:
    entries = [Entry("sensitivity.seed", "each seed"), Entry("sensitivity.best", "best LR")]
    if any(curve["basin"] for curve in curves):
        kind, its = ("basin", look(0)) if len(curves) == 1 else ("basins", None)
        note = "of the way to the best"
        entries.append(Entry(f"sensitivity.{kind}", "basin: within 5 %", note, its))
    if any(count for curve in curves for count in curve["diverged"]):
        note = "no mean, no part of the basin"
        entries.append(Entry("sensitivity.diverged", "seeds diverged", note))
    return entries


def _seeds(summary: Mapping[str, Any]) -> str:
    return count_text(len(summary["seeds"]), "seed")
