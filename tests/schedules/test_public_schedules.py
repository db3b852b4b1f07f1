"""The Python functions, called as the README calls them."""

from __future__ import annotations

import math
from typing import Any

import pytest

import lrexp
from lrexp.errors import ConfigError
from lrexp.schedules.build import SCHEDULES

ALL = {
    "cosine_restarts": {"cycle": 5},
    "step": {"size": 5},
    "multi_step": {"milestones": [5], "gamma": 0.5},
    "multistep": {"milestones": [5], "gamma": 0.5},
    "warmup_stable_decay": {"num_decay_steps": 5},
}
REACTIVE = ("plateau", "reduce_lr_on_plateau", "greedy", "adaptive_cycle")
PURE = [n for n in SCHEDULES if n not in (*REACTIVE, "combined", "lambda")]


def test_get_lr_scheduler() -> None:
    schedule = lrexp.get_lr_scheduler(
        max_lr=1e-4, min_lr=1e-6, warmup_steps=1000, max_steps=50_000, decay_type="cosine"
    )
    assert schedule(0) == pytest.approx(1e-7)
    assert schedule(999) == schedule(1000) == 1e-4
    assert schedule(25_500) == pytest.approx((1e-4 + 1e-6) / 2)
    assert schedule(50_000) == schedule(10**7) == 1e-6
    assert schedule(5000) == schedule(5000)


@pytest.mark.parametrize("decay_type", PURE)
def test_every_pure_schedule_by_decay_type(decay_type: str) -> None:
    params = ALL.get(decay_type, {})
    schedule = lrexp.get_lr_scheduler(max_lr=0.5, max_steps=40, decay_type=decay_type, **params)
    expected = SCHEDULES[decay_type](0.5, 40, **params)
    assert [schedule(s) for s in range(50)] == [expected(s) for s in range(50)]


def test_final_div_factor_takes_precedence() -> None:
    for min_lr in (None, 0.3):
        schedule = lrexp.get_lr_scheduler(
            max_lr=1.0, min_lr=min_lr, max_steps=10, final_div_factor=4
        )
        assert schedule(10) == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_lr": 0}, "^max_lr: must be a positive number"),
        ({"max_lr": math.nan}, "^max_lr: must be a positive number"),
        ({"max_lr": True}, "^max_lr: must be a positive number"),
        ({"max_steps": 0}, "^max_steps: must be a whole number of at least 1"),
        (
            {"warmup_steps": 100},
            r"^warmup_steps: must be shorter .* Shorten it, or train longer\.$",
        ),
        ({"decay_type": "wsd", "decay": 200}, r"^decay: .* or train longer\.$"),
        ({"warmup_steps": -1}, "^warmup_steps: must be a whole number"),
        ({"warmup_steps": True}, "^warmup_steps: must be a whole number of at least 0"),
        ({"min_lr": 2.0}, "^min_lr: must be at most the peak LR"),
        ({"min_lr": None}, "^min_lr: is needed without final_div_factor"),
        ({"decay_type": "cosin"}, "^decay_type: .* Did you mean 'cosine'"),
        ({"decay_type": "plateau"}, "^decay_type: is not a schedule of this kind"),
        ({"powr": 2}, "^powr: is not a parameter of cosine"),
        ({"decay_type": "one_cycle", "min_lr": 0.1}, "^min_lr: is not a parameter of one_cycle"),
        ({"decay_type": "constant", "final_div_factor": 2}, "^final_div_factor: is not"),
        ({"decay_type": "multi_step", "milestones": [5, 1]}, "^milestones: must be sorted"),
    ],
)
def test_get_lr_scheduler_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lrexp.get_lr_scheduler(**{"max_lr": 1.0, "max_steps": 100, **arguments})


def test_get_multi_step_lr_scheduler() -> None:
    schedule = lrexp.get_multi_step_lr_scheduler(
        max_lr=1e-4,
        warmup_steps=2000,
        total_tokens=300_000_000_000,
        tokens_per_step=2048 * 2048,
        step_milestones=[0.5, 0.8, 0.9],
        step_factors=[0.5, 0.1, 0.01],
    )
    total = 71_526  # 71 525.57 steps
    assert schedule(0) == pytest.approx(1e-4 / 2000)
    for step, factor in [
        (2000, 1),
        (total // 2 - 1, 1),
        (total // 2, 0.5),
        (57_219, 0.5),  # 0.8 of the steps is 57 220.8
        (57_220, 0.1),
        (64_373, 0.01),  # 0.9 of them is 64 373.4
        (10**7, 0.01),
    ]:
        assert schedule(step) == pytest.approx(1e-4 * factor)


def test_milestones_are_exact() -> None:
    """0.29 · 100 is 28.999999999999996 in floats."""
    schedule = lrexp.get_multi_step_lr_scheduler(
        max_lr=1.0,
        warmup_steps=0,
        total_tokens=1e2,
        tokens_per_step=1,
        step_milestones=[0.29],
        step_factors=[0.5],
    )
    assert [schedule(28), schedule(29)] == [1.0, 0.5]


def test_a_floor_holds_in_the_warmup_too() -> None:
    schedule = lrexp.get_multi_step_lr_scheduler(
        max_lr=1.0,
        warmup_steps=10,
        total_tokens=100,
        tokens_per_step=1,
        step_milestones=[0.0, 0.5],
        step_factors=[0.9, 0.01],
        min_lr=0.15,
    )
    assert min(schedule(s) for s in range(120)) == 0.15
    assert [schedule(s) for s in (0, 1, 9, 10, 50)] == [0.15, 0.2, 1.0, 0.9, 0.15]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_milestones": [0.8, 0.5]}, "^step_milestones: must rise"),
        ({"step_milestones": [0.5, 0.5]}, "^step_milestones: must rise"),
        ({"step_milestones": [0.5, 1.5]}, r"^step_milestones\[1\]: must be a number in \[0, 1\]"),
        ({"step_milestones": 0.5}, "^step_milestones: must be a list"),
        ({"step_milestones": ["a", 1]}, r"^step_milestones\[0\]: must be a number in"),
        ({"step_factors": None}, "^step_factors: must be a list"),
        ({"step_milestones": [0.5]}, "^step_factors: must have one factor per milestone"),
        ({"step_factors": [0.5, -1]}, r"^step_factors\[1\]: must be a number of at least 0"),
        ({"step_milestones": [], "step_factors": []}, "^step_milestones: must be a list with"),
        ({"tokens_per_step": 0}, "^tokens_per_step: must be a positive number"),
        ({"tokens_per_step": -4}, "^tokens_per_step: must be a positive number"),
        ({"total_tokens": 0}, "^total_tokens: must be a positive number"),
        ({"total_tokens": math.inf}, "^total_tokens: must be a positive number"),
        ({"warmup_steps": 10}, r"^warmup_steps: must be shorter than training \(10 steps\)"),
        ({"max_lr": -1}, "^max_lr: must be a positive number"),
        ({"min_lr": 2.0}, "^min_lr: must be at most the peak LR"),
    ],
)
def test_get_multi_step_lr_scheduler_refuses(arguments: dict[str, Any], message: str) -> None:
    base = {
        "max_lr": 1.0,
        "warmup_steps": 2,
        "total_tokens": 1000,
        "tokens_per_step": 100,
        "step_milestones": [0.5, 0.8],
        "step_factors": [0.5, 0.1],
    }
    with pytest.raises(ConfigError, match=message):
        lrexp.get_multi_step_lr_scheduler(**{**base, **arguments})
