"""Every formula against values worked out by hand, and the edges T = 1, T = W, after T."""

from __future__ import annotations

import math

import pytest

from lrexp.errors import ConfigError
from lrexp.schedules.build import SCHEDULES
from lrexp.schedules.schedule import Schedule

LINEAR_HF = [0, 5, 10, 8.75, 7.5, 6.25, 5, 3.75, 2.5, 1.25]
COSINE_HF = [0, 5, 10, 9.61, 8.53, 6.91, 5, 3.08, 1.46, 0.38]  # cut off, not rounded
WARM_COSINE = [0.25, 0.5, 0.75, 1, 1, 0.9623, 0.855, 0.6944, 0.505, 0.3156, 0.155, 0.0477, 0.01]
QUARTERS = [0.8536, 0.5, 0.1464]  # of a half cosine

# name | lr, T, parameters | values from step 0 on | absolute tolerance
VALUES = [
    ("cosine", 1, 12, {"warmup": 4, "min_lr": 0.01}, WARM_COSINE, 5e-5),
    ("cosine", 1, 12, {"warmup": 4, "final_div_factor": 100}, WARM_COSINE, 5e-5),
    ("cosine", 10, 10, {"warmup": 2, "warmup_start": 0}, COSINE_HF, 1e-2),
    ("linear", 10, 10, {"warmup": 2, "warmup_start": 0}, LINEAR_HF, 1e-12),
    ("linear", 1, 4, {"min_lr": 0.2}, [1, 0.8, 0.6, 0.4, 0.2, 0.2], 1e-12),
    ("constant", 0.5, 3, {"warmup": 2}, [0.25, 0.5, 0.5, 0.5, 0.5], 0),
    ("constant", 1, 9, {"warmup": 4, "warmup_start": 0.2}, [0.2, 0.4, 0.6, 0.8, 1, 1], 1e-12),
    (
        "exponential",
        1,
        4,
        {"min_lr": 0.1},
        [1, 0.1 + 0.9 * math.exp(-0.75), 0.1 + 0.9 * math.exp(-1.5)],
        1e-12,
    ),
    ("exponential", 1, 2, {}, [1, math.exp(-1.5), 0, 0], 1e-12),
    ("exponential", 1, 99, {"gamma": 0.5, "warmup": 2}, [0.5, 1, 1, 0.5, 0.25], 1e-12),
    ("exponential", 1, 9, {"gamma": 0.5, "min_lr": 0.3}, [1, 0.5, 0.3, 0.3], 1e-12),
    ("polynomial", 1, 4, {"power": 2}, [1, 0.5625, 0.25, 0.0625, 0, 0], 1e-12),
    ("polynomial", 1, 4, {}, [1, 0.75, 0.5, 0.25, 0, 0], 1e-12),
    (
        "inverse_sqrt",
        10,
        99,
        {"warmup": 2, "warmup_start": 0},
        [0, 5, 10, 8.165, 7.071, 6.325, 5.774],
        5e-4,
    ),
    ("inverse_sqrt", 1, 9, {"timescale": 1}, [1, 2**-0.5, 3**-0.5, 0.5], 1e-12),
    ("inverse_sqrt", 1, 20_000, {}, [1, (10_001 / 10_000) ** -0.5], 1e-12),
    ("inverse_sqrt", 1, 9, {"timescale": 1, "min_lr": 0.6}, [1, 2**-0.5, 0.6, 0.6], 1e-12),
    ("wsd", 1, 6, {"decay": 4, "warmup": 1}, [1, 1, 1, 0.75, 0.5, 0.25, 0, 0], 1e-12),
    ("wsd", 1, 4, {"decay": 4, "decay_type": "1-sqrt"}, [1, 0.5, 1 - 0.5**0.5], 1e-12),
    ("wsd", 1, 4, {"decay": 2, "decay_type": "cosine"}, [1, 1, 1, 0.5, 0, 0], 1e-12),
    ("wsd", 1, 10, {"min_lr": 0.5}, [1] * 9 + [0.75, 0.5, 0.5], 1e-12),  # a fifth of the steps
    ("rex", 1, 4, {}, [1, 6 / 7, 2 / 3, 0.4, 0, 0], 1e-12),
    ("rex", 1, 4, {"beta": 0, "min_lr": 0.2}, [1, 0.8, 0.6, 0.4, 0.2, 0.2], 1e-12),
    ("cosine_restarts", 1, 6, {"cycle": 2}, [1, 0.5, 1, 0.5, 1, 0.5, 0, 0], 1e-12),
    ("cosine_restarts", 1, 7, {"cycle": 2, "cycle_mult": 2}, [1, 0.5, 1, 0.8536, 0.5], 5e-5),
    (
        "cosine_restarts",
        1,
        6,
        {"cycle": 2, "cycle_mult": 2},
        [1, 0.5, 1, 0.8536, 0.5, 0.1464, 0, 0],
        5e-5,
    ),
    ("cosine_restarts", 1, 6, {"cycle": 2, "cycle_decay": 0.5}, [1, 0.5, 0.5, 0.25, 0.25], 1e-12),
    (
        "cosine_restarts",
        1,
        6,
        {"cycle": 2, "cycle_decay": 0.1, "min_lr": 0.4, "warmup": 1, "warmup_start": 0},
        [0, 1, 0.7, 0.4, 0.4],
        1e-12,
    ),
    ("step", 1, 6, {"size": 2, "gamma": 0.5}, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125], 1e-12),
    ("step", 1, 9, {"size": 2, "gamma": 0.5, "warmup": 3}, [1 / 3, 2 / 3, 1, 0.5, 0.25], 1e-12),
    ("step", 1, 9, {"size": 1, "gamma": 0.1, "min_lr": 0.05}, [1, 0.1, 0.05, 0.05], 1e-12),
    (
        "multi_step",
        1,
        10,
        {"milestones": [5, 8, 9], "factors": [0.5, 0.1, 0.01], "warmup": 2},
        [0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.1, 0.01, 0.01],
        1e-12,
    ),
    ("multi_step", 1, 9, {"milestones": [1, 3], "gamma": 0.5}, [1, 0.5, 0.5, 0.25, 0.25], 1e-12),
    ("multi_step", 1, 9, {"milestones": [2]}, [1, 1, 0.1, 0.1], 1e-12),
    # milestone 0 holds from the first step; one inside the warmup waits for its end
    ("multi_step", 1, 9, {"milestones": [0, 2], "factors": [0.5, 0.1]}, [0.5, 0.5, 0.1], 1e-12),
    ("multi_step", 1, 9, {"milestones": [1], "warmup": 3}, [1 / 3, 2 / 3, 1, 0.1, 0.1], 1e-12),
    ("multi_step", 1, 9, {"milestones": [2, 4], "min_lr": 0.05}, [1, 1, 0.1, 0.1, 0.05], 1e-12),
    ("multi_step", 1, 9, {"milestones": [99]}, [1] * 12, 0),
    ("cyclic", 1, 9, {"base_lr": 0.5, "step_size_up": 2}, [0.5, 0.75, 1, 0.75, 0.5], 1e-12),
    ("cyclic", 1, 16, {}, [0.1, 0.55, 1, 0.55, 0.1], 1e-12),  # four cycles
    (
        "cyclic",
        1,
        99,
        {"base_lr": 0.4, "step_size_up": 1, "step_size_down": 3},
        [0.4, 1, 0.8, 0.6, 0.4],
        1e-12,
    ),
    ("one_cycle", 1, 1, {}, [1 / 25 / 1e4] * 3, 1e-12),  # as torch: a single step is the end
    ("lambda", 2, 3, {"function": lambda s: 1 / (s + 1)}, [2, 1, 2 / 3, 2 / 3, 2 / 3], 1e-12),
    ("lambda", 2, 9, {"function": lambda s: s, "warmup": 2}, [1, 2, 4, 6], 1e-12),
    # names and arguments of transformers and timm
    ("cosine", 1, 4, {"num_cycles": 1}, [1, 0.5, 0, 0.5, 1, 1], 1e-12),
    ("cosine", 1, 4, {"k_decay": 2}, [1, 0.9904, 0.8536, 0.4025, 0, 0], 5e-5),
    ("polynomial", 1, 4, {"k_decay": 2}, [1, 15 / 16, 3 / 4, 7 / 16, 0, 0], 1e-12),
    ("poly", 1, 4, {}, [1, 0.75**0.5, 0.5**0.5, 0.5, 0, 0], 1e-12),
    ("constant_with_warmup", 0.5, 3, {"warmup": 2}, [0.25, 0.5, 0.5, 0.5, 0.5], 0),
    ("multistep", 1, 9, {"milestones": [1, 3], "gamma": 0.5}, [1, 0.5, 0.5, 0.25], 1e-12),
    ("rsqrt", 1, 6, {"warmup": 1, "decay": 2}, [1, 1, 2**-0.5, 3**-0.5, 0.5, 0.2236, 0], 5e-5),
    # 4 + 2 + 1 steps; a cycle of half a step is not begun
    (
        "cosine_restarts",
        1,
        20,
        {"cycle": 4, "cycle_mult": 0.5, "min_lr": 0.2},
        [1, 0.8828, 0.6, 0.3172, 1, 0.6, 1, 0.2, 0.2, 0.2],
        5e-5,
    ),
    ("cosine_restarts", 1, 9, {"cycle": 2, "cycle_limit": 2}, [1, 0.5, 1, 0.5, 0, 0, 0], 1e-12),
    ("cosine_with_restarts", 1, 8, {"num_cycles": 2}, [1, *QUARTERS, 1, *QUARTERS, 0, 0], 5e-5),
    ("cosine_with_min_lr", 2, 4, {"min_lr_rate": 0.5}, [2, 1.8536, 1.5, 1.1464, 1, 1], 5e-5),
    (
        "cosine_warmup_with_min_lr",
        1,
        6,
        {"warmup": 2, "min_lr": 0.1},
        [0.5, 1, 0.1 + 0.9 * 0.8536, 0.55, 0.1 + 0.9 * 0.1464, 0.1, 0.1],
        5e-5,
    ),
    (
        "cosine_warmup_with_min_lr",
        1,
        5,
        {"warmup": 3, "warmup_lr_rate": 0.2},
        [0.2, 0.6, 1, 0.5, 0, 0],
        1e-12,
    ),
    ("cosine_warmup_with_min_lr", 1, 2, {"warmup": 1, "warmup_lr_rate": 0.2}, [0.2, 0, 0], 1e-12),
    (
        "warmup_stable_decay",
        1,
        8,
        {
            "warmup": 2,
            "warmup_start": 0.1,
            "num_stable_steps": 2,
            "num_decay_steps": 2,
            "decay_type": "linear",
            "min_lr_ratio": 0.1,
        },
        [0.1, 0.55, 1, 1, 1, 0.55, 0.1, 0.1, 0.1],
        1e-12,
    ),
    ("warmup_stable_decay", 1, 6, {"num_decay_steps": 4}, [1, 1, 1, *QUARTERS, 0, 0], 5e-5),
    ("tanh", 1, 4, {"lb": -1, "ub": 1}, [0.8808, 0.7311, 0.5, 0.2689, 0, 0], 5e-5),
    (
        "power",
        1,
        8,
        {"exponent": -1, "timescale": 2, "decay": 2},
        [1, 1, 1, 2 / 3, 1 / 2, 2 / 5, 1 / 3, 1 / 6, 0, 0],
        1e-12,
    ),
    (
        "power",
        1,
        9,
        {"exponent": -0.5, "warmup": 2, "decay": 0, "min_lr": 0.6},
        [0.5, 1, 1, (2 / 3) ** 0.5, 0.5**0.5, (2 / 5) ** 0.5, 0.6, 0.6],
        1e-12,
    ),
    # a start as an LR, whatever the warmup leads to
    ("cosine", 2, 12, {"warmup": 4, "warmup_start_lr": 0.4}, [0.4, 0.8, 1.2, 1.6, 2], 1e-12),
    ("one_cycle", 1, 40, {"warmup": 4, "warmup_start_lr": 0.02}, [0.02, 0.025, 0.03], 1e-12),
    ("multi_step", 1, 9, {"milestones": [1], "warmup": 2, "warmup_start_lr": 0}, [0, 0.5], 1e-12),
    ("lambda", 2, 9, {"function": abs, "warmup": 2, "warmup_start_lr": 1}, [1, 1.5, 4], 1e-12),
    ("cosine", 2, 2, {"warmup_start_lr": 0.4}, [2, 1], 1e-12),
]


@pytest.mark.parametrize(
    ("name", "lr", "total", "params", "expected", "tolerance"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(VALUES)],
)
def test_values(
    name: str, lr: float, total: int, params: dict, expected: list[float], tolerance: float
) -> None:
    schedule = SCHEDULES[name](lr, total, **params)
    got = [schedule(step) for step in range(len(expected))]
    assert got == pytest.approx(expected, abs=tolerance, rel=1e-12)


# The shortest training there is: one step, no room for a warmup.
ONE_STEP = {
    "constant": ({}, 1.0),
    "cosine": ({}, 1.0),
    "linear": ({}, 1.0),
    "exponential": ({}, 1.0),
    "polynomial": ({}, 1.0),
    "inverse_sqrt": ({}, 1.0),
    "wsd": ({}, 1.0),
    "rex": ({}, 1.0),
    "cosine_restarts": ({"cycle": 1}, 1.0),
    "cyclic": ({}, 0.1),
    "step": ({"size": 1}, 1.0),
    "multi_step": ({"milestones": [1]}, 1.0),
    "one_cycle": ({}, 4e-6),
}


@pytest.mark.parametrize("name", ONE_STEP)
def test_one_step_training(name: str) -> None:
    params, expected = ONE_STEP[name]
    assert SCHEDULES[name](1.0, 1, **params)(0) == pytest.approx(expected)
    with pytest.raises(ConfigError, match=r"warmup: must be shorter than training \(1 steps\)"):
        SCHEDULES[name](1.0, 1, warmup=1, **params)


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "plateau", "adaptive_cycle"])
@pytest.mark.parametrize("warmup", [10, 11])
def test_warmup_as_long_as_training_is_an_error(name: str, warmup: int) -> None:
    with pytest.raises(ConfigError, match=r"warmup: must be shorter than training \(10 steps\)"):
        SCHEDULES[name](1.0, 10, warmup=warmup)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("cosine", {"warmup_start_lr": 0.1, "warmup_start": 0}, r"warmup_start_lr: cannot be give"),
        ("cosine", {"warmup_start_lr": -1}, "warmup_start_lr: must be a number of at least 0"),
        ("cosine", {"warmup_start_lr": 2}, r"warmup_start_lr: must be at most .* \(1\) \(got 2\)"),
        ("one_cycle", {"warmup_start_lr": 0.1}, r"warmup_start_lr: must be at most .* \(0.04\)"),
        ("plateau", {"warmup_start_lr": 2}, r"warmup_start_lr: must be at most .* \(1\)"),
        ("cosine_with_min_lr", {"min_lr": 0.1, "min_lr_rate": 0.1}, "min_lr_rate: cannot be given"),
        ("warmup_stable_decay", {"num_decay_steps": 9}, "num_decay_steps: must fit into the 8 st"),
        ("cosine_warmup_with_min_lr", {"warmup_lr_rate": 0, "warmup_start": 0}, "warmup_lr_rate:"),
        ("tanh", {"lb": 3}, r"ub: must be above lb \(3\)"),
        ("power", {"exponent": 0.5}, "exponent: must be a number"),
        ("power", {"decay": 9}, "decay: must fit into the 8 steps"),
        ("greedy", {"min_lr": 2}, r"min_lr: must be at most .* \(1\)"),
        ("greedy", {"max_lr": 0.5}, "optimizer.lr: must be at most schedule.max_lr"),
    ],
)
def test_bad_parameters(name: str, params: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SCHEDULES[name](1.0, 10, warmup=2, **params)


def test_a_controller_warms_up_from_an_lr() -> None:
    control = SCHEDULES["adaptive_cycle"](1.0, 10, base_lr=0.2, warmup=4, warmup_start_lr=0.2)
    lrs = [control.lr(control.init(), step) for step in range(5)]
    assert lrs == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])


@pytest.mark.parametrize(("name", "start"), [("one_cycle", 0.04), ("cyclic", 0.1)])
def test_a_warmup_leads_to_where_the_cycle_starts(name: str, start: float) -> None:
    schedule = SCHEDULES[name](1.0, 44, warmup=4)
    plain = SCHEDULES[name](1.0, 40)
    assert [schedule(s) for s in range(4)] == pytest.approx([start * k / 4 for k in (1, 2, 3, 4)])
    assert [schedule(s + 4) for s in range(50)] == [plain(s) for s in range(50)]


def test_momentum_waits_for_the_warmup() -> None:
    schedule = SCHEDULES["one_cycle"](1.0, 44, warmup=4)
    plain = SCHEDULES["one_cycle"](1.0, 40)
    assert [schedule.momentum(s) for s in range(4)] == [0.95] * 4
    assert [schedule.momentum(s + 4) for s in range(50)] == [plain.momentum(s) for s in range(50)]
    assert SCHEDULES["one_cycle"](1.0, 40, cycle_momentum=False).momentum is None
    assert SCHEDULES["cyclic"](1.0, 40).momentum is None


def test_steps_below_zero_are_refused() -> None:
    with pytest.raises(ConfigError, match="step: must be at least 0"):
        Schedule(lambda step: 1.0)(-1)


def test_long_trainings_cost_nothing_ahead() -> None:
    """No table of the training is made: a billion steps, and the last of them."""
    for name, params in {
        "cosine": {},
        "cyclic": {"mode": "triangular2", "step_size_up": 1},
    }.items():
        assert SCHEDULES[name](1.0, 10**9, **params)(10**9 - 1) >= 0
    restarts = SCHEDULES["cosine_restarts"](1.0, 10**9, cycle=1)
    assert restarts(10**9 - 1) == 1.0


def test_every_built_in_function_of_the_step_has_values() -> None:
    reactive = {"plateau", "reduce_lr_on_plateau", "greedy", "adaptive_cycle"}
    reactive_or_made_of_others = {*reactive, "combined", "lambda"}
    assert {row[0] for row in VALUES} >= SCHEDULES.keys() - reactive_or_made_of_others
