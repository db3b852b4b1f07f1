"""A CSV file as text: its encoding, its delimiter, its cells by column, and where each row ends.

Python's strict reader cuts the rows and says where one is wrong: pandas' own fills short rows up
and lets text stand behind a quote.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from lrexp.errors import NOTHING, ConfigError, Problem
from lrexp.schedules.signatures import require
from lrexp.workloads.text import read_bytes, require_content

PATH = "data.args.path"
_MOST_PROBLEMS = 3  # of rows
_LONGEST_NAME = 60
_DELIMITERS = ",;\t|"
_SAMPLE, _SAMPLED_LINES = 2**16, 100  # characters and lines that a delimiter is found by
_MARK_LINE = re.compile(r"sep=([^\r\n\"])\r?\n", re.IGNORECASE)  # a first line for Excel
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ENCODINGS = (
    "ascii", "big5", "cp", "euc", "gb", "hz", "iso", "johab", "koi8", "kz1048", "latin", "mac",
    "ptcp", "shift", "tis", "utf-8", "utf-16", "utf-32",
)  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """A file as text, by column, with the line that each row ends in."""

    path: Path
    columns: dict[str, list[str]]  # without spaces around them
    lines: list[int]
    delimiter: str
    encoding: str

    def where(self, row: int) -> str:
        """Return `FILE:LINE` of a row."""
        return f"{self.path.name}:{self.lines[row]}"


def read_cells(path: object, delimiter: object = "auto", encoding: object = "auto") -> Cells:
    """Return the cells of a file; blank lines are left out.

    Raises:
        ConfigError: for an unreadable file, a name that the header has twice, rows of another
            length than the header, unbalanced quotes, a cell that is too long, no rows.

    Example:
        >>> read_cells("houses.csv").columns["price"]  # doctest: +SKIP
        ['120000', '99500']
    """
    is_mark = isinstance(delimiter, str) and len(delimiter) == 1 and delimiter not in '"\r\n\0'
    if delimiter != "auto" and not is_mark:
        what = "must be one character, or auto"
        raise ConfigError.single("data.args.delimiter", what, delimiter, 'E.g. ";" or "\\t".')
    path, content = read_bytes(path)
    text, found = _decoded(path, content, encoding)
    mark = _delimiter_of(text) if delimiter == "auto" else str(delimiter)
    header, rows, lines = _rows(path, text, mark)
    if not lines:
        what = "has a header and no rows"
        raise ConfigError.single(PATH, what, str(path), "Give a file with data below its header.")
    columns = (list(map(str.strip, column)) for column in zip(*rows, strict=True))
    return Cells(path, dict(zip(header, columns, strict=True)), lines, mark, found)


def _rows(path: Path, text: str, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the header, the rows, and the line that each row ends in."""
    written = io.StringIO(text, newline="").readlines()
    reader = csv.reader(written, delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip()):  # a blank line is no row
                continue
            if not header:
                if reader.line_num == 1 and _MARK_LINE.match(text):
                    continue
                header = [name.strip() for name in row]
                continue
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        began = lines[-1] + 1 if lines else 2 if header else 1
        raise _unreadable(path, error, began, reader.line_num) from None
    require(*_ragged(path, len(header), rows, lines, written))
    if "" in header:  # what ends each line with a delimiter has an empty column
        held = [bool(name) or any(row[i].strip() for row in rows) for i, name in enumerate(header)]
        header, *rows = ([*compress(row, held)] for row in (header, *rows))
    require(*_header_problems(path, header))
    return header, rows, lines


def _decoded(path: Path, content: bytes, encoding: object) -> tuple[str, str]:
    """Return the text of a file and its encoding: UTF-8 or 16 by its marks, else Windows' own."""
    if encoding != "auto":
        return _as_asked(path, content, encoding)
    name = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "")
    if not name and b"\0" in content[:1000]:
        remedy = "Set data.args.encoding, e.g. utf-16-le, where it is text."
        raise ConfigError.single(PATH, "holds zero bytes as no text does", str(path), remedy)
    name = name or ("utf-8" if _fits(content, "utf-8") else "cp1252")
    try:
        return require_content(path, content.decode(name)), name
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
    what = f"is neither UTF-8 nor Windows text: byte {byte:#04x} in line {line}"
    remedy = "Set data.args.encoding, e.g. shift_jis."
    raise ConfigError.single(PATH, what, str(path), remedy)


def _fits(content: bytes, encoding: str) -> bool:
    try:
        return content.decode(encoding) is not None
    except UnicodeDecodeError:
        return False


def _as_asked(path: Path, content: bytes, encoding: object) -> tuple[str, str]:
    key = "data.args.encoding"
    try:
        name = codecs.lookup(str(encoding)).name
    except (LookupError, ValueError):
        name = ""
    if not name.startswith(_ENCODINGS):  # Python has others, which do anything: zip, idna
        remedy = "E.g. utf-8, utf-16, cp1252 or shift_jis; auto looks at the file."
        raise ConfigError.single(key, "is no encoding of text", encoding, remedy)
    try:
        return require_content(path, content.decode(name).removeprefix("\ufeff")), name
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"does not fit {path.name}: byte {content[error.start]:#04x} in line {line}"
        remedy = "Leave it out, or choose another."
        raise ConfigError.single(key, what, encoding, remedy) from None


def _delimiter_of(text: str) -> str:
    """Return the delimiter that cuts the first rows into the same number of cells, the most."""
    if said := _MARK_LINE.match(text):
        return said[1]
    sample = io.StringIO(text[:_SAMPLE], newline="").readlines()[:_SAMPLED_LINES]

    def fit(mark: str) -> tuple[float, int]:
        sizes: list[int] = []
        with suppress(csv.Error):
            sizes.extend(len(row) for row in csv.reader(sample, delimiter=mark) if row)
        if not sizes or sizes[0] < 2:
            return 0.0, 0
        sizes = sizes[:-1] if len(text) > _SAMPLE and len(sizes) > 1 else sizes  # it may be cut off
        return sizes.count(sizes[0]) / len(sizes), sizes[0]

    return max(_DELIMITERS, key=fit)


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
    path: Path, length: int, rows: list[list[str]], lines: list[int], written: list[str]
) -> list[Problem]:
    """Return the problems with rows of another length than the header: a few, and how many more."""
    wrong = [(len(row), line) for row, line in zip(rows, lines, strict=True) if len(row) != length]
    remedy = "Mend the row, or quote cells that contain the delimiter."
    problems = [
        Problem(
            PATH,
            f"{path.name}:{line} has {cells} cell{'s' * (cells > 1)}, the header {length}",
            written[line - 1].rstrip("\r\n"),
            remedy,
        )
        for cells, line in wrong[:_MOST_PROBLEMS]
    ]
    more = len(wrong) - _MOST_PROBLEMS
    if more > 0:
        what = f"{path.name} has {more} more such row{'s' * (more > 1)}"
        problems.append(Problem(PATH, what, NOTHING, "Check data.args.delimiter too."))
    return problems


def quoted(name: object) -> str:
    """Return the name of a column for a message, which a long one would fill."""
    text = repr(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
