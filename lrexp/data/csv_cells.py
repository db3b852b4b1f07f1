"""The cells of a CSV file as text: one header, every row as long as it, every line known."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lrexp.data.argument_checks import raise_any
from lrexp.data.files import read_text
from lrexp.errors import NOTHING, ConfigError, Problem

PATH = "data.args.path"
MOST_PROBLEMS = 10  # of columns
_MOST_PROBLEMS = 3  # of rows
_LONG_NAME = 60


@dataclass(frozen=True)
class Cells:
    """A file as text, by column, with the line that each row ends in."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def where(self, row: int) -> str:
        """Return `FILE:LINE` of a row."""
        return f"{self.path.name}:{self.lines[row]}"


def read_cells(path: object, delimiter: object) -> Cells:
    """Return the cells of a UTF-8 file; blank lines are left out.

    Raises:
        ConfigError: for an unreadable file, a name that the header has twice, rows of another
            length than the header, unbalanced quotes, a cell that is too long, no rows.

    Example:
        >>> read_cells("houses.csv", ";").columns["price"]  # doctest: +SKIP
        ['120000', '99500']
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n\0':
        what = "must be one character"
        raise ConfigError.single("data.args.delimiter", what, delimiter, 'E.g. ";" or "\\t".')
    path, text = read_text(path)
    written = io.StringIO(text, newline="").readlines()
    reader = csv.reader(written, delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if row:  # a blank line is no row
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        began = lines[-1] + 1 if lines else 1
        raise _unreadable(path, error, began, reader.line_num) from None
    header = [name.strip() for name in rows[0]]
    problems = _header_problems(path, header) or _ragged(path, rows, lines, written)
    raise_any(*problems)
    if len(rows) == 1:
        what = "has a header and no rows"
        raise ConfigError.single(PATH, what, str(path), "Give a file with data below its header.")
    columns = (list(column) for column in zip(*rows[1:], strict=True))
    return Cells(path, dict(zip(header, columns, strict=True)), lines[1:])


def _unreadable(path: Path, error: csv.Error, began: int, line: int) -> ConfigError:
    """Return what stopped Python's reader, in the row that began and came as far as `line`."""
    if "field larger than" not in str(error):
        what = f"is not valid CSV at {path.name}:{line}: {error}"
        return ConfigError.single(PATH, what, str(path), "Mend the quotes there.")
    what = f"has a cell of more than {csv.field_size_limit():,} characters at {path.name}:{began}"
    remedy = "Shorten it."
    if line > began:  # or a cell of many lines
        remedy = "Shorten it, or close the quote that it begins with."
    return ConfigError.single(PATH, what, str(path), remedy)


def _header_problems(path: Path, header: list[str]) -> list[Problem]:
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if not twice:
        return []
    shown = ", ".join(map(quoted, twice[:_MOST_PROBLEMS]))
    what = f"must name each column once; {path.name} has {shown} more than once"
    return [Problem(PATH, what, str(path), "Rename the columns in the first line.")]


def _ragged(
    path: Path, rows: list[list[str]], lines: list[int], written: list[str]
) -> list[Problem]:
    """Return the problems with rows of another length than the header: a few, and how many more."""
    length = len(rows[0])
    wrong = [(row, line) for row, line in zip(rows, lines, strict=True) if len(row) != length]
    remedy = "Mend the row, or quote cells that contain the delimiter."
    problems = [
        Problem(
            PATH,
            f"{path.name}:{line} has {_count(row)}, the header {length}",
            written[line - 1].rstrip("\r\n"),
            remedy,
        )
        for row, line in wrong[:_MOST_PROBLEMS]
    ]
    more = len(wrong) - _MOST_PROBLEMS
    if more > 0:
        what = f"{path.name} has {more} more such row{'s' if more > 1 else ''}"
        problems.append(Problem(PATH, what, NOTHING, "Check data.args.delimiter too."))
    return problems


def _count(row: list[str]) -> str:
    return f"{len(row)} cell{'s' if len(row) > 1 else ''}"


def quoted(name: object) -> str:
    """Return the name of a column for a message, which a long one would fill."""
    text = repr(name)
    return text if len(text) <= _LONG_NAME else f"{text[:_LONG_NAME]}..."
