"""How rows are split, and what a CSV file tells of itself: against sklearn, pandas and by hand."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn
from torch.utils.data import IterableDataset

import lrexp
from lrexp.errors import ConfigError
from lrexp.workloads.builtin_data import DATASETS, told_size
from lrexp.workloads.loading import data_from_objects, load_data
from lrexp.workloads.splits import Split, sides_of, split_rows

LABELS = np.array([0] * 80 + [1] * 20)


def test_last_is_the_end_in_its_order() -> None:
    train, val = split_rows(10, 0.3, Split("last"))
    assert (train.tolist(), val.tolist()) == (list(range(7)), [7, 8, 9])


def test_a_stratified_split_keeps_the_shares() -> None:
    train, val = split_rows(100, 0.2, Split("stratified"), labels=LABELS)
    assert LABELS[val].mean() == LABELS[train].mean() == 0.2
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(100))


@pytest.mark.parametrize(
    ("cells", "val", "expected"),
    [
        (["train", "val", "train"], (), "tvt"),
        (["Train", "test", "VALID"], (), "t-v"),
        (["train", "test"], (), "tv"),
        (["0", "10", "9", "10"], (), "tvtv"),
        (["0", "1", "2"], ("0", "1"), "vvt"),
        (["false", "true"], (), "tv"),
        (["1.0", "2.0", "4.0"], ("4",), "ttv"),
        (["holdout", "train", ""], ("holdout",), "vtt"),
    ],
)
def test_a_column_says_the_sides(cells: list[str], val: tuple[str, ...], expected: str) -> None:
    sides = sides_of(Split("column", "c", val), cells, 0.2)
    assert "".join("-" if side is None else side[0] for side in sides) == expected


@pytest.mark.parametrize(
    ("column", "cells", "val", "words"),
    [
        ("c", ["train", "val", "holdout"], (), "neither train nor val; 'c' has 'holdout'"),
        ("c", ["train", "val", ""], (), "neither train nor val"),
        ("c", ["0", "1", "2"], ("1", "22"), "leaves rows for both parts"),
        ("is_train", ["True", "False"], (), "{column: is_train, val: false}"),
        ("train", ["0", "1"], (), "{column: train, val: 0}"),
    ],
)
def test_a_column_that_does_not_say_the_sides(
    column: str, cells: list[str], val: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        sides_of(Split("column", column, val), cells, 0.2)
    assert words in str(caught.value)


def test_groups_stay_together() -> None:
    cells = [f"g{i % 10}" for i in range(100)]
    sides = sides_of(Split("groups", "c"), cells, 0.3)
    assert len(set(zip(cells, sides, strict=True))) == 10
    assert sides.count("val") == 30


@pytest.mark.parametrize("big", "abcde")
def test_a_group_of_most_rows_is_for_training(big: str) -> None:
    cells = [*"abcde", *[big] * 25]
    assert sides_of(Split("groups", "c"), cells, 0.1).count("val") == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("lats", "'last'?"),
        ({"fold": "x"}, "column: NAME"),
        ({"groups": "a"}, "has none"),
        ("stratified", "that are classes"),
    ],
)
def test_a_split_that_tensors_do_not_have(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.split") as caught:
        data_from_objects((torch.zeros(9, 1), torch.rand(9, 1)), val_fraction=0.3, split=given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "form", [torch.Tensor.long, torch.Tensor.float, torch.Tensor.bool, lambda y: y.float()[:, None]]
)
def test_whole_numbers_and_bools_are_classes_for_a_stratified_split(form: Any) -> None:
    y = form(torch.arange(40) % 4 == 0)  # a quarter of them
    data = data_from_objects(
        (torch.zeros(40, 1), y), val_fraction=0.2, split="stratified", batch_size=8
    )
    assert data.val is not None
    kept = torch.cat([batch[1] for batch in data.val.in_order()])
    assert (len(kept), int(kept.sum())) == (8, 2)


def table(folder: Path) -> tuple[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "m": rng.normal(80, 20, 60).round(1),
            "city": rng.choice(["Köln", "Bonn", "Ulm"], 60),
            "fold": np.arange(60) % 3,
            "euro": rng.gamma(4, 1000, 60).round(2) + 1,
        }
    )
    frame.loc[::7, "m"] = np.nan
    path = folder / "t.csv"
    frame.to_csv(path, sep=";", decimal=",", index=False, encoding="cp1252")
    return str(path), frame


@pytest.mark.parametrize("transform", ["standard", "log", "none"])
def test_all_is_fitted_on_the_training_part_alone(transform: str, tmp_path: Path) -> None:
    path, frame = table(tmp_path)
    args = {"path": path, "target": "euro", "target_transform": transform}
    options: dict[str, Any] = {"batch_size": 4, "split": {"column": "fold"}}
    data = load_data(DATASETS["csv"], args, **options)
    train, val = frame[frame.fold < 2], frame[frame.fold == 2]
    assert data.val is not None
    (inputs, targets), *_ = data.val.in_order()
    median = SimpleImputer(strategy="median").fit(train[["m"]].to_numpy())
    scaler = StandardScaler().fit(median.transform(train[["m"]].to_numpy()))
    encoder = OneHotEncoder(sparse_output=False).fit(train[["city"]])
    numbers = scaler.transform(median.transform(val[["m"]].to_numpy()))
    expected = np.hstack([numbers, val[["m"]].isna(), encoder.transform(val[["city"]])])
    np.testing.assert_allclose(inputs, expected, atol=1e-6)
    original = data.original or (lambda x: x)
    np.testing.assert_allclose(original(targets)[:, 0], val.euro, rtol=1e-5)
    assert pickle.loads(pickle.dumps(data.original)) == data.original
    assert data.done is not None
    assert set(data.done) == {"t.csv", "m", "fold", "euro", "city"}
    assert "cp1252" in data.done["t.csv"]
    assert told_size("csv", args, **options) == data.size


@pytest.mark.parametrize(
    ("task", "classes", "dtype"),
    [("classification", 6, torch.int64), ("regression", None, torch.float32)],
)
def test_the_loss_decides_what_the_target_is(
    task: str, classes: int | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    (tmp_path / "w.csv").write_text("a,q\n" + "".join(f"{i},{i % 6}\n" for i in range(60)))
    args = {"path": str(tmp_path / "w.csv"), "target": "q"}
    data = load_data(DATASETS["csv"], args | {"task": task}, batch_size=4)
    assert data.facts.num_classes == classes
    assert next(data.train.in_order())[1].dtype == dtype


def test_a_class_per_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("a,q\n" + "".join(f'{i},"{i + 1000:,}"\n' for i in range(60)))
    args = {"path": str(tmp_path / "w.csv"), "target": "q"}
    with pytest.raises(ConfigError, match=r"too many for classes.*data\.args\.task: regression"):
        load_data(DATASETS["csv"], args | {"task": "classification"})
    assert load_data(DATASETS["csv"], args, batch_size=4).facts.num_classes is None


class Zero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * self.layer(x)


def houses(path: str, **args: Any) -> dict[str, Any]:
    """Return a config; its validation part is every third row."""
    given = {"path": path, "target": "euro", **args}
    return {
        "device": "cpu",
        "loss": "mse_loss",
        "optimizer": {"name": "SGD", "lr": 0.1},
        "data": {"name": "csv", "batch_size": 8, "split": {"column": "fold"}, "args": given},
        "train": {"duration": "2st", "eval_every": "2st"},
        "compare": {"seeds": 2, "variants": {"a": {}, "b": {"optimizer.lr": 0.2}}},
    }


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("transform", ["standard", "log"])
def test_what_is_measured_is_in_the_unit_of_the_file(
    transform: str, engine: str, tmp_path: Path
) -> None:
    path, frame = table(tmp_path)
    train, val = frame.euro[frame.fold < 2], frame.euro[frame.fold == 2]
    config = houses(path, target_transform=transform)
    run = lrexp.compare(config, model=Zero, engine=engine, out=tmp_path / "r")
    guess = train.mean() if transform == "standard" else np.exp(np.log(train).mean())
    expected = np.sqrt(((val - guess) ** 2).mean())
    for trial in run.trials:
        measured = trial.evals["val_rmse"]
        np.testing.assert_allclose(measured, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "m: numbers, with decimal commas; 9 empty: median ({median:.6g}), and an indicator"),
        ({"missing": "drop"}, "t.csv: 60 rows, cp1252, delimiter ';'; 9 with empty cells left out"),
        ({"target_transform": "none"}, "Note: the target is not scaled"),
    ],
)
def test_what_was_made_of_the_columns_is_told(
    args: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path, frame = table(tmp_path)
    said = said.format(median=frame.m[frame.fold < 2].median())
    console = Console(file=io.StringIO(), width=300)
    config = houses(path, **args) | {"model": {"name": "linear"}}
    run = lrexp.compare(config, out=tmp_path / "r", console=console)
    told = console.file.getvalue()
    assert told.count(said) == 1
    assert ("Note: the target" in told) == (args.get("target_transform") == "none")
    assert (run.path / "environment.json").read_text().count("split by the column fold") == 2


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        for _ in range(200):
            x = torch.rand(3)
            yield x, x.sum()[None]


def test_a_range_test_of_an_endless_stream_needs_no_duration(tmp_path: Path) -> None:
    config = {
        "device": "cpu",
        "model": "linear",
        "loss": "mse_loss",
        "optimizer": {"name": "SGD", "lr": 0.1},
        "data": {"batch_size": 4},
        "train": {"duration": "5ep"},
        "find_lr": {"budget": 0, "steps": 30, "seeds": 1},
    }
    lrexp.find_lr(config, data=Stream(), out=tmp_path / "r")
    assert list((tmp_path / "r").rglob("steps.csv"))


# the last two of ten rows are for validation: a number and a text are missing there alone, and one
# text is new
NEW_IN_VALIDATION = (
    "n;t;y\n" + "".join(f"{i};{'ab'[i % 2]};{i}.5\n" for i in range(8)) + ";c;8.5\n8;;9.5\n"
)


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ("onehot", [[[0.0, 0.0, 0.0], [1.963961, 1.0, 0.0]]]),
        ("codes", [[[0.0], [1.963961]], [[0], [1]]]),
    ],
)
def test_what_validation_alone_has(categories: str, expected: list[Any], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(NEW_IN_VALIDATION)
    args = {"path": str(tmp_path / "t.csv"), "target": "y", "categories": categories}
    data = load_data(DATASETS["csv"], args, batch_size=4, split="last")
    assert data.val is not None
    *inputs, targets = next(iter(data.val.in_order()))
    for found, values in zip(inputs, expected, strict=True):
        np.testing.assert_allclose(found, values, atol=1e-6)  # (8 - 3.5) / sd of 0 to 7
    assert data.original is not None
    np.testing.assert_allclose(data.original(targets)[:, 0], [8.5, 9.5], rtol=1e-6)


def test_the_rarest_of_many_categories_share_one_with_new_ones(tmp_path: Path) -> None:
    names = [f"n{i:02d}" for i in range(60) for _ in range(3 if i < 49 else 1)] + ["new"] * 2
    rows = "".join(f"{name};{i}.5\n" for i, name in enumerate(names))
    (tmp_path / "t.csv").write_text("t;y\n" + rows)
    args = {"path": str(tmp_path / "t.csv"), "target": "y"}
    data = load_data(DATASETS["csv"], args, batch_size=4, val_fraction=0.0126, split="last")
    assert data.val is not None
    [inputs, _] = next(iter(data.val.in_order()))
    assert inputs.tolist() == [[0.0] * 49 + [1.0]] * 2


@pytest.mark.parametrize("form", [lambda xy: (xy, xy), lambda xy: {"train": xy, "val": xy}])
def test_what_is_split_already_is_not_split_again(form: Any, tmp_path: Path) -> None:
    config = {
        "data": {"split": "last", "batch_size": 8},
        "optimizer": {"name": "SGD", "lr": 0.1},
        "train": {"duration": 4},
    }
    given = {"model": "linear", "loss": "mse_loss", "data": form((torch.ones(20, 2),) * 2)}
    with pytest.raises(
        ConfigError, match="split: has nothing to split: the data come with a valid"
    ):
        lrexp.compare(config, **given, runs_dir=tmp_path)
