"""Results of trainings that lrexp did not run: tables of other programs, read for their verdicts.

A row is a training (long), or a pair with a column per variant (wide).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrexp.analysis.claims import Direction
from lrexp.errors import NOTHING, ConfigError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

FILE = "file"  # names the file of a row, where its table has no such column
VARIANT, VALUE = "variant", "value"  # of a table whose columns are variants
MOST_BYTES = 500_000_000
_LINES = (".jsonl", ".ndjson", ".json")
_NOTHING_TO_RANK = {"", "nan", "inf", "-inf", "+inf", "infinity", "-infinity", "diverged", "none"}
_RISING = (
    "acc", "auc", "f1", "score", "reward", "return", "bleu", "rouge", "precision", "recall", "r2",
)  # fmt: skip
_FALLING = (
    "loss", "error", "rmse", "mae", "mape", "mse", "perplexity", "ppl", "nll", "cost", "brier",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Results by variant, in the order of the files.

    Args:
        values: variant -> pair (or number of the training) -> metric; inf where it diverged.
        pair: the column that pairs the variants; None without one.
        notes: what a reader should know.
    """

    source: str
    metric: str
    values: dict[str, dict[str, float]]
    pair: str | None
    notes: tuple[str, ...] = ()


def read_results(
    files: Sequence[str | Path],
    by: str | None = None,
    metric: str | None = None,
    pair: str | None = None,
) -> Table:
    """Return what the tables of several files hold.

    Args:
        files: CSV (any delimiter), or JSON, an object per line.
        by: the column that names the variants; `file` is the name of the file. Without it every
            column of numbers is a variant (but `pair`).
        metric: the column of the result; not where columns are variants.
        pair: the column that fixes initial weights and batches, such as a seed.

    Raises:
        ConfigError: a file or column is not there, two rows are of one training, no variant has
            a partner.
    """
    if not files:
        raise ConfigError.single("FILE", "is missing", NOTHING, "Give a CSV or JSONL file.")
    frame = _frame([Path(file) for file in files])
    for option, column in (("by", by), ("metric", metric), ("pair", pair)):
        if column is not None and column not in frame.columns and (option, column) != ("by", FILE):
            remedy = did_you_mean(column, map(str, frame.columns))
            raise ConfigError.single(f"--{option}", "is no column", column, remedy)
    if by is not None and metric is None:
        known = [c for c in frame.columns if c not in (by, pair, FILE)]
        remedy = f"Give --metric with one of {', '.join(map(str, known[:10]))}."
        raise ConfigError.single("--metric", "is missing", NOTHING, remedy)
    source = ", ".join(map(str, files))
    if by is None or metric is None:
        return _table(_unfolded(frame, pair, metric), (VARIANT, VALUE, pair), source, VALUE)
    return _table(frame, (by, metric, pair), source, metric)


def direction_of(metric: str, given: str | None) -> Direction:
    """Return which values of a metric are better, by its name where it was not said.

    Example:
        >>> direction_of("val_loss", None), direction_of("top1_acc", None)
        ('min', 'max')
    """
    if given in ("min", "max"):
        return "min" if given == "min" else "max"
    if given is not None:
        raise ConfigError.single("--direction", "must be min or max", given, "A loss has min.")
    name = metric.lower()
    falls = name.startswith("neg_") is False and any(word in name for word in _FALLING)
    rises = name.startswith("neg_") or any(word in name for word in _RISING)
    if falls == rises:
        remedy = "Give --direction min where lower is better, else max."
        raise ConfigError.single("--direction", "cannot be told by the name", metric, remedy)
    return "min" if falls else "max"


def _frame(files: Sequence[Path]) -> pd.DataFrame:
    """Return the rows of all files as text, with the name of each row's file."""
    import pandas as pd

    frames = []
    for file in files:
        found = _read(file)
        if not len(found):
            raise ConfigError.single("FILE", "has no rows", str(file), "Give one with results.")
        frames.append(found if FILE in found.columns else found.assign(**{FILE: file.stem}))
    return pd.concat(frames, ignore_index=True, sort=False).fillna("")


def _read(file: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        if file.stat().st_size > MOST_BYTES:
            what = f"is larger than {MOST_BYTES:,} bytes"
            raise ConfigError.single("FILE", what, str(file), "Keep a row per training.")
        if file.suffix.lower() in _LINES:
            text = file.read_text(encoding="utf-8-sig")
            lines = filter(str.strip, text.splitlines())
            rows = json.loads(text) if text.lstrip()[:1] == "[" else list(map(json.loads, lines))
            return pd.json_normalize(rows).astype(object).map(_as_text)
        reads: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
        return pd.read_csv(file, sep=None, engine="python", **reads).map(str.strip)
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, pd.errors.ParserError) as error:
        what = f"cannot be read: {error}"
        raise ConfigError.single("FILE", what, str(file), "Give a CSV or JSONL file.") from None


def _as_text(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value)


def _unfolded(frame: pd.DataFrame, pair: str | None, metric: str | None) -> pd.DataFrame:
    """Return a wide table as a long one."""
    if metric is not None:
        what, remedy = "needs --by", "Add --by COLUMN, which names the variants."
        raise ConfigError.single("--metric", what, metric, remedy)
    columns = [c for c in frame.columns if c not in (pair, FILE) and _is_numeric(frame[c])]
    if len(columns) < 2:
        remedy = "Give --by and --metric for a row per training."
        raise ConfigError.single("FILE", "has no two columns of numbers", NOTHING, remedy)
    kept = [FILE] if pair is None else [pair]
    return frame.melt(kept, columns, var_name=VARIANT, value_name=VALUE)


def _is_numeric(column: pd.Series[str]) -> bool:
    known = [cell for cell in column if cell.lower() not in _NOTHING_TO_RANK]
    try:
        return bool([float(cell) for cell in known])
    except ValueError:
        return False


def _table(
    frame: pd.DataFrame, columns: tuple[str, str, str | None], source: str, name: str
) -> Table:
    by, metric, pair = columns
    values: dict[str, dict[str, float]] = {}
    for row, (variant, cell) in enumerate(zip(frame[by], frame[metric], strict=True)):
        known = values.setdefault(variant or "(empty)", {})
        key = str(len(known)) if pair is None else frame[pair].iloc[row]
        if key in known:
            remedy = "Keep one row per training, e.g. its last one."
            what = f"has two rows of {by}={variant} with {pair}={key}"
            raise ConfigError.single("FILE", what, NOTHING, remedy)
        known[key] = _number(cell, metric, row)
    if len(values) < 2:
        only = next(iter(values))
        remedy = f"All rows have {by}={only}: compare two at least."
        raise ConfigError.single("--by", "names one variant only", by, remedy)
    empty = int((frame[metric] == "").sum())
    notes = [f"{empty} rows have no {name}: counted as diverged."] if empty else []
    return Table(source, name, values, pair, tuple(notes))


def _number(cell: str, metric: str, row: int) -> float:
    if cell.lower() in _NOTHING_TO_RANK:
        return math.inf
    try:
        return float(cell)
    except ValueError:
        what = f"holds no number in row {row + 1} of {metric}"
        remedy = "Give numbers, or nan for a training that diverged."
        raise ConfigError.single("FILE", what, cell, remedy) from None
