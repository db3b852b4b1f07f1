"""Drawing a picture with matplotlib: a sheet with a heading, panels of marks, a legend, a caption.

A sheet is 1600 × 900 pixels. The legend stands right of the panels, as wide as it needs to be;
the panels get what is left. Figures are drawn by Agg alone, so that no display, no pyplot state
and no setting of the user has a say.
"""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MplAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from lrexp.report import style
from lrexp.report.cells import draw_cells
from lrexp.report.data.curves import FEW_POINTS
from lrexp.report.data.picture import (
    Axis,
    Band,
    Cells,
    Entry,
    Look,
    Mark,
    Note,
    Panel,
    Picture,
    Scale,
    Span,
)
from lrexp.report.style import GRID, INK, MUTED, drawable
from lrexp.report.text import (
    ELLIPSIS,
    FIRST_SHOWN,
    lr_text,
    number_text,
    shown_of,
    steps_text,
    told_apart,
)
from lrexp.runs.files import disk_errors, write_whole

SIZE = (12.8, 7.2)  # inches
DPI = 125
COMPRESSION = 3  # of PNG, 0 to 9: the usual 6 takes half as long again to save a tenth
MARGIN = 0.015  # of the width
PANELS_BOTTOM, PANELS_TOP = 0.045, 0.895  # of the height, between caption and heading
LEGEND_TOP = 0.86
LEGEND_WIDTH = 0.34  # at most, of the width
SCALE_HEIGHT = 0.12  # of the height, that a scale of colours takes below the legend
MAX_ENTRIES = 32  # as many as marks tell apart

LEGEND_LOOKS = (  # font size, where the notes stand, columns; the first that fits is taken
    (10.5, "below", 1),
    (9.0, "below", 1),
    (9.0, "beside", 1),
    (9.0, "", 1),
    (7.0, "beside", 1),
    (9.0, "", 2),
    (7.0, "", 2),
)
NUM_MARKERS = 8  # on a line
DENSE = 1_000  # points of a raw curve from which it fills an area
MANY_ROWS = 11  # from which rows have room for small letters only
TITLE_PAD = 8.0  # points between a panel and its title
TITLES, EPOCH_WORD = 110, 12  # letters that panels side by side have room for, and the word's
WORDED = 3  # panels whose axis of epochs says so
EPOCHS_HEIGHT = 15.663  # points, of an axis of epochs along the top: ticks and numbers
DASHED = ("loss.median", "loss.lost", "lr.trace", "lr.seed", "lr.reactive", "range.median")
WRITTEN: dict[str, Callable[[float], str]] = {
    "number": number_text,
    "lr": lr_text,
    "steps": steps_text,
}


def draw(picture: Picture) -> Figure:
    """Return the sheet of a picture: heading and legend, and panels in the space that is left."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    draw_panels(figure, picture.panels, picture.strip)
    right = 1 - MARGIN
    if picture.entries:
        right = _add_legend(figure, picture) - MARGIN
    _add_heading(figure, picture)
    bottom = PANELS_BOTTOM if picture.caption or picture.source else MARGIN
    rect = (MARGIN / 2, bottom, right - MARGIN / 2, PANELS_TOP - bottom)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=rect, w_pad=0.06, wspace=0.03))
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a sheet as PNG and return the path.

    Raises:
        RunError: the disk refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # not savefig, which goes through everything twice, once without a picture
    picture = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())  # (height, width, 4)
    imsave(picture, pixels, format="png", dpi=DPI, pil_kwargs={"compress_level": COMPRESSION})
    with picture.getbuffer() as view:  # an error that keeps it would keep the memory, too
        write_whole(path, view)  # several commands may draw one run at a time
    return path


def _add_heading(figure: Figure, heading: Picture) -> None:
    left, right, full = MARGIN, 1 - MARGIN, 1 - 2 * MARGIN
    large: dict[str, Any] = {"fontsize": 17, "fontweight": "bold", "va": "top"}
    small: dict[str, Any] = {"fontsize": 8.5, "color": MUTED}
    _text(figure, (left, 0.972), heading.title, full, **large)
    _text(figure, (left, 0.925), heading.subtitle, full, fontsize=11, color=MUTED, va="top")
    taken = _text(figure, (right, 0.016), heading.source, 0.4, ha="right", **small)
    _text(figure, (left, 0.016), heading.caption, full - taken - MARGIN, **small)


def _add_legend(figure: Figure, picture: Picture) -> float:
    """Add the legend right of the panels and return where it begins, as a fraction of the width."""
    entries = _without_middle(picture.entries)
    for look in LEGEND_LOOKS:
        legend = _legend(figure, entries, picture, look)
        box = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        width, height = box.width / (SIZE[0] * DPI), box.height / (SIZE[1] * DPI)
        room = LEGEND_TOP - PANELS_BOTTOM - (SCALE_HEIGHT if picture.scale else 0.0)
        fits = height <= room and width <= LEGEND_WIDTH
        if fits or look is LEGEND_LOOKS[-1]:
            break
        legend.remove()
    if picture.scale:
        width = max(width, 0.16)
        _add_scale(figure, picture.scale, 1 - MARGIN - width, width)
    return 1 - MARGIN - width


def _add_scale(figure: Figure, scale: Scale, left: float, width: float) -> None:
    """Add the scale of the lines' colours below the legend."""
    ax = figure.add_axes((left, 0.10, width, 0.018))
    ax.set_in_layout(False)
    norm = (LogNorm if scale.log else Normalize)(scale.low, scale.high)
    shades = mpl.colormaps[style.SHADES](np.linspace(0, style.PALEST, 256))
    bar = figure.colorbar(
        ScalarMappable(norm, ListedColormap(shades)), ax, orientation="horizontal"
    )
    bar.outline.set_visible(False)
    bar.set_label(drawable(scale.title, 40), fontsize=9, color=MUTED, parse_math=False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: lr_text(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(which="both", color="#9A9A9A", labelcolor=INK, labelsize=9, length=3)


def _without_middle(entries: Sequence[Entry]) -> list[Entry]:
    """Return the first and the last entries of a list that nobody would read."""
    shown = shown_of(len(entries), at_most=MAX_ENTRIES)
    kept = [entries[i] for i in shown]
    if len(kept) < len(entries):
        kept.insert(FIRST_SHOWN, Entry("nothing", f"{len(entries) - len(kept)} more"))
    return kept


def _legend(
    figure: Figure, entries: Sequence[Entry], picture: Picture, look: tuple[float, str, int]
) -> Legend:
    size, notes, columns = look
    legend = figure.legend(
        handles=[handle(entry.kind, entry.look) for entry in entries],
        labels=["-"] * len(entries),  # set below: a label that begins with _ would be left out
        title="\n".join(textwrap.wrap(drawable(picture.legend_title, 120), 40)) or None,
        loc="upper right",
        bbox_to_anchor=(1 - MARGIN, LEGEND_TOP),
        borderaxespad=0,
        borderpad=0,
        frameon=False,
        ncols=columns,
        fontsize=size,
        labelspacing=0.75 if notes == "below" else 0.4,
        handlelength=4.2,  # as much as it takes to tell dashes from a solid line
        alignment="left",
    )
    legend.get_title().set(fontsize=size - 0.5, color=MUTED, parse_math=False)
    width = picture.name_width if columns == 1 else 2 * picture.name_width // 3
    names = told_apart([entry.name for entry in entries], width)
    joint = "\n" if notes == "below" else "   "
    for label, name, entry in zip(legend.get_texts(), names, entries, strict=True):
        note = f"{joint}{drawable(entry.note, 40)}" if notes and entry.note else ""
        label.set(parse_math=False, color=INK, linespacing=1.35, text=drawable(name) + note)
    return legend


def _text(figure: Figure, at: tuple[float, float], words: str, room: float, **look: Any) -> float:
    """Write words, shortened from their end until they have room; return their width.

    Widths are fractions of the sheet's.
    """
    text = figure.text(*at, drawable(words), parse_math=False, **look)
    while text.get_text():
        width = text.get_window_extent().width / (SIZE[0] * DPI)
        if width <= room:
            return width
        kept = text.get_text().rstrip(ELLIPSIS)
        text.set_text(kept[: max(1, int(len(kept) * 0.97) - 1)].rstrip() + ELLIPSIS)
    return 0.0


def draw_panels(figure: Figure, panels: Sequence[Panel], strip: Panel | None = None) -> Axes:
    """Draw panels side by side, or one with a strip of rows below it; return the first."""
    if strip is None:
        axes = figure.subplots(1, len(panels), squeeze=False).flat
    else:
        ratios = (10, 0.6 + 0.5 * len(strip.y.names))
        axes = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
        panels = [panels[0], strip]
    for ax, panel in zip(axes, panels, strict=True):
        draw_panel(ax, panel)
    first: Axes = axes[0]
    if strip is not None:
        first.set_xlabel("")
        first.tick_params(labelbottom=False)
    return first


def draw_panel(ax: Axes, panel: Panel) -> None:
    """Draw a panel on axes, which get its limits and scales."""
    _dress(ax)
    _set_axis(ax, "x", panel.x)
    _set_axis(ax, "y", panel.y)
    if panel.title:
        room = TITLES // len(ax.figure.axes)
        _panel_title(ax, drawable(panel.title, room))
        if len(panel.title) > room - EPOCH_WORD:
            ax.set_title("", loc="right")  # the word "epoch" would stand under its end
    marks = [mark for mark in panel.marks if isinstance(mark, Mark)]
    alike = Counter((mark.kind, mark.name, mark.look) for mark in marks)
    for mark in panel.marks:
        if isinstance(mark, Mark) and mark.kind in style.FOLDED:
            continue
        if isinstance(mark, Mark):
            own = _own_style(mark, marks, alike[mark.kind, mark.name, mark.look])
            _draw_mark(ax, mark, {**_colored(style.MARKS[mark.kind], mark.look), **own})
        elif isinstance(mark, Band):
            color = style.color_of(mark.look)
            ax.fill_between(mark.x, mark.low, mark.high, color=color, **style.BAND)
        elif isinstance(mark, Cells):
            draw_cells(ax, mark)
        elif isinstance(mark, Span):
            ax.axvspan(
                mark.low, mark.high, linewidth=0, **_colored(style.SPANS[mark.kind], mark.look)
            )
        else:
            _draw_note(ax, mark, panel)


def handle(kind: str, look: Look | None = None) -> Artist:
    """Return what stands in a legend for a kind of mark."""
    if kind in style.LEGEND_PATCHES:
        return Patch(**{"linewidth": 0, **_colored(style.LEGEND_PATCHES[kind], look)})
    if kind in style.LEGEND_LINES or look is None:
        return Line2D([], [], **_colored(style.LEGEND_LINES[kind], look))
    marker = style.MARKERS[look.dash] or None
    dashes = _dashes(kind, look)
    color = style.color_of(look)
    return Line2D(
        [0], [0], color=color, linestyle=dashes, linewidth=2.2, marker=marker, markersize=5.0
    )


def _panel_title(ax: Axes, text: str, **look: Any) -> None:
    """Write a title above a panel, and above its axis of epochs where it has one.

    The last title of a panel says how high all of them stand.
    """
    pad = TITLE_PAD + (EPOCHS_HEIGHT if ax.child_axes else 0.0)
    usual: dict[str, Any] = {"loc": "left", "fontsize": 12, "color": INK, "parse_math": False}
    ax.set_title(text, pad=pad, **(usual | look))


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
    if axis.ticks:
        found.set_ticks(axis.ticks, axis.labels or None)  # before the limits, which it would widen
        found.set_minor_locator(NullLocator())
    getattr(ax, f"set_{which}lim")(*axis.limits)
    if axis.title:
        getattr(ax, f"set_{which}label")(drawable(axis.title), parse_math=False)
    if axis.names or axis.numbers == "none":
        _set_rows(ax, axis.names)
        return
    if axis.labels:
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
    if decades < 0.4:  # may hold no digit of any power of ten
        found.set_major_locator(MaxNLocator(nbins=6))
        found.set_minor_locator(NullLocator())
    else:
        subs = range(1, 10) if decades < 0.7 else (1, 2, 5) if decades < 2.5 else (1,)
        found.set_major_locator(LogLocator(base=10, subs=[float(digit) for digit in subs]))
        found.set_minor_locator(LogLocator(base=10, subs=tuple(range(1, 10)), numticks=12))
    found.set_minor_formatter(NullFormatter())


def _add_epochs(ax: Axes, axis: Axis) -> None:
    """Add an axis of epochs along the top where there is one to show."""
    length = axis.steps_per_epoch
    if axis.title != "step" or not length or axis.limits[1] < length:
        return
    scale = 1 / length
    functions: Any = (lambda x: x * scale, lambda x: x * length)
    top = ax.secondary_xaxis("top", functions=functions)
    top.xaxis.set_major_locator(_whole_numbers())
    top.tick_params(color=GRID, labelcolor=MUTED, labelsize="small", length=3)
    top.spines["top"].set_visible(False)
    # a title at the right, not a label of the axis: that would take a line of its own
    if len(ax.figure.axes) <= WORDED:  # of more, the titles take the room
        _panel_title(ax, "epoch", loc="right", fontsize="small", color=MUTED)


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(nbins=7, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _draw_mark(ax: Axes, mark: Mark, properties: dict[str, Any]) -> None:
    across = {
        "": ax.transData,
        "x": ax.get_yaxis_transform(),
        "y": ax.get_xaxis_transform(),
        "xy": ax.transAxes,
    }
    x, y = mark.x, mark.y
    label = None if mark.kind in ("loss.raw", "loss.best") else mark.name
    ax.plot(x, y, transform=across[mark.within], label=label, **properties)


def _own_style(mark: Mark, marks: Sequence[Mark], num_alike: int) -> dict[str, Any]:
    """Return what the look of a mark owes to its points and to the other marks of its panel."""
    if mark.kind == "loss.raw":
        return {"alpha": max(0.1, (0.3 if len(mark.x) < DENSE else 0.2) / num_alike)}
    if mark.kind in ("range.rule", "strip.rule"):
        rules = [m for m in marks if m.kind == mark.kind]
        return {"marker": style.RULE_MARKERS[rules.index(mark) % len(style.RULE_MARKERS)]}
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
    if mark.kind != "range.median" and style.MARKERS[look.dash]:
        every = max(1, num_points // NUM_MARKERS)
        marker = {"marker": style.MARKERS[look.dash], "markersize": 5.0}
        marker["markevery"] = (every // 2, every)
    return {"linestyle": _dashes(mark.kind, look), **marker}


def _dashes(kind: str, look: Look) -> Any:
    return style.REACTIVE if kind == "lr.reactive" else style.DASHES[look.dash]


def _colored(properties: dict[str, Any], look: Look | None) -> dict[str, Any]:
    return properties if look is None else {**properties, "color": style.color_of(look)}


def _draw_note(ax: Axes, note: Note, panel: Panel) -> None:
    if note.kind == "range.reason":
        text = "\n".join(textwrap.wrap(drawable(note.text, 600), 70))
        ax.text(note.x, note.y, text, transform=ax.transAxes, parse_math=False, **style.REASON)
    elif note.kind.startswith("verdicts"):
        _draw_row_name(ax, note, panel)
    else:
        aside, above, properties = style.NOTES[note.kind]
        _annotate(ax, note, (aside, above), properties)


def _draw_row_name(ax: Axes, note: Note, panel: Panel) -> None:
    """Write a variant beside its row, and below it the verdict."""
    num_rows = sum(isinstance(m, Note) for m in panel.marks)
    size = 10.5 if num_rows < MANY_ROWS else 8.8
    properties = {"annotation_clip": False, "fontsize": size, "color": INK}
    _annotate(ax, note, (12, 0.6 * size if note.below else 0.0), properties)
    if note.below:
        colors = {"verdicts.claim": style.DECIDED, "verdicts.worse": style.WORSE}
        color = colors.get(note.kind, MUTED)
        verdict = replace(note, text=note.below)
        properties |= {"fontsize": 0.81 * size, "color": color}
        _annotate(ax, verdict, (12, -0.65 * size), properties)


def _annotate(
    ax: Axes, note: Note, offset: tuple[float, float], properties: dict[str, Any]
) -> None:
    """Write a note at its point, so many points to its side and above it."""
    x, y = ("axes fraction" if which in note.within else "data" for which in ("x", "y"))
    ha = {"right": "left", "left": "right", "center": "center"}[note.side]
    aside = -offset[0] if note.side == "left" else offset[0]
    usual: dict[str, Any] = {"ha": ha, "va": "center", "parse_math": False}
    ax.annotate(
        style.in_glyphs(note.text), (note.x, note.y), xycoords=(x, y), xytext=(aside, offset[1]),
        textcoords="offset points", **(usual | properties),
    )  # fmt: skip
