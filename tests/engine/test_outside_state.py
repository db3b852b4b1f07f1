"""State outside of tensors: what a checkpoint holds of it, and what makes it none."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from engine import counters
from engine.counters import count, count_in_a_class, count_inside, draw
from engine.resuming import Always, Raising, assert_continues, checkpoints, rows, run
from engine.small_tasks import CLASSES, CPU, NETS, make_task
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, default_collate

from lrexp.engine.stop import Pause, is_of_loader
from lrexp.engine.task import Task
from lrexp.engine.vectorized.copies import families
from lrexp.records import Failed, Interrupted, NoCheckpoint, Started
from lrexp.runs.signals import quiet_loaders
from lrexp.workloads.loading import data_from_objects

BOTH = ["sequential", "vectorized"]


class Net(nn.Module):
    """A linear layer behind what `before` does with this and the input."""

    def __init__(self, before: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.before = nn.Linear(16, CLASSES), before
        self.register_buffer("kept", torch.zeros(()))
        self.calls, self.rate, self.last, self.word = 0, 0.0, [0.0], ""
        self.log: dict[str, Any] = {"losses": []}
        self.hidden: Any = None
        self.other: Any = None

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.before(self, x))
        return result


def task_of(monkeypatch: pytest.MonkeyPatch, before: Callable[[Any, Tensor], Any]) -> Task:
    monkeypatch.setitem(NETS, before.__name__, lambda: Net(before))
    return make_task(before.__name__, "Adam", total_steps=14, eval_every=5)


# Attributes of modules.


def counting(net: Any, x: Tensor) -> Tensor:
    net.calls, net.rate, net.word = net.calls + 1, net.rate + 0.1, net.word + "x"
    return x * (1 + 0.01 * net.calls + net.rate + len(net.word))


def in_a_list(net: Any, x: Tensor) -> Tensor:
    net.last.append(float(x.detach().mean()))
    return x * (1 + sum(net.last))


def in_a_new_list(net: Any, x: Tensor) -> Tensor:
    net.last = [*net.last, float(x.detach().mean())][-3:]
    return x * (1 + sum(net.last))


def in_a_dict(net: Any, x: Tensor) -> Tensor:
    net.log["losses"].append((net.calls, x.detach().mean()))
    return x + sum(value for _, value in net.log["losses"])


def of_the_step_before(net: Any, x: Tensor) -> Tensor:
    before, net.hidden = net.hidden, x.detach().mean(0)
    return x if before is None else x + 0.1 * before


def initialised_by_data(net: Any, x: Tensor) -> Tensor:
    if net.calls == 0:
        net.kept.copy_(x.detach().mean())
        net.calls = 1
    return x - net.kept


def freezing_a_mode(net: Any, x: Tensor) -> Tensor:
    net.calls += net.training
    net.head.train(net.calls < 6)
    return x * (1.5 if net.head.training else 1.0)


HELD = [counting, in_a_list, in_a_new_list, in_a_dict, of_the_step_before, initialised_by_data, freezing_a_mode]  # fmt: skip


@pytest.mark.parametrize("before", HELD, ids=lambda before: before.__name__)
def test_plain_attributes_are_put_back(
    before: Callable[[Any, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_continues(
        "sequential", lambda: [task_of(monkeypatch, before)], lambda step: step % 4 == 1
    )


@pytest.mark.long
@pytest.mark.parametrize("before", HELD, ids=lambda before: before.__name__)
def test_plain_attributes_are_put_back_at_every_step(
    before: Callable[[Any, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_continues("sequential", lambda: [task_of(monkeypatch, before)])


def two_names(net: Any, x: Tensor) -> Tensor:
    net.other = net.last
    net.last[0] += 1
    return x * net.other[0]


def a_view_of_a_parameter(net: Any, x: Tensor) -> Tensor:
    net.hidden = net.head.weight.detach()[0]
    return x + net.hidden


def two_views(net: Any, x: Tensor) -> Tensor:
    net.hidden = x.detach().mean(0)
    net.other = net.hidden[:4]
    return x


def with_a_graph(net: Any, x: Tensor) -> Tensor:
    net.hidden = net.head(x).sum() if net.training else net.hidden
    return x


def in_a_deque(net: Any, x: Tensor) -> Tensor:
    net.other = net.other or deque(maxlen=3)
    net.other.append(1)
    return x


def of_numpy(net: Any, x: Tensor) -> Tensor:
    net.rate = np.float64(net.rate) + 1
    return x


# Globals, which every trial of the process sees.


def a_helper(net: Any, x: Tensor) -> Tensor:
    return x * (1 + 0.01 * count())


def a_helper_of_a_module(net: Any, x: Tensor) -> Tensor:
    return x * (1 + 0.01 * counters.count())


def a_function_in_a_helper(net: Any, x: Tensor) -> Tensor:
    return x * (1 + 0.01 * count_inside())


def a_variable_of_a_module(net: Any, x: Tensor) -> Tensor:
    counters.calls += 1
    return x * (1 + 0.01 * counters.calls)


def a_class(net: Any, x: Tensor) -> Tensor:
    return x * (1 + 0.01 * count_in_a_class())


def a_generator(net: Any, x: Tensor) -> Tensor:
    return x * draw()


OUTLIVES = [a_helper, a_helper_of_a_module, a_function_in_a_helper, a_variable_of_a_module, a_class, a_generator]  # fmt: skip
NOT_HELD = [two_names, a_view_of_a_parameter, two_views, with_a_graph, in_a_deque, of_numpy, *OUTLIVES]  # fmt: skip


@pytest.mark.parametrize("before", NOT_HELD, ids=lambda before: before.__name__)
def test_what_could_not_be_put_back_has_no_checkpoint(
    before: Callable[[Any, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = run("sequential", [task_of(monkeypatch, before)], pause=Always())
    assert checkpoints(records) == []
    told = [record for record in records if isinstance(record, NoCheckpoint)]
    assert len(told) == 13
    assert "training changes" in told[0].why
    assert ("outlives the trial" in told[0].why) == (before in OUTLIVES)


class Method(nn.Linear):
    """Counts in a method that forward calls."""

    def __init__(self) -> None:
        super().__init__(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.scaled(x))

    def scaled(self, x: Tensor) -> Tensor:
        return x * count()


def test_methods_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETS, "method", Method)
    records = run("sequential", [make_task("method", total_steps=5)], pause=Always())
    assert checkpoints(records) == []


# Data.


class Samples(Dataset[Any]):
    """Samples with whatever `noise` adds."""

    def __init__(self, noise: Callable[[Any], float] = lambda data: 0.0) -> None:
        self.noise, self.calls = noise, 0
        self.rng, self.random = np.random.default_rng(0), random.Random(0)
        self.values, self.names = torch.linspace(0, 1, 45), [str(i) for i in range(100_000)]

    def __len__(self) -> int:
        return 45

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.values[index] + torch.arange(16) * 0.1 + self.noise(self), index % CLASSES


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __iter__(self) -> Iterator[Any]:
        for index in range(45):
            yield torch.full((16,), self.rng.random()), index % CLASSES


class Order(Sampler[int]):
    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 45

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter(torch.randperm(45, generator=torch.Generator().manual_seed(self.passes)).tolist())  # fmt: skip


class Collate:
    calls = 0

    def __call__(self, samples: Any) -> Any:
        self.calls += 1
        return default_collate(samples)


def counted(data: Any) -> float:
    data.calls += 1
    return float(data.calls)


DRAWN = {"of its own": lambda d: d.rng.random(), "of Python": lambda d: d.random.random(), "a counter": counted, "of a module": lambda d: draw()}  # fmt: skip
CHANGED: dict[str, tuple[Callable[[], Any], str]] = {
    **{name: (lambda noise=noise: DataLoader(Samples(noise), 8), "its dataset") for name, noise in DRAWN.items()},
    "without a loader": (lambda: Samples(DRAWN["of its own"]), "`rng` of its dataset"),
    "a stream": (Stream, "`rng` of its dataset"),
    "a sampler": (lambda: DataLoader(Samples(), 8, sampler=Order()), "`passes` of its sampler"),
    "a collate function": (lambda: DataLoader(Samples(), 8, collate_fn=Collate()), "`calls` of its collate function"),
}  # fmt: skip


def task_on(made: Any, **options: Any) -> Task:
    options = options if isinstance(made, DataLoader) else {"batch_size": 8, **options}
    split = data_from_objects((made, None), **options).to(CPU, torch.float32)
    return make_task(
        "MLP", dtype=torch.float32, train=split.train, val=None, eval_every=0, total_steps=7
    )


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("name", CHANGED)
def test_data_that_change_have_no_checkpoint(name: str, engine: str) -> None:
    make, why = CHANGED[name]
    records = run(engine, [task_on(make())], pause=Always())
    told = [record for record in records if isinstance(record, NoCheckpoint)]
    assert why in told[-1].why
    assert "outlives the trial" in told[-1].why
    # its first pass gives away nothing of a sampler that counts them
    assert len(checkpoints(records)) + len(told) == 6


def test_data_in_processes_that_live_on_have_no_checkpoint() -> None:
    for task, why in (
        (task_on(DataLoader(Samples(), 8, num_workers=1, persistent_workers=True)), "persistent"),
        (task_on(Samples(), workers=1), "random numbers of its own"),
    ):
        *_, interrupted = run("sequential", [task], pause=Always(stop_at=2))
        assert isinstance(interrupted, Interrupted)
        assert why in str(interrupted.why)


def test_data_that_do_not_change_are_continued() -> None:
    assert_continues("sequential", lambda: [task_on(Samples())])
    assert_continues("sequential", lambda: [task_on(DataLoader(Samples(), 8, shuffle=True))])
    with_workers = task_on(DataLoader(Samples(DRAWN["of its own"]), 8, num_workers=1))
    assert_continues("sequential", lambda: [with_workers], lambda step: step == 3)


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
    families(tasks)  # their first steps are tried before a stack begins
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
    tasks = [make_task(variant=v, total_steps=3, loss=loss, val=None, eval_every=0) for v in "ab"]
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
    bad = replace(make_task(variant="bad", total_steps=3), loss=loss, kind="bad")
    records = run(engine, [bad, good])
    assert [r.trial.variant for r in records if isinstance(r, Failed)] == ["bad"]
    assert rows(records).keys() >= {good.trial}
    with pytest.raises(KeyboardInterrupt):
        run(engine, [replace(bad, loss=interrupting)])


def interrupting(output: Tensor, target: Tensor) -> Tensor:
    raise KeyboardInterrupt
