"""Built-in data against closed forms, scikit-learn and what standardisation means."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn import datasets

from lrexp.errors import ConfigError
from lrexp.workloads.batches import Data
from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.loading import load_data
from lrexp.workloads.table import Table, standardised


def load(name: str, val_fraction: float = 0.2, **args: Any) -> Data:
    return load_data(DATASETS[name], args, batch_size=16, val_fraction=val_fraction)


def whole(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = zip(*batches.in_order(), strict=True)
    return torch.cat(inputs), torch.cat(targets)


# name | args | training samples, validation samples | inputs per sample | targets per sample
SHAPES: list[tuple[str, dict[str, Any], tuple[int, int], tuple[int, ...], tuple[int, ...]]] = [
    ("digits", {}, (1438, 359), (64,), ()),
    ("digits", {"image": True}, (1438, 359), (1, 8, 8), ()),
    ("diabetes", {}, (354, 88), (10,), (1,)),
    ("breast_cancer", {}, (455, 114), (30,), ()),
    ("linear", {"samples": 100, "features": 3}, (80, 20), (3,), (1,)),
    ("sine", {"samples": 100}, (80, 20), (1,), (1,)),
    ("spirals", {"samples": 101, "classes": 2}, (81, 20), (2,), ()),
]


@pytest.mark.parametrize(("name", "args", "sizes", "inputs", "targets"), SHAPES)
def test_shapes_and_dtypes(
    name: str,
    args: dict[str, Any],
    sizes: tuple[int, int],
    inputs: tuple[int, ...],
    targets: tuple[int, ...],
) -> None:
    data = load(name, **args)
    for side, size in zip((data.train, data.val), sizes, strict=True):
        x, y = whole(side)
        assert (x.shape, y.shape) == ((size, *inputs), (size, *targets))
        assert x.dtype == torch.float32
        assert y.dtype == (torch.float32 if targets else torch.int64)


@pytest.mark.parametrize(("name", "args"), [row[:2] for row in SHAPES])
def test_data_do_not_depend_on_the_callers_seed(name: str, args: dict[str, Any]) -> None:
    torch.manual_seed(0)
    first = whole(load(name, **args).train)
    torch.manual_seed(1)
    for one, other in zip(first, whole(load(name, **args).train), strict=True):
        assert one.equal(other)


def test_digits_are_those_of_sklearn_between_0_and_1() -> None:
    pixels, labels = datasets.load_digits(return_X_y=True)
    x, y = whole(load("digits", val_fraction=0).train)
    assert x.equal(torch.from_numpy(pixels / 16).float())
    assert y.equal(torch.from_numpy(labels))
    assert (x.min(), x.max()) == (0, 1)


@pytest.mark.parametrize(
    ("name", "sklearn_name", "is_regression"),
    [("diabetes", "load_diabetes", True), ("breast_cancer", "load_breast_cancer", False)],
)
def test_standardised_by_the_training_rows_alone(
    name: str, sklearn_name: str, is_regression: bool
) -> None:
    data = load(name)
    x, y = whole(data.train.to("cpu", torch.float64))
    x_val, y_val = whole(data.val.to("cpu", torch.float64))
    for values in (x, y) if is_regression else (x,):
        assert values.mean(0).abs().max() < 1e-9
        assert (values.std(0, correction=0) - 1).abs().max() < 1e-9
    # Both sides are one affine map of the raw columns: undone, the raw rows come back.
    raw_x, raw_y = getattr(datasets, sklearn_name)(return_X_y=True)
    pairs = [(torch.cat([x, x_val]), torch.from_numpy(raw_x))]
    if is_regression:
        pairs.append((torch.cat([y, y_val]), torch.from_numpy(raw_y)[:, None]))
    for ours, raw in pairs:
        scale = (raw.amax(0) - raw.amin(0)) / (ours.amax(0) - ours.amin(0))
        restored = (ours - ours.amin(0)) * scale + raw.amin(0)
        assert torch.allclose(restored.sort(0).values, raw.sort(0).values.double(), atol=1e-6)


def test_a_validation_row_does_not_move_the_training_rows() -> None:
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    val_rows = Table(torch.arange(20), torch.arange(20)).split(0.25).val[0]
    moved = x.clone()
    moved[val_rows] += 1e6
    before, after = (
        Table(values, values, standardise_inputs=True, standardise_targets=True).split(0.25)
        for values in (x, moved)
    )
    assert len(val_rows) == 5
    assert before.train[0].equal(after.train[0])
    assert before.train[1].equal(after.train[1])
    assert not before.val[0].equal(after.val[0])


def test_a_constant_column_is_shifted_and_not_blown_up() -> None:
    values = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]], dtype=torch.float64)
    result, _, _ = standardised(values, torch.tensor([0, 1, 2]))
    assert result[:, 0].abs().max() < 1e-15
    assert result[:, 1].tolist() == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])


def test_least_squares_recovers_the_weights_of_linear() -> None:
    exact = load("linear", samples=400, features=5, noise=0.0)
    noisy = load("linear", samples=400, features=5, noise=0.1)
    solutions = [torch.linalg.lstsq(*whole(side)).solution for side in (exact.train, exact.val)]
    assert torch.allclose(*solutions, atol=1e-5)  # from disjoint rows: the same w
    x, y = whole(noisy.train)
    found = torch.linalg.lstsq(x, y).solution
    # standard error of w: noise / √samples = 0.0056; six of them
    assert (found - solutions[0]).abs().max() < 0.034
    assert (y - x @ found).std().item() == pytest.approx(0.1, rel=0.15)


def test_linear_is_standard_normal() -> None:
    x, _ = whole(load("linear", samples=20_000, features=4, val_fraction=0).train)
    assert x.mean(0).abs().max() < 0.03
    assert (x.std(0) - 1).abs().max() < 0.03


def test_sine_is_a_sine() -> None:
    x, y = whole(load("sine", samples=500, noise=0.0, val_fraction=0).train)
    assert torch.allclose(y, torch.sin(math.pi * x), atol=1e-6)
    assert -1 <= x.min() < -0.95
    assert 0.95 < x.max() < 1


def test_spirals_lie_on_their_arms() -> None:
    x, y = whole(load("spirals", classes=3, samples=300, noise=0.0, val_fraction=0).train)
    assert torch.bincount(y).tolist() == [100, 100, 100]
    radius = x.norm(dim=1)
    turns = torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi)
    expected = radius + y / 3  # θ = 2π(r + c/3)
    difference = (turns - expected + 0.5).remainder(1) - 0.5
    assert difference.abs().max() < 1e-5
    assert radius[y == 1].tolist() == pytest.approx([k / 100 for k in range(1, 101)], abs=1e-6)


@pytest.mark.parametrize("name", ["linear", "sine", "spirals"])
def test_the_seed_argument_makes_other_data(name: str) -> None:
    zero, one = (whole(load(name, seed=seed).train)[0] for seed in (0, 1))
    assert not zero.equal(one)


# name | args | keys of the problems
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("digits", {"image": 1}, ["image"]),
    ("digits", {"image": "true"}, ["image"]),
    ("linear", {"samples": 1}, ["samples"]),
    ("linear", {"samples": 2.5, "features": 0, "noise": -1}, ["samples", "features", "noise"]),
    ("linear", {"noise": math.nan}, ["noise"]),
    ("linear", {"noise": math.inf}, ["noise"]),
    ("linear", {"noise": True}, ["noise"]),
    ("linear", {"noise": 10**400}, ["noise"]),
    ("linear", {"seed": -1}, ["seed"]),
    ("sine", {"samples": "100", "noise": "little"}, ["samples", "noise"]),
    ("spirals", {"classes": 1}, ["classes"]),
    ("spirals", {"classes": 30, "samples": 29}, ["samples"]),
]


@pytest.mark.parametrize(("name", "args", "keys"), WRONG)
def test_wrong_arguments_are_told_together(
    name: str, args: dict[str, Any], keys: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(name, **args)
    assert [p.key for p in caught.value.problems] == [f"data.args.{key}" for key in keys]
