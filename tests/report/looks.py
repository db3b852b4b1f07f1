"""What the tests ask of a figure."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def strong(ax: Axes, name: str) -> list[Line2D]:
    """Return the strong lines of a variant: the raw ones have no name."""
    return [line for line in ax.lines if line.get_label() == name]


def raw(ax: Axes) -> list[Line2D]:
    """Return the faint lines."""
    return [line for line in ax.lines if line.get_alpha() is not None and line.get_alpha() < 0.4]


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def words_of(figure: Figure) -> list[str]:
    """Return heading, caption and every other text that stands on the sheet itself."""
    return [text.get_text() for text in figure.texts]


def notes(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def overlaps(figure: Figure) -> list[str]:
    """Return what stands where something else stands: legend, heading, panels with their labels."""
    figure.draw_without_rendering()  # laid out, but no pixel is made
    boxes = {f"panel {i}": ax.get_tightbbox() for i, ax in enumerate(figure.axes)}
    boxes |= {f"legend {i}": legend.get_window_extent() for i, legend in enumerate(figure.legends)}
    boxes |= {
        f"text {text.get_text()!r}": text.get_window_extent()
        for text in figure.texts
        if text.get_text()
    }
    names = list(boxes)
    sheet = figure.bbox
    found = [
        f"{a} and {b}"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if boxes[a].shrunk(0.99, 0.99).overlaps(boxes[b])
    ]
    outside = [
        name
        for name, box in boxes.items()
        if box.x0 < -1 or box.y0 < -1 or box.x1 > sheet.x1 + 1 or box.y1 > sheet.y1 + 1
    ]
    return found + [f"{name} off the sheet" for name in outside]
