"""What built-in data tells of its size without being loaded: just what loading it finds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lrexp.errors import ConfigError, Problem
from lrexp.workloads.builtin_data import DATASETS, OUTLINES, told_size
from lrexp.workloads.loading import load_data
from lrexp.workloads.table import Size

FRACTIONS = (None, 0.0, 0.2, 0.5, 0.93)
ARGS: dict[str, list[dict[str, Any]]] = {
    "digits": [{}, {"image": True}],
    "diabetes": [{}],
    "breast_cancer": [{}],
    "linear": [{}, {"samples": 37, "features": 2}],
    "sine": [{}, {"samples": 50, "noise": 0}],
    "spirals": [{}, {"classes": 2, "samples": 101, "seed": 3}],
    "text": [
        {"path": "text.txt"},
        {"path": "text.txt", "seq_len": 1},
        {"path": "text.txt", "seq_len": 20},
    ],
    "csv": [
        {"path": "rows.csv", "target": "y"},
        {"path": "rows.csv", "target": "x", "features": ["y"], "task": "regression"},
    ],
}
WRONG: list[tuple[str, dict[str, Any], float]] = [
    ("digits", {"image": "yes"}, 0.2),
    ("digits", {}, 1.0),
    ("diabetes", {}, -0.1),
    ("breast_cancer", {}, 0.0001),
    ("linear", {"samples": 1}, 0.2),
    ("linear", {"features": 0, "noise": -1}, 0.2),
    ("sine", {"seed": -1}, 0.2),
    ("spirals", {"classes": 1, "samples": 0}, 0.2),
    ("spirals", {"classes": 9, "samples": 8}, 0.2),
    ("linear", {"samples": 20}, 0.2),  # less than a batch of 64
    ("text", {"path": "none.txt"}, 0.2),
    ("text", {"path": "text.txt", "seq_len": 0}, 0.2),
    ("text", {"path": "text.txt", "seq_len": 5000}, 0.2),
    ("text", {"path": "text.txt", "seq_len": 300}, 0.02),  # fits training alone
    ("text", {"path": "latin.txt"}, 0.2),
    ("csv", {"path": "none.csv", "target": "y"}, 0.2),
    ("csv", {"path": "rows.csv", "target": "z"}, 0.2),
    ("csv", {"path": "words.csv", "target": "y"}, 0.2),
    ("csv", {"path": "rows.csv", "target": "y", "task": "guess"}, 0.2),
    ("csv", {"path": "rows.csv", "target": "y", "delimiter": ";;"}, 0.2),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("ab é€𝄞 one two three\n" * 90, encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1") * 400)
    rows = "".join(f"{i},{i * 0.5}\n" for i in range(301))
    (tmp_path / "rows.csv").write_text(f"x,y\n{rows}\n")  # the last line is blank
    (tmp_path / "words.csv").write_text("x,y\n1,2\nthree,4\n")
    return tmp_path


def at(folder: Path, args: dict[str, Any]) -> dict[str, Any]:
    return {**args, "path": str(folder / args["path"])} if "path" in args else args


def loaded_size(name: str, args: dict[str, Any], **options: Any) -> Size:
    return load_data(DATASETS[name], args, **options).size


def found_by(find: Callable[[], Size | None]) -> Size | list[Problem] | None:
    """Return the size, or what is wrong."""
    try:
        return find()
    except ConfigError as error:  # too little is left for a batch, or a window
        return list(error.problems)


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("name", DATASETS)
def test_told_is_what_is_loaded(name: str, fraction: float | None, folder: Path) -> None:
    sizes = 0
    for given in ARGS[name]:
        args = at(folder, given)
        for batch_size, in_memory in ((None, True), (3, True), (3, False)):
            options: dict[str, Any] = {"batch_size": batch_size, "val_fraction": fraction}
            told = found_by(partial(told_size, name, args, **options))
            load = partial(loaded_size, name, args, in_memory=in_memory, **options)
            assert told == found_by(load)
            sizes += isinstance(told, Size)
    assert sizes > 0


@pytest.mark.parametrize(("name", "args", "fraction"), WRONG)
def test_what_is_wrong_is_told_in_the_same_words(
    name: str, args: dict[str, Any], fraction: float, folder: Path
) -> None:
    args = at(folder, args)
    with pytest.raises(ConfigError) as loaded:
        load_data(DATASETS[name], args, batch_size=64, val_fraction=fraction)
    with pytest.raises(ConfigError) as told:
        told_size(name, args, batch_size=64, val_fraction=fraction)
    assert told.value.problems == loaded.value.problems


def test_every_built_in_source_tells_its_size() -> None:
    assert list(OUTLINES) == list(DATASETS) == list(ARGS)
    assert told_size("MNIST", {"root": "data"}) is None
