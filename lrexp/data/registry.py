"""The built-in data by name."""

from __future__ import annotations

from collections.abc import Callable

from lrexp.data.csv_file import csv_file
from lrexp.data.sklearn_sets import breast_cancer, diabetes, digits
from lrexp.data.synthetic import linear, sine, spirals
from lrexp.data.table import Table
from lrexp.data.text import TextWindows, text

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
