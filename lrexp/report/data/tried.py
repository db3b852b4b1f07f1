"""What trainings of several LRs came to: a line for each length, the answer and its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrexp.analysis.race import Raced
from lrexp.report.data.picture import (
    Axis,
    Entry,
    Look,
    Marks,
    Note,
    Panel,
    Picture,
    Span,
    View,
    lr_axis,
    mark,
    of_run,
    value_axis,
    wants_log,
)
from lrexp.report.data.range_test import Row, strip, suggested, suggested_row
from lrexp.report.tables import within_text
from lrexp.report.text import count_text, lr_text, number_text
from lrexp.runs.reader import Run, raced_of

LOOKS = (Look(0), Look(2), Look(6))
DECIDES = 0.4  # of the LRs of each length: the better ones are in view, and one more;
NEAR = 0.25  # and all whose loss is above the best one by at most so much


def race_picture(run: Run) -> Picture:
    """Return the loss of every LR tried, over the LR: a line for each length of training.

    What decides is in view; LRs above it have a mark at the edge, and the loss before training is
    a note there.
    """
    tried, facts = raced_of(run.trials)[::-1], run.summary or {}  # the longest is drawn first
    total = (facts.get("race") or {}).get("total_steps")
    rows = _rows(facts)
    lrs = [lr for raced in tried for lr in raced.rung.lrs]
    lrs += [end for row in rows for end in (row.low, row.high)]
    x = lr_axis(min(lrs, default=1e-4), max(lrs, default=1.0), 0.1)
    validates = any("val_loss" in trial.evals for trial in run.trials if len(trial.evals["step"]))
    title = f"{'validation' if validates else 'training'} loss after training with each LR"
    return of_run(
        run,
        f"{count_text(len(set(lrs_of(tried))), 'learning rate')} tried{_found(facts)}",
        [_panel(tried, facts, x, title)],
        strip=strip(rows, x),
        entries=_key(tried, facts, total),
        legend_title="trained for",
        caption=str(facts.get("note") or ""),
    )


def lrs_of(tried: Sequence[Raced]) -> list[float]:
    """Return all LRs that were trained."""
    return [lr for raced in tried for lr in raced.rung.lrs]


def _panel(tried: Sequence[Raced], facts: Mapping[str, Any], x: Axis, title: str) -> Panel:
    low, high = view(tried)
    lr, interval = facts.get("suggested_lr"), facts.get("interval")
    marks: Marks = [Span("interval", *interval)] if interval else []
    marks += suggested(lr, "left" if x.fraction(lr) > 0.5 else "right") if lr else []
    for its, raced in zip(LOOKS, tried, strict=False):
        marks += _line(raced, its, high)
    y = value_axis(low, high, 0.12, 0.16, log=wants_log(low, high))
    start = float(np.mean(tried[0].start)) if tried else math.nan
    if math.isfinite(start):
        text = f"before training {number_text(start)}{' ↑' if start > high else ''}"
        marks.append(Note("sensitivity.start", text, 0.01, 0.97, "xy"))
    return Panel(x, y, marks, title)


def _line(raced: Raced, look: Look, top: float) -> Marks:
    """Return the mean of each LR, its seeds, and how it ended."""
    lrs, losses, means = np.array(raced.rung.lrs), np.array(raced.losses), raced.means
    shown = np.minimum(means, top)
    lost = np.isinf(losses).any(axis=1)
    kinds = {
        "kept": ~raced.failed & (means <= top),
        "beyond": ~raced.failed & (means > top),
        "worse": raced.failed & ~lost,
        "diverged": lost,
    }
    marks: Marks = [mark("race.mean", lrs, shown, look)]
    if losses.shape[1] > 1:
        for column in losses.T:
            seen = np.isfinite(column) & (column <= top)
            marks.append(mark("race.seed", lrs[seen], column[seen], look))
    for kind, which in kinds.items():
        if which.any():
            marks.append(mark(f"race.{kind}", lrs[which], shown[which], look))
    return marks


def view(tried: Sequence[Raced]) -> View:
    """Return the lowest and the highest loss to show: those of the better LRs of each length."""
    highest, lowest = [], []
    for raced in tried:
        means = np.sort(raced.means)
        lowest.append(float(np.nanmin([means[0], *np.ravel(raced.losses)])))
        better = float(means[min(len(means) - 1, max(1, int(DECIDES * len(means))))])
        near = means[means <= means[0] + NEAR * abs(means[0])]
        highest.append(max(better, float(near.max())))
    return (min(lowest), max(highest)) if tried else (0.0, 1.0)


def _found(facts: Mapping[str, Any]) -> str:
    """Return what a title says of the answer."""
    if facts.get("suggested_lr"):
        return f", {lr_text(facts['suggested_lr'])} suggested"
    return ", none suggested" if facts.get("reason") else ""


def _rows(facts: Mapping[str, Any]) -> list[Row]:
    rows = suggested_row("answer", facts) if facts.get("interval") else []
    tested = facts.get("range_test") or {}
    if tested.get("suggested_lr"):
        lr = tested["suggested_lr"]
        low, high = tested.get("interval") or (lr, lr)
        rows.append(Row("rule", "range test", lr_text(lr), low, high, lr))
    return rows


def _key(tried: Sequence[Raced], facts: Mapping[str, Any], total: int | None) -> list[Entry]:
    entries = []
    for its, raced in zip(LOOKS, tried, strict=False):
        rung = raced.rung
        share = f" ({rung.horizon / total:.0%})" if total else ""
        note = f"{count_text(len(rung.lrs), 'LR')}, {count_text(len(rung.seeds), 'seed')}"
        name = f"{count_text(rung.horizon, 'step')}{share}"
        entries.append(Entry("race.mean", name, note, its))
    _, high = view(tried)
    failed = [(raced, np.isinf(np.array(raced.losses)).any(axis=1)) for raced in tried]
    within = facts.get("within")
    said = (
        ("race.beyond", "higher than shown",
         any((~r.failed & (r.means > high)).any() for r in tried)),
        ("race.worse", "ended above its start",
         any((r.failed & ~lost).any() for r, lost in failed)),
        ("race.diverged", "diverged", any(lost.any() for _, lost in failed)),
        ("suggested", "suggested LR", facts.get("suggested_lr")),
        ("interval", within_text(within, is_short=bool(facts.get("extrapolated"))),
         facts.get("interval")),
    )  # fmt: skip
    return entries + [Entry(kind, name) for kind, name, applies in said if applies]
