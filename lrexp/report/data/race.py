"""The loss after each short training of a race over its LR, and the answer.

One line per length of training. What ended above where it began has, with one seed, its mark at
that level. The line of a longer training lies to the left: an arrow shows how far the answer is
moved down for a full one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrexp.analysis.race import Raced, position, survivors
from lrexp.report.data.picture import (
    Axis,
    Entry,
    Look,
    Marks,
    Note,
    Panel,
    Picture,
    Side,
    Span,
    lr_axis,
    mark,
    of_run,
    value_axis,
    wants_log,
)
from lrexp.report.data.range_test import Row, strip, suggested, suggested_row
from lrexp.report.text import count_text, lr_text
from lrexp.runs.reader import Run, trained_rungs

ARROW = 0.05  # of the axis: where the way from the basin to the answer is drawn
LOOKS = (Look(0), Look(2), Look(6))


def race_picture(run: Run) -> Picture:
    """Return the losses of a race over the LR."""
    rungs, facts = trained_rungs(run.trials), run.summary or {}
    total = (facts.get("race") or {}).get("total_steps")
    rows = _rows(facts)
    lrs = [lr for raced in rungs for lr in raced.rung.lrs]
    lrs += [end for row in rows for end in (row.low, row.high)]
    x = lr_axis(min(lrs, default=1e-4), max(lrs, default=1.0), 0.1)
    validates = any("val_loss" in trial.evals for trial in run.trials if len(trial.evals["step"]))
    title = f"{'validation loss' if validates else 'training loss'} after a short training"
    what = "race of learning rates"
    if facts.get("suggested_lr"):
        what += f" suggests {lr_text(facts['suggested_lr'])}"
    elif facts.get("reason"):
        what += " gives no suggestion"
    return of_run(
        run,
        what,
        [_panel(rungs, facts, x, title)],
        strip=strip(rows, x),
        entries=_entries(rungs, facts, total),
        legend_title="trained for",
    )


def _panel(rungs: Sequence[Raced], facts: Mapping[str, Any], x: Axis, title: str) -> Panel:
    low, high = _view(rungs)
    foot = 0.2 if facts.get("suggested_lr") else 0.08
    lr, interval = facts.get("suggested_lr"), facts.get("interval")
    marks: Marks = [Span("interval", *interval)] if interval else []
    marks += suggested(lr, "left") if lr else []
    if rungs:
        start = float(np.mean(rungs[0].start))
        marks.append(mark("race.start", [0, 1], [start, start], within="x"))
    for i, (look, raced) in enumerate(zip(LOOKS, rungs, strict=False)):
        marks += _rung(raced, look, high, halved=i == 0 and len(rungs) > 1)
    if rungs and lr:
        marks += _drift(rungs[-1], LOOKS[min(len(rungs), len(LOOKS)) - 1], lr, x)
    return Panel(x, value_axis(low, high, foot, 0.16, log=wants_log(low, high)), marks, title)


def _rung(raced: Raced, look: Look, top: float, *, halved: bool) -> Marks:
    """Return the mean of each LR, its seeds, and how it ended."""
    lrs = np.array(raced.rung.lrs)
    losses = np.array(raced.losses)  # (lrs, seeds)
    mean = np.minimum(losses, np.array(raced.start)).mean(axis=1)
    shown = np.minimum(mean, top)
    lost = ~np.isfinite(losses).all(axis=1)
    worse = _worse(raced)
    stays = survivors(raced) if halved else raced.rung.lrs
    kept = np.array([lr in stays for lr in raced.rung.lrs])
    marks: Marks = [mark("race.mean", lrs, shown, look)]
    if losses.shape[1] > 1:
        for column in losses.T:
            seen = np.isfinite(column)
            marks.append(mark("race.seed", lrs[seen], column[seen], look))
    for kind, which in (
        ("race.kept", kept & ~lost & ~worse),
        ("race.dropped", ~kept & ~lost & ~worse),
        ("race.worse", worse),
        ("race.diverged", lost),
    ):
        if which.any():
            marks.append(mark(kind, lrs[which], shown[which], look))
    return marks


def _worse(raced: Raced) -> np.ndarray:
    """Return which LRs ended, without diverging, above where they began on average, (lrs,)."""
    ended = np.array(raced.losses).mean(axis=1)
    return np.asarray(np.isfinite(ended) & (ended > float(np.mean(raced.start))))


def _drift(raced: Raced, look: Look, lr: float, x: Axis) -> Marks:
    """Return the way from the middle of the longest trainings' basin to the answer."""
    middle = 10 ** position(raced.rung.lrs, raced.start, raced.losses)
    if middle < 1.1 * lr:
        return []
    side: Side = "right" if x.fraction(middle) < 0.7 else "left"
    way = mark("race.drift", [middle, lr], [ARROW, ARROW], look, "y")
    return [way, Note("race.drift", "the full training needs less", middle, ARROW, "y", side)]


def _view(rungs: Sequence[Raced]) -> tuple[float, float]:
    """Return the lowest and highest loss to show: none above that before training."""
    seen = [loss for raced in rungs for row in raced.losses for loss in row if math.isfinite(loss)]
    start = [value for raced in rungs for value in raced.start if math.isfinite(value)]
    if not start:
        return (0.0, 1.0)
    return min([*seen, *start]), max(start)


def _rows(facts: Mapping[str, Any]) -> list[Row]:
    has_answer = facts.get("suggested_lr") and facts.get("interval")
    rows = [suggested_row("race", facts)] if has_answer else []
    tested = facts.get("range_test") or {}
    if tested.get("suggested_lr"):
        lr = tested["suggested_lr"]
        low, high = tested.get("interval") or (lr, lr)
        rows.append(Row("rule", "range test", lr_text(lr), low, high, lr))
    return rows


def _entries(rungs: Sequence[Raced], facts: Mapping[str, Any], total: int | None) -> list[Entry]:
    entries = []
    for look, raced in zip(LOOKS, rungs, strict=False):
        rung = raced.rung
        share = f" ({rung.horizon / total:.0%})" if total else ""
        note = f"{count_text(len(rung.lrs), 'LR')}, {count_text(len(rung.seeds), 'seed')}"
        name = f"{count_text(rung.horizon, 'step')}{share}"
        entries.append(Entry("race.mean", name, note, look))
    losses = [loss for raced in rungs for row in raced.losses for loss in row]
    said = (
        ("race.dropped", "the half that dropped out", len(rungs) > 1),
        ("race.worse", "ended above its start", any(_worse(raced).any() for raced in rungs)),
        ("race.diverged", "diverged", not all(map(math.isfinite, losses))),
        ("race.start", "before training", rungs),
        ("suggested", "suggested LR", facts.get("suggested_lr")),
        ("interval", "probably as good", facts.get("interval")),
    )
    return entries + [Entry(kind, name) for kind, name, applies in said if applies]
