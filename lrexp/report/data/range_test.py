"""What find-lr found over the LR: the losses of a range test, and those of a race after it.

A panel has the losses and the suggested LR with its interval, and that of a range test the range
for cyclic schedules. In the strip below it each answer has a row of its own, so that rules which
agree never hide each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lrexp.analysis.race import Raced, position, survivors
from lrexp.analysis.range_curve import CombinedCurve, Curve, combine, start_level
from lrexp.analysis.signal import paired_control
from lrexp.report.data.curves import outcome
from lrexp.report.data.losses import of_runs, run_labels
from lrexp.report.data.picture import (
    Array,
    Axis,
    Band,
    Entry,
    Look,
    Mark,
    Marks,
    Note,
    Panel,
    Picture,
    Side,
    Span,
    View,
    look,
    lr_axis,
    mark,
    of_run,
    step_axis,
    value_axis,
    wants_log,
)
from lrexp.report.text import count_text, lr_text, num_seeds, shortened
from lrexp.runs.reader import Run, control_losses, curves_of, others_train, trained_rungs

CURVE = Look(0)
RUNG_LOOKS = (Look(0), Look(2), Look(6))
ARROW = 0.05  # of the axis: where the way from the basin to the answer is drawn
OPEN_END = float(np.finfo(np.float32).max)  # as far up as any picture goes


@dataclass(frozen=True, eq=False)
class RangeCurves:
    """The curves of a range test, and what several pictures need of them."""

    curves: Sequence[Curve]
    is_paired: bool = False  # the fall was looked for in differences to the untrained model

    @cached_property
    def combined(self) -> CombinedCurve | None:
        """The curves as one; None without any."""
        return combine(self.curves) if self.curves else None

    @property
    def y(self) -> Axis:
        """The axis of losses, with some of the blow-up above those in view."""
        return _loss_axis(*loss_view(self))


def curves_of_run(run: Run) -> RangeCurves:
    """Return the curves of the seeds that have ended; where none has, of the one that goes on.

    One that failed is neither: it would end as one does whose loss has left the picture. After a
    paired control they are those in which the fall was looked for.
    """
    tests = run.of_kind("range_test")
    begun = [t for t in tests if len(t.steps["lr"]) and outcome(t) != "failed"]
    ended = [trial for trial in begun if outcome(trial) != "open"]
    curves = curves_of(ended or begun[:1])
    paired = paired_control(curves, control_losses(run, ended), others_train=others_train(run))
    return RangeCurves(paired or curves, is_paired=paired is not None)


def range_test_picture(run: Run, test: RangeCurves | None = None) -> Picture:
    """Return the losses of a range test over the LR, with what was found marked on them."""
    test, facts = test or curves_of_run(run), run.summary or {}
    seeds = count_text(num_seeds(run), "seed")
    race = ", race" if facts.get("race") and facts.get("suggested_lr") else ""
    result = f"LR range test with {seeds}{race}{_result(facts)}"
    panel, below = range_test_panels(test, facts)
    note = str(facts.get("note") or "")
    return of_run(run, result, [panel], strip=below, caption=note, entries=key(test, facts))


def range_test_loss_picture(run: Run, test: RangeCurves | None = None) -> Picture:
    """Return the same losses over the step."""
    test = test or curves_of_run(run)
    xs = [np.arange(len(curve.lr), dtype=np.float64) for curve in test.curves]
    x = step_axis(max((len(steps) - 1.0 for steps in xs), default=1.0))
    panel = Panel(x, test.y, _curves(test, CURVE, xs), "training loss")
    what = f"training loss of the LR range test, {count_text(num_seeds(run), 'seed')}"
    return of_run(run, what, [panel], entries=key(test, {}))


def overlaid_range_test_picture(runs: Sequence[Run]) -> Picture:
    """Return several range tests, each with its suggestion."""
    tests = [curves_of_run(run) for run in runs]
    marks: Marks = []
    entries = []
    for i, (run, label, test) in enumerate(zip(runs, run_labels(runs), tests, strict=True)):
        marks += _curves(test, look(i))
        lr = (run.summary or {}).get("suggested_lr")
        if lr:
            marks.append(mark("range.suggested", [lr, lr], [0, 1], look(i), "y"))
        note = f"suggests {lr_text(lr)}" if lr else "no suggestion"
        entries.append(Entry("loss.median", label, note, look(i)))
    lows, highs = zip(*map(loss_view, tests), strict=True)
    x = _ramp_axis([curve for test in tests for curve in test.curves])
    y = _loss_axis(min(lows), max(highs))
    panel = Panel(x, y, marks, "loss before each update")
    return of_runs(runs, "LR range test", [panel], entries=entries)


def range_test_panels(test: RangeCurves, facts: Mapping[str, Any]) -> tuple[Panel, Panel | None]:
    """Return the curves with what was found, and the strip where there is something to say.

    Args:
        test: the curves.
        facts: `suggested_lr`, `interval`, `base_lr`, `max_lr`, `rules`, `reason`, where known.
    """
    x, rows = _ramp_axis(test.curves), _rows(facts)
    marks: Marks = []
    if facts.get("base_lr") and facts.get("max_lr"):
        marks.append(Span("range", facts["base_lr"], facts["max_lr"]))
    if facts.get("interval"):
        marks.append(Span("interval", *facts["interval"]))
    marks += _curves(test, CURVE)
    if test.combined is not None and len(test.combined.lr):
        log_lr, smooth = test.combined.log_lr, test.combined.smooth
        for row in rows:
            if row.kind == "rule" and row.lr:
                y = np.interp(np.log10(row.lr), log_lr, smooth)
                marks.append(Mark("range.rule", np.array([row.lr]), np.array([y]), name=row.name))
    lr = facts.get("suggested_lr")
    if lr:
        marks += _suggested(lr, "right" if x.fraction(lr) < 0.3 else "left")  # the blow-up is right
    elif facts.get("reason"):
        text = f"No suggestion. {facts['reason']}"
        marks.append(Note("range.reason", text, 0.5, 0.95, "xy", "center"))
    against = ", less that of the untrained model on the same batch (all begin at their mean)"
    title = f"loss before each update{against if test.is_paired else ''}"
    return Panel(x, test.y, marks, title), _strip(rows, x)


def key(test: RangeCurves, facts: Mapping[str, Any]) -> list[Entry]:
    """Return what a legend says of the curves and of the marked LRs."""
    several = len(test.curves) > 1
    entries = [Entry("range.median", "median, smoothed" if several else "smoothed", look=CURVE)]
    if several:
        entries.append(Entry("band", "lowest to highest seed", look=CURVE))
    entries.append(Entry("range.raw", "raw, each seed" if several else "raw", look=CURVE))
    if facts.get("suggested_lr"):
        entries.append(Entry("suggested", "suggested LR"))
    if facts.get("interval"):
        entries.append(Entry("interval", "its interval"))
    if facts.get("base_lr") and facts.get("max_lr"):
        entries.append(Entry("range", "base to max LR", "for cyclic schedules"))
    return entries


def loss_view(test: RangeCurves) -> View:
    """Return the lowest and highest loss to show: the valley, the start, not the blow-up."""
    raw = [curve.loss[: curve.num_finite] for curve in test.curves if curve.num_finite]
    combined = test.combined
    if not raw or combined is None:
        return 0.0, 1.0
    firsts = np.concatenate([loss[: max(3, len(loss) // 2)] for loss in raw])
    if not len(combined.lr):
        start = float(np.median([loss[0] for loss in raw]))
        return float(firsts.min()), start + max(abs(start), 1e-12)
    lowest = int(np.argmin(combined.smooth))
    until_lowest = float(combined.smooth[: lowest + 1].max())  # there may be a hill on the way
    noise_high = np.percentile(firsts, 99)
    dips = np.percentile(np.concatenate(raw), 2)  # the losses of a seed that goes lower
    low = min(float(combined.smooth[lowest]), float(combined.low.min()), float(dips))
    return low, max(start_level(combined.smooth), until_lowest, min(float(noise_high), OPEN_END))


@dataclass(frozen=True)
class Row:
    """One row of a strip: a mark, a bar, or both."""

    kind: str  # "suggested" | "range" | "rule"
    name: str
    text: str
    low: float
    high: float  # equal to `low` where there is no bar
    lr: float | None  # where the mark stands


def _suggested_row(name: str, facts: Mapping[str, Any]) -> list[Row]:
    lr, interval = facts.get("suggested_lr"), facts.get("interval")
    if not lr:
        return []
    low, high = interval or (lr, lr)
    text = lr_text(lr) + (f"  ({lr_text(low)} to {lr_text(high)})" if interval else "")
    return [Row("suggested", name, text, low, high, lr)]


def _strip(rows: Sequence[Row], x: Axis) -> Panel | None:
    """Return a panel of rows, the first on top, over the same LRs as the panel above it."""
    if not rows:
        return None
    marks: Marks = []
    for y, row in enumerate(rows):
        marks.append(mark("strip.line", [0, 1], [y, y], within="x"))
        if row.high > row.low:
            marks.append(mark(f"strip.{row.kind}_bar", [row.low, row.high], [y, y]))
        if row.lr is not None:
            marks.append(mark(f"strip.{row.kind}", [row.lr], [y]))
        if x.fraction(row.high) + 0.009 * len(row.text) < 0.97:  # there is room for the text
            marks.append(Note(f"strip.{row.kind}", row.text, row.high, y))
        else:
            marks.append(Note(f"strip.{row.kind}", row.text, row.low, y, side="left"))
    names = tuple(shortened(row.name, 20) for row in rows)
    return Panel(x, Axis((len(rows) - 0.4, -0.6), names=names), marks)


def _result(facts: Mapping[str, Any]) -> str:
    """Return what a title says of the answer."""
    if facts.get("suggested_lr"):
        return f" suggests {lr_text(facts['suggested_lr'])}"
    return " gives no suggestion" if facts.get("reason") else ""


def _curves(test: RangeCurves, look: Look, xs: Sequence[Array] | None = None) -> Marks:
    """Return the curves over their LRs, or over `xs`: each seed, then all as one."""
    xs = [curve.lr for curve in test.curves] if xs is None else xs
    marks: Marks = []
    for x, curve in zip(xs, test.curves, strict=True):
        n = curve.num_finite
        marks.append(Mark("range.raw", x[:n], curve.loss[:n], look))
    combined = test.combined
    if combined is None or not len(combined.lr):
        return marks
    x = max(xs, key=len)[: len(combined.lr)]
    if combined.seeds > 1:
        top = np.where(np.isfinite(combined.high), combined.high, OPEN_END)  # a seed has stopped
        marks.append(Band(x, combined.low, top, look))
    return [*marks, Mark("range.median", x, combined.smooth, look)]


def _suggested(lr: float, side: Side) -> Marks:
    note = Note("suggested", f"suggested {lr_text(lr)}", lr, 0.955, "y", side)
    return [mark("suggested", [lr, lr], [0, 1], within="y"), note]


def _rows(facts: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the strip: suggestion, base to max, then the rules in their order."""
    rows = _suggested_row("suggested", facts)
    base, top = facts.get("base_lr"), facts.get("max_lr")
    if base and top:
        text = f"{lr_text(base)} to {lr_text(top)}"
        rows.append(Row("range", "base to max", text, base, top, None))
    rules = (facts.get("rules") or {}).items()
    return rows + [Row("rule", name, lr_text(lr), lr, lr, lr) for name, lr in rules if lr]


def _ramp_axis(curves: Sequence[Curve]) -> Axis:
    """Return an axis of LRs that shows the whole ramp."""
    lrs = np.concatenate([curve.lr for curve in curves]) if curves else np.empty(0)
    low, high = (float(lrs.min()), float(lrs.max())) if len(lrs) else (1e-7, 10.0)
    return lr_axis(low, high, 0.015)


def _loss_axis(low: float, high: float) -> Axis:
    log = wants_log(low, high)
    return value_axis(low, high, 0.06 if log else 0.07, 0.2 if log else 0.3, log=log, flat=0.1)


def race_picture(run: Run) -> Picture:
    """Return the loss after each short training of a race over its LR, and the answer.

    One line per length of training. What ended above where it began has, with one seed, its mark
    at that level. The line of a longer training lies to the left: an arrow shows how far the answer
    is moved down for a full one.
    """
    rungs, facts = trained_rungs(run.trials), run.summary or {}
    total = (facts.get("race") or {}).get("total_steps")
    rows = _race_rows(facts)
    lrs = [lr for raced in rungs for lr in raced.rung.lrs]
    lrs += [end for row in rows for end in (row.low, row.high)]
    x = lr_axis(min(lrs, default=1e-4), max(lrs, default=1.0), 0.1)
    validates = any("val_loss" in trial.evals for trial in run.trials if len(trial.evals["step"]))
    title = f"{'validation loss' if validates else 'training loss'} after a short training"
    return of_run(
        run,
        f"race of learning rates{_result(facts)}",
        [_race_panel(rungs, facts, x, title)],
        strip=_strip(rows, x),
        entries=_race_key(rungs, facts, total),
        legend_title="trained for",
    )


def _race_panel(rungs: Sequence[Raced], facts: Mapping[str, Any], x: Axis, title: str) -> Panel:
    low, high = _race_view(rungs)
    foot = 0.2 if facts.get("suggested_lr") else 0.08
    lr, interval = facts.get("suggested_lr"), facts.get("interval")
    marks: Marks = [Span("interval", *interval)] if interval else []
    marks += _suggested(lr, "left") if lr else []
    if rungs:
        start = float(np.mean(rungs[0].start))
        marks.append(mark("race.start", [0, 1], [start, start], within="x"))
    for i, (its, raced) in enumerate(zip(RUNG_LOOKS, rungs, strict=False)):
        marks += _rung(raced, its, high, halved=i == 0 and len(rungs) > 1)
    if rungs and lr:
        marks += _drift(rungs[-1], RUNG_LOOKS[min(len(rungs), len(RUNG_LOOKS)) - 1], lr, x)
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
    ends = {"kept": kept & ~lost & ~worse, "dropped": ~kept & ~lost & ~worse}
    for kind, which in (ends | {"worse": worse, "diverged": lost}).items():
        if which.any():
            marks.append(mark(f"race.{kind}", lrs[which], shown[which], look))
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


def _race_view(rungs: Sequence[Raced]) -> View:
    """Return the lowest and highest loss to show: none above that before training."""
    seen = [loss for raced in rungs for row in raced.losses for loss in row if math.isfinite(loss)]
    start = [value for raced in rungs for value in raced.start if math.isfinite(value)]
    return (min([*seen, *start]), max(start)) if start else (0.0, 1.0)


def _race_rows(facts: Mapping[str, Any]) -> list[Row]:
    rows = _suggested_row("race", facts) if facts.get("interval") else []
    tested = facts.get("range_test") or {}
    if tested.get("suggested_lr"):
        lr = tested["suggested_lr"]
        low, high = tested.get("interval") or (lr, lr)
        rows.append(Row("rule", "range test", lr_text(lr), low, high, lr))
    return rows


def _race_key(rungs: Sequence[Raced], facts: Mapping[str, Any], total: int | None) -> list[Entry]:
    entries = []
    for its, raced in zip(RUNG_LOOKS, rungs, strict=False):
        rung = raced.rung
        share = f" ({rung.horizon / total:.0%})" if total else ""
        note = f"{count_text(len(rung.lrs), 'LR')}, {count_text(len(rung.seeds), 'seed')}"
        name = f"{count_text(rung.horizon, 'step')}{share}"
        entries.append(Entry("race.mean", name, note, its))
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
