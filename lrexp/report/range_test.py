"""The picture of a range test: the loss over the LR, and what each rule reads off it.

The upper panel has the curves, the suggested LR with its interval, and the range for cyclic
schedules. Below it each rule has a row of its own, so that rules which agree never hide each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lrexp.finder.curve import Curve
from lrexp.report.figure import Entry, Heading, finish, new_figure
from lrexp.report.range_curve import (
    CURVE,
    draw_curves,
    loss_title,
    loss_view,
    run_curves,
    set_lr_limits,
    set_view,
)
from lrexp.report.range_marks import (
    RANGE,
    draw_ranges,
    draw_rules,
    draw_strip,
    draw_suggestion,
    strip_rows,
)
from lrexp.report.style import ACCENT, dress, pad_x, panel_title, step_axis
from lrexp.report.text import count_text, lr_text, shortened
from lrexp.report.words import run_subtitle, seeds_of
from lrexp.store.read import Run


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
