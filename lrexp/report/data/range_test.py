"""What find-lr found over the LR in its range test; trainings of LRs after it: see `tried`.

A panel has the losses and the suggested LR with its interval, and that of a range test the range
for cyclic schedules. In the strip below it each answer has a row of its own, so that rules which
agree never hide each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

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
from lrexp.runs.reader import Run, control_losses, curves_of, others_train

CURVE = Look(0)
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
    result = f"LR range test with {seeds}{race}{result_text(facts)}"
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
        marks += suggested(lr, "right" if x.fraction(lr) < 0.3 else "left")  # the blow-up is right
    elif facts.get("reason"):
        text = f"No suggestion. {facts['reason']}"
        marks.append(Note("range.reason", text, 0.5, 0.95, "xy", "center"))
    against = ", less that of the untrained model on the same batch (all begin at their mean)"
    title = f"loss before each update{against if test.is_paired else ''}"
    return Panel(x, test.y, marks, title), strip(rows, x)


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


def suggested_row(name: str, facts: Mapping[str, Any]) -> list[Row]:
    """Return the row of the suggested LR; none where there is none."""
    lr, interval = facts.get("suggested_lr"), facts.get("interval")
    if not lr:
        return []
    low, high = interval or (lr, lr)
    text = lr_text(lr) + (f"  ({lr_text(low)} to {lr_text(high)})" if interval else "")
    return [Row("suggested", name, text, low, high, lr)]


def strip(rows: Sequence[Row], x: Axis) -> Panel | None:
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


def result_text(facts: Mapping[str, Any]) -> str:
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


def suggested(lr: float, side: Side) -> Marks:
    """Return the line of the suggested LR, and its note."""
    note = Note("suggested", f"suggested {lr_text(lr)}", lr, 0.955, "y", side)
    return [mark("suggested", [lr, lr], [0, 1], within="y"), note]


def _rows(facts: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the strip: suggestion, base to max, then the rules in their order."""
    rows = suggested_row("suggested", facts)
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
