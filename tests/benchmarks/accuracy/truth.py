"""The truth of the long half: what every LR of its dense grids came to, kept beside the code.

One JSON per workload, a few kB. A loss that was not finite is null. A file with another key is an
error, not computed anew by chance: to remake it is a command of its own.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "truth"
DIGITS = 5


def read(file: Path, key: str) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of a file.

    Raises:
        ValueError: it is of another definition of the workload.
    """
    tree = json.loads(file.read_text(encoding="utf-8"))
    if tree.pop("key") != key:
        raise ValueError(f"{file} is of another definition: remake it with --remake-truth.")
    return {name: np.array(_numbers(values)) for name, values in tree.items()}


def write(file: Path, key: str, arrays: dict[str, NDArray[np.float64]]) -> None:
    tree = {"key": key} | {name: _rounded(values.tolist()) for name, values in arrays.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in tree.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return math.inf if value is None else value
