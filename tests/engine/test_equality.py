"""Stacked copies train as they would on their own: every optimizer, schedule and kind of network.

Double precision leaves rounding nowhere to hide: what differs by more is another computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine.small_tasks import (
    CLASSES,
    NETS,
    OPTIMIZERS,
    PARAMETERS,
    PER_EPOCH,
    every_schedule,
    made,
    make_task,
)
from torch import Tensor, nn
from torch.nn import functional

from lrexp.engine import (
    ENGINES,
    Ended,
    Evaluation,
    Started,
    Steps,
    Task,
    TrialId,
    make_optimizer,
    sequential,
)
from lrexp.engine.vectorized.update_rules import RULES
from lrexp.finder import DivergenceStop
from lrexp.schedules import SCHEDULES, Schedule


def train(engine: str, tasks: Sequence[Task]) -> dict[TrialId, list[Any]]:
    """Return the records of every trial; all end well, and no stack is trained one by one."""
    records: dict[TrialId, list[Any]] = {task.trial: [] for task in tasks}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequential, "run_sequentially", None)
        for record in ENGINES[engine](list(tasks)):
            records[record.trial].append(record)
    for own in records.values():
        assert [type(own[0]), type(own[-1])] == [Started, Ended]
        assert sum(isinstance(record, Started) for record in own) == 1
    return records


def losses(records: Sequence[Any]) -> list[float]:
    return [x for record in records if isinstance(record, Steps) for x in record.loss]


def numbers(records: Sequence[Any]) -> list[float]:
    """All numbers of one trial apart from its time: LRs, losses, evaluations, its end."""
    values: list[float] = []
    for record in records:
        if isinstance(record, Evaluation):
            values += [record.step, record.epoch, *dict(sorted(record.values.items())).values()]
        elif isinstance(record, Ended):
            values += [record.steps, -1 if record.stopped_at is None else record.stopped_at]
    steps = [record for record in records if isinstance(record, Steps)]
    lrs = [x for chunk in steps for x in chunk.lr]
    epochs = [x for chunk in steps for x in chunk.epoch]
    return values + lrs + epochs + losses(steps)


def keys(records: Sequence[Any]) -> list[list[str]]:
    return [sorted(record.values) for record in records if isinstance(record, Evaluation)]


def bits(records: Sequence[Any]) -> list[str]:
    return [float(number).hex() for number in numbers(records)]


def assert_equal(tasks: Sequence[Task], rel: float = 1e-9) -> dict[TrialId, list[Any]]:
    """Train the tasks with both engines and compare all that they yield."""
    alone, stacked = train("sequential", tasks), train("vectorized", tasks)
    for trial, records in alone.items():
        assert keys(stacked[trial]) == keys(records)
        expected = pytest.approx(numbers(records), rel=rel, abs=1e-300, nan_ok=True)
        assert numbers(stacked[trial]) == expected, trial
    return stacked


def test_the_tables_above_are_complete() -> None:
    assert {cls for cls, *_ in OPTIMIZERS.values()} == set(RULES)
    assert PARAMETERS.keys() <= SCHEDULES.keys()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_and_schedule_trains_every_network_as_one_by_one(
    net: str, optimizer: str
) -> None:
    stacked = assert_equal(every_schedule(net, optimizer))
    if net == "MLP":
        assert {trial.variant for trial in stacked} == SCHEDULES.keys()
        learned = losses(stacked[TrialId("constant", 0)])
        falls = sum(learned[-PER_EPOCH:]) < sum(learned[:PER_EPOCH])
        assert falls == ("maximize" not in optimizer)


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
        make_task(net, variant=variant, scale=scale, seed=seed)
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
    assert_equal([make_task("MLP", optimizer, variant=str(i), args=args) for i, args in options])


@pytest.mark.parametrize("optimizer", ["SGD, momentum", "AdamW"])
def test_parameter_groups_keep_their_own_lr(optimizer: str) -> None:
    groups = [("head", 10.0), ("norm", 0.1)]
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
        make_task("CNN", variant=str(i), grad_clip=limit, groups=[("conv", 2.0)])
        for i, limit in enumerate(limits)
    ]
    stacked = assert_equal(tasks)
    finals = [losses(records)[-1] for records in stacked.values()]
    assert len(set(finals)) == 3  # both 0.01 alike, and 100 as no limit at all
    assert finals[0] == pytest.approx(finals[3], rel=1e-12)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("seeds", [(0,), (0, 2)], ids=["one seed", "two seeds"])
def test_micro_batches_are_accumulated(net: str, seeds: tuple[int, ...]) -> None:
    tasks = [
        make_task(net, variant=str(s), scale=s, accumulate=3, seed=seed, grad_clip=0.5)
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
    tasks = [make_task("CNN", optimizer, s, variant=str(i)) for i, s in enumerate(schedules)]
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
            make_task(net, optimizer, variant=f"{net}, {optimizer}, {steps}", total_steps=steps)
            for net in ("MLP", "dropout")
            for optimizer in ("SGD", "AdamW")
            for steps in (5, 7)
        ][1:]
    )


def test_bfloat16_autocast_is_close() -> None:
    tasks = [
        make_task("MLP", scale=s, variant=str(s), autocast=True, dtype=torch.float32, total_steps=5)
        for s in (1.0, 0.1)
    ]
    assert_equal(tasks, rel=0.02)


def test_evaluations_are_those_of_each_copy() -> None:
    tasks = [make_task("CNN", scale=s, variant=str(s), seed=n) for s in (1.0, 0.1) for n in (0, 1)]
    for records in assert_equal(tasks).values():
        evaluations = [record for record in records if isinstance(record, Evaluation)]
        assert [evaluation.step for evaluation in evaluations] == [0, 10, 20, 30, 40, 50]
        assert keys(evaluations) == [["train_loss", "val_accuracy", "val_loss"]] * 6
    for changes in ({"val": None}, {"eval_every": 0}, {"count_correct": None}, {"eval_every": 7}):
        assert_equal([replace(task, **changes) for task in tasks])


DIVERGING = [("MLP", name) for name in ("SGD", "AdamW", "RMSprop, centered", "Adagrad")]
DIVERGING += [(net, "SGD, momentum") for net in NETS]


@pytest.mark.parametrize(("net", "optimizer"), DIVERGING)
def test_a_copy_that_diverges_changes_no_bit_of_the_others(net: str, optimizer: str) -> None:
    options = {"stop": DivergenceStop(patience=15), "eval_every": 10 if net == "MLP" else 0}
    scales = (1.0, 0.5, 0.7)
    sane = [make_task(net, optimizer, scale=s, variant=str(s), **options) for s in scales]
    expected = train("vectorized", sane)
    for lr in (math.nan, 1e300, 400.0) if net == "MLP" else (math.nan,):
        wild = Schedule(lr=lambda step, lr=lr: lr if step > 2 else 0.001)
        tasks = [sane[0], replace(sane[1], schedule=wild), sane[2]]
        got = train("vectorized", tasks)
        for task in (sane[0], sane[2]):
            assert bits(got[task.trial]) == bits(expected[task.trial])
        if math.isnan(lr):
            alone = train("sequential", tasks[1:2])[tasks[1].trial]
            assert numbers(got[tasks[1].trial]) == pytest.approx(
                numbers(alone), rel=1e-9, nan_ok=True
            )
            assert alone[-1].stopped_at is not None


@pytest.mark.parametrize(
    ("net", "seeds"), [*[(net, (0,)) for net in NETS], ("dropout", (0, 1)), ("CNN", (0, 1))]
)
def test_the_bits_of_a_copy_depend_neither_on_its_place_nor_on_the_others(
    net: str, seeds: tuple[int, ...]
) -> None:
    """Equal copies among others, first, in the middle and last, in stacks of many sizes."""

    def member(name: str, scale: float, seed: int) -> Task:
        return make_task(
            net, "AdamW", None, scale, name, seed, total_steps=12, eval_every=12 * (net == "CNN")
        )

    found: dict[int, set[tuple[str, ...]]] = {seed: set() for seed in seeds}
    for size in (1, 2, 3, 5, 17) if len(seeds) == 1 and net != "transformer" else (1, 2, 7):
        equal = {0, size // 2, size - 1}
        tasks = [
            member(f"{size}-{i}", 1.0 if i in equal else 0.1 + 0.05 * i, seed)
            for seed in seeds
            for i in range(size)
        ]
        records = train("vectorized", tasks)
        for seed in seeds:
            found[seed] |= {tuple(bits(records[TrialId(f"{size}-{i}", seed)])) for i in equal}
    assert {seed: len(variations) for seed, variations in found.items()} == dict.fromkeys(seeds, 1)


@pytest.mark.parametrize("net", NETS)
def test_the_same_holds_in_single_precision(net: str) -> None:
    variations = set()
    for size in (1, 7):
        tasks = [
            make_task(net, scale=1.0 if i in (0, size - 1) else 0.5, variant=str(i), dtype=torch.float32, total_steps=10)
            for i in range(size)
        ]  # fmt: skip
        records = train("vectorized", tasks)
        variations |= {tuple(bits(records[TrialId(str(i), 0)])) for i in {0, size - 1}}
    assert len(variations) == 1
