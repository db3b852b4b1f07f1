"""Rules for range tests that are registered from outside: named in Python, and in YAML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starting import Starter

import lrexp as library
from lrexp.analysis.range_curve import Curve, combine
from lrexp.config.load import load_config
from lrexp.config.rule_names import RULES
from lrexp.config.schema import FindLrConfig, json_schema
from lrexp.errors import ConfigError, UserCodeError

from .good_config import GOOD

BUILT_IN = tuple(RULES)
RULE = """
import lrexp
from torch import nn

@lrexp.register_rule("mine")
def mine(curve):
    return {value}

def make(in_features, num_classes):
    return nn.Linear(in_features, num_classes)
"""
MINE = f"{GOOD}\nfind_lr: {{budget: 0, rule: mine, steps: 30, seeds: 2, min_lr: 1e-4}}\n"
OWN_MODEL = MINE.replace("model: mlp", "model: {name: 'shapes:make', args: {in_features: $in_features, num_classes: $num_classes}}")  # fmt: skip


@pytest.fixture(autouse=True)
def only_here() -> Iterator[None]:
    yield
    for name in set(RULES) - set(BUILT_IN):
        del RULES[name]


def at_a_third(curve: Any) -> Any:
    return curve.lr[len(curve.lr) // 3]


def find_lr(tmp_path: Path, **options: Any) -> library.RangeTest:
    (tmp_path / "e.yaml").write_text(MINE)
    return library.find_lr(tmp_path / "e.yaml", runs_dir=tmp_path / "runs", **options)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_rule_of_this_process_gives_the_suggestion(
    jobs: int, tmp_path: Path, quick_workers: Starter
) -> None:
    assert library.register_rule("mine")(at_a_third) is at_a_third
    found = find_lr(tmp_path, jobs=jobs)
    assert found.suggested_lr == pytest.approx(np.geomspace(1e-4, 10, 30)[10])
    assert set(found.rules) == {*BUILT_IN, "mine"}
    assert found.run is not None
    again = library.resume(found.run.path)
    assert isinstance(again, library.RangeTest)
    assert again.suggested_lr == found.suggested_lr


@pytest.mark.parametrize(
    ("text", "module", "words"),
    [
        (MINE, "my_rules", ["--trust", "my_rules"]),
        (MINE, "my/rules", ["--trust", "my.rules"]),
        (OWN_MODEL, "shapes", []),  # the config names it
    ],
)
def test_a_config_names_a_rule_of_a_module_that_it_may_import(
    text: str, module: str, words: list[str], lrexp: Callable[..., Any], write: Callable[..., Path]
) -> None:
    write(RULE.format(value=0.25), f"{module}.py")
    write("", "my/__init__.py")
    write(text)
    answer = lrexp("find-lr", "exp.yaml", "--json", *words)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["suggested_lr"] == json.loads(answer.out)["rules"]["mine"] == 0.25
    write(RULE.format(value=0.5), f"{module}.py")  # it is imported anew, and registers again
    answer = lrexp("find-lr", "exp.yaml", "--json", *words)
    assert json.loads(answer.out)["suggested_lr"] == 0.5 if not words else 0.25


def test_nothing_is_imported_for_a_rule_that_is_not_trusted(write: Callable[..., Path]) -> None:
    write(RULE.format(value=0.25), "my_rules.py")
    with pytest.raises(ConfigError, match=r"exp\.yaml:\d+: find_lr\.rule: must be one of auto"):
        load_config(write(MINE))
    assert load_config(write(MINE), checked=["data"]).experiment.find_lr.rule == "mine"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("steepst", "Did you mean 'steepest'?"),
        ("late_one", "Did you mean 'late_on'?"),
        ("nothing_like_it", "Your own: @lrexp.register_rule, in a module that"),
    ],
)
def test_an_unknown_name(name: str, remedy: str, load: Callable[..., Any]) -> None:
    library.register_rule("late_on")(at_a_third)
    with pytest.raises(ConfigError) as caught:
        load(f"{GOOD}\nfind_lr: {{rule: {name}}}\nseed: -1\n", trust=["no_such_package"])
    assert len(caught.value.problems) == 2
    (problem,) = [p for p in caught.value.problems if p.key == "find_lr.rule"]
    assert problem.what == "must be one of auto, steepest, minimum, valley, slide, late_on"
    assert problem.given == name
    assert remedy in problem.remedy


def test_a_trusted_module_that_raises(load: Callable[..., Any], write: Callable[..., Path]) -> None:
    write("1 / 0", "my_rules.py")
    with pytest.raises(UserCodeError, match=r"my_rules\.py:1.*ZeroDivisionError"):
        load(MINE, trust=["my_rules"])
    load(MINE.replace("mine", "steepest"), trust=["my_rules"])  # nothing asks for it


@pytest.mark.parametrize("name", ["auto", "slide", "mine"])
def test_a_name_is_taken_by_one_module(name: str) -> None:
    def elsewhere(curve: Any) -> float:
        return 1.0

    elsewhere.__module__ = "another"
    library.register_rule("mine")(at_a_third)
    with pytest.raises(ConfigError, match="is the name of another rule"):
        library.register_rule(name)(elsewhere)
    library.register_rule("mine")(lambda curve: 0.5)  # the cell of a notebook that runs again
    assert RULES["mine"](None) == 0.5


LR = np.geomspace(1e-4, 10, 60)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (lambda curve: None, None),
        (lambda curve: curve.lr[0], 1e-4),
        (lambda curve: np.float32(0.5), 0.5),
        (lambda curve: 1, 1.0),
        (lambda curve: curve.nothing, r"test_register_rule\.py:\d+.*AttributeError"),
        *((lambda curve, bad=bad: bad, "must return an LR above 0 or None, got") for bad in
          (0, -1.0, float("nan"), float("inf"), "0.1", True, [0.1])),
    ],
)  # fmt: skip
def test_what_a_rule_returns(rule: Any, expected: object) -> None:
    curve = combine([Curve(LR, np.ones(60))])
    library.register_rule("mine")(rule)
    if isinstance(expected, str):
        with pytest.raises(UserCodeError, match=rf"the rule mine.*{expected}"):
            RULES["mine"](curve)
    else:
        assert RULES["mine"](curve) == expected


def test_the_schema_names_the_rules_and_takes_others() -> None:
    rule: Mapping[str, Any] = json_schema()["$defs"]["FindLrConfig"]["properties"]["rule"]
    assert rule["anyOf"] == [{"enum": [*BUILT_IN]}, {"type": "string", "minLength": 1}]
    assert FindLrConfig().rule == "auto" == BUILT_IN[0]
