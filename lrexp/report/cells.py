"""Drawing a table of coloured cells, and the scale of its colours."""

from __future__ import annotations

import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from lrexp.report import style
from lrexp.report.data.picture import Cells
from lrexp.report.style import INK, drawable
from lrexp.report.text import number_text

CELL = 110.0  # points of letters that have room in a cell as wide or high as a panel
SMALLEST = 6.5  # points of letters that can be read


def draw_cells(ax: Axes, cells: Cells) -> None:
    """Draw a table of cells and the scale of its colours; what has room is written in them."""
    ax.grid(False)
    ax.tick_params(which="minor", length=0)
    low, high = cells.limits
    norm = LogNorm(low, high) if cells.log else Normalize(low, high)
    cmap = mpl.colormaps["viridis_r" if cells.darkest == "highest" else "viridis"]
    shown = np.ma.masked_invalid(cells.values)
    mesh = ax.pcolormesh(cells.x, cells.y, shown, norm=norm, cmap=cmap, **style.CELLS)
    beyond = {"lowest": shown.min() < low, "highest": shown.max() > high}[cells.darkest]
    end = {"lowest": "min", "highest": "max"}[cells.darkest] if beyond is np.True_ else "neither"
    bar = ax.figure.colorbar(mesh, ax=ax, extend=end, pad=0.02, aspect=32, use_gridspec=False)
    bar.outline.set_visible(False)
    bar.set_label(drawable(cells.title), parse_math=False)
    bar.ax.tick_params(which="both", color="#9A9A9A", labelcolor=INK, length=3)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value)))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    rows, columns = cells.values.shape
    size = min(15.0, CELL / columns, CELL / rows)
    for row, column in np.ndindex(rows, columns):
        x, y = cells.x[column : column + 2], cells.y[row : row + 2]
        corner, width, height = (x[0], y[0]), x[1] - x[0], y[1] - y[0]
        note, is_best = cells.notes[row][column], cells.best == (row, column)
        if note:
            ax.add_patch(Rectangle(corner, width, height, **style.LOST))
        if is_best:
            ax.add_patch(Rectangle(corner, width, height, **style.BEST))
        if size >= SMALLEST:
            words = "\n".join(filter(None, [cells.texts[row][column], *_short_lines(note)]))
            color = INK if note else _readable_on(cmap(norm(cells.values[row, column])))
            at = _middle(x, ax.get_xscale()), _middle(y, ax.get_yscale())
            ax.text(
                *at, words, ha="center", va="center", color=color, parse_math=False, zorder=5,
                fontsize=0.8 * size if note else size, fontweight="bold" if is_best else "normal",
            )  # fmt: skip


def _short_lines(note: str) -> list[str]:
    """Return `1 of 2` and `diverged`, each on a line of its own."""
    return re.sub(r" (?=diverged|failed)", "\n", note).replace(", ", "\n").split("\n")


def _middle(ends: Any, scale: str) -> float:
    return float(np.sqrt(ends[0] * ends[1]) if scale == "log" else np.mean(ends))


def _readable_on(color: Any) -> str:
    """Return the colour of letters on a background, by its luminance (ITU-R BT.709)."""
    red, green, blue, _ = color
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"
