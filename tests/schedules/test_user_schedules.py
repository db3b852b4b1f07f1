"""Schedules from the user's own code: a function of the step, and a factory of schedules."""

from __future__ import annotations

from typing import Any

import pytest

from lrexp.errors import ConfigError, UserCodeError
from lrexp.schedules.build import SCHEDULES, build_schedule
from lrexp.schedules.schedule import Controller, Schedule


def built(name: Any, /, **params: Any) -> Any:
    return build_schedule(name, params, lr=1.0, total_steps=100, to_steps=int, steps_per_epoch=None)


def test_a_function_of_the_users_that_fails() -> None:
    schedule = built("lambda", function=lambda step: 1 / (step - 3))
    with pytest.raises(
        UserCodeError, match=r"must return a finite number of at least 0, got -0.333"
    ):
        schedule(0)
    with pytest.raises(UserCodeError, match=r"test_user_schedules.py:\d+.*ZeroDivisionError"):
        schedule(3)
    for bad in (float("nan"), float("inf"), None, "1", True):
        with pytest.raises(UserCodeError, match="must return a finite number of at least 0"):
            built("lambda", function=lambda step, bad=bad: bad)(0)


def test_a_table_as_a_function_is_never_read_beyond_training() -> None:
    table = [1.0] * 99 + [0.5]
    schedule = built("lambda", function=table.__getitem__)
    assert schedule(99) == schedule(100) == schedule(10**6) == 0.5


def inverse(lr: float, total_steps: int, power: float = 1.0) -> Any:
    return lambda step: lr * (1 - step / total_steps) ** power


def test_a_factory_of_the_users() -> None:
    schedule = built(inverse, args={"power": 2}, warmup=4)
    assert [schedule(s) for s in (0, 3, 50, 99, 100, 200)] == pytest.approx(
        [0.25, 1, 0.25, 0.0001, 0.0001, 0.0001]
    )
    assert built(lambda: SCHEDULES["one_cycle"](1.0, 100)).momentum is not None
    assert isinstance(built(lambda lr: SCHEDULES["plateau"](lr, 100)), Controller)
    assert isinstance(built(inverse), Schedule)


@pytest.mark.parametrize(
    ("factory", "params", "error", "message"),
    [
        (inverse, {"args": {"pwer": 1}}, ConfigError, "args.pwer: is not a parameter of inverse"),
        (
            inverse,
            {"args": {"lr": 1}},
            ConfigError,
            "args.lr: is given to inverse already, by optimizer.lr",
        ),
        (inverse, {"args": {"power": "2"}}, ConfigError, "args.power: must be a number"),
        (inverse, {"power": 1}, ConfigError, "power: is not a parameter of inverse"),
        (lambda beta: 1, {}, ConfigError, "args.beta: is needed by"),
        (lambda: 3, {}, UserCodeError, "must return a lrexp schedule or a function"),
        (lambda: 1 / 0, {}, UserCodeError, "ZeroDivisionError"),
        (
            lambda lr: SCHEDULES["plateau"](lr, 100),
            {"warmup": 5},
            ConfigError,
            "warmup: cannot be added to a controller of your own",
        ),
    ],
)
def test_a_factory_of_the_users_that_does_not_fit(
    factory: Any, params: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        built(factory, **params)
