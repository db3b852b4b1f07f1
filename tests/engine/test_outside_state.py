"""State outside of the model: what data declare, what nobody declares, and exceptions meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from engine.counters import count, draw
from engine.resuming import Always, Raising, assert_continues, checkpoints, rows, run
from engine.small_tasks import CLASSES, CPU, NETS, make_task
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
    default_collate,
)

from lrexp.engine.family import families
from lrexp.engine.stop import Pause, is_of_loader
from lrexp.engine.task import Task
from lrexp.records import Failed, Interrupted, NoCheckpoint, Started
from lrexp.runs.signals import quiet_loaders
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.objectives import of_pairs

BOTH = ["sequential", "vectorized"]


class Net(nn.Module):
    """A linear layer behind what `before` does with this and the input."""

    def __init__(self, before: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.before = nn.Linear(16, CLASSES), before
        self.calls, self.last = 0, [0.0]
        self.hidden: Any = None

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.before(self, x))
        return result


def task_of(monkeypatch: pytest.MonkeyPatch, before: Callable[[Any, Tensor], Any]) -> Task:
    monkeypatch.setitem(NETS, before.__name__, lambda: Net(before))
    return make_task(before.__name__, "Adam", total_steps=14, eval_every=5)


def counting(net: Any, x: Tensor) -> Tensor:
    net.calls += 1
    return x * (1 + 0.01 * net.calls)


def in_a_list(net: Any, x: Tensor) -> Tensor:
    net.last.append(float(x.detach().mean()))
    return x * (1 + sum(net.last))


def of_the_step_before(net: Any, x: Tensor) -> Tensor:
    before, net.hidden = net.hidden, x.detach().mean(0)
    return x if before is None else x + 0.1 * before


def freezing_a_mode(net: Any, x: Tensor) -> Tensor:
    net.calls += net.training
    return x * (1.5 if net.calls < 2 else 1.0)


def a_helper(net: Any, x: Tensor) -> Tensor:
    return x * (1 + 0.01 * count())


def a_generator(net: Any, x: Tensor) -> Tensor:
    return x * draw()


MATTERS = [counting, in_a_list, of_the_step_before, freezing_a_mode, a_helper, a_generator]


@pytest.mark.parametrize("before", MATTERS, ids=lambda before: before.__name__)
def test_an_attribute_that_matters_in_the_next_step_makes_it_none(
    before: Callable[[Any, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = run("sequential", [task_of(monkeypatch, before)], pause=Always())
    assert checkpoints(records) == []
    told = [record for record in records if isinstance(record, NoCheckpoint)]
    assert len(told) == 12
    assert "something that it keeps is not in its state_dict()" in told[0].why


def a_log(net: Any, x: Tensor) -> Tensor:
    net.last.append(float(x.detach().mean()))
    return x


def with_a_graph(net: Any, x: Tensor) -> Tensor:
    net.hidden = net.head(x).sum() if net.training else net.hidden
    return x


def in_place(net: Any, x: Tensor) -> Tensor:
    return x.mul_(1.01)


@pytest.mark.parametrize("before", [a_log, with_a_graph, in_place], ids=lambda b: b.__name__)
def test_what_does_not_matter_is_no_hindrance(
    before: Callable[[Any, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_continues(
        "sequential", lambda: [task_of(monkeypatch, before)], lambda step: step % 4 == 1
    )


# Data that declare a state.


class Counted:
    """Something with a number, and a state that is this number."""

    number = 0

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


class Samples(Counted, Dataset[Any]):
    """Samples with noise that depends on how many were read."""

    def __len__(self) -> int:
        return 45

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.number += 1
        return torch.arange(16) * 0.01 * index + 0.1 * (self.number % 7), index % CLASSES


class Generated(Dataset[Any]):
    """Samples with noise of a generator of their own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 45

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.arange(16) * 0.01 * index + self.rng.random(), index % CLASSES

    def state_dict(self) -> dict[str, Any]:
        state = self.rng.bit_generator.state
        return {**state, "state": {name: str(n) for name, n in state["state"].items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        numbers = {name: int(n) for name, n in state["state"].items()}
        self.rng.bit_generator.state = {**state, "state": numbers}


class Plain(Dataset[Any]):
    def __len__(self) -> int:
        return 45

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.arange(16) * 0.01 * index, index % CLASSES


class Stream(Counted, IterableDataset[Any]):
    """Another stream in each pass."""

    def __iter__(self) -> Iterator[Any]:
        self.number += 1
        for index in range(45):
            yield torch.full((16,), 0.01 * index * self.number), index % CLASSES


class Order(Counted, Sampler[int]):
    """Another order in each pass."""

    def __len__(self) -> int:
        return 45

    def __iter__(self) -> Iterator[int]:
        self.number += 1
        generator = torch.Generator().manual_seed(self.number)
        return iter(torch.randperm(45, generator=generator).tolist())


class Batched(Counted, BatchSampler):
    """Another order of batches in each pass."""

    def __iter__(self) -> Iterator[list[int]]:
        self.number += 1
        return iter([*super().__iter__()][self.number % 3 :])


class Loader(Counted, DataLoader[Any]):
    """Leaves out more batches in each pass."""

    def __iter__(self) -> Any:
        self.number += 1
        yield from [*super().__iter__()][self.number % 3 :]


class Collate(Counted):
    def __call__(self, samples: Any) -> Any:
        self.number += 1
        inputs, targets = default_collate(samples)
        return inputs + 0.1 * self.number, targets


MADE: dict[str, Callable[[], Any]] = {
    "a dataset": lambda: DataLoader(Samples(), 8),
    "a dataset without a loader": Samples,
    "a part of a dataset": lambda: torch.utils.data.Subset(Samples(), range(40)),
    "a generator": lambda: DataLoader(Generated(), 8, shuffle=True),
    "a stream": Stream,
    "a stream in a loader": lambda: DataLoader(Stream(), 8),
    "a sampler": lambda: DataLoader(Plain(), 8, sampler=Order()),
    "a batch sampler": lambda: DataLoader(Plain(), batch_sampler=Batched(SequentialSampler(range(45)), 8, drop_last=True)),
    "a loader": lambda: Loader(Plain(), 8),
    "a collate function": lambda: DataLoader(Plain(), 8, collate_fn=Collate()),
    "a sampler and a dataset": lambda: DataLoader(Samples(), 8, sampler=Order()),
}  # fmt: skip


def task_on(made: Any, val: Any = None, **options: Any) -> Task:
    options = options if isinstance(made, DataLoader) else {"batch_size": 8, **options}
    split = data_from_objects((made, val), **options).to(CPU, torch.float32)
    return make_task(
        "MLP",
        dtype=torch.float32,
        train=split.train,
        val=split.val,
        eval_every=0 if val is None else 3,
        total_steps=14,
    )


@pytest.mark.parametrize("name", MADE)
def test_what_data_declare_is_put_back(name: str) -> None:
    make = MADE[name]
    assert_continues("sequential", lambda: [task_on(make())], lambda step: step in (2, 5, 8, 13))


@pytest.mark.parametrize("name", ["a dataset", "a sampler"])
def test_what_data_declare_is_put_back_in_a_stack(name: str) -> None:
    make = MADE[name]
    assert_continues("vectorized", lambda: [task_on(make())], lambda step: step in (2, 8))


def test_evaluations_may_read_the_same_data() -> None:
    def tasks() -> list[Task]:
        samples = Samples()
        return [task_on(DataLoader(samples, 8), DataLoader(samples, 8, sampler=Order()))]

    assert_continues("sequential", tasks, lambda step: step in (2, 5, 8, 13))


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("name", MADE)
def test_every_trial_begins_with_the_same_data(name: str, engine: str) -> None:
    task = task_on(MADE[name]())
    other = replace(task, trial=replace(task.trial, variant="b"))
    once = rows(run(engine, [task]))[task.trial]
    first, second = rows(run("sequential", [task, other])).values()
    assert first == second
    assert [row[:2] for row in once] == [row[:2] for row in first]


class Odd(Samples):
    def state_dict(self) -> dict[str, Any]:
        return {"number": [self, self.number]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"][1]


class OddOrder(Order):
    state_dict, load_state_dict = Odd.state_dict, Odd.load_state_dict


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize(
    "options", [{"dataset": Odd()}, {"dataset": Plain(), "sampler": OddOrder()}]
)
def test_a_state_of_data_that_no_file_can_hold(options: dict[str, Any], engine: str) -> None:
    records = run(engine, [task_on(DataLoader(batch_size=8, **options))], pause=Always())
    assert checkpoints(records) == []
    assert {r.why for r in records if isinstance(r, NoCheckpoint)} >= {
        f"a checkpoint cannot hold a {type(options.get('sampler', options['dataset'])).__name__}"
    }
    assert not any(isinstance(record, Failed) for record in records)


def test_data_without_a_state_are_continued() -> None:
    assert_continues("sequential", lambda: [task_on(Plain())], lambda step: step % 3 == 0)
    shuffled = DataLoader(Plain(), 8, shuffle=True)
    assert_continues("sequential", lambda: [task_on(shuffled)], lambda step: step % 3 == 0)
    with_workers = task_on(DataLoader(Samples(), 8, num_workers=1))
    assert_continues("sequential", lambda: [with_workers], lambda step: step == 3)


def of_numpy(net: Any, x: Tensor) -> Tensor:
    net.last = np.zeros(1)
    return x


# That there is none is told now and then, not at every moment.


def test_the_next_try_waits_for_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    seldom = Pause(checkpoint_seconds=1e9)
    records = run("sequential", [task_of(monkeypatch, of_numpy)], pause=seldom)
    assert not [record for record in records if isinstance(record, NoCheckpoint)]


# What is raised while a stop is requested, and what is no Exception.


class Oddity(BaseException):
    pass


@pytest.mark.parametrize("error", [RuntimeError("a worker is gone"), Oddity(), SystemExit(3)])
@pytest.mark.parametrize("engine", BOTH)
def test_what_raises_while_it_stops_has_not_failed(engine: str, error: BaseException) -> None:
    waiting = Pause()

    def stop() -> None:
        waiting.requested = True
        raise error

    data = Raising(make_task().train, stop)
    tasks = [make_task(variant=v, total_steps=20, train=data) for v in ("a", "b")]
    families(tasks)  # a step is tried before a stack begins
    data.nth, data.read = data.read + 3 if engine == "vectorized" else 9, 0
    records = run(engine, tasks, pause=waiting)
    assert isinstance(records[-1], Interrupted)
    assert not [record for record in records if isinstance(record, Failed)]
    started = {record.trial for record in records if isinstance(record, Started)}
    assert len(started) == (2 if engine == "vectorized" else 1)
    assert set(records[-1].trials) == started


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated."),
        EOFError(),  # torch's error was raised, and dropped, where an object was cleared away
        ConnectionResetError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_loader_killed_right_before_the_signal_comes(error: Exception) -> None:
    class Late(Pause):
        @property
        def requested(self) -> bool:
            self.asked = getattr(self, "asked", 0) + (calls >= 3)
            return self.asked > 5

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    calls = 0

    def die() -> None:
        nonlocal calls
        calls = 3
        raise error

    task = make_task(train=Raising(make_task().train, die, 3, workers=1), eval_every=0, val=None)
    records = run("sequential", [task], pause=Late())
    assert isinstance(records[-1], Interrupted)


def test_a_loader_killed_and_no_signal() -> None:
    """Somebody killed it alone, or memory ran out: that is the trial's failure."""
    task = make_task(train=Raising(make_task().train, end_of_file, 1, workers=1), eval_every=0)
    records = run("sequential", [task], pause=Pause(signal_seconds=0.05))
    assert isinstance(records[-1], Failed)


def end_of_file() -> None:
    raise EOFError


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone", "a.png"), EOFError()])
@pytest.mark.parametrize("engine", BOTH)
def test_without_processes_that_load_data_no_signal_is_waited_for(
    engine: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(Pause, "is_coming", lambda pause: pytest.fail("it waits"))
    tasks = [
        make_task(variant=v, total_steps=3, objective=of_pairs(loss), val=None, eval_every=0)
        for v in "ab"
    ]
    records = run(engine, tasks, pause=Pause())
    assert [r.error for r in records if isinstance(r, Failed)] == [error, error]


def test_what_a_dataset_raises_in_a_process_is_no_killed_process() -> None:
    class Broken(Samples):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            raise RuntimeError("no pixel")

    loader = DataLoader(Broken(), 8, num_workers=1)
    with pytest.raises(RuntimeError, match="DataLoader worker") as caught:
        next(iter(loader))
    assert not is_of_loader(caught.value)
    caught.value.__traceback__ = None  # it holds on to processes that nobody would tell to end


@pytest.mark.parametrize(
    ("make", "workers"),
    [
        (lambda: task_on(Samples()), 0),
        (lambda: task_on(Samples(), workers=2), 2),
        (lambda: task_on(Stream(), workers=2), 2),
        (lambda: task_on(DataLoader(Samples(), 8)), 0),
        (lambda: task_on(DataLoader(Samples(), 8, num_workers=1)), 1),
        (make_task, 0),
    ],
    ids=["dataset", "dataset, 2", "iterable, 2", "loader", "loader, 1", "tensors"],
)
def test_data_say_which_processes_load_them(make: Callable[[], Task], workers: int) -> None:
    task = make()
    assert (task.train.workers, task.has_loader_processes) == (workers, workers > 0)
    only_val = replace(make_task(), val=task.train)
    assert only_val.has_loader_processes == (workers > 0)


@pytest.mark.parametrize("follows", [True, False])
def test_what_torch_raises_of_a_killed_loader_where_exceptions_are_dropped(
    follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cleared:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def __del__(self) -> None:
            raise self.error

    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda told_: told.append(str(told_.exc_value)))
    waiting = Pause(signal_seconds=10.0 if follows else 0.05)  # it looks many times a second
    loader = "DataLoader worker (pid 7) is killed by signal: Terminated."
    with quiet_loaders(waiting):
        if follows:
            threading.Timer(0.05, setattr, (waiting, "requested", True)).start()
        Cleared(RuntimeError(loader))
        Cleared(RuntimeError("another"))  # told as ever
    assert told == ([] if follows else [loader]) + ["another"]
    assert waiting.requested == follows


@pytest.mark.parametrize("engine", BOTH)
def test_whatever_user_code_raises_is_the_failure_of_its_trial(engine: str) -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        raise Oddity

    good = make_task(variant="good", total_steps=3)
    bad = replace(make_task(variant="bad", total_steps=3), objective=of_pairs(loss), kind="bad")
    records = run(engine, [bad, good])
    assert [r.trial.variant for r in records if isinstance(r, Failed)] == ["bad"]
    assert rows(records).keys() >= {good.trial}
    with pytest.raises(KeyboardInterrupt):
        run(engine, [replace(bad, objective=of_pairs(interrupting))])


def interrupting(output: Tensor, target: Tensor) -> Tensor:
    raise KeyboardInterrupt
