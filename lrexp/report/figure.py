"""The sheet that a picture is printed on: heading, panels, a legend beside them, a caption.

A sheet is 1600 × 900 pixels. The legend stands right of the panels, as wide as it needs to be;
the panels get what is left. Figures are drawn by Agg alone, so that no display, no pyplot state
and no setting of the user has a say.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.text import Text

from lrexp.report.data.picture import Entry, Picture
from lrexp.report.panel import draw_panels, handle
from lrexp.report.style import INK, MUTED, drawable
from lrexp.report.text import ELLIPSIS, FIRST_SHOWN, shown_of, told_apart
from lrexp.runs.files import disk_errors, write_whole

SIZE = (12.8, 7.2)  # inches
DPI = 125
COMPRESSION = 3  # of PNG, 0 to 9: the usual 6 takes half as long again to save a tenth
MARGIN = 0.015  # of the width
PANELS_BOTTOM, PANELS_TOP = 0.045, 0.895  # of the height, between caption and heading
LEGEND_TOP = 0.86
LEGEND_WIDTH = 0.34  # at most, of the width
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
    left, full = MARGIN, 1 - 2 * MARGIN
    title = _text(figure, left, 0.972, heading.title, fontsize=17, fontweight="bold", va="top")
    _fit(title, full)
    subtitle = _text(figure, left, 0.925, heading.subtitle, fontsize=11, color=MUTED, va="top")
    _fit(subtitle, full)
    source = _text(figure, 1 - MARGIN, 0.016, heading.source, fontsize=8.5, color=MUTED, ha="right")
    _fit(source, 0.4)
    caption = _text(figure, left, 0.016, heading.caption, fontsize=8.5, color=MUTED)
    _fit(caption, full - _width(source) - MARGIN)


def _add_legend(figure: Figure, picture: Picture) -> float:
    """Add the legend right of the panels and return where it begins, as a fraction of the width."""
    room = LEGEND_TOP - PANELS_BOTTOM
    entries = _without_middle(picture.entries)
    for look in LEGEND_LOOKS:
        legend = _legend(figure, entries, picture, look)
        width, height = _size(figure, legend)
        if height <= room and width <= LEGEND_WIDTH:
            return 1 - MARGIN - width
        legend.remove()
    legend = _legend(figure, entries, picture, LEGEND_LOOKS[-1])
    return 1 - MARGIN - _size(figure, legend)[0]


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
        title=drawable(picture.legend_title, 40) or None,
        loc="upper right",
        bbox_to_anchor=(1 - MARGIN, LEGEND_TOP),
        borderaxespad=0,
        borderpad=0,
        frameon=False,
        ncols=columns,
        fontsize=size,
        labelspacing=0.75 if notes == "below" else 0.4,
        handlelength=2.4,
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


def _size(figure: Figure, legend: Legend) -> tuple[float, float]:
    box = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    return box.width / (SIZE[0] * DPI), box.height / (SIZE[1] * DPI)


def _text(figure: Figure, x: float, y: float, text: str, **look: Any) -> Text:
    return figure.text(x, y, drawable(text), parse_math=False, **look)


def _width(text: Text) -> float:
    """Return the width of a text as a fraction of the sheet's."""
    return text.get_window_extent().width / (SIZE[0] * DPI) if text.get_text() else 0.0


def _fit(text: Text, width: float) -> None:
    """Shorten a text from its end until it is at most so wide."""
    while _width(text) > width:
        kept = text.get_text().rstrip(ELLIPSIS)
        text.set_text(kept[: max(1, int(len(kept) * 0.97) - 1)].rstrip() + ELLIPSIS)
