"""Any torch scheduler by its name: the values torch gives, without torch's side effects."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from schedules.torch_oracle import stepped
from torch.optim import lr_scheduler as torch_lr

from lrexp.errors import ConfigError, UserCodeError
from lrexp.schedules.build import build_schedule, check_schedule
from lrexp.schedules.schedule import Schedule
from lrexp.schedules.torch_adapter import torch_class_names, torch_schedule

ARGS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "MultiStepLR": {"milestones": [2, 5], "gamma": 0.5},
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "LinearLR": {"start_factor": 0.2, "total_iters": 6},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 8, "power": 2.0},
    "CosineAnnealingLR": {"T_max": 5},
    "CosineAnnealingWarmRestarts": {"T_0": 4, "T_mult": 2},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 120},
    "CyclicLR": {
        "base_lr": 0.1,
        "max_lr": 0.4,
        "step_size_up": 7,
        "mode": "exp_range",
        "gamma": 0.99,
    },
}
FROM_CONFIG_NOT = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler")
EPOCHS, PER_EPOCH = 12, 10


def built(
    name: Any, lr: float = 0.3, steps_per_epoch: int | None = PER_EPOCH, **params: Any
) -> Any:
    return build_schedule(
        name,
        params,
        lr=lr,
        total_steps=EPOCHS * PER_EPOCH,
        to_steps=int,
        steps_per_epoch=steps_per_epoch,
    )


def test_every_class_of_this_torch_is_known() -> None:
    covered = {*ARGS, *FROM_CONFIG_NOT, "ReduceLROnPlateau"}
    assert covered <= set(torch_class_names())
    for name in set(torch_class_names()) - covered:  # a newer torch's: at least it is found
        assert not [p for p in check_schedule(name, {}) if p.key == "name"]


@pytest.mark.parametrize("name", ARGS)
def test_per_step(name: str) -> None:
    steps = EPOCHS * PER_EPOCH
    lrs, momenta = stepped(lambda o: getattr(torch_lr, name)(o, **ARGS[name]), 0.3, steps)
    schedule = built(name, args=ARGS[name], interval="step")
    assert [schedule(s) for s in range(steps)] == lrs
    assert schedule(steps) == schedule(10**9) == lrs[-1]
    if name in ("OneCycleLR", "CyclicLR"):
        assert [schedule.momentum(s) for s in range(steps)] == momenta
        assert schedule.momentum(10**9) == momenta[-1]
    else:
        assert schedule.momentum is None


@pytest.mark.parametrize("name", ARGS)
def test_per_epoch(name: str) -> None:
    args = {**ARGS[name], **({"total_steps": EPOCHS} if name == "OneCycleLR" else {})}
    lrs, _ = stepped(lambda o: getattr(torch_lr, name)(o, **args), 0.3, EPOCHS)
    schedule = built(name, args=args, interval="epoch")
    expected = [lr for lr in lrs for _ in range(PER_EPOCH)]
    assert [schedule(s) for s in range(EPOCHS * PER_EPOCH)] == expected


@pytest.mark.parametrize("name", ARGS)
def test_the_interval_by_default(name: str) -> None:
    kind = "step" if name in ("OneCycleLR", "CyclicLR") else "epoch"
    args = ARGS[name]
    default, explicit = built(name, args=args), built(name, args=args, interval=kind)
    assert [default(s) for s in range(0, 120, 7)] == [explicit(s) for s in range(0, 120, 7)]


def test_order_of_evaluation_does_not_matter() -> None:
    forwards = built("CyclicLR", args=ARGS["CyclicLR"])
    backwards = built("CyclicLR", args=ARGS["CyclicLR"])
    values = [backwards(s) for s in reversed(range(120))]
    assert values[::-1] == [forwards(s) for s in range(120)]


def test_a_training_that_is_not_whole_epochs() -> None:
    schedule = torch_schedule(1.0, 25, torch_lr.StepLR, 10, args={"step_size": 1, "gamma": 0.5})
    assert [schedule(s) for s in (9, 10, 20, 24, 25, 99)] == [1, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_a_warmup_replaces_the_first_steps_of_the_calendar() -> None:
    schedule = built("StepLR", lr=1.0, args={"step_size": 1, "gamma": 0.5}, warmup=4)
    assert [schedule(s) for s in (0, 1, 2, 3, 4, 9, 10)] == [0.25, 0.5, 0.75, 1, 1, 1, 0.5]


def test_one_cycle_and_cyclic_take_the_peak_from_the_optimizer() -> None:
    """Or an LR comparison of OneCycleLR would compare equal trainings."""
    for lr in (0.3, 3.0):
        lrs, _ = stepped(lambda o: torch_lr.OneCycleLR(o, max_lr=lr, total_steps=120), 1.0, 120)  # noqa: B023
        schedule = built("OneCycleLR", lr=lr)
        assert [schedule(s) for s in range(120)] == lrs
    cyclic = built("CyclicLR", args={"base_lr": 0.1, "step_size_up": 5})
    assert cyclic(5) == 0.3


def test_subclasses_of_the_users_own_work() -> None:
    class Halving(torch_lr.LRScheduler):
        def __init__(self, optimizer: Any, every: int, last_epoch: int = -1) -> None:
            self.every = every
            super().__init__(optimizer, last_epoch)

        def get_lr(self) -> list[float]:
            return [lr * 0.5 ** (self.last_epoch // self.every) for lr in self.base_lrs]

    schedule = built(Halving, lr=1.0, args={"every": 2})
    assert [schedule(s) for s in (0, 19, 20, 40)] == [1, 1, 0.5, 0.25]
    with pytest.raises(ConfigError, match=r"args\.evry: is not a parameter of Halving"):
        built(Halving, args={"evry": 2})


# name | parameters | what the message must say
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("StepLR", {}, "args.step_size: is needed by StepLR"),
    ("StepLR", {"args": {"stepsize": 3}}, "args.stepsize: is not a parameter of StepLR (got 3). Did you mean 'step_size'?"),
    ("StepLR", {"args": {"step_size": 3, "last_epoch": 4}}, "args.last_epoch: is given to StepLR already, by the step of the training"),
    ("StepLR", {"args": {"step_size": "3"}}, "args.step_size: must be a whole number (got '3')"),
    ("StepLR", {"args": {"step_size": True}}, "args.step_size: must be a whole number (got true)"),
    ("StepLR", {"args": {"step_size": 2.5}}, "args.step_size: must be a whole number (got 2.5)"),
    ("StepLR", {"args": {"step_size": 3, "gamma": float("nan")}}, "args.gamma: must be a finite number"),
    ("StepLR", {"args": {"step_size": 0}}, "args: StepLR refuses its arguments: ZeroDivisionError"),
    ("StepLR", {"step_size": 3}, "step_size: is not a parameter of StepLR"),
    ("StepLR", {"args": {"step_size": 3}, "interval": "batch"}, "interval: must be one of epoch, step (got 'batch')"),
    ("StepLR", {"args": [3]}, "args: must be a mapping"),
    ("StepLR", {"args": {"step_size": 3}, "warmup": 120}, "warmup: must be shorter than training (120 steps)"),
    ("MultiStepLR", {"args": {"milestones": [1, "2"]}}, "args.milestones[1]: must be a whole number (got '2')"),
    ("ExponentialLR", {"args": {"gamma": -1.0}}, "args: ExponentialLR refuses its arguments"),
    ("CosineAnnealingLR", {"args": {"T_max": 0}}, "args: CosineAnnealingLR refuses its arguments"),
    ("CosineAnnealingWarmRestarts", {"args": {"T_0": -1}}, "Expected positive integer T_0"),
    ("OneCycleLR", {"args": {"max_lr": 1.0, "total_steps": 100}}, "args.total_steps: must be at least 120, the length of the training (got 100)"),
    ("OneCycleLR", {"args": {"anneal_strategy": "sin"}}, "args.anneal_strategy: must be one of cos, linear (got 'sin')"),
    ("OneCycleLR", {"args": {"three_phase": 1}}, "args.three_phase: must be true or false"),
    ("CyclicLR", {"args": {"max_lr": 1.0}}, "args.base_lr: is needed by CyclicLR"),
    ("CyclicLR", {"args": {"base_lr": 0.1, "scale_fn": "x"}}, "args.scale_fn: must be a function (got 'x')"),
    ("LambdaLR", {"args": {"lr_lambda": "x"}}, "Use {name: lambda, function: package.module:name}"),
    ("MultiplicativeLR", {}, "name: takes Python objects, which a config cannot hold"),
    ("SequentialLR", {}, "Use {name: combined, parts: [...]}"),
    ("ChainedScheduler", {}, "Use {name: combined, parts: [...]}"),
    ("ReduceLROnPlateau", {"args": {"patience": 2.5}}, "args.patience: must be a whole number"),
    ("ReduceLROnPlateau", {"args": {"factor": 1.5}}, "args.factor: must be a number in (0, 1) (got 1.5)"),
    ("ReduceLROnPlateau", {"args": {"min_lr": [0.1]}}, "args.min_lr: must be one value (got [0.1])"),
    ("ReduceLROnPlateau", {"args": {"min_lr": 9}}, "args.min_lr: must be at most the peak LR"),
    ("ReduceLROnPlateau", {"monitor": "loss"}, "monitor: must be measured at evaluations"),
    ("ReduceLROnPlateau", {"interval": "epoch"}, "interval: is not a parameter"),
    ("ReduceLROnPlateau", {"warmup": 500, "args": {"cooldown": -1}}, "args.cooldown: must be a whole number of at least 0 (got -1)"),
    ("StepLr", {"args": {}}, "name: is not a known schedule (got 'StepLr'). Did you mean 'StepLR'?"),
    ("LRScheduler", {}, "name: is not a known schedule"),
    ("Optimizer", {}, "name: is not a known schedule"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "message"), REFUSED)
def test_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built(name, **params)
    assert message in str(caught.value)


def test_epochs_need_data_with_a_length() -> None:
    with pytest.raises(ConfigError, match="interval: epoch needs data with a length"):
        built("StepLR", steps_per_epoch=None, args={"step_size": 2})
    schedule = built("StepLR", steps_per_epoch=None, args={"step_size": 2}, interval="step")
    assert schedule(0) == schedule(1) > schedule(2)


@pytest.mark.parametrize(
    ("lr_at_4", "message"),
    [
        (-1.0, "Late must return a finite number of at least 0, got -1.0 at step 4"),
        (math.nan, "Late must return a finite number of at least 0, got nan at step 4"),
        (None, "Late raised at its step 4: KeyError"),
    ],
)
def test_a_class_that_fails_late_is_user_code(lr_at_4: float | None, message: str) -> None:
    class Late(torch_lr.LRScheduler):
        def get_lr(self) -> list[float]:
            if self.last_epoch == 4 and lr_at_4 is None:
                raise KeyError("four")
            return [lr_at_4 if self.last_epoch == 4 else 1.0 for _ in self.base_lrs]

    schedule = built(Late, interval="step")
    assert schedule(3) == 1.0
    for step in (4, 5, 4):  # it does not recover by being asked again
        with pytest.raises(UserCodeError, match=message):
            schedule(step)
    assert schedule(3) == 1.0


def test_a_plateau_of_the_users_own_is_refused() -> None:
    class Mine(torch_lr.ReduceLROnPlateau):
        pass

    with pytest.raises(ConfigError, match="name: is a subclass of ReduceLROnPlateau"):
        built(Mine)


def test_nothing_outside_is_touched() -> None:
    """Neither the random state nor the default device matters to the stand-in optimizer."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.device("meta"):
        schedule = built("CosineAnnealingLR", args={"T_max": 12})
        assert isinstance(schedule, Schedule)
        schedule(119)
    assert torch.equal(before, torch.get_rng_state())


def test_torch_is_imported_for_its_own_classes_only() -> None:
    code = (
        "import sys, lrexp.schedules.build as s\n"
        "for name in ('cosine', 'one_cycle', 'plateau', 'adaptive_cycle'):\n"
        "    s.build_schedule(name, {}, lr=1.0, total_steps=9, to_steps=int, steps_per_epoch=1)\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "OneCycleLR",
            {"max_lr": [0.1, 0.2], "total_steps": 220},
            r"args.max_lr: must be one value \(got \[0.1, 0.2\]\). Each group scales it by its own",
        ),
        ("CyclicLR", {"base_lr": [0.1, 0.2]}, "args.base_lr: must be one value"),
        ("ReduceLROnPlateau", {"min_lr": [0.1, 0.2]}, "args.min_lr: must be one value"),
        (
            "OneCycleLR",
            {"epochs": 2, "steps_per_epoch": 20},
            r"args.epochs: epochs × steps_per_epoch must be at least 120, .* \(got 40\)",
        ),
        ("OneCycleLR", {"total_steps": 40}, r"args.total_steps: must be at least 120"),
    ],
)
def test_messages_name_what_the_file_has(name: str, args: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(name, args=args)
