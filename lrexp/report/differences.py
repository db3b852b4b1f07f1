"""The picture of the verdicts: each variant's differences to the reference, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from lrexp.analysis.claims import BETTER, TOO_FEW
from lrexp.report.figure import NAME_WIDTH, Entry, Heading, finish, new_figure
from lrexp.report.style import (
    GRID,
    INK,
    LOG_RATIO,
    MUTED,
    Mark,
    drawable,
    dress,
    mark,
    number_axis,
    panel_title,
)
from lrexp.report.text import (
    count_text,
    measure_text,
    number_text,
    run_subtitle,
    shortened,
    shown_of,
    told_apart,
)
from lrexp.runs.reader import Run

Array = np.ndarray
DECIDED = "#0B7A4B"  # of a claim
DENSE = 11  # rows, from which they have room for small letters only
MIN_ROWS = 3  # fewer would be far apart


def differences_figure(run: Run) -> Figure:
    """Return the sheet of paired differences, the variants in the order of the ranking."""
    summary = run.summary or {}
    declared, found = summary["declared"], summary["comparisons"]
    rows = [found[i] for i in shown_of(len(found))]
    places = {name: i for i, name in enumerate(run.variants)}
    figure = new_figure()
    ax = figure.subplots()
    dress(ax)
    _set_axes(ax, rows, measure_text(declared["metric"]), declared["reference"])
    _draw_floor(ax, summary.get("noise"))
    worst = 1.0 if declared["direction"] == "min" else 0.0
    names = told_apart([row["variant"] for row in rows], NAME_WIDTH)
    too_few = all(row["kind"] == TOO_FEW for row in rows)  # once for all
    panel_title(ax, rows[0]["verdict"] if too_few else "")
    for y, (row, name) in enumerate(zip(rows, names, strict=True)):
        _draw_row(ax, y, row, mark(places.get(row["variant"], y)), worst)
        _label(ax, y, name, row, with_verdict=not too_few, size=10.5 if len(rows) < DENSE else 8.8)
    reference = shortened(declared["reference"], 30)
    seeds = count_text(len(summary["seeds"]), "seed")
    heading = Heading(
        title=f"{shortened(run.name, 48)}: differences to {reference}, seed by seed, {seeds}",
        subtitle=run_subtitle(run),
        caption=_caption(declared, rows, len(found)),
        source=run.path.name,
    )
    finish(figure, heading, _key(summary, rows), f"variant − {reference}")
    return figure


def _set_axes(ax: Axes, rows: Sequence[Mapping[str, Any]], measure: str, reference: str) -> None:
    """Give each variant a row; the differences are linear, or logarithmic to both sides of 0."""
    room = max(0.0, (MIN_ROWS - len(rows)) / 2)
    ax.set_ylim(len(rows) - 0.45 + room, -0.55 - room)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    sizes = [np.abs(values).max() for row in rows if len(values := _shown(row)) and values.any()]
    largest, smallest = (max(sizes), min(sizes)) if sizes else (1.0, 1.0)
    values = np.concatenate([np.zeros(1), *(_shown(row) for row in rows)])
    low, high = float(values.min()), float(values.max())
    if largest > LOG_RATIO * smallest:
        _set_symlog(ax, float(smallest), low, high)
    else:
        room = 0.06 * ((high - low) or 1.0)
        ax.set_xlim(low - room, high + room)
        number_axis(ax, "x", log=False)
    ax.axvline(0, color=INK, linewidth=1.2, zorder=1.5)
    ax.set_xlabel(f"difference in {measure} to {drawable(reference, 30)}", parse_math=False)


def _set_symlog(ax: Axes, smallest: float, low: float, high: float) -> None:
    """Make the axis linear up to the smallest row's power of ten, logarithmic beyond."""
    linear = 10.0 ** np.floor(np.log10(smallest))
    ax.set_xscale("symlog", linthresh=linear)
    powers = linear * 10.0 ** np.arange(0, np.ceil(np.log10(max(high, -low) / linear)) + 1)
    ticks = [*(-powers[::-1]), 0.0, *powers]
    ax.set_xticks([tick for tick in ticks if 1.6 * low - linear <= tick <= 1.6 * high + linear])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value)))
    ax.set_xlim(1.6 * low - 0.3 * linear, 1.6 * high + 0.3 * linear)


def _shown(row: Mapping[str, Any]) -> Array:
    """Return the numbers of a row: the differences of seeds, and the ends of its interval."""
    ends = row["interval"] or ()
    return np.array([x for x in (*row["differences"], *ends) if x is not None], dtype=np.float64)


def _draw_floor(ax: Axes, noise: Mapping[str, Any] | None) -> None:
    between = (noise or {}).get("between_seeds")
    if between and between["mean"]:
        ax.axvspan(-between["mean"], between["mean"], color=GRID, alpha=0.8, linewidth=0, zorder=0)


def _draw_row(ax: Axes, y: int, row: Mapping[str, Any], look: Mark, worst: float) -> None:
    """Draw the seeds as dots, the mean with its interval as a bar; a cross where seeds diverged.

    The cross stands at the edge of the picture: at `worst` (0 left, 1 right) for the variant, at
    the other one for the reference.
    """
    seeds = np.array([x for x in row["differences"] if x is not None])
    spread = np.linspace(-0.08, 0.08, len(seeds)) if len(seeds) > 1 else np.zeros(len(seeds))
    ax.plot(
        seeds, y + 0.16 + spread, marker="o", markersize=5, color=look.color, alpha=0.45,
        markeredgewidth=0, linestyle="none", zorder=2.5,
    )  # fmt: skip
    for key, edge in (("variant", worst), ("reference", 1 - worst)):
        if row["diverged"][key]:
            ax.plot(
                [edge], [y + 0.16], transform=ax.get_yaxis_transform(), marker="X", markersize=9,
                color=look.color, markeredgecolor="white", linestyle="none", zorder=4,
                clip_on=False,
            )  # fmt: skip
    if row["interval"] and row["kind"] != TOO_FEW:
        ax.plot(
            row["interval"], [y - 0.07] * 2, color=look.color, linewidth=7, alpha=0.35,
            solid_capstyle="butt", zorder=3,
        )  # fmt: skip
    if row["mean"] is not None:
        ax.plot(
            [row["mean"]], [y - 0.07], marker="D", markersize=7, color=look.color, zorder=4,
            markeredgecolor="white",
        )  # fmt: skip


def _label(
    ax: Axes, y: int, name: str, row: Mapping[str, Any], *, with_verdict: bool, size: float
) -> None:
    """Write the variant beside its row, and below it the verdict."""
    lost = _lost(row)
    verdict = ", ".join([*([_short(row)] if with_verdict else []), *lost])
    claimed = row["kind"] == BETTER
    lines: list[tuple[str, float, dict[str, Any]]] = [
        (drawable(name), 0.6 * size if verdict else 0.0, {"fontsize": size, "color": INK})
    ]
    look = {"fontsize": 0.81 * size, "color": DECIDED if claimed else MUTED}
    lines += [(drawable(verdict, 60), -0.65 * size, look)] if verdict else []
    for text, above, style in lines:
        ax.annotate(
            text, (0, y), xycoords=("axes fraction", "data"), xytext=(-12, above), ha="right",
            textcoords="offset points", va="center", parse_math=False, annotation_clip=False,
            **style,
        )  # fmt: skip


def _short(row: Mapping[str, Any]) -> str:
    """Return the verdict without its numbers but for p."""
    if row["kind"] == TOO_FEW:
        return str(row["verdict"])
    says = f"{shortened(row['better'], 30)} is better" if row["kind"] == BETTER else row["kind"]
    return f"{says}, p = {number_text(row['p_holm'], 2)}"


def _lost(row: Mapping[str, Any]) -> list[str]:
    """Return which of the two diverged in how many seeds, where the other did not."""
    both = (("variant", ""), ("reference", f"{shortened(row['reference'], 20)} "))
    counts = [(who, row["diverged"][key]) for key, who in both]
    return [f"{who}diverged in {count} of {row['n']}" for who, count in counts if count]


def _key(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
    dot = Line2D([], [], marker="o", markersize=5, color=MUTED, alpha=0.6, linestyle="none")
    mean = Line2D([], [], marker="D", markersize=7, color=MUTED, linestyle="none")
    entries = [Entry(dot, "each seed"), Entry(mean, "their mean")]
    if any(row["interval"] and row["kind"] != TOO_FEW for row in rows):
        entries.append(Entry(Patch(color=MUTED, alpha=0.35, lw=0), "95 % interval of the mean"))
    between = (summary.get("noise") or {}).get("between_seeds")
    if between:
        floor = Patch(color=GRID, lw=0)
        entries.append(Entry(floor, "A against A", "of two seeds, on average"))
    return entries


def _caption(declared: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], found: int) -> str:
    better = "Left of 0" if declared["direction"] == "min" else "Right of 0"
    parts = [f"{better} the variant is better."]
    if any(_lost(row) for row in rows):
        parts.append("Cross: seeds in which one of the two diverged.")
    family = declared["comparisons_corrected_for"]
    if family > 1 and any(row["kind"] != TOO_FEW for row in rows):
        parts.append(f"p is Holm's for {family} comparisons.")
    if len(rows) < found:
        parts.append(f"{found - len(rows)} variants are left out.")
    return " ".join(parts)
