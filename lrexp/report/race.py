"""The picture of a race: the loss after each short training over its LR, and the answer.

One line per length of training. Where the better half was trained for longer, what dropped out is
hollow. What ended above where it began is a triangle, with one seed at that level; what diverged
is a cross. The line of a longer training lies to the left: the arrow shows how far the answer is
moved down for a full one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lrexp.analysis.race import Raced, position, survivors
from lrexp.report.figure import Entry, Heading, finish, new_figure
from lrexp.report.range_test import Row, draw_strip
from lrexp.report.style import (
    ACCENT,
    COLORS,
    INK,
    MUTED,
    NOTE_BOX,
    Mark,
    dress,
    log_limits,
    lr_axis,
    number_axis,
    panel_title,
    wants_log,
)
from lrexp.report.text import count_text, lr_text, run_subtitle, shortened
from lrexp.runs.reader import Run, trained_rungs

ARROW = 0.05  # of the axis: where the way from the basin to the answer is drawn
LOOKS = (Mark(COLORS[0], "-"), Mark(COLORS[2], "-"), Mark(COLORS[6], "-"))


def race_figure(run: Run) -> Figure:
    """Return the sheet of a race."""
    rungs, facts = trained_rungs(run.trials), run.summary or {}
    total = (facts.get("race") or {}).get("total_steps")
    figure = new_figure()
    rows = _rows(facts)
    if rows:
        panels = figure.subplots(2, 1, sharex=True, height_ratios=(10, 0.6 + 0.5 * len(rows)))
        upper, lower = panels[0], panels[1]
    else:
        upper, lower = figure.subplots(), None
    _draw(upper, rungs, facts)
    if lower is not None:
        draw_strip(lower, rows)
        lower.set_xlabel("learning rate")
        upper.set_xlabel("")
        upper.tick_params(labelbottom=False)
    measure = "validation loss" if _validates(run) else "training loss"
    panel_title(upper, f"{measure} after a short training")
    heading = Heading(_title(run, facts), run_subtitle(run), source=run.path.name)
    finish(figure, heading, _entries(rungs, facts, total), "trained for")
    return figure


def _draw(ax: Axes, rungs: Sequence[Raced], facts: Mapping[str, Any]) -> None:
    dress(ax)
    low, high = _view(rungs)
    log = wants_log(low, high)
    room = (high - low) or abs(high) or 1.0
    foot, head = (0.2 if facts.get("suggested_lr") else 0.08), 0.16
    limits = log_limits(low, high, foot, head) if log else (low - foot * room, high + head * room)
    ax.set_xscale("log")
    ax.set_ylim(*limits)
    _draw_answer(ax, facts)
    if rungs:
        start = float(np.mean(rungs[0].start))
        ax.axhline(start, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
    for i, (look, raced) in enumerate(zip(LOOKS, rungs, strict=False)):
        _draw_rung(ax, raced, look, high, halved=i == 0 and len(rungs) > 1)
    ax.set_xlim(*_lr_limits(rungs, facts))
    number_axis(ax, "y", log=log)
    lr_axis(ax, "x", log=True)
    ax.set_xlabel("learning rate")
    if rungs:
        _draw_drift(ax, rungs[-1], LOOKS[min(len(rungs), len(LOOKS)) - 1], facts)


def _draw_rung(ax: Axes, raced: Raced, look: Mark, top: float, *, halved: bool) -> None:
    lrs = np.array(raced.rung.lrs)
    losses = np.array(raced.losses)  # (lrs, seeds)
    mean = np.minimum(losses, np.array(raced.start)).mean(axis=1)
    lost = ~np.isfinite(losses).all(axis=1)
    worse = _worse(raced)
    alive = np.minimum(mean, top)
    ax.plot(lrs, alive, color=look.color, linewidth=1.6, alpha=0.5, zorder=2)
    if losses.shape[1] > 1:
        for column in losses.T:
            seen = np.isfinite(column)
            ax.plot(lrs[seen], column[seen], ".", color=look.color, alpha=0.45, zorder=2)
    stays = survivors(raced) if halved else raced.rung.lrs
    kept = np.array([lr in stays for lr in raced.rung.lrs])
    for which, face, marker in (
        (kept & ~lost & ~worse, look.color, "o"),
        (~kept & ~lost & ~worse, "white", "o"),
        (worse, "white", "^"),
    ):
        ax.plot(
            lrs[which], alive[which], marker, markersize=10, color=look.color, zorder=4,
            markerfacecolor=face, markeredgewidth=2,
        )  # fmt: skip
    ax.plot(
        lrs[lost], alive[lost], "X", markersize=11, color=look.color, markeredgecolor="white",
        linestyle="none", zorder=4,
    )  # fmt: skip


def _worse(raced: Raced) -> np.ndarray:
    """Return which LRs ended, without diverging, above where they began on average, (lrs,)."""
    ended = np.array(raced.losses).mean(axis=1)
    return np.asarray(np.isfinite(ended) & (ended > float(np.mean(raced.start))))


def _draw_answer(ax: Axes, facts: Mapping[str, Any]) -> None:
    lr, interval = facts.get("suggested_lr"), facts.get("interval")
    if interval:
        ax.axvspan(*interval, color=ACCENT, alpha=0.18, linewidth=0, zorder=0.5)
    if not lr:
        return
    ax.axvline(lr, color=ACCENT, linewidth=2, zorder=3)
    ax.annotate(
        f"suggested {lr_text(lr)}", (lr, 0.955), xycoords=("data", "axes fraction"),
        xytext=(-9, 0), textcoords="offset points", ha="right", va="center", color=ACCENT,
        fontsize=12, fontweight="bold", bbox=NOTE_BOX, zorder=5,
    )  # fmt: skip


def _draw_drift(ax: Axes, raced: Raced, look: Mark, facts: Mapping[str, Any]) -> None:
    """Draw the way from the middle of the longest trainings' basin to the answer."""
    lr = facts.get("suggested_lr")
    if not lr:
        return
    middle = 10 ** position(raced.rung.lrs, raced.start, raced.losses)
    if middle < 1.1 * lr:
        return
    ax.annotate(
        "", (lr, ARROW), (middle, ARROW), xycoords=("data", "axes fraction"), zorder=5,
        arrowprops={"arrowstyle": "-|>", "color": look.color, "linewidth": 1.8,
                    "shrinkA": 0, "shrinkB": 3, "mutation_scale": 16},
    )  # fmt: skip
    left, right = np.log10(ax.get_xlim())
    has_room = (math.log10(middle) - left) / (right - left) < 0.7
    ax.plot([middle], [ARROW], "|", markersize=16, markeredgewidth=2, color=look.color,
            transform=ax.get_xaxis_transform(), zorder=5)  # fmt: skip
    ax.annotate(
        "the full training needs less", (middle, ARROW), xycoords=("data", "axes fraction"),
        xytext=(9 if has_room else -9, 0 if has_room else 14), textcoords="offset points",
        ha="left" if has_room else "right", va="center", fontsize=9.5, color=INK,
        bbox=NOTE_BOX, zorder=5,
    )  # fmt: skip


def _view(rungs: Sequence[Raced]) -> tuple[float, float]:
    """Return the lowest and highest loss to show: none above that before training."""
    seen = [loss for raced in rungs for row in raced.losses for loss in row if math.isfinite(loss)]
    start = [value for raced in rungs for value in raced.start if math.isfinite(value)]
    if not start:
        return (0.0, 1.0)
    return min([*seen, *start]), max(start)


def _lr_limits(rungs: Sequence[Raced], facts: Mapping[str, Any]) -> tuple[float, float]:
    lrs = [lr for raced in rungs for lr in raced.rung.lrs]
    lrs += [row.low for row in _rows(facts)] + [row.high for row in _rows(facts)]
    return log_limits(min(lrs, default=1e-4), max(lrs, default=1.0), 0.1, 0.1)


def _rows(facts: Mapping[str, Any]) -> list[Row]:
    rows = []
    lr, interval = facts.get("suggested_lr"), facts.get("interval")
    if lr and interval:
        text = f"{lr_text(lr)}  ({lr_text(interval[0])} to {lr_text(interval[1])})"
        rows.append(Row("race", text, interval[0], interval[1], lr, "|", ACCENT, ACCENT))
    tested = facts.get("range_test") or {}
    if tested.get("suggested_lr"):
        lr = tested["suggested_lr"]
        low, high = tested.get("interval") or (lr, lr)
        rows.append(Row("range test", lr_text(lr), low, high, lr, "o", INK, "#8F8768"))
    return rows


def _entries(rungs: Sequence[Raced], facts: Mapping[str, Any], total: int | None) -> list[Entry]:
    entries = []
    for look, raced in zip(LOOKS, rungs, strict=False):
        share = f" ({raced.rung.horizon / total:.0%})" if total else ""
        note = (
            f"{count_text(len(raced.rung.lrs), 'LR')}, {count_text(len(raced.rung.seeds), 'seed')}"
        )
        line = Line2D([], [], color=look.color, lw=1.6, marker="o", markersize=8)
        entries.append(Entry(line, f"{count_text(raced.rung.horizon, 'step')}{share}", note))
    if rungs:
        hollow = Line2D(
            [], [], color=MUTED, markerfacecolor="white", marker="o", markersize=8,
            linestyle="none", markeredgewidth=1.8,
        )  # fmt: skip
        if len(rungs) > 1:
            entries.append(Entry(hollow, "the half that dropped out"))
        if any(_worse(raced).any() for raced in rungs):
            triangle = Line2D(
                [], [], color=MUTED, markerfacecolor="white", marker="^", markersize=8,
                linestyle="none", markeredgewidth=1.8,
            )  # fmt: skip
            entries.append(Entry(triangle, "ended above its start"))
        if any(not math.isfinite(x) for raced in rungs for row in raced.losses for x in row):
            cross = Line2D([], [], color=MUTED, marker="X", markersize=9, linestyle="none")
            entries.append(Entry(cross, "diverged"))
        dotted = Line2D([], [], color=MUTED, lw=1, linestyle=(0, (2, 3)))
        entries.append(Entry(dotted, "before training"))
    if facts.get("suggested_lr"):
        entries.append(Entry(Line2D([], [], color=ACCENT, lw=2), "suggested LR"))
    if facts.get("interval"):
        entries.append(Entry(Patch(color=ACCENT, alpha=0.18, lw=0), "probably as good"))
    return entries


def _title(run: Run, facts: Mapping[str, Any]) -> str:
    start = f"{shortened(run.name, 48)}: race of learning rates"
    if facts.get("suggested_lr"):
        return f"{start} suggests {lr_text(facts['suggested_lr'])}"
    return f"{start} gives no suggestion" if facts.get("reason") else start


def _validates(run: Run) -> bool:
    return any("val_loss" in trial.evals for trial in run.trials if len(trial.evals["step"]))
