"""Which engine is chosen, from figures that the tests give in place of a clock."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lrexp.data import data_from_objects
from lrexp.engine import Task, TrialId, choice, choose, make_optimizer
from lrexp.engine.calibrate import Speed, agree, sequential_speed, stacked_speed
from lrexp.engine.vectorized import families
from lrexp.errors import ConfigError
from lrexp.finder import DivergenceStop
from lrexp.schedules import Schedule

CPU = torch.device("cpu")


def make_tasks(
    count: int, steps: int = 10_000, model: nn.Module | None = None, **changes: Any
) -> list[Task]:
    torch.manual_seed(0)
    initial = model or nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(96, 6), torch.arange(96) % 3
    data = data_from_objects((x, y), batch_size=16, val_fraction=0).to(CPU)

    def make(index: int) -> Task:
        lr = 0.1 / 2**index

        def build() -> tuple[nn.Module, torch.optim.Optimizer]:
            copied = copy.deepcopy(initial)
            return copied, make_optimizer(torch.optim.SGD, copied, lr=lr, args={})

        task = Task(
            trial=TrialId(f"v{index}", 0), build=build, loss=functional.cross_entropy,
            train=data.train, schedule=Schedule(lambda step: lr), base_lr=lr,
            total_steps=steps, stop=DivergenceStop(), device=CPU,
        )  # fmt: skip
        return replace(task, **changes)

    return [make(index) for index in range(count)]


@dataclass
class Machine:
    """What the figures say: seconds of a step alone, and per copy in a stack of each size."""

    alone: float
    stacked: Callable[[int], float]
    cores: int = 1
    memory: float = 64e9
    bytes_per_copy: int = 1_000_000
    losses_agree: bool = True


def choose_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tasks: Sequence[Task], **options: Any
) -> Any:
    def alone(task: Task, most_steps: int = 0) -> Speed:
        return Speed(machine.alone, 0.0, 0, [[1.0, 0.9, 0.8]])

    def stacked(tasks: Sequence[Task], facts: Any) -> Speed:
        losses = [1.0, 0.9, 0.8 if machine.losses_agree else 0.7]
        seconds = machine.stacked(len(tasks))
        return Speed(seconds, 0.1, machine.bytes_per_copy, [losses for _ in tasks])

    monkeypatch.setattr(choice, "sequential_speed", alone)
    monkeypatch.setattr(choice, "stacked_speed", stacked)
    monkeypatch.setattr(choice, "usable_cores", lambda: machine.cores)
    monkeypatch.setattr(choice, "free_bytes", lambda device: int(machine.memory))
    return choose(tasks, **options)


def overhead(copies: int) -> float:
    """A step that is all overhead: any number of copies costs the same."""
    return 1e-3 / copies


def arithmetic(copies: int) -> float:
    return 1.1e-3


def caches(copies: int) -> float:
    return 4e-4 if 4 < copies <= 16 else 6e-4


# name | the machine | trials | sizes of the stacks (1: trained one by one) | processes | why
CHOICES: list[tuple[str, Machine, int, list[int], int, str]] = [
    ("overhead", Machine(1e-3, overhead), 64, [64], 1, "one stack"),
    ("arithmetic", Machine(1e-3, arithmetic), 8, [1] * 8, 1, "no faster"),
    ("caches", Machine(1e-3, caches), 64, [16] * 4, 1, "4 stacks"),
    ("uneven", Machine(1e-3, caches), 33, [11] * 3, 1, "3 stacks"),
    ("memory", Machine(1e-3, overhead, memory=16e6), 20, [6, 7, 7], 1, "3 stacks"),
    ("slow steps", Machine(0.2, overhead), 4, [1] * 4, 1, "arithmetic"),
    ("slow steps, cores", Machine(0.2, overhead, cores=4), 4, [1] * 4, 4, "4 worker processes"),
    ("overhead, cores", Machine(1e-2, caches, cores=2), 64, [16] * 4, 2, "4 stacks"),
    ("cores and stacks", Machine(1e-2, lambda k: 10 * caches(k), cores=2), 64, [16] * 4, 2, "2 worker processes"),
    ("cores, little memory", Machine(0.2, overhead, cores=4, memory=5e9), 4, [1] * 4, 2, "2 worker"),
    ("other losses", Machine(1e-3, overhead, losses_agree=False), 8, [1] * 8, 1, "not those of a trial"),
    ("one trial", Machine(1e-3, overhead), 1, [1], 1, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "count", "sizes", "jobs", "why"),
    [r[1:] for r in CHOICES],
    ids=[r[0] for r in CHOICES],
)
def test_the_fastest_way_is_chosen(
    machine: Machine,
    count: int,
    sizes: list[int],
    jobs: int,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = make_tasks(count)
    chosen = choose_on(machine, monkeypatch, tasks)
    assert [len(unit.trials) for unit in chosen.units] == sizes
    expected = {"sequential" if size == 1 else "vectorized" for size in sizes}
    assert {unit.engine for unit in chosen.units} == expected
    assert chosen.jobs == jobs
    assert why in "; ".join(chosen.reasons)
    assert [trial for unit in chosen.units for trial in unit.trials] == [t.trial for t in tasks]
    assert json.loads(json.dumps(chosen.to_plain()))["jobs"] == jobs


def test_a_short_run_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "families", lambda tasks: pytest.fail("probed"))
    chosen = choose(make_tasks(20, steps=20))
    assert [unit.engine for unit in chosen.units] == ["sequential"] * 20
    assert "all of them take about" in chosen.reasons[0]
    assert chosen.figures["seconds_in_one_process"] < choice.SHORT


def test_processes_need_what_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0.2, overhead, cores=4)
    chosen = choose_on(machine, monkeypatch, make_tasks(4), why_not_processes=lambda: "a lambda")
    assert chosen.jobs == 1


def test_an_explicit_number_of_processes_is_taken_and_nothing_is_tried_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that brings its process down must not bring this one down."""
    monkeypatch.setattr(choice, "sequential_speed", lambda *a, **k: pytest.fail("tried"))
    chosen = choose(make_tasks(12), jobs=3)
    assert chosen.jobs == 3
    assert {(unit.engine, len(unit.trials)) for unit in chosen.units} == {("sequential", 1)}


def test_a_run_of_few_steps_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "sequential_speed", lambda *a, **k: pytest.fail("tried"))
    assert "few steps" in choose(make_tasks(2, steps=10)).reasons[0]


def test_torch_with_many_threads_leaves_less_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = make_tasks(4)
    monkeypatch.setattr(choice, "_slower_on_one_thread", lambda task: 4.0)
    assert choose_on(Machine(0.2, overhead, cores=4), monkeypatch, tasks).jobs == 1


def test_stacks_that_are_asked_for_are_bound_by_memory_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(1e-3, arithmetic, memory=16e6)
    chosen = choose_on(machine, monkeypatch, make_tasks(20), engine="vectorized")
    assert [len(unit.trials) for unit in chosen.units] == [6, 7, 7]


def test_stacks_that_disagree_are_an_error_where_they_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(1e-3, overhead, losses_agree=False)
    with pytest.raises(ConfigError, match="its losses in a stack are not those") as caught:
        choose_on(machine, monkeypatch, make_tasks(2), engine="vectorized")
    assert caught.value.problems[0].key == "engine"


def test_user_code_that_raises_is_left_to_its_trials_which_say_where() -> None:
    model = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.LSTM(3, 3))
    chosen = choose(make_tasks(2, model=model), "vectorized")
    assert [len(unit.trials) for unit in chosen.units] == [1, 1]


def keeps_some(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    keep = target != 1  # as many as the batch has: no shape that could be traced
    return functional.cross_entropy(output[keep], target[keep])


def test_shapes_that_depend_on_values_are_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = make_tasks(3, loss=keeps_some)
    monkeypatch.setattr(choice, "SHORT", 0.0)
    chosen = choose(tasks)
    assert [unit.engine for unit in chosen.units] == ["sequential"] * 3
    with pytest.raises(ConfigError, match=r"shapes in it depend on the values|vmap cannot run"):
        choose(tasks, "vectorized")


def test_a_stack_that_runs_out_of_memory_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(tasks: Any, facts: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(choice, "SHORT", 0.0)
    monkeypatch.setattr(choice, "stacked_speed", no_memory)
    chosen = choose(make_tasks(3))
    assert [unit.engine for unit in chosen.units] == ["sequential"] * 3
    assert "raised OutOfMemoryError" in chosen.reasons[0]


def test_a_schedule_that_cycles_momentum_agrees_with_itself() -> None:
    def momentum(step: int) -> float:
        return 0.95 - 0.1 * min(step, 5) / 5

    def cycling(task: Task) -> Task:
        def build() -> tuple[nn.Module, torch.optim.Optimizer]:
            model, _ = task.build()
            model.double()
            return model, make_optimizer(torch.optim.SGD, model, lr=0.1, args={"momentum": 0.9})

        x, y = torch.randn(96, 6), torch.arange(96) % 3
        data = data_from_objects((x, y), batch_size=16).to(CPU, torch.float64)
        schedule = Schedule(lambda step: 0.1, momentum)
        return replace(task, build=build, train=data.train, schedule=schedule, base_lr=0.1)

    chosen = choose([cycling(make_tasks(1)[0])] * 2, "vectorized")
    assert [unit.engine for unit in chosen.units] == ["vectorized"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1.0, 0.9], [1.0, 0.9000001], True),
        ([1.0, 0.9], [1.0, 0.95], False),
        ([1.0, 0.9], [math.nan, math.nan], False),
        ([1.0, math.inf], [1.0, math.nan], True),  # both gone
    ],
)
def test_agreement(one: list[float], other: list[float], same: bool) -> None:
    assert agree(one, other, make_tasks(1)[0]) == same


@pytest.mark.parametrize(
    ("times", "workers", "expected"), [([1, 1, 1], 2, 2), ([1000, 60, 60], 2, 1000), ([5], 3, 5)]
)
def test_the_longest_worker_counts(times: list[float], workers: int, expected: float) -> None:
    assert choice._longest(times, workers) == expected


def test_sequential_is_sequential() -> None:
    chosen = choose(make_tasks(3), "sequential", 2)
    assert [unit.engine for unit in chosen.units] == ["sequential"] * 3
    assert chosen.jobs == 2


def test_measured_losses_are_those_of_the_trial_and_nothing_remains() -> None:
    tasks = make_tasks(3)
    (family,) = families(tasks)
    assert family.facts is not None
    torch.manual_seed(1)
    before = torch.get_rng_state()
    alone, stacked = sequential_speed(tasks[0]), stacked_speed(tasks, family.facts)
    assert torch.equal(torch.get_rng_state(), before)
    assert agree(alone.losses[0], stacked.losses[0], tasks[0])
    assert not agree(alone.losses[0], stacked.losses[2], tasks[0])  # another LR
    assert alone.losses[0] == pytest.approx(family.facts.losses + alone.losses[0][2:], rel=1e-6)
    assert 0 < stacked.seconds < stacked.setup
    assert stacked.bytes > 0


def test_a_family_that_raises_is_left_to_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    class Raises(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    chosen = choose(make_tasks(2, model=Raises(6, 3)))
    assert [unit.engine for unit in chosen.units] == ["sequential"] * 2
