"""The picture of a range test: the loss over the LR, and what each rule reads off it.

The upper panel has the curves, the suggested LR with its interval, and the range for cyclic
schedules. Below it each rule has a row of its own, so that rules which agree never hide each other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lrexp.analysis.range_curve import CombinedCurve, Curve, combine, start_level
from lrexp.analysis.signal import closer_look
from lrexp.report.curves import Array, outcome
from lrexp.report.figure import Entry, Heading, finish, new_figure
from lrexp.report.style import (
    ACCENT,
    COLORS,
    GRID,
    INK,
    MUTED,
    NOTE_BOX,
    Mark,
    drawable,
    dress,
    log_limits,
    lr_axis,
    number_axis,
    pad_x,
    panel_title,
    step_axis,
    wants_log,
)
from lrexp.report.text import count_text, lr_text, run_subtitle, seeds_of, shortened
from lrexp.runs.reader import RANGE_TEST, Run, curves_of, untrained_losses

CURVE = Mark(COLORS[0], "-")
OPEN_END = float(np.finfo(np.float32).max)  # as far up as any picture goes


def run_curves(run: Run) -> list[Curve]:
    """Return the curves of the seeds that have ended; where none has, of the one that goes on.

    One that failed is neither: it would end as one does whose loss has left the picture.
    After a second look they are those in which the fall was looked for.
    """
    tests = [trial for trial in run.trials if trial.variant == RANGE_TEST]
    begun = [trial for trial in tests if len(trial.steps["lr"]) and outcome(trial) != "failed"]
    ended = [trial for trial in begun if outcome(trial) != "open"]
    curves = curves_of(ended or begun[:1])
    return closer_look(curves, untrained_losses(run, ended)) or curves


def loss_title(run: Run) -> str:
    """Return what the curves of a range test are of."""
    tests = [trial for trial in run.trials if trial.variant == RANGE_TEST]
    is_closer = closer_look(curves_of(tests), untrained_losses(run, tests)) is not None
    against = ", less that of the untrained model on the same batch (all begin at their mean)"
    return f"loss before each update{against if is_closer else ''}"


def draw_curves(
    ax: Axes, curves: Sequence[Curve], look: Mark = CURVE, xs: Sequence[Array] | None = None
) -> CombinedCurve | None:
    """Draw the curves over their LRs, or over `xs`; return them as one, or None without any."""
    xs = [curve.lr for curve in curves] if xs is None else xs
    for x, curve in zip(xs, curves, strict=True):
        n = curve.num_finite
        ax.plot(x[:n], curve.loss[:n], color=look.color, alpha=0.35, linewidth=0.8)
    combined = combine(curves) if curves else None
    if combined is None or not len(combined.lr):
        return None
    x = max(xs, key=len)[: len(combined.lr)]
    if combined.seeds > 1:
        top = np.where(np.isfinite(combined.high), combined.high, OPEN_END)  # a seed has stopped
        ax.fill_between(x, combined.low, top, color=look.color, alpha=0.16, linewidth=0)
    ax.plot(
        x, combined.smooth, color=look.color, linestyle=look.dashes, linewidth=2.4,
        marker="o" if len(x) == 1 else None,
    )  # fmt: skip
    return combined


def loss_view(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the lowest and highest loss to show: the valley, the start, not the blow-up."""
    raw = [curve.loss[: curve.num_finite] for curve in curves if curve.num_finite]
    if not raw:
        return 0.0, 1.0
    firsts = np.concatenate([loss[: max(3, len(loss) // 2)] for loss in raw])
    combined = combine(curves)
    if not len(combined.lr):
        start = float(np.median([loss[0] for loss in raw]))
        return float(firsts.min()), start + max(abs(start), 1e-12)
    lowest = int(np.argmin(combined.smooth))
    until_lowest = float(combined.smooth[: lowest + 1].max())  # there may be a hill on the way
    noise_high = np.percentile(firsts, 99)
    dips = np.percentile(np.concatenate(raw), 2)  # the losses of a seed that goes lower
    low = min(float(combined.smooth[lowest]), float(combined.low.min()), float(dips))
    return low, max(start_level(combined.smooth), until_lowest, min(float(noise_high), OPEN_END))


def set_view(ax: Axes, low: float, high: float) -> None:
    """Set the y axis to these losses, with some of the blow-up above them."""
    if wants_log(low, high):
        ax.set_ylim(*log_limits(low, high, 0.06, 0.2))
    else:
        room = (high - low) or 0.1 * abs(high) or 1.0
        ax.set_ylim(low - 0.07 * room, high + 0.3 * room)
    number_axis(ax, "y", log=wants_log(low, high))


def set_lr_limits(ax: Axes, curves: Sequence[Curve]) -> None:
    """Make the x axis one of log LR that shows the whole ramp."""
    lrs = np.concatenate([curve.lr for curve in curves]) if curves else np.empty(0)
    low, high = (float(lrs.min()), float(lrs.max())) if len(lrs) else (1e-7, 10.0)
    ax.set_xscale("log")
    ax.set_xlim(*log_limits(low, high, 0.015, 0.015))
    lr_axis(ax, "x", log=True)
    ax.set_xlabel("learning rate")


RANGE = "#E6E1D3"  # of the LRs between base and max
RULE_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Row:
    """One row of the strip: a mark, a bar, or both."""

    name: str
    text: str
    low: float
    high: float  # equal to `low` where there is no bar
    lr: float | None  # where the mark stands
    marker: str
    color: str
    bar_color: str


def draw_ranges(ax: Axes, facts: Mapping[str, Any]) -> None:
    """Shade the range from base to max LR, and the interval of the suggestion."""
    if facts.get("base_lr") and facts.get("max_lr"):
        ax.axvspan(facts["base_lr"], facts["max_lr"], color=RANGE, alpha=0.7, linewidth=0, zorder=0)
    if facts.get("interval"):
        ax.axvspan(*facts["interval"], color=ACCENT, alpha=0.18, linewidth=0, zorder=0.5)


def draw_suggestion(ax: Axes, facts: Mapping[str, Any]) -> None:
    """Draw the suggested LR, or write why there is none."""
    lr = facts.get("suggested_lr")
    if lr:
        ax.axvline(lr, color=ACCENT, linewidth=2, zorder=3)
        on_the_left = _position(ax, lr) < 0.3  # right of it the blow-up may be in the way
        ax.annotate(
            f"suggested {lr_text(lr)}", (lr, 0.955), xycoords=("data", "axes fraction"),
            xytext=(9 if on_the_left else -9, 0), textcoords="offset points",
            ha="left" if on_the_left else "right", va="center", color=ACCENT, fontsize=12,
            fontweight="bold", bbox=NOTE_BOX, zorder=5,
        )  # fmt: skip
    elif facts.get("reason"):
        reason = drawable(f"No suggestion. {facts['reason']}", 600)
        ax.text(
            0.5, 0.95, "\n".join(textwrap.wrap(reason, 70)), transform=ax.transAxes,
            ha="center", va="top", fontsize=11.5, color=INK, parse_math=False, linespacing=1.5,
            bbox={"boxstyle": "round,pad=0.7", "facecolor": "white", "edgecolor": ACCENT}, zorder=5,
        )  # fmt: skip


def draw_rules(ax: Axes, facts: Mapping[str, Any], curve: CombinedCurve | None) -> None:
    """Mark on the curve what each rule suggests."""
    if curve is None:
        return
    for row in strip_rows(facts):
        if row.lr is not None and row.color != ACCENT:
            ax.plot(
                [row.lr], [np.interp(np.log10(row.lr), curve.log_lr, curve.smooth)],
                marker=row.marker, markersize=7, color=INK, markerfacecolor="white",
                markeredgewidth=1.3, linestyle="none", label=row.name, zorder=4,
            )  # fmt: skip


def strip_rows(facts: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the strip: suggestion, base to max, then the rules in their order."""
    rows = []
    lr, interval = facts.get("suggested_lr"), facts.get("interval")
    if lr:
        low, high = interval or (lr, lr)
        text = lr_text(lr) + (f"  ({lr_text(low)} to {lr_text(high)})" if interval else "")
        rows.append(Row("suggested", text, low, high, lr, "|", ACCENT, ACCENT))
    base, top = facts.get("base_lr"), facts.get("max_lr")
    if base and top:
        text = f"{lr_text(base)} to {lr_text(top)}"
        rows.append(Row("base to max", text, base, top, None, "", INK, "#8F8768"))
    rules = [(name, rule_lr) for name, rule_lr in (facts.get("rules") or {}).items() if rule_lr]
    for i, (name, rule_lr) in enumerate(rules):
        marker = RULE_MARKERS[i % len(RULE_MARKERS)]
        rows.append(Row(name, lr_text(rule_lr), rule_lr, rule_lr, rule_lr, marker, INK, INK))
    return rows


def draw_strip(ax: Axes, rows: list[Row]) -> None:
    """Draw the rows on an axis that shares the LRs of the curve above."""
    dress(ax)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_yticks(
        range(len(rows)), [drawable(row.name, 20) for row in rows], fontsize=9.5, parse_math=False
    )
    ax.set_ylim(len(rows) - 0.4, -0.6)
    for y, row in enumerate(rows):
        is_suggestion = row.color == ACCENT
        ax.axhline(y, color=GRID, linewidth=0.8, zorder=0)
        if row.high > row.low:
            ax.plot(
                [row.low, row.high], [y, y], color=row.bar_color, linewidth=7, alpha=0.35,
                solid_capstyle="butt",
            )  # fmt: skip
        if row.lr is not None:
            ax.plot(
                [row.lr], [y], marker=row.marker, markersize=13 if is_suggestion else 6,
                color=row.color, markerfacecolor="white", linestyle="none",
                markeredgewidth=2.4 if is_suggestion else 1.3,
            )  # fmt: skip
        on_the_left = _position(ax, row.high) + 0.009 * len(row.text) < 0.97
        ax.annotate(
            row.text, (row.high if on_the_left else row.low, y),
            xytext=(9 if on_the_left else -9, 0), textcoords="offset points",
            ha="left" if on_the_left else "right", va="center", fontsize=9.5,
            color=row.color if is_suggestion or row.lr else MUTED,
            fontweight="bold" if is_suggestion else "normal",
        )  # fmt: skip


def _position(ax: Axes, lr: float) -> float:
    """Return where an LR stands, as a fraction of the axis."""
    low, high = np.log10(ax.get_xlim())
    return float((np.log10(lr) - low) / (high - low))


def range_test_figure(run: Run) -> Figure:
    """Return the sheet of a range test."""
    curves, facts = run_curves(run), run.summary or {}
    figure = new_figure()
    upper = draw_with_strip(figure, curves, facts)
    panel_title(upper, loss_title(run))
    seeds = count_text(len(seeds_of(run)), "seed")
    result = f"LR range test with {seeds}"
    if facts.get("race") and facts.get("suggested_lr"):
        result += f", race suggests {lr_text(facts['suggested_lr'])}"
    elif facts.get("suggested_lr"):
        result += f" suggests {lr_text(facts['suggested_lr'])}"
    elif facts.get("reason"):
        result += " gives no suggestion"
    title = f"{shortened(run.name, 48)}: {result}"
    note = str(facts.get("note") or "")
    heading = Heading(title, run_subtitle(run), caption=note, source=run.path.name)
    finish(figure, heading, key_entries(len(curves), facts))
    return figure


def range_test_loss_figure(run: Run) -> Figure:
    """Return the sheet of the same losses over the step."""
    curves = run_curves(run)
    figure = new_figure()
    ax = figure.subplots()
    dress(ax)
    draw_curves(ax, curves, xs=[np.arange(len(c.lr), dtype=np.float64) for c in curves])
    pad_x(ax, 0, max((len(c.lr) - 1 for c in curves), default=1))
    set_view(ax, *loss_view(curves))
    step_axis(ax)
    panel_title(ax, "training loss")
    seeds = count_text(len(seeds_of(run)), "seed")
    title = f"{shortened(run.name, 48)}: training loss of the LR range test, {seeds}"
    heading = Heading(title, run_subtitle(run), source=run.path.name)
    finish(figure, heading, key_entries(len(curves), {}))
    return figure


def key_entries(seeds: int, facts: Mapping[str, Any]) -> list[Entry]:
    """Return what a legend says of the curves and of the marked LRs."""
    color = CURVE.color
    strong = Line2D([], [], color=color, lw=2.4)
    faint = Line2D([], [], color=color, alpha=0.5, lw=1)
    entries = [Entry(strong, "median, smoothed" if seeds > 1 else "smoothed")]
    if seeds > 1:
        entries.append(Entry(Patch(color=color, alpha=0.16, lw=0), "lowest to highest seed"))
    entries.append(Entry(faint, "raw, each seed" if seeds > 1 else "raw"))
    if facts.get("suggested_lr"):
        entries.append(Entry(Line2D([], [], color=ACCENT, lw=2), "suggested LR"))
    if facts.get("interval"):
        entries.append(Entry(Patch(color=ACCENT, alpha=0.18, lw=0), "its interval"))
    if facts.get("base_lr") and facts.get("max_lr"):
        entries.append(Entry(Patch(color=RANGE, lw=0), "base to max LR", "for cyclic schedules"))
    return entries


def draw_with_strip(figure: Figure, curves: Sequence[Curve], facts: Mapping[str, Any]) -> Axes:
    """Draw the curves, below them the strip where there is something to say; return the former."""
    rows = strip_rows(facts)
    if not rows:
        ax = figure.subplots()
        draw_range_test(ax, curves, facts)
        return ax
    ratios = (10, 0.6 + 0.5 * len(rows))
    panels = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
    upper: Axes = panels[0]
    lower: Axes = panels[1]
    draw_range_test(upper, curves, facts)
    draw_strip(lower, rows)
    lower.set_xlabel("learning rate")
    upper.set_xlabel("")
    upper.tick_params(labelbottom=False)
    return upper


def draw_range_test(ax: Axes, curves: Sequence[Curve], facts: Mapping[str, Any]) -> None:
    """Draw the curves over log LR with what was found marked on them."""
    dress(ax)
    draw_ranges(ax, facts)
    combined = draw_curves(ax, curves)
    set_lr_limits(ax, curves)
    set_view(ax, *loss_view(curves))
    draw_rules(ax, facts, combined)
    draw_suggestion(ax, facts)
