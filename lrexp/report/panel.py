"""Drawing a panel of marks with matplotlib: its axes, its marks, and their lines in a legend."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MplAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from lrexp.report.data.curves import FEW_POINTS
from lrexp.report.data.picture import Axis, Band, Look, Mark, Note, Panel, Span
from lrexp.report.style import (
    BAND,
    COLORS,
    DASHES,
    DECIDED,
    GRID,
    INK,
    LEGEND_LINES,
    LEGEND_PATCHES,
    MARKERS,
    MARKS,
    MUTED,
    NOTES,
    REACTIVE,
    REASON,
    RULE_MARKERS,
    SPANS,
    drawable,
    in_glyphs,
)
from lrexp.report.text import lr_text, number_text, steps_text

NUM_MARKERS = 8  # on a line
DENSE = 1_000  # points of a raw curve from which it fills an area
MANY_ROWS = 11  # from which rows have room for small letters only
TITLE_PAD = 8.0  # points between a panel and its title
EPOCHS_HEIGHT = 15.663  # points, of an axis of epochs along the top: ticks and numbers
DASHED = ("loss.median", "loss.lost", "lr.trace", "lr.seed", "lr.reactive", "range.median")
WRITTEN: dict[str, Callable[[float], str]] = {
    "number": number_text,
    "lr": lr_text,
    "steps": steps_text,
}


def draw_panels(figure: Figure, panels: Sequence[Panel], strip: Panel | None = None) -> Axes:
    """Draw panels side by side, or one with a strip of rows below it; return the first."""
    if strip is None:
        axes: list[Axes] = list(figure.subplots(1, len(panels), squeeze=False)[0])
        for ax, panel in zip(axes, panels, strict=True):
            draw_panel(ax, panel)
        return axes[0]
    ratios = (10, 0.6 + 0.5 * len(strip.y.names))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
    draw_panel(upper, panels[0])
    draw_panel(lower, strip)
    upper.set_xlabel("")
    upper.tick_params(labelbottom=False)
    first: Axes = upper
    return first


def draw_panel(ax: Axes, panel: Panel) -> None:
    """Draw a panel on axes, which get its limits and scales."""
    _dress(ax)
    _set_axis(ax, "x", panel.x)
    _set_axis(ax, "y", panel.y)
    if panel.title:
        panel_title(ax, drawable(panel.title))
    marks = [mark for mark in panel.marks if isinstance(mark, Mark)]
    alike = Counter((mark.kind, mark.name, mark.look) for mark in marks)
    for mark in panel.marks:
        if isinstance(mark, Mark):
            own = _own_style(mark, marks, alike[mark.kind, mark.name, mark.look])
            _draw_mark(ax, mark, {**_colored(MARKS[mark.kind], mark.look), **own})
        elif isinstance(mark, Band):
            color = COLORS[mark.look.color]
            ax.fill_between(mark.x, mark.low, mark.high, color=color, **BAND)
        elif isinstance(mark, Span):
            ax.axvspan(mark.low, mark.high, linewidth=0, **_colored(SPANS[mark.kind], mark.look))
        else:
            _draw_note(ax, mark, panel)


def handle(kind: str, look: Look | None = None) -> Artist:
    """Return what stands in a legend for a kind of mark."""
    if kind in LEGEND_PATCHES:
        return Patch(linewidth=0, **_colored(LEGEND_PATCHES[kind], look))
    if kind in LEGEND_LINES or look is None:
        return Line2D([], [], **_colored(LEGEND_LINES[kind], look))
    marker = MARKERS[look.dash] or None
    dashes = _dashes(kind, look)
    color = COLORS[look.color]
    return Line2D(
        [0], [0], color=color, linestyle=dashes, linewidth=2.2, marker=marker, markersize=5.0
    )


def panel_title(ax: Axes, text: str, **look: Any) -> Text:
    """Write a title above a panel, and above its axis of epochs where it has one; return it.

    The last title of a panel says how high all of them stand.
    """
    pad = TITLE_PAD + (EPOCHS_HEIGHT if ax.child_axes else 0.0)
    usual: dict[str, Any] = {"loc": "left", "fontsize": 12, "color": INK, "parse_math": False}
    return ax.set_title(text, pad=pad, **(usual | look))


def _dress(ax: Axes) -> None:
    """Give axes a quiet grid and two thin spines."""
    ax.set_axisbelow(True)
    ax.grid(True, which="major", color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(which="both", color="#9A9A9A", labelcolor=INK, length=3.5)
    ax.tick_params(which="minor", length=2)


def _set_axis(ax: Axes, which: str, axis: Axis) -> None:
    """Give an axis of a panel its scale, limits, numbers and title."""
    found = ax.xaxis if which == "x" else ax.yaxis
    if axis.scale != "linear":
        linear = {"linthresh": axis.linear_until} if axis.scale == "symlog" else {}
        getattr(ax, f"set_{which}scale")(axis.scale, **linear)
    if axis.scale == "symlog":
        found.set_ticks(axis.ticks)  # before the limits, which it would widen
        found.set_minor_locator(NullLocator())
    getattr(ax, f"set_{which}lim")(*axis.limits)
    if axis.title:
        getattr(ax, f"set_{which}label")(drawable(axis.title), parse_math=False)
    if axis.names or axis.numbers == "none":
        _set_rows(ax, axis.names)
        return
    written = WRITTEN[axis.numbers]
    found.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    if axis.scale == "log":
        _set_log_ticks(found, axis)
    elif axis.numbers == "steps":
        found.set_major_locator(_whole_numbers())
        _add_epochs(ax, axis)


def _set_rows(ax: Axes, names: Sequence[str]) -> None:
    """Make the y axis one of rows, which have names in place of numbers."""
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    shown = [drawable(name) for name in names]
    ax.set_yticks(range(len(names)), shown, fontsize=9.5, parse_math=False)


def _set_log_ticks(found: MplAxis, axis: Axis) -> None:
    """Put ticks on a logarithmic axis; few decades also get labels at 2 and 5."""
    low, high = axis.limits
    decades = abs(float(np.log10(high) - np.log10(low)))
    subs = [1.0, 2.0, 5.0] if decades < 2.5 else [1.0]
    if decades < 0.7:
        subs = [float(digit) for digit in range(1, 10)]
    if decades < 0.4:  # may hold none of those digits
        found.set_major_locator(MaxNLocator(nbins=6))
        found.set_minor_locator(NullLocator())
    else:
        found.set_major_locator(LogLocator(base=10, subs=subs))
        found.set_minor_locator(LogLocator(base=10, subs=tuple(range(1, 10)), numticks=12))
    found.set_minor_formatter(NullFormatter())


def _add_epochs(ax: Axes, axis: Axis) -> None:
    """Add an axis of epochs along the top where there is one to show."""
    length = axis.steps_per_epoch
    if axis.title != "step" or not length or axis.limits[1] < length:
        return
    top = ax.secondary_xaxis("top", functions=(_scaled(1 / length), _scaled(length)))
    top.xaxis.set_major_locator(_whole_numbers())
    top.tick_params(color=GRID, labelcolor=MUTED, labelsize="small", length=3)
    top.spines["top"].set_visible(False)
    # a title at the right, not a label of the axis: that would take a line of its own
    panel_title(ax, "epoch", loc="right", fontsize="small", color=MUTED)


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(nbins=7, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _scaled(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor


def _draw_mark(ax: Axes, mark: Mark, style: dict[str, Any]) -> None:
    across = {
        "": ax.transData,
        "x": ax.get_yaxis_transform(),
        "y": ax.get_xaxis_transform(),
        "xy": ax.transAxes,
    }
    x, y = mark.x, mark.y
    if mark.kind == "race.drift":
        ax.annotate(
            "", (x[1], y[1]), (x[0], y[0]), xycoords=across[mark.within], zorder=5,
            arrowprops={"arrowstyle": "-|>", "color": style["color"], "linewidth": 1.8,
                        "shrinkA": 0, "shrinkB": 3, "mutation_scale": 16},
        )  # fmt: skip
        x, y = x[:1], y[:1]
    label = None if mark.kind == "loss.raw" else mark.name
    ax.plot(x, y, transform=across[mark.within], label=label, **style)


def _own_style(mark: Mark, marks: Sequence[Mark], num_alike: int) -> dict[str, Any]:
    """Return what the look of a mark owes to its points and to the other marks of its panel."""
    if mark.kind == "loss.raw":
        return {"alpha": max(0.1, (0.3 if len(mark.x) < DENSE else 0.2) / num_alike)}
    if mark.kind in ("range.rule", "strip.rule"):
        rules = [m for m in marks if m.kind == mark.kind]
        return {"marker": RULE_MARKERS[rules.index(mark) % len(RULE_MARKERS)]}
    if mark.kind == "lr.trace":
        # equal traces would hide each other: the earlier is the wider, and looks out on both sides
        later = [m for m in marks[marks.index(mark) + 1 :] if m.kind != "lr.seed"]
        hidden = sum(np.array_equal(m.y, mark.y) for m in later)
        return {**_dashed(mark), "linewidth": 2.2 + 2.4 * hidden}
    return _dashed(mark) if mark.kind in DASHED else {}


def _dashed(mark: Mark) -> dict[str, Any]:
    """Return dashes, and markers: in a few places, or on each of a few points."""
    look, num_points = mark.look or Look(0), len(mark.x)
    marker: dict[str, Any] = {}
    if mark.kind.startswith("loss"):
        marker = {"marker": "o", "markersize": 3.5} if num_points <= FEW_POINTS else {}
    elif num_points == 1:
        return {"linestyle": _dashes(mark.kind, look), "marker": "o"}
    if mark.kind != "range.median" and MARKERS[look.dash]:
        every = max(1, num_points // NUM_MARKERS)
        marker = {"marker": MARKERS[look.dash], "markersize": 5.0}
        marker["markevery"] = (every // 2, every)
    return {"linestyle": _dashes(mark.kind, look), **marker}


def _dashes(kind: str, look: Look) -> Any:
    return REACTIVE if kind == "lr.reactive" else DASHES[look.dash]


def _colored(style: dict[str, Any], look: Look | None) -> dict[str, Any]:
    return style if look is None else {**style, "color": COLORS[look.color]}


def _draw_note(ax: Axes, note: Note, panel: Panel) -> None:
    if note.kind == "range.reason":
        text = "\n".join(textwrap.wrap(drawable(note.text, 600), 70))
        ax.text(note.x, note.y, text, transform=ax.transAxes, parse_math=False, **REASON)
    elif note.kind.startswith("verdicts"):
        _draw_row_name(ax, note, panel)
    else:
        aside, above, style = NOTES[note.kind]
        over_arrow = note.kind == "race.drift" and note.side == "left"
        _annotate(ax, note, (aside, 14 if over_arrow else above), style)


def _draw_row_name(ax: Axes, note: Note, panel: Panel) -> None:
    """Write a variant beside its row, and below it the verdict."""
    num_rows = sum(isinstance(m, Note) for m in panel.marks)
    size = 10.5 if num_rows < MANY_ROWS else 8.8
    style = {"annotation_clip": False, "fontsize": size, "color": INK}
    _annotate(ax, note, (12, 0.6 * size if note.below else 0.0), style)
    if note.below:
        color = DECIDED if note.kind == "verdicts.claim" else MUTED
        verdict = replace(note, text=note.below)
        style |= {"fontsize": 0.81 * size, "color": color}
        _annotate(ax, verdict, (12, -0.65 * size), style)


def _annotate(ax: Axes, note: Note, offset: tuple[float, float], style: dict[str, Any]) -> None:
    """Write a note at its point, so many points to its side and above it."""
    x, y = ("axes fraction" if which in note.within else "data" for which in ("x", "y"))
    ha = {"right": "left", "left": "right", "center": "center"}[note.side]
    aside = -offset[0] if note.side == "left" else offset[0]
    usual: dict[str, Any] = {"ha": ha, "va": "center", "parse_math": False}
    ax.annotate(
        in_glyphs(note.text), (note.x, note.y), xycoords=(x, y), xytext=(aside, offset[1]),
        textcoords="offset points", **(usual | style),
    )  # fmt: skip
