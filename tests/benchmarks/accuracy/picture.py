"""The picture of the accuracy benchmark: every contender's regrets, a dot for each cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from accuracy.scores import Row

COLOURS = {
    "SGD": "#0072B2", "Adam": "#E69F00", "AdamW": "#009E73",
    "RMSprop": "#CC79A7", "SGD plain": "#56B4E9",
}  # fmt: skip  # told apart by everybody
LINEAR_TO = 0.05  # the axis is linear up to here: the goal is at its end


def draw(rows: Sequence[Row], title: str, file: Path) -> None:
    """Draw and save the picture, the contender with the lowest mean regret on top."""
    style = {"font.family": "sans-serif", "font.size": 10, "axes.axisbelow": True}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9, 1.6 + 0.42 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for place, row in enumerate(rows):
            _strip(ax, place, row)
        _axes(ax, rows)
        ax.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=30)
        _legend(ax, {score.cell.optimizer for row in rows for score in row.scores})
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150)


def draw_seconds(rows: Sequence[Row], title: str, file: Path) -> None:
    """Draw and save mean and worst regret over the seconds that an answer takes."""
    with mpl.rc_context({"font.family": "sans-serif", "font.size": 10, "axes.axisbelow": True}):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        ax = figure.subplots()
        for row in (row for row in rows if row.seconds > 0):
            colour = "#D55E00" if row.name.startswith("lrexp find-lr") else "#0072B2"
            ax.plot([row.seconds] * 2, [row.mean, row.worst.regret], color=colour, alpha=0.3)
            ax.scatter([row.seconds], [row.mean], c=colour, s=45, zorder=3)
            ax.scatter([row.seconds], [row.worst.regret], c=colour, s=14, marker="_")
            ax.annotate(row.name, (row.seconds, row.mean), (6, 4), textcoords="offset points")
        ax.set_xscale("log")
        ax.set_yscale("symlog", linthresh=LINEAR_TO, linscale=0.8)
        ax.set_ylim(0, 1.1)
        ax.set_yticks([0, 0.02, 0.05, 0.15, 0.5, 1], ["0", "0.02", "0.05", "0.15", "0.5", "1"])
        ax.set_xlabel("seconds for one answer, on one core")
        ax.set_ylabel("regret: mean (dot) to worst cell")
        ax.grid(color="0.9")
        ax.set_title(title, loc="left", fontsize=12, fontweight="bold")
        figure.savefig(file, dpi=150)


def _strip(ax: Axes, place: int, row: Row) -> None:
    regrets = np.array([score.regret for score in row.scores])
    order = np.argsort(regrets)
    # spread evenly by rank: dots of equal regret stay apart, and every run draws the same
    offsets = np.empty(len(order))
    offsets[order] = 0.26 * ((np.arange(len(order)) * 0.618) % 1 - 0.5) * 2
    colours = [COLOURS[score.cell.optimizer] for score in row.scores]
    ax.scatter(regrets, place + offsets, s=13, c=colours, alpha=0.6, linewidths=0)
    low, middle, high = np.quantile(regrets, [0.25, 0.5, 0.75])
    ax.plot([low, high], [place, place], color="0.15", lw=5, alpha=0.25, solid_capstyle="round")
    ax.plot([middle] * 2, [place - 0.2, place + 0.2], color="0.15", lw=1.6)
    ax.scatter([row.mean], [place], marker="D", s=34, c="white", edgecolors="0.1", zorder=5)
    ax.text(1.02, place, f"{row.mean:.3f}", transform=ax.get_yaxis_transform(), va="center")
    ax.text(1.11, place, f"{row.worst.regret:.2f}", transform=ax.get_yaxis_transform(), va="center")


def _axes(ax: Axes, rows: Sequence[Row]) -> None:
    ax.set_xscale("symlog", linthresh=LINEAR_TO, linscale=0.8)
    ticks = [0, 0.02, 0.05, 0.15, 0.5, 1]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(-0.004, max(1.08, *(row.worst.regret * 1.05 for row in rows)))
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    for label, row in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.name.startswith("lrexp") else "normal")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("regret on the validation loss (0: the best LR of the grid, 1: not trained)")
    ax.grid(axis="x", color="0.9")
    ax.tick_params(length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    for x, word in ((1.02, "mean"), (1.11, "worst")):
        ax.text(x, -0.75, word, transform=ax.get_yaxis_transform(), color="0.35", va="bottom")


def _legend(ax: Axes, optimizers: set[str]) -> None:
    dots = [
        Line2D([], [], ls="", marker="o", ms=5, color=colour, label=name)
        for name, colour in COLOURS.items()
        if name in optimizers
    ]
    marks = [
        Line2D([], [], ls="", marker="D", ms=6, mfc="white", mec="0.1", label="mean"),
        Line2D([], [], color="0.15", lw=1.6, ls="", marker="|", ms=10, label="median"),
        Line2D([], [], color="0.15", lw=5, alpha=0.25, label="middle half"),
    ]
    ax.legend(
        handles=dots + marks, ncols=len(dots + marks), frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0),
        borderaxespad=0, handletextpad=0.6, columnspacing=0.8,
    )  # fmt: skip
