"""The parts of a table: quiet lines, numbers that never break, text that is only text."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from lrexp.report.text import shortened

NAME_WIDTH = 60  # characters of a name from a user, at most


def new_table(*columns: str | Column) -> Table:
    """Return an empty table; a column given by its name holds text, which folds when it must."""
    made = [words_column(name) if isinstance(name, str) else name for name in columns]
    return Table(*made, box=SIMPLE_HEAD, header_style="dim")


def natural_width(table: Table, console: Console, options: ConsoleOptions) -> int:
    """Return the columns of the screen that a table takes where there is no end of them."""
    return Measurement.get(console, options.update(width=10_000), table).maximum


def least_width(table: Table, console: Console, options: ConsoleOptions) -> int:
    """Return the columns of the screen below which a word or a number would be cut.

    rich's own minimum takes a number such as `0.12 ± 0.01` for three words.
    """
    wide = options.update(width=10_000)
    total = len(table.columns) + 1  # the edges, and a space between two columns
    for column in table.columns:
        cells = [Measurement.get(console, wide, c) for c in (column.header, *column.cells)]
        widest = max(cell.maximum if column.no_wrap else cell.minimum for cell in cells)
        total += min(widest, column.max_width or widest) + sum(table.padding[1::2])
    return total


def words_column(name: str, max_width: int = 30) -> Column:
    """Return a column of text that folds at `max_width` characters, or before."""
    return Column(Text(name), overflow="fold", max_width=max_width)


def column(name: str) -> Column:
    """Return a column of numbers: aligned at the right, never broken."""
    return Column(Text(name), justify="right", no_wrap=True)


def cell(text: object, style: str = "") -> Text:
    """Return text from a user as it is: no markup, no control characters, one line."""
    return Text(shortened(str(text), NAME_WIDTH), style)
