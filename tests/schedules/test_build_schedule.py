"""From a config's section to a schedule: what is checked, and how a problem reads."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from lrexp.errors import ConfigError
from lrexp.schedules.build import SCHEDULES, build_schedule, check_schedule, known_names
from lrexp.schedules.schedule import is_duration
from lrexp.schedules.signatures import named_parameters

EPOCH = 20


def to_steps(duration: object) -> int:
    """`5%` of 100 steps, `2ep` of 20 steps each, or steps."""
    if isinstance(duration, int):
        return duration
    text = str(duration)
    for unit, size in (("%", 1), ("ep", EPOCH)):
        number = text.removesuffix(unit)
        if text.endswith(unit) and number.replace(".", "", 1).isdigit():
            return int(Fraction(number) * size)
    raise ConfigError.single("", "is not a duration", duration, "Give e.g. 5%.")


def built(name: Any, /, lr: float = 1.0, total_steps: int = 100, **params: Any) -> Any:
    return build_schedule(
        name, params, lr=lr, total_steps=total_steps, to_steps=to_steps, steps_per_epoch=EPOCH
    )


NAMES = """
constant cosine linear exponential polynomial inverse_sqrt wsd cosine_restarts one_cycle cyclic
step multi_step combined rex plateau adaptive_cycle lambda
"""


def test_the_names_are_those_of_the_table() -> None:
    assert set(NAMES.split()) <= set(SCHEDULES)
    assert known_names()[: len(SCHEDULES)] == list(SCHEDULES)
    assert {"StepLR", "OneCycleLR", "ReduceLROnPlateau"} <= set(known_names())


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_says_what_it_is(name: str) -> None:
    text = SCHEDULES[name].__doc__ or ""
    assert ">>>" in text
    assert {"warmup", "warmup_start"} <= set(named_parameters(SCHEDULES[name]))


def test_durations_are_resolved_by_their_annotation() -> None:
    for name, key, expected in [
        ("multi_step", "milestones", True),
        ("wsd", "decay", True),
        ("plateau", "patience", False),  # counts evaluations
    ]:
        assert is_duration(named_parameters(SCHEDULES[name])[key].annotation) is expected
    schedule = built("multi_step", milestones=["1ep", "50%", 80], factors=[0.5, 0.2, 0.1])
    assert [schedule(s) for s in (19, 20, 49, 50, 79, 80)] == [1, 0.5, 0.5, 0.2, 0.2, 0.1]
    schedule = built("cosine", warmup="5%")
    assert [schedule(s) for s in (0, 4, 5)] == [0.2, 1, 1]
    assert built("inverse_sqrt", timescale=None)(1) == pytest.approx((10_001 / 10_000) ** -0.5)
    assert built("adaptive_cycle", window_size="1ep").window_size == EPOCH


def test_an_int_is_steps_whatever_the_epoch_and_the_accumulation() -> None:
    """The schedule's clock counts updates; a resolved duration means the same for any epoch."""
    for per_epoch in (None, 1, 50):
        schedule = build_schedule(
            "step", {"size": 30}, lr=1.0, total_steps=100, to_steps=int, steps_per_epoch=per_epoch
        )
        assert [schedule(s) for s in (29, 30, 60)] == pytest.approx([1, 0.1, 0.01])


# name | parameters | every text that the message must have
BAD: list[tuple[Any, dict[str, Any], list[str]]] = [
    ("cosin", {}, ["name: is not a known schedule (got 'cosin'). Did you mean 'cosine'?"]),
    ("", {}, ["name: is not a known schedule (got '')"]),
    ("cosine", {"warmpu": "5%"}, ["warmpu: is not a parameter of cosine (got '5%'). Did you mean 'warmup'?"]),
    ("cosine", {"args": {}}, ["args: is not a parameter of cosine"]),
    ("cosine", {"lr": 0.1}, ["lr: is given to cosine already, by optimizer.lr (got 0.1). Remove it."]),
    ("cosine", {"total_steps": 9}, ["total_steps: is given to cosine already, by train.duration"]),
    ("cosine", {1: 2}, ["1: is not a parameter of cosine"]),
    ("cosine", {"warmup": "120%"}, ["warmup: must be shorter than training (100 steps) (got '120% = 120 steps'). Shorten it, or train longer."]),
    ("cosine", {"warmup": 100}, ["warmup: must be shorter than training (100 steps) (got 100)"]),
    ("cosine", {"warmup": -1}, ["warmup: must be a whole number of at least 0 (got -1)"]),
    ("cosine", {"warmup": True}, ["warmup: must be a duration (got true)"]),
    ("cosine", {"warmup": None}, ["warmup: must be a duration (got null)"]),
    ("cosine", {"warmup": 2.5}, ["warmup: must be a duration (got 2.5)"]),
    ("cosine", {"warmup": "soon"}, ["warmup: is not a duration (got 'soon')"]),
    ("cosine", {"warmup_start": 1.5}, ["warmup_start: must be a number in [0, 1] (got 1.5)"]),
    ("cosine", {"min_lr": -0.1}, ["min_lr: must be a number of at least 0 (got -0.1)"]),
    ("cosine", {"min_lr": 2}, ["min_lr: must be at most the peak LR (1) (got 2)"]),
    ("cosine", {"min_lr": float("nan")}, ["min_lr: must be a finite number of at least 0 (got nan)"]),
    ("cosine", {"min_lr": float("inf")}, ["min_lr: must be a finite number of at least 0 (got inf)"]),
    ("cosine", {"min_lr": "0.1"}, ["min_lr: must be a number of at least 0 (got '0.1'). Write a number without quotes."]),
    ("cosine", {"min_lr": False}, ["min_lr: must be a number of at least 0 (got false)"]),
    ("cosine", {"min_lr": None}, ["min_lr: is needed without final_div_factor"]),
    ("cosine", {"final_div_factor": 0.5}, ["final_div_factor: must be a number of at least 1"]),
    ("cosine", {"min_lr": 5, "warmup": 500, "warmup_start": -1}, ["min_lr: must be at most", "warmup: must be shorter", "warmup_start: must be a number in [0, 1]"]),
    ("cosine", {"min_lr": "x", "warmpu": 1, "warmup": "soon"}, ["min_lr: must be a number of at least 0", "warmpu: is not", "warmup: is not a duration"]),
    ("exponential", {"gamma": 1.5}, ["gamma: must be a number in (0, 1] (got 1.5)"]),
    ("exponential", {"gamma": 0}, ["gamma: must be a number in (0, 1]"]),
    ("polynomial", {"power": 0}, ["power: must be a positive number (got 0)"]),
    ("inverse_sqrt", {"timescale": 0}, ["timescale: must be a whole number of at least 1"]),
    ("inverse_sqrt", {"timescale": "0.1%"}, ["timescale: must be a whole number of at least 1 (got '0.1% = 0 steps')"]),
    ("wsd", {"decay": "0.1%"}, ["decay: must be a whole number of at least 1 (got '0.1% = 0 steps')"]),
    ("wsd", {"decay": 60, "warmup": 50}, ["decay: must fit into the 50 steps after the warmup (got 60)"]),
    ("wsd", {"decay_type": "sqrt"}, ["decay_type: must be one of linear, cosine, 1-sqrt (got 'sqrt'). Did you mean '1-sqrt'?"]),
    ("rex", {"beta": 1}, ["beta: must be a number in [0, 1) (got 1)"]),
    ("cosine_restarts", {}, ["cycle: is needed by cosine_restarts. Add it, e.g. cycle: 10%."]),
    ("cosine_restarts", {"cycle": 0}, ["cycle: must be a whole number of at least 1"]),
    ("cosine_restarts", {"cycle": 5, "cycle_mult": 0}, ["cycle_mult: must be a positive number"]),
    ("cosine_restarts", {"cycle": 5, "cycle_decay": 2}, ["cycle_decay: must be a number in (0, 1]"]),
    ("one_cycle", {"pct_start": 1.5}, ["pct_start: must be a number in [0, 1] (got 1.5)"]),
    ("one_cycle", {"pct_start": 0.7, "three_phase": True}, ["pct_start: must be a number in [0, 0.5] with three_phase (got 0.7)"]),
    ("one_cycle", {"anneal_strategy": "cosine"}, ["anneal_strategy: must be one of cos, linear (got 'cosine'). Did you mean 'cos'?"]),
    ("one_cycle", {"cycle_momentum": 1}, ["cycle_momentum: must be true or false (got 1)"]),
    ("one_cycle", {"div_factor": 0.5}, ["div_factor: must be a number of at least 1"]),
    ("one_cycle", {"final_div_factor": 0.01}, ["final_div_factor: must be at least 0.04"]),
    ("one_cycle", {"base_momentum": 1.0}, ["base_momentum: must be a number in [0, 1)"]),
    ("one_cycle", {"max_lr": 1.0}, ["max_lr: is not a parameter of one_cycle"]),
    ("cyclic", {"base_lr": 2.0}, ["base_lr: must be at most the peak LR (1)"]),
    ("cyclic", {"base_lr": 0}, ["base_lr: must be a positive number"]),
    ("cyclic", {"step_size_up": "0.1%"}, ["step_size_up: must be a whole number of at least 1 (got '0.1% = 0 steps')"]),
    ("cyclic", {"mode": "triangle"}, ["mode: must be one of triangular", "Did you mean 'triangular'?"]),
    ("cyclic", {"gamma": 2}, ["gamma: must be a number in (0, 1]"]),
    ("step", {}, ["size: is needed by step"]),
    ("step", {"size": 10, "gamma": -0.5}, ["gamma: must be a number in (0, 1]"]),
    ("step", {"size": "1 epoch"}, ["size: is not a duration (got '1 epoch')"]),
    ("multi_step", {}, ["milestones: is needed by multi_step. Add it, e.g. milestones: [50%, 80%]."]),
    ("multi_step", {"milestones": []}, ["milestones: must be a list with an item or more"]),
    ("multi_step", {"milestones": "50%"}, ["milestones: must be a list with an item or more, each item a whole number of at least 0 (got '50%'). Give e.g. [50%, 80%]."]),
    ("multi_step", {"milestones": [50, 20]}, ["milestones: must be sorted (got [50, 20])"]),
    ("multi_step", {"milestones": ["80%", "1ep"]}, ["milestones: must be sorted (got [80, 20])"]),
    ("multi_step", {"milestones": [5, True]}, ["milestones[1]: must be a duration (got true)"]),
    ("multi_step", {"milestones": [5, "x"]}, ["milestones[1]: is not a duration (got 'x')"]),
    ("multi_step", {"milestones": [-5]}, ["milestones[0]: must be a whole number of at least 0"]),
    ("multi_step", {"milestones": [5], "factors": [0.5, 0.1]}, ["factors: must have one factor per milestone (1), has 2"]),
    ("multi_step", {"milestones": [5], "factors": [-1]}, ["factors[0]: must be a number of at least 0 (got -1)"]),
    ("multi_step", {"milestones": [5], "factors": [float("nan")]}, ["factors[0]: must be a finite number"]),
    ("multi_step", {"milestones": [5], "factors": 0.5}, ["factors: must be a list, each item a number of at least 0 (got 0.5)"]),
    ("multi_step", {"milestones": [5], "factors": [0.5], "gamma": 0.1}, ["gamma: cannot be given beside factors"]),
    ("plateau", {"monitor": "loss"}, ["monitor: must be measured at evaluations (got 'loss')"]),
    ("plateau", {"factor": 1}, ["factor: must be a number in (0, 1) (got 1)"]),
    ("plateau", {"patience": "1ep"}, ["patience: must be a whole number of at least 0 (got '1ep')"]),
    ("plateau", {"patience": -1}, ["patience: must be a whole number of at least 0"]),
    ("plateau", {"cooldown": 1.5}, ["cooldown: must be a whole number"]),
    ("plateau", {"mode": "lower"}, ["mode: must be one of min, max (got 'lower')"]),
    ("plateau", {"threshold_mode": "relative"}, ["threshold_mode: must be one of rel, abs"]),
    ("plateau", {"min_lr": 3}, ["min_lr: must be at most the peak LR (1)"]),
    ("adaptive_cycle", {"base_lr": 5.0}, ["base_lr: must be at most the peak LR (1)"]),
    ("adaptive_cycle", {"window_size": "1%"}, ["window_size: must be a whole number of at least 2 (got '1% = 1 steps')"]),
    ("lambda", {}, ["function: is needed by lambda. Add it, e.g. function: package.module:function."]),
    ("lambda", {"function": "math:sqrt"}, ["function: must be a function (got 'math:sqrt')"]),
    ("combined", {}, ["parts: is needed by combined"]),
    ("combined", {"parts": "cosine"}, ["parts: must be a list"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "texts"), BAD)
def test_bad_parameters(name: Any, params: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_schedule(
            name, params, lr=1.0, total_steps=100, to_steps=to_steps, steps_per_epoch=EPOCH
        )
    for text in texts:
        assert text in str(caught.value)
    assert len(caught.value.problems) == len(texts) or name in ("cosine", "cyclic", "wsd")


@pytest.mark.parametrize(("name", "params", "texts"), BAD)
def test_check_schedule_finds_no_problem_that_building_does_not(
    name: Any, params: dict[str, Any], texts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        built_error(name, params)
    building = set(map(str, caught.value.problems))
    assert set(map(str, check_schedule(name, params))) <= building


def built_error(name: Any, params: dict[str, Any]) -> object:
    return build_schedule(
        name, params, lr=1.0, total_steps=100, to_steps=to_steps, steps_per_epoch=EPOCH
    )


@pytest.mark.parametrize("lr", [0, -1.0, float("nan"), float("inf"), True, "0.1", None])
@pytest.mark.parametrize("name", ["cosine", "plateau", "adaptive_cycle", "StepLR", "wsd"])
def test_a_bad_lr(name: str, lr: Any) -> None:
    params = {"args": {"step_size": 3}} if name == "StepLR" else {}
    with pytest.raises(ConfigError, match=r"^lr: must be a positive number"):
        built(name, lr=lr, **params)


@pytest.mark.parametrize("total_steps", [0, -5, 2.5, True, None])
def test_a_bad_length(total_steps: Any) -> None:
    with pytest.raises(ConfigError, match="total_steps: must be a whole number of at least 1"):
        built("cosine", total_steps=total_steps)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_unknown_parameter_is_ignored(name: str) -> None:
    problems = check_schedule(name, {"nonsense": 1})
    assert "nonsense: is not a parameter of" in str(problems[0])
