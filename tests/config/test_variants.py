"""Variants: defaults, overrides, grids and their names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrexp.config.config import Config
from lrexp.config.fields import make_safe, why_unsafe
from lrexp.config.variants import (
    MAX_VARIANTS,
    axis_names,
    combination_names,
    read_variants,
    value_labels,
)
from lrexp.errors import ConfigError

from .good_config import GOOD


@pytest.mark.parametrize(
    ("lr", "expected"),
    [
        (0.01, [0.1, 0.01, 0.001]),
        (0.003, [0.03, 0.003, 0.0003]),  # 0.1 * 0.003 is 0.00030000000000000003
        (1, [10.0, 1.0, 0.1]),
        (1e-7, [1e-6, 1e-7, 1e-8]),
    ],
)
def test_the_default_variants(
    lr: float, expected: list[float], load: Callable[..., Config]
) -> None:
    config = load(GOOD, [("optimizer.lr", lr)])
    assert list(config.variants) == ["high", "standard", "low"]
    assert [v.optimizer.lr for v in config.variants.values()] == expected
    assert config.overrides == {
        name: {"optimizer.lr": value} for name, value in zip(config.variants, expected, strict=True)
    }


def test_overrides(load: Callable[..., Config]) -> None:
    config = load(
        GOOD
        + """\
schedule: {name: cosine, warmup: 5%, min_lr: 1e-5}
compare:
  seeds: 2
  metric: val_accuracy
  variants:
    same: {}
    empty:
    leaf: {schedule.warmup: 10%, optimizer.args.momentum: 0.9}
    whole: {schedule: {name: linear}}
    bare: {schedule: constant, model: linear, data.batch_size: 8}
    both: {schedule.warmup: 3, schedule: linear, optimizer.groups: [{match: w, lr_scale: 2}]}
"""
    )
    v = config.variants
    assert v["same"] == v["empty"]
    assert v["same"].model_copy(update={"compare": config.experiment.compare}) == config.experiment
    assert v["leaf"].schedule.params == {"warmup": "10%", "min_lr": 1e-5}
    assert v["leaf"].optimizer.args == {"momentum": 0.9}
    assert v["leaf"].optimizer.name == "SGD"
    assert (v["whole"].schedule.name, v["whole"].schedule.params) == ("linear", {})
    assert (v["bare"].schedule.name, v["bare"].model.name) == ("constant", "linear")
    assert v["bare"].data.batch_size == 8
    assert v["both"].schedule.params == {"warmup": 3}  # the section first, then the key in it
    assert v["both"].optimizer.groups[0].lr_scale == 2
    assert all((x.compare.seeds, x.compare.metric) == (2, "val_accuracy") for x in v.values())
    assert config.overrides["leaf"] == {"schedule.warmup": "10%", "optimizer.args.momentum": 0.9}


def test_a_grid_is_the_full_product(load: Callable[..., Config]) -> None:
    config = load(
        GOOD
        + """\
compare:
  grid:
    optimizer.lr: [0.5, 1e-7]
    schedule: [constant, {name: cosine, warmup: 5%}]
"""
    )
    assert {n: (v.optimizer.lr, v.schedule.name) for n, v in config.variants.items()} == {
        "lr=0.5,schedule=constant": (0.5, "constant"),
        "lr=0.5,schedule=cosine": (0.5, "cosine"),
        "lr=1e-07,schedule=constant": (1e-7, "constant"),
        "lr=1e-07,schedule=cosine": (1e-7, "cosine"),
    }
    assert config.origins["lr=1e-07,schedule=cosine"]["schedule"] == "compare.grid.schedule[1]"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["optimizer.lr"], ["lr"]),
        (["optimizer.lr", "schedule"], ["lr", "schedule"]),
        (["model.name", "optimizer.name"], ["model", "optimizer"]),
        (["model.args.width", "data.args.width"], ["model.args.width", "data.args.width"]),
        (["optimizer.args.momentum", "train.duration"], ["momentum", "duration"]),
        (["schedule", "schedule.warmup"], ["schedule", "warmup"]),
    ],
)
def test_axis_names(keys: list[str], names: list[str]) -> None:
    assert axis_names(keys) == names


SGD = {"name": "SGD", "lr": 0.1}
ADAM = {"name": "Adam", "lr": 0.001}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.5, 1e-7, 10, 1e10], ["x=0.5", "x=1e-07", "x=10", "x=1e+10"]),
        ([0.1234567, 0.1234568], ["x=0.1234567", "x=0.1234568"]),  # %g gives the same for both
        ([True, False, None], ["x=true", "x=false", "x=none"]),
        (["10ep", "5%", "a/b:c"], ["x=10ep", "x=5%", "x=a.b.c"]),
        (["a" * 30 + "1", "a" * 30 + "2"], ["x=" + "a" * 30 + "1", "x=" + "a" * 30 + "2"]),
        ([[128, 128], [64]], ["x=128x128", "x=64"]),
        (["cosine", {"name": "cosine", "warmup": "5%"}, {"name": "cosine", "warmup": "9%"}],
         ["x=cosine", "x=cosine,warmup=5%", "x=cosine,warmup=9%"]),
        ([{**SGD, "args": {"momentum": 0.9}}, {**SGD, "args": {"momentum": 0.5}}, ADAM],
         ["x=SGD,lr=0.1,momentum=0.9", "x=SGD,lr=0.1,momentum=0.5", "x=Adam,lr=0.001"]),
        ([{**SGD, "args": {"momentum": 0.9}}, {**SGD, "args": {"momentum": 0.5}}],
         ["x=SGD,momentum=0.9", "x=SGD,momentum=0.5"]),
        ([SGD, ADAM], ["x=SGD", "x=Adam"]),
        ([{"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "nesterov": True}, {}],
         ["momentum=0.9,nesterov=true", "momentum=0.5,nesterov=true", "x=none"]),
        ([[{"match": "w", "lr_scale": 2}], [{"match": "w", "lr_scale": 3}]],
         ["lr_scale=2", "lr_scale=3"]),
        (["x", "é", "x-2"], ["x=x-1", "x=x-2", "x=x-2-3"]),
        (["SGD", "sgd"], ["x=SGD-1", "x=sgd-2"]),  # one folder on some file systems
        ([{"name": "wsd", "decay": 5}], ["x=wsd"]),
        (["my_models:make_net"], ["x=my_models.make_net"]),
        ([-1, "é"], ["x=-1", "x=x"]),
    ],
)  # fmt: skip
def test_value_labels(values: list[object], labels: list[str]) -> None:
    assert value_labels("x", values) == labels


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([["lr=1", "lr=2"], ["model=mlp"]], ["lr=1,model=mlp", "lr=2,model=mlp"]),
        ([["a"], ["b", "B"]], ["a,b", "a,B-2"]),
        ([["optimizer=SGD,lr=0.1,momentum=0.9"], ["schedule=cosine,warmup=5%,min_lr=1e-05"]],
         ["SGD,lr=0.1,momentum=0.9,cosine,warmup=5%,min_lr=1e-05"]),
        ([["a" * 40], ["b" * 40, "b" * 39]],
         ["a" * 40 + "," + "b" * 21 + "-1", "a" * 40 + "," + "b" * 21 + "-2"]),
    ],
)  # fmt: skip
def test_combination_names(labels: list[list[str]], names: list[str]) -> None:
    assert combination_names(labels) == names
    assert [why_unsafe(name) for name in names] == [None] * len(names)


def test_a_variant_changes_one_parameter_of_a_schedule_given_by_name(
    load: Callable[..., Config],
) -> None:
    config = load(
        GOOD
        + """\
schedule: cosine
compare:
  variants:
    plain: {}
    warm: {schedule.warmup: 10%}
    floor: {schedule.warmup: 5%, schedule.min_lr: 1e-5}
"""
    )
    found = {name: (v.schedule.name, v.schedule.params) for name, v in config.variants.items()}
    assert found == {
        "plain": ("cosine", {}),
        "warm": ("cosine", {"warmup": "10%"}),
        "floor": ("cosine", {"warmup": "5%", "min_lr": 1e-5}),
    }
    grid = load(GOOD + "schedule: cosine\ncompare: {grid: {schedule.warmup: [5%, 10%]}}\n")
    assert {n: v.schedule.params for n, v in grid.variants.items()} == {
        "warmup=5%": {"warmup": "5%"},
        "warmup=10%": {"warmup": "10%"},
    }


VALUES = (
    st.floats(1e-9, 1e3)
    | st.integers(-5, 5)
    | st.booleans()
    | st.none()
    | st.text(max_size=6)
    | st.lists(st.integers(0, 9), max_size=3)
    | st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "A", "b"])}, optional={"w": st.integers(0, 9)}
    )
)
KEYS = st.sampled_from(["optimizer.lr", "schedule", "model.args.width", "data.args.width", "loss"])


@given(st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=3))
def test_grid_names_are_safe_unique_and_complete(grid: dict[str, list[object]]) -> None:
    variants, problems = read_variants({"compare": {"grid": grid}})
    size = 1
    for values in grid.values():
        size *= len(values)
    if problems:  # a value given twice
        assert all(p.what == "is given twice" for p in problems)
        return
    assert len(variants) == size
    assert len({v.name.lower() for v in variants}) == size
    assert [why_unsafe(v.name) for v in variants] == [None] * size
    assert len({repr(v.overrides) for v in variants}) == size


def test_there_is_a_largest_grid() -> None:
    values = list(range(MAX_VARIANTS + 1))
    _, problems = read_variants({"compare": {"grid": {"seed": values, "train.accumulate": values}}})
    assert any("combinations" in p.what for p in problems)
    named = {f"v{i}": {} for i in values}
    assert "more than 1000" in read_variants({"compare": {"variants": named}})[1][0].what


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a", None), ("lr=0.5,schedule=cosine", None), ("1e-07", None), ("5% off +1 @x_y", None),
        ("a" * 64, None), ("a.b", None), ("nullable", None), ("com10", None), ("a-", None),
        ("", "1 to 64"), ("a" * 65, "1 to 64"), (".", "start"), ("..", "start"), (".a", "start"),
        ("-a", "start"), ("_a", "start"), (" a", "start"), ("a ", "end"), ("a.", "end"),
        ("a/b", "hold"), ("a\\b", "hold"), ("a:b", "hold"), ("a\nb", "hold"), ("a\0", "hold"),
        ("a*", "hold"), ("é", "start"), ("aé", "hold"), ("a[b]", "hold"), ("a$b$", "hold"),
        ("con", "device"), ("NUL", "device"), ("aux.txt", "device"), ("Com1", "device"),
        ("lpt9.x.y", "device"),
    ],
)  # fmt: skip
def test_safe_names(name: str, why: str | None) -> None:
    found = why_unsafe(name)
    assert found is None if why is None else why in str(found)


@given(st.text(max_size=100))
@settings(deadline=None)
def test_any_text_can_be_made_safe(text: str) -> None:
    assert why_unsafe(make_safe(text)) is None


def test_a_problem_of_all_variants_is_reported_once(load: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + "schedule: csine\n")
    assert len(caught.value.problems) == 1


def test_a_problem_of_many_combinations_is_reported_once(load: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + "compare: {grid: {optimizer.lr: [1, 2, -1], train.accumulate: [1, 2, 3]}}\n")
    assert [p.key for p in caught.value.problems] == ["compare.grid.optimizer.lr[2]"]


def test_locate_places_what_is_found_later(load: Callable[..., Config]) -> None:
    config = load(
        GOOD + "schedule: {name: cosine}\ncompare:\n  variants:\n    a: {schedule.warmup: 99}\n"
    )
    error = ConfigError.single("schedule.warmup", "must be shorter", 99, "Shorten it.")
    assert str(config.locate("a", error)) == (
        "exp.yaml:8: compare.variants.a.schedule.warmup: must be shorter (got 99). Shorten it."
    )
    other = ConfigError.single("data.batch_size", "is too large", 64, "Lower it.")
    assert str(config.locate("a", other)).startswith("exp.yaml:2: data.batch_size: is too large")
