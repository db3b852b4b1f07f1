"""What the cells of a CSV column hold: numbers as people write them, dates, words, or classes.

A decimal mark is what reads every cell of a column. Where both marks do, and differ (1,234), the
other columns of the file decide, then its delimiter; where these do not tell, it is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from lrexp.errors import ConfigError, Problem
from lrexp.workloads.csv_text import Cells, quoted
from lrexp.workloads.table import OriginalUnit

Task: TypeAlias = Literal["regression", "classification"]
Transform: TypeAlias = Literal["standard", "log", "none"]

TARGET = "data.args.target"
# A target of whole numbers with no more distinct values than this is taken for classes, where the
# loss does not tell.
_MOST_CLASSES = 20
_DATES_SEEN = 50  # cells that are looked at
_DIGIT, _WHOLE = re.compile("[0-9]"), re.compile(r"([+-]?[0-9]{1,4000})(?:\.0*)?")
# What pandas takes for an empty cell, in small letters.
_EMPTY = frozenset({"", "na", "n/a", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na", "nat"})
_UNITS = "€$£¥%"
_UNIT = re.compile(rf"([+-]?)([{_UNITS[:-1]}]?)\s*(.*?)\s*([{_UNITS}]?)")
# A group of thousands does not begin with 0: 0.123 and 0,123 have a decimal mark.
_FORM = (
    r"[+-]?(?:(?:(?:[1-9][0-9]{{0,2}}(?:[{group} '’\u00a0\u202f][0-9]{{3}})+|[0-9]+)"
    r"(?:\{mark}[0-9]*)?|\{mark}[0-9]+)(?:[eE][+-]?[0-9]+)?|(?i:inf|infinity))"
)
_GROUPS = {".": ",", ",": "."}  # decimal mark -> what may group thousands
_FORMS = {m: re.compile(_FORM.format(group=g, mark=m)) for m, g in _GROUPS.items()}
_PLAIN = {
    m: str.maketrans({m: ".", **dict.fromkeys(f"{g} '’\u00a0\u202f")}) for m, g in _GROUPS.items()
}
_DATE = re.compile(
    r"[0-9][-/.][0-9]{1,2}[-/.][0-9]|[0-9]:[0-9]{2}|"
    r"(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
)


def number_of(cell: str, mark: str) -> float:
    """Return the number that a cell holds with this decimal mark, NaN where it holds none.

    Example:
        >>> number_of("1.234,5", ","), number_of("1,234", "."), number_of("1,5", ".")
        (1234.5, 1234.0, nan)
    """
    return float(cell.translate(_PLAIN[mark])) if _FORMS[mark].fullmatch(cell) else math.nan


class Column:
    """The cells of one column, and what they may be.

    Args:
        name: of the column.
        cells: text without spaces around it.

    Example:
        >>> Column("a", ["1,5", "", "2"]).marks
        [',']
    """

    def __init__(self, name: str, cells: Sequence[str]) -> None:
        self.name = name
        self.cells = cells
        self.empty = np.array([len(c) < 5 and c.lower() in _EMPTY for c in cells], dtype=bool)
        self.held = [cell for cell, empty in zip(cells, self.empty, strict=True) if not empty]
        bodies, self.unit = _without_unit(self.held)
        self._bodies = [body.replace("\u2212", "-") for body in bodies]  # the minus sign of print
        text = "".join(self._bodies)
        self._has_commas, has_points = "," in text, "." in text
        self.has_marks = self._has_commas or has_points

    @cached_property
    def marks(self) -> list[str]:
        """The decimal marks that read every cell."""
        tried = _FORMS if self.has_marks else (".",)
        found = [mark for mark in tried if all(map(_FORMS[mark].fullmatch, self._bodies))]
        return found if self.has_marks else found * 2

    @cached_property
    def is_number(self) -> bool:
        """Whether at least half of the cells that hold something are numbers: others are slips."""
        return 2 * max(map(self._count, _FORMS)) >= len(self.held) > 0

    def mark(self, of_file: str | None, delimiter: str) -> str | None:
        """Return the decimal mark, None where nothing tells it.

        Args:
            of_file: what the other columns agree on.
            delimiter: a file has semicolons because its commas are decimal marks.
        """
        if len(self.marks) < 2:
            return max(_FORMS, key=self._count)
        if not self.has_marks or np.array_equal(self._read("."), self._read(",")):
            return "."
        if of_file or self._has_commas:
            return of_file or {",": ".", ";": ","}.get(delimiter)
        # 950 beside 1.200: three decimals, or none, are rarer than thousands
        are_mixed = delimiter != "," and any("." not in body for body in self._bodies)
        return None if are_mixed else "."

    def numbers(self, mark: str) -> np.ndarray:
        """Return the column as numbers, NaN where a cell is empty."""
        values = np.full(len(self.cells), math.nan)
        values[~self.empty] = self._read(mark)
        return values

    def words(self, mark: str) -> str:
        """Return how its numbers are written, where that is not plain."""
        comma = ["with decimal commas"] if mark == "," and self.marks == [","] else []
        return ", ".join(["numbers", *comma, *([f"in {self.unit}"] if self.unit else [])])

    @cached_property
    def holds_dates(self) -> bool:
        """Whether all of the first cells are dates or times."""
        some = list(dict.fromkeys(self.held))[:_DATES_SEEN]
        if not some or not all(_DATE.search(c) and _DIGIT.search(c) and len(c) < 40 for c in some):
            return False
        import pandas as pd

        return bool(pd.to_datetime(some, errors="coerce", format="mixed", utc=True).notna().all())

    def _read(self, mark: str) -> np.ndarray:
        """Return the cells that hold something as numbers, NaN of one that is none."""
        return np.array([number_of(body, mark) for body in self._bodies])

    def _count(self, mark: str) -> int:
        if mark in self.marks:
            return len(self._bodies)
        return sum(map(bool, map(_FORMS[mark].fullmatch, self._bodies)))


def _without_unit(held: list[str]) -> tuple[list[str], str]:
    """Return cells without their sign of currency or per cent, where it is one in all of them."""
    if not held or not any(unit in held[0] for unit in _UNITS):
        return held, ""
    parts = [found.groups() for cell in held if (found := _UNIT.fullmatch(cell))]
    units = {front + behind for _, front, _, behind in parts}
    if len(parts) < len(held) or len(units) > 1 or units & {"", *_UNITS} != units:
        return held, ""
    return [sign + body for sign, _, body, _ in parts], units.pop()


def mark_of_file(columns: Iterable[Column]) -> str | None:
    """Return the decimal mark that the columns agree on, None where they do not or do not tell."""
    found = {column.marks[0] for column in columns if len(column.marks) == 1}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Target:
    """The target of every row.

    Args:
        values: class numbers, -1 where there is none; or the numbers themselves; (rows,).
        classes: their names, sorted; none of numbers.
        how: the numbers were written.
    """

    values: np.ndarray
    classes: tuple[str, ...] = ()
    how: str = ""

    def of_rows(self, rows: np.ndarray) -> Target:
        """Return the target of some rows."""
        return replace(self, values=self.values[rows])

    def words(self, transform: str) -> str:
        """Return what it is, for people."""
        if not self.classes:
            made = {"standard": "standardised", "log": "its logarithm, standardised"}
            return f"{self.how}; {made.get(transform, 'as they are')}"
        shown = ", ".join(name[:20] for name in self.classes[:5])
        return f"{len(self.classes)} classes ({shown}{', ...' * (len(self.classes) > 5)})"

    def fitted(self, train: np.ndarray, transform: str) -> tuple[np.ndarray, OriginalUnit | None]:
        """Return the target as training sees it, and what takes it back to its own unit."""
        if self.classes:
            return self.values, None
        column = self.values[:, None]
        if transform == "none":
            return column, None
        if transform == "log":
            if column.min() <= 0:
                what = "needs a target above 0"
                key, remedy = "data.args.target_transform", "Use standard, or shift the target."
                raise ConfigError.single(key, what, f"{column.min():g}", remedy)
            column = np.log(column)
        from sklearn.preprocessing import StandardScaler

        with np.errstate(all="ignore"):  # too large ones are told by who called
            scaler = StandardScaler().fit(column[train])
            standard = scaler.transform(column)
        mean, sd = float(scaler.mean_[0]), float(scaler.scale_[0])
        return standard, OriginalUnit((mean,), (sd,), transform == "log")


def read_target(
    cells: Cells, column: Column, task: Task | None, mark: str | None
) -> Target | Problem:
    """Return the target column as classes or numbers, or what is wrong with it.

    Args:
        cells: of the file.
        column: the target.
        task: None guesses.
        mark: its decimal mark, None where nothing tells it.
    """
    if task is None:
        task = "classification" if _looks_like_classes(column) else "regression"
    if task == "classification":
        return _classes(cells, column)
    if mark is None:
        return ambiguous(cells, column, TARGET)
    values = column.numbers(mark)
    if (bad := bad_cell(cells, column, values)) is None:
        return Target(values, how=column.words(mark))
    remedy = "Mend the cell."
    if not column.is_number:
        remedy = (
            "If they are classes, take a loss of classes and set data.args.task: classification."
        )
    return Problem(TARGET, *bad, remedy)


def bad_cell(cells: Cells, column: Column, values: np.ndarray) -> tuple[str, str] | None:
    """Return what is wrong and the first cell that holds no finite number, None without one."""
    wrong = ~np.isfinite(values) & ~column.empty
    if not wrong.any():
        return None
    row = int(wrong.argmax())
    name, where = quoted(column.name), cells.where(row)
    return f"column {name} must hold finite numbers; {where} does not", column.cells[row]


def ambiguous(cells: Cells, column: Column, key: str) -> Problem:
    """Return the problem of a column whose commas may be decimal marks or group thousands."""
    row = next(i for i, cell in enumerate(column.cells) if "," in cell or "." in cell)
    name, where = quoted(column.name), cells.where(row)
    written = "commas" if "," in column.cells[row] else "points"
    what = f"column {name} may have decimal {written} or thousands, as {where}"
    return Problem(key, what, column.cells[row], 'Set data.args.decimal: "," or ".".')


def _looks_like_classes(column: Column) -> bool:
    whole = _whole(column.held)
    if whole is None or column.has_marks:
        return not column.is_number
    return len(set(whole)) <= min(_MOST_CLASSES, len(whole) - 1)


def _classes(cells: Cells, column: Column) -> Target | Problem:
    """Return class numbers, in the sorted order of the values; -1 of an empty cell."""
    held, name = column.held, quoted(column.name)
    labels: list[Any] = _whole(held) or held
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    if len(numbers) < 2:
        what = f"must have at least two classes; column {name} has {('none', 'one')[len(numbers)]}"
        return Problem(TARGET, what, held[0] if held else "", "Choose another target.")
    if len(numbers) == len(held) > 2 or len(numbers) > max(_MOST_CLASSES, len(held) / 2):
        row = int((~column.empty).argmax())
        what = (
            f"column {name} has {len(numbers):,} different values in {len(held):,} rows, too many "
            f"for classes, from {cells.where(row)} on"
        )
        remedy = "Choose another target."
        if column.is_number:
            remedy = (
                "For a number take a loss of numbers, e.g. mse_loss; data.args.task: regression "
                "says it where the loss does not."
            )
        return Problem(TARGET, what, held[0][:60], remedy)
    values = np.full(len(column.cells), -1, dtype=np.int64)
    values[~column.empty] = [numbers[label] for label in labels]
    return Target(values, tuple(map(str, numbers)))


def _whole(held: Sequence[str]) -> list[int] | None:
    """Return cells as whole numbers of any length, None where one is something else."""
    found = [_WHOLE.fullmatch(cell) for cell in held]
    return [int(one[1]) for one in found if one] if all(found) else None
