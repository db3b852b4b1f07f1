"""Stacked copies train as they would on their own: every optimizer, schedule and kind of network.

Double precision leaves rounding nowhere to hide: what differs by more is another computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine.comparing import assert_close, assert_equal, keys, losses, numbers, train
from engine.small_tasks import CLASSES, NETS, OPTIMIZERS, made, make_task
from torch import Tensor, nn
from torch.nn import functional

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.task import Task
from lrexp.records import Evaluation, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.optimizers import make_optimizer


@pytest.mark.parametrize("net", NETS)
def test_single_precision_stays_close_for_some_steps(net: str) -> None:
    tasks = [
        make_task(net, "SGD", scale=s, variant=str(s), dtype=torch.float32, total_steps=10)
        for s in (1.0, 0.5, 0.1)
    ]
    assert_equal(tasks, rel=1e-5)


@pytest.mark.parametrize("net", NETS)
def test_copies_of_several_seeds_have_their_own_weights_batches_and_masks(net: str) -> None:
    tasks = [
        make_task(net, variant=variant, scale=scale, seed=seed, total_steps=15)
        for seed in (0, 1, 5)
        for variant, scale in (("a", 1.0), ("b", 0.3))
    ]
    stacked = assert_equal(tasks)
    assert len({losses(records)[0] for records in stacked.values()}) == 3


NUMBERS = {
    "SGD, momentum": [{"momentum": 0.9}, {"momentum": 0.0}, {"momentum": 0.5, "weight_decay": 0.1}, {"momentum": 0.5, "dampening": 0.5}],
    "Adam": [{"betas": (0.9, 0.99)}, {"betas": (0.5, 0.9), "eps": 1e-4}, {"weight_decay": 0.1}],
    "AdamW": [{"weight_decay": 0.0}, {"weight_decay": 1.0}],
    "RMSprop": [{"alpha": 0.9}, {"momentum": 0.9}, {"eps": 1e-3}],
    "RMSprop, centered": [{"alpha": 0.9}, {"momentum": 0.0}],
    "RAdam": [{"betas": (0.9, 0.99)}, {"betas": (0.5, 0.9)}, {"weight_decay": 0.1}],
    "Adagrad": [{"lr_decay": 0.0}, {"initial_accumulator_value": 1.0}, {"eps": 0.1, "weight_decay": 0.1}],
}  # fmt: skip


@pytest.mark.parametrize("optimizer", NUMBERS)
def test_copies_may_differ_in_the_numbers_of_their_optimizers(optimizer: str) -> None:
    options = enumerate(NUMBERS[optimizer])
    less = {"total_steps": 20, "eval_every": 0, "val": None}  # what is evaluated is no matter here
    assert_equal([make_task("MLP", optimizer, variant=str(i), args=a, **less) for i, a in options])


@pytest.mark.parametrize("optimizer", ["SGD, momentum", "AdamW"])
def test_parameter_groups_keep_their_own_lr(optimizer: str) -> None:
    groups = [{"match": "head", "lr_scale": 10.0}, {"match": "norm", "lr_scale": 0.1}]
    tasks = [
        make_task("CNN", optimizer, scale=s, variant=str(s), groups=groups) for s in (0.1, 0.2)
    ]
    stacked = assert_equal(tasks)
    plain = train(
        "vectorized", [replace(make_task("CNN", optimizer, scale=0.1), trial=TrialId("0.1", 0))]
    )
    assert losses(plain[TrialId("0.1", 0)]) != losses(stacked[TrialId("0.1", 0)])


def test_frozen_and_tied_parameters() -> None:
    def frozen() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(16, 16),
            nn.Tanh(),
            nn.Linear(16, 16),
            nn.Linear(16, 16),
            nn.Linear(16, CLASSES),
        ).double()
        model[0].requires_grad_(False)
        model[3].weight = model[2].weight
        return model

    def build(lr: float) -> Any:
        def make() -> tuple[nn.Module, torch.optim.Optimizer]:
            model = frozen()
            return model, make_optimizer(torch.optim.SGD, model, lr=lr, args={"momentum": 0.9})

        return make

    lrs = (0.05, 0.01)
    assert_equal([replace(make_task(variant=str(lr), schedule=made("linear", lr)), build=build(lr), base_lr=lr, kind="tied") for lr in lrs])  # fmt: skip


def test_gradients_are_clipped_copy_by_copy() -> None:
    limits = (None, 0.01, 0.3, 100.0, 0.01)
    tasks = [
        make_task(
            "CNN", variant=str(i), grad_clip=limit, groups=[{"match": "conv", "lr_scale": 2.0}]
        )
        for i, limit in enumerate(limits)
    ]
    stacked = assert_equal(tasks)
    finals = [losses(records)[-1] for records in stacked.values()]
    assert finals[1] == pytest.approx(finals[4], rel=1e-9)  # both 0.01 alike
    assert finals[0] == pytest.approx(finals[3], rel=1e-9)  # and 100 as no limit at all
    assert len({round(final, 6) for final in finals}) == 3


OF_NETS = [("MLP", (0,)), ("CNN", (0,)), ("dropout", (0, 2)), ("transformer", (0, 2))]
REST = [("MLP", (0, 2)), ("CNN", (0, 2)), ("dropout", (0,)), ("transformer", (0,))]


@pytest.mark.parametrize(
    ("net", "seeds"), [*OF_NETS, *[pytest.param(*row, marks=pytest.mark.long) for row in REST]]
)
def test_micro_batches_are_accumulated(net: str, seeds: tuple[int, ...]) -> None:
    tasks = [
        make_task(
            net, variant=str(s), scale=s, accumulate=3, seed=seed, grad_clip=0.5, total_steps=15
        )
        for seed in seeds
        for s in (1.0, 0.3)
    ]
    assert_equal(tasks)


@pytest.mark.parametrize(
    "optimizer", ["SGD", "SGD, nesterov", "AdamW", "Adam, amsgrad", "RAdam", "RMSprop"]
)
def test_momentum_cycles_in_some_copies_and_not_in_others(optimizer: str) -> None:
    lr = OPTIMIZERS[optimizer][1]
    schedules = [
        made("one_cycle", lr, True),
        made("one_cycle", lr, False),
        made("cyclic", lr, True),
        made("constant", lr),
    ]
    tasks = [
        make_task("MLP", optimizer, s, variant=str(i), eval_every=0)
        for i, s in enumerate(schedules)
    ]
    stacked = assert_equal(tasks)
    assert len({losses(records)[-1] for records in stacked.values()}) == 4


class Layered(nn.Module):
    """A linear layer behind whatever `before` does: (module, input) -> input."""

    def __init__(self, before: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.before = nn.Linear(16, CLASSES), before
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mix", torch.randn(16, 16) / 4)  # another one for every seed

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.before(self, x))


AWKWARD: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a constant of its seed": lambda module, x: x @ module.mix,
    "a counting buffer": lambda module, x: x * (1 + 0.01 * module.count.add_(module.training)),
    "noise": lambda module, x: x + torch.randn_like(x) * module.training,
    "noise and dropout": lambda module, x: functional.dropout(x, 0.3) + torch.rand_like(x),
    "dropout in evaluations": lambda module, x: functional.dropout(x, 0.3),
    "dropout in place, of the batch": lambda module, x: functional.dropout(x, 0.3, module.training, True),
    "the batch scaled in place": lambda module, x: x.mul_(0.5) if module.training else x * 0.5,
    "a loop": lambda module, x: x + sum(x.roll(n, 1) for n in range(1, len(x.shape))),
}  # fmt: skip


@pytest.mark.parametrize("before", AWKWARD)
def test_awkward_models(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETS, before, lambda: Layered(AWKWARD[before]))
    assert_equal(
        [
            make_task(before, "Adam", scale=s, variant=str(s), seed=seed, total_steps=12)
            for seed in (0, 1)
            for s in (1.0, 0.3)
        ]
    )


def test_tasks_of_several_forms_become_several_stacks() -> None:
    assert_equal(
        [
            make_task(
                net,
                optimizer,
                variant=f"{net}, {optimizer}, {steps}",
                total_steps=steps,
                eval_every=0,
                val=None,
            )
            for net in ("MLP", "dropout")
            for optimizer in ("SGD", "AdamW")
            for steps in (5, 7)
        ][1:]
    )


def test_bfloat16_autocast_is_close() -> None:
    tasks = [
        make_task(
            "MLP",
            scale=s,
            variant=str(s),
            autocast=True,
            dtype=torch.float32,
            total_steps=5,
            count_correct=None,
        )
        for s in (1.0, 0.1)
    ]
    assert_equal(tasks, rel=0.02)


def test_evaluations_are_those_of_each_copy() -> None:
    tasks = [make_task("CNN", scale=s, variant=str(s), seed=n) for s in (1.0, 0.1) for n in (0, 1)]
    for records in assert_equal(tasks).values():
        evaluations = [record for record in records if isinstance(record, Evaluation)]
        assert [evaluation.step for evaluation in evaluations] == [0, 10, 20, 30]
        assert keys(evaluations) == [["train_loss", "val_accuracy", "val_loss"]] * 4


@pytest.mark.parametrize(
    "changes", [{"val": None}, {"eval_every": 0}, {"count_correct": None}, {"eval_every": 7}]
)
def test_evaluations_of_other_kinds_are_those_of_each_copy(changes: dict[str, Any]) -> None:
    assert_equal(
        [make_task("MLP", scale=s, variant=str(s), total_steps=15, **changes) for s in (1.0, 0.1)]
    )


# Kernels take the rows of all copies together, so other copies may change the rounding of one's
# numbers, and nothing else: over 30 steps in double precision that grows to less than 1e-12.
ROUNDING = 1e-10

DIVERGING = [
    ("MLP", "SGD", math.nan),
    ("MLP", "AdamW", 1e300),
    ("MLP", "RMSprop, centered", 400.0),
    ("MLP", "Adagrad", math.nan),
    *[(net, "SGD, momentum", math.nan) for net in NETS if net != "MLP"],
]
OF_MLPS = ["SGD", "SGD, momentum", "AdamW", "RMSprop, centered", "Adagrad"]
ALL_DIVERGING = [("MLP", name, lr) for name in OF_MLPS for lr in (math.nan, 1e300, 400.0)]
LONG = [pytest.param(*row, marks=pytest.mark.long) for row in ALL_DIVERGING if row not in DIVERGING]


@pytest.mark.parametrize(("net", "optimizer", "lr"), [*DIVERGING, *LONG])
def test_a_copy_that_diverges_changes_nothing_of_the_others(
    net: str, optimizer: str, lr: float
) -> None:
    options = {"stop": DivergenceStop(patience=15), "eval_every": 10 if net == "MLP" else 0}
    scales = (1.0, 0.5, 0.7)
    sane = [make_task(net, optimizer, scale=s, variant=str(s), **options) for s in scales]
    wild = Schedule(lr=lambda step: lr if step > 2 else 0.001)
    tasks = [sane[0], replace(sane[1], schedule=wild), sane[2]]
    got, expected = train("vectorized", tasks), train("vectorized", sane)
    for task in (sane[0], sane[2]):
        assert_close(got[task.trial], expected[task.trial], ROUNDING)
    if math.isnan(lr):
        alone = train("sequential", tasks[1:2])[tasks[1].trial]
        assert_close(got[tasks[1].trial], alone, 1e-9)
        assert alone[-1].stopped_at is not None


@pytest.mark.parametrize(("net", "seeds"), [*[(net, (0,)) for net in NETS], ("CNN", (0, 1))])
def test_what_a_copy_gets_depends_neither_on_its_place_nor_on_the_others(
    net: str, seeds: tuple[int, ...]
) -> None:
    """Equal copies among others, first, in the middle and last, in stacks of several sizes."""

    def member(name: str, scale: float, seed: int) -> Task:
        return make_task(
            net, "AdamW", None, scale, name, seed, total_steps=12, eval_every=12 * (net == "CNN")
        )

    first: dict[int, list[Any]] = {}
    for size in (1, 2, 17) if len(seeds) == 1 and net != "transformer" else (1, 5):
        equal = {0, size // 2, size - 1}
        tasks = [
            member(f"{size}-{i}", 1.0 if i in equal else 0.1 + 0.05 * i, seed)
            for seed in seeds
            for i in range(size)
        ]
        records = train("vectorized", tasks)
        for seed in seeds:
            for i in equal:
                own = records[TrialId(f"{size}-{i}", seed)]
                assert_close(own, first.setdefault(seed, own), ROUNDING, (size, i))


@pytest.mark.parametrize(
    "net",
    [
        "MLP",
        "CNN",
        *(pytest.param(net, marks=pytest.mark.long) for net in ("dropout", "transformer")),
    ],
)
def test_the_same_holds_in_single_precision(net: str) -> None:
    first: list[Any] = []
    for size in (1, 7):
        tasks = [
            make_task(net, scale=1.0 if i in (0, size - 1) else 0.5, variant=str(i), dtype=torch.float32, total_steps=10)
            for i in range(size)
        ]  # fmt: skip
        records = train("vectorized", tasks)
        for i in {0, size - 1}:
            own = records[TrialId(str(i), 0)]
            first = first or own
            assert_close(own, first, 1e-5, (size, i))  # as one by one, see above


def test_equal_stacks_are_equal_to_the_bit() -> None:
    tasks = [make_task("CNN", "AdamW", scale=s, variant=str(s), dtype=torch.float32) for s in (1.0, 0.5, 0.1)]  # fmt: skip
    once, again = train("vectorized", tasks), train("vectorized", tasks)
    for trial, records in once.items():
        assert [float(x).hex() for x in numbers(records)] == [float(x).hex() for x in numbers(again[trial])]  # fmt: skip
