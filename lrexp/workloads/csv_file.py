"""A CSV file with a target column: which columns are used, what each holds, what is made of it.

Every problem of the cells is collected and named by file, line and column. What is made of a
column is fitted on the rows for training alone, by scikit-learn, and told in `Parts.done`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from lrexp.errors import NOTHING, ConfigError, Problem, did_you_mean
from lrexp.schedules.signatures import checked, require
from lrexp.workloads.csv_columns import (
    TARGET,
    Column,
    Target,
    Task,
    Transform,
    ambiguous,
    bad_cell,
    mark_of_file,
    read_target,
)
from lrexp.workloads.csv_text import PATH, Cells, quoted, read_cells
from lrexp.workloads.splits import KEY as SPLIT
from lrexp.workloads.splits import Split, num_val_of, sides_of, split_rows
from lrexp.workloads.table import Parts

if TYPE_CHECKING:
    import pandas as pd

_FEATURES = "data.args.features"
MOST_PROBLEMS = 10  # of columns
# Columns that a misspelt name is compared with, those that are named, and letters of each.
_MOST_COMPARED, _MOST_NAMED, _LONG_NAME = 1_000, 30, 60
# Text columns: the rarest of more categories share one; more than these, and than half of the
# rows, are names or numbers of single rows.
_MOST_CATEGORIES, _FEW_TEXTS = 50, 20
_MOST_BYTES = 4 * 2**30  # of all features, as numbers

Decimal: TypeAlias = Literal["auto", ".", ","]
Categories: TypeAlias = Literal["onehot", "codes"]
Missing: TypeAlias = Literal["impute", "drop"]


@checked("data.args")
def csv_file(  # noqa: PLR0917  # the config gives them by name
    path: str,
    target: str,
    features: Sequence[str] | None = None,
    delimiter: str = "auto",
    task: Task | None = None,
    encoding: str = "auto",
    decimal: Decimal = "auto",
    categories: Categories = "onehot",
    missing: Missing = "impute",
    target_transform: Transform = "standard",
) -> CsvTable:
    """Return a CSV file as features and a target.

    Numbers are standardised, text becomes one column per category. An empty cell becomes the
    median, or the most frequent text, and a column of 0 and 1 says where. All of it is fitted on
    the rows for training. Classes are numbered in sorted order.

    Args:
        path: a file whose first line names the columns.
        target: the column to predict.
        features: columns to predict it from; all others but the target if not given.
        delimiter: the character between two cells; auto finds it.
        task: `regression` or `classification`. Not given, the loss decides; with a loss that says
            neither, text is classes, and so are whole numbers with at most 20 distinct values that
            repeat.
        encoding: of the text; auto finds UTF-8, UTF-16 and cp1252.
        decimal: `.` or `,`; auto finds it. The other one may group thousands.
        categories: `codes` gives text as whole numbers from 1, for an embedding: a second input
            of the model. 0 is a text that the rows for training do not have.
        missing: `drop` leaves out rows with an empty cell.
        target_transform: of a number: `log` standardises its logarithm, `none` leaves it as it is.

    Raises:
        ConfigError: with file, line and column of all that cannot be used.

    Example:
        >>> csv_file("houses.csv", target="price")  # doctest: +SKIP
    """
    cells = read_cells(path, delimiter, encoding)
    require(*filter(None, [_unknown_column(cells, TARGET, target)]))
    return CsvTable(cells, target, features, task, decimal, categories, missing, target_transform)


@dataclass(frozen=True)
class _Used:
    """The rows and columns that are used, NaN where a cell is empty."""

    numbers: pd.DataFrame
    texts: pd.DataFrame
    target: Target
    sides: list[str] | None  # the cells of the column that splits
    done: dict[str, str] = field(default_factory=dict)  # column -> what is made of it, so far

    def __len__(self) -> int:
        return len(self.target.values)


@dataclass(frozen=True, eq=False)
class CsvTable:
    """A file that is read and not yet split; see `csv_file` for what it is made with."""

    cells: Cells
    target: str
    features: Any
    task: Task | None
    decimal: Decimal
    categories: Categories
    missing: Missing
    target_transform: Transform
    seq_len: int | None = None  # rows are no sequences

    def num_train(self, val_fraction: float, split: Split | None = None) -> int:
        """Return the rows that a split leaves for training, of a file that can be used."""
        split = split or Split()
        used = self._used(split)
        if split.by_column:
            return sides_of(split, used.sides or [], val_fraction).count("train")
        return len(used) - num_val_of(len(used), val_fraction, "samples")

    def split(self, val_fraction: float, split: Split | None = None) -> Parts:
        """Return the training and the validation part, fitted on the training part.

        Args:
            val_fraction: see `split_rows`.
            split: how the rows are split.
        """
        import torch

        split = split or Split()
        used = self._used(split)
        labels = used.target.values if used.target.classes else None
        rows = split_rows(len(used), val_fraction, split, labels=labels, cells=used.sides)
        train = rows[0].numpy()
        inputs = _fitted(used, train, self.categories)
        targets, original = used.target.fitted(train, self.target_transform)
        whole = [torch.from_numpy(np.array(values)) for values in (*inputs, targets)]
        if not all(bool(values.float().isfinite().all()) for values in whole):
            what, remedy = "has numbers that are too large to train with", "Scale them down."
            raise ConfigError.single(PATH, what, str(self.cells.path), remedy)
        sides = [tuple(values[side] for values in whole) for side in rows]
        return Parts(
            sides[0],
            sides[1] if len(rows[1]) else None,
            len(used.target.classes) or None,
            vocab_size=int(inputs[-1].max()) + 1 if inputs[-1].dtype == np.int64 else None,
            original=original,
            done={self.cells.path.name: self._file_words(used, split, len(train))} | used.done,
        )

    def _file_words(self, used: _Used, split: Split, num_train: int) -> str:
        cells = self.cells
        dropped = len(cells.lines) - len(used)
        words = [
            f"{len(cells.lines):,} rows, {cells.encoding}, delimiter {cells.delimiter!r}",
            *([f"{dropped:,} with empty cells left out"] if dropped else []),
            f"split {split}: {num_train:,} for training",
        ]
        return "; ".join(words)

    @cached_property
    def _columns(self) -> dict[str, Column]:
        return {}

    def _column(self, name: str) -> Column:
        if name not in self._columns:
            self._columns[name] = Column(name, self.cells.columns[name])
        return self._columns[name]

    def _used(self, split: Split) -> _Used:
        """Return what is used of the file; ConfigError with all that cannot be."""
        import pandas as pd

        if split.column is not None:
            require(*filter(None, [_unknown_column(self.cells, SPLIT, split.column)]))
        names = _feature_names(self.cells, self.target, self.features, split.column)
        columns = [self._column(name) for name in (*names, self.target)]
        of_file = mark_of_file(columns) if self.decimal == "auto" else self.decimal
        marks = {column.name: self._mark(column, of_file) for column in columns}
        found = {column.name: self._feature(column, marks[column.name]) for column in columns[:-1]}
        problems = [made for made in found.values() if isinstance(made, Problem)]
        target = read_target(self.cells, columns[-1], self.task, marks[self.target])
        empty = columns[-1].empty
        if isinstance(target, Target) and self.missing == "impute" and empty.any():
            target = _empty_target(self.cells, columns[-1], target)
        require(*_first_of(problems), *([target] if isinstance(target, Problem) else []))
        assert isinstance(target, Target)
        made = {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
        if not made:
            what = "leaves no column to predict it from"
            remedy = "Add feature columns to the file, or name those to use in data.args.features."
            raise ConfigError.single(TARGET, what, self.target, remedy)
        texts = {name: values for name, values in made.items() if values.dtype == object}
        numbers = {name: values for name, values in made.items() if name not in texts}
        done = {name: str(reason) for name, reason in found.items() if name not in made}
        done |= {name: self._column(name).words(marks[name] or ".") for name in numbers}
        done |= dict.fromkeys(texts, "text")
        if split.column is not None:
            done[split.column] = "says how rows are split"
        done[self.target] = f"the target: {target.words(self.target_transform)}"
        index = range(len(empty))
        used = _Used(
            pd.DataFrame(numbers, index),
            pd.DataFrame(texts, index, dtype=object),
            target,
            None if split.column is None else self.cells.columns[split.column],
            done,
        )
        if self.missing == "impute":
            return used
        gaps = used.numbers.join(used.texts).isna().any(axis=1).to_numpy()
        return _of_rows(used, ~(gaps | empty))

    def _mark(self, column: Column, of_file: str | None) -> str | None:
        if self.decimal != "auto":
            return self.decimal
        return column.mark(of_file, self.cells.delimiter)

    def _feature(self, column: Column, mark: str | None) -> np.ndarray | Problem | str:
        """Return a column as numbers or as text; else why it is left out, or what is wrong."""
        if not column.is_number:
            reason = self._not_a_category(column)
            return (
                np.where(column.empty, np.nan, np.array(column.cells, object))
                if reason is None
                else reason
            )
        if mark is None:
            return ambiguous(self.cells, column, _FEATURES)
        values = column.numbers(mark)
        remedy = "Mend the cell, or list the columns to use in data.args.features."
        bad = bad_cell(self.cells, column, values)
        return values if bad is None else Problem(_FEATURES, *bad, remedy)

    def _not_a_category(self, column: Column) -> Problem | str | None:
        """Return why a column of text is not used, None if it is."""
        held = column.held
        if not len(held):
            return "empty: left out"
        if column.holds_dates:
            where = self.cells.where(int((~column.empty).argmax()))
            what = f"column {quoted(column.name)} holds dates or times, from {where} on"
            remedy = (
                "Make numbers of them (days since the first, month, weekday), or list the columns "
                "to use in data.args.features."
            )
            return Problem(_FEATURES, what, held[0], remedy)
        distinct = len(set(held))
        if distinct <= max(_FEW_TEXTS, len(held) / 2):
            return None
        if self.features is None:
            return f"{distinct:,} texts in {len(held):,} cells, of single rows: left out"
        what = f"column {quoted(column.name)} has {distinct:,} texts in {len(held):,} cells"
        return Problem(_FEATURES, what, held[0][:_LONG_NAME], "Leave it out.")


def _empty_target(cells: Cells, column: Column, target: Target) -> Problem:
    row = int(column.empty.argmax())
    wanted = "name a class" if target.classes else "hold a number"
    what = f"column {quoted(column.name)} must {wanted}; {cells.where(row)} does not"
    remedy = "Fill the cell, remove the row, or set data.args.missing: drop."
    return Problem(TARGET, what, column.cells[row], remedy)


def _of_rows(used: _Used, is_kept: np.ndarray) -> _Used:
    """Return what is used of some rows; ConfigError where they are too few."""
    rows = np.flatnonzero(is_kept)
    if len(rows) < 2:
        what = f"has {len(rows)} rows without an empty cell"
        remedy = "Set data.args.missing: impute, or list the columns to use in data.args.features."
        raise ConfigError.single("data.args.missing", what, "drop", remedy)
    return replace(
        used,
        numbers=used.numbers.iloc[rows],
        texts=used.texts.iloc[rows],
        target=used.target.of_rows(rows),
        sides=None if used.sides is None else [used.sides[i] for i in rows],
    )


def _fitted(used: _Used, train: np.ndarray, categories: Categories) -> list[np.ndarray]:
    """Return the inputs, fitted on the rows for training.

    They are the numbers, 0 and 1 where a number and where a text is missing, and the categories,
    which as codes are an array of their own.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    numbers, texts = (_with_values(used, frame, train) for frame in (used.numbers, used.texts))
    encoder = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        max_categories=_MOST_CATEGORIES,
        sparse_output=False,
    )
    if categories == "codes":
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    else:
        _require_room(texts)
    gaps = MissingIndicator(error_on_new=False)
    scaled = make_union(make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), gaps)
    encoded = make_union(gaps, make_pipeline(SimpleImputer(strategy="most_frequent"), encoder))
    transformer = ColumnTransformer(
        [("numbers", scaled, list(numbers)), ("texts", encoded, list(texts))], sparse_threshold=0
    )
    frame = numbers.join(texts)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # categories that training does not have: meant
        whole = transformer.fit(frame.iloc[train]).transform(frame).astype(np.float64)
    for name in numbers:
        value = numbers[name].iloc[train].median()
        _tell(used, name, numbers[name], f"median ({value:.6g})", "standardised")
    for name in texts:
        known = texts[name].iloc[train]
        value, count = quoted(known.mode()[0]), known.nunique()
        made = f"{count} categories, {categories}"
        _tell(used, name, texts[name], f"most frequent ({value})", made)
    if categories == "codes" and len(texts.columns):
        width = whole.shape[1] - len(texts.columns)
        parts = [whole[:, :width], whole[:, width:].astype(np.int64) + 1]
        return [part for part in parts if part.shape[1]]
    return [whole]


def _with_values(used: _Used, frame: pd.DataFrame, train: np.ndarray) -> pd.DataFrame:
    """Return the columns that hold something in the rows for training."""
    empty = frame.columns[frame.iloc[train].isna().all()]
    used.done.update(dict.fromkeys(empty, "empty in all rows for training: left out"))
    return frame.drop(columns=empty)


def _tell(used: _Used, name: str, column: pd.Series, filled: str, made: str) -> None:
    count = int(column.isna().sum())
    gaps = [f"{count:,} empty: {filled}, and an indicator"] if count else []
    used.done[name] = "; ".join([used.done[name], *gaps, made])


def _require_room(texts: pd.DataFrame) -> None:
    """Refuse categories that would need more memory than any table of this kind does."""
    width = int(texts.nunique().clip(upper=_MOST_CATEGORIES).sum())
    if len(texts) * width * 8 > _MOST_BYTES:
        what = f"gives {width:,} columns of {len(texts):,} rows"
        remedy = "Set data.args.categories: codes, or list the columns in data.args.features."
        raise ConfigError.single("data.args.categories", what, "onehot", remedy)


def _feature_names(
    cells: Cells, target: object, features: object, splitting: str | None
) -> list[str]:
    known = cells.columns
    problems: list[Problem] = []
    if features is None:
        names = [name for name in known if name not in (target, splitting)]
        if "" in names:
            what = f"has a column without a name in {cells.path.name}"
            remedy = "Name it in the first line, or list the columns in data.args.features."
            problems.append(Problem(PATH, what, str(cells.path), remedy))
        if not names:
            what = "leaves no column to predict it from"
            problems.append(Problem(TARGET, what, target, "Add feature columns to the file."))
    elif isinstance(features, list | tuple) and features:
        names = list(features)
        problems += islice(_feature_problems(cells, target, names, splitting), MOST_PROBLEMS)
    else:
        what = "must be a list of column names"
        raise ConfigError.single(_FEATURES, what, features, "E.g. [width, height].")
    require(*problems)
    return names


def _feature_problems(
    cells: Cells, target: object, names: Sequence[Any], splitting: str | None
) -> Iterator[Problem]:
    seen: set[str] = set()
    for number, name in enumerate(names):
        key = f"data.args.features[{number}]"
        unknown = _unknown_column(cells, key, name)
        if unknown is not None:
            yield unknown
        elif name in (target, splitting) or name in seen:
            what = "is there twice" if name in seen else "says how rows are split"
            what = "is the target" if name == target else what
            yield Problem(key, what, name, "Remove it from the features.")
        else:
            seen.add(name)


def _first_of(problems: list[Problem]) -> list[Problem]:
    """Return the first problems, and how many more there are."""
    more = len(problems) - MOST_PROBLEMS
    if more <= 0:
        return problems
    said = f"{more:,} more column{'s' if more > 1 else ''} cannot be used"
    return [*problems[:MOST_PROBLEMS], Problem(_FEATURES, said, NOTHING, "Check the file.")]


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
