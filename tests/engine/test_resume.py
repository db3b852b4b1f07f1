"""A training that is stopped and continued gives, bit for bit, what it gives without a stop."""

from __future__ import annotations

import copy
import gc
import math
import multiprocessing
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from engine.resume_cases import (
    BOTH,
    STEPS,
    at_some,
    goes_on_somewhere,
    pair,
    short,
)
from engine.resuming import (
    Always,
    assert_continues,
    checkpoints,
    resumed,
    rows,
    run,
)
from engine.small_tasks import CLASSES, CPU, NETS, data
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lrexp.analysis.stopping import DivergenceStop
from lrexp.engine import state as states
from lrexp.engine.engines import ENGINES
from lrexp.engine.state import MisfitError
from lrexp.engine.step import Position
from lrexp.engine.stop import Pause
from lrexp.engine.task import Task
from lrexp.records import Ended, Interrupted, NoCheckpoint, Started, Steps, TrialId
from lrexp.schedules.schedule import Schedule
from lrexp.workloads.loading import data_from_objects
from lrexp.workloads.losses import over_tokens
from lrexp.workloads.objectives import of_pairs
from lrexp.workloads.optimizers import make_optimizer


@pytest.mark.parametrize("engine", BOTH)
def test_a_stop_is_requested_at_every_step(engine: str) -> None:
    def tasks() -> list[Task]:
        return [short("MLP", "AdamW", total_steps=6)]

    straight = run(engine, tasks())
    for step in range(1, 6) if engine == "sequential" else (1, 5):
        stopped = run(engine, tasks(), pause=Always(stop_at=step))
        *_, checkpoint, interrupted = stopped
        assert checkpoint == checkpoints(stopped)[-1]
        assert interrupted == Interrupted((TrialId("a", 0),))
        assert not any(isinstance(record, Ended) for record in stopped)
        rest = resumed(engine, tasks(), checkpoint)
        assert isinstance(rest[0], Started)
        both = [r for r in (*stopped, *rest) if not isinstance(r, Interrupted)]
        assert rows(both) == rows(straight)


class Layered(nn.Module):
    """A linear layer behind whatever `before` does: (module, input) -> input."""

    def __init__(self, before: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.before = nn.Linear(16, CLASSES), before
        self.register_buffer("kept", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("mask", torch.ones(1).expand(2), persistent=False)
        self.calls, self.last = 0, [0.0]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.before(self, x))


def replaced(module: Any, x: Tensor) -> Tensor:
    module.kept = module.kept + 0.01
    return x * (1 + module.kept)


def registered(module: Any, x: Tensor) -> Tensor:
    if module.training:
        mean = x.detach().mean(0)
        module.register_buffer("seen", getattr(module, "seen", torch.zeros_like(mean)) + mean)
    return x + getattr(module, "seen", 0.0)


BUFFERS: dict[str, tuple[Callable[[Any, Tensor], Tensor], list[str]]] = {
    "counts in a buffer": (lambda module, x: x * (1 + 0.01 * module.kept.add_(1)), BOTH),
    "noise of torch": (lambda module, x: x + torch.randn_like(x) * module.training, BOTH),
    "noise and dropout": (lambda module, x: functional.dropout(x, 0.3) + torch.rand_like(x), BOTH),
    "noise of Python": (lambda module, x: x * (1 + random.random()), ["sequential"]),
    "noise of NumPy": (lambda module, x: x * np.random.randn(), ["sequential"]),  # noqa: NPY002
    "replaces a buffer": (replaced, ["sequential"]),
    "makes a buffer": (registered, ["sequential"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "engine"), [(kind, engine) for kind, (_, engines) in BUFFERS.items() for engine in engines]
)  # fmt: skip
def test_models_with_buffers_and_random_numbers(
    kind: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETS, kind, lambda: Layered(BUFFERS[kind][0]))
    goes_on_somewhere(engine, lambda: pair(kind, "Adam"))


@pytest.mark.long
@pytest.mark.parametrize(("kind"), BUFFERS)
def test_models_with_buffers_and_random_numbers_at_every_step(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETS, kind, lambda: Layered(BUFFERS[kind][0]))
    assert_continues("sequential", lambda: pair(kind, "Adam"))


UNSTACKED = [
    (torch.optim.NAdam, {}),
    (torch.optim.ASGD, {"t0": 3}),
    (torch.optim.Rprop, {}),
    (torch.optim.Adadelta, {}),
    (torch.optim.Adamax, {}),
    (torch.optim.SGD, {"momentum": 0.9, "foreach": True}),
    (torch.optim.Adam, {"foreach": False}),
]


WAYS = [*product(UNSTACKED, [torch.float32, torch.float64], [False])]
WAYS_LONG = [
    pytest.param(*row, marks=pytest.mark.long)
    for row in product(UNSTACKED, [torch.float32, torch.float64], [True])
]


@pytest.mark.parametrize(("of_torch", "dtype", "at_every_step"), [*WAYS, *WAYS_LONG])
def test_optimizers_of_torch(
    of_torch: tuple[type[torch.optim.Optimizer], dict[str, Any]],
    dtype: torch.dtype,
    at_every_step: bool,
) -> None:
    optimizer, args = of_torch

    def tasks() -> list[Task]:
        task = short("MLP", dtype=dtype)

        def build() -> tuple[nn.Module, torch.optim.Optimizer]:
            model, _ = task.build()
            return model, make_optimizer(optimizer, model, lr=task.base_lr, args=args)

        return [replace(task, build=build)]

    assert_continues("sequential", tasks, lambda step: at_every_step or at_some(step))


class Extra(nn.Linear):
    """Keeps a number that it declares as extra state."""

    def __init__(self) -> None:
        super().__init__(16, CLASSES)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(x * (1 + 0.01 * self.calls))

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


def test_extra_state_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETS, "extra", Extra)
    assert_continues("sequential", lambda: pair("extra", "Adam"), at_some)


class Smoothed(nn.Module):
    """A loss that scales itself by an average over the steps so far."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.ones((), dtype=torch.float64))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        loss = functional.cross_entropy(output, target)
        self.average.mul_(0.9).add_(loss.detach(), alpha=0.1)
        return loss / self.average


class Declared:
    """A loss that is no module and says what it keeps."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        return functional.cross_entropy(output, target) / self.calls

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


class Tokens(nn.Linear):
    """Logits of one token for each sample."""

    def __init__(self) -> None:
        super().__init__(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).unsqueeze(1)


@pytest.mark.parametrize("make", [Smoothed, Declared])
def test_losses_with_a_state(make: Callable[[], Any]) -> None:
    assert_continues("sequential", lambda: [short("MLP", objective=of_pairs(make()))], at_some)


@pytest.mark.parametrize("make", [Smoothed, Declared])
def test_losses_of_tokens_with_a_state(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETS, "tokens", Tokens)
    split = data(torch.float64)
    inputs, targets = (torch.cat(parts) for parts in zip(*split.train.in_order(), strict=True))
    tokens = data_from_objects(((inputs, targets[:, None]), None), batch_size=8)
    train = tokens.to(CPU, torch.float64).train

    def tasks() -> list[Task]:
        changes = {"train": train, "val": None, "count_correct": None, "eval_every": 0}
        return [short("tokens", objective=of_pairs(over_tokens(make())), **changes)]

    assert_continues("sequential", tasks, at_some)


def test_a_loss_with_buffers_in_a_stack() -> None:
    goes_on_somewhere("vectorized", lambda: pair("MLP", objective=of_pairs(Smoothed())))


class Noisy(Dataset[Any]):
    """Augments its samples with the random numbers of Python and torch."""

    def __len__(self) -> int:
        return 45

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x = torch.linspace(0, index, 16) / 45 + 0.1 * torch.rand(16) + 0.1 * random.random()
        return x, index % CLASSES


class Endless(IterableDataset[Any]):
    """As many samples in each pass, and none that says how many."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        for index in range(45):
            yield torch.linspace(0, index, 16) / 45 + 0.1 * torch.rand(16), index % CLASSES


def loader(**options: Any) -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(45, 16, generator=generator), torch.arange(45) % CLASSES
    return lambda: DataLoader(TensorDataset(x, y), 8, **options)


DATA: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "an iterable without length": (Endless, {"batch_size": 8}),
    "a DataLoader": (loader(shuffle=True, drop_last=True), {}),
    "a DataLoader with a short batch": (loader(), {}),
    "a DataLoader that augments": (lambda: DataLoader(Noisy(), 8, shuffle=True), {}),
    "a dataset that augments": (Noisy, {"batch_size": 8}),
}


def tasks_on(made_data: Any, options: dict[str, Any], **changes: Any) -> list[Task]:
    split = data_from_objects((made_data, None), **options).to(CPU, torch.float32)
    changes = {"train": split.train, "val": None, "accumulate": 2, **changes}
    return pair("dropout", dtype=torch.float32, **changes)


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("name", DATA)
def test_data_of_every_kind(name: str, engine: str) -> None:
    make, options = DATA[name]
    goes_on_somewhere(engine, lambda: tasks_on(make(), options))


@pytest.mark.long
@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("name", DATA)
def test_data_of_every_kind_at_many_steps(name: str, engine: str) -> None:
    make, options = DATA[name]
    assert_continues(engine, lambda: tasks_on(make(), options), lambda step: step % 2 == 0)


@pytest.mark.parametrize(
    ("engine", "steps"),
    [
        ("sequential", {5}),
        ("vectorized", {2}),
        *(pytest.param(engine, {1, 2, 5}, marks=pytest.mark.long) for engine in BOTH),
    ],
)
def test_a_dataset_read_by_workers(engine: str, steps: set[int]) -> None:
    tasks = tasks_on(Noisy(), {"batch_size": 8, "workers": 2}, total_steps=8, eval_every=3)
    assert_continues(engine, lambda: tasks, lambda step: step in steps)


@pytest.mark.parametrize("engine", BOTH)
def test_processes_that_load_data_end_with_the_training(engine: str) -> None:
    """The garbage collector, if it has to find them, waits for each of them for five seconds."""
    data = (Noisy(), {"batch_size": 8, "workers": 2})
    gc.collect()
    before = set(multiprocessing.active_children())
    gc.disable()
    try:
        run(engine, tasks_on(*data, total_steps=8, eval_every=3), pause=Always(stop_at=3))
        assert not set(multiprocessing.active_children()) - before
    finally:
        gc.enable()


def test_frozen_and_tied_parameters() -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layers = [nn.Linear(16, 16) for _ in range(3)]
        layers[2].weight = layers[1].weight
        layers[0].requires_grad_(False)
        model = nn.Sequential(*layers, nn.Linear(16, CLASSES)).double()
        return model, make_optimizer(torch.optim.AdamW, model, lr=0.01, args={})

    for engine in BOTH:
        goes_on_somewhere(engine, lambda: [replace(short(), build=build, kind="tied")])


# What no checkpoint can hold: such trials begin anew.


def freezing(module: Any, x: Tensor) -> Tensor:
    module.head.bias.requires_grad_(bool(module.count.add_(1) < 4))
    return x


def hidden(module: Any, x: Tensor) -> Tensor:
    return x * (1 + 0.01 * module.count.add_(1))


class Warming(torch.optim.SGD):
    """Takes smaller steps at first."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        for group in self.param_groups:
            group["weight_decay"] = 1.0 / self.steps
        return super().step(closure)


def apply(output: Tensor, target: Tensor, loss: Any) -> Tensor:
    result: Tensor = loss[0]["deep"][0][0][0](output, target)
    return result


class Averaged:
    """A loss that keeps a tensor where nobody looks after it."""

    def __init__(self) -> None:
        self.average = torch.ones((), dtype=torch.float64)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        loss = functional.cross_entropy(output, target)
        self.average = 0.9 * self.average + 0.1 * loss.detach()
        return loss / self.average


class Counted:
    """A loss that counts its calls, two objects away from what is called."""

    def __init__(self) -> None:
        self.inside: list[Any] = [0] * 500
        self.self = self

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.inside[250] += 1
        return functional.cross_entropy(output, target) / self.inside[250]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self(output, target)


def counted_loss() -> Callable[[Tensor, Tensor], Tensor]:
    calls = 0

    def loss(output: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return functional.cross_entropy(output, target) / calls

    return loss


class Unsaved:
    """A controller whose state is no plain value."""

    monitor = "loss"

    def init(self) -> Any:
        return object()

    def lr(self, state: Any, step: int) -> float:
        return 0.01

    def observe(self, state: Any, step: int, value: float) -> Any:
        return state

    def to_plain(self, state: Any) -> dict[str, Any]:
        return {"state": state}

    def from_plain(self, plain: Any) -> Any:
        return plain["state"]


def with_optimizer() -> Task:
    task = short("MLP")

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model, _ = task.build()
        return model, Warming(model.parameters(), lr=task.base_lr)

    return replace(task, build=build)


def with_hook() -> Task:
    task = short("MLP")

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model, _ = task.build()
        seen: list[int] = []
        model[0].register_forward_hook(lambda m, x, y: seen.append(1) or y * len(seen))
        return model, make_optimizer(torch.optim.SGD, model, lr=task.base_lr, args={})

    return replace(task, build=build)


ANOTHER = "took another step"
UNCAPTURABLE: dict[str, tuple[Callable[[], Task], str]] = {
    "freezing": (lambda: short("freezing"), ANOTHER),
    "a count in a buffer that no file keeps": (lambda: short("hidden"), ANOTHER),
    "a loss that counts": (lambda: short("MLP", objective=of_pairs(counted_loss())), ANOTHER),
    "a loss with a tensor": (lambda: short("MLP", objective=of_pairs(Averaged())), ANOTHER),
    "a loss that counts deep inside": (
        lambda: short("MLP", objective=of_pairs(partial(apply, loss=[{"deep": [[[Counted()]]]}]))), ANOTHER,
    ),
    "a method that counts": (lambda: short("MLP", objective=of_pairs(Counted().loss)), ANOTHER),
    "a loss in a closure": (lambda: short("MLP", objective=of_pairs(in_a_closure())), ANOTHER),
    "a controller": (lambda: short("MLP", schedule=Unsaved()), "hold a object"),
    "an optimizer that counts": (with_optimizer, ANOTHER),
    "a hook that counts": (with_hook, ANOTHER),
    "extra state of another kind": (lambda: short("opaque"), "cannot hold a deque"),
    "a state that cannot be loaded": (lambda: short("stubborn"), "could not be restored"),
}  # fmt: skip


def in_a_closure() -> Callable[[Tensor, Tensor], Tensor]:
    inner = Smoothed()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return inner(output, target)

    return loss


class Opaque(Extra):
    def get_extra_state(self) -> Any:
        return deque([self.calls])


class Stubborn(Extra):
    def set_extra_state(self, state: Any) -> None:
        raise ValueError("no")


@pytest.mark.parametrize("kind", UNCAPTURABLE)
def test_what_is_not_declared_has_no_checkpoint_and_is_not_disturbed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETS, "freezing", lambda: Layered(freezing))
    monkeypatch.setitem(NETS, "hidden", lambda: Layered(hidden))
    monkeypatch.setitem(NETS, "opaque", Opaque)
    monkeypatch.setitem(NETS, "stubborn", Stubborn)
    make, why = UNCAPTURABLE[kind]
    straight = run("sequential", [make()])
    watched = run("sequential", [make()], pause=Always())
    assert rows(watched) == rows(straight)
    assert checkpoints(watched) == []
    told = [record for record in watched if isinstance(record, NoCheckpoint)]
    assert len(told) >= STEPS - 2
    for stop_at in (1, 10):  # at the first that is due, and after one was refused
        *_, interrupted = run("sequential", [make()], pause=Always(stop_at=stop_at))
        assert isinstance(interrupted, Interrupted)
        assert why in str(interrupted.why)


def test_what_differs_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETS, "hidden", lambda: Layered(hidden))
    for make, name in ((lambda: short("hidden"), "loss"), (with_optimizer, "0.weight")):
        *_, interrupted = run("sequential", [make()], pause=Always(stop_at=1))
        assert f"({name} differs): something that it keeps is not in its" in interrupted.why


def test_a_copy_that_memory_has_no_room_for_is_not_missed() -> None:
    task, built = short("MLP"), []

    def build() -> Any:
        built.append(1)
        if len(built) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return task.build()

    records = run("sequential", [replace(task, build=build)], pause=Always())
    assert [c.step for c in checkpoints(records)] == list(range(2, STEPS))


def test_the_first_checkpoint_alone_is_checked() -> None:
    task, built = short("MLP"), []

    def build() -> Any:
        built.append(1)
        return task.build()

    assert checkpoints(run("sequential", [replace(task, build=build)], pause=Always()))
    assert len(built) == 2
    run("sequential", [replace(task, build=build)], pause=Pause())
    assert len(built) == 3


def test_a_stop_leaves_out_what_has_not_begun() -> None:
    tasks = pair("MLP")
    records = run("sequential", tasks, pause=Always(stop_at=3))
    assert {record.trial for record in records} == {tasks[0].trial}
    asked = Pause()
    asked.requested = True
    for engine in BOTH:
        assert run(engine, tasks, pause=asked) == []


@pytest.mark.parametrize("engine", BOTH)
def test_a_checkpoint_of_another_training_is_refused(engine: str) -> None:
    task = short("MLP")
    other = BOTH[1 - BOTH.index(engine)]
    state = checkpoints(run(engine, [task], pause=Always(stop_at=2)))[-1].state
    for changed, what in (
        ([replace(task, state=state)], f"it is of the {engine} engine"),
        ([replace(short("CNN"), state=state)], "other" if engine == "vectorized" else "parameters"),
    ):
        chosen = other if "engine" in what else engine
        records = []
        with pytest.raises(MisfitError, match=what):  # before anything that was written is touched
            records.extend(ENGINES[chosen](changed))
        assert records == []


@pytest.mark.parametrize("engine", BOTH)
def test_a_damaged_state_is_refused(engine: str) -> None:
    task = short("MLP")
    state = checkpoints(run(engine, [task], pause=Always(stop_at=2)))[-1].state
    for name in state.keys() - {"engine"}:
        damaged = {key: value for key, value in state.items() if key not in (name, "engine")}
        with pytest.raises(MisfitError, match="does not fit"):
            run(engine, [replace(task, state={"engine": engine, **damaged})])


def test_a_state_can_be_used_twice() -> None:
    for engine in BOTH:
        tasks = pair("CNN", "AdamW")[:1]
        state = checkpoints(run(engine, tasks, pause=Always(stop_at=5)))[-1].state
        before = copy.deepcopy(state)
        first, second = (rows(run(engine, tasks, state=state)) for _ in range(2))
        assert first == second
        assert torch.equal(
            torch.cat([t.flatten() for t in _tensors(before)]),
            torch.cat([t.flatten() for t in _tensors(state)]),
        )


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.double()]
    items = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list | tuple):
        return []
    return [tensor for item in items for tensor in _tensors(item)]


def test_checkpoints_come_by_the_clock() -> None:
    assert checkpoints(run("sequential", [short("MLP")], pause=Pause())) == []
    ever = Pause(checkpoint_seconds=0.0, most_share=math.inf)
    records = run("sequential", [short("MLP")], pause=ever)
    assert [c.step for c in checkpoints(records)] == list(range(2, STEPS))
    chunks = [record for record in records if isinstance(record, Steps)]
    assert sum(len(chunk.loss) for chunk in chunks) == STEPS


def test_dear_checkpoints_come_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    waiting = Pause()
    for seconds, wait in ((0.0, 60.0), (1.2, 60.0), (3.0, 150.0), (0.5, 60.0)):

        def capture(seconds: float = seconds / 2) -> dict[str, Any]:
            now[0] += seconds
            return {}

        for _ in states.checkpoint(waiting, (TrialId("a", 0),), 1, capture):
            now[0] += seconds / 2  # for it to be written
        now[0] += wait - 0.001
        assert not waiting.due()
        now[0] += 0.002
        assert waiting.due()


def test_the_time_before_a_checkpoint_counts() -> None:
    for engine in BOTH:
        task = short("MLP")
        state = checkpoints(run(engine, [task], pause=Always(stop_at=9)))[-1].state
        of_trial = state if engine == "sequential" else state["columns"][0]
        of_trial["seconds"] += 1000.0
        (end,) = [r for r in run(engine, [replace(task, state=state)]) if isinstance(r, Ended)]
        assert end.seconds > 1000


def test_a_training_far_above_its_start_at_the_end() -> None:
    """The rule needs the losses from before the checkpoint, and the last evaluation."""
    rise = Schedule(lr=lambda step: -2.0 if step > 20 else 0.01)
    for engine in BOTH:
        expected = assert_continues(
            engine,
            lambda: [short("MLP", "SGD", rise, stop=DivergenceStop(patience=1000))],
            lambda step: step in (13, 29),
        )
        assert expected[TrialId("a", 0)][-1] == ("end", STEPS, STEPS - 1)


@pytest.mark.parametrize(
    "spoiled",
    [torch.zeros(1), torch.zeros(3, 2), torch.zeros(()), torch.zeros(8, 16, dtype=torch.int64)],
)
@pytest.mark.parametrize(
    ("optimizer", "name"),
    [("SGD, momentum", "momentum_buffer"), ("AdamW", "exp_avg"), ("RMSprop", "square_avg")],
)
def test_states_that_kernels_would_read_beyond_are_refused(
    optimizer: str, name: str, spoiled: torch.Tensor
) -> None:
    """A fused kernel takes the sizes of the parameter for granted: it would overwrite memory."""
    task = short("MLP", optimizer, total_steps=4)
    state = checkpoints(run("sequential", [task], pause=Always(stop_at=2)))[-1].state
    states = state["objects"]["optimizer"]["state"]
    assert states[0][name].shape == (8, 16)
    states[0][name] = spoiled
    with pytest.raises(MisfitError, match=name):
        run("sequential", [task], state=state)


@pytest.mark.parametrize(
    "change",
    [
        {"step": 10**12},
        {"step": -1},
        {"step": 1.5},
        {"epoch_start": 99},
        {"epoch": None},
        {"more": 1},
    ],
)
def test_a_place_that_does_not_exist_is_refused(change: dict[str, Any]) -> None:
    plain = {"step": 5, "epoch": 1, "epoch_start": 3}
    assert Position.from_plain(plain, 10) == Position(5, 1, 3)
    with pytest.raises((ValueError, TypeError)):
        Position.from_plain(plain | change, 10)
