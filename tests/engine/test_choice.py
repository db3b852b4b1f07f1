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

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine.calibrate import (
    Machine,
    Speed,
    sequential_speed,
    slower_on_one_thread,
    stacked_speed,
)
from lrexp.engine.choice import choose
from lrexp.engine.family import families
from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Task
from lrexp.engine.vectorized.proof import agree
from lrexp.errors import ConfigError
from lrexp.records import Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer

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
            trial=TrialId(f"v{index}", 0), build=build, objective=of_pairs(functional.cross_entropy),
            train=data.train, schedule=Schedule(lambda step: lr), base_lr=lr,
            total_steps=steps, stop=DivergenceStop(), device=CPU,
        )  # fmt: skip
        return replace(task, **changes)

    return [make(index) for index in range(count)]


@dataclass
class Figures:
    """What the figures say: seconds of a step alone, and per copy in a stack of each size."""

    alone: float
    stacked: Callable[[int], float]
    cores: int = 1
    memory: float = 64e9
    bytes_per_copy: int = 1_000_000
    losses_agree: bool = True
    slowdown: float = 1.0  # where torch has one thread

    def alone_speed(self, task: Task, most_steps: int) -> Speed:
        return Speed(self.alone, 0.0, 0, [[1.0, 0.9, 0.8]])

    def stacked_speed(self, tasks: Sequence[Task], facts: Any) -> Speed:
        losses = [1.0, 0.9, 0.8 if self.losses_agree else 0.7]
        seconds = self.stacked(len(tasks))
        return Speed(seconds, 0.1, self.bytes_per_copy, [losses for _ in tasks])

    @property
    def machine(self) -> Machine:
        return Machine(
            alone=self.alone_speed,
            stacked=self.stacked_speed,
            cores=lambda: self.cores,
            memory=lambda device: int(self.memory),
            slowdown=lambda task: self.slowdown,
        )


def choose_on(figures: Figures, tasks: Sequence[Task], *args: Any, **options: Any) -> Any:
    return choose(tasks, *args, **options, machine=figures.machine)


def overhead(copies: int) -> float:
    """A step that is all overhead: any number of copies costs the same."""
    return 1e-3 / copies


def arithmetic(copies: int) -> float:
    return 1.1e-3


def caches(copies: int) -> float:
    return 4e-4 if 4 < copies <= 16 else 6e-4


# name | the machine | trials | sizes of the stacks (1: trained one by one) | processes | why
CHOICES: list[tuple[str, Figures, int, list[int], int, str]] = [
    ("overhead", Figures(1e-3, overhead), 64, [64], 1, "one stack"),
    ("arithmetic", Figures(1e-3, arithmetic), 8, [1] * 8, 1, "no faster"),
    ("caches", Figures(1e-3, caches), 64, [16] * 4, 1, "4 stacks"),
    ("uneven", Figures(1e-3, caches), 33, [11] * 3, 1, "3 stacks"),
    ("memory", Figures(1e-3, overhead, memory=16e6), 20, [6, 7, 7], 1, "3 stacks"),
    ("slow steps", Figures(0.2, overhead), 4, [1] * 4, 1, "too long for a stack"),
    ("slow steps, cores", Figures(0.2, overhead, cores=4), 4, [1] * 4, 4, "4 worker processes"),
    ("overhead, cores", Figures(1e-2, caches, cores=2), 64, [16] * 4, 2, "4 stacks"),
    ("cores and stacks", Figures(1e-2, lambda k: 10 * caches(k), cores=2), 64, [16] * 4, 2, "2 worker processes"),
    ("cores, little memory", Figures(0.2, overhead, cores=4, memory=5e9), 4, [1] * 4, 2, "2 worker"),
    ("other losses", Figures(1e-3, overhead, losses_agree=False), 8, [1] * 8, 1, "not those of a trial"),
    ("one trial", Figures(1e-3, overhead), 1, [1], 1, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "count", "sizes", "jobs", "why"),
    [r[1:] for r in CHOICES],
    ids=[r[0] for r in CHOICES],
)
def test_the_fastest_way_is_chosen(
    figures: Figures, count: int, sizes: list[int], jobs: int, why: str
) -> None:
    tasks = make_tasks(count)
    chosen = choose_on(figures, tasks)
    assert [len(group.trials) for group in chosen.groups] == sizes
    expected = {"sequential" if size == 1 else "vectorized" for size in sizes}
    assert {group.engine for group in chosen.groups} == expected
    assert chosen.jobs == jobs
    assert why in "; ".join(chosen.reasons)
    assert [trial for group in chosen.groups for trial in group.trials] == [t.trial for t in tasks]
    assert json.loads(json.dumps(chosen.to_plain()))["jobs"] == jobs


def not_measured(*_: Any) -> Any:
    pytest.fail("tried")


def test_a_short_run_is_not_measured() -> None:
    reads = Figures(1e-3, overhead).machine
    chosen = choose(make_tasks(20, steps=20), machine=replace(reads, stacked=not_measured))
    assert [group.engine for group in chosen.groups] == ["sequential"] * 20
    assert "all of them take about 0.4 s" in chosen.reasons[0]
    assert chosen.figures == {"seconds_in_one_process": pytest.approx(0.4)}


def test_processes_need_what_can_be_sent() -> None:
    figures = Figures(0.2, overhead, cores=4)
    chosen = choose_on(figures, make_tasks(4), why_not_processes=lambda: "a lambda")
    assert chosen.jobs == 1


def test_an_explicit_number_of_processes_is_taken_and_nothing_is_tried_here() -> None:
    """A model that brings its process down must not bring this one down."""
    chosen = choose(make_tasks(12), jobs=3, machine=Machine(not_measured, not_measured))
    assert chosen.jobs == 3
    assert {(group.engine, len(group.trials)) for group in chosen.groups} == {("sequential", 1)}


def test_a_run_of_few_steps_is_not_measured() -> None:
    chosen = choose(make_tasks(2, steps=10), machine=Machine(not_measured, not_measured))
    assert "few steps" in chosen.reasons[0]


def test_torch_with_many_threads_leaves_less_for_processes() -> None:
    figures, tasks = Figures(0.2, overhead, cores=4), make_tasks(4)
    assert choose_on(figures, tasks).jobs == 4
    assert choose_on(replace(figures, slowdown=4.0), tasks).jobs == 1


@pytest.mark.parametrize(
    ("steps", "jobs"),
    [
        ([300, 300, 300, 300], 2),  # half of 240 s
        ([300, 300, 300], 1),  # two of three, so two thirds of 180 s, and the start
        ([2800, 60, 60, 60], 1),  # whoever gets the first
        ([60, 60, 60, 2800], 1),
    ],
)
def test_the_longest_worker_counts(steps: list[int], jobs: int) -> None:
    tasks = [replace(t, total_steps=n) for t, n in zip(make_tasks(len(steps)), steps, strict=True)]
    assert choose_on(Figures(0.2, overhead, cores=2), tasks).jobs == jobs


def test_a_step_on_one_thread_is_measured_where_there_are_more() -> None:
    (task,), before = make_tasks(1), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert slower_on_one_thread(task) == 1.0
        torch.set_num_threads(2)
        assert slower_on_one_thread(task) != 1.0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_stacks_that_are_asked_for_are_bound_by_memory_alone() -> None:
    figures = Figures(1e-3, arithmetic, memory=16e6)
    chosen = choose_on(figures, make_tasks(20), engine="vectorized")
    assert [len(group.trials) for group in chosen.groups] == [6, 7, 7]


def test_stacks_that_disagree_are_an_error_where_they_were_asked_for() -> None:
    figures = Figures(1e-3, overhead, losses_agree=False)
    with pytest.raises(ConfigError, match="its losses in a stack are not those") as caught:
        choose_on(figures, make_tasks(2), engine="vectorized")
    assert caught.value.problems[0].key == "engine"


def test_user_code_that_raises_is_left_to_its_trials_which_say_where() -> None:
    model = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.LSTM(3, 3))
    chosen = choose(make_tasks(2, model=model), "vectorized")
    assert [len(group.trials) for group in chosen.groups] == [1, 1]


def keeps_some(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    keep = target != 1  # as many as the batch has: no shape that could be traced
    return functional.cross_entropy(output[keep], target[keep])


def test_shapes_that_depend_on_values_are_a_reason() -> None:
    tasks = make_tasks(3, objective=of_pairs(keeps_some))
    machine = replace(Figures(1e-3, overhead).machine, stacked=stacked_speed)
    chosen = choose(tasks, machine=machine)
    assert [group.engine for group in chosen.groups] == ["sequential"] * 3
    with pytest.raises(ConfigError, match=r"shapes in it depend on the values|vmap cannot run"):
        choose(tasks, "vectorized")


def test_a_stack_that_runs_out_of_memory_is_not_taken() -> None:
    def no_memory(tasks: Any, facts: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    machine = replace(Figures(1e-3, overhead).machine, stacked=no_memory)
    chosen = choose(make_tasks(3), machine=machine)
    assert [group.engine for group in chosen.groups] == ["sequential"] * 3
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
    assert [group.engine for group in chosen.groups] == ["vectorized"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (0.9, 0.9000001, True),
        (0.9, 0.95, False),
        (0.9, math.nan, False),
        (math.inf, 0.9, False),
        (math.inf, math.nan, True),  # both gone
    ],
)
def test_agreement(one: float, other: float, same: bool) -> None:
    assert agree(one, other, 1e-3) == same


def test_sequential_is_sequential() -> None:
    chosen = choose(make_tasks(3), "sequential", 2)
    assert [group.engine for group in chosen.groups] == ["sequential"] * 3
    assert chosen.jobs == 2


def test_measured_losses_are_those_of_the_trial_and_nothing_remains() -> None:
    tasks = make_tasks(3, steps=9)
    (family,) = families(tasks)
    assert family.facts is not None
    torch.manual_seed(1)
    before = torch.get_rng_state()
    alone, stacked = sequential_speed(tasks[0]), stacked_speed(tasks, family.facts)
    assert torch.equal(torch.get_rng_state(), before)
    assert alone.losses[0] == pytest.approx(stacked.losses[0], rel=1e-6)
    assert alone.losses[0] != pytest.approx(stacked.losses[2], rel=1e-6)  # another LR
    trained = [x for r in run_sequentially([tasks[0]]) if isinstance(r, Steps) for x in r.loss]
    assert alone.losses[0] == trained[:3]
    assert 0 < stacked.seconds < stacked.setup
    assert stacked.bytes > 0


def test_a_family_that_raises_is_left_to_its_trials() -> None:
    class Raises(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    chosen = choose(make_tasks(2, model=Raises(6, 3)))
    assert [group.engine for group in chosen.groups] == ["sequential"] * 2
