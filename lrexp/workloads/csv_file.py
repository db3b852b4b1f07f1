"""A CSV file with a target column: rows of text, then numbers, then a table.

Every problem of the cells is collected and named by file, line and column. Nothing is guessed
away: an empty cell, a stray word or an infinite number stops the reading.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from lrexp.errors import NOTHING, ConfigError, Problem, did_you_mean
from lrexp.schedules.signatures import checked, require
from lrexp.workloads.table import Rows, Table
from lrexp.workloads.text import read_text

PATH = "data.args.path"
MOST_PROBLEMS = 10  # of columns
_MOST_PROBLEMS = 3  # of rows
_LONGEST_NAME = 60


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
    require(*problems)
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
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


_TARGET = "data.args.target"
# A target of whole numbers with no more distinct values than this is taken for classes.
_MOST_CLASSES = 20
# Columns that a misspelt name is compared with, those that are named, and letters of each.
_MOST_COMPARED, _MOST_NAMED, _LONG_NAME = 1_000, 30, 60

Task: TypeAlias = Literal["regression", "classification"]


def csv_file(
    path: str,
    target: str,
    features: Sequence[str] | None = None,
    delimiter: str = ",",
    task: Task | None = None,
) -> Table:
    """Return the columns of a CSV file as standardised features and a target.

    Features are standardised by the training rows, and so is the target of a regression. Classes
    are numbered in sorted order.

    Args:
        path: a UTF-8 file whose first line names the columns.
        target: the column to predict.
        features: numeric columns to predict it from; all others but the target if not given.
        delimiter: the character between two cells.
        task: `regression` or `classification`. Not given, a target of text is classification, and
            so is one of whole numbers with at most 20 distinct values that repeat.

    Raises:
        ConfigError: with file, line and column of all that cannot be used.

    Example:
        >>> csv_file("houses.csv", target="price", delimiter=";")  # doctest: +SKIP
    """
    import torch

    columns = _read(path, target, features, delimiter, task)
    inputs, targets = torch.from_numpy(columns.inputs), torch.from_numpy(columns.targets)
    if columns.is_class:
        num_classes = int(targets.max()) + 1
        return Table(inputs, targets, num_classes, standardise_inputs=True)
    return Table(inputs, targets[:, None], standardise_inputs=True, standardise_targets=True)


def csv_rows(
    path: str,
    target: str,
    features: Sequence[str] | None = None,
    delimiter: str = ",",
    task: Task | None = None,
) -> Rows:
    """Return how many there are, of a file that can be used; the arguments are as of `csv_file`."""
    return Rows(len(_read(path, target, features, delimiter, task).targets))


@dataclass(frozen=True)
class _Columns:
    inputs: np.ndarray  # (rows, features)
    targets: np.ndarray  # (rows,)
    is_class: bool


@checked("data.args")
def _read(
    path: object, target: Any, features: object, delimiter: object, task: Task | None
) -> _Columns:
    """Return the columns of a file that can be used, as numbers."""
    cells = read_cells(path, delimiter)
    names = _feature_names(cells, target, features)
    columns, problems = [], []
    for name in names:
        values, wrong = _numbers(cells, name, "data.args.features")
        columns.append(values)
        problems += wrong
    is_class = task == "classification" or (task is None and _looks_like_classes(cells, target))
    labels, wrong = _classes(cells, target) if is_class else _numbers(cells, target, _TARGET)
    require(*_first_of(problems, "column", "data.args.features"), *wrong)
    return _Columns(np.stack(columns, axis=1), labels, is_class)


def _feature_names(cells: Cells, target: object, features: object) -> list[str]:
    known = cells.columns
    problems = [_unknown_column(cells, _TARGET, target)]
    if features is None:
        names = [name for name in known if name != target]
        if "" in names:
            what = f"has a column without a name in {cells.path.name}"
            remedy = "Name it in the first line, or list the columns in data.args.features."
            problems.append(Problem(PATH, what, str(cells.path), remedy))
        if not names:
            what = "leaves no column to predict it from"
            problems.append(Problem(_TARGET, what, target, "Add feature columns to the file."))
    elif isinstance(features, list | tuple) and features:
        names = list(features)
        problems += islice(_feature_problems(cells, target, names), MOST_PROBLEMS)
    else:
        what = "must be a list of column names"
        raise ConfigError.single("data.args.features", what, features, "E.g. [width, height].")
    require(*problems)
    return names


def _feature_problems(cells: Cells, target: object, names: list[Any]) -> Iterator[Problem]:
    seen: set[str] = set()
    for number, name in enumerate(names):
        key = f"data.args.features[{number}]"
        unknown = _unknown_column(cells, key, name)
        if unknown is not None:
            yield unknown
        elif name == target or name in seen:
            what = "is the target" if name == target else "is there twice"
            yield Problem(key, what, name, "Remove it from the features.")
        else:
            seen.add(name)


def _first_of(problems: list[Problem], what: str, key: str) -> list[Problem]:
    """Return the first problems, and how many more there are."""
    more = len(problems) - MOST_PROBLEMS
    if more <= 0:
        return problems
    said = f"{more:,} more {what}{'s' if more > 1 else ''} cannot be used"
    return [*problems[:MOST_PROBLEMS], Problem(key, said, NOTHING, "Check the file.")]


def _unknown_column(cells: Cells, key: str, name: object) -> Problem | None:
    if isinstance(name, str) and name in cells.columns:
        return None
    known = [column[:_LONG_NAME] for column in islice(cells.columns, _MOST_COMPARED)]
    remedy = did_you_mean(str(name)[:_LONG_NAME], known)
    if remedy.startswith("Known") and len(cells.columns) > _MOST_NAMED:
        remedy = f"It has {len(cells.columns):,}: {', '.join(known[:_MOST_NAMED])}, ..."
    only = next(iter(cells.columns))
    found = next((mark for mark in ";\t|," if mark in only), None)
    if len(cells.columns) == 1 and found:
        remedy = f"Its cells seem to be separated by {found!r}: set data.args.delimiter."
    return Problem(key, f"is no column of {cells.path.name}", name, remedy)


def _numbers(cells: Cells, name: str, key: str) -> tuple[np.ndarray, list[Problem]]:
    """Return a column as float64, and what is wrong with it (its first bad cell)."""
    column = cells.columns[name]
    if all(map(_is_plain, column)):
        try:
            values = np.array(column, dtype=np.float64)
            if np.isfinite(values).all():
                return values, []
        except ValueError:
            pass
    row = next(row for row, cell in enumerate(column) if not _is_finite(cell))
    what = f"column {quoted(name)} must hold finite numbers; {cells.where(row)} does not"
    return np.zeros(len(column)), [Problem(key, what, column[row], _remedy(column[row], key))]


def _remedy(cell: str, key: str) -> str:
    if not cell.strip():
        return "Fill the cell or remove the row."
    if key == _TARGET:
        return (
            "Write plain numbers, without separators or units; if they are classes, take a loss of "
            "classes and set data.args.task: classification."
        )
    return "Mend the cell, or list the numeric columns in data.args.features."


def _is_plain(cell: str) -> bool:
    """Return whether a cell may hold a number as spreadsheets write it.

    Python also reads 1_0 and the digits of every script; pandas and spreadsheets take these for
    text, and in a column of numbers they are rather a mistake.
    """
    return "_" not in cell and cell.strip().isascii()


def _is_finite(cell: str) -> bool:
    try:
        return _is_plain(cell) and math.isfinite(float(cell))
    except ValueError:
        return False


def _looks_like_classes(cells: Cells, target: str) -> bool:
    column = cells.columns[target]
    whole = [_whole(cell) for cell in column]
    if None not in whole:
        return len(set(whole)) <= min(_MOST_CLASSES, len(column) - 1)
    return not any(_is_number(cell) for cell in column)


def _classes(cells: Cells, target: str) -> tuple[np.ndarray, list[Problem]]:
    """Return a column as class numbers, in the sorted order of its values, and what is wrong."""
    column = [cell.strip() for cell in cells.columns[target]]
    problems = []
    if "" in column:
        what = (
            f"column {quoted(target)} must name a class; {cells.where(column.index(''))} does not"
        )
        problems.append(Problem(_TARGET, what, "", "Fill the cell or remove the row."))
    whole = [_whole(cell) for cell in column]
    labels: list[Any] = column if None in whole else whole
    # not np.unique: its array of text has the longest cell's width in every row, and its whole
    # numbers of more than 64 bits are rounded
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    if len(numbers) < 2:
        what = f"must have at least two classes; column {quoted(target)} has one"
        problems.append(Problem(_TARGET, what, column[0], "Choose another target."))
    if len(numbers) > max(_MOST_CLASSES, len(labels) / 2):
        what = f"has {len(numbers)} different values in {len(labels)} rows, too many for classes"
        remedy = (
            "Choose another target, or a loss of numbers, e.g. mse_loss, with numbers as cells."
        )
        problems.append(Problem(_TARGET, f"column {quoted(target)} {what}", column[0], remedy))
    return np.array([numbers[label] for label in labels], dtype=np.int64), problems


def _whole(cell: str) -> int | None:
    try:
        return int(cell) if _is_plain(cell) else None
    except ValueError:
        return None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return _is_plain(cell)
