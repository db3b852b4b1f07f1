"""The built-in data by name, and what each tells of itself without being loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lrexp.data.csv_file import csv_file, csv_rows
from lrexp.data.sklearn_sets import (
    breast_cancer,
    breast_cancer_rows,
    diabetes,
    diabetes_rows,
    digits,
    digits_rows,
)
from lrexp.data.synthetic import linear, linear_rows, sine, sine_rows, spirals, spirals_rows
from lrexp.data.table import Table
from lrexp.data.text import TextWindows, text, text_windows

DATASETS: dict[str, Callable[..., Table | TextWindows]] = {
    "digits": digits,
    "diabetes": diabetes,
    "breast_cancer": breast_cancer,
    "linear": linear,
    "sine": sine,
    "spirals": spirals,
    "text": text,
    "csv": csv_file,
}


class Outline(Protocol):
    """What a source tells of itself: enough for durations in epochs and tokens."""

    @property
    def seq_len(self) -> int | None:
        """Tokens in a sample; None where samples are no sequences."""

    def num_train(self, val_fraction: float) -> int:
        """Return the samples that a split leaves for training."""


# Each takes the arguments of the data, refuses what it would refuse, and imports no torch.
OUTLINES: dict[str, Callable[..., Outline]] = {
    "digits": digits_rows,
    "diabetes": diabetes_rows,
    "breast_cancer": breast_cancer_rows,
    "linear": linear_rows,
    "sine": sine_rows,
    "spirals": spirals_rows,
    "text": text_windows,
    "csv": csv_rows,
}
