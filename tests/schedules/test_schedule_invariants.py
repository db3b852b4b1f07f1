"""What holds for every pure schedule, whatever its numbers."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrexp.errors import ConfigError
from lrexp.schedules.build import SCHEDULES, build_schedule
from lrexp.schedules.schedule import Controller, Schedule

# what each schedule cannot do without, as a config would say it
NEEDED: dict[str, dict[str, Any]] = {
    "cosine_restarts": {"cycle": 7},
    "step": {"size": 9},
    "multi_step": {"milestones": [10, 30], "gamma": 0.3},
    "multistep": {"milestones": [10, 30], "gamma": 0.3},
    "warmup_stable_decay": {"num_decay_steps": 1},
    "lambda": {"function": lambda step: 0.99**step},
    "combined": {"parts": [{"start": 0, "end": 20, "schedule": "cosine"}]},
}
CONTROLLERS = ("plateau", "reduce_lr_on_plateau", "greedy", "adaptive_cycle")
SECOND_NAMES = ("constant_with_warmup", "multistep", "poly")
WITH_FLOOR = [
    name
    for name in SCHEDULES
    if name not in (*CONTROLLERS, "one_cycle", "cyclic", "lambda", "combined")
]
OWN_PEAK = ("one_cycle", "cyclic")  # whose warmup leads to the start of the cycle
PURE = [name for name in SCHEDULES if name not in CONTROLLERS]


def built(name: str, lr: float, total_steps: int, **params: Any) -> Any:
    params = {**NEEDED.get(name, {}), **params}
    return build_schedule(
        name, params, lr=lr, total_steps=total_steps, to_steps=int, steps_per_epoch=10
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_name_builds_with_its_defaults(name: str) -> None:
    schedule = built(name, 0.1, 100)
    if name in CONTROLLERS:
        assert isinstance(schedule, Controller)
        state = schedule.init()
        assert 0 < schedule.lr(state, 0) <= 0.1
        assert schedule.from_plain(schedule.to_plain(state)) == state
    else:
        assert isinstance(schedule, Schedule)
        assert all(0 <= schedule(step) <= 0.1 for step in range(120))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_name_takes_a_warmup(name: str) -> None:
    schedule = built(name, 0.1, 100, warmup=5)
    if name in CONTROLLERS:
        state = schedule.init()
        peak = schedule.lr(state, 5)
        lrs = [schedule.lr(state, step) for step in range(5)]
    else:
        peak = schedule(5) if name in OWN_PEAK else 0.1
        lrs = [schedule(step) for step in range(5)]
    assert lrs == pytest.approx([peak * k / 5 for k in (1, 2, 3, 4, 5)])


@pytest.mark.parametrize("name", [name for name in PURE if name not in SECOND_NAMES])
@settings(max_examples=settings.default.max_examples // 2)  # each takes long
@given(data=st.data())
def test_invariants(name: str, data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 60), "total_steps")
    warmup = data.draw(st.integers(0, total - 1), "warmup")
    lr = data.draw(st.floats(1e-6, 10), "lr")
    params: dict[str, Any] = {"warmup": warmup}
    if data.draw(st.booleans(), "from a start"):
        params["warmup_start"] = data.draw(st.floats(0, 1), "warmup_start")
    low = 0.0
    if name in WITH_FLOOR:
        low = params["min_lr"] = data.draw(st.floats(0, 1), "floor") * lr
    schedule = built(name, lr, total, **params)
    steps = list(range(total + 5))
    lrs = [schedule(step) for step in steps]

    assert all(low <= value <= lr for value in lrs[warmup:])  # the floor is never ignored
    assert all(0 <= value <= lr for value in lrs)
    assert lrs[:warmup] == sorted(lrs[:warmup])  # the warmup only rises
    if name != "combined":  # whose last part may end elsewhere
        assert len({schedule(total), schedule(total + 1), schedule(10**6)}) == 1
    random.Random(0).shuffle(steps)
    again = built(name, lr, total, **params)
    assert {s: again(s) for s in steps} == dict(enumerate(lrs))  # pure: order does not matter


@pytest.mark.parametrize("name", WITH_FLOOR)
def test_final_div_factor_wins_and_null_is_then_fine(name: str) -> None:
    if name.startswith("constant"):  # has no end to divide
        with pytest.raises(ConfigError, match=f"final_div_factor: is not a parameter of {name}"):
            built(name, 1.0, 50, final_div_factor=4)
        return
    expected = [built(name, 1.0, 50, min_lr=0.25)(step) for step in range(60)]
    for min_lr in (None, 0.9):
        schedule = built(name, 1.0, 50, min_lr=min_lr, final_div_factor=4)
        assert [schedule(step) for step in range(60)] == expected
    with pytest.raises(ConfigError, match="min_lr: is needed without final_div_factor"):
        built(name, 1.0, 50, min_lr=None)


@pytest.mark.parametrize("name", WITH_FLOOR)
def test_a_floor_above_the_peak_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"min_lr: must be at most the peak LR \(1\) \(got 2\)"):
        built(name, 1.0, 50, min_lr=2)


def test_torch_rises_again_after_its_end_and_we_do_not() -> None:
    schedule = built("cosine", 1.0, 10, min_lr=0.1)
    assert [schedule(step) for step in (10, 11, 20, 1000)] == [0.1] * 4


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("start", [0, 7, 33])
def test_a_resumed_training_sees_the_same_lrs(name: str, start: int) -> None:
    """A schedule made anew and asked from the middle gives what an unbroken training used."""
    unbroken, resumed = built(name, 0.1, 50), built(name, 0.1, 50)
    used = [unbroken(step) for step in range(50)]
    assert [resumed(step) for step in range(start, 50)] == used[start:]
