"""A schedule that is registered from outside: its signature is the schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lrexp
from lrexp.config.load import load_config
from lrexp.errors import ConfigError
from lrexp.schedules import register
from lrexp.schedules.build import SCHEDULES, build_schedule
from lrexp.schedules.schedule import Schedule, Steps
from lrexp.schedules.signatures import Positive


@pytest.fixture(autouse=True)
def hyperbola() -> Iterator[None]:
    @register("hyperbola")
    def made(
        lr: float, total_steps: int, *, knee: Steps = 1, power: Positive = 1.0, warmup: Steps = 0
    ) -> Schedule:
        return Schedule(lambda step: lr / (1 + step / knee) ** power)

    yield
    del SCHEDULES["hyperbola"]


def config(schedule: object) -> dict[str, object]:
    return {
        "model": "mlp", "data": "digits", "loss": "cross_entropy",
        "optimizer": {"name": "SGD", "lr": 0.1}, "schedule": schedule,
    }  # fmt: skip


def test_a_config_of_this_process_names_it() -> None:
    section = {"name": "hyperbola", "knee": "10%"}
    assert load_config(config(section)).experiment.schedule.params == {"knee": "10%"}
    schedule = build_schedule(
        "hyperbola",
        {"knee": "10%"},
        lr=1.0,
        total_steps=100,
        to_steps=lambda duration: 10,
        steps_per_epoch=None,
    )
    assert [schedule(step) for step in (0, 10, 30)] == [1, 0.5, 0.25]
    plain = lrexp.get_lr_scheduler(max_lr=1.0, max_steps=9, decay_type="hyperbola", power=2)
    assert plain(1) == 0.25


def test_what_does_not_fit_is_told_with_the_rest_of_the_config() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config({"name": "hyperbola", "pwer": 2, "power": 0, "knee": 1.5}))
    assert [str(problem) for problem in caught.value.problems] == [
        "schedule.pwer: is not a parameter of hyperbola (got 2). Did you mean 'power'?",
        "schedule.power: must be a positive number (got 0). Give e.g. 0.5.",
        "schedule.knee: must be a duration (got 1.5). Give e.g. 500, 10ep or 5%.",
    ]
    with pytest.raises(ConfigError, match=r"warmup: must be shorter than training \(9 steps\)"):
        SCHEDULES["hyperbola"](1.0, 9, warmup=9)


@pytest.mark.parametrize("name", ["cosine", "hyperbola"])
def test_a_name_is_taken_once(name: str) -> None:
    with pytest.raises(ConfigError, match="is the name of another schedule"):
        register(name)
