"""What a range test found, marked: on the curve, and in a strip with a row for each rule.

`facts` are those of summary.json: suggested_lr, interval, base_lr, max_lr, rules, reason.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lrexp.finder.curve import CombinedCurve
from lrexp.report.style import ACCENT, GRID, INK, MUTED, NOTE_BOX, drawable, dress
from lrexp.report.text import lr_text

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
