"""The picture of final values over the LR: every seed, their mean, the basin of good LRs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lrexp.report.figure import Entry, Heading, finish, new_figure
from lrexp.report.style import (
    MUTED,
    NOTE_BOX,
    Mark,
    dress,
    log_limits,
    lr_axis,
    mark,
    number_axis,
    panel_title,
    wants_log,
)
from lrexp.report.text import (
    count_text,
    lr_text,
    measure_text,
    number_text,
    run_subtitle,
    setting_text,
    shortened,
)
from lrexp.runs.reader import Run

MAX_CURVES = 8  # as many as there are colours; those with the best LRs are drawn
BLOW_UP = 0.15  # above the values before training, as a share of the way down: still in view


def sensitivity_figure(run: Run) -> Figure:
    """Return the sheet of the final metric over the LR, one line for each setting beside the LR."""
    summary = run.summary or {}
    direction = str(summary["direction"])
    curves = _best_first(summary["lr_sensitivity"], direction)[:MAX_CURVES]
    figure = new_figure()
    ax = figure.subplots()
    dress(ax)
    _set_axes(ax, curves, direction)
    for i, curve in enumerate(curves):
        _draw(ax, curve, mark(i), len(curves), i, worst_on_top=direction == "min")
    _draw_start(ax, curves)
    what = measure_text(str(summary["metric"]))
    ax.set_xlabel("learning rate (base LR)")
    panel_title(ax, f"{what} at the end")
    heading = Heading(
        title=f"{shortened(run.name, 48)}: {what} over the learning rate, {_seeds(summary)}",
        subtitle=run_subtitle(run),
        caption=_caption(len(curves), len(summary["lr_sensitivity"])),
        source=run.path.name,
    )
    entries = [
        Entry(_handle(mark(i)), _name(c, len(curves)), _note(c)) for i, c in enumerate(curves)
    ]
    title = "all but the LR" if len(curves) > 1 else ""
    finish(figure, heading, [*entries, *_key(curves)], title)
    return figure


def _best_first(curves: Sequence[Mapping[str, Any]], direction: str) -> list[Mapping[str, Any]]:
    sign = 1.0 if direction == "min" else -1.0

    def best(curve: Mapping[str, Any]) -> float:
        return min((sign * m for m in curve["means"] if m is not None), default=np.inf)

    return sorted(curves, key=best)


def _set_axes(ax: Axes, curves: Sequence[Mapping[str, Any]], direction: str) -> None:
    """Show all LRs, and all values but for those far worse than before training."""
    lrs = [lr for curve in curves for lr in curve["lrs"]]
    ax.set_xscale("log")
    ax.set_xlim(*log_limits(min(lrs), max(lrs), 0.06, 0.06))
    lr_axis(ax, "x", log=True)
    values = [v for curve in curves for row in curve["values"] for v in row if v is not None]
    starts = [curve["initial"] for curve in curves if curve["initial"] is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if starts and direction == "min":
        high = max(starts) + BLOW_UP * abs(max(starts) - low)
        high = min(high, max([*values, *starts], default=high))
    elif starts:
        low = max(low, min(starts) - BLOW_UP * abs(high - min(starts)))
    if wants_log(low, high):
        ax.set_ylim(*log_limits(low, high, 0.06, 0.12))
    else:
        span = (high - low) or abs(high) or 1.0
        ax.set_ylim(low - 0.06 * span, high + 0.12 * span)
    number_axis(ax, "y", log=wants_log(low, high))


def _draw(
    ax: Axes,
    curve: Mapping[str, Any],
    look: Mark,
    num_curves: int,
    index: int,
    *,
    worst_on_top: bool,
) -> None:
    """Draw one curve: seeds as dots, the mean as a line, the basin, crosses where seeds diverged.

    Curves stand a little apart, so that the dots of one do not hide those of another.
    """
    shift = 1.02 ** (index - (num_curves - 1) / 2)
    basin = curve["basin"]
    if basin is not None and num_curves == 1:
        ax.axvspan(basin["low"], basin["high"], color=look.color, alpha=0.13, linewidth=0, zorder=0)
    elif basin is not None:  # bars at the bottom: areas would cover each other
        height = 0.012 + 0.014 * index
        height = height if worst_on_top else 1 - height
        ax.plot(
            [basin["low"], basin["high"]], [height] * 2, transform=ax.get_xaxis_transform(),
            color=look.color, linewidth=4, alpha=0.6, solid_capstyle="butt", zorder=2,
        )  # fmt: skip
    means = np.array([np.nan if mean is None else mean for mean in curve["means"]])
    ax.plot(
        curve["lrs"], means, color=look.color, linewidth=2.2, marker="o", markersize=3.5, zorder=3
    )
    low, high = ax.get_ylim()
    edge = 0.965 - 0.04 * index if worst_on_top else 0.035 + 0.04 * index
    for lr, values, lost in zip(curve["lrs"], curve["values"], curve["diverged"], strict=True):
        seeds = np.array([v for v in values if v is not None])
        inside = seeds[(seeds >= low) & (seeds <= high)]
        ax.plot(
            np.full(len(inside), lr * shift), inside, linestyle="none", marker="o", markersize=6.5,
            color=look.color, alpha=0.3, markeredgewidth=0, zorder=2.5,
        )  # fmt: skip
        _mark_lost(ax, (lr, edge), (lost, len(seeds) - len(inside), len(values)), look)
    best = curve["best_lr"]
    if best is not None:
        at = curve["means"][curve["lrs"].index(best)]
        ax.plot(
            [best], [at], marker="o", markersize=11, markerfacecolor="none", linestyle="none",
            markeredgecolor=look.color, markeredgewidth=1.8, zorder=4,
        )  # fmt: skip


def _mark_lost(
    ax: Axes, place: tuple[float, float], counts: tuple[int, int, int], look: Mark
) -> None:
    """Mark at the edge how many seeds diverged at an LR, or ended outside of the picture."""
    diverged, outside, total = counts
    if not diverged and not outside:
        return
    across = ax.get_xaxis_transform()
    ax.plot(
        *([x] for x in place), transform=across, marker="X" if diverged else "d", markersize=9,
        color=look.color, markeredgecolor="white", linestyle="none", clip_on=False, zorder=6,
    )  # fmt: skip
    ax.annotate(
        f"{diverged or outside} of {total}" + ("" if diverged else " beyond"), place,
        xycoords=across, xytext=(8, 0), textcoords="offset points", va="center", fontsize=8.5,
        color=MUTED, bbox=NOTE_BOX, zorder=5,
    )  # fmt: skip


def _draw_start(ax: Axes, curves: Sequence[Mapping[str, Any]]) -> None:
    """Draw the value before training, where it is in view and one for all."""
    starts = {round(c["initial"], 9) for c in curves if c["initial"] is not None}
    if len(starts) != 1:
        return
    [start] = starts
    low, high = ax.get_ylim()
    if low < start < high:
        ax.axhline(start, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        ax.annotate(
            "before training", (0.995, start), xycoords=("axes fraction", "data"), xytext=(0, 4),
            textcoords="offset points", ha="right", fontsize=9, color=MUTED,
        )  # fmt: skip


def _handle(look: Mark) -> Line2D:
    return Line2D([], [], color=look.color, linewidth=2.2, marker="o", markersize=3.5)


def _name(curve: Mapping[str, Any], num_curves: int) -> str:
    if num_curves == 1:
        return "mean of the seeds"
    settings = ", ".join(setting_text(k, v) for k, v in curve["settings"].items())
    return settings or "nothing else changed"


def _note(curve: Mapping[str, Any]) -> str:
    """Return the best LR, and how wide the basin around it is."""
    if curve["best_lr"] is None:
        return "no LR without divergence"
    text = f"best {lr_text(curve['best_lr'])}"
    basin = curve["basin"]
    if basin is None:
        return f"{text}, none below its start"
    least = "≥ " if basin["open_low"] or basin["open_high"] else ""
    return f"{text}, good over {least}{number_text(basin['decades'], 2)} decades"


def _key(curves: Sequence[Mapping[str, Any]]) -> list[Entry]:
    dot = Line2D([], [], marker="o", markersize=6.5, color=MUTED, alpha=0.45, linestyle="none")
    ring = Line2D(
        [], [], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=MUTED,
        linestyle="none",
    )  # fmt: skip
    entries = [Entry(dot, "each seed"), Entry(ring, "best LR")]
    if any(curve["basin"] for curve in curves):
        alone = len(curves) == 1
        patch = Patch(color=mark(0).color if alone else MUTED, alpha=0.13 if alone else 0.6, lw=0)
        entries.append(Entry(patch, "basin: within 5 %", "of the way to the best"))
    if any(count for curve in curves for count in curve["diverged"]):
        cross = Line2D([], [], marker="X", markersize=9, color=MUTED, linestyle="none")
        entries.append(Entry(cross, "seeds diverged", "no mean, no part of the basin"))
    return entries


def _seeds(summary: Mapping[str, Any]) -> str:
    return count_text(len(summary["seeds"]), "seed")


def _caption(drawn: int, found: int) -> str:
    left_out = f" The {drawn} best of {found} settings." if drawn < found else ""
    return (
        "Between two LRs the basin's edge is interpolated in log LR; next to an LR with diverged "
        f"seeds it ends at the last good one.{left_out}"
    )
